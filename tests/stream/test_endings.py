"""Connections that end leave no objects behind, with the garbage collector switched off (connection, Rule 5).

Real sockets and the real `Stream` are in this process; the clients are in a thread.
"""

import asyncio
import contextlib
import gc
import json
import socket
import time
import types
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
import uvloop
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.endings import ENDINGS, Door
from end_to_end.kit.keys import Keys
from end_to_end.kit.wire import Wire, request_bytes
from support.fakes import FakeClock

from geocast import policy
from geocast.alertlog.memory import MemoryLog
from geocast.api.context import ApiContext
from geocast.api.routes_alerts import serving
from geocast.auth.tokens import Key, TokenVerifier
from geocast.calls.encryption import NO_CALL_KEYS
from geocast.calls.service import CallService
from geocast.clock import SystemClock
from geocast.ingest.publish import Publishing
from geocast.metrics import Metrics
from geocast.model import close_codes
from geocast.stream import connection
from geocast.stream.connection import HEADERS_S, HELLO_S, LINGER_S, SPARE, Stream
from geocast.stream.hub import HEARTBEAT_S, SILENCE_S, SLOW_S, Hub
from geocast.stream.server import FREEZE_EVERY, THAW_S, GcFreezer

CLIENTS = 8
KEYS = Keys()
JWKS = {key["kid"]: Key(key) for key in KEYS.jwks()["keys"]}
ORDINARY = (types.GeneratorType, types.FrameType, types.TracebackType, types.MethodType)
"""The types that reference cycles consist of, beside the classes of the packages that serve a connection."""
PACKAGES = ("geocast.api.", "geocast.stream.", "websockets.", "uvloop.", "uvicorn.", "h11.", "starlette.")


def come_since() -> Counter[str]:
    """Count the objects that connections are made of and that are not frozen, by class."""
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if kind in ORDINARY or str(kind.__module__).startswith(PACKAGES):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return found


def left_by_each() -> Counter[str]:
    """Count the classes with at least one object for each client."""
    return Counter({kind: number for kind, number in come_since().items() if number >= CLIENTS})


