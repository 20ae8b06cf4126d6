"""What a push service is sent: RFC 8291's own example, a reader that shares no line with us, and VAPID by py-vapid."""

import json
import os

import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from geocast.auth.base64url import decoded, encoded
from geocast.errors import ConfigError
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
    """A device's private key, its public one and its secret."""
    private = ec.generate_private_key(ec.SECP256R1())
    return private, private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint), os.urandom(16)


def read(body, private, auth):
    """What a device reads."""
    return http_ece.decrypt(body, private_key=private, auth_secret=auth, version="aes128gcm")


def test_the_example_of_the_rfc_comes_out_byte_for_byte():
    """RFC 8291, appendix A: without padding, by the key and the salt that it names."""
    private = ec.derive_private_key(int.from_bytes(decoded(SENDER), "big"), ec.SECP256R1())
    size = len(TEXT) + webpush.HEADER_BYTES + 17
    assert encoded(encrypt(TEXT, RECEIVER, AUTH, size, private=private, salt=decoded(SALT))) == BODY


@pytest.mark.parametrize("length", [0, 1, 500, 2_897])
def test_every_body_is_as_long_and_another_reader_reads_it(length):
    """WPT2: 3,000 bytes, whatever is said."""
    private, public, auth = a_subscription()
    text = os.urandom(length)
    body = encrypt(text, public, auth, 3_000)
    assert len(body) == 3_000
    assert read(body, private, auth) == text


def test_no_two_messages_share_a_key_or_a_salt():
    """WPT2: the same text to the same device is other bytes, from the salt on."""
    _, public, auth = a_subscription()
    one, other = (encrypt(b"same", public, auth, 3_000) for _ in range(2))
    assert one[:16] != other[:16]
    assert one[21:86] != other[21:86]


def test_a_text_that_does_not_fit_is_not_sent():
    """WPT2: 2,897 bytes."""
    _, public, auth = a_subscription()
    with pytest.raises(ValueError, match="2898 bytes of text, and 2897 fit"):
        encrypt(bytes(2_898), public, auth, 3_000)


@pytest.mark.parametrize("wrong", [b"", bytes(65), b"\4" + bytes(64), b"\2" + bytes(32)])
def test_a_key_that_is_no_point_is_refused(wrong):
    """WPR4: 65 bytes, an uncompressed point on the curve."""
    with pytest.raises(ValueError, match=r"."):
        webpush.point(wrong)


# ---- VAPID ---------------------------------------------------------------------------------------------------------


def keys(*kids):
    """A file of `--vapid`."""
    return json.dumps({"keys": [make_vapid_key(kid) for kid in kids]}).encode()


def claims_of(header):
    """What a service reads in `Authorization`, checked by the key that it names."""
    token, key = header.removeprefix("vapid ").split(",")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(key.removeprefix("k=")))
    return jwt.decode(token.removeprefix("t="), public, ["ES256"], options={"verify_aud": False, "verify_exp": False})


def test_a_header_names_the_service_for_twelve_hours():
    """WPT5: `aud`, `exp`, `sub`; RFC 8292."""
    vapid = Vapid(parse_vapid(keys("one"), "file"), "mailto:ops@city.example")
    header = vapid.header(vapid.public, "https://push.example", 1_000_000)
    wanted = {"aud": "https://push.example", "exp": 1_000_000 + 12 * 3600, "sub": "mailto:ops@city.example"}
    assert claims_of(header) == wanted


def test_a_header_is_made_once_an_hour():
    """WPT5: one for each service and key; of a clock that was set back as well."""
    vapid = Vapid(parse_vapid(keys("one", "two"), "file"), "mailto:ops@city.example")
    first = vapid.header(vapid.public, "https://a.example", 10_000)
    assert vapid.header(vapid.public, "https://a.example", 13_599) == first
    assert vapid.header(vapid.public, "https://b.example", 10_000) != first
    assert claims_of(vapid.header(vapid.public, "https://a.example", 13_600))["exp"] == 13_600 + 12 * 3600
    assert claims_of(vapid.header(vapid.public, "https://a.example", 9_000))["exp"] == 9_000 + 12 * 3600


def test_the_first_key_is_that_of_new_subscriptions_and_the_others_sign_too():
    """WPT5."""
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
def test_a_file_without_private_keys_is_refused(data):
    """K1: one line, which repeats nothing of the file."""
    with pytest.raises(ConfigError, match=r"^vapid FILE: [^{]*$"):
        parse_vapid(data, "FILE")


def test_headers_that_are_kept_for_services_are_bounded(monkeypatch):
    """The oldest goes first, and is made again when it is used (rule HD14)."""
    monkeypatch.setattr(webpush, "MAX_HEADERS", 2)
    vapid = Vapid(parse_vapid(keys("one"), "file"), "mailto:ops@city.example")
    first = vapid.header(vapid.public, "https://1.example", 1_000)
    for number in range(2, 6):
        vapid.header(vapid.public, f"https://{number}.example", 1_000)
        assert len(vapid._headers) == 2
    last = vapid.header(vapid.public, "https://5.example", 1_000)
    assert vapid.header(vapid.public, "https://5.example", 1_001) == last
    assert vapid.header(vapid.public, "https://1.example", 1_001) != first
