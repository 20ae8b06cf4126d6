"""A node in several processes (`--workers N`): a supervisor, an api process, and N stream processes.

    supervisor ── opens all listening sockets, starts the others and restarts them; touches no alert
       ├── api      publishes, purges, answers /metrics and /readyz for all
       └── stream   × N: the same listener by SO_REUSEPORT; each follows the log and serves its own sessions

Rule 1  The supervisor first binds without SO_REUSEPORT, which fails if the port is anybody's; with it, a port that
        is another's would be shared in silence.
Rule 2  It keeps every listening socket open and passes it on: connections that wait to be accepted when a process
        dies are accepted by its replacement.
Rule 3  After each append the api process nudges the stream processes; what is lost is made up by polling the log.
Rule 4  Each stream process reports its metrics and whether it is ready, once a second. A report that is missing
        makes the node unready. What a dead process had counted still counts.
Rule 5  Drain: the api process says "not ready", the stream processes drain side by side, the api process ends last.
        Should the supervisor die, the others drain too.
Rule 6  Only the supervisor tells the others to end, each once, and once more for them to hurry. So they are in sessions
        of their own: Ctrl-C in a terminal is told to all processes of its session.
"""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgpack
from prometheus_client.core import Metric

from .. import policy
from ..alertlog import AlertLog
from ..clock import SystemClock
from ..config import Listeners, Settings
from ..delivery import FLUSH_S, Delivery, LogKeeper, background
from ..metrics import Export, Metrics, counter, export, gauge, lasting, merged
from ..net.api import Api
from ..net.calls import serving
from ..publishing import Publishing
from ..tokens import Tokens
from .channel import Channel
from .node import Stop, opened_log, purge_for_ever

logger = logging.getLogger(__name__)

VARIABLE = "GEOCAST_PROCESS"  # the environment variable that tells a process which part of a node it is
REPORT_S = 1.0  # between the reports of a stream process
LATE_S = 4.0  # a stream process whose last report is older is missing
QUICK_DEATH_S = 5.0  # a process that has lived shorter is restarted only after a second
GRACE_S = 10.0  # what a process has beyond the drain before it is killed
_PR_SET_PDEATHSIG = 1  # of prctl(2), in <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Part:
    """Which process of a node this is, and what the supervisor hands to it."""

    name: str  # "api", or "stream-0" and so on
    descriptors: Sequence[int]  # its listening sockets: the first is of what it is named after, the second of --metrics
    folder: str  # where the sockets of the channels are
    jwks: dict[str, Any] | None = None  # the keys of --dev, which the supervisor has made
    supervisor: int = field(default_factory=os.getpid)

    @classmethod
    def from_environment(cls) -> "Part | None":
        """The part that the supervisor has made this process; None if there is no supervisor."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def listeners(self) -> list[socket.socket]:
        """The listening sockets that the supervisor has opened and passed on."""
        return [socket.socket(fileno=descriptor) for descriptor in self.descriptors]


# ---- the supervisor ----------------------------------------------------------------------------------------------


class _Process:
    """A process that the supervisor keeps alive: when it ends, another is started in its place."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._child: asyncio.subprocess.Process | None = None
        self._stopping = False

    async def run(self) -> None:
        """Start the process, again and again, until `stop` is called."""
        while not self._stopping:
            started = time.monotonic()
            environment = {**os.environ, VARIABLE: json.dumps(asdict(self.part))}
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "geocast", *sys.argv[1:]),
                env=environment,
                pass_fds=self.part.descriptors,
                start_new_session=True,  # Rule 6
            )
            status = await self._child.wait()
            if not self._stopping:
                logger.error("%s ended with status %d; starting another", self.part.name, status)
                if time.monotonic() - started < QUICK_DEATH_S:
                    await asyncio.sleep(1.0)

    def stop(self, number: int) -> None:
        """Send the process a signal that ends it, and start no other."""
        self._stopping = True
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(number)


async def supervise(settings: Settings, listeners: Listeners, jwks: Any) -> None:
    """Run all processes of a node until told to stop. Raises ConfigError before anything is started.

    `jwks`: the keys of --dev, which each process has to have; else None.
    """
    policy.load(settings.policy)
    async with opened_log(settings):
        pass  # mends a broken file, and says what can't be used, once for all
    stop = Stop()
    with tempfile.TemporaryDirectory(prefix="geocast-") as folder:
        of_api = [listeners.api, *([listeners.metrics] if listeners.metrics else [])]
        sockets = [of_api, *([stream] for stream in listeners.streams)]
        named = zip(["api", *_names(settings)], sockets, strict=True)
        parts = [Part(name, [each.fileno() for each in its], folder, jwks) for name, its in named]
        api_process, *stream_processes = [_Process(part) for part in parts]
        running = [asyncio.ensure_future(process.run()) for process in (api_process, *stream_processes)]
        await stop.asked.wait()
        Channel(Path(folder), "supervisor", lambda _: None).send("api", b"")
        await _end(stream_processes, running[1:], settings.drain_s + GRACE_S, stop.hurry)
        await _end([api_process], running[:1], GRACE_S, stop.hurry)


async def _end(
    processes: Sequence[_Process], running: Sequence["asyncio.Future[None]"], within_s: float, hurry: asyncio.Event
) -> None:
    for process in processes:
        process.stop(signal.SIGTERM)
    done = asyncio.ensure_future(asyncio.wait(running, timeout=within_s))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait([done, hurried], return_when=asyncio.FIRST_COMPLETED)
    if hurried.done():
        for process in processes:
            process.stop(signal.SIGTERM)
    hurried.cancel()
    await done
    for process in processes:
        process.stop(signal.SIGKILL)
    await asyncio.wait(running)


