"""Unexpected errors while an alert is sent: nobody is missed or told twice, and one bad session harms no other."""

import pytest
from stream.hub.test_sockets import Sockets, a_crowd_with_sockets, patched_descriptor
from support.fakes import a_cancel, a_revision

from geocast.calls.port import Calls
from geocast.stream.fanout import AGAIN_S, FanOut
from geocast.stream.flights import Flights
from geocast.stream.hub import Hub
from geocast.stream.live_alerts import LiveAlert
from geocast.wire.frames import JSON, MSGPACK


class Odd(Exception):  # noqa: N818 (an exception that nobody expects)
    """An unexpected exception."""


def fail(monkeypatch, owner, name, times=1, when=lambda *_: True):
    """Have a function raise so many times, if `when` holds for its arguments. Return how often it may still raise."""
    original, left = getattr(owner, name), [times]

    def failing(*args, **options):
        if left[0] and when(*args):
            left[0] -= 1
            raise Odd
        return original(*args, **options)

    monkeypatch.setattr(owner, name, failing)
    return left


def send_again(town):
    """Have the alerts sent whose sending has failed a second ago."""
    town.clock.advance(AGAIN_S)
    town.sweep()
    town.run()


PARTS = [
    (Hub, "take"),
    (Hub, "_write"),
    (LiveAlert, "encoded"),
    (LiveAlert, "flags_of"),
    (LiveAlert, "mark_sent"),
    (FanOut, "_send"),
    (FanOut, "_take_owed"),
    (FanOut, "_visible"),
    (Flights, "end"),
    (Flights, "take_owed"),
    (FanOut, "_order_rest"),
]


@pytest.mark.parametrize("nth", [0, 1, 3])
@pytest.mark.parametrize(("owner", "name"), PARTS, ids=[name for _, name in PARTS])
def test_error_anywhere_in_a_slice_leaves_each_session_with_one_frame_or_ends_it(
    town, small_slices, monkeypatch, owner, name, nth
):
    """Each session gets each entry exactly once, unless its connection is ended, so that its client comes back."""
    peers = [town.join(metres, wire=(JSON, MSGPACK)[metres % 2]) for metres in range(8)]
    for peer in peers:
        peer.take()
    calls = []
    for entry, frame in ((a_revision(), "a-1/1"), (a_cancel(), "-a-1/2")):
        with monkeypatch.context() as patch:
            left = fail(patch, owner, name, 1, lambda *_: calls.append(0) or len(calls) > nth)
            town.deliver(entry)
            for _ in range(30):
                try:
                    town.turn()
                except Odd:  # as the pump does: the next turn goes on
                    continue
            send_again(town)
        calls.clear()
        stayed = [peer for peer in peers if not peer.aborted]
        assert [peer.received() for peer in stayed] == [[frame]] * len(stayed), left
        assert len(stayed) >= 4
    assert town.hub.fanout.failing() == 0


def test_session_whose_write_fails_is_ended_and_harms_no_other(town, small_slices):
    """The others get one frame each; the bad one leaves, comes back, and is sent what it lacks."""
    bad, *others = town.crowd(8)

    def broken(_data):
        raise Odd

    town.hub._writes[bad.row] = broken
    town.publish(a_revision(), a_revision("a-2"))
    assert [sorted(peer.received()) for peer in others] == [["a-1/1", "a-2/1"]] * 7
    assert (bad.aborted, town.hub.fanout.failures, town.hub.fanout.failing(), len(town.hub)) == (True, 1, 0, 7)
    assert sorted(town.join(holding={"a-1": 1}).received()) == ["a-2/1", "welcome"]


def test_sessions_are_ended_if_nobody_knows_what_their_sockets_got(monkeypatch):
    """After an error of the kernel's interface, the sessions of this call may have the frame, so none is sent again."""
    sockets = Sockets()
    town, crowd = a_crowd_with_sockets(sockets, 5, (JSON, MSGPACK))
    fail(monkeypatch, town.hub, "_send", when=lambda descriptors, _: 101 in descriptors)
    town.publish(a_revision())
    assert [peer.aborted for peer in crowd] == [False, True, False, True, False]
    assert [descriptors for descriptors, _ in sockets.calls] == [[100, 102, 104]]
    assert (len(town.hub), town.hub.fanout.failing()) == (3, 0)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Hub, "set_rights"), (Calls, "move"), (Calls, "take_holding"), (FanOut, "trust_holding")],
)
def test_nothing_is_written_to_the_socket_of_a_session_that_could_not_enter(monkeypatch, owner, name):
    """The socket's descriptor is soon another connection's, which would be sent the alerts of somebody else."""
    sockets = Sockets()
    town, _ = a_crowd_with_sockets(sockets, 2)
    with patched_descriptor(109), monkeypatch.context() as patch:
        fail(patch, owner, name)
        with pytest.raises(Odd):
            town.join()
    town.publish(a_revision())
    assert [descriptors for descriptors, _ in sockets.calls] == [[100, 101]]
    assert len(town.hub) == 2


@pytest.mark.parametrize(("owner", "name"), [(Calls, "leave"), (FanOut, "leave")])
def test_nothing_is_written_to_the_socket_of_a_session_that_has_left_although_leaving_failed(monkeypatch, owner, name):
    """The same as after an error when a session enters."""
    sockets = Sockets()
    town, crowd = a_crowd_with_sockets(sockets, 3)
    with monkeypatch.context() as patch:
        fail(patch, owner, name)
        with pytest.raises(Odd):
            town.hub.leave(crowd[1].row)
    town.publish(a_revision())
    assert 101 not in [each for descriptors, _ in sockets.calls for each in descriptors if each != -1]


def test_alert_that_can_never_be_sent_takes_two_attempts_and_delays_no_other(town, monkeypatch):
    """It rests longer and longer; other alerts are sent meanwhile."""
    peers = town.crowd(40)
    tried = []
    left = fail(monkeypatch, LiveAlert, "encoded", 10**6, lambda alert, *_: tried.append(alert.id) or alert.id == "a-1")
    town.publish(a_revision("a-1", severity="extreme"), a_revision("a-2"))
    assert [peer.received() for peer in peers] == [["a-2/1"]] * 40
    assert (tried.count("a-1"), town.hub.fanout.failing()) == (2, 1)
    send_again(town)
    assert tried.count("a-1") == 4
    left[0] = 0
    town.clock.advance(AGAIN_S)
    town.sweep()
    assert not town.hub.busy  # the second pause is twice as long
    send_again(town)
    assert [peer.received() for peer in peers] == [["a-1/1"]] * 40
    assert town.hub.fanout.failing() == 0


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (FanOut, "launch"),
        (FanOut, "_rows_of"),
        *((Flights, name) for name in ("wait", "take_waiting", "start", "drop_stale")),
    ],
)
def test_alert_whose_fan_out_could_not_start_is_sent_later(town, monkeypatch, owner, name):
    """An error anywhere before the first slice does not lose the alert."""
    [peer] = town.crowd(1)
    town.publish(a_revision("a-0"))
    assert peer.received() == ["a-0/1"]
    fail(monkeypatch, owner, name)
    with pytest.raises(Odd):
        town.publish(a_revision())
    send_again(town)
    assert peer.received() == ["a-1/1"]
