"""Sessions that disconnect: their row (place in the hub's tables) and memory are used again (fan-out, Rule 5)."""

from stream.hub.town import FAR_AWAY, Town
from support.fakes import a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.matching.filters import Filter


def test_new_session_inherits_no_delivery_flags_from_a_disconnected_one():
    """The new session has the same row (place in the hub's tables).

    It is sent the live alerts, and is no recipient of alerts that only the old session was sent (R2).
    """
    town = Town(capacity=1)
    first = town.join(0)
    town.publish(a_revision())
    town.hub.leave(first.row)
    second = town.join(0)
    assert second.row == first.row
    assert second.received() == ["welcome", "a-1/1"]
    town.hub.leave(second.row)
    town.sweep()
    third = town.join(FAR_AWAY)
    town.publish(a_revision(revision=2))
    town.publish(a_cancel(revision=3))
    assert third.received() == ["welcome"]
    assert first.received() == ["welcome", "a-1/1"]


def test_session_that_disconnects_during_a_fan_out_is_sent_nothing(small_slices):
    """A new session with the same row (place in the hub's tables) is outside the area and is sent nothing either."""
    town = Town(capacity=6)
    *_, leaver = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.hub.leave(leaver.row)
    far = town.join(FAR_AWAY)
    assert far.row == leaver.row
    town.run()
    assert leaver.received() == []
    assert far.received() == ["welcome"]
    assert town.hub.fanout.live.take_counts() == {"a-1": Counts(5, 0)}


def test_session_that_replaces_another_during_a_fan_out_is_sent_the_alert_once(small_slices):
    """`reply_with_owed` sends the alert to the new session.

    The fan-out, which has the session's row in its list, does not.
    """
    town = Town(capacity=6)
    *_, leaver = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.hub.leave(leaver.row)
    near = town.join(1)
    assert near.row == leaver.row
    town.run()
    assert near.received() == ["welcome", "a-1/1"]


def test_places_of_a_session_are_forgotten_when_it_disconnects(town):
    """The hub counts sessions and places (M9)."""
    peers = [town.join(0), town.join(places=[town.place(0), town.place(5)])]
    assert (len(town.hub), town.hub.fanout.places, len(town.hub.peers())) == (2, 3, 2)
    town.hub.leave(peers[1].row)
    assert (len(town.hub), town.hub.fanout.places, town.hub.peers()) == (1, 1, [peers[0]])


def test_filters_of_disconnected_sessions_use_no_memory(town):
    """The number of different filters is not bounded (M10)."""
    for n in range(100):
        peer = town.join(wanted=Filter(frozenset({f"c{n}"})))
        town.set_filter(peer, Filter(frozenset({f"d{n}"})))
        town.hub.leave(peer.row)
        town.sweep()
    assert len(town.hub.fanout._filters.passing("robbery", 0)) <= 3


def test_alerts_reach_other_sessions_although_some_writes_fail(town, small_slices):
    """A dead transport raises until `connection_lost` is called."""
    peers = town.crowd(6)
    peers[0].broken = peers[3].broken = peers[5].broken = True
    town.publish(a_revision("a-1"), a_revision("a-2"))
    for n in (1, 2, 4):
        assert sorted(peers[n].received()) == ["a-1/1", "a-2/1"]
    assert len(town.finished) == 2
    town.clock.advance(25)
    town.sweep()
    assert [peers[n].received() for n in (1, 2, 4)] == [["<ping>"]] * 3
