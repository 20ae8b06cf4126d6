"""The stream side of a process: it follows the log, has the hub send alerts, and starts and drains the listener.

At the start:

1. The log is read to its end, so that the first subscriber is sent every live alert.
2. The listener accepts connections.

At the end (drain):

1. New connections are refused with 503.
2. Alerts that are being sent are sent to all of their recipients.
3. Sessions are closed with 1012, in batches, so that not all clients reconnect to the other nodes at once.
4. The listener closes, and clients have the rest of the time to close their connections.
5. Delivery counts are stored.

A second signal, or the end of `drain_s`, cuts steps 2 to 4 short.
"""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric

from .. import config, tasks
from ..alertlog import AlertLog, Counts
from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenVerifier
from ..calls.worker import CallWorker
from ..clock import Clock, StepWatch
from ..config import Settings
from ..metrics import Metrics, by_server, counter, counters, gauge
from ..model import close_codes
from ..model.alert import Cancel, Entry, Revision, Untrusted
from ..model.call import CallEntry
from ..model.errors import trace
from ..model.times import backoff_s
from .bulk_send import open_sender
from .connection import Stream
from .flights import Flight
from .hub import LOOK_S, Hub, OwnTestMaker
from .log_reader import LogHealth, LogReader

logger = logging.getLogger(__name__)

# After this time, no further slice (a group of sessions) is handled in the same turn of the event loop. A full slice
# takes 1.1 ms, so a turn of the loop handles one full slice, or several small ones.
SLICE_S = 0.0005
# While an api request is under way in this process, or an entry is on its way from the log, the new alert may be more
# urgent than the one that is being sent. A request needs some twenty turns of the loop until its alert is sent, and a
# thread that syncs it. So for the first YIELD_S seconds, only YIELDING_ROWS rows are sent to every YIELDING_S seconds.
# With that, an extreme alert reaches its first 100 sessions 8 to 10 ms after the request; without it, after 13 (`bench
# urgent`). Afterwards ROWS_WHILE_ASKED rows are sent to in each turn of the loop, so that slow requests hold up nobody.
YIELD_S, YIELDING_S, YIELDING_ROWS, ROWS_WHILE_ASKED = 0.05, 0.002, 64, 32
# The nearest sessions of a new alert are sent to at once, although its request is still under way. Finding the
# recipients takes the same turn of the loop, so these are fewer than in a slice.
NEW_ROWS = 128
EXPECTED_S = 0.02  # slices stay small for at most this long while an appended entry is expected from the log
FAILED_S, MOST_FAILED_S = 0.01, 1.0  # pause after a run that failed unexpectedly; it doubles
TICK_S = 0.05  # time between checks while a deadline is near, or alerts are being sent or let go
FLUSH_S = 1.0  # time between writes of delivery counts
STUCK_S = 30.0  # a fan-out takes 0.1 s (`bench storm`), so after this time nothing is sent any more
DRAIN_BATCH = 128  # number of sessions that are closed with 1012 at a time
RECHECK_BATCH = 256  # number of sessions whose tokens are checked in one turn of the loop: 6 ms if all end
UNSAID_SHARE = 1 / 10  # the part of all descriptors that connections before their `hello` may use
FREEZE_EVERY = 500  # number of arrivals (connections, entries) between two freezes; each takes 0.4 ms
THAW_S = 3600.0  # time between collections of all objects, which take 22 ms for 15,000 sessions


StoreCounts = Callable[[Mapping[str, Counts]], Awaitable[bool]]
MakeErrands = Callable[[int, StoreCounts], CallWorker]


