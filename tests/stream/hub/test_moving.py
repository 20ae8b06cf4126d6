"""A session moves or changes its filter, in the middle of a fan-out too."""

from stream.hub.town import FAR_AWAY
from support.fakes import a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.matching.filters import EVERYTHING, Filter


def test_walking_in_and_out_sends_nothing_twice(town):
    """R3: walking in and out of an area again and again sends nothing twice."""
    peer = town.join(FAR_AWAY)
    town.publish(a_revision())
    for metres in (0, FAR_AWAY, 5, FAR_AWAY, 6):
        town.move(peer, metres)
    assert peer.received() == ["welcome", "ok", "a-1/1", "ok", "ok", "ok", "ok"]


def test_a_filter_that_is_opened_lets_in_what_is_live(town):
    """R3: after `filter`, every live alert that now applies."""
    peer = town.join(wanted=Filter(frozenset({"arson"})))
    town.publish(a_revision("a-1"), a_revision("a-2", category="arson"))
    town.set_filter(peer, EVERYTHING)
    assert peer.received() == ["welcome", "a-2/1", "ok", "a-1/1"]
    assert town.hub.filter_of(peer.row) == EVERYTHING


def test_ok_is_a_barrier_in_the_middle_of_a_fan_out(town, small_slices):
    """R8, Rule 4: alerts before `ok` were judged by the old place, alerts after it by the new."""
    *_, leaver, stayer = peers = town.crowd(6)
    arriver = town.join(FAR_AWAY)
    town.deliver(a_revision())
    town.turn()
    town.move(leaver, FAR_AWAY)
    town.move(stayer, 7)
    town.move(arriver, 3)
    town.run()
    assert leaver.received() == ["ok"]
    assert stayer.received() == ["ok", "a-1/1"]
    assert arriver.received() == ["welcome", "ok", "a-1/1"]
    assert [peer.received() for peer in peers[:4]] == [["a-1/1"]] * 4
    assert town.hub.take_counts() == {"a-1": Counts(6, 0)}


def test_a_recipient_that_moves_while_a_new_revision_is_under_way_gets_it(town, small_slices):
    """R1, R8: it is owed to a recipient wherever it is; it comes behind the `ok`, once."""
    *_, walker = town.crowd(6)
    town.publish(a_revision())
    walker.take()
    town.deliver(a_revision(revision=2))
    town.turn()
    town.move(walker, FAR_AWAY)
    town.run()
    assert walker.received() == ["ok", "a-1/2"]
    town.deliver(a_cancel(revision=3))
    town.turn()
    town.move(walker, 0)
    town.run()
    assert walker.received() == ["ok", "-a-1/3"]


def test_a_session_may_have_more_or_fewer_places_after_a_move(town):
    """Section 5, messages: `places`, the whole list; latest ones only."""
    peer = town.join(places=[town.place(FAR_AWAY + n) for n in range(3)])
    assert town.hub.places == 3
    for count in (1, 8, 0, 2):
        town.hub.move(peer.row, [town.place(FAR_AWAY * (n + 1)) for n in range(count)])
        assert town.hub.places == count
    town.hub.move(peer.row, [town.place(FAR_AWAY), town.place(1)])
    town.publish(a_revision())
    assert peer.received() == ["welcome", "a-1/1"]
