"""What a responder holds and says: pure, so that every case is quick to try."""

import pytest

from client_demo.python.calls import AGAIN_MS, DECLINES, MAX_LIFE_MS, CallKind, Calls
from client_demo.python.times import format_time

NOW = 1_900_000_000_000  # the server's; the own clock begins at 0
HOUR_MS = 3_600_000
NEAR = {"type": "circle", "lat": 47.678, "lng": 8.8304, "radius_m": 210.0}
PLACE = {"lat": 47.678, "lng": 8.8311, "kind": "residence", "access": "Door code 4711."}


def call(revision=1, key="c", ends_ms=HOUR_MS, issued_ms=0):
    times = {"issued_at": format_time(NOW + issued_ms), "expires_at": format_time(NOW + ends_ms)}
    return {"id": key, "revision": revision, "headline": "Adult, not breathing.", "near": NEAR, **times}


def task(revision=2, key="c", ends_ms=HOUR_MS):
    expires_at = format_time(NOW + ends_ms)
    return {"id": key, "revision": revision, "seat": 1, "role": "cpr", "place": PLACE, "expires_at": expires_at}


def standdown(reason, key="c"):
    return {"id": key, "reason": reason}


class Responder:
    """Calls with a clock that goes by itself: `now` is set by hand, in ms since the beginning."""

    def __init__(self):
        self.calls, self.now = Calls(), 0

    def hears(self, message, is_task=False):
        take = self.calls.take_task if is_task else self.calls.take_call
        return [change.kind for change in take(message, self.now, NOW + self.now)]

    def has_task(self, message):
        return self.hears(message, is_task=True)

    def stands_down(self, reason, key="c"):
        return [(change.kind, change.reason) for change in self.calls.take_standdown(standdown(reason, key))]

    def says(self, after_ms=0):
        self.now += after_ms
        return self.calls.due(self.now)

    def expires(self, after_ms):
        self.now += after_ms
        return [(change.kind, change.reason, change.task) for change in self.calls.expire(self.now, NOW + self.now)]


@pytest.fixture
def who():
    return Responder()


ACCEPT = {"type": "accept", "id": "c", "eta_s": 240}
DECLINE = {"type": "decline", "id": "c"}


def test_a_call_is_told_again_when_its_revision_is_higher(who):
    """RJ2: and only then."""
    assert who.hears(call(1)) == [CallKind.CALL]
    assert who.hears(call(1)) == []
    assert who.hears(call(5)) == [CallKind.CALL]
    assert who.hears(call(3)) == []
    assert who.calls.call("c")["revision"] == 5
    assert who.calls.ringing() == [call(5)]


def test_an_unanswered_accept_is_repeated_after_five_seconds(who):
    """RU3: the same words, until there is an answer."""
    who.hears(call())
    who.calls.accept("c", 240, who.now)
    assert who.calls.next_due() == 0
    assert who.says() == [ACCEPT]
    assert who.says(AGAIN_MS - 1) == []
    assert who.calls.next_due() == AGAIN_MS
    assert who.says(1) == [ACCEPT]
    assert who.has_task(task()) == [CallKind.TASK]
    assert who.says(AGAIN_MS) == []
    assert who.calls.next_due() is None


def test_an_unanswered_accept_is_repeated_on_each_new_connection(who):
    """RU3: at once, however short ago it was said on the one before."""
    who.hears(call())
    who.calls.accept("c", None, who.now)
    assert who.says() == [{"type": "accept", "id": "c"}]
    who.now += 100
    who.calls.connected(who.now)
    assert who.says() == [{"type": "accept", "id": "c"}]


@pytest.mark.parametrize("reason", ["full", "over", "far", "held-off", "left"])
def test_a_standdown_answers_an_accept(who, reason):
    """M23: also where the call itself was never heard of."""
    who.calls.accept("c", 240, who.now)
    who.says()
    assert who.stands_down(reason) == [(CallKind.STANDDOWN, reason)]
    assert who.says(AGAIN_MS) == []
    assert not who.calls.unanswered("c")


def test_an_accept_is_not_repeated_for_ever(who):
    """RU3: what is over needs no answer."""
    who.hears(call(ends_ms=60_000))
    who.calls.accept("c", None, who.now)
    who.says()
    who.expires(60_000)
    assert who.says(AGAIN_MS) == []
    who.calls.accept("unheard", None, who.now)
    who.expires(MAX_LIFE_MS)
    assert who.says() == []
    assert who.calls.next_expiry(NOW) is None


@pytest.mark.parametrize("eta_s", [-1, 7201, True, float("nan")])
def test_an_eta_that_a_server_refuses_is_refused_here(who, eta_s):
    """M18."""
    with pytest.raises(ValueError, match="eta_s: 0 to 7200"):
        who.calls.accept("c", eta_s, who.now)


