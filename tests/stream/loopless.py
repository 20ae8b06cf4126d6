"""A node's stream side without an event loop, a clock of the test's, and phones on real sockets that it drives.

The frames, the sockets and Linux AIO are real; the log is the calls of `publish`. `Faults` makes one call inside the
stream side raise.
"""

import asyncio
import contextlib
import functools
import inspect
import itertools
import json
import socket
import sys
from collections import Counter
from types import SimpleNamespace

import msgpack
from stream.line import frames_in, request
from support.fakes import DALLAS, FakeClock, a_revision
from support.injections import Injected
from websockets.frames import Frame, Opcode

from geocast.alertlog.memory import MemoryLog
from geocast.auth.tokens import TokenVerifier
from geocast.config import Settings
from geocast.metrics import Metrics
from geocast.model.alert import Circle, Revision
from geocast.model.server_address import Address
from geocast.stream.connection import Connection
from geocast.stream.server import TICK_S, StreamServer

METRE = 1 / 111_195  # in degrees of latitude
BUFFER_BYTES = 4608  # the least for which the kernel lets a socket be


class Faults:
    """The calls of methods inside the stream side of a node, while `on`; the one with the number `at` raises."""

    def __init__(self, monkeypatch):
        self.calls, self.at, self.on = [], None, False
        for owner, name, method in _methods():
            monkeypatch.setattr(owner, name, self._failing(f"{owner.__name__}.{name}", method))

    def _failing(self, name, method):
        @functools.wraps(method)
        def failing(*args, **options):
            if self.on and sys._getframe(1).f_globals.get("__name__", "").startswith("geocast."):
                self.calls.append(name)
                if self.at == len(self.calls) - 1:
                    raise Injected
            return method(*args, **options)

        return failing


def _methods():
    for module in [each for name, each in sorted(sys.modules.items()) if name.startswith("geocast.stream.")]:
        for owner in vars(module).values():
            if inspect.isclass(owner) and owner.__module__ == module.__name__:
                yield from [(owner, name, value) for name, value in vars(owner).items() if _may_fail(name, value)]


def _may_fail(name, value):
    is_plain = inspect.isfunction(value) and not inspect.isgeneratorfunction(value)
    is_plain = is_plain and not inspect.iscoroutinefunction(value) and not inspect.isasyncgenfunction(value)
    return is_plain and not name.startswith("__")


class Transport:
    """The transport of a connection: a real socket, from and to which the node passes bytes."""

    def __init__(self, node, sock):
        self.node, self.socket = node, sock
        self.connection = Connection(node.server._stream)
        self._unsent = b""
        self._reads, self._closing, self._ends = True, False, False
        node.call(self.connection.connection_made, self)

    def write(self, data):
        """Send the bytes, or keep what the kernel does not take and call `pause_writing`, as a real transport does."""
        if self._closing:
            raise RuntimeError("the transport is closed")
        was_slow, self._unsent = bool(self._unsent), self._unsent + data
        if not was_slow:
            self._flush()
            if self._unsent:
                self.node.call(self.connection.pause_writing)

    def _flush(self):
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
            if self._ends:
                self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self.abort()

    def pass_on(self):
        """Send what was not sent, and pass on what has come."""
        if self._unsent and not self._closing:
            self._flush()
            if not self._unsent and not self._closing:
                self.node.call(self.connection.resume_writing)
        if self._reads and not self._closing:
            data = _received(self.socket)
            if data == b"" or (data and not self.node.call(self.connection.data_received, data)):
                self.abort()

    def abort(self):
        """Close the connection; `connection_lost` follows."""
        if not self._closing:
            self._closing = True
            self.node.call_soon(self._lose)

    def _lose(self):
        self.node.call(self.connection.connection_lost, None)
        self.socket.close()
        self.node.transports.remove(self)

    def set_write_buffer_limits(self, high):
        """Require the limit that the node needs."""
        assert high == 0

    def get_write_buffer_size(self):
        """Return the number of bytes that the kernel has not taken."""
        return len(self._unsent)

    def get_extra_info(self, _name):
        """Return the socket."""
        return self.socket

    def pause_reading(self):
        """Leave what comes in the kernel."""
        self._reads = False

    def resume_reading(self):
        """Pass on what comes."""
        self._reads = True

    def can_write_eof(self):
        """Return True, as for TCP."""
        return True

    def write_eof(self):
        """End the stream after the unsent bytes."""
        self._ends = True
        self._flush()

    def is_closing(self):
        """Return whether the connection was closed."""
        return self._closing


