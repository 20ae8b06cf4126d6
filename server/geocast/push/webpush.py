"""What a push service is sent: a body that only the device can read, and who we are.

    RFC 8291   the message is encrypted to the key of the subscription: ECDH on P-256, HKDF with SHA-256
    RFC 8188   the coding `aes128gcm`: a header of 86 bytes, then one record, padded
    RFC 8292   VAPID: a JWT, signed with ES256, that names the service and whom it may write to

Pure: no clock, no socket; of the key pair and the salt of each message alone comes chance.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from ..auth.base64url import encoded
from ..errors import ConfigError

POINT_BYTES, AUTH_BYTES, SALT_BYTES = 65, 16, 16
HEADER_BYTES = 86  # of the coding: salt, size of a record, length of a key, key
_OVERHEAD = HEADER_BYTES + 1 + 16  # … the delimiter, and the tag of AES-GCM
_RECORD_BYTES = 4096  # what the header says a record may have; there is one, which may be shorter

TOKEN_S = 12 * 3600  # for how long a token of VAPID is good; RFC 8292 allows twice as much
RENEW_S = 3600  # … and how old one is at most when it is used
MAX_HEADERS = 1_024  # that are kept, of 2 KiB; beyond it the oldest goes, and is made again when it is used
_CURVE = SECP256R1()


def max_plaintext(body_bytes: int) -> int:
    """The bytes of text that a body of so many bytes holds."""
    return body_bytes - _OVERHEAD


def point(data: bytes) -> EllipticCurvePublicKey:
    """The key of a subscription: 65 bytes, an uncompressed point on P-256. Raises ValueError."""
    if len(data) != POINT_BYTES or data[0] != 4:
        raise ValueError("not an uncompressed point of P-256")
    return EllipticCurvePublicKey.from_encoded_point(_CURVE, data)


def encrypt(
    plaintext: bytes,
    receiver: bytes,
    auth: bytes,
    body_bytes: int,
    *,
    private: EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """The body for a subscription with this key (65 bytes) and secret (16), of exactly `body_bytes` (WPT2).

    Each message has a key pair and a salt of its own, unless the caller gives them, as the RFC's examples do. Raises
    ValueError if the text is too long, or the key is no point.
    """
    if len(plaintext) > max_plaintext(body_bytes):
        raise ValueError(f"{len(plaintext)} bytes of text, and {max_plaintext(body_bytes)} fit")
    sender = private or generate_private_key(_CURVE)
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    own = _encoded_point(sender.public_key())
    shared = sender.exchange(ECDH(), point(receiver))
    # RFC 8291, 3.4; each HKDF gives 32 bytes at most, so one block of it is enough (RFC 5869, 2.3).
    secret = _hmac(_hmac(auth, shared), b"WebPush: info\0" + receiver + own + b"\1")
    extracted = _hmac(salt, secret)
    key = _hmac(extracted, b"Content-Encoding: aes128gcm\0\1")[:16]
    nonce = _hmac(extracted, b"Content-Encoding: nonce\0\1")[:12]
    padded = plaintext + b"\2" + bytes(max_plaintext(body_bytes) - len(plaintext))
    header = salt + _RECORD_BYTES.to_bytes(4, "big") + bytes([len(own)]) + own
    return header + AESGCM(key).encrypt(nonce, padded, None)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)


def _encoded_point(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


# ---- VAPID ----------------------------------------------------------------------------------------------------------


class VapidKey(NamedTuple):
    """A key by which push services know us. `public` is what browsers call the `applicationServerKey`."""

    public: str
    private: PyJWK


class Vapid:
    """Our keys, and a header for each service (WPT5). The first key is that of new subscriptions."""

    def __init__(self, keys: Sequence[VapidKey], contact: str) -> None:
        """`contact`: how a service reaches whoever runs this, as `mailto:` or `https:`."""
        self._keys = {key.public: key for key in keys}
        self._contact = contact
        self.public = keys[0].public
        self._headers: dict[tuple[str, str], tuple[int, str]] = {}  # (key, origin) -> made at, header; oldest first

    def has(self, public: str) -> bool:
        """Whether this key is among ours: what was subscribed with another is lost."""
        return public in self._keys

    def header(self, public: str, origin: str, now_s: int) -> str:
        """`Authorization` for a request to a service (its origin, such as https://push.example) with one of our keys.

        It is made anew when it is an hour old. Raises KeyError for a key that is not ours.
        """
        made_s, header = self._headers.get((public, origin), (-RENEW_S, ""))
        if not 0 <= now_s - made_s < RENEW_S:
            claims = {"aud": origin, "exp": now_s + TOKEN_S, "sub": self._contact}
            token = jwt.encode(claims, self._keys[public].private, "ES256")
            header = f"vapid t={token},k={public}"
            self._headers.pop((public, origin), None)
            if len(self._headers) >= MAX_HEADERS:
                del self._headers[next(iter(self._headers))]
            self._headers[public, origin] = now_s, header
        return header


def parse_vapid(data: bytes, source: object) -> list[VapidKey]:
    """The keys of the file of `--vapid`, a JWKS of private keys for ES256. Raises ConfigError."""
    try:
        keys = json.loads(data)["keys"]
        found = [_vapid_key(jwk) for jwk in keys]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PyJWTError):
        raise ConfigError(f"vapid {source}: not a JWK set of private keys for ES256 (geocast keygen --vapid)") from None
    if not found:
        raise ConfigError(f"vapid {source}: holds no key")
    return found


def _vapid_key(jwk: Mapping[str, Any]) -> VapidKey:
    if "d" not in jwk or jwk["crv"] != "P-256":
        raise ValueError("not a private key of P-256")
    private = PyJWK(dict(jwk), "ES256")
    return VapidKey(encoded(_encoded_point(private.key.public_key())), private)


def make_vapid_key(kid: str) -> dict[str, str]:
    """A new key for VAPID, as a private JWK."""
    private: dict[str, str] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(generate_private_key(_CURVE)))
    return private | {"kid": kid, "alg": "ES256", "use": "sig"}
