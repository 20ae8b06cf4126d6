"""Zones from files: errors that prevent the start, finding zones by code, and a file as large as real ones (CZ1)."""

import json
import logging
import math

import numpy as np
import pytest
from geometry.test_polygon_union import grid

from geocast.geometry.polygon_union import pieces, work
from geocast.geometry.published_polygon import publish_polygons
from geocast.ingest.cap import zones
from geocast.ingest.cap.zones import joined, outlines, read_zones
from geocast.model.errors import ConfigError

SQUARE = [[10.0, 50.0], [10.2, 50.0], [10.2, 50.2], [10.0, 50.2], [10.0, 50.0]]


def feature(code="EMMA_ID", value="AT301", kind="Polygon", coordinates=(SQUARE,)):
    """Return a GeoJSON feature of a zones file."""
    properties = {"code": code, "value": value, "name": "somewhere"}
    return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}


def written(tmp_path, *features, name="zones.geojson", **more):
    """Return the path of a file with these features."""
    path = tmp_path / name
    path.write_text(json.dumps({"type": "FeatureCollection", **more, "features": features}), "utf-8")
    return path


def told(path):
    """Return the error for a file, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        read_zones([path])
    assert len(caught.value.problems) == 1
    return str(caught.value).removeprefix(f"zones {path}: ")


# ---- finding zones by code -----------------------------------------------------------------------------------


def test_zone_codes_are_compared_literally(tmp_path):
    """The name of the code list must be the same, too (CZ1)."""
    found = read_zones([written(tmp_path, feature())])
    assert len(found) == 1
    assert len(found.find("EMMA_ID", "AT301")) == 1
    for name, value in (("EMMA_ID", "at301"), ("EMMA_ID", "AT3"), ("NUTS3", "AT301"), ("EMMA ID", "AT301")):
        assert not found.find(name, value)


@pytest.mark.parametrize("name", ["EMMA_ID", "emma_id", "EMMA-ID", "EmmaId"])
def test_code_list_names_that_differ_only_by_case_dash_or_underscore_are_equal(tmp_path, name):
    """This holds for names in files and in messages (HD12)."""
    for spelled in ("EMMA_ID", "emma-id"):
        found = read_zones([written(tmp_path, feature(spelled))])
        assert len(found.find(name, "AT301")) == 1
        assert found.place([(name, "AT301"), ("Emma_Id", "AT999")])[1] is False, "one list, of which a code is unknown"
        assert found.summary().startswith(f"1 of {spelled}")


def test_longitudes_of_zone_across_antimeridian_are_wrapped(tmp_path):
    """Zones of the US have longitudes of ±180.01° (HD12)."""
    ring = [[179.5, 51.0], [180.01, 51.0], [180.01, 51.5], [179.5, 51.5], [179.5, 51.0]]
    [piece] = read_zones([written(tmp_path, feature(coordinates=[ring]))]).find("EMMA_ID", "AT301")
    [west, east] = sorted({round(abs(lng), 2) for lng in piece.ring[0].tolist()})
    assert (west, east) == (179.5, 179.99)
    assert len(piece.ring[0]) == 5


def test_zones_of_several_files_are_all_found(tmp_path):
    """A zone may have several features, and there may be several files (CZ1)."""
    east = [[x + 5, y] for x, y in SQUARE]
    one = written(tmp_path, feature(), feature(coordinates=[east]), feature("NUTS2", "BE21"))
    two = written(tmp_path, feature("UGC", "MTZ014", "MultiPolygon", [[SQUARE], [east]]), name="two.geojson")
    found = read_zones([one, two])
    assert [len(found.find(*key)) for key in (("EMMA_ID", "AT301"), ("NUTS2", "BE21"), ("UGC", "MTZ014"))] == [2, 1, 2]
    assert found.summary().startswith("1 of EMMA_ID, 1 of NUTS2, 1 of UGC; ")


def test_fields_of_feature_collection_are_read_in_any_order(tmp_path):
    """Some tools write `crs`, `name` and `bbox` after the features (RFC 7946). Heights are ignored."""
    high = [[x, y, 120] for x, y in SQUARE]
    text = json.dumps({"bbox": [1, 2, 3, 4], "features": [feature(coordinates=[high])], "type": "FeatureCollection"})
    path = tmp_path / "zones.geojson"
    path.write_text("\ufeff\n " + text.replace(",", " ,\n"), "utf-8")
    assert len(read_zones([path])) == 1


def test_area_is_fully_located_if_all_codes_of_one_code_list_are_known(tmp_path):
    """Issuers name a place by the codes of several lists (CP24)."""
    found = read_zones([written(tmp_path, feature("UGC", "A"), feature("UGC", "B"), feature("SAME", "1"))])
    assert [
        len(found.place(codes)[0]) for codes in ([("UGC", "A"), ("UGC", "B")], [("FIPS6", "9"), ("SAME", "1")], [])
    ] == [
        2,
        1,
        0,
    ]
    assert found.place([("UGC", "A"), ("UGC", "B"), ("FIPS6", "9")])[1]
    assert not found.place([("UGC", "A"), ("UGC", "X")])[1]
    assert found.place([]) == ([], False)


def test_zone_named_twice_is_joined_once(tmp_path):
    """The message names the same code twice (CZ2)."""
    found = read_zones([written(tmp_path, feature())]).find("EMMA_ID", "AT301")
    assert len(joined([*found, *found], 0)) == 1


# ---- errors that prevent the start ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"coordinates": []}, "geometry must be a Polygon or a MultiPolygon"),
        ({"coordinates": [SQUARE[:3]]}, "its polygon must have rings of at least 4 positions"),
        ({"coordinates": [SQUARE[:-1]]}, "its polygon must have rings that end where they begin"),
        ({"coordinates": [[[10, 50], [11, 50], [10, 50], [10, 50]]]}, "its polygon must have at least three positions"),
        (
            {"coordinates": [[[10, 50], ["11", 50], [10, 51], [10, 50]]]},
            "its polygon must have positions of two numbers",
        ),
        (
            {"coordinates": [[[10, 50], [True, 50], [10, 51], [10, 50]]]},
            "its polygon must have positions of two numbers",
        ),
        ({"coordinates": [[[10, 50], [11], [10, 51], [10, 50]]]}, "its polygon must have positions of two numbers"),
        ({"coordinates": [[[10, 50], 11, [10, 51], [10, 50]]]}, "its polygon must have positions of two numbers"),
        (
            {"coordinates": [[[10, 50], [10, 91], [11, 50], [10, 50]]]},
            "its polygon must have longitudes of -360 to 360",
        ),
        ({"coordinates": [[[10, 50], [1e999, 51], [11, 50], [10, 50]]]}, "is not JSON (line 1)"),
        ({"coordinates": [[[-90, 0], [90, 0], [0, 50], [-90, 0]]]}, "its polygon must have no edge that spans 180°"),
        (
            {"coordinates": [[[-100, 0], [0, -50], [100, 0], [0, 50], [-100, 0]]]},
            "its polygon must have every corner less",
        ),
        ({"coordinates": [[[10, 50], [10, 51], [10, 52], [10, 50]]]}, "must have an area"),
        (
            {"kind": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE[1:]]]},
            "its polygon 1 must have rings that end",
        ),
        ({"kind": "LineString", "coordinates": SQUARE}, "geometry must be a Polygon or a MultiPolygon"),
    ],
)
def test_invalid_zone_feature_is_named_in_error(tmp_path, broken, expected):
    """The error has the feature's number and code, but no coordinates (CZ1, K1)."""
    problem = told(written(tmp_path, feature(value="fine"), feature(**broken)))
    prefix = "" if "JSON" in expected else "feature 1 (EMMA_ID AT301): "
    assert problem.startswith(prefix + expected)


