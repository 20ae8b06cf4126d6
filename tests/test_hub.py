"""The fan-out, by hand: who is written what, in which order, in how many writes.

Rules are those of `geocast.hub` (Rule 1 to Rule 5) and of the protocol's section 5, "Who is sent what" (R1 to R8).
`test_model.py` covers the same ground at random; here each case can be read.
"""

import errno
import itertools
from contextlib import contextmanager

import numpy as np
import pytest
from fakes import DALLAS, FakeClock, FakePeer, FakeRights, a_cancel, a_revision, messages

from geocast import closing, hub
from geocast.alert import EXTREME, Circle
from geocast.alertlog import Counts
from geocast.filters import EVERYTHING, Filter
from geocast.frames import JSON, MSGPACK, PING
from geocast.hub import Hub

METRE = 1 / 111_195  # in degrees of latitude
HALF_HOUR_S = 1800
FAR_AWAY = 50_000  # metres: outside


class Subscriber(FakePeer):
    """A FakePeer that knows its row and notes, for all of its town, whose turn it was."""

    def __init__(self, town, name):
        super().__init__(lambda: town.hub.pause(self.row, town.clock.now()))
        self.town, self.name, self.row = town, name, -1

    def write(self, data):
        super().write(data)
        self.town.order.append(self.name)

    def told(self):
        """What it was told since last asked: "a-1/2" for a revision, "-a-1/3" for a cancel, else the type."""
        return [_short(message) for message in self.take()]

    def told_by_write(self):
        """All that it was told, write by write."""
        return [[_short(message) for message in messages(data)] for data in self.writes]


def _short(message):
    if message["type"] == "alert":
        return f"{message['alert']['id']}/{message['alert']['revision']}"
    return f"-{message['id']}/{message['revision']}" if message["type"] == "cancel" else message["type"]


class Town:
    """A hub and its subscribers, each some metres north of where the alerts are; their circles are 1 km."""

    def __init__(self, capacity=64, send=None):
        self.clock = FakeClock()
        self.landed = []
        self.hub = Hub(capacity, lambda flight: self.landed.append(f"{flight.alert.id}/{flight.number}"), send)
        self.order = []  # names, in the order of all writes
        self._names = itertools.count()

    def join(self, metres=0, *, wire=JSON, wanted=EVERYTHING, rights=None, holding=None, places=None):
        """A new session. Its welcome is taken note of in `told`, as "welcome"."""
        peer = Subscriber(self, next(self._names))
        places = [self.place(metres)] if places is None else places
        rights = rights or FakeRights()
        peer.row = self.hub.enter(peer, wire, places, wanted, rights, holding or {}, self.clock.now())
        self.hub.settle(peer.row, {"type": "welcome"}, self.clock.now())
        return peer

    def crowd(self, count):
        """Sessions at 0 m, 1 m, 2 m and so on, which have taken note of their welcome."""
        peers = [self.join(metres) for metres in range(count)]
        for peer in peers:
            peer.take()
        self.order.clear()
        return peers

    @staticmethod
    def place(metres, reach_m=0.0):
        """A place so many metres north."""
        return DALLAS[0] + metres * METRE, DALLAS[1], reach_m

    def move(self, peer, metres):
        """The session says `move`."""
        self.hub.move(peer.row, [self.place(metres)])
        self.hub.settle(peer.row, {"type": "ok"}, self.clock.now())

    def refilter(self, peer, wanted):
        """The session says `filter`."""
        self.hub.refilter(peer.row, wanted)
        self.hub.settle(peer.row, {"type": "ok"}, self.clock.now())

    def regrant(self, peer, *, may_test):
        """The session says `token`."""
        self.hub.regrant(peer.row, FakeRights(may_test))
        self.hub.settle(peer.row, {"type": "ok"}, self.clock.now())

    def deliver(self, *entries):
        """The log gives these entries."""
        for entry in entries:
            self.hub.deliver(entry, self.clock.now())

    def turn(self):
        """One turn of the fan-out."""
        return self.hub.turn(self.clock.now())

    def run(self):
        """Turn until there is nothing more to do."""
        while self.turn():
            pass

    def publish(self, *entries):
        """The log gives these entries, and all is sent."""
        self.deliver(*entries)
        self.run()

    def sweep(self):
        """What depends on time alone."""
        self.hub.sweep(self.clock.now())


@pytest.fixture
def town():
    """A town of 64 rows."""
    return Town()


@pytest.fixture(autouse=True)
def look_at_every_sweep(monkeypatch):
    """Each sweep looks at the times of all sessions; without this, one in a few."""
    monkeypatch.setattr(hub, "LOOK_S", 0.0)


@pytest.fixture
def small_slices(monkeypatch):
    """Turns of two rows, so that a handful of sessions makes a flight of several turns."""
    monkeypatch.setattr(hub, "SLICE", 2)


# ---- who -----------------------------------------------------------------------------------------------------


def test_an_alert_goes_to_those_inside_and_to_nobody_else(town):
    """R1: a place is inside its area."""
    near, edge, outside, nowhere = town.join(0), town.join(999), town.join(1001), town.join(places=[])
    town.publish(a_revision())
    for peer, told in [(near, ["a-1/1"]), (edge, ["a-1/1"]), (outside, []), (nowhere, [])]:
        assert peer.told() == ["welcome", *told]


