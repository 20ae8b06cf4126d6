"""The verification of Ed25519 signatures with libsodium, which takes half of the time that OpenSSL takes.

Rule 1  The result for every signature is that of OpenSSL, with which other programs and older nodes verify tokens. A
        signature (R, s) of a message is valid for a key A if s is less than the order of the group, and R is the
        canonical encoding of sB - hA (RFC 8032, 5.1.7; both libraries leave out the cofactor). libsodium also refuses
        keys and Rs of small order, and keys that are not encoded canonically. So only keys with the canonical encoding
        of a point of the main subgroup are used with it. For such a key, sB - hA is in the main subgroup too, and the
        only R of small order there is the neutral point. OpenSSL verifies the signatures with this R, and those of all
        other keys. A test compares the two libraries on signatures that were made to be odd.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

SIGNATURE_BYTES = 64
_NEUTRAL = (1).to_bytes(32, "little")  # the encoding of the neutral point


class Ed25519Verifier:
    """Verifies signatures with one public key."""

    __slots__ = ("_key", "_point")

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        point = key.public_bytes_raw()
        self._point = point if crypto_core_ed25519_is_valid_point(point) else None  # None: not for libsodium (Rule 1)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether the signature of the message is valid."""
        try:
            if self._point is None or len(signature) != SIGNATURE_BYTES or signature.startswith(_NEUTRAL):
                self._key.verify(signature, message)
            else:
                crypto_sign_open(signature + message, self._point)
        except (InvalidSignature, BadSignatureError):
            return False
        return True
