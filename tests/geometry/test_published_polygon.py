"""The polygons that are published for requested ones (docs/guide/areas.md, rules A16 to A19 and B7 to B9)."""

import itertools
import math

import numpy as np
import pytest
import shapely
from support import s2
from support.cpu import cpu_limit

from bench.hard_rings import coast, zigzag
from geocast.geometry import published_polygon
from geocast.geometry.published_polygon import (
    MAX_COMPARED,
    MAX_CORNERS,
    TOLERANCES_M,
    Corners,
    RequestedPolygon,
    _from_line,
    box_around,
    corner_depths,
    kept_corners,
    publish_polygons,
    smallest_circle,
    split_edges,
    split_rings,
)
from geocast.geometry.sphere import distance_m, unit_vectors
from geocast.geometry.spherical_polygon import Edges, SphericalPolygon
from geocast.model.alert import Polygon

DALLAS = [(-96.81, 32.77), (-96.78, 32.77), (-96.78, 32.79), (-96.81, 32.79), (-96.81, 32.77)]


def box(west, south, east, north):
    """Return a box as a closed ring."""
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def wavy(corners, radius_deg, lat=33.0, lng=-97.0, waves=40, height=0.2):
    """Return a closed ring with `corners` corners that is not a star."""
    angles = np.arange(corners) * 2 * math.pi / corners
    far = radius_deg * (1 + height * np.sin(waves * angles))
    points = np.column_stack([lng + far * np.cos(angles), lat + far * np.sin(angles)]).round(6)
    return [tuple(point) for point in [*points.tolist(), points[0].tolist()]]


def published(positions, simplify_m=0):
    """Return the polygon that is published for this ring alone."""
    [polygon] = publish_polygons([RequestedPolygon.requested(positions)], simplify_m)
    return polygon


def crossing(positions):
    """Return the polygon inside a ring that may cross itself."""
    return RequestedPolygon(*split_edges(*np.array(positions, float).T))


def on_edges(positions, count=40):
    """Yield points at even distances on edges that are straight lines in longitude and latitude (rule A17)."""
    for (lng, lat), (to_lng, to_lat) in itertools.pairwise(positions):
        over = (to_lng - lng + 180) % 360 - 180
        for n in range(count):
            yield (lng + over * n / count + 180) % 360 - 180, lat + (to_lat - lat) * n / count


def away_m(polygon, points):
    """Return the distance of each of the points from the polygon's ring, in metres."""
    points = np.array(list(points))
    corners = np.array(polygon.ring).T
    x = np.array(unit_vectors(corners[1], corners[0]))
    edges = Edges(x[:, :-1, None], x[:, 1:, None])
    return edges.apart(*np.array(unit_vectors(points[:, 1], points[:, 0]))[:, None]).min(axis=0) * s2.EARTH_RADIUS_M


# ---- valid and invalid rings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ring", "why"),
    [
        ([(0, 0), (1, 1), (0, 0), (0, 0)], "three positions"),  # A16
        ([(0, 0), (1e-8, 0), (1e-8, 1e-8), (0, 0)], "three positions"),  # A16, after rounding
        ([(180, 10), (-180, 10), (180, 11), (180, 10)], "three positions"),  # A16: two spellings of one place
        ([(-90, 0), (90, 0), (0, 50), (-90, 0)], "spans 180°"),  # A17
        ([(-80, -60), (80, -60), (80, 60), (-80, 60), (-80, -60)], "less than 60°"),  # A18
        ([(0, 0), (120, 0), (-120, 0), (0, 0)], "less than 60°"),  # A18: round the equator
        ([(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)], "cross or touch"),  # A19: a bow-tie
        ([(0, 0), (2, 0), (1, 1), (1, -1e-6), (0, 1), (0, 0)], "cross or touch"),  # A19: a corner beyond an edge
        ([(0, 0), (1, 1), (2, 2), (1, 1), (0, 0)], "cross or touch"),  # A19: there and back
        ([(0, 0), (2, 0), (1, 1), (2, 2), (0, 2), (1, 1), (0, 0)], "cross or touch"),  # A19: twice at a corner
        ([(50 * (n % 2), n / 50) for n in range(2_000)] + [(0, 0)], "fewer or shorter"),  # B7
    ],
)
def test_requested_polygon_refuses_invalid_ring(ring, why):
    """The ring breaks one of the rules A16 to A19, or has too many pieces (rule B7)."""
    with pytest.raises(ValueError, match=why):
        RequestedPolygon.requested(ring)


