"""An HTTP/1.1 client (RFC 9112) with only what a push or a webhook needs: POST, response heads, persistent connections.

A connection has at most one request under way. llhttp, the parser of Node.js, parses the answers (through the package
httptools). The head of an answer (its status line and header fields) may have up to MAX_HEAD_BYTES. The body is
discarded, and may have up to MAX_REST_BYTES. After a longer answer, the connection is closed. It is also closed if
bytes arrive while no request is under way, because these bytes could be taken for the answer to the next request.

A complete HTTP client was tried: aiohttp takes about 240 µs of CPU for each push, and the budget of a push is 300 µs.
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple, cast

import httptools

MAX_HEAD_BYTES = 16_384  # size of an answer's head, with the heads of 1xx answers before it
MAX_REST_BYTES = 32_768  # size of everything after the head, which is skipped: the body with the framing of its chunks
KEPT_S, TIDY_S = 55.0, 5.0  # how long an idle connection is kept; how often that is checked
MAX_KEPT = 1_024  # number of idle connections; beyond it, the one that has been idle longest is closed


class ResponseHead(NamedTuple):
    """The parts of an answer's head that the caller needs: the status and the value of `Retry-After`, if any."""

    status: int
    retry_after: str | None  # the value of the field; if it occurs several times, the last one


