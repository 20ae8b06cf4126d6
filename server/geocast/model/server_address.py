"""The addresses of listeners and of other servers, as settings give them."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a listener or a Redis server: a host (a name, or an IPv4 or IPv6 address) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address.

        A host name other than `localhost` is assumed to be reachable.
        """
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class KeyUrl:
    """The URL of a key set.

    `server` is its host and port, and `tls` is true for `https`. `target` is the path and query.
    """

    server: Address
    tls: bool
    target: str

    def __str__(self) -> str:
        """Return the URL as text, without its query, which may contain a secret."""
        return f"http{'s' * self.tls}://{self.server}{self.target.partition('?')[0]}"
