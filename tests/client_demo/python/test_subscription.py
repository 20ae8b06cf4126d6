"""Tests of decrypting pushes: the example of RFC 8291, bodies of the server and of http-ece, and malformed ones."""

import os

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.flipping import flipped

from client_demo.python.subscription import Subscription
from geocast.auth.base64url import decoded
from geocast.push.webpush import encrypt

ENDPOINT = "https://push.example/x"
# The example of RFC 8291, appendix A.
TEXT = b"When I grow up, I want to be a watermelon"
PRIVATE = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
PUBLIC = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95"
    "bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


@pytest.fixture
def subscription():
    """Return the subscription of a phone."""
    return Subscription(ENDPOINT)


def pushed(subscription, text, size=3_000):
    """Return `text` as the server encrypts it for the subscription."""
    keys = subscription.to_map()["keys"]
    return encrypt(text, decoded(keys["p256dh"]), decoded(keys["auth"]), size)


def test_example_of_the_rfc_is_decrypted():
    """The example's text is no message, so the decrypted bytes are compared (RFC 8291, appendix A)."""
    private = ec.derive_private_key(int.from_bytes(decoded(PRIVATE), "big"), ec.SECP256R1())
    subscription = Subscription(ENDPOINT, private, decoded(AUTH))
    assert subscription.to_map() == {"endpoint": ENDPOINT, "keys": {"p256dh": PUBLIC, "auth": AUTH}}
    assert subscription._decrypt(decoded(BODY)) == TEXT


def test_bodies_of_the_server_and_of_http_ece_are_read(subscription):
    """Padding may have any length, or be absent."""
    text = '{"type": "alert", "alert": {"headline": "Größe\\u0000"}}'.encode()
    message = {"type": "alert", "alert": {"headline": "Größe\0"}}
    assert subscription.read(pushed(subscription, text)) == message
    assert subscription.read(pushed(subscription, text, 1_024)) == message
    public = subscription.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    sender = ec.generate_private_key(ec.SECP256R1())
    body = http_ece.encrypt(text, private_key=sender, dh=public, auth_secret=subscription.auth, version="aes128gcm")
    assert subscription.read(body) == message


def test_body_for_another_phone_or_changed_body_raises_valueerror(subscription):
    """Each part of the body is changed once."""
    body = pushed(subscription, b'{"type": "renew"}')
    with pytest.raises(ValueError, match="not encrypted for this subscription"):
        Subscription(ENDPOINT).read(body)
    for at in (0, 20, 21, 22, 60, 90, len(body) - 1):
        with pytest.raises(ValueError, match="not encrypted for this subscription"):
            subscription.read(flipped(body, at))


@pytest.mark.parametrize("body", [b"", b"x" * 20, b"x" * 21, os.urandom(200), bytes(3_000)])
def test_malformed_body_raises_valueerror(subscription, body):
    with pytest.raises(ValueError, match="not encrypted for this subscription"):
        subscription.read(body)


@pytest.mark.parametrize("text", [b"", b"no json", b"[]", b"1", b"\xff", b"[" * 2_500])
def test_decrypted_text_that_is_no_message_raises_valueerror(subscription, text):
    with pytest.raises(ValueError, match="no message"):
        subscription.read(pushed(subscription, text))
