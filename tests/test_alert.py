"""Parsing is the only way in: each field's limits, where an error points to, and what is left of the exact place."""

import copy
import dataclasses
import gc
import math
import pickle

import pytest
from fakes import DALLAS, HOUR_MS, NOON_MS, a_cancel, a_revision, alert_request
from hypothesis import given, settings
from hypothesis import strategies as st

from geocast.alert import (
    MAX_INTEGER,
    SEVERITIES,
    SEVERITY_RANK,
    Alert,
    Approval,
    Circle,
    Claims,
    Invalid,
    Revision,
    Terms,
    is_id,
    parse_cancellation,
    parse_publication,
    parse_revision,
)
from geocast.cells import cell_of, cell_place, distance_m
from geocast.clock import format_time

TERMS = Terms("Robbery", HOUR_MS, 9)
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}
APPROVAL = {"reviewer": "desk-7", "approved_at": "2026-01-31T11:59:00Z"}
CANCEL = {"revision": 2, "reason": "over", "approval": APPROVAL}
SECRET = 31.4159265  # a value that no error may repeat


def refusals(parse, *arguments):
    """What `parse` says is broken: [(slug, pointer), …]; nothing if it takes it."""
    try:
        parse(*arguments)
    except Invalid as invalid:
        return [(v.slug, v.pointer) for v in invalid.violations]
    return []


def refusals_of(**changes):
    """What is broken of a publication with these fields changed."""
    return refusals(parse_publication, alert_request(**changes))


def accepted(terms=TERMS, **changes):
    """The alert that a request with these fields changed is accepted as."""
    return parse_publication(alert_request(**changes)).accept(terms, None)


# ---- what is taken -------------------------------------------------------------------------------------------


def test_a_request_is_read_field_by_field():
    """A1 to A11: every field of the table."""
    request = parse_publication(alert_request())
    assert (request.id, request.category, request.severity) == ("a-1", "robbery", "severe")
    assert request.headline == "Robbery at a shop"
    assert request.description == "Two people on foot.\nAvoid the area."
    assert (request.status, request.threat) == ("actual", "community")
    assert (request.occurred_at, request.expires_at) == (NOON_MS - 600_000, NOON_MS + 1_800_000)
    assert request.approval == Approval("desk-7", NOON_MS - 60_000)
    assert request.revision == 1


def test_what_may_be_left_out_has_its_default():
    """A4, A6, A9: `status` is actual, `expires_at` is `occurred_at` + `max_age_s`, no `description`."""
    alert = accepted(status=..., expires_at=..., description=...)
    assert (alert.status, alert.expires_at, alert.description) == ("actual", alert.occurred_at + HOUR_MS, None)


def test_a_default_that_is_written_out_is_the_same_content():
    """H5: defaults filled in, times in UTC milliseconds, numbers by value."""
    written_out = accepted(
        status="actual",
        occurred_at="2026-01-31T12:50:00.0009+01:00",
        expires_at="2026-01-31T12:50:00Z",
        area=[CIRCLE | {"radius_m": 800.0}],
    )
    assert written_out == accepted(status=..., expires_at=...)


