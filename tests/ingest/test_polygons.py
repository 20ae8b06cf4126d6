"""Polygons at the door: what is asked for, what is refused and how, what is stored (docs/areas.md)."""

import math

import pytest
from support.fakes import DALLAS, NOON_MS, alert_request
from support.publisher import PublisherHarness, slugs

from bench.hard_rings import zigzag
from geocast import policy
from geocast.alertlog import codec, sqlite
from geocast.clock import format_time
from geocast.errors import Malformed
from geocast.geometry import published_polygon
from geocast.geometry.sphere import publish_circle
from geocast.ingest.publish import Publishing
from geocast.model.alert import Circle, Polygon
from geocast.policy import Policy
from geocast.wire.requests import Invalid, parse_publication
from geocast.wire.strict_json import load_json

SQUARE = [[-96.81, 32.77], [-96.78, 32.77], [-96.78, 32.79], [-96.81, 32.79], [-96.81, 32.77]]
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}


def polygon(ring):
    """A polygon as it is asked for."""
    return {"type": "Polygon", "coordinates": [ring]}


def rivers(**flood):
    """A policy with a category that takes polygons, and one that does not."""
    flood = {"title": "Flood", "polygons": True, "max_radius_m": 200_000} | flood
    return Policy.model_validate({"name": "p", "categories": {"flood": flood, "robbery": {"title": "Robbery"}}})


@pytest.fixture
def desk():
    """A desk where floods may have polygons."""
    return PublisherHarness(in_force=rivers())


def wavy(corners, lat=33.0):
    """A ring with as many corners, that is no star."""
    turn = [n * 2 * math.pi / corners for n in range(corners)]
    ring = [
        [-97 + (1 + 0.2 * math.sin(40 * t)) * math.cos(t), lat + (1 + 0.2 * math.sin(40 * t)) * math.sin(t)]
        for t in turn
    ]
    return [[round(lng, 6), round(lat, 6)] for lng, lat in [*ring, ring[0]]]


# ---- what is taken ---------------------------------------------------------------------------------------------


def test_a_polygon_is_published_and_stored(desk):
    """A10, A16, B7: alone or in a list, with circles beside it; circles are published as ever."""
    status, entry = desk.publish(category="flood", area=polygon(SQUARE))
    assert (status, entry.alert.area) == (201, (Polygon(tuple(map(tuple, SQUARE))),))
    assert list(desk.history()) == [entry]
    _, mixed = desk.publish(id="a-2", category="flood", area=[polygon(SQUARE), CIRCLE, polygon(wavy(40))])
    square, circle, large = mixed.alert.area
    assert square == entry.alert.area[0]
    assert circle == Circle(*publish_circle(*DALLAS, 800, 9))
    assert large.buffer_m == 20.0


def test_what_is_published_can_be_asked_for_again(desk):
    """B7: a ring of arcs that is asked for stays what it is."""
    _, entry = desk.publish(category="flood", area=polygon(wavy(200)))
    [shape] = entry.alert.area
    _, again = desk.publish(id="a-2", category="flood", area=polygon([list(corner) for corner in shape.ring]))
    assert again.alert.area[0].ring == shape.ring


@pytest.mark.parametrize("number", [[-96.81, 32], [-97, 32.5]])
def test_integers_are_numbers(desk, number):
    """A16, L3: and -0 is 0."""
    status, entry = desk.publish(category="flood", area=polygon([number, [-96, 32], [-96, 33], number]))
    assert status == 201
    assert all(type(each) is float for corner in entry.alert.area[0].ring for each in corner)


# ---- what is refused -------------------------------------------------------------------------------------------


def ring_with(position):
    """The coordinates of a square of which one position is another."""
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
def test_what_is_no_ring_is_refused_at_its_coordinates(desk, coordinates):
    """A16, A17, A18, A19: one violation, which names no position; nothing else is said to be wrong."""
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
def test_it_has_no_other_member_and_no_other_type(desk, shape, expected):
    """A16: a shape of another type is refused there first."""
    _, _, found = slugs(desk.publish(category="flood", area=shape))
    assert found[:1] == expected


