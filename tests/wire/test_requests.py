"""Parsing is the only way in: what a request is read as, and what is left of the exact place."""

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
    """What `parse` says is broken: [(slug, pointer), …]; nothing if it takes it."""
    try:
        parse(*arguments)
    except Invalid as invalid:
        return [(v.slug, v.pointer) for v in invalid.violations]
    return []


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


# ---- what the policy can still judge -------------------------------------------------------------------------


def claims_of(**changes):
    """What is usable of a broken publication."""
    with pytest.raises(Invalid) as caught:
        parse_publication(alert_request(**changes))
    return caught.value.facts()


def test_a_broken_body_leaves_what_can_be_judged():
    """Section 4, order of decisions: broken rules of section 3 are listed with broken fields."""
    whole = parse_publication(alert_request()).facts()
    assert claims_of(headline="") == replace(whole, texts=(("/headline", None), whole.texts[1]))


def test_what_is_unusable_is_not_judged():
    """P9: a rule whose inputs are unusable is not judged."""
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
def test_an_area_without_a_radius_leaves_none_to_judge(area):
    """P9: a rule whose inputs are unusable is not judged."""
    assert claims_of(area=area).radii == ()


def test_radii_are_pointed_to_as_they_were_sent():
    """H8: the pointer has an index if `area` was sent as a list."""
    one, many = parse_publication(alert_request(area=CIRCLE)), parse_publication(alert_request(area=[CIRCLE] * 2))
    assert one.facts().radii == (("/area/radius_m", 800.0),)
    assert many.facts().radii == (("/area/0/radius_m", 800.0), ("/area/1/radius_m", 800.0))


# ---- the published circle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [0, 7, 9, 15])
@pytest.mark.parametrize("place", [DALLAS, (90, 0), (-90, 12.5), (0, 180), (-16.5, -179.99), (0.0, -0.0)], ids=str)
def test_the_published_circle_is_reproducible(place, resolution):
    """B1, B2: the cell's centre, and 10 * ceil((radius_m + r) / 10)."""
    lat, lng = place
    [circle] = accepted(AcceptedTerms("Robbery", HOUR_MS, resolution), area=CIRCLE | {"lat": lat, "lng": lng}).area
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
    [circle] = accepted(AcceptedTerms("Robbery", HOUR_MS, resolution), area=area).area
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
    for kept in (revision, request.facts()):
        texts = (repr(kept), str(kept), repr(pickle.dumps(kept)), repr(reachable(kept)))
        assert not any(exact in text for text in texts for exact in ("32.7767123", "96.7970987"))
    assert "777.77" not in repr(reachable(revision))
    assert {type(item) for item in reachable(revision)} <= {
        Revision, Alert, Approval, Circle, Confirm, AcceptedTerms, tuple, str, int, float, type(None),
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
