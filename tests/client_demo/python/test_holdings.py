"""What a client holds and reports, rule by rule, with the time passed in."""

import json

import pytest

from client_demo.python.geo import Place
from client_demo.python.holdings import MAX_CANCELLED, MAX_HOLDING, Holdings, Kind
from client_demo.python.times import format_time

HOME = Place.at(32.7767, -96.797)
FAR = Place.at(33.5, -97.5)
NOW = 1_800_000_000_000  # the server's time, ms


def alert(key="a", revision=1, at=HOME, radius_m=1000.0, lasts_ms=3_600_000, **more):
    shape = {"type": "circle", "lat": at.lat, "lng": at.lng, "radius_m": radius_m}
    return {"id": key, "revision": revision, "area": [shape], "expires_at": format_time(NOW + lasts_ms), **more}


def cancel(key="a", revision=2, reason="false alarm"):
    return {"type": "cancel", "id": key, "revision": revision, "reason": reason}


def kinds(changes):
    return [(change.kind, change.alert["id"], change.alert["revision"]) for change in changes]


@pytest.fixture
def holdings():
    """At home, with the clocks in step."""
    return Holdings([HOME])


NO_AREAS = [None, 7, "circle", {"type": "circle"}, ["circle"], [None], [7]]
NO_CIRCLES = [
    {"lat": HOME.lat, "lng": HOME.lng},
    {"lat": "x", "lng": 0, "radius_m": 1},
    {"lat": 0, "lng": 0, "radius_m": []},
]


@pytest.mark.parametrize("area", [*NO_AREAS, *([{"type": "circle", **circle}] for circle in NO_CIRCLES)])
@pytest.mark.parametrize("places", [(), (HOME,)])
def test_an_alert_whose_area_tells_no_place_is_refused_before_it_is_held(places, area):
    """So that nothing goes wrong when we move."""
    holdings = Holdings(places)
    with pytest.raises((KeyError, TypeError, ValueError)):
        holdings.take_alert(alert() | {"area": area}, NOW)
    assert holdings.move([FAR]) == []
    assert kinds(holdings.take_alert(alert(at=FAR), NOW)) == [(Kind.NEW, "a", 1)]


def test_an_alert_is_new_once(holdings):
    """The same revision again is nothing."""
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
def test_revisions_are_reported_by_where_they_lie(holdings, places, expected):
    """The table of the module: an alert that moves off is reported as no longer here."""
    reported = []
    for revision, place in enumerate(places, 1):
        reported += [change.kind for change in holdings.take_alert(alert(revision=revision, at=place), NOW)]
    assert reported == expected


def test_walking_is_reported_like_an_alert_that_moves(holdings):
    """No longer here, back here; a walk that changes nothing is not told."""
    holdings.take_alert(alert(), NOW)
    assert holdings.move([HOME, FAR]) == []
    assert kinds(holdings.move([FAR])) == [(Kind.NO_LONGER_HERE, "a", 1)]
    assert holdings.here() == []
    assert holdings.move([FAR]) == []
    assert kinds(holdings.move([HOME])) == [(Kind.BACK_HERE, "a", 1)]


def test_an_alert_that_came_while_we_left_is_new_when_we_walk_in(holdings):
    """It was sent by the places that the server knew, so it is held without a word."""
    holdings.move([FAR])
    assert holdings.take_alert(alert(), NOW) == []
    assert kinds(holdings.move([HOME])) == [(Kind.NEW, "a", 1)]


def test_a_lower_revision_is_ignored(holdings):
    """Only a higher one replaces."""
    holdings.take_alert(alert(revision=3, headline="third"), NOW)
    assert holdings.take_alert(alert(revision=2, headline="second"), NOW) == []
    assert [held["headline"] for held in holdings] == ["third"]


def test_a_cancel_is_reported_wherever_we_are(holdings):
    """Also when the alert is no longer here."""
    holdings.take_alert(alert(), NOW)
    holdings.move([FAR])
    (change,) = holdings.take_cancel(cancel())
    assert (change.kind, change.here, change.reason) == (Kind.CANCELLED, False, "false alarm")
    assert len(holdings) == 0