@pytest.mark.parametrize(
    ("ring", "inside", "outside"),
    [
        (DALLAS, (-96.8, 32.78), (-96.8, 32.7905)),
        (box(170, -20, -170, 20), (180, 0), (160, 0)),
        ([(0, 80), (90, 80), (180, 80), (-90, 80), (0, 80)], (45, 80.0001), (45, 79.99)),
        ([(0, -80), (-90, -80), (180, -80), (90, -80), (0, -80)], (77, -90), (77, -79.9)),
        ([(0, 80), (90, 80), (90, 90), (0, 90), (0, 80)], (45, 89), (-45, 89)),
        ([(0, 60), (40, 60), (20, 90), (0, 60)], (30, 89.9), (50, 89.9)),
        (box(-119, 31, -1, 60), (-60, 59.99), (-60, 60.1)),
    ],
    ids=["Dallas", "antimeridian", "north pole", "south pole", "a quarter to the pole", "to the pole", "wide"],
)
def test_ring_across_antimeridian_or_at_pole_is_published_correctly(ring, inside, outside):
    """Rings cross the antimeridian, contain a pole or touch it, and turn in both directions (rules A16 and A17)."""
    for each in (ring, ring[::-1]):
        polygon = published(each, 5_000)
        held = SphericalPolygon(polygon.ring, polygon.buffer_m)
        points = np.array([inside, outside], float).T
        assert held.contains_all(np.array(unit_vectors(points[1], points[0])), np.zeros(2)).tolist() == [True, False]


def star(points, lat=50.0, lng=10.0, radius_deg=0.05):
    """Return a ring from each point of a circle to a nearly opposite point, so that all edges cross."""
    turns = np.arange(points + 1) * (points // 2) * 2 * math.pi / points
    return list(
        zip((lng + radius_deg * np.cos(turns)).round(6), (lat + radius_deg * np.sin(turns)).round(6), strict=True)
    )


def test_requested_polygon_with_thousands_of_crossings_is_checked_quickly():
    """The cost depends on the number of corners. Computing all 10,000 crossings would take minutes (rule CP22)."""
    with cpu_limit(5):
        assert crossing(star(141)).crosses


SQUARE = [(0, 0), (1, 0), (1, 1), (0, 1)]
QUARTERS = [(1, 1), (-1, 1), (-1, -1), (1, -1)]


@pytest.mark.parametrize("size", [1e-4, 1, 20])
@pytest.mark.parametrize(
    "ring",
    [
        [(0, 0), (1, 1), (1, 0), (0, 1)],  # a bow-tie with halves of one size
        [(0, 0), (1, 1), (0, 1), (1, 0)],
        [(x * a, y * b) for a, b in QUARTERS for x, y in SQUARE],  # squares that turn against their neighbours
        [*SQUARE, (0, 0), (0, -2)],  # a square on a stalk
    ],
)
def test_requested_polygon_may_cross_itself_if_it_has_area(ring, size):
    """The parts of the ring may turn in different directions (rule CP22)."""
    ring = [(20 + size * x, 10 + size * y) for x, y in [*ring, ring[0]]]
    assert crossing(ring).crosses


@pytest.mark.parametrize("size", [1e-4, 1, 20])
@pytest.mark.parametrize(
    "ring",
    [
        [(0, 0), (1, 1), (2, 0), (1, 1)],
        [*SQUARE, (0, 0), *SQUARE[:0:-1]],
    ],
)
def test_requested_polygon_refuses_ring_that_retraces_its_own_edges(ring, size):
    """Such a ring encloses no area (rule CP22)."""
    ring = [(20 + size * x, 10 + size * y) for x, y in [*ring, ring[0]]]
    with pytest.raises(ValueError, match="must have an area"):
        crossing(ring)


# ---- published polygons --------------------------------------------------------------------------------------


def test_ring_of_short_edges_is_published_unchanged():
    """Neither a corner nor a buffer is added (rules B7 and B9)."""
    assert published(DALLAS) == Polygon(tuple(DALLAS), 0.0)


def test_clockwise_ring_is_published_counter_clockwise():
    """Published rings are counter-clockwise, as RFC 7946 (3.1.6) asks for (rule B7)."""
    assert published(DALLAS[::-1]) == Polygon(tuple(DALLAS[::-1][::-1]), 0.0)


def test_positions_are_rounded_and_repetitions_dropped():
    """Positions have six decimals, 0 instead of -0, longitude 0 at a pole, and 180 instead of -180 (rule B7)."""
    ring = [(-0.0, 0.0), (0.00000049, 0.0), (1.0000004, 0.0), (1.0, 0.5), (1.0, 0.5), (-0.0, 0.0)]
    assert published(ring).ring == ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.0))
    corners = published([(-180, 0), (-179.9, 0), (-179.9, 0.1), (-180, 0)]).ring
    assert str(corners) == "((180.0, 0.0), (-179.9, 0.0), (-179.9, 0.1), (180.0, 0.0))"
    assert (0.0, 90.0) in published([(0, 89.99), (40, 89.99), (30, 90), (0, 89.99)]).ring


