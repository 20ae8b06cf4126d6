"""Who may do what: JWTs checked against a JWKS of public keys (protocol, section 6).

The key is chosen by `kid` alone and its algorithm is the one that the key states, never the one that the token
claims. Whatever is wrong with a token, the answer is the same: None.
"""

import functools
import json
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import jwt
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from ..clock import Now
from ..errors import ConfigError
from .jwks import keys_of
from .scopes import QUALS_FORM, are_quals

AUDIENCE = "geocast"
MAX_ISSUER = 256  # characters of an issuer's name, which stands in entries of the log
ISSUER_FORM = f"the issuer's name, a text of 1 to {MAX_ISSUER} characters"
MAX_TOKEN_BYTES = 4096
MIN_BITS = "256 bits at least, and 2048 of RSA"
ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256", "HS256")

MAX_QUALIFIED_S = 86_400  # a token that lasts longer qualifies nobody (RQ2)

# Of a JWK, those that make it the key that it is, and say what it may grant.
_MEMBERS = ("kty", "kid", "alg", "crv", "x", "y", "n", "e", "iss", "quals")

# Publishers' tokens whose claims are kept, so that their signatures are checked once. A check takes 160 µs (`timeit`)
# of the 1,200 that a post takes (`bench ingest`).
_SEEN_AGAIN = 64

