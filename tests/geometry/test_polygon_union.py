"""Zones as few polygons: what comes out covers what went in, and reaches little farther (CZ1, CZ2)."""

import math
from itertools import pairwise

import numpy as np
import pytest

from geocast.geometry import polygon_union
from geocast.geometry.polygon_union import Piece, join, pieces
from geocast.geometry.published_polygon import RequestedPolygon, publish_polygons
from geocast.geometry.sphere import EARTH_RADIUS_M, unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon

FARTHEST_M = 250  # beyond a zone that anybody is told: 100 m of simplifying, 110 or 120 m of buffer, and the joining
WIDE_M = 400  # of holes that stay


def wiggly(start, end, steps, rng, size):
    """A line from one corner to another that wanders about: [(lng, lat), …] without the end."""
    line = [start, end]
    while len(line) < steps:
        halves = []
        for (x, y), (u, v) in pairwise(line):
            halves += [(x, y), ((x + u) / 2 + rng.normal() * size, (y + v) / 2 + rng.normal() * size)]
        line, size = [*halves, end], size / 2
    return line[:-1]


def around(lng, lat, width, rng, steps=64):
    """A square zone of this width in degrees, with borders like a river's: (2, n + 1), unwrapped."""
    corners = [
        (lng - width, lat - width),
        (lng + width, lat - width),
        (lng + width, lat + width),
        (lng - width, lat + width),
    ]
    ring = [each for a, b in pairwise([*corners, corners[0]]) for each in wiggly(a, b, steps, rng, width / 20)]
    return np.array([*ring, ring[0]]).T


def wrapped(ring):
    """Longitudes of -180 to 180."""
    return np.array([(ring[0] + 180) % 360 - 180, ring[1]])


def square(lng, lat, size):
    """A square from this corner, `size` in degrees."""
    return np.array([[lng, lng + size, lng + size, lng, lng], [lat, lat, lat + size, lat + size, lat]])


def rings_of(given):
    """What pieces are published as."""
    outlines = [RequestedPolygon.of_arcs(piece.ring[0], piece.ring[1], piece.beyond_m) for piece in given]
    published = [publish_polygons([outline], 5_000) for outline in outlines]
    return [SphericalPolygon(polygon.ring, polygon.buffer_m) for [polygon] in published]


def held(rings, lng, lat):
    """Which places are inside any of the rings."""
    places = np.array(unit_vectors(np.atleast_1d(lat), np.atleast_1d(lng)))
    return np.any([ring.contains_all(places, np.zeros(places.shape[1])) for ring in rings], axis=0)


def scattered(ring, rng, count=4_000):
    """Places in a box around a ring that is not wrapped: longitudes, latitudes."""
    (left, bottom), (right, top) = ring.min(axis=1), ring.max(axis=1)
    margin = max((right - left) / 10, 0.01)
    lng = rng.uniform(left - margin, right + margin, count)
    return (lng + 180) % 360 - 180, rng.uniform(max(bottom - margin, -90), min(top + margin, 90), count)


def exact(ring):
    """A ring as it was drawn, with short edges."""
    return RequestedPolygon(list(zip(*wrapped(ring).tolist(), strict=True))).ring(0)


def judge(drawn, found, rng):
    """That what was found covers what was drawn, and reaches little farther; there are places of both kinds."""
    lng, lat = scattered(np.hstack(drawn), rng)
    originals = [SphericalPolygon(exact(ring).positions(), 0.0) for ring in drawn]
    wider = [SphericalPolygon(exact(ring).positions(), FARTHEST_M) for ring in drawn]
    inside, near, told = held(originals, lng, lat), held(wider, lng, lat), held(rings_of(found), lng, lat)
    assert inside.any()
    assert (~near).any()
    assert not (inside & ~told).any()
    assert not (told & ~near).any()


