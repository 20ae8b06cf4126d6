"""The endpoints to which pushes may be sent: only push services that the operator allows, and no internal addresses.

A stranger chooses the endpoint that the server connects to. So the endpoint's host must be on the operator's list (rule
WPR3), and its name must resolve to a global IP address (rule WPO4). The server then connects to the address that was
checked, without resolving the name again.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError

MAX_ENDPOINT_BYTES = 1_000
DEFAULT_SERVICES = "fcm.googleapis.com,*.push.services.mozilla.com,*.push.apple.com,*.notify.windows.com"
HTTPS_PORT = 443

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)*(?![0-9.]*$){_LABEL}")  # no IP address: the last label is no number
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*")  # RFC 3986 without brackets (IPv6) and `#`
_BEFORE_PATH = re.compile(r"https://[^/?]*", re.IGNORECASE)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052): an IPv4 address in the last 32 bits
_UNICAST = ipaddress.IPv6Network("2000::/3")  # the only allocated block of global unicast (RFC 4291, 2.4)


class Service(NamedTuple):
    """An entry of `--push-services`: a host name, or `*.name` for all names below it, with a port."""

    entry: str  # as the operator wrote it; also the label in metrics
    name: str
    wild: bool  # the entry allows the names below `name`, but not `name` itself
    port: int

    def has(self, host: str, port: int) -> bool:
        """Return whether this entry allows pushes to endpoints with this host and port."""
        return port == self.port and (host.endswith(f".{self.name}") if self.wild else host == self.name)


class Endpoint(NamedTuple):
    """A URL to which the pushes for one device are sent. `Services.allowed` has checked it."""

    url: str
    host: str
    port: int
    service: str  # the entry of `--push-services` that allows it
    named: bool = True  # whether that entry is this very host name, not `*.name`

    @property
    def authority(self) -> str:
        """The host and port, as in a `Host` header: without the port if it is 443."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """The scheme, host and port: the `aud` of a VAPID token."""
        return f"https://{self.authority}"

    @property
    def target(self) -> str:
        """The request target: path and query (RFC 9112, 3.2.1)."""
        rest = _BEFORE_PATH.sub("", self.url, count=1)
        return rest if rest.startswith("/") else f"/{rest}"


class Services:
    """The push services that the operator allows."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self.entries = [service.entry for service in services]

    def allowed(self, url: str) -> Endpoint | None:
        """Return the endpoint with this URL, or None if pushes may not go there.

        The caller doesn't learn why, so no answer to a client can repeat the name of a host.
        """
        if len(url.encode(errors="surrogatepass")) > MAX_ENDPOINT_BYTES or _PLAIN.fullmatch(url) is None:
            return None
        try:
            parts = urlsplit(url)
            port = HTTPS_PORT if parts.port is None else parts.port
        except ValueError:
            return None
        host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
        if parts.scheme != "https" or "@" in parts.netloc or host.endswith(":") or _NAME.fullmatch(host) is None:
            return None
        for service in self._services:
            if service.has(host, port):
                return Endpoint(url, host, port, service.entry, not service.wild)
        return None


def parse_services(text: str) -> Services:
    """Parse the value of `--push-services`: NAME, *.NAME, NAME:PORT or *.NAME:PORT, separated by commas.

    Raise ConfigError if an entry is malformed or there is no entry.
    """
    found = [_service(entry.strip()) for entry in text.split(",") if entry.strip()]
    if not found:
        raise ConfigError("--push-services: names no service")
    return Services(found)


def _service(entry: str) -> Service:
    host, colon, port = entry.partition(":")
    wild = host.startswith("*.")
    name = host.removeprefix("*.")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if _NAME.fullmatch(name) is None or (colon and not is_port):
        raise ConfigError("--push-services: expected names such as push.example, *.push.example or push.example:8443")
    return Service(entry, name, wild, int(port) if colon else HTTPS_PORT)


# ---- the addresses that a name resolves to -------------------------------------------------------------------------


def is_global(text: str) -> bool:
    """Return whether an IP address is on the public internet.

    If an IPv6 address contains an IPv4 address, the answer is that for the IPv4 address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(address.packed[-4:]) if address in _TRANSLATED else None
        inner = inner or address.ipv4_mapped or address.sixtofour
        if inner is None:
            return address in _UNICAST and address.is_global
        address = inner
    return address.is_global and not address.is_multicast


def allowed_addresses(host: str, resolved: Iterable[str], private: Iterable[str]) -> list[str]:
    """Return the addresses that the server may connect to, out of the `resolved` addresses of a host.

    They are the global addresses, or all of them if the host is in `private` (hosts that may have internal addresses).
    """
    addresses = list(resolved)
    return addresses if host in private else [each for each in addresses if is_global(each)]
