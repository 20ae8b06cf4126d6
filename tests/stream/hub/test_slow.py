"""A slow session is sent nothing, and is owed what has changed once it has drained."""

from stream.hub.town import FAR_AWAY
from support.fakes import a_cancel, a_revision


def test_a_slow_session_is_sent_nothing_and_then_what_it_is_owed(town):
    """Rule 3, section 3: when it has drained, what it is owed is judged anew, newest revision only, in one write."""
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


def test_a_write_that_does_not_go_out_pauses_the_session(town, small_slices):
    """Rule 3: the transport says so from inside the write; the next alert waits."""
    slow, *others = town.crowd(3)
    slow.full = True
    town.publish(a_revision("a-1"))
    town.publish(a_revision("a-2"))
    assert slow.received() == ["a-1/1"]
    slow.full = False
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.received() == ["a-2/1"]
    assert all(peer.received() == ["a-1/1", "a-2/1"] for peer in others)


def test_a_session_that_is_still_slow_waits_again(town):
    """Rule 3: what `resume` sends may not go out either."""
    [slow] = town.crowd(1)
    slow.full = True
    town.publish(a_revision("a-1"))
    town.deliver(a_revision("a-2"))
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.received() == ["a-1/1", "a-2/1"]
    town.publish(a_revision("a-3"))
    assert slow.received() == []
    assert town.hub.slow() == 1


def test_what_ended_while_a_session_was_slow_is_not_sent(town):
    """Section 3: superseded, cancelled or expired meanwhile; a recipient is told of the cancel."""
    [slow] = town.crowd(1)
    town.publish(a_revision("known"))
    town.hub.slowed(slow.row, town.clock.now())
    town.publish(a_revision("cancelled"), a_revision("short", expires_at=a_revision().issued_at + 1000))
    town.publish(a_cancel("cancelled"), a_cancel("known"))
    town.clock.advance(1)
    town.hub.on_drained(slow.row, town.clock.now())
    assert slow.received() == ["known/1", "-known/2"]


def test_a_session_that_drains_in_the_middle_of_a_flight_is_told_once(town, small_slices):
    """Rule 3, R2: what it was owed was cleared, so the flight does not send it again."""
    *_, slow = peers = town.crowd(6)
    town.hub.slowed(slow.row, town.clock.now())
    town.deliver(a_revision())
    town.turn()
    town.hub.on_drained(slow.row, town.clock.now())
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 6


def test_a_new_session_does_not_inherit_the_slowness_of_the_one_before(town):
    """Rule 3, Rule 5: slowness is a connection's."""
    [slow] = town.crowd(1)
    town.hub.slowed(slow.row, town.clock.now())
    town.hub.leave(slow.row)
    town.sweep()
    peer = town.join(0)
    assert peer.row == slow.row
    town.publish(a_revision())
    assert peer.received() == ["welcome", "a-1/1"]
    assert town.hub.slow() == 0


def test_a_session_is_owed_nothing_when_it_drains_elsewhere(town):
    """Rule 3: it is judged by what is now."""
    [slow] = town.crowd(1)
    town.hub.slowed(slow.row, town.clock.now())
    town.publish(a_revision())
    town.hub.move(slow.row, [town.place(FAR_AWAY)])
    town.hub.on_drained(slow.row, town.clock.now())
    assert len(slow.writes) == 1
