"""The end of a call in the call hub, with correct and wrong clocks."""

import pytest
from calls.quarter import PLACE
from support.fakes import NOON_MS

from geocast.calls.hub import CallHub
from geocast.calls.live_call import LiveCall
from geocast.calls.registry import CallRegistry


def test_end_of_call_is_sent_to_notified_sessions_and_responders_with_seats(quarter):
    """The end is sent once, wherever the sessions are, but not to sessions that have declined (RJ7)."""
    holder, tablet, walks, declines = (
        quarter.join(),
        quarter.join(9_000),
        quarter.join(0, "r-2"),
        quarter.join(0, "r-3"),
    )
    never = quarter.join(9_000, "r-4")
    quarter.open()
    quarter.accept("r-1")
    walks.move(None)
    declines.decline()
    for phone in (holder, tablet, walks, declines):
        phone.received()
    quarter.end()
    for phone in (holder, tablet, walks, declines, never):
        phone.settle()
    assert holder.received() == tablet.received() == walks.received() == ["-c-1 over"]
    assert declines.received() == never.received() == []
    assert walks.accept() == []
    assert walks.received() == ["-c-1 over"]


def test_slow_session_of_responder_with_a_seat_is_sent_end_of_call(quarter):
    """The session may still wait for the answer to its `accept` (RJ7, RV4)."""
    phone = quarter.join(9_000)
    quarter.open()
    quarter.slow.add(phone.row)
    quarter.accept("r-1")
    quarter.end()
    quarter.slow.clear()
    phone.settle()
    assert phone.received() == ["-c-1 over"]


def test_nothing_is_sent_about_call_that_has_expired_by_one_clock(quarter):
    """After the expiry only an `accept` is answered (RJ7, RJ9, E1, E5)."""
    phone = quarter.join()
    quarter.open()
    phone.received()
    quarter.clock.wall_ms += 1_800_000
    quarter.end(source=None)
    assert phone.received() == []
    assert phone.accept() == []
    assert phone.received() == ["-c-1 over"]


def test_sessions_are_notified_after_a_fast_wall_clock_was_corrected(quarter):
    """Messages that a fast clock has held back are sent after its correction, and nothing is sent twice (E5)."""
    early, late = quarter.join(), quarter.join(900, "r-2")
    quarter.open()
    quarter.clock.wall_ms += 1_800_000
    quarter.widen(2)
    late.move(0)
    assert (early.received(), late.received()) == (["c-1/1"], [])
    quarter.clock.wall_ms -= 1_800_000
    quarter.clock.advance(1)
    quarter.hub.sweep(quarter.clock.now())
    quarter.run()
    assert (early.received(), late.received()) == ([], ["c-1/1"])


def test_session_refused_because_of_fast_clock_is_notified_after_clock_correction(quarter):
    """A session that was sent `over` has dropped the call, so it is sent again (RJ2, RJ6, E5).

    A session that returns with the call in `holding` is not sent the call again.
    """
    rung, goes = quarter.join(), quarter.join(1, "r-2")
    quarter.open()
    quarter.accept("r-2")
    assert (rung.received(), goes.received()) == (["c-1/1"], ["c-1/1", "c-1:2 seat 1"])
    quarter.clock.wall_ms += 1_800_000
    back = quarter.join(2, "r-3", holding={"c-1": 1})
    rung.accept()
    goes.accept()
    assert (rung.received(), goes.received(), back.received()) == (["-c-1 over"], ["-c-1 over"], [])
    quarter.clock.wall_ms -= 1_800_000
    quarter.clock.advance(1)
    quarter.hub.sweep(quarter.clock.now())
    quarter.run()
    assert (rung.received(), goes.received(), back.received()) == (["c-1/1"], ["c-1:2 seat 1"], [])


def test_wall_clock_set_back_does_not_prolong_a_call(quarter):
    """The monotonic clock ends the call (E5)."""
    phone = quarter.join(900)
    quarter.open()
    quarter.clock.monotonic += 1_800
    phone.move(0)
    assert phone.received() == []
    assert quarter.hub.calls.to_end(quarter.clock.now()) == []