def test_the_type_that_is_refused_is_told_what_would_do(desk):
    """A16: whoever sends a MultiPolygon is not told that a circle's fields are missing and nothing else."""
    _, problem = desk.publish(category="flood", area={"type": "MultiPolygon", "coordinates": [[SQUARE]]})
    assert problem.violations[0].detail == "must be circle or Polygon"


def test_numbers_that_json_does_not_have_come_no_further():
    """L1: NaN and Infinity are no JSON."""
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        with pytest.raises(Malformed):
            load_json(b'{"area":{"type":"Polygon","coordinates":[[[' + number + b",0]]]}}")


# ---- the policy ------------------------------------------------------------------------------------------------


def test_a_category_takes_polygons_only_if_the_policy_says_so(desk):
    """B6, P11: the pointer is that of each shape's type; a dry run is told the same."""
    expected = [("shape-not-allowed", "/area/0/type"), ("shape-not-allowed", "/area/2/type")]
    area = [polygon(SQUARE), CIRCLE, polygon(SQUARE)]
    for dry_run in (False, True):
        assert slugs(desk.publish(area=area, dry_run=dry_run)) == (422, "shape-not-allowed", expected)


def test_the_built_in_policy_takes_none():
    """B6: what it lists happens at an address."""
    assert not any(category.polygons for category in policy.load(None).categories.values())


@pytest.mark.parametrize("ring", [[[-97, 33], [-96.9999, 33], [-96.9999, 33.0001], [-97, 33]], wavy(40)])
def test_its_size_has_bounds_as_a_radius_has(ring):
    """P7: from its middle to its farthest corner; at the coordinates, with the bounds."""
    answer = PublisherHarness(in_force=rivers(max_radius_m=50_000)).publish(category="flood", area=polygon(ring))
    assert slugs(answer) == (422, "radius-out-of-range", [("radius-out-of-range", "/area/coordinates")])
    assert answer[1].violations[0].detail == "must be 100 to 50000 m from its middle to a corner"


def test_an_area_of_too_many_corners_is_refused_unless_it_may_be_simplified():
    """P12, B8: the pointer is the area's, for all of its polygons count."""
    area = [polygon(wavy(300)), polygon(wavy(300, 40.0))]
    answer = PublisherHarness(in_force=rivers()).publish(category="flood", area=area)
    assert slugs(answer) == (422, "area-too-complex", [("area-too-complex", "/area")])
    assert answer[1].violations[0].detail == "must have at most 500 corners as published"
    status, entry = PublisherHarness(in_force=rivers(simplify_m=2_000)).publish(category="flood", area=area)
    assert status == 201
    assert sum(len(shape.ring) - 1 for shape in entry.alert.area) <= 500


def test_the_rules_of_the_policy_are_judged_beside_broken_fields(desk):
    """P9: what is no ring is judged by none, the others are."""
    area = [polygon(SQUARE[:3]), polygon(SQUARE)]
    assert slugs(desk.publish(headline="", area=area))[2] == [
        ("invalid-value", "/headline"),
        ("invalid-value", "/area/0/coordinates"),
        ("shape-not-allowed", "/area/1/type"),
    ]


def test_ring_that_takes_too_long_to_judge_is_too_complex(desk):
    """HD3, P12: 2,400 edges beside each other, split into two arcs each; it is said why."""
    answer = desk.publish(category="flood", area=polygon([list(corner) for corner in zigzag(2_400, 0.28)]))
    assert slugs(answer) == (422, "area-too-complex", [("area-too-complex", "/area")])
    assert "turn back fewer times" in answer[1].violations[0].detail


# ---- where the work is done ------------------------------------------------------------------------------------


class CountingRunner:
    """A runner of work that counts it. Lies: it runs the work at once, not in a thread."""

    def __init__(self):
        self.calls = 0

    async def __call__(self, work, _subject):
        self.calls += 1
        return work()