def test_a_reach_makes_a_place_as_wide_as_it_says(town):
    """D2: `distance <= radius_m + reach`."""
    vague, vaguer = town.join(places=[town.place(1500, 499.0)]), town.join(places=[town.place(1500, 501.0)])
    town.publish(a_revision())
    assert vague.told() == ["welcome"]
    assert vaguer.told() == ["welcome", "a-1/1"]


def test_several_places_inside_are_told_once(town):
    """R2: several places inside, once."""
    peer = town.join(places=[town.place(0), town.place(10), town.place(FAR_AWAY)])
    town.publish(a_revision(area=(Circle(*DALLAS, 1000.0), Circle(*DALLAS, 500.0))))
    assert peer.told() == ["welcome", "a-1/1"]


def test_each_session_is_written_in_its_format(town):
    """S6: one encoded frame serves every session of a format."""
    peers = [town.join(wire=wire) for wire in (JSON, MSGPACK, JSON, MSGPACK)]
    town.publish(a_revision())
    assert [peer.writes[-1][0] for peer in peers] == [0x81, 0x82, 0x81, 0x82]
    assert [peer.told()[-1] for peer in peers] == ["a-1/1"] * 4


def test_a_filter_holds_back_all_but_extreme(town):
    """R1, R7: a filter never holds back `extreme`."""
    peer = town.join(wanted=Filter(frozenset({"arson"}), EXTREME))
    town.publish(a_revision("a-1"), a_revision("a-2", category="arson"), a_revision("a-3", severity="extreme"))
    assert peer.told() == ["welcome", "a-3/1"]


def test_a_new_revision_goes_to_recipients_wherever_they_are_and_whatever_their_filter(town):
    """R1: a recipient is never left with an old version; it comes after those to whom the alert applies."""
    gone, filtered, inside = town.crowd(3)
    town.publish(a_revision())
    town.move(gone, FAR_AWAY)
    town.refilter(filtered, Filter(frozenset({"arson"})))
    late = town.join(5)
    town.order.clear()
    town.publish(a_revision(revision=2))
    for peer in (gone, filtered, inside, late):
        assert peer.told()[-1] == "a-1/2"
    assert town.order == [inside.name, late.name, gone.name, filtered.name]


def test_a_cancel_goes_to_recipients_and_to_nobody_else(town):
    """R4: wherever they are now and whatever their filter."""
    gone, inside = town.crowd(2)
    town.publish(a_revision())
    town.move(gone, FAR_AWAY)
    stranger = town.join(FAR_AWAY)
    filtered = town.join(0, wanted=Filter(frozenset()))
    town.publish(a_cancel())
    assert gone.told() == ["a-1/1", "ok", "-a-1/2"]
    assert inside.told() == ["a-1/1", "-a-1/2"]
    assert stranger.told() == filtered.told() == ["welcome"]


def test_after_its_cancel_nothing_comes_of_an_alert(town):
    """R2: nothing after its cancel."""
    [peer] = town.crowd(1)
    town.publish(a_revision(), a_cancel(), a_revision(revision=3))
    town.move(peer, 1)
    assert town.join(0).told() == ["welcome"]
    assert peer.told() == ["ok"]  # the alert was cancelled before it was written, so nobody is a recipient


def test_tests_exist_only_for_those_who_may_see_them(town):
    """R6: for all others such an id is unknown, in `holding` and `ack` too."""
    tester, other = town.join(rights=FakeRights(may_test=True)), town.join(holding={"t-1": 1, "t-2": 1})
    town.publish(a_revision("t-1", status="test"), a_revision("t-2", status="exercise"))
    claiming = town.join(holding={"t-1": 1})
    town.publish(a_revision("t-1", 2, status="test"))
    assert tester.told() == ["welcome", "t-1/1", "t-2/1", "t-1/2"]
    town.publish(a_cancel("t-1", 3))
    assert tester.told() == ["-t-1/3"]
    assert other.told() == claiming.told() == ["welcome"]


def test_what_was_held_before_it_could_be_seen_was_unknown(town):
    """R6: so when the session may see it, it is sent it like any other."""
    early = town.join(holding={"t-1": 1})
    town.publish(a_revision("t-1", status="test"))
    late = town.join(holding={"t-1": 1})
    for peer in (early, late):
        town.regrant(peer, may_test=True)
        assert peer.told() == ["welcome", "ok", "t-1/1"]


def test_who_loses_the_right_to_tests_is_sent_nothing_more_of_them(town):
    """R6: a session that loses the scope is sent nothing more of them; one that gains it is sent what is live."""
    peer = town.join(rights=FakeRights(may_test=True))
    town.publish(a_revision("t-1", status="test"))
    town.regrant(peer, may_test=False)
    town.publish(a_revision("t-1", 2, status="test"), a_revision("t-2", status="test"))
    assert peer.told() == ["welcome", "t-1/1", "ok"]
    town.hub.acknowledge(peer.row, "t-1", 1, town.clock.now())
    assert town.hub.take_counts() == {"t-1": Counts(1, 0)}
    town.regrant(peer, may_test=True)
    assert peer.told() == ["ok", "t-1/2", "t-2/1"]


