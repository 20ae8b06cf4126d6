"""The recipients of an alert: sessions inside, recipients of earlier revisions, and nobody else (protocol, R1 to R8).

`test_model.py` covers the same rules at random; the cases here can be read one by one.
"""

from stream.hub.town import FAR_AWAY, HALF_HOUR_S
from support.fakes import DALLAS, FakeRights, a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.matching.filters import Filter
from geocast.model.alert import EXTREME, Circle
from geocast.wire.frames import JSON, MSGPACK, WIRES

# ---- which sessions are sent a message -----------------------------------------------------------------------


def test_alert_is_sent_to_sessions_inside_and_no_others(town):
    """A place of the session is inside the area (R1)."""
    near, edge, outside, nowhere = town.join(0), town.join(999), town.join(1001), town.join(places=[])
    town.publish(a_revision())
    for peer, told in [(near, ["a-1/1"]), (edge, ["a-1/1"]), (outside, []), (nowhere, [])]:
        assert peer.received() == ["welcome", *told]


def test_place_is_inside_if_its_accuracy_radius_touches_the_circle(town):
    """A place is inside if `distance <= radius_m + reach` (D2)."""
    vague, vaguer = town.join(places=[town.place(1500, 499.0)]), town.join(places=[town.place(1500, 501.0)])
    town.publish(a_revision())
    assert vague.received() == ["welcome"]
    assert vaguer.received() == ["welcome", "a-1/1"]


def test_session_with_several_places_inside_is_sent_the_alert_once(town):
    """A revision is sent at most once on a connection (R2)."""
    peer = town.join(places=[town.place(0), town.place(10), town.place(FAR_AWAY)])
    town.publish(a_revision(area=(Circle(*DALLAS, 1000.0), Circle(*DALLAS, 500.0))))
    assert peer.received() == ["welcome", "a-1/1"]


def test_each_session_is_sent_alerts_in_its_wire_format(town):
    """All sessions of a format are sent the same encoded frame (S6)."""
    peers = [town.join(wire=wire) for wire in (JSON, MSGPACK, JSON, MSGPACK)]
    town.publish(a_revision())
    assert [peer.writes[-1][0] for peer in peers] == [0x81, 0x82, 0x81, 0x82]
    assert [peer.received()[-1] for peer in peers] == ["a-1/1"] * 4


def test_each_wire_format_is_sent_as_long_as_a_session_uses_it(town):
    """One session of each of the four formats leaves, and another one stays (S7)."""
    peers = [town.join(wire=wire) for wire in WIRES for _ in range(2)]
    town.publish(a_revision())
    for peer in peers[::2]:
        town.hub.leave(peer.row)
    town.publish(a_revision(revision=2))
    assert [peer.received()[-1] for peer in peers] == ["a-1/1", "a-1/2"] * 4


def test_filter_stops_all_but_extreme_alerts(town):
    """No filter suppresses an extreme alert (R1, R7)."""
    peer = town.join(wanted=Filter(frozenset({"arson"}), EXTREME))
    town.publish(a_revision("a-1"), a_revision("a-2", category="arson"), a_revision("a-3", severity="extreme"))
    assert peer.received() == ["welcome", "a-3/1"]


def test_revision_reaches_recipients_that_moved_away_or_filter_it_out(town):
    """No recipient is left with an old revision. Recipients outside are written after the sessions inside (R1)."""
    gone, filtered, inside = town.crowd(3)
    town.publish(a_revision())
    town.move(gone, FAR_AWAY)
    town.set_filter(filtered, Filter(frozenset({"arson"})))
    late = town.join(5)
    town.order.clear()
    town.publish(a_revision(revision=2))
    for peer in (gone, filtered, inside, late):
        assert peer.received()[-1] == "a-1/2"
    assert town.order == [inside.name, late.name, gone.name, filtered.name]


def test_cancel_is_sent_only_to_recipients_of_the_alert(town):
    """Recipients are sent the cancel wherever they are now, and whatever their filter is (R4)."""
    gone, inside = town.crowd(2)
    town.publish(a_revision())
    town.move(gone, FAR_AWAY)
    stranger = town.join(FAR_AWAY)
    filtered = town.join(0, wanted=Filter(frozenset()))
    town.publish(a_cancel())
    assert gone.received() == ["a-1/1", "ok", "-a-1/2"]
    assert inside.received() == ["a-1/1", "-a-1/2"]
    assert stranger.received() == filtered.received() == ["welcome"]


