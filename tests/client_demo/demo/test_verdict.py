"""Tests of the verdict on the demo's deliveries: each kind of fault is found, and nothing else is."""

import pytest

from client_demo.demo.verdict import DeliveryCheck, Published, percentile
from client_demo.python.geo import Place, distance_m, offset

HOME = (32.7767, -96.797)
INSIDE, OUTSIDE = [Place.at(*HOME)], [Place.at(*offset(*HOME, 5000, 0))]
END = 1000


def area(at=HOME, radius_m=1000.0):
    return [{"type": "circle", "lat": at[0], "lng": at[1], "radius_m": radius_m}]


def published(key="a", revision=1, where=None, sent=100, accepted=110, is_cancel=False):
    shapes = None if is_cancel else (where or area())
    return Published(key, revision, shapes, sent, accepted, "fire", "text")


FIRST = published()
MOVED = published(revision=2, where=area(offset(*HOME, 50_000, 0)), sent=300, accepted=310)
CANCEL = published(revision=2, sent=300, accepted=310, is_cancel=True)


def verdict(items, events, steps=(INSIDE,)):
    check = DeliveryCheck(items, END)
    check.take(steps, events)
    counts = [(row.expected, row.delivered, row.outside, row.missed) for row in check.rows.values()]
    return counts, check.faults


RIGHT, NOBODY, MISSED, WRONG = (1, 1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0)
HELLO = ("hello", 10, 0, {})
GOT = ("alert", 150, "a", 1)


@pytest.mark.parametrize(
    ("steps", "events", "expected"),
    [
        ([INSIDE], [HELLO, GOT], RIGHT),
        ([INSIDE], [HELLO], MISSED),
        ([OUTSIDE], [HELLO], NOBODY),
        ([OUTSIDE], [HELLO, GOT], WRONG),
        ([OUTSIDE + INSIDE], [HELLO, GOT], RIGHT),
        ([[]], [HELLO], NOBODY),
    ],
)
def test_subscriber_who_does_not_move_is_judged_by_its_place(steps, events, expected):
    assert verdict([FIRST], events, steps) == ([expected], [])


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([HELLO, ("move", 200, 1), ("ok", 210, 1), ("alert", 220, "a", 1)], RIGHT),
        ([HELLO, ("move", 200, 1), ("ok", 210, 1)], MISSED),
        ([HELLO, ("move", 200, 1), ("alert", 205, "a", 1), ("ok", 210, 1)], (1, 1, 1, 1)),
        ([HELLO, ("move", 50, 1)], NOBODY),
    ],
)
def test_subscriber_who_moves_in_is_judged_by_the_ok(events, expected):
    """An alert before the `ok` belongs to the old places: it counts as outside, and the alert is still owed."""
    assert verdict([FIRST], events, [OUTSIDE, INSIDE]) == ([expected], [])


def test_alert_is_owed_only_if_the_subscriber_leaves_after_it():
    steps = [INSIDE, OUTSIDE]
    assert verdict([FIRST], [HELLO, ("move", 50, 1), ("ok", 60, 1)], steps)[0] == [NOBODY]
    assert verdict([FIRST], [HELLO, ("move", 200, 1), ("ok", 210, 1)], steps)[0] == [MISSED]


def test_recipient_must_get_every_later_revision_even_if_the_revised_area_has_moved_away():
    """A subscriber who received nothing before is not owed a revision that moved away."""
    assert verdict([FIRST, MOVED], [HELLO, GOT, ("alert", 350, "a", 2)])[0] == [RIGHT, RIGHT]
    assert verdict([FIRST, MOVED], [HELLO, GOT])[0] == [RIGHT, MISSED]
    assert verdict([FIRST, MOVED], [HELLO, ("alert", 350, "a", 2)], [OUTSIDE])[0] == [NOBODY, WRONG]


