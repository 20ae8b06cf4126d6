"""The kinds of an alert's revisions, which decide how many reviewers have to approve its next entry (rule HD1).

Rule 1  The *kind* of a revision is its category, and whether a person confirmed something in it. A revision that is not
        accepted (because an approval is invalid) has a kind too, which is read from its content. So every process
        computes the same number of reviewers from the same log, whatever keys it has and whenever it was started.
        Example: revision 1 is a flood, which one reviewer approves; revision 2 is a terror attack, which needs two. A
        cancel of this alert needs two reviewers, even in a process that does not accept revision 2.
Rule 2  The kind of an entry that is missing or can't be read is UNKNOWN, which equals no category. The next entry then
        needs the largest number of reviewers that the policy requires for any category.
Rule 3  Two sorts of entries are never sent to anybody, so they have numbers but no kinds: entries of types that this
        release does not know, and entries in which somebody has put the approved content of another entry.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from ..model.alert import NOTHING_CONFIRMED, Entry, OtherKind, Revision, Untrusted

Kinds = frozenset[tuple[str, bool]]  # kinds of revisions: the category, and whether a person confirmed something
NO_KINDS: Kinds = frozenset()
UNKNOWN: Kinds = frozenset({("", True)})


def kinds_of(revision: Revision) -> Kinds:
    """Return a set that has only the kind of this revision.

    The kind is a tuple: the revision's category, and whether a person confirmed something in the revision.
    """
    return _shared(NO_KINDS, revision.alert.category, revision.alert.confirm != NOTHING_CONFIRMED)


@lru_cache(4_096)
def _shared(kinds: Kinds, category: str, confirmed: bool) -> Kinds:
    """Return the set `kinds` with one kind added: the tuple of a category, and whether a person confirmed something.

    Equal results are the same object, which saves memory, because most live alerts have equal kinds.
    """
    return kinds | {(category, confirmed)}


class Chain(NamedTuple):
    """A summary of an alert's entries, from the first one to the entry with the number `last`.

    `kinds` is the set of the kinds of all revisions among these entries. A kind is a category, and whether a person
    confirmed something.
    """

    last: int = 0
    kinds: Kinds = NO_KINDS

    @classmethod
    def of(cls, entries: Iterable[Entry | OtherKind | None]) -> "Chain":
        """Return the summary of an alert's entries.

        `entries` are ordered by number, with None in place of each entry that can't be read.
        """
        found = cls()
        for entry in entries:
            found = found.then(entry)
        return found

    def before(self, number: int) -> Kinds:
        """Return the kinds of all revisions of the alert whose numbers are below `number`.

        If an entry below `number` is not part of this summary, add UNKNOWN (Rule 2).
        """
        return self.kinds if number <= self.last + 1 else self.kinds | UNKNOWN

    def then(self, entry: Entry | OtherKind | None) -> "Chain":
        """Return this summary extended by `entry`, the next entry of the alert, or None if that entry can't be read.

        If the summary already includes an entry with this number, return the summary unchanged.
        """
        if entry is None:
            return Chain(self.last + 1, self.kinds | UNKNOWN)
        if entry.revision <= self.last:
            return self
        kinds = self.before(entry.revision)
        said = entry.said if isinstance(entry, Untrusted) else entry
        if isinstance(said, Revision):
            kinds = _shared(kinds, said.alert.category, said.alert.confirm != NOTHING_CONFIRMED)
        return _chain(entry.revision, kinds)


NO_CHAIN = Chain()


@lru_cache(4_096)
def _chain(last: int, kinds: Kinds) -> Chain:
    """Return a summary. Equal results are the same object, because most live alerts have equal summaries."""
    return Chain(last, kinds)
