"""Tests of a responder's connection against a small WebSocket server in this process."""

import asyncio
import contextlib
import json

import pytest
from support.fake_nodes import FakeNode, alert, quick
from websockets.exceptions import ConnectionClosed

from client_demo.python.calls import CallKind
from client_demo.python.geo import Place
from client_demo.python.times import format_time, wall_ms

HERE, HOME = Place.at(47.6772, 8.83, 10.0, here=True), Place.at(46.0, 7.0)
NEAR = {"type": "circle", "lat": 47.67825933515865, "lng": 8.830423174775438, "radius_m": 210.0}
PLACE = {"lat": 47.6780089, "lng": 8.8311129, "kind": "residence", "address": "Dorfstrasse 4, Ossingen"}


def call(key="cad-3.8f1c02aa", revision=1, lasts_ms=1_800_000):
    return {
        "id": key,
        "revision": revision,
        "category": "cardiac_arrest",
        "title": "Cardiac arrest: CPR needed",
        "headline": "Adult, not breathing.",
        "status": "exercise",
        "source": "cad-3",
        "occurred_at": format_time(wall_ms() - 2000),
        "issued_at": format_time(wall_ms()),
        "expires_at": format_time(wall_ms() + lasts_ms),
        "answer_s": 30,
        "near": NEAR,
    }


def task(key="cad-3.8f1c02aa", revision=2, lasts_ms=1_800_000):
    expiry = {"expires_at": format_time(wall_ms() + lasts_ms)}
    fields = {"seat": 1, "role": "cpr", "place": PLACE, "aeds": [], "status": "exercise"}
    return {"type": "task", "id": key, "revision": revision, **fields, **expiry}


class Seen(list):
    """The changes reported to `on_call`, with a method to wait for a kind of change."""

    def __init__(self):
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, change):
        self.append(change)
        self._more.set()

    async def until(self, kind):
        while not any(change.kind is kind for change in self):
            self._more.clear()
            await self._more.wait()
        return next(change for change in self if change.kind is kind)


async def heard(session, kind):
    """Return the client's next message of this type."""
    while (message := await session.read())["type"] != kind:
        pass
    return message


@contextlib.asynccontextmanager
async def responding(*scripts, places=(HOME, HERE), **options):
    """Yield a client whose node plays these scripts, its changes, and the node; stop the client at the end."""
    seen, node = Seen(), FakeNode(*scripts)
    async with node.running() as url:
        client = quick(url, places, on_call=seen, **options)
        running = asyncio.create_task(client.run())
        try:
            yield client, seen, node
        finally:
            client.stop()
            await running


async def test_duty_is_sent_once_the_server_supports_it():
    """An older release refuses `here`, so the first hello omits it.

    After a welcome with `quals` it is sent (rule RQ4).
    """
    moves, again = [], asyncio.Event()

    async def first(session):
        await session.welcome(quals=["cpr"])
        moves.append(await heard(session, "move"))
        await session.socket.close(1012)

    async def second(session):
        await session.welcome(quals=["cpr"])
        again.set()
        await session.stay()

    async with responding(first, second) as (client, _, node):
        await again.wait()
        assert client.quals == ("cpr",)
    here = {"lat": 47.6772, "lng": 8.83, "accuracy_m": 10.0, "here": True}
    assert "here" not in json.dumps(node.hellos[0])
    assert moves == [{"type": "move", "ref": 0, "places": [HOME.to_map(), here]}]
    assert node.hellos[1]["places"] == [HOME.to_map(), here]


async def test_responder_without_qualifications_is_not_on_duty():
    """A `welcome` without `quals`, or with malformed ones, means no qualification (rules RQ2, RQ3)."""
    there = asyncio.Event()

    async def script(session):
        await session.welcome(quals="cpr")
        there.set()
        assert "here" not in json.dumps(await heard(session, "move"))
        await session.socket.close(1012)

    async def second(session):
        await session.welcome()
        client.stop()
        await session.stay()

    async with responding(script, second) as (client, _, node):
        await there.wait()
        assert client.quals == ()
        await client.move([HERE])
    assert "here" not in json.dumps(node.hellos)


