"""A node in several processes (`--workers N`): a supervisor, an api process, and N stream processes.

    supervisor ── opens all listening sockets, starts the others and restarts them; touches no alert
       ├── api      publishes, purges, answers /metrics and /readyz for all
       └── stream   × N: the same listener by SO_REUSEPORT; each follows the log and serves its own sessions

Rule 1  The supervisor first binds without SO_REUSEPORT, which fails if the port is anybody's; with it, a port that
        is another's would be shared in silence.
Rule 2  It has no loop and no thread, so that it can fork the others at any time: they share what it has imported, and
        the settings, keys and policy that it has read (`forking.py`).
Rule 3  It keeps every listening socket open and passes it on: connections that wait to be accepted when a process
        dies are accepted by its replacement.
Rule 4  After each append the api process nudges the stream processes; what is lost is made up by polling the log.
Rule 5  Each stream process reports its metrics and whether it is ready, once a second. A report that is missing
        makes the node unready. What a dead process had counted still counts.
Rule 6  Drain: the api process says "not ready", the stream processes drain side by side, the api process ends last.
        Should the supervisor die, the others drain too.
Rule 7  Only the supervisor tells the others to end, each once, and once more for them to hurry. So they are in sessions
        of their own: Ctrl-C in a terminal is told to all processes of its session.
Rule 8  The supervisor alone reads keys, revoked tokens and the policy, at the start and at each SIGHUP, and what it has
        read is what the others have in force (`reloading.py`). A process that can't take it ends, and its replacement
        has it. Where keys are at a URL the api process fetches them, for it has a loop, and hands them to the
        supervisor: it leaves them in a file, and says so by SIGUSR1. Processes that are shown an unknown key ask it to.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from prometheus_client.core import Metric

from ..alertlog import AlertLog
from ..clock import SystemClock
from ..config import KeyUrl, Listeners, Settings
from ..delivery import FLUSH_S, Delivery, background
from ..errors import ConfigError, trace
from ..following import LogKeeper
from ..metrics import Export, Metrics, counter, export, gauge, lasting, merged
from ..net.api import Api
from ..net.calls import serving
from ..net.newer_keys import NewerKeys
from ..publishing import Publishing
from .channel import Channel, tell
from .forking import WAITED_FOR, fork
from .in_force import InForce
from .key_source import source_of
from .node import Stop, open_log, opened_log, purge_for_ever, serving_feed
from .reloading import Board
from .threads import Threads

logger = logging.getLogger(__name__)

REPORT_S = 1.0  # between the reports of a stream process
LATE_S = 4.0  # a stream process whose last report is older is missing
QUICK_DEATH_S = 5.0  # a process that has lived shorter is restarted only after a second
# Nudges. One without a word tells of the log.
LOOK = b"look"  # from the supervisor: something may be new on the board
FETCH = b"fetch"  # to the api process, from the supervisor: fetch the keys now
ASK = b"ask"  # to the api process, from a stream process: it was shown an unknown key
SETTLED = b"settled"  # from the api process: there are no newer keys now
FETCHED = "fetched"  # the board from the api process to the supervisor
GRACE_S = 10.0  # what a process has beyond the drain before it is killed


@dataclass(frozen=True, slots=True)
class Part:
    """Which process of a node this is, and what the supervisor hands to it."""

    name: str  # "api", or "stream-0" and so on
    listeners: Mapping[str, socket.socket]  # by the option that names it
    folder: Path  # where the sockets of the channels are
    supervisor: int  # its pid

    @property
    def descriptors(self) -> list[int]:
        """Those of its listening sockets."""
        return [listener.fileno() for listener in self.listeners.values()]


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all processes of a node have from their supervisor: read once, so that no two can differ."""

    settings: Settings
    in_force: InForce


# ---- the supervisor ----------------------------------------------------------------------------------------------


