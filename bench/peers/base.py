"""What every system under measurement can do."""

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
    """A server in processes of its own, on cores of its own. Use it in a `with`."""

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
        """Start it and wait until it takes connections."""
        self.process = processes.start(self.command(), self.cpus, self.home / "output.txt", cwd=self.home)
        processes.wait_until(self._listens, f"{self.name} listens")

    def _listens(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise processes.Unavailable(f"{self.name} ended by itself: {self.last_words()}")
        return processes.listens(self.port)

    def last_words(self) -> str:
        """The end of what it wrote."""
        return (self.home / "output.txt").read_text(errors="replace")[-500:].strip()

    def pids(self) -> list[int]:
        """Its processes."""
        assert self.process
        return processes.with_children(self.process.pid)

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        return processes.cpu_s(self.pids())

    def waited_s(self) -> float:
        """Seconds that it waited for its core because others had it."""
        return processes.waited_s(self.pids())

    def rss_bytes(self) -> int:
        """Its resident memory."""
        return processes.rss_bytes(self.pids())

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """What to run."""

    @abstractmethod
    def joining(self, places: Places) -> Joining:
        """How sessions join, one for each place."""

    @abstractmethod
    def publish(self, number: int, **options: Any) -> None:
        """Send alert `number` to all."""


class Peer(System):
    """One that is not geocast: it is given the payload, and sends it to everybody."""

    payload: "Payload"

    def joining(self, places: Places) -> Joining:
        """A session has joined when the server has answered 101."""
        return Joining(handshake(self.port, "/"), [b""] * len(places))

    @abstractmethod
    def send(self, payload: bytes) -> None:
        """Send it to all."""

    def publish(self, number: int, **_options: Any) -> None:
        """Send alert `number` to all, with the very bytes that geocast would send."""
        self.send(self.payload.of(number))


class ControlledPeer(Peer):
    """A peer of the bench's own make, which takes what to send on a control port: u32 length, bytes."""

    def start(self) -> None:
        """Start it, and connect to its control port."""
        super().start()
        processes.wait_until(lambda: processes.listens(self.control_port), f"{self.name} can be controlled")
        self._lock = threading.Lock()
        self._control = socket.create_connection(("127.0.0.1", self.control_port))

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "_control"):
            self._control.close()
        super().__exit__(*exc)

    def send(self, payload: bytes) -> None:
        """Hand it over."""
        with self._lock:
            self._control.sendall(len(payload).to_bytes(4, "little") + payload)


class Payload:
    """What geocast sends for an alert, for any number: taken from the wire once."""

    def __init__(self, sample: bytes, alert_id: str) -> None:
        self._before, _, self._after = sample.partition(alert_id.encode())
        assert self._after, "the sample holds the id"

    def of(self, number: int) -> bytes:
        """The payload of alert `number`: always of the same size."""
        return self._before + alert_id(number).encode() + self._after

    def __len__(self) -> int:
        return len(self.of(0))


_numbers = itertools.count(1)


def next_number() -> int:
    """A number that no other alert of this run has."""
    return next(_numbers)


def alert_id(number: int) -> str:
    """The id of alert `number`, which receiver.c knows again."""
    return f"bench-{number:07d}"
