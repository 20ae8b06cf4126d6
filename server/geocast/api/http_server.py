"""The api listener's door: what a connection may cost before there is a request, and beside it (protocol, BA1).

uvicorn serves each connection with h11, which keeps to RFC 9112 strictly. What those two leave open is here.

    state of the connection                      awaited of the peer    for    beyond it
    ------------------------------------------   --------------------   ----   -----------------------------
    accepted, or in the middle of a head         the rest of the head   10 s   408; closed if no byte came
    between two requests                         the next one           60 s   closed
    answered, in the middle of the body          the rest of the body   10 s   closed
    an answer, or a part of it, is unsent        that it reads          30 s   dropped
    refused: an answer and the end are written   that it closes          5 s   dropped

Rule 1  A parser is fed no more than one head may have, so a longer one is refused before it is looked at.
Rule 2  A request that comes before the one in front of it is answered waits unparsed, within bounds.
Rule 3  At most so many connections: the one that has kept us waiting for a request the longest gives way to a new one.
        Where each has a request under way, the one that has not read its answer for the longest time gives way: it may
        be a stranger's, and holds a place that others need (HD6). Where there is none, the new one is told 503.
Rule 4  A connection that is refused lingers: the refusal is written, then the end of the stream, and what the peer
still
        sends is thrown away until it closes. If we closed at once, the kernel would answer unread bytes with a reset,
        which may overtake the refusal.
"""

import asyncio
import contextlib
import functools
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from http import HTTPStatus
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from .. import config
from ..metrics import Metrics
from ..model import problems
from ..model.problems import Problem, ProblemType
from .responses import RETRY_AFTER_S

MAX_HEAD_BYTES = 32 * 1024  # of a request: its line and its fields
HEAD_S = 10.0  # from the accept, or from the first byte of a later head, until the head is complete
IDLE_S = 60  # between an answer and the next request
REST_S = 10.0  # for the rest of a body that was answered before all of it was there
UNREAD_S = 30.0  # for how long bytes of an answer may stay unsent without a break
LINGER_S = 5.0  # how long a peer may take to close after a refusal
MAX_CHUNKS = 2_000  # of a chunked body: parsing one takes as long as a thousand bytes, and it may hold a single one
MAX_AHEAD_BYTES = 96 * 1024  # of requests behind one that is not answered yet: a head and a body

_BY_HINT = {each.status: each for each in (problems.TOO_LARGE, problems.HEAD_TOO_LARGE)}  # of h11's errors

# uvicorn writes a line for each; strangers would fill the journal. They are counted: geocast_refused_total.
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")


class HttpListener:
    """The connections of one listener."""

    def __init__(self, metrics: Metrics, capacity: int) -> None:
        """`capacity`: how many connections there may be."""
        self._metrics = metrics
        self._capacity = capacity
        self._all = 0
        self.waiting: dict[
            HttpConnection, None
        ] = {}  # those without a request under way; who has waited longest is first
        self.unread: dict[HttpConnection, None] = {}  # those with unsent bytes of an answer; the oldest is first

    def arrived(self) -> bool:
        """Count a new connection in (Rule 3). False: there is no room."""
        self._all += 1
        if self._all > self._capacity:
            oldest = next(iter(self.waiting or self.unread), None)
            if oldest is None:
                return False
            oldest.give_way()
        return True

    def left(self, connection: "HttpConnection") -> None:
        """Take a connection out that has ended."""
        self._all -= 1
        self.waiting.pop(connection, None)
        self.unread.pop(connection, None)

    def refusal(self, why: ProblemType) -> bytes:
        """A problem as the whole answer to what is no request."""
        self._metrics.refused.labels(why.slug).inc()
        problem = Problem.later(why, RETRY_AFTER_S) if why.status == 503 else Problem(why)
        body = json.dumps(problem.body()).encode()
        head = [
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
            "Content-Type: application/problem+json",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in problem.headers.items()),
        ]
        return "\r\n".join([*head, "", ""]).encode() + body


