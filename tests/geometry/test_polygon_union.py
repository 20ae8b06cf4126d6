"""The union of zones: it covers all zones, and reaches only a little beyond them (rules CZ1 and CZ2)."""

import math
from itertools import pairwise

import numpy as np
import pytest

from geocast.geometry import polygon_union
from geocast.geometry.polygon_union import Piece, join, pieces, simpler
from geocast.geometry.published_polygon import RequestedPolygon, publish_polygons
from geocast.geometry.sphere import EARTH_RADIUS_M, distance_m, unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon

FARTHEST_M = 250  # the limit beyond a zone: 100 m for simplifying, a buffer of 110 or 120 m, and some for joining
WIDE_M = 400  # the width of holes that stay


def wiggly(start, end, steps, rng, size):
    """Return a wandering line between two corners, as [(lng, lat), …] without the end."""
    line = [start, end]
    while len(line) < steps:
        halves = []
        for (x, y), (u, v) in pairwise(line):
            halves += [(x, y), ((x + u) / 2 + rng.normal() * size, (y + v) / 2 + rng.normal() * size)]
        line, size = [*halves, end], size / 2
    return line[:-1]


def around(lng, lat, width, rng, steps=64):
    """Return a square zone of this width in degrees, with borders like a river's: (2, n + 1), not wrapped."""
    corners = [
        (lng - width, lat - width),
        (lng + width, lat - width),
        (lng + width, lat + width),
        (lng - width, lat + width),
    ]
    ring = [each for a, b in pairwise([*corners, corners[0]]) for each in wiggly(a, b, steps, rng, width / 20)]
    return np.array([*ring, ring[0]]).T


def wrapped(ring):
    """Return the ring with longitudes in [-180, 180)."""
    return np.array([(ring[0] + 180) % 360 - 180, ring[1]])


def square(lng, lat, size):
    """Return a square of `size` degrees with this south-west corner."""
    return np.array([[lng, lng + size, lng + size, lng, lng], [lat, lat, lat + size, lat + size, lat]])


def rings_of(given):
    """Return the published polygons of pieces."""
    outlines = [RequestedPolygon(piece.ring[0], piece.ring[1], piece.beyond_m) for piece in given]
    published = [publish_polygons([outline], 5_000) for outline in outlines]
    return [SphericalPolygon(polygon.ring, polygon.buffer_m) for [polygon] in published]


def inside_any(rings, lng, lat):
    """Return whether places are inside any of the rings."""
    places = np.array(unit_vectors(np.atleast_1d(lat), np.atleast_1d(lng)))
    return np.any([ring.contains_all(places, np.zeros(places.shape[1])) for ring in rings], axis=0)


def scattered(ring, rng, count=4_000):
    """Return longitudes and latitudes of random places in a box around a ring that is not wrapped."""
    (left, bottom), (right, top) = ring.min(axis=1), ring.max(axis=1)
    margin = max((right - left) / 10, 0.01)
    lng = rng.uniform(left - margin, right + margin, count)
    return (lng + 180) % 360 - 180, rng.uniform(max(bottom - margin, -90), min(top + margin, 90), count)


def exact(ring):
    """Return a ring as drawn, with its edges split into short ones."""
    return RequestedPolygon.requested(list(zip(*wrapped(ring).tolist(), strict=True))).ring(0)


def assert_covers(drawn, found, rng):
    """Assert that the result covers the drawn rings and reaches at most FARTHEST_M farther."""
    lng, lat = scattered(np.hstack(drawn), rng)
    originals = [SphericalPolygon(exact(ring).positions(), 0.0) for ring in drawn]
    wider = [SphericalPolygon(exact(ring).positions(), FARTHEST_M) for ring in drawn]
    inside, near, told = (
        inside_any(originals, lng, lat),
        inside_any(wider, lng, lat),
        inside_any(rings_of(found), lng, lat),
    )
    assert inside.any()
    assert (~near).any()
    assert not (inside & ~told).any()
    assert not (told & ~near).any()


