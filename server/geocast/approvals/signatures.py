"""A reviewer's signature: JWS (RFC 7515) with detached content (appendix F), by Ed25519 (RFC 9864) and nothing else.

    signature = Ed25519(protected + "." + base64url(form))

`protected` is base64url of a JSON object of exactly four members: alg, typ, kid and iat. What is verified is what came:
neither the header nor the form is written again before it is checked.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..auth.base64url import decoded_strictly, encoded
from ..errors import ConfigError
from ..model.alert import Signature
from ..wire.strict_json import load_json

ALGORITHM = "Ed25519"
TYPE = "geocast-approval"
MAX_PROTECTED = 1024  # characters; one has 127 with a kid of 16
MAX_TIME_S = 253_402_300_799  # the last second of 9999


class Header(NamedTuple):
    """What a signature says of itself: whose key made it, and when, in s since 1970."""

    kid: str
    issued_at: int


def header_of(protected: str) -> Header:
    """The header of a signature. Raises ValueError for anything but the four members, each as it has to be."""
    if len(protected) > MAX_PROTECTED:
        raise ValueError("the header is too long")
    try:
        members = load_json(decoded_strictly(protected))
    except Exception as error:
        raise ValueError(f"not a header: {type(error).__name__}") from None
    kid, issued_at = members.get("kid"), members.get("iat")
    fits = members == {"alg": ALGORITHM, "typ": TYPE, "kid": kid, "iat": issued_at}
    if not fits or not isinstance(kid, str) or not kid or type(issued_at) is not int:
        raise ValueError("not the header of an approval")
    if not 0 <= issued_at <= MAX_TIME_S:
        raise ValueError("not a time")
    return Header(kid, issued_at)


def verifies(signature: Signature, form: str, key: Ed25519PublicKey) -> bool:
    """Whether the owner of the key has signed this form, with this header."""
    try:
        key.verify(decoded_strictly(signature.signature), _signed(signature.protected, form))
    except (InvalidSignature, ValueError):
        return False
    return True


def sign(form: str, private: Mapping[str, str], issued_at_s: int) -> Signature:
    """Sign a form with a private JWK (RFC 8037) that has a `kid`. Raises ConfigError."""
    try:
        key = Ed25519PrivateKey.from_private_bytes(decoded_strictly(private["d"]))
        public = key.public_key().public_bytes_raw()
        if private["crv"] != "Ed25519" or decoded_strictly(private["x"]) != public or not private["kid"]:
            raise ValueError
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": private["kid"], "iat": issued_at_s}
        protected = encoded(json.dumps(header).encode())
        return Signature(protected, encoded(key.sign(_signed(protected, form))))
    except (KeyError, TypeError, ValueError):
        raise ConfigError("the key can't sign: it must be a private JWK of Ed25519 with a kid") from None


def _signed(protected: str, form: str) -> bytes:
    """The JWS signing input (RFC 7515, 5.1)."""
    return f"{protected}.{encoded(form.encode())}".encode("ascii")
