"""The api listener's door by a clock that is moved by hand: how long a peer may take for each step (BA1).

uvicorn, h11 and the application are the real ones; of the socket there is only what is written, and of the loop's
timers only what a `HandClock` lets run.
"""

import asyncio
import gc
import weakref

import pytest
import uvicorn
from uvicorn.server import ServerState

from geocast.api.http_server import (
    HEAD_S,
    IDLE_S,
    LINGER_S,
    MAX_AHEAD_BYTES,
    REST_S,
    UNREAD_S,
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
        """It holds nothing any more."""
        self.call = None


class HandClock:
    """The running loop, but that its timers wait for `pass_by`."""

    def __init__(self):
        self.now, self._timers = 0.0, []
        self.create_task = asyncio.get_running_loop().create_task

    def call_later(self, seconds, call):
        """As the loop's."""
        timer = HandTimer(self.now + seconds, call)
        self._timers.append(timer)
        return timer

    def pass_by(self, seconds):
        """Let so many seconds pass."""
        self.now += seconds
        due = [timer for timer in self._timers if timer.at <= self.now]
        self._timers = [timer for timer in self._timers if timer.at > self.now]
        for timer in due:
            if timer.call is not None:
                timer.call()


class PaperTransport:
    """A transport that writes onto paper: what was written, and how it ended. It never ends by itself."""

    def __init__(self):
        self.written, self.ended, self.reading = b"", None, True

    def write(self, data):
        """Note it."""
        self.written += data

    def write_eof(self):
        """Our half is over."""
        self.ended = self.ended or "half"

    def close(self):
        """Both are, once all is sent."""
        self.ended = "closed"

    def abort(self):
        """Both are, at once."""
        self.ended = "aborted"

    def is_closing(self):
        """As asyncio's."""
        return self.ended in ("closed", "aborted")

    def can_write_eof(self):
        """As a TCP transport's."""
        return True

    def set_write_buffer_limits(self, high):
        """Any unsent byte is told."""
        assert high == 0

    def get_extra_info(self, name, default=None):
        """There is no socket."""
        return default

    def pause_reading(self):
        """Nothing more is read."""
        self.reading = False

    def resume_reading(self):
        """It is."""
        self.reading = True


class Listener:
    """A door, and connections that come to it."""

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
        """A new connection, and its transport."""
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
    """Run a test in a loop, on a listener of its own."""

    def run():
        async def main():
            await test(Listener())

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def in_time(listener, transport, seconds, ended):
    """It ends so after these seconds, and not before."""
    listener.clock.pass_by(seconds - MOMENT)
    before = transport.ended
    listener.clock.pass_by(MOMENT)
    assert (before, transport.ended) != (ended, ended)
    assert transport.ended == ended


@by_hand
async def test_whoever_says_nothing_is_let_go(listener):
    """BA1: without a word, since nothing was asked."""
    _, transport = listener.connect()
    in_time(listener, transport, HEAD_S, "closed")
    assert transport.written == b""


@by_hand
async def test_a_head_that_drips_has_to_be_complete_in_time(listener):
    """BA1: from accept on, however busy the line; then the peer has a while to read the refusal."""
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
async def test_a_later_head_has_its_time_from_its_first_byte_on(listener):
    """BA1: an idle connection is kept for longer."""
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
async def test_an_idle_connection_is_let_go(listener):
    """BA1: after 60 s, by every path that leads there."""
    for sent in (HEAD + b"\r\n", POST + b"0123456789"):
        connection, transport = listener.connect()
        connection.data_received(sent[:-1])
        connection.data_received(sent[-1:])
        await turns()
        in_time(listener, transport, IDLE_S, "closed")


@by_hand
async def test_the_rest_of_a_body_that_was_answered_has_to_come_in_time(listener):
    """BA1a: however it drips. When it is there, the connection is as good as new."""
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
async def test_a_request_under_way_is_not_timed_by_the_door(listener):
    """H1: how long the log may take is the log's affair."""
    listener.may_answer.clear()
    connection, transport = listener.connect()
    connection.data_received(HEAD + b"\r\n")
    await turns()
    listener.clock.pass_by(10 * IDLE_S)
    assert transport.ended is None


@by_hand
async def test_an_answer_that_is_not_read_is_dropped(listener):
    """BA1a: bytes unsent for 30 s without a break; also behind the end of the stream."""
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
async def test_what_is_behind_a_request_waits_unread(listener):
    """BA1b: nothing of it is looked at, and beyond a bound the connection is dropped."""
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
async def test_the_one_that_has_kept_us_waiting_the_longest_makes_room(listener):
    """BA1d: who asks is never the one, and who asked last is the last."""
    listener.may_answer.clear()
    connections = [listener.connect() for _ in range(10)]
    connections[0][0].data_received(HEAD + b"\r\n")
    connections[1][0].data_received(HEAD)
    await turns()
    listener.connect()
    assert [transport.ended for _, transport in connections] == [None, "aborted", *[None] * 8]


@by_hand
async def test_a_connection_that_is_lost_leaves_no_timer(listener):
    """BA1: nothing holds it."""
    connection, transport = listener.connect()
    connection.data_received(HEAD)
    connection.pause_writing()
    connection.connection_lost(None)
    listener.clock.pass_by(10 * IDLE_S)
    assert transport.ended in (None, "closed")
    assert transport.written == b""


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + b"\r\n", POST, POST + b"0123456789", b"no request\r\n\r\n"])
def test_a_connection_that_is_lost_is_freed_at_once(said):
    """BA1: it is in no cycle, so a crowd does not pile up until the collector comes, or for ever if it is frozen."""

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
async def test_who_sends_no_more_is_answered_all_the_same(listener):
    """Who has asked for something may close its half of the connection, and read on."""
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
async def test_who_sends_no_more_and_has_asked_for_nothing_whole_is_let_go(listener):
    """A false value has the transport close."""
    for begun in (b"", HEAD, POST + b"x"):
        connection, _ = listener.connect()
        connection.data_received(begun)
        await turns()
        assert not connection.eof_received()
