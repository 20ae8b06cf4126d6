"""What the api tells of deliveries, and to whom; real tokens and a real log, in memory."""

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
    """What the calls work on, with this log and this clock."""
    in_force = policy.load(None)
    publishing, calling = Publishing(log, in_force, clock), CallService(log, in_force, NO_CALL_KEYS, clock)
    return ApiContext(publishing, calling, log, in_force, TOKENS, clock, Metrics(), list)


def asked(counts, *scopes, sub=OWN.source, path=f"/v1/alerts/{OWN.id}", app=make_app, stored=(OWN,)):
    """The answer to who has these scopes, where `stored` is in the log and OWN has been delivered so often."""

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
def test_counts_are_rounded_down(exact, told):
    """H11: below 20 they are 0; from 20 on, two leading digits are told, and tens at least; each for itself."""
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
def test_who_is_told_what_of_deliveries(scopes, sub, delivery):
    """H11, H12: of one's own alerts, or with alerts:manage of all; exactly with alerts:audit."""
    answer = asked(Counts(57, 19, 3, 31), *scopes, sub=sub).json()
    assert answer["state"] == "live"
    assert answer.get("delivery") == delivery


def test_the_api_shows_the_first_language():
    """LA1: in the list and alone, and names all."""
    warning = a_warning("de-AT", "en", alert_id=OWN.id)
    one = asked(Counts(), "alerts:publish", stored=[warning]).json()["alert"]
    [listed] = asked(Counts(), "alerts:publish", path="/v1/alerts", stored=[warning]).json()["alerts"]
    assert one == listed
    assert (one["language"], one["languages"]) == ("de-AT", ["de-AT", "en"])
    assert one["instruction"] == "instruction in de-AT revision 1"


def test_who_may_only_audit_may_not_read():
    """H12: the scope adds to others, and opens nothing by itself."""
    assert asked(Counts(), "alerts:audit").status_code == 403


def test_a_listener_of_the_metrics_has_the_metrics_alone():
    """H13: and where there is one, the api listener has none."""
    assert asked(Counts(), path="/metrics").status_code == 200
    assert asked(Counts(), path="/metrics", app=make_metrics_app).status_code == 200
    assert asked(Counts(), path="/metrics", app=lambda api: make_app(api, with_metrics=False)).status_code == 404
    for path in ("/v1/alerts", "/readyz", "/docs", "/openapi.json", "/v1/policy"):
        assert asked(Counts(), "alerts:manage", path=path, app=make_metrics_app).status_code == 404


def test_a_body_that_comes_too_late_is_no_mistake_in_it(monkeypatch):
    """BA1a: 408, so that whoever published sends it again; as malformed JSON it would be given up."""
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


# ---- the live alerts, in pages (H14) ---------------------------------------------------------------------------------

MANY = [a_revision(f"a-{n}", expires_at=NOON_MS + 1_800_000 - n // 2) for n in range(1_001)]
WRONG = {
    "parameters": "the only query parameters are after and limit, once each",
    "after": "the query parameter after must be as a Link has it",
    "limit": "the query parameter limit must be an integer from 1 to 1000",
}


def listed(query="", stored=MANY):
    """The answer to `GET /v1/alerts` with this query, and the ids in it."""
    answer = asked(Counts(), "alerts:publish", path=f"/v1/alerts{query}", stored=stored)
    assert answer.status_code == 200, answer.text
    return answer, [each["id"] for each in answer.json()["alerts"]]


def test_up_to_1000_live_alerts_come_in_one_page_in_the_order_of_publication():
    """H14: without a link, as they did before there were pages."""
    for count in (0, 1, 1_000):
        answer, ids = listed(stored=MANY[:count])
        assert ids == [entry.id for entry in MANY[:count]]
        assert "link" not in answer.headers
    entries = [*MANY[:3], a_revision("a-0", 2), a_cancel("a-1")]
    answer, ids = listed(stored=entries)
    assert ids == ["a-2", "a-0"]
    assert answer.json()["alerts"][1]["headline"] == "Robbery, revision 2"


def test_more_come_in_pages_with_links():
    """H14: with parameters and without; the link has the query of the next page."""
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


def test_an_id_is_quoted_in_a_link():
    """H14: whatever the grammar of ids allows."""
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
def test_parameters_that_are_wrong_are_refused_by_name(query, wrong):
    """Section 4: 422 invalid-value; each once, and H9: no value is repeated."""
    answer = asked(Counts(), "alerts:manage", path=f"/v1/alerts?{query}")
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert [error["detail"] for error in errors] == [WRONG[name] for name in wrong]
    assert {(error["type"], error["pointer"]) for error in errors} == {("/problems/invalid-value", "")}
    assert "7391" not in answer.text


def test_who_may_not_list_is_told_so_first():
    """Section 4, the order of decisions: 403 comes before 422."""
    assert asked(Counts(), "alerts:audit", path="/v1/alerts?limit=0").status_code == 403


def test_requests_without_a_token_take_no_place_of_those_with_one():
    """HD6: as many as there are places for all are under way, and whoever has a token is served."""

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


def test_refusal_beyond_the_share_of_requests_is_delayed_until_a_drain():
    """A subject that repeats refused requests at once can't keep the loop busy (HD6)."""

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


def test_request_under_way_at_the_end_of_a_drain_is_answered_503(caplog):
    """HD14: the server cancels what takes too long; whoever waits is told, and nothing is logged."""

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