def test_an_empty_description_is_not_the_same_as_none():
    """Section 2: `description` is left out when not given; an empty one was given."""
    assert accepted(description="").description == ""
    assert accepted(description="") != accepted(description=...)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "a"},
        {"id": "A" * 128},
        {"id": "0._:-"},
        {"category": "no_such_category"},
        {"category": ""},
        {"headline": "x"},
        {"headline": "x" * 140},
        {"headline": "😀" * 140},
        {"headline": " x "},
        {"description": ""},
        {"description": "é" * 1000},
        {"description": "a\nb"},
        {"severity": "extreme"},
        {"severity": "minor"},
        {"status": "exercise"},
        {"status": "test"},
        {"threat": "individual"},
        {"occurred_at": "1970-01-01T00:00:00Z"},
        {"area": [CIRCLE]},
        {"area": [CIRCLE] * 16},
        {"area": CIRCLE | {"lat": 90, "lng": 180}},
        {"area": CIRCLE | {"lat": -90.0, "lng": -180.0}},
        {"area": CIRCLE | {"lat": -0.0, "lng": 0}},
        {"area": CIRCLE | {"radius_m": 5e-324}},
        {"area": CIRCLE | {"radius_m": 1e300}},
        {"approval": APPROVAL | {"reviewer": "x"}},
        {"approval": APPROVAL | {"reviewer": "x" * 128}},
    ],
    ids=str,
)
def test_values_at_the_limits_are_taken(changes):
    """A1 to A11, L5, L6: bounds are inclusive, lengths count code points."""
    assert refusals_of(**changes) == []


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    ["id", "category", "headline", "severity", "threat", "occurred_at", "area", "approval"],
)
def test_a_needed_field_is_missed(field):
    """A1 to A11: column "needed"; H8: `missing-field` with a pointer to it."""
    assert refusals_of(**{field: ...}) == [("missing-field", f"/{field}")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "-a"),
        ("id", ".a"),
        ("id", "a" * 129),
        ("id", "a b"),
        ("id", "a/b"),
        ("id", "ä"),
        ("id", "a\n"),
        ("id", "\na"),
        ("id", 1),
        ("id", None),
        ("category", None),
        ("category", 5),
        ("category", ["robbery"]),
        ("category", "rob\x00bery"),
        ("category", "\ud800"),
        ("headline", ""),
        ("headline", " "),
        ("headline", "\u2003\u00a0"),
        ("headline", "x" * 141),
        ("headline", "a\nb"),
        ("headline", "a\tb"),
        ("headline", "a\x7fb"),
        ("headline", "a\x85b"),
        ("headline", "a\x9fb"),
        ("headline", "\ud83d"),
        ("headline", None),
        ("headline", True),
        ("description", "x" * 1001),
        ("description", "a\rb"),
        ("description", "a\x00"),
        ("description", "a\x80"),
        ("description", "\udfff"),
        ("description", None),
        ("description", 1),
        ("severity", "Extreme"),
        ("severity", "unknown"),
        ("severity", 3),
        ("severity", None),
        ("status", "Actual"),
        ("status", "draft"),
        ("status", None),
        ("threat", "both"),
        ("threat", None),
        ("threat", []),
        ("occurred_at", "yesterday"),
        ("occurred_at", 1_769_860_800),
        ("occurred_at", None),
        ("expires_at", "2026-01-31T12:30:60Z"),
        ("expires_at", None),
        ("area", []),
        ("area", [CIRCLE] * 17),
        ("area", None),
        ("area", "circle"),
        ("area", 5),
        ("approval", None),
        ("approval", "desk-7"),
        ("approval", []),
    ],
)
def test_a_value_outside_its_range_or_grammar_is_refused(field, value):
    """A1 to A11, L2 to L7: `invalid-value` with a pointer to the field."""
    assert refusals_of(**{field: value}) == [("invalid-value", f"/{field}")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lat", 90.0000001),
        ("lat", -91),
        ("lat", math.inf),
        ("lat", "32.7"),
        ("lat", True),
        ("lat", None),
        ("lat", [1]),
        ("lng", 180.0000001),
        ("lng", -181),
        ("lng", -math.inf),
        ("lng", False),
        ("radius_m", 0),
        ("radius_m", -0.0),
        ("radius_m", -1),
        ("radius_m", math.inf),
        ("radius_m", 10**399),
        ("radius_m", "800"),
        ("radius_m", True),
        ("type", "Circle"),
        ("type", "polygon"),
        ("type", None),
    ],
)
def test_a_value_inside_a_shape_is_pointed_to(field, value):
    """H8: the pointer has the shape's index if, and only if, `area` was sent as a list."""
    assert refusals_of(area=CIRCLE | {field: value}) == [("invalid-value", f"/area/{field}")]
    assert refusals_of(area=[CIRCLE, CIRCLE | {field: value}]) == [("invalid-value", f"/area/1/{field}")]


@pytest.mark.parametrize("field", ["type", "lat", "lng", "radius_m"])
def test_a_shape_needs_all_its_fields(field):
    """A10: a circle is type, lat, lng and radius_m."""
    shape = {name: value for name, value in CIRCLE.items() if name != field}
    assert refusals_of(area=shape) == [("missing-field", f"/area/{field}")]
    assert refusals_of(area=[shape]) == [("missing-field", f"/area/0/{field}")]


def test_each_item_of_a_list_has_to_be_a_shape():
    """A10: a list of 1 to 16 shapes, not a list of lists."""
    assert refusals_of(area=[CIRCLE, [CIRCLE], None]) == [("invalid-value", "/area/1"), ("invalid-value", "/area/2")]


