"""GET requests to feeds and to the links in them, which strangers may have written (rules FE1 to FE3).

A request goes only to hosts of the feed's table, and only to checked addresses (`egress`). Redirects are followed
within these hosts. Every answer has a limit on its time and its size, before and after decompression. Cookies are not
kept, and proxies of environment variables are not used. At most AT_ONCE requests to a host are under way at once.
"""

import asyncio
import codecs
import contextlib
import ssl
import weakref
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import quote, urljoin

import httpcore

from ... import __version__
from ...clock import Clock
from ...egress.host_addresses import HostAddresses
from ...egress.http_times import parse_retry_after
from ..cap.xml import ENCODINGS
from .settings import WatchedFeed, host_of

GET_S = 30.0  # the time limit for one request: name resolution, connection, TLS, request and answer
MAX_REDIRECTS = 3
AT_ONCE = 4  # the most requests to one host at a time
MAX_SLOW = 1_000  # the most URLs of a host that are remembered because they timed out
MAX_HELD_BYTES, SMALL_BYTES = 32 * 1024 * 1024, 16 * 1024  # of all answers together; of one that is always accepted
OLDEST_S = 2.0  # how long the oldest answer under way may take while others wait for its room
MAX_LINK = 2_000  # the most characters of a link
KEPT_S = 120.0  # how long an idle connection is kept
_PER_ADDRESS_S = 10.0
_REDIRECTS = (301, 302, 303, 307, 308)
_SAFE = "%/:=&?~#+!$,;'@()*[]-._"  # characters of a URL that are left as they are
_ACCEPT = b"application/cap+xml, application/atom+xml, application/rss+xml, application/xml, text/xml;q=0.9, */*;q=0.1"


