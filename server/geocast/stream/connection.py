"""The stream listener: WebSocket connections as an `asyncio.Protocol` that uses the Sans-I/O parser of `websockets`.

    accept ──headers──> refused (HTTP status) ──────┐     each step has a deadline and a limit
       │                                            ↓
       └──101──> unsaid ──hello──> session ──> lingering ──> gone

After the handshake, a connection is *unsaid* until its client has sent `hello`. It is *lingering* when the node has
ended it and waits for the client to close (Rule 4). The *hub* is the object that sends alerts to sessions.

Rule 1  No connection has a task, a future or a timer of its own. `sweep` checks the deadlines of all connections at
        once. With tens of thousands of connections, each such object costs memory, and each timer makes work for the
        event loop.
Rule 2  The parser exists only while it has work. It is dropped at the end of a frame, unless a fragmented message is
        incomplete, and a new one is created when bytes arrive. So an idle connection takes 1.6 KB with uvloop instead
        of 5.4 KB (`bench memory` has the figures for whole sessions). For this reason the parser is fed only whole
        frames, one at a time.
Rule 3  The high-water mark of the write buffer is 0. So a connection that has unsent bytes is paused at once; it is
        called *slow*. A slow connection is not read: bytes already received wait in `_unread`, the rest wait in the
        kernel.
        Example: a peer sends pings as fast as it can and never reads. The first pong that does not fit into the
        kernel's buffer makes the connection slow, and no further ping is answered. Otherwise pongs would pile up in
        this process.
Rule 4  A connection that the node ends *lingers*: a close frame (or a refusal) is written, then the end of the stream.
        Bytes that the peer still sends are discarded, until it closes its side or LINGER_S have passed.
        Example: the node closes a session with 4401 while the client is sending a `move`. If the node closed its socket
        at once, the kernel would answer the unread `move` with a reset. The reset may overtake the close frame, and
        then the client would not learn that it needs a new token.
Rule 5  A connection that has ended leaves no reference cycle: the connection and its session drop their references to
        each other, and a parser's cycles are broken before it is dropped (`retire`). So all memory is freed at once.
        The garbage collector would find nothing among connections, so it need not examine them (stream/server.py).
Rule 6  Frames that may take long wait for their turn, so that alerts are not late (stream/work_queue.py). A client that
        sends faster than its rate is not refused before it has used up its burst (F7), but its frames wait: one is
        handled at a time, and then the loop does other work for three times as long. So all clients in haste together
        use a quarter of this process at most. A `hello` waits if others have worked for HELLOS_S in this iteration.
        Example: twenty clients send their 300 messages at once, are closed, and come back to send 300 more. Without the
        queue they would keep the loop busy all the time, and an alert would reach its subscribers seconds late.
"""

import asyncio
import functools
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from itertools import takewhile
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
from ..model import close_codes
from ..model.close_codes import Close, SessionClosed
from ..model.errors import trace
from ..wire.frames import WIRES, Wire
from . import handshake
from .hub import Hub
from .session import Session
from .work_queue import CallLater, WorkQueue

logger = logging.getLogger(__name__)

