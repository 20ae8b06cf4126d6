"""Sessions that move or change their filter, also during a fan-out."""

from stream.hub.town import FAR_AWAY
from support.fakes import a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.matching.filters import EVERYTHING, Filter


def test_session_that_repeatedly_enters_the_area_is_sent_the_alert_once(town):
    """A session is sent each alert once, however often it enters the area (R3)."""
    peer = town.join(FAR_AWAY)
    town.publish(a_revision())
    for metres in (0, FAR_AWAY, 5, FAR_AWAY, 6):
        town.move(peer, metres)
    assert peer.received() == ["welcome", "ok", "a-1/1", "ok", "ok", "ok", "ok"]


def test_session_that_widens_its_filter_is_sent_the_live_alerts(town):
    """After `filter` the session is sent every live alert that applies now (R3)."""
    peer = town.join(wanted=Filter(frozenset({"arson"})))
    town.publish(a_revision("a-1"), a_revision("a-2", category="arson"))
    town.set_filter(peer, EVERYTHING)
    assert peer.received() == ["welcome", "a-2/1", "ok", "a-1/1"]
    assert town.hub.fanout.filter_of(peer.row) == EVERYTHING


def test_alerts_after_the_ok_to_a_move_match_only_the_new_place(town, small_slices):
    """Alerts before `ok` are matched by the old place, alerts after it by the new one (R8)."""
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
    assert town.hub.fanout.live.take_counts() == {"a-1": Counts(6, 0)}


def test_recipient_that_moves_away_during_a_fan_out_is_sent_the_revision_once(town, small_slices):
    """The revision comes behind the `ok`, wherever the recipient is (R1, R8)."""
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


def test_move_replaces_all_places_of_the_session(town):
    """The number of places may change (M2)."""
    peer = town.join(places=[town.place(FAR_AWAY + n) for n in range(3)])
    assert town.hub.fanout.places == 3
    for count in (1, 8, 0, 2):
        town.hub.move(peer.row, [town.place(FAR_AWAY * (n + 1)) for n in range(count)])
        assert town.hub.fanout.places == count
    town.hub.move(peer.row, [town.place(FAR_AWAY), town.place(1)])
    town.publish(a_revision())
    assert peer.received() == ["welcome", "a-1/1"]
