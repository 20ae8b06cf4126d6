"""The command `geocast fetch`: reads feeds and posts their messages to a node, until SIGTERM or SIGINT.

The process can end at any time without losing a message: the state says what is not done yet, and a message that is
posted twice is answered 200. So at the end, requests under way are simply given up.
"""

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping

from .. import tasks
from ..clock import Clock, SystemClock
from ..config import raise_descriptor_limit
from ..ingest.fetch.checking import check_feed, table
from ..ingest.fetch.http_client import FeedClient, HostQueues
from ..ingest.fetch.node_client import NodeClient
from ..ingest.fetch.outcomes import FetchOutcomes
from ..ingest.fetch.reader import FeedReader
from ..ingest.fetch.settings import FetchSettings, WatchedFeed, load_feeds
from ..ingest.fetch.state import FetchState
from ..metrics import Metrics, gauge
from ..model.errors import ConfigError

logger = logging.getLogger(__name__)


async def check(settings: FetchSettings) -> tuple[str, bool]:
    """Read each feed once and post nothing. Return a table, and whether each could be read and its messages judged."""
    clock, queues = SystemClock(), HostQueues()
    node = NodeClient(settings.cap_url, settings.token_file, clock)
    try:
        feeds = load_feeds(settings.feeds).values()
        found = await asyncio.gather(*(check_feed(feed, node, queues, clock) for feed in feeds))
    finally:
        await node.close()
    return table(found), not any(each.trouble for each in found)


async def once(settings: FetchSettings) -> bool:
    """Read each feed once and post its messages. Return whether everything was read and accepted or refused."""
    fetching = FetchPart(settings, SystemClock(), Metrics())

    async def read_and_post(reader: FeedReader) -> bool:
        was_read = await reader.read()
        return await reader.post() == 0 and was_read

    try:
        await fetching.start()
        done = await asyncio.gather(*map(read_and_post, fetching.readers))
    finally:
        await fetching.stop()
    return all(done) and fetching.state.error is None


async def follow(settings: FetchSettings, listener: socket.socket | None) -> None:
    """Read the feeds until SIGTERM or SIGINT. Serve `/metrics` and `/readyz` on `listener`, if it is not None."""
    from .process import Process  # importing it takes 0.4 s, and `once` does not need it

    raise_descriptor_limit()  # each of up to 1,000 feeds may have several connections
    async with Process() as process:
        fetching = await process.add(FetchPart(settings, process.clock, process.metrics))
        await process.reload_by(fetching.reload)
        process.metrics.watch(lambda: [gauge("fetch_ready", "1 if /readyz says 200", not process.unready())])
        await process.serve_metrics(listener)
        fetching.read_for_ever()
        logger.info("ready: reading %d feeds", len(fetching.readers))
        await process.until_stopped()


class FetchPart(tasks.Part):
    """The readers of all feeds, with the state and the client of the node that they share."""

    def __init__(self, settings: FetchSettings, clock: Clock, metrics: Metrics) -> None:
        self._settings = settings
        self._clock = clock
        self._queues = HostQueues()
        self._node = NodeClient(settings.cap_url, settings.token_file, clock)
        self._readers: dict[str, FeedReader] = {}
        self._tasks: dict[str, asyncio.Future[None]] = {}
        self.state = FetchState(settings.state)
        self.outcomes = FetchOutcomes(clock, metrics)

    @property
    def readers(self) -> list[FeedReader]:
        """The readers of the feeds that are configured now."""
        return list(self._readers.values())

    async def start(self) -> None:
        """Open the state and create the readers. Raise ConfigError if a file can't be used."""
        feeds = load_feeds(self._settings.feeds)
        await self.state.start()
        self._configure(feeds)

    def named_tasks(self) -> Mapping[str, tasks.Work]:
        """Return the task that writes again what could not be written."""
        return {"state": tasks.every(self.state.PROBE_S, self.state.probe)}

    def unready(self) -> list[str]:
        """Return the reasons why messages may not reach the node."""
        reasons = self.outcomes.unready()
        return [*reasons, f"the state can't be written: {self.state.error}"] if self.state.error else reasons

    def read_for_ever(self) -> None:
        """Start the readers that do not run yet."""
        for name in self._readers.keys() - self._tasks.keys():
            self._tasks[name] = tasks.start("feed", self._readers[name].run)

    async def stop(self) -> None:
        """End the readers, and write the state."""
        await self._end(self._tasks.keys())
        for reader in self._readers.values():
            await reader.close()
        await self._node.close()
        await self.state.stop()

    async def reload(self) -> None:
        """Read the file of feeds again, and then all feeds. If the file is invalid, nothing changes."""
        try:
            feeds = load_feeds(self._settings.feeds)
        except ConfigError as error:
            for problem in error.problems:
                logger.error("not reloaded: %s", problem)
            return
        changed = {name for name, reader in self._readers.items() if feeds.get(name) != reader.feed}
        await self._end(changed)
        for name in changed:
            await self._readers.pop(name).close()
            if name not in feeds:
                self.outcomes.forget(name)
        self._configure(feeds)
        for reader in self._readers.values():
            reader.read_now()
        self.read_for_ever()
        logger.info("reloaded: reading %d feeds", len(self._readers))

    def _configure(self, feeds: Mapping[str, WatchedFeed]) -> None:
        self.state.configure(feeds.keys(), self._clock.now().wall_ms)
        for name in feeds.keys() - self._readers.keys():
            feed = feeds[name]
            client = FeedClient(feed, self._queues, self._clock)
            self._readers[name] = FeedReader(feed, client, self._node, self.state, self.outcomes, self._clock)

    async def _end(self, names: Iterable[str]) -> None:
        await tasks.ended(*(task for name in list(names) if (task := self._tasks.pop(name, None)) is not None))
