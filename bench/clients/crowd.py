"""A crowd of subscribers: processes that run receiver.c, whose results are read through shared memory."""

import itertools
import mmap
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, cast

import click
import numpy as np

from bench import processes
from bench.clients.websocket import Joining

HEADER = 4096  # this, and the layout of RECORD, must be the same as in receiver.c
RECORD = np.dtype([("when_ns", "u8"), ("connection", "u4"), ("number", "u4")])
PER_PROCESS = 18_000  # connections; receiver.c uses several addresses, so that there are enough ports
INFLIGHT = 256  # handshakes in progress at once, over all processes
RETRY_MS = (50, 250)
PATIENCE_S = 5.0
SOURCE = Path(__file__).with_name("receiver.c")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Counters:
    """The counters that receiver.c writes to the shared memory, in the same order."""

    ready: int = 0
    readied: int = 0
    closed: int = 0
    failed: int = 0
    records: int = 0
    lost_records: int = 0
    pongs: int = 0
    bytes: int = 0
    bad_frames: int = 0
    said: int = 0  # sessions that were asked to send their `later` text
    oks: int = 0


class Receiver:
    """A process that runs receiver.c with thousands of connections.

    The process writes its results to memory that it shares with the benchmark.
    """

    def __init__(self, shared: Path, count: int, capacity: int) -> None:
        size = HEADER + 8 * count + RECORD.itemsize * capacity
        with shared.open("w+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._counters = np.frombuffer(self._map, "u8", len(fields(Counters)))
        self._asked = np.frombuffer(self._map, "u8", 1, 8 * len(fields(Counters)))
        self.ready_ns = np.frombuffer(self._map, "u8", count, HEADER)
        self._records = np.frombuffer(self._map, RECORD, capacity, HEADER + 8 * count)
        self._taken = 0
        self.process: subprocess.Popen[bytes] | None = None

    def counters(self) -> list[int]:
        """Return the values of the counters, in the order of the fields of `Counters`."""
        return cast(list[int], self._counters.tolist())

    def ask(self, count: int) -> None:
        """Make each of the first `count` connections send its `later` text (see Joining), unless it did so before."""
        self._asked[0] = count

    def take(self) -> Any:
        """Return the records written since the last call of this method, one for each message that was received."""
        start, self._taken = self._taken, int(self._counters[4])
        return self._records[start : self._taken].copy()


class Crowd:
    """Many sessions that are subscribed to the alerts of a server.

    Use a crowd in a `with` statement: its sessions connect at the start and disconnect at the end.
    """

    def __init__(
        self,
        port: int,
        joining: Joining,
        home: Path,
        cpus: Iterable[int],
        *,
        expected: int,
        inflight: int = INFLIGHT,
        retry_ms: tuple[int, int] = RETRY_MS,
        nap_ms: float = 0.0,
    ) -> None:
        """Prepare one session for each entry of `joining`.

        `expected` is the largest number of messages for one session; it decides the size of the shared memory. `nap_ms`
        is the time for which receivers sleep when no message has come; use 0 if there are as many cores as receivers.
        """
        self._port, self._joining, self._cpus, self._home = port, joining, frozenset(cpus), home
        self._nap_us = round(nap_ms * 1000)
        self._program = processes.compile_c(SOURCE, home)
        self._inflight, self._retry_ms, self._expected = inflight, retry_ms, expected
        self._receivers: list[Receiver] = []

    def __len__(self) -> int:
        return len(self._joining)

    def __enter__(self) -> Self:
        base = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="geocast-bench-", dir=base))
        try:
            shares = -(-len(self) // PER_PROCESS)
            bounds = [len(self) * part // shares for part in range(shares + 1)]
            for part, (first, end) in enumerate(itertools.pairwise(bounds)):
                self._receivers.append(self._start(part, first, end, shares))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for receiver in self._receivers:
            if receiver.process:
                processes.stop(receiver.process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, part: int, first: int, end: int, shares: int) -> Receiver:
        shared, openings = self._folder / f"shared-{part}", self._home / f"openings-{self._folder.name}-{part}"
        openings.write_bytes(_openings(self._joining, first, end))
        count = end - first
        capacity = count * self._expected + 1
        receiver = Receiver(shared, count, capacity)
        numbers = (count, first, capacity, max(1, self._inflight // shares))
        source = f"127.0.{1 + part}.1"
        command = [
            *(self._program, shared, openings, "127.0.0.1", self._port, source),
            *(*numbers, self._joining.ready, *self._retry_ms, self._nap_us),
        ]
        receiver.process = processes.start(command, self._cpus, self._folder / f"output-{part}")
        return receiver

    # ---- results of the receivers ------------------------------------------------------------------------------

    def counters(self) -> Counters:
        """Return the sums of the counters over all processes. Raise ClickException if a process has ended."""
        for receiver in self._receivers:
            if receiver.process and receiver.process.poll() is not None:
                raise click.ClickException(f"a receiver process ended with exit code {receiver.process.returncode}")
        return Counters(*np.sum([receiver.counters() for receiver in self._receivers], axis=0).tolist())

    def ask(self, count: int) -> None:
        """Make at least `count` sessions, evenly spread over the receivers, send their `later` text (see Joining)."""
        for receiver in self._receivers:
            receiver.ask(-(-count // len(self._receivers)))

    def ready_ns(self) -> Any:
        """Return the time in ns at which each session last became ready."""
        return np.concatenate([receiver.ready_ns for receiver in self._receivers])

    def take(self) -> Any:
        """Return the records written since the last call of this method, one for each message that was received.

        The result is a numpy array.
        """
        return np.concatenate([receiver.take() for receiver in self._receivers])

    def wait_ready(self, show: Callable[[int], None] = lambda _done: None) -> None:
        """Wait until all sessions are ready at once.

        Give up after two minutes plus two seconds for each thousand sessions, and raise ClickException.
        """
        patience_s = 120.0 + len(self) / 500
        self.wait(lambda counters: counters.ready == len(self), "all sessions are ready", patience_s, show)

    def wait_records(self, total: int, patience_s: float = PATIENCE_S) -> int:
        """Wait until the sessions have received `total` messages since they connected; return the number received.

        Stop waiting, and return a smaller number, when no message has come for `patience_s` seconds.
        """
        came, end = -1, 0.0
        while (now_came := self.counters().records) < total:
            if now_came > came:
                came, end = now_came, time.monotonic() + patience_s
            elif time.monotonic() > end:
                break
            time.sleep(self._pause_s)
        return now_came

    def wait(
        self,
        done: Callable[[Counters], bool],
        what: str,
        patience_s: float,
        show: Callable[[int], None] = lambda _done: None,
    ) -> Counters:
        """Wait until `done` returns true for the counters; return them.

        Raise ClickException after `patience_s` seconds. `what` describes the awaited state in the error message. `show`
        is called with the number of ready sessions.
        """
        end = time.monotonic() + patience_s
        while not done(counters := self.counters()):
            if time.monotonic() > end:
                raise click.ClickException(f"gave up waiting after {patience_s:g} s: {what}: {counters}")
            show(counters.ready)
            time.sleep(self._pause_s)
        show(counters.ready)
        return counters

    @property
    def _pause_s(self) -> float:
        """The seconds to wait between two reads of the counters.

        The pause grows with the number of receivers, because reading takes time on the core that the receivers need.
        """
        return 0.005 * len(self._receivers)


def _openings(joining: Joining, first: int, end: int) -> bytes:
    texts = [joining.request, *joining.first[first:end], *joining.later[first:end]]
    return b"".join(part for text in texts for part in (struct.pack("<I", len(text)), text))
