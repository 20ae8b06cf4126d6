"""The fields of a call's request, the errors about them, and the published circle."""

import itertools
import math

import pytest
from support.fakes import NOON_MS, call_request

from geocast.calls.request import EndRequest, parse_call, parse_content, parse_end
from geocast.geometry import sphere
from geocast.model.alert import Circle
from geocast.model.call import ExactPlace
from geocast.wire.requests import Invalid


def place(**changes):
    """Return a valid place with these changes; `...` removes a field."""
    whole = call_request()["place"] | changes
    return {name: value for name, value in whole.items() if value is not ...}


def broken(parse=parse_call, /, *more, **changes):
    """Return the violations of a body with these changes: [(slug, pointer), …]."""
    with pytest.raises(Invalid) as caught:
        parse(call_request(**changes), *more)
    return [(violation.slug, violation.pointer) for violation in caught.value.violations]


def test_parsed_call_has_all_values_of_the_request_body():
    """Times are converted to milliseconds (RY1 to RY7)."""
    found = parse_call(call_request())
    assert (found.id, found.category, found.headline) == (
        "cad-3.8f1c02aa",
        "cardiac_arrest",
        "Adult, not breathing. Bystander does compressions.",
    )
    assert (found.status, found.occurred_at, found.expires_at, found.replaces) == (
        "actual",
        NOON_MS - 60_000,
        NOON_MS + 1_500_000,
        0,
    )
    assert found.place == ExactPlace(
        47.6780089, 8.8311129, "residence", "Dorfstrasse 4, Ossingen", "Door code 4711.\n3rd floor, left."
    )


def test_optional_fields_have_defaults():
    """`status` is `actual`, the expiry comes from the policy, and there is no access text (RY4, RY7)."""
    least = call_request(status=..., expires_at=..., place={"lat": 0, "lng": -0.0, "kind": "public"})
    found = parse_call(least)
    assert (found.status, found.expires_at) == ("actual", None)
    assert found.place == ExactPlace(0.0, 0.0, "public")
    assert math.copysign(1, found.place.lng) == 1  # L3


@pytest.mark.parametrize("name", ["id", "category", "headline", "occurred_at", "place"])
def test_error_names_missing_field(name):
    """Each required field is removed in turn (RY1 to RY5)."""
    assert broken(**{name: ...}) == [("missing-field", f"/{name}")]


@pytest.mark.parametrize("name", ["lat", "lng", "kind"])
def test_error_names_missing_field_of_the_place(name):
    """Each required field of the place is removed in turn (RY5, RY6)."""
    assert broken(place=place(**{name: ...})) == [("missing-field", f"/place/{name}")]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", ["", "-a", "a b", "a" * 129, 1, None]),
        ("category", [1, None, "a\nb"]),
        ("headline", ["", " ", "a" * 141, "two\nlines", "\ud800", 1]),
        ("status", ["Actual", "system", None]),
        ("occurred_at", ["2026-01-31", "now", NOON_MS, None]),
        ("expires_at", ["2026-01-31 12:00:00Z", 0, None]),
        ("place", [None, [], "47.6,8.8"]),
    ],
)
def test_error_names_invalid_field(name, values):
    """Fields follow the same grammar as in alerts (RY1 to RY4; A1, A3, A6, A8, A9)."""
    for value in values:
        assert broken(**{name: value}) == [("invalid-value", f"/{name}")], value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lat", [90.1, -90.1, float("inf"), "47.6", True, None]),
        ("lng", [180.1, -180.1, float("-inf"), "8.8", None]),
        ("kind", ["home", "Public", "", None]),
        ("address", ["", "a" * 201, "tab\there", "\ud800", 1, None]),
        ("access", ["", "a" * 501, "\x00", 1, None]),
        ("callback_phone", ["", "1", "1" * 31, "+1 555 01l2", "call me", "+", "1\n2", "12\n", 112, None]),
    ],
)
def test_error_names_field_of_the_place_that_is_out_of_bounds(name, values):
    """The bounds themselves are allowed (RY5, RY6, RY7, RY9, L6)."""
    for value in values:
        assert broken(place=place(**{name: value})) == [("invalid-value", f"/place/{name}")], value


def test_values_at_the_bounds_are_valid():
    """A text may also end with a line feed (RY5, RY7, P8)."""
    found = parse_call(call_request(place=place(lat=-90, lng=180.0, address="a" * 199 + "\n", access="b" * 500)))
    assert (found.place.lat, found.place.lng, found.place.address) == (-90.0, 180.0, "a" * 199 + "\n")


@pytest.mark.parametrize("phone", ["12", "+1" + "5" * 28, "+41 52 555 01 12", "0(44) 555/01.12"])
def test_phone_number_of_the_dispatcher_is_kept_as_sent(phone):
    """It reaches only responders with a seat, because it is encrypted with the place (RY9, RZ3)."""
    assert parse_call(call_request(place=place(callback_phone=phone))).place.callback_phone == phone


