"""Encryption and VAPID: the example of RFC 8291, another implementation as the reader, and py-vapid as the verifier."""

import json
import os

import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from geocast.auth.base64url import decoded, encoded
from geocast.model.errors import ConfigError
from geocast.push import webpush
from geocast.push.webpush import Vapid, encrypt, make_vapid_key, parse_vapid

# RFC 8291, appendix A.
TEXT = b"When I grow up, I want to be a watermelon"
RECEIVER = decoded("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")
AUTH = decoded("BTBZMqHH6r4Tts7J_aSIgg")
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95"
    "bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def a_subscription():
    """Return a device's private key, its public key and its secret."""
    private = ec.generate_private_key(ec.SECP256R1())
    return private, private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint), os.urandom(16)


def read(body, private, auth):
    """Return the text that a device reads from a body."""
    return http_ece.decrypt(body, private_key=private, auth_secret=auth, version="aes128gcm")


def test_encrypt_reproduces_the_example_of_rfc_8291(monkeypatch):
    """The example has no padding, and its key and salt are given (RFC 8291, appendix A)."""
    private = ec.derive_private_key(int.from_bytes(decoded(SENDER), "big"), ec.SECP256R1())
    size = len(TEXT) + webpush.HEADER_BYTES + 17
    monkeypatch.setattr(webpush, "generate_private_key", lambda _curve: private)
    monkeypatch.setattr(webpush.os, "urandom", lambda _length: decoded(SALT))
    assert encoded(encrypt(TEXT, RECEIVER, AUTH, size)) == BODY


@pytest.mark.parametrize("length", [0, 1, 500, 2_897])
def test_all_bodies_have_3000_bytes_and_another_implementation_decrypts_them(length):
    """Every body has 3,000 bytes (rule WPT2)."""
    private, public, auth = a_subscription()
    text = os.urandom(length)
    body = encrypt(text, public, auth, 3_000)
    assert len(body) == 3_000
    assert read(body, private, auth) == text


def test_two_messages_with_one_text_have_different_keys_and_salts():
    """Two bodies of one text for one device differ from the salt on (rule WPT2)."""
    _, public, auth = a_subscription()
    one, other = (encrypt(b"same", public, auth, 3_000) for _ in range(2))
    assert one[:16] != other[:16]
    assert one[21:86] != other[21:86]


def test_encrypt_refuses_a_text_that_is_too_long():
    """At most 2,897 bytes fit (rule WPT2)."""
    _, public, auth = a_subscription()
    with pytest.raises(ValueError, match="2898 bytes of text, and 2897 fit"):
        encrypt(bytes(2_898), public, auth, 3_000)


@pytest.mark.parametrize("wrong", [b"", bytes(65), b"\4" + bytes(64), b"\2" + bytes(32)])
def test_key_that_is_not_a_point_on_the_curve_is_refused(wrong):
    """A key has 65 bytes, an uncompressed point on the curve (rule WPR4)."""
    with pytest.raises(ValueError, match=r"."):
        webpush.point(wrong)


# ---- VAPID ---------------------------------------------------------------------------------------------------------


def keys(*kids):
    """Return a file of `--vapid`."""
    return json.dumps({"keys": [make_vapid_key(kid) for kid in kids]}).encode()


def claims_of(header):
    """Return the claims of an `Authorization` header, verified with the key that the header names."""
    token, key = header.removeprefix("vapid ").split(",")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(key.removeprefix("k=")))
    return jwt.decode(token.removeprefix("t="), public, ["ES256"], options={"verify_aud": False, "verify_exp": False})


def test_vapid_header_names_the_service_and_expires_in_twelve_hours():
    """The claims are `aud`, `exp` and `sub` (rule WPT5, RFC 8292)."""
    vapid = Vapid(parse_vapid(keys("one"), "file"), "mailto:ops@city.example")
    header = vapid.header(vapid.public, "https://push.example", 1_000_000)
    wanted = {"aud": "https://push.example", "exp": 1_000_000 + 12 * 3600, "sub": "mailto:ops@city.example"}
    assert claims_of(header) == wanted


def test_vapid_header_of_a_service_is_renewed_once_an_hour():
    """There is one for each service and key; a clock that was set back makes a new one (rule WPT5)."""
    vapid = Vapid(parse_vapid(keys("one", "two"), "file"), "mailto:ops@city.example")
    first = vapid.header(vapid.public, "https://a.example", 10_000)
    assert vapid.header(vapid.public, "https://a.example", 13_599) == first
    assert vapid.header(vapid.public, "https://b.example", 10_000) != first
    assert claims_of(vapid.header(vapid.public, "https://a.example", 13_600))["exp"] == 13_600 + 12 * 3600
    assert claims_of(vapid.header(vapid.public, "https://a.example", 9_000))["exp"] == 9_000 + 12 * 3600


def test_first_vapid_key_is_for_new_subscriptions_and_the_others_still_sign():
    """Old subscriptions keep their keys (rule WPT5)."""
    first, second = found = parse_vapid(keys("one", "two"), "file")
    vapid = Vapid(found, "mailto:ops@city.example")
    assert vapid.public == first.public
    assert vapid.has(second.public)
    assert not vapid.has(encoded(RECEIVER))
    assert claims_of(vapid.header(second.public, "https://a.example", 0))["aud"] == "https://a.example"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"keys": []}',
        b'{"keys": [{"kty": "EC"}]}',
        json.dumps({"keys": [{k: v for k, v in make_vapid_key("x").items() if k != "d"}]}).encode(),
        json.dumps({"keys": [make_vapid_key("x") | {"d": "AAAA"}]}).encode(),
    ],
)
def test_vapid_file_without_private_keys_is_refused(data):
    """The error is one line, which repeats nothing of the file (rule K1)."""
    with pytest.raises(ConfigError, match=r"^vapid FILE: [^{]*$"):
        parse_vapid(data, "FILE")


def test_number_of_cached_vapid_headers_is_limited(monkeypatch):
    """The oldest header is dropped first, and made again when it is used (rule HD14)."""
    monkeypatch.setattr(webpush, "MAX_HEADERS", 2)
    vapid = Vapid(parse_vapid(keys("one"), "file"), "mailto:ops@city.example")
    first = vapid.header(vapid.public, "https://1.example", 1_000)
    for number in range(2, 6):
        vapid.header(vapid.public, f"https://{number}.example", 1_000)
        assert len(vapid._headers) == 2
    last = vapid.header(vapid.public, "https://5.example", 1_000)
    assert vapid.header(vapid.public, "https://5.example", 1_001) == last
    assert vapid.header(vapid.public, "https://1.example", 1_001) != first