def test_call_expired_by_both_clocks_is_due_to_be_ended_in_the_log(quarter):
    """The node ends an expired call in the log, and then forgets it (RZ4)."""
    quarter.open()
    quarter.clock.advance(1_799)
    assert quarter.hub.calls.to_end(quarter.clock.now()) == []
    quarter.clock.advance(1)
    assert quarter.hub.calls.to_end(quarter.clock.now()) == ["c-1"]
    quarter.end(source=None)
    assert quarter.hub.calls.to_end(quarter.clock.now()) == []
    quarter.hub.sweep(quarter.clock.now())
    assert quarter.hub.calls.get("c-1") is None


def test_late_actions_of_responders_do_not_delay_end_of_call(quarter):
    """Wider radii and seats do not extend a call, whose exact place is in the log until its end (RZ4)."""
    quarter.open()
    quarter.clock.advance(1_500)
    quarter.widen()
    quarter.accept("r-1")
    quarter.report("r-1")
    quarter.release("r-1")
    quarter.clock.advance(300)
    assert quarter.hub.calls.to_end(quarter.clock.now()) == ["c-1"]


def test_node_with_fast_wall_clock_does_not_end_call_in_the_log(quarter):
    """The node only stops sending messages about the call, since an end in the log would affect all nodes (RZ4, E5)."""
    body = quarter.opening()
    quarter.clock.wall_ms += 600_000
    quarter.read(body, PLACE)
    quarter.clock.advance(1_799)
    assert quarter.hub.calls.to_end(quarter.clock.now()) == []
    quarter.clock.advance(1)
    assert quarter.hub.calls.to_end(quarter.clock.now()) == ["c-1"]


def test_expired_call_without_end_is_forgotten_after_a_day(quarter):
    """Then the call excludes nobody, and the node no longer tries to end it in the log (LogR1, RQ7)."""
    phone = quarter.join()
    quarter.open()
    quarter.accept("r-1")
    quarter.clock.advance(1_800 + 86_399)
    quarter.hub.sweep(quarter.clock.now())
    assert quarter.hub.calls.to_end(quarter.clock.now()) == ["c-1"]
    quarter.clock.advance(1)
    quarter.hub.sweep(quarter.clock.now())
    assert quarter.hub.calls.to_end(quarter.clock.now()) == []
    assert quarter.hub.calls.get("c-1") is None
    assert quarter.hub.calls.seconds_to_widening(quarter.clock.now()) == float("inf")
    phone.received()
    quarter.open("c-2", occurred_at=NOON_MS + 88_200_000, expires_at=NOON_MS + 90_000_000)
    assert phone.received() == ["c-2/1"]


def failing(monkeypatch, owner, name, times):
    """Make a method raise an unexpected error for so many times."""
    whole, left = getattr(owner, name), [None] * times

    def fails(*arguments):
        if left:
            left.pop()
            raise RuntimeError("a bug")
        return whole(*arguments)

    monkeypatch.setattr(owner, name, fails)


@pytest.mark.parametrize(
    ("owner", "name"), [(LiveCall, "_settle"), (CallRegistry, "update_seats"), (CallHub, "_finish")]
)
def test_end_that_could_not_be_taken_once_reaches_everybody_at_the_second_attempt(quarter, monkeypatch, owner, name):
    """The log reader tries each entry twice (RJ7)."""
    phone, holder = quarter.join(), quarter.join(0, "r-2")
    quarter.open()
    quarter.accept("r-2")
    phone.received(), holder.received()
    failing(monkeypatch, owner, name, 1)
    with pytest.raises(RuntimeError):
        quarter.end()
    quarter.numbers["c-1"] -= 1
    quarter.end()
    assert phone.received() == holder.received() == ["-c-1 over"]


def test_call_with_an_end_that_could_not_be_taken_is_sent_to_nobody_new(quarter, monkeypatch):
    """A later entry of the call is taken together with what came before it (RJ7)."""
    phone = quarter.join()
    quarter.open()
    phone.received()
    failing(monkeypatch, LiveCall, "_settle", 1)
    with pytest.raises(RuntimeError):
        quarter.end()
    late = quarter.join(0, "r-2")
    assert late.received() == []
    quarter.widen()
    late.settle()
    assert late.received() == ["c-1/1"]