PATH = "/v1/stream"
MAX_HELLO_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024
HEADERS_S = 10.0  # from the accept until the head of the request is complete
HELLO_S = HEADERS_S  # from the 101 until the whole `hello` has arrived; as long, so that deadlines come in order
LINGER_S = 5.0  # how long a peer may take to close after our close frame (Rule 4)
HASTE_S = 2.0  # how far a client may be ahead of its rate before its frames wait: 20 messages (Rule 6)
REST_TIMES = 3  # the loop does other work for so many times as long as it has taken for a client in haste (Rule 6)
HELLOS_S = 0.001  # how long each iteration of the loop works on `hello` messages: about four of them (Rule 6)
RATE_PER_S, BURST = 10.0, 300  # limits on the messages of one connection, including control frames
FRAGMENT_COST = 1 / 32  # the cost of a fragment, in messages; an empty fragment and the last one cost a whole message
RETRY_AFTER_S = 5  # the `Retry-After` of a 503
MAX_HEADERS_BYTES = 32 * 1024
REFUSED_ORIGIN_S = 60.0  # the least time between two log lines about refused origins
# The kernel's send buffer of each connection. It is small because bytes in it can't be taken back when an alert ends.
SEND_BUFFER_BYTES = 64 * 1024
# How many descriptors of the listening socket the loop watches. In each turn of the loop, libuv accepts one connection
# per descriptor, and a turn of a fan-out takes a millisecond: with one descriptor, clients that reconnect all at once
# would be accepted at only 900 a second. The descriptors are duplicates for one socket. If there were several sockets
# instead, each would have its own queue, and connections would not be accepted in the order in which the kernel created
# them. That order matters: connections created one after another lie side by side in the kernel's memory, so it costs a
# tenth less to send to them in that order (ADR 6).
ACCEPTS = 8
SPARE = 64  # connections above the capacity that are accepted and refused with 503; any more are dropped

# The library's parser logs each connection and, at DEBUG, each frame, with places and tokens. So its logger is
# silenced.
_SILENT = logging.getLogger(f"{__name__}.parser")
_SILENT.setLevel(logging.CRITICAL + 1)

_FAILURES = {
    c.code: c for c in (close_codes.PROTOCOL_ERROR, close_codes.BAD_UTF8, close_codes.TOO_LONG, close_codes.INTERNAL)
}
_WIRES = {wire.subprotocol: wire for wire in WIRES}
_API_DOOR = "Requests of the api go to the port of --api."
_NO_HANDSHAKE = f"This is not a WebSocket handshake (RFC 6455). {_API_DOOR}"


