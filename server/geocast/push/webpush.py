"""The request to a push service: a body that only the device can decrypt, and a token signed by this server.

    RFC 8291   the message is encrypted to the key of the subscription: ECDH on P-256, HKDF with SHA-256
    RFC 8188   the content coding `aes128gcm`: a header of 86 bytes, then one record, padded
    RFC 8292   VAPID: a JWT, signed with ES256, that names the service and a contact of the operator

This module reads no clock and does no I/O. The key pair and the salt of each message are random.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import ECDH, SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from ..auth.base64url import encoded
from ..model.errors import ConfigError

POINT_BYTES, AUTH_BYTES, SALT_BYTES = 65, 16, 16
HEADER_BYTES = 86  # size of the coding's header: salt, record size, key length, key
_OVERHEAD = HEADER_BYTES + 1 + 16  # header, delimiter, and tag of AES-GCM
_RECORD_BYTES = 4096  # the record size that the header states; the only record may be shorter

TOKEN_S = 12 * 3600  # the lifetime of a VAPID token; RFC 8292 allows twice as much
RENEW_S = 3600  # the greatest age at which a token is still used
MAX_HEADERS = 1_024  # number of cached headers, of 2 KiB each; beyond it the oldest is dropped
_CURVE = SECP256R1()


def max_plaintext(body_bytes: int) -> int:
    """Return how many bytes of plaintext fit into a body of `body_bytes`."""
    return body_bytes - _OVERHEAD


def point(data: bytes) -> EllipticCurvePublicKey:
    """Return the public key in these 65 bytes. Raise ValueError if they are not an uncompressed point on P-256."""
    if len(data) != POINT_BYTES or data[0] != 4:
        raise ValueError("not an uncompressed point of P-256")
    return EllipticCurvePublicKey.from_encoded_point(_CURVE, data)


def encrypt(plaintext: bytes, receiver: bytes, auth: bytes, body_bytes: int) -> bytes:
    """Return the encrypted body of a push, of exactly `body_bytes` (rule WPT2).

    `receiver` is the subscription's key (65 bytes), `auth` its secret (16 bytes). Each message has its own key pair and
    salt. Raise ValueError if the text is too long or the key is not a valid point on the curve.
    """
    if len(plaintext) > max_plaintext(body_bytes):
        raise ValueError(f"{len(plaintext)} bytes of text, and {max_plaintext(body_bytes)} fit")
    sender, salt = generate_private_key(_CURVE), os.urandom(SALT_BYTES)
    own = _encoded_point(sender.public_key())
    shared = sender.exchange(ECDH(), point(receiver))
    # RFC 8291, 3.4. Each HKDF yields 32 bytes at most, so its first block is enough (RFC 5869, 2.3).
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


# ---- VAPID: keys that identify this server to push services ---------------------------------------------------------


class VapidKey(NamedTuple):
    """A key pair with which this server identifies itself to push services.

    `public` is the public key in the form that browsers expect as `applicationServerKey`.
    """

    public: str
    private: PyJWK


class Vapid:
    """The server's VAPID keys. Makes the `Authorization` headers that are signed with them (rule WPT5).

    The first key is for new subscriptions.
    """

    def __init__(self, keys: Sequence[VapidKey], contact: str) -> None:
        """Create the object from these keys.

        `contact` is the operator's address, which starts with `mailto:` or `https:`.
        """
        self._keys = {key.public: key for key in keys}
        self._contact = contact
        self.public = keys[0].public
        self._headers: dict[tuple[str, str], tuple[int, str]] = {}  # (key, origin) -> (made at, header); oldest first

    def has(self, public: str) -> bool:
        """Return whether this public key is one of the server's keys.

        The server can't push to subscriptions that were made with other keys.
        """
        return public in self._keys

    def header(self, public: str, origin: str, now_s: int) -> str:
        """Return the value of the header `Authorization` for requests to a push service.

        The value is signed with the private key that belongs to `public` (a public key). `origin` is the origin of the
        service, such as https://push.example. A value is cached for an hour. Raise KeyError if the key is not one of
        the server's.
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
    """Return the keys in `data`, which is the content of the file that the option `--vapid` names.

    Raise ConfigError if it is not a JWKS of private keys for ES256.
    """
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
    """Return a new VAPID key as a JWK that contains the private key."""
    private: dict[str, str] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(generate_private_key(_CURVE)))
    return private | {"kid": kid, "alg": "ES256", "use": "sig"}
