"""Tests of what a client holds and reports, with the time passed in."""

import json

import pytest

from client_demo.python.geo import Place
from client_demo.python.holdings import MAX_CANCELLED, MAX_HOLDING, Holdings, Kind
from client_demo.python.times import format_time

HOME = Place.at(32.7767, -96.797)
FAR = Place.at(33.5, -97.5)
NOW = 1_800_000_000_000  # the server's time in ms


def alert(key="a", revision=1, at=HOME, radius_m=1000.0, lasts_ms=3_600_000, **more):
    shape = {"type": "circle", "lat": at.lat, "lng": at.lng, "radius_m": radius_m}
    return {"id": key, "revision": revision, "area": [shape], "expires_at": format_time(NOW + lasts_ms), **more}


def cancel(key="a", revision=2, reason="false alarm"):
    return {"type": "cancel", "id": key, "revision": revision, "reason": reason}


def kinds(changes):
    return [(change.kind, change.alert["id"], change.alert["revision"]) for change in changes]


@pytest.fixture
def holdings():
    """Return holdings at home, with both clocks in step."""
    return Holdings([HOME])


NO_AREAS = [None, 7, "circle", {"type": "circle"}, ["circle"], [None], [7]]
NO_CIRCLES = [
    {"lat": HOME.lat, "lng": HOME.lng},
    {"lat": "x", "lng": 0, "radius_m": 1},
    {"lat": 0, "lng": 0, "radius_m": []},
]


@pytest.mark.parametrize("area", [*NO_AREAS, *([{"type": "circle", **circle}] for circle in NO_CIRCLES)])
@pytest.mark.parametrize("places", [(), (HOME,)])
def test_alert_with_invalid_area_is_refused_before_it_is_held(places, area):
    """Otherwise every later move would fail."""
    holdings = Holdings(places)
    with pytest.raises((KeyError, TypeError, ValueError)):
        holdings.take_alert(alert() | {"area": area}, NOW)
    assert holdings.move([FAR]) == []
    assert kinds(holdings.take_alert(alert(at=FAR), NOW)) == [(Kind.NEW, "a", 1)]


def test_alert_is_new_once(holdings):
    """The same revision again changes nothing."""
    assert kinds(holdings.take_alert(alert(), NOW)) == [(Kind.NEW, "a", 1)]
    assert holdings.take_alert(alert(), NOW) == []


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ((HOME, HOME), [Kind.NEW, Kind.UPDATED]),
        ((HOME, FAR), [Kind.NEW, Kind.NO_LONGER_HERE]),
        ((HOME, FAR, FAR), [Kind.NEW, Kind.NO_LONGER_HERE]),
        ((HOME, FAR, HOME), [Kind.NEW, Kind.NO_LONGER_HERE, Kind.BACK_HERE]),
        ((HOME, FAR, HOME, HOME), [Kind.NEW, Kind.NO_LONGER_HERE, Kind.BACK_HERE, Kind.UPDATED]),
        ((FAR,), []),
        ((FAR, HOME), [Kind.NEW]),
        ((FAR, HOME, FAR), [Kind.NEW, Kind.NO_LONGER_HERE]),
    ],
)
def test_revision_is_reported_by_its_place(holdings, places, expected):
    """The cases are those of the module's table: an alert that moves away is reported as no longer here."""
    reported = []
    for revision, place in enumerate(places, 1):
        reported += [change.kind for change in holdings.take_alert(alert(revision=revision, at=place), NOW)]
    assert reported == expected


def test_move_of_the_user_reports_which_alerts_are_no_longer_here_or_back_here(holdings):
    """A move that changes nothing reports nothing."""
    holdings.take_alert(alert(), NOW)
    assert holdings.move([HOME, FAR]) == []
    assert kinds(holdings.move([FAR])) == [(Kind.NO_LONGER_HERE, "a", 1)]
    assert holdings.here() == []
    assert holdings.move([FAR]) == []
    assert kinds(holdings.move([HOME])) == [(Kind.BACK_HERE, "a", 1)]


def test_alert_that_came_while_leaving_is_new_on_return(holdings):
    """The server sent it for the old places, so it is held without a report."""
    holdings.move([FAR])
    assert holdings.take_alert(alert(), NOW) == []
    assert kinds(holdings.move([HOME])) == [(Kind.NEW, "a", 1)]


def test_lower_revision_is_ignored(holdings):
    holdings.take_alert(alert(revision=3, headline="third"), NOW)
    assert holdings.take_alert(alert(revision=2, headline="second"), NOW) == []
    assert [held["headline"] for held in holdings] == ["third"]