def request(authority: str, target: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a POST request.

    Callers must make sure that no argument but the body contains a line break.
    """
    lines = "".join([f"{name}: {text}\r\n" for name, text in fields.items()])
    head = f"POST {target} HTTP/1.1\r\nHost: {authority}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


class ServiceConnection(asyncio.Protocol):
    """A connection to a push service, with at most one request under way."""

    def __init__(self, where: tuple[str, int], connections: "ServiceConnections") -> None:
        """Create a connection to `where`, a host and a port.

        While it is open, the connection is registered with `connections`.
        """
        self.where = where
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport  # set by `connection_made`
        self._parser: httptools.HttpResponseParser | None = None  # set until an answer and its body have been read
        self._answer: asyncio.Future[ResponseHead] | None = None  # set until the head of the answer has been read
        self._retry_after: str | None = None
        self._head_at = 0.0  # when the head was complete, by the loop's clock
        self._head_left = self._rest_left = 0  # numbers of bytes that the answer may still have

    async def exchange(self, data: bytes, until: float) -> ResponseHead:
        """Send a request and return the head of its answer.

        `until` is the deadline, by the event loop's clock. Raise TimeoutError at the deadline, OSError if the
        connection ends, and ValueError if the answer is not valid HTTP. In all three cases the service may have
        received the request.
        """
        answer: asyncio.Future[ResponseHead] = self._loop.create_future()
        self._answer = answer
        self._parser = httptools.HttpResponseParser(self)
        self._head_left, self._rest_left = MAX_HEAD_BYTES, MAX_REST_BYTES
        timer = self._loop.call_at(until, self._fail, TimeoutError())
        self._transport.write(data)
        try:
            return await answer
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Close the connection at once, even during a request."""
        self._parser = None
        self._connections.take(self)
        self._transport.abort()

    def is_slow(self, now: float) -> bool:
        """Return whether an answer takes too long: its body is incomplete about KEPT_S seconds after its head came."""
        return self._answer is None and self._parser is not None and now - self._head_at >= KEPT_S - TIDY_S

    # ---- methods that the transport calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.everyone.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._answer is None:
                self._skip(data)
                return
            self._feed(data[: self._head_left])
            if self._answer is None:
                self._skip(data[self._head_left :])
            else:
                self._head_left -= len(data)
                if self._head_left <= 0:
                    raise ValueError("the head of the answer is too long")
        except (ValueError, httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(ValueError("what came is no answer of HTTP/1.1"))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.take(self)
        self._connections.everyone.discard(self)
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError())

    def _skip(self, data: bytes) -> None:
        """Discard bytes that follow a head: the body, and the sizes of its chunks.

        Close the connection after more than MAX_REST_BYTES.
        """
        self._rest_left -= len(data)
        if self._rest_left < 0:
            self.abort()
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Pass more bytes to the parser. Raise ValueError if no request is under way."""
        if not data:
            return
        if self._parser is None:
            raise ValueError("bytes without a request")
        self._parser.feed_data(data)

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)

    # ---- methods that the parser calls -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Handle the start of an answer. Raise ValueError if no request is under way."""
        if self._answer is None:
            raise ValueError("an answer without a request")
        self._retry_after = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle a header field of an answer: remember the value of `Retry-After`, and ignore all others."""
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Handle the end of an answer's head: `exchange` returns the head to its caller."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            return  # the final answer follows; after 101 the parser raises an error
        self._head_at = self._loop.time()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(ResponseHead(status, self._retry_after))
        if not self._parser.should_keep_alive():
            self.abort()

    def on_message_complete(self) -> None:
        """Handle the end of an answer: the connection can be used for another request."""
        if self._answer is None and self._parser is not None:
            self._parser = None
            self._connections.keep(self)


class ServiceConnections:
    """All open connections to push services. They belong to one event loop."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        """Create an empty set. The connections use TLS unless `tls` is None."""
        self._tls = tls
        self.everyone: set[ServiceConnection] = set()  # all open connections
        # Idle connections and when each became idle; the one that has been idle longest comes first.
        self._waiting: dict[ServiceConnection, float] = {}
        self._kept: dict[tuple[str, int], dict[ServiceConnection, None]] = {}  # the idle connections, by host and port
        self._tidying: asyncio.TimerHandle | None = None

    def kept(self, host: str, port: int) -> ServiceConnection | None:
        """Return an idle connection to this host and port for a request, or None if there is none.

        The connection is then in use and not available to other callers. If there are several, the one that became idle
        last is returned.
        """
        kept = self._kept.get((host, port))
        if not kept:
            return None
        connection = next(reversed(kept))
        self.take(connection)
        return connection

    def keep(self, connection: ServiceConnection) -> None:
        """Make an idle connection available, so that `kept` can return it for another request."""
        self._waiting[connection] = asyncio.get_running_loop().time()
        self._kept.setdefault(connection.where, {})[connection] = None
        if len(self._waiting) > MAX_KEPT:
            next(iter(self._waiting)).abort()

    def take(self, connection: ServiceConnection) -> None:
        """Make a connection unavailable, so that `kept` no longer returns it. Do nothing if it was not available."""
        if self._waiting.pop(connection, None) is not None:
            kept = self._kept[connection.where]
            del kept[connection]
            if not kept:
                del self._kept[connection.where]

    async def connect(self, host: str, port: int, address: str) -> ServiceConnection:
        """Open a connection to an IP address.

        Raise OSError if that fails, or if the certificate is not valid for `host`.
        """
        loop = asyncio.get_running_loop()
        if self._tidying is None:
            self._tidying = loop.call_later(TIDY_S, self._tidy)
        _, connection = await loop.create_connection(
            lambda: ServiceConnection((host, port), self),
            address,
            port,
            ssl=self._tls,
            server_hostname=host if self._tls else None,
        )
        return connection

    def close(self) -> None:
        """Close all connections at once, even during requests."""
        if self._tidying is not None:
            self._tidying.cancel()
        for connection in list(self.everyone):
            connection.abort()

    def _tidy(self) -> None:
        """Close connections that have been idle for too long, and those whose answers take too long to be complete."""
        loop = asyncio.get_running_loop()
        for connection in [each for each in self.everyone if each.is_slow(loop.time())]:
            connection.abort()
        for connection, since in list(self._waiting.items()):
            if loop.time() - since >= KEPT_S - TIDY_S:
                connection.abort()
        self._tidying = loop.call_later(TIDY_S, self._tidy)