@pytest.mark.parametrize("call_id", ["", "a b", "-a", "x" * 129, "a\n", None])
def test_an_id_that_a_server_refuses_is_refused_here(who, call_id):
    """RY1: it would be said again and again, and never answered."""
    for say in (lambda: who.calls.accept(call_id, None, 0), lambda: who.calls.decline(call_id, 0)):
        with pytest.raises(ValueError, match="id: 1 to 128"):
            say()
    assert who.says() == []


def test_a_change_in_a_log_has_no_place(who):
    """RU2: whatever an app writes of it."""
    (change,) = who.calls.take_task(task(), who.now, NOW)
    assert change.task["place"] == PLACE
    assert "4711" not in f"{change} {change!r}"


def test_who_has_declined_is_not_asked_again(who):
    """RU1: a call that comes again is declined again, without a word to the person."""
    who.hears(call())
    who.calls.decline("c", who.now)
    assert who.says() == [DECLINE]
    assert len(who.calls) == 0
    assert who.says(AGAIN_MS) == []
    assert who.hears(call(7)) == []
    assert who.says() == [DECLINE]


def test_who_has_declined_may_still_go(who):
    """RV4: whether somebody declined before does not matter."""
    who.hears(call())
    who.calls.decline("c", who.now)
    who.calls.accept("c", 240, who.now)
    assert who.says() == [DECLINE, ACCEPT]
    assert who.has_task(task()) == [CallKind.TASK]
    assert who.hears(call(7)) == [CallKind.CALL]


def test_a_decline_that_nobody_heard_is_said_when_it_rings_again(who):
    """Not blindly on the next connection: another device of this person may have taken a seat meanwhile."""
    who.hears(call())
    who.calls.decline("c", who.now)
    who.calls.connected(who.now)
    assert who.says() == []
    who.hears(call())
    assert who.says() == [DECLINE]


def test_a_seat_is_given_back_until_it_is_heard(who):
    """M19: and where to go is gone at once (RU2)."""
    who.hears(call())
    who.has_task(task())
    who.calls.decline("c", who.now)
    assert who.calls.task("c") is None
    assert [who.says(), *(who.says(AGAIN_MS) for _ in range(9))] == [[DECLINE]] * 10
    assert who.has_task(task(4)) == []
    assert who.stands_down("left") == [(CallKind.STANDDOWN, "left")]
    assert who.says(AGAIN_MS) == []


def test_a_decline_that_follows_an_accept_is_said_three_times(who):
    """Whether there was a seat to give back is not known; when its task comes, it is."""
    who.hears(call())
    who.calls.accept("c", 240, who.now)
    who.calls.decline("c", who.now)
    assert [who.says(AGAIN_MS) for _ in range(DECLINES + 1)] == [[DECLINE]] * DECLINES + [[]]
    who.calls.connected(who.now)
    assert who.says() == [DECLINE]
    assert who.has_task(task()) == []
    assert [who.says(AGAIN_MS) for _ in range(9)] == [[DECLINE]] * 9


def test_the_task_of_another_device_is_ours_too(who):
    """RV3, RJ6: the person goes, whoever of the devices has said so, also where this one had declined."""
    assert who.has_task(task()) == [CallKind.TASK]
    assert who.calls.tasks() == [task()]
    who.hears(call(key="d"))
    who.calls.decline("d", who.now)
    assert who.has_task(task(key="d")) == [CallKind.TASK]


def test_a_task_is_told_again_when_its_content_is_new(who):
    """RJ5, RJ6: not for each `accept` that it answers."""
    who.hears(call())
    who.has_task(task(2))
    who.calls.accept("c", 240, who.now)
    assert who.has_task(task(2)) == []
    assert not who.calls.unanswered("c")
    assert who.has_task(task(6)) == [CallKind.TASK]
    assert who.has_task(task(5)) == []
    assert who.calls.ringing() == []


@pytest.mark.parametrize("reason", ["over", "left"])
def test_at_a_standdown_the_place_is_gone(who, reason):
    """RU2."""
    who.hears(call())
    who.has_task(task())
    (change,) = who.calls.take_standdown(standdown(reason))
    assert (change.call, change.task) == (call(), None)
    assert who.calls.task("c") is None
    assert who.calls.tasks() == []
    assert "4711" not in repr(vars(who.calls))


def test_at_its_end_the_place_is_gone(who):
    """RU2: by the server's clock, to the millisecond."""
    who.hears(call(ends_ms=60_000))
    who.has_task(task(ends_ms=60_000))
    assert who.calls.next_expiry(NOW) == 60_000
    assert who.expires(59_999) == []
    assert who.expires(1) == [(CallKind.STANDDOWN, "expired", None)]
    assert "4711" not in repr(vars(who.calls))


