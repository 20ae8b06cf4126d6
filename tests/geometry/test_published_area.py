"""The published circles: they cover the requested circles, and reveal as little as possible of them."""

import dataclasses
import itertools
import math

import h3.api.basic_int as h3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import DALLAS, HOUR_MS, NOON_MS, alert_request

from geocast.geometry.sphere import cell_of, cell_place, distance_m, publish_area, publish_circle
from geocast.model.alert import AcceptedTerms, Revision
from geocast.wire.requests import parse_publication

CM = 0.01
RADIUS_M = 800.0
HOME = cell_of(*DALLAS, 9)
PENTAGON = h3.get_pentagons(9)[3]
# Places at which formulas are likely to go wrong.
CORNERS = [
    DALLAS,
    (90.0, 0.0),
    (-90.0, 12.5),
    (89.9999, -45.0),
    (0.0, 180.0),
    (-16.5, -179.9999),
    (64.8, -147.7),
    h3.cell_to_latlng(PENTAGON),
]
unhurried = settings(deadline=None, max_examples=100)
places = st.sampled_from(CORNERS) | st.tuples(st.floats(-90, 90), st.floats(-180, 180))
bearings = st.floats(0, 2 * math.pi)
offsets = st.lists(st.tuples(bearings, st.floats(0, 3_000), st.floats(1, 20_000)), min_size=1, max_size=15)


def at(place, bearing, way_m):
    """Return the point at this bearing and distance, by the usual formula (E. Williams, "Aviation Formulary")."""
    lat, lng, angle = math.radians(place[0]), math.radians(place[1]), way_m / 6_371_007.180918475
    to = math.asin(math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(bearing))
    east = math.sin(bearing) * math.sin(angle) * math.cos(lat)
    aside = lng + math.atan2(east, math.cos(angle) - math.sin(lat) * math.sin(to))
    return math.degrees(to), (math.degrees(aside) + 180) % 360 - 180


def discs(place, around):
    """Return a circle at a place and others around it."""
    return [(*place, RADIUS_M), *((*at(place, bearing, way_m), radius) for bearing, way_m, radius in around)]


def published(place, *held):
    """Return the published circle for a circle at a place, if the previous revision has the circles `held`."""
    [disc] = publish_area([(*place, RADIUS_M)], 9, held)
    return disc


def ring_m(cell):
    """Return the distance from the centre of a cell to the farthest corner of its neighbours, in metres."""
    centre = h3.cell_to_latlng(cell)
    return max(distance_m(*centre, *corner) for each in h3.grid_disk(cell, 1) for corner in h3.cell_to_boundary(each))


def covers(area, requested):
    """Return whether each published circle contains its requested circle."""
    return all(
        distance_m(lat, lng, *outer[:2]) + radius_m <= outer[2] + CM
        for (lat, lng, radius_m), outer in zip(requested, area, strict=True)
    )


# ---- one circle ----------------------------------------------------------------------------------------------


@unhurried
@given(places, st.floats(1, 20_000), st.sampled_from([5, 7, 9, 11]))
def test_single_circle_without_previous_revision_is_published_by_basic_rules(place, radius_m, resolution):
    """Rules B11 and B12 only matter for revisions and for several circles (rules B1 and B2)."""
    assert publish_area([(*place, radius_m)], resolution) == [publish_circle(*place, radius_m, resolution)]


# ---- revisions of one circle ---------------------------------------------------------------------------------


def test_corrected_centre_in_same_cell_changes_nothing():
    """The published circle stays the same (rules B3 and B11)."""
    first = published(DALLAS)
    assert published(h3.cell_to_latlng(HOME), first) == first


@pytest.mark.parametrize("neighbour", sorted(h3.grid_ring(HOME, 1)))
def test_corrected_centre_in_neighbouring_cell_keeps_published_centre(neighbour):
    """The radius grows by the distance to the farthest point of all neighbouring cells (rule B11)."""
    first = published(DALLAS)
    second = published(h3.cell_to_latlng(neighbour), first)
    assert second == (*first[:2], 10 * math.ceil((RADIUS_M + ring_m(HOME)) / 10))
    assert published(h3.cell_to_latlng(neighbour), second) == second


def test_centre_that_returns_to_its_cell_keeps_widened_circle():
    """Otherwise many corrections would reveal how often the centre was outside the cell (rule B11)."""
    first = published(DALLAS)
    wide = published(h3.cell_to_latlng(max(h3.grid_ring(HOME, 1))), first)
    assert published(DALLAS, wide) == wide


def test_circle_is_no_longer_widened_after_change_of_radius():
    """A circle with another radius is not made larger than necessary (rules B2 and B11)."""
    wide = published(h3.cell_to_latlng(max(h3.grid_ring(HOME, 1))), published(DALLAS))
    assert publish_area([(*DALLAS, 500.0)], 9, [wide]) == [publish_circle(*DALLAS, 500.0, 9)]


@pytest.mark.parametrize("farther", sorted(h3.grid_ring(HOME, 2)))
def test_centre_beyond_neighbouring_cells_is_published_from_its_own_cell(farther):
    """Rule B11 keeps the published centre only for neighbouring cells."""
    place = h3.cell_to_latlng(farther)
    assert published(place, published(DALLAS)) == publish_circle(*place, RADIUS_M, 9)


