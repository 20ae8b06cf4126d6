"""Rough coasts: no official warning is refused because of its shape, and none takes long (HD3, HD10)."""

import json
import math

import numpy as np
import pytest
import shapely
from geometry.test_polygon_union import grid
from ingest.cap.issuer import PUBLIC_WARNING, CapIngestHarness, a_message, an_area, an_info, code
from ingest.cap.test_corpus import UTC, a_room
from support import s2
from support.real_data import DATA

from bench.hard_rings import coast, said, zigzag
from geocast.geometry.polygon_union import pieces
from geocast.geometry.sphere import distance_m, unit_vectors
from geocast.geometry.spherical_polygon import SphericalPolygon
from geocast.ingest.cap.shapes import MAX_WORK
from geocast.ingest.cap.zones import MAX_SHAPES, Zones
from geocast.model.alert import Circle, Polygon
from geocast.model.problems import Problem
from geocast.policy.publishers.bounds import Bounds, Publishers
from geocast.policy.publishers.jurisdiction import parse_jurisdiction

pytestmark = pytest.mark.slow

ABOUT_SHAPES = {"area-too-complex", "radius-out-of-range", "shape-not-allowed"}


def taken(*rings, room=None, **area):
    """Return the outcome of a message with these rings, under the policy for official warnings."""
    room = room or CapIngestHarness()
    return room.taken(a_message("m", 0, (), an_info(an_area(polygon=[said(ring) for ring in rings], **area))))


def area_of(answer):
    """Return the published shapes of an answer with one alert."""
    [revision] = answer.alerts
    assert len(revision.alert.area) <= MAX_SHAPES
    assert sum(len(shape.ring) - 1 for shape in revision.alert.area if isinstance(shape, Polygon)) <= 500
    return revision.alert.area


def held(area, points):
    """Return which of these places (lng, lat) are in an area, by the server's own rule (D4)."""
    places = np.array(unit_vectors(points[:, 1], points[:, 0]))
    found = np.zeros(len(points), np.bool_)
    for shape in area:
        if isinstance(shape, Circle):
            away = [distance_m(lat, lng, shape.lat, shape.lng) for lng, lat in points.tolist()]
            found |= np.array(away) <= shape.radius_m
        else:
            found |= SphericalPolygon(shape.ring, shape.buffer_m).contains_all(places, np.zeros(len(points)))
    return found


def islet(n, size_m=250, corners=30):
    """Return an islet off the coast."""
    centre = 17 + 1.6 * math.sin(n), -88 + 1.6 * math.cos(n)
    return s2.a_ring(np.random.default_rng(n), centre, size_m, corners)


# ---- coasts and other complex shapes -------------------------------------------------------------------------


def test_coast_of_7000_corners_with_40_islets_is_published_and_covers_every_corner():
    """According to S2, every place in the message's shape is in the published shape (HD10)."""
    rings = [coast(7_000), *(islet(n) for n in range(40))]
    area = area_of(taken(*rings))
    assert len(area) == 41
    inside = s2.places(np.random.default_rng(2), (17.0, -88.0), 120_000, 1_000)
    inside = inside[s2.depth_m(rings[0], inside) > 1]
    assert len(inside) > 200
    points = np.vstack([np.array(ring) for ring in rings] + [inside])
    depth = np.max([s2.depth_m(shape.ring, points) + shape.buffer_m for shape in area], axis=0)
    assert depth.min() > -0.2  # B9


def test_coasts_with_and_without_self_crossing_are_both_published():
    """A ring that crosses itself is not refused (HD10, CP22)."""
    clean = coast(7_000)
    crossed = clean.copy()
    crossed[100], crossed[140] = crossed[140], crossed[100]
    for ring, notes in ((clean, set()), (crossed, {"ring-crossed"})):
        answer = taken(ring, islet(1))
        assert answer.notes & {"ring-crossed"} == notes
        assert held(area_of(answer), np.array([*ring, *islet(1)])).all()


