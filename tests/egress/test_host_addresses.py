"""Lookups of host names that hang, fail or find nothing, and the cache of their results (rules HD2, HD14)."""

import asyncio
import socket
import threading

import pytest

from geocast.egress import host_addresses
from geocast.egress.host_addresses import HostAddresses


class Resolver:
    """Replaces the system's resolver: lookups of names in `stuck` wait for the test, names in `gone` don't exist."""

    def __init__(self, monkeypatch):
        self.asked, self.gone = [], set()
        self.release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def _resolve(self, host, port, **_more):
        self.asked.append(host)
        if host.startswith("stuck"):
            self.release.wait()
        if host in self.gone:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.9.1", port))]


@pytest.fixture
def resolver(monkeypatch):
    """Return a resolver, and check at the end that no lookup is in progress."""
    resolver = Resolver(monkeypatch)
    yield resolver
    resolver.release.set()


async def test_dns_lookups_that_never_end_do_not_delay_other_hosts(resolver):
    """Each lookup has a thread of its own. Beyond a limit, lookups fail at once (rules HD2, HD14)."""
    names = HostAddresses(())
    stuck = [asyncio.ensure_future(names.addresses(f"stuck-{n}", 443)) for n in range(host_addresses.LOOKUPS - 1)]
    assert await names.addresses("good.example", 443) == ["192.0.9.1"]
    stuck.append(asyncio.ensure_future(names.addresses("stuck-last", 443)))
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="too many names"):
        await names.addresses("other.example", 443)
    assert await names.addresses("good.example", 443) == ["192.0.9.1"]
    resolver.release.set()
    assert set(map(tuple, await asyncio.gather(*stuck))) == {("192.0.9.1",)}
    assert await names.addresses("other.example", 443) == ["192.0.9.1"]


@pytest.mark.parametrize("fault", ["stuck", "gone"])
async def test_earlier_addresses_of_a_host_are_used_when_a_new_lookup_fails(resolver, monkeypatch, fault):
    """Pushes go on while a name server is unreachable (rule HD2)."""
    monkeypatch.setattr(host_addresses, "NAMES_S", 0.0)
    monkeypatch.setattr(host_addresses, "REFRESH_S", 0.01)
    names = HostAddresses(())
    resolver.release.set()
    assert await names.addresses("stuck-later", 443) == ["192.0.9.1"]
    resolver.release.clear()
    if fault == "gone":
        resolver.gone.add("stuck-later")
        resolver.release.set()
    assert await names.addresses("stuck-later", 443) == ["192.0.9.1"]
    assert resolver.asked == ["stuck-later"] * 2


async def test_host_without_an_address_is_looked_up_again_each_time(resolver):
    """The host may have got an address in the meantime."""
    names = HostAddresses(())
    resolver.gone.add("new.example")
    with pytest.raises(socket.gaierror):
        await names.addresses("new.example", 443)
    resolver.gone.clear()
    assert await names.addresses("new.example", 443) == ["192.0.9.1"]


async def test_number_of_remembered_host_names_is_limited(resolver, monkeypatch):
    """The oldest name is forgotten first (rule HD14)."""
    monkeypatch.setattr(host_addresses, "NAMES", 3)
    names = HostAddresses(())
    for number in range(10):
        await names.addresses(f"{number}.example", 443)
    assert [host for host, _ in names._names] == ["7.example", "8.example", "9.example"]
