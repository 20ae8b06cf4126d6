"""Slow sessions are sent nothing.

When they can be written again, they are sent what they have missed (fan-out, Rule 3).
"""

from stream.hub.town import FAR_AWAY
from support.fakes import a_cancel, a_revision


def test_slow_session_is_sent_only_newest_revisions_when_it_can_be_written_again(town):
    """The newest revisions are sent in one write (E3)."""
    slow, other = town.crowd(2)
    town.hub.slowed(slow.row, town.clock.now())
    town.publish(a_revision(), a_revision("a-2", severity="extreme"))
    town.publish(a_revision(revision=2))
    assert slow.received() == []
    assert town.hub.slow() == 1
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.told_by_write()[1:] == [["a-2/1", "a-1/2"]]
    assert sorted(other.received()) == ["a-1/1", "a-1/2", "a-2/1"]
    assert town.hub.slow() == 0
    town.run()
    assert len(slow.writes) == 2


def test_write_that_leaves_unsent_bytes_pauses_the_session(town, small_slices):
    """The transport reports it during the write, and the next alert waits (hub, Rule 1)."""
    slow, *others = town.crowd(3)
    slow.full = True
    town.publish(a_revision("a-1"))
    town.publish(a_revision("a-2"))
    assert slow.received() == ["a-1/1"]
    slow.full = False
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.received() == ["a-2/1"]
    assert all(peer.received() == ["a-1/1", "a-2/1"] for peer in others)


def test_session_that_becomes_slow_again_during_its_catch_up_is_paused_again(town):
    """The bytes that `on_drained` writes may stay unsent as well (hub, Rule 1)."""
    [slow] = town.crowd(1)
    slow.full = True
    town.publish(a_revision("a-1"))
    town.deliver(a_revision("a-2"))
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.received() == ["a-1/1", "a-2/1"]
    town.publish(a_revision("a-3"))
    assert slow.received() == []
    assert town.hub.slow() == 1


def test_session_that_was_slow_is_not_sent_alerts_that_ended_meanwhile(town):
    """Cancelled and expired alerts are not sent; a recipient is sent the cancel (E1, R4)."""
    [slow] = town.crowd(1)
    town.publish(a_revision("known"))
    town.hub.slowed(slow.row, town.clock.now())
    town.publish(a_revision("cancelled"), a_revision("short", expires_at=a_revision().issued_at + 1000))
    town.publish(a_cancel("cancelled"), a_cancel("known"))
    town.clock.advance(1)
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.received() == ["known/1", "-known/2"]


def test_session_that_recovers_during_a_fan_out_is_sent_the_alert_once(town, small_slices):
    """`on_drained` sends the alert and removes the session from the fan-out (R2)."""
    *_, slow = peers = town.crowd(6)
    town.hub.slowed(slow.row, town.clock.now())
    town.deliver(a_revision())
    town.turn()
    town.hub.on_drained(slow.row, town.clock.now())
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 6


def test_session_that_replaces_a_slow_one_is_not_slow(town):
    """The pause ends with the session (fan-out, Rules 3 and 5)."""
    [slow] = town.crowd(1)
    town.hub.slowed(slow.row, town.clock.now())
    town.hub.leave(slow.row)
    town.sweep()
    peer = town.join(0)
    assert peer.row == slow.row
    town.publish(a_revision())
    assert peer.received() == ["welcome", "a-1/1"]
    assert town.hub.slow() == 0


def test_slow_session_that_moved_away_is_not_sent_the_alert_when_it_recovers(town):
    """Only the session's current places count (R1)."""
    [slow] = town.crowd(1)
    town.hub.slowed(slow.row, town.clock.now())
    town.publish(a_revision())
    town.hub.move(slow.row, [town.place(FAR_AWAY)])
    town.hub.on_drained(slow.row, town.clock.now())
    assert len(slow.writes) == 1