# ---- one zone ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lng", "lat"), [(10, 50), (179.9, 10), (-120, 88.5), (0, 0), (-70, -55)])
@pytest.mark.parametrize("width", [0.02, 0.4])
def test_a_zone_is_covered_and_little_else(lng, lat, width):
    """CZ1, B9: simplified by 100 m, at the antimeridian and near a pole too."""
    rng = np.random.default_rng(round(lng * 7 + lat * 3 + width * 100) % 1000)
    drawn = around(lng, lat, width, rng)
    found = pieces([wrapped(drawn)])
    assert sum(piece.ring.shape[1] for piece in found) <= drawn.shape[1]
    judge([drawn], found, rng)


def test_corners_are_left_out():
    """CZ1: what a coast has is more than a phone can be sent."""
    drawn = around(10, 50, 0.02, np.random.default_rng(4), steps=2_000)
    [piece] = pieces([drawn])
    assert piece.ring.shape[1] < drawn.shape[1] / 10
    assert piece.beyond_m == polygon_union.TOLERANCE_M


def test_short_edges_are_their_own_arcs():
    """B9: what is not split needs no more than the tolerance."""
    [short], [long] = pieces([square(10, 50, 0.01)]), pieces([square(10, 50, 0.5)])
    assert (short.beyond_m, long.beyond_m) == (0.0, 110.0)


def test_an_islet_that_is_smaller_than_the_tolerance_stays():
    """CZ1: simplified away it would be a line."""
    drawn = square(10, 50, 0.0003)
    found = pieces([drawn])
    judge([drawn], found, np.random.default_rng(1))


def test_nobody_is_told_in_a_hole():
    """CZ1: a city that is a zone of its own lies in the middle of another one."""
    outer, hole = around(10, 50, 0.3, np.random.default_rng(2)), around(10, 50, 0.1, np.random.default_rng(3))
    rings = rings_of(pieces([outer, hole]))
    assert not held(rings, 10, 50).any()
    lng, lat = scattered(outer, np.random.default_rng(4))
    there = held([SphericalPolygon(exact(outer).positions(), 0.0)], lng, lat) & ~held(
        [SphericalPolygon(exact(hole).positions(), 0.0)], lng, lat
    )
    assert held(rings, lng[there], lat[there]).all()
    deep = held([SphericalPolygon(exact(hole).positions(), 0.0)], lng, lat) & ~near_edge(hole, lng, lat)
    assert deep.any()
    assert not held(rings, lng[deep], lat[deep]).any()


def near_edge(ring, lng, lat):
    """Which places are within FARTHEST_M of a ring, on either side."""
    places = np.array(unit_vectors(lat, lng))
    edges = SphericalPolygon(exact(ring).positions(), 0.0).edges()
    return (edges.apart(*places[:, :, np.newaxis]) * EARTH_RADIUS_M).min(axis=1) <= FARTHEST_M


@pytest.mark.slow
def test_many_holes_are_cut_through():
    """CZ1: lakes, in rows."""
    holes = [square(10 + x / 10, 50 + y / 10, 0.05) for x in range(1, 9) for y in range(1, 9)]
    rings = rings_of(pieces([square(10, 50, 1), *holes]))
    for hole in holes:
        assert not held(rings, hole[0, 0] + 0.025, hole[1, 0] + 0.025).any()
        assert held(rings, hole[0, 0] - 0.025, hole[1, 0] - 0.025).all()


def test_a_hole_in_which_everybody_is_told_anyway_is_filled():
    """CZ1: it would cost corners."""
    [piece] = pieces([square(10, 50, 0.5), square(10.2, 50.2, 0.001)])
    assert piece.ring.shape[1] < 30


def test_a_ring_that_crosses_itself_is_filled():
    """CZ1: A19 is not asked of a file of zones; both wings of a bow-tie count."""
    bow_tie = np.array([[10, 11, 11, 10, 10.0], [50, 51, 50, 51, 50.0]])
    rings = rings_of(pieces([bow_tie]))
    assert held(rings, [10.1, 10.9], [50.5, 50.5]).all()
    assert not held(rings, [10.5, 10.5], [50.1, 50.9]).any()


def test_a_line_is_no_area():
    """CZ1."""
    assert pieces([np.array([[10, 10, 10, 10.0], [50, 51, 52, 50.0]])]) == []


