"""The command `geocast relay`: a process that follows the alert log and posts webhooks to targets.

At the start the log is read to its end; then the targets are offered what they lack. At the end (after SIGTERM or
SIGINT) the process waits for requests under way, for at most `drain_s`, and writes its state.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric

from .. import tasks
from ..alertlog import AlertLog
from ..clock import SystemClock
from ..config import FollowerSettings
from ..metrics import gauge
from ..relay.relaying import PURGE_S, Relay
from ..relay.targets import RelayTarget, load_targets
from ..relay.told import StateAtStart, ToldStore
from ..stream.log_reader import LogHealth, LogReader
from .backends import opened_log
from .follower import FollowerConfig
from .process import Process

logger = logging.getLogger(__name__)

_TOOK_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings(FollowerSettings):
    """The settings of a relay: the options of `geocast relay`."""

    targets: Path
    state: Path


class RelayPart(tasks.Part):
    """The relay as a part of its process: it tells the targets of the configuration what the log says."""

    def __init__(
        self,
        process: Process,
        config: FollowerConfig[dict[str, RelayTarget]],
        alert_log: AlertLog,
        keeper: LogHealth,
        store: ToldStore,
        told: StateAtStart,
    ) -> None:
        text = "From the reading of an entry to when a target has taken its event"
        took = process.metrics.add_histogram("relay_seconds", text, _TOOK_S)
        posts = process.metrics.add_counter("relay_posts", "Requests to targets", "target", "outcome")
        self._config, self._store, self._told = config, store, told
        self._relay = Relay(
            process.clock, store, took.observe, lambda target, outcome: posts.labels(target, outcome).inc()
        )
        self._reader = LogReader(alert_log, process.clock, self._relay.live, self._relay.apply, keeper)

    def named_tasks(self) -> Mapping[str, tasks.Work]:
        """Return the tasks that read the log, and tell the targets."""
        return {
            "log_reader": self._reader.read_for_ever,
            "state": tasks.every(self._store.PROBE_S, self._store.probe),
            "sweep": tasks.every(self._relay.sweep_s, self._relay.sweep),
            "purge": tasks.every(PURGE_S, self._relay.purge),
            "targets": self._adopt_for_ever,
        }

    async def _adopt_for_ever(self) -> None:
        relay, config = self._relay, self._config
        if not relay.has_started:
            await self._reader.caught_up.wait()
            await relay.start(config.own, *self._told)
            logger.info("ready: %d targets", len(relay.lines))
        await tasks.whenever(config.changed, lambda: relay.adopt(config.own))()

    def metrics(self) -> Iterator[Metric]:
        """Return the metrics of the targets."""
        return self._relay.metrics()

    def unready(self) -> list[str]:
        """Return the reasons why alerts may not reach the targets."""
        reasons = [] if self._relay.has_started else ["starting: reading the log"]
        reasons += [f"the state can't be written: {self._store.error}"] if self._store.error else []
        return [*reasons, *self._reader.unready()]

    async def drain(self, deadline: float, hurry: asyncio.Event) -> None:
        """Wait for the requests under way."""
        lines = self._relay.lines.values()
        logger.info("waiting for %d requests", sum(each.under_way for each in lines))
        await tasks.first_of(deadline, asyncio.gather(*(line.finish() for line in lines)), hurry.wait())

    async def stop(self) -> None:
        """Give up the requests that are still under way."""
        await asyncio.gather(*(line.close() for line in self._relay.lines.values()))


async def check(targets: Mapping[str, RelayTarget], report: Callable[[str], None]) -> bool:
    """Connect to each target without posting anything, report a line for each, and return whether all took it."""

    async def connected(target: RelayTarget) -> str:
        with contextlib.closing(target.client(SystemClock())) as client:
            return await client.connect(target.url.host, target.url.port)

    troubles = await asyncio.gather(*map(connected, targets.values()))
    width = max(map(len, targets))
    for target, trouble in zip(targets.values(), troubles, strict=True):
        report(f"{target.name:{width}}  {trouble or 'connects'}  ({target.asks_for()})")
    return not any(troubles)


@contextlib.asynccontextmanager
async def _opened(store: ToldStore) -> AsyncIterator[StateAtStart]:
    told = await store.start()
    try:
        yield told
    finally:
        await store.stop()


async def run(settings: RelaySettings, metrics_listener: socket.socket | None) -> None:
    """Run a relay until SIGTERM or SIGINT. Raise ConfigError if the settings can't be used."""
    settings.check()
    async with Process(settings.drain_s) as process:
        config = await process.add(FollowerConfig(settings, lambda: load_targets(settings.targets)))
        await process.reload_by(config.reload)
        store = ToldStore(settings.state)
        told = await process.enter(_opened(store))
        alert_log = await process.enter(opened_log(settings, config.trust, makes=False))
        keeper = await process.add(LogHealth(alert_log, process.clock))
        await process.add(RelayPart(process, config, alert_log, keeper, store, told))
        process.metrics.watch(lambda: [gauge("relay_ready", "1 if /readyz says 200", not process.unready())])
        await process.serve_metrics(metrics_listener)
        await process.until_stopped()