def test_a_recipient_that_may_see_tests_again_is_told_wherever_it_is(town):
    """R1, R6: a recipient is never left with an old version that it may see."""
    peer = town.join(rights=FakeRights(may_test=True))
    town.publish(a_revision("t-1", status="test"), a_revision("t-2", status="test"))
    town.regrant(peer, may_test=False)
    town.move(peer, FAR_AWAY)
    town.publish(a_revision("t-1", 2, status="test"), a_cancel("t-2"))
    peer.take()
    town.regrant(peer, may_test=True)
    assert peer.told() == ["ok", "-t-2/2", "t-1/2"]


# ---- order ---------------------------------------------------------------------------------------------------


def test_the_nearest_are_written_first(town):
    """Hub, NEAREST: the nearest go first, in order of distance."""
    metres = [700, 3, 250, 999, 0, 41, 40]
    peers = {town.join(distance).name: distance for distance in metres}
    town.order.clear()
    town.publish(a_revision())
    assert [peers[name] for name in town.order] == sorted(metres)


def test_only_so_many_are_sorted(town, monkeypatch):
    """Hub, NEAREST: the others come behind the nearest, in any order."""
    monkeypatch.setattr(hub, "NEAREST", 3)
    peers = town.crowd(10)
    town.publish(a_revision(area=(Circle(DALLAS[0] + 9 * METRE, DALLAS[1], 1000.0),)))
    assert town.order[:3] == [peers[n].name for n in (9, 8, 7)]
    assert sorted(town.order) == [peer.name for peer in peers]


def test_an_extreme_alert_overtakes_the_rest_of_a_minor_one(town, small_slices):
    """Hub, idea 2: it overtakes at the next slice."""
    peers = town.crowd(6)
    town.deliver(a_revision("minor", severity="minor"))
    town.turn()
    town.deliver(a_revision("extreme", severity="extreme"))
    town.run()
    assert town.landed == ["extreme/1", "minor/1"]
    assert [peer.told_by_write()[1:] for peer in peers] == [[["minor/1"], ["extreme/1"]]] * 2 + [
        [["extreme/1", "minor/1"]]
    ] * 4


def test_a_less_severe_alert_waits_for_its_turn(town, small_slices):
    """Hub, idea 2: the most severe flight first, of two of the same severity the earlier one."""
    town.crowd(6)
    town.deliver(a_revision("b", severity="severe"))
    town.turn()
    town.deliver(a_revision("d", severity="minor"), a_revision("c", severity="severe"))
    town.run()
    assert town.landed == ["b/1", "c/1", "d/1"]


def test_of_the_same_severity_a_cancel_goes_first(town, small_slices):
    """Hub, Flight: a cancel first; between ids there is no order that anybody could rely on (R2)."""
    town.crowd(4)
    town.publish(a_revision("old"))
    town.landed.clear()
    town.deliver(a_revision("new"), a_cancel("old"))
    town.run()
    assert town.landed == ["old/2", "new/1"]


def test_two_alerts_that_are_owed_are_one_write(town, small_slices):
    """Hub, idea 2: a row that owes several alerts gets one write."""
    peers = town.crowd(6)
    town.deliver(a_revision("a-1"), a_revision("a-2"), a_revision("a-3", severity="minor"))
    town.run()
    assert peers[-1].told_by_write() == [["welcome"], ["a-1/1", "a-2/1", "a-3/1"]]
    for peer in peers:
        assert sorted(peer.told()) == ["a-1/1", "a-2/1", "a-3/1"]
    assert town.hub.sends == 18


def test_rows_of_one_slice_may_owe_different_alerts(town, small_slices):
    """Hub, idea 2: each is sent all that it owes, and nothing else."""
    peers = town.crowd(6)
    town.deliver(a_revision("a"))
    town.turn()
    town.deliver(a_revision("b", severity="minor", area=(Circle(*DALLAS, 2.5),)))
    town.turn()
    assert [peer.told() for peer in peers] == [["a/1"], ["a/1"], ["a/1", "b/1"], ["a/1"], [], []]
    town.run()
    assert [peer.told() for peer in peers] == [["b/1"], ["b/1"], [], [], ["a/1"], ["a/1"]]


def test_an_extreme_alert_is_not_kept_waiting_by_what_was_superseded(town):
    """Hub, idea 2: a waiting flight whose alert has changed since hides nobody behind it."""
    town.crowd(1)
    town.deliver(
        a_revision("r", severity="extreme"),
        a_revision("a", severity="extreme"),
        a_revision("s", severity="severe"),
        a_revision("c", severity="extreme"),
        a_revision("a", 2, severity="minor"),
    )
    town.run()
    assert town.landed == ["r/1", "c/1", "s/1", "a/2"]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_a_flight_has_landed_when_all_its_rows_were_looked_at(town, small_slices, rows):
    """Hub: `landed` is told of each flight that has been through all its rows, once."""
    town.crowd(rows)
    town.deliver(a_revision())
    turns = 1 + sum(1 for _ in iter(town.turn, False))
    assert turns == (rows + 1) // 2
    assert town.landed == ["a-1/1"]
    assert not town.turn()


