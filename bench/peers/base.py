"""The interface of every server under measurement."""

import itertools
import socket
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from bench import processes
from bench.clients.websocket import Joining, handshake
from bench.places import Places


class System(ABC):
    """A server under measurement, which runs in processes and on cores of its own.

    Use it in a `with` statement. `lacks` names the features of geocast that the server does not have.
    """

    name: ClassVar[str]
    lacks: ClassVar[str] = ""

    def __init__(self, home: Path, cpus: Iterable[int]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=home))
        self.cpus = frozenset(cpus)
        self.port, self.control_port = processes.free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process:
            processes.stop(self.process)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        self.process = processes.start(self.command(), self.cpus, self.home / "output.txt", cwd=self.home)
        processes.wait_until(self._listens, f"{self.name} listens")

    def _listens(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise processes.Unavailable(f"{self.name} has ended: {self.last_words()}")
        return processes.listens(self.port)

    def last_words(self) -> str:
        """Return the last 500 characters of the server's output."""
        return (self.home / "output.txt").read_text(errors="replace")[-500:].strip()

    def pids(self) -> list[int]:
        """Return the ids of the server's processes."""
        assert self.process
        return processes.with_children(self.process.pid)

    def cpu_s(self) -> float:
        """Return the CPU time that the server's processes have used so far, in seconds."""
        return processes.cpu_s(self.pids())

    def waited_s(self) -> float:
        """Return the seconds in which the server was ready to run but other processes had its core."""
        return processes.waited_s(self.pids())

    def rss_bytes(self) -> int:
        """Return the resident memory of the server's processes in bytes."""
        return processes.rss_bytes(self.pids())

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the command that starts the server."""

    @abstractmethod
    def joining(self, places: Places) -> Joining:
        """Return the messages with which clients join this server: one session for each location in `places`."""

    @abstractmethod
    def publish(self, number: int, **options: Any) -> None:
        """Publish alert number `number` to the sessions."""


class Peer(System):
    """A server other than geocast. It gets each alert as finished bytes, and sends these to all sessions."""

    payload: "Payload"

    def joining(self, places: Places) -> Joining:
        """Return what clients send to join: only the handshake.

        A session has joined when the server answers with 101.
        """
        return Joining(handshake(self.port, "/"), [b""] * len(places))

    @abstractmethod
    def send(self, payload: bytes) -> None:
        """Send the payload, the finished bytes of one alert, to all sessions."""

    def publish(self, number: int, **_options: Any) -> None:
        """Send alert number `number` to all sessions, with exactly the bytes that geocast would send."""
        self.send(self.payload.of(number))


class ControlledPeer(Peer):
    """A peer written for the benchmarks.

    It reads payloads from a control port, each as its length (u32, little-endian) and the bytes.
    """

    def start(self) -> None:
        """Start the peer, and connect to its control port."""
        super().start()
        processes.wait_until(lambda: processes.listens(self.control_port), f"{self.name} accepts control connections")
        self._lock = threading.Lock()
        self._control = socket.create_connection(("127.0.0.1", self.control_port))

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "_control"):
            self._control.close()
        super().__exit__(*exc)

    def send(self, payload: bytes) -> None:
        """Write the payload to the control port."""
        with self._lock:
            self._control.sendall(len(payload).to_bytes(4, "little") + payload)


class Payload:
    """The bytes that geocast sends for an alert.

    They are copied from a sample (the message that a node sent for a real alert), with the id of the alert replaced.
    """

    def __init__(self, sample: bytes, alert_id: str) -> None:
        self._before, _, self._after = sample.partition(alert_id.encode())
        assert self._after, "the sample holds the id"

    def of(self, number: int) -> bytes:
        """Return the payload of alert number `number`. It has the same size for every number."""
        return self._before + alert_id(number).encode() + self._after

    def __len__(self) -> int:
        return len(self.of(0))


_numbers = itertools.count(1)


def next_number() -> int:
    """Return a number that no other alert of this run has."""
    return next(_numbers)


def alert_id(number: int) -> str:
    """Return the id of alert number `number`, in the form that receiver.c recognizes."""
    return f"bench-{number:07d}"
