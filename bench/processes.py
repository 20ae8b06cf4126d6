"""Child processes: started on given cores, measured, and ended with their parent."""

import ctypes
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

PATIENCE_S = 30.0
_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2  # of a whole process, in ns (linux/posix-timers.h)
_libc = ctypes.CDLL(None)


@contextmanager
def repeating(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call `look` again and again in a thread, `every_s` apart, for as long as the block runs."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            look()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Unavailable(click.ClickException):
    """Something that a measurement needs is not on this machine."""


def raise_descriptor_limit() -> int:
    """As many descriptors as are allowed, for this process and its children. Returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 1_048_576 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def start(
    command: Sequence[object], cpus: Iterable[int], output: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process on these cores; it gets SIGTERM when this one dies. Each part of the command goes as text."""
    cpus = set(cpus)

    def prepare() -> None:
        os.sched_setaffinity(0, cpus)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    with output.open("ab") as file:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=prepare,  # noqa: PLW1509 (servers and crowds are started before any thread)
            cwd=cwd,
        )


@contextmanager
def beside(work: Callable[..., None], *arguments: Any) -> Iterator[Connection]:
    """A process of its own that does `work(*arguments, pipe)`, which shares nothing with this one but the pipe.

    The other end of that is yielded. If the process dies, `recv` raises EOFError instead of waiting for ever. It is
    given PATIENCE_S to end by itself after the block, and no time if that fails.
    """
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=work, args=(*arguments, other), daemon=True)
    process.start()
    other.close()  # the process has its own
    try:
        yield pipe
        process.join(PATIENCE_S)
    finally:
        process.kill()


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, patience_s: float = 5.0) -> None:
    """Ask it to end, wait, and kill it if it doesn't."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def with_children(pid: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that the processes have used: `utime + stime` of /proc/PID/stat, but in ns and not in ticks."""
    return sum(time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED) for pid in pids)


def waited_s(pids: Iterable[int]) -> float:
    """Seconds that the first thread of each process was ready to run and others had its core (/proc/PID/schedstat)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e9


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes."""
    return sum(_rss_kib(pid) for pid in pids) * 1024


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    return 0


def wait_until(done: Callable[[], object], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.01) -> None:
    """Ask `done` again and again until it says yes. Raises ClickException."""
    end = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > end:
            raise click.ClickException(f"gave up after {patience_s:g} s: {what}")
        time.sleep(pause_s)


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago, outside the range that connections take theirs from."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(1025, low)  # whoever else looks for ports at this moment hardly tries the same
        if _is_free(port):
            found.add(port)
    return list(found)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def find_program(name: str) -> str:
    """Where a program is, /usr/sbin included. Raises Unavailable."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise Unavailable(f"{name} is not installed (make bench-peers)")
    return found


def compile_c(source: Path, home: Path) -> Path:
    """Compile one file of C. Raises Unavailable where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable(f"no C compiler for {source.name} (make bench-peers)")
    target = home / source.stem
    if not target.exists():
        subprocess.run([compiler, "-O2", "-o", target, source], check=True)
    return target


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for one run, gone after it."""
    with tempfile.TemporaryDirectory(prefix="geocast-bench-") as home:
        yield Path(home)
