"""Tests of the api listener's time limits with a clock moved by hand (BA1).

uvicorn, h11 and the application are real. The transport only records what is written, and a `HandClock` runs the loop's
timers.
"""

import asyncio
import gc
import itertools
import socket
import time
import weakref

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from geocast.api import http_server
from geocast.api.http_server import (
    HEAD_S,
    IDLE_S,
    LINGER_S,
    MAX_AHEAD_BYTES,
    REST_S,
    UNREAD_S,
    WORK_S,
    HttpConnection,
    HttpListener,
)
from geocast.metrics import Metrics

HEAD = b"GET / HTTP/1.1\r\nHost: node\r\n"
POST = b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: 10\r\n\r\n"
MOMENT = 1 / 1024  # of a second


class HandTimer:
    """A timer of a HandClock."""

    def __init__(self, at, call):
        self.at, self.call = at, call

    def cancel(self):
        """Cancel the timer."""
        self.call = None


class HandClock:
    """The running loop, except that its timers run only in `pass_by`."""

    def __init__(self):
        self.now, self._timers = 0.0, []
        self.create_task = asyncio.get_running_loop().create_task

    def call_later(self, seconds, call):
        """Return a timer that is due after `seconds`."""
        timer = HandTimer(self.now + seconds, call)
        self._timers.append(timer)
        return timer

    def pass_by(self, seconds):
        """Advance the clock by `seconds` and run the timers that are due."""
        self.now += seconds
        due = [timer for timer in self._timers if timer.at <= self.now]
        self._timers = [timer for timer in self._timers if timer.at > self.now]
        for timer in due:
            if timer.call is not None:
                timer.call()


class PaperTransport:
    """A transport that records what is written and how the connection was ended. It never ends by itself."""

    def __init__(self):
        self.written, self.ended, self.reading = b"", None, True

    def write(self, data):
        """Record the bytes."""
        self.written += data

    def write_eof(self):
        """Record the end of the sending side."""
        self.ended = self.ended or "half"

    def close(self):
        """Record that the transport closes after all bytes are sent."""
        self.ended = "closed"

    def abort(self):
        """Record an immediate close."""
        self.ended = "aborted"

    def is_closing(self):
        """Return whether the transport was closed or aborted."""
        return self.ended in ("closed", "aborted")

    def can_write_eof(self):
        """Return True, as a TCP transport does."""
        return True

    def set_write_buffer_limits(self, high):
        """Check that any unsent byte pauses writing."""
        assert high == 0

    def get_extra_info(self, name, default=None):
        """Return the default, since there is no socket."""
        return default

    def pause_reading(self):
        """Record that reading is paused."""
        self.reading = False

    def resume_reading(self):
        """Record that reading is resumed."""
        self.reading = True


class Listener:
    """An HttpListener with a real application, whose connections use PaperTransports."""

    def __init__(self, capacity=10):
        self.clock = HandClock()
        self.asked = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._config = uvicorn.Config(
            self._answer, ws="none", interface="asgi3", proxy_headers=False, lifespan="off", log_config=None
        )
        self._state = ServerState()
        self._approvals = HttpListener(Metrics(), capacity)

    async def _answer(self, scope, receive, send):
        self.asked.append(scope["path"])
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def connect(self):
        """Return a new connection and its transport."""
        connection = HttpConnection(
            self._approvals, config=self._config, server_state=self._state, app_state={}, _loop=self.clock
        )
        transport = PaperTransport()
        connection.connection_made(transport)
        return connection, transport


