"""What processes with one supervisor have in common: how they are started, told things, and ended (workers.py has the
rules; `geocast serve` and `geocast push` with `--workers` go by them).

One of them is the *front*: it answers for all, hears their reports, and fetches the keys if they are at a URL.
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

from ..errors import ConfigError
from ..metrics import Export, lasting, merged
from .channel import tell
from .forking import WAITED_FOR, fork
from .reload_mailbox import ReloadMailbox
from .runtime_config import RuntimeConfig

logger = logging.getLogger(__name__)

Run = Callable[[Coroutine[Any, Any, None]], None]  # runs a coroutine in a new event loop to its end

REPORT_S = 1.0  # between the reports of a process
LATE_S = 4.0  # a process whose last report is older is missing
QUICK_DEATH_S = 5.0  # a process that has lived shorter is restarted only after a second
# Nudges. One without a word tells of the log; to the front, from the supervisor, that all are to end.
LOOK = b"look"  # from the supervisor: something may be new on the board
FETCH = b"fetch"  # to the front, from the supervisor: fetch the keys now
ASK = b"ask"  # to the front, from another: it was shown an unknown key
SETTLED = b"settled"  # from the front: there are no newer keys now
FETCHED = "fetched"  # the board from the front to the supervisor
GRACE_S = 10.0  # what a process has beyond the drain before it is killed


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Which of the processes this is, and what the supervisor hands to it."""

    name: str  # "api", or "stream-0" and so on
    listeners: Mapping[str, socket.socket]  # by the option that names it
    folder: Path  # where the sockets of the channels are
    supervisor: int  # its pid
    files: Sequence[int] = ()  # descriptors

    @property
    def descriptors(self) -> list[int]:
        """Those that it keeps open: of its listening sockets, and of files that it has from the supervisor."""
        return [*(listener.fileno() for listener in self.listeners.values()), *self.files]


# ---- the supervisor ----------------------------------------------------------------------------------------------


class Process:
    """A process that the supervisor keeps alive: when it ends, another is started in its place."""

    def __init__(self, part: WorkerSpec, work: Callable[[], None]) -> None:
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


class Supervisor:
    """Starts all processes, starts others in the place of those that die, and ends them (Rules 6 and 7)."""

    def __init__(self, processes: Sequence[Process], reloader: "Reloader") -> None:
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

    def end(self, processes: Sequence[Process], within_s: float) -> None:
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


class Reloader:
    """Has the supervisor, and after it all other processes, have in force what is read anew (Rule 8)."""

    def __init__(self, folder: Path, names: Sequence[str], in_force: RuntimeConfig) -> None:
        self._folder = folder
        self._names = names
        self._in_force = in_force
        self._mailbox = ReloadMailbox(folder)
        self._fetched = ReloadMailbox(folder, FETCHED)

    def reload(self) -> None:
        """Read the files anew, and have keys at a URL fetched."""
        self._in_force.reload(self._mailbox.write)
        self._tell_all()
        tell(self._folder, self._names[0], FETCH)

    def take_fetched(self) -> None:
        """Take the keys that the front has fetched."""
        self._fetched.look(lambda keys: self._in_force.take_keys(keys, self._mailbox.write))
        self._tell_all()

    def _tell_all(self) -> None:
        for name in self._names:
            tell(self._folder, name, LOOK)


def _send(processes: Sequence[Process], number: int) -> None:
    for process in processes:
        process.send(number)


class Reports:
    """What the processes behind the front have reported (Rule 5)."""

    def __init__(self, names: Sequence[str]) -> None:
        self.restarts = 0  # processes that have died and were replaced
        self._names = names
        self._last: dict[str, dict[str, Any]] = {}
        self._heard: dict[str, float] = {}
        self._gone: Export = []  # what processes that have died had counted

    def take(self, data: bytes) -> None:
        """Take a report. If its process is new, the counters of its predecessor are put aside to be added to."""
        report = msgpack.unpackb(data)
        name = report["name"]
        last = self._last.get(name)
        if last is not None and last["pid"] != report["pid"]:
            self._gone = merged([self._gone, lasting(last["metrics"])])
            self.restarts += 1
        self._last[name] = report
        self._heard[name] = time.monotonic()

    def unready(self) -> list[str]:
        """Why these processes are not ready."""
        missing = self.missing()
        reasons = [f"{name} does not report" for name in missing]
        for name in sorted(self._last.keys() - set(missing)):
            reasons += [f"{name}: {reason}" for reason in self._last[name]["unready"]]
        return reasons

    def degraded(self) -> int:
        """Return how many calls have entries that no key opens, in the process that has read most of them (HD8)."""
        return max((report.get("degraded", 0) for report in self._last.values()), default=0)

    def missing(self) -> list[str]:
        """The names of those that do not report."""
        now = time.monotonic()
        return [name for name in self._names if now - self._heard.get(name, -LATE_S) > LATE_S]

    def exports(self) -> list[Export]:
        """The metrics of all these processes, with what the dead ones had counted."""
        return [self._gone, *(report["metrics"] for report in self._last.values())]


def keep_alive(
    mains: Mapping[str, Callable[[WorkerSpec], Coroutine[Any, Any, None]]],
    listeners: Sequence[Mapping[str, socket.socket]],
    in_force: RuntimeConfig,
    drain_s: float,
    run: Run,
    files: Sequence[int] = (),
) -> None:
    """Run these processes, by name, until told to stop. The first one is the front, and ends last.

    `listeners`: the sockets of each, by option. `files`: descriptors that all but the front keep open.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    with tempfile.TemporaryDirectory(prefix="geocast-") as folder:
        processes: list[Process] = []
        for (name, main), sockets in zip(mains.items(), listeners, strict=True):
            part = WorkerSpec(name, sockets, Path(folder), os.getpid(), files if processes else ())
            processes.append(Process(part, lambda main=main, part=part: run(main(part))))  # type: ignore[misc]
        supervisor = Supervisor(processes, Reloader(Path(folder), list(mains), in_force))
        supervisor.run()
        tell(Path(folder), processes[0].part.name, b"")
        supervisor.end(processes[1:], drain_s + GRACE_S)
        supervisor.end(processes[:1], GRACE_S)


def check(name: str, look: Callable[[], Coroutine[Any, Any, None]], run: Run) -> None:
    """Open what all will open, once for all: that mends a broken file, and says what can't be used. Raises ConfigError.

    It takes a loop and threads, so it is done in a process of its own, which has this name.
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
