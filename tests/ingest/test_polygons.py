"""Polygons in requests: accepted ones, refused ones, and their stored form (areas.md)."""

import math

import pytest
from support.fakes import DALLAS, NOON_MS, alert_request
from support.publisher import PublisherHarness, slugs

from bench.hard_rings import zigzag
from geocast import policy
from geocast.alertlog import codec
from geocast.alertlog.sqlite import log as sqlite_log
from geocast.geometry import published_polygon
from geocast.geometry.sphere import publish_circle
from geocast.ingest.publish import Publishing
from geocast.model.alert import Circle, Polygon
from geocast.model.errors import Malformed
from geocast.model.times import format_time
from geocast.policy import Policy
from geocast.wire.requests import Invalid, parse_publication
from geocast.wire.strict_json import load_json

SQUARE = [[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.79], [-96.81, 32.77]]
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}


def polygon(ring):
    """Return a polygon in the form of a request."""
    return {"type": "Polygon", "coordinates": [ring]}


def rivers(**flood):
    """Return a policy with one category that allows polygons, and one that does not."""
    flood = {"title": "Flood", "polygons": True, "max_radius_m": 200_000} | flood
    return Policy.model_validate({"name": "p", "categories": {"flood": flood, "robbery": {"title": "Robbery"}}})


@pytest.fixture
def desk():
    """Return a publisher under a policy that allows polygons for floods."""
    return PublisherHarness(in_force=rivers())


def wavy(corners, lat=33.0):
    """Return a ring with this many corners that is not a star."""
    turn = [n * 2 * math.pi / corners for n in range(corners)]
    ring = [
        [-97 + (1 + 0.2 * math.sin(40 * t)) * math.cos(t), lat + (1 + 0.2 * math.sin(40 * t)) * math.sin(t)]
        for t in turn
    ]
    return [[round(lng, 6), round(lat, 6)] for lng, lat in [*ring, ring[0]]]


# ---- accepted polygons -----------------------------------------------------------------------------------------


def test_polygon_is_published_and_stored(desk):
    """The polygon is alone, or in a list with circles, which are published as usual (A10, A16, B7)."""
    status, entry = desk.publish(category="flood", area=polygon(SQUARE))
    assert (status, entry.alert.area) == (201, (Polygon(tuple(map(tuple, SQUARE))),))
    assert list(desk.history()) == [entry]
    _, mixed = desk.publish(id="a-2", category="flood", area=[polygon(SQUARE), CIRCLE, polygon(wavy(40))])
    square, circle, large = mixed.alert.area
    assert square == entry.alert.area[0]
    assert circle == Circle(*publish_circle(*DALLAS, 800, 9))
    assert large.buffer_m == 20.0


def test_published_polygon_can_be_requested_again(desk):
    """A ring that was published already is not changed (B7)."""
    _, entry = desk.publish(category="flood", area=polygon(wavy(200)))
    [shape] = entry.alert.area
    _, again = desk.publish(id="a-2", category="flood", area=polygon([list(corner) for corner in shape.ring]))
    assert again.alert.area[0].ring == shape.ring


@pytest.mark.parametrize("number", [[-96.81, 32], [-97, 32.5]])
def test_integer_coordinates_are_accepted(desk, number):
    """-0 is read as 0 (A16, L3)."""
    status, entry = desk.publish(category="flood", area=polygon([number, [-96, 32], [-96, 33], number]))
    assert status == 201
    assert all(type(each) is float for corner in entry.alert.area[0].ring for each in corner)


# ---- refused polygons ------------------------------------------------------------------------------------------


def ring_with(position):
    """Return the coordinates of a square with one position replaced."""
    return [[SQUARE[0], position, *SQUARE[2:]]]


