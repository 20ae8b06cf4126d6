"""Fields and shapes that the API refuses by problem type and pointer, alone and together."""

import pytest
from end_to_end.kit.alerts import Json, alert, approval, cancel_body, circle, ground
from end_to_end.kit.node import Node
from end_to_end.kit.refusals import (
    CANARY,
    GONE,
    TEXT,
    Row,
    assert_problem,
    check,
    named,
    problem_of,
    put,
    send,
    text_of,
)
from end_to_end.kit.times import stamp

# ---- section 2: the fields ---------------------------------------------------------------------------------------


WRONG_TEXTS = (7391, 7391.5, True, None, [TEXT], {"text": TEXT})
WRONG_NUMBERS = ("7391", "", True, False, None, [7391], {"n": 7391})
WRONG_OBJECTS = (TEXT, 7391, True, None, [TEXT])
# tests/wire/test_fields.py and tests/model/test_times.py test the grammars of ids and times in full.
WRONG_IDS = ("", f"-{TEXT}", f"{TEXT}\n", f"é{TEXT}", TEXT + "x" * (129 - len(TEXT)))
WRONG_TIMES = (
    f"2026-01-01T10:00:00.{CANARY}123456Z",
    "2026-01-01T10:00:00",
    f"2016-12-31T23:59:60.{CANARY}Z",
    f"2025-02-29T10:00:00.{CANARY}Z",
    f"2026-01-01T10:00:00.{CANARY}+99:99",
    f"2026-01-01T10:00:00.{CANARY}Z\n",
    "17391173917",
    *(value for value in WRONG_TEXTS if not isinstance(value, str)),
)
CONTROLS = ("\x00", "\x07", "\x1f", "\x7f", "\x85", "\x9f")
REQUIRED = ("id", "category", "headline", "severity", "threat", "occurred_at", "area", "approval")

FIELD_ROWS = [
    *(Row(f"/{name}", GONE, "missing-field") for name in REQUIRED),
    *(Row(f"/approval/{name}", GONE, "missing-field") for name in ("reviewer", "approved_at")),
    *(Row(f"/area/{name}", GONE, "missing-field") for name in ("type", "lat", "lng", "radius_m")),
    *(Row("/id", value) for value in (*WRONG_IDS, *WRONG_TEXTS)),
    *(Row("/category", value) for value in WRONG_TEXTS),
    *(Row("/headline", value) for value in (*WRONG_TEXTS, "", " ", "\u2003\u00a0", TEXT + "x" * 128)),
    *(Row("/headline", f"{TEXT}{control}") for control in (*CONTROLS, "\n", "\t", "\r")),
    *(Row("/description", value) for value in (*WRONG_TEXTS, TEXT + "x" * 988)),
    *(Row("/description", f"{TEXT}{control}") for control in (*CONTROLS, "\t", "\r")),
    *(Row("/severity", value) for value in (*WRONG_TEXTS, "", TEXT, "Severe", "unknown", "severe ")),
    *(Row("/status", value) for value in (*WRONG_TEXTS, "", TEXT, "Actual", "draft")),
    *(Row("/threat", value) for value in (*WRONG_TEXTS, "", TEXT, "Community")),
    *(Row("/occurred_at", value) for value in WRONG_TIMES),
    *(Row("/expires_at", value) for value in WRONG_TIMES),
    *(Row("/approval/approved_at", value) for value in WRONG_TIMES),
    *(Row("/approval", value) for value in WRONG_OBJECTS),
    *(Row("/approval/reviewer", value) for value in (*WRONG_TEXTS, "", TEXT + "x" * 117, f"{TEXT}\n")),
    *(Row("/area", value) for value in (TEXT, 7391, True, None, [])),
    *(Row("/area/type", value) for value in (*WRONG_TEXTS, "", TEXT, "Circle", "polygon")),
    *(Row("/area/lat", value) for value in (*WRONG_NUMBERS, 90.007391, -90.007391, 7391)),
    *(Row("/area/lng", value) for value in (*WRONG_NUMBERS, 180.007391, -180.007391, 7391)),
    *(Row("/area/radius_m", value) for value in (*WRONG_NUMBERS, 0, -0.0, -0.7391, -7391)),
]