def test_cancel_is_reported_at_any_place(holdings):
    """An alert that is no longer here is reported as well."""
    holdings.take_alert(alert(), NOW)
    holdings.move([FAR])
    (change,) = holdings.take_cancel(cancel())
    assert (change.kind, change.here, change.reason) == (Kind.CANCELLED, False, "false alarm")
    assert len(holdings) == 0


def test_cancel_of_unknown_alert_or_older_revision_is_ignored(holdings):
    """An alert with the id of an unknown cancel can still come later."""
    assert holdings.take_cancel(cancel("unknown")) == []
    holdings.take_alert(alert(revision=5), NOW)
    assert holdings.take_cancel(cancel(revision=5)) == []
    assert kinds(holdings.take_alert(alert("unknown"), NOW)) == [(Kind.NEW, "unknown", 1)]


def test_cancelled_alert_does_not_come_back_from_a_late_node(holdings):
    """A repeated cancel reports nothing."""
    holdings.take_alert(alert(), NOW)
    holdings.take_cancel(cancel())
    assert holdings.take_alert(alert(), NOW) == []
    assert holdings.take_cancel(cancel()) == []
    assert holdings.holding(NOW) == ({}, [])


def test_memory_of_cancelled_ids_is_bounded(holdings):
    """The oldest ids are forgotten first."""
    for number in range(MAX_CANCELLED + 1):
        holdings.take_alert(alert(f"n{number}"), NOW)
        holdings.take_cancel(cancel(f"n{number}"))
    assert kinds(holdings.take_alert(alert("n0"), NOW)) == [(Kind.NEW, "n0", 1)]
    assert holdings.take_alert(alert("n1"), NOW) == []


def test_alert_expires_by_the_servers_clock(holdings):
    """The client's own clock is two hours slow, and `now` corrects it."""
    own = NOW - 7_200_000
    holdings.set_clock(NOW, own)
    holdings.take_alert(alert(lasts_ms=60_000), own)
    assert holdings.next_expiry() == own + 60_000
    assert holdings.expire(own + 59_999) == []
    assert kinds(holdings.expire(own + 60_000)) == [(Kind.EXPIRED, "a", 1)]
    assert holdings.next_expiry() is None


def test_alert_expired_on_the_way_is_not_shown(holdings):
    """A received frame may have waited in the kernel for any time."""
    assert holdings.take_alert(alert(lasts_ms=0), NOW) == []
    assert len(holdings) == 0


def test_alert_never_shown_ends_without_a_report(holdings):
    """The expiry or cancel of an alert that was never shown does not matter to the person."""
    holdings.take_alert(alert("a", at=FAR, lasts_ms=10), NOW)
    holdings.take_alert(alert("b", at=FAR), NOW)
    assert holdings.expire(NOW + 10) == []
    assert holdings.take_cancel(cancel("b")) == []
    assert len(holdings) == 0


def test_revision_may_extend_the_alert(holdings):
    """The `expires_at` of the new revision counts."""
    holdings.take_alert(alert(lasts_ms=10), NOW)
    holdings.take_alert(alert(revision=2, lasts_ms=20), NOW)
    assert holdings.expire(NOW + 10) == []
    assert kinds(holdings.expire(NOW + 20)) == [(Kind.EXPIRED, "a", 2)]


def test_holding_lists_alerts_no_longer_here(holdings):
    """Cancels and revisions of these alerts still have to come."""
    holdings.take_alert(alert("a", revision=4), NOW)
    holdings.take_alert(alert("b"), NOW)
    holdings.take_alert(alert("gone", lasts_ms=5), NOW)
    holdings.move([FAR])
    listed, dropped = holdings.holding(NOW + 5)
    assert listed == {"a": 4, "b": 1}
    assert kinds(dropped) == [(Kind.EXPIRED, "gone", 1)]


def test_holding_lists_the_256_that_expire_last_and_drops_others(holdings):
    """An alert that is not listed is no longer shown."""
    for number in range(MAX_HOLDING + 3):
        holdings.take_alert(alert(f"n{number}", lasts_ms=1_000_000 - number), NOW)
    listed, dropped = holdings.holding(NOW)
    assert list(listed) == [f"n{number}" for number in range(MAX_HOLDING)]
    assert {change.kind for change in dropped} == {Kind.DROPPED}
    assert {held["id"] for held in holdings} == set(listed)


def test_unknown_shape_is_shown(holdings):
    """Later releases of version 1 may have new shapes."""
    strange = {**alert(), "area": [{"type": "spiral"}]}
    assert kinds(holdings.take_alert(strange, NOW)) == [(Kind.NEW, "a", 1)]


HOUR = 3_600_000


def issued(key="a", revision=1, **more):
    """Return an alert issued now that lasts for an hour."""
    return alert(key, revision, **{"issued_at": format_time(NOW), **more})


