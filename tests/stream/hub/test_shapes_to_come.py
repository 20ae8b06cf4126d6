"""Shapes of later releases: no place counts as inside them, and clients are sent them unchanged (LogG3)."""

import json

import msgpack
from stream.hub.town import FAR_AWAY
from support.fakes import DALLAS, a_cancel, a_revision

from geocast.model.alert import Circle, OtherShape
from geocast.wire.frames import MSGPACK, encode

MULTIPOLYGON = {"type": "MultiPolygon", "coordinates": [[[[-97.0, 32.0], [-96.0, 32.0], [-96.5, 33.0], [-97.0, 32.0]]]]}
HERE = Circle(*DALLAS, 1000.0)


def of_shapes(*shapes, **changes):
    """Return a revision with these shapes as its area."""
    return a_revision(area=shapes, **changes)


def test_alert_of_unknown_shape_is_sent_only_to_clients_that_have_it_already(town):
    """No session counts as inside the shape, not even one that moves or connects later (LogG3)."""
    inside, holder = town.join(0), town.join(0, holding={"a-1": 1})
    town.publish(of_shapes(OtherShape(MULTIPOLYGON)))
    town.move(inside, 10)
    late = town.join(0)
    town.publish(of_shapes(OtherShape(MULTIPOLYGON), revision=2))
    assert inside.received() == ["welcome", "ok"]
    assert late.received() == ["welcome"]
    assert holder.writes[1:] == [encode(of_shapes(OtherShape(MULTIPOLYGON), revision=2))[0]]


def test_known_shape_is_matched_although_the_area_has_an_unknown_shape_too(town):
    """Sessions inside the circle are sent the whole area as it came; other sessions nothing (LogG3)."""
    entry = of_shapes(OtherShape(MULTIPOLYGON), HERE)
    inside, other, far = town.join(0), town.join(0, wire=MSGPACK), town.join(FAR_AWAY)
    town.publish(entry)
    assert [peer.writes[1:] for peer in (inside, other, far)] == [[encode(entry)[0]], [encode(entry)[1]], []]
    for frame, loads in zip(encode(entry), (json.loads, msgpack.unpackb), strict=False):
        assert loads(frame[4:])["alert"]["area"] == [MULTIPOLYGON, HERE.to_map()]


def test_recipients_are_sent_a_revision_whose_shape_is_unknown(town):
    """No recipient is left with an old revision (R1, R4)."""
    peer = town.join(0)
    town.publish(of_shapes(HERE))
    assert peer.received() == ["welcome", "a-1/1"]
    entry = of_shapes(OtherShape(MULTIPOLYGON), revision=2)
    town.publish(entry)
    town.publish(a_cancel(revision=3))
    assert peer.writes[2:] == [encode(entry)[0], encode(a_cancel(revision=3))[0]]
