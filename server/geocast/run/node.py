"""A node in one process: the alert log, the API listener and the stream listener on one event loop.

A node in several processes is in `workers.py`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

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
from ..config import Listeners, Settings
from ..ingest.publish import Publishing
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

logger = logging.getLogger(__name__)


class Sessions(Protocol):
    """What the API listener needs of the processes that have the sessions."""

    def degraded(self) -> int:
        """Return how many calls for help have entries that no key decrypts (rule HD8)."""

    def reads(self) -> Mapping[str, float]:
        """Return the servers from which the log is read, with the lag of each in seconds (rule RG4)."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The configuration, the log and the process that all parts of a node's process share.

    `appended` is called with each entry after this process has appended it to the log. `newer_keys` is None if the keys
    are not at a URL.
    """

    process: Process
    settings: Settings
    in_force: RuntimeConfig
    alert_log: AlertLog
    appended: Callable[[Entry | CallEntry], None]
    newer_keys: NewerKeys | None


class ApiPart(tasks.Part):
    """The API listener as a part of its process. Every reload updates its context."""

    def __init__(self, node: NodeContext, sessions: Sessions) -> None:
        """Create the services that the routes of the API use.

        `settings.share` is the fraction of each limited resource that one subject (a token owner or CAP source) may use
        (rule HD6).
        """
        process, alert_log, appended, self._in_force = node.process, node.alert_log, node.appended, node.in_force
        clock, share, now = process.clock, node.settings.share, node.in_force.now
        publishing = Publishing(
            alert_log,
            now.policy,
            clock,
            appended,
            Threads(share),
            now.publishers,
            now.reviewers,
            reserves=now.sources is not None,
        )
        taking = None
        if now.sources is not None:
            from ..ingest.cap.service import CapIngest  # importing the XML reader takes 0.2 s and 10 MB

            # CAP messages have threads of their own, so that a publisher's polygon need not wait for them (HD3).
            aside, zones = Threads(share), node.in_force.zones
            taking = CapIngest(alert_log, now.policy, now.sources, clock, appended, aside, now.publishers, zones)
        openers = Openers(alert_log, share)
        self.context = ApiContext(
            publishing,
            CallService(alert_log, now.policy, now.call_keys, clock, appended, openers=openers),
            alert_log,
            now.policy,
            node.in_force.tokens,
            clock,
            process.metrics,
            process.unready,
            taking,
            node.newer_keys,
            Places(share),
            degraded=sessions.degraded,
            reads=sessions.reads,
        )
        process.metrics.watch(node.in_force.metrics)
        node.in_force.watch(self._adopt)

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


async def serve_api(node: NodeContext, api: ApiPart, listeners: Listeners, keeper: LogHealth) -> None:
    """Serve the API, the metrics and the public feed from now on."""
    process, settings, in_force = node.process, node.settings, node.in_force
    await process.enter(serving(api.context, listeners.api, listeners.metrics))
    await process.enter(tasks.running(purge=tasks.every(PURGE_S, keeper.purge)))
    if listeners.feed is None:
        return
    from ..feed.cap import Issuer
    from ..feed.drawer import Drawer
    from ..feed.routes import MAX_CONNECTIONS, Feed, make_app  # importing the XML writer takes 0.1 s and 10 MB

    def issuer() -> Issuer:
        return Issuer(settings.feed_sender, in_force.now.policy.cap_categories(), settings.feed_url.rstrip("/"))

    drawer = await process.enter(contextlib.aclosing(Drawer()))
    feed = Feed(issuer(), node.alert_log, process.clock, keeper, drawer, areas=settings.feed_areas)
    in_force.watch(lambda: feed.adopt(issuer()))
    process.metrics.watch(feed.metrics)
    upkeep = tasks.running(
        feed_log_reader=feed.reader.read_for_ever,
        feed_drawing=feed.draw_for_ever,
        feed_sweep=tasks.every(feed.sweep_s, feed.sweep),
    )
    await process.enter(upkeep)
    await process.enter(serve(make_app(feed, process.clock), listeners.feed, process.metrics, MAX_CONNECTIONS))


def stream_of(node: NodeContext, asked: Callable[[], bool] = lambda: False) -> StreamServer:
    """Create the stream side of a process. If `--call-keys` is not given, it handles no calls for help.

    `asked` returns whether the API listener in this process is handling requests.
    """
    process, settings, in_force, alert_log = node.process, node.settings, node.in_force, node.alert_log
    metrics, clock = process.metrics, process.clock

    def now() -> tuple[CallService, CallKeys]:
        keys = in_force.now.call_keys
        return CallService(alert_log, in_force.now.policy, keys, clock, node.appended, in_force.aeds), keys

    def errands(capacity: int, store: StoreCounts) -> CallWorker:
        return CallWorker(capacity, now, alert_log, store, clock, metrics, in_force.aeds)

    calls = None if settings.call_keys is None else errands
    own_tests = OwnTests(lambda: in_force.now.policy)
    stream = StreamServer(
        settings, in_force.tokens, clock, alert_log, metrics, asked, node.newer_keys, calls, own_tests
    )
    in_force.watch(stream.reloaded)
    metrics.watch(in_force.trust.metrics)
    return stream


def log_ready(settings: Settings) -> None:
    """Log that the node is ready, with its addresses."""
    logger.info("ready: the stream listens on %s, the api on %s", settings.stream, settings.api)


async def run(settings: Settings, in_force: RuntimeConfig, listeners: Listeners) -> None:
    """Run a node on these listening sockets until SIGTERM or SIGINT.

    Raise ConfigError if the settings can't be used.
    """
    async with Process(settings.drain_s) as process:
        newer_keys = await read_own_files(process, in_force)
        alert_log = await process.enter(opened_log(settings, in_force.trust))

        def appended(entry: Entry | CallEntry) -> None:
            stream.keeper.worked("written")
            stream.expect(entry)

        node = NodeContext(process, settings, in_force, alert_log, appended, newer_keys)
        stream = stream_of(node, lambda: api.context.requests > 0)
        api = ApiPart(node, stream)
        await process.add(stream)
        await process.add(api)
        await serve_api(node, api, listeners, stream.keeper)
        await stream.listen(listeners.streams[0], process.stop.asked)
        if not process.stop.asked.is_set():  # the signal may have come while the log was being read
            log_ready(settings)
        await process.until_stopped()
