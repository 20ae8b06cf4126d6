"""Which entries of the log a process believes (NC1 to NC6). Whoever can write to the log can't make it send anything.

Rule 1  An entry with a proof is what its form says, and nothing beside it counts (NC1).
Rule 2  It is judged by what is in force in *this* process, wherever it is read; what is wrong with it, or goes wrong in
        finding that out, makes it `Untrusted`: its number is taken, and nothing else of it is there (NC3 to NC5).
Rule 3  The chain in front of an entry decides how many reviewers it takes (HD1). So an entry is verified twice: alone
        when it is read, and by `verify_revision` or `verify_cancel` when its chain is known, which may be later.
Rule 4  A signature is checked once: who has signed a form is remembered by a digest of both, and forgotten when the
        keys change (NC6).
Rule 5  What is live when more approvals are asked for stays, unless a key of it was taken out (NC7). This process
        remembers which entries these are, so that the api believes what the stream shows (HD7).
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
MANY = 1_000  # more than can sign
REMEMBERED = 65_536  # verdicts, places that were told of, places of entries, and entries that stay (Rule 5)

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Failed(Exception):  # noqa: N818
    """An entry is not to be believed; its text is one of REASONS."""


class ApprovalVerifier:
    """Judges what is read from the log, by the policy and the reviewers in force. It stays the same object."""

    def __init__(self, policy: Policy, reviewers: Reviewers) -> None:
        self.untrusted = Counter(dict.fromkeys(REASONS, 0))
        self.version = 0  # one more each time that something else is in force
        self._policy = policy
        self._reviewers = reviewers
        self._signed: dict[bytes, Signed | None] = {}  # by digest; None: a signature does not verify
        self._most: dict[bytes, int] = {}  # how many had signed by the keys of any time
        self._told: dict[str, None] = {}  # places of which it was said
        self._places: dict[tuple[str, int], str] = {}  # of entries that are judged twice, by id and number
        self._kept: dict[tuple[str, int], bytes] = {}  # digests of what stays by Rule 5, by id and number
        self._watchers: list[Callable[[], None]] = []

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called each time that something else is in force."""
        self._watchers.append(changed)

    def replace(self, policy: Policy, reviewers: Reviewers) -> None:
        """Have these in force from now on."""
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
        """Whether anything has to be approved at all."""
        return self._policy.asks_for_approvals

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """The entry that was read at a place of the log, as its form says it (NC1), or that it is not believed (NC2).

        `stands_under`: the id and the number under which the log has it. Only what the entry asks for by itself is
        judged, and of a cancel not even that: `verify_revision` and `verify_cancel` do the rest.
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
            logger.error("checking an entry failed: %s", trace(error))
            return self._set_aside(stands_under, entry.ends_at, place, "signature")

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision that passed `verify` is believed behind revisions of these kinds (HD1)."""
        if behind <= kinds_of(revision):
            return True  # `verify` has asked for as much
        return self._is_good(revision, behind, revision.alert.occurred_at)

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:
        """Return whether a cancel that passed `verify` is believed behind revisions of these kinds (HD1).

        `alert`: the last revision that is believed; None if there is none.
        """
        if cancel.is_tombstone and alert is None:
            return True
        return self._is_good(cancel, behind, 0 if alert is None else alert.alert.occurred_at)

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a live revision that was believed still is, by the keys as they are now (NC3).

        That more approvals are asked for than then takes nothing away from it (NC7). The api believes it, too (HD7).
        """
        try:
            self._check(revision, behind, revision.alert.occurred_at)
        except _Failed:
            if not self._has_all(revision):
                return False
            _remember(self._kept, (revision.id, revision.revision), _fingerprint(revision))
        return True

    def metrics(self) -> Iterator[Metric]:
        """What it has not believed, for Prometheus."""
        text = "Entries of the log that were set aside since they are not approved"
        yield counters("log_untrusted", text, "reason", self.untrusted.items())

    # ---- the pieces ------------------------------------------------------------------------------------------

    def _said(self, entry: Entry, proof: ApprovalProof) -> Entry:
        """The entry as its form says it. Raises _Failed if the form is none, or another entry's."""
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
        """Raise _Failed if too few have approved an entry behind revisions of these kinds, unless it stays (Rule 5)."""
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
        """Return whether no key by which an entry was believed has been taken out since."""
        if entry.proof is None:
            return True
        signed = self._who(entry.proof)
        return signed is not None and len(signed.persons) >= self._most.get(_digest(entry.proof), MANY)

    def _who(self, proof: ApprovalProof) -> Signed | None:
        """Who has signed; None if a signature by a known key does not verify."""
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
            logger.error("log: entry at %s set aside, it is not approved: %s", place, reason)
        return Untrusted(*stands_under, ends_at, said)


def _fingerprint(entry: Entry) -> bytes:
    return hashlib.sha256(codec.encode(entry)).digest() if entry.proof is None else _digest(entry.proof)


def _digest(proof: ApprovalProof) -> bytes:
    found = hashlib.sha256(proof.form.encode("utf-8", "surrogatepass"))
    for each in proof.signatures:
        found.update(f"\0{each.protected}.{each.signature}".encode("utf-8", "surrogatepass"))
    return found.digest()


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    """Keep it; of too many the one that has been kept the longest goes."""
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
