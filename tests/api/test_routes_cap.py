"""Tests of `POST /v1/cap` with real tokens and a real log: access, parsing, answers, metrics and log lines."""

import asyncio
import contextlib
import hashlib
import logging

import httpx
import pytest
from ingest.cap.issuer import MINUTE_MS, PUBLIC_WARNING, SENDER, a_cancel, a_message, an_info, time
from support.fakes import NOON_MS, FakeClock

from geocast.alertlog.memory import MemoryLog
from geocast.api import middleware
from geocast.api.context import MAX_CAP, ApiContext
from geocast.api.routes_alerts import make_app
from geocast.auth.tokens import Key, TokenVerifier, make_key, sign
from geocast.calls.encryption import NO_CALL_KEYS
from geocast.calls.service import CallService
from geocast.ingest.cap.service import CapIngest
from geocast.ingest.cap.sources import parse
from geocast.ingest.publish import Publishing
from geocast.metrics import Metrics
from geocast.model.errors import LogUnavailable

PRIVATE, PUBLIC = make_key("k")
TOKENS = TokenVerifier({"k": Key(PUBLIC, "EdDSA")})
SECRET = "a secret of at least 32 characters"
SOURCES = parse(
    f"""
[sources.met]
approver = "the duty forecaster"
senders = ["{SENDER}"]
secret_sha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"
[sources.hub]
approver = "the hub"
senders = ["*"]
assume_offset = "+00:00"
""".encode(),
    None,
)
XML = {"Content-Type": "application/xml"}
BY_SECRET = {"CAP-Webhook-Auth": SECRET}


def by_token(sub="met", *scopes):
    """Return the header with a token."""
    token = sign(PRIVATE, sub, scopes or ("alerts:publish",), NOON_MS // 1000, 3600)
    return {"Authorization": f"Bearer {token}"}


class CapApi:
    """The HTTP API of a node that accepts CAP messages."""

    def __init__(self, log=None, sources=SOURCES):
        self.log = log or MemoryLog()
        clock = FakeClock(NOON_MS + 20 * MINUTE_MS)
        reserves = sources is not None
        publishing = Publishing(self.log, PUBLIC_WARNING, clock, reserves=reserves)
        self.api = ApiContext(
            publishing,
            CallService(self.log, PUBLIC_WARNING, NO_CALL_KEYS, clock),
            self.log,
            PUBLIC_WARNING,
            TOKENS,
            clock,
            Metrics(),
            list,
        )
        if sources is not None:
            self.api.taking = CapIngest(self.log, PUBLIC_WARNING, sources, clock)

    def asked(self, *requests):
        """Return the answers to requests. Each request is a body, headers and a query."""

        async def main():
            transport = httpx.ASGITransport(make_app(self.api))
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return [
                    await client.post(f"/v1/cap{query}", content=body, headers=headers)
                    for body, headers, query in requests
                ]

        return asyncio.run(main())

    def post(self, body=None, headers=None, query=""):
        """Return the answer to one request."""
        [answer] = self.asked(
            (a_message("m") if body is None else body, XML | BY_SECRET if headers is None else headers, query)
        )
        return answer


# ---- who may send messages (CP1) ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        (BY_SECRET, 201, None),
        (by_token(), 201, None),
        (by_token() | {"CAP-Webhook-Auth": "x"}, 201, None),
        (by_token() | {"CAP-Webhook-Request-Timestamp": "yesterday"}, 201, None),
        ({}, 401, "unauthorized"),
        ({"CAP-Webhook-Auth": "x" * 34}, 401, "unauthorized"),
        ({"CAP-Webhook-Auth": ""}, 401, "unauthorized"),
        (BY_SECRET | {"Authorization": "Bearer x"}, 401, "unauthorized"),
        (by_token("nobody"), 403, "insufficient-scope"),
        (by_token("met", "alerts:manage"), 403, "insufficient-scope"),
    ],
)
def test_cap_source_is_identified_by_token_or_secret(headers, status, slug):
    """If a request has both, the token counts (CP1)."""
    answer = CapApi().post(headers=XML | headers)
    assert answer.status_code == status
    assert slug is None or answer.json()["type"] == f"/problems/{slug}"
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_request_with_two_secrets_is_refused_401():
    """A request may carry only one secret (CP1)."""
    headers = [("Content-Type", "application/xml"), ("CAP-Webhook-Auth", SECRET), ("CAP-Webhook-Auth", SECRET)]
    assert CapApi().post(headers=headers).status_code == 401


