"""Tests of the alert routes with real tokens and a log in memory: delivery counts, pages, refusals and draining."""

import asyncio

import httpx
import pytest
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision, a_warning

from geocast import policy
from geocast.alertlog import Counts
from geocast.alertlog.memory import MemoryLog
from geocast.api import middleware
from geocast.api.context import MAX_REQUESTS, ApiContext
from geocast.api.routes_alerts import make_app, make_metrics_app
from geocast.auth.tokens import Key, TokenVerifier, make_key, sign
from geocast.calls.encryption import NO_CALL_KEYS
from geocast.calls.service import CallService
from geocast.ingest.publish import Publishing
from geocast.metrics import Metrics

PRIVATE, PUBLIC = make_key("k")
TOKENS = TokenVerifier({"k": Key(PUBLIC, "EdDSA")})
OWN = a_revision()


def api_on(log, clock):
    """Return an ApiContext with this log and this clock."""
    in_force = policy.load(None)
    publishing, calling = Publishing(log, in_force, clock), CallService(log, in_force, NO_CALL_KEYS, clock)
    return ApiContext(publishing, calling, log, in_force, TOKENS, clock, Metrics(), list)


def asked(counts, *scopes, sub=OWN.source, path=f"/v1/alerts/{OWN.id}", app=make_app, stored=(OWN,)):
    """Return the answer to a request whose token has `scopes`.

    `stored` is in the log, and OWN has these delivery counts.
    """

    async def answer():
        log, clock = MemoryLog(), FakeClock()
        await log.start()
        for entry in stored:
            await log.append(entry)
        await log.add_counts({OWN.id: counts})
        token = sign(PRIVATE, sub, scopes, NOON_MS // 1000, 600)
        transport = httpx.ASGITransport(app(api_on(log, clock)))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}"})

    return asyncio.run(answer())


@pytest.mark.parametrize(
    ("exact", "told"),
    [
        *((number, 0) for number in (0, 1, 9, 10, 19)),
        *((number, 20) for number in (20, 21, 29)),
        (57, 50),
        (99, 90),
        (100, 100),
        (109, 100),
        (119, 110),
        (999, 990),
        (1_000, 1_000),
        (1_099, 1_000),
        (5_213, 5_200),
        (999_999, 990_000),
    ],
)
def test_delivery_counts_without_audit_scope_are_rounded_down(exact, told):
    """Counts below 20 become 0; from 20 on, each keeps two digits and is a multiple of 10 (H11)."""
    for field in ("sent", "acked", "pushed"):
        delivery = asked(Counts()._replace(**{field: exact}), "alerts:publish").json()["delivery"]
        assert delivery == {"sent": 0, "acked": 0, "pushed": 0, "rounded": True} | {field: told}


@pytest.mark.parametrize(
    ("scopes", "sub", "delivery"),
    [
        (["alerts:publish"], OWN.source, {"sent": 50, "acked": 0, "pushed": 30, "rounded": True}),
        (["alerts:publish"], "another", None),
        (["alerts:manage"], "another", {"sent": 50, "acked": 0, "pushed": 30, "rounded": True}),
        (["alerts:manage", "alerts:audit"], "another", {"sent": 57, "acked": 19, "pushed": 31}),
        (["alerts:publish", "alerts:audit"], OWN.source, {"sent": 57, "acked": 19, "pushed": 31}),
        (["alerts:publish", "alerts:audit"], "another", None),
    ],
)
def test_delivery_counts_are_shown_depending_on_owner_and_scope(scopes, sub, delivery):
    """A publisher sees the counts of its own alerts.

    With alerts:manage they are shown for all alerts, and with alerts:audit they are exact (H11, H12).
    """
    answer = asked(Counts(57, 19, 3, 31), *scopes, sub=sub).json()
    assert answer["state"] == "live"
    assert answer.get("delivery") == delivery


def test_api_shows_alert_in_its_first_language():
    """The list and the single alert have the text in the first language and name all languages (LA1)."""
    warning = a_warning("de-AT", "en", alert_id=OWN.id)
    one = asked(Counts(), "alerts:publish", stored=[warning]).json()["alert"]
    [listed] = asked(Counts(), "alerts:publish", path="/v1/alerts", stored=[warning]).json()["alerts"]
    assert one == listed
    assert (one["language"], one["languages"]) == ("de-AT", ["de-AT", "en"])
    assert one["instruction"] == "instruction in de-AT revision 1"


