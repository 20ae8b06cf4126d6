"""Simulated phones, and the connections between them and a node.

A phone keeps the protocol's rules for clients: it shows an alert until it ends or is cancelled, comes back after it was
lost, and lists in `holding` what it shows. `Line` is the transport of the real `Connection` of a node; bytes take time
in both directions, and a phone may stop reading.
"""

import json
from collections import deque
from types import SimpleNamespace

import msgpack
from simulator.judge import Fault, Watch, frame_end, message_of
from support.fakes import DALLAS

from geocast.stream.connection import Connection

METRE = 1 / 111_195  # in degrees of latitude
RETRY_S = 0.4  # the longest time until a phone comes back
HEAD = (
    "GET /v1/stream HTTP/1.1\r\nHost: geocast.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: geocast.v1.{}\r\n\r\n"
)


def place_of(metres):
    """Return the place that is so many metres north of Dallas, as the model has it."""
    return DALLAS[0] + metres * METRE, DALLAS[1], 0.0


def said(metres):
    """Return the same place as a client says it."""
    lat, lng, _ = place_of(metres)
    return {"lat": lat, "lng": lng}


class Line:
    """The transport of one connection, from and to which a node passes bytes. A phone is at its other end."""

    def __init__(self, node, phone, descriptor):
        self.node, self.phone, self.descriptor = node, phone, descriptor
        self.loop = node.world.loop
        self.watch = Watch(node.rules, node.world.items, node.clock, lambda *what: node.world.note(phone.name, *what))
        self.is_lost = False  # whether the phone has lost it
        self._unsent, self._to_phone, self._to_node, self._kept = b"", deque(), deque(), deque()
        self._reads, self._closing, self._ends = True, False, False
        self.connection = Connection(node.stream)
        self.connection.connection_made(self)

    # ---- from the node ------------------------------------------------------------------------------------------

    def write(self, data):
        """Send bytes, or keep what the phone does not take and call `pause_writing`, as a real transport does."""
        if self._closing:
            self.node.world.keeps_counts = False
            raise RuntimeError("the transport is closed")
        self._judge(data)
        was_slow, self._unsent = bool(self._unsent), self._unsent + data
        if not was_slow:
            self._flush()
            if self._unsent:
                self._becomes_slow()

    def send(self, frame):
        """Take what the kernel would take of a frame that is sent to many sockets at once; return its size."""
        if self._unsent:
            self.node.world.fail(Fault("a frame is sent to a socket whose transport has unsent bytes"))
        room = len(frame) if self.phone.room is None else min(self.phone.room, len(frame))
        if self._closing:
            self.node.world.keeps_counts = False  # the server counts what it writes, not what arrives
            return -32
        if not room:
            return -11
        self._judge(frame[:room])
        self._pass_on(frame[:room])
        return room

    def _judge(self, data):
        try:
            self.watch.written(data)
        except Fault as fault:
            self.node.world.fail(Fault(f"{self.phone.name}: {fault}"))

    def _becomes_slow(self):
        if self.watch.client.slow_since is None:
            self.watch.client.slow_since = self.node.clock.now().monotonic
        self.connection.pause_writing()

    def _flush(self):
        room = self.phone.room
        taken = len(self._unsent) if room is None else min(room, len(self._unsent))
        if taken:
            self._pass_on(self._unsent[:taken])
            self._unsent = self._unsent[taken:]
        if self._ends and not self._unsent:
            self._pass_on(None)

    def _pass_on(self, data):
        if self.phone.room is not None and data:
            self.phone.room -= len(data)
        self._to_phone.append(data)
        self.loop.call_later(self.phone.delay_s(), self._deliver)

    def _deliver(self):
        data = self._to_phone.popleft()
        if self.phone.line is self:
            if data is None:
                self.phone.loses()
            else:
                self.phone.takes(data)

    def drain(self):
        """Send what was not sent, because the phone reads again."""
        if self._closing or not self._unsent:
            return
        self._flush()
        if not self._unsent:
            self.watch.client.slow_since = None
            self.connection.resume_writing()

    def close(self):
        """Close the connection when everything is sent."""
        self._ends = True
        self._flush()
        self.abort()

    def abort(self):
        """Close the connection; `connection_lost` follows."""
        if not self._closing:
            self._closing = True
            self.watch.is_in = False
            if self.watch.client in self.node.rules.clients:
                self.node.rules.clients.remove(self.watch.client)
            self.loop.call_soon(self._lose)

    def _lose(self):
        self.connection.connection_lost(None)
        self.node.frees(self)
        self._pass_on(None)

    def set_write_buffer_limits(self, high):
        """Require the limit that the node needs."""
        assert high == 0

    def get_write_buffer_size(self):
        """Return the number of bytes that the phone has not taken."""
        return len(self._unsent)

    def get_extra_info(self, _name):
        """Return something like a socket."""
        return SimpleNamespace(fileno=lambda: self.descriptor)

    def can_write_eof(self):
        """Return True, as for TCP."""
        return True

    def write_eof(self):
        """End the stream after the unsent bytes."""
        self.watch.is_in = False
        if self.watch.client in self.node.rules.clients:
            self.node.rules.clients.remove(self.watch.client)
        self._ends = True
        self._flush()

    def is_closing(self):
        """Return whether the connection was closed."""
        return self._closing

    # ---- from the phone -----------------------------------------------------------------------------------------

    def says(self, data):
        """Pass the phone's bytes on to the node, after a while; None is the end of its stream."""
        self._to_node.append(data)
        self.loop.call_later(self.phone.delay_s(), self._arrives)

    def _arrives(self):
        data = self._to_node.popleft()
        if data is None and self._unsent:  # what it was sent meets a closed port
            self.abort()
        self._kept.append(data)
        self._hand_over()

    def _hand_over(self):
        while self._kept and self._reads and not self._closing and not self.node.is_dead:
            data = self._kept.popleft()
            if data is None:
                self.abort()
            else:
                self.connection.data_received(data)

    def pause_reading(self):
        """Leave what comes in the kernel."""
        self._reads = False

    def resume_reading(self):
        """Pass on what comes."""
        if not self._reads:
            self._reads = True
            self.loop.call_soon(self._hand_over)


