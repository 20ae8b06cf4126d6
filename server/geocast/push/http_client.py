"""POST requests over HTTP/1.1 on persistent connections, to push services and to the targets of `geocast relay`.

Push services are not trusted (rules WPO4, WPO5), and targets are not trusted much more (WH7): redirects are not
followed, cookies and bodies are discarded, and the proxies that environment variables name are not used. This process
resolves host names itself and connects only to IP addresses that were checked (`egress`).
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from .. import failpoints
from ..clock import Clock
from ..egress.host_addresses import HostAddresses
from ..egress.http_times import parse_retry_after
from .client import Push, PushResponse
from .http1 import ServiceConnection, ServiceConnections, request
from .service_limits import PushOutcome, outcome_of

NOT_SENT = "not sent"  # the status if `may_send` said no
PATIENCE_S = 10.0  # longest wait for an answer, including the time to connect


class HttpPostClient:
    """Sends POST requests to hosts whose addresses were checked. Call `open` first."""

    def __init__(self, clock: Clock, private: Collection[str], tls: ssl.SSLContext | None) -> None:
        """Create a client.

        Hosts in `private` may have internal addresses. If `tls` is None, requests are sent without TLS.
        """
        self._clock = clock
        self._names = HostAddresses(frozenset(private))  # addresses of known hosts
        self._other_names = HostAddresses(frozenset(private))  # of others: anybody may run their name servers (HD2)
        self._connections = ServiceConnections(tls)
        self._loop: asyncio.AbstractEventLoop  # set by `open`; looking it up costs a system call

    def open(self) -> Self:
        """Use this client on the event loop that is running now. Return the client itself."""
        self._loop = asyncio.get_running_loop()
        return self

    def close(self) -> None:
        """Close all connections at once, even during requests."""
        self._connections.close()

    async def post(
        self,
        host: str,
        port: int,
        data: bytes,
        within_s: float,
        *,
        is_known: bool = True,
        may_send: Callable[[], bool] = lambda: True,
    ) -> PushResponse:
        """Send the bytes of a request to a host, and return the result after at most `within_s` seconds.

        If the connection is open and `may_send` returns false, nothing is sent. Addresses of hosts with `is_known`
        false are cached apart from those of others.
        """
        until = self._loop.time() + within_s
        connection = self._connections.kept(host, port)
        try:
            if connection is None:
                async with asyncio.timeout_at(until):
                    connection = await self._connect(host, port, self._names if is_known else self._other_names)
        except TimeoutError:
            return PushResponse(PushOutcome.AWAY, "no answer")
        except OSError:  # or the TLS handshake failed
            return PushResponse(PushOutcome.AWAY, "no connection")
        if not may_send():
            self._connections.keep(connection)
            return PushResponse(PushOutcome.AWAY, NOT_SENT)
        try:
            head = await connection.exchange(data, until)
        except TimeoutError:
            return PushResponse(PushOutcome.MAYBE, "no answer")
        except (OSError, ValueError):  # the connection ended, or the answer is not valid HTTP
            return PushResponse(PushOutcome.MAYBE, "broken")
        failpoints.hit("push-answered")
        return PushResponse(
            outcome_of(head.status), str(head.status), parse_retry_after(head.retry_after, self._clock.now().wall_ms)
        )

    async def connect(self, host: str, port: int) -> str:
        """Open a connection to a host and close it. Return "", or a few words about what went wrong."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                connection = await self._connect(host, port, self._names)
        except TimeoutError:
            return "no answer"
        except ssl.SSLError:
            return "the TLS handshake failed"
        except OSError as error:  # the text of an error of the system has the address
            return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        connection.abort()
        return ""

    async def _connect(self, host: str, port: int, names: HostAddresses) -> ServiceConnection:
        """Return a connection to the first of the host's addresses that accepts one.

        Raise OSError if no address accepts a connection.
        """
        failed = OSError("no address that may be connected to")
        addresses = await names.addresses(host, port)
        for address in addresses:
            try:
                async with asyncio.timeout(PATIENCE_S / len(addresses)):  # leave time for the other addresses
                    return await self._connections.connect(host, port, address)
            except OSError as error:
                failed = error
        raise failed


class HttpPushClient(HttpPostClient):
    """Sends pushes to push services on the internet. Use it as an asynchronous context manager."""

    def __init__(self, clock: Clock, private: Collection[str] = (), tls: ssl.SSLContext | None = None) -> None:
        """Create a client.

        Hosts in `private` may have internal addresses. If `tls` is None, the system's certificate authorities are
        trusted.
        """
        super().__init__(clock, private, tls or ssl.create_default_context())

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def send(self, push: Push, within_s: float) -> PushResponse:
        where, data = push.endpoint, _request(push)
        return await self.post(where.host, where.port, data, min(PATIENCE_S, within_s), is_known=push.is_known)


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
