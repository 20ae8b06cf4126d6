"""Covers of many shapes by few coarse shapes: they cover every place, anywhere on the sphere (rule HD10)."""

import math

import numpy as np
import pytest
from support import s2

from bench.hard_rings import closed, coast
from geocast.geometry import coarse_cover
from geocast.geometry.coarse_cover import SIDES, WIDE, around, few
from geocast.geometry.polygon_union import Piece
from geocast.geometry.published_polygon import MAX_CORNERS, publish_polygons, split_edges
from geocast.geometry.sphere import EARTH_RADIUS_M, distance_m, unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_coarse_cover_contains_overlapping_rings_of_opposite_directions():
    """Where two rings of opposite directions overlap, their winding numbers are 1 and -1 (Rule 1)."""
    ring = coast(600, 3)
    given = [piece(ring), piece(ring[::-1]), *(piece(coast(600, n, 17, -88 + n / 10)) for n in range(4))]
    assert inside_any(published(given), places_in(given, np.random.default_rng(1))).all()


@pytest.mark.slow
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


@pytest.mark.slow
def test_ring_that_is_too_wide_has_no_coarse_cover():
    """A ring around the equator breaks rule A18. A ring without area among many others does no harm."""
    equator = closed(np.column_stack([np.arange(-180, 180, 10), np.zeros(36)]))
    assert few([piece(equator)], MOST) is None
    line = Piece(np.array([[10.0, 11.0, 10.0, 10.0], [50.0, 50.0, 50.0, 50.0]]), 0.0)
    given = [line, *(piece(coast(12, n, 40 + n / 8, 9, 0.05)) for n in range(80))]
    assert inside_any(published(given), places_in(given[1:], np.random.default_rng(2))).all()


@pytest.mark.slow
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


# ---- the steps of a cover, one by one ----------------------------------------------------------------------------


def ring_of(*corners):
    """Return a closed ring as an array of shape (2, n + 1)."""
    return np.array([*corners, corners[0]], float).T


def square(lng, lat, size=1.0):
    """Return a square as a closed ring, counter-clockwise, whose first corner is in the south-west."""
    return ring_of((lng, lat), (lng + size, lat), (lng + size, lat + size), (lng, lat + size))


def edges_of(*rings):
    """Return the starts and the ends of the edges of rings, and the index of the ring of each edge."""
    number = np.repeat(np.arange(len(rings)), [ring.shape[1] - 1 for ring in rings])
    return np.hstack([ring[:, :-1] for ring in rings]), np.hstack([ring[:, 1:] for ring in rings]), number


def drawn(*rows):
    """Return the marks on a grid, given as texts from the top row to the bottom row."""
    return np.array([[mark == "#" for mark in row] for row in rows[::-1]])


@pytest.mark.parametrize("radius_m", [10.0, 40_000.0, 3_000_000.0, 8_000_000.0])
def test_polygon_around_circle_has_equal_sides_just_outside(radius_m):
    """The middle of each side is on the circle. A circle that is too wide is cut off at WIDE."""
    lng, lat = around((50.0, 10.0, radius_m)).ring
    angle = min(radius_m / EARTH_RADIUS_M, WIDE)
    far_m = math.atan(math.tan(angle) / math.cos(math.pi / SIDES)) * EARTH_RADIUS_M
    assert len(lng) == SIDES + 1
    assert (lng[0], lat[0]) == (lng[-1], lat[-1])
    found = [distance_m(50.0, 10.0, *corner) for corner in zip(lat.tolist(), lng.tolist(), strict=True)]
    assert found == pytest.approx([far_m] * (SIDES + 1))
    assert around((50.0, 10.0, radius_m)).beyond_m == 0.0


def test_counted_repeats_each_index_and_numbers_the_repetitions():
    """An index with the count 0 is left out."""
    which, number = coarse_cover.counted(np.array([2, 0, 3]))
    assert (which.tolist(), number.tolist()) == ([0, 0, 2, 2, 2], [0, 1, 0, 1, 2])