@pytest.mark.parametrize(
    "ring", [box(-30, 32, 30, 49), box(170, -45, -170, -1), box(-3, 80, 40, 85), box(10, 10, 11, 50)]
)
def test_long_edges_are_split_into_fewest_sufficient_pieces(ring):
    """No point of a requested edge is more than 10 m from the published ring.

    One piece fewer would be too few (rule B7).
    """
    polygon = published(ring)
    assert away_m(polygon, on_edges(ring, 400)).max() <= 10.1  # rounding
    assert polygon.buffer_m == (20.0 if len(polygon.ring) > len(ring) else 0.0)
    for start, end in itertools.pairwise(ring):
        edge = [corner for corner in polygon.ring if corner in set(polygon.ring) and _between(corner, start, end)]
        pieces = max(1, len(edge) + 1)
        if pieces > 1:
            assert _stray_m(start, end, pieces) <= 10.01
            assert _stray_m(start, end, pieces - 1) > 9.99


def _between(corner, start, end):
    """Return whether a corner lies on an edge, without its ends. The edge runs along a meridian or a parallel."""
    (lng, lat), over = corner, (end[0] - start[0] + 180) % 360 - 180
    if over == 0:
        return lng == start[0] and min(start[1], end[1]) < lat < max(start[1], end[1])
    share = ((lng - start[0] + 180) % 360 - 180) / over
    return lat == start[1] and 1e-9 < share < 1 - 1e-9


def _stray_m(start, end, pieces):
    """Return the greatest distance of the pieces of an edge from their arcs, which is in the middle on a parallel."""
    (lng, lat), over = start, ((end[0] - start[0] + 180) % 360 - 180) / pieces
    if over == 0:
        return 0.0
    # The middle of the arc from (0, lat) to (over, lat) lies at atan(tan(lat) / cos(over / 2)).
    top = math.degrees(math.atan(math.tan(math.radians(lat)) / math.cos(math.radians(over / 2))))
    return distance_m(lat, lng, top, lng)


def test_edge_close_to_its_arc_needs_no_buffer():
    """Up to 0.1 m no buffer is needed. From there to 10 m the edge is not split, and the buffer is 20 m (rule B9)."""
    assert published(box(9.0, 45.0, 9.02, 45.01)).buffer_m == 0.0
    bent = published(box(9.0, 45.0, 9.2, 45.1))
    assert (len(bent.ring), bent.buffer_m) == (5, 20.0)


@pytest.mark.parametrize(("radius_deg", "simplify_m"), [(0.02, 100), (0.5, 1_000), (2.0, 5_000)])
def test_simplified_polygon_covers_requested_polygon(radius_deg, simplify_m):
    """The first tolerance that leaves at most 500 corners is used (rules B8 and B9)."""
    ring = wavy(2_400, radius_deg)
    assert publish_polygons([RequestedPolygon.requested(ring)], 0) is None
    polygon = published(ring, simplify_m)
    assert len(polygon.ring) - 1 <= MAX_CORNERS
    tolerance_m = polygon.buffer_m - 10 - 10 * (polygon.buffer_m % 100 == 20)
    assert tolerance_m in TOLERANCES_M
    finer = [each for each in TOLERANCES_M if each < tolerance_m]
    assert publish_polygons([RequestedPolygon.requested(ring)], finer[-1] if finer else 0) is None
    places = s2.places(np.random.default_rng(1), (33.0, -97.0), radius_deg * 111_195, 4_000)
    points = np.array(unit_vectors(places[:, 1], places[:, 0]))
    asked = SphericalPolygon(ring, 0.0).contains_all(points, np.zeros(len(places)))
    held = SphericalPolygon(polygon.ring, polygon.buffer_m).contains_all(points, np.zeros(len(places)))
    assert asked.sum() > 500
    assert not (asked & ~held).any()


