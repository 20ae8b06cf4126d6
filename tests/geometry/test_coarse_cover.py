"""Covers of many shapes by few coarse shapes: they cover every place, anywhere on the sphere (rule HD10)."""

import numpy as np
import pytest
from support import s2

from bench.hard_rings import closed, coast
from geocast.geometry import coarse_cover
from geocast.geometry.coarse_cover import around, few
from geocast.geometry.polygon_union import Piece
from geocast.geometry.published_polygon import MAX_CORNERS, publish_polygons, split_edges
from geocast.geometry.sphere import unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon

pytestmark = pytest.mark.slow

MOST = 64


def piece(ring):
    """Return a ring as a piece, with its edges split as rule A17 has them."""
    lng, lat, beyond_m = split_edges(*np.array(ring).T)
    return Piece(np.array([lng, lat]), beyond_m)


def published(given):
    """Return the polygons that are published for pieces, after checking that they are few enough."""
    polygons = publish_polygons(few(given, MOST), 0)
    assert len(polygons) <= MOST
    assert sum(len(polygon.ring) - 1 for polygon in polygons) <= MAX_CORNERS
    return [SphericalPolygon(polygon.ring, polygon.buffer_m) for polygon in polygons]


def inside_any(rings, points):
    """Return whether places, (3, n), are in any of the rings."""
    return np.any([ring.contains_all(points, np.zeros(points.shape[1])) for ring in rings], axis=0)


def places_in(given, dice, count=30):
    """Return corners of pieces, and random places inside them or within their `beyond_m`, as an array (3, n)."""
    found = []
    for each in given:
        ring = SphericalPolygon(each.ring.T.tolist(), each.beyond_m)
        near = s2.places(dice, (ring.lat, ring.lng), ring.radius_m, count)
        points = np.array(unit_vectors(near[:, 1], near[:, 0]))
        found += [each.points(), points[:, ring.contains_all(points, np.zeros(count))]]
    return np.hstack(found)


@pytest.mark.parametrize("centre", s2.CENTRES)
@pytest.mark.parametrize(("count", "size_m"), [(1, 800_000), (3, 30_000), (70, 3_000), (110, 40_000), (300, 9_000)])
def test_coarse_cover_contains_places_of_crossing_rings_anywhere(centre, count, size_m):
    """Rings cross themselves and each other, lie at poles and across the antimeridian (rule HD10, Rule 1)."""
    dice = np.random.default_rng(count)
    middles = s2.places(dice, centre, 600_000, count)
    given = []
    for n, (lng, lat) in enumerate(middles.tolist()):
        ring = s2.a_ring(dice, (lat, lng), size_m, 9)
        if n % 3 == 0:
            ring[2], ring[6] = ring[6], ring[2]
        given.append(piece(ring[:: 1 if n % 2 else -1]))
    assert inside_any(published(given), places_in(given, dice)).all()


def test_coarse_cover_contains_overlapping_rings_of_opposite_directions():
    """Where two rings of opposite directions overlap, their winding numbers are 1 and -1 (Rule 1)."""
    ring = coast(600, 3)
    given = [piece(ring), piece(ring[::-1]), *(piece(coast(600, n, 17, -88 + n / 10)) for n in range(4))]
    assert inside_any(published(given), places_in(given, np.random.default_rng(1))).all()


def test_coarse_cover_does_not_fill_hole_of_ring_shaped_area():
    """The area is a wide zigzag ring around a free middle (Rule 2 of `polygon_union`)."""
    turn = np.arange(5_000) * 2 * np.pi / 5_000
    out, back = 1.0 + 0.1 * (np.arange(5_000) % 2), 0.8 - 0.1 * (np.arange(5_000) % 2)
    wreath = np.vstack(
        [
            np.column_stack([out * np.cos(turn), out * np.sin(turn)]),
            np.column_stack([back * np.cos(turn), back * np.sin(turn)])[::-1],
        ]
    )
    rings = published([piece(closed(wreath + np.array([10, 0])))])
    middle = np.array(unit_vectors(np.array([0.0, 0.1]), np.array([10.0, 10.1])))
    assert not inside_any(rings, middle).any()


def test_polygon_around_circle_covers_circle():
    """The polygon contains the circle, and reaches at most 1 km farther (Rule 1)."""
    ring = around((50.0, 10.0, 40_000.0))
    edge = s2.around((50.0, 10.0), np.linspace(0, 6.28, 200), np.full(200, 39_999.0))
    assert s2.depth_m(ring.ring.T.tolist(), edge).min() > 0
    far = s2.around((50.0, 10.0), np.linspace(0, 6.28, 200), np.full(200, 41_000.0))
    assert s2.depth_m(ring.ring.T.tolist(), far).max() < 0


def test_ring_that_is_too_wide_has_no_coarse_cover():
    """A ring around the equator breaks rule A18. A ring without area among many others does no harm."""
    equator = closed(np.column_stack([np.arange(-180, 180, 10), np.zeros(36)]))
    assert few([piece(equator)], MOST) is None
    line = Piece(np.array([[10.0, 11.0, 10.0, 10.0], [50.0, 50.0, 50.0, 50.0]]), 0.0)
    given = [line, *(piece(coast(12, n, 40 + n / 8, 9, 0.05)) for n in range(80))]
    assert inside_any(published(given), places_in(given[1:], np.random.default_rng(2))).all()


def test_coarse_cover_skips_grids_that_take_too_long(monkeypatch):
    """If a grid has too many marks, the next one has half as many squares along a side (rule HD3)."""
    drawn = []
    marked = coarse_cover._marked
    monkeypatch.setattr(
        coarse_cover, "_marked", lambda *given: drawn.append((given[3], marked(*given) is None)) or marked(*given)
    )
    turn = np.arange(20_000) * 2 * np.pi / 20_000
    far = 0.05 + 0.95 * (np.arange(20_000) % 2)
    assert few([piece(closed(0.1 * np.column_stack([far * np.cos(turn), far * np.sin(turn)])))], MOST)
    assert drawn[0] == (256, True)
    assert drawn[-1][1] is False
