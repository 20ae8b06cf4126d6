"""The check of the signatures of each entry that a process reads from the log (rules NC1 to NC7).

The log itself is not trusted: somebody who can write to Redis or to the SQLite file must not be able to make a node
send an alert that reviewers have not signed. A *proof* is a form (the text with the alert's content that reviewers
sign) with their signatures. The *kind* of a revision is its category, and whether a person confirmed something.

Rule 1  If an entry has a proof, its content is taken from the form; the entry's other members are ignored (rule NC1).
Rule 2  Each process checks each entry that it reads against its own current policy and reviewers. If the check fails or
        raises an error, the entry becomes `Untrusted`: its number stays taken, and its content is ignored (rules NC3 to
        NC5).
Rule 3  All earlier revisions of an alert decide how many reviewers an entry needs (rule HD1). So an entry is checked
        twice: `verify` checks it when it is read, against what its own kind requires, and `verify_revision` or
        `verify_cancel` checks it again when the earlier entries are known.
        Example: revision 1 of an alert is a robbery, which needs two signatures. Revision 2 is in a category that needs
        none. By itself it passes. When the process knows revision 1, revision 2 fails.
Rule 4  Signatures are checked once. The result is remembered under a digest of form and signatures, until the keys
        change (rule NC6).
Rule 5  If a new policy requires more approvals than a live alert has, the alert stays live, unless one of its
        reviewers' keys was removed (rule NC7). The process remembers such entries, so that its api accepts entries that
        its streams still show (rule HD7).
        Example: an alert with one signature is live when a reloaded policy requires two. The alert stays live, and can
        be cancelled. If the key of its only reviewer is removed from the file, the alert is withdrawn.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from prometheus_client.core import Metric

from ..alertlog import codec
from ..alertlog.chain import NO_KINDS, Kinds, kinds_of
from ..metrics import counters
from ..model.alert import MAX_SIGNATURES, ApprovalProof, Cancel, Entry, Revision, Untrusted
from ..model.errors import trace
from ..policy import Policy
from . import form
from .asked import asked
from .reviewers import Reviewers, Signed, who_signed

logger = logging.getLogger(__name__)

REASONS = ("unsigned", "signature", "unknown-key", "too-few", "other-place")
MANY = 1_000  # greater than the number of persons who can sign one form
REMEMBERED = 65_536  # the largest number of items in each dict that remembers something (Rules 4 and 5)

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Failed(Exception):  # noqa: N818
    """Raised if an entry fails its check. The text of the error is one of REASONS."""


class ApprovalVerifier:
    """Verifies log entries against the current policy and the current reviewers' keys.

    A reload of the configuration replaces the policy and the reviewers in this object. In the methods, `behind` is the
    set of the kinds (categories) of the alert's earlier revisions.
    """

    def __init__(self, policy: Policy, reviewers: Reviewers) -> None:
        self.untrusted = Counter(dict.fromkeys(REASONS, 0))
        self.version = 0  # increased by one each time that the policy or the reviewers change
        self._policy = policy
        self._reviewers = reviewers
        self._signed: dict[bytes, Signed | None] = {}  # who signed, by digest; None if a signature does not verify
        # By digest: how many signers counted with earlier reviewers' keys at most, how many at the last check, and the
        # number of changes before that check. So a change of the keys takes no time for each entry.
        self._most: dict[bytes, tuple[int, int, int]] = {}
        self._changes = 0
        self._reported: dict[str, None] = {}  # places in the log whose failed check was already logged and counted
        self._places: dict[tuple[str, int], str] = {}  # by id and revision: places of entries, for log messages
        self._kept: dict[tuple[str, int], bytes] = {}  # by id and revision: digests of entries that stay live (Rule 5)
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> None:
        """Register a function, which is called each time that the policy or the reviewers change."""
        self._watchers.append(changed)

    def replace(self, policy: Policy, reviewers: Reviewers) -> None:
        """Use another policy and other reviewers from now on.

        If this may change the result of any check, call the registered functions (see `watch`).
        """
        if (policy, reviewers) == (self._policy, self._reviewers):
            return
        had = bool(self.needs_chain or self._reviewers)
        self._changes += 1
        self._policy, self._reviewers = policy, reviewers
        self._signed = {}
        if had or self.needs_chain or reviewers:
            self.version += 1
            for changed in self._watchers:
                changed()

    @property
    def needs_chain(self) -> bool:
        """Whether the policy requires approvals in any category, so that an alert's earlier entries matter."""
        return self._policy.asks_for_approvals

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """Return an entry with the content of its form (rule NC1), or an `Untrusted` if its check fails (rule NC2).

        The form is the text that reviewers signed. An `Untrusted` has the number of the entry, but its content is
        ignored. `stands_under` is the id and revision number under which the log has the entry; `place` says in words
        where the entry is, for log messages. A revision must have as many approvals as its own kind needs. For a
        cancel, only the signatures are verified. `verify_revision` and `verify_cancel` check the rest (Rule 3).
        """
        said: Entry | None = None
        try:
            if (entry.id, entry.revision) != stands_under:
                raise _Failed("other-place")
            said = entry if entry.proof is None else self._said(entry, entry.proof)
            if self.needs_chain and (isinstance(said, Cancel) or said.revision > 1):
                _remember(self._places, stands_under, place)
            if isinstance(said, Revision):
                self._check(said, NO_KINDS, said.alert.occurred_at)
            elif said.proof is not None and self._who(said.proof) is None:
                raise _Failed("signature")
            return said
        except _Failed as failed:
            return self._set_aside(stands_under, entry.ends_at, place, str(failed), said)
        except Exception as error:  # one bad entry must not stop a reader of the log (NC5)
            told = "log: an entry is ignored, because checking its approval caused an unexpected error: %s"
            logger.error(told, trace(error))
            return self._set_aside(stands_under, entry.ends_at, place, "signature")

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision has enough approvals, given the earlier revisions of its alert (HD1).

        `verify` has already accepted the revision, without knowing the earlier ones. `behind` is the set of the kinds
        (categories) of the alert's earlier revisions.
        """
        if behind <= kinds_of(revision):
            return True  # there are no other kinds, so `verify` has already checked for enough approvals
        return self._is_good(revision, behind, revision.alert.occurred_at)

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:
        """Return whether a cancel has enough approvals, given the earlier revisions of its alert (HD1).

        `verify` has already accepted the cancel, without knowing these revisions. `alert` is the alert's last accepted
        revision, or None if no revision was accepted. `behind` is the set of the kinds (categories) of the alert's
        earlier revisions.
        """
        if cancel.is_tombstone and alert is None:
            return True
        return self._is_good(cancel, behind, 0 if alert is None else alert.alert.occurred_at)

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a live revision, which was accepted, is still accepted after a change of keys or policy (NC3).

        The revision is still accepted if all its approvals count, even if the new policy requires more (rule NC7). In
        this case the revision is remembered, so that the api accepts it as well (rule HD7).
        """
        try:
            self._check(revision, behind, revision.alert.occurred_at)
        except _Failed:
            if not self._has_all(revision):
                return False
            _remember(self._kept, (revision.id, revision.revision), _fingerprint(revision))
        return True

    def metrics(self) -> Iterator[Metric]:
        """Yield the metric that counts the entries whose check failed, by reason."""
        text = "Entries of the log that were set aside because they are not approved"
        yield counters("log_untrusted", text, "reason", self.untrusted.items())

    # ---- the parts of a check --------------------------------------------------------------------------------------

    def _said(self, entry: Entry, proof: ApprovalProof) -> Entry:
        """Return `entry` with the content of the form (the text that reviewers signed) in its proof.

        Raise _Failed if the form is malformed or belongs to another entry.
        """
        try:
            read = form.read(proof.form)
        except ValueError:
            raise _Failed("signature") from None
        try:
            said = read.says(entry)
        except ValueError:
            raise _Failed("other-place") from None
        if self._policy.audience not in (None, read.audience):
            raise _Failed("other-place")
        return said

    def _is_good(self, entry: Entry, behind: Kinds, occurred_at: int) -> bool:
        try:
            self._check(entry, behind, occurred_at)
        except _Failed as failed:
            under = (entry.id, entry.revision)
            self._set_aside(under, entry.ends_at, self._places.get(under, "?"), str(failed))
            return False
        return True

    def _check(self, entry: Entry, behind: Kinds, occurred_at: int) -> None:
        """Raise _Failed if an entry has too few approvals, or a signature that is wrong or too old.

        `behind` is the set of the kinds (categories) of the alert's earlier revisions. `occurred_at` is the time of the
        incident in ms since 1970; a signature from before that time is too old. An entry with too few approvals passes
        if it may stay live according to Rule 5.
        """
        needed = asked(self._policy, entry, behind)
        if entry.proof is None:
            if needed and not self._is_kept(entry):
                raise _Failed("unsigned")
            return
        signed = self._who(entry.proof)
        if signed is None or signed.since < occurred_at // 1000:
            raise _Failed("signature")
        if len(signed.persons - {entry.source}) < needed and not self._is_kept(entry):
            raise _Failed("unknown-key" if signed.unknown else "too-few")

    def _is_kept(self, entry: Entry) -> bool:
        kept = self._kept.get((entry.id, entry.revision))
        return kept is not None and kept == _fingerprint(entry) and self._has_all(entry)

    def _has_all(self, entry: Entry) -> bool:
        """Return whether every person who once counted as a signer of an entry still counts.

        A person stops counting when their key is removed. Return False if the entry has signatures that this process
        has never checked with earlier keys.
        """
        if entry.proof is None:
            return True
        signed = self._who(entry.proof)
        return signed is not None and len(signed.persons) >= (self._before(_digest(entry.proof)) or MANY)

    def _before(self, digest: bytes) -> int:
        """Return how many signers of a proof counted with earlier keys, at most; 0 if it was not checked with them."""
        before, last, changes = self._most.get(digest, (0, 0, self._changes))
        return before if changes == self._changes else max(before, last)

    def _who(self, proof: ApprovalProof) -> Signed | None:
        """Check the signatures of a proof, and return who has signed it; None if a signature is not valid.

        If this proof was checked before, return the remembered result (Rule 4).
        """
        digest = _digest(proof)
        if digest not in self._signed:
            signed = who_signed(proof, self._reviewers) if 1 <= len(proof.signatures) <= MAX_SIGNATURES else None
            _remember(self._signed, digest, signed)
            if signed is not None:
                _remember(self._most, digest, (self._before(digest), len(signed.persons), self._changes))
        return self._signed[digest]

    def _set_aside(
        self, stands_under: tuple[str, int], ends_at: int, place: str, reason: str, said: Entry | None = None
    ) -> Untrusted:
        if place not in self._reported:
            _remember(self._reported, place, None)
            self.untrusted[reason] += 1
            logger.error("log: the entry at %s is ignored, because it is not approved as required: %s", place, reason)
        return Untrusted(*stands_under, ends_at, said)


def _fingerprint(entry: Entry) -> bytes:
    return hashlib.sha256(codec.encode(entry)).digest() if entry.proof is None else _digest(entry.proof)


def _digest(proof: ApprovalProof) -> bytes:
    found = hashlib.sha256(proof.form.encode("utf-8", "surrogatepass"))
    for each in proof.signatures:
        found.update(f"\0{each.protected}.{each.signature}".encode("utf-8", "surrogatepass"))
    return found.digest()


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    """Store a value under a key, and drop the oldest value if there are more than REMEMBERED."""
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
