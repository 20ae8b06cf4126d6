"""POST requests over HTTP/1.1 on persistent connections, to push services and to the targets of `geocast relay`.

Push services are not trusted (rules WPO4, WPO5), and targets are not trusted much more (WH7): redirects are not
followed, cookies and bodies are discarded, and the proxies that environment variables name are not used. This process
resolves host names itself and connects only to IP addresses that were checked (`addresses`).
"""

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Collection
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

from .. import failpoints
from ..clock import Clock
from .addresses import allowed_addresses
from .client import Push, PushResponse
from .http1 import ServiceConnection, ServiceConnections, request
from .service_limits import PushOutcome, outcome_of

NOT_SENT = "not sent"  # the status if `may_send` said no
PATIENCE_S = 10.0  # longest wait for an answer, including the time to connect
NAMES_S = 60.0  # age of addresses at which the name is looked up again when it is used
STALE_S, REFRESH_S = 3_600.0, 1.0  # addresses up to this age are used when a new lookup takes longer than this
NAMES, LOOKUPS = 1_024, 64  # limits on the names that are cached and on the lookups under way


class HttpPostClient:
    """Sends POST requests to hosts whose addresses were checked. Call `open` first."""

    def __init__(self, clock: Clock, private: Collection[str], tls: ssl.SSLContext | None) -> None:
        """Create a client.

        Hosts in `private` may have internal addresses. If `tls` is None, requests are sent without TLS.
        """
        self._clock = clock
        self._names = _Names(frozenset(private))  # addresses of known hosts
        self._other_names = _Names(frozenset(private))  # of unknown hosts, whose name servers anybody may run (HD2)
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
        return PushResponse(outcome_of(head.status), str(head.status), self._retry_after_s(head.retry_after))

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

    async def _connect(self, host: str, port: int, names: "_Names") -> ServiceConnection:
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

    def _retry_after_s(self, text: str | None) -> float | None:
        """Return the seconds that a `Retry-After` field asks for (RFC 9110, 10.2.3).

        Return None if the field is missing or invalid.
        """
        if text is None:
            return None
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return parsedate_to_datetime(text).timestamp() - self._clock.now().wall_ms / 1000
        except (TypeError, ValueError, OverflowError):
            return None


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


class _Name:
    """The addresses that the last lookup of a host name has found, and the lookup in progress, if there is one."""

    def __init__(self) -> None:
        self.addresses: list[str] | None = None
        self.found_at = 0.0  # when the addresses were found, by the loop's clock
        self.lookup: asyncio.Future[list[str]] | None = None


class _Names:
    """A cache of the addresses of host names. Addresses that may not be connected to are left out.

    The system's resolver may take half a minute for a name. So each lookup has a thread of its own, and at most LOOKUPS
    lookups run at once. If an earlier lookup has found addresses, callers wait at most REFRESH_S seconds for newer
    ones.
    """

    def __init__(self, private: Collection[str]) -> None:
        self._private = private
        self._names: dict[tuple[str, int], _Name] = {}
        self._lookups = 0

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to.

        Raise OSError if the lookup fails, or if too many lookups are in progress.
        """
        now = asyncio.get_running_loop().time()
        name = self._names.get((host, port))
        if name is None:
            if len(self._names) >= NAMES:
                del self._names[next(key for key, each in self._names.items() if each.lookup is None)]
            name = self._names[host, port] = _Name()
        age_s = now - name.found_at
        usable = name.addresses if age_s < STALE_S else None
        if usable is not None and age_s < NAMES_S:
            return usable
        if name.lookup is None and self._lookups < LOOKUPS:
            name.lookup = self._look_up(name, host, port)
        lookup = name.lookup
        if lookup is not None:  # many callers may wait for it, so one that is cancelled must not cancel it
            await asyncio.wait([lookup], timeout=None if usable is None else REFRESH_S)
            if lookup.done() and (usable is None or lookup.exception() is None):
                return lookup.result()
        if usable is None:
            raise OSError("too many names are looked up")
        return usable

    def _look_up(self, name: _Name, host: str, port: int) -> asyncio.Future[list[str]]:
        self._lookups += 1
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[list[str]] = loop.create_future()
        lookup.add_done_callback(lambda _: lookup.exception())  # retrieve the error even if no caller is left

        def done(found: list[str] | OSError) -> None:
            self._lookups -= 1
            name.lookup = None
            if isinstance(found, OSError):
                lookup.set_exception(found)
                return
            name.addresses, name.found_at = allowed_addresses(host, found, self._private), loop.time()
            lookup.set_result(name.addresses)

        def resolve() -> None:
            found: list[str] | OSError
            try:
                every = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(where[0]) for _, _, _, _, where in every))
            except (OSError, UnicodeError) as error:
                found = error if isinstance(error, OSError) else OSError("not a name")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done, found)

        # The thread is a daemon, so the process can exit during a lookup.
        threading.Thread(target=resolve, daemon=True).start()
        return lookup
