"""The stream listener: WebSocket connections on an `asyncio.Protocol`, around websockets' Sans-I/O parser.

    accept ──headers──> refused (HTTP status) ──────┐     each step has a deadline and a bound
       │                                            ↓
       └──101──> unsaid ──hello──> session ──> lingering ──> gone

Rule 1  No task, future or timer per connection: deadlines are looked at by `sweep`, for all connections at once.
Rule 2  The parser lives only while it has work. At a frame boundary, with no fragmented message open, it is dropped,
        and made anew when bytes come: an idle connection takes 1.6 KB with uvloop instead of 5.4 KB (a session as a
        whole: `bench memory`). So only whole frames are fed to it, one at a time.
Rule 3  The write buffer's high-water mark is 0: a connection has nothing unsent, or it is *slow*. While it is slow
        nothing of it is read: what has come already waits in `_unread`, the rest in the kernel. (That also ends
        floods of pings: a peer that never reads can't make pongs pile up.)
Rule 4  When we end a connection it *lingers*: a close frame (or a refusal) is written, then the end of the stream. What
        the peer still sends is thrown away, until it closes its side or LINGER_S are over. If we closed at once, the
        kernel would answer bytes that nobody has read with a reset, which may overtake the close frame.
Rule 5  What has ended leaves no reference cycle: a connection and its session let go of each other, and a parser is
        retired before it is dropped. So all of it is freed at once, and the garbage collector, which would find
        nothing here, may be kept from looking (stream/server.py).
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

from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenVerifier
from ..clock import Clock
from ..config import BACKLOG
from ..errors import trace
from ..model import close_codes
from ..model.close_codes import Close, SessionClosed
from ..wire.frames import WIRES, Wire
from .hub import Hub
from .session import Session

logger = logging.getLogger(__name__)

PATH = "/v1/stream"
MAX_HELLO_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024
HEADERS_S = 10.0  # from the accept until the request's headers are complete
HELLO_S = 10.0  # from the 101 until the whole of `hello` is there
LINGER_S = 5.0  # how long a peer may take to close after our close frame (Rule 4)
RATE_PER_S, BURST = 10.0, 300  # messages of one connection, control frames included
FRAGMENT_COST = 1 / 32  # of a message, for each fragment that brings something and is not the last
RETRY_AFTER_S = 5  # what a 503 tells the client to wait
MAX_HEADERS_BYTES = 32 * 1024
# Of the kernel, for each connection. What is in it when an alert ends can't be called back, so it is small.
SEND_BUFFER_BYTES = 64 * 1024
# Descriptors on which one socket listens. libuv accepts one connection for each descriptor at a turn of the loop, and a
# turn of a fan-out takes a millisecond: with one descriptor a storm of reconnects would come in at 900 a second. They
# are descriptors of one socket, since several sockets would have a queue each, and connections would not be accepted in
# the order in which the kernel made them. To send in that order, which is the order of its memory, costs a tenth less
# (ADR 6).
ACCEPTS = 8
SPARE = 64  # connections above the capacity that are accepted in order to be told 503; those beyond are dropped

# The library's parser logs each connection and, at DEBUG, each frame, with places and tokens. So it never logs here.
_SILENT = logging.getLogger(f"{__name__}.parser")
_SILENT.setLevel(logging.CRITICAL + 1)

_FAILURES = {
    c.code: c for c in (close_codes.PROTOCOL_ERROR, close_codes.BAD_UTF8, close_codes.TOO_LONG, close_codes.INTERNAL)
}
_WIRES = {wire.subprotocol: wire for wire in WIRES}


class Stream:
    """All connections of the stream listener, and what they share. Each is in `all` from its accept to its end."""

    def __init__(
        self,
        hub: Hub,
        tokens: TokenVerifier,
        clock: Clock,
        *,
        capacity: int,
        unsaid: int,
        origins: Collection[str] = (),
        loopback_origins: bool = False,
        newer_keys: NewerKeys | None = None,
    ) -> None:
        """`capacity`: how many connections there may be; `unsaid`: how many of them may be without a `hello`.

        `origins`: the origins whose pages may connect, as browsers send them; `loopback_origins`: those of this machine
        too. `newer_keys`: where to wait for keys that are not known yet.
        """
        self.hub = hub
        self.tokens = tokens
        self.clock = clock
        self.draining = False
        self.closes: Counter[int] = Counter()  # close code -> how many sessions we have ended with it
        self.refusals: Counter[int] = Counter()  # HTTP status -> how many handshakes were refused with it
        self.arrivals = 0  # connections since the start
        self.all: set[Connection] = set()
        # Both in the order in which they came, so the oldest is the first. The times are of the monotonic clock.
        self.unsaid: dict[Connection, float] = {}  # connections without `hello` -> the deadline of their next step
        self.lingering: dict[Connection, float] = {}  # connections that we have ended -> when they are dropped (Rule 4)
        self.slow: set[Connection] = set()  # connections with unsent bytes (Rule 3)
        self.held: dict[Connection, bytes] = {}  # connections that wait for newer keys -> the message with the token
        self._capacity = capacity
        self._max_unsaid = unsaid
        self._origins = frozenset(origins)
        self._loopback_origins = loopback_origins
        self._newer_keys = newer_keys

    async def listen(self, listener: socket.socket) -> list[asyncio.Server]:
        """Accept connections on a listening socket, ACCEPTS at a turn of the loop. The caller closes the servers."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        serve = asyncio.get_running_loop().create_server
        return [await serve(lambda: Connection(self), sock=listener.dup(), backlog=BACKLOG) for _ in range(ACCEPTS)]

    @property
    def connections(self) -> int:
        """How many connections there are, lingering ones included."""
        return len(self.all)

    def sweep(self) -> None:
        """Do what depends on time alone: end the connections whose deadline is over, and have the hub sweep."""
        now = self.clock.now()
        for connection in [c for c, deadline in self.unsaid.items() if deadline <= now.monotonic]:
            connection.out_of_time()
        for connection in [c for c, deadline in self.lingering.items() if deadline <= now.monotonic]:
            connection.abort()
        self.hub.sweep(now)

    def pause(self, connection: "Connection", payload: bytes) -> bool:
        """Whether `connection` may wait for newer keys with this message; it takes it again when that is settled."""
        if self._newer_keys is None or not self._newer_keys.wait(connection.take_again):
            return False
        self.held[connection] = payload
        return True

    def unsent_bytes(self) -> int:
        """How many bytes all transports together have not sent."""
        return sum(connection.unsent_bytes() for connection in self.slow)

    def abort_all(self) -> None:
        """Drop every connection without a word."""
        for connection in list(self.all):
            connection.abort()

    def arrived(self, connection: "Connection") -> bool:
        """Take a new connection in. False if there is no room for it, not even for a refusal.

        If too many have not said hello, the oldest of them gives way: so a flood of silent connections pushes out
        itself, and not those who are about to speak.
        """
        self.arrivals += 1
        self.all.add(connection)
        if self.connections > self._capacity + SPARE:
            return False
        if len(self.unsaid) >= self._max_unsaid:
            next(iter(self.unsaid)).give_way()
        self.unsaid[connection] = self.clock.now().monotonic + HEADERS_S
        return True

    def answer(self, request: Request, parser: ServerProtocol) -> tuple[int, str] | tuple[Wire, Response]:
        """Answer a handshake: status and text of its refusal, the first that fits (S2), or its format and the 101."""
        path, mark, _ = request.path.partition("?")
        if self.draining or self.connections > self._capacity:
            return 503, "This node takes no more connections now."
        if path != PATH:
            return 404, f"The stream is at {PATH}."
        if mark:
            return 400, "No query string is allowed: a token goes into the hello message."
        # The library refuses with 405, 505, 426 and 400, in this order. Its texts repeat what was sent: they are not
        # used.
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
    """One connection, from its accept to its end; a `Peer` of the hub.

    There are very many of these, so each field counts: see `bench memory`.
    """

    __slots__ = ("_paced", "_parser", "_parts", "_session", "_slow", "_stream", "_transport", "_unread", "write")

    write: Callable[[bytes], None]

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parser: ServerProtocol | None = None  # Rule 2
        self._session: Session | None = None  # from the 101 on
        self._unread = b""  # an incomplete head or frame, or what came while it was slow
        self._parts: list[bytes] = []  # the fragments, so far, of a message that is not complete
        self._slow = False
        self._paced = 0.0  # the monotonic time up to which its messages have used up its rate (`_too_fast`)

    @property
    def descriptor(self) -> int:
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    # ---- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=0)
        if not self._stream.arrived(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self in self._stream.lingering:
            return  # Rule 4
        if self._session is None:
            self._handshake(data)
        else:
            if self._session.row >= 0:
                self._stream.hub.note_read(self._session.row, self._stream.clock.now())
            self._read(self._unread + data if self._unread else data)

    def eof_received(self) -> None:
        """The peer will send no more. A false value has the transport close: there is no half-open session."""

    def pause_writing(self) -> None:
        """There are unsent bytes: the connection is slow (Rule 3)."""
        self._slow = True
        self._stream.slow.add(self)
        if self in self._stream.lingering:
            return
        self._transport.pause_reading()
        if self._session is not None and self._session.row >= 0:
            self._stream.hub.slowed(self._session.row, self._stream.clock.now())

    def resume_writing(self) -> None:
        """All bytes were sent: the connection has recovered, unless what it is owed now makes it slow again."""
        self._slow = False
        self._stream.slow.discard(self)
        if self in self._stream.lingering or self._transport.is_closing():
            return
        if self._session is not None and self._session.row >= 0:
            self._stream.hub.on_drained(self._session.row, self._stream.clock.now())
        if not self._slow and self not in self._stream.held:
            self._transport.resume_reading()
            if self._session is not None:
                self._read(self._unread)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._stream.all.discard(self)
        self._stream.slow.discard(self)
        self._stream.unsaid.pop(self, None)
        self._stream.lingering.pop(self, None)
        self._stream.held.pop(self, None)
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
            # What is too long, or begins with no method, is not HTTP: nobody there would understand an answer.
            if len(head) > MAX_HEADERS_BYTES or not head[:1].isupper():
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
        if not events:  # the parser found no HTTP request, or one with a body
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
        if status == 503:  # a full node has no room for connections that linger
            self.write(answer)
            self._transport.close()
        else:
            self._finish(answer)

    # ---- frames --------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Take whole frames out of `data`, one at a time, until one is incomplete or the connection is slow."""
        at = 0
        while not self._slow and not self._is_over and self not in self._stream.held:
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
    def _is_over(self) -> bool:
        return self in self._stream.lingering or self._transport.is_closing()

    @property
    def _limit(self) -> int:
        assert self._session is not None
        return MAX_HELLO_BYTES if self._session.row < 0 else MAX_MESSAGE_BYTES

    def _take_frame(self, data: bytes) -> None:
        """Take one frame, or the head of one that is too long, in which case the parser refuses it."""
        assert self._session is not None
        if self._too_fast(data):
            self.close(close_codes.TOO_MANY)
            return
        if (answer := control_answer(data)) is not None:
            if answer:
                self.write(answer)
            return
        if not self._parts and data[0] & 0x7F in _DATA and data[0] & 0x0F != self._session.wire.opcode:
            self.close(close_codes.WRONG_FRAME_TYPE)
            return
        if self._parser is None:
            self._parser = ServerProtocol(state=OPEN, logger=_SILENT)
        parser = self._parser
        parser.max_message_size = self._limit
        parser.receive_data(data)
        if parser.parser_exc is not None:
            failed = parser.close_sent
            self.close(_FAILURES.get(failed.code if failed else 0, close_codes.PROTOCOL_ERROR))
            return
        for frame in cast(list[Frame], parser.events_received()):
            self._take(frame)
        if parser.state is not State.OPEN:
            self._finish(b"".join(parser.data_to_send()))  # the client has closed: its close frame is echoed
        elif self not in self._stream.lingering and (pong := b"".join(parser.data_to_send())):
            self.write(pong)

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            return
        # An empty fragment is kept only if it opens a message: no size bounds how many of them may come.
        if frame.data or not self._parts:
            self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        payload = b"".join(self._parts)
        self._parts.clear()
        self._receive(payload)

    def _receive(self, payload: bytes, *, again: bool = False) -> None:
        """Have the session take a message. One with a token of an unknown key may wait once, and all behind it."""
        session = self._session
        assert session is not None
        try:
            session.receive(payload, self._stream.clock.now())
        except SessionClosed as ended:
            if ended.unknown_key and not again and self._stream.pause(self, payload):
                self._transport.pause_reading()
                return
            self.close(ended.close)
        except Exception as error:
            logger.error("a session failed: %s", trace(error))
            self.close(close_codes.INTERNAL)
        if session.row >= 0:
            self._stream.unsaid.pop(self, None)

    def take_again(self) -> None:
        """There are newer keys, or there are none: take the message that has waited for them, and go on."""
        payload = self._stream.held.pop(self, None)
        if payload is None or self._is_over:
            return
        self._receive(payload, again=True)
        if not self._slow and not self._is_over:
            self._transport.resume_reading()
            self._read(self._unread)

    def _too_fast(self, frame: bytes) -> bool:
        """Whether this frame is more than the rate allows.

        This is the generic cell rate algorithm (ITU-T I.371), which needs one number for both rate and burst: each
        frame moves `_paced` on by the time that it is worth, and `_paced` may be at most a burst's worth ahead of the
        clock.
        """
        now = self._stream.clock.now().monotonic
        whole, empty = frame[0] & 0x80, not frame[1] & 0x7F
        cost = (1.0 if whole or empty else FRAGMENT_COST) / RATE_PER_S
        self._paced = max(self._paced, now) + cost
        return self._paced - now > BURST / RATE_PER_S

    # ---- the end -------------------------------------------------------------------------------------------------

    def close(self, close: Close) -> None:
        """End the session with this close frame, unless it is ending already; then the first reason stands."""
        if self in self._stream.lingering or self._transport.is_closing():
            return
        self._stream.closes[close.code] += 1
        self._finish(Frame(Opcode.CLOSE, CloseFrame(close.code, close.reason).serialize()).serialize(mask=False))

    def abort(self) -> None:
        self._leave()
        self._transport.abort()

    def recheck(self) -> None:
        """End the session if its token is good no more by what is in force now (BA3)."""
        if self._session is not None and self._session.row >= 0 and not self._session.may_stay():
            self.close(close_codes.BAD_TOKEN)

    def unsent_bytes(self) -> int:
        """How many bytes the transport has not sent."""
        return self._transport.get_write_buffer_size()

    def out_of_time(self) -> None:
        """End the connection: the next step towards `hello` did not come in time."""
        if self._session is None:
            self.abort()
        else:
            self.close(close_codes.NO_HELLO)

    def give_way(self) -> None:
        """End the connection to make room for a newer one: it is the oldest of those that have not said hello."""
        if self._session is None:
            self.abort()
        else:
            self.close(close_codes.OVERLOADED)
        self._stream.unsaid.pop(self, None)

    def _finish(self, last: bytes) -> None:
        """Write `last` and the end of the stream, and wait for the peer to close (Rule 4)."""
        if self in self._stream.lingering or self._transport.is_closing():
            return
        self._stream.unsaid.pop(self, None)
        self._stream.lingering[self] = self._stream.clock.now().monotonic + LINGER_S
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
_WHOLE_PING, _WHOLE_PONG = 0x89, 0x8A  # the first byte of a frame: its last of a message, no reserved bits
_MAX_CONTROL_BYTES = 125  # RFC 6455, 5.5


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


def control_answer(frame: bytes) -> bytes | None:
    """What the parser would answer to one whole frame: nothing to a pong, a pong to a ping (RFC 6455, 5.5.2).

    None, if it is neither, or broken: then the parser has to look. To make it anew for each pong took 8 of 10 µs, and
    15,000 sessions that rest send 600 pongs a second.
    """
    if frame[0] not in (_WHOLE_PING, _WHOLE_PONG) or not 0x80 <= frame[1] <= 0x80 + _MAX_CONTROL_BYTES:
        return None
    if frame[0] == _WHOLE_PONG:
        return b""
    size = frame[1] - 0x80
    mask = frame[2:6] * (size // 4 + 1)
    payload = int.from_bytes(frame[6:]) ^ int.from_bytes(mask[:size])
    return bytes((_WHOLE_PONG, size)) + payload.to_bytes(size)


def frame_end(data: bytes, start: int, limit: int) -> int | None:
    """The index in `data` behind the frame that begins at `start` (RFC 6455, 5.2); None if it is not all there yet.

    Of a frame whose payload is above `limit` the head is enough, since it will be refused: the end is that of `data`.
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