def test_revision_that_follows_a_cancel_is_not_sent(town):
    """A revision that follows a cancel is ignored (R2)."""
    [peer] = town.crowd(1)
    town.publish(a_revision(), a_cancel(), a_revision(revision=3))
    town.move(peer, 1)
    assert town.join(0).received() == ["welcome"]
    assert peer.received() == ["ok"]  # the alert was cancelled before it was written, so nobody is a recipient


def test_test_alerts_are_sent_only_to_sessions_with_the_test_scope(town):
    """For all other sessions the id of a test alert is unknown, also in `holding` and `ack` (R6)."""
    tester, other = town.join(rights=FakeRights(may_test=True)), town.join(holding={"t-1": 1, "t-2": 1})
    town.publish(a_revision("t-1", status="test"), a_revision("t-2", status="exercise"))
    claiming = town.join(holding={"t-1": 1})
    town.publish(a_revision("t-1", 2, status="test"))
    assert tester.received() == ["welcome", "t-1/1", "t-2/1", "t-1/2"]
    town.publish(a_cancel("t-1", 3))
    assert tester.received() == ["-t-1/3"]
    assert other.received() == claiming.received() == ["welcome"]


def test_test_alert_named_in_hello_is_ignored_without_the_test_scope(town):
    """When the session gets the scope, it is sent the alert like any other session (R6)."""
    early = town.join(holding={"t-1": 1})
    town.publish(a_revision("t-1", status="test"))
    late = town.join(holding={"t-1": 1})
    for peer in (early, late):
        town.set_rights(peer, may_test=True)
        assert peer.received() == ["welcome", "ok", "t-1/1"]


def test_session_that_loses_the_test_scope_is_sent_no_more_test_alerts(town):
    """A session that gets the scope back is sent the live test alerts (R6)."""
    peer = town.join(rights=FakeRights(may_test=True))
    town.publish(a_revision("t-1", status="test"))
    town.set_rights(peer, may_test=False)
    town.publish(a_revision("t-1", 2, status="test"), a_revision("t-2", status="test"))
    assert peer.received() == ["welcome", "t-1/1", "ok"]
    town.hub.acknowledge(peer.row, "t-1", 1, town.clock.now())
    assert town.hub.fanout.live.take_counts() == {"t-1": Counts(1, 0)}
    town.set_rights(peer, may_test=True)
    assert peer.received() == ["ok", "t-1/2", "t-2/1"]


def test_recipient_that_regains_the_test_scope_is_sent_missed_revisions_and_cancels(town):
    """The recipient is sent newer revisions and cancels wherever it is (R1, R6)."""
    peer = town.join(rights=FakeRights(may_test=True))
    town.publish(a_revision("t-1", status="test"), a_revision("t-2", status="test"))
    town.set_rights(peer, may_test=False)
    town.move(peer, FAR_AWAY)
    town.publish(a_revision("t-1", 2, status="test"), a_cancel("t-2"))
    peer.take()
    town.set_rights(peer, may_test=True)
    assert peer.received() == ["ok", "-t-2/2", "t-1/2"]


# ---- acknowledgements ----------------------------------------------------------------------------------------


def test_ack_counts_once_and_only_for_an_alert_sent_on_the_same_connection(town):
    """An ack of an unknown or ended alert is ignored (M5)."""
    peer, other = town.join(0), town.join(FAR_AWAY)
    town.publish(a_revision())
    for _ in range(2):
        for row in (peer.row, other.row):
            town.hub.acknowledge(row, "a-1", 1, town.clock.now())
            town.hub.acknowledge(row, "a-2", 1, town.clock.now())
    assert town.hub.fanout.live.take_counts() == {"a-1": Counts(1, 1)}
    town.hub.acknowledge(peer.row, "a-1", 1, town.clock.advance(HALF_HOUR_S))
    assert town.hub.fanout.live.take_counts() == {}
