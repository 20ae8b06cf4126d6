"""The supervisor of several processes, which starts, notifies, replaces and ends them.

`geocast serve` and `geocast push` with `--workers` use this module; `workers.py` has the rules. One of the processes is
the *front*: it answers /metrics and /readyz for all, collects their reports, and fetches the signing keys if they are
at a URL.
"""

import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from ..metrics import Export, lasting, merged
from ..model.errors import ConfigError
from .channel import ReloadMailbox, tell
from .forking import WAITED_FOR, fork
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

Run = Callable[[Coroutine[Any, Any, None]], None]  # runs a coroutine to its end in a new event loop

REPORT_S = 1.0  # time between two reports of a process
METRICS_EVERY = 5  # one in so many reports has the metrics: encoding them takes 0.4 ms (`bench idle`)
LATE_S = 4.0  # a process whose last report is older than this is missing
QUICK_DEATH_S = 5.0  # a process that has lived for less than this is replaced only after a second
# Nudges are datagrams that only say that there is something to do. An empty nudge from the supervisor to the front (the
# process with the api) means that all processes are about to end. Any other empty nudge means that the log has a new
# entry.
LOOK = b"look"  # from the supervisor: read the mailbox of reloads
FETCH = b"fetch"  # from the supervisor to the front: fetch the keys now
ASK = b"ask"  # from a process to the front: a token with an unknown key has arrived
SETTLED = b"settled"  # from the front: there are no newer keys now
MEASURE = b"measure"  # from the front: report with the metrics now
FETCHED = "fetched"  # the name of the mailbox from the front to the supervisor
GRACE_S = 10.0  # how long a process may take beyond the drain before it is killed


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The data that the supervisor passes to a process that it starts, including the name of the process."""

    name: str  # "api", or "stream-0" and so on
    listeners: Mapping[str, socket.socket]  # by the option that names the address
    folder: Path  # where the sockets of the channels are
    supervisor: int  # pid of the supervisor
    files: Sequence[int] = ()  # descriptors of files that the process keeps open

    @property
    def descriptors(self) -> list[int]:
        """The file descriptors that the process keeps open: its listening sockets, and `files`."""
        return [*(listener.fileno() for listener in self.listeners.values()), *self.files]


# ---- the supervisor and its processes ----------------------------------------------------------------------------


class Child:
    """A process that the supervisor keeps running: when it ends, another one is started in its place."""

    def __init__(self, part: WorkerSpec, work: Callable[[], None]) -> None:
        self.part = part
        self.pid: int | None = None  # None while it does not run
        self.start_at = 0.0  # while it does not run: the monotonic time at which to start it
        self._work = work
        self._started = 0.0

    def start(self, now: float) -> None:
        """Start the process. If the fork fails, it is tried again after a second."""
        self._started, self.start_at = now, now + 1.0
        try:
            self.pid = fork(self.part.name, self.part.descriptors, self._work)
        except OSError as error:
            logger.error("process %s can't be started (%s); trying again in a second", self.part.name, error.strerror)

    def ended(self, now: float) -> None:
        """Record that the process has ended, so that another one is started in its place.

        The new process is started at once, or after a second if the old one ended within QUICK_DEATH_S seconds of its
        start.
        """
        self.pid = None
        self.start_at = now + (1.0 if now - self._started < QUICK_DEATH_S else 0.0)

    def send(self, number: int) -> None:
        """Send the process this signal, if it is running.

        The pid can't belong to another process meanwhile, because the kernel reuses it only after `_reap` has collected
        the exit status.
        """
        if self.pid is not None:
            os.kill(self.pid, number)


class Supervisor:
    """Starts the other processes of a node, replaces those that die, and ends them all (Rules 6 and 7 of `workers`)."""

    def __init__(self, processes: Sequence[Child], reloader: "Reloader") -> None:
        self._processes = processes
        self._reloader = reloader
        self._stopping = False

    def run(self) -> None:
        """Keep all processes running, until this process gets SIGTERM or SIGINT."""
        while True:
            now = time.monotonic()
            for process in self._processes:
                if process.pid is None and process.start_at <= now:
                    process.start(now)
            due = min((each.start_at for each in self._processes if each.pid is None), default=float("inf"))
            if self._wait(due):
                self._stopping = True
                return

    def end(self, processes: Sequence[Child], within_s: float) -> None:
        """Send these processes SIGTERM, and SIGKILL after `within_s` seconds; return when all have ended.

        If this process gets another SIGTERM or SIGINT meanwhile, send them SIGTERM again, which makes them hurry.
        """
        deadline = time.monotonic() + within_s
        _send(processes, signal.SIGTERM)
        while any(process.pid for process in processes) and time.monotonic() < deadline:
            if self._wait(deadline):
                _send(processes, signal.SIGTERM)
        _send(processes, signal.SIGKILL)
        while any(process.pid for process in processes):
            self._wait(float("inf"))

    def _wait(self, until: float) -> bool:
        """Wait for a signal and handle it.

        Stop waiting when the monotonic clock reaches `until`. Return True if the signal was SIGTERM or SIGINT.
        """
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
        """Record which processes have ended. One SIGCHLD may stand for several of them, so all are checked."""
        now = time.monotonic()
        for process in self._processes:
            pid, status = os.waitpid(process.pid, os.WNOHANG) if process.pid is not None else (0, 0)
            if pid:
                process.ended(now)
                if not self._stopping:
                    status = os.waitstatus_to_exitcode(status)
                    logger.error("process %s ended with status %d; starting another", process.part.name, status)


class Reloader:
    """Reloads the configuration in the supervisor, and passes it on to all other processes (Rule 8 of `workers`)."""

    def __init__(self, folder: Path, names: Sequence[str], in_force: RuntimeConfig) -> None:
        self._folder = folder
        self._names = names
        self._in_force = in_force
        self._mailbox = ReloadMailbox(folder)
        self._fetched = ReloadMailbox(folder, FETCHED)

    def reload(self) -> None:
        """Read the configuration files again, and notify all processes.

        If the keys are at a URL, make the front (the process that collects reports) fetch them.
        """
        self._in_force.reload(self._mailbox.write)
        self._tell_all()
        tell(self._folder, self._names[0], FETCH)

    def take_fetched(self) -> None:
        """Apply the signing keys that another process, the front, has fetched from a URL, and notify all processes."""
        self._fetched.look(lambda keys: self._in_force.take_keys(keys, self._mailbox.write))
        self._tell_all()

    def _tell_all(self) -> None:
        for name in self._names:
            tell(self._folder, name, LOOK)


def _send(processes: Sequence[Child], number: int) -> None:
    for process in processes:
        process.send(number)


class Reports:
    """The latest report of each process.

    The *front*, the process that answers /metrics for all, collects them (Rule 5 of `workers`). The supervisor and the
    front send no reports.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.restarts = 0  # number of processes that have died and were replaced
        self._names = names
        self._last: dict[str, dict[str, Any]] = {}  # the last report of each process
        self._heard: dict[str, float] = {}  # the monotonic time of that report
        self._metrics: dict[str, bytes] = {}  # the last metrics of each process: an Export as MessagePack
        self._measured: dict[str, float] = {}  # the monotonic time of their report
        self._gone: Export = []  # the counters of processes that have died

    def take(self, data: bytes) -> None:
        """Store a report that a process has sent.

        If the process has replaced a process of the same name, the counters of the dead process are kept and added to
        the new ones. So no counter ever goes down.
        """
        report = msgpack.unpackb(data)
        name, metrics = report["name"], report["metrics"]
        last = self._last.get(name)
        if last is not None and last["pid"] != report["pid"]:
            self._gone = merged([self._gone, lasting(_export(self._metrics.pop(name, None)))])
            self.restarts += 1
        self._last[name] = report
        self._heard[name] = time.monotonic()
        if metrics is not None:
            self._metrics[name], self._measured[name] = metrics, self._heard[name]

    def unready(self) -> list[str]:
        """Return the reasons why the reporting processes are not ready; an empty list if all are ready."""
        missing = self.missing()
        reasons = [f"{name} does not report" for name in missing]
        for name in sorted(self._last.keys() - set(missing)):
            reasons += [f"{name}: {reason}" for reason in self._last[name]["unready"]]
        return reasons

    def degraded(self) -> int:
        """Return how many calls for help have entries that no key decrypts (HD8).

        If the processes report different numbers, return the greatest.
        """
        return max((report.get("degraded", 0) for report in self._last.values()), default=0)

    def reads(self) -> dict[str, float]:
        """Return the servers from which the processes read the log, with the greatest lag of each in seconds (RG4)."""
        pairs = [pair for report in self._last.values() for pair in report.get("reads", {}).items()]
        return dict(sorted(pairs, key=lambda pair: pair[1]))

    def missing(self) -> list[str]:
        """Return the names of the processes from which no report has come for LATE_S seconds."""
        now = time.monotonic()
        return [name for name in self._names if now - self._heard.get(name, -LATE_S) > LATE_S]

    def are_since(self, moment: float) -> bool:
        """Return whether all reporting processes have reported metrics at this monotonic time or later."""
        reporting = set(self._names) - set(self.missing())
        return all(self._measured.get(name, -1.0) >= moment for name in reporting)

    def exports(self) -> list[Export]:
        """Return the metrics of the reporting processes, and the counters of the processes that have died."""
        return [self._gone, *map(_export, self._metrics.values())]


