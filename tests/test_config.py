"""Addresses, sockets and what a node refuses to start with (section 7)."""

import resource
import socket
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from support.ports import a_free_port

from geocast.config import (
    Address,
    Settings,
    api_connections_for,
    bind,
    bind_shared,
    connections_for,
    parse_address,
    raise_descriptor_limit,
)
from geocast.errors import ConfigError

LOOPBACK = Address("127.0.0.1", 8765)
API = Address("127.0.0.1", 8766)


def settings(**changes):
    """Settings that are safe to start with, with these changed."""
    return Settings(**({"stream": LOOPBACK, "api": API, "log": "memory:", "dev": True} | changes))


# ---- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8765", "127.0.0.1", 8765),
        ("0.0.0.0:1", "0.0.0.0", 1),
        ("localhost:65535", "localhost", 65535),
        ("alerts.example:443", "alerts.example", 443),
        ("[::1]:8765", "::1", 8765),
        ("[::]:80", "::", 80),
        ("127.0.0.1:08765", "127.0.0.1", 8765),
    ],
)
def test_an_address_is_a_host_and_a_port(text, host, port):
    """K1, section 7: HOST:PORT, an IPv6 host in brackets."""
    assert parse_address(text) == Address(host, port)
    assert parse_address(str(parse_address(text))) == Address(host, port)


NO_PORTS = ["", "http", "0", "65536", "-1", "+1", " 80", "8_0", "８０", "²"]


@pytest.mark.parametrize(
    "text", ["", ":", "8765", ":8765", "[]:8765", "127.0.0.1", "[::1]", *(f"127.0.0.1:{port}" for port in NO_PORTS)]
)
def test_what_is_no_address_is_refused(text):
    """K1: one line that says what is expected."""
    with pytest.raises(ConfigError, match=r"^expected HOST:PORT, such as "):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(host, is_loopback):
    """T7: `--dev` only on loopback addresses."""
    assert Address(host, 80).is_loopback is is_loopback


# ---- starting safely -----------------------------------------------------------------------------------------


def test_without_keys_a_node_starts_only_in_dev_mode(tmp_path):
    """T7: with no `--keys`, only with `--dev`."""
    with pytest.raises(ConfigError, match=r"^no keys: "):
        settings(dev=False).check()
    settings(dev=False, keys=tmp_path).check()
    settings().check()


@pytest.mark.parametrize("option", ["stream", "api", "metrics"])
def test_dev_mode_is_for_this_machine(option, tmp_path):
    """T7: `--dev` only on loopback addresses, keys or no keys."""
    public = Address("0.0.0.0", 8765)
    with pytest.raises(ConfigError, match=rf"^--{option} 0\.0\.0\.0:8765 is not a loopback address"):
        settings(**{option: public}).check()
    with pytest.raises(ConfigError):
        settings(**{option: public, "keys": tmp_path}).check()
    settings(**{option: public, "keys": tmp_path, "dev": False}).check()


def test_listeners_do_not_share_an_address():
    """K1: found out before any of them is opened; the error names it."""
    with pytest.raises(ConfigError, match=r"^two listeners can't share an address: 127\.0\.0\.1:8766$"):
        settings(metrics=API).check()


@pytest.mark.parametrize("option", ["stream", "api", "metrics"])
def test_dev_mode_beyond_this_machine_takes_consent_and_is_told(option, tmp_path):
    """T7: as in a container. What is exposed is named, and what that means."""
    exposed = settings(**{option: Address("0.0.0.0", 8765), "allow_exposed_dev": True})
    exposed.check()
    assert f"(--{option} 0.0.0.0:8765)" in exposed.exposed_dev()
    assert "no token" in exposed.exposed_dev()
    assert "tokens are needed" in replace(exposed, keys=tmp_path).exposed_dev()
    assert settings(allow_exposed_dev=True).exposed_dev() is None
    assert replace(exposed, dev=False).exposed_dev() is None