@pytest.mark.parametrize("key", ["code", "value"])
@pytest.mark.parametrize("value", [None, 7, "", "  ", "x" * 201])
def test_zone_feature_without_code_is_refused(tmp_path, key, value):
    """A feature needs the name of a code list and a value (CZ1)."""
    assert told(written(tmp_path, feature(**{key: value}))).startswith(f"feature 0: properties.{key} must be a text")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not JSON (line 1)"),
        ("[]", "is not JSON (line 1)"),
        ('{"type": "FeatureCollection"}', "must be a FeatureCollection with features (GeoJSON)"),
        ('{"type": "FeatureCollection", "features": []}', "must be a FeatureCollection with features (GeoJSON)"),
        ('{"type": "FeatureCollection",\n"features": [}', "is not JSON (line 2)"),
        ('{"type": "FeatureCollection", "features": [1]}', "feature 0: must be a Feature with properties"),
        ('{"features": [' + "[" * 100_000, "is not JSON (line 1)"),
        ('{"type": "FeatureCollection" "features": []}', "is not JSON (line 1)"),
    ],
    ids=range(8),
)
def test_zones_file_without_feature_collection_is_refused(tmp_path, text, expected):
    """The error says what is expected (CZ1, K1)."""
    path = tmp_path / "zones.geojson"
    path.write_text(text)
    assert told(path) == expected


