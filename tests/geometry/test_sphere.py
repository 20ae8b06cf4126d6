"""The sphere, the published circle and the cover, compared with an independent haversine and with h3's own shapes."""

import math
import random

import h3.api.basic_int as h3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geocast.geometry.sphere import (
    EARTH_RADIUS_M,
    HALF_CIRCUMFERENCE_M,
    cell_from_string,
    cell_of,
    cell_place,
    chord2,
    chord2_to_m,
    circle_area_m2,
    cover,
    distance_m,
    lat_lng,
    limit_chord2,
    publish_circle,
    unit_vector,
    unit_vectors,
)

CM = 0.01
DALLAS = (32.7767, -96.797)
# Places at which formulas are likely to go wrong: poles, antimeridian, Greenwich, equator.
CORNERS = [(90.0, 0.0), (-90.0, 77.0), (89.9999, 12.0), (0.0, 180.0), (12.5, -179.9999), (0.0, 0.0), (-33.9, 18.4)]
PENTAGONS = [h3.cell_to_latlng(cell) for cell in h3.get_pentagons(9)]

latitudes, longitudes = st.floats(-90, 90), st.floats(-180, 180)
resolutions = st.integers(7, 15)
unhurried = settings(deadline=None)


def haversine_m(lat1, lng1, lat2, lng2):
    """Return the distance by another formula than the tested one. It is wrong by decimetres near the antipode."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    h = (
        math.sin((phi2 - phi1) / 2) ** 2
        + math.cos(phi1) * math.cos(phi2) * math.sin(math.radians(lng2 - lng1) / 2) ** 2
    )
    return 2 * 6_371_007.180918475 * math.asin(math.sqrt(min(1.0, h)))


def point_at(lat, lng, bearing, distance):
    """Return the point at this bearing (radians) and distance (metres)."""
    phi, delta = math.radians(lat), distance / 6_371_007.180918475
    sin_phi = math.sin(phi) * math.cos(delta) + math.cos(phi) * math.sin(delta) * math.cos(bearing)
    east = math.atan2(math.sin(bearing) * math.sin(delta) * math.cos(phi), math.cos(delta) - math.sin(phi) * sin_phi)
    lng2 = math.remainder(lng + math.degrees(east), 360)
    return math.degrees(math.asin(max(-1.0, min(1.0, sin_phi)))), lng2


# ---- distance ------------------------------------------------------------------------------------------------


@unhurried
@given(latitudes, longitudes, latitudes, longitudes)
def test_distance_m_agrees_with_haversine(lat1, lng1, lat2, lng2):
    """Both formulas agree to a centimetre, except near the antipode, where the haversine is inexact."""
    expected = haversine_m(lat1, lng1, lat2, lng2)
    blur = 1.0 if expected > HALF_CIRCUMFERENCE_M - 1000 else CM
    assert distance_m(lat1, lng1, lat2, lng2) == pytest.approx(expected, abs=blur)


@unhurried
@given(latitudes, longitudes)
def test_distance_m_to_antipode_is_half_the_circumference(lat, lng):
    """The result is exact to less than a micrometre."""
    opposite = lng - 180 if lng > 0 else lng + 180
    assert distance_m(lat, lng, -lat, opposite) == pytest.approx(math.pi * 6_371_007.180918475, abs=1e-6)


@pytest.mark.parametrize("lat", [0.0, 45.0, -89.0])
def test_distance_m_of_close_points_is_exact(lat):
    """A nanodegree of latitude is a ninth of a millimetre."""
    metres = math.radians(1e-9) * EARTH_RADIUS_M
    assert distance_m(lat, 10.0, lat + 1e-9, 10.0) == pytest.approx(metres, abs=3e-9)


def test_distance_between_two_notations_of_one_place_is_zero():
    """The longitudes 180 and -180 are the same, and at a pole any longitude is."""
    assert distance_m(10.0, 180.0, 10.0, -180.0) < 1e-6
    assert distance_m(90.0, 1.0, 90.0, -120.0) < 1e-6
    assert distance_m(-90.0, 180.0, -90.0, 0.0) < 1e-6


def test_unit_vectors_computed_for_arrays_agree_with_those_for_single_points():
    """The functions for arrays and for numbers agree to the last bits."""
    points = [*CORNERS, DALLAS, *PENTAGONS]
    lat, lng = np.array(points).T
    expected = np.array([unit_vector(*point) for point in points]).T
    assert np.allclose(unit_vectors(lat, lng), expected, rtol=0, atol=1e-15)


# ---- chords as distances -------------------------------------------------------------------------------------


@unhurried
@given(latitudes, longitudes, st.floats(0, 2 * math.pi), st.floats(1, 600_000), st.floats(-1, 1))
def test_chord_and_distance_agree_on_which_points_are_inside(lat, lng, bearing, limit, off):
    """Points within a metre of the edge are tested, except those within a centimetre."""
    place = point_at(lat, lng, bearing, max(0.0, limit + off))
    distance = haversine_m(lat, lng, *place)
    if abs(distance - limit) > CM:
        x, y, z = (np.array([axis]) for axis in unit_vector(*place))
        inside = chord2(x, y, z, unit_vector(lat, lng)) <= limit_chord2(limit)
        assert bool(inside[0]) == (distance <= limit)


def test_chord_limit_for_half_circumference_includes_antipode():
    """Rounding must not leave the antipode outside."""
    x, y, z = unit_vectors(np.array([-10.0]), np.array([20.0]))
    limits = limit_chord2(np.array([HALF_CIRCUMFERENCE_M - 100, HALF_CIRCUMFERENCE_M, 1e300]))
    antipodal = chord2(x, y, z, unit_vector(10.0, -160.0))
    assert list(antipodal <= limits) == [False, True, True]


def test_chord_limit_is_infinite_from_half_circumference_on():
    """The results for a number and for an array are equal."""
    metres = [HALF_CIRCUMFERENCE_M - 1.0, HALF_CIRCUMFERENCE_M, 3e7]
    expected = [pytest.approx(4.0), math.inf, math.inf]
    assert [limit_chord2(each) for each in metres] == expected
    assert limit_chord2(np.array(metres)).tolist() == expected


@unhurried
@given(st.floats(0, 20_000_000))
def test_conversion_of_distance_to_chord_and_back_gives_the_same_distance(metres):
    """After both conversions a distance is the same to a centimetre."""
    assert float(chord2_to_m(limit_chord2(metres))) == pytest.approx(metres, abs=CM)


# ---- cells ---------------------------------------------------------------------------------------------------


# Latitudes at which the antimeridian crosses the edge of a cell, by resolution, exact to the last bit.
EDGES_AT_180 = [-58.870262208583874, -7.7756107744397704, -82.34508640139026, -19.97799881085393]
EDGES_AT_180 += [-20.598300140636333, -32.785848689089875, 63.741124945790986, 19.825693342122833]
EDGES_AT_180 += [-11.884468856969221, -11.05508419646596, 29.703164664876194, -66.31728883716075]
EDGES_AT_180 += [20.654350924752134, 22.72505474425657, 26.39600171610556, -1.4907626360761423]


@pytest.mark.parametrize(("resolution", "lat"), list(enumerate(EDGES_AT_180)))
def test_cell_of_place_is_the_same_for_longitudes_180_and_minus_180(resolution, lat):
    """This also holds exactly on the edge of a cell."""
    assert cell_of(lat, 180.0, resolution) == cell_of(lat, -180.0, resolution)


@pytest.mark.parametrize("resolution", range(16))
def test_cell_of_pole_is_same_for_all_longitudes(resolution):
    """The sign of a zero does not matter either."""
    for pole in (90.0, -90.0):
        assert len({cell_of(pole, lng, resolution) for lng in (-180.0, -77.7, -0.0, 0.0, 33.3, 180.0)}) == 1
    assert cell_of(-0.0, -0.0, resolution) == cell_of(0.0, 0.0, resolution)


@unhurried
@given(latitudes, longitudes, resolutions)
def test_cell_from_string_reads_h3_cells(lat, lng, resolution):
    """A client's own H3 library writes cells in this way."""
    cell = h3.latlng_to_cell(lat, lng, resolution)
    assert cell_from_string(h3.int_to_str(cell)) == cell


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8926cb19b3bffff\n",
        "8926CB19B3BFFFF",
        "0x8926cb19b3bff",
        "8926cb19b3bfff",
        "08926cb19b3bffff",
        " 926cb19b3bffff",
        "８926cb19b3bffff",
        "8926cb19b3bfffg",
        "8926cb19b3bfff0",  # digits finer than the resolution
        "fffffffffffffff",
        "000000000000000",
        "1926cb19b3bffff",  # the mode is not that of a cell
        h3.int_to_str(h3.latlng_to_cell(*DALLAS, 6)),
        h3.int_to_str(h3.latlng_to_cell(*DALLAS, 0)),
        h3.int_to_str(h3.origin_to_directed_edges(h3.latlng_to_cell(*DALLAS, 9))[0])[:15],
    ],
)
def test_cell_from_string_refuses_other_texts(text):
    """Only a valid cell of resolution 7 to 15, in 15 lower-case hexadecimal digits, is read."""
    assert cell_from_string(text) is None


@pytest.mark.parametrize("point", [DALLAS, *CORNERS, *PENTAGONS])
@pytest.mark.parametrize("resolution", [5, 7, 8, 9, 12, 15])
def test_reach_of_cell_is_distance_to_farthest_point_of_its_boundary(point, resolution):
    """In small steps along the boundary, no point is beyond the reach, and one point is at the reach."""
    cell = cell_of(*point, resolution)
    lat, lng, reach = cell_place(cell)
    corners = [np.array(unit_vector(*corner)) for corner in h3.cell_to_boundary(cell)]
    edges = zip(corners, corners[1:] + corners[:1], strict=True)
    walk = np.array([a + (b - a) * step / 20 for a, b in edges for step in range(20)])
    x, y, z = walk.T / np.linalg.norm(walk, axis=1)
    assert chord2_to_m(chord2(x, y, z, unit_vector(lat, lng))).max() == pytest.approx(reach, abs=1e-3)
    assert (lat, lng) == h3.cell_to_latlng(cell)


# ---- the published circle --------------------------------------------------------------------------------------


@unhurried
@given(latitudes, longitudes, st.floats(1, 500_000), st.integers(5, 12))
def test_published_circle_contains_the_requested_one(lat, lng, radius, resolution):
    """The radius makes up for the distance between the centres, and is a multiple of 10 m."""
    published_lat, published_lng, published_m = publish_circle(lat, lng, radius, resolution)
    assert haversine_m(lat, lng, published_lat, published_lng) + radius <= published_m + CM
    assert published_m % 10 == 0
    assert published_m < radius + cell_place(cell_of(lat, lng, resolution))[2] + 10


@unhurried
@given(latitudes, longitudes, st.floats(100, 20_000), st.integers(7, 10), st.randoms())
def test_published_circle_is_same_for_all_centres_in_cell(lat, lng, radius, resolution, rng):
    """So the circle does not reveal where in the cell the incident was."""
    cell = cell_of(lat, lng, resolution)
    published = publish_circle(lat, lng, radius, resolution)
    centre_lat, centre_lng, reach = cell_place(cell)
    for _ in range(10):
        other = point_at(centre_lat, centre_lng, rng.uniform(0, 2 * math.pi), rng.uniform(0, reach))
        if cell_of(*other, resolution) == cell:
            assert publish_circle(*other, radius, resolution) == published


def test_published_circle_agrees_with_calculation_by_hand():
    """The calculation follows the protocol's rule, with h3's own numbers."""
    cell = h3.latlng_to_cell(*DALLAS, 9)
    lat, lng = h3.cell_to_latlng(cell)
    reach = max(haversine_m(lat, lng, *corner) for corner in h3.cell_to_boundary(cell))
    assert publish_circle(*DALLAS, 800, 9) == (lat, lng, 10 * math.ceil((800 + reach) / 10))
    assert publish_circle(*DALLAS, 800, 9)[2] == 1020.0


def test_published_circle_does_not_depend_on_notation_of_centre():
    """The longitudes 180 and -180 give the same circle, and so do all longitudes at a pole."""
    assert publish_circle(10.0, 180.0, 500, 9) == publish_circle(10.0, -180.0, 500, 9)
    assert publish_circle(-90.0, 180.0, 500, 9) == publish_circle(-90.0, 3.0, 500, 9)


# ---- the cover -------------------------------------------------------------------------------------------------


def is_covered(ranges, cell):
    return any(first <= cell <= last for first, last in ranges)


def around(rng, lat, lng, radius, count):
    """Return points within the radius, most of them close to its edge."""
    for _ in range(count):
        yield point_at(lat, lng, rng.uniform(0, 2 * math.pi), radius * rng.random() ** 0.05)


@unhurried
@given(latitudes, longitudes, st.floats(0, math.log(3e7)), st.integers(8, 12), st.randoms())
def test_cover_contains_cell_of_every_point_within_radius(lat, lng, log_radius, resolution, rng):
    """The radius is between 1 m and more than half the globe, around places everywhere."""
    radius = math.exp(log_radius)
    ranges = cover(lat, lng, radius, resolution)
    reached = min(radius, HALF_CIRCUMFERENCE_M)
    assert all(is_covered(ranges, cell_of(*point, resolution)) for point in around(rng, lat, lng, reached, 30))


@pytest.mark.parametrize("resolution", range(10))
def test_cover_is_complete_near_pentagons(resolution):
    """Centres lie in pentagons' neighbours, and radii are half an edge to one and a half."""
    rng = random.Random(resolution)
    edge = h3.average_hexagon_edge_length(resolution, "m")
    for pentagon in h3.get_pentagons(resolution):
        middle = h3.cell_to_latlng(pentagon)
        for centre in around(rng, *middle, 4 * edge, 20):
            radius = edge * max(0.5, rng.uniform(0, 1.5))
            ranges = cover(*centre, radius, 10)
            for point in around(rng, *centre, radius, 12):
                assert is_covered(ranges, cell_of(*point, 10))


@pytest.mark.parametrize("point", CORNERS)
@pytest.mark.parametrize("radius", [1, 100, 5_000, 80_000, 640_000])
def test_cover_is_complete_at_poles_and_antimeridian(point, radius):
    """Other places where longitudes jump are tested as well."""
    ranges = cover(*point, radius, 10)
    assert ranges == sorted(ranges)
    assert all(is_covered(ranges, cell_of(*p, 10)) for p in around(random.Random(radius), *point, radius, 200))


def test_cover_excludes_far_points():
    """Points at twenty times the radius are outside the cover (from one resolution to the next, edges grow by 2.6)."""
    rng = random.Random(1)
    for radius in (100, 1_000, 10_000, 100_000, 600_000):
        ranges = cover(*DALLAS, radius, 10)
        for _ in range(100):
            far = point_at(*DALLAS, rng.uniform(0, 2 * math.pi), 20 * radius)
            assert not is_covered(ranges, cell_of(*far, 10))


def test_cover_is_small_for_a_point_and_everything_for_the_globe():
    """The cover of a point is its cell and the ring around it. If no ring is wide enough, the cover has all cells."""
    cell = cell_of(*DALLAS, 10)
    assert cover(*DALLAS, 0.0, 10) == [(c, c) for c in sorted(h3.grid_disk(cell, 1))]
    assert cover(*DALLAS, 2e7, 10) == [(0, 2**63 - 1)]


# ---- coordinates and areas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lat", "lng"), [*CORNERS[2:], DALLAS, (-45.0, 135.0), (60.0, -120.0)])
def test_latitude_and_longitude_of_unit_vector_are_those_of_its_point(lat, lng):
    """Each quadrant of the earth is tested, and the antimeridian."""
    assert lat_lng(unit_vector(lat, lng)) == pytest.approx((lat, lng))


def test_area_of_circle_is_that_of_a_cap_of_the_sphere():
    """A small circle is nearly flat, and no circle is larger than the earth."""
    earth_m2 = 4 * math.pi * EARTH_RADIUS_M**2
    quarter_m = HALF_CIRCUMFERENCE_M / 2
    assert circle_area_m2(0.01) == pytest.approx(math.pi * 0.01**2, rel=1e-12)
    assert circle_area_m2(500.0) == pytest.approx(math.pi * 500.0**2, rel=1e-8)
    assert circle_area_m2(quarter_m) == pytest.approx(earth_m2 / 2)
    assert circle_area_m2(2 / 3 * HALF_CIRCUMFERENCE_M) == pytest.approx(earth_m2 * 3 / 4)
    assert circle_area_m2(HALF_CIRCUMFERENCE_M) == circle_area_m2(3e7) == pytest.approx(earth_m2)