def test_a_cancel_of_what_is_not_held_or_of_an_older_revision_is_nothing(holdings):
    """And it does not bar the alert from coming."""
    assert holdings.take_cancel(cancel("unknown")) == []
    holdings.take_alert(alert(revision=5), NOW)
    assert holdings.take_cancel(cancel(revision=5)) == []
    assert kinds(holdings.take_alert(alert("unknown"), NOW)) == [(Kind.NEW, "unknown", 1)]


def test_a_cancelled_alert_does_not_come_back_from_a_node_that_is_behind(holdings):
    """Nor does its next cancel say anything."""
    holdings.take_alert(alert(), NOW)
    holdings.take_cancel(cancel())
    assert holdings.take_alert(alert(), NOW) == []
    assert holdings.take_cancel(cancel()) == []
    assert holdings.holding(NOW) == ({}, [])


def test_the_memory_of_cancelled_ids_is_bounded(holdings):
    """The oldest are forgotten first."""
    for number in range(MAX_CANCELLED + 1):
        holdings.take_alert(alert(f"n{number}"), NOW)
        holdings.take_cancel(cancel(f"n{number}"))
    assert kinds(holdings.take_alert(alert("n0"), NOW)) == [(Kind.NEW, "n0", 1)]
    assert holdings.take_alert(alert("n1"), NOW) == []


def test_an_alert_expires_by_the_servers_clock(holdings):
    """Our own clock is two hours slow: `now` corrects it."""
    own = NOW - 7_200_000
    holdings.set_clock(NOW, own)
    holdings.take_alert(alert(lasts_ms=60_000), own)
    assert holdings.next_expiry() == own + 60_000
    assert holdings.expire(own + 59_999) == []
    assert kinds(holdings.expire(own + 60_000)) == [(Kind.EXPIRED, "a", 1)]
    assert holdings.next_expiry() is None


def test_what_has_expired_on_the_way_is_not_shown(holdings):
    """The kernel may hold a frame for as long as it likes."""
    assert holdings.take_alert(alert(lasts_ms=0), NOW) == []
    assert len(holdings) == 0


def test_what_was_never_shown_ends_without_a_word(holdings):
    """Neither its expiry nor its cancel means anything to the person."""
    holdings.take_alert(alert("a", at=FAR, lasts_ms=10), NOW)
    holdings.take_alert(alert("b", at=FAR), NOW)
    assert holdings.expire(NOW + 10) == []
    assert holdings.take_cancel(cancel("b")) == []
    assert len(holdings) == 0


def test_a_revision_may_live_longer(holdings):
    """The new `expires_at` counts."""
    holdings.take_alert(alert(lasts_ms=10), NOW)
    holdings.take_alert(alert(revision=2, lasts_ms=20), NOW)
    assert holdings.expire(NOW + 10) == []
    assert kinds(holdings.expire(NOW + 20)) == [(Kind.EXPIRED, "a", 2)]


def test_holding_lists_what_is_no_longer_here_too(holdings):
    """A cancel, or a revision that brings it back, is for us."""
    holdings.take_alert(alert("a", revision=4), NOW)
    holdings.take_alert(alert("b"), NOW)
    holdings.take_alert(alert("gone", lasts_ms=5), NOW)
    holdings.move([FAR])
    listed, dropped = holdings.holding(NOW + 5)
    assert listed == {"a": 4, "b": 1}
    assert kinds(dropped) == [(Kind.EXPIRED, "gone", 1)]


def test_holding_lists_the_256_that_expire_last_and_drops_the_others_first(holdings):
    """What is not listed is not shown any more."""
    for number in range(MAX_HOLDING + 3):
        holdings.take_alert(alert(f"n{number}", lasts_ms=1_000_000 - number), NOW)
    listed, dropped = holdings.holding(NOW)
    assert list(listed) == [f"n{number}" for number in range(MAX_HOLDING)]
    assert {change.kind for change in dropped} == {Kind.DROPPED}
    assert {held["id"] for held in holdings} == set(listed)