class Pump:
    """Drives the fan-out: calls the hub's `turn` repeatedly for as long as there is something to send.

    After every SLICE_S seconds of sending, the event loop handles its sockets, so that `hello`, `move` and requests of
    publishers don't have to wait for the end of a fan-out. The function `asked` returns whether the API is handling
    requests; if it is, less is sent for a while (see ROWS_WHILE_ASKED). The event `idle` is set while there is nothing
    to send.
    """

    def __init__(self, hub: Hub, clock: Clock, asked: Callable[[], bool] = lambda: False) -> None:
        self._hub = hub
        self._asked = asked
        self._clock = clock
        self._running = False
        self._pause: asyncio.TimerHandle | None = None  # the end of the pause between two groups of YIELDING_ROWS
        self._failures = 0  # number of runs in a row that failed
        tasks.failures.setdefault("pump", 0)
        self._is_woken = False  # whether there is something new to send since the last run
        self._asked_since: float | None = None  # the monotonic time since when `asked` has been true
        self.idle = asyncio.Event()
        self.idle.set()

    def wake(self) -> None:
        """Start sending in the next iteration of the event loop, because there is something new to send."""
        self._is_woken = True
        if self._running and self._pause is None:
            return
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._running = True
        self.idle.clear()
        asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Send for SLICE_S seconds, or to a few sessions only.

        If more remains to be sent, schedule another run.
        """
        self._pause = None
        try:
            now = self._clock.now()
            rows, slice_s, pause_s = self._pace(now.monotonic)
            until = now.monotonic + slice_s
            while more := self._hub.turn(now, rows):
                now = self._clock.now()  # for each slice, so that it is never older than 5 ms when used (E2)
                if now.monotonic >= until:
                    break
            self._failures = 0
        except Exception as error:
            logger.error("sending alerts to a group of sessions failed: %s", trace(error))
            tasks.failures["pump"] += 1
            self._failures += 1
            more, pause_s = True, backoff_s(FAILED_S, self._failures, MOST_FAILED_S)
        if not more:
            self._running = False
            self.idle.set()
        elif pause_s:
            self._pause = asyncio.get_running_loop().call_later(pause_s, self._run)
        else:
            asyncio.get_running_loop().call_soon(self._run)

    def _pace(self, now: float) -> tuple[int | None, float, float]:
        """Return the number of rows for each slice (None for SLICE), the time for slices, and the pause after them.

        The first run for something new, such as an extreme alert, is not as small, and calls for help wait for nothing.
        """
        is_woken, self._is_woken = self._is_woken, False
        if not self._asked():
            self._asked_since = None
        elif self._asked_since is None:
            self._asked_since = now
        if self._asked_since is None or self._hub.calls.busy:
            return None, SLICE_S, 0.0
        if is_woken:
            return NEW_ROWS, 0.0, 0.0
        if now - self._asked_since < YIELD_S:
            return YIELDING_ROWS, 0.0, YIELDING_S
        return ROWS_WHILE_ASKED, 0.0, 0.0


class GcFreezer:
    """Schedules garbage collections, and freezes objects so that the collector skips them (`gc.freeze`).

    Otherwise the collector would examine all sessions again and again, even in the middle of a fan-out; for 15,000
    sessions that takes 22 ms. The objects of sessions and live alerts can be frozen: they leave no reference cycles
    (stream/connection.py, Rule 5), so they are freed without the collector when they end. Other frozen objects that
    become garbage in a cycle are found when everything is thawed (unfrozen), every THAW_S seconds.

    Every freeze is preceded by a collection, because garbage that is frozen stays until the thaw.

    Memory that was frozen before the process was forked is shared with the parent process (run/forking.py), and a thaw
    would copy it. So a forked process that has frozen nothing since its start, because nothing arrives, is not thawed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._arrivals = 0  # number of arrivals at the last freeze
        self._worth_a_thaw = False
        self._thaw_at = float("inf")  # infinite until `start`

    def start(self) -> None:
        """Freeze all objects that exist now. Call this when the process is ready."""
        self._thaw_at = self._clock.now().monotonic + THAW_S
        self._worth_a_thaw = gc.get_freeze_count() == 0  # otherwise the frozen memory is shared with the parent process
        _collect_and_freeze()

    def look(self, arrivals: int, idle: bool) -> None:
        """Thaw (unfreeze) or freeze all objects if that is due. Call this regularly.

        `arrivals` is the number of connections and log entries that have arrived since the start. `idle` must be true
        only while nothing is being sent, because a thaw delays everything else.
        """
        if idle and self._clock.now().monotonic >= self._thaw_at:
            self.thaw()
        elif arrivals - self._arrivals >= FREEZE_EVERY:
            self._arrivals = arrivals
            self._worth_a_thaw = True
            _collect_and_freeze()

    def thaw(self) -> None:
        """Collect garbage among all objects, including the frozen ones, and freeze the objects that remain."""
        self._thaw_at = self._clock.now().monotonic + THAW_S
        if self._worth_a_thaw:
            gc.unfreeze()
            _collect_and_freeze()


