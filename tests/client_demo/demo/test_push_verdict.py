"""The judge of the demo's phones that sleep: every kind of wrong has to show, and nothing else."""

import pytest

from client_demo.demo.push_verdict import Sleeper, check_pushes
from client_demo.demo.verdict import Published
from client_demo.python.geo import Place, offset

HERE, FAR = (32.79, -96.79), (32.9, -96.5)
LATER_MS, NOW_MS = 2_000, 1_000


def circle(spot=HERE, radius_m=1_000.0):
    """An area."""
    return [{"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": radius_m}]


def item(revision, area, key="a"):
    """A revision, or with None a cancel."""
    return Published(key, revision, area, revision * 10, revision * 10 + 1, "arson", "text")


def phone(*told, spot=HERE, slept=False, taken_ms=()):
    """A phone, and what it was told."""
    return Sleeper([Place.at(*spot)], slept, told, taken_ms)


def verdict(published, *phones, ends_ms=LATER_MS):
    """The judge's words."""
    return check_pushes(published, dict.fromkeys((each.id for each in published), ends_ms), phones, NOW_MS)


STORY = [item(1, circle()), item(2, circle(FAR)), item(3, None), item(1, circle(), "b")]


def test_who_is_told_the_newest_of_each_makes_a_good_verdict():
    """R4: also of what has moved away, and its cancel; who slept is told the last of it. And the line says so."""
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
def test_who_is_not_told_the_newest_is_missed_and_who_is_elsewhere_is_outside(other):
    """R1, R4."""
    found = verdict(STORY, phone(("a", 3), ("b", 1)), other)
    assert not found.is_good
    assert found.outside + found.missed == 1


def test_what_has_ended_before_a_phone_wakes_is_not_missed():
    """E1; and it is good if it was told in time."""
    told = [item(1, circle())]
    assert verdict(told, phone(), ends_ms=NOW_MS).missed == 0
    assert verdict(told, phone(("a", 1)), ends_ms=NOW_MS).is_good


def test_on_the_edge_either_is_right():
    """D3."""
    published = [item(1, circle())]
    edge = offset(*HERE, 1_000, 0)
    assert verdict(published, phone(spot=edge)).missed == 0
    assert verdict(published, phone(("a", 1), spot=edge)).outside == 0


@pytest.mark.parametrize("told", [[("a", 1), ("a", 1)], [("a", 1), ("c", 1)]])
def test_what_is_told_twice_or_was_never_published_is_a_fault(told):
    """R2."""
    found = verdict([item(1, circle())], phone(*told))
    assert len(found.faults) == 1
    assert not found.is_good


def test_nothing_at_all_is_not_good():
    """A demo in which nobody is woken has shown nothing."""
    assert not verdict([], phone()).is_good