class Stream:
    """All connections of the stream listener, and the objects that they share.

    A connection is in `all` from its accept until it is lost.

    Each special state of a connection has a set or dict with the connections in that state, so that other connections
    need no fields for it. Connections in `unsaid` have not received `hello` from their clients yet. Those in `slow`
    have unsent bytes. Those in `lingering` were ended by the node and wait for their clients to close. Those in `held`
    have a message that waits until newer signing keys have been fetched.
    """

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
        call_later: CallLater | None = None,
    ) -> None:
        """Create the state of the listener.

        At most `capacity` connections are accepted, and at most `unsaid` of them may still be waiting for `hello`.

        `origins` are the origins (RFC 6454) of web pages that may connect. If `loopback_origins` is true, pages served
        by this machine may connect as well. If a token is signed with an unknown key, its connection uses `newer_keys`
        to wait until newer keys have been fetched; if `newer_keys` is None, it does not wait. `call_later(seconds,
        function)` calls a function later; by default, it is the method of the running event loop.
        """
        self.hub = hub
        self.tokens = tokens
        self.clock = clock
        self.draining = False
        self.closes: Counter[int] = Counter()  # close code -> number of sessions that the node has ended with it
        self.refusals: Counter[int] = Counter()  # HTTP status -> number of handshakes refused with it
        self.arrivals = 0  # number of connections since the start
        self.all: set[Connection] = set()
        # These dicts are in the order of the deadlines, because a new deadline is never earlier than one before. Times
        # are on the monotonic clock.
        self.unsaid: dict[Connection, float] = {}  # connection before its `hello` -> the deadline of its next step
        self.lingering: dict[Connection, float] = {}  # connection that the node has ended -> when it is dropped
        self.slow: set[Connection] = set()  # connections with unsent bytes (Rule 3)
        self.held: dict[Connection, bytes] = {}  # connection that waits for newer keys -> the message with the token
        self._capacity = capacity
        self._max_unsaid = unsaid
        self._origins = frozenset(origins)
        self._loopback_origins = loopback_origins
        self._next_origin_line = 0.0
        self._newer_keys = newer_keys
        call_later = call_later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self.hellos = WorkQueue(call_later, work_s=HELLOS_S, rest_times=0)  # connections with a `hello` (Rule 6)
        self.hasty = WorkQueue(call_later, work_s=0, rest_times=REST_TIMES)  # those ahead of their rate (Rule 6)

    async def listen(self, listener: socket.socket) -> list[asyncio.Server]:
        """Accept connections on the socket `listener`, and return the servers, which the caller must close.

        In each iteration of the event loop, up to ACCEPTS connections are accepted.
        """
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        serve = asyncio.get_running_loop().create_server
        return [await serve(lambda: Connection(self), sock=listener.dup(), backlog=BACKLOG) for _ in range(ACCEPTS)]

    @property
    def connections(self) -> int:
        """The number of connections, including those that the node has ended but whose clients have not closed."""
        return len(self.all)

    def sweep(self) -> None:
        """End the connections whose deadlines have passed, and do the hub's periodic work (Rule 1)."""
        now = self.clock.now()
        for connection in _overdue(self.unsaid, now.monotonic):
            if connection not in self.hellos.waiting:  # its `hello` has arrived
                connection.end_unsaid(close_codes.NO_HELLO)
        for connection in _overdue(self.lingering, now.monotonic):
            connection.abort()
        self.hub.sweep(now)

    def pause(self, connection: "Connection", payload: bytes) -> bool:
        """Make `connection` wait for newer signing keys before the message `payload` is handled.

        Return whether it waits. At the end of the wait, `connection.take_again` is called.

        Example: the signing keys are rotated, and a client presents a token signed with the new key before this node
        has fetched that key. Without the wait, the connection would be closed with code 4401.
        """
        if self._newer_keys is None or not self._newer_keys.wait(connection.take_again):
            return False
        self.held[connection] = payload
        return True

    def unsent_bytes(self) -> int:
        """Return the total number of bytes that wait to be sent, over all connections."""
        return sum(connection.unsent_bytes() for connection in self.slow)

    def abort_all(self) -> None:
        """Drop every connection without a close frame."""
        for connection in list(self.all):
            connection.abort()

    def arrived(self, connection: "Connection") -> bool:
        """Register a new connection, and return whether it is accepted.

        Return False if there are too many connections even to refuse this one with a response. If too many connections
        have not received `hello` yet, the one with the earliest deadline is ended. So if somebody opens many
        connections and sends nothing, these connections only push out each other. Honest clients send `hello` within a
        second and are not affected.
        """
        self.arrivals += 1
        self.all.add(connection)
        if self.connections > self._capacity + SPARE:
            return False
        if len(self.unsaid) >= self._max_unsaid:
            next(iter(self.unsaid)).end_unsaid(close_codes.OVERLOADED)
        self.unsaid[connection] = self.clock.now().monotonic + HEADERS_S
        return True

    def accepted(self, head: bytes) -> tuple[Wire, bytes] | None:
        """Return the wire format and the 101 response for an ordinary request (stream/handshake.py).

        Return None if the request has to be examined by `answer`.
        """
        if self.draining or self.connections > self._capacity:
            return None
        return handshake.accepted(head, self._origin_allowed, self.clock.now().wall_ms / 1000)

    def answer(self, request: Request, parser: ServerProtocol) -> tuple[int, str] | tuple[Wire, Response]:
        """Check a handshake request (S2), and return how to answer it.

        To refuse the request, the result is an HTTP status and a text. To accept it, the result is the wire format and
        a 101 response. If the request breaks several rules, the rule that is checked first decides.
        """
        if (refusal := self._misdirected(request.path)) is not None:
            return refusal
        # The library checks for errors with the statuses 405, 505, 426 and 400, in this order. Its error texts are not
        # used, because they repeat parts of the request.
        response = parser.accept(request)
        if response.status_code != 101:
            return response.status_code, _NO_HANDSHAKE
        if len(request.headers.get_all("Host")) != 1:
            return 400, "HTTP/1.1 needs one Host (RFC 9112, 3.2)."
        if not self._origin_allowed(request.headers.get("Origin")):
            self._log_refused_origin()
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

    def wrong_door(self, head: bytes) -> tuple[int, str]:
        """Return how to refuse a request that the library can't parse: one with a body, or none of HTTP."""
        method, _, rest = head.partition(b" ")
        refusal = self._misdirected(rest.partition(b" ")[0].decode("latin-1"))
        return refusal or (400 if method == b"GET" else 405, _NO_HANDSHAKE)

    def _misdirected(self, target: str) -> tuple[int, str] | None:
        """Return how to refuse a request because there is no room or because of its target; None if both are right."""
        path, mark, _ = target.partition("?")
        if self.draining or self.connections > self._capacity:
            return 503, "This node takes no more connections now."
        if path != PATH:
            return 404, f"This port has only the stream, a WebSocket at {PATH}. {_API_DOOR}"
        return (400, "No query string is allowed: a token goes into the hello message.") if mark else None

    def _log_refused_origin(self) -> None:
        """Log that a page was refused, at most once in REFUSED_ORIGIN_S; the Origin itself is not logged."""
        now_s = self.clock.now().monotonic
        if now_s >= self._next_origin_line:
            self._next_origin_line = now_s + REFUSED_ORIGIN_S
            logger.warning("refused a page whose Origin is not one of --origins (logged at most once a minute)")

    def _origin_allowed(self, origin: str | None) -> bool:
        if origin is None or origin in self._origins:
            return True
        return self._loopback_origins and _is_loopback(origin)