class _Requests(h11.Connection):
    """h11's parser, which also refuses what is cheap to send and dear to read, or may be read in two ways."""

    _chunks = 0

    def next_event(self) -> Any:
        """The next event. Raises h11.RemoteProtocolError."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            # It holds the frames that it came through, and one of those holds it: a cycle with the connection in it.
            raise error.with_traceback(None) from None
        if isinstance(event, h11.Request):
            self._chunks = 0
            return _checked(event)
        if isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise h11.RemoteProtocolError("too many chunks", error_status_hint=413)
        return event


def _hint(error: BaseException | None) -> int:
    """Which status h11 thinks fits. (A caller that named the error would be in a cycle with it.)"""
    return error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400


def _checked(request: h11.Request) -> h11.Request:
    """The request, its target in origin form (RFC 9112, 3.2); one that has two lengths is refused (6.1)."""
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in request.headers}:
        raise h11.RemoteProtocolError("two lengths")
    scheme, found, rest = request.target.partition(b"://")
    if not found or scheme.lower() not in (b"http", b"https"):
        return request
    path = rest.partition(b"/")[2]
    return h11.Request(
        method=request.method, headers=request.headers, http_version=request.http_version, target=b"/" + path
    )


class HttpConnection(H11Protocol):
    """One connection of the api listener."""

    def __init__(self, listener: HttpListener, **uvicorns: Any) -> None:
        """`uvicorns`: what uvicorn gives to each of its connections."""
        super().__init__(**uvicorns)
        self.conn = _Requests(h11.SERVER, MAX_HEAD_BYTES - 1)  # it takes one more than it is told
        self.timeout_keep_alive = IDLE_S
        self._listener = listener
        self._ahead = b""  # Rule 2
        self._refused = False
        self._half = False  # the peer sends no more
        self._awaited: tuple[float, object] | None = None  # for how long, and since which request
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection was accepted."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.transport.set_write_buffer_limits(high=0)  # so that any unsent byte is told to `pause_writing`
        if self._listener.arrived():
            self._await()
        else:
            self._refused = True
            self.transport.write(self._listener.refusal(problems.TOO_MANY_CONNECTIONS))
            self.transport.close()  # a full node can't wait for each of them to close

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._listener.left(self)
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._refused:
            return  # Rule 4
        self._unset_keepalive_if_required()
        self._ahead += data
        self._parse()
        if len(self._ahead) > MAX_AHEAD_BYTES:
            self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The peer sends no more. It may still read: what it has asked for whole is answered before we close."""
        self._half = True
        return not self._refused and not self._answered and self.conn.their_state is h11.DONE

    def _parse(self) -> None:
        """Feed the parser for as long as it takes anything (Rules 1 and 2)."""
        while self._ahead and not self._refused and self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            room = MAX_HEAD_BYTES - self._buffered
            piece, self._ahead = self._ahead[:room], self._ahead[room:]
            self.conn.receive_data(piece)
            self.handle_events()
        if self.conn.their_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR):
            self._ahead = b""  # nothing may follow
        if self._ahead:
            self.flow.pause_reading()
        self._await()

    @property
    def _buffered(self) -> int:
        """How many bytes the parser holds."""
        return len(self.conn.trailing_data[0])

    def on_response_complete(self) -> None:
        """An answer is written; uvicorn goes on with what the parser holds, and we with what it was not given."""
        super().on_response_complete()
        self._parse()
        if self._half and self._answered:
            self.transport.close()

    # ---- what uvicorn would do otherwise -------------------------------------------------------------------------

    def _should_upgrade(self) -> bool:
        """No: a request that offers an upgrade is a request (RFC 9110, 7.8). Java's HttpClient offers h2c each time."""
        return False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        """What came is no HTTP request; called while h11's exception is being handled."""
        self._refuse(_BY_HINT.get(_hint(sys.exception()), problems.BAD_REQUEST))

    def _refuse(self, why: ProblemType) -> None:
        """Refuse what is no request, unless the answer to one is half written, and leave (Rule 4)."""
        if self.transport.is_closing():
            return
        self._refused = True
        self._ahead = b""
        if self._answered or not self.cycle.response_started:
            self.transport.write(self._listener.refusal(why))
        if not self._answered:
            self.cycle.disconnected = True  # whatever it is about to answer is too late
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._await()

    # ---- time ----------------------------------------------------------------------------------------------------

    @property
    def _answered(self) -> bool:
        """Whether there is no request under way."""
        return self.cycle is None or self.cycle.response_complete

    def _await(self) -> None:
        """Have the timer run for what is awaited of the peer now (the table at the head of the file)."""
        awaited = None if (seconds := self._patience()) is None else (seconds, self.cycle)
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._listener.waiting.pop(self, None)
        if awaited is not None and not self.transport.is_closing():
            self._listener.waiting[self] = None
            self._timer = self.loop.call_later(awaited[0], self._late)

    def _patience(self) -> float | None:
        """How many seconds the peer has for what is awaited of it; None if it is our turn."""
        if self._refused:
            return LINGER_S
        if not self._answered:
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return REST_S
        return HEAD_S if self.cycle is None or self._buffered else IDLE_S

    def _late(self) -> None:
        """What was awaited of the peer did not come in time: refuse, close or drop it."""
        if self._refused:
            self.transport.abort()
        elif self.conn.their_state is h11.IDLE and self._buffered:
            self._refuse(problems.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def give_way(self) -> None:
        """End this connection to make room for a newer one (Rule 3)."""
        self._listener.waiting.pop(self, None)
        self._listener.unread.pop(self, None)
        self.transport.abort()

    def pause_writing(self) -> None:
        """Bytes of an answer are unsent: the peer has UNREAD_S to take them."""
        super().pause_writing()
        self._listener.unread[self] = None
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """All bytes are sent: the peer has taken them in time."""
        super().resume_writing()
        self._listener.unread.pop(self, None)
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


# ---- the server --------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """uvicorn inside a loop that is not its own: signals are the node's affair."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp, bound: socket.socket, metrics: Metrics, capacity: int = config.MAX_API_CONNECTIONS
) -> AsyncIterator[None]:
    """Serve `app` on a bound socket for as long as the block runs. `capacity`: connections that it takes at most."""
    room = config.api_connections_for(config.raise_descriptor_limit())
    listener = HttpListener(metrics, min(capacity, room))
    settings = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], functools.partial(HttpConnection, listener)),
        ws="none",
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(settings)
    task: Awaitable[None] = asyncio.ensure_future(server.serve(sockets=[bound]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