@pytest.mark.parametrize(
    ("ring", "told"),
    [
        ([[-90, 90, 0, -90], [0, 0, 50, 0]], "180°"),
        ([[-120, 0, 120, -120], [-10, -10, -10, -10]], "60°"),
    ],
)
def test_what_is_too_wide_is_refused(ring, told):
    """A17, A18."""
    with pytest.raises(ValueError, match=told):
        pieces([np.array(ring, float)])


# ---- several -------------------------------------------------------------------------------------------------


def grid(columns, rows, rng, size=0.3, left=10.0, bottom=50.0):
    """Zones that share wiggly borders, by (column, row)."""
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
def test_neighbours_become_one(left, bottom):
    """CZ2: though each was simplified by itself."""
    rng = np.random.default_rng(5)
    drawn = list(grid(3, 2, rng, left=left, bottom=bottom).values())
    found = join([piece for ring in drawn for piece in pieces([wrapped(ring)])])
    assert len(found) == 1
    judge(drawn, found, rng)


def test_the_middle_of_nine_is_left_out():
    """CZ2: eight of nine zones around one that is not warned."""
    rng = np.random.default_rng(6)
    zones = grid(3, 3, rng)
    middle = zones.pop((1, 1))
    found = join([piece for ring in zones.values() for piece in pieces([ring])])
    assert 2 <= len(found) < len(zones)
    rings = rings_of(found)
    lng, lat = scattered(middle, rng)
    deep = held([SphericalPolygon(exact(middle).positions(), 0.0)], lng, lat) & ~near_edge(middle, lng, lat)
    assert deep.any()
    assert not held(rings, lng[deep], lat[deep]).any()
    for ring in zones.values():
        inside = held([SphericalPolygon(exact(ring).positions(), 0.0)], lng, lat)
        assert held(rings, lng[inside], lat[inside]).all()


def test_what_touches_nothing_stays_as_it_is():
    """CZ2: near and far, on other sides of the world too."""
    given = [
        piece
        for lng, lat in ((10, 50), (10.1, 50), (-170, -50), (100, 89))
        for piece in pieces([square(lng, lat, 0.02)])
    ]
    found = join(given)
    assert sorted(map(id, found)) == sorted(map(id, given))


def test_islands_become_one_where_so_much_water_may_be_told():
    """CZ2: by the category's `simplify_m`."""
    given = [piece for n in range(6) for piece in pieces([square(10 + n * 0.01, 0, 0.002)])]  # 890 m of water each
    assert len(join(given, 500)) == 6
    [one] = join(given, 1_000)
    assert held(rings_of([one]), [10.001 + n * 0.01 for n in range(6)], [0.001] * 6).all()
    assert not held(rings_of([one]), 10.005, 0.02).any()


def test_simpler_piece_reaches_as_far_beyond_its_ring_as_corners_were_left_out():
    """CZ2, HD3: pieces that are too much work to join are simplified first; a small one stays as it is."""
    drawn = around(10, 50, 0.4, np.random.default_rng(5))
    [piece] = pieces([drawn])
    few = polygon_union.simpler(piece, 1_000)
    assert polygon_union.work([few]) < polygon_union.work([piece]) / 2
    assert few.beyond_m == piece.beyond_m + 1_000
    lng, lat = scattered(drawn, np.random.default_rng(6))
    assert not (held(rings_of([piece]), lng, lat) & ~held(rings_of([few]), lng, lat)).any()
    small = Piece(square(10, 50, 0.001), 0.0)
    assert polygon_union.simpler(small, 1_000) is small


def test_a_whole_continent_has_no_common_plane_and_stays_apart():
    """CZ2: A18 holds for what is published; a chain of zones around the world is left as it is."""
    given = [piece for n in range(-180, 180, 20) for piece in pieces([square(n, 0, 20)])]
    assert len(join(given)) == len(given)


def test_pieces_are_plain_data():
    """A piece of a zone is kept for as long as the node runs."""
    piece = Piece(square(10, 50, 1), 0.0)
    assert piece.points().shape == (3, 5)
    assert math.isclose(float((piece.points() ** 2).sum()), 5)
