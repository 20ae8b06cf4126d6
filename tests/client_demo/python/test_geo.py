"""Tests of the client's own geometry: the protocol's sphere, inclusive edges, and cells with their reach."""

from math import pi

import h3
import pytest

from client_demo.python.geo import EARTH_RADIUS_M, Place, along, away_m, depth_m, distance_m, is_inside, offset


def circle(lat: float, lng: float, radius_m: float) -> dict[str, object]:
    return {"type": "circle", "lat": lat, "lng": lng, "radius_m": radius_m}


@pytest.mark.parametrize(
    ("a", "b", "share_of_circumference"),
    [
        ((0, 0), (0, 90), 1 / 4),
        ((0, 0), (0, 180), 1 / 2),
        ((90, 0), (-90, 123), 1 / 2),
        ((90, 10), (90, -70), 0),
        ((0, 179.5), (0, -179.5), 1 / 360),
        ((89, 0), (89, 180), 2 / 360),
    ],
)
def test_distance_follows_the_great_circle(a, b, share_of_circumference):
    """The cases cross the antimeridian and the poles, on the protocol's sphere."""
    assert distance_m(*a, *b) == pytest.approx(2 * pi * EARTH_RADIUS_M * share_of_circumference, abs=1e-6)


def test_distance_agrees_with_h3():
    dallas, houston = (32.7767, -96.797), (29.7604, -95.3698)
    assert distance_m(*dallas, *houston) == pytest.approx(h3.great_circle_distance(dallas, houston, unit="m"), abs=1e-3)


def test_edge_is_inside_and_reach_widens_the_circle():
    """A place is inside if its distance is at most radius + reach."""
    away = distance_m(0, 0, 0, 0.01)
    assert is_inside([circle(0, 0, away)], [Place.at(0, 0.01)])
    assert not is_inside([circle(0, 0, away - 1)], [Place.at(0, 0.01)])
    assert is_inside([circle(0, 0, away - 1)], [Place.at(0, 0.01, accuracy_m=1)])


def test_one_place_in_one_shape_is_enough():
    """Shapes form a union, and so do places."""
    area = [circle(10, 10, 500), circle(20, 20, 500)]
    assert is_inside(area, [Place.at(0, 0), Place.at(20, 20.001)])
    assert not is_inside(area, [Place.at(0, 0), Place.at(15, 15)])
    assert not is_inside(area, [])


def test_shape_of_unknown_type_counts_as_inside():
    """An alert must be shown even if its shape cannot be drawn."""
    area = [{"type": "spiral", "turns": 7}]
    assert is_inside(area, [Place.at(0, 0)])
    assert depth_m(area, []) == float("-inf")
    assert away_m(area, [Place.at(0, 0)]) is None


@pytest.mark.parametrize("resolution", [7, 9, 15])
def test_reach_of_a_cell_covers_its_boundary(resolution):
    """No corner of the cell is farther from its centre than its reach, even near a pentagon."""
    near_a_pentagon = h3.cell_to_latlng(h3.get_pentagons(resolution)[0])
    for lat, lng in [(32.7767, -96.797), near_a_pentagon, (89.9, 0)]:
        cell = h3.latlng_to_cell(lat, lng, resolution)
        place = Place.in_cell(cell)
        corners = [distance_m(place.lat, place.lng, *corner) for corner in h3.cell_to_boundary(cell)]
        assert place.reach_m == max(corners)
        assert place.to_map() == {"cell": cell}


@pytest.mark.parametrize("cell", ["", "zzz", "8026fffffffffff", "8826cb196dfffff0", "0"])
def test_invalid_or_coarse_cell_raises_valueerror(cell):
    """Only cells of resolution 7 to 15 are allowed."""
    with pytest.raises(ValueError, match="resolution 7 to 15"):
        Place.in_cell(cell)


def test_poor_accuracy_is_clamped_to_2000_m():
    """The server accepts an `accuracy_m` of at most 2,000."""
    assert Place.at(1, 2, accuracy_m=50_000).to_map() == {"lat": 1, "lng": 2, "accuracy_m": 2000}
    assert Place.at(1, 2).to_map() == {"lat": 1, "lng": 2}


def test_place_survives_conversion_to_map():
    for place in (Place.at(1, 2), Place.at(1, 2, 30), Place.in_cell(h3.latlng_to_cell(1, 2, 9))):
        assert Place.from_map(place.to_map()) == place


def test_offset_wraps_at_the_antimeridian():
    lat, lng = offset(0, 179.999, 0, 1000)
    assert -180 <= lng < -179.9
    assert distance_m(0, 179.999, lat, lng) == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize(
    ("a", "b"), [((32.78, -96.8), (32.79, -96.7)), ((0, 179.9), (0.1, -179.9)), ((89, 0), (89, 170)), ((5, 5), (5, 5))]
)
def test_along_follows_the_great_circle(a, b):
    """Each point is at its share of the distance between both ends."""
    length_m = distance_m(*a, *b)
    for share in (0, 0.25, 0.5, 1):
        point = along(*a, *b, share)
        assert distance_m(*a, *point) == pytest.approx(share * length_m, abs=1e-3)
        assert distance_m(*point, *b) == pytest.approx((1 - share) * length_m, abs=1e-3)
