"""Tests of the verdict on the demo's call: each kind of fault is found, and nothing else is."""

import pytest

from client_demo.demo.call_verdict import Called, ResponderPhone, check_call
from client_demo.python.geo import Place, distance_m, offset

HOME = (32.79147, -96.79863)
NEAR = {"type": "circle", "lat": HOME[0], "lng": HOME[1], "radius_m": 210.0}
RING_M = 500.0
EDGE = 710.0  # metres between the centre of `near` and the edge of the last search radius
MEDIC = frozenset({"medic"})
CALL, TASK = ("call", 1_000_000, "c", 1), ("task", 2_000_000, "c", 1)
PLACE, OVER = ("place", 2_000_000, "task"), ("standdown", 3_000_000, "c", "over")
RUNG, WENT = [CALL, OVER], [CALL, PLACE, TASK, OVER]


def at(metres, reach_m=0.0):
    """Return the place of a responder on duty, `metres` from the centre."""
    return Place.at(*offset(*HOME, metres, 0), reach_m, here=True)


def phone(events, *, sub="r-1", quals=MEDIC, here=None, says="accept", metres=100.0):
    """Return one phone; it is on duty unless `here` is False."""
    return ResponderPhone(sub, quals, None if here is False else here or at(metres), says, events)


def verdict(*phones, holders=("r-1",), frames=10):
    """Return the verdict on these phones, given that `holders` have the seats according to the node."""
    called = Called("c", MEDIC, NEAR, RING_M, 4, list(holders), 0)
    return check_call(called, phones, frames)


def test_call_with_all_notified_seated_and_stood_down_is_good():
    """The printed line has the counts."""
    found = verdict(phone(WENT), phone(RUNG, sub="r-2", says=""), phone([], sub="", quals=frozenset(), here=False))
    assert found.is_good, found.faults
    assert found.line() == (
        "call: expected=2 rung=2 outside=0 missed=0 seats=1/4 place_seen_by_others=0 frames=10 "
        "first_ring_ms=1.0 last_ring_ms=1.0 first_seat_ms=2.0"
    )


@pytest.mark.parametrize(
    "other",
    [
        phone(RUNG, sub="r-2", metres=EDGE + 1),
        phone(RUNG, sub="r-2", here=False),
        phone(RUNG, sub="r-2", quals=frozenset({"cpr"})),
        phone(RUNG, sub="", quals=frozenset()),
    ],
    ids=["too far", "off duty", "another qualification", "anybody"],
)
def test_notified_phone_outside_is_found(other):
    """Only qualified responders on duty within the search radius may be notified (rule RJ1)."""
    found = verdict(phone(WENT), other)
    assert (found.outside, found.is_good) == (1, False)


def test_phone_inside_that_was_not_notified_is_found():
    """The last search radius counts, with at most 500 m of a place's own reach (rules RJ1, RQ5)."""
    assert verdict(phone(WENT), phone([], sub="r-2", metres=EDGE - 1)).missed == 1
    assert verdict(phone(WENT), phone([], sub="r-2", here=at(EDGE + 499, 2000.0))).missed == 1
    assert verdict(phone(WENT), phone([], sub="r-2", here=at(EDGE + 501, 2000.0))).missed == 0


@pytest.mark.parametrize("events", [RUNG, []])
def test_within_a_centimetre_of_the_edge_both_answers_are_right(events):
    """Floating-point distances are not more exact than a centimetre."""
    here = at(EDGE)
    called = {**NEAR, "radius_m": distance_m(*HOME, here.lat, here.lng) - RING_M + 0.009}
    found = check_call(Called("c", MEDIC, called, RING_M, 4, ["r-1"], 0), [phone(WENT), phone(events, here=here)], 1)
    assert (found.outside, found.missed) == (0, 0)


@pytest.mark.parametrize(
    ("events", "says", "what"),
    [
        ([CALL, *WENT], "accept", "called twice"),
        ([CALL, PLACE, TASK], "accept", "got no standdown"),
        ([CALL, OVER], "accept", "got no task"),
        ([PLACE, TASK, OVER], "accept", "was not called"),
        (WENT, "decline", "has not accepted"),
        ([CALL, TASK, OVER], "accept", "did not find the place"),
        ([CALL, ("place", 1, "call"), *WENT[1:]], "accept", "frame other than a task"),
    ],
)
def test_fault_of_a_seat_holder_is_found(events, says, what):
    """Holders get one call, one task with the place, and a standdown (rules RV1, RJ6, RJ7, RZ2)."""
    found = verdict(phone(events, says=says))
    assert any(what in fault for fault in found.faults), found.faults
    assert not found.is_good


@pytest.mark.parametrize(
    ("events", "others", "what"),
    [
        ([CALL, PLACE, TASK, OVER], 1, "holds no seat"),
        ([CALL, ("place", 1, "call"), OVER], 1, "frame other than a task"),
        ([CALL], 0, "got no standdown"),
    ],
)
def test_fault_of_another_phone_is_found(events, others, what):
    """Only seat holders learn the place (rules RV1, RZ2)."""
    found = verdict(phone(WENT), phone(events, sub="r-2", says=""))
    assert found.others == others
    assert any(what in fault for fault in found.faults), found.faults


def test_responder_who_declined_needs_no_standdown():
    """Responders who decline receive nothing more about the call (rule RJ7)."""
    assert verdict(phone(WENT), phone([CALL], sub="r-2", says="decline")).is_good


def test_one_person_may_not_hold_two_seats():
    """The seat of the viewer's own page counts as well (rule RV3)."""
    assert not verdict(phone(WENT), holders=["r-1", "r-1"]).is_good
    assert verdict(phone(WENT), holders=["r-1", "r-you"]).taken == 2


def test_call_without_seats_or_searched_frames_is_not_good():
    """A search that looked at no frame proves nothing."""
    assert not verdict(phone(RUNG, says=""), holders=[]).is_good
    assert not verdict(phone(WENT), frames=0).is_good
