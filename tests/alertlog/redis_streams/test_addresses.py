"""Parsing of Redis URLs."""

import pytest
from support.redis_server import needs_redis

from geocast.model.errors import ConfigError
from geocast.storage.redis import target

pytestmark = needs_redis


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost", "Redis at localhost:6379"),
        ("redis://127.0.0.1:7000/3?prefix=x.y", "Redis at 127.0.0.1:7000"),
        ("redis://[::1]:7000", "Redis at [::1]:7000"),
        ("redis://:secret@redis.example", "Redis at redis.example:6379"),
        ("rediss://redis.example/0?ca=/etc/ca.pem", "Redis at redis.example:6379"),
        ("rediss+sentinel://u:secret@a,b:7,[::1]/main/2", "main of the Sentinels a:26379,b:7,[::1]:26379"),
        ("redis+sentinel://127.0.0.1/main?sentinel_password=secret", "main of the Sentinels 127.0.0.1:26379"),
    ],
)
def test_redis_url_is_shown_as_address_without_password(url, text):
    """The text of a target, which is used in log messages, contains no password (settings.md)."""
    assert str(target.parse(url)) == text


def test_error_for_invalid_redis_url_names_the_command_line_option():
    """`--devices` accepts the same URLs with its own default prefix, and its errors name `--devices`."""
    assert target.parse("redis://localhost", "--devices", "geocast-devices").prefix == "geocast-devices"
    assert target.parse("redis://localhost?prefix=x", "--devices", "geocast-devices").prefix == "x"
    for url in (
        "redis:",
        "redis://127.0.0.1:0",
        "redis://127.0.0.1?x=1",
        "redis://127.0.0.1?prefix={",
        "redis://10.0.0.1",
    ):
        with pytest.raises(ConfigError, match=r"^--devices: "):
            target.parse(url, "--devices")


def test_every_part_of_redis_url_is_parsed():
    """Every part of a URL is read (settings.md)."""
    found = target.parse("rediss+sentinel://u%40:p%2Fw@a:1,b/s/5?prefix=p&ca=/c&sentinel_username=su")
    assert (found.username, found.password, found.service, found.db) == ("u@", "p/w", "s", 5)
    assert (found.tls, found.ca, found.prefix) == (True, "/c", "p")
    assert (found.sentinel_username, found.sentinel_password) == ("su", None)


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis://:secret@",
        "redis://127.0.0.1:0",
        "redis://127.0.0.1:secret",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1/secret",
        "redis://127.0.0.1/0/1",
        "redis://127.0.0.1,127.0.0.2",
        "redis://127.0.0.1?secret",
        "redis://127.0.0.1?secret=1",
        "redis://127.0.0.1?prefix={secret}",
        "redis://127.0.0.1#secret",
        "redis://[::1",
        "redis+sentinel://127.0.0.1",
        "redis+sentinel://127.0.0.1/",
        "redis+sentinel://127.0.0.1/main/secret",
        "redis+sentinel:///main",
        "redis://secret.example",
        "redis://10.0.0.1:6379/0",
        "redis+sentinel://127.0.0.1,10.0.0.1/main",
    ],
)
def test_invalid_redis_url_or_unprotected_remote_redis_is_refused(url):
    """The error is one line that says what is expected, and repeats no value (section 7 of the protocol)."""
    with pytest.raises(ConfigError, match=r"^--log: ") as caught:
        target.parse(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
