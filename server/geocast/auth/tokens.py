"""The verification of JWTs with the public keys of a JWKS (protocol, section 6).

The `kid` in the token's header selects the key. The algorithm is always the one stated in the key, never the one in the
token. The result for an invalid token is always None, whatever the reason.
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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from ..clock import Now
from ..model.errors import ConfigError
from ..model.qualifications import QUALS_FORM, are_quals
from ..model.toml_file import read_file
from .base64url import decoded_strictly
from .ed25519 import Ed25519Verifier
from .jwks import keys_of

AUDIENCE = "geocast"
MAX_ISSUER = 256  # the most characters in an issuer's name, which is stored in log entries
ISSUER_FORM = f"the issuer's name, a text of 1 to {MAX_ISSUER} characters"
MAX_TOKEN_BYTES = 4096
MIN_BITS = "at least 256 bits, and 2048 for RSA"
ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "ES384", "RS256", "PS256", "HS256")

MAX_QUALIFIED_S = 86_400  # the longest lifetime of a token whose qualifications count (rule RQ2)

# The members of a JWK that `published` keeps: those that define the key and its permissions.
_MEMBERS = ("kty", "kid", "alg", "crv", "x", "y", "n", "e", "iss", "quals")

# The number of publishers' tokens whose verified claims are remembered, so that each signature is checked only once. A
# check takes 80 µs (`timeit`) of the 1,200 µs that a POST takes (`bench ingest`).
_SEEN_AGAIN = 64

# The number of token headers whose keys are remembered. All tokens that one key signs have the same header.
_HEADERS = 64

_OPTIONS: Any = {"require": ["aud", "sub", "exp"], "verify_exp": False, "verify_nbf": False, "verify_iat": False}


class Subject(NamedTuple):
    """The person or service that a token belongs to. Equal `sub`s of two issuers are two subjects (rule HD5).

    `issuer` is the member `iss` of the key that signed the token. If keys have no such member, it is empty: all of them
    count as keys of one issuer.
    """

    issuer: str
    sub: str


class Key(PyJWK):
    """A key for verifying tokens, with its issuer and the qualifications that its tokens may grant (HD5, RQ3)."""

    def __init__(self, jwk: Mapping[str, Any], algorithm: str | None = None) -> None:
        """Create a key from a JWK whose members `quals` and `iss` are valid.

        If the key itself is invalid, PyJWK raises its own errors.
        """
        super().__init__(dict(jwk), algorithm)
        self.issuer: str = jwk.get("iss", "")
        self.quals = frozenset[str](jwk.get("quals", ()))
        self._ed25519 = Ed25519Verifier(self.key) if isinstance(self.key, Ed25519PublicKey) else None

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Return whether the signature of the message was made with this key."""
        if self._ed25519 is not None:
            return self._ed25519.verify(message, signature)
        return bool(self.Algorithm.verify(message, self.key, signature))

    def is_same(self, other: "Key") -> bool:
        """Return whether `other` is the same key of the same issuer (rule HD5).

        The qualifications that the two may grant are not compared.
        """
        return self is other or (
            self.algorithm_name == other.algorithm_name and self.issuer == other.issuer and bool(self.key == other.key)
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """The permissions of a valid token: its subject, its scopes, and when it expires (in ms since 1970).

    `quals` are the qualifications that count (rules RQ1 to RQ3). With `proof`, the caller can test later whether the
    token is still valid, after keys or revocations have changed.
    """

    sub: str
    scopes: frozenset[str]
    expires_at: int
    quals: frozenset[str] = frozenset()
    proof: "TokenProof | None" = field(default=None, compare=False)
    issuer: str = ""

    @property
    def subject(self) -> Subject:
        """The token's issuer and `sub`, as a pair.

        Limits, seats in calls, and devices are counted for each pair (HD5).
        """
        return Subject(self.issuer, self.sub)


@dataclass(frozen=True, slots=True)
class Requester:
    """The sender of a request to publish an alert or to call for help: the `sub` and the issuer of its token.

    `manages` says whether the token's scopes allow its owner to see and change the alerts and calls of others.
    """

    sub: str
    manages: bool = False
    issuer: str = ""

    @property
    def subject(self) -> Subject:
        """The token's issuer and `sub`, as a pair.

        Requests in progress and open calls are limited for each pair (HD6).
        """
        return Subject(self.issuer, self.sub)

    def may_change(self, issuer: str, source: str) -> bool:
        """Return whether the sender may see and change an alert or call with this issuer and source (rule HD5)."""
        return self.manages or (issuer, source) == (self.issuer, self.sub)


class TokenProof(NamedTuple):
    """The facts on which a token's validity depends, apart from its expiry.

    `key` is the key that signed the token, `quals` are the qualifications that this key granted, and `issued_at` is the
    time of issue in s since 1970, or None if the token has no `iat`.
    """

    sub: str
    key: Key
    issued_at: float | None
    quals: frozenset[str] = frozenset()

    @property
    def subject(self) -> Subject:
        """The token's issuer and `sub`, which together identify the owner of the token (rule HD5)."""
        return Subject(self.key.issuer, self.sub)


class TokenVerifier:
    """Verifies tokens with the current keys. `required` says whether subscribers need a token at all."""

    def __init__(
        self, keys: Mapping[str, Key], revoked: Mapping[str, float] | None = None, *, required: bool = True
    ) -> None:
        """Verify tokens with `keys`, a mapping from `kid` to key.

        `revoked` maps a `sub` to a time in s since 1970. A token with this `sub` is refused if it was issued before
        that time or has no `iat`.
        """
        self.required = required
        self.keys: Mapping[str, Key] = {}
        self.replace(keys, revoked or {})

    def replace(self, keys: Mapping[str, Key], revoked: Mapping[str, float]) -> None:
        """Replace the keys and the revocations. If a key has not changed, keep the old object that represents it."""
        self.keys = {kid: _keep_if_same(self.keys.get(kid), key) for kid, key in keys.items()}
        self._revoked = dict(revoked)
        self._key_of = functools.lru_cache(_HEADERS)(self._find_key)
        self._claims_once = functools.lru_cache(_SEEN_AGAIN)(self._claims)

    def still_valid(self, proof: TokenProof) -> bool:
        """Return whether a token that was valid is still valid with the current keys and revocations.

        The expiry is not checked. If the key may no longer grant one of the token's qualifications, the token counts as
        invalid; the client can then present it again, and gets the remaining qualifications.
        """
        key = self.keys.get(str(proof.key.key_id))
        if key is None or not key.is_same(proof.key) or not proof.quals <= key.quals:
            return False
        before = self._revoked.get(proof.sub)
        return before is None or (proof.issued_at is not None and proof.issued_at >= before)

    def knows_key_of(self, token: str) -> bool:
        """Return whether this verifier has the key that `token` names.

        Also return True if the token is too long or names no key: the token is then invalid, whatever keys there are.
        """
        try:
            return len(token) > MAX_TOKEN_BYTES or _kid(token) in self.keys
        except (KeyError, TypeError, ValueError, RecursionError):
            return True

    def check(self, token: str, now: Now, *, again: bool = False) -> Grant | None:
        """Return the permissions of `token` at the time `now`, or None if it is invalid for any reason.

        If `again` is true, a signature that was verified before is not verified again. This is for publishers, who send
        the same token with every request. The expiry is checked each time.
        """
        if len(token) > MAX_TOKEN_BYTES:
            return None
        try:
            key, claims = self._claims_once(token) if again else self._claims(token)
        # For hostile input, PyJWT raises not only its own errors, but also KeyError, TypeError, ValueError and
        # RecursionError.
        except (PyJWTError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
            return None
        grant = _grant(key, claims, now.wall_ms)
        return grant if grant is not None and grant.proof is not None and self.still_valid(grant.proof) else None

    def is_expired(self, token: str, now: Now) -> bool:
        """Return whether an invalid token has a valid signature and audience, and `exp` is not in the future."""
        with suppress(PyJWTError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
            if len(token) <= MAX_TOKEN_BYTES:
                expires_at = self._claims_once(token)[1]["exp"]
                return is_date(expires_at) and expires_at * 1000 <= now.wall_ms
        return False

    def _claims(self, token: str) -> tuple[Key, Mapping[str, Any]]:
        """Check the signature and the audience of a token. Return the key that signed it, and its claims.

        Raise an error of PyJWT, KeyError, TypeError, ValueError or RecursionError if the token is not valid.

        PyJWT checks the signature. Its `decode` is not used, unless the token is padded: it takes 45 µs more, most of
        it to compare each character of the token with an alphabet. A test compares the two on malformed tokens.
        """
        if "=" in token:
            key = self.keys[_kid(token)]
            return key, jwt.decode(token, key, [key.algorithm_name], audience=AUDIENCE, options=_OPTIONS)
        key, content = self._signed(token)
        claims = json.loads(content)
        audience, _, _ = claims["aud"], claims["sub"], claims["exp"]  # KeyError if one is missing
        texts = audience if isinstance(audience, list) else [audience]
        if AUDIENCE not in texts or not all(isinstance(each, str) for each in texts):
            raise ValueError("the token is for another server")
        if not isinstance(claims.get("jti", ""), str):
            raise ValueError("the token's id is not a text")
        return key, claims

    def _signed(self, token: str) -> tuple[Key, bytes]:
        """Return the key that signed a token, which has no padding, and the signed content. Raise as `_claims` does."""
        signed, _, signature = token.rpartition(".")
        header, payload = signed.split(".")
        key = self._key_of(header)
        content, seal = decoded_strictly(payload), decoded_strictly(signature)
        if not key.verifies(signed.encode(), seal):
            raise ValueError("the signature is wrong")
        return key, content

    def _find_key(self, header: str) -> Key:
        """Return the key that the header of a token names (its first part, in base64url).

        Raise KeyError, TypeError, ValueError or RecursionError if the header is not valid, if it names another
        algorithm than the key, or if it has extensions that must be understood (`crit`, RFC 7515, 4.1.11).
        """
        fields = json.loads(decoded_strictly(header))
        key = self.keys[fields["kid"]]
        if fields["alg"] != key.algorithm_name or "crit" in fields or fields.get("b64", True) is False:
            raise ValueError("the header does not fit the key")
        return key


def _keep_if_same(old: Key | None, new: Key) -> Key:
    """Return `old` if it is the same key as `new` and may grant the same qualifications; otherwise return `new`."""
    return old if old is not None and old.is_same(new) and old.quals == new.quals else new


def _kid(token: str) -> str:
    """Return the `kid` in a token's header, which selects the key to try.

    The header has not been verified yet. PyJWT's `get_unverified_header` is not used, because it decodes the whole
    token: this would take a seventh of the time that a new connection takes.
    """
    kid: str = json.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"]
    return kid


def _grant(key: Key, claims: Mapping[str, Any], now_ms: int) -> Grant | None:
    """Return the permissions in the claims of a token, or None if a claim is invalid.

    The signature over the claims has been verified with `key`. There is no leeway: a token expires at the moment given
    by `exp` (RFC 7519, 4.1.4).
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
    """Return whether a token's lifetime is short enough for the qualifications in the token to count.

    The lifetime may be at most MAX_QUALIFIED_S (rule RQ2). It ends at `exp` and begins at `iat` (both in s), or now if
    `iat` is in the future. So a future `iat` does not make a lifetime look shorter than it is.
    """
    return is_date(issued_at) and expires_at - min(issued_at, now_s) <= MAX_QUALIFIED_S


def is_sub(value: object) -> TypeGuard[str]:
    """Return whether a value may be a `sub`: a non-empty string without lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() != b""
    except UnicodeEncodeError:
        return False


def is_issuer(value: object) -> TypeGuard[str]:
    """Return whether a value may be the name of a key's issuer (rule HD5)."""
    return is_sub(value) and len(value) <= MAX_ISSUER


def is_date(value: object) -> TypeGuard[float]:
    """Return whether a value is a NumericDate (RFC 7519, section 2) between the years 1970 and 9999."""
    return (type(value) is int or type(value) is float) and 0 <= value <= 253_402_300_799


# ---- reading and creating keys -------------------------------------------------------------------------------------


def load_keys(path: Path) -> dict[str, Key]:
    """Return the keys in a JWKS file (RFC 7517) as a dict from `kid` to key.

    Raise ConfigError if the file can't be read or a key is not valid. The error names the path and the number of the
    key in the file.
    """
    return parse_keys(read_file("keys", path), path)


def parse_keys(data: bytes, source: object) -> dict[str, Key]:
    """Return the keys in a JWKS (RFC 7517) as a dict from `kid` to key.

    Raise ConfigError if the JWKS or a key is not valid. The error names `source` and the number of the key in the set.
    """
    return _key_set(keys_of(data, f"keys {source}"), source)


def published(data: bytes, source: object) -> bytes:
    """Return the usable keys of a JWKS that another server publishes, as a normalized JWKS.

    Equal sets of keys give equal bytes. Keys for other purposes, keys without a `kid`, and keys without a supported
    `alg` are left out (RFC 7517, section 5). Symmetric keys (`oct`) are left out as well, because a published key is
    not secret. Raise ConfigError if there is no usable key, and also if there is a private key, because then its
    publisher can't be trusted.
    """
    keys = []
    for number, jwk in enumerate(keys_of(data, f"keys {source}"), start=1):
        if "d" in jwk:
            raise ConfigError(f"keys {source}: key {number}: is a private key")
        if jwk.get("kty") != "oct":
            with suppress(ConfigError):
                _key(jwk, source)
                keys.append({name: jwk[name] for name in _MEMBERS if name in jwk})
    if not keys:
        wanted = f"a public key for signatures, with a kid and an alg, one of {', '.join(ALGORITHMS[:-1])}"
        raise ConfigError(f"keys {source}: holds no usable key: {wanted}")
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
        raise ConfigError(f"keys {where}: is a private key; the server only accepts public keys")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ConfigError(f"keys {where}: is not for signatures: use must be sig and key_ops have verify, if given")
    if "quals" in jwk and not are_quals(jwk["quals"]):
        raise ConfigError(f"keys {where}: quals: expected a list of {QUALS_FORM}")
    if "iss" in jwk and not is_issuer(jwk["iss"]):
        raise ConfigError(f"keys {where}: iss: expected {ISSUER_FORM}")
    try:
        key = _public_key(jwk, algorithm)
        key.Algorithm.prepare_key(key.key)  # raises an error if the curve belongs to another algorithm
    except (PyJWTError, ValueError, KeyError, TypeError):
        raise ConfigError(f"keys {where}: is not a usable {algorithm} key") from None
    if key.Algorithm.check_key_length(key.key):
        raise ConfigError(f"keys {where}: is too short for {algorithm}: {MIN_BITS} (RFC 7518)")
    return key


def _public_key(jwk: Mapping[str, Any], algorithm: str) -> Key:
    """Return the key in a JWK, for tokens whose header names this algorithm.

    Raise PyJWK's own errors, or ValueError, if the key is not valid.
    """
    if algorithm != "Ed25519":
        return Key(jwk, algorithm)
    # PyJWT only knows the older name EdDSA, which covers both Ed25519 and Ed448 (RFC 9864).
    if jwk.get("crv") != "Ed25519":
        raise ValueError("another curve")
    key = Key(jwk, "EdDSA")
    key.algorithm_name = algorithm
    return key


def make_key(kid: str | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Return a new Ed25519 key pair as (private JWK, public JWK)."""
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
    """Return a token for `sub`, signed with a private JWK. Raise ConfigError if this key can't sign.

    The JWK must have `kid` and `alg`.
    """
    claims: dict[str, Any] = {"aud": AUDIENCE, "sub": sub, "scope": " ".join(scopes), "iat": issued_at_s}
    claims |= {"exp": issued_at_s + lifetime_s} | ({"quals": list(quals)} if quals else {})
    try:
        key = PyJWK(dict(private), private["alg"])
        if key.Algorithm.check_key_length(key.key):
            raise ConfigError(f"the key is too short: {MIN_BITS} (RFC 7518)")
        return jwt.encode(claims, key, private["alg"], {"kid": private["kid"]})
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError("the key can't sign: it must be a private JWK with kid and alg") from None