def test_an_alert_that_concerns_nobody_lands_too(town):
    """Hub: there is nothing more to do, and its time is known."""
    town.deliver(a_revision())
    town.clock.advance(0.5)
    assert town.hub.oldest_flight(town.clock.now()) == 0.5
    town.run()
    assert town.landed == ["a-1/1"]
    assert town.hub.oldest_flight(town.clock.now()) == 0.0


# ---- more than 64 at once ------------------------------------------------------------------------------------


def test_more_alerts_than_bits_may_be_under_way(town, small_slices):
    """Hub, FLIGHTS: those that find no bit wait; each session gets each alert once."""
    peers = town.crowd(64)
    for n in range(150):
        town.deliver(a_revision(f"a-{n}", severity="minor"))
        town.turn()
    town.run()
    expected = sorted(f"a-{n}/1" for n in range(150))
    for peer in peers:
        assert sorted(peer.told()) == expected
    assert len(town.landed) == 150
    assert town.hub.sends == 64 * 150


def test_bits_are_kept_for_extreme_alerts(monkeypatch):
    """Hub, FLIGHTS_BELOW_EXTREME: however many others wait, an extreme alert goes at the next slice."""
    monkeypatch.setattr(hub, "SLICE", 1)
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
        told = peer.told()
        assert len(told) == len(set(told))
    assert town.hub.sends == 71 * 100


# ---- superseded, cancelled, expired --------------------------------------------------------------------------


def test_a_revision_that_is_superseded_before_it_is_written_is_not_sent(town):
    """Rule 1, R2: and makes nobody a recipient."""
    peer = town.join(0)
    town.publish(a_revision(), a_revision(revision=2), a_revision(revision=3, area=(Circle(0.0, 0.0, 100.0),)))
    assert peer.told() == ["welcome"]
    assert town.landed == ["a-1/3"]


def test_a_flight_is_grounded_by_a_new_revision(town, small_slices):
    """Rule 1, R2: who was not reached yet gets the new one only, who was gets both, in rising order."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.publish(a_revision(revision=2))
    assert [peer.told() for peer in peers] == [["a-1/1", "a-1/2"]] * 2 + [["a-1/2"]] * 4
    assert town.landed == ["a-1/2"]
    assert town.hub.take_counts() == {"a-1": Counts(8, 0)}


def test_a_flight_is_grounded_by_a_cancel(town, small_slices):
    """Rule 1, R4: who was reached gets the cancel; the others hear nothing of it."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    town.publish(a_cancel())
    assert [peer.told() for peer in peers] == [["a-1/1", "-a-1/2"]] * 2 + [[]] * 4


@pytest.mark.parametrize("which", ["wall", "monotonic"])
def test_a_flight_is_grounded_by_the_end(town, small_slices, which):
    """Rule 1, E1: nothing is sent after `expires_at`, by no path; either clock will do."""
    peers = town.crowd(6)
    town.deliver(a_revision())
    town.turn()
    if which == "wall":
        town.clock.wall_ms += HALF_HOUR_S * 1000
    else:
        town.clock.monotonic += HALF_HOUR_S
    town.run()
    town.move(peers[5], 1)
    town.hub.resume(peers[4].row, town.clock.now())
    assert [peer.told() for peer in peers] == [["a-1/1"]] * 2 + [[]] * 3 + [["ok"]]
    assert town.landed == []


def test_what_has_ended_stays_ended_wherever_the_clocks_go(town):
    """Rule 1, E1: a clock that is set forward and back again sends nothing that a sweep has let go of."""
    [peer] = town.crowd(1)
    town.deliver(a_revision())
    town.clock.wall_ms += HALF_HOUR_S * 1000
    town.sweep()
    town.clock.wall_ms -= HALF_HOUR_S * 1000
    town.run()
    assert peer.told() == []


def test_what_ends_while_it_waits_is_not_sent(town, small_slices):
    """Rule 1, section 3: the flight that has no bit yet too; and those behind it are not kept waiting."""
    peers = town.crowd(4)
    town.deliver(a_revision("a"), a_revision("b", expires_at=a_revision().issued_at + 1000), a_revision("c"))
    town.clock.advance(1)
    town.run()
    assert [sorted(peer.told()) for peer in peers] == [["a/1", "c/1"]] * 4


def test_a_cancel_is_not_sent_after_the_end(town, small_slices):
    """E1: nothing is sent after `expires_at`."""
    peers = town.crowd(4)
    town.publish(a_revision())
    town.deliver(a_cancel())
    town.turn()
    town.clock.advance(HALF_HOUR_S)
    town.run()
    assert [peer.told() for peer in peers] == [["a-1/1", "-a-1/2"]] * 2 + [["a-1/1"]] * 2


def test_a_bit_that_is_given_back_sends_nothing_old(town, small_slices):
    """Rule 1: a flight's bit may be the next one's; what was owed under it is not."""
    peers = town.crowd(4)
    town.deliver(a_revision("a"))
    town.turn()
    town.deliver(a_cancel("a"))
    town.publish(a_revision("b"))
    assert [peer.told() for peer in peers] == [["a/1", "-a/2", "b/1"]] * 2 + [["b/1"]] * 2


