"""A node: everything put together, started, run and drained. It follows the log, and lets the hub write.

Start   1 open the log   2 read it to its end   3 listen
Drain   1 not ready; new connections and requests get 503   2 what is being sent is sent   3 sessions are told 1012,
        in batches   4 listeners close   5 counts are stored, the log is closed
        A second signal, or the end of `drain_s`, cuts 2 and 3 short.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from pathlib import Path

from prometheus_client.core import Metric

from . import closing, config, policy
from .alertlog import HEARTBEAT_S, AlertLog
from .alertlog.memory import MemoryLog
from .alertlog.sqlite import SqliteLog
from .clock import Clock, Now, SystemClock
from .config import RESERVED_DESCRIPTORS, Settings
from .errors import ConfigError, LogUnavailable, trace
from .hub import Flight, Hub
from .metrics import Metrics, counter, counters, gauge
from .net.http import Api, make_app, serve
from .net.websocket import Stream
from .publishing import Publishing
from .tokens import Tokens

log = logging.getLogger(__name__)

SLICE_S = 0.0015  # of writing, before the loop may look at its sockets
TICK_S = 0.05  # between sweeps
FLUSH_S = 1.0  # between writes of delivery counts
PURGE_S = 60.0
DEAF_S = 3 * HEARTBEAT_S  # without a word from the log reader: not ready
RETRY_S = 0.25  # after the log could not be read
APPLY_AT_ONCE = 64  # entries applied before the loop may look at its sockets
DRAIN_BATCH = 128


def open_log(url: str) -> AlertLog:
    """The log that `url` names: `memory:` or `sqlite:PATH`. Raises ConfigError."""
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest:
        return MemoryLog()
    if scheme == "sqlite" and rest:
        return SqliteLog(Path(rest))
    raise ConfigError("--log: expected memory: or sqlite:PATH")


class Pump:
    """Turns the hub as long as it has something to send, SLICE_S at a time, sockets in between."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        self._running = False
        self.idle = asyncio.Event()
        self.idle.set()

    def wake(self) -> None:
        """There is something to send."""
        if not self._running:
            self._running = True
            self.idle.clear()
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        now = self._clock.now()
        until = now.monotonic + SLICE_S
        try:
            while more := self._hub.turn(now):
                now = self._clock.now()  # at most one slice old when it judges (protocol, section 3: 5 ms)
                if now.monotonic >= until:
                    break
        except Exception as error:
            log.error("a turn of the fan-out failed: %s", trace(error))
            more = True  # the flights that are left go on
        if more:
            asyncio.get_running_loop().call_soon(self._run)
        else:
            self._running = False
            self.idle.set()