def _received(sock):
    """Return what has come, b"" at the end of the stream, or None."""
    try:
        return sock.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""


class Phone:
    """A client as the contract requires it: it remembers what it has, and comes back.

    A place is in metres north of Dallas. `wrong` lists what it should not have been sent.
    """

    def __init__(self, node, name, metres, fmt):
        self.node, self.name, self.fmt = node, name, fmt
        self.place = metres
        self.held, self._over = {}, set()
        self.reads, self.is_away = True, False
        self.wrong = []
        self._socket = None
        self._asked = []  # places whose `ok` has not come

    def _connect(self):
        self._socket, there = socket.socketpair()
        for each in (self._socket, there):
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self._data, self._is_open = b"", False
        self._told, self._asked = Counter(), []
        self.node.transports.append(Transport(self.node, there))
        self._socket.send(request(Sec_WebSocket_Protocol=f"geocast.v1.{self.fmt}"))
        self._say(type="hello", places=[_place(self.place)], holding=self.held)

    def _say(self, **message):
        is_json = self.fmt == "json"
        payload = json.dumps(message).encode() if is_json else msgpack.packb(message)
        self._write(Frame(Opcode.TEXT if is_json else Opcode.BINARY, payload))

    def _write(self, frame):
        with contextlib.suppress(OSError):
            self._socket.send(frame.serialize(mask=True))

    def move(self, metres):
        """Go to another place, and say so if it is connected."""
        if self._socket is None or not self._is_open:
            self.place = metres
        else:
            self._asked.append(metres)
            self._say(type="move", places=[_place(metres)])

    def drop(self):
        """Lose the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.place = [self.place, *self._asked][-1]

    def live(self):
        """Connect if it is not connected, and read what has come."""
        if self._socket is None:
            if not self.is_away:
                self._connect()
        elif self.reads and (data := _received(self._socket)) is not None:
            if data:
                self._take(data)
            else:
                self.drop()

    def _take(self, data):
        self._data += data
        if not self._is_open:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._data, self._is_open = rest, True
        while (end := _frame_end(self._data)) is not None:
            [(opcode, payload)] = frames_in(self._data[:end])
            self._data = self._data[end:]
            if opcode == Opcode.CLOSE:
                self.drop()
                return
            if opcode == Opcode.PING:
                self._write(Frame(Opcode.PONG, payload))
            else:
                self._hear(json.loads(payload) if opcode == Opcode.TEXT else msgpack.unpackb(payload))

    def _hear(self, message):
        match message["type"]:
            case "ok":
                self.place = self._asked.pop(0)
            case "alert":
                self._hear_of(message["alert"]["id"], message["alert"]["revision"])
            case "cancel":
                self._note(message["id"], "cancel")
                self._over.add(message["id"])
                self.held.pop(message["id"], None)
            case kind:
                assert kind == "welcome", message

    def _hear_of(self, alert_id, number):
        self._note(alert_id, number)
        entry = self.node.log[alert_id][number - 1]
        if alert_id not in self.held and not any(is_inside(entry, each) for each in [self.place, *self._asked]):
            self.wrong.append(f"outside: {alert_id} {number}")
        if self.node.has_ended(entry):
            self.wrong.append(f"after the end: {alert_id} {number}")
        if alert_id not in self._over:
            self.held[alert_id] = max(number, self.held.get(alert_id, 0))

    def _note(self, alert_id, what):
        self._told[alert_id, what] += 1
        if self._told[alert_id, what] == 2:
            self.wrong.append(f"twice: {alert_id} {what}")

    def verdict(self):
        """Return what it was sent wrongly, and what it lacks now."""
        found = [*self.wrong]
        for alert_id, chain in self.node.log.items():
            last, held = chain[-1], self.held.get(alert_id)
            if self.node.has_ended(last):
                continue
            if not isinstance(last, Revision):
                found += [f"cancel lost: {alert_id}"] * (held is not None)
            elif held is None:
                found += [f"lost: {alert_id}"] * is_inside(last, self.place)
            elif held < last.revision:
                found.append(f"stale: {alert_id} {held}")
        return [f"{self.name}: {each}" for each in found]


def _place(metres):
    return {"lat": DALLAS[0] + metres * METRE, "lng": DALLAS[1]}


def is_inside(revision, metres):
    """Return whether a place is inside the circle of a revision."""
    [shape] = revision.alert.shapes
    return abs(DALLAS[0] + metres * METRE - shape.lat) / METRE <= shape.radius_m


def _frame_end(data):
    if len(data) < 2:
        return None
    size, at = data[1], 2
    if size >= 126:
        at = 4 if size == 126 else 10
        if len(data) < at:
            return None
        size = int.from_bytes(data[2:at])
    return at + size if len(data) >= at + size else None


class Node:
    """The stream side of a node, its phones, and the entries of its log, in a dict by alert id."""

    def __init__(self, monkeypatch):
        self.clock = FakeClock()
        self.phones, self.transports, self.log = [], [], {}
        self._soon, self._timers, self._numbers = [], [], itertools.count()
        self._next_tick = 0.0
        loop = SimpleNamespace(call_soon=self.call_soon, call_later=self._call_later)
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
        settings = Settings(stream=Address("127.0.0.1", 1), api=Address("127.0.0.1", 2), log="memory:", max_sessions=6)
        self.server = StreamServer(settings, TokenVerifier({}, required=False), self.clock, MemoryLog(), Metrics())

    def call_soon(self, function, *args):
        """Call a function in the next turn."""
        self._soon.append(functools.partial(function, *args))

    def _call_later(self, seconds, function, *args):
        timer = [self.clock.monotonic + seconds, next(self._numbers), functools.partial(function, *args)]
        self._timers.append(timer)
        return SimpleNamespace(cancel=lambda: timer.__setitem__(2, lambda: None))

    def call(self, function, *args):
        """Call a function as an event loop does, which logs an exception; return whether there was none."""
        try:
            function(*args)
        except Injected:
            return False
        return True

    def _turn(self):
        soon, self._soon = self._soon, []
        for each in soon:
            self.call(each)
        for timer in sorted(each for each in self._timers if each[0] <= self.clock.monotonic):
            self._timers.remove(timer)
            self.call(timer[2])
        for transport in list(self.transports):
            transport.pass_on()
        for phone in self.phones:
            phone.live()
        if self.clock.monotonic >= self._next_tick:
            self._next_tick = self.clock.monotonic + self.server._pause_s()
            self.call(self._tick)

    def _tick(self):
        self.server._stream.sweep()
        if self.server._hub.busy:
            self.server._pump.wake()

    def run(self, seconds, step=TICK_S):
        """Let time pass, in steps; in each, everything is sent and answered."""
        ends = self.clock.monotonic + seconds
        while self.clock.monotonic < ends:
            quiet = 0
            while quiet < 4:
                self._turn()
                quiet = 0 if self._soon else quiet + 1
            self.clock.advance(step)

    def publish(self, entry):
        """Have an entry read from the log."""
        self.log.setdefault(entry.id, []).append(entry)
        self.call(self.server._reader._apply, entry, ())

    def has_ended(self, entry):
        """Return whether an entry may no longer be sent."""
        return self.clock.wall_ms >= entry.ends_at

    def phone(self, name, metres, fmt):
        """Add a phone."""
        self.phones.append(Phone(self, name, metres, fmt))
        return self.phones[-1]

    def close(self):
        """Close all sockets."""
        for phone in self.phones:
            phone.drop()
        for transport in self.transports:
            transport.socket.close()
        if self.server._sender is not None:
            self.server._sender.close()


def revision(alert_id, number=1, metres=0, radius_m=1000, **changes):
    """Return a revision around a place in metres north of Dallas."""
    return a_revision(alert_id, number, area=(Circle(DALLAS[0] + metres * METRE, DALLAS[1], radius_m),), **changes)