_OPTIONS: Any = {"require": ["aud", "sub", "exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}


class Subject(NamedTuple):
    """The person or service that a token belongs to: equal `sub`s of two issuers are two subjects (rule HD5).

    `issuer` is the member `iss` of the key that signed the token. Keys without that member belong to one issuer, the
    key set itself, whose name is empty.
    """

    issuer: str
    sub: str


class Key(PyJWK):
    """A key of the set: PyJWT's key, its issuer, and the qualifications that its tokens may grant (rules HD5, RQ3)."""

    def __init__(self, jwk: Mapping[str, Any], algorithm: str | None = None) -> None:
        """Raise what PyJWK raises, and ValueError if the member `quals` or `iss` is not valid."""
        super().__init__(dict(jwk), algorithm)
        issuer = jwk.get("iss", "")
        if "iss" in jwk and not is_issuer(issuer):
            raise ValueError(f"expected {ISSUER_FORM}")
        self.issuer: str = issuer
        quals = jwk.get("quals", [])
        if "quals" in jwk and not are_quals(quals):
            raise ValueError(f"expected {QUALS_FORM}")
        self.quals = frozenset[str](quals)

    def is_same(self, other: "Key") -> bool:
        """Return whether `other` is the same key of the same issuer, whatever it may grant (rule HD5)."""
        return self is other or (
            self.algorithm_name == other.algorithm_name and self.issuer == other.issuer and bool(self.key == other.key)
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """What a good token says: who, with which scopes, and until when (ms since 1970).

    `proof` is what has to stay in force for it to stay good. `quals` are the qualifications that count (RQ1 to RQ3).
    """

    sub: str
    scopes: frozenset[str]
    expires_at: int
    quals: frozenset[str] = frozenset()
    proof: "TokenProof | None" = field(default=None, compare=False)
    issuer: str = ""

    @property
    def subject(self) -> Subject:
        """The issuer and the `sub`: what shares, rates, seats and devices are counted by (rule HD5)."""
        return Subject(self.issuer, self.sub)


@dataclass(frozen=True, slots=True)
class Requester:
    """The sender of a request to publish an alert or to call for help: the `sub` and the issuer of its token.

    `manages`: the token's scopes allow it to see and change the alerts and calls of others.
    """

    sub: str
    manages: bool = False
    issuer: str = ""

    @property
    def subject(self) -> Subject:
        """The issuer and the `sub`, by which shares and open calls are counted (rule HD6)."""
        return Subject(self.issuer, self.sub)

    def may_change(self, issuer: str, source: str) -> bool:
        """Return whether the sender may see and change the alert or call of this issuer and source (rule HD5)."""
        return self.manages or (issuer, source) == (self.issuer, self.sub)


class TokenProof(NamedTuple):
    """What a token is good by, beside its time: the key that signed it, and when (s since 1970; None: it is not said).

    And the qualifications that the key has granted by it.
    """

    sub: str
    key: Key
    issued_at: float | None
    quals: frozenset[str] = frozenset()

    @property
    def subject(self) -> Subject:
        """The issuer and the `sub` (rule HD5)."""
        return Subject(self.key.issuer, self.sub)


class TokenVerifier:
    """Checks tokens against the keys in force, by their `kid`. `required`: whether a subscriber has to have a token."""

    def __init__(
        self, keys: Mapping[str, Key], revoked: Mapping[str, float] | None = None, *, required: bool = True
    ) -> None:
        """`revoked`: `sub` -> the time, in s since 1970, before which its tokens are no good (`revocations`)."""
        self.required = required
        self.keys: Mapping[str, Key] = {}
        self.replace(keys, revoked or {})

    def replace(self, keys: Mapping[str, Key], revoked: Mapping[str, float]) -> None:
        """Have these keys and revocations in force. A key that is the same as before stays the same object."""
        self.keys = {kid: _kept(self.keys.get(kid), key) for kid, key in keys.items()}
        self._revoked = dict(revoked)
        self._claims_once = functools.lru_cache(_SEEN_AGAIN)(self._claims)

    def still_valid(self, proof: TokenProof) -> bool:
        """Whether a token that was good is good still, by the keys and revocations in force; its time is not judged.

        It is not if it has granted a qualification that its key may not grant any more: a fresh look at it tells
        what is left.
        """
        key = self.keys.get(str(proof.key.key_id))
        if key is None or not key.is_same(proof.key) or not proof.quals <= key.quals:
            return False
        before = self._revoked.get(proof.sub)
        return before is None or (proof.issued_at is not None and proof.issued_at >= before)

    def knows_key_of(self, token: str) -> bool:
        """Whether the key that `token` names is in force. Of what names none there is nothing to know: True."""
        try:
            return len(token) > MAX_TOKEN_BYTES or _kid(token) in self.keys
        except (KeyError, TypeError, ValueError, RecursionError):
            return True

    def check(self, token: str, now: Now, *, again: bool = False) -> Grant | None:
        """What `token` grants at `now`, or None if anything is wrong with it.

        `again`: the same token comes with every request, as publishers' do, so its signature is checked only once.
        Whether it has expired is judged each time.
        """
        if len(token) > MAX_TOKEN_BYTES:
            return None
        try:
            key, claims = self._claims_once(token) if again else self._claims(token)
        # Beside its own errors PyJWT lets KeyError, TypeError, ValueError and RecursionError out of hostile input.
        except (PyJWTError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
            return None
        grant = _grant(key, claims, now.wall_ms)
        return grant if grant is not None and grant.proof is not None and self.still_valid(grant.proof) else None

    def _claims(self, token: str) -> tuple[Key, Mapping[str, Any]]:
        key = self.keys[_kid(token)]
        claims: dict[str, Any] = jwt.decode(token, key, [key.algorithm_name], audience=AUDIENCE, options=_OPTIONS)
        return key, claims


def _kept(old: Key | None, new: Key) -> Key:
    """The old key if the new one is the same and may grant the same, whatever else the set says of it now."""
    return old if old is not None and old.is_same(new) and old.quals == new.quals else new


def _kid(token: str) -> str:
    """The `kid` in a token's header. It is a hint which key to try, and no more: the header is not verified yet.

    PyJWT's `get_unverified_header` would take the whole token apart for it, in a seventh of the time of a connect.
    """
    kid: str = json.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"]
    return kid


def _grant(key: Key, claims: Mapping[str, Any], now_ms: int) -> Grant | None:
    """The grant in `claims`, which `key` has verified, or None.

    There is no leeway: `exp` reached is expired (RFC 7519, 4.1.4).
    """
    sub, exp, nbf, scope = claims["sub"], claims["exp"], claims.get("nbf", 0), claims.get("scope", "")
    if not (is_sub(sub) and isinstance(scope, str) and is_date(exp) and is_date(nbf)):
        return None
    if exp * 1000 <= now_ms or nbf * 1000 > now_ms:
        return None
    if "quals" in claims and not are_quals(claims["quals"]):
        return None
    issued_at = claims.get("iat")
    fresh = is_fresh(issued_at, exp, now_ms / 1000)
    quals = key.quals.intersection(claims.get("quals", ())) if fresh else frozenset[str]()
    proof = TokenProof(sub, key, float(issued_at) if is_date(issued_at) else None, quals)
    return Grant(sub, frozenset(scope.split(" ")), int(exp * 1000), quals, proof, key.issuer)


def is_fresh(issued_at: object, expires_at: float, now_s: float) -> bool:
    """Whether a token of these times (`iat` and `exp`, in s) may qualify somebody (RQ2).

    An `iat` that is still to come makes no token last longer: what is left counts, too.
    """
    return is_date(issued_at) and expires_at - min(issued_at, now_s) <= MAX_QUALIFIED_S


def is_sub(value: object) -> TypeGuard[str]:
    """Whether it may say whose a token is: a text, and one that can be written (a lone surrogate can't)."""
    try:
        return isinstance(value, str) and value.encode() != b""
    except UnicodeEncodeError:
        return False


def is_issuer(value: object) -> TypeGuard[str]:
    """Return whether a value may name the issuer of a key (rule HD5)."""
    return is_sub(value) and len(value) <= MAX_ISSUER


def is_date(value: object) -> TypeGuard[float]:
    """A NumericDate (RFC 7519, section 2) that a clock can reach."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 253_402_300_799


# ---- keys --------------------------------------------------------------------------------------------------------


def load_keys(path: Path) -> dict[str, Key]:
    """The keys of a JWKS file (RFC 7517), by `kid`. Raises ConfigError, which names the file and the key."""
    try:
        return parse_keys(path.read_bytes(), path)
    except OSError as error:
        raise ConfigError(f"keys {path}: {error.strerror}") from None


def parse_keys(data: bytes, source: object) -> dict[str, Key]:
    """The keys of a JWKS (RFC 7517), by `kid`. Raises ConfigError, which names where they are from and the key."""
    return _key_set(keys_of(data, f"keys {source}"), source)


def published(data: bytes, source: object) -> bytes:
    """Of a JWKS that others publish, what tokens can be checked against: as a JWKS that is the same for the same keys.

    Keys for other uses, and those without a `kid` or an `alg` of ours, are passed over (RFC 7517, section 5); so are
    secrets (`oct`), which are none when they are published. A private key is not: who publishes it is not to be
    trusted. Raises ConfigError.
    """
    keys = []
    for number, jwk in enumerate(keys_of(data, f"keys {source}"), start=1):
        if "d" in jwk:
            raise ConfigError(f"keys {source}: key {number}: is a private key")
        if jwk.get("kty") != "oct" and jwk.get("use", "sig") == "sig":
            with suppress(ConfigError):
                _key(jwk, source)
                keys.append({name: jwk[name] for name in _MEMBERS if name in jwk})
    if not keys:
        wanted = f"a public one for signatures, with a kid and an alg, one of {', '.join(ALGORITHMS[:-1])}"
        raise ConfigError(f"keys {source}: holds no key that can be used: {wanted}")
    _key_set(keys, source)
    return json.dumps({"keys": sorted(keys, key=lambda jwk: str(jwk["kid"]))}).encode()


def _key_set(keys: Iterable[Mapping[str, Any]], source: object) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for number, jwk in enumerate(keys, start=1):
        where = f"{source}: key {number}"
        key = _key(jwk, where)
        if jwk["kid"] in found:
            raise ConfigError(f"keys {where}: needs a kid of its own")
        found[jwk["kid"]] = key
    if not found:
        raise ConfigError(f"keys {source}: holds no key")
    return found


def _key(jwk: Mapping[str, Any], where: object) -> Key:
    kid, algorithm = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str) or not kid:
        raise ConfigError(f"keys {where}: needs a kid of its own")
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"keys {where}: needs an alg, one of {', '.join(ALGORITHMS)}")
    if "d" in jwk:
        raise ConfigError(f"keys {where}: is a private key; the server takes public ones only")
    if "quals" in jwk and not are_quals(jwk["quals"]):
        raise ConfigError(f"keys {where}: quals: expected a list of {QUALS_FORM}")
    if "iss" in jwk and not is_issuer(jwk["iss"]):
        raise ConfigError(f"keys {where}: iss: expected {ISSUER_FORM}")
    try:
        key = _public_key(jwk, algorithm)
        key.Algorithm.prepare_key(key.key)  # whether it is of the algorithm's curve
    except (PyJWTError, ValueError, KeyError, TypeError):
        raise ConfigError(f"keys {where}: is not a usable {algorithm} key") from None
    if key.Algorithm.check_key_length(key.key):
        raise ConfigError(f"keys {where}: is too short for {algorithm}: {MIN_BITS} (RFC 7518)")
    return key


def _public_key(jwk: Mapping[str, Any], algorithm: str) -> Key:
    """The key for tokens whose header names this algorithm, by this name. Raises what PyJWK raises."""
    if algorithm != "Ed25519":
        return Key(jwk, algorithm)
    # PyJWT knows Ed25519 only by the older name, which it shares with Ed448 (RFC 9864).
    if jwk.get("crv") != "Ed25519":
        raise ValueError("another curve")
    key = Key(jwk, "EdDSA")
    key.algorithm_name = algorithm
    return key


def make_key(kid: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """A new Ed25519 key pair as (private JWK, public JWK)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate()))
    private |= {"kid": kid or secrets.token_hex(8), "alg": "EdDSA", "use": "sig"}
    return private, {name: value for name, value in private.items() if name != "d"}


def sign(
    private: Mapping[str, str],
    sub: str,
    scopes: Iterable[str],
    issued_at_s: int,
    lifetime_s: int,
    quals: Sequence[str] = (),
) -> str:
    """A token for `sub`, signed with a private JWK that has `kid` and `alg`. Raises ConfigError."""
    claims: dict[str, Any] = {
        "aud": AUDIENCE,
        "sub": sub,
        "scope": " ".join(scopes),
        "iat": issued_at_s,
        "exp": issued_at_s + lifetime_s,
    } | ({"quals": list(quals)} if quals else {})
    try:
        key = PyJWK(dict(private), private["alg"])
        if key.Algorithm.check_key_length(key.key):
            raise ConfigError(f"the key is too short: {MIN_BITS} (RFC 7518)")
        return jwt.encode(claims, key, private["alg"], {"kid": private["kid"]})
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError("the key can't sign: it must be a private JWK with kid and alg") from None
