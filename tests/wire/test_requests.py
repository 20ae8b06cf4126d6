"""Parsing of requests, and what remains of the exact place afterwards."""

import copy
import gc
import math
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import DALLAS, HOUR_MS, NOON_MS, alert_request

from geocast.geometry.sphere import cell_of, cell_place, distance_m
from geocast.model.alert import AcceptedTerms, Alert, Approval, Circle, Confirm, Revision
from geocast.wire.fields import MAX_INTEGER
from geocast.wire.requests import Invalid, PolicyFacts, parse_cancellation, parse_publication, parse_revision

TERMS = AcceptedTerms("Robbery", HOUR_MS, 9)
CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}
APPROVAL = {"reviewer": "desk-7", "approved_at": "2026-01-31T11:59:00Z"}
CANCEL = {"revision": 2, "reason": "over", "approval": APPROVAL}


def refusals(parse, *arguments):
    """Return the errors of `parse` as [(slug, pointer), …]."""
    try:
        parse(*arguments)
    except Invalid as invalid:
        return [(v.slug, v.pointer) for v in invalid.violations]
    return []


def accepted(terms=TERMS, **changes):
    """Return the accepted alert of a request with these fields changed."""
    return parse_publication(alert_request(**changes)).accept(terms, None)


# ---- valid requests ------------------------------------------------------------------------------------------


def test_parse_publication_reads_every_field():
    """Rules A1 to A11."""
    request = parse_publication(alert_request())
    assert (request.id, request.category, request.severity) == ("a-1", "robbery", "severe")
    assert request.headline == "Robbery at a shop"
    assert request.description == "Two people on foot.\nAvoid the area."
    assert (request.status, request.threat) == ("actual", "community")
    assert (request.occurred_at, request.expires_at) == (NOON_MS - 600_000, NOON_MS + 1_800_000)
    assert request.approval == Approval("desk-7", NOON_MS - 60_000)
    assert request.revision == 1


def test_omitted_optional_fields_get_their_defaults():
    """`status` is actual, `expires_at` is `occurred_at` + `max_age_s`, without `description` (rules A4, A6 and A9)."""
    alert = accepted(status=..., expires_at=..., description=...)
    assert (alert.status, alert.expires_at, alert.description) == ("actual", alert.occurred_at + HOUR_MS, None)


def test_written_out_defaults_are_the_same_content_as_omitted_ones():
    """Defaults are filled in, times are UTC milliseconds, numbers are compared by value (rule H5)."""
    written_out = accepted(
        status="actual",
        occurred_at="2026-01-31T12:50:00.0009+01:00",
        expires_at="2026-01-31T12:50:00Z",
        area=[CIRCLE | {"radius_m": 800.0}],
    )
    assert written_out == accepted(status=..., expires_at=...)


def test_empty_description_is_not_the_same_content_as_a_missing_one():
    """A description is left out if it was not given; an empty one was given (protocol, section 2)."""
    assert accepted(description="").description == ""
    assert accepted(description="") != accepted(description=...)


# ---- revisions and cancels -----------------------------------------------------------------------------------


def test_revision_gets_its_id_from_the_path():
    """The `id` in the body is optional (protocol, section 4, revisions)."""
    for body in (alert_request(id=..., revision=2), alert_request(id="a-1", revision=2)):
        request = parse_revision(body, "a-1")
        assert (request.id, request.revision) == ("a-1", 2)


@pytest.mark.parametrize("number", [0, -1, MAX_INTEGER + 1, 10**400, 2.0, "2", True, None])
def test_revision_number_outside_bounds_is_refused(number):
    """Integers are 1 to 2^31-1, written as integers (rule L4)."""
    assert refusals(parse_revision, alert_request(revision=number), "a-1") == [("invalid-value", "/revision")]
    assert refusals(parse_cancellation, CANCEL | {"revision": number}, "a-1") == [("invalid-value", "/revision")]


@pytest.mark.parametrize("number", [1, 2, MAX_INTEGER])
def test_revision_number_at_limits_is_accepted(number):
    """Integers are 1 to 2^31-1 (rule L4)."""
    assert parse_revision(alert_request(revision=number), "a-1").revision == number
    assert parse_cancellation(CANCEL | {"revision": number}, "a-1").revision == number


def test_revision_without_number_is_refused():
    """The body needs `revision` (protocol, section 4, revisions)."""
    assert refusals(parse_revision, alert_request(), "a-1") == [("missing-field", "/revision")]


