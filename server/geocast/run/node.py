"""A node in one process: the log, the api listener and the stream listener on one loop.

`workers.py` is a node in several processes. Only this module knows the backends of the log.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from ..alertlog import AlertLog
from ..alertlog.memory import MemoryLog
from ..alertlog.sqlite import SqliteLog
from ..clock import Clock, SystemClock
from ..config import REDIS_SCHEMES, Listeners, Settings
from ..delivery import Delivery, background
from ..errors import ConfigError
from ..following import PURGE_S, LogKeeper
from ..metrics import Metrics
from ..net.api import Api
from ..net.calls import serving
from ..net.door import serve
from ..publishing import Publishing
from .in_force import InForce
from .key_source import source_of
from .reloading import reloading
from .threads import Threads

logger = logging.getLogger(__name__)


def open_log(settings: Settings) -> AlertLog:
    """The log that `--log` names. Raises ConfigError."""
    scheme, colon, rest = settings.log.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..alertlog.redis_streams import RedisStreamsLog  # the library takes 0.1 s and 10 MB

        return RedisStreamsLog(settings.log, replicas=settings.log_replicas, volatile=settings.allow_volatile_log)
    if scheme == "memory" and colon and not rest:
        return MemoryLog()
    if scheme == "sqlite" and str(Path(rest)) == ":memory:":
        raise ConfigError("--log: SQLite's own :memory: can't be shared by threads; give a file, or memory: for tests")
    if scheme == "sqlite" and rest:
        return SqliteLog(Path(rest))
    raise ConfigError("--log: expected memory:, sqlite:PATH, or a URL of Redis (redis://HOST:PORT)")


@contextlib.asynccontextmanager
async def opened_log(settings: Settings) -> AsyncIterator[AlertLog]:
    """The log that `--log` names, open for as long as the block runs. Raises ConfigError."""
    alert_log = open_log(settings)
    await alert_log.start()
    try:
        yield alert_log
    finally:
        await alert_log.stop()


class Stop:
    """What SIGTERM and SIGINT ask for: the first signal sets `asked`, the node is to drain; the second sets `hurry`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Take a signal: the first asks, and every later one hurries."""
        if self.asked.is_set():
            logger.warning("told to end again: not waiting for anybody any more")
            self.hurry.set()
        self.asked.set()


async def purge_for_ever(keeper: LogKeeper) -> None:
    """Have the log forget old alerts every PURGE_S, the first time at once. One process of a node does it."""
    while True:
        await keeper.purge()
        await asyncio.sleep(PURGE_S)


@contextlib.asynccontextmanager
async def serving_feed(
    settings: Settings,
    listener: socket.socket | None,
    alert_log: AlertLog,
    clock: Clock,
    keeper: LogKeeper,
    metrics: Metrics,
) -> AsyncIterator[None]:
    """Serve the public feed on its socket for as long as the block runs; nothing, if it has none."""
    if listener is None:
        yield
        return
    from ..net.feed import MAX_CONNECTIONS, Feed, make_app  # what draws and writes XML takes 0.2 s and 30 MB

    feed = Feed(settings, alert_log, clock, keeper)
    metrics.watch(feed.metrics)
    upkeep = background(feed.reader.read_for_ever(), feed.sweep_for_ever())
    async with upkeep, serve(make_app(feed, clock), listener, metrics, MAX_CONNECTIONS):
        yield


async def run(settings: Settings, in_force: InForce, listeners: Listeners) -> None:
    """Run a node on listening sockets until it is told to stop. Raises ConfigError if it can't be as configured."""
    clock = SystemClock()
    stop = Stop()
    metrics = Metrics()
    metrics.watch(in_force.metrics)

    def asked() -> bool:
        return api.requests > 0

    source = source_of(settings, in_force, in_force.take_keys)
    newer_keys = source.newer if source else None
    if source:
        metrics.watch(source.metrics)
        in_force.watch(source.newer.settle)
    async with reloading(in_force, source), opened_log(settings) as alert_log:
        delivery = Delivery(settings, in_force.tokens, clock, alert_log, metrics, asked, newer_keys)
        publishing = Publishing(alert_log, in_force.policy, clock, delivery.expect, Threads())
        api: Api = Api(publishing, alert_log, in_force.policy, in_force.tokens, clock, metrics, delivery.unready)
        api.newer_keys = newer_keys
        in_force.watch(delivery.reloaded)
        in_force.watch(lambda: api.adopt(in_force.policy))
        async with (
            serving(api, listeners.api, listeners.metrics),
            serving_feed(settings, listeners.feed, alert_log, clock, delivery.keeper, metrics),
            delivery.serving(listeners.streams[0], stop.asked, stop.hurry),
            background(purge_for_ever(delivery.keeper), *([source.run()] if source else [])),
        ):
            if not stop.asked.is_set():  # while the log was waited for
                logger.info("ready: stream on %s, api on %s", settings.stream, settings.api)
            await stop.asked.wait()
            api.draining = True
