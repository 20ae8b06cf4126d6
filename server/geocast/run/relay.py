"""The command `geocast relay`: a process that follows the alert log and posts webhooks to targets.

At the start the log is read to its end; then the targets are offered what they lack. At the end (after SIGTERM or
SIGINT) the process waits for requests under way, for at most `drain_s`, and writes its state.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric

from .. import policy, tasks
from ..approvals.reviewers import NO_REVIEWERS, Reviewers, load_reviewers, refuse_misfits
from ..approvals.verifier import ApprovalVerifier
from ..clock import SystemClock
from ..config import ONE_PROCESS_SCHEMES, Address, Settings
from ..metrics import Metrics, counters, gauge
from ..model.errors import ConfigError, text_of
from ..policy import Policy
from ..relay.relaying import PURGE_S, Relay
from ..relay.targets import RelayTarget, load_targets
from ..relay.told import Told, ToldStore
from ..stream.log_reader import LogHealth
from .node import Stop, opened_log
from .process_metrics import serving_metrics, watch_tasks
from .reload_mailbox import reloading

logger = logging.getLogger(__name__)

_TOOK_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The settings of a relay: the options of `geocast relay`."""

    targets: Path
    state: Path
    log: str
    policy: Path | None
    reviewers: Path | None
    drain_s: float = 10.0

    def as_node(self) -> Settings:
        """Return settings for a node with the same log, which `opened_log` takes.

        Raise ConfigError if the log belongs to one process.
        """
        if (scheme := self.log.partition(":")[0]) in ONE_PROCESS_SCHEMES:
            raise ConfigError(f"--log {scheme}: is one node's own; give the log that the nodes have")
        nowhere = Address("127.0.0.1", 0)
        return Settings(stream=nowhere, api=nowhere, log=self.log, policy=self.policy, reviewers=self.reviewers)


class RelayConfig:
    """The files that a relay reads again at SIGHUP: targets, policy and reviewers (WH11)."""

    def __init__(self, settings: RelaySettings) -> None:
        """Read all files. Raise ConfigError if one can't be used."""
        self._settings = settings
        self.targets, in_force, reviewers = self._read()
        self.trust = ApprovalVerifier(in_force, reviewers)
        self.changed = asyncio.Event()
        self._results = {"ok": 0, "failed": 0}

    def _read(self) -> tuple[Mapping[str, RelayTarget], Policy, Reviewers]:
        settings = self._settings
        targets = load_targets(settings.targets)
        parsed = policy.parse(policy.read(settings.policy), settings.policy)
        reviewers = NO_REVIEWERS if settings.reviewers is None else load_reviewers(settings.reviewers)
        refuse_misfits(reviewers, parsed)
        return targets, parsed, reviewers

    def reload(self) -> None:
        """Read all files again, and use all of them or none. Never raise an exception."""
        try:
            self.targets, in_force, reviewers = self._read()
        except Exception as error:
            logger.error("the reload failed, so nothing has changed: %s", text_of(error))
            self._results["failed"] += 1
            return
        self.trust.replace(in_force, reviewers)
        self._results["ok"] += 1
        logger.info("the configuration was reloaded: %d targets", len(self.targets))
        self.changed.set()

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of the reloads, and of entries that are not believed."""
        yield counters("reloads", "Times that the files were read anew", "result", self._results.items())
        yield from self.trust.metrics()


async def run(settings: RelaySettings, metrics_listener: socket.socket | None) -> None:
    """Run a relay until SIGTERM or SIGINT. Raise ConfigError if the settings can't be used."""
    clock, stop, metrics, config = SystemClock(), Stop(), Metrics(), RelayConfig(settings)
    store = ToldStore(settings.state)
    told, gone = await store.start()
    try:
        async with reloading(config, None), opened_log(settings.as_node(), config.trust, makes=False) as alert_log:
            keeper = LogHealth(alert_log, clock)
            watch_tasks(metrics)
            metrics.watch(keeper.metrics)
            relay = Relay(alert_log, clock, keeper, store, *_counted(metrics))
            unready = _unready(relay, keeper)
            metrics.watch(config.metrics)
            metrics.watch(relay.metrics)
            metrics.watch(lambda: [gauge("relay_ready", "1 if /readyz says 200", not unready())])
            async with (
                serving_metrics(unready, metrics, metrics_listener),
                tasks.running(
                    log_reader=relay.reader.read_for_ever,
                    state=store.write_for_ever,
                    sweep=tasks.every(relay.sweep_s, relay.sweep),
                    purge=tasks.every(PURGE_S, relay.purge),
                    targets=lambda: _adopt_for_ever(relay, config, told, gone),
                ),
            ):
                await stop.asked.wait()
                logger.info("stopping; waiting for %d requests", sum(each.under_way for each in relay.lines.values()))
                await asyncio.gather(*(line.close(settings.drain_s) for line in relay.lines.values()))
    finally:
        await store.stop()


async def _adopt_for_ever(
    relay: Relay, config: RelayConfig, told: Mapping[str, dict[str, Told]], gone: Mapping[str, bytes]
) -> None:
    if not relay.has_started:
        await relay.start(config.targets, told, gone)
        logger.info("ready: %d targets", len(relay.lines))
    await tasks.whenever(config.changed, lambda: relay.adopt(config.targets))()


def _counted(metrics: Metrics) -> tuple[Callable[[float], None], Callable[[str, str], None]]:
    """Return the functions that count requests to targets, and how long it took until a target has taken an event."""
    text, registry = "From the reading of an entry to when a target has taken its event", metrics.registry
    took = Histogram("geocast_relay_seconds", text, buckets=_TOOK_S, registry=registry)
    posts = Counter("geocast_relay_posts", "Requests to targets", ["target", "outcome"], registry=registry)
    return took.observe, lambda target, outcome: posts.labels(target, outcome).inc()


def _unready(relay: Relay, keeper: LogHealth) -> Callable[[], list[str]]:
    def unready() -> list[str]:
        reasons = [] if relay.has_started else ["starting: reading the log"]
        if relay.store.error is not None:
            reasons.append(f"the state can't be written: {relay.store.error}")
        return [*reasons, *keeper.unready(), *relay.reader.unready(), *tasks.unready()]

    return unready