def _export(packed: bytes | None) -> Export:
    exported: Export = [] if packed is None else msgpack.unpackb(packed)
    return exported


def keep_alive(
    mains: Mapping[str, Callable[[WorkerSpec], Coroutine[Any, Any, None]]],
    listeners: Sequence[Mapping[str, socket.socket]],
    in_force: RuntimeConfig,
    drain_s: float,
    run: Run,
    files: Sequence[int] = (),
) -> None:
    """Start these processes, keep them running until SIGTERM or SIGINT, then end them.

    `mains` maps the name of each process to its main function. The first process is the front, which answers /metrics
    and /readyz for all and ends last. `listeners` has, for each process in the same order, its listening sockets by
    option. `files` are descriptors that all processes except the front keep open. `run` is called with the coroutine of
    a main function, and runs it to its end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    with tempfile.TemporaryDirectory(prefix="geocast-") as folder:
        processes: list[Child] = []
        for (name, main), sockets in zip(mains.items(), listeners, strict=True):
            part = WorkerSpec(name, sockets, Path(folder), os.getpid(), files if processes else ())
            processes.append(Child(part, lambda main=main, part=part: run(main(part))))  # type: ignore[misc]
        supervisor = Supervisor(processes, Reloader(Path(folder), list(mains), in_force))
        supervisor.run()
        tell(Path(folder), processes[0].part.name, b"")
        supervisor.end(processes[1:], drain_s + GRACE_S)
        supervisor.end(processes[:1], GRACE_S)


def check(name: str, look: Callable[[], Coroutine[Any, Any, None]], run: Run) -> None:
    """Run `look` once before the processes start; it opens the files that they will open.

    Raise ConfigError if that fails.

    So a broken file is repaired only once, and an unusable file prevents the start. Opening needs an event loop and
    threads, which the supervisor must not have, so a temporary process called `name` does it.
    """

    def work() -> None:
        try:
            run(look())
        except (ConfigError, OSError) as error:
            os.write(there, str(error).encode())

    here, there = os.pipe()
    pid = fork(name, [there], work)
    os.close(there)
    with os.fdopen(here, encoding="utf-8") as said:
        problem = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if problem or status:
        raise ConfigError(problem or f"{name}: opening it ended with status {status}")
