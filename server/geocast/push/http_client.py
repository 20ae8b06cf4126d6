"""Pushes over HTTP/1.1 on persistent connections (rules WPO4, WPO5).

Push services are not trusted: redirects are not followed, cookies and bodies are discarded, and the proxies that
environment variables name are not used. This process resolves host names itself and connects only to IP addresses that
were checked (`egress`).
"""

import asyncio
import ssl
from collections.abc import Collection
from types import TracebackType

from .. import failpoints
from ..clock import Clock
from ..egress.host_addresses import HostAddresses
from ..egress.http_times import parse_retry_after
from .addresses import Endpoint
from .client import Push, PushResponse
from .http1 import ServiceConnection, ServiceConnections, request
from .service_limits import PushOutcome, outcome_of

PATIENCE_S = 10.0  # longest wait for an answer, including the time to connect


class HttpPushClient:
    """Sends pushes to push services on the internet. Use it as an asynchronous context manager."""

    def __init__(self, clock: Clock, private: Collection[str] = (), tls: ssl.SSLContext | None = None) -> None:
        """Create a client.

        Hosts in `private` may have internal addresses. If `tls` is None, the system's certificate authorities are
        trusted.
        """
        self._clock = clock
        self._names = HostAddresses(frozenset(private))  # addresses of known hosts
        self._other_names = HostAddresses(
            frozenset(private)
        )  # of unknown hosts; anybody may run their name servers (HD2)
        self._connections = ServiceConnections(tls or ssl.create_default_context())
        self._loop: asyncio.AbstractEventLoop  # set by `__aenter__`; looking it up costs a system call

    async def __aenter__(self) -> "HttpPushClient":
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connections.close()

    async def send(self, push: Push, within_s: float) -> PushResponse:
        endpoint, until = push.endpoint, self._loop.time() + min(PATIENCE_S, within_s)
        connection = self._connections.kept(endpoint.host, endpoint.port)
        try:
            if connection is None:
                async with asyncio.timeout_at(until):
                    connection = await self._connect(endpoint, self._names if push.is_known else self._other_names)
        except TimeoutError:
            return PushResponse(PushOutcome.AWAY, "no answer")
        except OSError:  # or the TLS handshake failed
            return PushResponse(PushOutcome.AWAY, "no connection")
        try:
            head = await connection.exchange(_request(push), until)
        except TimeoutError:
            return PushResponse(PushOutcome.MAYBE, "no answer")
        except (OSError, ValueError):  # the connection ended, or the answer is not valid HTTP
            return PushResponse(PushOutcome.MAYBE, "broken")
        failpoints.hit("push-answered")
        return PushResponse(
            outcome_of(head.status), str(head.status), parse_retry_after(head.retry_after, self._clock.now().wall_ms)
        )

    async def _connect(self, endpoint: Endpoint, names: HostAddresses) -> ServiceConnection:
        """Return a connection to the first of the host's addresses that accepts one.

        Raise OSError if no address accepts a connection.
        """
        failed = OSError("no address that may be connected to")
        addresses = await names.addresses(endpoint.host, endpoint.port)
        for address in addresses:
            try:
                async with asyncio.timeout(PATIENCE_S / len(addresses)):  # leave time for the other addresses
                    return await self._connections.connect(endpoint.host, endpoint.port, address)
            except OSError as error:
                failed = error
        raise failed


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