@pytest.mark.parametrize(
    ("approval", "expected"),
    [
        ({}, [("missing-field", "/approval/reviewer"), ("missing-field", "/approval/approved_at")]),
        (APPROVAL | {"reviewer": ""}, [("invalid-value", "/approval/reviewer")]),
        (APPROVAL | {"reviewer": "x" * 129}, [("invalid-value", "/approval/reviewer")]),
        (APPROVAL | {"reviewer": "a\nb"}, [("invalid-value", "/approval/reviewer")]),
        (APPROVAL | {"reviewer": "\ud800"}, [("invalid-value", "/approval/reviewer")]),
        (APPROVAL | {"approved_at": 5}, [("invalid-value", "/approval/approved_at")]),
        (APPROVAL | {"note": "x"}, [("unknown-field", "/approval/note")]),
    ],
)
def test_an_approval_says_who_and_when(approval, expected):
    """A11: reviewer of 1 to 128 characters, and approved_at."""
    assert refusals_of(approval=approval) == expected


@pytest.mark.parametrize("field", ["caller", "phone", "address", "units", "source", "revision", "issued_at", "title"])
def test_a_field_that_is_not_in_the_table_is_refused(field):
    """Section 2: nobody can slip in what there is no field for."""
    assert refusals_of(**{field: "x"}) == [("unknown-field", f"/{field}")]


@pytest.mark.parametrize(
    "name",
    ["555 0100", "call_5550100", "x" * 41, "Main Street", "", "né", "a/b", "a~b", "123", "a\n"],
)
def test_an_unknown_field_with_a_telling_name_is_not_named(name):
    """H9: such a pointer stops at the parent."""
    assert refusals_of(**{name: "x"}) == [("unknown-field", "")]
    assert refusals_of(area=CIRCLE | {name: 1}) == [("unknown-field", "/area")]
    assert refusals_of(area=[CIRCLE | {name: 1}]) == [("unknown-field", "/area/0")]
    assert refusals_of(approval=APPROVAL | {name: 1}) == [("unknown-field", "/approval")]


@pytest.mark.parametrize("name", ["one shape", "list of shapes"])
def test_an_unknown_field_may_be_called_what_a_union_calls_its_kinds(name):
    """H9: it is not named, as it has a blank, and what it is in is."""
    assert refusals_of(**{name: "x"}) == [("unknown-field", "")]
    assert refusals_of(area=CIRCLE | {name: 1}) == [("unknown-field", "/area")]


def test_a_name_that_is_no_text_is_refused_unnamed():
    """L2: a lone surrogate is a 422, in a name too."""
    assert [pointer for _, pointer in refusals_of(**{"\ud800": "x"})] == [""]


@pytest.mark.parametrize("name", ["x" * 40, "_", "A1b22", "12"])
def test_an_unknown_field_with_a_harmless_name_is_named(name):
    """H9: `[A-Za-z0-9_]{1,40}` without three digits in a row."""
    assert refusals_of(**{name: "x"}) == [("unknown-field", f"/{name}")]


def test_every_broken_field_is_listed_in_the_order_of_the_table():
    """H8: one for each broken field, in the order of section 2's table; unknown ones last."""
    body = {
        "zebra": 1,
        "approval": {"approved_at": 1, "extra": 1},
        "area": [{"type": "circle", "lat": 91, "radius_m": 0}],
        "expires_at": 1,
        "occurred_at": 1,
        "threat": 1,
        "status": 1,
        "severity": 1,
        "description": 1,
        "headline": "",
    }
    assert refusals(parse_publication, body) == [
        ("missing-field", "/id"),
        ("missing-field", "/category"),
        ("invalid-value", "/headline"),
        ("invalid-value", "/description"),
        ("invalid-value", "/severity"),
        ("invalid-value", "/status"),
        ("invalid-value", "/threat"),
        ("invalid-value", "/occurred_at"),
        ("invalid-value", "/expires_at"),
        ("invalid-value", "/area/0/lat"),
        ("missing-field", "/area/0/lng"),
        ("invalid-value", "/area/0/radius_m"),
        ("missing-field", "/approval/reviewer"),
        ("invalid-value", "/approval/approved_at"),
        ("unknown-field", "/approval/extra"),
        ("unknown-field", "/zebra"),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"area": CIRCLE | {"lat": f"{SECRET}"}},
        {"area": CIRCLE | {"lat": SECRET, "lng": 1000 + SECRET}},
        {"area": [CIRCLE | {"lat": [SECRET]}]},
        {"area": {"type": f"{SECRET}"}},
        {"area": f"{SECRET}"},
        {"headline": f"{SECRET}\n"},
        {"severity": f"{SECRET}"},
        {"id": f"{SECRET} "},
        {"occurred_at": f"{SECRET}"},
        {f"{SECRET}": 1},
        {"approval": {f"{SECRET}": SECRET}},
    ],
    ids=str,
)
def test_no_error_repeats_a_refused_value(changes):
    """H9: neither detail nor pointer, nor the exception as it may get into a log."""
    with pytest.raises(Invalid) as caught:
        parse_publication(alert_request(**changes))
    said = [str(caught.value), repr(caught.value.violations), repr(caught.value)]
    assert not any("31.4159" in text for text in said)
    assert caught.value.__suppress_context__


