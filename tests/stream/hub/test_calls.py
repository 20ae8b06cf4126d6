"""Calls in the hub: their messages come before those of alerts, in the same write (hub, Rule 3)."""

import pytest
from calls.quarter import NEAR, Quarter
from stream.hub.town import Town
from support.fakes import FakeRights, a_cancel, a_revision

from geocast.matching.filters import Filter
from geocast.model.alert import EXTREME, Circle
from geocast.stream.hub import Hub

AREA = (Circle(NEAR.lat, NEAR.lng, 5_000.0),)
HERE = (NEAR.lat, NEAR.lng, 0.0)


class Both(Town):
    """A town whose hub has calls, which a `Quarter` opens and ends."""

    def __init__(self):
        super().__init__()
        self.quarter = Quarter()
        self.quarter.clock = self.clock
        self.hub = Hub(64, self._finished, None, 25, self.quarter.hub)
        self.quarter.run = self.run

    def responder(self, sub="r-1", quals=("cpr",), here=0, **how):
        """A session on duty where calls are."""
        return self.join(rights=FakeRights(sub=sub, quals=frozenset(quals)), places=[HERE], here=here, **how)

    def go(self, peer, here):
        """It says `move`, with or without a place that is `here`."""
        self.hub.move(peer.row, [HERE], here)
        self.hub.reply_with_owed(peer.row, {"type": "ok"}, self.clock.now())


@pytest.fixture
def both():
    """A town with calls."""
    return Both()


def kinds(peer):
    """Return the types of all messages of a session, as one list for each write."""
    return peer.told_by_write()


def test_call_is_sent_before_alerts_that_are_still_waiting(both, small_slices):
    """The call is sent before an extreme alert, too (section 13)."""
    crowd = [both.responder(f"r-{n}") for n in range(6)]
    both.deliver(a_revision(area=AREA, severity="extreme"))
    both.turn()
    both.quarter.run = lambda: None
    both.quarter.open()
    for peer in crowd:
        peer.take()
    both.run()
    late = [peer.received() for peer in crowd[2:]]
    assert late == [["call", "a-1/1"]] * 4


def test_live_field_of_reply_counts_the_calls_and_alerts_that_follow(both):
    """Calls come first, then alerts, in one write (RJ3, M17)."""
    both.quarter.open()
    both.publish(a_revision(area=AREA))
    peer = both.responder(here=None)
    both.go(peer, 0)
    both.go(peer, None)
    both.go(peer, 0)
    assert kinds(peer) == [["welcome", "a-1/1"], ["ok", "call"], ["ok"], ["ok"]]
    assert [message.get("live") for message in peer.take() if message["type"] == "ok"] == [1, 0, 0]
    assert kinds(both.responder("r-2")) == [["welcome", "call", "a-1/1"]]


def test_filter_for_alerts_does_not_stop_a_call(both):
    """Filters are for alerts only (RQ6)."""
    peer = both.responder(wanted=Filter(frozenset({"flood"}), EXTREME))
    both.quarter.open()
    assert peer.received() == ["welcome", "call"]


def test_session_whose_new_token_has_a_qualification_is_sent_calls(both):
    """Calls follow the `ok` of `token`, too (RJ3, RJ6)."""
    peer = both.responder(quals=())
    both.quarter.open()
    both.hub.set_rights(peer.row, FakeRights(sub="r-1", quals=frozenset({"medic"})))
    both.hub.reply_with_owed(peer.row, {"type": "ok"}, both.clock.now())
    assert kinds(peer)[-1] == ["ok", "call"]


def test_session_that_is_no_longer_slow_is_sent_calls_before_alerts(both):
    """Call and alerts are sent in one write (E3)."""
    peer = both.responder()
    peer.full = True
    both.publish(a_revision("a-0", area=AREA))
    both.quarter.open()
    both.publish(a_revision(area=AREA), a_cancel("a-0"))
    peer.take()
    peer.full = False
    both.hub.on_drained(peer.row, both.clock.now())
    assert peer.received() == ["call", "-a-0/2", "a-1/1"]


def test_call_reaches_other_sessions_although_one_transport_fails(both):
    """The transport raises until `connection_lost` is called."""
    dead, alive = both.responder(), both.responder("r-2")
    dead.broken = True
    both.quarter.open()
    assert alive.received()[-1] == "call"


def test_accept_of_an_ended_call_is_answered_with_standdown(both):
    """The answer is `standdown`; `decline` and `report` have no answer (M18, M23)."""
    peer = both.responder()
    both.quarter.open()
    both.quarter.end()
    peer.take()
    both.hub.accept(peer.row, "c-1", None, both.clock.now())
    assert peer.take() == [{"type": "standdown", "id": "c-1", "reason": "over"}]
    both.hub.calls.decline(peer.row, "c-1")
    both.hub.calls.report(peer.row, "c-1", "arrived", both.clock.now())
    assert peer.take() == []


def test_accept_on_a_node_without_calls_is_answered_with_standdown():
    """Such a node knows no call (M18, M23)."""
    town = Town()
    peer = town.join()
    peer.take()
    town.hub.accept(peer.row, "c-1", 5, town.clock.now())
    town.hub.calls.decline(peer.row, "c-1")
    town.hub.calls.report(peer.row, "c-1", "aed", town.clock.now())
    assert peer.take() == [{"type": "standdown", "id": "c-1", "reason": "over"}]


def test_acks_of_calls_and_of_alerts_are_counted_separately(both):
    """`ack` means shown, for a call too (M5)."""
    peer = both.responder()
    both.quarter.open()
    both.publish(a_revision(area=AREA))
    for name in ("c-1", "a-1", "c-1"):
        both.hub.acknowledge(peer.row, name, 1, both.clock.now())
    assert (both.quarter.hub.calls.take_counts()["c-1"].acked, both.hub.fanout.live.acks) == (1, 1)


def test_session_that_disconnects_is_no_longer_on_duty(both):
    """A new session may get the same row of the hub's tables at once, and must not inherit the duty (RZ7)."""
    peer = both.responder()
    assert both.quarter.hub.responders.on_duty == 1
    both.hub.leave(peer.row)
    assert both.quarter.hub.responders.on_duty == 0
    both.quarter.open()
    both.sweep()
    assert not both.hub.busy