# ---- one zone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lng", "lat"), [(10, 50), (179.9, 10), (-120, 88.5), (0, 0), (-70, -55)])
@pytest.mark.parametrize("width", [0.02, 0.4])
def test_simplified_pieces_cover_zone_and_little_else(lng, lat, width):
    """Zones may also lie at the antimeridian and near a pole (rules CZ1 and B9)."""
    rng = np.random.default_rng(round(lng * 7 + lat * 3 + width * 100) % 1000)
    drawn = around(lng, lat, width, rng)
    found = pieces([wrapped(drawn)])
    assert sum(piece.ring.shape[1] for piece in found) <= drawn.shape[1]
    assert_covers([drawn], found, rng)


def test_simplified_pieces_have_fewer_corners_than_zone():
    """A real coast has more corners than a phone can be sent (rule CZ1)."""
    drawn = around(10, 50, 0.02, np.random.default_rng(4), steps=2_000)
    [piece] = pieces([drawn])
    assert piece.ring.shape[1] < drawn.shape[1] / 10
    assert piece.beyond_m == polygon_union.TOLERANCE_M


def test_zone_with_short_edges_needs_no_buffer():
    """Only long edges are split, which needs a buffer (rule B9)."""
    [short], [long] = pieces([square(10, 50, 0.01)]), pieces([square(10, 50, 0.5)])
    assert (short.beyond_m, long.beyond_m) == (0.0, 110.0)


def test_islet_smaller_than_tolerance_is_kept():
    """Simplification would turn the islet into a line (rule CZ1)."""
    drawn = square(10, 50, 0.0003)
    found = pieces([drawn])
    assert_covers([drawn], found, np.random.default_rng(1))


def test_hole_of_zone_stays_outside():
    """A city that is a zone of its own lies in the middle of another zone (rule CZ1)."""
    outer, hole = around(10, 50, 0.3, np.random.default_rng(2)), around(10, 50, 0.1, np.random.default_rng(3))
    rings = rings_of(pieces([outer, hole]))
    assert not inside_any(rings, 10, 50).any()
    lng, lat = scattered(outer, np.random.default_rng(4))
    there = inside_any([SphericalPolygon(exact(outer).positions(), 0.0)], lng, lat) & ~inside_any(
        [SphericalPolygon(exact(hole).positions(), 0.0)], lng, lat
    )
    assert inside_any(rings, lng[there], lat[there]).all()
    deep = inside_any([SphericalPolygon(exact(hole).positions(), 0.0)], lng, lat) & ~near_edge(hole, lng, lat)
    assert deep.any()
    assert not inside_any(rings, lng[deep], lat[deep]).any()


def near_edge(ring, lng, lat):
    """Return whether places are within FARTHEST_M of a ring, on either side."""
    places = np.array(unit_vectors(lat, lng))
    edges = SphericalPolygon(exact(ring).positions(), 0.0).edges()
    return (edges.apart(*places[:, :, np.newaxis]) * EARTH_RADIUS_M).min(axis=1) <= FARTHEST_M


@pytest.mark.slow
def test_many_holes_of_zone_stay_outside():
    """The zone has rows of lakes (rule CZ1)."""
    holes = [square(10 + x / 10, 50 + y / 10, 0.05) for x in range(1, 9) for y in range(1, 9)]
    rings = rings_of(pieces([square(10, 50, 1), *holes]))
    for hole in holes:
        assert not inside_any(rings, hole[0, 0] + 0.025, hole[1, 0] + 0.025).any()
        assert inside_any(rings, hole[0, 0] - 0.025, hole[1, 0] - 0.025).all()


def test_hole_covered_by_buffer_is_filled():
    """The buffer covers the whole hole, so keeping the hole would only add corners (rule CZ1)."""
    [piece] = pieces([square(10, 50, 0.5), square(10.2, 50.2, 0.001)])
    assert piece.ring.shape[1] < 30


def test_ring_of_zone_may_cross_itself():
    """Rule A19 does not apply to zone files. Both wings of a bow tie are inside (rule CZ1)."""
    bow_tie = np.array([[10, 11, 11, 10, 10.0], [50, 51, 50, 51, 50.0]])
    rings = rings_of(pieces([bow_tie]))
    assert inside_any(rings, [10.1, 10.9], [50.5, 50.5]).all()
    assert not inside_any(rings, [10.5, 10.5], [50.1, 50.9]).any()


def test_zone_without_area_gives_no_pieces():
    """The ring of the zone is a line (rule CZ1)."""
    assert pieces([np.array([[10, 10, 10, 10.0], [50, 51, 52, 50.0]])]) == []