class _Process:
    """A process that the supervisor keeps alive: when it ends, another is started in its place."""

    def __init__(self, part: Part, work: Callable[[], None]) -> None:
        self.part = part
        self.pid: int | None = None  # while it runs
        self.start_at = 0.0  # while it does not: the monotonic time to start it at
        self._work = work
        self._started = 0.0

    def start(self, now: float) -> None:
        """Start it. If the kernel can't just now, try again in a second."""
        self._started, self.start_at = now, now + 1.0
        try:
            self.pid = fork(self.part.name, self.part.descriptors, self._work)
        except OSError as error:
            logger.error("%s can't be started: %s; trying again", self.part.name, error.strerror)

    def ended(self, now: float) -> None:
        """Note that it has ended: it is started again at once, or in a second if it has lived for a short time only."""
        self.pid = None
        self.start_at = now + (1.0 if now - self._started < QUICK_DEATH_S else 0.0)

    def send(self, number: int) -> None:
        """Send it a signal, if it runs. (It can't be another's pid: an exit status is kept until we ask for it.)"""
        if self.pid is not None:
            os.kill(self.pid, number)


class _Supervisor:
    """Starts all processes, starts others in the place of those that die, and ends them (Rules 6 and 7)."""

    def __init__(self, processes: Sequence[_Process], reloader: "_Reloader") -> None:
        self._processes = processes
        self._reloader = reloader
        self._stopping = False

    def run(self) -> None:
        """Keep all alive until told to stop."""
        while True:
            now = time.monotonic()
            for process in self._processes:
                if process.pid is None and process.start_at <= now:
                    process.start(now)
            due = min((each.start_at for each in self._processes if each.pid is None), default=float("inf"))
            if self._wait(due):
                self._stopping = True
                return

    def end(self, processes: Sequence[_Process], within_s: float) -> None:
        """Have these processes end: SIGTERM, once more if we are told once more, and SIGKILL to who is left."""
        deadline = time.monotonic() + within_s
        _send(processes, signal.SIGTERM)
        while any(process.pid for process in processes) and time.monotonic() < deadline:
            if self._wait(deadline):
                _send(processes, signal.SIGTERM)
        _send(processes, signal.SIGKILL)
        while any(process.pid for process in processes):
            self._wait(float("inf"))

    def _wait(self, until: float) -> bool:
        """Wait for a signal, or until then (monotonic). Returns whether we are told to stop."""
        if until == float("inf"):
            number: int = signal.sigwait(WAITED_FOR)
        else:
            came = signal.sigtimedwait(WAITED_FOR, max(0.0, until - time.monotonic()))
            number = came.si_signo if came else 0
        self._reap()
        if number == signal.SIGHUP:
            self._reloader.reload()
        elif number == signal.SIGUSR1:
            self._reloader.take_fetched()
        return number in (signal.SIGTERM, signal.SIGINT)

    def _reap(self) -> None:
        """Note which processes have ended. Several exits may come with one SIGCHLD."""
        now = time.monotonic()
        for process in self._processes:
            pid, status = os.waitpid(process.pid, os.WNOHANG) if process.pid is not None else (0, 0)
            if pid:
                process.ended(now)
                if not self._stopping:
                    status = os.waitstatus_to_exitcode(status)
                    logger.error("%s ended with status %d; starting another", process.part.name, status)


class _Reloader:
    """Has the supervisor, and after it all other processes, have in force what is read anew (Rule 8)."""

    def __init__(self, folder: Path, names: Sequence[str], in_force: InForce) -> None:
        self._folder = folder
        self._names = names
        self._in_force = in_force
        self._board = Board(folder)
        self._fetched = Board(folder, FETCHED)

    def reload(self) -> None:
        """Read the files anew, and have keys at a URL fetched."""
        self._in_force.reload(self._board.write)
        self._tell_all()
        tell(self._folder, "api", FETCH)

    def take_fetched(self) -> None:
        """Take the keys that the api process has fetched."""
        self._fetched.look(lambda keys: self._in_force.take_keys(keys, self._board.write))
        self._tell_all()

    def _tell_all(self) -> None:
        for name in self._names:
            tell(self._folder, name, LOOK)