def test_cap_source_secret_gives_no_access_to_other_routes():
    node = CapApi()

    async def main():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(make_app(node.api)), base_url="http://node"
        ) as client:
            return [
                (await client.get("/v1/alerts", headers=BY_SECRET)).status_code,
                (await client.post("/v1/cap/", headers=BY_SECRET)).status_code,
            ]

    assert asyncio.run(main()) == [401, 401]


def test_sender_outside_the_sources_list_is_refused_403():
    """The sender is checked after the message was parsed (CP1)."""
    answer = CapApi().post(a_message("m", sender="somebody@else.example"))
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/sender-not-allowed")
    assert "somebody" not in answer.text


def test_cap_route_does_not_exist_without_cap_sources():
    node = CapApi(sources=None)
    assert node.post(headers=by_token()).status_code == 404
    assert node.post().status_code == 401


# ---- accepted and refused contents (CP2 to CP4, CP8) -------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["application/xml", "text/xml", "application/cap+xml", "Application/XML; ", "text/xml;charset=utf-8"]
)
def test_cap_messages_with_xml_media_types_are_accepted(kind):
    """A real sender, CAP Composer, writes `application/xml; ` (CP2)."""
    assert CapApi().post(headers=BY_SECRET | {"Content-Type": kind}).status_code == 201


@pytest.mark.parametrize("kind", ["application/json", "application/rss+xml", "", "text/plain"])
def test_cap_messages_with_other_media_types_are_refused_415(kind):
    """Only the three media types for XML and CAP are accepted (CP2)."""
    answer = CapApi().post(headers=BY_SECRET | {"Content-Type": kind})
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")


def test_message_of_2_mib_is_accepted_and_a_larger_one_refused():
    """Real messages carry hundreds of kilobytes of audio (CP2)."""
    audio = "A" * (middleware.MAX_CAP_BYTES - len(a_message("m", 0, (), an_info(resource=""))))
    whole = a_message("m", 0, (), an_info(resource=audio))
    assert len(whole) == middleware.MAX_CAP_BYTES
    assert CapApi().post(whole).status_code == 201
    assert CapApi().post(whole + b" ").status_code == 413


