"""The command `geocast push`: a process that follows the alert log and sends alerts to push devices.

At the start:

1. The log is read to its end.
2. The devices are loaded, together with the records of the alerts that they were sent.
3. The process starts sending all live alerts to the devices that lack them, and accepts registrations.

At the end (drain, after SIGTERM or SIGINT):

1. Registrations are refused with 503.
2. The process waits for pushes under way, for at most `drain_s`.
3. The results of these pushes are stored, and files are closed. If a disk hangs, the process exits without that.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from .. import tasks
from ..api.http_server import serve
from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenProof, TokenVerifier
from ..clock import Clock, LeaseClock, SystemClock
from ..config import REDIS_SCHEMES, Settings, bind, bind_shared
from ..metrics import Metrics, counter, counters, gauge, gauges
from ..model.errors import StoreUnavailable
from ..push.addresses import Services, parse_services
from ..push.delivery_journal import PROBE_S
from ..push.device_manager import DeviceManager
from ..push.devicestore import DeviceStore
from ..push.devicestore.sqlite import SqliteDevices
from ..push.encryption import Keyring, Record, parse_push_keys
from ..push.http_client import HttpPushClient
from ..push.leases import LeasedShards
from ..push.registering import Registering, RegistrationTerms
from ..push.routes import DevicesContext, make_app, requests_of
from ..push.settings import PushSettings, read, trusted
from ..push.shards import Shards, StaticShards
from ..push.webpush import Vapid, parse_vapid
from ..stream.log_reader import LogHealth, LogReader
from ..stream.own_tests import OwnTests
from ..stream.server import FLUSH_S, GcFreezer
from .key_source import of_source, source_of
from .node import Stop, opened_log
from .process_metrics import serving_metrics, watch_tasks
from .reload_mailbox import reloading
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

SWEEP_S = 0.1  # time between two sweeps, which do what depends on time alone
PURGE_S = 60.0  # time between two purges of the device store
END_S = 5.0  # the time for writing results and closing files after the last push, if no more of `drain_s` is left
MAX_CONNECTIONS = 1_000  # limit on the listener's connections
# The garbage collector runs when this many new objects exist. While 256 requests are under way, some 10,000 objects
# exist for them, and with Python's default the collector would examine these again and again.
YOUNG = 50_000
_TOOK_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class PushContext:
    """The settings, keys and configuration of a push process.

    They are read once and shared by all processes of one supervisor.
    """

    settings: PushSettings
    node: Settings
    services: Services
    keyring: Keyring
    vapid: Vapid
    tls: ssl.SSLContext
    in_force: RuntimeConfig


def read_means(settings: PushSettings) -> PushContext:
    """Read the keys and the configuration for the settings. Raise ConfigError if a file can't be used."""
    settings.check()
    keyring = parse_push_keys(read("--push-keys", settings.push_keys), settings.push_keys)
    vapid = Vapid(parse_vapid(read("--vapid", settings.vapid), settings.vapid), settings.contact)
    tls, node = trusted(settings.push_ca), settings.as_node()
    return PushContext(
        settings, node, parse_services(settings.services), keyring, vapid, tls, RuntimeConfig(node, opens_calls=False)
    )


def open_devices(settings: PushSettings) -> tuple[DeviceStore, Shards]:
    """Return the device store that `--devices` names, without opening it, and the shards that this process serves.

    A shard is a subset of the devices. With Redis, processes lease shards; otherwise this process serves all of them.
    Raise ConfigError if the value of `--devices` is not valid.
    """
    scheme, _, rest = settings.devices.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..push.devicestore.redis import RedisDevices  # importing the library takes 0.1 s and 10 MB

        store = RedisDevices(settings.devices, replicas=settings.devices_replicas)
        return store, LeasedShards(store, LeaseClock())
    in_memory = scheme == "memory"
    return SqliteDevices(Path(":memory:" if in_memory else rest), alone=not in_memory), StaticShards()


async def run_alone(means: PushContext, listener: socket.socket, metrics_listener: socket.socket | None) -> None:
    """Run `geocast push` in one process until SIGTERM or SIGINT. Raise ConfigError if the settings can't be used."""
    in_force, metrics = means.in_force, Metrics()
    source = source_of(means.node, in_force, in_force.take_keys)
    if source is not None:
        in_force.watch(source.newer.settle)
        metrics.watch(source.metrics)
    metrics.watch(lambda: comparable(in_force))

    @contextlib.asynccontextmanager
    async def beside(calls: DevicesContext) -> AsyncIterator[None]:
        metrics.watch(lambda: [gauge("push_ready", "1 if /readyz says 200", not calls.unready())])
        async with serving_metrics(calls.unready, metrics, metrics_listener), tasks.running(**of_source(source)):
            yield

    async with reloading(in_force, source):
        process = PushProcess(means, metrics, None if source is None else source.newer)
        await process.run(listener, Stop(), *open_devices(means.settings), beside)


