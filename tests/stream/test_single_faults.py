"""One unexpected exception at every call inside the stream side of a node, one after the other, in the same story.

The story has phones that come, move, are slow, leave and come back, and alerts that are revised, cancelled and end.
Sockets, Linux AIO and the frames are real; the loop, the clock and the log are not. After each exception the phones
that were dropped come back with `holding`, and half a minute passes. Then every phone has to have what it should have,
no connection was sent an entry twice, and nobody was sent an alert that is not for its places.
"""

import asyncio
import functools
import inspect
import itertools
import json
import socket
import sys
from collections import Counter
from types import SimpleNamespace

import msgpack
import pytest
from stream.line import frames_in, request
from support.fakes import DALLAS, FakeClock, a_cancel, a_revision
from websockets.frames import Frame, Opcode

from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import TokenVerifier
from geocast.config import Address, Settings
from geocast.metrics import Metrics
from geocast.model.alert import Circle
from geocast.stream.connection import Connection
from geocast.stream.server import TICK_S, StreamServer

METRE = 1 / 111_195  # in degrees of latitude
AFTER_S = 40.0  # longer than MOST_AGAIN_S


class Injected(Exception):  # noqa: N818 (an exception that nobody expects)
    """An exception that nobody expects."""


class Faults:
    """Counts the calls inside the stream side of a node; the one with the number `at` raises."""

    def __init__(self):
        self.calls, self.at, self.raised = [], None, None
        self.on = False

    def wrap(self, name, function):
        @functools.wraps(function)
        def failing(*args, **options):
            if self.on and sys._getframe(1).f_globals.get("__name__", "").startswith("geocast."):
                self.calls.append(name)
                if self.at == len(self.calls) - 1:
                    self.raised = name
                    raise Injected
            return function(*args, **options)

        return failing


def functions():
    """Return the methods of the stream side: owner, name."""
    for module in [each for name, each in sorted(sys.modules.items()) if name.startswith("geocast.stream.")]:
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == module.__name__:
                for name, value in vars(owner).items():
                    plain = inspect.isfunction(value) and not inspect.isgeneratorfunction(value)
                    if plain and not inspect.iscoroutinefunction(value) and not inspect.isasyncgenfunction(value):
                        if not name.startswith("__"):
                            yield owner, name, value


@pytest.fixture
def faults(monkeypatch):
    found = Faults()
    for owner, name, value in functions():
        monkeypatch.setattr(owner, name, found.wrap(f"{owner.__name__}.{name}", value))
    return found


class Wire:
    """The transport of a connection: a real socket."""

    def __init__(self, world, sock):
        self.world, self.socket = world, sock
        self.unsent = b""
        self.reading, self.closed, self.ends, self.ended = True, False, False, False
        self.connection = None

    def write(self, data):
        if self.closed:
            raise RuntimeError("closed")
        was_slow = bool(self.unsent)
        self.unsent += data
        if not was_slow:
            self._flush()
            if self.unsent:
                self.world.call(self.connection.pause_writing)

    def _flush(self):
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if self.ends and not self.ended:
            self.ended = True
            self.socket.shutdown(socket.SHUT_WR)

    def writable(self):
        """Send what was not sent; called by the loop."""
        if self.unsent and not self.closed:
            self._flush()
            if not self.unsent and not self.closed:
                self.world.call(self.connection.resume_writing)

    def readable(self):
        """Pass on what has come; called by the loop."""
        if self.closed or not self.reading:
            return
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            if not self.world.call(self.connection.data_received, data):
                self.abort()
        else:
            self.close()

    def set_write_buffer_limits(self, high):
        assert high == 0

    def get_write_buffer_size(self):
        return len(self.unsent)

    def get_extra_info(self, _name):
        return self.socket

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ends = True
        self._flush()

    def is_closing(self):
        return self.closed

    def close(self):
        self.abort()

    def abort(self):
        if not self.closed:
            self.closed = True
            self.world.later.append(self._lost)

    def _lost(self):
        self.world.call(self.connection.connection_lost, None)
        self.socket.close()
        self.world.wires.remove(self)