@pytest.mark.parametrize(
    ("marks", "corners"),
    [
        (drawn(".", "."), 0),
        (drawn("##", "##"), 4),
        (drawn("#.", "##"), 6),
        (drawn("#.", ".#"), 6),  # the point at which both squares meet is not counted
        (drawn("###", "#.#", "###"), 8),
    ],
)
def test_corners_of_marked_area_are_counted(marks, corners):
    """The area may reach the border of the grid."""
    assert coarse_cover._steps(marks) == corners


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize(
    ("rings", "marks"),
    [
        ([square(0, 0, 5)], drawn("#####", "#####", "#####", "#####", "#####")),
        ([square(1.2, 1.2, 2.6)], drawn(".....", ".###.", ".###.", ".###.", ".....")),
        ([square(0.1, 0.1, 0.8), square(3.1, 2.1, 1.8)], drawn(".....", "...##", "...##", ".....", "#....")),
        ([ring_of((0.5, 0.5), (4.5, 0.5), (4.5, 4.5))], drawn("....#", "...##", "..###", ".####", "#####")),
        ([ring_of((0.2, 4.8), (0.8, 0.2), (0.4, 0.3))], drawn("#....", "#....", "#....", "#....", "#....")),
        ([square(0.1, 0.1, 2.8), square(2.1, 2.1, 2.8)[:, ::-1]], drawn("..###", "..###", "#####", "###..", "###..")),
    ],
)
def test_squares_that_a_ring_passes_or_encloses_are_marked(rings, marks, step):
    """Rings that overlap may turn in opposite directions."""
    found = coarse_cover._marked(*edges_of(*(ring[:, ::step] for ring in rings)), 5)
    assert found.tolist() == marks.tolist()


def test_grid_is_not_drawn_if_there_are_too_many_marks(monkeypatch):
    """Each edge of four sides is sampled nine times, and two edges cross four rows each (rule HD3)."""
    for limit, is_drawn in ((4 * 9 + 2 * 4, True), (4 * 9 + 2 * 4 - 1, False)):
        monkeypatch.setattr(coarse_cover, "MAX_MARKS", limit)
        assert (coarse_cover._marked(*edges_of(square(0, 0, 4)), 4) is not None) is is_drawn


def test_bridge_goes_from_nearest_corner_to_nearest_corner_and_back():
    """The ring goes around the first polygon, to the second one, and around that. The wider buffer counts."""
    one, other = Piece(square(0, 0), 10.0), Piece(square(2, 1.5), 30.0)
    bridge = coarse_cover._bridge(one, other)
    way = [(0, 0), (1, 0), (1, 1), (2, 1.5), (3, 1.5), (3, 2.5), (2, 2.5), (2, 1.5), (1, 1), (0, 1), (0, 0)]
    assert (bridge.ring.T.tolist(), bridge.beyond_m) == ([list(map(float, corner)) for corner in way], 30.0)
    assert coarse_cover._bridge(other, one).beyond_m == 30.0


def gaps_of(given):
    """Return how far apart polygons are, measured between the circles around their middles, as a matrix."""
    middles = np.array([each.points()[:, :-1].sum(axis=1) for each in given])
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    sizes = [np.arccos((middle @ each.points()).min()) for middle, each in zip(middles, given, strict=True)]
    return np.arccos(np.clip(middles @ middles.T, -1, 1)) - np.add.outer(sizes, sizes)


@pytest.mark.parametrize("seed", range(4))
def test_nearest_polygons_are_merged_first(seed):
    """Each step merges the two groups with the smallest gap; brute force is the judge."""
    dice = np.random.default_rng(seed)
    given = [Piece(square(*dice.uniform(0, 30, 2), dice.uniform(0.1, 4)), 0.0) for _ in range(12)]
    gaps, groups = gaps_of(given), {n: {n} for n in range(12)}
    for one, other in coarse_cover._nearest(given):
        apart = {(a, b): gaps[np.ix_(list(groups[a]), list(groups[b]))].min() for a in groups for b in groups if a < b}
        assert min(apart, key=apart.get) == (min(one, other), max(one, other))
        groups[one] |= groups.pop(other)
    assert len(groups) == 1


def test_polygons_that_are_near_each_other_get_a_common_box():
    """The box is around all corners, and has the widest buffer. A polygon far away has a box of its own."""
    given = [Piece(square(0, 0), 10.0), Piece(square(20, 0), 40.0), Piece(square(1.5, 0), 30.0)]
    boxes = coarse_cover._boxed(given, 2)
    assert [each.beyond_m for each in boxes] == [30.0, 40.0]
    assert [each.ring.shape for each in boxes] == [(2, 5), (2, 5)]
    for box, those in zip(boxes, ([given[0], given[2]], [given[1]]), strict=True):
        corners = np.hstack([each.points() for each in those])
        assert inside_any([SphericalPolygon(box.ring.T.tolist(), 0.0)], corners).all()
    assert [len(coarse_cover._boxed(given, most)) for most in (1, 3, 4)] == [1, 3, 3]


def test_ring_that_crosses_itself_becomes_a_box_before_it_is_joined():
    """Any other ring is kept, counter-clockwise, with its buffer."""
    [plain] = coarse_cover._outlines([Piece(square(0, 0)[:, ::-1], 0.0)])
    kept = coarse_cover._simple(plain, plain.own_ring(0), 0)
    assert sorted(kept.ring.T.tolist()) == sorted(square(0, 0).T.tolist())
    assert kept.beyond_m == 0.0
    crossing_ring = ring_of((0, 0), (2, 2), (2, 0), (0, 1))
    [crossing] = coarse_cover._outlines([Piece(crossing_ring, 15.0)])
    box = coarse_cover._simple(crossing, crossing.own_ring(0), 0)
    assert (box.ring.shape, box.beyond_m) == ((2, 5), 20.0)
    assert inside_any([SphericalPolygon(box.ring.T.tolist(), 0.0)], Piece(crossing_ring, 0.0).points()).all()


