"""Which circles and polygons meet a box of latitudes and longitudes, compared with the library S2 (rule FA1)."""

import numpy as np
import pytest
import spherely
from support import s2

from geocast.geometry.lat_lng_box import LatLngBox
from geocast.geometry.sphere import EARTH_RADIUS_M
from geocast.geometry.spherical_polygon import SphericalPolygon

STEPS = 400  # arcs in place of each parallel: off by less than 2 cm for boxes of 2°
UNSURE_M = 0.1


def s2_box(box):
    """Return the box as a polygon of S2, whose parallels are made of many short arcs."""
    lngs = (box.west + np.linspace(0, box.width, STEPS + 1) + 180) % 360 - 180
    ring = [(lng, box.south) for lng in lngs] + [(lng, box.north) for lng in lngs[::-1]]
    return spherely.create_polygon([(float(lng), float(lat)) for lng, lat in ring])


def a_box(dice, centre, size_m):
    """Return a box near a point (lat, lng), whose size and distance are about those of a ring of `size_m`."""
    [(lng, lat)] = s2.around(centre, dice.uniform(0, 2 * np.pi, 1), size_m * dice.uniform(0, 2.2, 1))
    high, wide = np.degrees(size_m * dice.uniform(0.01, 0.7, 2) / EARTH_RADIUS_M)
    south, north = max(lat - high, -90.0), min(lat + high, 90.0)
    return LatLngBox(south, north, lng, min(wide / max(np.cos(np.radians(lat)), 0.02), 60.0))


@pytest.mark.parametrize("size_m", [300.0, 20_000.0, 120_000.0])
@pytest.mark.parametrize("buffer_share", [0.0, 0.15])
def test_polygon_meets_box_exactly_where_s2_says_so(size_m, buffer_share):
    """Also at the poles and across the antimeridian; cases within a few centimetres of the edge are left out."""
    dice = np.random.default_rng(int(size_m) + int(100 * buffer_share))
    sure = met = 0
    for number in range(250):
        centre = s2.CENTRES[number % len(s2.CENTRES)]
        ring = s2.a_ring(dice, centre, size_m, int(dice.integers(3, 30)))
        box, buffer_m = a_box(dice, centre, size_m), size_m * buffer_share
        away_m = spherely.distance(spherely.create_polygon(ring[:-1]), s2_box(box), radius=EARTH_RADIUS_M) - buffer_m
        if abs(away_m) > UNSURE_M or (away_m == 0 and not buffer_m):
            sure += 1
            said = LatLngBox.meets(box, SphericalPolygon(ring, buffer_m))
            assert said == (away_m <= 0), (number, centre, box, away_m)
            met += said
    assert sure > 240
    assert 0.15 * sure < met < 0.9 * sure


def test_polygon_without_a_corner_in_the_box_meets_it_if_an_edge_crosses_it():
    """And the box has no corner in the polygon; the arc may cross only the middle of a parallel."""
    box = LatLngBox(10.0, 11.0, 20.0, 1.0)
    across = SphericalPolygon([(19.0, 10.4), (22.0, 10.4), (22.0, 10.5), (19.0, 10.5), (19.0, 10.4)], 0.0)
    assert box.meets(across)
    high = LatLngBox(60.0, 61.0, -5.0, 10.0)  # the arc from -15° to 15° at 59.7° bulges to 60.6°
    bulge = SphericalPolygon([(-15.0, 59.7), (0.0, 40.0), (15.0, 59.7), (-15.0, 59.7)], 0.0)
    assert high.meets(bulge)
    assert not LatLngBox(60.7, 61.0, -5.0, 10.0).meets(bulge)


@pytest.mark.parametrize(
    ("box", "inside", "outside"),
    [
        (LatLngBox(-10.0, 10.0, 175.0, 10.0), [(0.0, 180.0), (5.0, -176.0), (-10.0, 175.0)], [(0.0, 174.0)]),
        (LatLngBox(80.0, 90.0, 0.0, 10.0), [(90.0, -120.0), (85.0, 5.0)], [(89.0, 180.0)]),
        (LatLngBox(-90.0, -89.0, 0.0, 360.0), [(-90.0, 7.0), (-89.5, -99.0)], [(-88.9, 0.0)]),
    ],
)
def test_points_of_box_are_no_distance_apart_from_it(box, inside, outside):
    """A point beyond a pole is as far away as the way over the pole is."""
    for points, are in ((inside, True), (outside, False)):
        lat, lng = np.array(points).T
        assert ((box.apart(lat, lng) <= 1e-12) == are).all()


