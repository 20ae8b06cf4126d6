"""What depends on time alone: tokens, slowness, silence, pings, the end of an alert."""

import pytest
from stream.hub.town import HALF_HOUR_S, METRE, Town
from support.fakes import DALLAS, FakeRights, a_revision

from geocast.model import close_codes
from geocast.model.alert import Circle
from geocast.stream import hub
from geocast.wire.frames import PING


def test_a_session_ends_with_its_token(town):
    """Section 6: 4401 within a second of its token's expiry, unless it sent a fresh one."""
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


def test_a_session_that_is_slow_for_30_s_without_a_break_is_closed(town):
    """W4: 4420."""
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


def test_a_connection_from_which_nothing_came_for_60_s_is_dropped(town):
    """W8: the server aborts one from which no byte came for 60 s, unless it was not read."""
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


def test_a_connection_to_which_nothing_was_written_is_pinged(town):
    """W8: for `heartbeat_s`; whatever is written counts, and a slow one is not pinged."""
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


def test_whom_an_alert_is_on_its_way_to_is_not_pinged(town):
    """W8: it is written to by the next turns."""
    first, second = town.crowd(2)
    town.clock.advance(25)
    town.hub.deliver(a_revision(), town.clock.now())
    assert town.hub.turn(town.clock.now(), 1)
    town.sweep()
    town.run()
    assert [first.received(), second.received()] == [["a-1/1"]] * 2


@pytest.mark.parametrize("heartbeat_s", [25, 40, 55])
def test_the_operator_chooses_the_heartbeat_and_the_other_limits_follow(heartbeat_s):
    """W8: pinged after `heartbeat_s` without a write, dropped 35 s later if no byte came."""
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


def test_a_client_that_only_listens_to_many_alerts_is_not_taken_for_dead(town):
    """W8: frames are written all the time, so it is asked for a sign of life before the 60 s are over."""
    (listener,) = town.crowd(1)
    for n in range(8):
        town.clock.advance(10)
        town.publish(a_revision(f"a-{n}"))
        town.sweep()
        if "<ping>" in listener.received():
            town.hub.note_read(listener.row, town.clock.now())  # its pong
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
