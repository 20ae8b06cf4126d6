"""The settings of a node (from the command line and the environment), and its listening sockets.

Settings that cannot work are refused here, before anything is started, by a ConfigError that names the option.
"""

import contextlib
import errno
import re
import resource
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .model.errors import ConfigError
from .model.server_address import Address, KeyUrl

# The schemes of `--log`. A new log adds its own where it belongs, and `run/backends` opens it.
REDIS_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
ONE_PROCESS_SCHEMES = ("memory",)  # no other process can read the log
PATH_SCHEMES = ("sqlite", "memory")  # a path or nothing follows, which has no password
_FEED_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,255}(/[A-Za-z0-9._~/-]{0,255})?")
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://([a-z0-9_][a-z0-9_.-]*|\[[0-9a-f:.]+\])(:(?P<port>[1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CAP_SENDER = re.compile(r"[^\s,<&]{1,512}")  # CAP 1.2, 3.2.1: no spaces, commas or restricted characters
BACKLOG = 4096  # number of connections per listening socket that wait to be accepted
MAX_API_CONNECTIONS = 2_500  # more than the limit of requests, so that excess requests can get a response
SHARE = 0.25  # the part of each limited resource that one subject may use (rule HD6)
RESERVED_DESCRIPTORS = 256  # descriptors for the log and the Python runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerSettings:
    """The settings of every process that follows the alert log: the log, and the files of its configuration."""

    log: str
    log_replicas: int = 0
    allow_volatile_log: bool = False
    log_follow: str = "primary"
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
    drain_s: float = 10.0

    def check(self) -> None:
        """Raise ConfigError if the settings are unsafe or contradict each other."""
        if problems := list(self.problems()):
            raise ConfigError(*problems)

    def problems(self) -> Iterator[str]:
        """Yield one line of text for each unsafe setting and each contradiction between settings."""
        if (scheme := self.log.partition(":")[0]) in ONE_PROCESS_SCHEMES:
            yield f"--log {scheme}: is one node's own; give the log that the nodes have"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(FollowerSettings):
    """The settings of a node (protocol, section 7). Times are in seconds."""

    stream: Address
    api: Address
    metrics: Address | None = None
    feed: Address | None = None
    feed_url: str = ""
    feed_sender: str = ""
    feed_areas: bool = False
    origins: tuple[str, ...] = ()
    workers: int = 1
    dev: bool = False
    allow_exposed_dev: bool = False
    heartbeat_s: int = 25
    max_sessions: int | None = None
    share: float = SHARE

    def problems(self) -> Iterator[str]:
        """Yield one line of text for each unsafe setting and each contradiction between settings."""
        if self.keys is None and not self.dev:
            yield "no keys: give --keys FILE (made by geocast keygen), or --dev to try it on this machine"
        if isinstance(self.keys, KeyUrl) and not self.keys.tls and not (self.dev and self.keys.server.is_loopback):
            yield "--keys http:// can be forged in transit: give https://, or with --dev a server on loopback"
        if self.workers > 1 and (scheme := self.log.partition(":")[0]) in ONE_PROCESS_SCHEMES:
            yield f"--log {scheme}: is for one process; with --workers give sqlite:PATH or a Redis"
        if (self.log_replicas or self.allow_volatile_log) and not self.log.startswith(REDIS_SCHEMES):
            yield "--log-replicas and --allow-volatile-log are for a log in Redis"
        if self.log_follow != "primary" and not self.log.startswith(REDIS_SCHEMES):
            yield "--log-follow is for a log in Redis"
        if twice := {str(one) for _, one in self.addresses if [each for _, each in self.addresses].count(one) > 1}:
            yield f"two listeners can't share an address: {', '.join(sorted(twice))}"
        if self.feed is not None and not _FEED_URL.fullmatch(self.feed_url):
            yield "--feed needs --feed-url: the public address of the feed, https://HOST or https://HOST/PATH"
        if self.feed is not None and not _CAP_SENDER.fullmatch(self.feed_sender):
            yield "--feed needs --feed-sender: the sender of its CAP messages, such as alerts@city.example, no blanks"
        if self.feed is None and (self.feed_url or self.feed_sender or self.feed_areas):
            yield "--feed-url, --feed-sender and --feed-areas are for --feed HOST:PORT"
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
        """Return a warning if --dev is used with an address that other machines can reach, otherwise None."""
        exposed = [f"{name} {address}" for name, address in self.addresses if not address.is_loopback]
        if not self.dev or not exposed:
            return None
        means = "tokens are needed" if self.keys else "subscribers need no token, and a token for publishing is printed"
        return (
            f"--dev beyond loopback ({', '.join(exposed)}): everybody who can reach these addresses may connect. "
            f"For trials only: {means}; pages from any loopback origin may connect"
        )

    @property
    def addresses(self) -> list[tuple[str, Address]]:
        """The addresses on which the node listens, as pairs of the option's name and the address."""
        named = (("--stream", self.stream), ("--api", self.api), ("--metrics", self.metrics), ("--feed", self.feed))
        return [(name, address) for name, address in named if address is not None]


