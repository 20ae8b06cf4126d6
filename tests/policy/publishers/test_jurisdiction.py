"""The jurisdiction of a publisher: parsing its GeoJSON, and which points and polygons lie inside."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocast.policy.publishers.jurisdiction import parse_jurisdiction

SQUARE = [[-97, 32], [-96, 32], [-96, 33], [-97, 33], [-97, 32]]
HOLE = [[-96.6, 32.4], [-96.6, 32.6], [-96.4, 32.6], [-96.4, 32.4], [-96.6, 32.4]]
FAR = [[10, 50], [11, 50], [11, 51], [10, 50]]


def polygon(*rings):
    """Return a Polygon of these rings."""
    return {"type": "Polygon", "coordinates": list(rings)}


def multi(*polygons):
    """Return a MultiPolygon of these polygons."""
    return {"type": "MultiPolygon", "coordinates": list(polygons)}


def feature(geometry):
    """Return a Feature, as GIS programs write it."""
    return {"type": "Feature", "properties": {"NAME": "Dallas"}, "geometry": geometry}


def collection(*features):
    """Return a FeatureCollection."""
    return {"type": "FeatureCollection", "features": list(features)}


def parsed(document):
    """Return the jurisdiction of a document."""
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
def test_borders_of_a_jurisdiction_are_inside_and_its_holes_outside(document):
    """Every form of GeoJSON gives the same result (rules P22, PG4)."""
    found = parsed(document)
    assert found.contains(32.2, -96.5)
    assert found.contains(32, -96.5)
    assert found.contains(33, -97)
    assert found.contains(32.4, -96.5)
    assert not found.contains(32.5, -96.5)
    assert not found.contains(31.999999, -96.5)
    assert not found.contains(-96.5, 32.2)


def test_point_in_any_of_several_overlapping_polygons_is_inside():
    """A point is inside if any polygon contains it (rule P22)."""
    shifted = [[lng + 0.5, lat] for lng, lat in SQUARE]
    found = parsed(collection(feature(polygon(SQUARE)), feature(polygon(shifted))))
    assert [found.contains(32.5, lng) for lng in (-97.1, -96.9, -96.3, -95.6, -95.4)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_edges_of_a_jurisdiction_are_straight_lines_on_the_map():
    """A border along a parallel stays on that parallel.

    A great circle between these corners would reach 61.6 degrees (rule PG4).
    """
    found = parsed(polygon([[-40, 50], [40, 50], [40, 55], [-40, 55], [-40, 50]]))
    assert found.contains(54.999, 0)
    assert found.contains(50.001, 0)
    assert not found.contains(55.001, 0)


def test_point_on_the_antimeridian_is_inside_polygons_on_either_side():
    """180 and -180 degrees are the same meridian (rules PG4, L6)."""
    east = parsed(polygon([[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]))
    west = parsed(polygon([[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]))
    for found in (east, west):
        assert found.contains(0, 180)
        assert found.contains(0, -180)
        assert not found.contains(11, 180)
    assert east.contains(0, 179)
    assert not east.contains(0, -179)


def test_pole_is_inside_or_outside_whatever_its_longitude():
    """A pole is inside or outside for all longitudes (rules PG4, L6)."""
    found = parsed(polygon([[-180, -90], [180, -90], [180, -60], [-180, -60], [-180, -90]]))
    wedge = parsed(polygon([[0, 80], [10, 80], [10, 90], [0, 90], [0, 80]]))
    for lng in (-180, -77, 0, 123, 180):
        assert found.contains(-90, lng)
        assert not found.contains(90, lng)
        assert wedge.contains(90, lng)
        assert not wedge.contains(-90, lng)


# ---- whether a jurisdiction covers a polygon -----------------------------------------------------------------


def ring_of(*corners):
    """Return corners as (latitude, longitude) for these (longitude, latitude)."""
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
def test_polygon_around_a_hole_of_the_jurisdiction_is_not_covered(corners, covered):
    """The polygon is not covered even if all its corners lie in the jurisdiction (rules P22, HD14)."""
    assert parsed(polygon(SQUARE, HOLE)).covers(corners) == covered


def test_polygon_across_touching_parts_is_covered_unless_it_surrounds_a_gap():
    """Four polygons around a gap have a hole in their middle (rules P22, HD14)."""
    strips = [([0, 0], [3, 1]), ([0, 2], [3, 3]), ([0, 1], [1, 2]), ([2, 1], [3, 2])]
    boxes = [[[w, s], [e, s], [e, n], [w, n], [w, s]] for (w, s), (e, n) in strips]
    found = parsed(multi(*([each] for each in boxes)))
    assert found.covers(ring_of((0.1, 0.1), (0.9, 0.1), (0.9, 2.9), (0.1, 2.9)))
    assert not found.covers(ring_of((0.1, 0.1), (2.9, 0.1), (2.9, 2.9), (0.1, 2.9)))


def test_polygon_across_the_antimeridian_needs_jurisdiction_on_both_sides():
    """Each of the two polygons alone does not cover it (rules PG4, L6)."""
    west = [[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]
    east = [[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]
    ring = ring_of((179, 0), (-179, 0), (-179, 5), (179, 5))
    assert parsed(multi([west], [east])).covers(ring)
    assert parsed(multi([west], [east])).covers(ring[::-1])
    assert not parsed(polygon(west)).covers(ring)
    assert parsed(polygon(west)).covers(ring_of((179, 0), (180, 0), (-180, 5), (179, 5)))
    assert not parsed(multi([west], [east])).covers(ring_of((179, 0), (-169, 0), (-179, 5), (179, 5)))


def test_polygon_around_the_pole_is_covered_only_if_the_pole_is_inside():
    """The ring encloses the pole as well. A corner at the pole adds no line to the map (rule PG4)."""
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
def test_contains_agrees_with_plain_comparisons_for_a_box_with_a_hole(lat, lng):
    """Random points are compared with plain arithmetic (rule P22)."""
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
        (polygon(SQUARE[:-1]), "polygon 1: must have rings whose last position"),
        (multi([FAR], [[[32, -97], [33, -97], [33, -96], [32, -97]]]), "polygon 2: must have longitudes"),
        (polygon([[500000, 4649776], [500100, 4649776], [500100, 4649876], [500000, 4649776]]), "must have longitudes"),
        (polygon([[179, 3], [180.5, 3], [180, 4], [179, 3]]), "must have longitudes"),
        (polygon([[9, 89], [8, 90.5], [7, 89], [9, 89]]), "must have longitudes"),
        (polygon([[0, 0], [1, 1], [0, 1], [1, 0], [0, 0]]), "polygon 1: its rings must not cross"),
        (polygon(FAR, SQUARE), "polygon 1: its rings must not cross"),
        (polygon(SQUARE) | {"crs": {"properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}}, "crs: must be left out"),
    ],
    ids=range(21),
)
def test_error_about_an_invalid_jurisdiction_repeats_no_coordinate(document, said):
    """The error repeats no coordinate (rule K1)."""
    with pytest.raises(ValueError, match=said) as caught:
        parsed(document)
    assert not any(number in str(caught.value) for number in ("-97", "32", "500000", "4649776"))


@pytest.mark.parametrize("text", [b"", b"\xff", b'{"type": NaN}', b'{"type": 1, "type": 2}', b"[" * 100])
def test_jurisdiction_that_is_not_strict_json_is_refused(text):
    """The file must be strict JSON (rule K1)."""
    with pytest.raises(ValueError, match="not strict JSON"):
        parse_jurisdiction(text)
