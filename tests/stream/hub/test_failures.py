"""Unexpected errors while an alert is sent: nobody is missed, and one bad session harms no other."""

import pytest
from support.fakes import a_cancel, a_revision

from geocast.stream.fanout import AGAIN_S, MOST_APART
from geocast.stream.live_alerts import LiveAlert


class Odd(Exception):  # noqa: N818 (an exception that nobody expects)
    """An unexpected exception."""


def fail(monkeypatch, town, when, times=10**6):
    """Have the hub's `take` raise while `when(rows)` is true, for at most so many times."""
    take, left = town.hub.take, [times]

    def failing(rows, alerts, texts):
        if left[0] and when(rows.tolist()):
            left[0] -= 1
            raise Odd
        return take(rows, alerts, texts)

    monkeypatch.setattr(town.hub, "take", failing)
    return left


def test_slice_that_failed_once_is_sent_at_once_row_by_row(town, small_slices, monkeypatch):
    """Nobody is told twice, as nothing was written."""
    peers = town.crowd(8)
    fail(monkeypatch, town, lambda rows: peers[3].row in rows, times=1)
    town.publish(a_revision())
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 8
    assert (town.hub.sending_failures, town.hub.failing) == (1, 0)
    town.publish(a_cancel())
    assert [peer.received() for peer in peers] == [["-a-1/2"]] * 8


def test_session_to_which_sending_fails_harms_no_other_and_is_sent_the_alert_later(town, small_slices, monkeypatch):
    """The alert is sent again after a second, then after two; the others are not told twice."""
    bad, *others = town.crowd(8)
    left = fail(monkeypatch, town, lambda rows: bad.row in rows)
    town.publish(a_revision())
    assert [peer.received() for peer in others] == [["a-1/1"]] * 7
    assert town.hub.failing == 1
    town.clock.advance(AGAIN_S)
    town.sweep()
    town.run()
    assert (bad.received(), town.hub.failing) == ([], 1)
    left[0] = 0
    town.clock.advance(AGAIN_S)
    town.sweep()
    assert not town.hub.busy
    town.clock.advance(AGAIN_S)
    town.sweep()
    town.run()
    assert (bad.received(), town.hub.failing) == (["a-1/1"], 0)
    assert [peer.received() for peer in others] == [[]] * 7


def test_alert_that_can_never_be_sent_takes_few_attempts_and_delays_no_other(town, monkeypatch):
    """It is tried for some sessions, then rests; other alerts are sent meanwhile."""
    peers = town.crowd(40)
    encoded = "geocast.stream.live_alerts.LiveAlert.encoded"
    tried = []

    def failing(alert, *_):
        tried.append(alert.id)
        if alert.id == "a-1":
            raise Odd
        return original(alert, *_)

    original = LiveAlert.encoded
    monkeypatch.setattr(encoded, failing)
    town.publish(a_revision("a-1", severity="extreme"), a_revision("a-2"))
    assert [peer.received() for peer in peers] == [["a-2/1"]] * 40
    assert not town.hub.busy
    assert tried.count("a-1") == 1 + MOST_APART
    monkeypatch.setattr(encoded, original)
    town.clock.advance(AGAIN_S)
    town.sweep()
    town.run()
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 40


@pytest.mark.parametrize("what", ["launch", "_rows_of", "drop_stale"])
def test_alert_whose_fan_out_could_not_start_is_sent_later(town, monkeypatch, what):
    """An error anywhere before the first slice does not lose the alert."""
    [peer] = town.crowd(1)
    town.publish(a_revision("a-0"))
    assert peer.received() == ["a-0/1"]
    original, left = getattr(town.hub._fanout, what), [1]

    def failing(*args):
        if left[0]:
            left[0] -= 1
            raise Odd
        return original(*args)

    monkeypatch.setattr(town.hub._fanout, what, failing)
    with pytest.raises(Odd):
        town.publish(a_revision())
    town.clock.advance(AGAIN_S)
    town.sweep()
    town.run()
    assert peer.received() == ["a-1/1"]
