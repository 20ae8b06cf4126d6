"""Polygons in the place index: tests of whole pages agree with those of single places (rule D4), and with S2."""

import numpy as np
import pytest
from support import s2

from geocast.geometry.sphere import distance_m, unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon
from geocast.matching import place_index, polygons
from geocast.matching.alert_index import AlertIndex
from geocast.matching.place_index import UNCOVERED_PAGES, PlaceIndex, _ball
from geocast.model.alert import Circle, Polygon

SIZES_M = (50.0, 2_000.0, 60_000.0, 1_500_000.0)


@pytest.fixture(autouse=True, params=["as it is", "sorted, few pairs at a time"])
def ways(request, monkeypatch):
    """Run each test also with pages that are always sorted and few pairs at a time, as for many places."""
    if request.param != "as it is":
        monkeypatch.setattr(place_index, "FEW_PAGES", 0)
        monkeypatch.setattr(polygons, "PAIRS", 64)


def vectors(places):
    """Return unit vectors as an array (3, n)."""
    return np.array(unit_vectors(places[:, 1], places[:, 0]))


def town(dice, centre, size_m, count, page_size=32):
    """Return an index with places (lng, lat) around a centre, the places, and their reaches."""
    places = np.vstack([s2.places(dice, centre, size_m, count), s2.places(dice, centre, 20_000_000.0, 50)])
    reaches = dice.choice([0.0, 0.0, 20.0, 300.0], len(places))
    index = PlaceIndex(page_size=page_size)
    index.uncovered_pages = int(dice.choice([0, UNCOVERED_PAGES]))
    for row, ((lng, lat), reach) in enumerate(zip(places.tolist(), reaches.tolist(), strict=True)):
        index.add(row, lat, lng, reach)
    return index, places, reaches


@pytest.mark.parametrize("buffer_m", [0.0, 20.0, 5_020.0])
@pytest.mark.parametrize("size_m", SIZES_M)
@pytest.mark.parametrize("centre", s2.CENTRES[::2])
def test_found_places_agree_with_polygon_test_and_with_s2(centre, size_m, buffer_m):
    """Whole pages, pages near edges and distant places are tested, with and without a reach (rule D4)."""
    dice = np.random.default_rng(int(size_m + buffer_m))
    index, places, reaches = town(dice, centre, size_m, 700)
    corners = s2.a_ring(dice, centre, size_m, int(dice.integers(3, 150)))
    polygon = Polygon(tuple(corners), buffer_m)
    rows, distances = index.match([polygon])
    assert (
        rows.tolist()
        == np.flatnonzero(SphericalPolygon(corners, buffer_m).contains_all(vectors(places), reaches)).tolist()
    )
    depth = s2.depth_m(corners, places) + buffer_m + reaches
    sure = np.abs(depth) > 0.01
    assert np.array_equal(np.isin(np.arange(len(places)), rows)[sure], depth[sure] > 0)
    ring = SphericalPolygon(corners, buffer_m)
    for row, distance in list(zip(rows.tolist(), distances.tolist(), strict=True))[::40]:
        assert distance == pytest.approx(distance_m(ring.lat, ring.lng, places[row][1], places[row][0]), abs=0.01)  # D6


@pytest.mark.parametrize("size_m", SIZES_M)
@pytest.mark.parametrize("centre", s2.CENTRES[::2])
def test_ball_counts_as_inside_or_outside_only_if_all_its_places_do(centre, size_m):
    """Balls of all sizes are sorted, among them one around places of half the earth (Rule 1)."""
    dice = np.random.default_rng(int(size_m))
    ring = SphericalPolygon(s2.a_ring(dice, centre, size_m, 40), 20.0)
    middles = vectors(s2.places(dice, centre, size_m, 60))
    spread = size_m * dice.choice([0.001, 0.03, 0.3, 3.0], 60)
    near = [
        s2.places(dice, np.degrees([np.arcsin(z), np.arctan2(y, x)]), far, 12)
        for (x, y, z), far in zip(middles.T, spread, strict=True)
    ]
    reaches = np.zeros(12)
    balls = [_ball(np.vstack([vectors(each), reaches])) for each in near]
    inside, cut = polygons.PolygonMatcher(ring).sort(np.array(balls))
    assert not set(inside) & set(cut)
    assert len(cut) < 60
    for ball, each in enumerate(near):
        if ball not in cut:
            assert (ring.contains_all(vectors(each), reaches) == (ball in inside)).all()


