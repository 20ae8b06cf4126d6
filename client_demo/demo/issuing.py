"""Issues tokens for the demo's phones: JWTs, signed with a private key that `geocast keygen` has made."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client_demo.python.base64url import decoded, encoded


class Issuer:
    """An issuer that signs tokens with the private JWK in a file."""

    def __init__(self, path: Path) -> None:
        jwk = json.loads(path.read_text(encoding="utf-8"))
        self._key = Ed25519PrivateKey.from_private_bytes(decoded(jwk["d"]))
        self._kid = jwk["kid"]

    def token(self, sub: str, scopes: Sequence[str], life_s: int, quals: Sequence[str] = ()) -> str:
        """Return a token for the subject `sub`, which is valid for `life_s` seconds from now on."""
        now_s = int(time.time())
        claims = {"aud": "geocast", "sub": sub, "scope": " ".join(scopes), "iat": now_s, "exp": now_s + life_s}
        head = {"alg": "EdDSA", "kid": self._kid, "typ": "JWT"}
        signed = f"{_part(head)}.{_part(claims | ({'quals': list(quals)} if quals else {}))}"
        return f"{signed}.{encoded(self._key.sign(signed.encode()))}"


def _part(value: dict[str, Any]) -> str:
    return encoded(json.dumps(value, separators=(",", ":")).encode())