def test_revision_whose_id_differs_from_the_path_is_refused_as_id_mismatch():
    """The 422 lists `id-mismatch` before all other errors (protocol, section 4, revisions)."""
    assert refusals(parse_revision, alert_request(id="b-1", revision=2), "a-1") == [("id-mismatch", "/id")]
    assert refusals(parse_revision, alert_request(id="b-1", revision=2, severity="x"), "a-1") == [
        ("id-mismatch", "/id"),
        ("invalid-value", "/severity"),
    ]


@pytest.mark.parametrize("value", ["", "a b", 1, None])
def test_malformed_id_in_the_body_of_a_revision_is_refused(value):
    """`id` is optional, but must match the grammar (protocol, section 4, revisions)."""
    assert refusals(parse_revision, alert_request(id=value, revision=2), "a-1") == [("invalid-value", "/id")]


def test_ids_are_case_sensitive():
    """Rule A1."""
    assert refusals(parse_revision, alert_request(id="A-1", revision=2), "a-1") == [("id-mismatch", "/id")]


def test_parse_cancellation_reads_every_field():
    """Revision, reason and approval (protocol, section 4, cancel)."""
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
def test_invalid_cancel_is_refused(changes, expected):
    """A reason has 1 to 280 characters, and other fields are refused (protocol, section 4, cancel)."""
    assert refusals(parse_cancellation, CANCEL | changes, "a-1") == expected


def test_cancel_without_required_fields_is_refused():
    """Protocol, section 4, cancel."""
    assert refusals(parse_cancellation, {}, "a-1") == [
        ("missing-field", "/revision"),
        ("missing-field", "/reason"),
        ("missing-field", "/approval"),
    ]


# ---- valid parts of invalid bodies ---------------------------------------------------------------------------


def claims_of(**changes):
    """Return the valid parts of an invalid publication."""
    with pytest.raises(Invalid) as caught:
        parse_publication(alert_request(**changes))
    return caught.value.facts()


def test_policy_input_from_an_invalid_body_includes_its_valid_fields():
    """Broken rules of section 3 are listed together with invalid fields (section 4, order of decisions)."""
    whole = parse_publication(alert_request()).facts()
    assert claims_of(headline="") == replace(whole, texts=(("/headline", None), whole.texts[1]))


def test_policy_input_from_an_invalid_body_omits_its_invalid_fields():
    """A rule with invalid inputs is not checked (rule P9)."""
    claims = claims_of(
        category=1,
        threat=["individual"],
        occurred_at=0,
        expires_at="later",
        approval={"approved_at": True},
        area=[CIRCLE | {"radius_m": "800"}, None, CIRCLE | {"radius_m": 5, "lat": 100}],
        headline=5,
        description="a\tb",
        confirm={"text": ["coordinates"]},
        status="draft",
        severity="Severe",
    )
    texts = (("/headline", None), ("/description", None))
    assert claims == PolicyFacts(None, None, None, None, None, (("/area/2/radius_m", 5.0),), texts=texts, confirm=None)


@pytest.mark.parametrize("area", [None, 5, "x", [], {}, [[]], {"radius_m": math.inf}, {"radius_m": True}])
def test_policy_input_from_an_area_without_a_valid_radius_has_no_radii(area):
    """A rule with invalid inputs is not checked (rule P9)."""
    assert claims_of(area=area).radii == ()


def test_pointer_to_a_radius_has_an_index_only_if_area_is_a_list():
    """The pointer is that of rule H8."""
    one, many = parse_publication(alert_request(area=CIRCLE)), parse_publication(alert_request(area=[CIRCLE] * 2))
    assert one.facts().radii == (("/area/radius_m", 800.0),)
    assert many.facts().radii == (("/area/0/radius_m", 800.0), ("/area/1/radius_m", 800.0))


# ---- the published circle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [0, 7, 9, 15])
@pytest.mark.parametrize("place", [DALLAS, (90, 0), (-90, 12.5), (0, 180), (-16.5, -179.99), (0.0, -0.0)], ids=str)
def test_published_circle_has_the_centre_of_its_cell_and_an_enlarged_radius(place, resolution):
    """The centre is the cell's, the radius is 10 * ceil((radius_m + r) / 10) (rules B1 and B2)."""
    lat, lng = place
    [circle] = accepted(AcceptedTerms("Robbery", HOUR_MS, resolution), area=CIRCLE | {"lat": lat, "lng": lng}).area
    centre_lat, centre_lng, reach_m = cell_place(cell_of(lat, lng, resolution))
    assert circle == Circle(centre_lat, centre_lng, 10.0 * math.ceil((800 + reach_m) / 10))
    assert distance_m(lat, lng, circle.lat, circle.lng) + 800 <= circle.radius_m + 0.01


