"""The alert as it was accepted: what counts as the same content, and that nothing of it can be changed."""

import dataclasses

import pytest
from support.fakes import DALLAS, NOON_MS, a_cancel, a_revision

from geocast.clock import format_time
from geocast.model.alert import SEVERITIES, SEVERITY_RANK, Approval, Circle, is_id


@pytest.mark.parametrize(
    ("text", "expected"), [("desk-7", True), ("a" * 128, True), ("", False), ("a b", False), ("a\n", False)]
)
def test_a_publishers_name_has_the_grammar_of_an_id(text, expected):
    """Section 6: a publisher's `sub` matches the grammar of `id`."""
    assert is_id(text) is expected


def test_severities_rank_as_in_cap():
    """Section 5, messages: extreme > severe > moderate > minor."""
    assert SEVERITIES == ("minor", "moderate", "severe", "extreme")
    assert [SEVERITY_RANK[name] for name in SEVERITIES] == [0, 1, 2, 3]


# ---- same content --------------------------------------------------------------------------------------------


def test_a_publishers_name_and_the_time_do_not_count_as_content():
    """H5: `approval` included; the publisher's `sub` doesn't count."""
    revision, cancel = a_revision(), a_cancel()
    assert revision.same_content(dataclasses.replace(revision, source="other", issued_at=5))
    assert cancel.same_content(dataclasses.replace(cancel, source="other", cancelled_at=5))


@pytest.mark.parametrize(
    "other",
    [
        a_revision(revision=2, headline=a_revision().alert.headline),
        a_revision(headline="x"),
        a_revision(description=""),
        a_revision(severity="minor"),
        a_revision(approval=Approval("desk-8", NOON_MS - 60_000)),
        a_revision(area=(Circle(*DALLAS, 1010.0),)),
        a_cancel(revision=1),
    ],
    ids=range(7),
)
def test_all_else_counts_as_content(other):
    """H5: equal in accepted form."""
    assert not a_revision().same_content(other)
    assert not other.same_content(a_revision())


@pytest.mark.parametrize(
    "other",
    [
        a_cancel("a-2"),
        a_cancel(revision=3),
        a_cancel(reason="x"),
        a_cancel(approval=Approval("desk-8", NOON_MS)),
        a_revision(revision=2),
    ],
    ids=range(5),
)
def test_cancels_are_compared_by_all_but_who_and_when(other):
    """H5."""
    assert not a_cancel().same_content(other)


def test_what_is_accepted_cannot_be_changed():
    """Section 2: all of it is fixed at acceptance."""
    revision = a_revision()
    with pytest.raises(dataclasses.FrozenInstanceError):
        revision.revision = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        revision.alert.headline = "x"
    with pytest.raises((TypeError, AttributeError)):
        revision.alert.area[0].lat = 0.0
    assert revision.ends_at == revision.alert.expires_at
    assert format_time(revision.ends_at) == "2026-01-31T12:30:00.000Z"