# ---- revisions and cancels -----------------------------------------------------------------------------------


def test_a_revision_takes_its_id_from_the_path():
    """Section 4, revisions: `id` optional; the body has `revision`."""
    for body in (alert_request(id=..., revision=2), alert_request(id="a-1", revision=2)):
        request = parse_revision(body, "a-1")
        assert (request.id, request.revision) == ("a-1", 2)


@pytest.mark.parametrize("number", [0, -1, MAX_INTEGER + 1, 10**400, 2.0, "2", True, None])
def test_a_revision_number_is_an_integer_within_bounds(number):
    """L4: integers are 1 … 2^31-1, written as integers."""
    assert refusals(parse_revision, alert_request(revision=number), "a-1") == [("invalid-value", "/revision")]
    assert refusals(parse_cancellation, CANCEL | {"revision": number}, "a-1") == [("invalid-value", "/revision")]


@pytest.mark.parametrize("number", [1, 2, MAX_INTEGER])
def test_revision_numbers_at_the_limits_are_taken(number):
    """L4: integers are 1 … 2^31-1."""
    assert parse_revision(alert_request(revision=number), "a-1").revision == number
    assert parse_cancellation(CANCEL | {"revision": number}, "a-1").revision == number


def test_a_revision_without_a_number_is_refused():
    """Section 4, revisions: the body has `revision`."""
    assert refusals(parse_revision, alert_request(), "a-1") == [("missing-field", "/revision")]


def test_another_id_in_the_body_is_a_mismatch():
    """Section 4, revisions: 422 `id-mismatch`, before all that is broken besides."""
    assert refusals(parse_revision, alert_request(id="b-1", revision=2), "a-1") == [("id-mismatch", "/id")]
    assert refusals(parse_revision, alert_request(id="b-1", revision=2, severity="x"), "a-1") == [
        ("id-mismatch", "/id"),
        ("invalid-value", "/severity"),
    ]


@pytest.mark.parametrize("value", ["", "a b", 1, None])
def test_an_id_in_the_body_that_is_no_id_is_invalid(value):
    """Section 4, revisions: `id` is optional, its grammar is not."""
    assert refusals(parse_revision, alert_request(id=value, revision=2), "a-1") == [("invalid-value", "/id")]


def test_ids_are_compared_with_their_case():
    """A1: `id` is case-sensitive."""
    assert refusals(parse_revision, alert_request(id="A-1", revision=2), "a-1") == [("id-mismatch", "/id")]


def test_a_cancel_is_read():
    """Section 4, cancel: revision, reason and approval."""
    request = parse_cancellation(CANCEL, "a-1")
    assert (request.id, request.revision, request.reason) == ("a-1", 2, "over")
    assert request.approval == Approval("desk-7", NOON_MS - 60_000)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reason": ""}, [("invalid-value", "/reason")]),
        ({"reason": "x" * 281}, [("invalid-value", "/reason")]),
        ({"reason": "a\nb"}, [("invalid-value", "/reason")]),
        ({"reason": "a\ud800"}, [("invalid-value", "/reason")]),
        ({"reason": 1}, [("invalid-value", "/reason")]),
        ({"reason": "x" * 280}, []),
        ({"id": "a-1"}, [("unknown-field", "/id")]),
        ({"approval": {}}, [("missing-field", "/approval/reviewer"), ("missing-field", "/approval/approved_at")]),
    ],
    ids=str,
)
def test_a_cancel_has_limits(changes, expected):
    """Section 4, cancel: a reason of 1 to 280 characters, and nothing that is not named."""
    assert refusals(parse_cancellation, CANCEL | changes, "a-1") == expected