def test_requests_with_polygons_are_worked_on_in_a_thread():
    """`publish.RunInThread`: read, split and simplified; those with circles alone are not, and never wait for a thread.

    One that is refused is worked on twice: it is read, and what the policy has against it is found (HD3).
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


def test_what_has_been_worked_out_is_not_worked_out_again(monkeypatch):
    """B8: the policy and the answer ask for the same polygons."""
    request = parse_publication(alert_request(category="flood", area=polygon(wavy(700))))
    request.precompute(2_000)
    monkeypatch.setattr(published_polygon, "corner_depths", None)
    assert rivers(simplify_m=2_000).violations(request.facts(), NOON_MS) == []
    assert len(request.accept(rivers(simplify_m=2_000).categories["flood"].terms(), None).area) == 1


def test_an_entry_takes_no_more_room_than_the_log_tries_for():
    """`alertlog.sqlite`: as large as an area and texts can be, it is smaller than the probe of the disk."""
    desk = PublisherHarness(in_force=rivers(simplify_m=5_000))
    texts = {"headline": "\U0001f30a" * 140, "description": "\U0001f30a" * 1_000, "id": "a" * 128}
    _, entry = desk.publish(category="flood", area=[polygon(wavy(480)), *[CIRCLE] * 15], **texts)
    assert 10_000 < len(codec.encode(entry)) < len(sqlite._PROBE)


# ---- repeats and revisions ---------------------------------------------------------------------------------------


def test_a_repeated_request_gets_the_first_answer_whatever_the_policy_says_by_then(desk):
    """B8, H5: the tolerance of then is kept; a policy that takes no polygons any more changes nothing."""
    desk.use(rivers(simplify_m=2_000))
    area = polygon(wavy(700))
    status, entry = desk.publish(category="flood", area=area)
    assert (status, entry.terms.simplify_m) == (201, 2_000)
    for changed in (rivers(), rivers(simplify_m=5_000), rivers(polygons=False)):
        desk.use(changed)
        assert desk.publish(category="flood", area=area) == (200, entry)
    assert slugs(desk.publish(category="flood", area=polygon(wavy(699))))[1] == "id-conflict"


def test_the_direction_and_the_digits_of_a_request_do_not_count(desk):
    """H5: the same content is the same area as published."""
    _, entry = desk.publish(category="flood", area=polygon(SQUARE))
    assert desk.publish(category="flood", area=[polygon(SQUARE[::-1])]) == (200, entry)
    nearly = [[lng + 1e-8, lat] for lng, lat in SQUARE]
    assert desk.publish(category="flood", area=polygon(nearly)) == (200, entry)


def test_a_revision_may_turn_a_circle_into_a_polygon_and_back(desk):
    """B11: circles keep their centres by their order among circles; polygons between them move nothing."""
    _, first = desk.publish(category="flood", area=CIRCLE)
    _, second = desk.revise(2, category="flood", area=[polygon(SQUARE), CIRCLE])
    _, third = desk.revise(3, category="flood", area=polygon(SQUARE))
    assert second.alert.area[1:] == first.alert.area
    assert third.alert.area == second.alert.area[:1]


def test_a_dry_run_says_what_would_be_published(desk):
    """A dry run of a polygon: the split ring with its buffer, and nothing is stored."""
    status, entry = desk.publish(category="flood", area=polygon(wavy(100)), dry_run=True)
    assert (status, entry.alert.area[0].buffer_m) == (200, 20.0)
    assert list(desk.history()) == []


# ---- the life of an alert that says nothing of it ----------------------------------------------------------------


def test_an_alert_may_live_shorter_by_default_than_it_may_at_most():
    """A9: `default_age_s`; by default it is `max_age_s`."""
    desk = PublisherHarness(in_force=rivers(max_age_s=7_200, default_age_s=1_800))
    _, entry = desk.publish(category="flood", area=CIRCLE, expires_at=...)
    assert entry.alert.expires_at == entry.alert.occurred_at + 1_800_000
    assert rivers(max_age_s=7_200).categories["flood"].default_age_s == 7_200


def test_a_default_that_is_over_is_refused_where_another_expiry_would_do():
    """P6, A9: at `expires_at`, for new alerts and revisions; if none would do, that alone is said."""
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


def test_a_requested_polygon_is_read_but_once():
    """A16: parsing gives the outline that is published."""
    request = parse_publication(alert_request(area=polygon(SQUARE)))
    assert request.facts().polygons[0][0] == "/area"
    with pytest.raises(Invalid):
        parse_publication(alert_request(area=[polygon(SQUARE)] * 17))
