"""POST requests over HTTP/1.1 on persistent connections, to push services and to the targets of `geocast relay`.

Push services are not trusted (rules WPO4, WPO5), and targets are not trusted much more (WH7): redirects are not
followed, cookies and bodies are discarded, and the proxies that environment variables name are not used. This process
resolves host names itself and connects only to IP addresses that were checked.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Collection
from typing import Self

from .host_addresses import HostAddresses
from .http1 import ServiceConnection, ServiceConnections
from .http_times import parse_retry_after
from .outcomes import PostOutcome, PostResponse, outcome_of

NOT_SENT = "not sent"  # the status if `may_send` said no
PATIENCE_S = 10.0  # longest wait for an answer, including the time to connect


class HttpPostClient:
    """Sends POST requests to hosts whose addresses were checked. Call `open` first."""

    def __init__(self, wall_ms: Callable[[], int], private: Collection[str], tls: ssl.SSLContext | None) -> None:
        """Create a client.

        `wall_ms` returns the time of the wall clock. Hosts in `private` may have internal addresses. If `tls` is None,
        requests are sent without TLS.
        """
        self._wall_ms = wall_ms
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
    ) -> PostResponse:
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
            return PostResponse(PostOutcome.AWAY, "no answer")
        except OSError:  # or the TLS handshake failed
            return PostResponse(PostOutcome.AWAY, "no connection")
        if not may_send():
            self._connections.keep(connection)
            return PostResponse(PostOutcome.AWAY, NOT_SENT)
        try:
            head = await connection.exchange(data, until)
        except TimeoutError:
            return PostResponse(PostOutcome.MAYBE, "no answer")
        except (OSError, ValueError):  # the connection ended, or the answer is not valid HTTP
            return PostResponse(PostOutcome.MAYBE, "broken")
        return PostResponse(
            outcome_of(head.status), str(head.status), parse_retry_after(head.retry_after, self._wall_ms())
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
