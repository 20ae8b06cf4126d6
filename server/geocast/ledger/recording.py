"""Records of log entries: the chain has who, what and when; the content has texts and places (rules LE2 to LE4).

Rule 1  A signed entry is recorded as it is in its form, the text that reviewers sign (rule NC1). Members of the entry
        outside the form are ignored.
Rule 2  The chain has only numbers, hashes, and names that match the protocol's grammars. So no free text can get into
        it. A node would refuse an entry with a free text in place of a name. If the log has such an entry nevertheless,
        it is recorded as untrusted, without the text. Example: an intruder appends an alert directly to Redis, with the
        category "robbery at 5 Main Street". The record says `untrusted` and `unreadable`, but has no address.
Rule 3  Each entry is recorded once, even if the log delivers it several times. Entries are recognised by id, revision
        and content. So another entry with the same id and revision, but a different content, is recorded as well.
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
from ..model.alert import MAX_SIGNATURES, ApprovalProof, Cancel, OtherKind, Revision, is_id
from ..model.times import format_time

SALT_BYTES = 16
_WORD = re.compile("[a-z0-9_]{1,64}")  # the grammar of a category

Members = dict[str, Any]


class Content(NamedTuple):
    """The content of a record: the signed text with its signatures (`proof`), or the bytes of an unsigned entry."""

    data: bytes
    proof: ApprovalProof | None

    def sealed(self) -> tuple[str, Members]:
        """Return two things: a hash of the content with a random salt, and the members of its line in the content file.

        An operator can delete that line and keep the hash (rule LE3).
        """
        salt = secrets.token_bytes(SALT_BYTES)
        return salted(salt, self.data), {"salt": salt.hex(), **self._kept()}

    def _kept(self) -> Members:
        if self.proof is None:
            return {"entry": b64encode(self.data).decode()}
        return {"form": self.proof.form, "signatures": [[*each] for each in _pairs(self.proof)]}


def salted(salt: bytes, data: bytes) -> str:
    """Return the SHA-256 of a salt followed by a content, in hex. Each record contains this hash of its content."""
    return hashlib.sha256(salt + data).hexdigest()


def approvals(pairs: Iterable[tuple[str, str]]) -> list[list[Any]]:
    """Return a list with a pair for each signature: the id of the signing key, and the time in s since 1970.

    Each item of `pairs` is a signature's header and the signature itself. A key id that no reviewer can have is
    returned as "?" (Rule 2): nodes ignore such a signature, and so does the ledger. Raise ValueError if a header is
    malformed.
    """
    headers = [header_of(protected) for protected, _ in pairs]
    return [[kid if is_kid(kid) else "?", issued_at] for kid, issued_at in headers]


def _pairs(proof: ApprovalProof) -> list[tuple[str, str]]:
    return [(each.protected, each.signature) for each in proof.signatures]


def record_of(raw: RawEntry, reviewers: Reviewers | None = None) -> tuple[Members, Content] | None:
    """Return the members of the record for a log entry, and its content; None if the entry gets no record.

    Only alerts and their cancels get a record. Tombstones (cancels without an alert) and entries of other kinds, such
    as calls, do not. Without `reviewers`, signatures are not checked.
    """
    entry = raw.entry
    if isinstance(entry, OtherKind) or (isinstance(entry, Cancel) and entry.is_tombstone):
        return None
    if entry is None:
        return _untrusted(raw, "unreadable"), Content(raw.payload, None)
    proof = entry.proof
    content = Content(raw.payload if proof is None else proof.form.encode(), proof)
    if (entry.id, entry.revision) != (raw.id, raw.revision):
        return _untrusted(raw, "other-place"), content
    try:
        signed = [] if proof is None else approvals(_pairs(proof))
        if proof is not None and not 1 <= len(signed) <= MAX_SIGNATURES:
            raise ValueError
    except ValueError:
        return _untrusted(raw, "signature"), Content(raw.payload, None)
    try:
        said = entry if proof is None else form.read(proof.form).says(entry)
    except ValueError:
        return _untrusted(raw, "other-place"), content
    if proof is not None and reviewers is not None and (reason := _distrust_reason(proof, reviewers)):
        return _untrusted(raw, reason), content
    what, members = _revision(said) if isinstance(said, Revision) else _cancel(said)
    if not _may_be_written(members):
        return _untrusted(raw, "unreadable"), content
    return {
        "what": what,
        **_id_and_revision(raw),
        **members,
        "approvals": signed,
        **_break_glass_keys(signed, reviewers),
    }, content


def _distrust_reason(proof: ApprovalProof, reviewers: Reviewers) -> str:
    """Return the reason not to trust an entry with this proof; "" if at least one reviewer has signed the proof.

    The number of signatures that an alert needs depends on the policy, which the ledger does not know.
    """
    signed = who_signed(proof, reviewers)
    if signed is None:
        return "signature"
    return "" if signed.persons else "unknown-key"


def _break_glass_keys(signed: list[list[Any]], reviewers: Reviewers | None) -> Members:
    """Return {"break_glass": …}, a list of the emergency keys that were used to sign, or {} if there are none.

    Emergency keys are kept in sealed envelopes. Each item of `signed` is a key id and a time.
    """
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


def _untrusted(raw: RawEntry, reason: str) -> Members:
    return {"what": "untrusted", **_id_and_revision(raw), "reason": reason}


def _id_and_revision(raw: RawEntry) -> Members:
    return ({"id": name} if (name := name_of(raw)) else {}) | {"revision": raw.revision}


def name_of(raw: RawEntry) -> str:
    """Return the id under which the log has an entry; "" if the id does not match the grammar of ids (Rule 2)."""
    return raw.id if is_id(raw.id) else ""


def _may_be_written(members: Mapping[str, str]) -> bool:
    """Return whether the source, the category and the status of a record match their grammars (Rule 2).

    If they don't, they may contain free text. The codec has checked the severity already.
    """
    words = [members[key] for key in ("category", "status") if key in members]
    return is_id(members["source"]) and all(_WORD.fullmatch(word) for word in words)


class RecordedEntries:
    """Remembers which entries a ledger has recorded, for as long as the log may deliver them again (Rule 3)."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, int], set[bytes | None]] = {}
        self._last: tuple[int, int] = (0, 0)  # highest epoch (which grows when the log loses entries) and position

    def has(self, raw: RawEntry, content: Content) -> bool:
        """Return whether the ledger has a record of this entry, with the same id, revision and content.

        If the recorded content was deleted, compare only id and revision.
        """
        digests = self._digests.get((name_of(raw), raw.revision), set())
        return None in digests or _digest(content.data) in digests

    def is_rewound(self, raw: RawEntry, *, is_new: bool) -> bool:
        """Return whether an entry shows that the log began a new history, for instance after the log was restored.

        If the log has epochs (numbers that grow when it loses entries), a new history has a higher epoch. Otherwise,
        the log has begun a new history if a new entry has a position that is not higher than the last one.
        """
        epoch, position = self._last
        if raw.epoch:
            return 0 < epoch < raw.epoch
        return is_new and raw.position <= position

    def add(self, alert_id: str, revision: int, data: bytes | None) -> None:
        """Remember that the entry with this id, revision and content was recorded.

        `data` is the content, or None if it was deleted.
        """
        self._digests.setdefault((alert_id, revision), set()).add(None if data is None else _digest(data))

    def reached(self, epoch: int, position: int, *, rewound: bool = False) -> None:
        """Remember the position up to which the log has delivered its entries.

        If `rewound` is true, the log began a new history; all earlier positions are then forgotten.
        """
        self._last = (epoch, position) if rewound else max(self._last, (epoch, position))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class LedgerRecorder:
    """Writes one record for each log entry, even if the log delivers the entry several times."""

    def __init__(
        self,
        write: Callable[[Members, Members | None], None],
        known: RecordedEntries,
        reviewers: Reviewers | None = None,
    ) -> None:
        """Prepare to record entries that are not in `known` yet.

        `write` is a function with two arguments: the members of a record, and the members of its content or None.
        Without `reviewers`, signatures are not checked.
        """
        self._write = write
        self._known = known
        self._reviewers = reviewers

    def take(self, raw: RawEntry) -> bool:
        """Record an entry, unless it was recorded before.

        Return True if the entry is new and is recorded as untrusted.
        """
        found = record_of(raw, self._reviewers)
        is_new = found is not None and not self._known.has(raw, found[1])
        place = {"epoch": raw.epoch} if raw.epoch else {}
        rewound = self._known.is_rewound(raw, is_new=is_new)
        if rewound:
            self._write({"what": "rewound", **place}, None)
        self._known.reached(raw.epoch, raw.position, rewound=rewound)
        if found is None or not is_new:
            return False
        members, content = found
        hashed, kept = content.sealed()
        self._write({**members, "content": hashed, **place, "position": raw.position}, kept)
        self._known.add(name_of(raw), raw.revision, content.data)
        return bool(members["what"] == "untrusted")