class Phone:
    """A subscriber. Its place is in metres north of Dallas."""

    def __init__(self, world, name, fmt, metres, delay_s):
        self.world, self.name, self._fmt, self.metres = world, name, fmt, metres
        self.line = None
        self.room = None  # the number of bytes that it still takes; None: all
        self.is_away = False
        self.shown = {}  # id -> revision
        self.over = set()  # ids of alerts whose cancel came
        self.may_test = False
        self.min_severity, self.categories = "minor", None
        self._delay_s = delay_s
        self._is_due = False  # whether it will connect

    def delay_s(self):
        """Return how long the next bytes take."""
        return self._delay_s * self.world.rng.random()

    # ---- the connection -----------------------------------------------------------------------------------------

    def comes_back(self, after_s=0.0):
        """Connect, if it is neither connected nor away."""
        if self.line is None and not self.is_away and not self._is_due:
            self._is_due = True
            self.world.loop.call_later(after_s, self._connect)

    def _connect(self):
        self._is_due = False
        if self.line is not None or self.is_away:
            return
        node = self.world.a_node_for(self)
        if node is None:
            self.comes_back(RETRY_S * self.world.rng.random())
            return
        self._bytes, self._is_open = b"", False
        self.line = node.accepts(self)
        self.line.says(HEAD.format(self._fmt).encode())
        self._expire()
        holding = dict(self.shown)
        message = {"places": [said(self.metres)], "holding": holding} | self._filter()
        if self.may_test is not None:
            message["token"] = self.world.tokens[self.may_test]
        self._note("hello", holding)
        self._say("hello", message, self._enters(self.line.watch, node.rules, holding, node.clock))

    def _filter(self):
        chosen = {"min_severity": self.min_severity}
        return chosen if self.categories is None else chosen | {"categories": self.categories}

    def _enters(self, watch, rules, holding, clock):
        """Return the change of the model when the node has accepted the `hello`."""
        places, chosen, tests = [place_of(self.metres)], self._chosen(), bool(self.may_test)

        def enter():
            watch.client.places, watch.client.tests = places, tests
            watch.client.categories, watch.client.min_severity = chosen
            rules.hello(watch.client, holding, clock.now())

        return enter

    def _chosen(self):
        return None if self.categories is None else set(self.categories), self.min_severity

    def loses(self):
        """Lose the connection, and come back."""
        line, self.line = self.line, None
        if line is not None:
            line.says(None)
            self.comes_back(RETRY_S * self.world.rng.random())

    # ---- what it says -------------------------------------------------------------------------------------------

    def _say(self, kind, message, change):
        self.line.watch.asked.append(change)
        fields = {"type": kind} | message
        is_json = self._fmt == "json"
        payload = json.dumps(fields).encode() if is_json else msgpack.packb(fields)
        self._write(0x81 if is_json else 0x82, payload)

    def _write(self, opcode, payload):
        size = len(payload)
        head = bytes((opcode, 0x80 | size)) if size < 126 else bytes((opcode, 0x80 | 126)) + size.to_bytes(2)
        self.line.says(head + bytes(4) + payload)  # a mask of zeros

    def moves(self, metres):
        """Go somewhere else."""
        self.metres = metres
        self._note("is at", metres)
        if self.line is not None:
            client = self.line.watch.client
            self._say("move", {"places": [said(metres)]}, lambda: setattr(client, "places", [place_of(metres)]))

    def chooses(self, min_severity, categories):
        """Change the filter."""
        self.min_severity, self.categories = min_severity, categories
        self._note("filters", min_severity, categories)
        if self.line is not None:
            client, chosen = self.line.watch.client, self._chosen()

            def change():
                client.categories, client.min_severity = chosen

            self._say("filter", {"min_severity": min_severity, "categories": categories}, change)

    def acknowledges(self):
        """Say that it shows what it shows."""
        if self.line is not None:
            for alert_id, revision in self.shown.items():
                fields = {"type": "ack", "id": alert_id, "revision": revision}
                is_json = self._fmt == "json"
                self._write(
                    0x81 if is_json else 0x82, json.dumps(fields).encode() if is_json else msgpack.packb(fields)
                )

    def reads_again(self):
        """Take what was held back."""
        self.room = None
        if self.line is not None:
            self.line.drain()

    # ---- what it is told ----------------------------------------------------------------------------------------

    def takes(self, data):
        """Read bytes of the node."""
        self._bytes += data
        if not self._is_open:
            head, end, rest = self._bytes.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._bytes, self._is_open = rest, True
        while self.line is not None and (end := frame_end(self._bytes)) is not None:
            message = message_of(self._bytes[:end])
            self._bytes = self._bytes[end:]
            self._hears(message)

    def _hears(self, message):
        match message["type"]:
            case "ping":
                self._write(0x8A, message["payload"])
            case "close":
                self._note("is closed", int.from_bytes(message["payload"][:2]))
                self.loses()
            case "alert":
                told = message["alert"]
                if told["id"] not in self.over:
                    self.shown[told["id"]] = max(told["revision"], self.shown.get(told["id"], 0))
            case "cancel":
                self.over.add(message["id"])
                self.shown.pop(message["id"], None)

    def _expire(self):
        for alert_id, revision in list(self.shown.items()):
            if self.world.has_ended(self.world.items[alert_id, revision]):
                del self.shown[alert_id]

    def verdict(self):
        """Return what it shows wrongly, and what it lacks, according to the log alone."""
        self._expire()
        for alert_id, chain in self.world.log_items.items():
            last, held = chain[-1], self.shown.get(alert_id)
            if self.world.has_ended(last) or any(node.has_let_go(alert_id) for node in self.world.nodes):
                continue
            if last.cancels:
                if held is not None:
                    yield f"{self.name} still shows {alert_id}, which was cancelled"
            elif held is None:
                if self.wants(last):
                    yield f"{self.name} was not sent {last}"
            elif held < last.number and (last.status == "actual" or self.may_test):
                yield f"{self.name} shows {alert_id}/{held}, not {last}"

    def wants(self, item):
        """Return whether it has to be sent an item."""
        rules = self.world.rules
        client = SimpleNamespace(
            places=[place_of(self.metres)], categories=self._chosen()[0], min_severity=self.min_severity
        )
        alert = SimpleNamespace(revision=item)
        return rules.applies(client, alert) and (item.status == "actual" or bool(self.may_test))

    def _note(self, *what):
        self.world.note(self.name, *what)