def test_centre_in_any_neighbour_of_pentagon_keeps_published_centre():
    """A pentagon has five neighbours (rule B11)."""
    first = publish_circle(*h3.cell_to_latlng(PENTAGON), RADIUS_M, 9)
    near = set(h3.grid_ring(PENTAGON, 1))
    assert len(near) == 5
    assert {published(h3.cell_to_latlng(cell), first)[:2] for cell in near} == {first[:2]}


@unhurried
@given(places, st.lists(st.tuples(bearings, st.floats(0, 600), st.floats(1, 20_000)), max_size=6))
def test_each_revision_covers_requested_circle(place, steps):
    """This holds wherever the centre moves (rules B2 and B11). The same request gives the same circle (rule B3)."""
    held = ()
    for bearing, way_m, radius_m in steps:
        place = at(place, bearing, way_m)
        requested = [(*place, radius_m)]
        area = publish_area(requested, 9, held)
        assert covers(area, requested)
        assert publish_area(requested, 9, area) == area
        held = area


@unhurried
@given(places, offsets, offsets)
def test_each_revision_of_several_circles_covers_requested_ones(place, around, later):
    """A revision may have more, fewer or other circles (rules B2, B11 and B12)."""
    held = publish_area(discs(place, around), 9)
    requested = discs(at(place, *later[0][:2]), later)
    area = publish_area(requested, 9, held)
    assert covers(area, requested)
    assert publish_area(requested, 9, area) == area


# ---- several circles -----------------------------------------------------------------------------------------


@unhurried
@given(places, offsets, st.sampled_from([0, 2, 5, 7, 9, 11]))
def test_published_list_of_circles_covers_requested_ones(place, around, resolution):
    """This also holds at the poles, across the antimeridian and around pentagons (rules B2 and B12)."""
    requested = discs(place, around)
    area = publish_area(requested, resolution)
    assert covers(area, requested)
    assert {radius % 10 for _, _, radius in area} == {0}
    assert area[0] == publish_circle(*place, RADIUS_M, resolution)


def test_published_list_of_circles_agrees_with_calculation_by_hand():
    """Further circles are shifted like the first one, and then moved to the centre of their cell (rule B12)."""
    lat, lng = 0.0, 10.0  # on the equator a rotation that goes east is one of longitudes
    cell = cell_of(lat, lng, 9)
    centre, (_, _, reach) = h3.cell_to_latlng(cell), cell_place(cell)
    lat = centre[0]
    [first, second] = publish_area([(lat, lng, 800.0), (lat, lng + 0.01, 500.0)], 9)
    moved = h3.latlng_to_cell(lat, centre[1] + 0.01, 9)
    assert first == (*centre, 10 * math.ceil((800 + reach) / 10))
    assert second == (*h3.cell_to_latlng(moved), 10 * math.ceil((500 + reach + cell_place(moved)[2]) / 10))


def test_sixteen_circles_at_one_place_are_published_as_two():
    """All circles but the first one are equal (rule B12)."""
    first, *others = publish_area([(*DALLAS, RADIUS_M)] * 16, 9)
    assert len(set(others)) == 1
    assert others[0][:2] == first[:2]


@unhurried
@given(st.integers(0, 15), st.sampled_from([(90.0, 0.0, 90.0, 77.0), (10.0, 180.0, 10.0, -180.0)]), offsets)
def test_notation_of_coordinates_does_not_change_published_circles(resolution, written, around):
    """At a pole any longitude gives the same circle, and elsewhere 180 and -180 do so (rules L6 and B12)."""
    one, other = written[:2], written[2:]
    rest = discs(DALLAS, around)
    assert publish_area([(*one, 800.0), (*one, 700.0)], resolution) == publish_area(
        [(*other, 800.0), (*other, 700.0)], resolution
    )
    assert publish_area([*rest, (*one, 5.0)], resolution) == publish_area([*rest, (*other, 5.0)], resolution)


@unhurried
@given(places, offsets, st.lists(st.tuples(bearings, st.floats(0, 100)), min_size=1, max_size=5))
def test_circles_corrected_together_keep_first_published_centre(place, around, steps):
    """This holds however often the first centre moves to a neighbouring cell and back (rules B11 and B12)."""
    area = first = publish_area(discs(place, around), 9)
    for bearing, way_m in steps:
        area = publish_area(discs(at(place, bearing, way_m), around), 9, area)
        assert area[0][:2] == first[0][:2]


# ---- repeated requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [1, 3])
def test_repeated_request_is_published_by_rules_of_stored_entry(shapes):
    """The terms of the stored entry name its rules, whatever the previous revision had (rules H5 and B12)."""
    area = [{"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800 + n} for n in range(shapes)]
    request = parse_publication(alert_request(area=area))
    older = AcceptedTerms("Robbery", HOUR_MS, 9, rules=1)
    near = parse_publication(alert_request(area=[area[0] | {"lat": DALLAS[0] + 0.003}])).accept(older, None)
    before = Revision(near, 1, "desk", NOON_MS, older)
    alone = request.accept(older, None)
    assert request.accept(older, before) == alone
    assert [(c.lat, c.lng, c.radius_m) for c in alone.area] == [
        publish_circle(*DALLAS, 800.0 + n, 9) for n in range(shapes)
    ]
    assert request.accept(dataclasses.replace(older, rules=2), before) != alone


def test_neighbourhood_of_cells_is_symmetric():
    """Rule B11 depends on this property of H3."""
    for one, other in itertools.product(h3.grid_disk(PENTAGON, 2), repeat=2):
        assert (one in h3.grid_disk(other, 1)) == (other in h3.grid_disk(one, 1))
