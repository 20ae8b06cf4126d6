"""Which sessions the call hub notifies, and which it does not because of a seat or an exclusion."""

import pytest
from calls.quarter import NEAR, NOON, with_terms

from geocast.model.alert import Circle
from geocast.model.times import format_time
from geocast.wire.frames import MSGPACK

# ---- sessions that are notified of a call ------------------------------------------------------------------------


def test_call_notifies_sessions_on_duty_within_the_radius(quarter):
    """A session needs a qualification and a place marked `here` (RJ1, RJ2, RQ4).

    The first radius is added to the radius of `near` (RN1).
    """
    near, edge, outside = quarter.join(0), quarter.join(309, "r-2"), quarter.join(312, "r-3")
    elsewhere, unqualified = quarter.join(0, "r-4", here=False), quarter.join(0, "r-5", quals=())
    other = quarter.join(0, "r-6", quals=("triage",))
    quarter.open()
    assert near.received() == edge.received() == ["c-1/1"]
    assert outside.received() == elsewhere.received() == unqualified.received() == other.received() == []


@pytest.mark.parametrize("wire", [0, MSGPACK.number, 2, 3])
def test_call_message_has_the_published_circle_and_not_the_exact_place(quarter, wire):
    """All sessions are sent the same bytes, without address and names (M21, RZ6)."""
    phone = quarter.join(wire=wire)
    quarter.open()
    assert phone.messages() == [
        {
            "type": "call",
            "call": {
                "id": "c-1",
                "revision": 1,
                "category": "cardiac_arrest",
                "title": "Cardiac arrest",
                "headline": "Adult, not breathing",
                "status": "actual",
                "source": "cad-3",
                "occurred_at": NOON,
                "issued_at": NOON,
                "expires_at": "2026-01-31T12:30:00.000Z",
                "answer_s": 30,
                "near": {"type": "circle", "lat": NEAR.lat, "lng": NEAR.lng, "radius_m": NEAR.radius_m},
            },
        }
    ]


def test_location_uncertainty_extends_radius_by_at_most_500_m(quarter):
    """An uncertainty of 2,000 m would make a radius of 300 m meaningless (RQ5)."""
    near, far = quarter.join(here=False), quarter.join(sub="r-2", here=False)
    quarter.hub.move(near.row, quarter.place(805, 1_000.0))
    quarter.hub.move(far.row, quarter.place(815, 2_000.0))
    quarter.open()
    assert (near.received(), far.received()) == (["c-1/1"], [])


def test_nearest_session_is_notified_first(quarter):
    """Rule 1 of `calls.hub` gives the order of notifications."""
    phones = [quarter.join(metres, f"r-{metres}") for metres in (200, 0, 100, 300)]
    quarter.open()
    assert quarter.order == [phones[n].row for n in (1, 2, 0, 3)]


def test_wider_radius_notifies_only_sessions_not_notified_before(quarter):
    """A wider radius does not change the revision of the call (RJ2)."""
    near, far = quarter.join(0), quarter.join(400, "r-2")
    quarter.open()
    quarter.widen(1)
    assert (near.received(), far.received()) == (["c-1/1"], ["c-1/1"])


def test_session_is_notified_as_soon_as_it_is_near_on_duty_and_qualified(quarter):
    """A `hello`, `move` or `token` may make it so. Leaving the radius and coming back sends nothing (RJ3)."""
    quarter.open()
    late, walker = quarter.join(0), quarter.join(900, "r-2")
    off, learner = quarter.join(0, "r-3", here=False), quarter.join(0, "r-4", quals=())
    assert late.received() == ["c-1/1"]
    assert walker.received() == off.received() == learner.received() == []
    walker.move(0)
    off.move(0)
    learner.token("r-4")
    assert walker.received() == off.received() == learner.received() == ["c-1/1"]
    walker.move(900)
    walker.move(None)
    walker.move(0)
    assert walker.received() == []


def test_call_with_status_test_notifies_only_sessions_that_may_see_tests(quarter):
    """Other sessions are answered as if the call did not exist, even if they accept it (R6, RJ1)."""
    tester, other = quarter.join(may_test=True), quarter.join(0, "r-2")
    quarter.open(status="exercise")
    assert (tester.received(), other.received()) == (["c-1/1"], [])
    assert other.accept() == []
    assert other.received() == ["-c-1 over"]


def test_correction_is_sent_to_notified_sessions_and_those_near_the_new_place(quarter):
    """Notified sessions get it wherever they are, unless they have declined. The radius stays the same (RJ5)."""
    stays, walks, declines = quarter.join(0), quarter.join(0, "r-2"), quarter.join(0, "r-3")
    new = quarter.join(1_000, "r-4")
    quarter.open()
    for phone in (stays, walks, declines):
        phone.received()
    walks.move(None)
    declines.decline()
    quarter.open(near=Circle(NEAR.lat + 0.009, NEAR.lng, 210.0), replaces=1)
    assert stays.received() == walks.received() == new.received() == ["c-1/2"]
    assert declines.received() == []


def test_session_that_declined_is_not_notified_again(quarter):
    """The same responder can be notified on another connection (RJ1, M19)."""
    phone = quarter.join()
    quarter.open()
    phone.decline()
    quarter.widen()
    phone.move(10)
    assert phone.received() == ["c-1/1"]
    phone.leave()
    assert quarter.join().received() == ["c-1/1"]


