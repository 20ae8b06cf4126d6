"""What reviewers sign, and who has so far: it is kept with its item until they are enough. No I/O, no clock.

The desk holds nobody's key and checks no signature. The node does that, and so does each phone that verifies: whoever
takes over this service can withhold, and can put no word of their own into what was signed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from client_demo.python.base64url import decoded

MOST_TEXT = 1_024  # of a signature's two members, in characters


@dataclass(frozen=True, slots=True)
class Signature:
    """Of one key: who was at the desk then, when (ms), and what they gave."""

    by: str
    at: int
    kid: str
    protected: str
    signature: str


@dataclass(slots=True)
class SigningRequest:
    """A request that waits for signatures: what was decided, the request, and the very text that is signed."""

    what: str  # publish, revise, cancel
    body: dict[str, Any]  # as it was for the dry run that gave the form
    form: str
    needed: int
    draft: dict[str, Any]  # what was typed, as a decision has it
    signatures: list[Signature] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        """Whether as many keys as are needed have signed. Whose they are is the node's to judge."""
        return len(self.signatures) >= self.needed

    def has(self, kid: str) -> bool:
        """Whether this key has signed."""
        return any(each.kid == kid for each in self.signatures)

    def approved(self) -> dict[str, Any]:
        """The request with what was signed."""
        signatures = [{"protected": each.protected, "signature": each.signature} for each in self.signatures]
        return self.body | {"approval": {"form": self.form, "signatures": signatures}}

    def shown(self) -> dict[str, Any]:
        """What the page is told."""
        by = [{"by": each.by, "at": each.at, "kid": each.kid} for each in self.signatures]
        return {"what": self.what, "form": self.form, "needed": self.needed, "signed": by}

    @classmethod
    def from_map(cls, saved: Mapping[str, Any]) -> "SigningRequest":
        """What `dataclasses.asdict` gave."""
        return cls(**{**saved, "signatures": [Signature(**each) for each in saved["signatures"]]})


def read_signature(sent: object, by: str, now_ms: int) -> Signature:
    """A signature in a request of the page. Raises ValueError for what is none."""
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
