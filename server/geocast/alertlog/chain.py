"""What the entries of an alert say that decides how many reviewers have to approve the next one (HD1).

Rule 1  Each revision counts by its *kind*: its category, and whether something is confirmed in it. A revision that is
        set aside counts too, by what it says. So every process comes to the same number for the same log, whatever keys
        it has and whenever it was started.
Rule 2  An entry that is missing or can't be read may have said anything. It counts as UNKNOWN, which no category is, so
        that as many have to approve as the policy asks anywhere.
Rule 3  Entries of other kinds, and those with the form of another entry, were never sent. They count by their number.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from ..model.alert import NOTHING_CONFIRMED, Entry, OtherKind, Revision, Untrusted

Kinds = frozenset[tuple[str, bool]]  # of revisions: category, and whether something is confirmed
NO_KINDS: Kinds = frozenset()
UNKNOWN: Kinds = frozenset({("", True)})


def kinds_of(revision: Revision) -> Kinds:
    """Return the kind of one revision, as a set."""
    return _shared(NO_KINDS, revision.alert.category, revision.alert.confirm != NOTHING_CONFIRMED)


@lru_cache(4_096)
def _shared(kinds: Kinds, category: str, confirmed: bool) -> Kinds:
    """Return the kinds and one more. Live alerts with the same kinds share one set."""
    return kinds | {(category, confirmed)}


class Chain(NamedTuple):
    """The beginning of an alert: the number of its last entry, and the kinds of its revisions."""

    last: int = 0
    kinds: Kinds = NO_KINDS

    @classmethod
    def of(cls, entries: Iterable[Entry | OtherKind | None]) -> "Chain":
        """Return the chain of these entries, which are in order; None stands for one that can't be read."""
        found = cls()
        for entry in entries:
            found = found.then(entry)
        return found

    def before(self, number: int) -> Kinds:
        """Return the kinds of all revisions before the entry with this number (Rule 2)."""
        return self.kinds if number <= self.last + 1 else self.kinds | UNKNOWN

    def then(self, entry: Entry | OtherKind | None) -> "Chain":
        """Return the chain with one more entry. An entry with a number that is there already changes nothing."""
        if entry is None:
            return Chain(self.last + 1, self.kinds | UNKNOWN)
        if entry.revision <= self.last:
            return self
        kinds = self.before(entry.revision)
        said = entry.said if isinstance(entry, Untrusted) else entry
        if isinstance(said, Revision):
            kinds = _shared(kinds, said.alert.category, said.alert.confirm != NOTHING_CONFIRMED)
        return Chain(entry.revision, kinds)
