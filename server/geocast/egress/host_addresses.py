"""The addresses that a process may connect to when somebody else chose the host (rule WPO4), in a cache.

The name must resolve to a global IP address, or the operator must have allowed the host to have internal addresses. The
process then connects to the address that was checked, without resolving the name again.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Collection, Iterable

NAMES_S = 60.0  # age of addresses at which the name is looked up again when it is used
STALE_S, REFRESH_S = 3_600.0, 1.0  # addresses up to this age are used when a new lookup takes longer than this
NAMES, LOOKUPS = 1_024, 64  # limits on the names that are cached and on the lookups under way
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


class _Name:
    """The addresses that the last lookup of a host name has found, and the lookup in progress, if there is one."""

    def __init__(self) -> None:
        self.addresses: list[str] | None = None
        self.found_at = 0.0  # when the addresses were found, by the loop's clock
        self.lookup: asyncio.Future[list[str]] | None = None


class HostAddresses:
    """A cache of the addresses of host names. Addresses that may not be connected to are left out.

    The system's resolver may take half a minute for a name. So each lookup has a thread of its own, and at most LOOKUPS
    lookups run at once. If an earlier lookup has found addresses, callers wait at most REFRESH_S seconds for newer
    ones.
    """

    def __init__(self, private: Collection[str]) -> None:
        self._private = private
        self._names: dict[tuple[str, int], _Name] = {}
        self._lookups = 0

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host that may be connected to.

        Raise OSError if the lookup fails, or if too many lookups are in progress.
        """
        now = asyncio.get_running_loop().time()
        name = self._names.get((host, port))
        if name is None:
            if len(self._names) >= NAMES:
                del self._names[next(key for key, each in self._names.items() if each.lookup is None)]
            name = self._names[host, port] = _Name()
        age_s = now - name.found_at
        usable = name.addresses if age_s < STALE_S else None
        if usable is not None and age_s < NAMES_S:
            return usable
        if name.lookup is None and self._lookups < LOOKUPS:
            name.lookup = self._look_up(name, host, port)
        lookup = name.lookup
        if lookup is not None:  # many callers may wait for it, so one that is cancelled must not cancel it
            await asyncio.wait([lookup], timeout=None if usable is None else REFRESH_S)
            if lookup.done() and (usable is None or lookup.exception() is None):
                return lookup.result()
        if usable is None:
            raise OSError("too many names are looked up")
        return usable

    def _look_up(self, name: _Name, host: str, port: int) -> asyncio.Future[list[str]]:
        self._lookups += 1
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[list[str]] = loop.create_future()
        lookup.add_done_callback(lambda _: lookup.exception())  # retrieve the error even if no caller is left

        def done(found: list[str] | OSError) -> None:
            self._lookups -= 1
            name.lookup = None
            if isinstance(found, OSError):
                lookup.set_exception(found)
                return
            name.addresses, name.found_at = allowed_addresses(host, found, self._private), loop.time()
            lookup.set_result(name.addresses)

        def resolve() -> None:
            found: list[str] | OSError
            try:
                every = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(where[0]) for _, _, _, _, where in every))
            except (OSError, UnicodeError) as error:
                found = error if isinstance(error, OSError) else OSError("not a name")
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done, found)

        # The thread is a daemon, so the process can exit during a lookup.
        threading.Thread(target=resolve, daemon=True).start()
        return lookup
