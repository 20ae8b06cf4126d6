"""Keys from a URL, by real sockets and TLS: whatever a server does, it is one line and takes no longer than it may."""

import asyncio
import json
import socket
import threading

import pytest
from end_to_end.kit.key_server import KeyServer
from end_to_end.kit.tls import make_certificate
from support.ports import a_free_port

from geocast.auth import jwks_client
from geocast.auth.jwks_client import MAX_ANSWER_BYTES, fetch_keys
from geocast.auth.tokens import make_key, parse_keys
from geocast.config import parse_key_url
from geocast.errors import ConfigError

PUBLIC = make_key("k")[1]
SET = {"keys": [PUBLIC]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """For localhost and 127.0.0.1."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(monkeypatch, certificate):
    """Its authority is one that OpenSSL knows."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))


def fetched(server, certificate, change=lambda url: url):
    """What is fetched from it."""
    with server.serving(certificate) as url:
        return asyncio.run(fetch_keys(parse_key_url(change(url))))


def refused(server, certificate, change=lambda url: url):
    """The one line that is said, without the address."""
    with pytest.raises(ConfigError) as caught:
        fetched(server, certificate, change)
    said = str(caught.value)
    assert said.startswith("keys http")
    assert "\n" not in said
    assert "tenant" not in said, "a query may hold a secret"
    return said.partition("/realms/x/certs: ")[2]


def test_a_set_is_fetched(trusted, certificate):
    """T8: by TLS, with the query."""
    assert parse_keys(fetched(KeyServer(SET), certificate), "here").keys() == {"k"}


def test_an_address_may_be_a_number(trusted, certificate):
    """T8."""
    assert fetched(KeyServer(SET), certificate, lambda url: url.replace("localhost", "127.0.0.1"))


def test_chunks_are_put_together(trusted, certificate):
    """RFC 9112, 7.1."""
    server = KeyServer(SET)
    body = json.dumps(SET).encode()
    server.keys = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:])) + b"0\r\n\r\n"
    server.headers = {"Transfer-Encoding": "chunked"}
    assert fetched(server, certificate)


def answering(keys=SET, status=200, **headers):
    """A server that does."""
    server = KeyServer(keys)
    server.status, server.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
    return server


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (answering(status=500), "answered 500, not 200"),
        (answering(status=404), "answered 404, not 200"),
        (answering(status=302, Location="https://127.0.0.1/"), "answered 302, not 200 (redirects are not followed"),
        (answering(status=304), "answered 304, not 200"),
        (answering(b"<html>"), "not a JWK set"),
        (answering(b"\xff"), "not a JWK set"),
        (answering(b""), "not a JWK set"),
        (answering([]), "not a JWK set"),
        (answering({"keys": {}}), "not a JWK set"),
        (answering({"keys": [5]}), "not a JWK set"),
        (answering(b"[" * 100_000), "not a JWK set"),
        (answering({"keys": []}), "holds no key that can be used"),
        (answering({"keys": [make_key("k")[0]]}), "is a private key"),
        (answering({"keys": [PUBLIC, PUBLIC]}), "needs a kid of its own"),
        (answering(b" " * MAX_ANSWER_BYTES + json.dumps(SET).encode()), "its answer is longer than 256 KiB"),
        (answering(**{f"X-{n}": "x" * 1000 for n in range(300)}), "its answer is "),
        (answering(Content_Length="5, 6"), "its answer is not HTTP/1.1, or is cut off"),
    ],
    ids=range(17),
)
def test_an_answer_that_cannot_be_used_is_told_in_one_line(trusted, certificate, server, said):
    """T8; K1."""
    assert said in refused(server, certificate)


