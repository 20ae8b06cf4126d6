"""Map polygons: they cover the shapes on the sphere that they stand for, and follow RFC 7946 (PF4)."""

import math
import random

import pytest
import shapely
from support.cpu import cpu_limit

from geocast.feed import geojson, map_polygons
from geocast.geometry.sphere import EARTH_RADIUS_M, distance_m
from geocast.model.alert import Polygon

DRAWN_M = 25.0  # tolerance: lines are within 10 m of their arcs, and coordinates have six decimals


def away(lat, lng, bearing, distance):
    """Return the place at this bearing and distance in metres (Williams, "Aviation Formulary", lat/lon by radial)."""
    phi, delta = math.radians(lat), distance / EARTH_RADIUS_M
    sine = math.sin(phi) * math.cos(delta) + math.cos(phi) * math.sin(delta) * math.cos(bearing)
    east = math.atan2(math.sin(bearing) * math.sin(delta) * math.cos(phi), math.cos(delta) - math.sin(phi) * sine)
    return math.degrees(math.asin(max(-1.0, min(1.0, sine)))), (lng + math.degrees(east) + 180) % 360 - 180


def on_map(polygons):
    """Return the polygons as one shape of the map."""
    return shapely.MultiPolygon([shapely.Polygon(rings[0], rings[1:]) for rings in polygons])


def near(shape, lat, lng):
    """Return whether a place is in the shape, or within DRAWN_M of it."""
    return any(
        shape.intersects(shapely.Point(*reversed(away(lat, lng, turn, DRAWN_M)))) for turn in range(6)
    ) or shape.intersects(shapely.Point(lng, lat))


CENTRES = [
    (0, 0),
    (32.78, -96.8),
    (60, 180),
    (-17, 179.999),
    (89.9, 30),
    (-89.5, -170),
    (90, 0),
    (-90, 77),
    (71, -179.9),
]


@pytest.mark.parametrize("centre", CENTRES, ids=str)
@pytest.mark.parametrize("radius_m", [100, 20_000, 500_000, 3_000_000, 8_000_000])
def test_map_polygon_of_circle_covers_it_closely(centre, radius_m):
    """Circles may have any size, and lie across the antimeridian or around a pole (rule PF4)."""
    dice = random.Random(radius_m)
    polygons = map_polygons.of_circle(*centre, radius_m)
    drawn = on_map(polygons)
    west, south, east, north = drawn.bounds
    assert west >= -180
    assert east <= 180
    assert (south, north) >= (-90, south)
    for _ in range(60):
        turn = dice.uniform(0, 2 * math.pi)
        inside = away(*centre, turn, radius_m * math.sqrt(dice.random()))
        assert near(drawn, *inside), "a place inside is not covered"
        lat, lng = math.degrees(math.asin(dice.uniform(-1, 1))), dice.uniform(-180, 180)
        if distance_m(*centre, lat, lng) > 1.01 * radius_m + DRAWN_M:
            assert not drawn.contains(shapely.Point(lng, lat)), "a place far outside is covered"


@pytest.mark.parametrize("centre", CENTRES, ids=str)
def test_rings_are_closed_and_counter_clockwise(centre):
    """RFC 7946 requires this in section 3.1.6 (rule PF4)."""
    for rings in map_polygons.of_circle(*centre, 50_000):
        assert rings[0][0] == rings[0][-1]
        assert shapely.Polygon(rings[0]).exterior.is_ccw


def test_circle_of_more_than_half_the_earth_is_drawn_as_whole_map():
    """The map may show more than the area, because the field `area` decides who is inside (rule PF4)."""
    [[ring]] = map_polygons.of_circle(10, 20, 15_000_000)
    assert shapely.Polygon(ring).bounds == (-180, -90, 180, 90)


def test_small_circle_has_exactly_64_corners():
    """Its sides are short enough, and need no splitting (rule PF4)."""
    [[ring]] = map_polygons.of_circle(32.78, -96.8, 1000)
    assert len(ring) == 65


