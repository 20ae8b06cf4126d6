"""Tests of addresses, sockets, and settings that a node refuses to start with (protocol, section 7)."""

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
    parse_origins,
    raise_descriptor_limit,
)
from geocast.model.errors import ConfigError

LOOPBACK = Address("127.0.0.1", 8765)
API = Address("127.0.0.1", 8766)


def settings(**changes):
    """Return settings that a node accepts, with changes."""
    return Settings(**({"stream": LOOPBACK, "api": API, "log": "memory:", "dev": True} | changes))


# ---- origins -------------------------------------------------------------------------------------------------


def test_parse_origins_accepts_origins_that_browsers_and_apps_send():
    """A web page, a page with a port, IPv6, and the scheme of an app (protocol, section 7)."""
    sent = (
        "https://app.example",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "capacitor://localhost",
        "http://a:443",
    )
    assert parse_origins(" ,".join(sent)) == sent
    assert parse_origins(" , ") == ()


NO_ORIGINS = """* foo null app.example https:// https://App.example HTTPS://app.example https://app.example/ https://ä.example
https://app.example/map https://app.example:443 http://app.example:80 https://*.example https://a.example:0
https://a.example:65536 https://u@a.example https://a.example?x"""


@pytest.mark.parametrize("origin", [*NO_ORIGINS.split(), "http://a b"])
def test_parse_origins_refuses_texts_that_no_browser_sends_as_origin(origin):
    """The error names the entry and does not repeat it (rule S2)."""
    with pytest.raises(ConfigError, match=r"^entry 2 is no origin as browsers send it, such as ") as refused:
        parse_origins(f"https://app.example,{origin}")
    assert origin == "*" or origin not in str(refused.value).replace("https://app.example", "")


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
def test_parse_address_reads_host_and_port(text, host, port):
    """HOST:PORT, with an IPv6 host in brackets (rule K1, section 7)."""
    assert parse_address(text) == Address(host, port)
    assert parse_address(str(parse_address(text))) == Address(host, port)


NO_PORTS = ["", "http", "0", "65536", "-1", "+1", " 80", "8_0", "８０", "²"]


@pytest.mark.parametrize(
    "text", ["", ":", "8765", ":8765", "[]:8765", "127.0.0.1", "[::1]", *(f"127.0.0.1:{port}" for port in NO_PORTS)]
)
def test_parse_address_refuses_texts_other_than_host_and_port(text):
    """The error is one line that says what is expected (rule K1)."""
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
def test_is_loopback_is_true_only_for_this_machine(host, is_loopback):
    """`--dev` is limited to loopback addresses (rule T7)."""
    assert Address(host, 80).is_loopback is is_loopback


# ---- checks before a node starts -----------------------------------------------------------------------------


def test_settings_without_keys_need_dev_mode(tmp_path):
    """A node without keys starts only with `--dev` (rule T7)."""
    with pytest.raises(ConfigError, match=r"^no keys: "):
        settings(dev=False).check()
    settings(dev=False, keys=tmp_path).check()
    settings().check()


@pytest.mark.parametrize("option", ["stream", "api", "metrics"])
def test_dev_mode_refuses_to_listen_on_addresses_other_than_loopback(option, tmp_path):
    """Such an address is refused with and without keys (rule T7)."""
    public = Address("0.0.0.0", 8765)
    with pytest.raises(ConfigError, match=rf"^--{option} 0\.0\.0\.0:8765 is not a loopback address"):
        settings(**{option: public}).check()
    with pytest.raises(ConfigError):
        settings(**{option: public, "keys": tmp_path}).check()
    settings(**{option: public, "keys": tmp_path, "dev": False}).check()


def test_two_listeners_with_one_address_are_refused():
    """The error names the address, before any listener is opened (rule K1)."""
    with pytest.raises(ConfigError, match=r"^two listeners can't share an address: 127\.0\.0\.1:8766$"):
        settings(metrics=API).check()


@pytest.mark.parametrize("option", ["stream", "api", "metrics"])
def test_dev_mode_on_public_addresses_is_allowed_with_its_option_and_warns(option, tmp_path):
    """An example is a container. The warning names the exposed addresses and the consequences (rule T7)."""
    exposed = settings(**{option: Address("0.0.0.0", 8765), "allow_exposed_dev": True})
    exposed.check()
    assert f"(--{option} 0.0.0.0:8765)" in exposed.exposed_dev()
    assert "no token" in exposed.exposed_dev()
    assert "tokens are needed" in replace(exposed, keys=tmp_path).exposed_dev()
    assert settings(allow_exposed_dev=True).exposed_dev() is None
    assert replace(exposed, dev=False).exposed_dev() is None


