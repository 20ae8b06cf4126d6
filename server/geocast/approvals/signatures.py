"""Reviewers' signatures: JWS (RFC 7515) with detached content (appendix F), always with Ed25519 (RFC 9864).

    signature = Ed25519(protected + "." + base64url(form))

`protected` is base64url of a JSON object with exactly four members: alg, typ, kid and iat. A signature is verified over
the texts that were received: neither the header nor the form is serialised again before the check.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..auth.base64url import decoded_strictly, encoded
from ..model.alert import Signature
from ..model.errors import ConfigError
from ..wire.strict_json import load_json

ALGORITHM = "Ed25519"
TYPE = "geocast-approval"
MAX_PROTECTED = 1024  # characters; a header with a kid of 16 characters has 127
MAX_TIME_S = 253_402_300_799  # the last second of 9999


class Header(NamedTuple):
    """The protected header of a signature: the id of the signing key, and when it was signed, in s since 1970."""

    kid: str
    issued_at: int


def header_of(protected: str) -> Header:
    """Parse a signature's protected header.

    Raise ValueError unless it has exactly the members alg, typ, kid and iat, all of them valid.
    """
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
    """Return whether `signature` was made with this key, for this form and for the signature's own header."""
    try:
        key.verify(decoded_strictly(signature.signature), _signed(signature.protected, form))
    except (InvalidSignature, ValueError):
        return False
    return True


def sign(form: str, private: Mapping[str, str], issued_at_s: int) -> Signature:
    """Sign a form with a private JWK (RFC 8037) that has a `kid`. Raise ConfigError if it is not such a key."""
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
    """Return the bytes to sign for a header and a form: the JWS signing input (RFC 7515, section 5.1)."""
    return f"{protected}.{encoded(form.encode())}".encode("ascii")
