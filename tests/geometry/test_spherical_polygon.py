"""The rules for which places are inside a polygon (areas.md, rules D4 to D6), compared with the library S2."""

import math

import numpy as np
import pytest
import spherely
from support import s2

from geocast.geometry.sphere import circle_area_m2, distance_m, unit_vector, unit_vectors
from geocast.geometry.spherical_polygon import Edges, SphericalPolygon, angle_between, margins, stretched

CM = 0.01
SIZES_M = (100.0, 1_000.0, 30_000.0, 800_000.0, 3_000_000.0)


def points_of(places):
    """Return the unit vectors, (3, n), of points (lng, lat)."""
    return np.array(unit_vectors(places[:, 1], places[:, 0]))


def check(ring, places, buffer_m, reach_m):
    """Compare the results with S2 for all places that are more than a centimetre from the edge.

    Return how many places were compared, and how many are inside.
    """
    depth = s2.depth_m(ring, places) + buffer_m + reach_m
    said = SphericalPolygon(ring, buffer_m).contains_all(points_of(places), np.full(len(places), reach_m))
    sure = np.abs(depth) > CM
    assert np.array_equal(said[sure], depth[sure] > 0)
    return int(sure.sum()), int(said.sum())


@pytest.mark.parametrize("size_m", SIZES_M)
def test_polygon_test_of_many_places_agrees_with_s2(size_m):
    """Many places and rings are compared, with and without a buffer and a reach (rules D4 and D5)."""
    dice = np.random.default_rng(int(size_m))
    asked = inside = 0
    for n in range(12):
        centre = s2.CENTRES[n % len(s2.CENTRES)]
        ring = s2.a_ring(dice, centre, size_m, int(dice.integers(3, 120) if n else 250))
        places = s2.places(dice, centre, size_m, 1_700)
        buffer_m, reach_m = ((0.0, 0.0), (60.0, 0.0), (0.0, 25.0), (20.0, 2_000.0))[n % 4]
        sure, those = check(ring, places, buffer_m, reach_m)
        asked, inside = asked + sure, inside + those
    assert asked > 20_000
    assert 0.1 * asked < inside < 0.9 * asked


@pytest.mark.parametrize("offset_m", [-1.0, -0.02, 0.02, 1.0])
@pytest.mark.parametrize("centre", s2.CENTRES)
def test_polygon_test_of_many_places_is_exact_to_a_centimetre_at_edge(centre, offset_m):
    """The places are just inside and just outside the buffer, at the sides and corners of a square (rule D4)."""
    bearings = np.arange(4) * math.pi / 2
    ring = [tuple(point) for point in s2.around(centre, bearings, [5_000.0] * 4)]
    ring.append(ring[0])
    buffer_m = 60.0
    corners = s2.around(centre, bearings, [5_000.0 + buffer_m + offset_m] * 4)
    to_edge = math.atan(math.tan(5_000 / s2.EARTH_RADIUS_M) * math.cos(math.pi / 4)) * s2.EARTH_RADIUS_M
    sides = s2.around(centre, bearings + math.pi / 4, [to_edge + buffer_m + offset_m] * 4)
    held = SphericalPolygon(ring, buffer_m).contains_all(points_of(np.vstack([corners, sides])), np.zeros(8))
    assert held.tolist() == [offset_m < 0] * 8


def test_self_crossing_ring_contains_place_it_winds_around_twice():
    """A later release may write such rings into the log (rule D4, Rule 3)."""
    star = [tuple(s2.around((45.0, 9.0), np.array([4 * math.pi * n / 5]), [9_000.0])[0]) for n in range(5)]
    assert SphericalPolygon([*star, star[0]], 0.0).contains(unit_vector(45.0, 9.0), 0.0)


def test_far_side_of_earth_is_outside():
    """The direction of the ring does not matter (rule D4)."""
    ring = [(-50.0, -50.0), (50.0, -50.0), (50.0, 50.0), (-50.0, 50.0), (-50.0, -50.0)]
    for each in (SphericalPolygon(ring, 0.0), SphericalPolygon(ring[::-1], 0.0)):
        assert each.contains(unit_vector(1.0, 1.0), 0.0)
        assert not each.contains(unit_vector(-1.0, -179.0), 2_000.0)


def test_bounding_circle_contains_all_places_inside():
    """The circle includes the buffer. Its centre is `c`, from which distances are measured (rule D6)."""
    dice = np.random.default_rng(5)
    for centre in s2.CENTRES:
        ring = SphericalPolygon(s2.a_ring(dice, centre, 40_000.0, 30), 250.0)
        places = s2.places(dice, centre, 40_000.0, 500)
        inside = places[ring.contains_all(points_of(places), np.zeros(len(places)))]
        assert len(inside) > 80
        assert all(distance_m(lat, lng, ring.lat, ring.lng) <= ring.radius_m for lng, lat in inside.tolist())


