"""What is written of an entry of the log: who, what and when in the chain, the words and places beside it (LE2 to LE4).

Rule 1  An entry with a proof is what its form says (NC1); what stands beside the form counts for nothing here.
Rule 2  The chain has names in the protocol's grammars, numbers and hashes, and nothing that could be a text: an entry
        in which something else stands where such a name belongs came through no door, and is untrusted.
Rule 3  An entry is written once, however often the log gives it: it is known by its id, its number, and the bytes that
        it was written for. So one that stands under a number that was taken by another is written, too.
"""

import hashlib
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..alertlog.tail import RawEntry
from ..approvals import form
from ..approvals.reviewers import NO_REVIEWERS, Reviewers, is_kid, out_of_envelopes, who_signed
from ..approvals.signatures import header_of
from ..clock import format_time
from ..model.alert import MAX_SIGNATURES, ApprovalProof, Cancel, OtherKind, Revision, is_id

SALT_BYTES = 16
_WORD = re.compile("[a-z0-9_]{1,64}")  # the grammar of a category

Members = dict[str, Any]


class Content(NamedTuple):
    """What was approved or published, by itself: a form with its signatures, or the bytes of an entry without."""

    data: bytes
    proof: ApprovalProof | None

    def sealed(self) -> tuple[str, Members]:
        """The hash of a random salt and this, and what has to be kept to tell that it fits (LE3)."""
        salt = secrets.token_bytes(SALT_BYTES)
        return salted(salt, self.data), {"salt": salt.hex(), **self._kept()}

    def _kept(self) -> Members:
        if self.proof is None:
            return {"entry": b64encode(self.data).decode()}
        return {"form": self.proof.form, "signatures": [[*each] for each in _pairs(self.proof)]}


def salted(salt: bytes, data: bytes) -> str:
    """The hash by which a record knows its content, in hex."""
    return hashlib.sha256(salt + data).hexdigest()


def approvals(pairs: Iterable[tuple[str, str]]) -> list[list[Any]]:
    """Key and time (s since 1970) of each signature, given as header and signature. Raises ValueError.

    What can't be the name of a reviewer's key is "?" (Rule 2): nodes pass over such a signature, and so does this.
    """
    headers = [header_of(protected) for protected, _ in pairs]
    return [[kid if is_kid(kid) else "?", issued_at] for kid, issued_at in headers]


def _pairs(proof: ApprovalProof) -> list[tuple[str, str]]:
    return [(each.protected, each.signature) for each in proof.signatures]


def record_of(sight: RawEntry, reviewers: Reviewers | None = None) -> tuple[Members, Content] | None:
    """What is written of an entry; None for those that are not written: tombstones, and entries of other kinds.

    Without `reviewers` signatures are not checked.
    """
    entry = sight.entry
    if isinstance(entry, OtherKind) or (isinstance(entry, Cancel) and entry.is_tombstone):
        return None
    if entry is None:
        return _untrusted(sight, "unreadable"), Content(sight.payload, None)
    proof = entry.proof
    content = Content(sight.payload if proof is None else proof.form.encode(), proof)
    if (entry.id, entry.revision) != (sight.id, sight.revision):
        return _untrusted(sight, "other-place"), content
    try:
        signed = [] if proof is None else approvals(_pairs(proof))
        if proof is not None and not 1 <= len(signed) <= MAX_SIGNATURES:
            raise ValueError
    except ValueError:
        return _untrusted(sight, "signature"), Content(sight.payload, None)
    try:
        said = entry if proof is None else form.read(proof.form).says(entry)
    except ValueError:
        return _untrusted(sight, "other-place"), content
    if proof is not None and reviewers is not None and (reason := _why_not(proof, reviewers)):
        return _untrusted(sight, reason), content
    what, members = _revision(said) if isinstance(said, Revision) else _cancel(said)
    if not _may_be_written(members):
        return _untrusted(sight, "unreadable"), content
    return {"what": what, **_named(sight), **members, "approvals": signed, **_broken(signed, reviewers)}, content


