"""Two push services that accept every push, and use little CPU, so that they don't slow down the measured process.

The services use TLS, keep connections open and answer 201 to each POST. They record when each push came, for which
phone, and with which Urgency and Topic. They verify and decrypt nothing, because the tests do that. A service can be
made to hang: it then accepts requests and answers none.
"""

import asyncio
import datetime as dt
import functools
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import click
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench import processes

HOST = "localhost"
SERVICES = 2
_END = b"\r\n\r\n"
_PATH = re.compile(rb"POST /(\d+) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_URGENCY = re.compile(rb"\r\nurgency: (\w+)", re.IGNORECASE)
_TOPIC = re.compile(rb"\r\ntopic: ([\w-]+)", re.IGNORECASE)
_CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"


class Taken(NamedTuple):
    """A push that a service received.

    `when_ns` is a time of the monotonic clock, which is the same in all processes.
    """

    when_ns: int
    service: int
    phone: int
    urgency: str
    topic: bytes


class PushServices:
    """The push services, which run in a process of their own, and the pipe to that process."""

    def __init__(self, pipe: Connection, certificate: Path) -> None:
        self._pipe = pipe
        self.certificate = certificate
        self.ports: list[int] = pipe.recv()

    def endpoint(self, phone: int) -> str:
        """Return the URL at which a phone gets its pushes. The phones are divided evenly among the services."""
        return f"https://{HOST}:{self.ports[phone % SERVICES]}/{phone}"

    def count(self) -> int:
        """Return the number of pushes received since the last call of `take`."""
        return int(self._ask("count"))

    def take(self) -> list[Taken]:
        """Return the pushes received since the last call, in the order in which they came."""
        return [Taken(*each) for each in self._ask("take")]

    def hang(self, service: int, *, hangs: bool) -> None:
        """If `hangs` is true, make a service leave requests unanswered; otherwise, make it answer them again."""
        self._ask("hang", service, hangs)

    def _ask(self, *words: object) -> Any:
        self._pipe.send(words)
        if not self._pipe.poll(processes.PATIENCE_S):
            raise click.ClickException("the push services of the benchmark do not answer")
        return self._pipe.recv()

    def end(self) -> None:
        """End the process of the services."""
        self._pipe.send(("end",))


@contextmanager
def push_services(home: Path) -> Iterator[PushServices]:
    """Run the push services on the cores of this process."""
    certificate = _make_certificate(home)
    with processes.beside(_serve, str(certificate)) as pipe:
        services = PushServices(pipe, certificate)
        yield services
        services.end()


def _make_certificate(home: Path) -> Path:
    """Write a self-signed certificate and its key, valid for a day, to one file; return the path of the file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = home / "push-services.pem"
    path.write_bytes(signed.public_bytes(pem) + private)
    return path


# ---- code that runs in the process of the services -----------------------------------------------------------------


def _serve(certificate: str, pipe: Connection) -> None:
    processes.raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_answer(certificate, pipe))


async def _answer(certificate: str, pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    taken: list[tuple[int, int, int, str, bytes]] = []
    hanging: set[int] = set()

    servers = [
        await loop.create_server(
            functools.partial(_Connection, number, taken, hanging), "127.0.0.1", 0, ssl=tls, backlog=1_024
        )
        for number in range(SERVICES)
    ]
    pipe.send([server.sockets[0].getsockname()[1] for server in servers])

    def hear() -> None:
        """Read commands from the pipe, and reply to each, until the command `end` comes.

        This function runs in a thread, because an event loop would make the pipe non-blocking, and the replies are
        large.
        """
        what, *words = pipe.recv()
        while what != "end":
            if what == "hang":
                (hanging.add if words[1] else hanging.discard)(words[0])
                pipe.send(None)
            elif what == "count":
                pipe.send(len(taken))
            else:
                found = taken.copy()
                del taken[: len(found)]
                pipe.send(found)
            what, *words = pipe.recv()

    await asyncio.to_thread(hear)


class _Connection(asyncio.Protocol):
    """A connection to one of the push services."""

    def __init__(self, number: int, taken: list[tuple[int, int, int, str, bytes]], hanging: set[int]) -> None:
        self._number = number
        self._taken = taken
        self._hanging = hanging
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            head = self._data[:end]
            path, length = _PATH.match(head), _LENGTH.search(head)
            if path is None or length is None:
                self._transport.abort()
                return
            whole = end + len(_END) + int(length[1])
            if len(self._data) < whole:
                return
            self._data = self._data[whole:]
            self._take(int(path[1]), head)

    def _take(self, phone: int, head: bytes) -> None:
        if self._number in self._hanging:
            return
        urgency, topic = _URGENCY.search(head), _TOPIC.search(head)
        if urgency is None or topic is None:
            self._transport.abort()
            return
        self._taken.append((time.monotonic_ns(), self._number, phone, urgency[1].decode(), topic[1]))
        self._transport.write(_CREATED)
