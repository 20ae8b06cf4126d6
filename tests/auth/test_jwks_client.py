"""Keys from a URL, with real sockets and TLS: every failure is one line, within the time limit."""

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
from geocast.model.errors import ConfigError

PUBLIC = make_key("k")[1]
SET = {"keys": [PUBLIC]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a certificate for localhost and 127.0.0.1."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(monkeypatch, certificate):
    """Make OpenSSL trust the certificate's authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))


def fetched(server, certificate, change=lambda url: url):
    """Return the key set that the client fetches from the server."""
    with server.serving(certificate) as url:
        return asyncio.run(fetch_keys(parse_key_url(change(url))))


def refused(server, certificate, change=lambda url: url):
    """Return the text of the client's error, without the URL."""
    with pytest.raises(ConfigError) as caught:
        fetched(server, certificate, change)
    said = str(caught.value)
    assert said.startswith("keys http")
    assert "\n" not in said
    assert "tenant" not in said, "a query may contain a secret"
    return said.partition("/realms/x/certs: ")[2]


def test_fetch_keys_returns_key_set(trusted, certificate):
    """The keys are fetched with TLS, from a URL with a query (rule T8)."""
    assert parse_keys(fetched(KeyServer(SET), certificate), "here").keys() == {"k"}


def test_host_of_key_server_may_be_an_ip_address(trusted, certificate):
    """The certificate must name the IP address (rule T8)."""
    assert fetched(KeyServer(SET), certificate, lambda url: url.replace("localhost", "127.0.0.1"))


def test_chunked_response_is_read(trusted, certificate):
    """The encoding follows RFC 9112, section 7.1."""
    server = KeyServer(SET)
    body = json.dumps(SET).encode()
    server.keys = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:5], body[5:])) + b"0\r\n\r\n"
    server.headers = {"Transfer-Encoding": "chunked"}
    assert fetched(server, certificate)


def answering(keys=SET, status=200, **headers):
    """Return a server that gives this answer."""
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
        (answering({"keys": []}), "holds no usable key"),
        (answering({"keys": [make_key("k")[0]]}), "is a private key"),
        (answering({"keys": [PUBLIC, PUBLIC]}), "needs a kid of its own"),
        (answering(b" " * MAX_ANSWER_BYTES + json.dumps(SET).encode()), "its response is longer than 256 KiB"),
        (answering(**{f"X-{n}": "x" * 1000 for n in range(300)}), "its response is "),
        (answering(Content_Length="5, 6"), "its response is not valid HTTP/1.1, or is incomplete"),
    ],
    ids=range(17),
)
def test_unusable_response_is_refused_with_one_line(trusted, certificate, server, said):
    """The line says what was wrong with the response (rules T8 and K1)."""
    assert said in refused(server, certificate)


def test_invalid_certificate_is_refused(certificate, monkeypatch):
    """A certificate must be signed by a trusted authority, for the name in the URL (rule T8)."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert "its certificate is not valid: self" in refused(KeyServer(SET), certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))
    other = refused(KeyServer(SET), certificate, lambda url: url.replace("localhost", "127.0.0.2"))
    assert "its certificate is not valid: " in other or "can't be reached" in other


def test_server_without_tls_is_refused(trusted):
    """Keys are only fetched over TLS (rule T8)."""
    assert "TLS failed" in refused(KeyServer(SET), None, lambda url: url.replace("http:", "https:"))


def test_unreachable_server_is_reported(trusted, certificate):
    """The error says that the server can't be reached (rule T8)."""
    with pytest.raises(ConfigError, match="can't be reached: "):
        asyncio.run(fetch_keys(parse_key_url(f"https://127.0.0.1:{a_free_port()}/")))


@pytest.mark.parametrize("ways", [{"drips": True}, {"slow_s": 60.0}], ids=["drips", "silent"])
def test_fetch_from_slow_server_ends_at_time_limit(trusted, certificate, monkeypatch, ways):
    """The time limit is for the whole request; single bytes do not extend it (rule T8)."""
    monkeypatch.setattr(jwks_client, "FETCH_S", 0.3)
    server = KeyServer(SET)
    for name, value in ways.items():
        setattr(server, name, value)
    assert "no complete response within 0.3 s" in refused(server, certificate)


def test_fetch_ends_at_time_limit_if_tls_handshake_stalls(trusted, monkeypatch):
    """The time limit includes the TLS handshake (rule T8)."""
    monkeypatch.setattr(jwks_client, "FETCH_S", 0.3)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigError, match=r"within 0\.3 s"):
        asyncio.run(fetch_keys(parse_key_url(f"https://127.0.0.1:{silent.getsockname()[1]}/")))
    assert set(threading.enumerate()) <= before, "no thread is left behind, which would make a fork unsafe"


# ---- usable keys of a key set -----------------------------------------------------------------------------------


def test_keys_for_other_purposes_are_ignored(trusted, certificate):
    """Keycloak publishes an encryption key and certificates. Symmetric keys are ignored too (rule T8; RFC 7517, 5)."""
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


def test_order_of_keys_does_not_change_fetched_set(trusted, certificate):
    """So nodes that fetch from different servers can be compared (rule BA2)."""
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
def test_invalid_key_url_is_refused_without_repeating_it(text):
    """The URL may contain a secret (rule K1)."""
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
def test_key_url_is_shown_without_its_query(text, shown):
    """The query may contain a secret."""
    assert str(parse_key_url(text)) == shown
