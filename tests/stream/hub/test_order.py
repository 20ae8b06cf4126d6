"""The order and number of writes: nearest first, most severe first, and one write for all that a session is sent."""

import pytest
from stream.hub.town import FAR_AWAY, METRE, Town
from support.fakes import DALLAS, a_cancel, a_revision

from geocast.model.alert import Circle
from geocast.stream import fanout, flights

# ---- the order of sending ------------------------------------------------------------------------------------


def test_nearest_sessions_are_sent_an_alert_first(town):
    """Sessions are sent the alert in the order of their distances (fan-out, NEAREST)."""
    metres = [700, 3, 250, 999, 0, 41, 40]
    peers = {town.join(distance).name: distance for distance in metres}
    town.order.clear()
    town.publish(a_revision())
    assert [peers[name] for name in town.order] == sorted(metres)


def test_only_the_nearest_sessions_are_sorted_by_distance(town, monkeypatch):
    """The other sessions follow in any order (fan-out, NEAREST)."""
    monkeypatch.setattr(fanout, "NEAREST", 3)
    peers = town.crowd(10)
    town.publish(a_revision(area=(Circle(DALLAS[0] + 9 * METRE, DALLAS[1], 1000.0),)))
    assert town.order[:3] == [peers[n].name for n in (9, 8, 7)]
    assert sorted(town.order) == [peer.name for peer in peers]


def test_extreme_alert_is_sent_before_the_remaining_recipients_get_a_minor_alert(town, small_slices):
    """The extreme alert overtakes at the next slice (batch of sessions; fan-out, idea 2)."""
    peers = town.crowd(6)
    town.deliver(a_revision("minor", severity="minor"))
    town.turn()
    town.deliver(a_revision("extreme", severity="extreme"))
    town.run()
    assert town.finished == ["extreme/1", "minor/1"]
    assert [peer.told_by_write()[1:] for peer in peers] == [[["minor/1"], ["extreme/1"]]] * 2 + [
        [["extreme/1", "minor/1"]]
    ] * 4


def test_alerts_are_sent_by_severity_then_by_arrival(town, small_slices):
    """Of two equally severe alerts, the earlier one is sent first (fan-out, idea 2)."""
    town.crowd(6)
    town.deliver(a_revision("b", severity="severe"))
    town.turn()
    town.deliver(a_revision("d", severity="minor"), a_revision("c", severity="severe"))
    town.run()
    assert town.finished == ["b/1", "c/1", "d/1"]


def elsewhere(name):
    """Return an alert for a place that is far away from the crowd."""
    return a_revision(name, area=(Circle(*Town.place(FAR_AWAY)[:2], 1000.0),))


def test_alert_for_few_does_not_wait_for_an_equally_severe_one_for_many(town, small_slices, monkeypatch):
    """It gets every other turn once the other has had its own head start (flights, HEAD_START)."""
    monkeypatch.setattr(flights, "HEAD_START", 4)
    many, few = town.crowd(20), [town.join(FAR_AWAY) for _ in range(3)]
    town.deliver(a_revision("many"))
    town.turn(2)
    town.deliver(elsewhere("few"))
    town.turn(4)
    assert town.finished == ["few/1"]
    assert [peer.received() for peer in few] == [["welcome", "few/1"]] * 3
    town.run()
    assert [peer.received() for peer in many] == [["many/1"]] * 20


def test_alert_for_many_goes_on_while_alerts_for_few_keep_coming(town, small_slices, monkeypatch):
    """It keeps the other half of the turns (flights, HEAD_START)."""
    monkeypatch.setattr(flights, "HEAD_START", 4)
    town.crowd(20)
    town.join(FAR_AWAY)
    town.deliver(a_revision("many"))
    for n in range(20):
        town.deliver(elsewhere(f"few-{n}"))
        town.turn()
    assert "many/1" in town.finished


def test_alert_loses_its_extra_turns_once_it_has_been_sent_to_many(town, small_slices, monkeypatch):
    """From then on the earlier of two equally severe alerts goes first (flights, HEAD_START)."""
    monkeypatch.setattr(flights, "HEAD_START", 4)
    town.crowd(20)
    for _ in range(20):
        town.join(FAR_AWAY)
    town.deliver(a_revision("first"))
    town.turn(3)
    town.deliver(elsewhere("second"))
    town.turn(9)
    assert town.finished == ["first/1"]


def test_cancel_is_sent_before_a_revision_of_equal_severity(town, small_slices):
    """Clients can't rely on an order between alerts (R2)."""
    town.crowd(4)
    town.publish(a_revision("old"))
    town.finished.clear()
    town.deliver(a_revision("new"), a_cancel("old"))
    town.run()
    assert town.finished == ["old/2", "new/1"]


