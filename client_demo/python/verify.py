"""Verification of reviewers' signatures: a client that verifies need not trust any node (protocol, C11 to C15).

    verifier = Verifier(reviewers, "alerts.harbour.example", approvals=2)  # the keys come with the app, not from a node
    message = verifier.read(message)                                       # or Untrusted, with a reason

Rule 1  A signature is checked over the bytes of the form that came, and the form is parsed afterwards. The form is
        never serialised for a check.
Rule 2  The returned message contains only what the proof contains: the fields of the form and, as its time, that of the
        newest approval. The only exception is the revision number of a cancellation, which may be higher than in the
        form (AP8).
Rule 3  A signature by an unknown key is ignored, because its owner may be new. A wrong signature by a known key makes
        the whole proof invalid (AP3).
Rule 4  Each person counts as one approval, whatever the number of their keys. The publisher's own approval does not
        count (AP5).

Needs `cryptography`: `pip install geocast-client[verify]`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from .base64url import decoded, encoded
from .link import ClientError
from .times import format_time
from .wire import Message

ALGORITHM, TYPE = "Ed25519", "geocast-approval"
MAX_FORM_BYTES = 20 * 1024
MAX_SIGNATURES = 8
MAX_APPROVALS = MAX_SIGNATURES
MAX_PROTECTED = 1024  # characters; enough, because a `kid` is short
MAX_IAT = 253_402_300_799  # the last second of the year 9999

_KIND = {"kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM}
_HEADER = {"alg", "typ", "kid", "iat"}
# Members of a form that describe the form itself and do not belong to the alert.
_ABOUT_THE_FORM = {"v", "what", "aud", "confirm", "location_resolution"}

_Check = Callable[[bytes, bytes], bool]  # (signature, signed bytes)


class Untrusted(Exception):  # noqa: N818 (an answer, not a fault of ours)
    """Raised for an `alert` or `cancel` message that must be dropped (C14). `reason` is one of:

    `unsigned`      there is no proof
    `signature`     a signature is wrong, or the proof is malformed
    `other-place`   the form belongs to another deployment, alert or revision, or can't be read
    `unknown-key`   too few approvals by known keys, and some by unknown ones
    `too-few`       too few approvals
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"an {kind} was dropped: {reason}" if kind == "alert" else f"a {kind} was dropped: {reason}")
        self.kind, self.reason = kind, reason


@dataclass(frozen=True, slots=True)
class _Key:
    person: str
    check: _Check


@dataclass(frozen=True, slots=True)
class _Approval:
    person: str
    iat: int