def test_alert_that_ended_because_the_servers_clock_was_wrong_is_shown_again(holdings):
    """The node's clock was wrong and is right again: older alerts return, and those that came meanwhile are new."""
    holdings.take_alert(issued("before"), NOW)
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    assert kinds(holdings.expire(NOW)) == [(Kind.EXPIRED, "before", 1)]
    assert holdings.take_alert(issued("meanwhile"), NOW) == []
    assert (len(holdings), list(holdings), holdings.here(), holdings.kept) == (0, [], [], 2)
    assert holdings.holding(NOW) == ({"before": 1, "meanwhile": 1}, [])
    assert holdings.next_expiry() == NOW + HOUR
    holdings.set_clock(NOW + 25_000, NOW + 25_000)
    assert kinds(holdings.expire(NOW + 25_000)) == [(Kind.NEW, "before", 1), (Kind.NEW, "meanwhile", 1)]
    assert holdings.expire(NOW + 25_000) == []


def test_hidden_alert_is_not_reported_until_it_is_live_again_here(holdings):
    """Neither a move nor a cancel reports an alert that only the server's clock has ended."""
    for key in ("a", "b"):
        holdings.take_alert(issued(key), NOW)
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    holdings.expire(NOW)
    assert holdings.move([FAR]) == holdings.move([HOME]) == holdings.take_cancel(cancel("b")) == []
    holdings.move([FAR])
    holdings.set_clock(NOW, NOW)
    assert holdings.expire(NOW) == []
    assert kinds(holdings.move([HOME])) == [(Kind.NEW, "a", 1)]


def test_revision_ended_by_the_servers_clock_hides_the_alert(holdings):
    """Neither an ended revision nor an older one is shown."""
    holdings.take_alert(issued(lasts_ms=HOUR), NOW)
    assert kinds(holdings.take_alert(issued(revision=2, lasts_ms=0, issued_at=format_time(NOW - 1)), NOW)) == [
        (Kind.EXPIRED, "a", 2)
    ]
    assert (holdings.here(), holdings.kept) == ([], 1)


def test_256_ended_alerts_are_kept_and_listed_after_live_ones(holdings):
    """If there are more than 256, the alerts that end last are kept."""
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    for number in range(MAX_HOLDING + 1):
        holdings.take_alert(issued(f"n{number}", lasts_ms=HOUR + number), NOW)
    assert holdings.kept == MAX_HOLDING
    holdings.take_alert(issued("live", lasts_ms=3 * HOUR), NOW)
    listed, dropped = holdings.holding(NOW)
    assert list(listed) == ["live", *(f"n{number}" for number in range(MAX_HOLDING, 1, -1))]
    assert dropped == []


@pytest.mark.parametrize("wall_off_ms", [0, 2 * HOUR, -2 * HOUR], ids=["right", "ahead", "behind"])
def test_saved_alert_is_kept_by_the_wall_clock_for_its_lifetime(holdings, wall_off_ms):
    """The client's own clock starts at 0 in the next run, and the wall clock may be wrong then."""
    holdings.take_alert(issued(), NOW)
    again = Holdings([HOME])
    again.restore(json.loads(json.dumps(holdings.saved())), 0, NOW + HOUR // 2 + wall_off_ms)
    again.set_clock(NOW + 9 * HOUR, 0)
    assert kinds(again.expire(0)) == [(Kind.EXPIRED, "a", 1)]
    assert again.kept == (wall_off_ms != 2 * HOUR)
    assert again.next_expiry() == {0: HOUR // 2, 2 * HOUR: None, -2 * HOUR: HOUR}[wall_off_ms]


def test_alert_saved_by_an_older_release_is_restored_and_forgotten_when_it_ends(holdings):
    """A file of an older release does not say how long an alert may be kept after the server's clock has ended it."""
    holdings.restore([{"alert": issued(), "shown": True}], NOW)
    assert holdings.holding(NOW) == ({"a": 1}, [])
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    assert kinds(holdings.expire(NOW)) == [(Kind.EXPIRED, "a", 1)]
    assert holdings.kept == 0


def test_saved_alert_is_held_again_at_the_current_places(holdings):
    """A saved alert is not new after the restart, but its revisions and cancel are reported."""
    holdings.take_alert(alert("a"), NOW)
    holdings.take_alert(alert("b", at=FAR), NOW)
    again = Holdings([FAR])
    again.set_clock(NOW, 0)
    again.restore(json.loads(json.dumps(holdings.saved())), own_ms=0)
    assert again.holding(0) == ({"a": 1, "b": 1}, [])
    assert again.take_alert(alert("a"), 0) == []
    assert kinds(again.take_cancel(cancel("a"))) == [(Kind.CANCELLED, "a", 1)]
    assert again.expire(3_600_000) == []  # b was never shown
    assert len(again) == 0
