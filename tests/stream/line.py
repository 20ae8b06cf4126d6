"""A connection of the stream on a transport without a socket, and a client at its other end."""

import json
from types import SimpleNamespace

from support.fakes import FakeClock
from websockets.frames import Frame, Opcode

from geocast.auth.tokens import TokenVerifier
from geocast.model.close_codes import Close
from geocast.stream.connection import Connection, Stream
from geocast.stream.hub import Hub

DESCRIPTOR = 7
HEADERS = {
    "Host": "geocast.example",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "geocast.v1.json",
}
TEXT, CONT = Opcode.TEXT, Opcode.CONT


class FakeTransport:
    """The transport of a connection, without a socket.

    Purpose: to see what is written, when reading stops and how the connection ends, one event at a time. Lies: the
    kernel takes all or, while `full`, nothing (a real one takes a part); unsent bytes are dropped at `close` (a real
    transport goes on sending them); `connection_lost` is called by the test (the loop calls it at its next turn).
    """

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.written = bytearray()
        self.unsent = 0
        self.full = False
        self.reading = True
        self.ended = False  # the end of the stream was written
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Keep `data`; while the kernel is full, call `pause_writing` from within, as a real transport does."""
        assert not self.ended, "written behind the end of the stream"
        self.written += data
        if self.full:
            first, self.unsent = self.unsent == 0, self.unsent + len(data)
            if first:
                self.connection.pause_writing()

    def set_write_buffer_limits(self, high: int) -> None:
        """Check that the high-water mark is 0."""
        assert high == 0

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the kernel has not accepted."""
        return self.unsent

    def get_extra_info(self, name: str) -> SimpleNamespace:
        """Return a socket with a number and nothing else."""
        assert name == "socket"
        return SimpleNamespace(fileno=lambda: DESCRIPTOR)

    def pause_reading(self) -> None:
        """Stop passing on what the client says."""
        self.reading = False

    def resume_reading(self) -> None:
        """Pass on what the client says again."""
        self.reading = True

    def can_write_eof(self) -> bool:
        """Return True, as for TCP."""
        return True

    def write_eof(self) -> None:
        """Write the end of the stream after all data."""
        self.ended = True

    def is_closing(self) -> bool:
        """Return whether the connection has closed the transport."""
        return self.closed

    def close(self) -> None:
        """Close the transport."""
        self.closed = True

    def abort(self) -> None:
        """Close the transport at once."""
        self.closed = self.aborted = True


class Line:
    """One connection from the accept to its end, a client at its other end, and the node's stream around it."""

    def __init__(self, stream: Stream | None = None, **options) -> None:
        self.stream = stream or a_stream(**options)
        self.clock = self.stream.clock
        self.transport = FakeTransport()
        self.transport.connection = self.connection = Connection(self.stream)
        self._waiting = b""  # what the client has said while nothing was read
        self._heard = 0
        self.connection.connection_made(self.transport)

    # ---- actions of the client

    def say(self, data: bytes) -> None:
        """Send bytes; they wait in the kernel while the connection does not read."""
        assert not self.transport.closed, "nothing comes over a transport that was closed"
        self._waiting += data
        if self.transport.reading:
            waiting, self._waiting = self._waiting, b""
            self.connection.data_received(waiting)
        if self.stream.runs:
            take_turns(self.stream)

    def ask(self, start: str = "GET /v1/stream HTTP/1.1", **headers: str | None) -> None:
        """Send a handshake request; `Sec_WebSocket_Key="…"` changes a header, None leaves it out."""
        self.say(request(start, **headers))

    def tell(self, message: dict) -> None:
        """Send one message in one frame."""
        self.say(frame(TEXT, json.dumps(message).encode()))

    def hear(self) -> list[tuple[int, bytes]]:
        """Return the frames written since the last call, as opcode and payload."""
        new = bytes(self.transport.written[self._heard :])
        self._heard = len(self.transport.written)
        return frames_in(new)

    def received(self) -> list[str]:
        """Return the types of the messages written since the last call."""
        return [json.loads(payload)["type"] for opcode, payload in self.hear() if opcode == TEXT]

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Return the HTTP answer: status, headers in lower case, text."""
        head, _, text = bytes(self.transport.written).decode("latin-1").partition("\r\n\r\n")
        self._heard = len(self.transport.written) if not head.startswith("HTTP/1.1 101") else len(head) + 4
        first, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, text

    # ---- actions of the event loop

    def drain(self) -> None:
        """Have the kernel accept the unsent bytes. Then the connection reads what the client has sent meanwhile."""
        self.transport.full, self.transport.unsent = False, 0
        self.connection.resume_writing()
        if self.transport.reading and self._waiting:
            self.say(b"")

    def lose(self) -> None:
        """End the connection, as the loop does when the peer has closed or the transport was closed."""
        self.transport.closed = True
        self.connection.connection_lost(None)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, then run the stream's periodic check."""
        self.clock.advance(seconds)
        self.stream.sweep()


def a_stream(
    *, capacity: int = 8, unsaid: int = 8, tokens: TokenVerifier | None = None, own_tests=None, **options
) -> Stream:
    """Return a node's stream with a hub and a clock that stands still; without `tokens` no token is needed."""
    stream = Stream(
        Hub(capacity, own_tests=own_tests),
        tokens or TokenVerifier({}, required=False),
        FakeClock(),
        capacity=capacity,
        unsaid=unsaid,
        call_later=lambda _seconds, call: stream.due.append(call),
        **options,
    )
    stream.due = []  # the calls that the loop has to make; `take_turns` makes them
    stream.runs = True  # whether they are made after each piece of data from a client
    return stream


def take_turns(stream: Stream, most: int = 10_000) -> None:
    """Make at most `most` of the calls that the stream has asked the loop for."""
    for _ in range(most):
        if stream.due:
            stream.due.pop(0)()


def opened(stream: Stream | None = None, **options) -> Line:
    """Return a line whose handshake was answered with 101."""
    line = Line(stream, **options)
    line.ask()
    assert line.answer()[0] == 101
    return line


def joined(stream: Stream | None = None, **options) -> Line:
    """Return a line whose client has been welcomed."""
    line = opened(stream, **options)
    line.tell(HELLO)
    assert line.received() == ["welcome"]
    return line


HELLO = {"type": "hello", "places": []}


def request(start: str = "GET /v1/stream HTTP/1.1", **headers: str | None) -> bytes:
    """Return a valid handshake request, with these changes."""
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in (HEADERS | changed).items() if value is not None]
    return "\r\n".join([start, *lines, "", ""]).encode()


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a client's frame, masked."""
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


def close_frame(close: Close) -> tuple[int, bytes]:
    """Return what `Line.hear` has of this close frame."""
    return 0x8, close.code.to_bytes(2, "big") + close.reason.encode()


def frames_in(data: bytes) -> list[tuple[int, bytes]]:
    """Return whole, unmasked frames (RFC 6455, 5.2) as opcode and payload; fail if one is cut off."""
    found = []
    while data:
        assert data[0] & 0xF0 == 0x80, "the last of its message, no reserved bits"
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        assert len(data) >= start + size, "cut off"
        found.append((data[0] & 0x0F, data[start : start + size]))
        data = data[start + size :]
    return found
