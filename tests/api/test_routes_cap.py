"""`POST /v1/cap`: who may call it, what it reads, what it answers and tells the operator; real tokens, a real log."""

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
from geocast.errors import LogUnavailable
from geocast.ingest.cap.service import CapIngest
from geocast.ingest.cap.sources import parse
from geocast.ingest.publish import Publishing
from geocast.metrics import Metrics

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
    """The header with a token."""
    token = sign(PRIVATE, sub, scopes or ("alerts:publish",), NOON_MS // 1000, 3600)
    return {"Authorization": f"Bearer {token}"}


class CapApi:
    """The api of a node that takes messages of CAP."""

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
        """The answers to requests: each a body and its headers, and a query."""

        async def main():
            transport = httpx.ASGITransport(make_app(self.api))
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return [
                    await client.post(f"/v1/cap{query}", content=body, headers=headers)
                    for body, headers, query in requests
                ]

        return asyncio.run(main())

    def post(self, body=None, headers=None, query=""):
        """The answer to one."""
        [answer] = self.asked(
            (a_message("m") if body is None else body, XML | BY_SECRET if headers is None else headers, query)
        )
        return answer


# ---- who (CP1) ---------------------------------------------------------------------------------------------------


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
def test_a_source_is_known_by_its_token_or_its_secret(headers, status, slug):
    """CP1: if both are there the token counts."""
    answer = CapApi().post(headers=XML | headers)
    assert answer.status_code == status
    assert slug is None or answer.json()["type"] == f"/problems/{slug}"
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_two_secrets_are_none():
    """CP1: as with tokens."""
    headers = [("Content-Type", "application/xml"), ("CAP-Webhook-Auth", SECRET), ("CAP-Webhook-Auth", SECRET)]
    assert CapApi().post(headers=headers).status_code == 401


def test_a_secret_opens_nothing_else():
    """It is a source's, not a publisher's."""
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


def test_a_sender_that_is_not_the_sources_is_refused():
    """CP1: once the message was read."""
    answer = CapApi().post(a_message("m", sender="somebody@else.example"))
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/sender-not-allowed")
    assert "somebody" not in answer.text


def test_without_sources_there_is_nothing_here():
    """Off unless --cap-sources is given."""
    node = CapApi(sources=None)
    assert node.post(headers=by_token()).status_code == 404
    assert node.post().status_code == 401


# ---- what (CP2 to CP4, CP8) --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["application/xml", "text/xml", "application/cap+xml", "Application/XML; ", "text/xml;charset=utf-8"]
)
def test_three_media_types_are_taken(kind):
    """CP2: CAP Composer writes `application/xml; `."""
    assert CapApi().post(headers=BY_SECRET | {"Content-Type": kind}).status_code == 201


@pytest.mark.parametrize("kind", ["application/json", "application/rss+xml", "", "text/plain"])
def test_others_are_not(kind):
    """CP2."""
    answer = CapApi().post(headers=BY_SECRET | {"Content-Type": kind})
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")


def test_two_mib_are_taken_and_no_more():
    """CP2: real ones carry hundreds of kilobytes of audio."""
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
def test_the_charset_counts(charset, encoding, status):
    """CP2: before what the document declares."""
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
def test_refusals_are_problems(body, status, slug):
    """CP3 to CP5, H8: a 422 says where."""
    answer = CapApi().post(body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert ("errors" in answer.json()) == (status == 422)


def test_the_order_of_decisions():
    """The first that fits: 413, 415, 400, 422 of reading, 403 of the sender, what is ignored, 422 of the policy."""
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


def test_a_query_is_dry_run_or_refused():
    """CP8."""
    node = CapApi()
    dry = node.post(query="?dry_run=true")
    assert (dry.status_code, dry.json()["outcome"]) == (200, "published")
    assert dry.json()["alerts"][0].keys() == {"id", "expires_at", "area"}
    assert asyncio.run(node.log.tail()) == 0
    assert node.post(query="?dry_run=false").status_code == 201
    assert node.post(query="?x=1").status_code == 422


# ---- the answer --------------------------------------------------------------------------------------------------


def test_the_answer_says_what_became_of_it():
    """201 for what has changed something, 200 for the rest; and what was put right."""
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


def test_the_operator_is_told_in_numbers_and_lines(caplog):
    """A counter by source and outcome, and a line for each message that repeats nothing of it."""
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
    assert lines[0].startswith("cap: a message of met: published alerts=cap.")
    assert lines[1] == "cap: a message of met is refused: missing-field at /alert/scope"
    assert not any(word in line for line in lines for word in ("secret-name", SENDER, "Flood"))


def test_a_log_that_is_away_is_503():
    """H2: the same message may be sent again."""

    class Away(MemoryLog):
        async def history(self, _alert_id):
            raise LogUnavailable("it is away")

    node = CapApi(Away())
    answer = node.post()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert 'outcome="failed",source="met"} 1.0' in node.api.metrics.render().decode()


def test_no_more_than_some_messages_are_under_way():
    """HD3, HD6: each may have 2 MiB. A source has a quarter of the places, by its secret and its tokens together."""
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


# ---- beside the api's other calls --------------------------------------------------------------------------------


def test_ids_of_alerts_from_cap_are_not_for_publishers():
    """Neither to publish nor to revise; with alerts:manage they may be cancelled by hand."""
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