class PushProcess:
    """A push process, which connects the alert log, the devices, the client of push services and the HTTP listener."""

    def __init__(self, means: PushContext, metrics: Metrics, newer: NewerKeys | None) -> None:
        """Create the process.

        A request whose token has an unknown key waits for newer keys by means of `newer`. If `newer` is None, such a
        request does not wait.
        """
        self._means = means
        self._metrics = metrics
        self._newer = newer

    async def run(
        self,
        listener: socket.socket,
        stop: Stop,
        devices: DeviceStore,
        shards: Shards,
        beside: Callable[[DevicesContext], contextlib.AbstractAsyncContextManager[None]],
    ) -> None:
        """Run the process until SIGTERM or SIGINT. Raise ConfigError if the log or the device store can't be used.

        `stop` receives the signals. `beside` returns a context manager for work beside the listener: it is entered
        after the listener was opened, and left before the listener is closed.
        """
        clock, in_force, settings = SystemClock(), self._means.in_force, self._means.settings
        watch_tasks(self._metrics)
        async with contextlib.AsyncExitStack() as opened:
            ending = opened.enter_context(contextlib.ExitStack())  # it is left last
            log = opened_log(self._means.node, in_force.trust, makes=False)
            alert_log = await opened.enter_async_context(log)
            store = await opened.enter_async_context(_opened(devices))
            client = HttpPushClient(lambda: clock.now().wall_ms, settings.private, self._means.tls).open()
            opened.callback(client.close)
            waking = self._waking(store, shards, client, clock)
            keeper = LogHealth(alert_log, clock)
            self._metrics.watch(keeper.metrics)
            reader = LogReader(alert_log, clock, waking.live, waking.deliver, keeper)
            calls = self._calls(waking, shards, keeper, reader, clock)
            calls.newer_keys = self._newer
            reloaded = asyncio.Event()
            in_force.watch(reloaded.set)
            await opened.enter_async_context(serve(make_app(calls), listener, self._metrics, MAX_CONNECTIONS))
            await opened.enter_async_context(beside(calls))
            counts = tasks.every(FLUSH_S, lambda: waking.store_counts(keeper.store))
            await opened.enter_async_context(tasks.running(log_reader=reader.read_for_ever, counts=counts))
            await _first_of(reader.caught_up, stop.asked)
            if not stop.asked.is_set():
                collector = GcFreezer(clock)
                terms = RegistrationTerms(
                    self._means.services, settings.finest_cell, settings.lease_days, settings.max_devices
                )
                calls.registering = Registering(waking, self._means.vapid, terms, clock)

                async def sweep() -> None:
                    await waking.sweep()
                    collector.look(reader.applied + len(waking.devices), idle=waking.sending.queues.under_way == 0)

                async with tasks.running(
                    shards=lambda: shards.attach(waking.loader),
                    devices=waking.follow,
                    sweep=tasks.every(SWEEP_S, sweep),
                    probe=tasks.every(PROBE_S, waking.recorder.probe),
                    purge=tasks.every(PURGE_S, lambda: _purge(waking, store, shards, clock)),
                    recheck=tasks.whenever(reloaded, waking.reader.recheck),
                ):
                    await _first_of(waking.loader.has_taken, stop.asked)
                    collector.start()
                    gc.set_threshold(YOUNG)
                    logger.info("ready: listening on %s with %d devices", settings.listen, len(waking.devices))
                    if waking.reader.set_aside:
                        logger.warning(
                            "%d stored devices get no pushes: their key or push service is not configured, or they "
                            "exceed --max-devices",
                            waking.reader.set_aside,
                        )
                    await stop.asked.wait()
            calls.drain.begin()
            await self._drain(waking, keeper, stop.hurry, ending)
            await shards.stop()

    async def _drain(
        self, waking: DeviceManager, keeper: LogHealth, hurry: asyncio.Event, ending: contextlib.ExitStack
    ) -> None:
        """Wait for the pushes under way, for at most `drain_s` seconds, and store their results.

        If `ending` is not left in that time, because a disk hangs, the process exits without the results. It waits at
        least END_S after the last push.
        """
        loop = asyncio.get_running_loop()
        end_at = loop.time() + self._means.settings.drain_s
        logger.info("stopping; waiting for %d pushes under way", waking.sending.queues.under_way)
        waking.sending.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._means.settings.drain_s):
                await _first_of(waking.sending.idle, hurry)
        ending.callback(loop.call_at(max(end_at, loop.time() + END_S), _end_at_once).cancel)
        await waking.write_out()
        await waking.store_counts(keeper.store)

    def _waking(self, store: DeviceStore, shards: Shards, client: HttpPushClient, clock: Clock) -> DeviceManager:
        registry = self._metrics.registry
        took = Histogram(
            "geocast_push_seconds",
            "From the acceptance of an entry to when a push service has taken it",
            buckets=_TOOK_S,
            registry=registry,
        )
        # Refused phones have a metric of their own, so that they don't trigger the alerting rules that are based on the
        # node's metric of refused publishers.
        self._metrics.refused = Counter(
            "geocast_push_refused", "Requests that got a problem for an answer", ["type"], registry=registry
        )
        answers = Counter("geocast_push_answers", "Answers of push services", ["service", "status"], registry=registry)
        waking = DeviceManager(
            self._means.settings.max_devices,
            store,
            shards,
            client,
            self._means.keyring,
            self._means.services,
            self._means.vapid,
            clock,
            stands=lambda record: _stands(self._means.in_force.tokens, record),
            own_tests=OwnTests(lambda: self._means.in_force.policy),
        )
        waking.sending.took = took.observe
        answers_of = functools.cache(answers.labels)
        waking.sending.requests.answered = lambda service, status: answers_of(service, status).inc()
        self._metrics.watch(lambda: _metrics_of(waking, shards))
        return waking

    def _calls(
        self, waking: DeviceManager, shards: Shards, keeper: LogHealth, reader: LogReader, clock: Clock
    ) -> DevicesContext:
        def unready() -> list[str]:
            reasons = ["draining"] if calls.drain.begun else []
            if not waking.loader.has_taken.is_set():
                reasons.append("starting: reading the log and the devices")
            if (error := waking.recorder.error or shards.error) is not None:
                reasons.append(f"store of devices unreachable: {error}")
            if failing := waking.fanout.failing():
                reasons.append(f"sending fails: {failing} alerts")
            return [*reasons, *keeper.unready(), *reader.unready(), *tasks.unready()]

        means = self._means
        calls = DevicesContext(means.in_force.tokens, clock, self._metrics, means.settings.origins, unready)
        calls.requests = requests_of(means.settings.share)
        return calls


