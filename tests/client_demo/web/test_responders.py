"""Tests of calls for help on a real node, with a dispatcher and responders on both clients."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.kit.alerts import Json, ground, new_id, place
from end_to_end.kit.node import Node
from end_to_end.kit.responders import dispatch_token, responder_token, responding_node
from end_to_end.kit.times import stamp, wait_until

from client_demo.python.calls import CallChange, CallKind
from client_demo.python.client import Client
from client_demo.python.dispatcher import Dispatcher
from client_demo.python.geo import Place, distance_m, offset
from client_demo.python.publisher import Refused

GUARD_S = 120.0  # a test that takes longer is considered hung


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Return a node that all tests of this module share; each test uses a place of its own."""
    with responding_node(tmp_path_factory.mktemp("calls")) as shared:
        yield shared


@pytest.fixture
def own_node(tmp_path: Path) -> Iterator[Node]:
    """Return a node that the test may kill."""
    with responding_node(tmp_path) as mine:
        yield mine


def dispatcher(node: Node) -> Dispatcher:
    """Return a dispatcher of this node."""
    return Dispatcher(f"http://127.0.0.1:{node.api_port}", dispatch_token(node))


def dispatch(node: Node, work: Callable[[Dispatcher], Awaitable[Any]]) -> Any:
    """Run a coroutine as a dispatcher and return its result."""

    async def all_of_it() -> Any:
        async with dispatcher(node) as desk:
            return await work(desk)

    return asyncio.run(all_of_it())


def help_wanted(spot: tuple[float, float], **fields: Any) -> Json:
    """Return a call for help at a place."""
    at = {"lat": spot[0], "lng": spot[1], "kind": "residence", "address": "Harbour Lane 4", "access": "Code 4711."}
    texts = {"category": "cardiac_arrest", "headline": "Adult, not breathing.", "occurred_at": stamp(seconds=-20)}
    return {"id": new_id("call"), **texts, "place": at, **fields}


def seats(node: Node, call: Json) -> list[Json]:
    """Return the seats of a call."""
    found: list[Json] = dispatch(node, lambda d: d.call_state(call["id"]))["seats"]
    return found


# ---- the web client ------------------------------------------------------------------------------------------------


@pytest.fixture
def on_duty(open_page: Callable[..., Any]) -> Callable[..., Any]:
    """Return `on_duty(node, name, spot)`, which opens the page of a responder at a place."""

    def opening(node: Node, name: str, spot: tuple[float, float], **options: Any) -> Any:
        tokens = [responder_token(node, name)]
        page = open_page(node, place(spot, accuracy_m=10, here=True), tokens=tokens, **options)
        page.online()
        return page

    return opening


@pytest.mark.parametrize("msgpack", [False, True], ids=["json", "msgpack"])
def test_page_is_called_accepts_and_is_stood_down(node, on_duty, packages, msgpack):
    """The dispatcher sees each step (rules RU1, RU2, RU3, M18, M20, M21, M22, M23)."""
    spot = ground()
    here = offset(*spot, 300, 0)
    page = on_duty(node, f"r-page-{msgpack}", here, msgpack=msgpack)
    call = help_wanted(spot)
    opened = dispatch(node, lambda d: d.open_call(call))
    rung = page.wait(event="call", id=call["id"])
    near = rung["call"]["near"]
    assert near == opened["near"]
    assert rung["distanceM"] == pytest.approx(distance_m(*here, near["lat"], near["lng"]), abs=0.01)
    assert "Harbour" not in json.dumps(rung)
    page.call("ack", rung["call"])
    page.call("accept", call["id"], 240)
    task = page.wait(event="task", id=call["id"])["task"]
    assert task["place"] == call["place"]
    page.call("arrived", call["id"])
    wait_until(lambda: [seat["state"] for seat in seats(node, call)] == ["arrived"], "the dispatcher sees who is there")
    [seat] = seats(node, call)
    assert (seat["responder"], seat["role"], seat["eta_s"]) == (f"r-page-{msgpack}", "cpr", 240)
    state = dispatch(node, lambda d: d.call_state(call["id"]))
    assert (state["state"], state["rung"], state["seen"]) == ("ringing", 1, 1)
    dispatch(node, lambda d: d.end_call(call["id"], "The crew is there."))
    assert page.wait(event="standdown", id=call["id"])["reason"] == "over"
    assert page.call("calls") == []


def test_page_releases_its_seat_to_a_waiting_responder(node, on_duty):
    """A responder who found the call full is called again when a seat is free (rules M19, RV5, RJ4)."""
    spot = ground()
    first, second, third = (on_duty(node, f"r-{n}", offset(*spot, 100 * n, 0)) for n in (1, 2, 3))
    call = help_wanted(spot)
    dispatch(node, lambda d: d.open_call(call))
    for page in (first, second, third):
        page.wait(event="call", id=call["id"])
    for page in (first, second):
        page.call("accept", call["id"])
        page.wait(event="task", id=call["id"])
    assert third.wait(event="standdown", id=call["id"])["reason"] == "full"
    first.call("decline", call["id"])
    third.wait(2, event="call", id=call["id"])
    assert [seat["responder"] for seat in seats(node, call)] == ["r-2"]
    assert first.wait(event="standdown", id=call["id"])["reason"] == "left"
    third.call("accept", call["id"])
    third.wait(event="task", id=call["id"])
    assert sorted(seat["responder"] for seat in seats(node, call)) == ["r-2", "r-3"]


def test_corrected_place_is_sent_to_seat_holders_only(node, on_duty):
    """Other responders get a new `call` without the place (rules RJ5, RJ6)."""
    spot = ground()
    page, other = on_duty(node, "r-goes", spot), on_duty(node, "r-stays", spot)
    call = help_wanted(spot)
    dispatch(node, lambda d: d.open_call(call))
    page.wait(event="call", id=call["id"])
    other.wait(event="call", id=call["id"])
    page.call("accept", call["id"])
    page.wait(event="task", id=call["id"])
    moved = {**call, "place": {**call["place"], "address": "Harbour Lane 6"}}
    dispatch(node, lambda d: d.revise_call(moved, 1))
    assert page.wait(2, event="task", id=call["id"])["task"]["place"]["address"] == "Harbour Lane 6"
    assert "Harbour" not in json.dumps(other.wait(2, event="call", id=call["id"]))


def test_accept_survives_a_killed_node(own_node, on_duty):
    """The accept is sent again, and a seat holder gets the task again after reconnecting (rule RU3)."""
    spot = ground()
    page = on_duty(own_node, "r-page", spot)
    call = help_wanted(spot)
    dispatch(own_node, lambda d: d.open_call(call))
    page.wait(event="call", id=call["id"])
    own_node.kill()
    page.call("accept", call["id"], 60)
    own_node.start()
    page.wait(event="task", id=call["id"])
    assert [seat["responder"] for seat in seats(own_node, call)] == ["r-page"]


def test_woken_phone_fetches_calls(node, open_page):
    """One short connection with a place marked `here` is enough (rule RU4)."""
    spot = ground()
    call = help_wanted(spot)
    dispatch(node, lambda d: d.open_call(call))
    page = open_page(node, place(spot, here=True), tokens=[responder_token(node, "r-phone")], fetch=True)
    fetched = page.call("fetch")
    assert [each["id"] for each in fetched["calls"]] == [call["id"]]


# ---- the Python client -----------------------------------------------------------------------------------------------