def test_a_certificate_has_to_be_good(certificate, monkeypatch):
    """T8: signed by an authority that is known, for the very name."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert "its certificate is not good: self" in refused(KeyServer(SET), certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))
    other = refused(KeyServer(SET), certificate, lambda url: url.replace("localhost", "127.0.0.2"))
    assert "its certificate is not good: " in other or "can't be reached" in other


def test_what_does_not_speak_tls_is_told_so(trusted):
    """T8."""
    assert "no TLS with it" in refused(KeyServer(SET), None, lambda url: url.replace("http:", "https:"))


def test_nobody_there_is_told_so(trusted, certificate):
    """T8."""
    with pytest.raises(ConfigError, match="can't be reached: "):
        asyncio.run(fetch_keys(parse_key_url(f"https://127.0.0.1:{a_free_port()}/")))


@pytest.mark.parametrize("ways", [{"drips": True}, {"slow_s": 60.0}], ids=["drips", "says nothing"])
def test_a_server_that_takes_too_long_is_left(trusted, certificate, monkeypatch, ways):
    """T8: the time is for all of it; bytes that come now and then win none."""
    monkeypatch.setattr(jwks_client, "FETCH_S", 0.3)
    server = KeyServer(SET)
    for name, value in ways.items():
        setattr(server, name, value)
    assert "no whole answer within 0.3 s" in refused(server, certificate)


def test_a_port_that_takes_connections_and_does_nothing_is_left(trusted, monkeypatch):
    """T8: not even the handshake of TLS may take longer."""
    monkeypatch.setattr(jwks_client, "FETCH_S", 0.3)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigError, match=r"within 0\.3 s"):
        asyncio.run(fetch_keys(parse_key_url(f"https://127.0.0.1:{silent.getsockname()[1]}/")))
    assert set(threading.enumerate()) <= before, "nothing is left behind that a fork would not survive"


# ---- what is taken of a set that others publish ------------------------------------------------------------------


def test_keys_for_other_uses_are_passed_over(trusted, certificate):
    """T8; RFC 7517, 5: Keycloak's has one for encryption, and certificates; published secrets are none."""
    keys = [
        {"kty": "RSA", "kid": "enc", "alg": "RSA-OAEP", "use": "enc", "n": "x", "e": "AQAB"},
        {"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0" * 10},
        PUBLIC | {"kid": "no alg", "alg": None},
        PUBLIC | {"kid": "broken", "x": "AAAA"},
        {name: value for name, value in PUBLIC.items() if name != "kid"},
        PUBLIC | {"use": "sig", "x5c": ["MII"], "x5t": "x"},
    ]
    found = fetched(KeyServer({"keys": keys, "note": 1}), certificate)
    assert [jwk["kid"] for jwk in json.loads(found)["keys"]] == ["k"]
    assert b"x5c" not in found


def test_the_same_keys_in_another_order_are_the_same_set(trusted, certificate):
    """BA2: nodes that have fetched from different servers can be compared."""
    other = make_key("a")[1]
    one, two = ({"keys": keys} for keys in ([PUBLIC, other], [other | {"x5t": "y"}, PUBLIC]))
    assert fetched(KeyServer(one), certificate) == fetched(KeyServer(two), certificate)


@pytest.mark.parametrize(
    "text",
    [
        "https://",
        "https:///x",
        "ftp://x/",
        "https://user@x/",
        "https://user:secret@x/",
        "https://x/#part",
        "https://x:0/",
        "https://x:99999/",
        "https://x:y/",
        "https://[::1/",
        "https://x/a b",
        "https://x/\u00e9",
        "https://x/\n",
    ],
)
def test_an_address_that_cannot_be_one_is_refused(text):
    """K1: what was given is not repeated."""
    with pytest.raises(ConfigError) as caught:
        parse_key_url(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://idp.example/certs?k=secret", "https://idp.example:443/certs"),
        ("https://IDP.example:8443", "https://idp.example:8443/"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
    ],
)
def test_an_address_is_shown_without_its_query(text, shown):
    """It may hold a secret."""
    assert str(parse_key_url(text)) == shown
