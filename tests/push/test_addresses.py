"""The endpoints to which pushes may be sent, and those that a stranger may try in vain (rule WPR3)."""

import pytest

from geocast.model.errors import ConfigError
from geocast.push.addresses import DEFAULT_SERVICES, parse_services

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
