"""The addresses that a process may connect to when somebody else chose the host (rule WPO4).

The name must resolve to a global IP address, or the operator must have allowed the host to have internal addresses. The
process then connects to the address that was checked, without resolving the name again.
"""

import ipaddress
from collections.abc import Iterable

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052): an IPv4 address in the last 32 bits
_UNICAST = ipaddress.IPv6Network("2000::/3")  # the only allocated block of global unicast (RFC 4291, 2.4)


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