LIST_ROWS = [
    Row("/area/0", TEXT),
    Row("/area/1", [circle((1, 1))]),
    Row("/area/2", None),
    Row("/area/1/lat", "7391"),
    Row("/area/2/type", TEXT),
    Row("/area/0/lng", GONE, "missing-field"),
    Row("/area/2/radius_m", 0),
    Row("/area/1/street", TEXT, "unknown-field"),
]

UNKNOWN_ROWS = [
    Row("/caller_name", TEXT, "unknown-field"),
    Row("/Units", 7391, "unknown-field"),
    Row("/address", {"street": TEXT}, "unknown-field"),
    Row("/notes", None, "unknown-field"),
    Row("/title", TEXT, "unknown-field"),
    Row("/source", TEXT, "unknown-field"),
    Row("/issued_at", TEXT, "unknown-field"),
    Row("/revision", 1, "unknown-field"),
    Row("/geohash_12", TEXT, "unknown-field"),
    Row("/_", TEXT, "unknown-field"),
    Row(f"/{'x' * 40}", TEXT, "unknown-field"),
    Row(f"/{'x' * 41}", TEXT, "unknown-field", ""),
    Row("/phone_7391", TEXT, "unknown-field", ""),
    Row("/7391", TEXT, "unknown-field", ""),
    Row("/call 7391 now", TEXT, "unknown-field", ""),
    Row("/12_Elm_Street_7391", TEXT, "unknown-field", ""),
    Row("/caller-name", TEXT, "unknown-field", ""),
    Row("/caller.name", TEXT, "unknown-field", ""),
    Row("/", TEXT, "unknown-field", ""),
    Row("/naïve", TEXT, "unknown-field", ""),
    Row("/٧٣٩", TEXT, "unknown-field", ""),
    Row("/x\n", TEXT, "unknown-field", ""),
    Row("/area/street", TEXT, "unknown-field"),
    Row("/area/unit7391", TEXT, "unknown-field", "/area"),
    Row("/area/accuracy_m", 7391, "unknown-field"),
    Row("/approval/badge", TEXT, "unknown-field"),
    Row("/approval/badge7391", TEXT, "unknown-field", "/approval"),
]

RULE_ROWS = [
    Row("/category", f"flood{CANARY}", "category-not-alertable"),
    Row("/category", "", "category-not-alertable"),
    Row("/category", "Burglary", "category-not-alertable"),
    Row("/category", "assault", "category-not-alertable"),
    Row("/category", "bomb_threat", "category-not-alertable"),
    Row("/threat", "individual", "not-community"),
    Row("/area/radius_m", 99.99, "radius-out-of-range"),
    Row("/area/radius_m", 0.0007391, "radius-out-of-range"),
    Row("/area/radius_m", 20_000.01, "radius-out-of-range"),
    Row("/area/radius_m", 24_000, "radius-out-of-range"),
]

TIME_RULE_ROWS = [  # pointer, seconds from now, problem type, other times
    ("/occurred_at", -3_700, "stale", {}),
    ("/occurred_at", -86_400 * 365, "stale", {}),
    ("/occurred_at", 90, "not-yet", {"approved_at": 95}),
    ("/approval/approved_at", -200, "not-approved", {}),
    ("/approval/approved_at", 90, "not-approved", {}),
    ("/expires_at", -1, "expiry-out-of-range", {}),
    ("/expires_at", -30, "expiry-out-of-range", {}),
    ("/expires_at", 3_600, "expiry-out-of-range", {}),
    ("/expires_at", 86_400, "expiry-out-of-range", {}),
]


@pytest.mark.parametrize("row", named(FIELD_ROWS + UNKNOWN_ROWS + RULE_ROWS))
def test_error_about_an_invalid_field_has_its_type_and_pointer(node: Node, row: Row):
    """Each case breaks one rule (sections 2 and 3)."""
    body = put(alert(ground()), row.pointer, row.value)
    check(node.post("/v1/alerts", body), 422, row.errors)