def test_a_bit_that_another_flight_takes_over_owes_nobody_anything(town, small_slices):
    """Rule 1: who was still to be sent what was grounded is not sent what flies under its bit now."""
    peers = town.crowd(6)
    town.deliver(a_revision("a"))
    town.turn()
    town.publish(a_cancel("a"))
    town.deliver(a_revision("b", area=(Circle(*DALLAS, 3.5),)))
    town.turn()
    town.deliver(a_revision("c", severity="extreme"))
    town.run()
    assert [peer.told() for peer in peers] == [["a/1", "-a/2", "b/1", "c/1"]] * 2 + [["c/1", "b/1"]] * 2 + [["c/1"]] * 2


# ---- slow clients --------------------------------------------------------------------------------------------


def test_a_paused_session_is_sent_nothing_and_then_what_it_is_owed(town):
    """Rule 3, section 3: when it has drained, what it is owed is judged anew, newest revision only, in one write."""
    slow, other = town.crowd(2)
    town.hub.pause(slow.row, town.clock.now())
    town.publish(a_revision(), a_revision("a-2", severity="extreme"))
    town.publish(a_revision(revision=2))
    assert slow.told() == []
    assert town.hub.slow() == 1
    town.hub.resume(slow.row, town.clock.now())
    assert slow.told_by_write()[1:] == [["a-2/1", "a-1/2"]]
    assert sorted(other.told()) == ["a-1/1", "a-1/2", "a-2/1"]
    assert town.hub.slow() == 0
    town.run()
    assert len(slow.writes) == 2


def test_a_write_that_does_not_go_out_pauses_the_session(town, small_slices):
    """Rule 3: the transport says so from inside the write; the next alert waits."""
    slow, *others = town.crowd(3)
    slow.clogged = True
    town.publish(a_revision("a-1"))
    town.publish(a_revision("a-2"))
    assert slow.told() == ["a-1/1"]
    slow.clogged = False
    town.hub.resume(slow.row, town.clock.now())
    assert slow.told() == ["a-2/1"]
    assert all(peer.told() == ["a-1/1", "a-2/1"] for peer in others)


def test_a_session_that_is_still_clogged_waits_again(town):
    """Rule 3: what `resume` sends may not go out either."""
    [slow] = town.crowd(1)
    slow.clogged = True
    town.publish(a_revision("a-1"))
    town.deliver(a_revision("a-2"))
    town.hub.resume(slow.row, town.clock.now())
    assert slow.told() == ["a-1/1", "a-2/1"]
    town.publish(a_revision("a-3"))
    assert slow.told() == []
    assert town.hub.slow() == 1


def test_what_ended_while_a_session_was_slow_is_not_sent(town):
    """Section 3: superseded, cancelled or expired meanwhile; a recipient is told of the cancel."""
    [slow] = town.crowd(1)
    town.publish(a_revision("known"))
    town.hub.pause(slow.row, town.clock.now())
    town.publish(a_revision("cancelled"), a_revision("short", expires_at=a_revision().issued_at + 1000))
    town.publish(a_cancel("cancelled"), a_cancel("known"))
    town.clock.advance(1)
    town.hub.resume(slow.row, town.clock.now())
    assert slow.told() == ["known/1", "-known/2"]


def test_a_session_that_drains_in_the_middle_of_a_flight_is_told_once(town, small_slices):
    """Rule 3, R2: what it owes was taken from it, so the flight does not send it again."""
    *_, slow = peers = town.crowd(6)
    town.hub.pause(slow.row, town.clock.now())
    town.deliver(a_revision())
    town.turn()
    town.hub.resume(slow.row, town.clock.now())
    town.run()
    assert [peer.told() for peer in peers] == [["a-1/1"]] * 6


def test_a_new_session_does_not_inherit_the_slowness_of_the_one_before(town):
    """Rule 3, Rule 5: slowness is a connection's."""
    [slow] = town.crowd(1)
    town.hub.pause(slow.row, town.clock.now())
    town.hub.leave(slow.row)
    town.sweep()
    peer = town.join(0)
    assert peer.row == slow.row
    town.publish(a_revision())
    assert peer.told() == ["welcome", "a-1/1"]
    assert town.hub.slow() == 0


def test_a_session_is_owed_nothing_when_it_drains_elsewhere(town):
    """Rule 3: it is judged by what is now."""
    [slow] = town.crowd(1)
    town.hub.pause(slow.row, town.clock.now())
    town.publish(a_revision())
    town.hub.move(slow.row, [town.place(FAR_AWAY)])
    town.hub.resume(slow.row, town.clock.now())
    assert len(slow.writes) == 1


# ---- late joiners --------------------------------------------------------------------------------------------


