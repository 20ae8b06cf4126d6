"""Processes that follow the alert log and tell others of its alerts: their files, and somebody else's ways out.

A package of somebody else's adds a way out by an entry point in the group `geocast.parts`, which names a subclass of
`WayOut`. `geocast part NAME` runs it.
"""

import abc
import asyncio
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from prometheus_client.core import Metric

from .. import policy, tasks
from ..alertlog import AlertLog
from ..approvals.reviewers import NO_REVIEWERS, Reviewers, load_reviewers, refuse_misfits
from ..approvals.verifier import ApprovalVerifier
from ..clock import Now
from ..config import FollowerSettings
from ..metrics import counters, report_caught
from ..model.alert import Entry, Untrusted
from ..model.errors import ConfigError, text_of
from ..model.toml_file import parse_toml, read_file
from ..policy import Policy
from ..stream.live_alerts import LiveAlert, LiveAlerts
from ..stream.log_reader import LogHealth, LogReader
from .backends import added, opened_log
from .process import Process

logger = logging.getLogger(__name__)

PARTS = "geocast.parts"  # the group of entry points
SWEEP_S = 0.1

_T = TypeVar("_T")


class FollowerConfig(tasks.Part, Generic[_T]):
    """The files that such a process reads again at SIGHUP: policy, reviewers, and one of its own, `own`."""

    def __init__(self, settings: FollowerSettings, read: Callable[[], _T]) -> None:
        """Read all files; `read` reads the process's own one. Raise ConfigError if one can't be used."""
        self._settings, self._read_own = settings, read
        self.own, in_force, reviewers = self._read()
        self.trust = ApprovalVerifier(in_force, reviewers)
        self.changed = asyncio.Event()
        self._results = {"ok": 0, "failed": 0}

    def _read(self) -> tuple[_T, Policy, Reviewers]:
        settings = self._settings
        own = self._read_own()
        parsed = policy.parse(policy.read(settings.policy), settings.policy)
        reviewers = NO_REVIEWERS if settings.reviewers is None else load_reviewers(settings.reviewers)
        refuse_misfits(reviewers, parsed)
        return own, parsed, reviewers

    async def reload(self) -> None:
        """Read all files again, and use all of them or none. Never raise an exception."""
        try:
            self.own, in_force, reviewers = self._read()
        except Exception as error:
            logger.error("the reload failed, so nothing has changed: %s", text_of(error))
            self._results["failed"] += 1
            return
        self.trust.replace(in_force, reviewers)
        self._results["ok"] += 1
        logger.info("the configuration was reloaded")
        self.changed.set()

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of the reloads, and of entries that are not believed."""
        yield counters("reloads", "Times that the files were read anew", "result", self._results.items())
        yield from self.trust.metrics()


class WayOut(tasks.Part, abc.ABC):
    """A part that tells others of alerts. A subclass has `apply`, and what it needs of the other methods."""

    def __init__(self, process: Process, options: Mapping[str, Any]) -> None:
        """Create the part. `options` are those of its TOML file. Raise ConfigError if they can't be used."""

    @abc.abstractmethod
    def apply(self, alert: LiveAlert) -> None:
        """Take an alert that was accepted, revised or cancelled: `alert.current` is its last entry.

        At the start, each alert that is live is applied. An alert may be applied again without a change.
        """

    def sweep(self, now: Now) -> None:
        """Do what depends on time alone. This is called every SWEEP_S seconds."""

    def adopt(self, options: Mapping[str, Any]) -> None:
        """Use these options from now on. Raise ConfigError if they can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSettings(FollowerSettings):
    """The settings of `geocast part`: the name of the way out, and the file of its options."""

    name: str
    options: Path

    def read_options(self) -> Mapping[str, Any]:
        """Return the options of the file. Raise ConfigError if it can't be used."""
        return parse_toml(read_file("--options", self.options), f"--options {self.options}")


class _Following(tasks.Part):
    """Gives a way out what the log says."""

    def __init__(self, process: Process, way: WayOut, alert_log: AlertLog, keeper: LogHealth) -> None:
        self._way, self._clock = way, process.clock
        self._live = LiveAlerts(1, places=False)
        self._reader = LogReader(alert_log, process.clock, self._live, self._apply, keeper)

    def named_tasks(self) -> Mapping[str, tasks.Work]:
        return {
            "log_reader": self._reader.read_for_ever,
            "sweep": tasks.after(self._reader.caught_up, tasks.every(SWEEP_S, self._sweep)),
            "start": tasks.after(self._reader.caught_up, self._start),
        }

    def unready(self) -> list[str]:
        starting = [] if self._reader.caught_up.is_set() else ["starting: reading the log"]
        return [*starting, *self._reader.unready()]

    async def _start(self) -> None:
        for alert in list(self._live):
            try:
                self._offer(alert)
            except Exception as error:  # it keeps no other alert back
                report_caught("a live alert could not be applied", error)
        await asyncio.Event().wait()

    def _apply(self, entry: Entry | Untrusted) -> None:
        self._live.apply(entry, self._clock.now())
        alert = self._live.find(entry.id, self._clock.now())
        if alert is not None and self._reader.caught_up.is_set():
            self._offer(alert)

    def _offer(self, alert: LiveAlert) -> None:
        if not alert.ended(self._clock.now()):
            self._way.apply(alert)

    def _sweep(self) -> None:
        now = self._clock.now()
        self._live.expire(now, self._offer)
        self._way.sweep(now)


def way_of(name: str) -> type[WayOut]:
    """Return the way out of this name that a package has added. Raise ConfigError if there is none."""
    made: type[WayOut] | None = added(PARTS, name)
    if made is None:
        there = ", ".join(sorted(entry_points(group=PARTS).names)) or "none"
        raise ConfigError(f"no package adds the part {name}; there are: {there}")
    return made


async def run(settings: PartSettings, metrics_listener: socket.socket | None) -> None:
    """Run a way out until SIGTERM or SIGINT. Raise ConfigError if the settings can't be used."""
    settings.check()
    made = way_of(settings.name)
    async with Process(settings.drain_s) as process:
        config = await process.add(FollowerConfig(settings, settings.read_options))
        await process.reload_by(config.reload)
        way = await process.add(made(process, config.own))

        async def adopt() -> None:
            try:
                way.adopt(config.own)
            except ConfigError as error:
                logger.error("the new options can't be used, so the old ones stay: %s", error)

        alert_log = await process.enter(opened_log(settings, config.trust, makes=False))
        keeper = await process.add(LogHealth(alert_log, process.clock))
        await process.add(_Following(process, way, alert_log, keeper))
        await process.enter(tasks.running(options=tasks.whenever(config.changed, adopt)))
        await process.serve_metrics(metrics_listener)
        logger.info("ready: %s", settings.name)
        await process.until_stopped()