def test_session_is_sent_all_its_waiting_alerts_in_one_write(town, small_slices):
    """Each turn hands a session all alerts that wait for it (fan-out, idea 2)."""
    peers = town.crowd(6)
    town.deliver(a_revision("a-1"), a_revision("a-2"), a_revision("a-3", severity="minor"))
    town.run()
    assert peers[-1].told_by_write() == [["welcome"], ["a-1/1", "a-2/1", "a-3/1"]]
    for peer in peers:
        assert sorted(peer.received()) == ["a-1/1", "a-2/1", "a-3/1"]
    assert town.hub.fanout.sends == 18


def test_sessions_handled_in_one_turn_are_sent_only_the_alerts_meant_for_them(town, small_slices):
    """Each session is sent all alerts that wait for it, and nothing else (fan-out, idea 2)."""
    peers = town.crowd(6)
    town.deliver(a_revision("a"))
    town.turn()
    town.deliver(a_revision("b", severity="minor", area=(Circle(*DALLAS, 2.5),)))
    town.turn()
    assert [peer.received() for peer in peers] == [["a/1"], ["a/1"], ["a/1", "b/1"], ["a/1"], [], []]
    town.run()
    assert [peer.received() for peer in peers] == [["b/1"], ["b/1"], [], [], ["a/1"], ["a/1"]]


def test_superseded_revision_in_the_queue_does_not_delay_an_extreme_alert(town):
    """The superseded revision hides no fan-out behind it in the heap (fan-out, idea 2)."""
    town.crowd(1)
    town.deliver(
        a_revision("r", severity="extreme"),
        a_revision("a", severity="extreme"),
        a_revision("s", severity="severe"),
        a_revision("c", severity="extreme"),
        a_revision("a", 2, severity="minor"),
    )
    town.run()
    assert town.finished == ["r/1", "c/1", "s/1", "a/2"]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_fan_out_finishes_after_its_last_session(town, small_slices, rows):
    """`finished` is called once for each fan-out, after its last batch of sessions."""
    town.crowd(rows)
    town.deliver(a_revision())
    turns = 1 + sum(1 for _ in iter(town.turn, False))
    assert turns == (rows + 1) // 2
    assert town.finished == ["a-1/1"]
    assert not town.turn()


def test_fan_out_without_recipients_finishes_at_the_next_turn(town):
    """Until then, `oldest_flight` returns how long the fan-out has been waiting."""
    town.join(FAR_AWAY)
    town.deliver(a_revision())
    town.clock.advance(0.5)
    assert town.hub.fanout.flights.oldest_s(town.clock.now()) == 0.5
    town.run()
    assert town.finished == ["a-1/1"]
    assert town.hub.fanout.flights.oldest_s(town.clock.now()) == 0.0


def test_fan_out_finishes_at_once_when_no_session_is_connected(town):
    """A long log that is read at the start leaves no work for later turns.

    A session that comes later is sent the alert.
    """
    town.hub.leave(town.join().row)
    town.deliver(a_revision(), a_revision("a-2"), a_cancel("a-2"))
    assert town.finished == ["a-1/1", "a-2/1", "a-2/2"]
    assert not town.hub.busy
    assert town.join().received() == ["welcome", "a-1/1"]


# ---- more than 64 alerts at once -----------------------------------------------------------------------------


def test_all_of_more_than_64_simultaneous_alerts_are_sent_once(town, small_slices):
    """At most 64 fan-outs run at a time, since each needs a bit; the others wait (flights, FLIGHTS)."""
    peers = town.crowd(64)
    for n in range(150):
        town.deliver(a_revision(f"a-{n}", severity="minor"))
        town.turn()
    town.run()
    expected = sorted(f"a-{n}/1" for n in range(150))
    for peer in peers:
        assert sorted(peer.received()) == expected
    assert len(town.finished) == 150
    assert town.hub.fanout.sends == 64 * 150


def test_extreme_alert_is_sent_next_while_70_severe_alerts_wait(monkeypatch):
    """Some bits are kept for extreme alerts, so the alert is sent in the next turn (flights, FLIGHTS_BELOW_EXTREME)."""
    monkeypatch.setattr(fanout, "SLICE", 1)
    town = Town(100)
    peers = town.crowd(100)
    for n in range(70):
        town.deliver(a_revision(f"a-{n}", severity="severe"))
        town.turn()
    town.deliver(a_revision("extreme", severity="extreme"))
    town.turn()
    assert peers[0].told_by_write()[-1][0] == "extreme/1"
    town.run()
    for peer in peers:
        told = peer.received()
        assert len(told) == len(set(told))
    assert town.hub.fanout.sends == 71 * 100