def test_distance_from_a_box_is_that_of_the_nearest_of_many_points_of_it():
    """Brute force is the judge, on both sides of the earth and around the poles."""
    dice = np.random.default_rng(7)
    for _ in range(8):
        south, north = np.sort(dice.uniform(-90, 90, 2))
        box = LatLngBox(south, north, dice.uniform(-180, 180), dice.uniform(0, 200))
        lat, lng = dice.uniform(-90, 90, 40), dice.uniform(-180, 180, 40)
        said = box.apart(lat, lng)
        some_lat, some_lng = np.meshgrid(np.linspace(south, north, 300), box.west + np.linspace(0, box.width, 300))
        own, its = np.radians(lat)[:, None], np.radians(some_lat.ravel())
        gap = np.radians(lng[:, None] - some_lng.ravel())
        squared = np.sin((own - its) / 2) ** 2 + np.cos(own) * np.cos(its) * np.sin(gap / 2) ** 2
        found = 2 * np.arcsin(np.sqrt(squared.min(axis=1)))
        assert (said <= found + 1e-9).all()
        middle = LatLngBox(box.middle[0], box.middle[0], box.middle[1], 0.0)
        farthest = middle.apart(some_lat, some_lng).max()
        assert farthest == pytest.approx(box.radius, abs=1e-9) if box.width <= 180 else farthest <= box.radius
        assert (found <= said + 0.012).all()  # half the width of a mesh of 200° in 300 steps


def test_circle_that_a_box_is_said_to_contain_is_inside():
    """No point of the circle is outside, and nearly all circles that are inside are found."""
    dice = np.random.default_rng(3)
    box = LatLngBox(40.0, 60.0, 170.0, 30.0)
    lat, lng, angle = dice.uniform(35, 65, 400), dice.uniform(160, 210, 400), np.radians(dice.uniform(0.1, 4, 400))
    said = box.contains_disc(lat, (lng + 180) % 360 - 180, angle)
    for one in np.flatnonzero(said):
        rim = s2.around((lat[one], lng[one]), np.linspace(0, 2 * np.pi, 90), [angle[one] * EARTH_RADIUS_M] * 90)
        assert (box.apart(rim[:, 1], rim[:, 0]) < 1e-9).all()
    assert said.sum() > 60


@pytest.mark.parametrize(
    ("box", "disc", "inside"),
    [
        (LatLngBox(40.0, 60.0, 170.0, 40.0), (50.0, -170.0, 10.0), True),  # it touches the north and the south
        (LatLngBox(40.0, 60.0, 170.0, 40.0), (50.1, -170.0, 10.0), False),
        (LatLngBox(40.0, 60.0, 170.0, 40.0), (49.9, -170.0, 10.0), False),
        (LatLngBox(-10.0, 10.0, 5.0, 20.0), (0.0, 14.0, 9.5), False),  # beyond the west
        (LatLngBox(-10.0, 10.0, 5.0, 20.0), (0.0, 16.0, 9.5), False),  # beyond the east
        (LatLngBox(-10.0, 10.0, 5.0, 20.0), (0.0, 15.0, 9.5), True),
        (LatLngBox(-10.0, 10.0, 5.0, 20.0), (0.0, 5.0, 0.0), True),  # a point on the western side
        (LatLngBox(-10.0, 10.0, 5.0, 20.0), (0.0, 25.0, 0.0), True),  # a point on the eastern side
        (LatLngBox(-90.0, 90.0, 0.0, 360.0), (0.0, 1.0, 80.0), True),  # across the meridian at which the box begins
        (LatLngBox(-90.0, 90.0, 0.0, 360.0), (0.0, 1.0, 90.0), False),  # half of the sphere
        (LatLngBox(80.0, 90.0, 0.0, 90.0), (90.0, 45.0, 1.0), False),  # around the pole
    ],
)
def test_circle_is_contained_up_to_the_sides_of_the_box(box, disc, inside):
    """A circle that touches a side from within is inside; no warning is raised at a pole."""
    lat, lng, radius = disc
    assert box.contains_disc(np.array([lat]), np.array([lng]), np.radians([radius])).tolist() == [inside]
