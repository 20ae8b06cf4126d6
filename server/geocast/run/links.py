"""The links between the processes of one supervisor: the front has a link of one kind, the others of another kind.

The *front* is the process that answers /metrics and /readyz for all. A link sends and receives datagrams. When a
datagram says that the supervisor has read a new configuration (Rule 8 of `workers`), the link applies it. Each link
also checks for a new configuration every second, because datagrams may be lost.
"""

import abc
import asyncio
import contextlib
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from .. import tasks
from ..auth.jwks_refresh import NewerKeys
from ..metrics import Export, export
from ..model.errors import trace
from ..model.server_address import KeyUrl
from .channel import Channel, ReloadMailbox
from .key_source import source_of
from .process import Process
from .runtime_config import RuntimeConfig
from .supervising import ASK, FETCH, FETCHED, LOOK, MEASURE, METRICS_EVERY, REPORT_S, SETTLED, Reports, WorkerSpec

logger = logging.getLogger(__name__)

MEASURE_S = 0.25  # how long a scrape waits for the metrics of the other processes


class _Link(tasks.Part, abc.ABC):
    """Base class of the links, which connect a process with the other processes of a node.

    A link has the process's channel for datagrams, and the mailbox in which the process finds a new configuration. The
    mailbox is a file. The supervisor writes the new configuration to it after a reload.
    """

    def __init__(self, part: WorkerSpec, in_force: RuntimeConfig, process: Process) -> None:
        self._part, self._in_force, self._process = part, in_force, process
        self._mailbox = ReloadMailbox(part.folder)
        self._channel = Channel(part.folder, part.name, self._received)

    async def stop(self) -> None:
        """Close the channel to the other processes."""
        self._channel.close()

    def send(self, name: str, data: bytes) -> None:
        """Send a datagram to another process."""
        self._channel.send(name, data)

    def _received(self, data: bytes) -> None:
        self._look() if data == LOOK else self._take(data)

    @abc.abstractmethod
    def _take(self, data: bytes) -> None:
        """Handle a datagram, except LOOK (a new configuration is there), which the base class handles."""

    def _look(self) -> None:
        """Apply the configuration in the supervisor's mailbox, if it is new.

        Stop this process if that fails; the supervisor then starts another.
        """
        try:
            self._mailbox.look(self._in_force.take)
        except Exception as error:
            logger.error("process %s can't use the new configuration, so it exits: %s", self._part.name, trace(error))
            self._process.stop.ask()


class FrontLink(_Link):
    """The link of the *front*, the process that answers /metrics and /readyz for all processes.

    The front receives the reports of the other processes, and fetches the signing keys if they are at a URL.
    """

    def __init__(
        self,
        part: WorkerSpec,
        names: Sequence[str],
        in_force: RuntimeConfig,
        process: Process,
        ending: Callable[[], None] = lambda: None,
        reported: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the link.

        `names` are the names of the other processes, except the supervisor. `ending` is called when the supervisor is
        about to end those processes, and `reported` after each report of one of them.
        """
        super().__init__(part, in_force, process)
        self.reports = Reports(names)
        self._names = names
        self._ending = ending
        self._is_ending = False  # whether the supervisor is about to end the other processes
        self._reported = reported
        self._heard = asyncio.Event()  # set at each report
        self.source = source_of(in_force, self._fetched, lambda: self.send_to_all(SETTLED))
        process.metrics.others = self.exports

    def send_to_all(self, data: bytes) -> None:
        """Send a datagram to all other processes except the supervisor."""
        for name in self._names:
            self.send(name, data)

    async def start(self) -> None:
        """Start to fetch the keys, if they are at a URL."""
        if self.source is not None:
            await self._process.add(self.source)

    async def exports(self) -> list[Export]:
        """Return the metrics of the other processes, and the counters of those that have died.

        The processes are asked for them. If one does not answer within MEASURE_S, return what it reported last.
        """
        asked = time.monotonic()
        self.send_to_all(MEASURE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MEASURE_S):
                while not self.reports.are_since(asked):
                    self._heard.clear()
                    await self._heard.wait()
        return self.reports.exports()

    def named_tasks(self) -> dict[str, tasks.Work]:
        """Return the task that checks the mailbox."""
        return {"mailbox": tasks.every(REPORT_S, self._look)}

    def unready(self) -> list[str]:
        """Return the reasons why the other processes are not ready."""
        return ["draining"] * self._is_ending + self.reports.unready()

    def _take(self, data: bytes) -> None:
        if data in (ASK, FETCH):
            if self.source is not None:
                self.source.ask() if data == ASK else self.source.fetch_now()
        elif data:
            self.reports.take(data)
            self._heard.set()
            self._reported()
        else:
            self._is_ending = True
            self._ending()

    def _fetched(self, keys: bytes) -> None:
        """Write a fetched key set to a file, and tell the supervisor by SIGUSR1 to apply it (Rule 8 of `workers`)."""
        ReloadMailbox(self._part.folder, FETCHED).write(keys)
        if os.getppid() == self._part.supervisor:  # otherwise the supervisor has died, and this process will end, too
            os.kill(self._part.supervisor, signal.SIGUSR1)


class WorkerLink(_Link):
    """The link of a process that is not the *front* (which answers /metrics and /readyz for all processes).

    Connections that need newer signing keys wait with `newer_keys` until the front has fetched them. `newer_keys` is
    None if the keys are not at a URL.
    """

    def __init__(
        self,
        part: WorkerSpec,
        front: str,
        in_force: RuntimeConfig,
        process: Process,
        appended: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the link.

        `front` is the name of the front. `appended` is called when another process has appended to the log.
        """
        super().__init__(part, in_force, process)
        self._front = front
        self._appended = appended
        self._state: Callable[[], Mapping[str, Any]] = dict
        is_at_url = isinstance(in_force.settings.keys, KeyUrl)
        self.newer_keys = NewerKeys(lambda: self.send(front, ASK)) if is_at_url else None
        if self.newer_keys is not None:
            in_force.watch(self.newer_keys.settle)

    def reporting(self, state: Callable[[], Mapping[str, Any]] = dict) -> Callable[[], None]:
        """Return a function that reports to the front whether the process is ready, and the dict that `state` returns.

        Call it every REPORT_S seconds. One in METRICS_EVERY reports has the metrics too, and so has a report that the
        front asks for. The function also checks the mailbox for a new configuration.
        """
        self._state = state
        count = itertools.count()

        def report() -> None:
            self._look()
            self.report(with_metrics=next(count) % METRICS_EVERY == 0)

        return report

    def report(self, *, with_metrics: bool) -> None:
        """Report to the front now."""
        metrics = msgpack.packb(export(self._process.metrics.registry)) if with_metrics else None
        own = {"name": self._part.name, "pid": os.getpid(), "unready": self._process.unready(), "metrics": metrics}
        self.send(self._front, msgpack.packb({**self._state(), **own}))

    def _take(self, data: bytes) -> None:
        if data == MEASURE:
            self.report(with_metrics=True)
        elif data != SETTLED:
            self._appended()
        elif self.newer_keys is not None:
            self.newer_keys.settle()