@pytest.mark.parametrize(
    ("ring", "told"),
    [
        ([[-90, 90, 0, -90], [0, 0, 50, 0]], "180°"),
        ([[-120, 0, 120, -120], [-10, -10, -10, -10]], "60°"),
    ],
)
def test_zone_ring_that_is_too_wide_is_refused(ring, told):
    """Rules A17 and A18 also apply to zones."""
    with pytest.raises(ValueError, match=told):
        pieces([np.array(ring, float)])


# ---- several zones -------------------------------------------------------------------------------------------


def grid(columns, rows, rng, size=0.3, left=10.0, bottom=50.0):
    """Return zones with shared, wiggly borders, by (column, row)."""
    at = {(x, y): (left + x * size, bottom + y * size) for x in range(columns + 1) for y in range(rows + 1)}
    lines = {}
    for x, y in at:
        for u, v in ((x + 1, y), (x, y + 1)):
            if (u, v) in at:
                lines[x, y, u, v] = [*wiggly(at[x, y], at[u, v], 64, rng, size / 20), at[u, v]]
    zones = {}
    for x in range(columns):
        for y in range(rows):
            ring = lines[x, y, x + 1, y][:-1] + lines[x + 1, y, x + 1, y + 1][:-1]
            ring += lines[x, y + 1, x + 1, y + 1][:0:-1] + lines[x, y, x, y + 1][::-1]
            zones[x, y] = np.array(ring).T
    return zones


@pytest.mark.slow
@pytest.mark.parametrize(("left", "bottom"), [(10, 50), (179.5, -20), (40, 85)])
def test_neighbouring_zones_are_joined(left, bottom):
    """The neighbours were simplified separately (rule CZ2)."""
    rng = np.random.default_rng(5)
    drawn = list(grid(3, 2, rng, left=left, bottom=bottom).values())
    found = join([piece for ring in drawn for piece in pieces([wrapped(ring)])])
    assert len(found) == 1
    assert_covers(drawn, found, rng)


def test_zone_in_the_middle_that_is_not_warned_stays_outside_joined_area():
    """Eight zones around it are warned (rule CZ2)."""
    rng = np.random.default_rng(6)
    zones = grid(3, 3, rng)
    middle = zones.pop((1, 1))
    found = join([piece for ring in zones.values() for piece in pieces([ring])])
    assert 2 <= len(found) < len(zones)
    rings = rings_of(found)
    lng, lat = scattered(middle, rng)
    deep = inside_any([SphericalPolygon(exact(middle).positions(), 0.0)], lng, lat) & ~near_edge(middle, lng, lat)
    assert deep.any()
    assert not inside_any(rings, lng[deep], lat[deep]).any()
    for ring in zones.values():
        inside = inside_any([SphericalPolygon(exact(ring).positions(), 0.0)], lng, lat)
        assert inside_any(rings, lng[inside], lat[inside]).all()


def test_pieces_that_touch_nothing_are_not_joined():
    """Some pieces are near each other, and some are far away (rule CZ2)."""
    given = [
        piece
        for lng, lat in ((10, 50), (10.1, 50), (-170, -50), (100, 89))
        for piece in pieces([square(lng, lat, 0.02)])
    ]
    found = join(given)
    assert sorted(map(id, found)) == sorted(map(id, given))


def test_islands_closer_than_greatest_gap_are_joined():
    """The category's `simplify_m` is the greatest gap (rule CZ2)."""
    given = [piece for n in range(6) for piece in pieces([square(10 + n * 0.01, 0, 0.002)])]  # 890 m of water each
    assert len(join(given, 500)) == 6
    [one] = join(given, 1_000)
    assert inside_any(rings_of([one]), [10.001 + n * 0.01 for n in range(6)], [0.001] * 6).all()
    assert not inside_any(rings_of([one]), 10.005, 0.02).any()