def _end_with(supervisor: int) -> None:
    """Have the kernel send us SIGTERM when the supervisor dies. If it has died already, send that ourselves."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os.kill(os.getpid(), signal.SIGTERM)


async def run_part(part: Part, settings: Settings, tokens: Tokens) -> None:
    """Run this part of a node, in a process that the supervisor has started, until it is told to stop."""
    _end_with(part.supervisor)
    with contextlib.ExitStack() as sockets:
        listeners = [sockets.enter_context(each) for each in part.listeners()]
        await (_run_api if part.name == "api" else _run_stream)(part, listeners, settings, tokens)


def _names(settings: Settings) -> list[str]:
    return [f"stream-{number}" for number in range(settings.workers)]


# ---- a stream process --------------------------------------------------------------------------------------------


async def _run_stream(part: Part, listeners: Sequence[socket.socket], settings: Settings, tokens: Tokens) -> None:
    stop = Stop()
    metrics = Metrics()
    async with opened_log(settings) as alert_log:
        delivery = Delivery(settings, tokens, SystemClock(), alert_log, metrics)
        with contextlib.closing(Channel(Path(part.folder), part.name, lambda _: alert_log.nudge())) as channel:

            async def report() -> None:
                while True:
                    told = {"name": part.name, "pid": os.getpid(), "unready": delivery.unready()}
                    channel.send("api", msgpack.packb(told | {"metrics": export(metrics.registry)}))
                    await asyncio.sleep(REPORT_S)

            async with background(report()), delivery.serving(listeners[0], stop.asked, stop.hurry):
                logger.info("%s is ready", part.name)
                await stop.asked.wait()


# ---- the api process ---------------------------------------------------------------------------------------------


class _Reports:
    """What the stream processes have reported (Rule 4)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._last: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, float] = {}
        self._gone: Export = []  # what processes that have died had counted
        self._restarts = 0

    def take(self, data: bytes) -> None:
        """Take a report. If its process is new, the counters of its predecessor are put aside to be added to."""
        report = msgpack.unpackb(data)
        name = report["name"]
        last = self._last.get(name)
        if last is not None and last["pid"] != report["pid"]:
            self._gone = merged([self._gone, lasting(last["metrics"])])
            self._restarts += 1
        self._last[name] = report
        self._heard[name] = time.monotonic()

    def unready(self) -> list[str]:
        """Why the stream processes are not ready."""
        missing = self._missing()
        reasons = [f"{name} does not report" for name in missing]
        for name in sorted(self._last.keys() - set(missing)):
            reasons += [f"{name}: {reason}" for reason in self._last[name]["unready"]]
        return reasons

    def _missing(self) -> list[str]:
        now = time.monotonic()
        return [name for name in self._names if now - self._heard.get(name, -LATE_S) > LATE_S]

    def metrics(self) -> Iterator[Metric]:
        """How many are missing and how many have died, for Prometheus."""
        yield gauge("stream_processes_missing", "Stream processes that do not report", len(self._missing()))
        yield counter("stream_restarts", "Stream processes that died and were replaced", self._restarts)

    def exports(self) -> list[Export]:
        """The metrics of all stream processes, with what the dead ones had counted."""
        return [self._gone, *(report["metrics"] for report in self._last.values())]


async def _run_api(part: Part, listeners: Sequence[socket.socket], settings: Settings, tokens: Tokens) -> None:
    stop = Stop()
    async with opened_log(settings) as alert_log:
        with contextlib.closing(_ApiProcess(part, settings, tokens, alert_log)) as process:
            async with process.running(*listeners):
                logger.info("api is ready on %s", settings.api)
                await stop.asked.wait()
                process.api.draining = True


class _ApiProcess:
    """The api listener of a node whose sessions are elsewhere."""

    def __init__(self, part: Part, settings: Settings, tokens: Tokens, alert_log: AlertLog) -> None:
        clock = SystemClock()
        in_force = policy.load(settings.policy)
        self._names = _names(settings)
        self._reports = _Reports(self._names)
        self._keeper = LogKeeper(alert_log, clock)
        self._channel = Channel(Path(part.folder), part.name, self._received)
        publishing = Publishing(alert_log, in_force, clock, self._appended)
        metrics = Metrics(self._reports.exports)
        metrics.watch(alert_log.metrics)
        metrics.watch(self._reports.metrics)
        self.api = Api(publishing, alert_log, in_force, tokens, clock, metrics, self._unready)

    def close(self) -> None:
        """Close the channel to the other processes."""
        self._channel.close()

    @contextlib.asynccontextmanager
    async def running(self, listener: socket.socket, metrics: socket.socket | None = None) -> AsyncIterator[None]:
        """Serve on these sockets for as long as the block runs."""
        upkeep = background(self._watch_log(), purge_for_ever(self._keeper))
        async with upkeep, serving(self.api, listener, metrics):
            yield

    def _received(self, data: bytes) -> None:
        if data:
            self._reports.take(data)
        else:  # from the supervisor: the node is going away
            self.api.draining = True

    def _appended(self) -> None:
        for name in self._names:
            self._channel.send(name, b"")

    def _unready(self) -> list[str]:
        draining = ["draining"] if self.api.draining else []
        return draining + self._keeper.unready() + self._reports.unready()

    async def _watch_log(self) -> None:
        while True:
            await self._keeper.store({})
            await asyncio.sleep(FLUSH_S)