async def test_duty_is_withheld_after_an_older_node_refuses_it():
    """After a 4400, `here` is omitted until a `welcome` has `quals` again."""
    back = asyncio.Event()

    async def first(session):
        await session.welcome(quals=["cpr"])
        await heard(session, "move")
        await session.socket.close(1012)

    async def older(session):
        await session.socket.close(4400)

    async def third(session):
        await session.welcome()
        back.set()
        await session.stay()

    async with responding(first, older, third) as (_, _, node):
        await back.wait()
    assert ["here" in json.dumps(hello) for hello in node.hellos] == [False, True, False]


async def test_call_is_acknowledged_and_accept_gets_a_task():
    """The task answers the accept (rules M18, M21, M22, M5)."""
    said = []

    async def script(session):
        await session.welcome(quals=["cpr"], live=1)
        await session.send(type="call", call=call())
        moved = await heard(session, "move")
        await session.send(type="ok", ref=moved["ref"], live=0)
        said.append(await heard(session, "ack"))
        said.append(await heard(session, "accept"))
        await session.send(**task())
        said.append(await heard(session, "report"))
        client.stop()
        await session.stay()

    async with responding(script) as (client, seen, _):
        rung = await seen.until(CallKind.CALL)
        assert client.away_m(rung.call) == pytest.approx(121.979, abs=0.001)
        await client.caught_up()
        client.accept(rung.id, 240)
        told = await seen.until(CallKind.TASK)
        assert told.task["place"] == PLACE
        client.report(told.id, "arrived")
        await asyncio.sleep(0)
    key = "cad-3.8f1c02aa"
    assert said == [
        {"type": "ack", "id": key, "revision": 1},
        {"type": "accept", "id": key, "eta_s": 240},
        {"type": "report", "id": key, "state": "arrived"},
    ]


async def test_fetch_waits_for_calls_at_places_on_duty():
    """`here` is sent after the welcome, so the call comes after its `ok` (rule RJ3)."""
    acks = []

    async def script(session):
        await session.welcome(quals=["cpr"], live=1)
        await session.send(type="alert", alert=alert(at=HOME))
        moved = await heard(session, "move")
        await session.send(type="ok", ref=moved["ref"], live=1)
        await session.send(type="call", call=call())
        with contextlib.suppress(ConnectionClosed):
            while True:
                acks.append((await heard(session, "ack"))["id"])

    seen, node = Seen(), FakeNode(script)
    async with node.running() as url:
        await quick(url, [HOME, HERE], on_call=seen).fetch()
    assert [change.kind for change in seen] == [CallKind.CALL]
    assert acks == ["a", call()["id"]]


async def test_call_not_shown_is_not_acknowledged():
    """The callback returned False, which means that the call was not shown (rule M5)."""

    async def script(session):
        await session.welcome(quals=["cpr"])
        await session.send(type="call", call=call())
        await session.send(type="alert", alert=alert(at=HOME))
        assert (await heard(session, "ack"))["id"] == "a"
        client.stop()
        await session.stay()

    node = FakeNode(script)
    async with node.running() as url:
        client = quick(url, [HERE, HOME], on_call=lambda change: False)
        await client.run()


async def test_accept_survives_the_connection():
    """The accept is sent again after the next hello, which lists the call before alerts (rule RU3)."""
    accepts, answered = [], asyncio.Event()

    async def first(session):
        await session.welcome(quals=["cpr"])
        await session.send(type="alert", alert=alert(at=HOME))
        await session.send(type="call", call=call())
        accepts.append(await heard(session, "accept"))
        session.socket.transport.abort()

    async def second(session):
        await session.welcome(quals=["cpr"])
        accepts.append(await heard(session, "accept"))
        await session.send(type="standdown", id=call()["id"], reason="full")
        answered.set()
        await session.stay()

    async with responding(first, second) as (client, seen, node):
        client.accept((await seen.until(CallKind.CALL)).id)
        await answered.wait()
        assert (await seen.until(CallKind.STANDDOWN)).reason == "full"
        assert not client.calls.unanswered(call()["id"])
    assert accepts == [{"type": "accept", "id": call()["id"]}] * 2
    assert list(node.hellos[1]["holding"].items()) == [(call()["id"], 1), ("a", 1)]