def test_long_arcs_are_split_into_short_lines():
    """An arc between two points at 49° N bends up to 95 km north of that parallel (rule PF4)."""
    [[ring]] = map_polygons.of_ring([(-123, 49), (-95, 49), (-95, 50), (-123, 50), (-123, 49)])
    assert max(lat for lng, lat in ring if lng > -120 and lat < 50) > 49.8
    assert len(ring) > 100


def star(points, radius=0.05):
    """Return a ring that goes from each point of a circle to nearly the opposite one, so that all edges cross.

    `points` must be odd.
    """
    turns = [n * (points // 2) * 2 * math.pi / points for n in range(points)]
    ring = [(10 + radius * math.cos(turn), 50 + radius * math.sin(turn)) for turn in turns]
    return [*ring, ring[0]]


def test_self_crossing_ring_covers_everything_it_winds_around():
    """The number and the direction of the turns don't matter (rules PF4, D4)."""
    wound_twice = on_map(map_polygons.of_ring(star(5)))
    assert wound_twice.contains(shapely.Point(10, 50))
    assert not wound_twice.contains(shapely.Point(10 - 0.045, 50))
    bow_tie = on_map(map_polygons.of_ring([(10, 50), (10.1, 50.1), (10.1, 50), (10, 50.1), (10, 50)]))
    inside = [
        bow_tie.contains(shapely.Point(lng, lat)) for lng, lat in ((10.01, 50.05), (10.09, 50.05), (10.05, 50.01))
    ]
    assert inside == [True, True, False]


def test_ring_with_very_many_crossings_is_drawn_quickly():
    """The convex hull of the ring is drawn, so that other alerts need not wait (rule PF4)."""
    with cpu_limit(5):
        drawn = on_map(map_polygons.of_ring(star(499)))
    assert drawn.contains(shapely.Point(10, 50))


ROUGH = [  # (name, ring) of rings that would take more than 100 positions
    ("wide", [(10 + 20 * math.cos(k / 6), 45 + 10 * math.sin(k / 6)) for k in range(37)]),
    ("across 180°", [(179, 50), (-179, 50), (-170, 60), (179, 60)]),
    ("near a pole", [(k * 40, 89.5 - (k % 2)) for k in range(9)]),
    ("along a pole", [(-100, 89.99), (60, 89.99), (70, 60), (-110, 60)]),
]


@pytest.mark.parametrize(("name", "ring"), ROUGH, ids=[name for name, _ in ROUGH])
def test_ring_with_too_many_positions_is_drawn_as_box(name, ring):
    """The box covers the whole area (rule HD4)."""
    closed = [*ring, ring[0]]
    whole, box = on_map(map_polygons.of_ring(closed)), on_map(map_polygons.of_ring(closed, 24))
    assert shapely.get_num_coordinates(box) <= 10
    assert shapely.get_num_coordinates(whole) > 24
    assert box.buffer(1e-3).contains(whole)
    assert (box.bounds[0] >= -180, box.bounds[2] <= 180) == (True, True)


def test_ring_never_has_more_positions_than_allowed():
    """The ring has 500 arcs of 60° that cross each other (rule HD4)."""
    wide = [(10 + 40 * (k % 2) + k / 250, 30 + 40 * (k // 2 % 2)) for k in range(500)]
    assert shapely.get_num_coordinates(on_map(map_polygons.of_ring([*wide, wide[0]]))) <= map_polygons.MOST_POSITIONS


def test_shapes_of_one_alert_share_one_limit_of_positions():
    """The alert has 64 triangles, each of which would take hundreds of positions alone (rule HD4)."""
    triangle = ((0.0, 0.0), (30.0, 0.0), (15.0, 40.0), (0.0, 0.0))
    drawn = geojson.geometry([Polygon(triangle)] * 64)
    assert sum(len(ring) for rings in drawn["coordinates"] for ring in rings) <= map_polygons.MOST_POSITIONS


def test_ring_without_area_gives_no_polygon():
    """No publisher can send such a ring (rule PF4)."""
    assert map_polygons.of_ring([(10, 50), (10.1, 50.1), (10.2, 50), (10.1, 50.1), (10, 50)]) == []