class Phone:
    """A client as the contract requires it: it remembers what it has, and comes back."""

    def __init__(self, world, name, metres, fmt):
        self.world, self.name, self.fmt = world, name, fmt
        self.places = [metres]
        self.wanted = []  # places of which the `ok` has not come
        self.held = {}
        self.over = set()
        self.socket = None
        self.reads = True
        self.away = False
        self.heard = Counter()
        self.seen_places = []
        self.problems = []

    def connect(self):
        self.socket, there = socket.socketpair()
        there.setblocking(False)
        self.socket.setblocking(False)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        self.data, self.is_open = b"", False
        self.heard, self.wanted = Counter(), []
        self.seen_places = [*self.places]
        wire = Wire(self.world, there)
        wire.connection = Connection(self.world.server._stream)
        self.world.wires.append(wire)
        self.world.call(wire.connection.connection_made, wire)
        self.socket.send(request(Sec_WebSocket_Protocol=f"geocast.v1.{self.fmt}"))
        self.say(type="hello", places=[self.place(each) for each in self.places], holding=self.held)

    @staticmethod
    def place(metres):
        return {"lat": DALLAS[0] + metres * METRE, "lng": DALLAS[1]}

    def say(self, **message):
        data = json.dumps(message).encode() if self.fmt == "json" else msgpack.packb(message)
        opcode = Opcode.TEXT if self.fmt == "json" else Opcode.BINARY
        try:
            self.socket.send(Frame(opcode, data).serialize(mask=True))
        except OSError:
            pass

    def move(self, metres):
        """Ask for another place, if it is connected; otherwise it is there when it comes back."""
        if self.socket is None or not self.is_open:
            self.places = [metres]
            return
        self.wanted.append(metres)
        self.seen_places.append(metres)
        self.say(type="move", places=[self.place(metres)])

    def drop(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None
            if self.wanted:
                self.places = [self.wanted[-1]]

    def read(self):
        if self.socket is None:
            if not self.away:
                self.connect()
            return
        if not self.reads:
            return
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        self.data += data
        if not self.is_open:
            head, end, rest = self.data.partition(b"\r\n\r\n")
            if not end:
                return
            assert b"101" in head, head
            self.data, self.is_open = rest, True
        whole = 0
        while (end := frame_end(self.data, whole)) is not None:
            [(opcode, payload)] = frames_in(self.data[whole:end])
            whole = end
            if opcode == Opcode.PING:
                try:
                    self.socket.send(Frame(Opcode.PONG, payload).serialize(mask=True))
                except OSError:
                    pass
            elif opcode == Opcode.CLOSE:
                self.drop()
                return
            else:
                self.take(json.loads(payload) if opcode == Opcode.TEXT else msgpack.unpackb(payload))
        self.data = self.data[whole:]

    def take(self, message):
        kind = message["type"]
        if kind == "ok":
            self.places = [self.wanted.pop(0)]
            self.seen_places = [*self.places, *self.wanted]
        elif kind == "alert":
            alert = message["alert"]
            key = alert["id"], alert["revision"]
            self.heard[key] += 1
            if self.heard[key] > 1:
                self.problems.append(f"twice: {key}")
            chain = self.world.log[alert["id"]]
            had = alert["id"] in self.held
            entry = chain[alert["revision"] - 1]
            if not had and not any(self.world.inside(entry, each) for each in self.seen_places):
                self.problems.append(f"outside: {key}")
            if self.world.ended(entry):
                self.problems.append(f"after the end: {key}")
            if alert["id"] not in self.over and alert["revision"] > self.held.get(alert["id"], 0):
                self.held[alert["id"]] = alert["revision"]
        elif kind == "cancel":
            key = message["id"], "cancel"
            self.heard[key] += 1
            if self.heard[key] > 1:
                self.problems.append(f"twice: {key}")
            self.over.add(message["id"])
            self.held.pop(message["id"], None)
        else:
            assert kind == "welcome", message

    def verdict(self):
        found = list(self.problems)
        for alert_id, chain in self.world.log.items():
            last = chain[-1]
            cancelled = not hasattr(last, "alert")
            newest = chain[-2] if cancelled else last
            if self.world.ended(newest):
                continue
            held = self.held.get(alert_id)
            if cancelled and held is not None:
                found.append(f"cancel lost: {alert_id}")
            elif not cancelled and held is None and self.world.inside(last, self.places[0]):
                found.append(f"lost: {alert_id}")
            elif not cancelled and held is not None and held < last.revision:
                found.append(f"stale: {alert_id}")
        return [f"{self.name}: {each}" for each in found]


def frame_end(data, start):
    if len(data) < start + 2:
        return None
    size, at = data[start + 1], start + 2
    if size >= 126:
        wide = 2 if size == 126 else 8
        if len(data) < at + wide:
            return None
        size = int.from_bytes(data[at : at + wide])
        at += wide
    return at + size if len(data) >= at + size else None


class World:
    """A node without an event loop, phones, and what a log would have."""

    def __init__(self, monkeypatch, faults):
        self.clock = FakeClock()
        self.later, self.timers, self.wires = [], [], []
        self.number = itertools.count()
        loop = SimpleNamespace(call_soon=self.call_soon, call_later=self.call_later)
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
        settings = Settings(Address("127.0.0.1", 1), Address("127.0.0.1", 2), "memory:", max_sessions=6)
        self.server = StreamServer(settings, TokenVerifier({}, required=False), self.clock, MemoryLog(), Metrics())
        self.phones = []
        self.log = {}
        self.faults = faults
        self.errors = []
        self.next_tick = 0.0

    def call_soon(self, function, *args):
        self.later.append(functools.partial(function, *args))

    def call_later(self, seconds, function, *args):
        timer = [self.clock.monotonic + seconds, next(self.number), functools.partial(function, *args)]
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: timer.__setitem__(2, lambda: None))

    def call(self, function, *args):
        """Call as the event loop does, which logs an exception and goes on."""
        try:
            function(*args)
        except Exception as error:
            assert isinstance(error, Injected), repr(error)
            self.errors.append(error)
            return False
        return True

    def turn(self):
        """One iteration of the loop."""
        later, self.later = self.later, []
        for each in later:
            self.call(each)
        for timer in sorted(each for each in self.timers if each[0] <= self.clock.monotonic):
            self.timers.remove(timer)
            self.call(timer[2])
        for wire in list(self.wires):
            wire.writable()
            wire.readable()
        for phone in self.phones:
            phone.read()
        if self.clock.monotonic >= self.next_tick:
            self.next_tick = self.clock.monotonic + self.server._pause_s()
            self.call(self.tick)

    def tick(self):
        self.server._stream.sweep()
        if self.server._hub.busy:
            self.server._pump.wake()

    def run(self, seconds=0.0, step=TICK_S):
        ends = self.clock.monotonic + seconds
        while True:
            quiet = 0
            while quiet < 3:
                before = len(self.later), [len(each.heard) for each in self.phones]
                self.turn()
                quiet = quiet + 1 if not self.later and not before[0] else 0
            if self.clock.monotonic >= ends:
                return
            self.clock.advance(step)

    def publish(self, entry):
        self.log.setdefault(entry.id, []).append(entry)
        self.call(self.server._reader._apply, entry, ())

    def ended(self, entry):
        return self.clock.wall_ms >= entry.ends_at

    @staticmethod
    def inside(entry, metres):
        [shape] = entry.alert.shapes
        return abs(DALLAS[0] + metres * METRE - shape.lat) / METRE <= shape.radius_m

    def phone(self, name, metres, fmt):
        self.phones.append(Phone(self, name, metres, fmt))
        return self.phones[-1]

    def close(self):
        for phone in self.phones:
            phone.drop()
        for wire in self.wires:
            wire.socket.close()
        if self.server._sender:
            self.server._sender.close()


