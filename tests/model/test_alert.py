"""Accepted alerts: they are immutable, and are compared by content."""

import dataclasses

import pytest
from support.fakes import DALLAS, NOON_MS, a_cancel, a_revision

from geocast.model.alert import SEVERITIES, SEVERITY_RANK, Approval, Circle, is_id
from geocast.model.times import format_time


@pytest.mark.parametrize(
    ("text", "expected"), [("desk-7", True), ("a" * 128, True), ("", False), ("a b", False), ("a\n", False)]
)
def test_id_grammar_accepts_or_rejects_publisher_name(text, expected):
    """A publisher's `sub` must match the grammar of `id` (protocol, section 6)."""
    assert is_id(text) is expected


def test_severities_are_in_order_defined_by_cap():
    """From low to high: minor, moderate, severe, extreme (protocol, section 5, Messages)."""
    assert SEVERITIES == ("minor", "moderate", "severe", "extreme")
    assert [SEVERITY_RANK[name] for name in SEVERITIES] == [0, 1, 2, 3]


# ---- same content --------------------------------------------------------------------------------------------


def test_same_content_ignores_publisher_and_time():
    """The approval belongs to the content, and the publisher's `sub` does not (rule H5)."""
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
def test_same_content_compares_every_other_field_of_revision(other):
    """Contents are compared in the form in which they were accepted (rule H5)."""
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
def test_same_content_compares_every_other_field_of_cancel(other):
    """Contents are compared in the form in which they were accepted (rule H5)."""
    assert not a_cancel().same_content(other)


def test_accepted_alert_cannot_be_changed():
    """An alert is fixed at acceptance (protocol, section 2)."""
    revision = a_revision()
    with pytest.raises(dataclasses.FrozenInstanceError):
        revision.revision = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        revision.alert.headline = "x"
    with pytest.raises((TypeError, AttributeError)):
        revision.alert.area[0].lat = 0.0
    assert revision.ends_at == revision.alert.expires_at
    assert format_time(revision.ends_at) == "2026-01-31T12:30:00.000Z"
