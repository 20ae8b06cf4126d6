"""Reviewers: the persons whose signatures count. Each node has their public keys in a JWKS file (RFC 7517).

A reviewer is a person, named by `sub`. Several keys may have the same `sub`: they belong to one person, who counts
once. `kid` and `sub` are public, so they should not be real names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..auth.base64url import decoded_strictly
from ..auth.jwks import keys_of
from ..model.alert import ApprovalProof, is_id
from ..model.errors import ConfigError
from ..model.toml_file import read_file
from ..policy import Policy
from .signatures import ALGORITHM, header_of, verifies

MAX_REVIEWER_KEYS = 10_000
_KID = re.compile("[!-~]{1,128}")  # printable ASCII without blanks, because ledgers write it into their records


@dataclass(frozen=True, slots=True)
class Reviewer:
    """A reviewer's public key, and the person to whom the key belongs.

    If `break_glass` is true, this is an emergency key: it is kept in a sealed envelope, for an emergency in which a
    reviewer is alone.
    """

    sub: str
    key: Ed25519PublicKey = field(compare=False)
    public: bytes  # the public key as raw bytes, for comparisons
    break_glass: bool = False


Reviewers = Mapping[str, Reviewer]  # by kid
NO_REVIEWERS: Reviewers = MappingProxyType({})


class Signed(NamedTuple):
    """The result of checking the signatures of a form (the text that reviewers sign).

    `persons` are the reviewers who signed. `unknown` says whether any signature names an unknown key. `since` is the
    time of the earliest signature with a known key, in s since 1970.
    """

    persons: frozenset[str]
    unknown: bool
    since: int


def is_kid(text: str) -> bool:
    """Return whether a string can be the id of a reviewer's key: 1 to 128 printable ASCII characters, but no spaces."""
    return _KID.fullmatch(text) is not None


def who_signed(proof: ApprovalProof, reviewers: Reviewers) -> Signed | None:
    """Check all signatures of a form (the text that reviewers sign), and return who has signed it.

    Return None if a signature's header is malformed, or if a signature with a known key is wrong.
    """
    persons, unknown, since = set(), False, 2**63
    for signature in proof.signatures:
        try:
            header = header_of(signature.protected)
        except ValueError:
            return None
        reviewer = reviewers.get(header.kid)
        if reviewer is None:
            unknown = True
        elif not verifies(signature, proof.form, reviewer.key):
            return None
        else:
            persons.add(reviewer.sub)
            since = min(since, header.issued_at)
    return Signed(frozenset(persons), unknown, since)


def out_of_envelopes(kids: Iterable[str], reviewers: Reviewers) -> list[str]:
    """Return those ids in `kids` that belong to emergency keys. (Emergency keys are kept in sealed envelopes.)"""
    return [kid for kid in kids if kid in reviewers and reviewers[kid].break_glass]


def load_reviewers(path: Path) -> dict[str, Reviewer]:
    """Return the reviewers' keys in a JWKS file as a dict by `kid`.

    Raise ConfigError, which names the file and the key, if the file can't be read or a key is not valid.
    """
    return parse_reviewers(read_file("reviewers", path), path)


def parse_reviewers(data: bytes, source: object) -> dict[str, Reviewer]:
    """Return the reviewers' keys in a JWKS as a dict by `kid`.

    Raise ConfigError, which names `source` and the key, if a key is not valid or is a duplicate.
    """
    keys = keys_of(data, f"reviewers {source}")
    if not 1 <= len(keys) <= MAX_REVIEWER_KEYS:
        raise ConfigError(f"reviewers {source}: needs 1 to {MAX_REVIEWER_KEYS} keys")
    found: dict[str, Reviewer] = {}
    publics: set[bytes] = set()
    wrong: list[str] = []
    for number, jwk in enumerate(keys, start=1):
        where = f"reviewers {source}: key {number}"
        try:
            reviewer = _reviewer(jwk, where)
        except ConfigError as error:
            wrong.append(str(error))
            continue
        if jwk["kid"] in found or reviewer.public in publics:
            wrong.append(f"{where}: is a duplicate: each entry needs its own kid and its own key")
        found[jwk["kid"]] = reviewer
        publics.add(reviewer.public)
    if wrong:
        raise ConfigError(*wrong)
    return found


def _reviewer(jwk: Mapping[str, Any], where: str) -> Reviewer:
    kid, sub, broken = jwk.get("kid"), jwk.get("sub"), jwk.get("break_glass", False)
    if "d" in jwk:
        raise ConfigError(f"{where}: is a private key; the server takes public keys only")
    if not isinstance(kid, str) or not is_kid(kid):
        raise ConfigError(f"{where}: needs a kid of 1 to 128 printable ASCII characters, without blanks")
    if not isinstance(sub, str) or not is_id(sub):
        raise ConfigError(f"{where}: needs a sub in the grammar of an alert's id, the same for all keys of a person")
    if type(broken) is not bool:
        raise ConfigError(f"{where}: break_glass must be true or false")
    if (jwk.get("kty"), jwk.get("crv"), jwk.get("alg")) != ("OKP", "Ed25519", ALGORITHM):
        raise ConfigError(f"{where}: needs kty OKP, crv Ed25519 and alg {ALGORITHM}")
    try:
        public = decoded_strictly(jwk["x"])
        return Reviewer(sub, Ed25519PublicKey.from_public_bytes(public), public, broken)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{where}: is not a valid Ed25519 key") from None


def refuse_misfits(reviewers: Reviewers, policy: Policy, keys: Iterable[Any] = ()) -> None:
    """Raise ConfigError if the policy requires reviewers but there are none, or if a reviewer's key also signs tokens.

    A key that signs tokens must not be able to approve alerts (rule K1). `keys` are the public keys that verify tokens,
    as objects of the library `cryptography`.
    """
    if policy.asks_for_approvals and not reviewers:
        raise ConfigError(
            f"policy {policy.name}: asks for approvals, but there are no reviewers: give --reviewers FILE"
        )
    publics = {key.public_bytes_raw() for key in keys if isinstance(key, Ed25519PublicKey)}
    for kid, reviewer in reviewers.items():
        if reviewer.public in publics:
            raise ConfigError(f"reviewers: key {kid} is in --keys too: a key may sign tokens or approvals, not both")