async def turns():
    """Let the tasks that are ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def by_hand(test):
    """Wrap a test, so that it runs in its own event loop with its own Listener."""

    def run():
        async def main():
            await test(Listener())

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def in_time(listener, transport, seconds, ended):
    """Check that the transport ends in the way `ended` after exactly this many seconds, and not before."""
    listener.clock.pass_by(seconds - MOMENT)
    before = transport.ended
    listener.clock.pass_by(MOMENT)
    assert (before, transport.ended) != (ended, ended)
    assert transport.ended == ended


@by_hand
async def test_connection_that_sends_nothing_is_closed_without_an_answer(listener):
    """A client that sends nothing has the same time limit as one that sends half a head (BA1)."""
    _, transport = listener.connect()
    in_time(listener, transport, HEAD_S, "closed")
    assert transport.written == b""


@by_hand
async def test_slow_request_head_is_answered_408_after_timeout(listener):
    """The time limit starts when the connection is accepted, however often bytes arrive.

    After the answer the peer has LINGER_S to close the connection (BA1).
    """
    connection, transport = listener.connect()
    for byte in HEAD[: int(HEAD_S) - 1]:
        connection.data_received(bytes([byte]))
        listener.clock.pass_by(1)
    in_time(listener, transport, 1, "half")
    assert transport.written.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    connection.data_received(HEAD + b"\r\n")
    in_time(listener, transport, LINGER_S, "aborted")
    assert listener.asked == []


@by_hand
async def test_timeout_of_later_request_head_starts_at_its_first_byte(listener):
    """Between requests the longer limit for idle connections applies (BA1)."""
    connection, transport = listener.connect()
    connection.data_received(HEAD + b"\r\n")
    await turns()
    listener.clock.pass_by(IDLE_S - 1)
    connection.data_received(HEAD)
    listener.clock.pass_by(HEAD_S - 1)
    connection.data_received(b"\r\n" + HEAD)
    await turns()
    assert listener.asked == ["/", "/"]
    in_time(listener, transport, HEAD_S, "half")
    assert b" 408 " in transport.written


@by_hand
async def test_idle_connection_is_closed_after_60_seconds(listener):
    """The limit applies after requests with and without a body (BA1)."""
    for sent in (HEAD + b"\r\n", POST + b"0123456789"):
        connection, transport = listener.connect()
        connection.data_received(sent[:-1])
        connection.data_received(sent[-1:])
        await turns()
        in_time(listener, transport, IDLE_S, "closed")


@by_hand
async def test_rest_of_body_must_arrive_in_time_after_early_answer(listener):
    """A slow body ends the connection. If the body is completed in time, the connection can be used again (BA1a)."""
    connection, transport = listener.connect()
    connection.data_received(POST)
    await turns()
    assert b" 200 " in transport.written
    for _ in range(int(REST_S) - 1):
        connection.data_received(b"x")
        listener.clock.pass_by(1)
    in_time(listener, transport, 1, "closed")
    connection, transport = listener.connect()
    connection.data_received(POST)
    await turns()
    connection.data_received(b"0123456789")
    in_time(listener, transport, IDLE_S, "closed")


@by_hand
async def test_http_server_sets_no_time_limit_for_request_in_progress(listener):
    """Only the alert log limits how long an answer may take (H1)."""
    listener.may_answer.clear()
    connection, transport = listener.connect()
    connection.data_received(HEAD + b"\r\n")
    await turns()
    listener.clock.pass_by(10 * IDLE_S)
    assert transport.ended is None


@by_hand
async def test_connection_with_unread_answer_is_dropped_after_30_seconds(listener):
    """The limit also applies while the connection is closing, and starts again whenever all bytes were read (BA1a)."""
    for ending in (lambda connection: None, lambda connection: connection.transport.close()):
        connection, transport = listener.connect()
        connection.pause_writing()
        ending(connection)
        listener.clock.pass_by(UNREAD_S - 1)
        connection.resume_writing()
        connection.pause_writing()
        listener.clock.pass_by(UNREAD_S - MOMENT)
        assert transport.ended != "aborted"
        listener.clock.pass_by(MOMENT)
        assert transport.ended == "aborted"


@by_hand
async def test_pipelined_requests_wait_unparsed_up_to_a_size_limit(listener):
    """If more bytes wait than MAX_AHEAD_BYTES, the connection is dropped (BA1b)."""
    listener.may_answer.clear()
    connection, transport = listener.connect()
    connection.data_received((HEAD + b"\r\n") * 3)
    await turns()
    assert listener.asked == ["/"]
    assert not transport.reading
    listener.may_answer.set()
    await turns()
    await turns()
    assert listener.asked == ["/"] * 3
    assert transport.reading
    listener.may_answer.clear()
    connection.data_received(HEAD + b"\r\n" + b"x" * 2 * MAX_AHEAD_BYTES)
    assert transport.ended == "aborted"


@by_hand
async def test_new_connection_over_limit_replaces_the_one_that_waits_longest_for_a_request(listener):
    """A connection with a request in progress is never replaced by this rule (BA1d)."""
    listener.may_answer.clear()
    connections = [listener.connect() for _ in range(10)]
    connections[0][0].data_received(HEAD + b"\r\n")
    connections[1][0].data_received(HEAD)
    await turns()
    listener.connect()
    assert [transport.ended for _, transport in connections] == [None, "aborted", *[None] * 8]


@by_hand
async def test_lost_connection_leaves_no_timer(listener):
    """No timer acts on a connection that was lost (BA1)."""
    connection, transport = listener.connect()
    connection.data_received(HEAD)
    connection.pause_writing()
    connection.connection_lost(None)
    listener.clock.pass_by(10 * IDLE_S)
    assert transport.ended in (None, "closed")
    assert transport.written == b""


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"\r\n", POST, POST + b"0123456789", b"no request\r\n\r\n"])
def test_lost_connection_is_freed_without_garbage_collection(said):
    """The connection is in no reference cycle.

    Otherwise many connections could pile up until the collector runs (BA1).
    """

    async def lost():
        listener = Listener()
        connection, _ = listener.connect()
        connection.data_received(said)
        await turns()
        connection.connection_lost(None)
        await turns()
        return weakref.ref(connection)

    gc.disable()
    try:
        assert asyncio.run(lost())() is None
    finally:
        gc.enable()


@by_hand
async def test_half_closed_connection_gets_answers_to_complete_requests(listener):
    listener.may_answer.clear()
    connection, transport = listener.connect()
    connection.data_received(POST + b"x" * 10 + HEAD + b"\r\n")
    await turns()
    assert connection.eof_received()
    listener.may_answer.set()
    await turns()
    assert transport.written.count(b"HTTP/1.1 200 ") == 2
    assert transport.ended == "closed"


@by_hand
async def test_half_closed_connection_without_complete_request_is_closed(listener):
    """`eof_received` returns False, which makes the transport close."""
    for begun in (b"", HEAD, POST + b"x"):
        connection, _ = listener.connect()
        connection.data_received(begun)
        await turns()
        assert not connection.eof_received()


@by_hand
async def test_requests_that_arrive_together_are_parsed_over_several_iterations_of_the_loop(listener):
    """Between them the loop does other work. A client that has closed its sending side is answered, too (Rule 5)."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: next(ticks) * WORK_S * 0.7)
        lines = [listener.connect() for _ in range(5)]
        for number, (connection, _) in enumerate(lines):
            connection.data_received(f"GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.eof_received() is True
        await asyncio.sleep(0)
        assert listener.asked == ["/0", "/1"]
        assert [transport.reading for _, transport in lines] == [True, True, False, False, False]
        for _ in lines:
            await turns()
    assert listener.asked == ["/0", "/1", "/2", "/3", "/4"]
    assert all(b" 200 " in transport.written for _, transport in lines)


@by_hand
async def test_connection_that_is_lost_while_its_request_waits_is_not_served(listener):
    """It leaves the queue (Rule 5)."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: next(ticks) * WORK_S * 2)
        (first, _), (second, _) = listener.connect(), listener.connect()
        for connection in (first, second):
            connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        second.connection_lost(None)
        await turns()
    assert listener.asked == ["/"]


async def test_date_is_made_when_an_answer_starts(monkeypatch):
    """A `Date` that was made earlier could be before the `Last-Modified` of a new document (RFC 9110, 8.8.2.1)."""
    moments = iter(["first", "second"])
    monkeypatch.setattr(http_server, "formatdate", lambda *_, **__: next(moments))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        async with (
            http_server.serve(PlainTextResponse("text"), bound, Metrics()),
            httpx.AsyncClient(trust_env=False) as client,
        ):
            assert [(await client.get(url)).headers["date"] for _ in range(2)] == ["first", "second"]