def revision(alert_id, number=1, metres=0, radius_m=1000, **changes):
    shape = Circle(DALLAS[0] + metres * METRE, DALLAS[1], radius_m)
    return a_revision(alert_id, number, area=(shape,), **changes)


def story(world):
    a = world.phone("a", 0, "json")
    b = world.phone("b", 100, "msgpack")
    c = world.phone("c", 5000, "json")
    d = world.phone("d", 200, "json")
    world.run(0.2)
    world.publish(revision("one"))
    world.run(0.1)
    world.publish(revision("two", metres=5000))
    world.publish(revision("far", metres=90_000))
    world.run(0.1)
    world.publish(revision("one", 2, metres=300))
    b.move(5000)
    world.run(0.1)
    c.move(0)
    world.publish(revision("two", 2, metres=100))
    world.run(0.1)
    d.drop()
    d.away = True
    world.publish(a_cancel("one", 3))
    world.publish(revision("three", metres=100, radius_m=6000))
    world.run(0.1)
    d.away = False
    world.run(0.1)
    a.reads = False
    for number in range(1, 8):
        world.publish(revision("four", number))
        world.run(0.1)
    world.publish(a_cancel("three", 2))
    world.run(0.1)
    a.reads = True
    world.run(0.2)
    world.publish(revision("short", expires_at=world.clock.wall_ms + 400))
    world.publish(revision("five", metres=4000, radius_m=5000))
    a.move(4500)
    world.run(1.0)
    c.drop()
    world.publish(revision("five", 2, metres=4000, radius_m=2000))
    world.run(1.0, 0.5)
    world.publish(revision("six", radius_m=9000))
    world.run(0.1)


def outcome(monkeypatch, faults, at=None):
    with monkeypatch.context() as patch:
        world = World(patch, faults)
        faults.calls, faults.at, faults.raised, faults.on = [], at, None, True
        try:
            story(world)
            faults.on = False
            world.run(AFTER_S, 0.5)
            world.publish(revision("last", radius_m=9000))  # whoever is connected is still sent something
            world.run(1.0, 0.5)
            return faults.raised, [each for phone in world.phones for each in phone.verdict()]
        finally:
            faults.on = False
            world.close()


def test_story_without_a_fault(monkeypatch, faults):
    assert outcome(monkeypatch, faults) == (None, [])


def test_sweep(monkeypatch, faults):
    outcome(monkeypatch, faults)
    calls = list(faults.calls)
    print(len(calls), len(set(calls)))
    bad = []
    for at in range(len(calls)):
        try:
            raised, wrong = outcome(monkeypatch, faults, at)
        except Exception as error:
            raised, wrong = calls[at], [repr(error)]
        if wrong:
            bad.append((at, raised, wrong))
            print(at, raised, wrong, flush=True)
    assert not bad