def test_radius_larger_than_the_earth_is_refused_as_out_of_range_and_unconfirmed(node: Node):
    """Both errors are listed; the circle covers the whole earth (rules P7, P9 and P23)."""
    errors = [("radius-out-of-range", "/area/radius_m"), ("area-unconfirmed", "/area")]
    answer = node.post("/v1/alerts", alert(ground(), area=circle(ground(), 7391e9)))
    check(answer, 422, errors)
    assert answer.json()["errors"][1]["area_km2"] == 510_065_621.8


@pytest.mark.parametrize("row", named(LIST_ROWS))
def test_error_about_an_invalid_shape_has_its_index(node: Node, row: Row):
    """The pointer names the shape in the list (section 2, `area`)."""
    body = put(alert(ground(), area=[circle(ground()) for _ in range(3)]), row.pointer, row.value)
    check(node.post("/v1/alerts", body), 422, row.errors)


def test_sixteen_shapes_are_accepted_and_seventeen_are_refused(node: Node):
    """An area has 1 to 16 shapes (section 2, `area`)."""
    spot = ground()
    check(node.post("/v1/alerts", alert(spot, area=[circle(spot)] * 17)), 422, [("invalid-value", "/area")])
    assert len(node.publish(alert(spot, area=[circle(spot)] * 16))["area"]) == 16


def test_each_radius_of_an_area_is_checked(node: Node):
    """Each requested radius must be within the category's bounds (section 3)."""
    spot = ground()
    area = [circle(spot, 50), circle(spot, 100), circle(spot, 20_001)]
    errors = [("radius-out-of-range", f"/area/{i}/radius_m") for i in (0, 2)]
    check(node.post("/v1/alerts", alert(spot, area=area)), 422, errors)


@pytest.mark.parametrize(("pointer", "seconds", "slug", "extra"), TIME_RULE_ROWS)
def test_time_outside_its_allowed_range_is_refused(node: Node, pointer: str, seconds: float, slug: str, extra: Json):
    """The problems are `stale`, `not-yet`, `not-approved` and `expiry-out-of-range` (section 3)."""
    body = put(alert(ground()), pointer, stamp(seconds=seconds))
    if "approved_at" in extra:
        body = put(body, "/approval/approved_at", stamp(seconds=extra["approved_at"]))
        check(node.post("/v1/alerts", body), 422, [("not-approved", "/approval/approved_at"), (slug, pointer)])
    else:
        check(node.post("/v1/alerts", body), 422, [(slug, pointer)])


# ---- several errors at once --------------------------------------------------------------------------------------


def test_all_invalid_fields_are_listed_in_order(node: Node):
    """The order is that of section 2, whatever the body's order is (section 4, "Errors")."""
    body = {
        "approval": {"reviewer": "", "approved_at": TEXT},
        "area": {"type": "circle", "lat": 91, "lng": 181, "radius_m": -1},
        "expires_at": TEXT,
        "occurred_at": TEXT,
        "threat": TEXT,
        "status": TEXT,
        "severity": TEXT,
        "description": 7391,
        "category": 7391,
        "id": "",
    }
    fields = ["/id", "/category", "/headline", "/description", "/severity", "/status", "/threat"]
    fields += ["/occurred_at", "/expires_at", "/area/lat", "/area/lng", "/area/radius_m"]
    fields += ["/approval/reviewer", "/approval/approved_at"]
    slugs = ["missing-field" if field == "/headline" else "invalid-value" for field in fields]
    check(node.post("/v1/alerts", body), 422, list(zip(slugs, fields, strict=True)))