def test_consent_alone_is_refused(tmp_path):
    """T7: who gives it thinks that tokens are optional."""
    with pytest.raises(ConfigError, match=r"^--allow-exposed-dev is for --dev$"):
        settings(dev=False, keys=tmp_path, allow_exposed_dev=True).check()


@pytest.mark.parametrize("changes", [{"log_replicas": 1}, {"allow_volatile_log": True}])
def test_what_is_for_a_log_in_redis_is_refused_for_others(changes):
    """Section 7: an option that would do nothing is told, before somebody relies on it."""
    for log in ("memory:", "sqlite:x.db"):
        with pytest.raises(ConfigError, match=r"^--log-replicas and --allow-volatile-log are for a log in Redis$"):
            settings(log=log, **changes).check()
    for log in ("redis://127.0.0.1", "rediss+sentinel://127.0.0.1/main"):
        settings(log=log, **changes).check()


# ---- sockets -------------------------------------------------------------------------------------------------


def test_a_socket_is_bound_and_listens():
    """Section 7: a connection waits to be accepted from the start on."""
    address = Address("127.0.0.1", a_free_port())
    with closing(bind("--api", address)) as listener, closing(socket.create_connection(tuple_of(address))):
        assert listener.getsockname() == tuple_of(address)
        assert not listener.getblocking()


def test_a_port_that_is_taken_is_told_in_one_line():
    """K1: a port that is taken."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = Address(*other.getsockname())
        with pytest.raises(ConfigError, match=rf"^--api {address}: Address already in use$"):
            bind("--api", address)
        with pytest.raises(ConfigError, match=rf"^--stream {address}: Address already in use$"):
            bind_shared("--stream", address, 2)


def test_several_sockets_share_one_port():
    """Section 7, `--workers`: processes that share the stream listener."""
    address = Address("127.0.0.1", a_free_port())
    with ExitStack() as stack:
        listeners = [stack.enter_context(closing(each)) for each in bind_shared("--stream", address, 3)]
        assert [listener.getsockname() for listener in listeners] == [tuple_of(address)] * 3


def test_a_port_is_not_shared_with_another_node():
    """K1: SO_REUSEPORT alone would share another's port in silence."""
    address = Address("127.0.0.1", a_free_port())
    with ExitStack() as stack:
        for each in bind_shared("--stream", address, 2):
            stack.enter_context(closing(each))
        with pytest.raises(ConfigError, match="Address already in use"):
            bind_shared("--stream", address, 2)
        with pytest.raises(ConfigError, match="Address already in use"):
            bind("--api", address)


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", ".", "x" * 64], ids=["not ours", "dots", "dot", "too long"])
def test_a_host_that_is_not_ours_is_told_in_one_line(host):
    """K1: an address that can't be had (192.0.2.1 is for documentation, RFC 5737), or that is no name at all."""
    with pytest.raises(ConfigError, match=r"^--api .*:8766: .") as caught:
        bind("--api", Address(host, 8766))
    assert "\n" not in str(caught.value)


def tuple_of(address):
    """As sockets write it."""
    return address.host, address.port


# ---- descriptors ---------------------------------------------------------------------------------------------


def test_the_limit_of_open_files_is_raised_to_the_hard_one():
    """Section 7: a connection takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        limit = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, hard)
        assert limit == hard or hard == resource.RLIM_INFINITY
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("descriptors", [1, 8, 100, 1_024, 11_024, 20_000, 1_048_576])
def test_both_listeners_and_the_log_have_their_share_of_the_descriptors(descriptors):
    """BA1d: however many connect to the api, there is a descriptor for each subscriber whom a node takes."""
    api = api_connections_for(descriptors)
    assert 1 <= api <= 2_500
    assert connections_for(descriptors) <= connections_for(descriptors, api=False) <= descriptors
    if descriptors >= 8:
        assert connections_for(descriptors) + api < descriptors
