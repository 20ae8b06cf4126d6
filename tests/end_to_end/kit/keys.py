"""Signing keys, and valid and invalid tokens of every kind."""

import os
import time
from collections.abc import Sequence
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from end_to_end.kit.alerts import Json
from jwt.algorithms import OKPAlgorithm
from jwt.utils import base64url_encode

EVERY_SCOPE = "alerts:publish alerts:manage alerts:audit alerts:receive alerts:test"
AUDITOR_SCOPE = "alerts:manage alerts:audit"
DESK_SCOPE = "alerts:publish"
PHONE_SCOPE = "alerts:receive"
LIFE_S = 6 * 3600  # the lifetime of a token, longer than all tests take on a slow machine


class Keys:
    """An Ed25519 key pair with the `kid` "ed", an HS256 secret with the `kid` "hs", and tokens signed by them."""

    def __init__(self, quals: Sequence[str] = ()) -> None:
        """Create the keys; `quals` are the qualifications that "ed" may grant."""
        self.quals = list(quals)
        self.private = Ed25519PrivateKey.generate()
        self.stranger = Ed25519PrivateKey.generate()
        self.secret = os.urandom(64)

    def jwks(self) -> Json:
        """Return the content of the key file."""
        public = OKPAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        secret = {"kty": "oct", "k": base64url_encode(self.secret).decode()}
        grants = {"quals": self.quals} if self.quals else {}
        return {
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": public["x"], "kid": "ed", "alg": "EdDSA", **grants},
                {**secret, "kid": "hs", "alg": "HS256"},
            ]
        }

    def claims(self, **changes: Any) -> Json:
        """Return valid claims that outlast all tests, with changes; a change of None removes a claim."""
        good = {
            "aud": "geocast",
            "sub": "desk-one",
            "exp": int(time.time()) + LIFE_S,
            "scope": EVERY_SCOPE,
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, **changes: Any) -> str:
        """Return a valid token, with changed claims."""
        return self.signed(self.claims(**changes))

    def signed(self, claims: Json, key: Any = None, alg: str = "EdDSA", kid: Any = "ed") -> str:
        """Return a token with any claims, key, algorithm and `kid`."""
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(claims, key or self.private, algorithm=alg, headers=headers)

    def bad_tokens(self) -> dict[str, str]:
        """Return an invalid token for each possible defect, by the name of the defect (section 6)."""
        soon, past = int(time.time()) + LIFE_S, int(time.time()) - 1
        good = self.token()
        head, body, signature = good.split(".")
        public = self.private.public_key().public_bytes_raw()
        unsigned = jwt.encode(self.claims(), None, algorithm="none", headers={"kid": "ed"})
        return {
            "forged": self.signed(self.claims(), key=self.stranger),
            "expired": self.token(exp=past),
            "expired long ago": self.token(exp=1),
            "not yet": self.token(nbf=soon),
            "wrong aud": self.token(aud="geocast2"),
            "aud in capitals": self.token(aud="GEOCAST"),
            "aud list without us": self.token(aud=["other", "geo"]),
            "empty aud list": self.token(aud=[]),
            "no aud": self.token(aud=None),
            "no sub": self.token(sub=None),
            "no exp": self.token(exp=None),
            "exp is text": self.token(exp="tomorrow"),
            "sub is a number": self.token(sub=12),
            "no kid": self.signed(self.claims(), kid=None),
            "unknown kid": self.signed(self.claims(), kid="other"),
            "alg none": unsigned,
            "alg none, old signature": f"{unsigned.split('.')[0]}.{body}.{signature}",
            "HS256 with the public key": self.signed(self.claims(), key=public, alg="HS256"),
            "HS256 key under the EdDSA kid": self.signed(self.claims(), key=self.secret, alg="HS256"),
            "EdDSA key under the HS256 kid": self.signed(self.claims(), kid="hs"),
            "HS512 where the key says HS256": self.signed(self.claims(), key=self.secret, alg="HS512", kid="hs"),
            "over 4 KiB": self.token(pad="x" * 4096),
            "no signature": f"{head}.{body}.",
            "two parts": f"{head}.{body}",
            "four parts": f"{good}.{signature}",
            "another body": f"{head}.{self.token(sub='desk-two').split('.')[1]}.{signature}",
            "not a token": "seventy-three",
        }


def bearer(token: str | None) -> dict[str, str]:
    """Return the Authorization header for a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}
