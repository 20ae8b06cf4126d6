"""The client's own geometry: the protocol's sphere, inclusive edges, cells with their reach."""

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
def test_distances_follow_great_circles(a, b, share_of_circumference):
    """Across the antimeridian and over the poles too; the circumference is that of the protocol's sphere."""
    assert distance_m(*a, *b) == pytest.approx(2 * pi * EARTH_RADIUS_M * share_of_circumference, abs=1e-6)


def test_distances_agree_with_h3_on_its_own_sphere():
    """Two implementations of the same formula."""
    dallas, houston = (32.7767, -96.797), (29.7604, -95.3698)
    assert distance_m(*dallas, *houston) == pytest.approx(h3.great_circle_distance(dallas, houston, unit="m"), abs=1e-3)


def test_the_edge_belongs_to_the_inside_and_reach_widens_the_circle():
    """distance <= radius + reach."""
    away = distance_m(0, 0, 0, 0.01)
    assert is_inside([circle(0, 0, away)], [Place.at(0, 0.01)])
    assert not is_inside([circle(0, 0, away - 1)], [Place.at(0, 0.01)])
    assert is_inside([circle(0, 0, away - 1)], [Place.at(0, 0.01, accuracy_m=1)])


def test_one_of_several_places_in_one_of_several_shapes_is_enough():
    """The area is a union, and so are the places."""
    area = [circle(10, 10, 500), circle(20, 20, 500)]
    assert is_inside(area, [Place.at(0, 0), Place.at(20, 20.001)])
    assert not is_inside(area, [Place.at(0, 0), Place.at(15, 15)])
    assert not is_inside(area, [])


def test_a_shape_of_an_unknown_type_counts_as_inside():
    """An alert whose shape can't be drawn must be shown all the same."""
    area = [{"type": "spiral", "turns": 7}]
    assert is_inside(area, [Place.at(0, 0)])
    assert depth_m(area, []) == float("-inf")
    assert away_m(area, [Place.at(0, 0)]) is None


@pytest.mark.parametrize("resolution", [7, 9, 15])
def test_the_reach_of_a_cell_spans_its_whole_boundary(resolution):
    """No point of the cell, not even near a pentagon, is farther from its centre than its reach."""
    near_a_pentagon = h3.cell_to_latlng(h3.get_pentagons(resolution)[0])
    for lat, lng in [(32.7767, -96.797), near_a_pentagon, (89.9, 0)]:
        cell = h3.latlng_to_cell(lat, lng, resolution)
        place = Place.in_cell(cell)
        corners = [distance_m(place.lat, place.lng, *corner) for corner in h3.cell_to_boundary(cell)]
        assert place.reach_m == max(corners)
        assert place.to_map() == {"cell": cell}


@pytest.mark.parametrize("cell", ["", "zzz", "8026fffffffffff", "8826cb196dfffff0", "0"])
def test_what_is_no_cell_of_a_useful_size_is_refused(cell):
    """Resolutions 7 to 15 only."""
    with pytest.raises(ValueError, match="resolution 7 to 15"):
        Place.in_cell(cell)


def test_a_poor_fix_is_clamped_to_what_the_server_takes():
    """`accuracy_m` is at most 2,000."""
    assert Place.at(1, 2, accuracy_m=50_000).to_map() == {"lat": 1, "lng": 2, "accuracy_m": 2000}
    assert Place.at(1, 2).to_map() == {"lat": 1, "lng": 2}


def test_places_survive_the_way_through_a_message():
    """`from_map` undoes `to_map`."""
    for place in (Place.at(1, 2), Place.at(1, 2, 30), Place.in_cell(h3.latlng_to_cell(1, 2, 9))):
        assert Place.from_map(place.to_map()) == place


def test_offsets_wrap_at_the_antimeridian():
    """A made-up point is a valid one."""
    lat, lng = offset(0, 179.999, 0, 1000)
    assert -180 <= lng < -179.9
    assert distance_m(0, 179.999, lat, lng) == pytest.approx(1000, rel=1e-3)


@pytest.mark.parametrize(
    ("a", "b"), [((32.78, -96.8), (32.79, -96.7)), ((0, 179.9), (0.1, -179.9)), ((89, 0), (89, 170)), ((5, 5), (5, 5))]
)
def test_a_walk_goes_along_the_great_circle(a, b):
    """Each step is as long as its share of the way, from the first point to the last."""
    length_m = distance_m(*a, *b)
    for share in (0, 0.25, 0.5, 1):
        point = along(*a, *b, share)
        assert distance_m(*a, *point) == pytest.approx(share * length_m, abs=1e-3)
        assert distance_m(*point, *b) == pytest.approx((1 - share) * length_m, abs=1e-3)
