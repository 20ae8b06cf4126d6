"""Where a publisher may publish: GeoJSON in, yes or no out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocast.policy.publishers.jurisdiction import parse_jurisdiction

SQUARE = [[-97, 32], [-96, 32], [-96, 33], [-97, 33], [-97, 32]]
HOLE = [[-96.6, 32.4], [-96.6, 32.6], [-96.4, 32.6], [-96.4, 32.4], [-96.6, 32.4]]
FAR = [[10, 50], [11, 50], [11, 51], [10, 50]]


def polygon(*rings):
    """A geometry."""
    return {"type": "Polygon", "coordinates": list(rings)}


def multi(*polygons):
    """A geometry of several."""
    return {"type": "MultiPolygon", "coordinates": list(polygons)}


def feature(geometry):
    """A feature, as GIS programs write it."""
    return {"type": "Feature", "properties": {"NAME": "Dallas"}, "geometry": geometry}


def collection(*features):
    """A collection of features."""
    return {"type": "FeatureCollection", "features": list(features)}


def parsed(document):
    """The jurisdiction of a document."""
    return parse_jurisdiction(json.dumps(document).encode())


@pytest.mark.parametrize(
    "document",
    [
        polygon(SQUARE, HOLE),
        polygon(SQUARE[::-1], HOLE[::-1]),
        multi([SQUARE, HOLE], [FAR]),
        feature(polygon(SQUARE, HOLE)),
        collection(feature(multi([SQUARE, HOLE])), feature(polygon(FAR))),
        polygon([[*each, 120.5] for each in SQUARE], HOLE),
        polygon(SQUARE, HOLE) | {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}},
    ],
    ids=["polygon", "clockwise", "multi", "feature", "collection", "heights", "CRS84"],
)
def test_holes_are_outside_and_borders_are_inside(document):
    """P22, PG4: whatever the form of GeoJSON."""
    found = parsed(document)
    assert found.contains(32.2, -96.5)
    assert found.contains(32, -96.5)
    assert found.contains(33, -97)
    assert found.contains(32.4, -96.5)
    assert not found.contains(32.5, -96.5)
    assert not found.contains(31.999999, -96.5)
    assert not found.contains(-96.5, 32.2)


def test_polygons_of_a_collection_may_overlap():
    """P22: it is all of them together."""
    shifted = [[lng + 0.5, lat] for lng, lat in SQUARE]
    found = parsed(collection(feature(polygon(SQUARE)), feature(polygon(shifted))))
    assert [found.contains(32.5, lng) for lng in (-97.1, -96.9, -96.3, -95.6, -95.4)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_edges_are_straight_on_a_map_and_no_arcs():
    """PG4: a border along a parallel stays on it. An arc between these corners would bulge to 61.6 degrees."""
    found = parsed(polygon([[-40, 50], [40, 50], [40, 55], [-40, 55], [-40, 50]]))
    assert found.contains(54.999, 0)
    assert found.contains(50.001, 0)
    assert not found.contains(55.001, 0)


def test_the_antimeridian_is_one_meridian():
    """PG4, L6: 180 and -180 are the same, from either side."""
    east = parsed(polygon([[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]))
    west = parsed(polygon([[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]))
    for found in (east, west):
        assert found.contains(0, 180)
        assert found.contains(0, -180)
        assert not found.contains(11, 180)
    assert east.contains(0, 179)
    assert not east.contains(0, -179)


def test_at_a_pole_longitude_says_nothing():
    """PG4, L6."""
    found = parsed(polygon([[-180, -90], [180, -90], [180, -60], [-180, -60], [-180, -90]]))
    wedge = parsed(polygon([[0, 80], [10, 80], [10, 90], [0, 90], [0, 80]]))
    for lng in (-180, -77, 0, 123, 180):
        assert found.contains(-90, lng)
        assert not found.contains(90, lng)
        assert wedge.contains(90, lng)
        assert not wedge.contains(-90, lng)


# ---- rings ---------------------------------------------------------------------------------------------------


def ring_of(*corners):
    """Corners as (latitude, longitude), of these (longitude, latitude)."""
    return [(lat, lng) for lng, lat in corners]


AROUND_HOLE = ring_of((-96.8, 32.2), (-96.2, 32.2), (-96.2, 32.8), (-96.8, 32.8))


@pytest.mark.parametrize(
    ("corners", "covered"),
    [
        (AROUND_HOLE, False),
        (AROUND_HOLE[::-1], False),
        (ring_of(*SQUARE[:-1]), False),
        (ring_of((-96.95, 32.05), (-96.7, 32.05), (-96.7, 32.9)), True),
        (ring_of((-96.95, 32.05), (-96.7, 32.05), (-96.7, 33.01)), False),
        (ring_of((-97, 32), (-96, 32), (-96, 32.3)), True),  # along the border
        (ring_of((-96.6, 32.4), (-96.4, 32.4), (-96.5, 32.3)), True),  # at the border of the hole
        (ring_of((-96.9, 32.1), (-96.1, 32.9), (-96.9, 32.9), (-96.1, 32.1)), False),  # wings, across the hole
        (ring_of((-96.9, 32.05), (-96.1, 32.35), (-96.9, 32.35), (-96.1, 32.05)), True),  # wings, below it
        (ring_of((-96.45, 32.45), (-96.55, 32.45), (-96.5, 32.55)), False),  # in the hole
    ],
    ids=range(10),
)
def test_ring_is_covered_with_all_that_it_winds_around(corners, covered):
    """P22, HD14: a ring around a hole is not, whose corners all lie in the jurisdiction."""
    assert parsed(polygon(SQUARE, HOLE)).covers(corners) == covered


def test_ring_may_lie_in_several_polygons_and_not_across_gap_between_them():
    """P22, HD14: it is all of them together; four that leave a gap in their middle have a hole there."""
    strips = [([0, 0], [3, 1]), ([0, 2], [3, 3]), ([0, 1], [1, 2]), ([2, 1], [3, 2])]
    boxes = [[[w, s], [e, s], [e, n], [w, n], [w, s]] for (w, s), (e, n) in strips]
    found = parsed(multi(*([each] for each in boxes)))
    assert found.covers(ring_of((0.1, 0.1), (0.9, 0.1), (0.9, 2.9), (0.1, 2.9)))
    assert not found.covers(ring_of((0.1, 0.1), (2.9, 0.1), (2.9, 2.9), (0.1, 2.9)))


def test_ring_across_antimeridian_is_covered_from_both_sides():
    """PG4, L6: by two polygons that meet there; not by one of them."""
    west = [[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]
    east = [[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]
    ring = ring_of((179, 0), (-179, 0), (-179, 5), (179, 5))
    assert parsed(multi([west], [east])).covers(ring)
    assert parsed(multi([west], [east])).covers(ring[::-1])
    assert not parsed(polygon(west)).covers(ring)
    assert parsed(polygon(west)).covers(ring_of((179, 0), (180, 0), (-180, 5), (179, 5)))
    assert not parsed(multi([west], [east])).covers(ring_of((179, 0), (-169, 0), (-179, 5), (179, 5)))


def test_ring_around_pole_is_covered_by_cap_and_not_by_band():
    """PG4: all that it winds around counts, the pole too; and a corner at the pole is no line of the map."""
    cap = parsed(polygon([[-180, 60], [180, 60], [180, 90], [-180, 90], [-180, 60]]))
    band = parsed(polygon([[-180, 60], [180, 60], [180, 85], [-180, 85], [-180, 60]]))
    ring = ring_of(*((lng, 70) for lng in range(0, 360, 30)))
    ring = [(lat, lng if lng <= 180 else lng - 360) for lat, lng in ring]
    assert cap.covers(ring)
    assert cap.covers(ring[::-1])
    assert not band.covers(ring)
    wedge = ring_of((0, 70), (40, 70), (20, 90))
    assert cap.covers(wedge)
    assert not band.covers(wedge)
    assert parsed(polygon([[-1, 60], [41, 60], [41, 90], [-1, 90], [-1, 60]])).covers(wedge)
    assert not parsed(polygon([[1, 60], [41, 60], [41, 90], [1, 90], [1, 60]])).covers(wedge)


@given(lat=st.floats(-90, 90), lng=st.floats(-180, 180))
def test_a_point_is_told_as_by_arithmetic(lat, lng):
    """P22: a box with a hole, against comparisons of numbers."""
    found = parsed(polygon(SQUARE, HOLE))
    in_box = -97 <= lng <= -96 and 32 <= lat <= 33
    in_hole = -96.6 < lng < -96.4 and 32.4 < lat < 32.6
    assert found.contains(lat, lng) == (in_box and not in_hole)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "not strict JSON"),
        ({"type": "Point", "coordinates": [1, 2]}, "must be a Polygon"),
        (feature(None), "must be a Polygon"),
        (collection(), "holds no polygon"),
        ({"type": "FeatureCollection"}, "holds no polygon"),
        ({"type": "FeatureCollection", "features": [3]}, "must be a Polygon"),
        (multi(), "holds no polygon"),
        ({"type": "MultiPolygon", "coordinates": {}}, "coordinates: must be lists"),
        (polygon(), "polygon 1: must be a list of one or more rings"),
        ({"type": "Polygon"}, "polygon 1: must be a list of one or more rings"),
        (polygon(SQUARE[:3]), "polygon 1: must have 4 or more positions"),
        (polygon([[-97, True], *SQUARE[1:]]), "polygon 1: must have 4 or more positions"),
        (polygon([["-97", 32], *SQUARE[1:]]), "polygon 1: must have 4 or more positions"),
        (polygon(SQUARE[:-1]), "polygon 1: must have rings that end"),
        (multi([FAR], [[[32, -97], [33, -97], [33, -96], [32, -97]]]), "polygon 2: must have longitudes"),
        (polygon([[500000, 4649776], [500100, 4649776], [500100, 4649876], [500000, 4649776]]), "must have longitudes"),
        (polygon([[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]), "polygon 1: its rings must not cross"),
        (polygon(FAR, SQUARE), "polygon 1: its rings must not cross"),
        (polygon(SQUARE) | {"crs": {"properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}}, "crs: must be left out"),
    ],
    ids=range(19),
)
def test_what_is_no_jurisdiction_is_refused_in_a_sentence_without_a_place(document, said):
    """K1: fail closed; no coordinate is repeated."""
    with pytest.raises(ValueError, match=said) as caught:
        parsed(document)
    assert not any(number in str(caught.value) for number in ("-97", "32", "500000", "4649776"))


@pytest.mark.parametrize("text", [b"", b"\xff", b'{"type": NaN}', b'{"type": 1, "type": 2}', b"[" * 100])
def test_what_is_not_strict_json_is_refused(text):
    """K1."""
    with pytest.raises(ValueError, match="not strict JSON"):
        parse_jurisdiction(text)