def test_slow_session_is_sent_newest_state_when_it_catches_up(quarter):
    """Nothing is sent before that, and nothing is queued (RJ2, E3)."""
    phone, holder = quarter.join(), quarter.join(0, "r-2")
    quarter.slow = {phone.row, holder.row}
    quarter.open()
    quarter.accept("r-2")
    quarter.open(replaces=1)
    assert phone.received() == holder.received() == []
    quarter.slow.clear()
    phone.settle()
    holder.settle()
    assert (phone.received(), holder.received()) == (["c-1/3"], ["c-1:3 seat 1"])


def test_pending_messages_of_a_session_are_sent_in_one_write_in_fixed_order(quarter):
    """First come `standdown` messages, then `task` messages, then `call` messages (RJ3)."""
    phone = quarter.join(sub="r-1")
    quarter.open("c-1", with_terms(rest_s=0))
    quarter.open("c-2")
    phone.received()
    quarter.slow.add(phone.row)
    quarter.end("c-1", terms=with_terms(rest_s=0))
    quarter.open("c-3")
    quarter.accept("r-1", call_id="c-2")
    phone.settle()
    assert phone.received() == ["-c-1 over", "c-2:2 seat 1"]
    quarter.release("r-1", call_id="c-2")
    quarter.slow.clear()
    phone.settle()
    assert len(phone.sent) == 4
    assert phone.received() == ["-c-2 left", "c-3/1"]


# ---- responders who are not notified because of a seat -----------------------------------------------------------


def test_responder_with_a_seat_is_not_notified_of_another_call(quarter):
    """The release of the seat sends nothing about the other call. The next `move` does (RQ7)."""
    phone = quarter.join()
    quarter.open("c-1")
    quarter.accept("r-1")
    phone.received()
    quarter.open("c-2")
    quarter.release("r-1")
    assert phone.received() == ["-c-1 left"]
    phone.move(1)
    assert phone.received() == ["c-2/1"]


def test_responder_with_a_seat_in_an_exercise_is_notified_of_an_actual_call(quarter):
    """An exercise excludes nobody from actual calls, neither during it nor after its end (RQ7)."""
    phone = quarter.join(may_test=True)
    quarter.open(status="exercise")
    quarter.accept("r-1")
    quarter.open("c-2")
    quarter.end()
    quarter.open("c-3")
    assert [told for told in phone.received() if not told.startswith(("c-1", "task", "-c-1"))] == ["c-2/1", "c-3/1"]


def test_end_says_until_when_the_person_is_excluded(quarter):
    """`standdown` has the time for a person with a seat, and `rest_until` for their later sessions (RQ7)."""
    phone, other = quarter.join(), quarter.join(0, "r-2")
    quarter.open("c-1", with_terms(rest_s=600))
    quarter.accept("r-1")
    for each in (phone, other):
        each.messages()
    quarter.end("c-1", terms=with_terms(rest_s=600))
    until = quarter.clock.now().wall_ms + 600_000
    over = {"type": "standdown", "id": "c-1", "reason": "over"}
    assert phone.messages() == [over | {"rest_until": format_time(until)}]
    assert other.messages() == [over]
    quarter.clock.advance(60)
    tablet = quarter.join()
    now = quarter.clock.now()
    assert [quarter.hub.rest_until(each.row, now) for each in (tablet, other)] == [until, None]
    quarter.clock.advance(541)
    assert quarter.hub.rest_until(tablet.row, quarter.clock.now()) is None


@pytest.mark.parametrize(("rest_s", "status"), [(0, "actual"), (600, "exercise")])
def test_end_that_excludes_nobody_says_so_by_leaving_out_a_time(quarter, rest_s, status):
    """There is no rest without `rest_s`, and none after an exercise (RQ7)."""
    phone = quarter.join(may_test=True)
    terms = with_terms(rest_s=rest_s)
    quarter.open("c-1", terms, status=status)
    quarter.accept("r-1")
    phone.messages()
    quarter.end("c-1", terms=terms, status=status)
    assert phone.messages() == [{"type": "standdown", "id": "c-1", "reason": "over"}]
    assert quarter.hub.rest_until(phone.row, quarter.clock.now()) is None


def test_excluded_people_within_the_radius_are_not_counted(quarter):
    """A count of people who are sent nothing would tell dispatchers secretly where they are (RQ7, DP30)."""
    phone, far = quarter.join(), quarter.join(90_000, "r-2")
    quarter.open("c-1")
    quarter.accept("r-1")
    quarter.accept("r-2")
    quarter.hub.calls.take_counts()
    quarter.open("c-2")
    phone.move(1)
    phone.move(2)
    assert far.received()[-1:] != ["c-2/1"]
    assert quarter.hub.calls.take_counts() == {}


def test_responder_with_a_seat_is_not_notified_for_a_time_after_end_of_call(quarter):
    """The policy's `rest_s` is this time (RQ7)."""
    phone = quarter.join()
    quarter.open("c-1", with_terms(rest_s=600))
    quarter.accept("r-1")
    quarter.end("c-1", terms=with_terms(rest_s=600))
    phone.received()
    quarter.open("c-2")
    quarter.clock.advance(599)
    phone.move(1)
    assert phone.received() == []
    quarter.clock.advance(2)
    quarter.hub.sweep(quarter.clock.now())
    phone.move(2)
    assert phone.received() == ["c-2/1"]
