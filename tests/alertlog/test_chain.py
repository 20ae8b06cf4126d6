"""The summary of an alert's entries, by which the number of reviewers of the next entry is computed (rule HD1)."""

from support.fakes import a_cancel, a_revision

from geocast.alertlog.chain import UNKNOWN, Chain

FLOOD, FIRE = (frozenset({(category, False)}) for category in ("flood", "fire"))


def test_chain_collects_kinds_of_all_revisions_and_counts_all_entries():
    """A cancel has a number, but no kind (Rule 1)."""
    entries = [a_revision(category="flood"), a_revision(revision=2, category="fire"), a_cancel(revision=3)]
    assert Chain.of(entries) == Chain(3, FLOOD | FIRE)


def test_unreadable_entry_has_next_number_and_unknown_kind():
    """The entry after the unreadable one follows it without a gap (Rule 2)."""
    chain = Chain.of([a_revision(category="flood"), None])
    assert chain == Chain(2, FLOOD | UNKNOWN)
    assert Chain.of([None]).before(2) == UNKNOWN


def test_gap_before_entry_adds_unknown_kind():
    """Entry 2 is missing (Rule 2)."""
    chain = Chain(1, FLOOD)
    assert (chain.before(1), chain.before(2), chain.before(3)) == (FLOOD, FLOOD, FLOOD | UNKNOWN)
    assert chain.then(a_revision(revision=3, category="fire")) == Chain(3, FLOOD | FIRE | UNKNOWN)


def test_entry_with_number_that_chain_includes_changes_nothing():
    """Another content under the same number is not the alert's."""
    chain = Chain(2, FLOOD)
    for number in (1, 2):
        assert chain.then(a_revision(revision=number, category="fire")) is chain