def test_an_unknown_shape_is_shown(holdings):
    """Within version 1 the server may add shapes."""
    strange = {**alert(), "area": [{"type": "spiral"}]}
    assert kinds(holdings.take_alert(strange, NOW)) == [(Kind.NEW, "a", 1)]


HOUR = 3_600_000


def issued(key="a", revision=1, **more):
    """An alert that says when it was issued: now, and it lives for an hour."""
    return alert(key, revision, **{"issued_at": format_time(NOW), **more})


def test_what_only_the_servers_clock_has_ended_is_shown_again(holdings):
    """The clock of the node was set, and was set right: what came before is back, and what came meanwhile is new."""
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


def test_what_is_not_shown_is_not_reported_by_walking_and_is_new_where_one_is_when_it_lives_again(holdings):
    """Nor is its cancel."""
    for key in ("a", "b"):
        holdings.take_alert(issued(key), NOW)
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    holdings.expire(NOW)
    assert holdings.move([FAR]) == holdings.move([HOME]) == holdings.take_cancel(cancel("b")) == []
    holdings.move([FAR])
    holdings.set_clock(NOW, NOW)
    assert holdings.expire(NOW) == []
    assert kinds(holdings.move([HOME])) == [(Kind.NEW, "a", 1)]


def test_a_revision_that_has_ended_by_the_servers_clock_takes_the_alert_off_the_screen(holdings):
    """Nothing is shown after its end, and an old version is not either."""
    holdings.take_alert(issued(lasts_ms=HOUR), NOW)
    assert kinds(holdings.take_alert(issued(revision=2, lasts_ms=0, issued_at=format_time(NOW - 1)), NOW)) == [
        (Kind.EXPIRED, "a", 2)
    ]
    assert (holdings.here(), holdings.kept) == ([], 1)


def test_256_are_kept_and_listed_after_what_is_live(holdings):
    """Those that end last."""
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    for number in range(MAX_HOLDING + 1):
        holdings.take_alert(issued(f"n{number}", lasts_ms=HOUR + number), NOW)
    assert holdings.kept == MAX_HOLDING
    holdings.take_alert(issued("live", lasts_ms=3 * HOUR), NOW)
    listed, dropped = holdings.holding(NOW)
    assert list(listed) == ["live", *(f"n{number}" for number in range(MAX_HOLDING, 1, -1))]
    assert dropped == []


@pytest.mark.parametrize("wall_off_ms", [0, 2 * HOUR, -2 * HOUR], ids=["right", "ahead", "behind"])
def test_what_was_saved_is_kept_by_the_wall_clock_and_no_longer_than_it_lives(holdings, wall_off_ms):
    """The own clock of the next run begins at 0; the wall clock may be wrong by then."""
    holdings.take_alert(issued(), NOW)
    again = Holdings([HOME])
    again.restore(json.loads(json.dumps(holdings.saved())), 0, NOW + HOUR // 2 + wall_off_ms)
    again.set_clock(NOW + 9 * HOUR, 0)
    assert kinds(again.expire(0)) == [(Kind.EXPIRED, "a", 1)]
    assert again.kept == (wall_off_ms != 2 * HOUR)
    assert again.next_expiry() == {0: HOUR // 2, 2 * HOUR: None, -2 * HOUR: HOUR}[wall_off_ms]


def test_what_an_older_release_has_saved_is_held_and_not_kept(holdings):
    """It does not say for how long it may be kept."""
    holdings.restore([{"alert": issued(), "shown": True}], NOW)
    assert holdings.holding(NOW) == ({"a": 1}, [])
    holdings.set_clock(NOW + 2 * HOUR, NOW)
    assert kinds(holdings.expire(NOW)) == [(Kind.EXPIRED, "a", 1)]
    assert holdings.kept == 0


def test_what_was_saved_is_held_again_where_one_is_now(holdings):
    """It is no news, its revisions and its cancel are; through JSON."""
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
