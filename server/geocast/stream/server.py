"""The stream side of a process: it follows the log, keeps the sessions, and lets the hub write.

Start   1 The log is read to its end, so that the first subscriber finds what is live.   2 The stream is opened.
Drain   1 New connections get 503.   2 What is being sent is sent to its end.   3 Sessions are told 1012, in batches.
        4 The listener closes, and peers have the rest of the time to close.   5 Delivery counts are stored.
        A second signal, or the end of `drain_s`, cuts 2 to 4 short.
"""

import asyncio
import contextlib
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence

from prometheus_client.core import Metric

from .. import config
from ..alertlog import AlertLog, Counts
from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenVerifier
from ..calls.worker import CallWorker
from ..clock import Clock, StepWatch
from ..config import Settings
from ..errors import trace
from ..metrics import Metrics, counter, counters, gauge
from ..model import close_codes
from ..model.alert import Cancel, Entry, Revision, Untrusted
from ..model.call import CallEntry
from .bulk_send import open_sender
from .connection import Connection, Stream
from .fanout import Flight
from .hub import LOOK_S, Hub
from .log_reader import LogHealth, LogReader

logger = logging.getLogger(__name__)

# When writing has taken this long, no further slice begins before the loop has looked at its sockets. A full slice
# takes 1.1 ms, so there is one in a turn of the loop; small ones may be several.
SLICE_S = 0.0005
# Rows of a slice while requests of the api are under way in this process, or an entry is on its way from the log. A
# request needs a dozen turns of the loop until its alert is in the log, to read it from there takes some more, and that
# alert may be more urgent than the one that is being sent.
ROWS_WHILE_ASKED = 32
EXPECTED_S = 0.02  # how long an entry that was appended is waited for with small slices, at most
TICK_S = 0.05  # between sweeps while a connection has a deadline that is near, or alerts are being sent or let go
REST_S = 0.5  # between sweeps of a process without connections: what ends then concerns nobody
FLUSH_S = 1.0  # between writes of delivery counts
DRAIN_BATCH = 128  # sessions that are told 1012 at once
RECHECK_BATCH = 256  # sessions whose tokens are judged anew at once: 6 ms if all of them end
UNSAID_SHARE = 1 / 10  # of all descriptors: as many connections may be without a `hello`
FREEZE_EVERY = 500  # connections and entries that have come: to collect what is new of them takes 0.4 ms
CANCEL_AGAIN_S = 10.0  # after which a task that has not ended is cancelled again
THAW_S = 3600.0  # between collections of everything, which take 22 ms for 15,000 sessions


MakeErrands = Callable[[int, Callable[[Mapping[str, Counts]], Awaitable[bool]]], CallWorker]


class Pump:
    """Turns the hub for as long as it has something to send, SLICE_S at a time, and lets the loop look at its sockets.

    `asked` says whether requests are under way; then slices are smaller (ROWS_WHILE_ASKED). `idle` is set while there
    is nothing to send.
    """

    def __init__(self, hub: Hub, clock: Clock, asked: Callable[[], bool] = lambda: False) -> None:
        self._hub = hub
        self._asked = asked
        self._clock = clock
        self._running = False
        self.idle = asyncio.Event()
        self.idle.set()

    def wake(self) -> None:
        """Start turning at the loop's next turn: there is something to send."""
        if not self._running:
            self._running = True
            self.idle.clear()
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        now = self._clock.now()
        until = now.monotonic + SLICE_S
        try:
            rows = ROWS_WHILE_ASKED if self._asked() else None
            while more := self._hub.turn(now, rows):
                now = self._clock.now()  # so it is at most one slice old when it judges what has ended (E2: 5 ms)
                if now.monotonic >= until:
                    break
        except Exception as error:
            logger.error("a turn of the fan-out failed: %s", trace(error))
            more = True  # the flights that are left go on
        if more:
            asyncio.get_running_loop().call_soon(self._run)
        else:
            self._running = False
            self.idle.set()


