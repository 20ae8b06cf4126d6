"""Polygons in the hub: sessions inside, late joiners, moves, revisions and cancels (docs/guide/areas.md, D4)."""

import json

import msgpack
import pytest
from stream.hub.town import METRE
from support.fakes import DALLAS, a_cancel, a_revision

from geocast.model.alert import Circle, Polygon
from geocast.wire.frames import MSGPACK, encode


def polygon(south_m, north_m, buffer_m=0.0):
    """Return a band across the meridian of the town, from `south_m` to `north_m` metres north of it."""
    south, north = DALLAS[0] + south_m * METRE, DALLAS[0] + north_m * METRE
    west, east = DALLAS[1] - 0.01, DALLAS[1] + 0.01
    return Polygon(((west, south), (east, south), (east, north), (west, north), (west, south)), buffer_m)


def of_shapes(*shapes, **changes):
    """Return a revision with these shapes as its area."""
    return a_revision(area=shapes, **changes)


NEAR = polygon(-100, 500)


def test_polygon_is_sent_to_sessions_inside_and_no_others(town):
    """The bounding circle, which is much larger, decides nothing (D4, R1)."""
    inside, in_circle, other = town.join(499), town.join(700), town.join(-99, wire=MSGPACK)
    entry = of_shapes(NEAR)
    town.publish(entry)
    assert [peer.writes[1:] for peer in (inside, in_circle, other)] == [[encode(entry)[0]], [], [encode(entry)[1]]]
    for frame, loads in zip(encode(entry), (json.loads, msgpack.unpackb), strict=False):
        assert loads(frame[4:])["alert"]["area"] == [NEAR.to_map()]


@pytest.mark.parametrize(("metres", "told"), [(0, True), (499, True), (505, True), (520.5, False), (900, False)])
def test_session_that_joins_late_is_matched_with_the_polygons_buffer(town, metres, told):
    """The buffer of 20 m counts, and nothing beyond it (D4, R3)."""
    town.publish(of_shapes(polygon(-100, 500, 20.0)))
    assert town.join(metres).received() == (["welcome", "a-1/1"] if told else ["welcome"])


def test_place_is_inside_if_its_accuracy_radius_touches_the_polygon(town):
    """A place within its reach of the ring is inside (D4)."""
    town.publish(of_shapes(NEAR))
    far, near = (town.join(places=[town.place(700, reach)]) for reach in (199.0, 201.0))
    assert (far.received(), near.received()) == (["welcome"], ["welcome", "a-1/1"])


def test_session_that_moves_into_the_polygon_is_sent_the_alert_once(town):
    """When the session leaves and enters again, the alert is not sent again (R3)."""
    walker = town.join(900)
    town.publish(of_shapes(NEAR))
    for metres in (600, 400, 600, 400):
        town.move(walker, metres)
    assert walker.received() == ["welcome", "ok", "ok", "a-1/1", "ok", "ok"]


def test_revision_with_another_polygon_reaches_sessions_in_it_and_recipients(town):
    """Sessions inside the new polygon and recipients get the revision, and later all of them the cancel (R1, R4)."""
    first, second = town.join(0), town.join(2_000)
    town.publish(of_shapes(NEAR))
    town.publish(of_shapes(polygon(1_900, 2_100), revision=2))
    late, later = town.join(0), town.join(2_000)
    town.publish(a_cancel(revision=3))
    assert first.received() == ["welcome", "a-1/1", "a-1/2", "-a-1/3"]
    assert second.received() == ["welcome", "a-1/2", "-a-1/3"]
    assert (late.received(), later.received()) == (["welcome"], ["welcome", "a-1/2", "-a-1/3"])


def test_client_with_an_old_revision_is_sent_the_current_one_wherever_it_is(town):
    """The client named the old revision in `holding` (R5)."""
    town.publish(of_shapes(NEAR), of_shapes(NEAR, revision=2))
    assert town.join(5_000, holding={"a-1": 1}).received() == ["welcome", "a-1/2"]


def test_session_inside_several_shapes_of_an_alert_is_sent_it_once(town):
    """Each shape counts (R2)."""
    area = (NEAR, polygon(400, 600), Circle(DALLAS[0] + 2_000 * METRE, DALLAS[1], 50.0))
    both, one, circle, none = (town.join(metres) for metres in (450, 550, 2_000, 1_000))
    town.publish(of_shapes(*area))
    assert [peer.received() for peer in (both, one, circle, none)] == [["welcome", "a-1/1"]] * 3 + [["welcome"]]
    assert [town.join(metres).received()[1:] for metres in (450, 550, 2_000, 1_000)] == [["a-1/1"]] * 3 + [[]]


def test_expired_polygon_contains_no_place(town):
    """The expired polygon is in no index (E1)."""
    town.publish(of_shapes(NEAR))
    town.clock.advance(3_600)
    town.sweep()
    assert town.join(0).received() == ["welcome"]
    assert town.hub.fanout.live.areas.containing((1.0, 0.0, 0.0), 20_000_000.0) == []
