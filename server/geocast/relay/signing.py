"""Signatures of webhooks as Standard Webhooks 1.0 defines them (rule WH9).

    whsec_…  a secret of 24 to 64 bytes       v1,…   HMAC-SHA256
    whsk_…   a private key of Ed25519         v1a,…  Ed25519; receivers have the public key, whpk_…

What follows the prefix is base64. A private key is the 32 bytes of RFC 8032, or these and the public key. The signed
text is `id.timestamp.body`. The PyPI package `standardwebhooks` knows only `v1`, so this module doesn't use it.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SYMMETRIC, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
LEAST_BYTES, MOST_BYTES = 24, 64
NEW_BYTES = 32
KEY_BYTES = 32  # of a key of Ed25519
MAX_SECRETS = 4
EXPECTED = f"expected 1 to {MAX_SECRETS} secrets, {SYMMETRIC}… ({LEAST_BYTES} to {MOST_BYTES} bytes) or {PRIVATE}…"

_Sign = Callable[[bytes], str]


class WebhookSigner:
    """Signs webhooks with the secrets of one target."""

    def __init__(self, signs: Sequence[_Sign]) -> None:
        self._signs = signs

    def headers(self, message_id: str, at_s: int, body: bytes) -> dict[str, str]:
        """Return the header fields for a request with this body that is sent at `at_s`, in seconds since 1970."""
        found = {"webhook-id": message_id, "webhook-timestamp": str(at_s)}
        signed = f"{message_id}.{at_s}.".encode() + body
        return found | ({"webhook-signature": " ".join(sign(signed) for sign in self._signs)} if self._signs else {})


UNSIGNED = WebhookSigner([])


def parse_secrets(text: str) -> WebhookSigner:
    """Return a signer for the secrets in `text`, which are separated by white space.

    Raise ValueError if there are none or too many, or if one is malformed. The error doesn't repeat them.
    """
    words = text.split()
    try:
        if not 1 <= len(words) <= MAX_SECRETS:
            raise ValueError
        return WebhookSigner([_signature_of(word) for word in words])
    except ValueError:
        raise ValueError(EXPECTED) from None


def _signature_of(word: str) -> _Sign:
    key = base64.b64decode(word.partition("_")[2], validate=True)
    if word.startswith(SYMMETRIC) and LEAST_BYTES <= len(key) <= MOST_BYTES:
        return lambda data: f"v1,{_text(hmac.digest(key, data, hashlib.sha256))}"
    if word.startswith(PRIVATE) and len(key) in (KEY_BYTES, 2 * KEY_BYTES):
        private = Ed25519PrivateKey.from_private_bytes(key[:KEY_BYTES])
        if key[KEY_BYTES:] in (b"", private.public_key().public_bytes_raw()):
            return lambda data: f"v1a,{_text(private.sign(data))}"
    raise ValueError


def make_secret() -> str:
    """Return a new secret for HMAC."""
    return SYMMETRIC + _text(secrets.token_bytes(NEW_BYTES))


def make_key_pair() -> tuple[str, str]:
    """Return a new private key of Ed25519 for the relay, and the public key for receivers."""
    private = Ed25519PrivateKey.generate()
    return PRIVATE + _text(private.private_bytes_raw()), PUBLIC + _text(private.public_key().public_bytes_raw())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
