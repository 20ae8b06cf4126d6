"""Sessions come and go: a row, its filter and its places are used again by the next."""

from stream.hub.town import FAR_AWAY, Town
from support.fakes import a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.matching.filters import Filter


def test_a_row_is_used_again_only_after_what_it_was_told_is_forgotten():
    """Rule 5, R2: the next session in the row is sent what is live, and is no recipient of what it never saw."""
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


def test_a_session_that_leaves_in_the_middle_of_a_flight_is_written_nothing(small_slices):
    """Rule 5: neither is who has its row by then, but for what it is owed itself."""
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
    assert town.hub.take_counts() == {"a-1": Counts(5, 0)}


def test_who_takes_a_row_in_the_middle_of_a_flight_is_told_once(small_slices):
    """Rule 4, Rule 5: by `settle`, and not by the flight that has the row on its list."""
    town = Town(capacity=6)
    *_, leaver = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.hub.leave(leaver.row)
    near = town.join(1)
    assert near.row == leaver.row
    town.run()
    assert near.received() == ["welcome", "a-1/1"]


def test_the_hub_counts_its_sessions_and_places(town):
    """Section 5, messages: a session's places are forgotten at once when it is over."""
    peers = [town.join(0), town.join(places=[town.place(0), town.place(5)])]
    assert (len(town.hub), town.hub.places, len(town.hub.peers())) == (2, 3, 2)
    town.hub.leave(peers[1].row)
    assert (len(town.hub), town.hub.places, town.hub.peers()) == (1, 1, [peers[0]])


def test_filters_that_come_and_go_take_no_memory(town):
    """M10: however many different ones there were, by leaving or by changing."""
    for n in range(100):
        peer = town.join(wanted=Filter(frozenset({f"c{n}"})))
        town.set_filter(peer, Filter(frozenset({f"d{n}"})))
        town.hub.leave(peer.row)
        town.sweep()
    assert len(town.hub._fanout._filters.passing("robbery", 0)) <= 3


def test_a_write_that_fails_does_not_cost_the_others(town, small_slices):
    """Hub: a transport that has died and has not said so yet."""
    peers = town.crowd(6)
    peers[0].broken = peers[3].broken = peers[5].broken = True
    town.publish(a_revision("a-1"), a_revision("a-2"))
    for n in (1, 2, 4):
        assert sorted(peers[n].received()) == ["a-1/1", "a-2/1"]
    assert len(town.finished) == 2
    town.clock.advance(25)
    town.sweep()
    assert [peers[n].received() for n in (1, 2, 4)] == [["<ping>"]] * 3
