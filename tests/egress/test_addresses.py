"""The addresses that may be connected to, and those that a stranger may try in vain (rule WPO4)."""

import pytest

from geocast.egress.host_addresses import allowed_addresses, is_global


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",  # Teredo
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "localhost",
        "",
    ],
)
def test_private_or_reserved_address_is_not_global(address):
    """An address that embeds an IPv4 address counts as that (rule WPO4)."""
    assert not is_global(address)


@pytest.mark.parametrize(
    "address", ["142.250.1.1", "2a00:1450::1", "::ffff:142.250.1.1", "64:ff9b::8efa:101", "2002:8efa:101::1"]
)
def test_public_address_is_global(address):
    """Pushes may go to global addresses (rule WPO4)."""
    assert is_global(address)


def test_only_global_addresses_of_a_host_are_allowed_unless_it_is_exempt():
    """`--push-private` exempts a host by its name (rule WPO4)."""
    resolved = ["10.0.0.1", "142.250.1.1", "::1"]
    assert allowed_addresses("push.example", resolved, ()) == ["142.250.1.1"]
    assert allowed_addresses("push.example", resolved, ("up.local",)) == ["142.250.1.1"]
    assert allowed_addresses("up.local", resolved, ("up.local",)) == resolved