@pytest.mark.parametrize(
    "coordinates",
    [
        None,
        "ring",
        [],
        [[]],
        SQUARE,
        [SQUARE, [[-96.8, 32.78], [-96.79, 32.78], [-96.79, 32.785], [-96.8, 32.78]]],
        [SQUARE[:3]],
        [SQUARE[:4]],
        [[*SQUARE[:4], [-96.81, 32.770001]]],
        [[SQUARE[0]] * 2_501],
        [[SQUARE[0]] * 4],
        ring_with([-96.78, 32.77, 120.0]),
        ring_with([-96.78]),
        ring_with({"lng": -96.78, "lat": 32.77}),
        ring_with(["-96.78", "32.77"]),
        ring_with([True, 32.77]),
        ring_with([None, 32.77]),
        ring_with([32.77, -96.78]),
        ring_with([-180.1, 32.77]),
        ring_with([10**400, 32.77]),
        [[SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]],
        [[[-90, 0], [90, 0], [0, 50], [-90, 0]]],
        [[[-80, -60], [80, -60], [80, 60], [-80, 60], [-80, -60]]],
        [[[0, 0], [1, 1], [2, 2], [1, 1], [0, 0]]],
    ],
    ids=range(24),
)
def test_invalid_ring_is_refused_with_pointer_to_coordinates(desk, coordinates):
    """The error has one violation, which contains no coordinates (A16, A17, A18, A19)."""
    for area, pointer in ((None, "/area/coordinates"), (CIRCLE, "/area/1/coordinates")):
        shape = {"type": "Polygon", "coordinates": coordinates}
        answer = desk.publish(category="flood", area=[area, shape] if area else shape)
        assert slugs(answer) == (422, "invalid-value", [("invalid-value", pointer)])
        [violation] = answer[1].violations
        assert violation.detail.startswith("must ")
        assert not any(figure in violation.detail for figure in ("96.", "32.", "0.00"))
    assert list(desk.history()) == []


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"type": "Polygon"}, [("missing-field", "/area/coordinates")]),
        (polygon(SQUARE) | {"buffer_m": 20}, [("unknown-field", "/area/buffer_m")]),
        (polygon(SQUARE) | {"bbox": [0, 0, 1, 1]}, [("unknown-field", "/area/bbox")]),
        ({"type": "polygon", "coordinates": [SQUARE]}, [("invalid-value", "/area/type")]),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE]]}, [("invalid-value", "/area/type")]),
        ({"type": "Feature", "geometry": polygon(SQUARE)}, [("invalid-value", "/area/type")]),
    ],
)
def test_shape_with_unknown_field_or_type_is_refused(desk, shape, expected):
    """If the type is unknown, the error about the type comes first (A16)."""
    _, _, found = slugs(desk.publish(category="flood", area=shape))
    assert found[:1] == expected


def test_error_for_unknown_shape_type_names_accepted_types(desk):
    """A MultiPolygon is not reported as a circle without its fields (A16)."""
    _, problem = desk.publish(category="flood", area={"type": "MultiPolygon", "coordinates": [[SQUARE]]})
    assert problem.violations[0].detail == "must be circle or Polygon"


def test_nan_and_infinity_are_refused():
    """JSON has no such numbers (L1)."""
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        with pytest.raises(Malformed):
            load_json(b'{"area":{"type":"Polygon","coordinates":[[[' + number + b",0]]]}}")


# ---- rules of the policy ---------------------------------------------------------------------------------------


def test_polygon_is_refused_unless_category_allows_polygons(desk):
    """The error points to the type of each polygon, even in a dry run (B6, P11)."""
    expected = [("shape-not-allowed", "/area/0/type"), ("shape-not-allowed", "/area/2/type")]
    area = [polygon(SQUARE), CIRCLE, polygon(SQUARE)]
    for dry_run in (False, True):
        assert slugs(desk.publish(area=area, dry_run=dry_run)) == (422, "shape-not-allowed", expected)


def test_built_in_policy_allows_no_polygons():
    """The categories of this policy are for incidents at an address (B6)."""
    assert not any(category.polygons for category in policy.load(None).categories.values())


@pytest.mark.parametrize("ring", [[[-97, 33], [-96.9999, 33], [-96.9999, 33.0001], [-97, 33]], wavy(40)])
def test_polygon_size_has_same_limits_as_radius(ring):
    """The size is the distance from the middle to the farthest corner. The error has the limits (P7)."""
    answer = PublisherHarness(in_force=rivers(max_radius_m=50_000)).publish(category="flood", area=polygon(ring))
    assert slugs(answer) == (422, "radius-out-of-range", [("radius-out-of-range", "/area/coordinates")])
    assert answer[1].violations[0].detail == "must be 100 to 50000 m from its middle to a corner"