def test_a_cancel_needs_all_its_fields():
    """Section 4, cancel."""
    assert refusals(parse_cancellation, {}, "a-1") == [
        ("missing-field", "/revision"),
        ("missing-field", "/reason"),
        ("missing-field", "/approval"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"), [("desk-7", True), ("a" * 128, True), ("", False), ("a b", False), ("a\n", False)]
)
def test_a_publishers_name_has_the_grammar_of_an_id(text, expected):
    """Section 6: a publisher's `sub` matches the grammar of `id`."""
    assert is_id(text) is expected


def test_severities_rank_as_in_cap():
    """Section 5, messages: extreme > severe > moderate > minor."""
    assert SEVERITIES == ("minor", "moderate", "severe", "extreme")
    assert [SEVERITY_RANK[name] for name in SEVERITIES] == [0, 1, 2, 3]


# ---- what the policy can still judge -------------------------------------------------------------------------


def claims_of(**changes):
    """What is usable of a broken publication."""
    with pytest.raises(Invalid) as caught:
        parse_publication(alert_request(**changes))
    return caught.value.claims


def test_a_broken_body_leaves_what_can_be_judged():
    """Section 4, order of decisions: broken rules of section 3 are listed with broken fields."""
    assert claims_of(headline="") == parse_publication(alert_request()).claims()


def test_what_is_unusable_is_not_judged():
    """P9: a rule whose inputs are unusable is not judged."""
    claims = claims_of(
        category=1,
        threat=["individual"],
        occurred_at=0,
        expires_at="later",
        approval={"approved_at": True},
        area=[CIRCLE | {"radius_m": "800"}, None, CIRCLE | {"radius_m": 5, "lat": 100}],
    )
    assert claims == Claims(None, None, None, None, None, (("/area/2/radius_m", 5.0),))


@pytest.mark.parametrize("area", [None, 5, "x", [], {}, [[]], {"radius_m": math.inf}, {"radius_m": True}])
def test_an_area_without_a_radius_leaves_none_to_judge(area):
    """P9: a rule whose inputs are unusable is not judged."""
    assert claims_of(area=area).radii == ()


def test_radii_are_pointed_to_as_they_were_sent():
    """H8: the pointer has an index if `area` was sent as a list."""
    one, many = parse_publication(alert_request(area=CIRCLE)), parse_publication(alert_request(area=[CIRCLE] * 2))
    assert one.claims().radii == (("/area/radius_m", 800.0),)
    assert many.claims().radii == (("/area/0/radius_m", 800.0), ("/area/1/radius_m", 800.0))


# ---- the published circle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [0, 7, 9, 15])
@pytest.mark.parametrize("place", [DALLAS, (90, 0), (-90, 12.5), (0, 180), (-16.5, -179.99), (0.0, -0.0)], ids=str)
def test_the_published_circle_is_reproducible(place, resolution):
    """B1, B2: the cell's centre, and 10 * ceil((radius_m + r) / 10)."""
    lat, lng = place
    [circle] = accepted(Terms("Robbery", HOUR_MS, resolution), area=CIRCLE | {"lat": lat, "lng": lng}).area
    centre_lat, centre_lng, reach_m = cell_place(cell_of(lat, lng, resolution))
    assert circle == Circle(centre_lat, centre_lng, 10.0 * math.ceil((800 + reach_m) / 10))
    assert distance_m(lat, lng, circle.lat, circle.lng) + 800 <= circle.radius_m + 0.01


def test_the_same_place_written_differently_is_the_same_content():
    """L3, L6: 180 and -180 are the same, -0 is 0, at the poles `lng` means nothing."""
    for one, other in [((10, 180), (10, -180)), ((-0.0, 5), (0, 5)), ((90, 0), (90, 77.7)), ((-90, -0.0), (-90, 180))]:
        areas = [accepted(area=CIRCLE | {"lat": lat, "lng": lng}).area for lat, lng in (one, other)]
        assert areas[0] == areas[1]


def test_moving_within_the_cell_is_the_same_content():
    """B3: it tells nothing of where in the cell the incident was."""
    centre_lat, centre_lng, _ = cell_place(cell_of(*DALLAS, 9))
    near = [CIRCLE | {"lat": centre_lat + d, "lng": centre_lng - d} for d in (0, 0.0003, -0.0003)]
    assert accepted(area=near[0]) == accepted(area=near[1]) == accepted(area=near[2])


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(1, 20_000), st.sampled_from([7, 9, 11]))
@settings(deadline=None, max_examples=100)
def test_the_published_circle_contains_the_requested_one(lat, lng, radius_m, resolution):
    """B2: always."""
    area = CIRCLE | {"lat": lat, "lng": lng, "radius_m": radius_m}
    [circle] = accepted(Terms("Robbery", HOUR_MS, resolution), area=area).area
    assert distance_m(lat, lng, circle.lat, circle.lng) + radius_m <= circle.radius_m + 0.01
    assert circle.radius_m % 10 == 0


