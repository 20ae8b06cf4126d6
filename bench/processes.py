"""Child processes: started on given cores, measured, and ended together with their parent."""

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
_CPUCLOCK_SCHED = 2  # the CPU clock of a whole process, in ns (linux/posix-timers.h)
_libc = ctypes.CDLL(None)


@contextmanager
def repeating(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Run `look` in a thread every `every_s` seconds while the `with` block runs."""
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
    """A program or package that a measurement needs is missing on this machine."""


def raise_descriptor_limit() -> int:
    """Raise the limit of open file descriptors of this process to the maximum, and return it.

    Child processes inherit it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 1_048_576 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def start(
    command: Sequence[object], cpus: Iterable[int], output: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process on these cores. The process gets SIGTERM when the calling process dies."""
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
    """Run `work(*arguments, pipe)` in a separate process; yield the other end of the pipe.

    The two processes share nothing but the pipe. If the separate process dies, `recv` raises EOFError instead of
    waiting forever. After the `with` block, the separate process has PATIENCE_S seconds to end by itself; if the block
    raises an exception, the process is killed at once.
    """
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=work, args=(*arguments, other), daemon=True)
    process.start()
    other.close()  # the child process has its own copy
    try:
        yield pipe
        process.join(PATIENCE_S)
    finally:
        process.kill()


def output_of(command: Sequence[str]) -> str:
    """Run a command for at most PATIENCE_S seconds, and return its output; "" if it fails or takes too long."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, patience_s: float = 5.0) -> None:
    """Send the process a signal, and kill it if it is still running after `patience_s` seconds."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def with_children(pid: int) -> list[int]:
    """Return the id of a process and the ids of its direct children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time of these processes in seconds: `utime + stime` of /proc/PID/stat, but exact to the ns."""
    return sum(time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED) for pid in pids)


def waited_s(pids: Iterable[int]) -> float:
    """Return the seconds in which these processes were ready to run, but others had their cores.

    Only their main threads count; the values come from /proc/PID/schedstat.
    """
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in pids) / 1e9


def rss_bytes(pids: Iterable[int]) -> int:
    """Return the total resident memory of these processes in bytes."""
    return sum(_rss_kib(pid) for pid in pids) * 1024


def _rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    return 0


def wait_until(done: Callable[[], object], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.01) -> None:
    """Call `done` repeatedly until it returns a true value. Raise ClickException after `patience_s` seconds."""
    end = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > end:
            raise click.ClickException(f"gave up waiting after {patience_s:g} s: {what}")
        time.sleep(pause_s)


def free_ports(count: int) -> list[int]:
    """Return `count` loopback ports that are free now and that the system does not assign automatically."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(1025, low)  # random, so that other processes rarely try the same ports
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
    """Return whether this port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def find_program(name: str) -> str:
    """Return the path of a program, which may also be in /usr/sbin. Raise Unavailable if it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise Unavailable(f"{name} is not installed (make bench-peers)")
    return found


def compile_c(source: Path, home: Path) -> Path:
    """Compile one C file; return the path of the program. Raise Unavailable if there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable(f"no C compiler for {source.name} (make bench-peers)")
    target = home / source.stem
    if not target.exists():
        subprocess.run([compiler, "-O2", "-o", target, source], check=True)
    return target


@contextmanager
def workplace() -> Iterator[Path]:
    """Yield a temporary folder for one run, which is removed after the `with` block."""
    with tempfile.TemporaryDirectory(prefix="geocast-bench-") as home:
        yield Path(home)
