"""A responder on a connection, against a small WebSocket server in this process: what is said when."""

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
    """What a client's `on_call` was told, and a way to wait for the next."""

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
    """What the client says next that is of this type."""
    while (message := await session.read())["type"] != kind:
        pass
    return message


@contextlib.asynccontextmanager
async def responding(*scripts, places=(HOME, HERE), **options):
    """A client whose node plays these scripts. It is stopped at the end, and so is it when a script fails."""
    seen, node = Seen(), FakeNode(*scripts)
    async with node.running() as url:
        client = quick(url, places, on_call=seen, **options)
        running = asyncio.create_task(client.run())
        try:
            yield client, seen, node
        finally:
            client.stop()
            await running


async def test_on_duty_is_said_once_the_server_knows_what_it_is():
    """RQ4: an older release refuses `here`, so the first hello leaves it out; a welcome with `quals` has it said."""
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


async def test_whose_token_has_no_qualification_is_never_on_duty():
    """RQ2, RQ3: a `welcome` without `quals` says so; a malformed one counts as none."""
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


async def test_a_node_that_is_older_than_the_one_before_it_is_told_nothing_of_duty():
    """It closes the hello with 4400; then `here` is left out until a `welcome` has `quals` again."""
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


async def test_who_accepts_is_told_where_and_who_has_been_rung_is_acknowledged():
    """M18, M21, M22, M5: the call that was shown is acknowledged, and the task ends the asking."""
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


async def test_one_short_connection_waits_for_what_rings_here():
    """RJ3: `here` is said behind the welcome, so the call stands behind its `ok`."""
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


async def test_a_call_that_was_not_shown_is_not_acknowledged():
    """M5: `on_call` returned False."""

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


async def test_an_accept_survives_the_connection():
    """RU3: said again behind the next hello, which lists the call before the alerts."""
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


async def test_when_it_rings_a_fresh_position_is_said_at_once():
    """RU1: in place of the one before, the other places stay."""
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


async def test_who_goes_off_duty_meanwhile_stays_off_duty():
    """RQ4: a fix that takes its time puts nobody back on duty."""

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


async def test_a_position_that_cannot_be_had_keeps_nobody_from_going():
    """What a broken receiver raises goes to the log; the call is told all the same, and accepted."""

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


async def test_a_place_is_gone_at_its_end_also_without_a_connection():
    """RU2: nobody is there to say so."""

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


async def test_calls_that_make_no_sense_end_nothing():
    """They are dropped with a word in the log, and what comes behind is heard."""

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