def test_an_area_keeps_its_order_and_number():
    """Section 2: `area` is always a list of published shapes, one for each requested."""
    places = [CIRCLE | {"lat": lat} for lat in (10, 20, 10)]
    area = accepted(area=places).area
    assert len(area) == 3
    for requested, circle in zip(places, area, strict=True):
        assert distance_m(requested["lat"], DALLAS[1], circle.lat, circle.lng) < 500
    assert area[0].radius_m < area[1].radius_m < area[0].radius_m + 250  # B12


# ---- what is kept of the exact place -------------------------------------------------------------------------

EXACT = (32.776712345, -96.797098765)


def reachable(thing):
    """Everything that can be got at from `thing`, classes and modules aside."""
    found, todo = {}, [thing]
    while todo:
        item = todo.pop()
        if id(item) in found or isinstance(item, type) or callable(item):
            continue
        found[id(item)] = item
        todo += gc.get_referents(item)
    return list(found.values())


def test_the_requested_centre_is_not_in_anything_that_goes_on():
    """B4, B5: only the published circle goes any further."""
    body = alert_request(area=CIRCLE | {"lat": EXACT[0], "lng": EXACT[1], "radius_m": 777.77})
    request = parse_publication(body)
    revision = Revision(request.accept(TERMS, None), 1, "desk", NOON_MS, TERMS)
    for kept in (revision, request.claims()):
        texts = (repr(kept), str(kept), repr(pickle.dumps(kept)), repr(reachable(kept)))
        assert not any(exact in text for text in texts for exact in ("32.7767123", "96.7970987"))
    assert "777.77" not in repr(reachable(revision))
    assert {type(item) for item in reachable(revision)} <= {
        Revision, Alert, Approval, Circle, Terms, tuple, str, int, float, type(None),
    }  # fmt: skip


def test_the_requested_centre_is_in_no_repr():
    """B4: log lines and tracebacks do not show it either."""
    request = parse_publication(alert_request(area=[CIRCLE | {"lat": EXACT[0], "lng": EXACT[1]}]))
    for text in (repr(request), f"{request}", repr(request.area), repr(request.area[0])):
        assert "32.77" not in text
        assert "96.79" not in text


def test_nothing_of_the_body_is_changed():
    """Section 4: a request may be parsed again, by whoever holds it."""
    body = alert_request(area=[CIRCLE], revision=2)
    before = copy.deepcopy(body)
    parse_revision(body, "a-1")
    assert body == before


# ---- same content --------------------------------------------------------------------------------------------


def test_a_publishers_name_and_the_time_do_not_count_as_content():
    """H5: `approval` included; the publisher's `sub` doesn't count."""
    revision, cancel = a_revision(), a_cancel()
    assert revision.same_content(dataclasses.replace(revision, source="other", issued_at=5))
    assert cancel.same_content(dataclasses.replace(cancel, source="other", cancelled_at=5))


@pytest.mark.parametrize(
    "other",
    [
        a_revision(revision=2, headline=a_revision().alert.headline),
        a_revision(headline="x"),
        a_revision(description=""),
        a_revision(severity="minor"),
        a_revision(approval=Approval("desk-8", NOON_MS - 60_000)),
        a_revision(area=(Circle(*DALLAS, 1010.0),)),
        a_cancel(revision=1),
    ],
    ids=range(7),
)
def test_all_else_counts_as_content(other):
    """H5: equal in accepted form."""
    assert not a_revision().same_content(other)
    assert not other.same_content(a_revision())


@pytest.mark.parametrize(
    "other",
    [
        a_cancel("a-2"),
        a_cancel(revision=3),
        a_cancel(reason="x"),
        a_cancel(approval=Approval("desk-8", NOON_MS)),
        a_revision(revision=2),
    ],
    ids=range(5),
)
def test_cancels_are_compared_by_all_but_who_and_when(other):
    """H5."""
    assert not a_cancel().same_content(other)


def test_what_is_accepted_cannot_be_changed():
    """Section 2: all of it is fixed at acceptance."""
    revision = a_revision()
    with pytest.raises(dataclasses.FrozenInstanceError):
        revision.revision = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        revision.alert.headline = "x"
    with pytest.raises((TypeError, AttributeError)):
        revision.alert.area[0].lat = 0.0
    assert revision.ends_at == revision.alert.expires_at
    assert format_time(revision.ends_at) == "2026-01-31T12:30:00.000Z"