class Node:
    """One node. `run` ends when it has drained."""

    def __init__(self, settings: Settings, tokens: Tokens, clock: Clock | None = None) -> None:
        """Raises ConfigError for a policy that can't be used."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._log = open_log(settings.log)
        self._policy = policy.load(settings.policy)
        self.metrics = Metrics()
        descriptors = config.raise_descriptor_limit()
        capacity = max(1, min(settings.max_sessions or descriptors, descriptors - RESERVED_DESCRIPTORS))
        self._hub = Hub(capacity, self._landed)
        self._stream = Stream(
            self._hub,
            tokens,
            self._clock,
            capacity=capacity,
            unsaid=max(1, min(descriptors // 10, capacity)),
            origins=settings.origins,
            loopback_origins=settings.dev,
        )
        self._api = Api(
            Publishing(self._log, self._policy, self._clock),
            self._log,
            self._policy,
            tokens,
            self._clock,
            self.metrics,
            self._unready,
        )
        self._caught_up = asyncio.Event()
        self._position = 0
        self._heard = 0.0  # when the log last gave something, in seconds of the monotonic clock
        self._log_error: str | None = None  # why the log could not be written or read last time
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self.metrics.watch(self._read_metrics)

    async def run(self, stream: socket.socket, api: socket.socket) -> None:
        """Serve on two bound sockets until SIGTERM or SIGINT. Raises ConfigError if the log can't be used."""
        self._pump = Pump(self._hub, self._clock)
        await self._log.start()
        async with _background(self._follow(), self._tick(), self._keep_log()):
            await self._caught_up.wait()
            gc.collect()
            gc.freeze()  # what is here at the start stays: no collection looks at it again
            listening = await self._stream.listen(stream)
            async with serve(make_app(self._api), api):
                self._handle_signals()
                log.info("ready: stream on %s, api on %s", self._settings.stream, self._settings.api)
                await self._stopping.wait()
                await self._drain(listening)
        await self._store_counts()
        await self._log.stop()

    # ---- the log -------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Apply every entry of the log, for ever."""
        started_ms = self._clock.now().wall_ms
        while True:
            try:
                async for batch in self._log.follow(self._position, started_ms):
                    self._heard = time.monotonic()
                    if not batch:
                        self._caught_up.set()
                    for count, (position, entry) in enumerate(batch, start=1):
                        self._hub.deliver(entry, self._clock.now())
                        self._position = position
                        self._pump.wake()
                        if count % APPLY_AT_ONCE == 0:
                            await asyncio.sleep(0)
            except LogUnavailable as error:
                self._log_failed("read", error)
            await asyncio.sleep(RETRY_S)

    async def _keep_log(self) -> None:
        """Store delivery counts and forget old alerts, now and then."""
        purge_at = 0.0
        while True:
            await asyncio.sleep(FLUSH_S)
            if not await self._store_counts():
                continue
            if time.monotonic() >= purge_at:
                with contextlib.suppress(LogUnavailable):
                    await self._log.purge(self._clock.now().wall_ms)
                purge_at = time.monotonic() + PURGE_S

    async def _store_counts(self) -> bool:
        counts = self._hub.live.take_counts()
        try:
            await self._log.add_counts(counts)
        except LogUnavailable as error:
            self._hub.live.put_back_counts(counts)
            self._log_failed("written", error)
            return False
        if self._log_error is not None:
            log.warning("the log can be used again")
            self._log_error = None
        return True

    def _log_failed(self, what: str, error: LogUnavailable) -> None:
        if self._log_error is None:
            log.error("the log can't be %s: %s", what, error)
        self._log_error = str(error)

    def _unready(self) -> list[str]:
        """Why this node is not ready."""
        reasons = []
        if self._stream.draining:
            reasons.append("draining")
        if self._log_error is not None:
            reasons.append(f"log unreachable: {self._log_error}")
        if time.monotonic() - self._heard > DEAF_S:
            reasons.append(f"log reader stuck for more than {DEAF_S:g} s")
        return reasons

    # ---- upkeep --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Sweep, and measure how late the loop is."""
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self.metrics.loop_lag.observe(max(0.0, time.monotonic() - due))
            try:
                self._stream.sweep()
            except Exception as error:
                log.error("a sweep failed: %s", trace(error))

    def _landed(self, flight: Flight, _now: Now) -> None:
        now = self._clock.now()  # the slice's own reading is older than its writes
        entry = flight.alert.cancel or flight.alert.revision
        accepted_ms = entry.cancelled_at if entry is flight.alert.cancel else flight.alert.revision.issued_at
        self.metrics.fan_out.observe(now.monotonic - flight.delivered.monotonic)
        self.metrics.publish_to_last_write.observe(max(0, now.wall_ms - accepted_ms) / 1000)

    def _read_metrics(self) -> Iterator[Metric]:
        hub, stream = self._hub, self._stream
        oldest_s = hub.oldest_flight(self._clock.now())
        yield gauge("sessions", "Sessions that have said hello", len(hub))
        yield gauge("connections", "Connections of the stream listener", stream.connections)
        yield gauge("places", "Places of sessions", hub.places)
        yield gauge("live_alerts", "Alerts that have not ended, cancelled ones included", len(hub.live))
        yield gauge("slow_sessions", "Sessions whose transport has unsent bytes", hub.slow())
        yield gauge("unsent_bytes", "Bytes that transports have not sent", stream.unsent_bytes())
        yield gauge("oldest_flight_seconds", "Age of the oldest fan-out under way", oldest_s)
        yield gauge("log_position", "Position of the last entry applied", self._position)
        yield gauge("ready", "1 if ready", not self._unready())
        yield counter("sends", "Frames of alerts and cancels handed to transports", hub.sends)
        yield counter("log_quarantined", "Entries of the log that could not be read", self._log.quarantined)
        yield counters("closes", "Sessions ended by the node", "code", _labels(stream.closes))
        yield counters("handshakes_refused", "Handshakes refused", "status", _labels(stream.refusals))

    # ---- the end -------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Drain and end; asked a second time, hurry."""
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    async def _drain(self, listening: asyncio.Server) -> None:
        log.info("draining %d sessions", len(self._hub))
        deadline = time.monotonic() + self._settings.drain_s
        self._stream.draining = self._api.draining = True
        await self._before(deadline, self._pump.idle.wait())
        peers = self._hub.peers()
        batches = range(0, len(peers), DRAIN_BATCH)
        for done, start in enumerate(batches, start=1):
            for peer in peers[start : start + DRAIN_BATCH]:
                peer.close(closing.DRAINING)
            # Spread over the first half of the time that is left, so that the peers have the rest to close.
            pause = (deadline - time.monotonic()) / 2 / (len(batches) - done + 1)
            if done < len(batches):
                await self._before(time.monotonic() + pause, self._hurry.wait())
        listening.close()
        while self._stream.connections and time.monotonic() < deadline and not self._hurry.is_set():
            await self._before(time.monotonic() + TICK_S, self._hurry.wait())
        self._stream.abort_all()

    @staticmethod
    async def _before(deadline: float, event: Awaitable[object]) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event, max(0.0, deadline - time.monotonic()))


def _labels(values: dict[int, int]) -> list[tuple[str, float]]:
    return [(str(key), value) for key, value in values.items()]


@contextlib.asynccontextmanager
async def _background(*coroutines: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run these beside the block, and cancel them at its end."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