def _why_not(proof: ApprovalProof, reviewers: Reviewers) -> str:
    """Why nobody among the reviewers has signed a form; empty if somebody has. (The policy says how many it takes.)"""
    signed = who_signed(proof, reviewers)
    if signed is None:
        return "signature"
    return "" if signed.persons else "unknown-key"


def _broken(signed: list[list[Any]], reviewers: Reviewers | None) -> Members:
    """Which of the keys came out of an envelope ("break glass"), if any did."""
    kids = out_of_envelopes((kid for kid, _ in signed), reviewers or NO_REVIEWERS)
    return {"break_glass": kids} if kids else {}


def _revision(entry: Revision) -> tuple[str, Members]:
    alert = entry.alert
    members = {
        "source": entry.source,
        "category": alert.category,
        "severity": alert.severity,
        "status": alert.status,
        "issued_at": format_time(entry.issued_at),
    }
    return "alert" if entry.revision == 1 else "revision", members


def _cancel(entry: Cancel) -> tuple[str, Members]:
    return "cancel", {"source": entry.source, "cancelled_at": format_time(entry.cancelled_at)}


def _untrusted(sight: RawEntry, reason: str) -> Members:
    return {"what": "untrusted", **_named(sight), "reason": reason}


def _named(sight: RawEntry) -> Members:
    return ({"id": name} if (name := name_of(sight)) else {}) | {"revision": sight.revision}


def name_of(sight: RawEntry) -> str:
    """The id, if it can be one (Rule 2); else nothing."""
    return sight.id if is_id(sight.id) else ""


def _may_be_written(members: Mapping[str, str]) -> bool:
    """Whether names are names (Rule 2). The codec has seen to the severity."""
    words = [members[key] for key in ("category", "status") if key in members]
    return is_id(members["source"]) and all(_WORD.fullmatch(word) for word in words)


class RecordedEntries:
    """The entries that a ledger has (Rule 3), of as far back as a log may give again."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, int], set[bytes | None]] = {}
        self._last: tuple[int, int] = (0, 0)  # epoch and position, the highest

    def has(self, sight: RawEntry, content: Content) -> bool:
        """Whether it was written. Where the content was forgotten, its number tells."""
        digests = self._digests.get((name_of(sight), sight.revision), set())
        return None in digests or _digest(content.data) in digests

    def is_rewound(self, sight: RawEntry, *, is_new: bool) -> bool:
        """Whether an entry shows that the log began a new history: by its epoch, or a new one by its position."""
        epoch, position = self._last
        if sight.epoch:
            return 0 < epoch < sight.epoch
        return is_new and sight.position <= position

    def add(self, alert_id: str, revision: int, data: bytes | None) -> None:
        """It has been written; `data` is None if nobody knows any more what for."""
        self._digests.setdefault((alert_id, revision), set()).add(None if data is None else _digest(data))

    def reached(self, epoch: int, position: int, *, rewound: bool = False) -> None:
        """The log goes as far as this; after it was rewound, no farther."""
        self._last = (epoch, position) if rewound else max(self._last, (epoch, position))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class LedgerRecorder:
    """Writes what is seen, each entry once."""

    def __init__(
        self,
        write: Callable[[Members, Members | None], None],
        known: RecordedEntries,
        reviewers: Reviewers | None = None,
    ) -> None:
        """`write` takes a record, and what is kept beside it; `reviewers`: whose signatures are good."""
        self._write = write
        self._known = known
        self._reviewers = reviewers

    def take(self, sight: RawEntry) -> bool:
        """Write what there is to write of an entry; whether it is one that can't be trusted, and new."""
        found = record_of(sight, self._reviewers)
        is_new = found is not None and not self._known.has(sight, found[1])
        place = {"epoch": sight.epoch} if sight.epoch else {}
        rewound = self._known.is_rewound(sight, is_new=is_new)
        if rewound:
            self._write({"what": "rewound", **place}, None)
        self._known.reached(sight.epoch, sight.position, rewound=rewound)
        if found is None or not is_new:
            return False
        members, content = found
        hashed, kept = content.sealed()
        self._write({**members, "content": hashed, **place, "position": sight.position}, kept)
        self._known.add(name_of(sight), sight.revision, content.data)
        return bool(members["what"] == "untrusted")
