"""Pushes over HTTP/1.1, with connections that are kept (WPO4, WPO5).

Nothing of a service is trusted: no redirect is followed, no cookie kept, no proxy of the environment used, no body
kept. Its name is resolved here, and a connection goes to an address that was looked at (`addresses`). HTTP is spoken by
`post`, which does no more than this takes.
"""

import asyncio
import socket
import ssl
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from types import TracebackType

from .. import failpoints
from ..clock import Clock
from .addresses import Endpoint, allowed_addresses
from .lanes import Outcome, outcome_of
from .post import Connection, Connections, request
from .ringer import Answer, Push

PATIENCE_S = 10.0  # for an answer, the connection included
NAMES_S = 60.0  # for how long the addresses of a name are kept


class HttpRinger:
    """Sends pushes to the services of the internet. It is open for as long as the block runs."""

    def __init__(self, clock: Clock, private: Collection[str] = (), tls: ssl.SSLContext | None = None) -> None:
        """`private`: hosts that may be on one's own network; `tls`: whose certificates are good, or the system's."""
        self._clock = clock
        self._names = _Names(frozenset(private))
        self._connections = Connections(tls or ssl.create_default_context())
        self._loop: asyncio.AbstractEventLoop  # from `__aenter__` on: to ask for it takes a system call each time

    async def __aenter__(self) -> "HttpRinger":
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connections.close()

    async def ring(self, push: Push, within_s: float) -> Answer:
        endpoint, until = push.endpoint, self._loop.time() + min(PATIENCE_S, within_s)
        connection = self._connections.kept(endpoint.host, endpoint.port)
        try:
            if connection is None:
                async with asyncio.timeout_at(until):
                    connection = await self._connect(endpoint)
        except TimeoutError:
            return Answer(Outcome.FAILED, "no answer")
        except OSError:  # TLS included
            return Answer(Outcome.FAILED, "no connection")
        try:
            head = await connection.exchange(_request(push), until)
        except TimeoutError:
            return Answer(Outcome.MAYBE, "no answer")
        except (OSError, ValueError):  # the connection ended, or what came is no HTTP
            return Answer(Outcome.MAYBE, "broken")
        failpoints.hit("push-answered")
        return Answer(outcome_of(head.status), str(head.status), self._retry_after_s(head.retry_after))

    async def _connect(self, endpoint: Endpoint) -> Connection:
        """A new connection, to the first address of the host that takes it. Raises OSError."""
        failed = OSError("no address that may be connected to")
        addresses = await self._names.addresses(endpoint.host, endpoint.port)
        for address in addresses:
            try:
                async with asyncio.timeout(PATIENCE_S / len(addresses)):  # one that is silent leaves the others time
                    return await self._connections.connect(endpoint.host, endpoint.port, address)
            except OSError as error:
                failed = error
        raise failed

    def _retry_after_s(self, text: str | None) -> float | None:
        """Retry-After in seconds (RFC 9110, 10.2.3), if there is one that can be read."""
        if text is None:
            return None
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return parsedate_to_datetime(text).timestamp() - self._clock.now().wall_ms / 1000
        except (TypeError, ValueError, OverflowError):
            return None


def _request(push: Push) -> bytes:
    endpoint = push.endpoint
    fields = {
        "Authorization": push.authorization,
        "Content-Encoding": "aes128gcm",
        "TTL": str(push.ttl_s),
        "Urgency": push.urgency,
        "Topic": push.topic,
    }
    return request(endpoint.authority, endpoint.target, fields, push.body)


class _Names:
    """The addresses of names, by the system's resolver, without those that may not be connected to."""

    def __init__(self, private: Collection[str]) -> None:
        self._private = private
        self._asked: dict[tuple[str, int], tuple[float, asyncio.Task[list[str]]]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """All that may be connected to, asked for anew after NAMES_S. Raises OSError if the name has none at all."""
        now = asyncio.get_running_loop().time()
        until, task = self._asked.get((host, port), (now, None))
        if task is None or now >= until or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.get_running_loop().create_task(self._resolve(host, port))
            self._asked[host, port] = now + NAMES_S, task
        return await asyncio.shield(task)  # many wait for it, and one of them may give up

    async def _resolve(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(where[0]) for _, _, _, _, where in found)
        return allowed_addresses(host, addresses, self._private)
