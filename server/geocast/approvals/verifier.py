"""The check of each entry that a process reads from the log (rules NC1 to NC7).

The log itself is not trusted: somebody who can write to Redis or to the SQLite file must not be able to make a node
send an alert that reviewers have not signed.

Rule 1  An entry with a proof is what its form says; its other members are ignored (rule NC1).
Rule 2  Each process checks each entry that it reads, by the policy and the reviewers that *it* has in force. An entry
        that fails, or whose check raises an error, becomes `Untrusted`: its number stays taken, and its content is
        ignored (rules NC3 to NC5).
Rule 3  All earlier revisions of an alert decide how many reviewers an entry needs (rule HD1). So an entry is checked
        twice: by `verify` when it is read, for what its own kind asks for, and by `verify_revision` or `verify_cancel`
        once its chain is known. Example: revision 2 of a robbery comes in a category that needs no signatures. Alone
        it passes. Once the process knows that revision 1 was a robbery, which needs two, it fails.
Rule 4  A signature is checked once. The result is remembered by a digest of form and signatures, and forgotten when
        the keys change (rule NC6).
Rule 5  A live alert stays when a new policy asks for more approvals than it has, unless one of its keys was removed
        (rule NC7). The process remembers these entries, so that its api accepts what its streams still show (rule HD7).
        Example: an alert with one signature is live when a reload asks for two. It stays, and can be cancelled. If the
        key of its one reviewer is removed from the file, it is withdrawn.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from prometheus_client.core import Metric

from ..alertlog import codec
from ..alertlog.chain import NO_KINDS, Kinds, kinds_of
from ..errors import trace
from ..metrics import counters
from ..model.alert import MAX_SIGNATURES, ApprovalProof, Cancel, Entry, Revision, Untrusted
from ..policy import Policy
from . import form
from .asked import asked
from .reviewers import Reviewers, Signed, who_signed

logger = logging.getLogger(__name__)

REASONS = ("unsigned", "signature", "unknown-key", "too-few", "other-place")
MANY = 1_000  # more persons than can sign one form
REMEMBERED = 65_536  # entries in each of this module's memories, such as results of checks (Rule 4)

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Failed(Exception):  # noqa: N818
    """The failure of a check; its text is one of REASONS."""


class ApprovalVerifier:
    """The check of log entries by the policy and the reviewers in force.

    A reload changes the policy and the reviewers, and keeps the object.
    """

    def __init__(self, policy: Policy, reviewers: Reviewers) -> None:
        self.untrusted = Counter(dict.fromkeys(REASONS, 0))
        self.version = 0  # rises by one each time that the policy or the reviewers change
        self._policy = policy
        self._reviewers = reviewers
        self._signed: dict[bytes, Signed | None] = {}  # by digest; None: a signature does not verify
        self._most: dict[bytes, int] = {}  # by digest: the most persons who counted under any earlier set of keys
        self._told: dict[str, None] = {}  # places in the log whose failure was already logged and counted
        self._places: dict[tuple[str, int], str] = {}  # by id and revision: places of entries to be checked again
        self._kept: dict[tuple[str, int], bytes] = {}  # by id and revision: digests of entries that stay (Rule 5)
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> None:
        """Register a function to be called each time that the policy or the reviewers change."""
        self._watchers.append(changed)

    def replace(self, policy: Policy, reviewers: Reviewers) -> None:
        """Put a policy and reviewers into force, and call the watchers if that can change the result of any check."""
        if (policy, reviewers) == (self._policy, self._reviewers):
            return
        had = bool(self.needs_chain or self._reviewers)
        for digest, signed in self._signed.items():
            if signed is not None:
                _remember(self._most, digest, max(self._most.get(digest, 0), len(signed.persons)))
        self._policy, self._reviewers = policy, reviewers
        self._signed = {}
        if had or self.needs_chain or reviewers:
            self.version += 1
            for changed in self._watchers:
                changed()

    @property
    def needs_chain(self) -> bool:
        """Whether the policy asks for approvals in any category."""
        return self._policy.asks_for_approvals

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """Return an entry as its form says it (rule NC1), or `Untrusted` if it fails the check (rule NC2).

        `stands_under` are the id and revision under which the log has the entry; `place` names its place for log
        messages. A revision is checked for as many approvals as its own kind needs, and a cancel only for signatures
        that verify: `verify_revision` and `verify_cancel` check the rest (Rule 3).
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
        except Exception as error:  # NC5
            logger.error("the check of a log entry failed, so the entry is set aside: %s", trace(error))
            return self._set_aside(stands_under, entry.ends_at, place, "signature")

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision that passed `verify` has enough approvals after revisions of these kinds (HD1)."""
        if behind <= kinds_of(revision):
            return True  # no other kinds, so `verify` has already checked for as many approvals
        return self._is_good(revision, behind, revision.alert.occurred_at)

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:
        """Return whether a cancel that passed `verify` has enough approvals after revisions of these kinds (HD1).

        `alert` is the last revision that passed its check, or None if there is none.
        """
        if cancel.is_tombstone and alert is None:
            return True
        return self._is_good(cancel, behind, 0 if alert is None else alert.alert.occurred_at)

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a live revision that passed its check still passes, after a change of keys or policy (NC3).

        It passes, too, if it only lacks approvals that the policy did not ask for before (rule NC7). It is remembered
        then, so that the api accepts it as well (rule HD7).
        """
        try:
            self._check(revision, behind, revision.alert.occurred_at)
        except _Failed:
            if not self._has_all(revision):
                return False
            _remember(self._kept, (revision.id, revision.revision), _fingerprint(revision))
        return True

    def metrics(self) -> Iterator[Metric]:
        """Yield the counter of entries that failed the check, by reason."""
        text = "Entries of the log that were set aside because they are not approved"
        yield counters("log_untrusted", text, "reason", self.untrusted.items())

    # ---- single checks ---------------------------------------------------------------------------------------

    def _said(self, entry: Entry, proof: ApprovalProof) -> Entry:
        """Return the entry as its form says it. Raise _Failed if the form is malformed or belongs to another entry."""
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
        """Raise _Failed if an entry after revisions of these kinds lacks approvals, unless it stays (Rule 5).

        `occurred_at` is the time of the incident in ms since 1970: no signature may be older.
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
        """Return whether as many persons count for an entry as under any earlier set of keys.

        If fewer do, a key by which the entry was approved has been removed.
        """
        if entry.proof is None:
            return True
        signed = self._who(entry.proof)
        return signed is not None and len(signed.persons) >= self._most.get(_digest(entry.proof), MANY)

    def _who(self, proof: ApprovalProof) -> Signed | None:
        """Return who has signed, from memory if possible (Rule 4); None if a signature by a known key is wrong."""
        digest = _digest(proof)
        if digest not in self._signed:
            _remember(self._signed, digest, self._checked(proof))
        return self._signed[digest]

    def _checked(self, proof: ApprovalProof) -> Signed | None:
        return who_signed(proof, self._reviewers) if 1 <= len(proof.signatures) <= MAX_SIGNATURES else None

    def _set_aside(
        self, stands_under: tuple[str, int], ends_at: int, place: str, reason: str, said: Entry | None = None
    ) -> Untrusted:
        if place not in self._told:
            _remember(self._told, place, None)
            self.untrusted[reason] += 1
            logger.error("log: entry at %s was set aside, because it is not approved: %s", place, reason)
        return Untrusted(*stands_under, ends_at, said)


def _fingerprint(entry: Entry) -> bytes:
    return hashlib.sha256(codec.encode(entry)).digest() if entry.proof is None else _digest(entry.proof)


def _digest(proof: ApprovalProof) -> bytes:
    found = hashlib.sha256(proof.form.encode("utf-8", "surrogatepass"))
    for each in proof.signatures:
        found.update(f"\0{each.protected}.{each.signature}".encode("utf-8", "surrogatepass"))
    return found.digest()


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    """Store a value, and drop the oldest one if there are more than REMEMBERED."""
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