def _send(processes: Sequence[_Process], number: int) -> None:
    for process in processes:
        process.send(number)


def supervise(
    settings: Settings,
    in_force: InForce,
    listeners: Listeners,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    """Run all processes of a node until told to stop. Raises ConfigError before anything is started.

    `run` runs a coroutine in a new event loop to its end.
    """
    shared = _Shared(settings, in_force)
    open_log(settings)  # imports what it takes
    _check_log(settings, run)
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    with tempfile.TemporaryDirectory(prefix="geocast-") as folder:
        of_api = {"--api": listeners.api, "--metrics": listeners.metrics, "--feed": listeners.feed}
        given = {option: listener for option, listener in of_api.items() if listener is not None}
        sockets = [given, *({"--stream": stream} for stream in listeners.streams)]
        named = zip(["api", *_names(settings)], sockets, strict=True)
        processes = [_process(Part(name, its, Path(folder), os.getpid()), shared, run) for name, its in named]
        supervisor = _Supervisor(processes, _Reloader(Path(folder), [each.part.name for each in processes], in_force))
        supervisor.run()
        tell(Path(folder), "api", b"")
        supervisor.end(processes[1:], settings.drain_s + GRACE_S)
        supervisor.end(processes[:1], GRACE_S)


def _process(part: Part, shared: _Shared, run: Callable[[Coroutine[Any, Any, None]], None]) -> _Process:
    main = _run_api if part.name == "api" else _run_stream
    return _Process(part, lambda: run(main(part, shared)))


def _check_log(settings: Settings, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Open the log once for all: that mends a broken file, and says what can't be used. Raises ConfigError.

    It takes a loop and threads, so it is done in a process of its own.
    """

    async def look() -> None:
        async with opened_log(settings):
            pass

    def work() -> None:
        try:
            run(look())
        except (ConfigError, OSError) as error:
            os.write(there, str(error).encode())

    here, there = os.pipe()
    pid = fork("log", [there], work)
    os.close(there)
    with os.fdopen(here, encoding="utf-8") as said:
        problem = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if problem or status:
        raise ConfigError(problem or f"log: opening it ended with status {status}")


def _names(settings: Settings) -> list[str]:
    return [f"stream-{number}" for number in range(settings.workers)]


def _looker(part: Part, shared: _Shared, stop: Stop) -> Callable[[], None]:
    """What looks at the board, in a process that is not the supervisor (Rule 8)."""
    board = Board(part.folder)

    def look() -> None:
        try:
            board.look(shared.in_force.take)
        except Exception as error:
            logger.error("%s can't take what was reloaded, so it ends: %s", part.name, trace(error))
            stop.ask()

    return look


# ---- a stream process --------------------------------------------------------------------------------------------


async def _run_stream(part: Part, shared: _Shared) -> None:
    stop = Stop()
    metrics = Metrics()
    async with opened_log(shared.settings) as alert_log:
        newer = NewerKeys(lambda: channel.send("api", ASK)) if isinstance(shared.settings.keys, KeyUrl) else None
        delivery = Delivery(
            shared.settings, shared.in_force.tokens, SystemClock(), alert_log, metrics, newer_keys=newer
        )
        shared.in_force.watch(delivery.reloaded)
        if newer:
            shared.in_force.watch(newer.settle)
        look = _looker(part, shared, stop)

        def received(nudge: bytes) -> None:
            if nudge == LOOK:
                look()
            elif nudge == SETTLED and newer:
                newer.settle()
            else:
                delivery.expect()
                alert_log.nudge()

        with contextlib.closing(Channel(part.folder, part.name, received)) as channel:

            async def report() -> None:
                while True:
                    look()
                    told = {"name": part.name, "pid": os.getpid(), "unready": delivery.unready()}
                    channel.send("api", msgpack.packb(told | {"metrics": export(metrics.registry)}))
                    await asyncio.sleep(REPORT_S)

            async with background(report()), delivery.serving(part.listeners["--stream"], stop.asked, stop.hurry):
                if not stop.asked.is_set():  # while the log was waited for
                    logger.info("%s is ready", part.name)
                await stop.asked.wait()


# ---- the api process ---------------------------------------------------------------------------------------------


class _Reports:
    """What the stream processes have reported (Rule 5)."""

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


async def _run_api(part: Part, shared: _Shared) -> None:
    stop = Stop()
    async with opened_log(shared.settings) as alert_log:
        with contextlib.closing(_ApiProcess(part, shared, alert_log, _looker(part, shared, stop))) as process:
            async with process.running(part.listeners):
                logger.info("api is there on %s", shared.settings.api)
                await stop.asked.wait()
                process.api.draining = True


class _ApiProcess:
    """The api listener of a node whose sessions are elsewhere."""

    def __init__(self, part: Part, shared: _Shared, alert_log: AlertLog, look: Callable[[], None]) -> None:
        clock, in_force = SystemClock(), shared.in_force
        self._look = look
        self._settings = shared.settings
        self._names = _names(shared.settings)
        self._reports = _Reports(self._names)
        self._keeper = LogKeeper(alert_log, clock)
        self._channel = Channel(part.folder, part.name, self._received)
        publishing = Publishing(alert_log, in_force.policy, clock, self._appended, Threads())
        metrics = Metrics(self._reports.exports)
        metrics.watch(alert_log.metrics)
        metrics.watch(self._reports.metrics)
        metrics.watch(in_force.metrics)
        self.api = Api(publishing, alert_log, in_force.policy, in_force.tokens, clock, metrics, self._unready)
        in_force.watch(lambda: self.api.adopt(in_force.policy))
        self._part = part
        self._source = source_of(shared.settings, in_force, self._fetched, self._settled)
        if self._source:
            self.api.newer_keys = self._source.newer
            metrics.watch(self._source.metrics)
            in_force.watch(self._source.newer.settle)

    def close(self) -> None:
        """Close the channel to the other processes."""
        self._channel.close()

    @contextlib.asynccontextmanager
    async def running(self, listeners: Mapping[str, socket.socket]) -> AsyncIterator[None]:
        """Serve on these sockets for as long as the block runs."""
        api = self.api
        fetching = [self._source.run()] if self._source else []
        upkeep = background(self._watch_log(), self._look_for_ever(), purge_for_ever(self._keeper), *fetching)
        public = serving_feed(
            self._settings, listeners.get("--feed"), api.alert_log, api.clock, self._keeper, api.metrics
        )
        async with upkeep, serving(api, listeners["--api"], listeners.get("--metrics")), public:
            yield

    def _received(self, data: bytes) -> None:
        if data == LOOK:
            self._look()
        elif data in (ASK, FETCH):
            if self._source:
                self._source.ask() if data == ASK else self._source.fetch_now()
        elif data:
            self._reports.take(data)
        else:  # from the supervisor: the node is going away
            self.api.draining = True

    def _appended(self) -> None:
        for name in self._names:
            self._channel.send(name, b"")

    def _settled(self) -> None:
        for name in self._names:
            self._channel.send(name, SETTLED)

    def _fetched(self, keys: bytes) -> None:
        """Hand keys that were fetched to the supervisor (Rule 8)."""
        Board(self._part.folder, FETCHED).write(keys)
        if os.getppid() == self._part.supervisor:  # else it has died, and so shall we
            os.kill(self._part.supervisor, signal.SIGUSR1)

    def _unready(self) -> list[str]:
        draining = ["draining"] if self.api.draining else []
        return draining + self._keeper.unready() + self._reports.unready()

    async def _watch_log(self) -> None:
        while True:
            await self._keeper.store({})
            await asyncio.sleep(FLUSH_S)

    async def _look_for_ever(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(REPORT_S)