def test_area_with_too_many_corners_is_refused_unless_it_may_be_simplified():
    """The error points to the area, since all its polygons count together (P12, B8)."""
    area = [polygon(wavy(300)), polygon(wavy(300, 40.0))]
    answer = PublisherHarness(in_force=rivers()).publish(category="flood", area=area)
    assert slugs(answer) == (422, "area-too-complex", [("area-too-complex", "/area")])
    [violation] = answer[1].violations
    assert violation.detail == "must have at most 500 corners as published"
    assert violation.members == {"max_corners": 500}
    status, entry = PublisherHarness(in_force=rivers(simplify_m=2_000)).publish(category="flood", area=area)
    assert status == 201
    assert sum(len(shape.ring) - 1 for shape in entry.alert.area) <= 500


def test_violations_of_policy_are_listed_with_invalid_fields(desk):
    """Invalid rings are not checked by the policy, but valid ones are (P9)."""
    area = [polygon(SQUARE[:3]), polygon(SQUARE)]
    assert slugs(desk.publish(headline="", area=area))[2] == [
        ("invalid-value", "/headline"),
        ("invalid-value", "/area/0/coordinates"),
        ("shape-not-allowed", "/area/1/type"),
    ]


def test_ring_that_takes_too_long_to_check_is_too_complex(desk):
    """The ring turns back and forth 2,400 times, and the error gives this reason (HD3, P12)."""
    answer = desk.publish(category="flood", area=polygon([list(corner) for corner in zigzag(2_400, 0.28)]))
    assert slugs(answer) == (422, "area-too-complex", [("area-too-complex", "/area")])
    assert "turn back fewer times" in answer[1].violations[0].detail


# ---- computations in threads -----------------------------------------------------------------------------------


class CountingRunner:
    """A runner that counts its calls. Unlike the real one, it runs the work at once, and in no thread."""

    def __init__(self):
        self.calls = 0

    async def __call__(self, work, _subject):
        self.calls += 1
        return work()


def test_requests_with_polygons_run_in_thread():
    """The thread parses, splits and simplifies polygons.

    Requests with circles only never wait for a thread. A refused request uses a thread twice: for parsing, and for
    checking the rules of the policy (HD3).
    """
    desk, runner = PublisherHarness(), CountingRunner()
    desk.publishing = Publishing(desk.log, rivers(simplify_m=2_000), desk.clock, run_in_thread=runner)
    assert desk.publish(category="flood", area=[CIRCLE])[0] == 201
    assert desk.cancel()[0] == 201
    assert runner.calls == 0
    for n, area in enumerate((polygon(wavy(700)), [CIRCLE, polygon(SQUARE)])):
        assert desk.publish(id=f"b-{n}", category="flood", area=area)[0] == 201
    assert slugs(desk.revise(2, alert_id="b-0", category="flood", area=polygon(SQUARE[:2])))[1] == "invalid-value"
    assert runner.calls == 4


def test_polygon_is_simplified_only_once_per_request(monkeypatch):
    """The policy and the answer use the same published polygons (B8)."""
    request = parse_publication(alert_request(category="flood", area=polygon(wavy(700))))
    request.precompute(2_000)
    monkeypatch.setattr(published_polygon, "corner_depths", None)
    assert rivers(simplify_m=2_000).violations(request.facts(), NOON_MS) == []
    assert len(request.accept(rivers(simplify_m=2_000).categories["flood"].terms(), None).area) == 1


def test_largest_polygons_fit_into_log_entry():
    """The largest area with the longest texts is smaller than the probe of the disk (`alertlog.sqlite`)."""
    desk = PublisherHarness(in_force=rivers(simplify_m=5_000))
    texts = {"headline": "\U0001f30a" * 140, "description": "\U0001f30a" * 1_000, "id": "a" * 128}
    _, entry = desk.publish(category="flood", area=[polygon(wavy(480)), *[CIRCLE] * 15], **texts)
    assert 10_000 < len(codec.encode(entry)) < len(sqlite_log._PROBE)


# ---- repeats and revisions ---------------------------------------------------------------------------------------