def test_simplified_polygon_covers_first_corner_of_requested_polygon():
    """GEOS may drop the first corner of a closed ring (rule B8)."""
    ring = wavy(2_400, 0.5)
    first = ring[0]
    ring[0] = ring[-1] = (first[0] + 0.2, first[1])
    polygon = published(ring, 1_000)
    assert away_m(polygon, on_edges(ring, 3)).max() <= polygon.buffer_m


def test_tolerance_that_makes_ring_cross_itself_is_skipped():
    """The ring is a comb with teeth close to its base line, which simplification could make cross (rule B8)."""
    teeth = [(n / 1_000, 0.0004 + 0.0003 * (n % 2)) for n in range(800)]
    ring = [(0.0, 0.0), (0.8, 0.0), *teeth[::-1], (0.0, 0.0)]
    for simplify_m in (0, 50, 100, 5_000):
        found = publish_polygons([RequestedPolygon.requested(ring)], simplify_m)
        if found is not None:
            RequestedPolygon.requested(found[0].ring)  # raises if the ring crosses itself
    assert publish_polygons([RequestedPolygon.requested(ring)], 0) is None


def test_corner_limit_counts_all_polygons_together():
    """All polygons of an alert together may have 500 corners (rule P12)."""
    half = RequestedPolygon.requested(wavy(251, 0.02))
    assert publish_polygons([half], 0) is not None
    assert publish_polygons([half, half], 0) is None
    assert publish_polygons([RequestedPolygon.requested(wavy(250, 0.02))] * 2, 0) is not None


# ---- limits of the computation (HD3) -----------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [wavy(2_400, 0.5), coast(7_000), coast(300, 2), DALLAS], ids=range(4))
def test_simplified_corners_of_coast_agree_with_geos(ring):
    """So a request that is repeated after an upgrade gives the same published polygon (rules B8 and HD3)."""
    lng, lat = np.array(ring).T
    depths = corner_depths(lng, lat, TOLERANCES_M[0])
    for tolerance_m in TOLERANCES_M:
        kept = np.flatnonzero(depths > tolerance_m / s2.EARTH_RADIUS_M)
        assert kept.tolist() == kept_corners(lng, lat, tolerance_m).tolist()


@pytest.mark.parametrize(
    "ring", [pytest.param(zigzag(3_000, 1.0), marks=pytest.mark.slow), zigzag(301, 0.2)], ids=["3000", "301"]
)
def test_simplification_of_zigzag_needs_few_levels(ring, monkeypatch):
    """The plain algorithm would take one level per tooth of the zigzag. All corners stay covered (rules B8 and HD3)."""
    levels = []
    from_line = published_polygon._from_line
    monkeypatch.setattr(
        published_polygon, "_from_line", lambda *given: levels.append(len(given[0])) or from_line(*given)
    )
    depths = corner_depths(*np.array(ring).T, TOLERANCES_M[0])
    assert sum(levels) < 36 * len(ring)
    for tolerance_m in TOLERANCES_M:
        kept = np.array(ring)[depths > tolerance_m / s2.EARTH_RADIUS_M].tolist()
        polygon = Polygon(tuple(map(tuple, kept)), tolerance_m)
        assert away_m(polygon, ring).max() <= tolerance_m * 1.001


def test_ring_with_too_many_comparisons_is_not_tested_for_crossings(monkeypatch):
    """The ring counts as crossing itself (rule CP22), and a publisher's request is refused (rules HD3 and P12)."""
    assert RequestedPolygon.requested(zigzag(2_500)).compared <= MAX_COMPARED  # so every ring that A16 allows is tested
    monkeypatch.setattr(shapely, "is_valid", None)
    tangled, filled = (
        RequestedPolygon.requested(zigzag(5_000)),
        crossing(zigzag(5_000)),
    )
    assert (tangled.tangled, tangled.crosses) == (True, False)
    assert (filled.tangled, filled.crosses) == (False, True)
    assert publish_polygons([tangled], 5_000) is None
    [polygon] = publish_polygons([filled], 5_000)
    assert away_m(polygon, on_edges(zigzag(5_000), 3)).max() <= polygon.buffer_m


