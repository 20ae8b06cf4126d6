"""The allowed values of each field, and the pointer of its errors: for single fields, and for all at once."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cpu import cpu_limit
from support.fakes import DALLAS, alert_request

from geocast.wire.requests import AlertRequest, Invalid, parse_publication

CIRCLE = {"type": "circle", "lat": DALLAS[0], "lng": DALLAS[1], "radius_m": 800}
APPROVAL = {"reviewer": "desk-7", "approved_at": "2026-01-31T11:59:00Z"}
OF_WARNINGS = (
    *("language", "languages", "texts", "instruction", "area_desc"),
    *("urgency", "certainty", "onset_at", "web"),
)
SECRET = 31.4159265  # no error may contain this value


def refusals(body):
    """Return the errors of a publication as [(slug, pointer), …]."""
    try:
        parse_publication(body)
    except Invalid as invalid:
        return [(v.slug, v.pointer) for v in invalid.violations]
    return []


def refusals_of(**changes):
    """Return the errors of a publication with these fields changed."""
    return refusals(alert_request(**changes))


# ---- valid values --------------------------------------------------------------------------------------------


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
def test_field_values_at_their_limits_are_accepted(changes):
    """Bounds are inclusive, and lengths count code points (rules A1 to A11, L5 and L6)."""
    assert refusals_of(**changes) == []


def headline_pattern():
    """Return the pattern in the schema of a headline.

    In Python, unlike ECMA 262, `$` also matches before a line feed at the end, so it is replaced.
    """
    pattern = AlertRequest.model_json_schema()["properties"]["headline"]["pattern"]
    return re.compile(pattern.removesuffix("$") + r"\Z")


@settings(deadline=None)
@given(st.text("a .\n\x00\x85\u00a0\u2003\u3000\ufeff😀", max_size=6))
def test_schema_of_headline_agrees_with_parser(text):
    """The pattern refuses blank texts and control characters (rules A3 and L2)."""
    is_taken = refusals_of(headline=text) == []
    assert bool(headline_pattern().search(text)) == is_taken


def test_schema_pattern_of_headline_is_fast_for_long_texts():
    """The texts are long and have an invalid end."""
    with cpu_limit(3):
        assert not headline_pattern().search("a" * 200_000 + "\x00")
        assert not headline_pattern().search(" " * 200_000)


# ---- invalid values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    ["id", "category", "headline", "severity", "threat", "occurred_at", "area", "approval"],
)
def test_missing_required_field_is_refused(field):
    """The error is `missing-field` with a pointer to the field (rules A1 to A11 and H8)."""
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
def test_value_that_its_field_does_not_allow_is_refused(field, value):
    """The error is `invalid-value` with a pointer to the field (rules A1 to A11 and L2 to L7)."""
    assert refusals_of(**{field: value}) == [("invalid-value", f"/{field}")]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("headline", "x" * 141, "must have at most 140 characters"),
        ("headline", "", "must have at least 1 character"),
        ("description", "x" * 1001, "must have at most 1000 characters"),
        ("area", [CIRCLE] * 17, "List should have at most 16 items after validation, not 17"),
    ],
)
def test_error_about_a_length_says_characters_or_items(field, value, said):
    """Texts have characters, lists have items (rules A3, A4 and A10)."""
    with pytest.raises(Invalid) as refused:
        parse_publication(alert_request(**{field: value}))
    assert [violation.detail for violation in refused.value.violations] == [said]


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
def test_error_inside_a_shape_has_a_pointer_to_the_field(field, value):
    """The pointer has the index of the shape if `area` was sent as a list (rule H8)."""
    assert refusals_of(area=CIRCLE | {field: value}) == [("invalid-value", f"/area/{field}")]
    assert refusals_of(area=[CIRCLE, CIRCLE | {field: value}]) == [("invalid-value", f"/area/1/{field}")]


@pytest.mark.parametrize("field", ["type", "lat", "lng", "radius_m"])
def test_shape_without_required_field_is_refused(field):
    """A circle is type, lat, lng and radius_m (rule A10)."""
    shape = {name: value for name, value in CIRCLE.items() if name != field}
    assert refusals_of(area=shape) == [("missing-field", f"/area/{field}")]
    assert refusals_of(area=[shape]) == [("missing-field", f"/area/0/{field}")]


def test_list_of_shapes_with_an_item_that_is_not_a_shape_is_refused():
    """A list has 1 to 16 shapes, and no lists (rule A10)."""
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
def test_approval_without_a_valid_reviewer_and_time_is_refused(approval, expected):
    """The reviewer has 1 to 128 characters (rule A11)."""
    assert refusals_of(approval=approval) == expected


@pytest.mark.parametrize("field", ["caller", "phone", "address", "units", "source", "revision", "issued_at", "title"])
def test_undocumented_field_is_refused(field):
    """Nobody can send data for which the protocol has no field (protocol, section 2)."""
    assert refusals_of(**{field: "x"}) == [("unknown-field", f"/{field}")]


@pytest.mark.parametrize("name", OF_WARNINGS)
def test_fields_of_official_warnings_are_refused_in_a_posted_alert(name):
    """The error is `unknown-field`, whatever the value is (rules A12 and A22)."""
    for value in ("en", ["en"], [], None):
        assert refusals_of(**{name: value}) == [("unknown-field", f"/{name}")]


@pytest.mark.parametrize(
    "name",
    ["555 0100", "call_5550100", "x" * 41, "Main Street", "", "né", "a/b", "a~b", "123", "a\n"],
)
def test_error_does_not_repeat_a_revealing_name_of_an_unknown_field(name):
    """The pointer ends at the parent (rule H9)."""
    assert refusals_of(**{name: "x"}) == [("unknown-field", "")]
    assert refusals_of(area=CIRCLE | {name: 1}) == [("unknown-field", "/area")]
    assert refusals_of(area=[CIRCLE | {name: 1}]) == [("unknown-field", "/area/0")]
    assert refusals_of(approval=APPROVAL | {name: 1}) == [("unknown-field", "/approval")]


@pytest.mark.parametrize("name", ["one shape", "list of shapes"])
def test_unknown_field_named_like_a_discriminator_is_refused(name):
    """A name with a blank is not repeated, and the pointer ends at the parent (rule H9)."""
    assert refusals_of(**{name: "x"}) == [("unknown-field", "")]
    assert refusals_of(area=CIRCLE | {name: 1}) == [("unknown-field", "/area")]


def test_error_does_not_repeat_a_field_name_with_a_lone_surrogate():
    """A name with a lone surrogate is answered with 422, like a value with one (rule L2)."""
    assert [pointer for _, pointer in refusals_of(**{"\ud800": "x"})] == [""]


@pytest.mark.parametrize("name", ["x" * 40, "_", "A1b22", "12"])
def test_error_repeats_a_harmless_name_of_an_unknown_field(name):
    """A name is harmless if it matches `[A-Za-z0-9_]{1,40}` and has no three digits in a row (rule H9)."""
    assert refusals_of(**{name: "x"}) == [("unknown-field", f"/{name}")]


def test_every_invalid_field_is_listed_in_order():
    """The order is that of the table in section 2, with unknown fields last (rule H8)."""
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
    assert refusals(body) == [
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
def test_error_does_not_contain_refused_value(changes):
    """Detail, pointer and the exception's text, which may be logged, do not contain the value (rule H9)."""
    with pytest.raises(Invalid) as caught:
        parse_publication(alert_request(**changes))
    said = [str(caught.value), repr(caught.value.violations), repr(caught.value)]
    assert not any("31.4159" in text for text in said)
    assert caught.value.__suppress_context__