def test_repeated_request_with_polygon_gets_first_answer_after_policy_change(desk):
    """The tolerance of the stored revision is used, even if the new policy allows no polygons (B8, H5)."""
    desk.use(rivers(simplify_m=2_000))
    area = polygon(wavy(700))
    status, entry = desk.publish(category="flood", area=area)
    assert (status, entry.terms.simplify_m) == (201, 2_000)
    for changed in (rivers(), rivers(simplify_m=5_000), rivers(polygons=False)):
        desk.use(changed)
        assert desk.publish(category="flood", area=area) == (200, entry)
    assert slugs(desk.publish(category="flood", area=polygon(wavy(699))))[1] == "id-conflict"


def test_ring_in_other_direction_or_with_other_digits_counts_as_repeat(desk):
    """The content is the same if the published area is the same (H5)."""
    _, entry = desk.publish(category="flood", area=polygon(SQUARE))
    assert desk.publish(category="flood", area=[polygon(SQUARE[::-1])]) == (200, entry)
    nearly = [[lng + 1e-8, lat] for lng, lat in SQUARE]
    assert desk.publish(category="flood", area=polygon(nearly)) == (200, entry)


def test_revision_can_change_circle_to_polygon_and_back(desk):
    """Each circle keeps its centre by its order among the circles, whatever polygons are in between (B11)."""
    _, first = desk.publish(category="flood", area=CIRCLE)
    _, second = desk.revise(2, category="flood", area=[polygon(SQUARE), CIRCLE])
    _, third = desk.revise(3, category="flood", area=polygon(SQUARE))
    assert second.alert.area[1:] == first.alert.area
    assert third.alert.area == second.alert.area[:1]


def test_dry_run_answers_with_published_polygon(desk):
    """The answer has the polygon with split edges and its buffer, and nothing is stored."""
    status, entry = desk.publish(category="flood", area=polygon(wavy(100)), dry_run=True)
    assert (status, entry.alert.area[0].buffer_m) == (200, 20.0)
    assert list(desk.history()) == []


# ---- the default expiry ------------------------------------------------------------------------------------------


def test_default_expiry_can_be_shorter_than_maximum():
    """`default_age_s` is `max_age_s` if the policy does not set it (A9)."""
    desk = PublisherHarness(in_force=rivers(max_age_s=7_200, default_age_s=1_800))
    _, entry = desk.publish(category="flood", area=CIRCLE, expires_at=...)
    assert entry.alert.expires_at == entry.alert.occurred_at + 1_800_000
    assert rivers(max_age_s=7_200).categories["flood"].default_age_s == 7_200


def test_request_with_past_default_expiry_is_refused_and_later_expiry_accepted():
    """The error points to `expires_at`.

    If no expiry is possible any more, the alert is reported as stale instead (P6, A9).
    """
    desk = PublisherHarness(in_force=rivers(max_age_s=7_200, default_age_s=600))
    at = format_time(NOON_MS - 900_000)
    answer = desk.publish(category="flood", area=CIRCLE, occurred_at=at, expires_at=...)
    assert slugs(answer)[2] == [("expiry-out-of-range", "/expires_at")]
    assert desk.publish(category="flood", area=CIRCLE)[0] == 201
    assert slugs(desk.revise(category="flood", area=CIRCLE, expires_at=...))[2] == [
        ("expiry-out-of-range", "/expires_at")
    ]
    old = format_time(NOON_MS - 8_000_000)
    answer = desk.publish(id="a-2", category="flood", area=CIRCLE, occurred_at=old, expires_at=...)
    assert slugs(answer)[2] == [("stale", "/occurred_at")]
    answer = desk.publish(id="a-2", category="flood", area=CIRCLE, occurred_at=at, expires_at="soon")
    assert slugs(answer)[2] == [("invalid-value", "/expires_at")]


def test_parsed_request_contains_its_polygons_and_17_shapes_are_refused():
    """An area may have 16 shapes (A16)."""
    request = parse_publication(alert_request(area=polygon(SQUARE)))
    assert request.facts().polygons[0][0] == "/area"
    with pytest.raises(Invalid):
        parse_publication(alert_request(area=[polygon(SQUARE)] * 17))