def test_simpler_piece_has_larger_buffer():
    """Pieces that are too much work to join are simplified first; a small one stays unchanged (rules CZ2 and HD3)."""
    drawn = around(10, 50, 0.4, np.random.default_rng(5))
    [piece] = pieces([drawn])
    few = polygon_union.simpler(piece, 1_000)
    assert polygon_union.work([few]) < polygon_union.work([piece]) / 2
    assert few.beyond_m == piece.beyond_m + 1_000
    lng, lat = scattered(drawn, np.random.default_rng(6))
    assert not (inside_any(rings_of([piece]), lng, lat) & ~inside_any(rings_of([few]), lng, lat)).any()
    small = Piece(square(10, 50, 0.001), 0.0)
    assert polygon_union.simpler(small, 1_000) is small


def test_zones_around_the_world_are_not_joined():
    """No plane map can show them all, and published polygons must follow rule A18 (rule CZ2)."""
    given = [piece for n in range(-180, 180, 20) for piece in pieces([square(n, 0, 20)])]
    assert len(join(given)) == len(given)


def test_points_are_unit_vectors_of_corners():
    """A square has four corners and the first one again, and each vector has the length 1."""
    piece = Piece(square(10, 50, 1), 0.0)
    assert piece.points().shape == (3, 5)
    assert math.isclose(float((piece.points() ** 2).sum()), 5)


def test_radius_of_piece_reaches_from_middle_of_corners_to_farthest_corner():
    """The corner that ends the ring counts once."""
    ring = np.array([[9.0, 11.0, 11.0, 9.0, 9.0], [0.0, 0.0, 1.0, 1.0, 0.0]])
    assert Piece(ring, 500.0).radius_m() == pytest.approx(distance_m(0.5, 10.0, 0.0, 9.0), rel=1e-4)


def rectangle(west, south, east, north, step=1.0):
    """Return a piece without a buffer between meridians and near parallels, which have a corner at each step."""
    there = np.arange(west, east + step / 2, step)
    lng = [*there, *there[::-1], there[0]]
    return Piece(np.array([lng, [south] * len(there) + [north] * len(there) + [south]]), 0.0)


def test_only_pieces_that_touch_are_joined():
    """A piece in the corner of two that touch stays as it is. Pieces 2.5 m apart are joined only across a gap."""
    tall, wide, alone = rectangle(0, 0, 1, 5), rectangle(1, 0, 5, 1), rectangle(3, 3, 4, 4)
    found = join([tall, wide, alone])
    assert len(found) == 2
    assert [piece for piece in found if piece is alone] == [alone]
    bent = Piece(np.array([[0.0, 5.0, 5.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 5.0, 5.0, 0.0]]), 0.0)
    assert {id(piece) for piece in join([bent, alone])} == {id(bent), id(alone)}
    metre = math.degrees(1 / EARTH_RADIUS_M)
    near = rectangle(1 + 2.5 * metre, 0, 5 + 2.5 * metre, 1)
    assert len(join([rectangle(0, 0, 1, 1), near])) == 2
    assert len(join([rectangle(0, 0, 1, 1), near], 1.0)) == 1


def test_gap_between_very_wide_pieces_is_closed_far_from_their_middle_too():
    """Distances on a plane are longer far from its centre than on the sphere."""
    gap = math.degrees(800 / EARTH_RADIUS_M)
    [joined] = join([rectangle(-50, 0, 50, 1), rectangle(-50, 1 + gap, 50, 2)], 1_000.0)
    ring = SphericalPolygon(joined.ring.T.tolist(), joined.beyond_m)
    inside = np.array(unit_vectors(np.full(99, 1 + gap / 2), np.linspace(-49.9, 49.9, 99)))
    assert ring.contains_all(inside, np.zeros(99)).all()


def test_width_of_piece_counts_from_middle_of_all_its_corners():
    """The first corner may be farther from the last ones (rule A18)."""
    assert rectangle(0, 0, 80, 10, 5.0).keeps_a18()
    assert not rectangle(0, 0, 130, 10, 5.0).keeps_a18()


def test_piece_may_be_simplified_to_a_triangle_but_not_further():
    """A corner within the tolerance is removed, and the buffer becomes wider by the tolerance."""
    nearly = Piece(np.array([[0.0, 0.5, 1.0, 0.0, 0.0], [0.0, 0.0001, 0.0, 1.0, 0.0]]), 5.0)
    triangle = simpler(nearly, 100.0)
    assert (triangle.ring.shape, triangle.beyond_m) == ((2, 4), 105.0)
    assert simpler(triangle, 100.0) is triangle
    assert simpler(nearly, 1e7) is nearly
