"""calls/request.py: each field of a call, what is said of a broken one, and the circle that is shown of its place."""

import itertools
import math

import pytest
from support.fakes import NOON_MS, call_request

from geocast.calls.request import EndRequest, parse_call, parse_content, parse_end
from geocast.geometry import sphere
from geocast.model.call import ExactPlace, Near
from geocast.wire.requests import Invalid


def place(**changes):
    """The place of a call that is accepted, with these fields changed; `...` leaves one out."""
    whole = call_request()["place"] | changes
    return {name: value for name, value in whole.items() if value is not ...}


def broken(parse=parse_call, /, *more, **changes):
    """What a body with these changes breaks: [(slug, pointer), …]."""
    with pytest.raises(Invalid) as caught:
        parse(call_request(**changes), *more)
    return [(violation.slug, violation.pointer) for violation in caught.value.violations]


def test_a_call_is_read_as_it_was_sent():
    """RY1 to RY7: each field, with times in ms."""
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


def test_what_may_be_left_out():
    """RY4, RY7: `status` is `actual` then, the end is worked out, and there are no words for the way."""
    least = call_request(status=..., expires_at=..., place={"lat": 0, "lng": -0.0, "kind": "public"})
    found = parse_call(least)
    assert (found.status, found.expires_at) == ("actual", None)
    assert found.place == ExactPlace(0.0, 0.0, "public")
    assert math.copysign(1, found.place.lng) == 1  # L3


@pytest.mark.parametrize("name", ["id", "category", "headline", "occurred_at", "place"])
def test_a_field_that_is_needed(name):
    """RY1 to RY5: each by itself."""
    assert broken(**{name: ...}) == [("missing-field", f"/{name}")]


@pytest.mark.parametrize("name", ["lat", "lng", "kind"])
def test_a_field_of_the_place_that_is_needed(name):
    """RY5, RY6."""
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
def test_a_field_has_its_grammar(name, values):
    """RY1 to RY4: A1, A3, A6, A8, A9."""
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
    ],
)
def test_a_field_of_the_place_has_its_bounds(name, values):
    """RY5 (L6), RY6, RY7: inclusive, as the next test shows."""
    for value in values:
        assert broken(place=place(**{name: value})) == [("invalid-value", f"/place/{name}")], value


def test_bounds_include_their_ends():
    """RY5, RY7, P8: and a line feed is allowed."""
    found = parse_call(call_request(place=place(lat=-90, lng=180.0, address="a" * 199 + "\n", access="b" * 500)))
    assert (found.place.lat, found.place.lng, found.place.address) == (-90.0, 180.0, "a" * 199 + "\n")


@pytest.mark.parametrize(
    "name", ["severity", "threat", "approval", "area", "description", "confirm", "patient", "caller"]
)
def test_there_is_no_field_for_anything_else(name):
    """RY8: neither those of alerts, nor one for a person; not in the place either."""
    assert broken(**{name: "x"}) == [("unknown-field", f"/{name}")]
    assert broken(place=place(**{name: "x"})) == [("unknown-field", f"/place/{name}")]


def test_new_content_is_a_whole_call_again():
    """docs/calls.md, The api: with `replaces`; the `id` may be left out, and another one is refused."""
    found = parse_content(call_request(id=..., replaces=3), "cad-3.8f1c02aa")
    assert (found.id, found.replaces) == ("cad-3.8f1c02aa", 3)
    assert parse_content(call_request(replaces=3), "cad-3.8f1c02aa") == found
    assert broken(parse_content, "cad-4", replaces=3) == [("id-mismatch", "/id")]
    assert broken(parse_content, "cad-4") == [("id-mismatch", "/id"), ("missing-field", "/replaces")]
    for value in (0, -1, 2**31, 1.0, "1", None):
        assert broken(parse_content, "cad-3.8f1c02aa", replaces=value) == [("invalid-value", "/replaces")]
    assert broken(replaces=1) == [("unknown-field", "/replaces")]


def test_an_end_has_a_reason():
    """docs/calls.md, The api: 1 to 280 characters, and nothing else."""
    assert parse_end({"reason": "The crew is there."}) == "The crew is there."
    for body in ({}, {"reason": ""}, {"reason": "a" * 281}, {"reason": 1}, {"reason": "x", "id": "cad-3"}):
        with pytest.raises(Invalid):
            parse_end(body)
    assert set(EndRequest.model_fields) == {"reason"}


def test_what_is_wrong_is_told_without_repeating_it():
    """H9, RZ2: neither a place nor a text is in what is said, and no `repr` shows one."""
    secrets = ("47.678", "8.83", "Dorfstrasse", "4711", "77.123", "Marktgasse")
    with pytest.raises(Invalid) as caught:
        parse_call(call_request(place=place(lat="77.123", kind="Marktgasse", access=["4711"]), patient="Marktgasse"))
    said = [f"{v.pointer} {v.detail}" for v in caught.value.violations] + [str(caught.value), repr(caught.value)]
    said += [repr(caught.value.facts()), repr(parse_call(call_request()))]
    assert not [text for text in said for secret in secrets if secret in text]


def test_what_of_a_broken_call_can_still_be_judged():
    """P9: each field that is good by itself."""
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


# ---- what is shown of the place ------------------------------------------------------------------------------------


def near(lat, lng, resolution=9, held=None):
    """The circle that is shown of a place."""
    return parse_call(call_request(place=place(lat=lat, lng=lng))).near(resolution, held)


def test_the_circle_is_that_of_the_cell():
    """RZ6: 210 m at resolution 9, round the cell's centre, which holds the whole cell."""
    found = near(47.6780089, 8.8311129)
    assert found == Near(47.67825933515865, 8.830423174775438, 210.0)
    cell = sphere.cell_of(47.6780089, 8.8311129, 9)
    assert sphere.cell_place(cell)[2] <= found.radius_m


def test_all_of_a_cell_is_shown_alike():
    """RZ6, B1, RZ8: from wherever in the cell; so of a place no more can be learned than its cell."""
    lat, lng, reach_m = sphere.cell_place(sphere.cell_of(47.6780089, 8.8311129, 9))
    step = reach_m / 111_000 / 4
    spots = [(lat + n * step, lng + m * step) for n, m in itertools.product(range(-4, 5), repeat=2)]
    inside = [spot for spot in spots if sphere.cell_of(*spot, 9) == sphere.cell_of(lat, lng, 9)]
    assert len(inside) > 20
    assert {near(*spot) for spot in inside} == {near(lat, lng)}


def test_a_correction_into_a_neighbour_keeps_the_centre():
    """RZ6, B11: it is wider then, once, and says not on which side; back in the cell it stays so."""
    first = near(47.6780089, 8.8311129)
    east = near(47.6780089, 8.8311129 + 0.004, held=first)
    west = near(47.6780089, 8.8311129 - 0.004, held=first)
    assert east == west
    assert (east.lat, east.lng) == (first.lat, first.lng)
    assert east.radius_m > first.radius_m
    assert near(47.6780089, 8.8311129, held=east) == east
    assert near(48.0, 8.8311129, held=east) == near(48.0, 8.8311129)
