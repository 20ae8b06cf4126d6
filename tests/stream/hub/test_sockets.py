"""Sending one frame to many sockets in one call; the transports write what the kernel did not accept."""

import errno
from contextlib import contextmanager

import numpy as np
import pytest
from stream.hub.town import Town
from support.fakes import FakePeer, a_revision, a_warning

from geocast.matching.filters import Filter
from geocast.stream import fanout, hub
from geocast.wire.frames import JSON, MSGPACK, encode


class Sockets:
    """Stands in for the kernel.

    It accepts a frame for many descriptors, and sends to each as many bytes as fit into that socket's `room`.
    """

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


def test_turn_sends_with_one_call_for_each_wire_format(sockets):
    """A turn of the fan-out sends a frame to all sessions of the turn at once."""
    town, crowd = a_crowd_with_sockets(sockets, 5, (JSON, MSGPACK))
    town.publish(a_revision("a"))
    frames = town.hub.fanout.live.find("a", town.clock.now()).encoded(0, encode)
    assert sockets.calls == [([100, 102, 104], frames[JSON.number]), ([101, 103], frames[MSGPACK.number])]
    assert [peer.take() for peer in crowd] == [[]] * 5  # nothing is left to the transports
    assert town.hub.fanout.sends == 5


def test_turn_sends_with_one_call_for_each_language_and_wire_format(sockets):
    """Only languages and formats that sessions of this turn use are sent (LA4)."""
    town, crowd = a_crowd_with_sockets(sockets, 6, (JSON, JSON, MSGPACK))
    for metres, peer in enumerate(crowd):
        town.set_filter(peer, Filter(None, 0, ("fr",) if metres < 3 else ("de", "en")))
    town.publish(a_warning("en", "fr", "it"))
    english, french = (encode(a_warning("en", "fr", "it"), text) for text in (0, 1))
    assert sorted(sockets.calls) == [
        ([100, 101], french[JSON.number]),
        ([102], french[MSGPACK.number]),
        ([103, 104], english[JSON.number]),
        ([105], english[MSGPACK.number]),
    ]


def test_transport_writes_what_the_kernel_left_of_a_frame(sockets):
    """The kernel accepted a part of the frame, or nothing."""
    town, crowd = a_crowd_with_sockets(sockets, 4)
    sockets.room = {101: 10, 102: -errno.EAGAIN}
    town.publish(a_revision("a"))
    frame = town.hub.fanout.live.find("a", town.clock.now()).encoded(0, encode)[JSON.number]
    assert [peer.writes[1:] for peer in crowd] == [[], [frame[10:]], [frame], []]


def test_nothing_is_sent_to_slow_or_disconnected_sessions(sockets):
    """After a session has left, another connection may have its descriptor."""
    town, crowd = a_crowd_with_sockets(sockets, 4)
    town.hub.slowed(crowd[1].row, town.clock.now())
    town.hub.leave(crowd[2].row)
    town.publish(a_revision("a"))
    assert [descriptors for descriptors, _ in sockets.calls] == [[100, 103]]


@pytest.mark.parametrize("few", [0, hub.FEW])
def test_sessions_beyond_the_nearest_are_sent_to_in_order_of_their_age(sockets, monkeypatch, few):
    """The kernel created their sockets in this order, so that sending in it is faster (ADR 6).

    Few sessions are sorted, and many are put in order by a column.
    """
    monkeypatch.setattr(fanout, "NEAREST", 2)
    monkeypatch.setattr(hub, "FEW", few)
    town = Town(send=sockets.send)
    for metres, descriptor in enumerate([108, 107, 105, 106, 104, 103]):
        with patched_descriptor(descriptor):
            town.join(metres)
    town.publish(a_revision("a"))
    assert [call[0] for call in sockets.calls] == [[108, 107], [103, 104, 105, 106]]