def _collect_and_freeze() -> None:
    gc.collect()
    gc.freeze()


class StreamServer(tasks.Part):
    """Runs the stream side of a process: its hub, its connections and its reader of the log.

    The module's docstring describes how it starts and ends.
    """

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
        own_tests: OwnTestMaker | None = None,
    ) -> None:
        """Create the stream side of the process; `listen` lets subscribers in.

        The function `asked` returns whether the API listener in this process is handling requests. `calls` is a
        function that creates the worker for calls for help; its arguments are the maximum number of sessions, and a
        function that stores delivery counts. If `calls` is None, there are no calls for help. `own_tests` makes the
        test alerts that sessions ask for; if it is None, sessions can't ask for any.
        """
        self.keeper = LogHealth(alert_log, clock)
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
        self._hub = Hub(capacity, self._finished, send, settings.heartbeat_s, call_hub, own_tests)
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
        self._reader = LogReader(alert_log, clock, self._hub.fanout.live, self._apply, self.keeper, self._apply_call)
        self._steps = StepWatch(clock.now())
        self._collector = GcFreezer(clock)
        self._servers: Sequence[asyncio.Server] = ()
        if self._errands is not None:
            self._errands.wake = self._pump.wake

    def named_tasks(self) -> Mapping[str, tasks.Work]:
        """Return the tasks that read the log and send alerts."""
        more = {} if self._errands is None else {"calls": self._errands.run}
        return {
            "log_reader": self._reader.read_for_ever,
            "tick": self._tick,
            "counts": tasks.every(FLUSH_S, self._store_counts),
            "recheck": tasks.whenever(self._reloaded, self._recheck_all),
            **more,
        }

    async def listen(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Accept connections on the socket `listener` from when the log has been read, unless `stop` is set earlier."""
        await tasks.first_of(float("inf"), self._reader.caught_up.wait(), stop.wait())
        self._collector.start()  # all live alerts of the start exist now, so they are frozen with the rest
        if self._reader.caught_up.is_set():
            self._servers = await self._stream.listen(listener)

    async def stop(self) -> None:
        """Store the delivery counts."""
        await self._store_counts()
        if self._sender is not None:
            self._sender.close()

    def reloaded(self) -> None:
        """Start to check all sessions' tokens again, after a reload has changed keys or revocations.

        Within a second, the sessions whose tokens are no longer valid are ended.
        """
        self._reloaded.set()
        if self._errands is not None:
            self._errands.adopt()

    def unready(self) -> list[str]:
        """Return the reasons why the stream side is not ready, for `/readyz`; an empty list if it is ready."""
        reasons = [] if self._reader.caught_up.is_set() else ["starting: reading the log"]
        failing = self._hub.fanout.failing()
        reasons += [f"sending fails: {failing} alerts"] * bool(failing)
        is_stuck = self._hub.fanout.flights.oldest_s(self._clock.now()) > STUCK_S
        reasons += [f"sending is stuck: an alert has been on its way for more than {STUCK_S:g} s"] * is_stuck
        return [*reasons, *self.keeper.unready(), *self._reader.unready()]

    def degraded(self) -> int:
        """Return how many calls for help have entries that this process has no key to decrypt (HD8)."""
        return 0 if self._errands is None else self._errands.degraded()

    def reads(self) -> dict[str, float]:
        """Return the servers from which this process reads the log, with the lag of each in seconds (RG4)."""
        return by_server(self._log.metrics())

    # ---- entries of the log, and delivery counts -----------------------------------------------------------------

    def expect(self, entry: Entry | CallEntry | None = None) -> None:
        """Send to fewer sessions at a time until an entry that was just appended to the log has been read from it.

        `entry` is that entry, or None if the caller does not know it. With SQLite, the reader of the log may have read
        the entry before this method is called. In that case do nothing, because small groups would only slow down the
        entry's own fan-out, by a fifteenth (`bench fanout`).
        """
        if isinstance(entry, Revision | Cancel) and self._hub.fanout.live.knows(entry):
            return
        self._expected_until = self._clock.now().monotonic + EXPECTED_S

    def _apply(self, entry: Entry | Untrusted) -> None:
        """Apply an entry of an alert, and start sending it.

        If `expect` was called, end its effect, because this may be the expected entry.
        """
        self._expected_until = float("-inf")
        self._hub.fanout.deliver(entry, self._clock.now())
        self._pump.wake()

    def _apply_call(self, entry: CallEntry) -> None:
        self._expected_until = float("-inf")
        if self._errands is not None:
            self._errands.read(entry, self._reader.position)

    async def _store_counts(self) -> None:
        """Store in the log how often alerts were sent and acknowledged since the last call.

        If the log can't be used, keep the counts for the next call.
        """
        counts, is_stored = self._hub.fanout.live.take_counts(), False
        try:
            is_stored = await self.keeper.store(counts)
        finally:
            if not is_stored:
                self._hub.fanout.live.put_back_counts(counts)

    # ---- periodic work -------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Do the periodic work forever, and measure how late the event loop runs its timers."""
        while True:
            pause_s = self._pause_s()
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            self._metrics.loop_lag.observe(max(0.0, time.monotonic() - due))
            self._watch_the_clock()
            self._stream.sweep()
            if self._hub.busy:
                self._pump.wake()
            self._collector.look(self._stream.arrivals + self._reader.applied, self._pump.idle.is_set())
            tasks.works()

    async def _recheck_all(self) -> None:
        """Check the tokens of all sessions again, after a reload.

        Let the event loop run between groups of sessions. Sessions that start meanwhile need no check, because their
        tokens are verified with the new keys already.
        """
        connections = list(self._stream.all)
        for start in range(0, len(connections), RECHECK_BATCH):
            for connection in connections[start : start + RECHECK_BATCH]:
                try:
                    connection.recheck()
                except Exception as error:
                    logger.error("checking a session's token failed, so its connection was dropped: %s", trace(error))
                    connection.abort()  # its token may be revoked, so the session must not go on
            await asyncio.sleep(0)

    def _pause_s(self) -> float:
        """Return the number of seconds until deadlines must be checked again.

        The pause is short if a deadline is near, or may become near during the pause. Only the expiry of a token may
        come earlier than the next check. It is noticed at most LOOK_S late, and T6 allows a second.
        """
        is_near = self._hub.busy or self._hub.behind or self._stream.unsaid or self._stream.lingering
        return TICK_S if is_near else LOOK_S

    def _watch_the_clock(self) -> None:
        """If somebody has set the wall clock, log by how much, and how many alerts have ended according to it alone."""
        now = self._clock.now()
        if step_s := self._steps.look(now):
            logger.warning(
                "the wall clock was set %s by %.1f s; %d alerts have ended by this clock, but not by the monotonic one",
                "forward" if step_s > 0 else "back",
                abs(step_s),
                self._hub.fanout.live.suspended(now),
            )

    def _finished(self, flight: Flight) -> None:
        """Record, for the metrics, how long sending an alert took.

        One time counts from when the alert was read from the log, the other from when it was accepted.
        """
        now = self._clock.now()  # read again: the time of the slice is older than its writes
        alert = flight.alert
        accepted_ms = alert.revision.issued_at if alert.cancel is None else alert.cancel.cancelled_at
        self._metrics.fan_out.observe(now.monotonic - flight.delivered.monotonic)
        self._metrics.publish_to_last_write.observe(max(0, now.wall_ms - accepted_ms) / 1000)

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of the stream side for Prometheus."""
        yield from self.keeper.metrics()
        if self._errands is not None:
            yield from self._errands.metrics()
        hub, stream = self._hub, self._stream
        now = self._clock.now()
        fanout, live = hub.fanout, hub.fanout.live
        suspended = live.suspended(now)
        yield gauge("sessions", "Sessions that have said hello", len(hub))
        yield gauge("connections", "Connections of the stream listener", stream.connections)
        yield gauge("capacity", "Connections that the stream listener takes", self._capacity)
        yield gauge("places", "Places of sessions", fanout.places)
        yield gauge("live_alerts", "Alerts that have not ended, cancelled ones included", len(live) - suspended)
        yield gauge("withheld_alerts", "Alerts that ended only by the wall clock, or lost their approvals", suspended)
        yield counter("clock_steps", "Times that the wall clock was set", self._steps.steps)
        yield gauge("slow_sessions", "Sessions whose transport has unsent bytes", hub.slow())
        yield gauge("unsent_bytes", "Bytes that transports have not sent", stream.unsent_bytes())
        yield gauge("oldest_flight_seconds", "Age of the oldest fan-out under way", fanout.flights.oldest_s(now))
        yield gauge("log_position", "Position of the last entry applied", self._reader.position)
        yield counter("log_applied", "Entries of the log applied", self._reader.applied)
        yield counter("sends", "Frames of alerts and cancels handed to transports", fanout.sends)
        yield gauge("stream_processes_unbatched", "Processes that send one by one", self._sender is None)
        yield counter("sending_failures", "Unexpected errors while alerts were sent", fanout.failures)
        yield counter("acks", "Acknowledgements counted", live.acks)
        yield counter("log_quarantined", "Entries of the log that could not be read", self._log.quarantined)
        yield from self._log.metrics()
        yield counters("closes", "Sessions ended by the node", "code", _labels(stream.closes))
        yield counters("handshakes_refused", "Handshakes refused", "status", _labels(stream.refusals))

    # ---- draining ------------------------------------------------------------------------------------------------

    async def drain(self, deadline: float, hurry: asyncio.Event) -> None:
        """End all connections, in the steps that the module's docstring lists."""
        logger.info("closing %d sessions", len(self._hub))
        self._stream.draining = True
        await tasks.first_of(deadline, self._pump.idle.wait(), hurry.wait())
        peers = self._hub.peers()
        # The close frames are sent in the first half of the remaining time; the last clients have the other half to
        # close.
        pause = max(0.0, deadline - time.monotonic()) / 2 / max(1, len(peers) // DRAIN_BATCH)
        for start in range(0, len(peers), DRAIN_BATCH):
            if start:
                await tasks.first_of(time.monotonic() + pause, hurry.wait())
            for peer in peers[start : start + DRAIN_BATCH]:
                peer.close(close_codes.DRAINING)
        for server in self._servers:
            server.close()
        while self._stream.connections and time.monotonic() < deadline and not hurry.is_set():
            await tasks.first_of(time.monotonic() + TICK_S, hurry.wait())
        self._stream.abort_all()


def _labels(values: Mapping[int, int]) -> list[tuple[str, float]]:
    return [(str(key), value) for key, value in values.items()]