def test_equivalent_coordinates_are_the_same_content():
    """Equivalent are 180 and -180, -0 and 0, and all longitudes at a pole (rules L3 and L6)."""
    for one, other in [((10, 180), (10, -180)), ((-0.0, 5), (0, 5)), ((90, 0), (90, 77.7)), ((-90, -0.0), (-90, 180))]:
        areas = [accepted(area=CIRCLE | {"lat": lat, "lng": lng}).area for lat, lng in (one, other)]
        assert areas[0] == areas[1]


def test_another_centre_in_the_same_cell_is_the_same_content():
    """The content therefore does not tell where in the cell the incident was (rule B3)."""
    centre_lat, centre_lng, _ = cell_place(cell_of(*DALLAS, 9))
    near = [CIRCLE | {"lat": centre_lat + d, "lng": centre_lng - d} for d in (0, 0.0003, -0.0003)]
    assert accepted(area=near[0]) == accepted(area=near[1]) == accepted(area=near[2])


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(1, 20_000), st.sampled_from([7, 9, 11]))
@settings(deadline=None, max_examples=100)
def test_published_circle_contains_requested_circle(lat, lng, radius_m, resolution):
    """Rule B2."""
    area = CIRCLE | {"lat": lat, "lng": lng, "radius_m": radius_m}
    [circle] = accepted(AcceptedTerms("Robbery", HOUR_MS, resolution), area=area).area
    assert distance_m(lat, lng, circle.lat, circle.lng) + radius_m <= circle.radius_m + 0.01
    assert circle.radius_m % 10 == 0


def test_each_requested_shape_has_one_published_shape_in_the_same_order():
    """The order is kept (protocol, section 2)."""
    places = [CIRCLE | {"lat": lat} for lat in (10, 20, 10)]
    area = accepted(area=places).area
    assert len(area) == 3
    for requested, circle in zip(places, area, strict=True):
        assert distance_m(requested["lat"], DALLAS[1], circle.lat, circle.lng) < 500
    assert area[0].radius_m < area[1].radius_m < area[0].radius_m + 250  # B12


# ---- the exact place is not kept -----------------------------------------------------------------------------

EXACT = (32.776712345, -96.797098765)


def reachable(thing):
    """Return everything that is reachable from `thing`, except classes and functions."""
    found, todo = {}, [thing]
    while todo:
        item = todo.pop()
        if id(item) in found or isinstance(item, type) or callable(item):
            continue
        found[id(item)] = item
        todo += gc.get_referents(item)
    return list(found.values())


def test_requested_centre_is_not_in_the_accepted_revision_or_the_policy_input():
    """Of the place, only the published circle is kept (rules B4 and B5)."""
    body = alert_request(area=CIRCLE | {"lat": EXACT[0], "lng": EXACT[1], "radius_m": 777.77})
    request = parse_publication(body)
    revision = Revision(request.accept(TERMS, None), 1, "desk", NOON_MS, TERMS)
    for kept in (revision, request.facts()):
        texts = (repr(kept), str(kept), repr(pickle.dumps(kept)), repr(reachable(kept)))
        assert not any(exact in text for text in texts for exact in ("32.7767123", "96.7970987"))
    assert "777.77" not in repr(reachable(revision))
    assert {type(item) for item in reachable(revision)} <= {
        Revision, Alert, Approval, Circle, Confirm, AcceptedTerms, tuple, str, int, float, type(None),
    }  # fmt: skip


def test_repr_of_a_request_does_not_contain_the_requested_centre():
    """Log lines and tracebacks therefore do not show the centre (rule B4)."""
    request = parse_publication(alert_request(area=[CIRCLE | {"lat": EXACT[0], "lng": EXACT[1]}]))
    for text in (repr(request), f"{request}", repr(request.area), repr(request.area[0])):
        assert "32.77" not in text
        assert "96.79" not in text


def test_parsing_does_not_change_the_request_body():
    """A request may be parsed again (protocol, section 4)."""
    body = alert_request(area=[CIRCLE], revision=2)
    before = copy.deepcopy(body)
    parse_revision(body, "a-1")
    assert body == before
