"""As much of HTTP/1.1 (RFC 9112) as a push takes: POST over TLS, an answer's head, and connections that are kept.

A connection has one request under way. What comes is read by llhttp, the parser of Node.js (httptools). Of an answer
the head is kept, with MAX_HEAD_BYTES at most, and a small body is passed over; after anything else the connection ends.
So it does when it is sent what nobody has asked for: that could be taken for the answer to the next request.

A whole client was tried: aiohttp takes some 240 µs for each push, and all of one is to take 300 (bench push).
"""

import asyncio
import ssl
from collections.abc import Mapping
from typing import NamedTuple, cast

import httptools

MAX_HEAD_BYTES = 16_384  # of an answer, with those that come before it (1xx)
MAX_REST_BYTES = 32_768  # that are passed over behind it: a body, and what is around its chunks
KEPT_S, TIDY_S = 55.0, 5.0  # for how long a connection without a request is kept; how often that is looked at
MAX_KEPT = 1_024  # connections without a request; beyond it the one that has waited longest ends


class ResponseHead(NamedTuple):
    """What counts in the head of an answer."""

    status: int
    retry_after: str | None  # as it stands there; of several the last


def request(authority: str, target: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """A POST. The caller answers for it that nothing in it has a line break."""
    lines = "".join([f"{name}: {text}\r\n" for name, text in fields.items()])
    head = f"POST {target} HTTP/1.1\r\nHost: {authority}\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


class ServiceConnection(asyncio.Protocol):
    """A connection to a service."""

    def __init__(self, where: tuple[str, int], connections: "ServiceConnections") -> None:
        """`where` is the host and the port; `connections` has it while it is open."""
        self.where = where
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport  # from `connection_made` on
        self._parser: httptools.HttpResponseParser | None = None  # while an answer and its body are to come
        self._answer: asyncio.Future[ResponseHead] | None = None  # while its head is
        self._retry_after: str | None = None
        self._head_at = 0.0  # when the head had come, by the loop's clock
        self._head_left = self._rest_left = 0  # bytes that may come

    async def exchange(self, data: bytes, until: float) -> ResponseHead:
        """Send a request, and wait for its answer, no longer than until then, by the loop's clock.

        Raises TimeoutError; OSError if the connection ends; ValueError if what comes is no HTTP. It may have been sent.
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
        """End it at once, whatever is under way."""
        self._parser = None
        self._connections.take(self)
        self._transport.abort()

    def is_slow(self, now: float) -> bool:
        """Whether it is long since the head of an answer came, and what follows is not there yet."""
        return self._answer is None and self._parser is not None and now - self._head_at >= KEPT_S - TIDY_S

    # ---- what the transport calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.everyone.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._answer is None:
                self._pass_over(data)
                return
            self._feed(data[: self._head_left])
            if self._answer is None:
                self._pass_over(data[self._head_left :])
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

    def _pass_over(self, data: bytes) -> None:
        """Take some of what follows a head: a body with all that is around it, which is bounded as well."""
        self._rest_left -= len(data)
        if self._rest_left < 0:
            self.abort()
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Have some more read; raises ValueError for what nobody has asked for."""
        if not data:
            return
        if self._parser is None:
            raise ValueError("nothing is to come")
        self._parser.feed_data(data)

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)

    # ---- what the parser calls ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Note that an answer begins; nobody may send one unasked."""
        if self._answer is None:
            raise ValueError("an answer that nobody has asked for")
        self._retry_after = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note one line of its head."""
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Hand over the head, which is whole."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            return  # another one follows; with 101 the parser gives up
        self._head_at = self._loop.time()
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(ResponseHead(status, self._retry_after))
        if not self._parser.should_keep_alive():
            self.abort()

    def on_message_complete(self) -> None:
        """Keep the connection: all of the answer has come."""
        if self._answer is None and self._parser is not None:
            self._parser = None
            self._connections.keep(self)


def pass_over_late_writes(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """Handle an error that nobody has caught, as a loop does by itself; but none of TLS on a connection that has ended.

    uvloop may still have something to write behind what a service has said, such as that it closes, where we have
    ended the connection at what it said before; and writes a traceback when it finds it closed.
    """
    is_of_tls = context.get("message") == "Fatal error on SSL protocol"
    if not (is_of_tls and isinstance(context.get("exception"), RuntimeError)):
        loop.default_exception_handler(context)


class ServiceConnections:
    """Those to all services. They belong to one loop."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self.everyone: set[ServiceConnection] = set()  # that are open
        self._waiting: dict[
            ServiceConnection, float
        ] = {}  # for a request, since when; who has waited longest is the first
        self._kept: dict[tuple[str, int], dict[ServiceConnection, None]] = {}  # the same, by host and port
        self._tidying: asyncio.TimerHandle | None = None

    def kept(self, host: str, port: int) -> ServiceConnection | None:
        """A connection that waits for a request, of which it is the caller's, if there is one; the last to come."""
        kept = self._kept.get((host, port))
        if not kept:
            return None
        connection = next(reversed(kept))
        self.take(connection)
        return connection

    def keep(self, connection: ServiceConnection) -> None:
        """Keep a connection for the next request."""
        self._waiting[connection] = asyncio.get_running_loop().time()
        self._kept.setdefault(connection.where, {})[connection] = None
        if len(self._waiting) > MAX_KEPT:
            next(iter(self._waiting)).abort()

    def take(self, connection: ServiceConnection) -> None:
        """Have a connection wait for a request no more, if it does."""
        if self._waiting.pop(connection, None) is not None:
            kept = self._kept[connection.where]
            del kept[connection]
            if not kept:
                del self._kept[connection.where]

    async def connect(self, host: str, port: int, address: str) -> ServiceConnection:
        """A new connection to this address, whose certificate is good for the host. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._tidying is None:
            loop.set_exception_handler(pass_over_late_writes)
            self._tidying = loop.call_later(TIDY_S, self._tidy)
        _, connection = await loop.create_connection(
            lambda: ServiceConnection((host, port), self), address, port, ssl=self._tls, server_hostname=host
        )
        return connection

    def close(self) -> None:
        """End all of them at once, whatever is under way."""
        if self._tidying is not None:
            self._tidying.cancel()
        for connection in list(self.everyone):
            connection.abort()

    def _tidy(self) -> None:
        """End those that have waited for too long, for a request or for the rest of an answer."""
        loop = asyncio.get_running_loop()
        for connection in [each for each in self.everyone if each.is_slow(loop.time())]:
            connection.abort()
        for connection, since in list(self._waiting.items()):
            if loop.time() - since >= KEPT_S - TIDY_S:
                connection.abort()
        self._tidying = loop.call_later(TIDY_S, self._tidy)
