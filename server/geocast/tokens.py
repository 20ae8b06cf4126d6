"""Who may do what: JWTs checked against a JWKS of public keys (protocol, section 6).

The key is chosen by `kid` alone and its algorithm is the one that the key states, never the one that the token
claims. Whatever is wrong with a token, the answer is the same: None.
"""

import functools
import json
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from .clock import Now
from .errors import ConfigError

AUDIENCE = "geocast"
MAX_TOKEN_BYTES = 4096
MIN_BITS = "256 bits at least, and 2048 of RSA"
ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256", "HS256")

# Publishers' tokens whose claims are kept, so that their signatures are checked once. A check takes 160 µs (`timeit`)
# of the 1,200 that a post takes (`bench ingest`).
_SEEN_AGAIN = 64

_OPTIONS: Any = {"require": ["aud", "sub", "exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good token says: who, with which scopes, and until when (ms since 1970)."""

    sub: str
    scopes: frozenset[str]
    expires_at: int


class Tokens:
    """Checks tokens against a set of keys, by their `kid`. `required`: whether a subscriber has to have a token."""

    def __init__(self, keys: Mapping[str, PyJWK], *, required: bool = True) -> None:
        self._keys = dict(keys)
        self.required = required
        self._claims_once = functools.lru_cache(_SEEN_AGAIN)(self._claims)

    def check(self, token: str, now: Now, *, again: bool = False) -> Grant | None:
        """What `token` grants at `now`, or None if anything is wrong with it.

        `again`: the same token comes with every request, as publishers' do, so its signature is checked only once.
        Whether it has expired is judged each time.
        """
        if len(token) > MAX_TOKEN_BYTES:
            return None
        try:
            claims = self._claims_once(token) if again else self._claims(token)
        # Beside its own errors PyJWT lets KeyError, TypeError, ValueError and RecursionError out of hostile input.
        except (PyJWTError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
            return None
        return _grant(claims, now.wall_ms)

    def _claims(self, token: str) -> Mapping[str, Any]:
        key = self._keys[_kid(token)]
        claims: dict[str, Any] = jwt.decode(token, key, [key.algorithm_name], audience=AUDIENCE, options=_OPTIONS)
        return claims


def _kid(token: str) -> str:
    """The `kid` in a token's header. It is a hint which key to try, and no more: the header is not verified yet.

    PyJWT's `get_unverified_header` would take the whole token apart for it, in a seventh of the time of a connect.
    """
    kid: str = json.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"]
    return kid


def _grant(claims: Mapping[str, Any], now_ms: int) -> Grant | None:
    """The grant in verified `claims`, or None. There is no leeway: `exp` reached is expired (RFC 7519, 4.1.4)."""
    sub, exp, nbf, scope = claims["sub"], claims["exp"], claims.get("nbf", 0), claims.get("scope", "")
    if not (isinstance(sub, str) and sub and isinstance(scope, str) and _is_date(exp) and _is_date(nbf)):
        return None
    if exp * 1000 <= now_ms or nbf * 1000 > now_ms:
        return None
    return Grant(sub, frozenset(scope.split(" ")), int(exp * 1000))


def _is_date(value: object) -> bool:
    """A NumericDate (RFC 7519, section 2) that a clock can reach."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 253_402_300_799


# ---- keys --------------------------------------------------------------------------------------------------------


def load_keys(path: Path) -> dict[str, PyJWK]:
    """The keys of a JWKS file (RFC 7517), by `kid`. Raises ConfigError, which names the file and the key."""
    try:
        keys = json.loads(path.read_text("utf-8"))["keys"]
        return _key_set(keys, path)
    except OSError as error:
        raise ConfigError(f"keys {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"keys {path}: not a JWK set (an object with a list of keys)") from None


def _key_set(keys: Iterable[Mapping[str, Any]], path: Path) -> dict[str, PyJWK]:
    found: dict[str, PyJWK] = {}
    for number, jwk in enumerate(keys, start=1):
        where = f"keys {path}: key {number}"
        kid, algorithm = jwk.get("kid"), jwk.get("alg")
        if not isinstance(kid, str) or not kid or kid in found:
            raise ConfigError(f"{where}: needs a kid of its own")
        if algorithm not in ALGORITHMS:
            raise ConfigError(f"{where}: needs an alg, one of {', '.join(ALGORITHMS)}")
        if "d" in jwk:
            raise ConfigError(f"{where}: is a private key; the server takes public ones only")
        try:
            key = PyJWK(dict(jwk), algorithm)
            key.Algorithm.prepare_key(key.key)  # whether it is of the algorithm's curve
        except (PyJWTError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{where}: is not a usable {algorithm} key") from None
        if key.Algorithm.check_key_length(key.key):
            raise ConfigError(f"{where}: is too short for {algorithm}: {MIN_BITS} (RFC 7518)")
        found[kid] = key
    if not found:
        raise ConfigError(f"keys {path}: holds no key")
    return found


def make_key(kid: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """A new Ed25519 key pair as (private JWK, public JWK)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate()))
    private |= {"kid": kid or secrets.token_hex(8), "alg": "EdDSA", "use": "sig"}
    return private, {name: value for name, value in private.items() if name != "d"}


def sign(private: Mapping[str, str], sub: str, scopes: Iterable[str], issued_at_s: int, lifetime_s: int) -> str:
    """A token for `sub`, signed with a private JWK that has `kid` and `alg`. Raises ConfigError."""
    claims = {
        "aud": AUDIENCE,
        "sub": sub,
        "scope": " ".join(scopes),
        "iat": issued_at_s,
        "exp": issued_at_s + lifetime_s,
    }
    try:
        key = PyJWK(dict(private), private["alg"])
        if key.Algorithm.check_key_length(key.key):
            raise ConfigError(f"the key is too short: {MIN_BITS} (RFC 7518)")
        return jwt.encode(claims, key, private["alg"], {"kid": private["kid"]})
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError("the key can't sign: it must be a private JWK with kid and alg") from None