def test_polygons_far_from_each_other_are_on_different_planes():
    """A plane reaches 45° from the middle of one of its polygons. The widest buffer of each group counts."""
    given = [
        Piece(square(0, 0), 10.0),
        Piece(square(60, 0), 20.0),
        Piece(square(30, 0), 30.0),
        Piece(square(100, 0), 5.0),
    ]
    groups = list(coarse_cover._groups(given))
    assert [sorted(set(each._ring.tolist())) for each in groups] == [[0, 2], [1, 3]]
    assert [each._beyond_m for each in groups] == [30.0, 20.0]
    assert [each._start.shape for each in groups] == [(2, 8), (2, 8)]


def test_bridged_polygons_keep_every_corner():
    """A corner half a metre beside an edge remains, because no buffer would cover it (Rule 1)."""
    ring = ring_of((0, 0), (0.5, -0.000005), (1, 0), (1, 1), (0, 1))
    [found] = coarse_cover._bridged_as_they_are([Piece(ring, 0.0)], 1)
    assert (0.5, -0.000005) in zip(found.lng.tolist(), found.lat.tolist(), strict=True)


def test_polygons_far_from_each_other_are_not_bridged():
    """The result would be too wide (rule A18)."""
    assert coarse_cover._bridged_as_they_are([Piece(square(lng, 0), 0.0) for lng in (0, 130)], 1) is None


def test_single_square_of_a_grid_keeps_its_ring_and_a_buffer_of_half_its_side():
    """Its four corners can't be simplified, so no wider buffer is needed."""
    [group] = coarse_cover._groups([Piece(square(0, 0), 10.0)])
    [part] = group.parts(1)
    assert part.ring.shape == (2, 5)
    assert part.beyond_m == pytest.approx(10.0 + math.radians(1) * EARTH_RADIUS_M / 2, rel=1e-3)


@pytest.fixture
def grids(monkeypatch):
    """Return a list to which the grids of each attempt to unite polygons are added."""
    tried = []
    united = coarse_cover._united
    monkeypatch.setattr(coarse_cover, "_united", lambda *given: tried.append(list(given[2])) or united(*given))
    return tried


def test_few_polygons_are_joined_by_bridges_without_a_grid(grids):
    """Their rings stay as they are, and as many polygons as allowed remain."""
    given = [Piece(square(lng, 0), 10.0) for lng in (0, 1.5, 20)]
    near, far = few(given, 2)
    assert sorted(zip(far.lng.tolist(), far.lat.tolist(), strict=True)) == sorted(map(tuple, square(20, 0).T.tolist()))
    assert len(near.lng) - 1 == 4 + 4 + 2
    assert grids == []


@pytest.mark.parametrize(
    ("finest", "tried"), [({}, [[256, 128, 64]]), ({"finest": 128}, [[128, 64]]), ({"finest": 64}, [[64]])]
)
def test_polygon_with_too_many_corners_is_drawn_on_fine_grids_first(grids, finest, tried):
    """The caller may leave out the finest grids."""
    assert len(few([piece(coast(600, 3))], 1, **finest)) == 1
    assert grids == tried


def test_coarse_grids_are_tried_last(grids):
    """No grid can have a ring around the earth."""
    equator = closed(np.column_stack([np.arange(-180, 180, 10), np.zeros(36)]))
    assert few([piece(equator)], MOST) is None
    assert grids == [[256, 128, 64], [32, 16, 8, 4, 2, 1]]


@pytest.mark.parametrize("count", [3, 4])
def test_polygons_are_replaced_by_boxes_only_if_they_are_not_too_many(monkeypatch, count):
    """Comparing them all takes a time that grows with the square of their number (rule HD3)."""
    boxed, boxes = [], coarse_cover._boxed
    monkeypatch.setattr(coarse_cover, "MOST_BRIDGED", 2)
    monkeypatch.setattr(coarse_cover, "MOST_BOXED", 3)
    monkeypatch.setattr(coarse_cover, "_boxed", lambda given, most: boxed.append(most) or boxes(given, most))
    found = few([Piece(square(20 * n, 0, 2.0), 0.0) for n in range(count)], 2)
    assert boxed == ([(MAX_CORNERS + 2 * 2) // 6] if count == 3 else [])
    assert 1 <= len(found) <= 2