async def test_responder_who_has_helped_knows_until_when_nobody_calls():
    """A `standdown` says it, and each `welcome` (RQ7); a time that is over or no time counts as none."""
    until, is_seen = wall_ms() + 60_000, asyncio.Event()

    async def first(session):
        await session.welcome(quals=["cpr"], rest_until=format_time(until - 120_000))
        await session.send(type="call", call=call())
        await is_seen.wait()
        await session.send(type="standdown", id=call()["id"], reason="over", rest_until=format_time(until))
        await session.stay()

    async with responding(first) as (client, seen, _):
        await seen.until(CallKind.CALL)
        assert client.rest_until is None
        is_seen.set()
        await seen.until(CallKind.STANDDOWN)
        assert client.rest_until == until


async def test_call_makes_the_client_send_a_fresh_position():
    """The fresh position replaces the old one, and other places stay (rule RU1)."""
    fresh = Place.at(47.678, 8.83)

    async def locate():
        return fresh

    async def script(session):
        await session.welcome(quals=["cpr"])
        assert (await heard(session, "move"))["places"][1] == HERE.to_map()
        await session.send(type="call", call=call())
        moved = await heard(session, "move")
        assert moved["places"] == [{"lat": 47.678, "lng": 8.83, "here": True}, HOME.to_map()]
        await session.send(type="ok", ref=moved["ref"], live=0)
        client.stop()
        await session.stay()

    async with responding(script, locate=locate) as (client, seen, _):
        await seen.until(CallKind.CALL)
        await client._stopping.wait()


async def test_late_position_does_not_put_a_responder_back_on_duty():
    """The person went off duty while the position was determined (rule RQ4)."""

    async def locate():
        await client.move([HOME])
        asking.set()
        return HERE

    async def script(session):
        await session.welcome(quals=["cpr"])
        await heard(session, "move")
        await session.send(type="call", call=call())
        off = await heard(session, "move")
        await session.send(type="ok", ref=off["ref"], live=0)
        await asking.wait()
        await session.send(type="alert", alert=alert(at=HOME))
        while (message := await session.read())["type"] != "ack" or message["id"] != "a":
            assert message["type"] != "move"
        client.stop()
        await session.stay()

    asking = asyncio.Event()
    async with responding(script, locate=locate) as (client, _, _):
        await client._stopping.wait()
        assert not any(place.here for place in client.holdings.places)


async def test_failed_position_does_not_prevent_an_accept():
    """The error is logged, and the call is reported and accepted all the same."""

    def locate():
        raise OSError("no fix")

    async def script(session):
        await session.welcome(quals=["cpr"])
        await session.send(type="call", call=call())
        await heard(session, "accept")
        client.stop()
        await session.stay()

    async with responding(script, locate=locate) as (client, seen, _):
        client.accept((await seen.until(CallKind.CALL)).id)
        await client._stopping.wait()


async def test_place_is_deleted_at_its_end_without_a_connection():
    """The client needs no message for this (rule RU2)."""

    async def script(session):
        await session.welcome(quals=["cpr"], retry={"min_ms": 60_000, "max_ms": 60_000})
        await session.send(type="call", call=call(lasts_ms=700))
        await session.send(**task(lasts_ms=700))
        await seen.until(CallKind.TASK)
        session.socket.transport.abort()

    async with responding(script) as (client, seen, _):
        ended = await seen.until(CallKind.STANDDOWN)
        assert (ended.id, ended.reason, ended.task) == (call()["id"], "expired", None)
        assert client.calls.tasks() == []


async def test_malformed_calls_are_ignored():
    """Malformed calls are logged, and later messages are read."""

    async def script(session):
        await session.welcome(quals=["cpr"], live=4)
        await session.send(type="call")
        await session.send(type="call", call={"id": 4})
        await session.send(type="task", id="x", revision="2", place=None)
        await session.send(type="standdown", id=["x"])
        await session.send(type="call", call={**call(), "near": {"type": "circle"}})
        await session.stay()

    async with responding(script) as (client, seen, _):
        rung = await seen.until(CallKind.CALL)
        assert client.away_m(rung.call) is None
        assert len(seen) == 1
