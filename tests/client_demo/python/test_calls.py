"""Tests of a responder's state machine, which does no I/O."""

import pytest

from client_demo.python.calls import AGAIN_MS, DECLINES, MAX_LIFE_MS, CallKind, Calls
from client_demo.python.times import format_time

NOW = 1_900_000_000_000  # the server's time in ms; the client's own clock starts at 0
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
    """A `Calls` with a simulated clock: `now` is in ms since the start."""

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


def test_call_is_reported_again_only_for_a_higher_revision(who):
    """A call with the same or a lower revision changes nothing (rule RJ2)."""
    assert who.hears(call(1)) == [CallKind.CALL]
    assert who.hears(call(1)) == []
    assert who.hears(call(5)) == [CallKind.CALL]
    assert who.hears(call(3)) == []
    assert who.calls.call("c")["revision"] == 5
    assert who.calls.ringing() == [call(5)]


def test_unanswered_accept_is_repeated_after_five_seconds(who):
    """The same message is sent until there is an answer (rule RU3)."""
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


def test_unanswered_accept_is_repeated_on_each_new_connection(who):
    """The accept is sent at once, without waiting for the interval (rule RU3)."""
    who.hears(call())
    who.calls.accept("c", None, who.now)
    assert who.says() == [{"type": "accept", "id": "c"}]
    who.now += 100
    who.calls.connected(who.now)
    assert who.says() == [{"type": "accept", "id": "c"}]


@pytest.mark.parametrize("reason", ["full", "over", "far", "held-off", "left"])
def test_standdown_answers_an_accept(who, reason):
    """The call itself need not have been received (rule M23)."""
    who.calls.accept("c", 240, who.now)
    who.says()
    assert who.stands_down(reason) == [(CallKind.STANDDOWN, reason)]
    assert who.says(AGAIN_MS) == []
    assert not who.calls.unanswered("c")


def test_accept_is_not_repeated_after_the_call(who):
    """An ended call needs no answer (rule RU3)."""
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
def test_eta_out_of_range_raises_valueerror(who, eta_s):
    """The server would refuse such an `eta_s` (rule M18)."""
    with pytest.raises(ValueError, match="eta_s: 0 to 7200"):
        who.calls.accept("c", eta_s, who.now)


@pytest.mark.parametrize("call_id", ["", "a b", "-a", "x" * 129, "a\n", None])
def test_invalid_call_id_raises_valueerror(who, call_id):
    """A message with such an id would be repeated and never answered (rule RY1)."""
    for say in (lambda: who.calls.accept(call_id, None, 0), lambda: who.calls.decline(call_id, 0)):
        with pytest.raises(ValueError, match="id: 1 to 128"):
            say()
    assert who.says() == []


def test_repr_of_a_change_has_no_place(who):
    """An app may log the change (rule RU2)."""
    (change,) = who.calls.take_task(task(), who.now, NOW)
    assert change.task["place"] == PLACE
    assert "4711" not in f"{change} {change!r}"


def test_declined_call_is_declined_again_silently(who):
    """The person is not asked again (rule RU1)."""
    who.hears(call())
    who.calls.decline("c", who.now)
    assert who.says() == [DECLINE]
    assert len(who.calls) == 0
    assert who.says(AGAIN_MS) == []
    assert who.hears(call(7)) == []
    assert who.says() == [DECLINE]


def test_declined_call_can_still_be_accepted(who):
    """An earlier decline does not matter (rule RV4)."""
    who.hears(call())
    who.calls.decline("c", who.now)
    who.calls.accept("c", 240, who.now)
    assert who.says() == [DECLINE, ACCEPT]
    assert who.has_task(task()) == [CallKind.TASK]
    assert who.hears(call(7)) == [CallKind.CALL]


def test_unheard_decline_is_sent_when_the_call_comes_again(who):
    """The decline is not sent on each new connection, because another device of the person may have a seat."""
    who.hears(call())
    who.calls.decline("c", who.now)
    who.calls.connected(who.now)
    assert who.says() == []
    who.hears(call())
    assert who.says() == [DECLINE]


def test_decline_of_a_seat_is_repeated_until_answered(who):
    """The place is deleted at once (rules M19, RU2)."""
    who.hears(call())
    who.has_task(task())
    who.calls.decline("c", who.now)
    assert who.calls.task("c") is None
    assert [who.says(), *(who.says(AGAIN_MS) for _ in range(9))] == [[DECLINE]] * 10
    assert who.has_task(task(4)) == []
    assert who.stands_down("left") == [(CallKind.STANDDOWN, "left")]
    assert who.says(AGAIN_MS) == []


def test_decline_after_an_accept_is_sent_three_times(who):
    """The client cannot know whether it had a seat; if a task comes, the decline is repeated until answered."""
    who.hears(call())
    who.calls.accept("c", 240, who.now)
    who.calls.decline("c", who.now)
    assert [who.says(AGAIN_MS) for _ in range(DECLINES + 1)] == [[DECLINE]] * DECLINES + [[]]
    who.calls.connected(who.now)
    assert who.says() == [DECLINE]
    assert who.has_task(task()) == []
    assert [who.says(AGAIN_MS) for _ in range(9)] == [[DECLINE]] * 9


def test_task_of_another_device_counts_here(who):
    """A seat belongs to the person; a decline on this device does not matter (rules RV3, RJ6)."""
    assert who.has_task(task()) == [CallKind.TASK]
    assert who.calls.tasks() == [task()]
    who.hears(call(key="d"))
    who.calls.decline("d", who.now)
    assert who.has_task(task(key="d")) == [CallKind.TASK]