@pytest.mark.parametrize("centre", s2.CENTRES)
@pytest.mark.parametrize("size_m", SIZES_M)
def test_area_of_ring_agrees_with_s2_whichever_way_it_turns(centre, size_m):
    """Without a buffer, it is the area that the ring encloses."""
    ring = s2.a_ring(np.random.default_rng(7), centre, size_m, 30)
    expected = spherely.area(spherely.create_polygon(ring[:-1]), radius=s2.EARTH_RADIUS_M)
    for corners in (ring, ring[::-1]):
        assert SphericalPolygon(corners, 0.0).area_m2() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("radius_m", "buffer_m"), [(10_000.0, 500.0), (400_000.0, 90_000.0), (3e6, 1e6)])
def test_area_of_round_ring_with_buffer_is_that_of_wider_circle(radius_m, buffer_m):
    """The strip around a convex ring is exact (Steiner's formula)."""
    ring = s2.around((50.0, 10.0), np.linspace(0, 2 * math.pi, 721), np.full(721, radius_m)).tolist()
    assert SphericalPolygon(ring, buffer_m).area_m2() == pytest.approx(circle_area_m2(radius_m + buffer_m), rel=1e-4)


def test_angle_between_points_is_their_distance_on_the_sphere():
    """Columns are compared with columns, or all with one."""
    places = [(0.0, 0.0), (0.0, 90.0), (90.0, 0.0), (0.0, 180.0), (45.0, 0.0)]
    points = np.array([unit_vector(*place) for place in places]).T
    expected = [0.0, math.pi / 2, math.pi / 2, math.pi, math.pi / 4]
    assert angle_between(points, points[:, :1]) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("far", [0.1, 1.0, 1.4])
def test_bound_of_distance_on_plane_is_close_and_includes_rounding(far):
    """The distance of two points in one direction from the centre is stretched most (Rule 1)."""
    angle = 0.01
    distance = math.tan(far) - math.tan(far - angle)
    assert distance <= stretched(angle, far) <= 1.12 * distance
    x, y = np.array([math.tan(far - angle), 0.0]), np.array([0.0, -math.tan(far - angle)])
    assert margins(x, y, np.full(2, angle)).tolist() == [pytest.approx(stretched(angle, far))] * 2
    assert stretched(0.0, far) > 0
    assert (margins(x, y, np.zeros(2)) > 0).all()


def test_selected_edges_measure_the_same_distances():
    """An edge may be selected more than once."""
    ring = SphericalPolygon(s2.a_ring(np.random.default_rng(3), (50.0, 10.0), 10_000.0, 12), 0.0)
    place, which = unit_vector(50.2, 10.1), np.array([3, 0, 3, 11])
    assert ring.edges().take(which).apart(*place).tolist() == ring.edges().apart(*place)[which].tolist()


def test_distance_to_very_short_edge_is_exact():
    """The product (a-b)×(a+b) keeps digits that a×b would lose: an edge of 11 cm is exact to 1 mm at 1 km (rule D5)."""
    a, b = unit_vector(45.0, 9.0), unit_vector(45.0, 9.000001)
    edge = Edges(np.array(a).reshape(3, 1), np.array(b).reshape(3, 1))
    for north_m in (0.5, 30.0, 1_000.0):
        place = unit_vector(45.0 + math.degrees(north_m / s2.EARTH_RADIUS_M), 9.0000005)
        assert float(edge.apart(*place)[0]) * s2.EARTH_RADIUS_M == pytest.approx(north_m, abs=0.001)


@pytest.mark.parametrize(
    "ring",
    [
        [(0.0, 0.0)] * 4,
        [(0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (-90.0, 0.0), (0.0, 0.0)],
        [(0.0, 90.0), (0.0, -90.0), (0.0, 90.0), (0.0, 90.0)],
        [(0.0, 80.0), (180.0, -80.0), (90.0, 0.0), (0.0, 80.0)],
    ],
)
def test_invalid_ring_raises_no_error(ring):
    """The log may contain such a ring, and any result is acceptable (Rule 3)."""
    each = SphericalPolygon(ring, 20.0)
    assert math.isfinite(each.radius_m)
    assert isinstance(each.contains(unit_vector(50.0, 50.0), 10.0), bool)


def test_place_a_quarter_of_the_earth_away_is_outside():
    """The place has no position on the ring's plane (Rules 1 and 3)."""
    ring = SphericalPolygon([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)], 20.0)
    assert ring.centre == (1.0, 0.0, 0.0)
    for place in ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)):
        assert not ring.contains(place, 0.0)
        assert not ring.contains_all(np.array([place]).T, np.zeros(1)).any()
