"""The sweep (periodic check): tokens that expire, slow and silent sessions, pings, and the end of an alert."""

import pytest
from stream.hub.town import HALF_HOUR_S, METRE, Town
from support.fakes import DALLAS, FakeRights, a_revision

from geocast.model import close_codes
from geocast.model.alert import Circle
from geocast.stream import hub
from geocast.wire.frames import PING


def test_session_is_closed_when_its_token_expires(town):
    """The session ends with 4401 within a second, unless the client has sent a new token (T6)."""
    deadline = town.clock.monotonic + 60
    ending, renewed = (town.join(rights=FakeRights(deadline=deadline)) for _ in range(2))
    town.clock.advance(59.9)
    town.sweep()
    assert ending.closed is None
    town.hub.set_rights(renewed.row, FakeRights(deadline=deadline + 60))
    town.clock.advance(0.1)
    town.sweep()
    assert ending.closed is close_codes.BAD_TOKEN
    assert renewed.closed is None


def test_session_that_is_slow_for_30_s_without_a_break_is_closed(town):
    """The session is closed with 4420 (W4)."""
    slow, pausing = town.crowd(2)
    for peer in (slow, pausing):
        town.hub.slowed(peer.row, town.clock.now())
    town.clock.advance(20)
    town.hub.on_drained(pausing.row, town.clock.now())
    town.hub.slowed(pausing.row, town.clock.now())
    town.clock.advance(9.9)
    town.sweep()
    assert slow.closed is None
    town.clock.advance(0.1)
    town.sweep()
    assert slow.closed is close_codes.SLOW
    assert pausing.closed is None


def test_connection_silent_for_60_s_is_dropped_unless_it_is_slow(town):
    """A slow connection is not read, so its silence proves nothing (W8)."""
    silent, talking, slow = town.crowd(3)
    town.clock.advance(40)
    town.hub.note_read(talking.row, town.clock.now())
    town.hub.slowed(slow.row, town.clock.now())
    town.clock.advance(20)
    town.sweep()
    assert (silent.aborted, talking.aborted, slow.aborted) == (True, False, False)
    town.hub.on_drained(slow.row, town.clock.now())
    town.clock.advance(59.9)
    town.sweep()
    assert (talking.aborted, slow.aborted) == (True, False)
    town.clock.advance(0.1)
    town.sweep()
    assert slow.aborted


def test_connection_without_a_write_for_one_heartbeat_is_pinged(town):
    """Any write counts, and a slow connection is not pinged (W8)."""
    idle, told, replied, slow = town.crowd(4)
    town.clock.advance(10)
    town.hub.reply(replied.row, {"type": "pong"}, town.clock.now())
    town.publish(a_revision(area=(Circle(DALLAS[0] + METRE, DALLAS[1], 0.5),)))
    town.hub.slowed(slow.row, town.clock.now())
    town.clock.advance(15)
    town.sweep()
    assert [peer.received() for peer in (idle, told, replied, slow)] == [["<ping>"], ["a-1/1"], ["pong"], []]
    town.clock.advance(10)
    town.sweep()
    assert [peer.received() for peer in (idle, told, replied, slow)] == [[], ["<ping>"], ["<ping>"], []]


def test_session_about_to_be_sent_an_alert_is_not_pinged(town):
    """The session is sent an alert in one of the next turns (W8)."""
    first, second = town.crowd(2)
    town.clock.advance(25)
    town.hub.fanout.deliver(a_revision(), town.clock.now())
    assert town.hub.turn(town.clock.now(), 1)
    town.sweep()
    town.run()
    assert [first.received(), second.received()] == [["a-1/1"]] * 2


@pytest.mark.parametrize("heartbeat_s", [25, 40, 55])
def test_times_until_ping_and_drop_follow_the_configured_heartbeat(heartbeat_s):
    """A session is pinged after `heartbeat_s` without a write, and dropped 35 s later if no byte has arrived (W8)."""
    town = Town(heartbeat_s=heartbeat_s)
    (quiet,) = town.crowd(1)
    town.clock.advance(heartbeat_s - 0.1)
    town.sweep()
    assert quiet.received() == []
    town.clock.advance(0.1)
    town.sweep()
    assert quiet.received() == ["<ping>"]
    town.clock.advance(34.9)
    town.sweep()
    assert not quiet.aborted
    town.clock.advance(0.1)
    town.sweep()
    assert quiet.aborted


def test_client_that_only_listens_is_pinged_before_it_would_be_dropped(town):
    """A session that is sent alerts all the time is never idle, and no byte arrives from its client (W8)."""
    (listener,) = town.crowd(1)
    for n in range(8):
        town.clock.advance(10)
        town.publish(a_revision(f"a-{n}"))
        town.sweep()
        if "<ping>" in listener.received():
            town.hub.note_read(listener.row, town.clock.now())  # its pong
    assert not listener.aborted
    assert sum(data == PING for data in listener.writes) == 2


def test_pings_beyond_the_limit_follow_at_the_next_sweep(town, monkeypatch):
    """Each check writes at most PINGS pings. While more are due, it is repeated at each sweep."""
    monkeypatch.setattr(hub, "PINGS", 4)
    monkeypatch.setattr(hub, "LOOK_S", 60.0)
    peers = town.crowd(10)
    town.clock.advance(25)
    for pinged, is_behind in ((4, True), (8, True), (10, False), (10, False)):
        town.sweep()
        assert sum(len(peer.writes) == 2 for peer in peers) == pinged
        assert town.hub.behind is is_behind


def test_periodic_check_forgets_an_alert_that_has_ended(town):
    """An alert is live while `now < expires_at` (section 1)."""
    town.publish(a_revision())
    town.clock.advance(HALF_HOUR_S)
    town.sweep()
    assert len(town.hub.fanout.live) == 0
    assert town.hub.fanout.live.take_counts() == {}
