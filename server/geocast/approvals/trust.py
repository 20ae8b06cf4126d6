"""Which entries of the log a process believes (NC1 to NC6). Whoever can write to the log can't make it send anything.

Rule 1  An entry with a proof is what its form says, and nothing beside it counts (NC1).
Rule 2  It is judged by what is in force in *this* process, wherever it is read; what is wrong with it, or goes wrong in
        finding that out, makes it `Untrusted`: its number is taken, and nothing else of it is there (NC3 to NC5).
Rule 3  How many reviewers a cancel takes is told by the alert that it stands behind. So it is judged twice: by itself
        where it is read, and by `ends` where it meets that alert, which may be later.
Rule 4  A signature is checked once: who has signed a form is remembered by a digest of both, and forgotten when the
        keys change (NC6).
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

from prometheus_client.core import Metric

from ..alert import MAX_SIGNATURES, NOTHING_CONFIRMED, Cancel, Entry, Proof, Revision, Untrusted
from ..errors import trace
from ..metrics import counters
from ..policy import Policy
from . import form
from .reviewers import Reviewers, Signed, who_signed

logger = logging.getLogger(__name__)

REASONS = ("unsigned", "signature", "unknown-key", "too-few", "other-place")
MANY = 1_000  # more than can sign
REMEMBERED = 65_536  # verdicts, places that were told of, and places of cancels

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Failed(Exception):  # noqa: N818
    """An entry is not to be believed; its text is one of REASONS."""


class Trust:
    """Judges what is read from the log, by the policy and the reviewers in force. It stays the same object."""

    def __init__(self, policy: Policy, reviewers: Reviewers) -> None:
        self.untrusted = Counter(dict.fromkeys(REASONS, 0))
        self.version = 0  # one more each time that something else is in force
        self._policy = policy
        self._reviewers = reviewers
        self._signed: dict[bytes, Signed | None] = {}  # by digest; None: a signature does not verify
        self._most: dict[bytes, int] = {}  # how many had signed by the keys of any time
        self._told: dict[str, None] = {}  # places of which it was said
        self._places: dict[tuple[str, int], str] = {}  # of cancels, by id and number

    def replace(self, policy: Policy, reviewers: Reviewers) -> None:
        """Have these in force from now on."""
        if (policy, reviewers) == (self._policy, self._reviewers):
            return
        had = bool(self.asks or self._reviewers)
        for digest, signed in self._signed.items():
            if signed is not None:
                _remember(self._most, digest, max(self._most.get(digest, 0), len(signed.persons)))
        self._policy, self._reviewers = policy, reviewers
        self._signed = {}
        self.version += had or self.asks or bool(reviewers)

    @property
    def asks(self) -> bool:
        """Whether anything has to be approved at all."""
        return self._policy.asks_for_approvals

    def judged(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """The entry that was read at a place of the log, as its form says it (NC1), or that it is not believed (NC2).

        `stands_under`: the id and the number under which the log has it.

        Of a cancel it is not judged how many have approved it: `ends` does that.
        """
        try:
            if (entry.id, entry.revision) != stands_under and (self.asks or entry.proof is not None):
                raise _Failed("other-place")
            if entry.proof is not None:
                return self._proved(entry, entry.proof, place)
            if isinstance(entry, Revision) and self._policy.approvals(entry.alert.category):
                raise _Failed("unsigned")
            if isinstance(entry, Cancel) and self.asks:
                _remember(self._places, (entry.id, entry.revision), place)
            return entry
        except _Failed as failed:
            return self._set_aside(stands_under, entry.ends_at, place, str(failed))
        except Exception as error:  # NC5
            logger.error("checking an entry failed: %s", trace(error))
            return self._set_aside(stands_under, entry.ends_at, place, "signature")

    def ends(self, cancel: Cancel, alert: Revision | None) -> bool:
        """Whether a cancel that was `judged` ends the alert whose current revision this is; None: it is not known."""
        if cancel.is_tombstone and alert is None:
            return True
        needed = self._policy.cancel_approvals(None if alert is None else alert.alert.category)
        place = self._places.get((cancel.id, cancel.revision), "?")
        try:
            if cancel.proof is not None:
                self._approved(cancel, cancel.proof, needed, 0 if alert is None else alert.alert.occurred_at)
            elif needed:
                raise _Failed("unsigned")
        except _Failed as failed:
            self._set_aside((cancel.id, cancel.revision), cancel.ends_at, place, str(failed))
            return False
        return True

    def stands(self, revision: Revision) -> bool:
        """Whether what was believed is to be believed still, by the keys as they are now (NC3).

        That more are asked for than then takes nothing away from it (NC7).
        """
        if revision.proof is None:
            return True
        signed = self._who(revision.proof)
        if signed is None:
            return False
        if len(signed.persons) >= self._most.get(_digest(revision.proof), MANY):
            return True
        have = len(signed.persons - {revision.source})
        return have >= self._needed(revision)

    def metrics(self) -> Iterator[Metric]:
        """What it has not believed, for Prometheus."""
        text = "Entries of the log that were set aside since they are not approved"
        yield counters("log_untrusted", text, "reason", self.untrusted.items())

    # ---- the pieces ------------------------------------------------------------------------------------------

    def _needed(self, revision: Revision) -> int:
        confirmed = revision.alert.confirm != NOTHING_CONFIRMED
        return self._policy.approvals(revision.alert.category, confirmed=confirmed)

    def _proved(self, entry: Entry, proof: Proof, place: str) -> Entry:
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
        if isinstance(said, Revision):
            self._approved(said, proof, self._needed(said), said.alert.occurred_at)
        elif self._who(proof) is None:
            raise _Failed("signature")
        else:
            _remember(self._places, (entry.id, entry.revision), place)
        return said

    def _approved(self, entry: Entry, proof: Proof, needed: int, occurred_at: int) -> None:
        signed = self._who(proof)
        if signed is None or signed.since < occurred_at // 1000:
            raise _Failed("signature")
        if len(signed.persons - {entry.source}) < needed:
            raise _Failed("unknown-key" if signed.unknown else "too-few")

    def _who(self, proof: Proof) -> Signed | None:
        """Who has signed; None if a signature by a known key does not verify."""
        digest = _digest(proof)
        if digest not in self._signed:
            _remember(self._signed, digest, self._checked(proof))
        return self._signed[digest]

    def _checked(self, proof: Proof) -> Signed | None:
        return who_signed(proof, self._reviewers) if 1 <= len(proof.signatures) <= MAX_SIGNATURES else None

    def _set_aside(self, stands_under: tuple[str, int], ends_at: int, place: str, reason: str) -> Untrusted:
        if place not in self._told:
            _remember(self._told, place, None)
            self.untrusted[reason] += 1
            logger.error("log: entry at %s set aside, it is not approved: %s", place, reason)
        return Untrusted(*stands_under, ends_at)


def _digest(proof: Proof) -> bytes:
    found = hashlib.sha256(proof.form.encode("utf-8", "surrogatepass"))
    for each in proof.signatures:
        found.update(f"\0{each.protected}.{each.signature}".encode("utf-8", "surrogatepass"))
    return found.digest()


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    """Keep it; of too many the one that has been kept the longest goes."""
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