def test_ball_around_middle_of_earth_may_be_near_any_edge():
    """Two places of the page are antipodes, so the ball's centre has no direction (Rule 1)."""
    ring = SphericalPolygon([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)], 20.0)
    inside, cut = polygons.PolygonMatcher(ring).sort(np.array([[0.0, 0.0, 0.0, 1.0]]))
    assert (inside.tolist(), cut.tolist()) == ([], [0])


@pytest.mark.parametrize(("count", "size"), [(0, 4), (5, 0), (5, 1), (5, 2), (6, 3), (5, 9)])
def test_parts_cover_each_index_once(count, size):
    """A part has at least one index, even if a single place has more edges than fit (Rule 3)."""
    parts = [range(count)[part] for part in polygons._parts(count, size)]
    assert [index for part in parts for index in part] == list(range(count))
    assert all(1 <= len(part) <= max(1, size) for part in parts)


def test_search_finds_all_places_in_one_spot():
    """A page whose places share one spot is inside, outside, or near an edge as a whole (rule D4)."""
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
    index = PlaceIndex(page_size=8)
    spots = [(0.5, 0.5), (1.5, 0.5), (0.5, 0.9999), (0.5, 1.0005)]
    for row in range(400):
        lng, lat = spots[row % 4]
        index.add(row, lat, lng, 0.0)
    rows, _ = index.match([Polygon(tuple(square))])
    assert rows.tolist() == [row for row in range(400) if row % 2 == 0]


def test_removed_places_are_in_no_polygon():
    """An empty position of the index is inside no polygon (`place_index`, Rule 3)."""
    index = PlaceIndex(page_size=8)
    slots = [index.add(row, 0.5, 0.5, 0.0) for row in range(20)]
    for slot in slots[1:]:
        index.remove(slot)
    assert index.match([Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)), 100.0)])[0].tolist() == [0]


def test_empty_index_matches_nothing():
    """This holds even if the polygon is very large."""
    assert len(PlaceIndex().match([Polygon(((-50.0, 0.0), (50.0, 0.0), (0.0, 40.0), (-50.0, 0.0)))])[0]) == 0


def test_session_with_places_in_several_shapes_is_returned_once():
    """The smallest of the distances is returned (rule R2)."""
    index = PlaceIndex()
    for lat in (0.5, 0.6, 10.0):
        index.add(7, lat, 0.5, 0.0)
    square = Polygon(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)))
    rows, distances = index.match([square, Circle(10.0, 0.5, 100.0)])
    assert (rows.tolist(), distances.tolist()) == ([7], [0.0])


@pytest.mark.parametrize("size_m", SIZES_M)
def test_alert_index_agrees_with_place_index(size_m):
    """Each area contains the same places in both. A removed area contains none (rules D4 and R3)."""
    dice = np.random.default_rng(3)
    areas, shapes = AlertIndex(), {}
    for name in range(60):
        centre = s2.CENTRES[name % 3]
        corners = s2.a_ring(dice, centre, size_m, 12)
        circle = Circle(centre[0], centre[1], size_m / 10)
        shapes[name] = (Polygon(tuple(corners), 20.0), circle)[: 1 + name % 2] if name % 5 else (circle,)
        filed = areas.add(name, shapes[name])
        assert isinstance(filed, int) is (len(shapes[name]) == 1 and isinstance(shapes[name][0], Circle))
        if name % 7 == 0:
            areas.discard(filed)
            del shapes[name]
    index, places, reaches = town(dice, s2.CENTRES[1], size_m, 100)
    inside = {name: set(index.match(area)[0].tolist()) for name, area in shapes.items()}
    found = {
        row: set(areas.containing(tuple(each), reaches[row])) for row, each in enumerate(vectors(places).T.tolist())
    }
    assert any(found.values())
    assert found == {row: {name for name, rows in inside.items() if row in rows} for row in found}