def test_task_is_reported_again_only_for_new_content(who):
    """A task that only answers a repeated `accept` is not reported (rules RJ5, RJ6)."""
    who.hears(call())
    who.has_task(task(2))
    who.calls.accept("c", 240, who.now)
    assert who.has_task(task(2)) == []
    assert not who.calls.unanswered("c")
    assert who.has_task(task(6)) == [CallKind.TASK]
    assert who.has_task(task(5)) == []
    assert who.calls.ringing() == []


@pytest.mark.parametrize("reason", ["over", "left"])
def test_standdown_message_deletes_the_place_of_the_call(who, reason):
    """The place is deleted with the task (rule RU2)."""
    who.hears(call())
    who.has_task(task())
    (change,) = who.calls.take_standdown(standdown(reason))
    assert (change.call, change.task) == (call(), None)
    assert who.calls.task("c") is None
    assert who.calls.tasks() == []
    assert "4711" not in repr(vars(who.calls))


def test_end_of_the_call_deletes_the_place(who):
    """The end is exact to the millisecond of the server's clock (rule RU2)."""
    who.hears(call(ends_ms=60_000))
    who.has_task(task(ends_ms=60_000))
    assert who.calls.next_expiry(NOW) == 60_000
    assert who.expires(59_999) == []
    assert who.expires(1) == [(CallKind.STANDDOWN, "expired", None)]
    assert "4711" not in repr(vars(who.calls))


def test_place_is_deleted_by_the_clients_clock_if_the_servers_stands_still(who):
    """The lifetime counts from the arrival of the call (rule RU2)."""
    who.hears(call(ends_ms=60_000))
    who.has_task(task(ends_ms=60_000))
    who.has_task(task(key="alone", ends_ms=60_000))
    assert [change.id for change in who.calls.expire(60_000, NOW)] == ["c"]
    assert [change.id for change in who.calls.expire(MAX_LIFE_MS, NOW)] == ["alone"]


def test_ended_call_or_task_is_not_shown(who):
    """A call or task that arrives after its end is ignored (rule E4)."""
    assert who.hears(call(ends_ms=0)) == []
    assert who.has_task(task(ends_ms=0)) == []
    assert len(who.calls) == 0


def test_task_ended_by_a_wrong_clock_comes_back_after_reconnecting(who):
    """The task is deleted, and the server sends it again after each hello (rules RU2, RJ6)."""
    who.hears(call())
    who.has_task(task())
    assert len(who.calls.expire(1, NOW + 2 * HOUR_MS)) == 1
    assert who.has_task(task()) == [CallKind.TASK]


def test_call_ended_here_is_not_reported_again_by_a_late_node(who):
    """Only a higher revision is reported (rule RJ2)."""
    who.hears(call(3))
    assert who.stands_down("over") == [(CallKind.STANDDOWN, "over")]
    assert who.hears(call(3)) == []
    assert who.has_task(task(2)) == []
    assert who.hears(call(4)) == [CallKind.CALL]


def test_full_call_is_reported_again_when_a_seat_is_free(who):
    """A new revision of the call announces the free seat (rules RJ4, RV6)."""
    who.hears(call(1))
    who.stands_down("full")
    assert who.hears(call(9)) == [CallKind.CALL]


def test_standdown_of_an_unknown_call_is_ignored(who):
    """A cancel of an unknown alert is ignored likewise (rule C3)."""
    assert who.stands_down("over", "unheard") == []
    who.calls.decline("c", who.now)
    assert who.stands_down("over") == []


def test_holding_lists_highest_revisions_without_declined_calls(who):
    """Tasks come first, then the calls that end last (rules RU3, RJ8)."""
    who.hears(call(3, "a", ends_ms=1000))
    who.hears(call(1, "b", ends_ms=2000))
    who.hears(call(1, "c", ends_ms=500))
    who.has_task(task(4, "c", ends_ms=500))
    who.hears(call(1, "d"))
    who.calls.decline("d", who.now)
    assert list(who.calls.holding(256).items()) == [("c", 4), ("b", 1), ("a", 3)]
    assert list(who.calls.holding(2)) == ["c", "b"]


def test_reports_are_sent_at_most_every_six_seconds(who):
    """The server counts one report in 5 s.

    The client waits 6 s, because the second one may travel faster (rule M20).
    """
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


def test_last_report_is_repeated_on_a_new_connection(who):
    """A report has no answer (rule RU3)."""
    who.has_task(task())
    who.calls.report("c", "arrived", who.now)
    who.says()
    who.now += 6_000
    who.calls.connected(who.now)
    assert who.says() == [{"type": "report", "id": "c", "state": "arrived"}]


def test_report_without_a_seat_raises_valueerror(who):
    """Only seat holders send reports (rule M20)."""
    who.hears(call())
    with pytest.raises(ValueError, match="only the holder of a seat"):
        who.calls.report("c", "aed", who.now)
    with pytest.raises(ValueError, match="one of aed, arrived"):
        who.calls.report("c", "asleep", who.now)


@pytest.mark.parametrize("lack", ["id", "revision", "issued_at", "expires_at"])
def test_incomplete_call_is_not_held(who, lack):
    with pytest.raises((KeyError, TypeError, ValueError)):
        who.hears({**call(), lack: None})
    assert len(who.calls) == 0


@pytest.mark.parametrize("lack", ["id", "revision", "place", "expires_at"])
def test_incomplete_task_is_refused_and_accept_stays_unanswered(who, lack):
    who.calls.accept("c", 240, who.now)
    with pytest.raises((KeyError, TypeError, ValueError)):
        who.has_task({**task(), lack: None})
    assert who.calls.unanswered("c")


def test_memory_of_declined_ids_is_bounded(who):
    for number in range(1100):
        who.calls.decline(f"c{number}", who.now)
    assert who.hears(call(1, "c0")) == [CallKind.CALL]
    assert who.hears(call(1, "c1099")) == []
