"""Tests of publishing over HTTP against an in-memory transport: repeats, refusals and paging."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from support.fake_nodes import FakeApi, answer

from client_demo.python.publisher import Refused, Unanswered, retry_after_s

ALERT = {"id": "a:1", "headline": "Brand – nah"}


def test_alert_is_posted_as_utf8_json_with_the_token():
    """The response is returned as a map."""
    api = FakeApi(answer(201, {"id": "a:1", "revision": 1}))
    assert api.call(lambda publisher: publisher.publish(ALERT)) == {"id": "a:1", "revision": 1}
    (request,) = api.requests
    assert (request.method, request.url.raw_path) == ("POST", b"/v1/alerts")
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == ALERT
    assert "–".encode() in request.content


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda publisher: publisher.publish(ALERT, dry_run=True), ("POST", b"/v1/alerts?dry_run=true")),
        (lambda publisher: publisher.revise(ALERT), ("POST", b"/v1/alerts/a%3A1/revisions")),
        (
            lambda publisher: publisher.revise(ALERT, dry_run=True),
            ("POST", b"/v1/alerts/a%3A1/revisions?dry_run=true"),
        ),
        (lambda publisher: publisher.cancel("a/b", {}), ("POST", b"/v1/alerts/a%2Fb/cancel")),
        (lambda publisher: publisher.get("a"), ("GET", b"/v1/alerts/a")),
        (lambda publisher: publisher.live(), ("GET", b"/v1/alerts")),
        (lambda publisher: publisher.policy(), ("GET", b"/v1/policy")),
    ],
)
def test_request_has_its_path(work, expected):
    """The paths are those of section 4 of the protocol."""
    api = FakeApi(answer(200, {"alerts": []}))
    api.call(work)
    assert (api.requests[0].method, api.requests[0].url.raw_path) == expected


@pytest.mark.parametrize(
    "trouble",
    [
        answer(503),
        answer(500),
        answer(408),
        answer(429),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError("closed"),
    ],
)
def test_request_is_repeated_with_the_same_bytes_without_an_answer(trouble):
    """The server treats equal requests as one alert."""
    api = FakeApi(trouble, trouble, answer(200, {"revision": 1}))
    assert api.call(lambda publisher: publisher.publish(ALERT)) == {"revision": 1}
    assert len({request.content for request in api.requests}) == 1
    assert len(api.requests) == 3
    assert 0 < api.waits[0] < api.waits[1] * 2


def test_retry_after_is_a_minimum_wait():
    api = FakeApi(answer(503, **{"Retry-After": "7"}), answer(201))
    api.call(lambda publisher: publisher.publish(ALERT))
    assert api.waits == [7]


def test_rate_limited_publisher_is_refused_at_once():
    """Only an overloaded node is waited for (rule PG2)."""
    api = FakeApi(answer(429, {"type": "/problems/rate-limited", "title": "Too often"}, **{"Retry-After": "7"}))
    with pytest.raises(Refused, match="Too often"):
        api.call(lambda publisher: publisher.publish(ALERT))
    assert (len(api.requests), api.waits) == (1, [])


def test_unanswered_request_raises_after_a_minute():
    """The error contains the last problem, in one line."""
    api = FakeApi(answer(503, {"title": "Log unavailable", "detail": "the disk is full"}))
    with pytest.raises(Unanswered, match="gave no answer: Log unavailable: the disk is full"):
        api.call(lambda publisher: publisher.publish(ALERT))
    assert 30 < sum(api.waits) <= 60


def test_reason_is_reported_before_each_repeat():
    """A person at a terminal sees at once that no node runs, and not after a minute."""
    api = FakeApi(httpx.ConnectError("Connection refused"), answer(503, {"title": "Log unavailable"}), answer(201))
    api.call(lambda publisher: publisher.publish(ALERT))
    assert api.reasons == [
        "http://127.0.0.1:8766 gave no answer: Connection refused; trying again",
        "http://127.0.0.1:8766 gave no answer: Log unavailable; trying again",
    ]


def test_refusal_is_not_repeated_and_lists_every_broken_rule():
    """The error's lines name the fields."""
    problem = {
        "type": "/problems/stale",
        "title": "Incident too old",
        "status": 422,
        "detail": "too old",
        "errors": [
            {"type": "/problems/stale", "pointer": "/occurred_at", "detail": "must be at most 3600 s ago"},
            {"type": "/problems/unknown-field", "pointer": "", "detail": "a field that is not known"},
        ],
    }
    api = FakeApi(answer(422, problem))
    with pytest.raises(Refused) as refusal:
        api.call(lambda publisher: publisher.publish(ALERT))
    assert (refusal.value.status, refusal.value.slug, len(api.requests)) == (422, "stale", 1)
    assert refusal.value.lines == ["/occurred_at: must be at most 3600 s ago", "the request: a field that is not known"]


def test_refusal_without_a_problem_document_is_named_by_status():
    """Proxies send such refusals."""
    api = FakeApi(httpx.Response(403, text="<html>"))
    with pytest.raises(Refused, match="status 403 Forbidden"):
        api.call(lambda publisher: publisher.policy())


def test_retry_after_may_be_a_date():
    """The form is that of RFC 9110; an unreadable value counts as 0."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    assert 90 < retry_after_s(soon) <= 100
    assert [retry_after_s(value) for value in (past, "soon", None, "12")] == [0, 0, 0, 12]


# ---- live alerts in pages (protocol, H14) ------------------------------------------------------------------------


def page(*alerts, following=None):
    """Return a page of (id, revision) pairs with a link to the next page."""
    link = {} if following is None else {"Link": f'<{following}>; rel="next"'}
    return answer(200, {"alerts": [{"id": alert_id, "revision": number} for alert_id, number in alerts]}, **link)


def test_all_pages_of_live_alerts_are_fetched():
    """Links are followed to the end; the newest revision of an alert counts."""
    api = FakeApi(
        page(("a", 1), ("b", 2), following="/v1/alerts?after=1-b&limit=2"),
        page(following="?after=3-x%3Ay&limit=2"),
        page(("c", 1), ("a", 2), ("b", 1)),
    )
    found = api.call(lambda publisher: publisher.live())
    assert sorted((each["id"], each["revision"]) for each in found) == [("a", 2), ("b", 2), ("c", 1)]
    assert [request.url.raw_path for request in api.requests] == [
        b"/v1/alerts",
        b"/v1/alerts?after=1-b&limit=2",
        b"/v1/alerts?after=3-x%3Ay&limit=2",
    ]


def test_link_does_not_send_the_token_elsewhere():
    """The same API is asked whatever host or path the link names."""
    api = FakeApi(page(("a", 1), following="https://elsewhere.example/other?after=1-a"), page(("b", 1)))
    assert len(api.call(lambda publisher: publisher.live())) == 2
    assert [str(request.url) for request in api.requests] == [
        "http://127.0.0.1:8766/v1/alerts",
        "http://127.0.0.1:8766/v1/alerts?after=1-a",
    ]


def test_page_without_an_answer_is_requested_again():
    """The pages that were fetched before are kept."""
    api = FakeApi(page(("a", 1), following="?after=1-a"), answer(503), page(("b", 1)))
    assert [each["id"] for each in api.call(lambda publisher: publisher.live())] == ["a", "b"]
    assert len(api.waits) == 1