def test_what_is_live_follows_the_welcome_in_the_same_write(town):
    """Rule 4, R3: exactly `live` many, nothing between: cancels first, then the most severe first."""
    town.publish(
        a_revision("minor", severity="minor"),
        a_revision("far", area=(Circle(0.0, 0.0, 1000.0),)),
        a_revision("extreme", severity="extreme"),
        a_revision("held", revision=2),
        a_revision("severe"),
        a_revision("over"),
        a_cancel("over"),
        a_revision("unknown"),
        a_cancel("unknown"),
    )
    peer = town.join(holding={"over": 1, "held": 2})
    assert peer.told_by_write() == [["welcome", "-over/2", "extreme/1", "severe/1", "minor/1"]]
    assert messages(peer.writes[0])[0] == {"type": "welcome", "live": 4}
    town.run()
    assert len(peer.writes) == 1


def test_who_joins_before_the_first_turn_is_told_once(town):
    """R2, R3: by its welcome, and not by the fan-out that has yet to start."""
    town.deliver(a_revision())
    peer = town.join(0)
    town.run()
    assert peer.told_by_write() == [["welcome", "a-1/1"]]
    assert town.hub.take_counts() == {"a-1": Counts(1, 0)}


def test_a_late_joiner_is_a_recipient_like_any_other(town):
    """R1, R3: and is counted."""
    town.publish(a_revision())
    peer = town.join(0)
    town.publish(a_revision(revision=2))
    town.hub.acknowledge(peer.row, "a-1", 2, town.clock.now())
    assert peer.told() == ["welcome", "a-1/1", "a-1/2"]
    assert town.hub.take_counts() == {"a-1": Counts(2, 1)}


@pytest.mark.parametrize(
    ("held", "told", "later"),
    [
        (1, ["welcome", "a-1/2"], ["a-1/3", "-a-1/4"]),
        (2, ["welcome"], ["a-1/3", "-a-1/4"]),
        (3, ["welcome"], ["-a-1/4"]),
        (9, ["welcome"], ["-a-1/4"]),
    ],
)
def test_who_comes_back_is_told_the_difference(town, held, told, later):
    """R5: the table of what the node knows against what is held; a recipient from now on, wherever it is."""
    town.publish(a_revision(), a_revision(revision=2))
    peer = town.join(FAR_AWAY, holding={"a-1": held}, wanted=Filter(frozenset()))
    assert peer.told() == told
    town.publish(a_revision(revision=3))
    town.publish(a_cancel(revision=4))
    assert peer.told() == later


def test_who_comes_back_after_the_end_is_told_nothing(town):
    """R5: expired, or unknown: nothing, and no sign of which."""
    town.publish(a_revision())
    town.clock.advance(HALF_HOUR_S)
    peer = town.join(holding={"a-1": 1, "a-2": 1})
    assert peer.told() == ["welcome"]


def test_who_comes_back_after_a_cancel_is_told_once(town):
    """R5: `cancel`, and no recipient from now on."""
    town.publish(a_revision(), a_cancel())
    peer = town.join(holding={"a-1": 1})
    town.move(peer, 1)
    town.hub.pause(peer.row, town.clock.now())
    town.hub.resume(peer.row, town.clock.now())
    assert peer.told() == ["welcome", "-a-1/2", "ok"]


@pytest.mark.parametrize(("held", "told"), [(1, ["a-1/2"]), (2, []), (3, [])])
def test_an_unknown_id_is_judged_when_its_entry_comes(town, held, told):
    """R5: remembered for 30 s, in case the node is behind, and judged by the table then."""
    peer = town.join(FAR_AWAY, holding={"a-1": held})
    peer.take()
    town.clock.advance(29.9)
    town.sweep()
    peer.take()
    town.publish(a_revision(revision=2))
    assert peer.told() == told
    town.publish(a_cancel(revision=4))
    assert peer.told() == ["-a-1/4"]


def test_a_claim_of_a_session_that_has_gone_is_not_the_next_ones(town):
    """Rule 5, R5: the claim was that of another connection."""
    peer = town.join(FAR_AWAY, holding={"a-1": 1})
    town.hub.leave(peer.row)
    town.sweep()
    next_one = town.join(FAR_AWAY)
    assert next_one.row == peer.row
    town.publish(a_revision(revision=2))
    assert next_one.told() == ["welcome"]


def test_a_client_that_comes_back_twice_is_remembered_from_the_second_time(town):
    """R5: 30 s from its last `hello`, though it has the same row as before."""
    first = town.join(FAR_AWAY, holding={"a-1": 1})
    town.hub.leave(first.row)
    town.sweep()
    town.clock.advance(20)
    second = town.join(FAR_AWAY, holding={"a-1": 1})
    assert second.row == first.row
    town.clock.advance(10)
    town.sweep()
    town.publish(a_revision(revision=2))
    assert second.told() == ["welcome", "a-1/2"]


# ---- move, filter --------------------------------------------------------------------------------------------


def test_walking_in_and_out_sends_nothing_twice(town):
    """R3: walking in and out of an area again and again sends nothing twice."""
    peer = town.join(FAR_AWAY)
    town.publish(a_revision())
    for metres in (0, FAR_AWAY, 5, FAR_AWAY, 6):
        town.move(peer, metres)
    assert peer.told() == ["welcome", "ok", "a-1/1", "ok", "ok", "ok", "ok"]