@pytest.mark.parametrize(
    ("charset", "encoding", "status"),
    [
        ("", "utf-8", 201),
        ("; charset=utf-8", "utf-8", 201),
        ('; charset="UTF-16"', "utf-16", 201),
        ("; charset=iso-8859-1", "latin-1", 201),
        ("; charset=windows-1252", "cp1252", 201),
        ("; charset=us-ascii", "utf-8", 400),
        ("; charset=utf-7", "utf-8", 400),
        ("; charset=utf-8", "latin-1", 400),
        ("; charset=klingon", "utf-8", 400),
    ],
)
def test_charset_of_media_type_overrides_xml_declaration(charset, encoding, status):
    """A charset in the header counts more than the one in the document (CP2)."""
    text = '<?xml version="1.0" encoding="iso-8859-15"?>' if charset else ""
    text += a_message("m", 0, (), an_info(headline="Überschwemmung")).decode()
    answer = CapApi().post(text.encode(encoding), BY_SECRET | {"Content-Type": f"text/xml{charset}"})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"", 400, "malformed-xml"),
        (b"<!DOCTYPE alert><alert/>", 400, "malformed-xml"),
        (b"{}", 400, "malformed-xml"),
        (b"<rss/>", 422, "not-cap"),
        (a_message("m", scope=None), 422, "missing-field"),
        (a_message("m", sent="noon"), 422, "invalid-value"),
        (a_message("m", 0, (), an_info(event="News", category="Other")), 422, "category-not-alertable"),
    ],
)
def test_refusals_are_answered_with_problem_documents(body, status, slug):
    """A 422 also has a list of errors with their places (CP3 to CP5, H8)."""
    answer = CapApi().post(body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert ("errors" in answer.json()) == (status == 422)


def test_first_failing_check_decides_the_answer():
    """The checks run in a fixed order.

    The order is: 413, 415, 400, 422 for invalid fields, 403 for the sender, 200 for ignored messages, 422 for the
    policy.
    """
    node = CapApi()
    other = {"sender": "x@y"}
    steps = [
        (b"x" * (middleware.MAX_CAP_BYTES + 1), {"Content-Type": "text/plain"}, "too-large"),
        (b"x", {"Content-Type": "text/plain"}, "unsupported-media-type"),
        (a_message("m", status="Draft", scope=None, **other), XML, "missing-field"),
        (
            a_message("m", 0, (), an_info(event="News", category="Other"), status="Draft", **other),
            XML,
            "sender-not-allowed",
        ),
    ]
    for body, headers, slug in steps:
        assert node.post(body, BY_SECRET | headers).json()["type"] == f"/problems/{slug}"
    answer = node.post(a_message("m", 0, (), an_info(event="News", category="Other"), status="Draft"))
    assert (answer.status_code, answer.json()["why"]) == (200, "status")


def test_query_parameters_other_than_dry_run_are_refused():
    """Any other query is answered with 422 (CP8)."""
    node = CapApi()
    dry = node.post(query="?dry_run=true")
    assert (dry.status_code, dry.json()["outcome"]) == (200, "published")
    assert dry.json()["alerts"][0].keys() == {"id", "expires_at", "area"}
    assert asyncio.run(node.log.tail()) == 0
    assert node.post(query="?dry_run=false").status_code == 201
    assert node.post(query="?x=1").status_code == 422


# ---- the answer to a message -------------------------------------------------------------------------------------


def test_answer_names_outcome_and_changed_alerts():
    """The status is 201 if the message changed something, otherwise 200."""
    node = CapApi()
    bodies = [
        a_message("m"),
        a_message("m"),
        a_message("u", 1, ["m"]),
        a_message("r", 2, ["u"], an_info(expires=time(30))),
        a_message("u-0", 0, ["m"]),
        a_cancel("c", 3, ["r"]),
        a_cancel("c", 3, ["r"]),
        a_cancel("d", 3, ["unseen"]),
    ]
    answers = node.asked(*((body, XML | BY_SECRET, "") for body in bodies))
    assert [(answer.status_code, answer.json()["outcome"]) for answer in answers] == [
        (201, "published"),
        (200, "repeated"),
        (201, "updated"),
        (201, "replaced"),
        (200, "superseded"),
        (201, "cancelled"),
        (200, "ignored"),
        (200, "noted"),
    ]
    first, again, *_ = (answer.json() for answer in answers)
    assert first["alerts"][0].keys() == {"id", "revision", "issued_at", "expires_at", "area"}
    assert again == first | {"outcome": "repeated"}
    assert (first["cancelled"], first["notes"]) == ([], ["unsigned"])
    assert answers[3].json()["cancelled"] == [{"id": first["alerts"][0]["id"], "revision": 3}]
    assert answers[6].json() == {
        "outcome": "ignored",
        "why": "ended",
        "alerts": [],
        "cancelled": [],
        "notes": ["unsigned"],
    }


def test_messages_are_counted_and_logged_without_their_content(caplog):
    """There is a counter by source and outcome, and one log line for each message."""
    caplog.set_level(logging.INFO)
    node = CapApi()
    node.asked(
        (a_message("secret-name"), XML | BY_SECRET, ""),
        (a_message("m", scope=None), XML | BY_SECRET, ""),
        (a_message("m-2"), XML | BY_SECRET, "?dry_run=true"),
    )
    text = node.api.metrics.render().decode()
    assert 'geocast_cap_messages_total{outcome="published",source="met"} 1.0' in text
    assert 'geocast_cap_messages_total{outcome="refused",source="met"} 1.0' in text
    assert 'geocast_cap_messages_total{outcome="noted",source="hub"} 0.0' in text
    assert 'geocast_accepted_total{kind="alert"} 1.0' in text
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("routes_cap")]
    assert len(lines) == 3
    assert lines[0].startswith("cap: processed the message from source met: published alerts=cap.")
    assert lines[1] == "cap: refused the message from source met: missing-field at /alert/scope"
    assert not any(word in line for line in lines for word in ("secret-name", SENDER, "Flood"))


