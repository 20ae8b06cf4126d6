"""The stream listener: WebSocket connections on an `asyncio.Protocol`, around websockets' Sans-I/O parser.

    accept ──headers──> refused (HTTP status)          each step has a deadline and a bound:
       │
       └──101──> greeting ──hello──> session ──> closing ──> gone

Rule 1  No task, future or timer per connection: deadlines are looked at by `sweep`, for all connections at once.
Rule 2  The parser lives only while it has work. At a frame boundary, with no fragmented message open, it is dropped
        and made anew when bytes come (an idle connection: 1.6 KB with uvloop instead of 5.4 KB). So whole frames
        are fed to it, one at a time.
Rule 3  The write buffer's high-water mark is 0: a connection has nothing unsent, or it is *slow*. While it is slow
        nothing of it is read: what has come already waits in `_unread`, the rest in the kernel. (That also ends
        floods of pings: a peer that never reads can't make pongs pile up.)
Rule 4  A close frame is written, then the end of the stream; what the peer still sends is thrown away until it
        closes, or for CLOSING_S. (To close at once would let the kernel answer unread bytes with a reset, which may
        overtake the close frame.)
Rule 5  What has ended leaves no reference cycle: a connection and its session let go of each other, and a parser is
        retired before it is dropped. So all of it is freed at once, and the garbage collector, which would find
        nothing here, may be kept from looking (delivery.py).
"""

import asyncio
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import cast
from urllib.parse import urlsplit

from websockets.datastructures import MultipleValuesError
from websockets.exceptions import InvalidHeader
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.headers import parse_subprotocol
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, State
from websockets.server import ServerProtocol

from .. import closing
from ..clock import Clock
from ..closing import Close, SessionClosed
from ..config import BACKLOG
from ..errors import trace
from ..frames import WIRES, Wire
from ..hub import Hub
from ..session import Session
from ..tokens import Tokens

log = logging.getLogger(__name__)

PATH = "/v1/stream"
MAX_HELLO_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024
HEADERS_S = 10.0  # from accept to complete request headers
HELLO_S = 10.0  # from the 101 to hello
CLOSING_S = 5.0  # how long a peer may take to close after our close frame
RATE_PER_S, BURST = 10.0, 300  # messages, control frames included
FRAGMENT_COST = 1 / 32  # of a message, for each fragment that brings something and is not the last
RETRY_AFTER_S = 5
MAX_HEADERS_BYTES = 32 * 1024
SEND_BUFFER_BYTES = 64 * 1024  # of the kernel, per connection: what an expiry can't call back
# libuv accepts one connection at a turn of the loop for each descriptor, and a turn of a fan-out takes a millisecond: a
# storm of reconnects would come in at 900 a second. (Several descriptors of one socket, not several sockets: so
# they are accepted in the order in which the kernel made them, and sending in the order of its memory costs a tenth
# less.)
ACCEPTS = 8
SPARE = 64  # connections above the capacity that are told 503; beyond, they are dropped unanswered

# The parser logs each connection, and at DEBUG each frame, places and tokens included: never.
_SILENT = logging.getLogger(f"{__name__}.parser")
_SILENT.setLevel(logging.CRITICAL + 1)

_FAILURES = {c.code: c for c in (closing.PROTOCOL_ERROR, closing.BAD_UTF8, closing.TOO_LONG, closing.INTERNAL)}
_WIRES = {wire.subprotocol: wire for wire in WIRES}


