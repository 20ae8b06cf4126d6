"""The HTTP server of the api listener, with limits for slow, idle and excessive connections (protocol, BA1).

uvicorn serves each connection with h11, which follows RFC 9112 strictly. This module adds limits that neither of them
has.

    state of the connection                      the peer has to         within   otherwise
    ------------------------------------------   ---------------------   ------   -----------------------------
    accepted, or in the middle of a head         send the whole head     10 s     408; closed if no byte came
    between two requests                         send the next request   60 s     closed
    answered, in the middle of the body          send the whole body     10 s     closed
    an answer, or a part of it, is unsent        read it                 30 s     dropped
    refused: an answer and the end are written   close                    5 s     dropped

(The *head* of a request is its first line and its header fields.)

Rule 1  The parser never holds more bytes than one head may have, so a longer head is refused without being parsed.
Rule 2  A request that arrives before an earlier one is answered waits unparsed, up to MAX_AHEAD_BYTES.
Rule 3  The number of connections is limited. If a new connection exceeds the limit, another one is closed for it: the
        one that has been idle, without a request, for the longest time. If all have a request in progress, the one
        whose client has left an answer unread for the longest time is closed (rule HD6). If no answer is unread either,
        the new connection is refused with 503.
Rule 4  A refused connection lingers: the server writes the refusal and closes its sending side, and then discards input
        until the peer closes. If the server closed both sides at once, the kernel would answer unread bytes with a
        reset, and the reset could overtake the refusal.
Rule 5  In each iteration of the event loop, requests are parsed for WORK_S seconds. The rest of what has arrived waits
        for the next iteration (stream/work_queue.py). Otherwise a thousand requests that arrive together would stop
        everything else for a third of a second.
"""

import asyncio
import contextlib
import functools
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from email.utils import formatdate
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
from ..stream.work_queue import WorkQueue
from .responses import RETRY_AFTER_S

MAX_HEAD_BYTES = 32 * 1024  # the request line and the header fields
HEAD_S = 10.0  # the time for a whole head, from accepting the connection or from the first byte of a later head
IDLE_S = 60  # the time between an answer and the next request
REST_S = 10.0  # the time for the rest of a body, if the request was answered before the body was complete
UNREAD_S = 30.0  # how long some bytes of an answer may stay unsent
LINGER_S = 5.0  # how long a peer may take to close after a refusal
WORK_S = 0.002  # how long each iteration of the event loop parses requests: about six of them (Rule 5)
MAX_CHUNKS = 2_000  # per body: parsing a chunk of one byte takes as long as parsing a thousand ordinary bytes
MAX_AHEAD_BYTES = 96 * 1024  # pipelined bytes behind an unanswered request: enough for a head and a body

_BY_HINT = {each.status: each for each in (problems.TOO_LARGE, problems.HEAD_TOO_LARGE)}  # by h11's status

# Drop uvicorn's log message about each invalid request: strangers could fill the log. The metric geocast_refused_total
# counts these requests.
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")


Timers = dict["HttpConnection", asyncio.TimerHandle]


class HttpListener:
    """Counts the connections of one listening socket, and limits their number."""

    def __init__(self, metrics: Metrics, capacity: int) -> None:
        """Create a listener without connections. `capacity` is the maximum number of connections."""
        self._metrics = metrics
        self._capacity = capacity
        self._all = 0
        # The connections that wait for the peer, with their timers; the one that has waited longest is first.
        self.waiting: Timers = {}  # those without a request in progress
        self.unread: Timers = {}  # those with unsent bytes of an answer
        loop = asyncio.get_running_loop()
        self.work = WorkQueue(loop.call_later, work_s=WORK_S, rest_times=0)  # Rule 5

    def arrived(self) -> bool:
        """Count a new connection, and return whether it may stay; if not, it has to be refused (Rule 3).

        If there are too many connections, an older one is closed to make room, if there is one that may be closed.
        """
        self._all += 1
        if self._all > self._capacity:
            oldest = next(iter(self.waiting or self.unread), None)
            if oldest is None:
                return False
            oldest.give_way()
        return True

    def left(self, connection: "HttpConnection") -> None:
        """Stop counting a connection, because the connection has ended."""
        self._all -= 1
        self.stop_timers(connection)
        self.work.leave(connection)

    def stop_timers(self, connection: "HttpConnection") -> None:
        """Stop both timers of a connection, which ends."""
        _stop(self.waiting, connection)
        _stop(self.unread, connection)

    def refusal(self, why: ProblemType) -> bytes:
        """Count a refusal with the problem type `why`, and return a complete HTTP response for it, as bytes.

        Such a response answers input that is not a valid request, and connections that exceed the limit.
        """
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