def test_allow_exposed_dev_without_dev_is_refused(tmp_path):
    """An operator who gives this option would think that tokens are optional (rule T7)."""
    with pytest.raises(ConfigError, match=r"^--allow-exposed-dev is for --dev$"):
        settings(dev=False, keys=tmp_path, allow_exposed_dev=True).check()


@pytest.mark.parametrize("changes", [{"log_replicas": 1}, {"allow_volatile_log": True}, {"log_follow": "replica"}])
def test_redis_options_are_refused_if_the_log_is_not_in_redis(changes):
    """An option without effect is refused, before somebody relies on it (protocol, section 7)."""
    for log in ("memory:", "sqlite:x.db"):
        with pytest.raises(ConfigError, match=r"^--log-.* for a log in Redis$"):
            settings(log=log, **changes).check()
    for log in ("redis://127.0.0.1", "rediss+sentinel://127.0.0.1/main"):
        settings(log=log, **changes).check()


# ---- sockets -------------------------------------------------------------------------------------------------


def test_bind_returns_a_listening_socket():
    """Connections wait to be accepted from the start (protocol, section 7)."""
    address = Address("127.0.0.1", a_free_port())
    with closing(bind("--api", address)) as listener, closing(socket.create_connection(tuple_of(address))):
        assert listener.getsockname() == tuple_of(address)
        assert not listener.getblocking()


def test_port_in_use_is_refused_with_one_line():
    """The line names the option and the address (rule K1)."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = Address(*other.getsockname())
        with pytest.raises(ConfigError, match=rf"^--api {address}: Address already in use$"):
            bind("--api", address)
        with pytest.raises(ConfigError, match=rf"^--stream {address}: Address already in use$"):
            bind_shared("--stream", address, 2)


def test_bind_shared_returns_several_sockets_with_the_same_port():
    """With `--workers`, processes share the stream listener (protocol, section 7)."""
    address = Address("127.0.0.1", a_free_port())
    with ExitStack() as stack:
        listeners = [stack.enter_context(closing(each)) for each in bind_shared("--stream", address, 3)]
        assert [listener.getsockname() for listener in listeners] == [tuple_of(address)] * 3


def test_bind_shared_refuses_a_port_that_another_node_uses():
    """SO_REUSEPORT alone would silently share the port (rule K1)."""
    address = Address("127.0.0.1", a_free_port())
    with ExitStack() as stack:
        for each in bind_shared("--stream", address, 2):
            stack.enter_context(closing(each))
        with pytest.raises(ConfigError, match="Address already in use"):
            bind_shared("--stream", address, 2)
        with pytest.raises(ConfigError, match="Address already in use"):
            bind("--api", address)


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", ".", "x" * 64], ids=["other machine", "dots", "dot", "too long"])
def test_unusable_host_is_refused_with_one_line(host):
    """192.0.2.1 is reserved for documentation (RFC 5737); the others are not valid names (rule K1)."""
    with pytest.raises(ConfigError, match=r"^--api .*:8766: .") as caught:
        bind("--api", Address(host, 8766))
    assert "\n" not in str(caught.value)


def tuple_of(address):
    """Return the address in the form that sockets use."""
    return address.host, address.port


# ---- file descriptors ----------------------------------------------------------------------------------------


def test_raise_descriptor_limit_sets_the_soft_limit_to_the_hard_limit():
    """Each connection needs a descriptor (protocol, section 7)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        limit = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (limit, hard)
        assert limit == hard or hard == resource.RLIM_INFINITY
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("descriptors", [1, 8, 100, 1_024, 11_024, 20_000, 1_048_576])
def test_connection_limits_leave_enough_descriptors_for_both_listeners_and_the_log(descriptors):
    """However many clients connect to the API, each accepted subscriber has a descriptor (rule BA1d)."""
    api = api_connections_for(descriptors)
    assert 1 <= api <= 2_500
    assert connections_for(descriptors) <= connections_for(descriptors, api=False) <= descriptors
    if descriptors >= 8:
        assert connections_for(descriptors) + api < descriptors