class Stream:
    """All connections of the stream listener."""

    def __init__(
        self,
        hub: Hub,
        tokens: Tokens,
        clock: Clock,
        *,
        capacity: int,
        unsaid: int,
        origins: Collection[str] = (),
        loopback_origins: bool = False,
    ) -> None:
        """`capacity`: connections in all; `unsaid`: of them, those that have not said hello."""
        self.hub = hub
        self.tokens = tokens
        self.clock = clock
        self.draining = False
        self.closes: Counter[int] = Counter()  # sessions ended by us, by code
        self.refusals: Counter[int] = Counter()  # handshakes refused, by status
        self.arrivals = 0  # connections so far
        self.all: set[Connection] = set()
        self.unsaid: dict[Connection, float] = {}  # oldest first -> the deadline of its next step
        self.slow: set[Connection] = set()  # those with unsent bytes
        self.closing: dict[Connection, float] = {}  # oldest first -> when it is dropped
        self._capacity = capacity
        self._max_unsaid = unsaid
        self._origins = frozenset(origins)
        self._loopback_origins = loopback_origins

    async def listen(self, listener: socket.socket) -> list[asyncio.Server]:
        """Accept connections on a listening socket, ACCEPTS at a turn of the loop."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        serve = asyncio.get_running_loop().create_server
        return [await serve(lambda: Connection(self), sock=listener.dup(), backlog=BACKLOG) for _ in range(ACCEPTS)]

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self.all)

    def sweep(self) -> None:
        """Whatever depends on time alone."""
        now = self.clock.now()
        for connection in [c for c, deadline in self.unsaid.items() if deadline <= now.monotonic]:
            connection.out_of_time()
        for connection in [c for c, deadline in self.closing.items() if deadline <= now.monotonic]:
            connection.abort()
        self.hub.sweep(now)

    def unsent_bytes(self) -> int:
        """What all transports together have not sent."""
        return sum(connection.unsent_bytes() for connection in self.slow)

    def abort_all(self) -> None:
        """Drop every connection."""
        for connection in list(self.all):
            connection.abort()

    def arrived(self, connection: "Connection") -> bool:
        """Count a new connection in, at the cost of the oldest one that has not said hello. False: no room at all."""
        self.arrivals += 1
        self.all.add(connection)
        if self.connections > self._capacity + SPARE:
            return False
        if len(self.unsaid) >= self._max_unsaid:
            next(iter(self.unsaid)).give_way()
        self.unsaid[connection] = self.clock.now().monotonic + HEADERS_S
        return True

    def answer(self, request: Request, parser: ServerProtocol) -> tuple[int, str] | tuple[Wire, Response]:
        """Why a handshake is refused (status, text; the first that fits), or its wire format and the 101."""
        path, mark, _ = request.path.partition("?")
        if self.draining or self.connections > self._capacity:
            return 503, "This node takes no more connections now."
        if path != PATH:
            return 404, f"The stream is at {PATH}."
        if mark:
            return 400, "No query string is allowed: a token goes into the hello message."
        # In its order: 405, 505, 426, 400. Its texts repeat what was sent, so they are not used.
        response = parser.accept(request)
        if response.status_code != 101:
            return response.status_code, "This is not a WebSocket handshake (RFC 6455)."
        if len(request.headers.get_all("Host")) != 1:
            return 400, "HTTP/1.1 needs one Host (RFC 9112, 3.2)."
        if not self._origin_allowed(request.headers.get("Origin")):
            return 403, "This Origin is not on the list of those allowed."
        try:
            offered = [
                p for value in request.headers.get_all("Sec-WebSocket-Protocol") for p in parse_subprotocol(value)
            ]
        except InvalidHeader:
            return 400, "Sec-WebSocket-Protocol is malformed."
        wire = next((_WIRES[name] for name in offered if name in _WIRES), None)
        if wire is None:
            return 400, f"Offer a subprotocol: {', '.join(_WIRES)}."
        response.headers["Sec-WebSocket-Protocol"] = wire.subprotocol
        return wire, response

    def _origin_allowed(self, origin: str | None) -> bool:
        if origin is None or origin in self._origins:
            return True
        return self._loopback_origins and _is_loopback(origin)


def _is_loopback(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Connection(asyncio.Protocol):
    """One connection, from accept to its end; a `Peer` of the hub."""

    __slots__ = ("_paced", "_parser", "_parts", "_session", "_slow", "_stream", "_transport", "_unread", "write")

    write: Callable[[bytes], None]

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parser: ServerProtocol | None = None  # Rule 2
        self._session: Session | None = None  # from the 101 on
        self._unread = b""  # an incomplete frame, or what came while it was slow
        self._parts: list[bytes] = []  # of an open fragmented message
        self._slow = False
        self._paced = 0.0  # the monotonic time up to which its messages have used up their rate

    @property
    def descriptor(self) -> int:
        """The number of its socket."""
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    # ---- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection was accepted."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=0)
        if not self._stream.arrived(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self in self._stream.closing:
            return  # Rule 4
        if self._session is None:
            self._handshake(data)
        else:
            if self._session.row >= 0:
                self._stream.hub.heard(self._session.row, self._stream.clock.now())
            self._read(self._unread + data if self._unread else data)

    def eof_received(self) -> None:
        """The peer will send no more: the transport is closed."""

    def pause_writing(self) -> None:
        """There are unsent bytes (Rule 3)."""
        self._slow = True
        self._stream.slow.add(self)
        if self in self._stream.closing:
            return
        self._transport.pause_reading()
        if self._session is not None and self._session.row >= 0:
            self._stream.hub.slowed(self._session.row, self._stream.clock.now())

    def resume_writing(self) -> None:
        """All bytes were sent."""
        self._slow = False
        self._stream.slow.discard(self)
        if self in self._stream.closing or self._transport.is_closing():
            return
        if self._session is not None and self._session.row >= 0:
            self._stream.hub.recovered(self._session.row, self._stream.clock.now())
        if not self._slow:
            self._transport.resume_reading()
            if self._session is not None:
                self._read(self._unread)

    def connection_lost(self, _exc: Exception | None) -> None:
        """It is over."""
        self._stream.all.discard(self)
        self._stream.slow.discard(self)
        self._stream.unsaid.pop(self, None)
        self._stream.closing.pop(self, None)
        self._leave()
        self._session = None  # Rule 5
        self._unread = b""
        self._parts.clear()
        self._drop_parser()

    # ---- handshake -----------------------------------------------------------------------------------------------

    def _handshake(self, data: bytes) -> None:
        self._unread += data
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if not end:
            if len(head) > MAX_HEADERS_BYTES or not head[:1].isupper():  # too long, or no method: no HTTP
                self._transport.close()
            return
        self._unread = b""
        parser = ServerProtocol(logger=_SILENT)
        try:
            self._shake_hands(parser, head + end)
        finally:
            retire(parser)
        if self._session is not None:
            self._read(rest)  # a client may send its hello without waiting for the 101

    def _shake_hands(self, parser: ServerProtocol, head: bytes) -> None:
        parser.receive_data(head)
        events = parser.events_received()
        if not events:  # no HTTP request, or one with a body
            self._transport.close()
            return
        try:
            answer = self._stream.answer(cast(Request, events[0]), parser)
        except MultipleValuesError:
            answer = 400, "A header that may come once came twice."
        if isinstance(answer[0], Wire):
            self._open(parser, *answer)
        else:
            self._refuse(parser, *answer)

    def _open(self, parser: ServerProtocol, wire: Wire, response: Response) -> None:
        parser.send_response(response)
        self._session = Session(self, wire, self._stream.hub, self._stream.tokens)
        self._stream.unsaid[self] = self._stream.clock.now().monotonic + HELLO_S
        self.write(b"".join(parser.data_to_send()))

    def _refuse(self, parser: ServerProtocol, status: int, text: str) -> None:
        self._stream.refusals[status] += 1
        response: Response = parser.reject(HTTPStatus(status), text + "\n")
        if status == 405:
            response.headers["Allow"] = "GET"
        elif status == 426:
            response.headers["Upgrade"] = "websocket"
        elif status == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        parser.send_response(response)
        answer = b"".join(parser.data_to_send())
        if status == 503:  # a full node can't wait for each of them to close
            self.write(answer)
            self._transport.close()
        else:
            self._finish(answer)

    # ---- frames --------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Take whole frames out of `data`, one at a time, until one is incomplete or the connection is slow."""
        at = 0
        while not self._slow and self not in self._stream.closing and not self._transport.is_closing():
            end = frame_end(data, at, self._limit)
            if end is None:
                break
            self._take_frame(data[at:end])
            at = end
        self._unread = data[at:]
        if self._parser is not None and not self._parts and self._parser.current_size is None:
            self._drop_parser()  # Rule 2

    def _drop_parser(self) -> None:
        if self._parser is not None:
            retire(self._parser)
            self._parser = None

    @property
    def _limit(self) -> int:
        assert self._session is not None
        return MAX_HELLO_BYTES if self._session.row < 0 else MAX_MESSAGE_BYTES

    def _take_frame(self, data: bytes) -> None:
        """Take one frame, or the head of one that is too long."""
        assert self._session is not None
        if self._too_fast(data):
            self.close(closing.TOO_MANY)
            return
        if not self._parts and data[0] & 0x7F in _DATA and data[0] & 0x0F != self._session.wire.opcode:
            self.close(closing.WRONG_FRAME_TYPE)
            return
        if self._parser is None:
            self._parser = ServerProtocol(state=OPEN, logger=_SILENT)
        parser = self._parser
        parser.max_message_size = self._limit
        parser.receive_data(data)
        if parser.parser_exc is not None:
            failed = parser.close_sent
            self.close(_FAILURES.get(failed.code if failed else 0, closing.PROTOCOL_ERROR))
            return
        for frame in cast(list[Frame], parser.events_received()):
            self._take(frame)
        if parser.state is not State.OPEN:
            self._finish(b"".join(parser.data_to_send()))  # the client's own end, echoed
        elif self not in self._stream.closing and (pong := b"".join(parser.data_to_send())):
            self.write(pong)

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            return
        if frame.data or not self._parts:  # an empty one only opens a message, or nobody would bound how many we hold
            self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        payload = b"".join(self._parts)
        self._parts.clear()
        session = self._session
        assert session is not None
        try:
            session.receive(payload, self._stream.clock.now())
        except SessionClosed as ended:
            self.close(ended.close)
        except Exception as error:
            log.error("a session failed: %s", trace(error))
            self.close(closing.INTERNAL)
        if session.row >= 0:
            self._stream.unsaid.pop(self, None)

    def _too_fast(self, frame: bytes) -> bool:
        """The generic cell rate algorithm (ITU-T I.371): one number holds both rate and burst."""
        now = self._stream.clock.now().monotonic
        whole, empty = frame[0] & 0x80, not frame[1] & 0x7F
        cost = (1.0 if whole or empty else FRAGMENT_COST) / RATE_PER_S
        self._paced = max(self._paced, now) + cost
        return self._paced - now > BURST / RATE_PER_S

    # ---- the end -------------------------------------------------------------------------------------------------

    def close(self, close: Close) -> None:
        """End the session with a close frame."""
        if self in self._stream.closing or self._transport.is_closing():
            return
        self._stream.closes[close.code] += 1
        self._finish(Frame(Opcode.CLOSE, CloseFrame(close.code, close.reason).serialize()).serialize(mask=False))

    def abort(self) -> None:
        """Drop the connection."""
        self._leave()
        self._transport.abort()

    def unsent_bytes(self) -> int:
        """What the transport has not sent."""
        return self._transport.get_write_buffer_size()

    def out_of_time(self) -> None:
        """The next step before hello didn't come in time."""
        if self._session is None:
            self.abort()
        else:
            self.close(closing.NO_HELLO)

    def give_way(self) -> None:
        """Make room for a newer connection: this one is the oldest that has not said hello."""
        if self._session is None:
            self.abort()
        else:
            self.close(closing.OVERLOADED)
        self._stream.unsaid.pop(self, None)

    def _finish(self, last: bytes) -> None:
        """Write `last` and the end of the stream, and wait for the peer to close (Rule 4)."""
        if self in self._stream.closing or self._transport.is_closing():
            return
        self._stream.unsaid.pop(self, None)
        self._stream.closing[self] = self._stream.clock.now().monotonic + CLOSING_S
        self._leave()
        self._unread = b""
        self.write(last)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def _leave(self) -> None:
        if self._session is not None and self._session.row >= 0:
            row, self._session.row = self._session.row, -1
            self._stream.hub.leave(row)


_DATA = (Opcode.TEXT, Opcode.BINARY)


def retire(parser: ServerProtocol) -> None:
    """Break the cycles of a parser that is needed no more (Rule 5).

    Its generator holds the parser that holds it. An exception that it keeps holds the frames in which it was raised,
    by its traceback, and they hold the parser and the connection; so do the exceptions that it was raised from.
    """
    parser.parser.close()
    for kept in (parser.handshake_exc, parser.parser_exc):
        error: BaseException | None = kept
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


def frame_end(data: bytes, start: int, limit: int) -> int | None:
    """Where the frame that begins at `start` ends in `data` (RFC 6455, 5.2); None if it is not all there.

    One whose payload is above `limit` ends with `data`: its head is enough to refuse it.
    """
    if len(data) < start + 2:
        return None
    length, masked = data[start + 1] & 0x7F, data[start + 1] >> 7
    at = start + 2
    if length >= 126:
        wide = 2 if length == 126 else 8
        if len(data) < at + wide:
            return None
        length = int.from_bytes(data[at : at + wide], "big")
        at += wide
    if length > limit:
        return len(data)
    end = at + 4 * masked + length
    return end if end <= len(data) else None
