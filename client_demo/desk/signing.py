"""The texts that reviewers sign, and their signatures, which are stored with the item until there are enough. No I/O.

The desk has no private key and verifies no signature: the node does that, and so does each phone that verifies alerts.
An attacker who takes over this service can withhold alerts, but can't change a text that was signed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from client_demo.python.base64url import decoded

MOST_TEXT = 1_024  # the longest member of a signature, in characters


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature by one key: who made it at the desk, when (in ms since 1970), and its two members as in JWS."""

    by: str
    at: int
    kid: str
    protected: str
    signature: str


@dataclass(slots=True)
class SigningRequest:
    """A request to the node that waits for signatures: the decision, the request's body, and the exact text to sign."""

    what: str  # publish, revise, cancel
    body: dict[str, Any]  # as in the dry run that returned the form
    form: str
    needed: int
    draft: dict[str, Any]  # the form that the reviewer filled in, as in a decision
    signatures: list[Signature] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        """Whether as many keys have signed as are required. The node checks whose keys they are."""
        return len(self.signatures) >= self.needed

    def has(self, kid: str) -> bool:
        """Return whether there is already a signature by the key `kid`."""
        return any(each.kid == kid for each in self.signatures)

    def approved(self) -> dict[str, Any]:
        """Return the body of the request with the signatures added."""
        signatures = [{"protected": each.protected, "signature": each.signature} for each in self.signatures]
        return self.body | {"approval": {"form": self.form, "signatures": signatures}}

    def shown(self) -> dict[str, Any]:
        """Return those fields of this request that are sent to the page."""
        by = [{"by": each.by, "at": each.at, "kid": each.kid} for each in self.signatures]
        return {"what": self.what, "form": self.form, "needed": self.needed, "signed": by}

    @classmethod
    def from_map(cls, saved: Mapping[str, Any]) -> "SigningRequest":
        """Return the request from a dict that was made of it by `dataclasses.asdict`."""
        return cls(**{**saved, "signatures": [Signature(**each) for each in saved["signatures"]]})


def read_signature(sent: object, by: str, now_ms: int) -> Signature:
    """Return the signature in a request of the page. Raise ValueError if it is malformed."""
    found = sent if isinstance(sent, dict) else {}
    protected, signature = found.get("protected"), found.get("signature")
    if (
        not (isinstance(protected, str) and isinstance(signature, str))
        or max(len(protected), len(signature)) > MOST_TEXT
    ):
        raise ValueError("signature: `protected` and `signature` are expected")
    try:
        kid = json.loads(decoded(protected))["kid"]
    except (ValueError, KeyError, TypeError, RecursionError):
        kid = None
    if not isinstance(kid, str) or not kid:
        raise ValueError("signature: its header names no key")
    return Signature(by, now_ms, kid, protected, signature)