class Listener:
    """A stream listener; its clients run in a thread, its clock stands still."""

    def __init__(self, capacity: int, unsaid: int) -> None:
        self.clock = FakeClock(time.time_ns() // 1_000_000)
        self.hub = Hub(capacity)
        self.stream = Stream(self.hub, TokenVerifier(JWKS), self.clock, capacity=capacity, unsaid=unsaid)

    async def until(self, holds) -> None:
        """Let the loop turn until a condition holds. The time limit only bounds a failure."""
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 (it is asked of many things)
                await asyncio.sleep(0.001)

    async def pass_time(self, *steps_s: float) -> None:
        """Let time pass, then run the stream's periodic check."""
        for step_s in steps_s:
            self.clock.advance(step_s)
            self.stream.sweep()
            await asyncio.sleep(0)

    async def ends(self) -> None:
        """Wait until all connections are over and the loop has dropped them."""
        await self.until(lambda: not self.stream.connections)
        self.stream.sweep()
        for _ in range(3):
            await asyncio.sleep(0)


def leaves(scenario, capacity=100, unsaid=50) -> Counter[str]:
    """Return the objects that the second run of a scenario leaves behind; the first run warms everything up.

    `scenario(listener, door, act)`: `act(work)` runs `work` in the clients' thread.
    """

    async def main() -> Counter[str]:
        listener = Listener(capacity, unsaid)
        with socket.create_server(("127.0.0.1", 0)) as sock, ThreadPoolExecutor(1) as thread:
            door = Door(sock.getsockname()[1], KEYS)
            servers = await listener.stream.listen(sock)

            async def act(work):
                return await asyncio.get_running_loop().run_in_executor(thread, work)

            try:
                await scenario(listener, door, act)
                await listener.ends()
                gc.freeze()  # the objects of the first run
                await scenario(listener, door, act)
                await listener.ends()
                left = left_by_each()
            finally:
                listener.stream.abort_all()
                for server in servers:
                    server.close()
        return left

    with switched_off(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


@contextlib.contextmanager
def switched_off():
    """Switch automatic garbage collection off, and thaw everything afterwards."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("name", ENDINGS)
def test_ended_connection_leaves_no_objects_behind(name):
    """The connection ends by each refusal, each close code and each way to hang up."""
    expected, ending = ENDINGS[name]

    async def scenario(_listener, door, act):
        assert await act(lambda: [ending(door) for _ in range(CLIENTS)]) == [expected] * CLIENTS

    assert leaves(scenario) == {}


# ---- connections that the node ends by itself ----------------------------------------------------------------------


async def open_and_wait(listener, act, connect, count=CLIENTS):
    """Open connections that exist at the same time."""
    wires = await act(lambda: [connect() for _ in range(count)])
    await listener.until(lambda: listener.stream.connections == count)
    return wires


def hang_up(wires):
    """Close the clients' sockets."""
    for wire in wires:
        wire.sock.close()


def half_open(door):
    """Open a connection and send the beginning of a request."""
    wire = Wire(door.port)
    wire.sock.sendall(b"GET /v1/str")
    return wire


def test_timed_out_connection_leaves_no_objects_behind():
    """The headers, the `hello`, the answer to a close frame or a sign of life did not arrive in time."""

    async def scenario(listener, door, act):
        for connect, time_s in (
            (lambda: half_open(door), [HEADERS_S]),
            (door.upgraded, [HELLO_S, LINGER_S]),
            (door.welcomed, [HEARTBEAT_S + SILENCE_S]),
        ):
            wires = await open_and_wait(listener, act, connect)
            await listener.pass_time(*time_s)
            await listener.ends()
            hang_up(wires)

    assert leaves(scenario) == {}


def test_connection_displaced_by_newer_ones_leaves_no_objects_behind():
    """The connection is the oldest without a `hello`, before or after the answer 101."""

    async def scenario(listener, door, act):
        for connect in (lambda: half_open(door), door.upgraded):
            wires = await act(lambda connect=connect: [connect() for _ in range(2 * CLIENTS)])
            await listener.until(lambda: len(listener.stream.unsaid) == CLIENTS)
            await listener.pass_time(LINGER_S, HEADERS_S, LINGER_S)
            await listener.ends()
            hang_up(wires)

    assert leaves(scenario, unsaid=CLIENTS) == {}


def test_connection_refused_by_a_full_node_leaves_no_objects_behind():
    """The connection gets a 503. If the reserve of connections for refusals is used up, it gets no answer at all."""

    async def scenario(listener, door, act):
        inside = await open_and_wait(listener, act, door.welcomed, 2)
        over = await act(lambda: [Wire(door.port) for _ in range(SPARE + CLIENTS)])
        await listener.until(lambda: listener.stream.connections <= 2 + SPARE)
        answers = await act(lambda: [wire.upgrade("geocast.v1.json").status for wire in over[:CLIENTS]])
        assert answers == [503] * CLIENTS
        hang_up([*over, *inside])

    assert leaves(scenario, capacity=2, unsaid=1000) == {}


@pytest.mark.parametrize("how", ["drained", "slow", "aborted", "reset"])
def test_session_closed_with_unsent_bytes_leaves_no_objects_behind(how):
    """The session is closed, or dropped with all its unsent bytes."""

    async def scenario(listener, door, act):
        wires = await open_and_wait(listener, act, door.welcomed)
        for peer in listener.hub.peers():
            peer.write(bytes(8_000_000))
        assert len(listener.stream.slow) == CLIENTS
        if how == "drained":
            for peer in listener.hub.peers():
                peer.close(close_codes.DRAINING)
            await listener.pass_time(LINGER_S)
        elif how == "slow":
            await listener.pass_time(SLOW_S, LINGER_S)
        elif how == "aborted":
            listener.stream.abort_all()
        hang_up(wires)

    assert leaves(scenario) == {}


def test_session_closed_by_an_unexpected_error_leaves_no_objects_behind(monkeypatch):
    """The traceback refers to the connection (1011)."""

    def fail(*_):
        raise KeyError("what nobody expected")

    monkeypatch.setattr(connection.Session, "receive", fail)
    expected = close_codes.INTERNAL.code

    async def scenario(_listener, door, act):
        codes = await act(lambda: [ENDINGS["no hello"][1](door) for _ in range(CLIENTS)])
        assert codes == [expected] * CLIENTS

    assert leaves(scenario) == {}


# ---- the api listener ----------------------------------------------------------------------------------------------

ALERT = json.dumps(alert(ground())).encode()
LONG = b"x" * 70_000
BROKEN = {
    "line noise": b"\x00\x01\r\n\r\n",
    "half a request": b"GET /healthz HT",
    "headers without an end": b"GET / HTTP/1.1\r\nX: " + LONG,
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an upgrade": b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "half a body": request_bytes("POST", "/v1/alerts", {"Host": "x", "Content-Length": "9"}) + b"{",
}
CALLS = {
    # description of the request -> expected status, method, path, body
    "a public page": (200, "GET", "/healthz", b""),
    "an alert that is known": (201, "POST", "/v1/alerts", ALERT),
    "no JSON": (400, "POST", "/v1/alerts", b"{"),
    "no token": (401, "GET", "/v1/policy", None),
    "nothing there": (404, "GET", "/nowhere", b""),
    "another method": (405, "DELETE", "/v1/policy", b""),
    "too large": (413, "POST", "/v1/alerts", LONG),
    "broken fields": (422, "POST", "/v1/alerts", b"{}"),
}


@pytest.mark.parametrize("name", [*CALLS, *BROKEN])
def test_closed_api_connection_leaves_no_objects_behind(name):
    """The requests of the connection were served, refused, broken off, or never complete."""

    def call(port):
        if name in BROKEN:
            with Wire(port) as wire, contextlib.suppress(ConnectionError):
                wire.sock.sendall(BROKEN[name])
                wire.sock.shutdown(socket.SHUT_WR)
                wire.read_answer()
            return
        status, method, path, body = CALLS[name]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEYS.token()}"}
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=20)) as api:
            api.request(method, path, body, {} if body is None else headers)
            assert api.getresponse().status in (status, 200)

    async def main():
        log, in_force, clock, metrics = MemoryLog(), policy.load(None), SystemClock(), Metrics()
        publishing = Publishing(log, in_force, clock)
        api = ApiContext(
            publishing,
            CallService(log, in_force, NO_CALL_KEYS, clock),
            log,
            in_force,
            TokenVerifier(JWKS),
            clock,
            metrics,
            list,
        )
        with socket.create_server(("127.0.0.1", 0)) as sock, ThreadPoolExecutor(1) as thread:
            port = sock.getsockname()[1]
            async with serving(api, sock, None):
                for run in range(2):
                    for _ in range(CLIENTS):
                        await asyncio.get_running_loop().run_in_executor(thread, call, port)
                    if run == 0:
                        await asyncio.sleep(0)
                        gc.freeze()
                with contextlib.suppress(TimeoutError):  # the last connections may be about to close
                    async with asyncio.timeout(20):
                        while left := left_by_each():  # noqa: ASYNC110 (it is asked of many things)
                            await asyncio.sleep(0.01)
                return left

    with switched_off(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == {}


# ---- freezing objects for the garbage collector --------------------------------------------------------------------


class Knot:
    """An object in a reference cycle."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_is_collected_before_gc_freeze():
    """Garbage that is frozen (ignored by the collector) would stay until all objects are unfrozen again."""
    with switched_off():
        collector = GcFreezer(FakeClock())
        collector.start()
        knot = weakref.ref(Knot())
        collector.look(FREEZE_EVERY - 1, idle=True)
        assert knot() is not None
        assert gc.get_freeze_count() > 0
        collector.look(FREEZE_EVERY, idle=False)
        assert knot() is None


def test_new_objects_are_frozen_again_after_a_number_of_new_sessions():
    """No collection examines frozen objects, until they are unfrozen."""
    with switched_off():
        collector = GcFreezer(FakeClock())
        collector.start()
        crowd = [Knot() for _ in range(1000)]
        collector.look(FREEZE_EVERY, idle=False)
        assert not any(type(thing) is Knot for thing in gc.get_objects())
        late = Knot()
        collector.look(2 * FREEZE_EVERY - 1, idle=False)
        assert any(thing is late for thing in gc.get_objects())
        collector.look(2 * FREEZE_EVERY, idle=False)
        assert not any(thing is late for thing in gc.get_objects())
        del crowd


def test_frozen_garbage_is_collected_at_the_regular_unfreeze_when_idle():
    """Objects are unfrozen at most once in THAW_S, and not during a fan-out."""
    with switched_off():
        clock = FakeClock()
        collector = GcFreezer(clock)
        frozen = Knot()
        knot = weakref.ref(frozen)
        collector.start()
        del frozen
        gc.collect()
        clock.advance(THAW_S - 1)
        collector.look(0, idle=True)
        clock.advance(1)
        collector.look(0, idle=False)
        assert knot() is not None
        collector.look(0, idle=True)
        assert knot() is None


def test_memory_shared_with_the_parent_stays_frozen_until_sessions_connect():
    """Objects were frozen before the fork (run/forking.py).

    Unfreezing them would write to all of them, so that the memory would no longer be shared.
    """
    with switched_off():
        clock = FakeClock()
        collector = GcFreezer(clock)
        gc.freeze()
        collector.start()
        shared = gc.get_freeze_count()
        clock.advance(THAW_S)
        collector.look(FREEZE_EVERY - 1, idle=True)
        assert gc.get_freeze_count() == shared
        collector.look(FREEZE_EVERY, idle=True)
        crowd = [Knot() for _ in range(10)]
        clock.advance(THAW_S)
        collector.look(FREEZE_EVERY, idle=True)
        assert not any(type(thing) is Knot for thing in gc.get_objects())
        del crowd