def test_number_of_comparisons_grows_with_square_of_corners_only_for_zigzag():
    """So the limit does not refuse real coasts (rule HD3)."""
    assert RequestedPolygon.requested(coast(7_000)).compared < MAX_COMPARED / 10
    assert RequestedPolygon.requested(zigzag(2_000)).compared > 3.9 * RequestedPolygon.requested(zigzag(1_000)).compared


@pytest.mark.parametrize(
    ("ring", "compared"),
    [
        ([(0, 0), (3, 1), (4, 4), (1, 3)], 8),  # two chains of two edges, which overlap
        ([(-2, -1), (1, -2), (2, 1), (-1, 2)], 14),  # four chains of one edge; on each axis, all but two overlap
    ],
)
def test_number_of_comparisons_counts_pairs_of_chains_that_overlap(ring, compared):
    """Each chain is compared with itself too; edges that go in one direction are one chain (rule HD3)."""
    assert outline_of(*ring).compared == compared


def test_splitting_rings_together_equals_splitting_each_ring():
    """The limit `most` counts all rings together (rule B7)."""
    rings = [np.array(ring, float).T for ring in (DALLAS, box(-30, 32, 30, 49), box(170, -45, -170, -1), wavy(50, 3))]
    together = split_rings([(ring[0], ring[1]) for ring in rings], 5_000)
    for (lng, lat, beyond_m), ring in zip(together, rings, strict=True):
        alone = split_edges(*ring)
        assert (lng.tolist(), lat.tolist(), beyond_m) == (alone[0].tolist(), alone[1].tolist(), alone[2])
    with pytest.raises(ValueError, match="fewer or shorter"):
        split_rings([(ring[0], ring[1]) for ring in rings], 500)


# ---- separate tolerances for each ring (HD10) ---------------------------------------------------------------------


def test_islet_beside_rough_coast_becomes_box_around_it():
    """The islet would vanish with the tolerance that the coast needs (rule HD10)."""
    islet = [(-89.0 + x / 2_000, 19.0 + y / 2_000) for x, y in ((0, 0), (3, 1), (4, 4), (1, 3), (0, 0))]
    rings = [RequestedPolygon.requested(coast(2_000)), RequestedPolygon.requested(islet)]
    coast_of, box_of = publish_polygons(rings, 1_000)
    assert (len(box_of.ring) - 1, coast_of.buffer_m >= 200) == (4, True)
    assert s2.depth_m(box_of.ring, np.array(islet)).min() > 0
    assert publish_polygons(rings, 0) is None


def test_ring_that_crosses_itself_at_every_tolerance_is_published():
    """Everything that the ring winds around is covered (rules HD10 and D4)."""
    ring = coast(3_000)
    polygon = published(ring, 1_000)
    assert away_m(polygon, on_edges(ring, 3)).max() <= polygon.buffer_m
    places = s2.places(np.random.default_rng(3), (17.0, -88.0), 120_000, 4_000)
    points = np.array(unit_vectors(places[:, 1], places[:, 0]))
    inside = s2.depth_m(ring, places) > 0
    assert inside.sum() > 500
    assert (
        SphericalPolygon(polygon.ring, polygon.buffer_m).contains_all(points[:, inside], np.zeros(inside.sum())).all()
    )


def test_smallest_circle_is_around_the_middle_of_all_corners():
    """It has the given radius, and there is none if a corner or the buffer is outside (rule HD10)."""
    lat, lng = np.array([(49.9, 10.0), (50.1, 10.0), (50.0, 9.9), (50.0, 10.1), (49.9, 10.0)]).T
    ring = np.array(unit_vectors(lat, lng))
    farthest_m = distance_m(50.0, 10.0, 50.1, 10.0)
    lat, lng, radius_m = smallest_circle(ring, 5, farthest_m + 10)
    assert (lat, lng, radius_m) == (pytest.approx(50.0, abs=1e-3), pytest.approx(10.0), farthest_m + 10)
    assert smallest_circle(ring, 0, farthest_m - 20) is None
    assert smallest_circle(ring, 30, farthest_m + 10) is None


def outline_of(*corners, beyond_m=0.0):
    """Return a polygon with these corners, (longitude, latitude), and a buffer."""
    return RequestedPolygon(*np.array([*corners, corners[0]], float).T, beyond_m)