def test_islet_beside_rough_coast_becomes_box():
    """With the tolerance of the coast the islet would vanish. The box is as small as possible (HD10)."""
    rings = [coast(900), islet(3)]
    area = area_of(taken(*rings))
    assert [len(shape.ring) - 1 == 4 for shape in area] == [False, True]
    assert held(area, np.vstack([np.array(ring) for ring in rings])).all()
    far = np.array([s2.around((17 + 1.6 * math.sin(3), -88 + 1.6 * math.cos(3)), np.array([0.5]), [900.0])[0]])
    assert not held(area[1:], far).any()


@pytest.mark.parametrize("size_deg", [2e-6, 1e-5, 2e-4, 5e-4])
def test_polygon_of_less_than_100_m_is_published_at_smallest_size(size_deg):
    """A circle of less than 100 m is, too (HD10, P7)."""
    ring = [(10, 50), (10 + size_deg, 50), (10 + size_deg, 50 + size_deg / 2), (10, 50)]
    assert held(area_of(taken(ring)), np.array(ring)).all()
    [circle] = area_of(CapIngestHarness().taken(a_message("m", 0, (), an_info(an_area(circle="50,10 0.05")))))
    assert 100 <= circle.radius_m < 400


def test_neighbouring_districts_are_published_with_every_corner_covered():
    """The shapes resemble 14 districts of DWD with 2,600 corners, and 25 areas of MoWaS (HD10)."""
    districts = [list(map(tuple, ring.T.tolist())) for ring in grid(7, 2, np.random.default_rng(3)).values()]
    quarters = [coast(120, n, 50 + n // 5 * 0.2, 8 + n % 5 * 0.2, 0.1) for n in range(25)]
    assert sum(map(len, districts)) > 2_600
    for rings in (districts, quarters):
        assert held(area_of(taken(*rings)), np.vstack([np.array(ring) for ring in rings])).all()


@pytest.mark.parametrize("count", [65, 150, 700])
def test_too_many_shapes_are_merged_without_covering_places_far_away(count):
    """The shapes are up to 600 towns, half a degree apart (HD10)."""
    at = [(8 + n % 30 * 0.5, 35 + n // 30 * 0.5) for n in range(count)]
    rings = [coast(12, n, lat, lng, 0.05) for n, (lng, lat) in enumerate(at)]
    answer = taken(*rings)
    assert "united" in answer.notes
    assert held(area_of(answer), np.vstack([np.array(ring) for ring in rings])).all()
    far = np.array([(lng, 35 - 1.5) for lng, _ in at])
    assert not held(area_of(answer), far).any()


def test_policy_checks_shapes_before_they_are_merged():
    """Rings on both sides of an ocean do not count as one large shape (P7, HD10)."""
    rings = [coast(12, n, 40, -70 + n, 0.05) for n in range(40)] + [coast(12, n, 40, 5 + n, 0.05) for n in range(40)]
    assert held(area_of(taken(*rings)), np.vstack([np.array(ring) for ring in rings])).all()


def test_no_real_message_is_refused_because_of_its_shape():
    """All real messages are tried, without zones (HD10)."""
    names = sorted(path.stem for path in (DATA / "cap").glob("*.xml")) if DATA.exists() else []
    if not names:
        pytest.skip("the real CAP messages are not here: ../shared/data/cap")
    outcomes = {}
    for name in names:
        body = (DATA / "cap" / f"{name}.xml").read_bytes()
        try:
            outcomes[name] = a_room(name, UTC).taken(body).outcome
        except Problem as problem:
            outcomes[name] = {(each.slug, each.pointer) for each in problem.violations}
            slugs = {slug for slug, _ in outcomes[name]}
            assert not slugs & ABOUT_SHAPES
            assert not any(slug == "invalid-value" and "/area" in pointer for slug, pointer in outcomes[name])
    assert sum(outcome == "published" for outcome in outcomes.values()) >= 17


def test_zones_of_whole_country_are_published_one_by_one():
    """The zones are a coast of thousands of corners with islets, a strip along a river, and a rock (HD10, CZ1)."""
    country = {
        "coast": [coast(7_000, 4), *(islet(n, 60, 12) for n in range(80))],
        "river": [[(x / 50, 0.002 * math.sin(x)) for x in range(400)]],
        "rock": [islet(5, 20, 8)],
    }
    upper = [(lng, lat + 0.004) for lng, lat in reversed(country["river"][0])]
    country["river"] = [[*country["river"][0], *upper, country["river"][0][0]]]
    known = Zones(
        {
            ("UGC", name): [piece for ring in rings for piece in pieces([np.array(ring).T])]
            for name, rings in country.items()
        }
    )
    for names in ([name] for name in country):
        corners = np.array([corner for name in names for ring in country[name] for corner in ring])
        answer = CapIngestHarness(zones=known).taken(
            a_message("m", 0, (), an_info(an_area(geocode=[code("UGC", name) for name in names])))
        )
        assert held(area_of(answer), corners).all()


# ---- limits of the computation ---------------------------------------------------------------------------------


def test_message_with_too_many_corners_is_refused_before_shapes_are_parsed():
    """The error names the polygon; equal texts in several languages count once (HD3)."""
    half = said(coast(MAX_WORK // 2 - 100))
    infos = [an_info(an_area(polygon=half), language=language) for language in ("en", "fr", "es")]
    assert CapIngestHarness().taken(a_message("m", 0, (), *infos)).outcome == "published"
    area = an_area(polygon=[half, said(coast(MAX_WORK // 2 + 100, 2))])
    assert CapIngestHarness().refused(a_message("n", 0, (), an_info(area))) == [
        ("area-too-complex", "/alert/info/0/area/0/polygon/1")
    ]


def test_alerts_of_one_message_share_one_limit_of_computation():
    """The same coast is counted for each alert of the message (HD3)."""
    half = said(coast(MAX_WORK // 2 - 100))
    infos = [an_info(an_area(polygon=half), event=f"Flood {n}", severity=s) for n, s in enumerate(("Minor", "Severe"))]
    assert CapIngestHarness().taken(a_message("m", 0, (), *infos)).outcome == "published"
    infos.append(an_info(an_area(polygon=half), event="Storm", severity="Extreme"))
    assert CapIngestHarness().refused(a_message("n", 0, (), *infos)) == [("area-too-complex", "/alert/info")]


def test_zigzag_rings_are_published_without_full_search_for_crossings(monkeypatch):
    """Such a search would take minutes, and the covering shapes do not need it (HD3)."""
    asked = []
    is_valid, make_valid = shapely.is_valid, shapely.make_valid
    monkeypatch.setattr(shapely, "is_valid", lambda shape: asked.append(shape) or is_valid(shape))
    monkeypatch.setattr(shapely, "make_valid", lambda shape, **how: asked.append(shape) or make_valid(shape, **how))
    for rings in ([zigzag(9_000)], [zigzag(1_500, lng=10 + n / 2) for n in range(8)]):
        area = area_of(taken(*rings))
        assert held(area, np.vstack([np.array(ring) for ring in rings])).all()
    assert not asked


def test_ring_whose_edges_need_too_many_pieces_is_refused_as_too_complex():
    """The ring has 500 edges, each across a continent (HD3, B7)."""
    turn = np.arange(500) * 249 * 2 * math.pi / 499
    star = np.column_stack([10 + 10 * np.cos(turn), 50 + 10 * np.sin(turn)])
    body = a_message("m", 0, (), an_info(an_area(polygon=said(star))))
    assert CapIngestHarness().refused(body) == [("area-too-complex", "/alert/info/0/area/0")]


def test_jurisdiction_is_checked_before_shapes_are_merged():
    """The merged shapes may reach beyond the jurisdiction. Each requested shape outside is named (P22, HD10)."""
    towns = [coast(12, n, 15 + n // 10 * 0.2, -90 + n % 10 * 0.2, 0.05) for n in range(80)]
    corners = np.vstack([np.array(ring) for ring in towns])
    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    box = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    bounds = Bounds(jurisdiction=parse_jurisdiction(json.dumps({"type": "Polygon", "coordinates": [box]}).encode()))
    room = CapIngestHarness()
    room.taking = room.taking.with_config(PUBLIC_WARNING, room.taking.sources, Publishers({"met": bounds}))
    assert held(area_of(taken(*towns, room=room)), corners).all()
    outside_shape = coast(12, 1, south, west, 0.05)
    body = a_message(
        "n", 0, (), an_info(an_area(polygon=[said(ring) for ring in towns]), an_area(polygon=said(outside_shape)))
    )
    assert room.refused(body) == [("outside-jurisdiction", "/alert/info/0/area/1")]