@pytest.mark.parametrize(
    "name", ["severity", "threat", "approval", "area", "description", "confirm", "patient", "caller"]
)
def test_unknown_field_is_refused(name):
    """Fields of alerts, fields about a person, and fields of the place are tried (RY8)."""
    assert broken(**{name: "x"}) == [("unknown-field", f"/{name}")]
    assert broken(place=place(**{name: "x"})) == [("unknown-field", f"/place/{name}")]


def test_correction_needs_all_fields_of_a_call():
    """A correction also needs `replaces`. The `id` may be omitted, and a different id is refused."""
    found = parse_content(call_request(id=..., replaces=3), "cad-3.8f1c02aa")
    assert (found.id, found.replaces) == ("cad-3.8f1c02aa", 3)
    assert parse_content(call_request(replaces=3), "cad-3.8f1c02aa") == found
    assert broken(parse_content, "cad-4", replaces=3) == [("id-mismatch", "/id")]
    assert broken(parse_content, "cad-4") == [("id-mismatch", "/id"), ("missing-field", "/replaces")]
    for value in (0, -1, 2**31, 1.0, "1", None):
        assert broken(parse_content, "cad-3.8f1c02aa", replaces=value) == [("invalid-value", "/replaces")]
    assert broken(replaces=1) == [("unknown-field", "/replaces")]


def test_request_to_end_a_call_needs_a_reason():
    """The reason has 1 to 280 characters, and other fields are refused."""
    assert parse_end({"reason": "The crew is there."}) == "The crew is there."
    for body in ({}, {"reason": ""}, {"reason": "a" * 281}, {"reason": 1}, {"reason": "x", "id": "cad-3"}):
        with pytest.raises(Invalid):
            parse_end(body)
    assert set(EndRequest.model_fields) == {"reason"}


def test_errors_do_not_repeat_values_of_the_request():
    """Neither an error nor a `repr` contains a place or a text (H9, RZ2)."""
    secrets = ("47.678", "8.83", "Dorfstrasse", "4711", "77.123", "Marktgasse")
    with pytest.raises(Invalid) as caught:
        parse_call(call_request(place=place(lat="77.123", kind="Marktgasse", access=["4711"]), patient="Marktgasse"))
    said = [f"{v.pointer} {v.detail}" for v in caught.value.violations] + [str(caught.value), repr(caught.value)]
    said += [repr(caught.value.facts()), repr(parse_call(call_request()))]
    assert not [text for text in said for secret in secrets if secret in text]


def test_valid_fields_of_an_invalid_call_are_kept_for_policy_checks():
    """So one answer lists invalid fields and violations of the policy (P9)."""
    with pytest.raises(Invalid) as caught:
        parse_call(call_request(headline="", place=None))
    claims = caught.value.facts()
    assert (claims.category, claims.occurred_at, claims.expires_at) == (
        "cardiac_arrest",
        NOON_MS - 60_000,
        NOON_MS + 1_500_000,
    )
    with pytest.raises(Invalid) as caught:
        parse_call(call_request(category=1, occurred_at=1, expires_at=1))
    claims = caught.value.facts()
    assert (claims.category, claims.occurred_at, claims.expires_at, claims.takes_default) == (None, None, None, False)


# ---- the published circle of the place -----------------------------------------------------------------------------


def near(lat, lng, resolution=9, held=None):
    """Return the published circle of a place."""
    return parse_call(call_request(place=place(lat=lat, lng=lng))).near(resolution, held)


def test_published_circle_covers_the_cell_of_the_place():
    """At resolution 9 the radius around the centre of the cell is 210 m (RZ6)."""
    found = near(47.6780089, 8.8311129)
    assert found == Circle(47.67825933515865, 8.830423174775438, 210.0)
    cell = sphere.cell_of(47.6780089, 8.8311129, 9)
    assert sphere.cell_place(cell)[2] <= found.radius_m


def test_published_circle_is_the_same_for_all_places_of_a_cell():
    """So the circle reveals nothing about a place but its cell (RZ6, B1, RZ8)."""
    lat, lng, reach_m = sphere.cell_place(sphere.cell_of(47.6780089, 8.8311129, 9))
    step = reach_m / 111_000 / 4
    spots = [(lat + n * step, lng + m * step) for n, m in itertools.product(range(-4, 5), repeat=2)]
    inside = [spot for spot in spots if sphere.cell_of(*spot, 9) == sphere.cell_of(lat, lng, 9)]
    assert len(inside) > 20
    assert {near(*spot) for spot in inside} == {near(lat, lng)}


def test_correction_into_a_neighbour_cell_keeps_centre_of_published_circle():
    """The circle becomes wider once, and does not reveal in which direction the place is (RZ6, B11)."""
    first = near(47.6780089, 8.8311129)
    east = near(47.6780089, 8.8311129 + 0.004, held=first)
    west = near(47.6780089, 8.8311129 - 0.004, held=first)
    assert east == west
    assert (east.lat, east.lng) == (first.lat, first.lng)
    assert east.radius_m > first.radius_m
    assert near(47.6780089, 8.8311129, held=east) == east
    assert near(48.0, 8.8311129, held=east) == near(48.0, 8.8311129)
