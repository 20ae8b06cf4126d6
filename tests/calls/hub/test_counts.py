"""The numbers and durations that the call hub measures."""

import pytest
from calls.quarter import PLACE, with_terms

from geocast.alertlog import Counts
from geocast.calls.registry import UNANSWERED_S


def test_call_counts_notified_sessions_acks_and_declines(quarter):
    """Each pair of connection and revision counts once (H7, RN3)."""
    phones = [quarter.join(0, f"r-{n}") for n in range(3)]
    quarter.open()
    board, now = quarter.hub, quarter.clock.now()
    for phone in phones[:2]:
        board.acknowledge(phone.row, "c-1", 1)
        board.acknowledge(phone.row, "c-1", 1)
        board.acknowledge(phone.row, "c-1", 2)
    phones[2].decline()
    phones[2].decline()
    [call] = board.calls.open_calls(now)
    assert call.called == 2
    counts = board.calls.take_counts()
    assert counts == {"c-1": Counts(3, 2, 1)}
    assert board.calls.take_counts() == {}
    board.calls.put_back_counts(counts)
    quarter.end()
    assert board.calls.take_counts() == counts
    assert (board.rings, board.answers["decline"]) == (3, 2)


def test_notified_sessions_are_counted_per_call_and_per_revision(quarter):
    """The next wave depends on sessions that were notified of this revision and have not declined (HD16)."""
    phones = [quarter.join(0, f"r-{n}") for n in range(3)]
    quarter.open(terms=with_terms(seats=["cpr"]))
    phones[0].decline()
    quarter.accept("r-9")
    assert quarter.hub.calls.take_counts() == {"c-1": Counts(3, 0, 1)}
    quarter.release("r-9")
    phones[1].decline()
    [call] = quarter.hub.calls.open_calls(quarter.clock.now())
    assert quarter.hub.calls.take_counts() == {"c-1": Counts(2, 0, 1), call.count_name: Counts(2, 0, 1)}
    assert (call.count_name, call.called_of(Counts(2, 0, 1)), call.called_of(Counts(5, 0, 1))) == ("c-1/3", 1, 4)


def test_repeated_decline_message_counts_once(quarter):
    """A session that declines, accepts and declines again counts as declined once per revision (H7)."""
    phone = quarter.join()
    quarter.open()
    phone.move(9_000)
    for _ in range(3):
        phone.decline()
        phone.accept()
    assert quarter.hub.calls.take_counts() == {"c-1": Counts(1, 0, 1)}


def test_next_wave_of_notifications_is_due_after_time_set_in_policy(quarter):
    """A wave is due after 200 ms while fewer than `enough` sessions were notified, otherwise after `answer_s`.

    It is never due for a full call (RN2).
    """
    quarter.open(terms=with_terms(enough=2))
    board = quarter.hub
    [call] = board.calls.open_calls(quarter.clock.now())
    assert board.calls.due_to_widen(quarter.clock.now()) == []
    begun = quarter.clock.monotonic
    assert begun + board.calls.seconds_to_widening(quarter.clock.now()) == pytest.approx(call.widens_at(0))
    assert begun + 0.2 <= call.widens_at(1) <= begun + 0.3
    assert begun + 30 <= call.widens_at(2) <= begun + 30.1
    assert board.calls.due_to_widen(quarter.clock.advance(0.3)) == [call]
    call.check_at = quarter.clock.monotonic + 5
    assert board.calls.seconds_to_widening(quarter.clock.now()) == pytest.approx(5)
    quarter.widen(2)
    assert board.calls.seconds_to_widening(quarter.clock.now()) == float("inf")  # it rings as far as it may
    assert call.widens_at(0) == float("inf")
    quarter.open("c-2")
    quarter.accept("r-8", 1, call_id="c-2")
    quarter.accept("r-9", 2, call_id="c-2")
    assert board.calls.due_to_widen(quarter.clock.advance(60)) == []


def test_times_to_first_notification_answer_and_seat_are_measured_once(quarter):
    """The time of the answer runs from its `accept`, the other two from the opening of the call."""
    phone = quarter.join()
    quarter.clock.advance(2)
    opened = quarter.entry(quarter.opening(), PLACE)
    quarter.clock.advance(0.5)
    quarter.take(opened)
    [request] = phone.accept()
    quarter.clock.advance(0.25)
    quarter.hub.on_answer(request, None, quarter.clock.now())
    quarter.accept("r-1")
    assert quarter.took == [("first_ring", 0.5), ("accept", 0.25), ("first_seat", 0.75)]
    assert quarter.hub.seats == {"cpr": 1, "aed": 0}
    quarter.open("c-2")
    assert quarter.hub.calls.unanswered(quarter.clock.now()) == 0
    quarter.clock.advance(UNANSWERED_S)
    assert quarter.hub.calls.unanswered(quarter.clock.now()) == 1