@contextlib.contextmanager
def listening(settings: PushSettings) -> Iterator[tuple[Sequence[socket.socket], socket.socket | None]]:
    """Open the listening sockets of `geocast push` while the block runs.

    Yield a list with one socket for each process, and the socket for `--metrics` or None. Raise ConfigError if an
    address can't be used.
    """
    with contextlib.ExitStack() as opened:
        bound = (
            [bind("--listen", settings.listen)]
            if settings.workers == 1
            else bind_shared("--listen", settings.listen, settings.workers)
        )
        listeners = [opened.enter_context(each) for each in bound]
        metrics = opened.enter_context(bind("--metrics", settings.metrics)) if settings.metrics else None
        yield listeners, metrics


def _end_at_once() -> None:
    logger.error("stopping takes too long, so the process ends at once; pushes whose results are lost may be repeated")
    logging.shutdown()
    os._exit(1)


@contextlib.asynccontextmanager
async def _opened(store: DeviceStore) -> AsyncIterator[DeviceStore]:
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


async def _purge(waking: DeviceManager, store: DeviceStore, shards: Shards, clock: Clock) -> None:
    """Delete the delivery records of alerts that have ended from the device store."""
    with contextlib.suppress(StoreUnavailable):
        await store.purge(shards.terms.keys(), clock.now().wall_ms, waking.sending.lines.is_over)


def _stands(tokens: TokenVerifier, record: Record) -> bool | None:
    key = tokens.keys.get(record.kid)
    return None if key is None else tokens.still_valid(TokenProof(record.sub, key, record.issued_at_s))


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def comparable(in_force: RuntimeConfig) -> Iterator[Metric]:
    """Return the metrics of the configuration, except the digests of the configuration files.

    Operators compare the digests of all processes. A push process lacks some of a node's files, so its digests would
    always differ.
    """
    return (metric for metric in in_force.metrics() if metric.name != "geocast_settings_digest")


def _metrics_of(waking: DeviceManager, shards: Shards) -> Iterator[Metric]:
    recorder = waking.recorder
    yield gauge("push_devices", "Devices that are registered, and are this process's", len(waking.devices))
    yield gauge("push_shards", "Shards of the devices that are this process's, of 64", len(shards.terms))
    yield gauge("push_set_aside", "Devices of the store that can't be used", waking.reader.set_aside)
    yield gauge("push_under_way", "Requests to push services under way", waking.sending.queues.under_way)
    yield gauge("push_waiting", "Devices that wait for their push service", waking.sending.queues.waiting())
    yield counters("push", "Pushes, by what came of them", "outcome", waking.sending.requests.outcomes.items())
    text = "Which part of the phones of a push service have a host that takes pushes, as far as is known"
    yield gauges("push_lane_open", text, "service", waking.sending.queues.open_shares().items())
    yield counter("sending_failures", "Unexpected errors while alerts were sent", waking.fanout.failures)
    yield counter("push_unrecorded", "Lines that were not in the store when they should have been", recorder.unrecorded)
    yield counters("push_forgotten", "Devices that were forgotten, by why", "why", waking.devices.forgotten.items())
