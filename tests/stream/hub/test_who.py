"""Who is told: those inside, the recipients of earlier revisions, and nobody else; and what is counted of them.

Rules are those of `geocast.stream.hub` (Rule 1 to Rule 5) and of section 5 of the protocol (R1 to R8).
`test_model.py` covers the same ground at random; here each case can be read.
"""

from stream.hub.town import FAR_AWAY, HALF_HOUR_S
from support.fakes import DALLAS, FakeRights, a_cancel, a_revision

from geocast.alertlog import Counts
from geocast.matching.filters import Filter
from geocast.model.alert import EXTREME, Circle
from geocast.wire.frames import JSON, MSGPACK, WIRES

# ---- who -----------------------------------------------------------------------------------------------------


def test_an_alert_goes_to_those_inside_and_to_nobody_else(town):
    """R1: a place is inside its area."""
    near, edge, outside, nowhere = town.join(0), town.join(999), town.join(1001), town.join(places=[])
    town.publish(a_revision())
    for peer, told in [(near, ["a-1/1"]), (edge, ["a-1/1"]), (outside, []), (nowhere, [])]:
        assert peer.received() == ["welcome", *told]


def test_a_reach_makes_a_place_as_wide_as_it_says(town):
    """D2: `distance <= radius_m + reach`."""
    vague, vaguer = town.join(places=[town.place(1500, 499.0)]), town.join(places=[town.place(1500, 501.0)])
    town.publish(a_revision())
    assert vague.received() == ["welcome"]
    assert vaguer.received() == ["welcome", "a-1/1"]


def test_several_places_inside_are_told_once(town):
    """R2: several places inside, once."""
    peer = town.join(places=[town.place(0), town.place(10), town.place(FAR_AWAY)])
    town.publish(a_revision(area=(Circle(*DALLAS, 1000.0), Circle(*DALLAS, 500.0))))
    assert peer.received() == ["welcome", "a-1/1"]


def test_each_session_is_written_in_its_format(town):
    """S6: one encoded frame serves every session of a format."""
    peers = [town.join(wire=wire) for wire in (JSON, MSGPACK, JSON, MSGPACK)]
    town.publish(a_revision())
    assert [peer.writes[-1][0] for peer in peers] == [0x81, 0x82, 0x81, 0x82]
    assert [peer.received()[-1] for peer in peers] == ["a-1/1"] * 4


def test_a_format_is_written_as_long_as_somebody_speaks_it(town):
    """S7: sessions come and go, on each of the four streams."""
    peers = [town.join(wire=wire) for wire in WIRES for _ in range(2)]
    town.publish(a_revision())
    for peer in peers[::2]:
        town.hub.leave(peer.row)
    town.publish(a_revision(revision=2))
    assert [peer.received()[-1] for peer in peers] == ["a-1/1", "a-1/2"] * 4


def test_a_filter_holds_back_all_but_extreme(town):
    """R1, R7: a filter never holds back `extreme`."""
    peer = town.join(wanted=Filter(frozenset({"arson"}), EXTREME))
    town.publish(a_revision("a-1"), a_revision("a-2", category="arson"), a_revision("a-3", severity="extreme"))
    assert peer.received() == ["welcome", "a-3/1"]


def test_a_new_revision_goes_to_recipients_wherever_they_are_and_whatever_their_filter(town):
    """R1: a recipient is never left with an old version; it comes after those to whom the alert applies."""
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


def test_a_cancel_goes_to_recipients_and_to_nobody_else(town):
    """R4: wherever they are now and whatever their filter."""
    gone, inside = town.crowd(2)
    town.publish(a_revision())
    town.move(gone, FAR_AWAY)
    stranger = town.join(FAR_AWAY)
    filtered = town.join(0, wanted=Filter(frozenset()))
    town.publish(a_cancel())
    assert gone.received() == ["a-1/1", "ok", "-a-1/2"]
    assert inside.received() == ["a-1/1", "-a-1/2"]
    assert stranger.received() == filtered.received() == ["welcome"]


def test_after_its_cancel_nothing_comes_of_an_alert(town):
    """R2: nothing after its cancel."""
    [peer] = town.crowd(1)
    town.publish(a_revision(), a_cancel(), a_revision(revision=3))
    town.move(peer, 1)
    assert town.join(0).received() == ["welcome"]
    assert peer.received() == ["ok"]  # the alert was cancelled before it was written, so nobody is a recipient


def test_tests_exist_only_for_those_who_may_see_them(town):
    """R6: for all others such an id is unknown, in `holding` and `ack` too."""
    tester, other = town.join(rights=FakeRights(may_test=True)), town.join(holding={"t-1": 1, "t-2": 1})
    town.publish(a_revision("t-1", status="test"), a_revision("t-2", status="exercise"))
    claiming = town.join(holding={"t-1": 1})
    town.publish(a_revision("t-1", 2, status="test"))
    assert tester.received() == ["welcome", "t-1/1", "t-2/1", "t-1/2"]
    town.publish(a_cancel("t-1", 3))
    assert tester.received() == ["-t-1/3"]
    assert other.received() == claiming.received() == ["welcome"]


def test_what_was_held_before_it_could_be_seen_was_unknown(town):
    """R6: so when the session may see it, it is sent it like any other."""
    early = town.join(holding={"t-1": 1})
    town.publish(a_revision("t-1", status="test"))
    late = town.join(holding={"t-1": 1})
    for peer in (early, late):
        town.set_rights(peer, may_test=True)
        assert peer.received() == ["welcome", "ok", "t-1/1"]


def test_who_loses_the_right_to_tests_is_sent_nothing_more_of_them(town):
    """R6: a session that loses the scope is sent nothing more of them; one that gains it is sent what is live."""
    peer = town.join(rights=FakeRights(may_test=True))
    town.publish(a_revision("t-1", status="test"))
    town.set_rights(peer, may_test=False)
    town.publish(a_revision("t-1", 2, status="test"), a_revision("t-2", status="test"))
    assert peer.received() == ["welcome", "t-1/1", "ok"]
    town.hub.acknowledge(peer.row, "t-1", 1, town.clock.now())
    assert town.hub.take_counts() == {"t-1": Counts(1, 0)}
    town.set_rights(peer, may_test=True)
    assert peer.received() == ["ok", "t-1/2", "t-2/1"]


def test_a_recipient_that_may_see_tests_again_is_told_wherever_it_is(town):
    """R1, R6: a recipient is never left with an old version that it may see."""
    peer = town.join(rights=FakeRights(may_test=True))
    town.publish(a_revision("t-1", status="test"), a_revision("t-2", status="test"))
    town.set_rights(peer, may_test=False)
    town.move(peer, FAR_AWAY)
    town.publish(a_revision("t-1", 2, status="test"), a_cancel("t-2"))
    peer.take()
    town.set_rights(peer, may_test=True)
    assert peer.received() == ["ok", "-t-2/2", "t-1/2"]


# ---- acknowledgements ----------------------------------------------------------------------------------------


def test_acks_count_what_was_sent_on_this_connection(town):
    """M5: counts once; of what is unknown or has ended, nothing happens."""
    peer, other = town.join(0), town.join(FAR_AWAY)
    town.publish(a_revision())
    for _ in range(2):
        for row in (peer.row, other.row):
            town.hub.acknowledge(row, "a-1", 1, town.clock.now())
            town.hub.acknowledge(row, "a-2", 1, town.clock.now())
    assert town.hub.take_counts() == {"a-1": Counts(1, 1)}
    town.hub.acknowledge(peer.row, "a-1", 1, town.clock.advance(HALF_HOUR_S))
    assert town.hub.take_counts() == {}
