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
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from .. import tasks
from ..alertlog import AlertLog
from ..api.http_server import serve
from ..auth.jwks_refresh import NewerKeys
from ..auth.tokens import TokenProof, TokenVerifier
from ..config import bind, bind_shared
from ..metrics import counter, counters, gauge, gauges
from ..model.errors import StoreUnavailable
from ..model.toml_file import read_file
from ..push.addresses import Services, parse_services
from ..push.device_manager import DeviceManager
from ..push.devicestore import DeviceStore
from ..push.encryption import Keyring, Record, parse_push_keys
from ..push.http_client import HttpPushClient
from ..push.means import DeviceMeans
from ..push.registering import Registering, RegistrationTerms
from ..push.routes import DevicesContext, make_app, requests_of
from ..push.settings import PushSettings, trusted
from ..push.shards import Shards
from ..push.webpush import Vapid, parse_vapid
from ..stream.log_reader import LogHealth, LogReader
from ..stream.own_tests import OwnTests
from ..stream.server import FLUSH_S, GcFreezer
from .backends import open_devices, opened_log
from .key_source import read_own_files
from .process import Process
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

SWEEP_S = 0.1  # time between two sweeps, which do what depends on time alone
PURGE_S = 60.0  # time between two purges of the device store
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
    services: Services
    keyring: Keyring
    vapid: Vapid
    tls: ssl.SSLContext
    in_force: RuntimeConfig


def read_means(settings: PushSettings) -> PushContext:
    """Read the keys and the configuration for the settings. Raise ConfigError if a file can't be used."""
    settings.check()
    keyring = parse_push_keys(read_file("--push-keys", settings.push_keys), settings.push_keys)
    vapid = Vapid(parse_vapid(read_file("--vapid", settings.vapid), settings.vapid), settings.contact)
    services, tls = parse_services(settings.services), trusted(settings.push_ca)
    return PushContext(settings, services, keyring, vapid, tls, RuntimeConfig(settings, opens_calls=False))


async def run_alone(means: PushContext, listener: socket.socket, metrics_listener: socket.socket | None) -> None:
    """Run `geocast push` in one process until SIGTERM or SIGINT. Raise ConfigError if the settings can't be used."""
    async with Process(means.settings.drain_s) as process:
        newer_keys = await read_own_files(process, means.in_force)
        process.metrics.watch(lambda: comparable(means.in_force))
        part = await push_part(process, means, *open_devices(means.settings), newer_keys)
        await process.enter(part.serving(listener))
        process.metrics.watch(lambda: [gauge("push_ready", "1 if /readyz says 200", not process.unready())])
        await process.serve_metrics(metrics_listener)
        await part.until_ready()
        await process.until_stopped()


async def push_part(
    process: Process, means: PushContext, devices: DeviceStore, shards: Shards, newer: NewerKeys | None
) -> "PushPart":
    """Open the log and the devices, and add what pushes alerts to them. Raise ConfigError if they can't be used.

    A request whose token has an unknown key waits for newer keys by means of `newer`. If `newer` is None, such a
    request does not wait.
    """
    alert_log = await process.enter(opened_log(means.settings, means.in_force.trust, makes=False))
    keeper = await process.add(LogHealth(alert_log, process.clock))
    client = HttpPushClient(lambda: process.clock.now().wall_ms, means.settings.private, means.tls).open()
    process.at_end(client.close)
    return await process.add(PushPart(process, means, alert_log, keeper, devices, shards, client, newer))


class PushPart(tasks.Part):
    """Connects the alert log, the devices, the client of push services and the HTTP listener."""

    def __init__(
        self,
        process: Process,
        means: PushContext,
        alert_log: AlertLog,
        keeper: LogHealth,
        devices: DeviceStore,
        shards: Shards,
        client: HttpPushClient,
        newer: NewerKeys | None,
    ) -> None:
        self._process, self._means, self._keeper = process, means, keeper
        self._devices, self._shards = devices, shards
        self._waking = self._made(client)
        self._reader = LogReader(alert_log, process.clock, self._waking.live, self._waking.deliver, keeper)
        self._collector = GcFreezer(process.clock)
        self._reloaded = asyncio.Event()
        means.in_force.watch(self._reloaded.set)
        tokens, origins = means.in_force.tokens, means.settings.origins
        self._calls = DevicesContext(tokens, process.clock, process.metrics, origins, process.unready)
        self._calls.requests = requests_of(means.settings.share)
        self._calls.newer_keys = newer

    async def start(self) -> None:
        """Open the devices. Raise ConfigError if they can't be used."""
        await self._devices.start()

    def named_tasks(self) -> Mapping[str, tasks.Work]:
        """Return the tasks that read the log, and push alerts to the devices when it has been read."""
        waking, shards, has_read = self._waking, self._shards, self._reader.caught_up
        return {
            "log_reader": self._reader.read_for_ever,
            "counts": tasks.every(FLUSH_S, lambda: waking.store_counts(self._keeper.store)),
            "shards": tasks.after(has_read, lambda: shards.attach(waking.loader)),
            "devices": tasks.after(has_read, waking.follow),
            "sweep": tasks.after(has_read, tasks.every(SWEEP_S, self._sweep)),
            "probe": tasks.after(has_read, tasks.every(waking.recorder.PROBE_S, waking.recorder.probe)),
            "purge": tasks.after(has_read, tasks.every(PURGE_S, self._purge)),
            "recheck": tasks.after(has_read, tasks.whenever(self._reloaded, waking.reader.recheck)),
        }

    def serving(self, listener: socket.socket) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a context in which devices can be registered on `listener`."""
        return serve(make_app(self._calls), listener, self._process.metrics, MAX_CONNECTIONS)

    async def until_ready(self) -> None:
        """Wait until the log and the devices were read, or the process is to stop."""
        waking, settings, stop = self._waking, self._means.settings, self._process.stop.asked
        await tasks.first_of(float("inf"), self._reader.caught_up.wait(), stop.wait())
        terms = RegistrationTerms(self._means.services, settings.finest_cell, settings.lease_days, settings.max_devices)
        self._calls.registering = Registering(waking, self._means.vapid, terms, self._process.clock)
        await tasks.first_of(float("inf"), waking.loader.has_taken.wait(), stop.wait())
        if stop.is_set():
            return
        self._collector.start()
        gc.set_threshold(YOUNG)
        logger.info("ready: listening on %s with %d devices", settings.listen, len(waking.devices))
        if waking.reader.set_aside:
            logger.warning(
                "%d stored devices get no pushes: their key or push service is not configured, or they exceed "
                "--max-devices",
                waking.reader.set_aside,
            )

    def unready(self) -> list[str]:
        """Return the reasons why alerts may not reach the devices."""
        waking = self._waking
        reasons = [] if waking.loader.has_taken.is_set() else ["starting: reading the log and the devices"]
        if (error := waking.recorder.error or self._shards.error) is not None:
            reasons.append(f"store of devices unreachable: {error}")
        if failing := waking.fanout.failing():
            reasons.append(f"sending fails: {failing} alerts")
        return [*reasons, *self._reader.unready()]

    async def drain(self, deadline: float, hurry: asyncio.Event) -> None:
        """Refuse registrations, and wait for the pushes under way."""
        self._calls.drain.begin()
        logger.info("waiting for %d pushes under way", self._waking.sending.queues.under_way)
        self._waking.sending.end()
        await tasks.first_of(deadline, self._waking.sending.idle.wait(), hurry.wait())

    async def stop(self) -> None:
        """Store the results of the pushes, and close the devices."""
        if self._waking.loader.has_taken.is_set():
            await self._waking.write_out()
            await self._waking.store_counts(self._keeper.store)
        await self._shards.stop()
        await self._devices.stop()

    async def _sweep(self) -> None:
        waking = self._waking
        await waking.sweep()
        self._collector.look(self._reader.applied + len(waking.devices), idle=waking.sending.queues.under_way == 0)

    async def _purge(self) -> None:
        """Delete the delivery records of alerts that have ended from the device store."""
        with contextlib.suppress(StoreUnavailable):
            now_ms = self._process.clock.now().wall_ms
            await self._devices.purge(self._shards.terms.keys(), now_ms, self._waking.sending.lines.is_over)

    def _made(self, client: HttpPushClient) -> DeviceManager:
        metrics = self._process.metrics
        text = "From the acceptance of an entry to when a push service has taken it"
        took = metrics.add_histogram("push_seconds", text, _TOOK_S)
        # Refused phones have a metric of their own, so that they don't trigger the alerting rules that are based on the
        # node's metric of refused publishers.
        metrics.refused = metrics.add_counter("push_refused", "Requests that got a problem for an answer", "type")
        answers = metrics.add_counter("push_answers", "Answers of push services", "service", "status")
        means, in_force = self._means, self._means.in_force
        waking = DeviceManager(
            DeviceMeans(
                means.settings.max_devices,
                self._devices,
                self._shards,
                client,
                means.keyring,
                means.services,
                means.vapid,
                self._process.clock,
                stands=lambda record: _stands(in_force.tokens, record),
                own_tests=OwnTests(lambda: in_force.now.policy),
            )
        )
        waking.sending.took = took.observe
        answers_of = functools.cache(answers.labels)
        waking.sending.requests.answered = lambda service, status: answers_of(service, status).inc()
        metrics.watch(lambda: _metrics_of(waking, self._shards))
        return waking


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


def _stands(tokens: TokenVerifier, record: Record) -> bool | None:
    key = tokens.keys.get(record.kid)
    return None if key is None else tokens.still_valid(TokenProof(record.sub, key, record.issued_at_s))


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