def test_unavailable_log_is_answered_503():
    """The source may send the same message again (H2)."""

    class Away(MemoryLog):
        async def history(self, _alert_id):
            raise LogUnavailable("it is away")

    node = CapApi(Away())
    answer = node.post()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert 'outcome="failed",source="met"} 1.0' in node.api.metrics.render().decode()


def test_source_with_too_many_messages_in_progress_is_refused_429():
    """Each message may have 2 MiB.

    A source may have a quarter of all messages in progress, counting its secret and its tokens together (HD3, HD6).
    """
    node = CapApi()
    with contextlib.ExitStack() as held:
        for _ in range(MAX_CAP // 4):
            held.enter_context(node.api.places.messages.place("met"))
        for headers in (BY_SECRET, by_token("met")):
            answer = node.post(headers=XML | headers)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert asyncio.run(node.log.tail()) == 0
        assert node.post(headers=XML | by_token("hub")).status_code == 201
    assert node.post().status_code == 201


# ---- CAP alerts and the other routes ------------------------------------------------------------------------------


def test_publishers_cannot_publish_or_revise_alerts_with_cap_ids():
    """A publisher with the scope alerts:manage can still cancel such an alert."""
    node = CapApi()
    [alert] = node.post().json()["alerts"]
    approval = {"reviewer": "desk", "approved_at": time(20)}
    body = {
        "id": "cap.x",
        "category": "flood",
        "headline": "High water",
        "severity": "severe",
        "threat": "community",
        "occurred_at": time(0),
        "area": {"type": "circle", "lat": 32.7, "lng": -96.8, "radius_m": 1000},
        "approval": approval,
    }

    async def main():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(make_app(node.api)), base_url="http://node"
        ) as client:
            manager = by_token("desk", "alerts:publish", "alerts:manage")
            where = f"/v1/alerts/{alert['id']}"
            revision = body | {"id": alert["id"], "revision": 2, "expires_at": time(60)}
            cancel = {"revision": 2, "reason": "No.", "approval": approval}
            return [
                await client.post("/v1/alerts", json=body, headers=manager),
                await client.post(f"{where}/revisions", json=revision, headers=manager),
                await client.post(f"{where}/cancel", json=cancel, headers=by_token("desk")),
                await client.post(f"{where}/cancel", json=cancel, headers=manager),
                await client.post("/v1/alerts", json=body | {"id": "cap"}, headers=manager),
            ]

    published, revised, *cancelled, other = asyncio.run(main())
    for answer in (published, revised):
        assert answer.status_code == 422
        assert (answer.json()["errors"][0]["type"], answer.json()["errors"][0]["pointer"]) == (
            "/problems/invalid-value",
            "/id",
        )
    assert [answer.status_code for answer in cancelled] == [403, 201]
    assert other.status_code == 201