def test_a_filter_that_is_opened_lets_in_what_is_live(town):
    """R3: after `filter`, every live alert that now applies."""
    peer = town.join(wanted=Filter(frozenset({"arson"})))
    town.publish(a_revision("a-1"), a_revision("a-2", category="arson"))
    town.refilter(peer, EVERYTHING)
    assert peer.told() == ["welcome", "a-2/1", "ok", "a-1/1"]
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
    assert leaver.told() == ["ok"]
    assert stayer.told() == ["ok", "a-1/1"]
    assert arriver.told() == ["welcome", "ok", "a-1/1"]
    assert [peer.told() for peer in peers[:4]] == [["a-1/1"]] * 4
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
    assert walker.told() == ["ok", "a-1/2"]
    town.deliver(a_cancel(revision=3))
    town.turn()
    town.move(walker, 0)
    town.run()
    assert walker.told() == ["ok", "-a-1/3"]


def test_a_session_may_have_more_or_fewer_places_after_a_move(town):
    """Section 5, messages: `places`, the whole list; latest ones only."""
    peer = town.join(places=[town.place(FAR_AWAY + n) for n in range(3)])
    assert town.hub.places == 3
    for count in (1, 8, 0, 2):
        town.hub.move(peer.row, [town.place(FAR_AWAY * (n + 1)) for n in range(count)])
        assert town.hub.places == count
    town.hub.move(peer.row, [town.place(FAR_AWAY), town.place(1)])
    town.publish(a_revision())
    assert peer.told() == ["welcome", "a-1/1"]


# ---- sessions come and go ------------------------------------------------------------------------------------


def test_a_row_is_used_again_only_after_what_it_was_told_is_forgotten():
    """Rule 5, R2: the next session in the row is sent what is live, and is no recipient of what it never saw."""
    town = Town(capacity=1)
    first = town.join(0)
    town.publish(a_revision())
    town.hub.leave(first.row)
    second = town.join(0)
    assert second.row == first.row
    assert second.told() == ["welcome", "a-1/1"]
    town.hub.leave(second.row)
    town.sweep()
    third = town.join(FAR_AWAY)
    town.publish(a_revision(revision=2))
    town.publish(a_cancel(revision=3))
    assert third.told() == ["welcome"]
    assert first.told() == ["welcome", "a-1/1"]


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
    assert leaver.told() == []
    assert far.told() == ["welcome"]
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
    assert near.told() == ["welcome", "a-1/1"]


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
        town.refilter(peer, Filter(frozenset({f"d{n}"})))
        town.hub.leave(peer.row)
        town.sweep()
    assert len(town.hub._filters.passing("robbery", 0)) <= 3


def test_a_write_that_fails_does_not_cost_the_others(town, small_slices):
    """Hub: a transport that has died and has not said so yet."""
    peers = town.crowd(6)
    peers[0].broken = peers[3].broken = peers[5].broken = True
    town.publish(a_revision("a-1"), a_revision("a-2"))
    for n in (1, 2, 4):
        assert sorted(peers[n].told()) == ["a-1/1", "a-2/1"]
    assert len(town.landed) == 2
    town.clock.advance(25)
    town.sweep()
    assert [peers[n].told() for n in (1, 2, 4)] == [["<ping>"]] * 3


# ---- many sockets at once ------------------------------------------------------------------------------------


class Sockets:
    """Stands in for the kernel: takes a frame for many descriptors, and sends to each what it has room for."""

    def __init__(self):
        self.room = {}  # descriptor -> bytes, or a negative errno; all of it if left out
        self.calls = []

    def send(self, descriptors, data):
        self.calls.append((descriptors.tolist(), data))
        return np.array([self.room.get(each, len(data)) for each in descriptors.tolist()], np.int32)


@pytest.fixture
def sockets():
    return Sockets()


def a_crowd_with_sockets(sockets, count, wires=(JSON,)):
    town = Town(send=sockets.send)
    crowd = []
    for metres in range(count):
        with patched_descriptor(100 + metres):
            crowd.append(town.join(metres, wire=wires[metres % len(wires)]))
    for peer in crowd:
        peer.take()
    return town, crowd


@contextmanager
def patched_descriptor(number):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakePeer, "descriptor", number)
        yield


def test_a_slice_is_one_call_for_each_wire_format(sockets):
    """A turn sends a frame to all of its rows at once."""
    town, crowd = a_crowd_with_sockets(sockets, 5, (JSON, MSGPACK))
    town.publish(a_revision("a"))
    frames = town.hub.live.get("a", town.clock.now()).frames
    assert sockets.calls == [([100, 102, 104], frames[JSON.number]), ([101, 103], frames[MSGPACK.number])]
    assert [peer.take() for peer in crowd] == [[]] * 5  # nothing is left to the transports
    assert town.hub.sends == 5


def test_what_was_not_sent_whole_is_left_to_the_transport(sockets):
    """Nobody inside is missed because the kernel took a part, or nothing."""
    town, crowd = a_crowd_with_sockets(sockets, 4)
    sockets.room = {101: 10, 102: -errno.EAGAIN}
    town.publish(a_revision("a"))
    frame = town.hub.live.get("a", town.clock.now()).frames[JSON.number]
    assert [peer.writes[1:] for peer in crowd] == [[], [frame[10:]], [frame], []]


