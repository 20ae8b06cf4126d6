"""What a node is told at its start: `Settings`, which the command line and the environment come to; and its sockets.

What can't work is refused here, before anything is started, by a ConfigError that names the option.
"""

import contextlib
import errno
import ipaddress
import re
import resource
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .errors import ConfigError

REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_FEED_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(/[A-Za-z0-9._~/-]{0,255})?")
_CAP_SENDER = re.compile(r"[^\s,<&]{1,512}")  # CAP 1.2, 3.2.1: no spaces, commas or restricted characters
BACKLOG = 4096  # connections that wait to be accepted, per listening socket
MAX_API_CONNECTIONS = 2_500  # more than there may be requests, so that one too many can be told so
SHARE = 0.25  # the part of each bounded thing that one subject may take (rule HD6)
RESERVED_DESCRIPTORS = 256  # for the log and the runtime's own


@dataclass(frozen=True, slots=True)
class Address:
    """A host (a name, or an IPv4 or IPv6 address) and a port: where to listen, or where a Redis is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` might be anybody's."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class KeyUrl:
    """Where a set of keys is published: a server, whether by TLS, and the target of a request (path and query)."""

    server: Address
    tls: bool
    target: str

    def __str__(self) -> str:
        """Without the query, which may hold a secret."""
        return f"http{'s' * self.tls}://{self.server}{self.target.partition('?')[0]}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run a node (protocol, section 7). Times are in seconds."""

    stream: Address
    api: Address
    log: str
    metrics: Address | None = None
    feed: Address | None = None
    feed_url: str = ""
    feed_sender: str = ""
    log_replicas: int = 0
    allow_volatile_log: bool = False
    keys: Path | KeyUrl | None = None
    keys_refresh_s: int = 300
    revoked: Path | None = None
    policy: Path | None = None
    publishers: Path | None = None
    cap_sources: Path | None = None
    reviewers: Path | None = None
    cap_zones: tuple[Path, ...] = ()
    call_keys: Path | None = None
    aeds: Path | None = None
    origins: tuple[str, ...] = ()
    workers: int = 1
    dev: bool = False
    allow_exposed_dev: bool = False
    drain_s: float = 10.0
    heartbeat_s: int = 25
    max_sessions: int | None = None
    share: float = SHARE

    def check(self) -> None:
        """Refuse to start unsafely. Raises ConfigError."""
        if problems := list(self.problems()):
            raise ConfigError(*problems)

    def problems(self) -> Iterator[str]:
        """All that does not go together in these settings, a line each."""
        if self.keys is None and not self.dev:
            yield "no keys: give --keys FILE (made by geocast keygen), or --dev to try it on this machine"
        if isinstance(self.keys, KeyUrl) and not self.keys.tls and not (self.dev and self.keys.server.is_loopback):
            yield "--keys http:// can be forged on the way: give https://, or with --dev a server on loopback"
        if self.workers > 1 and self.log.startswith("memory:"):
            yield "--log memory: is for one process; with --workers give sqlite:PATH or a Redis"
        if (self.log_replicas or self.allow_volatile_log) and not self.log.startswith(REDIS_SCHEMES):
            yield "--log-replicas and --allow-volatile-log are for a log in Redis"
        if twice := {str(one) for _, one in self.addresses if [each for _, each in self.addresses].count(one) > 1}:
            yield f"two listeners can't share an address: {', '.join(sorted(twice))}"
        if self.feed is not None and not _FEED_URL.fullmatch(self.feed_url):
            yield "--feed needs --feed-url: where the feed is for the public, https://HOST or https://HOST/PATH"
        if self.feed is not None and not _CAP_SENDER.fullmatch(self.feed_sender):
            yield "--feed needs --feed-sender: who issues its CAP messages, such as alerts@city.example, without blanks"
        if self.feed is None and (self.feed_url or self.feed_sender):
            yield "--feed-url and --feed-sender are for --feed HOST:PORT"
        if self.cap_zones and self.cap_sources is None:
            yield "--cap-zones is for --cap-sources"
        for name, address in self.addresses:
            if self.dev and not self.allow_exposed_dev and not address.is_loopback:
                yield (
                    f"{name} {address} is not a loopback address, and --dev is for this machine only; "
                    "in a container: --allow-exposed-dev"
                )
        if self.allow_exposed_dev and not self.dev:
            yield "--allow-exposed-dev is for --dev"

    def exposed_dev(self) -> str | None:
        """What --allow-exposed-dev means with these settings, for a warning; None if nothing is exposed."""
        exposed = [f"{name} {address}" for name, address in self.addresses if not address.is_loopback]
        if not self.dev or not exposed:
            return None
        means = "tokens are needed" if self.keys else "subscribers need no token, and one that may publish is printed"
        return (
            f"--dev beyond loopback ({', '.join(exposed)}): whoever can reach this may connect. For trials only: "
            f"{means}; pages from any loopback origin are let in"
        )

    @property
    def addresses(self) -> list[tuple[str, Address]]:
        """Where the node listens, by the option that says so."""
        named = (("--stream", self.stream), ("--api", self.api), ("--metrics", self.metrics), ("--feed", self.feed))
        return [(name, address) for name, address in named if address is not None]


