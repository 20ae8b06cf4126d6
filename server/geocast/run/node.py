"""A node in one process: the alert log, the API listener and the stream listener on one event loop.

A node in several processes is in `workers.py`. Only this module chooses a backend of the log.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import tasks
from ..alertlog import AlertLog, EntryVerifier
from ..alertlog.memory import MemoryLog
from ..alertlog.sqlite import SqliteLog
from ..alertlog.tail import refuse_missing
from ..api.context import ApiContext, Places
from ..api.http_server import serve
from ..api.routes_alerts import serving
from ..calls.encryption import CallKeys
from ..calls.openers import Openers
from ..calls.service import CallService
from ..calls.worker import CallWorker
from ..clock import Clock, SystemClock
from ..config import REDIS_SCHEMES, Listeners, Settings
from ..ingest.publish import Publishing, RunInThread
from ..metrics import Metrics, by_server
from ..model.alert import Entry
from ..model.call import CallEntry
from ..model.errors import ConfigError
from ..stream.log_reader import PURGE_S, LogHealth
from ..stream.own_tests import OwnTests
from ..stream.server import MakeErrands, StreamServer
from .key_source import of_source, source_of
from .process_metrics import watch_tasks
from .reload_mailbox import reloading
from .runtime_config import RuntimeConfig
from .threads import Threads

if TYPE_CHECKING:
    from ..ingest.cap.service import CapIngest

logger = logging.getLogger(__name__)


def open_log(settings: Settings, verifier: EntryVerifier | None = None) -> AlertLog:
    """Create the alert log that the value of `--log` describes, without starting it.

    Raise ConfigError if the value of `--log` is not valid. Readers of the log get only the entries that `verifier`
    accepts, or all entries if it is None.
    """
    scheme, colon, rest = settings.log.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..alertlog.redis_streams import RedisStreamsLog  # importing the library takes 0.1 s and 10 MB

        return RedisStreamsLog(
            settings.log,
            replicas=settings.log_replicas,
            volatile=settings.allow_volatile_log,
            follow=settings.log_follow,
            verifier=verifier,
        )
    if scheme == "memory" and colon and not rest:
        return MemoryLog(verifier)
    if scheme == "sqlite" and str(Path(rest)) == ":memory:":
        raise ConfigError("--log: SQLite's own :memory: can't be shared by threads; give a file, or memory: for tests")
    if scheme == "sqlite" and rest:
        return SqliteLog(Path(rest), verifier=verifier)
    raise ConfigError("--log: expected memory:, sqlite:PATH, or a URL of Redis (redis://HOST:PORT)")


@contextlib.asynccontextmanager
async def opened_log(
    settings: Settings, verifier: EntryVerifier | None = None, *, makes: bool = True
) -> AsyncIterator[AlertLog]:
    """Open the alert log named by `--log` while the block runs. Raise ConfigError if the log can't be used.

    If `makes` is false, the log must be there already.
    """
    alert_log = open_log(settings, verifier)
    try:
        if not makes:
            await refuse_missing(alert_log)
        await alert_log.start()
        yield alert_log
    finally:
        await alert_log.stop()


class Stop:
    """Handles SIGTERM and SIGINT.

    The first signal sets `asked`, which starts the drain. Every later signal sets `hurry`, which cuts the drain short.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Handle SIGTERM or SIGINT: the first signal sets `asked`, every later one `hurry`."""
        if self.asked.is_set():
            logger.warning("a second signal to stop has arrived; closing the open connections at once")
            self.hurry.set()
        self.asked.set()


@contextlib.asynccontextmanager
async def serving_feed(
    settings: Settings,
    in_force: RuntimeConfig,
    listener: socket.socket | None,
    alert_log: AlertLog,
    clock: Clock,
    keeper: LogHealth,
    metrics: Metrics,
) -> AsyncIterator[None]:
    """Serve the public feed on `listener` while the block runs. Do nothing if `listener` is None."""
    if listener is None:
        yield
        return
    from ..feed.cap import Issuer
    from ..feed.drawer import Drawer
    from ..feed.routes import MAX_CONNECTIONS, Feed, make_app  # importing the XML writer takes 0.1 s and 10 MB

    def issuer() -> Issuer:
        return Issuer(settings.feed_sender, in_force.policy.cap_categories(), settings.feed_url.rstrip("/"))

    drawer = Drawer()
    feed = Feed(issuer(), alert_log, clock, keeper, drawer, areas=settings.feed_areas)
    in_force.watch(lambda: feed.adopt(issuer()))
    metrics.watch(feed.metrics)
    upkeep = tasks.running(
        feed_log_reader=feed.reader.read_for_ever,
        feed_drawing=feed.draw_for_ever,
        feed_sweep=tasks.every(feed.sweep_s, feed.sweep),
    )
    async with (
        contextlib.aclosing(drawer),
        upkeep,
        serve(make_app(feed, clock), listener, metrics, MAX_CONNECTIONS),
    ):
        yield


def api_of(
    in_force: RuntimeConfig,
    alert_log: AlertLog,
    clock: Clock,
    metrics: Metrics,
    appended: Callable[[Entry | CallEntry], None],
    unready: Callable[[], list[str]],
    share: float,
    degraded: Callable[[], int],
    reads: Callable[[], Mapping[str, float]],
) -> ApiContext:
    """Create the context of the API listener: the services that its routes use. Every reload updates it.

    `appended` is called with each entry after it was appended to the log. `unready` returns the reasons why the node is
    not ready. `share` is the fraction of each limited resource that one subject (a token owner or CAP source) may use
    (rule HD6). `degraded` returns how many calls for help have entries that no key decrypts (rule HD8). `reads` returns
    the servers from which the log is read, with the lag of each in seconds (rule RG4).
    """
    threads = Threads(share)
    publishing = Publishing(
        alert_log,
        in_force.policy,
        clock,
        appended,
        threads,
        in_force.publishers,
        in_force.reviewers,
        reserves=in_force.sources is not None,
    )
    # CAP messages have threads of their own, so that a publisher's polygon does not have to wait for them (rule HD3).
    taking = _cap_ingest_of(in_force, alert_log, clock, appended, Threads(share))
    openers = Openers(alert_log, share)
    calling = CallService(alert_log, in_force.policy, in_force.call_keys, clock, appended, openers=openers)
    api = ApiContext(publishing, calling, alert_log, in_force.policy, in_force.tokens, clock, metrics, unready, taking)
    api.places = Places(share)
    api.degraded = degraded
    api.reads = reads
    metrics.watch(in_force.metrics)
    metrics.watch(in_force.trust.metrics)

    def adopt() -> None:
        given = (in_force.publishers, in_force.sources, in_force.reviewers, in_force.call_keys)
        api.adopt(in_force.policy, *given)

    in_force.watch(adopt)
    return api


def calls_of(
    settings: Settings,
    in_force: RuntimeConfig,
    alert_log: AlertLog,
    clock: Clock,
    metrics: Metrics,
    appended: Callable[[Entry | CallEntry], None],
) -> MakeErrands | None:
    """Return a function that creates the worker for calls for help in this process.

    Return None if `--call-keys` is not given: then this process handles no calls for help.
    """
    if settings.call_keys is None:
        return None

    def now() -> tuple[CallService, CallKeys]:
        keys = in_force.call_keys
        return CallService(alert_log, in_force.policy, keys, clock, appended, in_force.aeds), keys

    return lambda capacity, store: CallWorker(capacity, now, alert_log, store, clock, metrics, in_force.aeds)


def _cap_ingest_of(
    in_force: RuntimeConfig, alert_log: AlertLog, clock: Clock, appended: Callable[[Entry], None], aside: RunInThread
) -> "CapIngest | None":
    """Return the service that accepts CAP messages in this process, or None if `--cap-sources` is not given."""
    if in_force.sources is None:
        return None
    from ..ingest.cap.service import CapIngest  # importing the XML reader takes 0.2 s and 10 MB

    return CapIngest(
        alert_log, in_force.policy, in_force.sources, clock, appended, aside, in_force.publishers, in_force.zones
    )


def log_ready(settings: Settings) -> None:
    """Log that the node is ready, with its addresses."""
    logger.info("ready: the stream listens on %s, the api on %s", settings.stream, settings.api)


async def run(settings: Settings, in_force: RuntimeConfig, listeners: Listeners) -> None:
    """Run a node on these listening sockets until SIGTERM or SIGINT.

    Raise ConfigError if the settings can't be used.
    """
    clock = SystemClock()
    stop = Stop()
    metrics = Metrics()
    watch_tasks(metrics)

    def asked() -> bool:
        return api.requests > 0

    source = source_of(settings, in_force, in_force.take_keys)
    newer_keys = source.newer if source else None
    if source:
        metrics.watch(source.metrics)
        in_force.watch(source.newer.settle)
    async with reloading(in_force, source), opened_log(settings, in_force.trust) as alert_log:

        def appended(entry: Entry | CallEntry) -> None:
            delivery.keeper.worked("written")
            delivery.expect(entry)

        calls = calls_of(settings, in_force, alert_log, clock, metrics, appended)
        own_tests = OwnTests(lambda: in_force.policy)
        delivery = StreamServer(
            settings, in_force.tokens, clock, alert_log, metrics, asked, newer_keys, calls, own_tests
        )

        def reads() -> dict[str, float]:
            return by_server(alert_log.metrics())

        unready, degraded = delivery.unready, delivery.degraded
        asked_of = (appended, unready, settings.share, degraded, reads)
        api: ApiContext = api_of(in_force, alert_log, clock, metrics, *asked_of)
        api.newer_keys = newer_keys
        in_force.watch(delivery.reloaded)
        async with (
            serving(api, listeners.api, listeners.metrics),
            serving_feed(settings, in_force, listeners.feed, alert_log, clock, delivery.keeper, metrics),
            delivery.serving(listeners.streams[0], stop.asked, stop.hurry),
            tasks.running(purge=tasks.every(PURGE_S, delivery.keeper.purge), **of_source(source)),
        ):
            if not stop.asked.is_set():  # the signal may have come while the log was being read
                log_ready(settings)
            await stop.asked.wait()
            api.drain.begin()
