"""What the api tells of deliveries, and to whom; real tokens and a real log, in memory."""

import asyncio

import httpx
import pytest
from fakes import NOON_MS, FakeClock, a_revision
from jwt import PyJWK

from geocast import policy
from geocast.alertlog import Counts
from geocast.alertlog.memory import MemoryLog
from geocast.metrics import Metrics
from geocast.net import guard
from geocast.net.api import Api
from geocast.net.calls import make_app, make_metrics_app
from geocast.publishing import Publishing
from geocast.tokens import Tokens, make_key, sign

PRIVATE, PUBLIC = make_key("k")
TOKENS = Tokens({"k": PyJWK(PUBLIC, "EdDSA")})
OWN = a_revision()


def api_on(log, clock):
    """What the calls work on, with this log and this clock."""
    in_force = policy.load(None)
    return Api(Publishing(log, in_force, clock), log, in_force, TOKENS, clock, Metrics(), list)


def asked(counts, *scopes, sub=OWN.source, path=f"/v1/alerts/{OWN.id}", app=make_app):
    """The answer to who has these scopes, where OWN is in the log and has been delivered so often."""

    async def answer():
        log, clock = MemoryLog(), FakeClock()
        await log.start()
        await log.append(OWN)
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
    answer = asked(Counts(exact, exact // 2), "alerts:publish").json()
    assert answer["delivery"]["sent"] == told
    assert answer["delivery"]["rounded"] is True
    assert asked(Counts(exact, exact), "alerts:publish").json()["delivery"]["acked"] == told


@pytest.mark.parametrize(
    ("scopes", "sub", "delivery"),
    [
        (["alerts:publish"], OWN.source, {"sent": 50, "acked": 0, "rounded": True}),
        (["alerts:publish"], "another", None),
        (["alerts:manage"], "another", {"sent": 50, "acked": 0, "rounded": True}),
        (["alerts:manage", "alerts:audit"], "another", {"sent": 57, "acked": 19}),
        (["alerts:publish", "alerts:audit"], OWN.source, {"sent": 57, "acked": 19}),
        (["alerts:publish", "alerts:audit"], "another", None),
    ],
)
def test_who_is_told_what_of_deliveries(scopes, sub, delivery):
    """H11, H12: of one's own alerts, or with alerts:manage of all; exactly with alerts:audit."""
    answer = asked(Counts(57, 19), *scopes, sub=sub).json()
    assert answer["state"] == "live"
    assert answer.get("delivery") == delivery


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
    monkeypatch.setattr(guard, "BODY_S", 0)

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
