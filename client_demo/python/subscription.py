"""A push subscription (RFC 8030) on the phone: its encryption keys, and how to read a push (RFC 8291, RFC 8188).

Browsers decrypt pushes themselves. An app that gets its pushes through UnifiedPush needs this module.

    subscription = Subscription(endpoint)          # the push service has assigned the endpoint
    body = {"subscription": subscription.to_map(), "places": [{"cell": "8926cb19c93ffff"}]}   # PUT /v1/devices/{id}
    message = subscription.read(pushed)            # {"type": "alert", …}

Needs `cryptography`: `pip install geocast-client[verify]`.
"""

import json
import os
import struct
from typing import Any

from .base64url import encoded
from .wire import Message

HEAD = struct.Struct("!16sIB")  # salt, size of a record, length of the sender's key (RFC 8188, 2.1)
POINT_BYTES, TAG_BYTES = 65, 16
LAST = b"\x02"  # ends the text of the last record, before the padding of zeros

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    raise ImportError("reading pushes needs cryptography: pip install geocast-client[verify]") from None


class Subscription:
    """A push subscription: an endpoint, with the private key and the secret that were made for it."""

    def __init__(self, endpoint: str, private: ec.EllipticCurvePrivateKey | None = None, auth: bytes = b"") -> None:
        """Make a subscription for a push service's `endpoint`.

        `private` is a private key on the curve P-256, and `auth` a secret of 16 bytes. Each is drawn at random if it is
        None.
        """
        self.endpoint = endpoint
        self.private = private or ec.generate_private_key(ec.SECP256R1())
        self.auth = auth or os.urandom(16)
        self._public = _bytes_of(self.private.public_key())

    def to_map(self) -> dict[str, Any]:
        """Return the subscription as a dict, in the format in which phones register it.

        It is the format of a browser's `PushSubscription.toJSON()`.
        """
        return {"endpoint": self.endpoint, "keys": {"p256dh": encoded(self._public), "auth": encoded(self.auth)}}

    def read(self, body: bytes) -> Message:
        """Decrypt a push, and return its message.

        Raise ValueError if the push was encrypted for other keys, or has no message.
        """
        try:
            text = self._decrypt(body)
        except (InvalidTag, ValueError, struct.error):
            raise ValueError("the push was not encrypted for this subscription") from None
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ValueError("the push is no message")
        return message

    def _decrypt(self, body: bytes) -> bytes:
        salt, size, length = HEAD.unpack_from(body)
        sender, sealed = body[HEAD.size : HEAD.size + length], body[HEAD.size + length :]
        if length != POINT_BYTES or not TAG_BYTES < len(sealed) <= size:  # exactly one record (RFC 8291, 4)
            raise ValueError("no record of aes128gcm")
        shared = self.private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
        secret = _derived(shared, self.auth, b"WebPush: info\0" + self._public + sender, 32)
        key = _derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = _derived(secret, salt, b"Content-Encoding: nonce\0", 12)
        text = AESGCM(key).decrypt(nonce, sealed, None).rstrip(b"\0")
        if not text.endswith(LAST):
            raise ValueError("no last record of aes128gcm")
        return text[:-1]


def _derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def _bytes_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
