"""Where pushes may go: to the push services that the operator names, and to no address of the inside (WPR3, WPO4).

An endpoint comes from a stranger, and the server connects to it. So its host has to be on a list of names, and what the
name resolves to has to be global; the connection goes to the very address that was looked at.
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
_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)*(?![0-9.]*$){_LABEL}")  # its last label is no number: not an address
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*")  # RFC 3986 without brackets (IPv6) and `#`
_BEFORE_PATH = re.compile(r"https://[^/?]*", re.IGNORECASE)
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052): an IPv4 address in the last 32 bits
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out of IPv6 so far (RFC 4291, 2.4)


class Service(NamedTuple):
    """An entry of `--push-services`: a name, or all names under one, and a port."""

    entry: str  # as metrics have it
    name: str
    wild: bool  # the names under `name`, and not itself
    port: int

    def has(self, host: str, port: int) -> bool:
        """Whether an endpoint with this host and port is of this service."""
        return port == self.port and (host.endswith(f".{self.name}") if self.wild else host == self.name)


class Endpoint(NamedTuple):
    """An endpoint that may be pushed to."""

    url: str
    host: str
    port: int
    service: str  # the entry of the list that allows it
    named: bool = True  # the entry names this very host, and not all that are under a name

    @property
    def authority(self) -> str:
        """Host and port, the latter unless it is that of https."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port: the `aud` of VAPID."""
        return f"https://{self.authority}"

    @property
    def target(self) -> str:
        """What a request to it asks for (RFC 9112, 3.2.1): path and query."""
        rest = _BEFORE_PATH.sub("", self.url, count=1)
        return rest if rest.startswith("/") else f"/{rest}"


class Services:
    """The push services that the operator allows."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self.entries = [service.entry for service in services]

    def allowed(self, url: str) -> Endpoint | None:
        """The endpoint, if it may be pushed to. None says nothing of why: the host is not to be repeated."""
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
    """The list of `--push-services`: NAME, *.NAME or either with :PORT, separated by commas. Raises ConfigError."""
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


# ---- what a name resolves to ---------------------------------------------------------------------------------------


def is_global(text: str) -> bool:
    """Whether an address is one of the public internet; those that stand for an IPv4 address are judged as that."""
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
    """Of the addresses that a host resolves to, those that may be connected to. `private`: hosts that are excepted."""
    addresses = list(resolved)
    return addresses if host in private else [each for each in addresses if is_global(each)]