class FetchFailed(Exception):  # noqa: N818
    """Raised if a document can't be fetched now. `reason` is a fixed word, without any text of the answer."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class LinkNotAllowed(FetchFailed):
    """Raised if a URL names a host or a scheme that the feed's table does not allow, so nothing was asked."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Fetched:
    """An answer with status 200, or 304 with an empty body. Names of header fields are in lower case."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def charset(self) -> str | None:
        """The charset of `Content-Type`, if it is one that a node accepts."""
        message = Message()
        message["Content-Type"] = self.headers.get("content-type", "")
        name = message.get_content_charset()
        try:
            return name if name is not None and codecs.lookup(name).name in ENCODINGS else None
        except (LookupError, ValueError):
            return None


class HostQueues:
    """The requests of all feeds: AT_ONCE for each host, of which URLs that timed out share one.

    All answers together have at most MAX_HELD_BYTES, apart from small ones. Answers wait for room, which does not count
    as time of their requests. If only answers under way take all of it, the oldest goes on, for at most OLDEST_S.
    """

    def __init__(self) -> None:
        self._hosts: defaultdict[str, _Host] = defaultdict(_Host)
        self._sizes: dict[asyncio.Timeout, int] = {}  # of the answers under way that are not small, the oldest first
        self._held = self._complete = 0
        self._oldest: tuple[asyncio.Timeout | None, float] = (None, 0.0)  # and until when it may go on
        self._released = asyncio.Event()

    def is_slow(self, host: str, url: str) -> bool:
        """Return whether the last request for a URL timed out. The host is given as HOST:PORT."""
        return host in self._hosts and url in self._hosts[host].slow

    @contextlib.asynccontextmanager
    async def turn(self, host: str, url: str) -> AsyncIterator[None]:
        """Wait until a URL of a host may be requested."""
        of = self._hosts[host]
        async with of.slow_turn if url in of.slow else contextlib.nullcontext(), of.turns:
            try:
                yield
            except FetchFailed as error:
                if error.reason == "timeout":
                    of.slow[url] = None
                    if len(of.slow) > MAX_SLOW:
                        del of.slow[next(iter(of.slow))]
                raise
            of.slow.pop(url, None)

    def grow(self, limit: asyncio.Timeout, size: int) -> None:
        """Take note that the answer of a request with this time limit is not small, and has now this size."""
        self._held += size - self._sizes.get(limit, 0)
        self._sizes[limit] = size

    async def room(self, limit: asyncio.Timeout) -> None:
        """Wait until an answer that is not small may grow."""
        if not self._is_full(limit):
            return
        now = asyncio.get_running_loop().time
        left_s = (limit.when() or 0.0) - now()
        limit.reschedule(None)
        while self._is_full(limit):
            wait_s = None
            if not self._complete:
                oldest = next(iter(self._sizes))
                if oldest is limit:
                    break
                if oldest is not self._oldest[0]:
                    self._oldest = oldest, now() + OLDEST_S
                wait_s = self._oldest[1] - now()
                if wait_s <= 0:
                    self.end(oldest)
                    oldest.reschedule(now())
                    continue
            self._released.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._released.wait()
        limit.reschedule(now() + left_s)

    def _is_full(self, limit: asyncio.Timeout) -> bool:
        return self._held > max(MAX_HELD_BYTES, self._sizes.get(limit, 0))

    def keep(self, limit: asyncio.Timeout, answer: Fetched) -> None:
        """Count a complete answer until nobody uses it any more."""
        size = self._sizes.pop(limit, 0)
        self._complete += size
        weakref.finalize(answer, self._release, size, size)

    def end(self, limit: asyncio.Timeout) -> None:
        """Stop counting the answer of a request that has ended."""
        self._release(self._sizes.pop(limit, 0))

    def _release(self, size: int, complete: int = 0) -> None:
        self._held -= size
        self._complete -= complete
        self._released.set()


class _Host:
    """The requests to one host. `slow` has the URLs that timed out, in the order in which they did."""

    def __init__(self) -> None:
        self.turns, self.slow_turn = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
        self.slow: dict[str, None] = {}


class FeedClient:
    """Fetches the documents of one feed on kept connections. Call `close` at the end."""

    def __init__(self, feed: WatchedFeed, queues: HostQueues, clock: Clock) -> None:
        self._feed = feed
        self.queues = queues
        self._clock = clock
        private = {each.rpartition(":")[0] for each in feed.hosts} if feed.allow_private else frozenset[str]()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=feed.tls(),
            max_connections=None,  # `queues` has the limits, and no host waits for another
            max_keepalive_connections=len(feed.hosts),
            keepalive_expiry=KEPT_S,
            network_backend=_CheckedNetwork(private),
        )

    async def close(self) -> None:
        """Close all of its connections."""
        await self._pool.aclose()

    async def get(self, url: str, max_bytes: int, conditions: Iterable[tuple[str, str]] = ()) -> Fetched:
        """Fetch a document of at most `max_bytes`.

        `conditions` are header fields that make the request conditional. The feed's secret headers are sent only to the
        feed's own host. Raise FetchFailed if there is no complete answer with status 200, or 304 to a conditional
        request.
        """
        host = self._allowed_host(url)
        if host is None:
            raise LinkNotAllowed("host-not-allowed")
        for _ in range(MAX_REDIRECTS + 1):
            secrets = self._feed.headers if host == host_of(self._feed.url) else ()
            async with self.queues.turn(host, url):
                answer = await self._request(url, max_bytes, [*conditions, *secrets])
            if answer.status not in _REDIRECTS:
                return answer
            url = plain_url(answer.url, answer.headers["location"])
            host = self._allowed_host(url)
            if host is None:
                raise FetchFailed("host-not-allowed")
        raise FetchFailed("too-many-redirects")

    def _allowed_host(self, url: str) -> str | None:
        host = host_of(url)
        return host if host in self._feed.hosts and (self._feed.allow_http or url.startswith("https:")) else None

    async def _request(self, url: str, max_bytes: int, fields: list[tuple[str, str]]) -> Fetched:
        headers = [
            (b"User-Agent", f"geocast-fetch/{__version__}".encode()),
            (b"Accept", _ACCEPT),
            (b"Accept-Encoding", b"gzip"),
            *((name.encode(), text.encode()) for name, text in fields),
        ]
        try:
            async with asyncio.timeout(GET_S) as limit, self._pool.stream("GET", url, headers=headers) as response:
                head = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in response.headers}
                if response.status == 200:
                    encoding = head.get("content-encoding", "").strip().lower()
                    try:
                        body = await self._body(response, encoding, max_bytes, limit)
                        answer = Fetched(200, url, head, body)
                        self.queues.keep(limit, answer)
                        return answer
                    finally:
                        self.queues.end(limit)
                if (response.status in _REDIRECTS and "location" in head) or (response.status == 304 and fields):
                    return Fetched(response.status, url, head, b"")
                wait_s = parse_retry_after(head.get("retry-after"), self._clock.now().wall_ms)
                raise FetchFailed(f"status-{response.status}", wait_s)
        except (TimeoutError, httpcore.TimeoutException):
            raise FetchFailed("timeout") from None
        except ConnectionAbortedError:  # of `_CheckedNetwork`
            raise FetchFailed("host-not-allowed") from None
        except (ssl.SSLError, httpcore.ConnectError) as error:
            raise FetchFailed("bad-certificate" if _is_tls(error) else "no-connection") from None
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError):
            raise FetchFailed("broken-answer") from None

    async def _body(self, response: httpcore.Response, encoding: str, max_bytes: int, limit: asyncio.Timeout) -> bytes:
        """Return the body of an answer. Raise FetchFailed if it is too long, or can't be decompressed."""
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise FetchFailed("unknown-encoding")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding.endswith("gzip") else None
        body = bytearray()
        async for chunk in response.aiter_stream():
            if unpack is not None and unpack.eof:  # what follows the end may have no end
                break
            rest = chunk
            while rest:
                if len(body) > SMALL_BYTES:
                    await self.queues.room(limit)
                try:
                    body += rest if unpack is None else unpack.decompress(rest, SMALL_BYTES)
                except zlib.error:
                    raise FetchFailed("broken-answer") from None
                rest = b"" if unpack is None else unpack.unconsumed_tail
                if len(body) > SMALL_BYTES:
                    self.queues.grow(limit, len(body))
                if len(body) > max_bytes:
                    raise FetchFailed("too-long")
        if unpack is not None:
            body += unpack.flush()
            if not unpack.eof:
                raise FetchFailed("broken-answer")
        return bytes(body)


def plain_url(base: str, link: str) -> str:
    """Return the absolute URL of a link, with everything percent-encoded that a request can't contain.

    Return "" if the link is not a URL, or too long.
    """
    if len(link) > MAX_LINK:
        return ""
    try:
        return quote(urljoin(base, link.strip()).partition("#")[0], safe=_SAFE)
    except ValueError:
        return ""


def _is_tls(error: BaseException) -> bool:
    cause = error.__cause__ or error.__context__
    return isinstance(error, ssl.SSLError) or (cause is not None and _is_tls(cause))


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections only to addresses that `egress` allows.

    TLS still checks the certificate against the host's name. Raise ConnectionAbortedError if no address is allowed.
    """

    def __init__(self, private: Collection[str]) -> None:
        self._addresses = HostAddresses(private)
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._addresses.addresses(host, port)
        except OSError:
            raise httpcore.ConnectError from None
        failed: Exception = ConnectionAbortedError()
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout=_PER_ADDRESS_S)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed
