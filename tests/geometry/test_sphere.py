"""The sphere, the published circle, and the cover: against an independent haversine and against h3's own shapes."""

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
    cover,
    distance_m,
    limit_chord2,
    publish_circle,
    unit_vector,
    unit_vectors,
)

CM = 0.01
DALLAS = (32.7767, -96.797)
# Where spheres and cells go wrong: poles, antimeridian, Greenwich, the equator.
CORNERS = [(90.0, 0.0), (-90.0, 77.0), (89.9999, 12.0), (0.0, 180.0), (12.5, -179.9999), (0.0, 0.0), (-33.9, 18.4)]
PENTAGONS = [h3.cell_to_latlng(cell) for cell in h3.get_pentagons(9)]

latitudes, longitudes = st.floats(-90, 90), st.floats(-180, 180)
resolutions = st.integers(7, 15)
unhurried = settings(deadline=None)


def haversine_m(lat1, lng1, lat2, lng2):
    """The distance by another formula than the one under test; blind to decimetres near the antipode."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    h = (
        math.sin((phi2 - phi1) / 2) ** 2
        + math.cos(phi1) * math.cos(phi2) * math.sin(math.radians(lng2 - lng1) / 2) ** 2
    )
    return 2 * 6_371_007.180918475 * math.asin(math.sqrt(min(1.0, h)))


def point_at(lat, lng, bearing, distance):
    """The point that many metres away in that direction (radians)."""
    phi, delta = math.radians(lat), distance / 6_371_007.180918475
    sin_phi = math.sin(phi) * math.cos(delta) + math.cos(phi) * math.sin(delta) * math.cos(bearing)
    east = math.atan2(math.sin(bearing) * math.sin(delta) * math.cos(phi), math.cos(delta) - math.sin(phi) * sin_phi)
    lng2 = math.remainder(lng + math.degrees(east), 360)
    return math.degrees(math.asin(max(-1.0, min(1.0, sin_phi)))), lng2


# ---- distance ------------------------------------------------------------------------------------------------


@unhurried
@given(latitudes, longitudes, latitudes, longitudes)
def test_distance_is_the_haversine(lat1, lng1, lat2, lng2):
    """Two formulas agree to a centimetre, but near the antipode, where the haversine is blurred."""
    expected = haversine_m(lat1, lng1, lat2, lng2)
    blur = 1.0 if expected > HALF_CIRCUMFERENCE_M - 1000 else CM
    assert distance_m(lat1, lng1, lat2, lng2) == pytest.approx(expected, abs=blur)


@unhurried
@given(latitudes, longitudes)
def test_distance_to_the_antipode_is_half_the_circumference(lat, lng):
    """To less than a micrometre."""
    opposite = lng - 180 if lng > 0 else lng + 180
    assert distance_m(lat, lng, -lat, opposite) == pytest.approx(math.pi * 6_371_007.180918475, abs=1e-6)


@pytest.mark.parametrize("lat", [0.0, 45.0, -89.0])
def test_distance_of_neighbours_is_good_to_micrometres(lat):
    """A nanodegree of latitude is a ninth of a millimetre."""
    metres = math.radians(1e-9) * EARTH_RADIUS_M
    assert distance_m(lat, 10.0, lat + 1e-9, 10.0) == pytest.approx(metres, abs=3e-9)


def test_distance_knows_one_place_by_all_its_names():
    """180 is -180, and at a pole the longitude means nothing."""
    assert distance_m(10.0, 180.0, 10.0, -180.0) < 1e-6
    assert distance_m(90.0, 1.0, 90.0, -120.0) < 1e-6
    assert distance_m(-90.0, 180.0, -90.0, 0.0) < 1e-6


def test_unit_vectors_are_the_unit_vector_of_each():
    """The vectorised form and the scalar one say the same to the last bits."""
    points = [*CORNERS, DALLAS, *PENTAGONS]
    lat, lng = np.array(points).T
    expected = np.array([unit_vector(*point) for point in points]).T
    assert np.allclose(unit_vectors(lat, lng), expected, rtol=0, atol=1e-15)


# ---- the chord -----------------------------------------------------------------------------------------------


@unhurried
@given(latitudes, longitudes, st.floats(0, 2 * math.pi), st.floats(1, 600_000), st.floats(-1, 1))
def test_a_place_is_inside_by_its_chord_if_and_only_if_by_its_distance(lat, lng, bearing, limit, off):
    """Points within a metre of the edge fall on the right side of it, if not within a centimetre."""
    place = point_at(lat, lng, bearing, max(0.0, limit + off))
    distance = haversine_m(lat, lng, *place)
    if abs(distance - limit) > CM:
        x, y, z = (np.array([axis]) for axis in unit_vector(*place))
        inside = chord2(x, y, z, unit_vector(lat, lng)) <= limit_chord2(limit)
        assert bool(inside[0]) == (distance <= limit)


def test_a_limit_of_half_the_circumference_lets_everything_in():
    """No rounding can leave the antipode outside."""
    x, y, z = unit_vectors(np.array([-10.0]), np.array([20.0]))
    limits = limit_chord2(np.array([HALF_CIRCUMFERENCE_M - 100, HALF_CIRCUMFERENCE_M, 1e300]))
    antipodal = chord2(x, y, z, unit_vector(10.0, -160.0))
    assert list(antipodal <= limits) == [False, True, True]


@unhurried
@given(st.floats(0, 20_000_000))
def test_a_chord_is_turned_back_into_its_distance(metres):
    """`chord2_to_m` undoes `limit_chord2`."""
    assert float(chord2_to_m(limit_chord2(metres))) == pytest.approx(metres, abs=CM)


# ---- cells ---------------------------------------------------------------------------------------------------


# Where the antimeridian crosses the edge of a cell, by resolution: to the last bit, or H3 would see no difference.
EDGES_AT_180 = [-58.870262208583874, -7.7756107744397704, -82.34508640139026, -19.97799881085393]
EDGES_AT_180 += [-20.598300140636333, -32.785848689089875, 63.741124945790986, 19.825693342122833]
EDGES_AT_180 += [-11.884468856969221, -11.05508419646596, 29.703164664876194, -66.31728883716075]
EDGES_AT_180 += [20.654350924752134, 22.72505474425657, 26.39600171610556, -1.4907626360761423]


@pytest.mark.parametrize(("resolution", "lat"), list(enumerate(EDGES_AT_180)))
def test_a_point_has_one_cell_whether_at_180_or_at_minus_180(resolution, lat):
    """On the very edge of a cell too."""
    assert cell_of(lat, 180.0, resolution) == cell_of(lat, -180.0, resolution)


@pytest.mark.parametrize("resolution", range(16))
def test_a_pole_has_one_cell_whatever_its_longitude(resolution):
    """And so has a point that is written with a minus before its zero."""
    for pole in (90.0, -90.0):
        assert len({cell_of(pole, lng, resolution) for lng in (-180.0, -77.7, -0.0, 0.0, 33.3, 180.0)}) == 1
    assert cell_of(-0.0, -0.0, resolution) == cell_of(0.0, 0.0, resolution)


@unhurried
@given(latitudes, longitudes, resolutions)
def test_a_cell_is_read_from_its_string(lat, lng, resolution):
    """What a client gets from its own H3 library is taken."""
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
        "8926cb19b3bfff0",  # digits where the resolution has none
        "fffffffffffffff",
        "000000000000000",
        "1926cb19b3bffff",  # not the mode of a cell
        h3.int_to_str(h3.latlng_to_cell(*DALLAS, 6)),
        h3.int_to_str(h3.latlng_to_cell(*DALLAS, 0)),
        h3.int_to_str(h3.origin_to_directed_edges(h3.latlng_to_cell(*DALLAS, 9))[0])[:15],
    ],
)
def test_a_string_that_is_no_such_cell_is_none(text):
    """15 lower-case hex digits, a valid cell, resolution 7 to 15, and nothing else."""
    assert cell_from_string(text) is None


@pytest.mark.parametrize("point", [DALLAS, *CORNERS, *PENTAGONS])
@pytest.mark.parametrize("resolution", [5, 7, 8, 9, 12, 15])
def test_the_reach_of_a_cell_takes_in_its_whole_boundary_and_no_more(point, resolution):
    """Walk along the boundary in small steps: none is beyond the reach, one is at it."""
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
def test_the_published_circle_contains_the_requested_one(lat, lng, radius, resolution):
    """Its radius makes up for the way from centre to centre, and is a multiple of 10 m."""
    published_lat, published_lng, published_m = publish_circle(lat, lng, radius, resolution)
    assert haversine_m(lat, lng, published_lat, published_lng) + radius <= published_m + CM
    assert published_m % 10 == 0
    assert published_m < radius + cell_place(cell_of(lat, lng, resolution))[2] + 10


@unhurried
@given(latitudes, longitudes, st.floats(100, 20_000), st.integers(7, 10), st.randoms())
def test_the_published_circle_is_the_same_wherever_in_its_cell_the_centre_was(lat, lng, radius, resolution, rng):
    """So it tells nothing of where in the cell the incident was."""
    cell = cell_of(lat, lng, resolution)
    published = publish_circle(lat, lng, radius, resolution)
    centre_lat, centre_lng, reach = cell_place(cell)
    for _ in range(10):
        other = point_at(centre_lat, centre_lng, rng.uniform(0, 2 * math.pi), rng.uniform(0, reach))
        if cell_of(*other, resolution) == cell:
            assert publish_circle(*other, radius, resolution) == published


def test_the_published_circle_by_hand():
    """One by the rule of the protocol, with h3's own figures."""
    cell = h3.latlng_to_cell(*DALLAS, 9)
    lat, lng = h3.cell_to_latlng(cell)
    reach = max(haversine_m(lat, lng, *corner) for corner in h3.cell_to_boundary(cell))
    assert publish_circle(*DALLAS, 800, 9) == (lat, lng, 10 * math.ceil((800 + reach) / 10))
    assert publish_circle(*DALLAS, 800, 9)[2] == 1020.0


def test_the_published_circle_does_not_depend_on_how_the_centre_is_written():
    """180 and -180, and every longitude at a pole."""
    assert publish_circle(10.0, 180.0, 500, 9) == publish_circle(10.0, -180.0, 500, 9)
    assert publish_circle(-90.0, 180.0, 500, 9) == publish_circle(-90.0, 3.0, 500, 9)


# ---- the cover -------------------------------------------------------------------------------------------------


def is_covered(ranges, cell):
    return any(first <= cell <= last for first, last in ranges)


def around(rng, lat, lng, radius, count):
    """Points within the radius, most of them close to its edge."""
    for _ in range(count):
        yield point_at(lat, lng, rng.uniform(0, 2 * math.pi), radius * rng.random() ** 0.05)


@unhurried
@given(latitudes, longitudes, st.floats(0, math.log(3e7)), st.integers(8, 12), st.randoms())
def test_a_cover_holds_the_cell_of_every_point_within_the_radius(lat, lng, log_radius, resolution, rng):
    """Anywhere, from 1 m to more than half the globe."""
    radius = math.exp(log_radius)
    ranges = cover(lat, lng, radius, resolution)
    reached = min(radius, HALF_CIRCUMFERENCE_M)
    assert all(is_covered(ranges, cell_of(*point, resolution)) for point in around(rng, lat, lng, reached, 30))


@pytest.mark.parametrize("resolution", range(10))
def test_a_cover_holds_where_cells_are_most_distorted(resolution):
    """Around all pentagons, from centres all over their neighbours, from half an edge (inclusive) to one and a half."""
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
def test_a_cover_holds_at_the_poles_and_across_the_antimeridian(point, radius):
    """And wherever else a longitude may jump."""
    ranges = cover(*point, radius, 10)
    assert ranges == sorted(ranges)
    assert all(is_covered(ranges, cell_of(*p, 10)) for p in around(random.Random(radius), *point, radius, 200))


def test_a_cover_is_not_much_larger_than_need_be():
    """What lies twenty times the radius away is not in it (edges grow by 2.6 from one resolution to the next)."""
    rng = random.Random(1)
    for radius in (100, 1_000, 10_000, 100_000):
        ranges = cover(*DALLAS, radius, 10)
        for _ in range(100):
            far = point_at(*DALLAS, rng.uniform(0, 2 * math.pi), 20 * radius)
            assert not is_covered(ranges, cell_of(*far, 10))


def test_a_cover_of_a_point_is_small_and_that_of_the_globe_is_all():
    """At its own resolution a cover is a cell and its ring; where no ring is wide enough, it is everything."""
    cell = cell_of(*DALLAS, 10)
    assert cover(*DALLAS, 0.0, 10) == [(c, c) for c in sorted(h3.grid_disk(cell, 1))]
    assert cover(*DALLAS, 2e7, 10) == [(0, 2**63 - 1)]