def parse_address(text: str) -> Address:
    """`HOST:PORT`, with an IPv6 host in brackets. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError("expected HOST:PORT, such as 127.0.0.1:8765 or [::1]:8765")
    return Address(host, int(port))


def parse_key_url(text: str) -> KeyUrl:
    """`https://HOST[:PORT]/PATH[?QUERY]`, or `http:`, which `Settings.check` restricts. Raises ConfigError."""
    try:
        url = urlsplit(text)
        host, port = (url.hostname or "").encode("idna").decode(), url.port
    except ValueError:  # a port that is no number, a broken IPv6 address or name
        host, port = "", None
    target = (url.path or "/") + (f"?{url.query}" if url.query else "") if host else ""
    is_plain = text.isascii() and text.isprintable() and " " not in text and "@" not in url.netloc if host else False
    if not is_plain or url.scheme not in ("https", "http") or url.fragment or port == 0:
        raise ConfigError("expected https://HOST/PATH in ASCII, without a user, a password or a fragment")
    return KeyUrl(Address(host, port or (443 if url.scheme == "https" else 80)), url.scheme == "https", target)


def bind(option: str, address: Address, *, shared: bool = False) -> socket.socket:
    """A socket that listens on `address`, alone unless `shared`. Raises ConfigError."""
    with _told(option, address), contextlib.ExitStack() as undo:
        listener = undo.enter_context(_bound(address, shared=shared))
        listener.listen(BACKLOG)
        undo.pop_all()
    listener.setblocking(False)
    return listener


def see_if_bindable(option: str, address: Address) -> None:
    """Raise ConfigError if a node can't ever listen there. That somebody does now, perhaps a node, is fine."""
    with _told(option, address):
        try:
            _bound(address).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def _bound(address: Address, *, shared: bool = False) -> socket.socket:
    """A socket that is bound and doesn't listen yet. Raises OSError or UnicodeError."""
    family, kind, proto, _, where = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with contextlib.ExitStack() as undo:
        bound = undo.enter_context(socket.socket(family, kind, proto))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        bound.bind(where)
        undo.pop_all()
    return bound


@contextlib.contextmanager
def _told(option: str, address: Address) -> Iterator[None]:
    """Turn what the system says of an address into a ConfigError that names the option."""
    try:
        yield
    except UnicodeError:
        raise ConfigError(f"{option} {address}: not the name of a host") from None
    except OSError as error:
        raise ConfigError(f"{option} {address}: {error.strerror}") from None


def bind_shared(option: str, address: Address, count: int) -> list[socket.socket]:
    """`count` sockets that listen side by side on an address that is nobody else's. Raises ConfigError."""
    bind(option, address).close()  # this fails if the port is taken; SO_REUSEPORT would share it in silence
    return [bind(option, address, shared=True) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listening sockets of a node. There is a stream listener for each process that serves the stream."""

    streams: Sequence[socket.socket]
    api: socket.socket
    metrics: socket.socket | None  # None: the api listener answers /metrics, too
    feed: socket.socket | None = None  # None: there is no public feed


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[Listeners]:
    """The listening sockets that the settings ask for, open for as long as the block runs. Raises ConfigError."""
    with contextlib.ExitStack() as opened:
        api = opened.enter_context(bind("--api", settings.api))
        metrics = opened.enter_context(bind("--metrics", settings.metrics)) if settings.metrics else None
        feed = opened.enter_context(bind("--feed", settings.feed)) if settings.feed else None
        streams = [opened.enter_context(each) for each in bind_shared("--stream", settings.stream, settings.workers)]
        yield Listeners(streams, api, metrics, feed)


def connections_for(descriptors: int, *, api: bool = True) -> int:
    """How many connections of the stream listener that limit of open files leaves room for, at least 1.

    `api`: whether the api listener is in the same process. Of a small limit a quarter is kept back.
    """
    reserved = RESERVED_DESCRIPTORS + api * MAX_API_CONNECTIONS
    return max(1, descriptors - min(reserved, descriptors // 4))


def api_connections_for(descriptors: int) -> int:
    """How many connections of the api listener that limit of open files leaves room for, at least 1."""
    return max(1, min(MAX_API_CONNECTIONS, descriptors // 8))


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to `descriptor_limit`, and return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def descriptor_limit() -> int:
    """This process's hard limit of open files. An unlimited one counts as 2^20."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_048_576 if hard == resource.RLIM_INFINITY else hard