class Responder:
    """A client on duty and its changes."""

    def __init__(self, node: Node, name: str, spot: tuple[float, float]) -> None:
        url = f"ws://127.0.0.1:{node.stream_port}/v1/stream"
        here = Place.at(*spot, 10.0, here=True)
        token = responder_token(node, name)
        self.told: list[CallChange] = []
        self._more = asyncio.Event()
        self.client = Client(url, [here], token=lambda: token, on_call=self._tell, locate=lambda: here)
        self.running = asyncio.ensure_future(self.client.run())

    def _tell(self, change: CallChange) -> None:
        self.told.append(change)
        self._more.set()

    async def until(self, *kinds: CallKind) -> CallChange:
        """Return the first change of one of these kinds."""
        while not (found := [change for change in self.told if change.kind in kinds]):
            self._more.clear()
            await self._more.wait()
        return found[0]

    async def stop(self) -> None:
        self.client.stop()
        await self.running


async def reported(desk: Dispatcher, call_id: str, state: str) -> None:
    """Poll until the only seat holder has reported this state."""
    seen = ""
    while seen != state:
        await asyncio.sleep(0.02)
        [seat] = (await desk.call_state(call_id))["seats"]
        seen = seat["state"]


async def test_two_of_three_accepts_get_a_task_and_the_third_a_standdown(node):
    """At the end no client has a place (rules RV2, RJ4, RU2)."""
    spot = ground()
    responders = [Responder(node, f"r-py-{n}", offset(*spot, 50 * n, 0)) for n in range(3)]
    async with dispatcher(node) as desk:
        for responder in responders:
            await responder.client.caught_up()
        call = help_wanted(spot)
        await desk.open_call(call)
        for responder in responders:
            await responder.until(CallKind.CALL)
        for responder in responders:
            responder.client.accept(call["id"], 60)
        for responder in responders:
            await responder.until(CallKind.TASK, CallKind.STANDDOWN)
        going = [responder for responder in responders if responder.client.calls.tasks()]
        assert len(going) == 2
        assert {task["place"]["address"] for r in going for task in r.client.calls.tasks()} == {"Harbour Lane 4"}
        assert (await desk.call_state(call["id"]))["state"] == "full"
        assert call["id"] in [state["call"]["id"] for state in await desk.calls()]
        await desk.end_call(call["id"], "The crew is there.")
        for responder in going:
            await responder.until(CallKind.STANDDOWN)
        assert not any(len(responder.client.calls) for responder in responders)
    for responder in responders:
        await responder.stop()


async def test_lost_connection_loses_no_accept_and_no_standdown(node):
    """The accept and the standdown are repeated on the next connection (rules RU3, RJ6, RJ8)."""
    spot = ground()
    responder = Responder(node, "r-tunnel", spot)
    async with dispatcher(node) as desk:
        await responder.client.caught_up()
        call = help_wanted(spot)
        await desk.open_call(call)
        await responder.until(CallKind.CALL)
        responder.client.interrupt()
        responder.client.accept(call["id"])
        await responder.until(CallKind.TASK)
        responder.client.report(call["id"], "aed")
        await reported(desk, call["id"], "aed")
        responder.client.interrupt()
        await desk.end_call(call["id"], "The crew is there.")
        assert (await responder.until(CallKind.STANDDOWN)).reason == "over"
    await responder.stop()


async def test_refused_call_names_every_broken_rule(node):
    """The same call sent twice is one call (rules RO1, RY1, RY8)."""
    async with dispatcher(node) as desk:
        call = help_wanted(ground())
        first = await desk.open_call(call)
        assert await desk.open_call(call) == first
        for body, status, slug in (
            ({**call, "headline": "Two adults."}, 409, "id-conflict"),
            ({**call, "id": new_id("call"), "category": "fire_structure"}, 422, "category-not-callable"),
        ):
            with pytest.raises(Refused) as refusal:
                await desk.open_call(body)
            assert refusal.value.status == status
            assert slug in json.dumps(refusal.value.problem)
        with pytest.raises(Refused) as refusal:
            await desk.call_state("nowhere-to-be-found")
        assert (refusal.value.status, refusal.value.slug) == (404, "unknown-call")
