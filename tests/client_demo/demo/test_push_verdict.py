"""Tests of the verdict on the demo's sleeping phones: each kind of fault is found, and nothing else is."""

import pytest

from client_demo.demo.push_verdict import Sleeper, check_pushes
from client_demo.demo.verdict import Published
from client_demo.python.geo import Place, offset

HERE, FAR = (32.79, -96.79), (32.9, -96.5)
LATER_MS, NOW_MS = 2_000, 1_000


def circle(spot=HERE, radius_m=1_000.0):
    """Return an area of one circle."""
    return [{"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": radius_m}]


def item(revision, area, key="a"):
    """Return a published revision, or a cancel if `area` is None."""
    return Published(key, revision, area, revision * 10, revision * 10 + 1, "arson", "text")


def phone(*told, spot=HERE, slept=False, taken_ms=()):
    """Return a phone that received the revisions `told`."""
    return Sleeper([Place.at(*spot)], slept, told, taken_ms)


def verdict(published, *phones, ends_ms=LATER_MS):
    """Return the verdict on these phones."""
    return check_pushes(published, dict.fromkeys((each.id for each in published), ends_ms), phones, NOW_MS)


STORY = [item(1, circle()), item(2, circle(FAR)), item(3, None), item(1, circle(), "b")]


def test_newest_revision_of_each_alert_on_every_phone_is_good():
    """Recipients also get revisions that moved away, and cancels; a sleeping phone gets the last one (rule R4)."""
    awake = phone(("a", 1), ("a", 2), ("a", 3), ("b", 1), taken_ms=(10.0, 20.0, 90.0))
    asleep, far = phone(("b", 1), ("a", 3), slept=True), phone(("a", 2), ("a", 3), spot=FAR)
    found = verdict(STORY, awake, asleep, far, phone(spot=offset(*HERE, 30_000, 0)))
    assert found.is_good, found
    assert found.line() == (
        "push: expected=5 told=5 outside=0 missed=0 phones=4 told_on_waking=2 p50_ms=20.0 last_ms=90.0"
    )


@pytest.mark.parametrize(
    "other",
    [phone(("a", 3)), phone(("a", 3), ("b", 1), spot=FAR), phone(spot=FAR), phone(("a", 2), ("b", 1))],
    ids=["one of two", "elsewhere", "nothing at all", "not its cancel"],
)
def test_missing_newest_revision_or_wrong_recipient_is_found(other):
    """Each phone inside gets the newest revision, and phones elsewhere get nothing (rules R1, R4)."""
    found = verdict(STORY, phone(("a", 3), ("b", 1)), other)
    assert not found.is_good
    assert found.outside + found.missed == 1


def test_alert_that_ended_before_the_phone_woke_is_not_missed():
    """An ended alert is not sent; an alert that arrived in time is no fault either (rule E1)."""
    told = [item(1, circle())]
    assert verdict(told, phone(), ends_ms=NOW_MS).missed == 0
    assert verdict(told, phone(("a", 1)), ends_ms=NOW_MS).is_good


def test_on_the_edge_both_answers_are_right():
    """Within a centimetre of the edge either answer is right (rule D3)."""
    published = [item(1, circle())]
    edge = offset(*HERE, 1_000, 0)
    assert verdict(published, phone(spot=edge)).missed == 0
    assert verdict(published, phone(("a", 1), spot=edge)).outside == 0


@pytest.mark.parametrize("told", [[("a", 1), ("a", 1)], [("a", 1), ("c", 1)]])
def test_repeated_or_never_published_revision_is_a_fault(told):
    """A device gets each revision at most once (rule R2)."""
    found = verdict([item(1, circle())], phone(*told))
    assert len(found.faults) == 1
    assert not found.is_good


def test_verdict_without_any_push_is_not_good():
    """A demo that wakes no phone proves nothing."""
    assert not verdict([], phone()).is_good