def test_a_slow_session_and_one_that_has_left_are_not_sent_to(sockets):
    """Rule 3; and a descriptor may be another's once its session has left."""
    town, crowd = a_crowd_with_sockets(sockets, 4)
    town.hub.pause(crowd[1].row, town.clock.now())
    town.hub.leave(crowd[2].row)
    town.publish(a_revision("a"))
    assert [descriptors for descriptors, _ in sockets.calls] == [[100, 103]]


def test_beyond_the_nearest_sockets_are_sent_to_in_the_order_of_their_age(sockets, monkeypatch):
    """ADR 6: the order in which the kernel made them."""
    monkeypatch.setattr(hub, "NEAREST", 2)
    town = Town(send=sockets.send)
    for metres, descriptor in enumerate([108, 107, 105, 106, 104, 103]):
        with patched_descriptor(descriptor):
            town.join(metres)
    town.publish(a_revision("a"))
    assert sockets.calls[0][0] == [108, 107, 103, 104, 105, 106]


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


# ---- what depends on time alone ------------------------------------------------------------------------------


def test_a_session_ends_with_its_token(town):
    """Section 6: 4401 within a second of its token's expiry, unless it sent a fresh one."""
    deadline = town.clock.monotonic + 60
    ending, renewed = (town.join(rights=FakeRights(deadline=deadline)) for _ in range(2))
    town.clock.advance(59.9)
    town.sweep()
    assert ending.closed is None
    town.hub.regrant(renewed.row, FakeRights(deadline=deadline + 60))
    town.clock.advance(0.1)
    town.sweep()
    assert ending.closed is closing.BAD_TOKEN
    assert renewed.closed is None


def test_a_session_that_is_slow_for_30_s_without_a_break_is_closed(town):
    """W4: 4420."""
    slow, pausing = town.crowd(2)
    for peer in (slow, pausing):
        town.hub.pause(peer.row, town.clock.now())
    town.clock.advance(20)
    town.hub.resume(pausing.row, town.clock.now())
    town.hub.pause(pausing.row, town.clock.now())
    town.clock.advance(9.9)
    town.sweep()
    assert slow.closed is None
    town.clock.advance(0.1)
    town.sweep()
    assert slow.closed is closing.SLOW
    assert pausing.closed is None


def test_a_connection_from_which_nothing_came_for_60_s_is_dropped(town):
    """W8: the server aborts one from which no byte came for 60 s, unless it was not read."""
    silent, talking, slow = town.crowd(3)
    town.clock.advance(40)
    town.hub.heard(talking.row, town.clock.now())
    town.hub.pause(slow.row, town.clock.now())
    town.clock.advance(20)
    town.sweep()
    assert (silent.aborted, talking.aborted, slow.aborted) == (True, False, False)
    town.hub.resume(slow.row, town.clock.now())
    town.clock.advance(59.9)
    town.sweep()
    assert (talking.aborted, slow.aborted) == (True, False)
    town.clock.advance(0.1)
    town.sweep()
    assert slow.aborted


def test_a_connection_to_which_nothing_was_written_is_pinged(town):
    """W8: for `heartbeat_s`; whatever is written counts, and a slow one is not pinged."""
    idle, told, replied, slow = town.crowd(4)
    town.clock.advance(10)
    town.hub.reply(replied.row, {"type": "pong"}, town.clock.now())
    town.publish(a_revision(area=(Circle(DALLAS[0] + METRE, DALLAS[1], 0.5),)))
    town.hub.pause(slow.row, town.clock.now())
    town.clock.advance(15)
    town.sweep()
    assert [peer.told() for peer in (idle, told, replied, slow)] == [["<ping>"], ["a-1/1"], ["pong"], []]
    town.clock.advance(10)
    town.sweep()
    assert [peer.told() for peer in (idle, told, replied, slow)] == [[], ["<ping>"], ["<ping>"], []]


def test_a_client_that_only_listens_to_many_alerts_is_not_taken_for_dead(town):
    """W8: frames are written all the time, so it is asked for a sign of life before the 60 s are over."""
    (listener,) = town.crowd(1)
    for n in range(8):
        town.clock.advance(10)
        town.publish(a_revision(f"a-{n}"))
        town.sweep()
        if "<ping>" in listener.told():
            town.hub.heard(listener.row, town.clock.now())  # its pong
    assert not listener.aborted
    assert sum(data == PING for data in listener.writes) == 2


def test_pings_are_spread_over_sweeps(town, monkeypatch):
    """Hub, PINGS: in one sweep so many; those that are left have their turn in the next."""
    monkeypatch.setattr(hub, "PINGS", 4)
    peers = town.crowd(10)
    town.clock.advance(25)
    for pinged in (4, 8, 10, 10):
        town.sweep()
        assert sum(len(peer.writes) == 2 for peer in peers) == pinged


def test_a_sweep_lets_go_of_what_has_ended(town):
    """Section 1: live is `now < expires_at`."""
    town.publish(a_revision())
    town.clock.advance(HALF_HOUR_S)
    town.sweep()
    assert len(town.hub.live) == 0
    assert town.hub.take_counts() == {}