def test_ring_that_is_not_simplified_keeps_all_corners_and_its_buffer():
    """A corner in the middle of an edge counts too, and no tolerance is added to the buffer (rule B9)."""
    outline = outline_of((0, 0), (0.5, 0), (1, 0), (1, 1), beyond_m=15.0)
    assert outline.corners_left(0) == 4
    assert outline_of((0, 0), (0, 0), (1, 0), (1, 1)).corners_left(0) == 4
    assert outline.published(outline.ring(0), 100.0).buffer_m == 20.0
    assert outline.corners_left(100.0) == 3
    assert outline.published(outline.ring(100.0), 100.0).buffer_m == 120.0


def test_simplified_ring_must_be_narrow_and_cross_itself_only_if_the_requested_ring_does():
    """A ring that is too wide is refused in any case (rules A18 and A19)."""
    plain, crossing = outline_of(*SQUARE), outline_of((0, 0), (1, 1), (1, 0), (0, 2))
    assert plain.is_publishable(plain.ring(0))
    assert not plain.is_publishable(crossing.ring(0))
    assert crossing.is_publishable(crossing.ring(0))
    wide = Corners(np.array([-70.0, 70.0, 0.0, -70.0]), np.array([0.0, 0.0, 70.0, 0.0]))
    assert not plain.is_publishable(wide)
    assert not crossing.is_publishable(wide)


def test_ring_with_opposite_corners_is_simplified_to_opposite_corners():
    """The plane on which a wide ring is simplified touches the sphere in the middle of all corners (rule B8)."""
    corners = s2.around((20.0, 10.0), np.arange(8) * math.pi / 4, [2e6, 2.2e6, 2e6, 1.8e6] * 2)
    lng, lat = corners[[*range(8), 0]].T
    depths = corner_depths(lng, lat, 0.0)
    assert depths[1:4] == pytest.approx(depths[5:8], rel=1e-6)
    for corner, depth in enumerate(depths[1:4], 1):
        for share, is_kept in ((0.999, True), (1.001, False)):
            kept = set(kept_corners(lng, lat, depth * share * s2.EARTH_RADIUS_M).tolist())
            assert [each in kept for each in (corner, corner + 4)] == [is_kept, is_kept]


def test_triangle_keeps_its_own_ring():
    """Only a ring without area is replaced by a box (rule HD10)."""
    outline = outline_of((0, 0), (1, 0), (1, 1))
    assert outline.own_ring(10.0) is outline.ring(10.0)
    assert len(outline_of((0, 0), (1, 0), (1, 0.00005)).own_ring(100.0)) == 4


@pytest.mark.parametrize("bearing", range(0, 180, 15))
def test_box_around_slanted_strip_is_hardly_larger_than_the_strip(bearing):
    """The box has the direction of the strip: 40 km by 2 km (rule HD10)."""
    way = math.radians(bearing)
    corners = [
        s2.around((50.0, 10.0), [way + math.atan2(side, along)], [math.hypot(side, along)])[0]
        for along, side in ((-2e4, -1e3), (2e4, -1e3), (2e4, 1e3), (-2e4, 1e3))
    ]
    lng, lat = np.array([*corners, corners[0]]).T
    box = SphericalPolygon(np.array(box_around(lng, lat)).T.tolist(), 0.0)
    assert box.contains_all(np.array(unit_vectors(lat, lng)), np.zeros(5)).all()
    assert box.area_m2() < 1.6 * 4e4 * 2e3


def test_ring_counts_as_crossing_itself_if_the_test_would_take_too_long():
    """The limit is the caller's (rule HD3)."""
    lng, lat = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], float).T
    assert not RequestedPolygon(lng, lat, 0.0).crosses
    assert RequestedPolygon(lng, lat, 0.0, most_compared=0).crosses


def test_distance_from_line_is_that_of_its_nearest_point():
    """A line without length is a point."""
    points = np.array([[3.0, 4.0], [1.0, 2.0], [-3.0, 4.0], [14.0, 3.0], [0.0, 0.0]])
    start, end = np.array([[0.0, 0.0]] * 5), np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 0.0], [10.0, 0.0], [0.0, 0.0]])
    assert _from_line(points, start, end).tolist() == [5.0, 2.0, 5.0, 5.0, 0.0]


def test_ring_along_a_line_is_refused_because_it_has_no_area():
    """A ring that may cross itself is not told that it must not (rule CP22)."""
    with pytest.raises(ValueError, match=r"^must have an area$"):
        outline_of((0, 0), (1, 0), (2, 0))
