"""The addresses to which pushes may be sent, and those that a stranger may try in vain (rules WPR3, WPO4)."""

import pytest

from geocast.errors import ConfigError
from geocast.push.addresses import DEFAULT_SERVICES, allowed_addresses, is_global, parse_services

SERVICES = parse_services(f"{DEFAULT_SERVICES},up.city.example:8443")


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("https://fcm.googleapis.com/fcm/send/abc:DEF-_", "fcm.googleapis.com"),
        ("https://fcm.googleapis.com:443/fcm/send/x", "fcm.googleapis.com"),
        ("https://updates.push.services.mozilla.com/wpush/v2/gAAAA=", "*.push.services.mozilla.com"),
        ("https://wns2-by3p.notify.windows.com/w/?token=BQYA%2b", "*.notify.windows.com"),
        ("https://up.city.example:8443/UP?topic=1", "up.city.example:8443"),
    ],
)
def test_endpoint_of_a_listed_push_service_is_allowed(url, service):
    """A host is allowed by its name or below a `*.name`; `aud` is its origin (rule WPR3)."""
    endpoint = SERVICES.allowed(url)
    assert endpoint.service == service
    assert endpoint.origin == f"https://{endpoint.host}" + (":8443" if endpoint.port == 8443 else "")


@pytest.mark.parametrize(
    "url",
    [
        "http://fcm.googleapis.com/x",
        "https://fcm.googleapis.com:8443/x",
        "https://up.city.example/x",  # another port
        "https://user@fcm.googleapis.com/x",
        "https://user:word@fcm.googleapis.com/x",
        "https://fcm.googleapis.com#@evil.example/x",
        "https://fcm.googleapis.com/x#part",
        "https://fcm.googleapis.com.evil/x",
        "https://evil-fcm.googleapis.com/x",
        "https://push.apple.com/x",  # the name itself, which `*.name` leaves out
        "https://evilpush.apple.com/x",
        "https://.push.apple.com/x",
        "https://fcm.googleapis.com./x",
        "https://FCM.googleapis.com/x",
        "https://fcm.googleapis.com:/x",
        "https://fcm.googleapis.com:443:443/x",
        "https://fcm.googleapis.com:٤٤٣/x",
        "https://fcm.googleapis.com\\@evil.example/x",
        "https://fcm.googleapis.com%2eevil.example/x",
        "https://fсm.googleapis.com/x",  # a Cyrillic letter
        "https://xn--fm-wla.googleapis.com/x",
        "https://127.0.0.1/x",
        "https://2130706433/x",
        "https://0177.0.0.1/x",
        "https://0x7f.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https:///x",
        "https:fcm.googleapis.com/x",
        "//fcm.googleapis.com/x",
        "https://fcm.googleapis.com/ x",
        "https://fcm.googleapis.com/\r\nHost: evil",
        "\nhttps://fcm.googleapis.com/x",
        "https://fcm.googleapis.com/\ud800",
        "",
        "https://fcm.googleapis.com/" + "x" * 974,
    ],
)
def test_endpoint_of_an_unlisted_service_or_of_wrong_form_is_refused(url):
    """URLs that could be read in two ways are refused, too (rule WPR3)."""
    assert SERVICES.allowed(url) is None


def test_endpoint_has_at_most_a_thousand_bytes():
    """Longer endpoints are refused (rule WPR3)."""
    url = "https://fcm.googleapis.com/" + "x" * 973
    assert len(url) == 1_000
    assert SERVICES.allowed(url).url == url


@pytest.mark.parametrize(
    "text", ["", " , ", "https://push.example", "push.example:0", "push.example:x", "*", "*.", "1.2.3.4", "*.7", "a b"]
)
def test_invalid_list_of_services_is_refused(text):
    """An IP address is no name of a service (rule K1)."""
    with pytest.raises(ConfigError, match=r"^--push-services: "):
        parse_services(text)


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