def test_cancel_is_owed_to_recipients_only():
    """Recipients get the cancel wherever they are."""
    assert verdict([FIRST, CANCEL], [HELLO, GOT, ("cancel", 350, "a", 2)])[0] == [RIGHT, RIGHT]
    assert verdict([FIRST, CANCEL], [HELLO, GOT])[0] == [RIGHT, MISSED]
    assert verdict([FIRST, CANCEL], [HELLO, ("cancel", 350, "a", 2)], [OUTSIDE])[0] == [NOBODY, WRONG]
    assert verdict([FIRST, CANCEL], [("hello", 400, 0, {})])[0] == [NOBODY, NOBODY]


@pytest.mark.parametrize(
    ("item", "what"),
    [(MOVED, "alert"), (CANCEL, "cancel")],
)
def test_reconnect_with_holding_is_owed_what_changed(item, what):
    """A client that never held the alert, or holds the current revision, is owed nothing."""
    away = [HELLO, GOT, ("lost", 200)]
    assert verdict([FIRST, item], away)[0] == [RIGHT, NOBODY]
    assert verdict([FIRST, item], [*away, ("hello", 500, 0, {"a": 1})])[0] == [RIGHT, MISSED]
    back = [*away, ("hello", 500, 0, {"a": 1}), (what, 510, "a", 2)]
    assert verdict([FIRST, item], back) == ([RIGHT, RIGHT], [])


def test_held_current_revision_is_not_owed_again():
    """Sending a held revision again is a fault."""
    events = [HELLO, GOT, ("lost", 200), ("hello", 300, 0, {"a": 1})]
    assert verdict([FIRST], events) == ([RIGHT], [])
    assert verdict([FIRST], [*events, ("alert", 310, "a", 1)])[1] == [
        "a revision 1 was sent again, or after a newer one"
    ]


def test_repeated_late_or_unpublished_message_is_a_fault():
    """An alert after its cancel and an older revision after a newer one are faults too (rule 2 of delivery)."""
    assert len(verdict([FIRST], [HELLO, GOT, ("alert", 160, "a", 1)])[1]) == 1
    assert len(verdict([FIRST, MOVED], [HELLO, ("alert", 350, "a", 2), ("alert", 360, "a", 1)])[1]) == 1
    assert len(verdict([FIRST, CANCEL], [HELLO, GOT, ("cancel", 350, "a", 2), ("alert", 360, "a", 1)])[1]) == 1
    assert verdict([FIRST], [HELLO, GOT, ("alert", 150, "b", 1)])[1] == ["b revision 1 was never published"]


def test_replaced_revision_is_not_owed_to_later_subscribers():
    """Only the current revision is owed to subscribers who come later."""
    late = [("hello", 400, 0, {})]
    where = published(revision=2, sent=300, accepted=310)
    assert verdict([FIRST, where], [*late, ("alert", 410, "a", 2)])[0] == [NOBODY, RIGHT]
    assert verdict([FIRST, where], late)[0] == [NOBODY, MISSED]


def test_within_a_centimetre_of_the_edge_both_answers_are_right():
    """Floating-point distances are not more exact than a centimetre."""
    place = Place.at(*offset(*HOME, 1000, 0))
    edge = distance_m(*HOME, place.lat, place.lng)
    for off, told, expected in [
        (0.009, True, RIGHT),
        (-0.009, True, RIGHT),
        (0.009, False, NOBODY),
        (-0.02, True, WRONG),
    ]:
        items = [published(where=area(radius_m=edge + off))]
        assert verdict(items, [HELLO, GOT] if told else [HELLO], [[place]])[0] == [expected]
    assert verdict([published(where=area(radius_m=edge + 0.02))], [HELLO], [[place]])[0] == [MISSED]


def test_latency_counts_from_the_post_and_only_for_subscribers_present():
    """A delivery to a subscriber who moves in later has no latency."""
    check = DeliveryCheck([FIRST], END)
    check.take([INSIDE], [HELLO, ("alert", 100 + 5_000_000, "a", 1)])
    check.take([OUTSIDE, INSIDE], [HELLO, ("move", 200, 1), ("ok", 210, 1), ("alert", 220, "a", 1)])
    (row,) = check.rows.values()
    assert (row.latencies_ms, row.later) == ([5.0], 1)


def test_percentile_is_a_value_that_occurred():
    """The method is nearest rank; an empty list gives 0."""
    assert percentile([], 0.99) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7], 1.0) == 7