def test_a_server_whose_clock_stands_keeps_no_place_here(who):
    """RU2: the own clock is enough, counted from when the call came."""
    who.hears(call(ends_ms=60_000))
    who.has_task(task(ends_ms=60_000))
    who.has_task(task(key="alone", ends_ms=60_000))
    assert [change.id for change in who.calls.expire(60_000, NOW)] == ["c"]
    assert [change.id for change in who.calls.expire(MAX_LIFE_MS, NOW)] == ["alone"]


def test_what_is_over_is_not_shown_when_it_comes(who):
    """E4: neither the call nor the task."""
    assert who.hears(call(ends_ms=0)) == []
    assert who.has_task(task(ends_ms=0)) == []
    assert len(who.calls) == 0


def test_what_a_wrong_clock_has_ended_comes_back_with_the_next_connection(who):
    """RU2 deletes it; the server sends a holder the task after each hello (RJ6)."""
    who.hears(call())
    who.has_task(task())
    assert len(who.calls.expire(1, NOW + 2 * HOUR_MS)) == 1
    assert who.has_task(task()) == [CallKind.TASK]


def test_a_node_that_is_behind_does_not_ring_what_was_called_off(who):
    """MC4: unless it knows more than we did."""
    who.hears(call(3))
    assert who.stands_down("over") == [(CallKind.STANDDOWN, "over")]
    assert who.hears(call(3)) == []
    assert who.has_task(task(2)) == []
    assert who.hears(call(4)) == [CallKind.CALL]


def test_a_full_call_rings_again_when_a_seat_is_free(who):
    """RJ4, RV6."""
    who.hears(call(1))
    who.stands_down("full")
    assert who.hears(call(9)) == [CallKind.CALL]


def test_a_standdown_of_what_is_not_held_means_nothing(who):
    """As a cancel (C3)."""
    assert who.stands_down("over", "unheard") == []
    who.calls.decline("c", who.now)
    assert who.stands_down("over") == []


def test_holding_lists_the_highest_revision_and_nothing_that_was_declined(who):
    """RU3, RJ8: tasks first, then what ends last."""
    who.hears(call(3, "a", ends_ms=1000))
    who.hears(call(1, "b", ends_ms=2000))
    who.hears(call(1, "c", ends_ms=500))
    who.has_task(task(4, "c", ends_ms=500))
    who.hears(call(1, "d"))
    who.calls.decline("d", who.now)
    assert list(who.calls.holding(256).items()) == [("c", 4), ("b", 1), ("a", 3)]
    assert list(who.calls.holding(2)) == ["c", "b"]


def test_of_reports_one_in_six_seconds_is_said(who):
    """M20: another would not count, so the last one waits, and longer than 5 s: it may be faster on its way."""
    who.hears(call())
    who.has_task(task())
    who.calls.report("c", "aed", who.now)
    assert who.says() == [{"type": "report", "id": "c", "state": "aed"}]
    who.now += 1000
    who.calls.report("c", "arrived", who.now)
    assert who.says() == []
    assert who.calls.next_due() == 6_000
    assert who.says(4_000) == []
    assert who.says(1_000) == [{"type": "report", "id": "c", "state": "arrived"}]
    assert who.says(6_000) == []


def test_the_last_report_is_said_again_on_a_new_connection(who):
    """RU3: it has no answer."""
    who.has_task(task())
    who.calls.report("c", "arrived", who.now)
    who.says()
    who.now += 6_000
    who.calls.connected(who.now)
    assert who.says() == [{"type": "report", "id": "c", "state": "arrived"}]


def test_only_who_holds_a_seat_reports(who):
    """M20."""
    who.hears(call())
    with pytest.raises(ValueError, match="only who holds a seat"):
        who.calls.report("c", "aed", who.now)
    with pytest.raises(ValueError, match="one of aed, arrived"):
        who.calls.report("c", "asleep", who.now)


@pytest.mark.parametrize("lack", ["id", "revision", "issued_at", "expires_at"])
def test_a_call_that_lacks_something_is_none(who, lack):
    """And nothing of it is held."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        who.hears({**call(), lack: None})
    assert len(who.calls) == 0


@pytest.mark.parametrize("lack", ["id", "revision", "place", "expires_at"])
def test_a_task_that_lacks_something_is_none(who, lack):
    """The accept is repeated."""
    who.calls.accept("c", 240, who.now)
    with pytest.raises((KeyError, TypeError, ValueError)):
        who.has_task({**task(), lack: None})
    assert who.calls.unanswered("c")


def test_no_more_ids_are_remembered_than_there_is_room_for(who):
    """Whoever sends thousands of calls fills no memory with what was declined."""
    for number in range(1100):
        who.calls.decline(f"c{number}", who.now)
    assert who.hears(call(1, "c0")) == [CallKind.CALL]
    assert who.hears(call(1, "c1099")) == []
