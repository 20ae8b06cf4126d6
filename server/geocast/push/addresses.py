"""The endpoints to which pushes may be sent: only push services that the operator allows.

A stranger chooses the endpoint that the server connects to. So the endpoint's host must be on the operator's list (rule
WPR3). `egress` then connects only to global IP addresses (rule WPO4).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from ..model.errors import ConfigError

MAX_ENDPOINT_BYTES = 1_000
DEFAULT_SERVICES = "fcm.googleapis.com,*.push.services.mozilla.com,*.push.apple.com,*.notify.windows.com"
HTTPS_PORT = 443

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)*(?![0-9.]*$){_LABEL}")  # no IP address: the last label is no number
_PLAIN = re.compile(r"[A-Za-z0-9._~:/?@!$&'()*+,;=%-]*")  # RFC 3986 without brackets (IPv6) and `#`
_BEFORE_PATH = re.compile(r"https://[^/?]*", re.IGNORECASE)


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
