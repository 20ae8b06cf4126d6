"""A node in one process: the alert log, the API listener and the stream listener on one event loop.

A node in several processes is in `workers.py`.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from .. import tasks
from ..alertlog import AlertLog
from ..api.context import ApiContext, Places
from ..api.http_server import serve
from ..api.routes_alerts import serving
from ..auth.jwks_refresh import NewerKeys
from ..calls.encryption import CallKeys
from ..calls.openers import Openers
from ..calls.service import CallService
from ..calls.worker import CallWorker
from ..clock import Clock
from ..config import Listeners, Settings
from ..ingest.publish import Publishing, RunInThread
from ..model.alert import Entry
from ..model.call import CallEntry
from ..stream.log_reader import PURGE_S, LogHealth
from ..stream.own_tests import OwnTests
from ..stream.server import StoreCounts, StreamServer
from .backends import opened_log
from .key_source import read_own_files
from .process import Process
from .runtime_config import RuntimeConfig
from .threads import Threads

if TYPE_CHECKING:
    from ..ingest.cap.service import CapIngest

logger = logging.getLogger(__name__)

Appended = Callable[[Entry | CallEntry], None]  # is called with each entry after it was appended to the log


class Sessions(Protocol):
    """What the API listener needs of the processes that have the sessions."""

    def degraded(self) -> int:
        """Return how many calls for help have entries that no key decrypts (rule HD8)."""

    def reads(self) -> Mapping[str, float]:
        """Return the servers from which the log is read, with the lag of each in seconds (rule RG4)."""


class ApiPart(tasks.Part):
    """The API listener as a part of its process. Every reload updates its context."""

    def __init__(
        self,
        process: Process,
        settings: Settings,
        in_force: RuntimeConfig,
        alert_log: AlertLog,
        appended: Appended,
        sessions: Sessions,
        newer_keys: NewerKeys | None,
    ) -> None:
        """Create the services that the routes of the API use.

        `settings.share` is the fraction of each limited resource that one subject (a token owner or CAP source) may use
        (rule HD6).
        """
        clock, share, self._in_force = process.clock, settings.share, in_force
        publishing = Publishing(
            alert_log,
            in_force.now.policy,
            clock,
            appended,
            Threads(share),
            in_force.now.publishers,
            in_force.now.reviewers,
            reserves=in_force.now.sources is not None,
        )
        # CAP messages have threads of their own, so that a publisher's polygon does not have to wait for them (HD3).
        taking = _cap_ingest_of(in_force, alert_log, clock, appended, Threads(share))
        calling = CallService(
            alert_log, in_force.now.policy, in_force.now.call_keys, clock, appended, openers=Openers(alert_log, share)
        )
        self.context = ApiContext(
            publishing,
            calling,
            alert_log,
            in_force.now.policy,
            in_force.tokens,
            clock,
            process.metrics,
            process.unready,
            taking,
            newer_keys,
            Places(share),
            degraded=sessions.degraded,
            reads=sessions.reads,
        )
        process.metrics.watch(in_force.metrics)
        in_force.watch(self._adopt)

    def _adopt(self) -> None:
        """Use a new configuration from now on. Requests in progress finish with the old configuration."""
        now, context = self._in_force.now, self.context
        context.policy = now.policy
        context.publishing = context.publishing.with_config(now.policy, now.publishers, now.reviewers)
        context.calling = context.calling.with_config(now.policy, now.call_keys)
        if context.taking is not None and now.sources is not None:
            context.taking = context.taking.with_config(now.policy, now.sources, now.publishers)

    async def drain(self, _deadline: float, _hurry: asyncio.Event) -> None:
        """Refuse new requests."""
        self.context.drain.begin()


async def serve_api(
    process: Process, api: ApiPart, listeners: Listeners, settings: Settings, in_force: RuntimeConfig, keeper: LogHealth
) -> None:
    """Serve the API, the metrics and the public feed from now on."""
    context = api.context
    await process.enter(serving(context, listeners.api, listeners.metrics))
    await process.enter(tasks.running(purge=tasks.every(PURGE_S, keeper.purge)))
    if listeners.feed is not None:
        await _serve_feed(process, listeners.feed, settings, in_force, context.alert_log, keeper)


async def _serve_feed(
    process: Process,
    listener: socket.socket,
    settings: Settings,
    in_force: RuntimeConfig,
    alert_log: AlertLog,
    keeper: LogHealth,
) -> None:
    """Serve the public feed on `listener` from now on."""
    from ..feed.cap import Issuer
    from ..feed.drawer import Drawer
    from ..feed.routes import MAX_CONNECTIONS, Feed, make_app  # importing the XML writer takes 0.1 s and 10 MB

    def issuer() -> Issuer:
        return Issuer(settings.feed_sender, in_force.now.policy.cap_categories(), settings.feed_url.rstrip("/"))

    drawer = await process.enter(contextlib.aclosing(Drawer()))
    feed = Feed(issuer(), alert_log, process.clock, keeper, drawer, areas=settings.feed_areas)
    in_force.watch(lambda: feed.adopt(issuer()))
    process.metrics.watch(feed.metrics)
    upkeep = tasks.running(
        feed_log_reader=feed.reader.read_for_ever,
        feed_drawing=feed.draw_for_ever,
        feed_sweep=tasks.every(feed.sweep_s, feed.sweep),
    )
    await process.enter(upkeep)
    await process.enter(serve(make_app(feed, process.clock), listener, process.metrics, MAX_CONNECTIONS))


def stream_of(
    process: Process,
    settings: Settings,
    in_force: RuntimeConfig,
    alert_log: AlertLog,
    appended: Appended,
    newer_keys: NewerKeys | None,
    asked: Callable[[], bool] = lambda: False,
) -> StreamServer:
    """Create the stream side of a process. If `--call-keys` is not given, it handles no calls for help.

    `asked` returns whether the API listener in this process is handling requests.
    """

    def now() -> tuple[CallService, CallKeys]:
        keys = in_force.now.call_keys
        return CallService(alert_log, in_force.now.policy, keys, process.clock, appended, in_force.aeds), keys

    def errands(capacity: int, store: StoreCounts) -> CallWorker:
        return CallWorker(capacity, now, alert_log, store, process.clock, process.metrics, in_force.aeds)

    calls = None if settings.call_keys is None else errands
    own_tests = OwnTests(lambda: in_force.now.policy)
    stream = StreamServer(
        settings, in_force.tokens, process.clock, alert_log, process.metrics, asked, newer_keys, calls, own_tests
    )
    in_force.watch(stream.reloaded)
    process.metrics.watch(in_force.trust.metrics)
    return stream


def _cap_ingest_of(
    in_force: RuntimeConfig, alert_log: AlertLog, clock: Clock, appended: Callable[[Entry], None], aside: RunInThread
) -> "CapIngest | None":
    """Return the service that accepts CAP messages in this process, or None if `--cap-sources` is not given."""
    if in_force.now.sources is None:
        return None
    from ..ingest.cap.service import CapIngest  # importing the XML reader takes 0.2 s and 10 MB

    return CapIngest(
        alert_log,
        in_force.now.policy,
        in_force.now.sources,
        clock,
        appended,
        aside,
        in_force.now.publishers,
        in_force.zones,
    )


def log_ready(settings: Settings) -> None:
    """Log that the node is ready, with its addresses."""
    logger.info("ready: the stream listens on %s, the api on %s", settings.stream, settings.api)


async def run(settings: Settings, in_force: RuntimeConfig, listeners: Listeners) -> None:
    """Run a node on these listening sockets until SIGTERM or SIGINT.

    Raise ConfigError if the settings can't be used.
    """
    async with Process(settings.drain_s) as process:
        newer_keys = await read_own_files(process, settings, in_force)
        alert_log = await process.enter(opened_log(settings, in_force.trust))

        def appended(entry: Entry | CallEntry) -> None:
            stream.keeper.worked("written")
            stream.expect(entry)

        stream = stream_of(
            process, settings, in_force, alert_log, appended, newer_keys, lambda: api.context.requests > 0
        )
        api = ApiPart(process, settings, in_force, alert_log, appended, stream, newer_keys)
        await process.add(stream)
        await process.add(api)
        await serve_api(process, api, listeners, settings, in_force, stream.keeper)
        await stream.listen(listeners.streams[0], process.stop.asked)
        if not process.stop.asked.is_set():  # the signal may have come while the log was being read
            log_ready(settings)
        await process.until_stopped()