def parse_address(text: str) -> Address:
    """Parse an address in the form `HOST:PORT`, with an IPv6 host in brackets. Raise ConfigError if it is not valid."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError("expected HOST:PORT, such as 127.0.0.1:8765 or [::1]:8765")
    return Address(host, int(port))


def parse_origins(text: str) -> tuple[str, ...]:
    """Parse a list of origins separated by commas. Raise ConfigError for an origin that no browser sends.

    Browsers send an origin in lower case, without a path, and without the default port of its scheme (RFC 6454).
    """
    origins = tuple(entry.strip() for entry in text.split(",") if entry.strip())
    for at, origin in enumerate(origins, 1):
        parts = _ORIGIN.fullmatch(origin)
        port = int(parts["port"] or 0) if parts else 0
        if parts is None or port > 65535 or port == _DEFAULT_PORTS.get(parts["scheme"], -1):
            raise ConfigError(
                f"entry {at} is no origin as browsers send it, such as https://app.example or http://127.0.0.1:8000: "
                "a scheme and a host in lower case, with the port unless it is the scheme's default; no path, no *"
            )
    return origins


def parse_key_url(text: str) -> KeyUrl:
    """Parse a URL in the form `https://HOST[:PORT]/PATH[?QUERY]`.

    Raise ConfigError if it is not valid. `http:` URLs are accepted here as well; `Settings.check` restricts them.
    """
    try:
        url = urlsplit(text)
        host, port = (url.hostname or "").encode("idna").decode(), url.port
    except ValueError:  # a port that is not a number, an invalid IPv6 address or name
        host, port = "", None
    target = (url.path or "/") + (f"?{url.query}" if url.query else "") if host else ""
    is_plain = text.isascii() and text.isprintable() and " " not in text and "@" not in url.netloc if host else False
    if not is_plain or url.scheme not in ("https", "http") or url.fragment or port == 0:
        raise ConfigError("expected https://HOST/PATH in ASCII, without a user, a password or a fragment")
    return KeyUrl(Address(host, port or (443 if url.scheme == "https" else 80)), url.scheme == "https", target)


def bind(option: str, address: Address, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens on `address`.

    Raise ConfigError if that fails. The address is bound exclusively, unless `shared` is true: then other sockets may
    listen on it as well.
    """
    with _as_config_error(option, address), contextlib.ExitStack() as undo:
        listener = undo.enter_context(_bound(address, shared=shared))
        listener.listen(BACKLOG)
        undo.pop_all()
    listener.setblocking(False)
    return listener


def see_if_bindable(option: str, address: Address) -> None:
    """Raise ConfigError if this machine can't listen on the address.

    It is no error if another program uses the address at the moment.
    """
    with _as_config_error(option, address):
        try:
            _bound(address).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def _bound(address: Address, *, shared: bool = False) -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet.

    Raise OSError or UnicodeError on failure.
    """
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
def _as_config_error(option: str, address: Address) -> Iterator[None]:
    """Return a context manager that turns an OSError or UnicodeError of its block into a ConfigError.

    The text of the ConfigError names the option and the address.
    """
    try:
        yield
    except UnicodeError:
        raise ConfigError(f"{option} {address}: not the name of a host") from None
    except OSError as error:
        raise ConfigError(f"{option} {address}: {error.strerror}") from None


def bind_shared(option: str, address: Address, count: int) -> list[socket.socket]:
    """Return `count` sockets that all listen on the same address.

    The kernel distributes the connections among them. Raise ConfigError if another program uses the address.
    """
    bind(option, address).close()  # this fails if the port is in use; SO_REUSEPORT would silently share it
    return [bind(option, address, shared=True) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listening sockets of a node. `streams` has one socket for each process that serves the stream."""

    streams: Sequence[socket.socket]
    api: socket.socket
    metrics: socket.socket | None  # None: the API listener serves /metrics as well
    feed: socket.socket | None = None  # None: there is no public feed


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[Listeners]:
    """Open the listening sockets for these settings while the block runs.

    Raise ConfigError if an address can't be used.
    """
    with contextlib.ExitStack() as opened:
        api = opened.enter_context(bind("--api", settings.api))
        metrics = opened.enter_context(bind("--metrics", settings.metrics)) if settings.metrics else None
        feed = opened.enter_context(bind("--feed", settings.feed)) if settings.feed else None
        streams = [opened.enter_context(each) for each in bind_shared("--stream", settings.stream, settings.workers)]
        yield Listeners(streams, api, metrics, feed)


def connections_for(descriptors: int, *, api: bool = True) -> int:
    """Return how many connections the stream listener may have, at least 1. `descriptors` is the limit of open files.

    If `api` is true, the API listener is in the same process and needs descriptors too. At most a quarter of the limit
    is reserved for other files and for the API.
    """
    reserved = RESERVED_DESCRIPTORS + api * MAX_API_CONNECTIONS
    return max(1, descriptors - min(reserved, descriptors // 4))


def api_connections_for(descriptors: int) -> int:
    """Return how many connections the API listener may have, at least 1. `descriptors` is the limit of open files."""
    return max(1, min(MAX_API_CONNECTIONS, descriptors // 8))


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to `descriptor_limit()`, and return that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = descriptor_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def descriptor_limit() -> int:
    """Return this process's hard limit of open files, or 2^20 (1,048,576) if it is unlimited."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_048_576 if hard == resource.RLIM_INFINITY else hard