class GcFreezer:
    """Keeps the garbage collector from looking at sessions again and again: 15,000 took it 22 ms, in a fan-out too.

    What is alive is frozen, which is to say that the collector passes it over. Sessions can be: they leave no cycles
    (stream/connection.py, Rule 5), so they are freed all the same when they end. So can live alerts. Whatever else is
    frozen and becomes a cycle later is found when everything is thawed, once in THAW_S.

    Always collect before freezing: what is garbage when it is frozen stays until the thaw.

    What was frozen before the process was forked is memory that it shares (run/forking.py), and a thaw copies it. So a
    process that has nothing to do, and freezes no more after its start, is not thawed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals = 0  # connections and entries that had come when what is alive was last frozen
        self._worth_a_thaw = False
        self._thaw_at = float("inf")  # until `start`

    def start(self) -> None:
        """Freeze what the process has made so far: it is ready."""
        self._thaw_at = self._clock.now().monotonic + THAW_S
        self._worth_a_thaw = gc.get_freeze_count() == 0  # nothing is shared
        _collect_and_freeze()

    def look(self, arrivals: int, idle: bool) -> None:
        """Do what is due. `arrivals`: connections and entries that have come so far; `idle`: nothing is being sent."""
        if idle and self._clock.now().monotonic >= self._thaw_at:
            self.thaw()
        elif arrivals - self._arrivals >= FREEZE_EVERY:
            self._arrivals = arrivals
            self._worth_a_thaw = True
            _collect_and_freeze()

    def thaw(self) -> None:
        """Collect among everything that there is, and freeze what is left."""
        self._thaw_at = self._clock.now().monotonic + THAW_S
        if self._worth_a_thaw:
            gc.unfreeze()
            _collect_and_freeze()


def _collect_and_freeze() -> None:
    gc.collect()
    gc.freeze()


class StreamServer:
    """The stream side of a process: its hub, its connections and its reader of the log. See the module."""

    def __init__(
        self,
        settings: Settings,
        tokens: TokenVerifier,
        clock: Clock,
        alert_log: AlertLog,
        metrics: Metrics,
        asked: Callable[[], bool] = lambda: False,
        newer_keys: NewerKeys | None = None,
        calls: MakeErrands | None = None,
    ) -> None:
        """`asked` says whether requests of the api listener are under way in this process.

        `calls` makes what calls for help need, given the number of sessions and what stores counts; None: there are
        none.
        """
        self.keeper = LogHealth(alert_log, clock)
        self._settings = settings
        self._clock = clock
        self._log = alert_log
        self._metrics = metrics
        descriptors = config.raise_descriptor_limit()
        room = config.connections_for(descriptors, api=settings.workers == 1)
        capacity = min(settings.max_sessions or descriptors, room)
        self._sender = open_sender()
        self._capacity = capacity
        self._errands = None if calls is None else calls(capacity, self.keeper.store)
        call_hub = None if self._errands is None else self._errands.hub
        send = self._sender.send if self._sender else None
        self._hub = Hub(capacity, self._finished, send, settings.heartbeat_s, call_hub)
        self._expected_until = float("-inf")  # the monotonic time until which an entry is expected from the log
        self._pump = Pump(self._hub, clock, lambda: asked() or clock.now().monotonic < self._expected_until)
        self._stream = Stream(
            self._hub,
            tokens,
            clock,
            capacity=capacity,
            unsaid=max(1, min(int(descriptors * UNSAID_SHARE), capacity)),
            origins=settings.origins,
            loopback_origins=settings.dev,
            newer_keys=newer_keys,
        )
        self._reloaded = asyncio.Event()
        self._reader = LogReader(alert_log, clock, self._hub.live, self._apply, self.keeper, self._apply_call)
        self._steps = StepWatch(clock.now())
        self._collector = GcFreezer(clock)
        metrics.watch(self._read_metrics)
        if self._errands is not None:
            self._errands.wake = self._pump.wake
            metrics.watch(self._errands.metrics)

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket, stop: asyncio.Event, hurry: asyncio.Event) -> AsyncIterator[None]:
        """Serve on this socket, once the log is read, for as long as the block runs; then drain.

        The block begins when subscribers are let in, or when `stop` is set before that.
        """
        more = [] if self._errands is None else [self._errands.run()]
        async with background(
            self._reader.read_for_ever(), self._tick(), self._store_counts_for_ever(), self._recheck_for_ever(), *more
        ):
            await _first_of(float("inf"), self._reader.caught_up, stop)
            self._collector.start()
            servers = await self._stream.listen(listener) if self._reader.caught_up.is_set() else []
            yield
            await self._drain(servers, hurry)
        await self._store_counts()
        if self._sender is not None:
            self._sender.close()

    def reloaded(self) -> None:
        """Other keys or revocations are in force: end the sessions whose tokens are good no more, within a second."""
        self._reloaded.set()
        if self._errands is not None:
            self._errands.adopt()

    def unready(self) -> list[str]:
        """The reasons why this side is not ready, for `/readyz`; none if it is."""
        reasons = ["draining"] if self._stream.draining else []
        reasons += [] if self._reader.caught_up.is_set() else ["starting: reading the log"]
        reasons += self.keeper.unready()
        return reasons + self._reader.unready()

    def degraded(self) -> int:
        """Return how many calls have entries that no key opens (HD8)."""
        return 0 if self._errands is None else self._errands.degraded()

    # ---- the log -------------------------------------------------------------------------------------------------

    def expect(self, entry: Entry | CallEntry | None = None) -> None:
        """An entry was appended, and will be read from the log at once: until then slices are small.

        `entry`: which one, where that is known. SQLite's follower may have read it before its publisher goes on, and
        then small slices would only slow its own fan-out down, by a fifteenth (`bench fanout`).
        """
        if isinstance(entry, Revision | Cancel) and self._hub.live.knows(entry):
            return
        self._expected_until = self._clock.now().monotonic + EXPECTED_S

    def _apply(self, entry: Entry | Untrusted) -> None:
        self._expected_until = float("-inf")
        self._hub.deliver(entry, self._clock.now())
        self._pump.wake()

    def _apply_call(self, entry: CallEntry) -> None:
        self._expected_until = float("-inf")
        if self._errands is not None:
            self._errands.read(entry, self._reader.position)

    async def _store_counts_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._store_counts()

    async def _store_counts(self) -> None:
        counts = self._hub.take_counts()
        if not await self.keeper.store(counts):
            self._hub.live.put_back_counts(counts)

    # ---- upkeep --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Sweep, and measure how late the loop is."""
        while True:
            pause_s = self._pause_s()
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            self._metrics.loop_lag.observe(max(0.0, time.monotonic() - due))
            try:
                self._watch_the_clock()
                self._stream.sweep()
                if self._hub.busy:
                    self._pump.wake()
                self._collector.look(self._stream.arrivals + self._reader.applied, self._pump.idle.is_set())
            except Exception as error:
                logger.error("a sweep failed: %s", trace(error))

    async def _recheck_for_ever(self) -> None:
        """After each reload, judge the tokens of all sessions anew, and let the loop look at its sockets in between.

        Whoever comes meanwhile is judged by what is in force already.
        """
        while True:
            await self._reloaded.wait()
            self._reloaded.clear()
            connections = list(self._stream.all)
            for start in range(0, len(connections), RECHECK_BATCH):
                for connection in connections[start : start + RECHECK_BATCH]:
                    _recheck(connection)
                await asyncio.sleep(0)

    def _pause_s(self) -> float:
        """How long the next sweep may wait: no deadline of a connection that comes meanwhile is as near as that.

        (A token's may be. It is looked at half a second late at worst, and has a second: T6.)
        """
        if self._hub.busy or self._hub.live.behind or self._stream.unsaid or self._stream.lingering:
            return TICK_S
        return LOOK_S if self._stream.connections else REST_S

    def _watch_the_clock(self) -> None:
        now = self._clock.now()
        if step_s := self._steps.look(now):
            logger.warning(
                "the wall clock was set %s by %.1f s; alerts that it has ended, and that are kept until it is sure: %d",
                "forward" if step_s > 0 else "back",
                abs(step_s),
                self._hub.live.suspended(now),
            )

    def _finished(self, flight: Flight) -> None:
        now = self._clock.now()  # not the reading of the slice, which is older than the slice's writes
        alert = flight.alert
        accepted_ms = alert.revision.issued_at if alert.cancel is None else alert.cancel.cancelled_at
        self._metrics.fan_out.observe(now.monotonic - flight.delivered.monotonic)
        self._metrics.publish_to_last_write.observe(max(0, now.wall_ms - accepted_ms) / 1000)

    def _read_metrics(self) -> Iterator[Metric]:
        hub, stream = self._hub, self._stream
        now = self._clock.now()
        oldest_s, suspended = hub.oldest_flight(now), hub.live.suspended(now)
        yield gauge("sessions", "Sessions that have said hello", len(hub))
        yield gauge("connections", "Connections of the stream listener", stream.connections)
        yield gauge("capacity", "Connections that the stream listener takes", self._capacity)
        yield gauge("places", "Places of sessions", hub.places)
        yield gauge("live_alerts", "Alerts that have not ended, cancelled ones included", len(hub.live) - suspended)
        yield gauge("withheld_alerts", "Alerts that have ended by the wall clock, but may not have", suspended)
        yield counter("clock_steps", "Times that the wall clock was set", self._steps.steps)
        yield gauge("slow_sessions", "Sessions whose transport has unsent bytes", hub.slow())
        yield gauge("unsent_bytes", "Bytes that transports have not sent", stream.unsent_bytes())
        yield gauge("oldest_flight_seconds", "Age of the oldest fan-out under way", oldest_s)
        yield gauge("log_position", "Position of the last entry applied", self._reader.position)
        yield counter("log_applied", "Entries of the log applied", self._reader.applied)
        yield counter("sends", "Frames of alerts and cancels handed to transports", hub.sends)
        yield gauge("stream_processes_unbatched", "Processes that send one by one", self._sender is None)
        yield counter("acks", "Acknowledgements counted", hub.live.acks)
        yield counter("log_quarantined", "Entries of the log that could not be read", self._log.quarantined)
        yield from self._log.metrics()
        yield counters("closes", "Sessions ended by the node", "code", _labels(stream.closes))
        yield counters("handshakes_refused", "Handshakes refused", "status", _labels(stream.refusals))

    # ---- the end -------------------------------------------------------------------------------------------------

    async def _drain(self, servers: Sequence[asyncio.Server], hurry: asyncio.Event) -> None:
        logger.info("draining %d sessions", len(self._hub))
        deadline = time.monotonic() + self._settings.drain_s
        self._stream.draining = True
        await _first_of(deadline, self._pump.idle, hurry)
        peers = self._hub.peers()
        # Over the first half of the time that is left, so that the last peers have the rest to close.
        pause = max(0.0, deadline - time.monotonic()) / 2 / max(1, len(peers) // DRAIN_BATCH)
        for start in range(0, len(peers), DRAIN_BATCH):
            if start:
                await _first_of(time.monotonic() + pause, hurry)
            for peer in peers[start : start + DRAIN_BATCH]:
                peer.close(close_codes.DRAINING)
        for server in servers:
            server.close()
        while self._stream.connections and time.monotonic() < deadline and not hurry.is_set():
            await _first_of(time.monotonic() + TICK_S, hurry)
        self._stream.abort_all()


def _recheck(connection: Connection) -> None:
    try:
        connection.recheck()
    except Exception as error:
        logger.error("a session's token could not be judged anew: %s", trace(error))
        connection.abort()  # it must not stay by a token that may be revoked


async def _first_of(deadline: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or at the deadline (monotonic)."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    within_s = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
    await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _labels(values: Mapping[int, int]) -> list[tuple[str, float]]:
    return [(str(key), value) for key, value in values.items()]


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run these coroutines beside the block, and cancel them at its end, however it ends."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        pending = set(tasks)
        while pending:  # a library may lose a cancellation, as `asyncio.wait_for` of Python 3.11 does
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        await asyncio.gather(*tasks, return_exceptions=True)