def test_all_broken_policy_rules_are_listed_in_order(node: Node):
    """The list does not end with the first broken rule (section 3)."""
    body = alert(ground(), threat="individual", occurred_at=stamp(seconds=-7_200), area=circle(ground(), 9))
    body |= {"approval": approval(approved_at=stamp(seconds=-8_000)), "expires_at": stamp(seconds=-60)}
    errors = [
        ("not-community", "/threat"),
        ("not-approved", "/approval/approved_at"),
        ("stale", "/occurred_at"),
        ("expiry-out-of-range", "/expires_at"),
        ("radius-out-of-range", "/area/radius_m"),
    ]
    check(node.post("/v1/alerts", body), 422, errors)


def test_alert_of_unknown_category_is_not_checked_for_age_expiry_or_radius(node: Node):
    """A rule with unusable inputs is not checked (section 3)."""
    body = alert(ground(), category="flood", threat="individual", occurred_at=stamp(seconds=-7_200))
    body |= {"area": circle(ground(), 9)}
    errors = [("category-not-alertable", "/category"), ("not-community", "/threat")]
    check(node.post("/v1/alerts", body), 422, errors)


def test_invalid_fields_are_listed_before_broken_policy_rules(node: Node):
    """The problem type is that of the first error (section 4, "Order of decisions")."""
    body = alert(ground(), headline="", threat="individual", area=circle(ground(), 9))
    errors = [
        ("invalid-value", "/headline"),
        ("not-community", "/threat"),
        ("radius-out-of-range", "/area/radius_m"),
    ]
    check(node.post("/v1/alerts", body), 422, errors)


def test_unknown_field_is_listed_with_the_other_errors(node: Node):
    """An unknown field is one error among others (section 2)."""
    problem = problem_of(node.post("/v1/alerts", alert(ground(), headline="", phone=TEXT)), 422)
    found = {(error["type"], error["pointer"]) for error in problem["errors"]}
    assert found == {("/problems/invalid-value", "/headline"), ("/problems/unknown-field", "/phone")}


def test_error_repeats_a_refused_category_only_if_it_is_on_the_never_list(node: Node):
    """Other refused categories are not repeated (section 4)."""
    answer = node.post("/v1/alerts", alert(ground(), category="assault"))
    assert_problem(answer, 422, "category-not-alertable")
    other = node.post("/v1/alerts", alert(ground(), category="gas_leak_tango"))
    assert_problem(other, 422, "category-not-alertable")
    assert "tango" not in other.text


# ---- cancels -----------------------------------------------------------------------------------------------------


CANCEL_ROWS = [
    Row("/revision", GONE, "missing-field"),
    Row("/reason", GONE, "missing-field"),
    Row("/approval", GONE, "missing-field"),
    Row("/approval/reviewer", GONE, "missing-field"),
    *(Row("/revision", value) for value in (0, -7391, 2**31, 2.5, True, "7391", None)),
    *(Row("/reason", value) for value in (*WRONG_TEXTS, "", TEXT + "x" * 268, f"{TEXT}\n", f"{TEXT}\x07")),
    *(Row("/approval/approved_at", value) for value in WRONG_TIMES[:3]),
    Row("/headline", TEXT, "unknown-field"),
    Row("/by7391", TEXT, "unknown-field", ""),
]


@pytest.fixture(scope="module")
def victim(node: Node) -> str:
    """The id of an alert that every invalid cancel tries to cancel."""
    return node.publish(alert(ground()))["id"]


@pytest.mark.parametrize("row", named(CANCEL_ROWS))
def test_invalid_cancel_is_refused(node: Node, victim: str, row: Row):
    """A cancel's body is checked as strictly as an alert's (section 4, `cancel`)."""
    body = put(cancel_body(2), row.pointer, row.value)
    check(node.post(f"/v1/alerts/{victim}/cancel", body), 422, row.errors)
    assert node.state(victim)["state"] == "live"


def test_cancel_reason_with_a_lone_surrogate_is_refused(node: Node, victim: str):
    """The answer is 422 `invalid-value` (section 2)."""
    text = text_of(cancel_body(2, reason="HERE"), '"HERE"', '"a\\ud800"')
    check(send(node, text.encode(), f"/v1/alerts/{victim}/cancel"), 422, [("invalid-value", "/reason")])
    assert node.state(victim)["state"] == "live"
