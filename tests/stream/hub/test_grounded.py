"""Fan-outs that stop early: nothing is sent after an entry was superseded, cancelled or has expired (Rule 1)."""

import pytest
from stream.hub.town import HALF_HOUR_S
from support.fakes import DALLAS, a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.model.alert import Circle


def test_superseded_revision_is_not_sent(town):
    """No session becomes a recipient by a revision that was not sent (R2)."""
    peer = town.join(0)
    town.publish(a_revision(), a_revision(revision=2), a_revision(revision=3, area=(Circle(0.0, 0.0, 100.0),)))
    assert peer.received() == ["welcome"]
    assert town.finished == ["a-1/3"]


def test_fan_out_of_a_revision_stops_when_a_newer_revision_arrives(town, small_slices):
    """Sessions that were not reached get only the new revision; the others get both, in rising order (R2)."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.publish(a_revision(revision=2))
    assert [peer.received() for peer in peers] == [["a-1/1", "a-1/2"]] * 2 + [["a-1/2"]] * 4
    assert town.finished == ["a-1/2"]
    assert town.hub.fanout.live.take_counts() == {"a-1": Counts(8, 0)}


def test_fan_out_of_a_revision_stops_when_its_cancel_arrives(town, small_slices):
    """Sessions that were reached get the cancel; the others get nothing (R4)."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.publish(a_cancel())
    assert [peer.received() for peer in peers] == [["a-1/1", "-a-1/2"]] * 2 + [[]] * 4


@pytest.mark.parametrize("which", ["wall", "monotonic"])
def test_fan_out_stops_when_the_alert_expires_by_wall_or_monotonic_clock(town, small_slices, which):
    """Nothing is sent after `expires_at`, by any path (E1)."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    if which == "wall":
        town.clock.wall_ms += HALF_HOUR_S * 1000
    else:
        town.clock.monotonic += HALF_HOUR_S
    town.run()
    town.move(peers[5], 1)
    town.hub.on_drained(peers[4].row, town.clock.now())
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 2 + [[]] * 3 + [["ok"]]
    assert town.finished == []


def test_expired_alert_stays_expired_when_the_wall_clock_is_set_back(town):
    """The monotonic clock has ended the alert (E1)."""
    [peer] = town.crowd(1)
    town.deliver(a_revision())
    town.clock.monotonic += HALF_HOUR_S
    town.sweep()
    town.clock.wall_ms -= HALF_HOUR_S * 1000
    town.run()
    assert peer.received() == []


def test_fan_out_is_restarted_for_a_session_that_it_left_out(town, small_slices):
    """A session came while the wall clock was ahead.

    When the clock is right, the session is sent the alert, and no other session gets the alert twice (R2).
    """
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.clock.wall_ms += HALF_HOUR_S * 1000
    late = town.join(6)
    town.clock.wall_ms -= HALF_HOUR_S * 1000
    town.sweep()
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 6
    assert late.received() == ["welcome", "a-1/1"]


def test_alert_that_expires_before_its_fan_out_starts_is_not_sent(town, small_slices):
    """The expired alert does not delay the alerts that wait behind it (E1)."""
    peers = town.crowd(4)
    town.deliver(a_revision("a"), a_revision("b", expires_at=a_revision().issued_at + 1000), a_revision("c"))
    town.clock.advance(1)
    town.run()
    assert [sorted(peer.received()) for peer in peers] == [["a/1", "c/1"]] * 4


def test_cancel_is_not_sent_after_the_alert_has_expired(town, small_slices):
    """Nothing is sent after `expires_at`, not even a cancel (E1)."""
    peers = town.crowd(4)
    town.publish(a_revision())
    town.deliver(a_cancel())
    town.turn()
    town.clock.advance(HALF_HOUR_S)
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1", "-a-1/2"]] * 2 + [["a-1/1"]] * 2


def test_stopped_fan_out_sends_nothing_when_its_flag_bit_is_reused(town, small_slices):
    """The next fan-out uses the same bit in the table of alerts that are still to be sent."""
    peers = town.crowd(4)
    town.deliver(a_revision("a"))
    town.turn()
    town.deliver(a_cancel("a"))
    town.publish(a_revision("b"))
    assert [peer.received() for peer in peers] == [["a/1", "-a/2", "b/1"]] * 2 + [["b/1"]] * 2


def test_reused_flag_bit_sends_nothing_to_sessions_of_the_stopped_fan_out(town, small_slices):
    """The next fan-out uses the same bit.

    Sessions that only the stopped fan-out concerned are not sent the new alert.
    """
    peers = town.crowd(6)
    town.deliver(a_revision("a"))
    town.turn()
    town.publish(a_cancel("a"))
    town.deliver(a_revision("b", area=(Circle(*DALLAS, 3.5),)))
    town.turn()
    town.deliver(a_revision("c", severity="extreme"))
    town.run()
    assert [peer.received() for peer in peers] == [["a/1", "-a/2", "b/1", "c/1"]] * 2 + [["c/1", "b/1"]] * 2 + [
        ["c/1"]
    ] * 2