class Verifier:
    """Verifies that alerts and cancellations were signed by enough reviewers.

    The settings do not come from a node but from the client's app: the reviewers' keys, the deployment, and the numbers
    of approvals (C11).
    """

    def __init__(self, keys: Mapping[str, Any], audience: str, *, approvals: int, cancel_approvals: int = 1) -> None:
        """Verify with the keys of these reviewers (a JWKS like the operator's `--reviewers`), and these other settings.

        `audience` is the name of the deployment. `approvals` and `cancel_approvals` are the numbers of reviewers who
        must sign an alert and a cancellation; if `cancel_approvals` is 0, unsigned cancellations are accepted. Raise
        ClientError, with a line that names the setting, if a setting is invalid.
        """
        if not audience or not isinstance(audience, str):
            raise ClientError("audience: the name of the deployment is needed, as the forms have it in `aud`")
        self._approvals = _count("approvals", approvals, 1)
        self._cancel_approvals = _count("cancel_approvals", cancel_approvals, 0)
        self._audience = audience
        self._keys = dict(_keys(keys))
        if not self._keys:
            raise ClientError("keys: there is none")

    def read(self, message: Message) -> Message:
        """Return an `alert` or `cancel` message with only the content that its proof confirms.

        Other messages are returned unchanged. Raise Untrusted if the message must be dropped.
        """
        kind = message["type"]
        if kind not in ("alert", "cancel"):
            return message
        proof = message.get("proof")
        if proof is None and kind == "cancel" and self._cancel_approvals == 0:
            return message
        try:
            return self._proved(kind, message, proof)
        except _Reason as reason:
            raise Untrusted(kind, str(reason)) from None

    def _proved(self, kind: str, message: Message, proof: object) -> Message:
        if proof is None:
            raise _Reason("unsigned")
        form, signatures = _parts(proof)
        approvals = [self._approval(form, each) for each in signatures]
        said = _parse(form, "other-place")
        beside = message.get("alert") if kind == "alert" else message
        if not isinstance(beside, Mapping) or not self._belongs(kind, said, beside):
            raise _Reason("other-place")
        counted = [each for each in approvals if each is not None and each.person != said.get("source")]
        if len({each.person for each in counted}) < (self._approvals if kind == "alert" else self._cancel_approvals):
            raise _Reason("unknown-key" if None in approvals else "too-few")
        times = [format_time(each.iat * 1000) for each in counted]
        if kind == "alert":
            fields = {name: value for name, value in said.items() if name not in _ABOUT_THE_FORM}
            return {"type": kind, "alert": {**fields, "issued_at": max(times)}}
        taken = {"id": said["id"], "revision": beside["revision"], "reason": said.get("reason")}
        # If no approvals are required and none is valid, use the time that the node stored next to the proof.
        return {"type": kind, **taken, "cancelled_at": max(times, default=beside.get("cancelled_at"))}

    def _belongs(self, kind: str, said: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
        """Return whether a form is meant for this deployment and for the message with which it arrived (C12).

        `said` is the content of the form, and `beside` is the content of the message outside its proof.
        """
        revision, number = said.get("revision"), beside.get("revision")
        if type(revision) is not int or type(number) is not int:
            return False
        is_for_us = said.get("v") == 1 and said.get("what") == kind and said.get("aud") == self._audience
        is_number = number == revision if kind == "alert" else number >= revision
        return is_for_us and isinstance(said.get("id"), str) and said["id"] == beside.get("id") and is_number

    def _approval(self, form: bytes, signature: object) -> _Approval | None:
        """Return who signed the approval form `form`, and when; None if the signer's key is not known (Rule 3).

        Raise _Reason if the signature is wrong or malformed.
        """
        protected, signed = _texts(signature)
        header = _parse(_bytes(protected), "signature")
        kid, iat = header.get("kid"), header.get("iat")
        is_ours = header.keys() == _HEADER and header["alg"] == ALGORITHM and header["typ"] == TYPE
        if not is_ours or not isinstance(kid, str) or type(iat) is not int or not 0 <= iat <= MAX_IAT:
            raise _Reason("signature")
        key = self._keys.get(kid)
        if key is None:
            return None
        if not key.check(_bytes(signed), f"{protected}.{encoded(form)}".encode()):
            raise _Reason("signature")
        return _Approval(key.person, iat)


class _Reason(Exception):  # noqa: N818
    """Raised if a message must be dropped. Its argument is the reason, such as "signature" (see Untrusted)."""


# ---- the parts of a proof --------------------------------------------------------------------------------------------


def _parts(proof: object) -> tuple[bytes, list[object]]:
    """Return the form (the signed text) of a proof as bytes, and the proof's signatures.

    Raise _Reason if the proof is malformed.
    """
    if isinstance(proof, Mapping):
        form, signatures = proof.get("form"), proof.get("signatures")
        if isinstance(form, str) and isinstance(signatures, list) and 1 <= len(signatures) <= MAX_SIGNATURES:
            try:
                found = form.encode()
            except UnicodeEncodeError:
                raise _Reason("signature") from None
            if len(found) <= MAX_FORM_BYTES:
                return found, signatures
    raise _Reason("signature")


def _texts(signature: object) -> tuple[str, str]:
    if isinstance(signature, Mapping):
        protected, signed = signature.get("protected"), signature.get("signature")
        if isinstance(protected, str) and isinstance(signed, str) and max(len(protected), len(signed)) <= MAX_PROTECTED:
            return protected, signed
    raise _Reason("signature")


def _parse(text: bytes, reason: str) -> dict[str, Any]:
    """Return the JSON object in `text` as a dict.

    Raise _Reason with the reason `reason` if `text` is not a JSON object.
    """
    try:
        found = json.loads(text.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _Reason(reason) from None
    if not isinstance(found, dict):
        raise _Reason(reason)
    return cast(dict[str, Any], found)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _bytes(text: str) -> bytes:
    """Return the bytes that base64url text without padding encodes (RFC 7515, 2).

    Raise _Reason if the text is not base64url.
    """
    try:
        return decoded(text)
    except ValueError:
        raise _Reason("signature") from None


# ---- the settings that the app sets ----------------------------------------------------------------------------------


def _count(name: str, value: object, least: int) -> int:
    if type(value) is not int or not least <= value <= MAX_APPROVALS:
        raise ClientError(f"{name}: a whole number from {least} to {MAX_APPROVALS} is needed")
    return value


def _keys(jwks: object) -> Iterator[tuple[str, _Key]]:
    """Yield the keys of a JWKS, each as a pair of its `kid` and the key.

    Raise ClientError if the JWKS is malformed.
    """
    keys = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(keys, list):
        raise ClientError('keys: a JWKS is needed, {"keys": […]}')
    seen: set[str] = set()
    for number, jwk in enumerate(keys):
        kid, key = _key(jwk, f"keys: key {number + 1}")
        if kid in seen:
            raise ClientError(f"keys: key {number + 1} has the kid of another one")
        seen.add(kid)
        yield kid, key


def _key(jwk: object, where: str) -> tuple[str, _Key]:
    if not isinstance(jwk, Mapping) or any(jwk.get(name) != value for name, value in _KIND.items()):
        raise ClientError(f"{where} has to be of kty OKP, crv Ed25519 and alg Ed25519")
    if "d" in jwk:
        raise ClientError(f"{where} is private: it belongs to its owner alone")
    kid, sub, x = (jwk.get(name) for name in ("kid", "sub", "x"))
    if not (isinstance(kid, str) and kid and isinstance(sub, str) and sub and isinstance(x, str)):
        raise ClientError(f"{where} needs a kid, a sub and an x, which are texts")
    try:
        raw = _bytes(x)
    except _Reason:
        raw = b""
    if len(raw) != 32:
        raise ClientError(f"{where}: x has to be 32 bytes as base64url")
    return kid, _Key(sub, _checker(raw))


def _checker(raw: bytes) -> _Check:
    """Return a function that checks signatures with a public key, which is given as bytes.

    Raise ClientError if the library `cryptography` is missing.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise ClientError("verifying needs cryptography: pip install geocast-client[verify]") from None
    key = Ed25519PublicKey.from_public_bytes(raw)

    def check(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return check
