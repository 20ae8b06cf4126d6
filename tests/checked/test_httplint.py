"""httplint reads the headers of the feed's and the api's answers (RFC 9110, RFC 9111)."""

import re

import pytest
from checked.tool import Tool
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.keys import bearer
from end_to_end.kit.times import wait_until

TOOL = Tool("httplint", "headers of the feed and the api", pypi=("httplint",))

CALLS = {  # where each answer comes from, and what httplint has to say about caches
    "feed /v1/alerts.geojson": "FRESHNESS_FRESH",
    "feed /v1/feed.atom": "FRESHNESS_FRESH",
    "feed /v1/alerts.geojson?x=1": "STORE_NO_STORE",
    "feed /v1/cap/unknown.xml": "STORE_NO_STORE",
    "api /openapi.json": "FRESHNESS_NO_CACHE",
    "api /v1/asyncapi.json": "FRESHNESS_NO_CACHE",
    "api /docs": "FRESHNESS_NO_CACHE",
    "api /healthz": "STORE_NO_STORE",
    "api /readyz": "STORE_NO_STORE",
    "api /metrics": "STORE_NO_STORE",
    "api /v1/alerts": "STORE_NO_STORE",
    "api /v1/alerts/unknown": "STORE_NO_STORE",
    "api /v1/policy": "STORE_NO_STORE",
}
EXPLAINED = {
    "STORE_PUBLIC_UNNECESSARY": "the feed says that it is public, for caches that want to be told",
    "STATUS_BAD_REQUEST": "the test asked for it",
}


def lint(status, headers, body):
    """Return the names of the notes about an answer, by their levels."""
    from httplint import HttpResponseLinter

    linter = HttpResponseLinter()
    linter.process_response_topline(b"HTTP/1.1", str(status).encode(), b"")
    linter.process_headers([(name.lower(), value) for name, value in headers])
    linter.feed_content(body)
    linter.finish_content(True)
    return {type(note).__name__: note.level.name for note in linter.notes}


def faults(notes):
    """Return the names of the notes that find fault."""
    return {name for name, level in notes.items() if level in ("BAD", "WARN")}


def answer_to(node, call, **headers):
    """Return the answer to one of `CALLS`; the api's get the desk's token."""
    listener, _, path = call.partition(" ")
    client = node.feed if listener == "feed" else node.api
    return client.get(path, headers={**(bearer(node.desk) if listener == "api" else {}), **headers})


@pytest.mark.parametrize("call", CALLS)
def test_headers_have_no_unexplained_fault_and_say_what_caches_may_do(node, documents, call):
    """No answer lets a cache invent how long it is fresh (H16, PF2)."""
    answer = answer_to(node, call)
    found = lint(answer.status_code, answer.headers.raw, answer.content)
    assert faults(found) <= set(EXPLAINED)
    assert CALLS[call] in found, found


@pytest.mark.parametrize("call", [call for call in CALLS if CALLS[call] != "STORE_NO_STORE"])
def test_validators_of_documents_are_kept_by_a_304(node, documents, call):
    """A 304 has the ETag and the Cache-Control of the 200, and no body; another tag gets the document (RFC 9110)."""
    whole = answer_to(node, call)
    same = answer_to(node, call, **{"If-None-Match": f'"other", W/{whole.headers["etag"]}'})
    assert (same.status_code, same.content) == (304, b"")
    assert faults(lint(304, same.headers.raw, b"")) <= set(EXPLAINED)
    assert same.headers["etag"] == whole.headers["etag"]
    assert re.sub(r"\d+", "", same.headers["cache-control"]) == re.sub(r"\d+", "", whole.headers["cache-control"])
    assert answer_to(node, call, **{"If-None-Match": '"other"'}).status_code == 200


def test_document_never_changed_after_the_date_of_its_answer(node, record_property):
    """A document that was just made has a `Last-Modified` that is not later than `Date` (RFC 9110, 8.8.2.1)."""
    answers = []
    for _ in range(4):
        body = alert(ground())
        node.publish(body)

        def shown(body=body):
            answers.append(node.feed.get("/v1/alerts.geojson"))
            return body["id"] in answers[-1].text

        wait_until(shown, "the feed shows it")
    found = [lint(each.status_code, each.headers.raw, each.content) for each in answers]
    assert not any("LM_FUTURE" in each for each in found)
    assert all("LM_PRESENT" in each for each in found)
    record_property("cases", 4)