def test_truncated_zones_file_is_refused(tmp_path):
    """Otherwise half of the zones would be missing silently (CZ1)."""
    path = written(tmp_path, feature(), feature(value="AT302"))
    path.write_text(path.read_text()[:-30])
    assert told(path) == "is not JSON (line 1)"


def test_missing_zones_file_is_named_in_error(tmp_path):
    """The error has the path and the reason (K1)."""
    assert told(tmp_path / "nowhere") == "No such file or directory"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert told(tmp_path / "bytes") == "is not in UTF-8"


# ---- files as large as real ones -----------------------------------------------------------------------------


def coast(lng, lat, radius, corners):
    """Return a ring with as many corners as a real zone."""
    angles = [2 * math.pi * n / corners for n in range(corners)]
    ring = [
        [
            round(lng + radius * math.cos(a) * (1 + 0.1 * math.sin(17 * a) + 0.02 * math.sin(211 * a)), 6),
            round(lat + radius * math.sin(a) * (1 + 0.1 * math.sin(13 * a)), 6),
        ]
        for a in angles
    ]
    return [*ring, ring[0]]


@pytest.mark.slow
def test_zones_file_as_large_as_real_ones_is_read_with_progress_lines(tmp_path, monkeypatch, caplog):
    """The file has 200 zones of 1,000 positions and an archipelago. Simplification saves memory (CZ1)."""
    at = [(x * 1.0, 35 + y * 1.0) for x in range(20) for y in range(10)]
    features = [feature("EMMA_ID", f"X{n}", coordinates=[coast(x, y, 0.4, 1_000)]) for n, (x, y) in enumerate(at)]
    islands = [[coast(-20 + n % 20 * 0.02, 35 + n // 20 * 0.02, 0.005, 40)] for n in range(400)]
    path = written(tmp_path, *features, feature("UGC", "islands", "MultiPolygon", islands))
    assert path.stat().st_size > 4_000_000
    monkeypatch.setattr(zones, "PROGRESS_S", 0.0)
    with caplog.at_level(logging.INFO):
        found = read_zones([path])
    assert len(found) == 201
    assert f"zones {path}: still being read; 201 features so far" in caplog.text
    kept = sum(piece.ring.shape[1] for n in range(200) for piece in found.find("EMMA_ID", f"X{n}"))
    assert kept < 200 * 1_000 * 2 / 3
    [zone] = joined(found.find("EMMA_ID", "X7"), 1_000)
    assert publish_polygons(outlines([zone]), 1_000) is not None


@pytest.mark.slow
def test_archipelago_is_published_as_fewer_shapes(tmp_path):
    """400 islands, 1 to 2 km apart, become one shape with the water between them (CZ2)."""
    islands = [[coast(-20 + n % 20 * 0.02, 35 + n // 20 * 0.02, 0.005, 40)] for n in range(400)]
    found = read_zones([written(tmp_path, feature(kind="MultiPolygon", coordinates=islands))]).find("EMMA_ID", "AT301")
    assert len(joined(found, 0)) == 400
    few = joined(found, 2_000)
    assert len(few) == 1
    assert publish_polygons(outlines(few), 2_000) is not None


def test_zones_that_are_too_much_work_are_simplified_before_joining():
    """If even simplified zones are too much work, they are not joined (CZ2, HD3)."""
    given = [piece for ring in grid(10, 10, np.random.default_rng(1)).values() for piece in pieces([ring])]
    [one] = joined(given, 0)
    [coarse] = joined(given, 0, work(given) * 3 // 4)
    assert one.beyond_m < 500 < coarse.beyond_m
    assert joined(given, 0, 100) == given