def _overdue(deadlines: Mapping["Connection", float], now_s: float) -> list["Connection"]:
    """Return the connections whose deadlines have passed. The mapping is in the order of its deadlines.

    In a storm ten thousand connections may wait, and this is called twenty times a second.
    """
    return [connection for connection, _ in takewhile(lambda item: item[1] <= now_s, deadlines.items())]


def _is_loopback(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Connection(asyncio.Protocol):
    """One WebSocket connection, from its accept to its end. The hub uses it as the `Peer` of its session.

    A connection is *slow* while it has unsent bytes. It *lingers* when the node has ended it and waits for the client
    to close. A process may have tens of thousands of connections, so every field costs memory (see `bench memory`).
    """

    __slots__ = ("_paced", "_parser", "_parts", "_session", "_slow", "_stream", "_transport", "_unread", "write")

    write: Callable[[bytes], None]

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parser: ServerProtocol | None = None  # None while it is not needed (Rule 2)
        self._session: Session | None = None  # set when the 101 is sent
        self._unread = b""  # an incomplete head or frame, or bytes that came while the connection was slow
        self._parts: list[bytes] = []  # the fragments of a message that is not complete yet
        self._slow = False
        self._paced = 0.0  # the monotonic time up to which its frames have used up its rate (`_too_fast`)

    @property
    def descriptor(self) -> int:
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    # ---- methods of asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, or drop it if there are too many.

        The write buffer's high-water mark is set to 0, so `pause_writing` is called as soon as one byte can't be sent.
        """
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=0)
        if not self._stream.arrived(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process received bytes: as part of the handshake, or as WebSocket frames after the handshake.

        If the node has ended the connection already, discard the bytes (Rule 4).
        """
        if self in self._stream.lingering:
            return
        if self._session is None:
            self._handshake(data)
        else:
            if self._session.row >= 0:
                self._stream.hub.note_read(self._session.row, self._stream.clock.now())
            self._read(self._unread + data if self._unread else data)

    def eof_received(self) -> None:
        """Return None, which tells the transport to close the connection, because the peer has closed its side.

        So no connection stays half open.
        """

    def pause_writing(self) -> None:
        """Mark the connection as slow (it has unsent bytes); stop reading from it and pause its session (Rule 3).

        The transport calls this method from within `write`, so it may be called while the hub writes to a batch of
        sessions. The write that caused the call is buffered, and the hub skips the session from the next batch on.
        """
        self._slow = True
        self._stream.slow.add(self)
        if self in self._stream.lingering:
            return
        self._transport.pause_reading()
        if self._session is not None and self._session.row >= 0:
            try:
                self._stream.hub.slowed(self._session.row, self._stream.clock.now())
            except Exception as error:  # the hub would write between the bytes that the transport has not sent
                logger.error("pausing a session failed; its connection is ended: %s", trace(error))
                self.abort()

    def resume_writing(self) -> None:
        """Resume the session and resume reading, because all bytes have been sent.

        Resuming the session sends it the alerts that it lacks, which may make the connection slow again.
        """
        self._slow = False
        self._stream.slow.discard(self)
        if self in self._stream.lingering or self._transport.is_closing():
            return
        # The alerts that the session lacks are written before the waiting messages are handled. So if one of these
        # messages is a `move`, the alerts are those for the old places, and come before the `ok`.
        if self._session is not None and self._session.row >= 0:
            try:
                self._stream.hub.on_drained(self._session.row, self._stream.clock.now())
            except Exception as error:
                logger.error("resuming a session failed; its connection is ended: %s", trace(error))
                self.abort()
                return
        if not self._slow and self not in self._stream.held:
            self._transport.resume_reading()
            if self._session is not None:
                self._read(self._unread)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Remove the connection from all collections, and drop the references that it has to other objects (Rule 5).

        The session leaves the hub first, since an error afterwards must not keep it there.
        """
        try:
            self._leave()
        finally:
            self._forget()

    def _forget(self) -> None:
        self._stream.all.discard(self)
        self._stream.slow.discard(self)
        self._stream.unsaid.pop(self, None)
        self._stream.lingering.pop(self, None)
        self._stream.held.pop(self, None)
        self._stream.hellos.leave(self)
        self._stream.hasty.leave(self)
        self._session = None
        self._unread = b""
        self._parts.clear()
        self._drop_parser()

    # ---- the handshake -------------------------------------------------------------------------------------------

    def _handshake(self, data: bytes) -> None:
        """Buffer the bytes of the HTTP request until its header section is complete, then answer the request."""
        self._unread += data
        head, end, rest = self._unread.partition(b"\r\n\r\n")
        if not end:
            # A head that is too long or does not start with a method is not HTTP: the peer would not understand an
            # answer.
            if len(head) > MAX_HEADERS_BYTES or not head[:1].isupper():
                self._transport.close()
            return
        self._unread = b""
        if (quick := self._stream.accepted(head + end)) is not None:
            self._open(*quick)
        else:
            parser = ServerProtocol(logger=_SILENT)
            try:
                self._shake_hands(parser, head + end)
            finally:
                retire(parser)
        if self._session is not None:
            self._read(rest)  # a client may send its `hello` without waiting for the 101

    def _shake_hands(self, parser: ServerProtocol, head: bytes) -> None:
        parser.receive_data(head)
        events = parser.events_received()
        answer: tuple[int, str] | tuple[Wire, Response]
        try:
            answer = self._stream.answer(cast(Request, events[0]), parser) if events else self._stream.wrong_door(head)
        except MultipleValuesError:
            answer = 400, "A header that may come once came twice."
        if isinstance(answer[0], Wire):
            wire, response = answer
            parser.send_response(response)
            self._open(wire, b"".join(parser.data_to_send()))
        else:
            self._refuse(parser, *answer)

    def _open(self, wire: Wire, response: bytes) -> None:
        """Answer the handshake with 101 and create the session. The client must send `hello` within HELLO_S."""
        self._session = Session(self, wire, self._stream.hub, self._stream.tokens)
        self._stream.unsaid.pop(self, None)  # its new deadline is the last one
        self._stream.unsaid[self] = self._stream.clock.now().monotonic + HELLO_S
        self.write(response)

    def _refuse(self, parser: ServerProtocol, status: int, text: str) -> None:
        """Answer the handshake with this HTTP status and text, and end the connection.

        A header that RFC 9110 requires for the status, such as `Retry-After`, is added.
        """
        self._stream.refusals[status] += 1
        response: Response = parser.reject(HTTPStatus(status), text + "\n")
        if status == 405:
            response.headers["Allow"] = "GET"
        elif status == 426:
            response.headers["Upgrade"] = "websocket"
        elif status == 503:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        answer = response.serialize()  # not sent by the parser, which may have ended at a request with a body
        if status == 503:  # don't linger: that would keep a connection on a node that has no room
            self.write(answer)
            self._transport.close()
        else:
            self._finish(answer)

    # ---- frames from the client ----------------------------------------------------------------------------------

    def _read(self, data: bytes, *, has_turn: bool = False) -> None:
        """Handle the complete frames in `data` one at a time.

        Stop at an incomplete frame, or when the connection is slow, has ended, waits for newer keys, or has to wait for
        its turn (Rule 6). The remaining bytes are stored in `_unread`. `has_turn` says that the connection has waited
        for the turn that it has now, so it may handle one frame.
        """
        at = 0
        while not self._slow and not self._is_over and self not in self._stream.held:
            end = frame_end(data, at, self._limit)
            if end is None:
                break
            if not has_turn and (turns := self._queue()) is not None:
                # A `hello` is usually the last frame before `welcome`, and then there is nothing to read: pausing would
                # only take the kernel's time.
                if turns is not self._stream.hellos or end < len(data):
                    self._transport.pause_reading()
                turns.wait(self)
                break
            has_turn = False
            self._take_frame(data[at:end])
            at = end
        self._unread = data[at:]
        if self._parser is not None and not self._parts and self._parser.current_size is None:
            self._drop_parser()  # it is not needed any more (Rule 2)

    def _queue(self) -> WorkQueue | None:
        """Return the queue in which the next frame has to wait, or None if it may be handled now (Rule 6)."""
        assert self._session is not None
        if self._session.row < 0:
            return None if self._stream.hellos.may_go() else self._stream.hellos
        return self._stream.hasty if self._paced - self._stream.clock.now().monotonic > HASTE_S else None

    def _drop_parser(self) -> None:
        if self._parser is not None:
            retire(self._parser)
            self._parser = None

    @property
    def _is_over(self) -> bool:
        return self in self._stream.lingering or self._transport.is_closing()

    @property
    def _limit(self) -> int:
        """The maximum size of the next message, in bytes.

        `hello` may be longer than other messages, because it lists all alerts that the client has.
        """
        assert self._session is not None
        return MAX_HELLO_BYTES if self._session.row < 0 else MAX_MESSAGE_BYTES

    def _take_frame(self, data: bytes) -> None:
        """Handle one complete frame, which is all of `data`.

        If the frame is longer than allowed, `data` may end early, but it contains the frame's header, which is enough
        for the parser to refuse the frame. Some things need no parser and come first: the limit on the rate of frames,
        the answers to pings and pongs, and the check of the frame's type.
        """
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
        if not self._parts and (payload := whole_message(data, self._limit)) is not None:
            self._receive(payload)
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
            self._finish(b"".join(parser.data_to_send()))  # the client has sent a close frame, which is echoed
        elif self not in self._stream.lingering and (pong := b"".join(parser.data_to_send())):
            self.write(pong)

    def _take(self, frame: Frame) -> None:
        """Collect the fragments of a message until it is complete, then handle the message.

        Control frames are ignored.
        """
        if frame.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            return
        # Don't keep empty fragments, except the first: the limit on bytes would not limit their number.
        if frame.data or not self._parts:
            self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        payload = b"".join(self._parts)
        self._parts.clear()
        self._receive(payload)

    def _receive(self, payload: bytes, *, again: bool = False) -> None:
        """Pass a complete message to the session, and close the connection if the session raises SessionClosed.

        If the message has a token with an unknown key, it may wait for newer keys, but only once: `again` is true if it
        has waited already. The connection is not read during that wait, so later messages wait too.
        """
        session = self._session
        assert session is not None
        began = time.perf_counter() if session.row < 0 else None
        try:
            session.receive(payload, self._stream.clock.now())
        except SessionClosed as ended:
            if ended.unknown_key and not again and self._stream.pause(self, payload):
                self._transport.pause_reading()
                return
            self.close(ended.close)
        except Exception as error:
            logger.error("handling a subscriber's message failed: %s", trace(error))
            self.close(close_codes.INTERNAL)
        if began is not None:
            self._stream.hellos.note_work(time.perf_counter() - began)
        if session.row >= 0:  # `hello` was accepted, so it has no deadline any more
            self._stream.unsaid.pop(self, None)

    def take_again(self) -> None:
        """Handle the message that has waited for newer keys, even if no new keys were found, and resume reading."""
        payload = self._stream.held.pop(self, None)
        if payload is None or self._is_over:
            return
        self._receive(payload, again=True)
        if not self._slow and not self._is_over:
            self._transport.resume_reading()
            self._read(self._unread)

    def take_turn(self) -> None:
        """Handle the next frame after a wait for its turn (Rule 6), and resume reading."""
        if not self._slow and not self._is_over and self not in self._stream.held:
            self._transport.resume_reading()
            self._read(self._unread, has_turn=True)

    def _too_fast(self, frame: bytes) -> bool:
        """Record that a frame has arrived, and return whether the client sends frames faster than allowed.

        This is the generic cell rate algorithm (ITU-T I.371), which needs only one number for both rate and burst. Each
        frame moves `_paced` forward by its cost in seconds, and `_paced` may be at most one burst ahead of the clock.
        Example: at 10 frames a second and a burst of 300, a client that was silent may send 300 frames at once. Then
        `_paced` is 30 s ahead of the clock, and every 100 ms one more frame is allowed.
        """
        now = self._stream.clock.now().monotonic
        whole, empty = frame[0] & 0x80, not frame[1] & 0x7F
        cost = (1.0 if whole or empty else FRAGMENT_COST) / RATE_PER_S
        self._paced = max(self._paced, now) + cost
        return self._paced - now > BURST / RATE_PER_S

    # ---- ending the connection -----------------------------------------------------------------------------------

    def close(self, close: Close) -> None:
        """End the session with this close frame.

        Do nothing if the connection is already ending, so that the client gets the first reason.
        """
        if self._is_over:
            return
        self._stream.closes[close.code] += 1
        self._finish(close_frame(close))

    def abort(self) -> None:
        """Remove the session from the hub, and drop the connection without a close frame."""
        try:
            self._leave()
        finally:
            self._transport.abort()

    def recheck(self) -> None:
        """End the session if its token is no longer valid under the current keys and revocations (BA3)."""
        if self._session is not None and self._session.row >= 0 and not self._session.may_stay():
            self.close(close_codes.BAD_TOKEN)

    def unsent_bytes(self) -> int:
        """Return the number of bytes that the transport has not sent."""
        return self._transport.get_write_buffer_size()

    def end_unsaid(self, close: Close) -> None:
        """End this connection, which has not received `hello` yet.

        It is too late, or makes room for a new connection. Before the handshake, it gets no close frame.
        """
        if self._session is None:
            self.abort()
        else:
            self.close(close)
        self._stream.unsaid.pop(self, None)

    def _finish(self, last: bytes) -> None:
        """Write the bytes `last` and the end of the stream, then wait up to LINGER_S for the peer to close (Rule 4).

        The session leaves the hub before this write, so no alert can follow the close frame.
        """
        if self._is_over:
            return
        self._stream.unsaid.pop(self, None)
        self._stream.lingering[self] = self._stream.clock.now().monotonic + LINGER_S
        self._leave()
        self._unread = b""
        self.write(last)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()  # it may have been slow; the end of the peer's stream must be noticed

    def _leave(self) -> None:
        """Remove the session from the hub, if it is registered there. After this call the hub sends it nothing more."""
        if self._session is not None and self._session.row >= 0:
            row, self._session.row = self._session.row, -1
            try:
                self._stream.hub.leave(row)
            except Exception:
                self._stream.hub.silence(row)
                raise


@functools.cache  # a node has twenty reasons, but may close 20,000 sessions
def close_frame(close: Close) -> bytes:
    """Return the close frame with this code and reason."""
    return Frame(Opcode.CLOSE, CloseFrame(close.code, close.reason).serialize()).serialize(mask=False)


_DATA = (Opcode.TEXT, Opcode.BINARY)
_WHOLE_PING, _WHOLE_PONG = 0x89, 0x8A  # the first byte of a ping and a pong with the FIN bit and no reserved bits
_WHOLE_DATA = (0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY)
_MAX_CONTROL_BYTES = 125  # RFC 6455, 5.5


def retire(parser: ServerProtocol) -> None:
    """Break the reference cycles of a parser that is no longer needed (Rule 5).

    The parser and its generator refer to each other. An exception stored in the parser refers, through its traceback,
    to the stack frames in which it was raised, and those frames refer to the parser and the connection. The same is
    true for the causes of that exception.
    """
    parser.parser.close()
    for kept in (parser.handshake_exc, parser.parser_exc):
        error: BaseException | None = kept
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


def control_answer(frame: bytes) -> bytes | None:
    """Return the answer to a complete ping or pong frame: a pong to a ping, b"" (no answer) to a pong.

    Return None for any other frame and for a malformed one; the parser has to handle these (RFC 6455, 5.5.2). Without
    this shortcut a parser would be created for every pong, which took 8 of the 10 µs per pong. 15,000 idle sessions
    send 600 pongs a second.
    """
    if frame[0] not in (_WHOLE_PING, _WHOLE_PONG) or not 0x80 <= frame[1] <= 0x80 + _MAX_CONTROL_BYTES:
        return None
    if frame[0] == _WHOLE_PONG:
        return b""
    size = frame[1] - 0x80
    mask = frame[2:6] * (size // 4 + 1)
    payload = int.from_bytes(frame[6:]) ^ int.from_bytes(mask[:size])
    return bytes((_WHOLE_PONG, size)) + payload.to_bytes(size)


def whole_message(frame: bytes, limit: int) -> bytes | None:
    """Return the payload of a frame that is a whole message of at most `limit` bytes, without its mask.

    Return None for any other frame: a control frame, a fragment, a frame with reserved bits or without a mask, one that
    is too long, and one whose length is not encoded in the shortest way. The parser has to handle these. Without this
    shortcut a parser would be created for every message, which takes 30 µs (`bench storm`).
    """
    if frame[0] not in _WHOLE_DATA or not frame[1] & 0x80:
        return None
    start, length = 2, frame[1] & 0x7F
    if length == 126:
        start, length = 4, int.from_bytes(frame[2:4])
        if length < 126:
            return None
    if length == 127 or length > limit or len(frame) != start + 4 + length:
        return None
    mask = frame[start : start + 4] * (length // 4 + 1)
    return (int.from_bytes(frame[start + 4 :]) ^ int.from_bytes(mask[:length])).to_bytes(length)


def frame_end(data: bytes, start: int, limit: int) -> int | None:
    """Return the index in `data` after the frame that starts at `start`, or None if the frame is incomplete.

    If the frame's payload is longer than `limit` bytes, the frame will be refused, and its header is enough for that.
    Then the length of `data` is returned (RFC 6455, 5.2).
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