def _stop(timers: Timers, connection: "HttpConnection") -> None:
    if (timer := timers.pop(connection, None)) is not None:
        timer.cancel()


class _Requests(h11.Connection):
    """h11's parser with two additions: it refuses ambiguous requests, and bodies that are expensive to parse."""

    _chunks = 0

    def next_event(self) -> Any:
        """Return h11's next event.

        Raise h11.RemoteProtocolError if the input is not a valid request, or if its body has more than MAX_CHUNKS
        chunks.
        """
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            # Clear the traceback. Otherwise it would form a reference cycle with a stack frame, which would keep the
            # connection in memory.
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
    """Return the HTTP status that h11 suggests for an error.

    This is a separate function because otherwise its caller would keep the error in a variable, which would create a
    reference cycle.
    """
    return error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400


def _checked(request: h11.Request) -> h11.Request:
    """Return the request, with a path as its target: if the target is a whole URL, replace it with the URL's path.

    (RFC 9112, 3.2, calls this the origin form.) Raise h11.RemoteProtocolError if the request states the length of its
    body in two ways (RFC 9112, 6.1).
    """
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
        """Create a connection, and have `listener` count it while it is open.

        `uvicorns` are the arguments of the base class. uvicorn passes them when it creates a connection.
        """
        super().__init__(**uvicorns)
        self.conn = _Requests(h11.SERVER, MAX_HEAD_BYTES - 1)  # h11 accepts one byte more than this argument
        self.timeout_keep_alive = IDLE_S
        self._listener = listener
        self._ahead = b""  # received bytes that are not parsed yet (Rules 1 and 2)
        self._refused = False
        self._half = False  # whether the peer has closed its sending side
        self._awaited: tuple[float, object] | None = None  # the timer's seconds, and the last request before it started

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register a new connection, or refuse it if the listener is full (Rule 3)."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.transport.set_write_buffer_limits(high=0)  # so that any unsent byte makes asyncio call `pause_writing`
        if self._listener.arrived():
            self._await()
        else:
            self._refused = True
            self.transport.write(self._listener.refusal(problems.TOO_MANY_CONNECTIONS))
            self.transport.close()  # a full node can't let refused connections linger

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the ended connection from the listener, which stops its timers."""
        self._listener.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes. If the connection has been refused, discard them (Rule 4)."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._ahead += data
        if self._listener.work.may_go():
            self._work()
        else:
            self.flow.pause_reading()
            self._listener.work.wait(self)
        if len(self._ahead) > MAX_AHEAD_BYTES:
            self.transport.abort()

    def abort(self) -> None:
        """End the connection after an unexpected error."""
        self.transport.abort()

    def take_turn(self) -> None:
        """Parse what has waited for a later iteration of the event loop (Rule 5)."""
        if not self._refused and not self.transport.is_closing():
            self.flow.resume_reading()
            self._work()
            if self._half and not self._must_answer:
                self.transport.close()

    @property
    def _must_answer(self) -> bool:
        """Whether a complete request has arrived and is not answered yet."""
        return not self._refused and not self._answered and self.conn.their_state is h11.DONE

    def _work(self) -> None:
        began = time.perf_counter()
        self._parse()
        self._listener.work.note_work(time.perf_counter() - began)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Record that the peer has closed its sending side.

        Return whether to keep the connection open, because a complete request still has to be answered.
        """
        self._half = True
        return self in self._listener.work.waiting or self._must_answer

    def _parse(self) -> None:
        """Pass received bytes to the parser until it accepts no more (Rules 1 and 2)."""
        while self._ahead and not self._refused and self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            room = MAX_HEAD_BYTES - self._buffered
            piece, self._ahead = self._ahead[:room], self._ahead[room:]
            self.conn.receive_data(piece)
            self.handle_events()
        if self.conn.their_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR):
            self._ahead = b""  # the connection accepts no further request
        if self._ahead:
            self.flow.pause_reading()
        self._await()

    @property
    def _buffered(self) -> int:
        """The number of bytes in the parser's buffer."""
        return len(self.conn.trailing_data[0])

    def on_response_complete(self) -> None:
        """After an answer was sent, continue with the requests that have arrived in the meantime.

        uvicorn processes the bytes that the parser already has. Then this class gives the parser the bytes that had to
        wait (Rule 2).
        """
        super().on_response_complete()
        self._parse()
        if self._half and self._answered:
            self.transport.close()

    # ---- overrides of uvicorn's behaviour ------------------------------------------------------------------------

    def _should_upgrade(self) -> bool:
        """Return False, so that requests to switch to another protocol are ignored (RFC 9110, 7.8).

        Java's HttpClient asks to switch in each request.
        """
        return False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        """Refuse input that is not valid HTTP. uvicorn calls this method while it handles h11's exception."""
        self._refuse(_BY_HINT.get(_hint(sys.exception()), problems.BAD_REQUEST))

    def _refuse(self, why: ProblemType) -> None:
        """Send a refusal, and then discard all input until the peer closes the connection (Rule 4).

        If another answer was sent only in part, send no refusal.
        """
        if self.transport.is_closing():
            return
        self._refused = True
        self._ahead = b""
        if self._answered or not self.cycle.response_started:
            self.transport.write(self._listener.refusal(why))
        if not self._answered:
            self.cycle.disconnected = True  # the application's answer would come too late
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._await()

    # ---- time limits for the peer ----------------------------------------------------------------------------------

    @property
    def _answered(self) -> bool:
        """Whether all requests on this connection have been answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await(self) -> None:
        """Start a timer for the peer's next step (see the table in the module's docstring).

        The timer for the previous step is stopped.
        """
        awaited = None if (seconds := self._patience()) is None else (seconds, self.cycle)
        if awaited == self._awaited:
            return
        self._awaited = awaited
        _stop(self._listener.waiting, self)
        if awaited is not None and not self.transport.is_closing():
            self._listener.waiting[self] = self.loop.call_later(awaited[0], self._late)

    def _patience(self) -> float | None:
        """Return how many seconds the peer has for its next step.

        Return None if it is the server that has to act next.
        """
        if self._refused:
            return LINGER_S
        if not self._answered:
            return None
        if self.conn.their_state is h11.SEND_BODY:
            return REST_S
        return HEAD_S if self.cycle is None or self._buffered else IDLE_S

    def _late(self) -> None:
        """End a connection whose peer was too slow: send a refusal, or close or drop the connection.

        (The module's table says which.)
        """
        if self._refused:
            self.transport.abort()
        elif self.conn.their_state is h11.IDLE and self._buffered:
            self._refuse(problems.REQUEST_TIMEOUT)
        else:
            self.transport.close()

    def give_way(self) -> None:
        """Close this connection, because a newer one takes its place (Rule 3)."""
        self._listener.stop_timers(self)
        self.transport.abort()

    def pause_writing(self) -> None:
        """Handle an answer that could not be sent completely: the peer has UNREAD_S seconds to read the rest."""
        super().pause_writing()
        self._listener.unread[self] = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer for an unsent answer, because the peer has read enough of it in time."""
        super().resume_writing()
        _stop(self._listener.unread, self)


# ---- running the server --------------------------------------------------------------------------------------------


class _DatedHeaders:
    """The header fields with which uvicorn starts each answer: only `Date`, the time at which the answer starts.

    uvicorn's own `Date` can be a second old. The feed's `Last-Modified`, which is exact, would be later than that, and
    must not be (RFC 9110, 8.8.2.1).
    """

    def __add__(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [(b"date", formatdate(time.time(), usegmt=True).encode()), *headers]


class _Server(uvicorn.Server):
    """A uvicorn server that handles no signals (the node owns the event loop and handles them) and never polls."""

    def __init__(self, settings: uvicorn.Config) -> None:
        super().__init__(settings)
        self._ended = asyncio.Event()
        self.server_state.default_headers = cast(list[tuple[bytes, bytes]], _DatedHeaders())

    def end(self) -> None:
        """Have `serve` close the connections and return."""
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        await self._ended.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp, bound: socket.socket, metrics: Metrics, capacity: int = config.MAX_API_CONNECTIONS
) -> AsyncIterator[None]:
    """Serve `app` on a bound socket while the `with` block runs. `capacity` is the maximum number of connections."""
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
        server.end()
        await task