def test_scope_alerts_audit_alone_does_not_allow_reading():
    """The scope extends other scopes and permits nothing by itself (H12)."""
    assert asked(Counts(), "alerts:audit").status_code == 403


def test_metrics_listener_serves_only_the_metrics():
    """If there is a metrics listener, the api listener has no /metrics (H13)."""
    assert asked(Counts(), path="/metrics").status_code == 200
    assert asked(Counts(), path="/metrics", app=make_metrics_app).status_code == 200
    assert asked(Counts(), path="/metrics", app=lambda api: make_app(api, with_metrics=False)).status_code == 404
    for path in ("/v1/alerts", "/readyz", "/docs", "/openapi.json", "/v1/policy"):
        assert asked(Counts(), "alerts:manage", path=path, app=make_metrics_app).status_code == 404


def test_body_that_arrives_too_late_is_answered_408(monkeypatch):
    """The publisher sends the request again after 408; after malformed-json it would give up (BA1a)."""
    monkeypatch.setattr(middleware, "BODY_S", 0)

    async def begun():
        yield b'{"id": '
        await asyncio.Event().wait()

    async def answer():
        token = sign(PRIVATE, OWN.source, ["alerts:publish"], NOON_MS // 1000, 600)
        transport = httpx.ASGITransport(make_app(api_on(MemoryLog(), FakeClock())))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            return await client.post("/v1/alerts", content=begun(), headers=headers)

    late = asyncio.run(answer())
    assert (late.status_code, late.json()["type"]) == (408, "/problems/request-timeout")


# ---- pages of live alerts (H14) -----------------------------------------------------------------------------------

MANY = [a_revision(f"a-{n}", expires_at=NOON_MS + 1_800_000 - n // 2) for n in range(1_001)]
WRONG = {
    "parameters": "the only query parameters are after and limit, once each",
    "after": "the query parameter after must be the value from a Link header",
    "limit": "the query parameter limit must be an integer from 1 to 1000",
}


def listed(query="", stored=MANY):
    """Return the answer to `GET /v1/alerts` with this query, and the ids in the answer."""
    answer = asked(Counts(), "alerts:publish", path=f"/v1/alerts{query}", stored=stored)
    assert answer.status_code == 200, answer.text
    return answer, [each["id"] for each in answer.json()["alerts"]]


def test_up_to_1000_live_alerts_are_listed_on_one_page_in_order_of_publication():
    """The answer has no link to a next page, just as before pages were introduced (H14)."""
    for count in (0, 1, 1_000):
        answer, ids = listed(stored=MANY[:count])
        assert ids == [entry.id for entry in MANY[:count]]
        assert "link" not in answer.headers
    entries = [*MANY[:3], a_revision("a-0", 2), a_cancel("a-1")]
    answer, ids = listed(stored=entries)
    assert ids == ["a-2", "a-0"]
    assert answer.json()["alerts"][1]["headline"] == "Robbery, revision 2"


def test_more_than_1000_live_alerts_come_in_linked_pages():
    """The link to the next page repeats the request's limit (H14)."""
    answer, first = listed()
    assert answer.headers["link"] == f'</v1/alerts?after={MANY[0].ends_at}-a-0&limit=1000>; rel="next"'
    answer, second = listed("?" + answer.links["next"]["url"].partition("?")[2])
    assert "link" not in answer.headers
    assert first == [entry.id for entry in MANY if entry.id != "a-1"]
    assert second == ["a-1"]
    path, found = "?limit=334", []
    while path:
        answer, ids = listed(path)
        found += ids
        path = "?" + answer.links["next"]["url"].partition("?")[2] if "next" in answer.links else ""
    assert sorted(found) == sorted(entry.id for entry in MANY)


def test_alert_id_is_url_quoted_in_link_to_next_page():
    """Every id that the grammar allows works in a link (H14)."""
    entries = [a_revision(alert_id) for alert_id in ("d:7._-x", "e")]
    answer, ids = listed("?limit=1", entries)
    assert ids == ["d:7._-x"]
    assert answer.links["next"]["url"] == f"/v1/alerts?after={OWN.ends_at}-d%3A7._-x&limit=1"
    assert listed("?" + answer.links["next"]["url"].partition("?")[2], entries)[1] == ["e"]


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        *(
            (f"limit={value}", ["limit"])
            for value in ("0", "1001", "-1", "01", "1.0", "%2B1", "", "x7391", "١", "1%20")
        ),
        *(
            (f"after={value}", ["after"])
            for value in ("", "7391", "a-7391", "1-", "-1-a", "1-%20", f"{10**15}-a", "١-a")
        ),
        ("limit=1&limit=1", ["parameters"]),
        ("after=1-a&after=1-a", ["parameters"]),
        ("page=7391", ["parameters"]),
        ("dry_run=false", ["parameters"]),
        ("Limit=1", ["parameters"]),
        ("limit=0&after=x&x7391=1", ["parameters", "after", "limit"]),
    ],
)
def test_error_names_each_wrong_query_parameter(query, wrong):
    """Each wrong parameter is named once with 422 invalid-value, and no value is repeated (section 4, H9)."""
    answer = asked(Counts(), "alerts:manage", path=f"/v1/alerts?{query}")
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert [error["detail"] for error in errors] == [WRONG[name] for name in wrong]
    assert {(error["type"], error["pointer"]) for error in errors} == {("/problems/invalid-value", "")}
    assert "7391" not in answer.text


def test_missing_scope_is_refused_before_wrong_query():
    """A 403 comes before a 422 in the documented order of decisions (section 4)."""
    assert asked(Counts(), "alerts:audit", path="/v1/alerts?limit=0").status_code == 403


def test_requests_without_token_do_not_count_toward_request_limit():
    """A publisher is served even while more requests without a token are open than the limit allows (HD6)."""

    async def main():
        api, go = api_on(MemoryLog(), FakeClock()), asyncio.Event()
        await api.alert_log.start()
        app = make_app(api)
        scope = {"type": "http", "method": "GET", "query_string": b"", "headers": []}

        async def receive():
            await go.wait()
            return {"type": "http.disconnect"}

        async def unread(_message):
            await go.wait()

        strangers = [
            asyncio.ensure_future(app(scope | {"path": "/openapi.json"}, receive, unread))
            for _ in range(MAX_REQUESTS + 1)
        ]
        for _ in range(5):
            await asyncio.sleep(0)
        assert api.requests > MAX_REQUESTS
        token = sign(PRIVATE, "desk", ["alerts:publish"], NOON_MS // 1000, 600)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
            answer = await client.get("/v1/alerts", headers={"Authorization": f"Bearer {token}"})
        assert api.requests > MAX_REQUESTS
        go.set()
        await asyncio.gather(*strangers)
        return answer.status_code

    assert asyncio.run(main()) == 200


def test_refusal_over_request_limit_is_delayed_until_node_shuts_down():
    """So a client that repeats refused requests at once can't keep the event loop busy (HD6)."""

    async def main():
        api = api_on(MemoryLog(), FakeClock())
        api.places.requests.most = 0
        token = sign(PRIVATE, "desk", ["alerts:publish"], NOON_MS // 1000, 600)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(api)), base_url="http://node") as client:
            request = client.get("/v1/alerts", headers={"Authorization": f"Bearer {token}"})
            answer = asyncio.ensure_future(request)
            for _ in range(100):
                await asyncio.sleep(0)
            assert (api.requests, answer.done()) == (1, False)
            api.drain.begin()
            return (await answer).status_code

    assert asyncio.run(main()) == 429


def test_request_in_progress_at_end_of_shutdown_is_answered_503(caplog):
    """The server cancels a request that takes too long. The client gets 503, and nothing is logged (HD14)."""

    class Slow(MemoryLog):
        async def history(self, _alert_id):
            api.drain.begin()
            asyncio.current_task().cancel()
            await asyncio.sleep(60)

    api = api_on(Slow(), FakeClock())

    async def main():
        token = sign(PRIVATE, "desk", ["alerts:publish"], NOON_MS // 1000, 600)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(api)), base_url="http://node") as client:
            return await client.get("/v1/alerts/a", headers={"Authorization": f"Bearer {token}"})

    answer = asyncio.run(main())
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/draining")
    assert caplog.records == []
