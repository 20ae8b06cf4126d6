"""Every bad request gets its documented answer, repeats nothing of what it refused, and stores nothing.

Most of the file is tables. Whatever a row puts into a request carries `CANARY`, which must never come back.
A 422 names each broken field or rule with a problem type and a JSON Pointer, in the contract's order.
"""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, approval, cancel_body, circle, ground, new_id, revision_of
from end_to_end.kit.keys import DESK_SCOPE, Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.times import stamp

CANARY = "7391"
TEXT = f"tango{CANARY}uniform"
GONE = object()
KIB64 = 64 * 1024


class Row(NamedTuple):
    """One bad field: where it is, what it is, and the answer's problem type and pointer."""

    pointer: str
    value: Any
    slug: str = "invalid-value"
    told_at: str | None = None

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(self.slug, self.pointer if self.told_at is None else self.told_at)]


def put(body: Json, pointer: str, value: Any) -> Json:
    """A copy of a body with the value at a JSON Pointer set, or taken away if it is `GONE`."""
    changed = copy.deepcopy(body)
    *parents, name = (int(part) if part.isdigit() else part for part in pointer.split("/")[1:])
    target: Any = changed
    for parent in parents:
        target = target[parent]
    if value is GONE:
        del target[name]
    else:
        target[name] = value
    return changed


def check(answer: httpx.Response, status: int, errors: list[tuple[str, str]]) -> None:
    """A problem with this status and exactly these errors, in order, which repeats nothing."""
    problem = problem_of(answer, status)
    found = [(error["type"].removeprefix("/problems/"), error["pointer"]) for error in problem["errors"]]
    assert found == errors
    assert problem["type"] == f"/problems/{errors[0][0]}"
    assert all(error["detail"] for error in problem["errors"])


def problem_of(answer: httpx.Response, status: int) -> Json:
    """A well-formed RFC 9457 problem of this status."""
    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text, "no error repeats a refused value"
    assert answer.headers["content-type"].split(";")[0] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("/problems/")
    assert problem["title"]
    assert problem["detail"]
    return problem


def assert_problem(answer: httpx.Response, status: int, slug: str) -> Json:
    """A problem of this status and type."""
    problem = problem_of(answer, status)
    assert problem["type"] == f"/problems/{slug}"
    return problem


# -- section 2: the fields

WRONG_TEXTS = (7391, 7391.5, True, None, [TEXT], {"text": TEXT})
WRONG_NUMBERS = ("7391", "", True, False, None, [7391], {"n": 7391})
WRONG_OBJECTS = (TEXT, 7391, True, None, [TEXT])
WRONG_IDS = (
    "",
    f"-{TEXT}",
    f".{TEXT}",
    f":{TEXT}",
    f"_{TEXT}",
    f"{TEXT} x",
    f"{TEXT}/x",
    f"{TEXT}\n",
    f"{TEXT}é",
    f"é{TEXT}",
    f"{TEXT}%20",
    TEXT + "x" * (129 - len(TEXT)),
)
WRONG_TIMES = (
    "",
    f"2026-01-01T{CANARY}",
    f"2026-01-01T10:00:00.{CANARY}",
    f"2026-01-01 10:00:00.{CANARY}Z",
    f"2026-01-01t10:00:00.{CANARY}Z",
    f"2026-01-01T10:00:00.{CANARY}z",
    f"2026-01-01T10:00:00,{CANARY}Z",
    f"2026-01-01T10:00:00.{CANARY}123456Z",
    "2026-01-01T10:00:00.Z",
    "2026-01-01T10:00Z",
    "2026-01-01T10:00:00",
    "2026-01-01",
    f"2026-01-01T10:00:60.{CANARY}Z",
    f"2016-12-31T23:59:60.{CANARY}Z",
    f"2026-01-01T10:60:00.{CANARY}Z",
    f"2026-01-01T24:00:00.{CANARY}Z",
    f"2026-02-30T10:00:00.{CANARY}Z",
    f"2025-02-29T10:00:00.{CANARY}Z",
    f"2026-13-01T10:00:00.{CANARY}Z",
    f"2026-00-01T10:00:00.{CANARY}Z",
    f"2026-01-00T10:00:00.{CANARY}Z",
    f"1969-12-31T23:59:59.{CANARY}Z",
    f"0000-01-01T10:00:00.{CANARY}Z",
    f"+2026-01-01T10:00:00.{CANARY}Z",
    f"26-01-01T10:00:00.{CANARY}Z",
    f"2026-1-01T10:00:00.{CANARY}Z",
    f"2026-01-01T10:00:00.{CANARY}+0000",
    f"2026-01-01T10:00:00.{CANARY}+00",
    f"2026-01-01T10:00:00.{CANARY}+99:99",
    f"2026-01-01T10:00:00.{CANARY} Z",
    f" 2026-01-01T10:00:00.{CANARY}Z",
    f"2026-01-01T10:00:00.{CANARY}Z\n",
    f"2026-01-01T10:00:00.{CANARY}ZZ",
    f"2026-01-01T10:00:00.{CANARY}[Z]",
    f"２０２６-01-01T10:00:00.{CANARY}Z",
    f"2026-001T10:00:00.{CANARY}Z",
    f"2026-W01-1T10:00:00.{CANARY}Z",
    f"20260101T100000.{CANARY}Z",
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

TIME_RULE_ROWS = [  # seconds from now
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


def named(rows: list[Row]) -> list[Any]:
    """The rows as parameters; the number keeps the names apart."""
    return [pytest.param(row, id=f"{i}-{row.slug}-{row.pointer!a}") for i, row in enumerate(rows)]


@pytest.mark.parametrize("row", named(FIELD_ROWS + UNKNOWN_ROWS + RULE_ROWS))
def test_a_bad_field_is_refused_by_type_and_pointer(node: Node, row: Row):
    """Sections 2 and 3, one broken rule at a time."""
    body = put(alert(ground()), row.pointer, row.value)
    check(node.post("/v1/alerts", body), 422, row.errors)


def test_a_radius_beyond_the_earth_is_out_of_range_and_held(node: Node):
    """P7, P9, P23: both are said; it covers all that there is."""
    errors = [("radius-out-of-range", "/area/radius_m"), ("area-unconfirmed", "/area")]
    answer = node.post("/v1/alerts", alert(ground(), area=circle(ground(), 7391e9)))
    check(answer, 422, errors)
    assert answer.json()["errors"][1]["area_km2"] == 510_065_621.8


@pytest.mark.parametrize("row", named(LIST_ROWS))
def test_a_bad_shape_in_a_list_is_named_by_its_number(node: Node, row: Row):
    """Section 2, `area`: a list of shapes; the pointer names the one."""
    body = put(alert(ground(), area=[circle(ground()) for _ in range(3)]), row.pointer, row.value)
    check(node.post("/v1/alerts", body), 422, row.errors)


def test_seventeen_shapes_are_refused_and_sixteen_are_not(node: Node):
    """Section 2, `area`: 1 to 16."""
    spot = ground()
    check(node.post("/v1/alerts", alert(spot, area=[circle(spot)] * 17)), 422, [("invalid-value", "/area")])
    assert len(node.publish(alert(spot, area=[circle(spot)] * 16))["area"]) == 16


def test_each_radius_is_judged(node: Node):
    """Section 3: each requested radius lies within the category's bounds."""
    spot = ground()
    area = [circle(spot, 50), circle(spot, 100), circle(spot, 20_001)]
    errors = [("radius-out-of-range", f"/area/{i}/radius_m") for i in (0, 2)]
    check(node.post("/v1/alerts", alert(spot, area=area)), 422, errors)


@pytest.mark.parametrize(("pointer", "seconds", "slug", "extra"), TIME_RULE_ROWS)
def test_a_time_out_of_bounds_is_refused(node: Node, pointer: str, seconds: float, slug: str, extra: Json):
    """Section 3: stale, not yet, not approved, expiry out of range."""
    body = put(alert(ground()), pointer, stamp(seconds=seconds))
    if "approved_at" in extra:
        body = put(body, "/approval/approved_at", stamp(seconds=extra["approved_at"]))
        check(node.post("/v1/alerts", body), 422, [("not-approved", "/approval/approved_at"), (slug, pointer)])
    else:
        check(node.post("/v1/alerts", body), 422, [(slug, pointer)])


# -- several at once


def test_every_broken_field_is_listed_in_the_order_of_the_table(node: Node):
    """Section 4, "Errors": one for each field, in the order of section 2, whatever the body's order."""
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


def test_every_broken_rule_is_listed_in_the_order_of_the_table(node: Node):
    """Section 3: every rule that is broken is listed, not only the first."""
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


def test_of_an_unknown_category_no_age_expiry_or_radius_is_judged(node: Node):
    """Section 3: a rule whose inputs are unusable is not judged."""
    body = alert(ground(), category="flood", threat="individual", occurred_at=stamp(seconds=-7_200))
    body |= {"area": circle(ground(), 9)}
    errors = [("category-not-alertable", "/category"), ("not-community", "/threat")]
    check(node.post("/v1/alerts", body), 422, errors)


def test_broken_rules_are_listed_with_broken_fields(node: Node):
    """Section 4, "Order of decisions": the fields first, then the rules; the type is the first's."""
    body = alert(ground(), headline="", threat="individual", area=circle(ground(), 9))
    errors = [
        ("invalid-value", "/headline"),
        ("not-community", "/threat"),
        ("radius-out-of-range", "/area/radius_m"),
    ]
    check(node.post("/v1/alerts", body), 422, errors)


def test_an_unknown_field_is_listed_with_the_others(node: Node):
    """Section 2: an unknown field is one error among the others."""
    problem = problem_of(node.post("/v1/alerts", alert(ground(), headline="", phone=TEXT)), 422)
    found = {(error["type"], error["pointer"]) for error in problem["errors"]}
    assert found == {("/problems/invalid-value", "/headline"), ("/problems/unknown-field", "/phone")}


def test_a_category_that_is_never_alerted_may_be_named_and_no_other(node: Node):
    """Section 4: a category may be named if it is on the policy's never-list."""
    answer = node.post("/v1/alerts", alert(ground(), category="assault"))
    assert_problem(answer, 422, "category-not-alertable")
    other = node.post("/v1/alerts", alert(ground(), category="gas_leak_tango"))
    assert_problem(other, 422, "category-not-alertable")
    assert "tango" not in other.text


# -- JSON


def text_of(node_body: Json, old: str, new: str) -> str:
    """The body's JSON with one piece replaced."""
    text = json.dumps(node_body)
    assert old in text
    return text.replace(old, new, 1)


MALFORMED = {
    "empty": "",
    "white space": "  ",
    "only null": "null",
    "a list": '[{"id":"a7391"}]',
    "a text": '"a7391"',
    "a number": "7391",
    "cut off": '{"id":"a7391"',
    "one too many": '{"id":"a7391"}}',
    "two values": '{"id":"a7391"} {"id":"a7391"}',
    "trailing comma": '{"id":"a7391",}',
    "single quotes": "{'id':'a7391'}",
    "bare key": '{id:"a7391"}',
    "comment": '{"id":"a7391"/* x */}',
    "NaN": '{"x":NaN,"id":"a7391"}',
    "Infinity": '{"x":Infinity,"id":"a7391"}',
    "minus Infinity": '{"x":-Infinity,"id":"a7391"}',
    "leading zero": '{"x":07391}',
    "plus sign": '{"x":+7391}',
    "bare fraction": '{"x":.7391}',
    "bare point": '{"x":7391.}',
    "hexadecimal": '{"x":0x7391}',
    "raw line feed in a text": '{"id":"a\n7391"}',
    "raw NUL in a text": '{"id":"a\x007391"}',
    "bad escape": '{"id":"\\x7391"}',
    "half an escape": '{"id":"\\u73"}',
    "duplicate key": '{"id":"a7391","id":"b7391"}',
    "duplicate key by escape": '{"id":"a7391","\\u0069d":"b7391"}',
    "duplicate key deep inside": '{"x":[{"y":7391,"y":7391}]}',
    "depth 33": '{"x":' + "[" * 32 + "]" * 32 + "}",
    "depth 10,000": '{"x":' + "[" * 10_000 + "]" * 10_000 + "}",
    "depth 33 in objects": '{"x":' * 33 + "7391" + "}" * 33,
    "depth 30,000, never closed": "[" * 30_000,
}
MALFORMED_BYTES = {
    "byte-order mark": b'\xef\xbb\xbf{"id":"a7391"}',
    "bad UTF-8": b'{"id":"a7391\xff"}',
    "overlong UTF-8": b'{"id":"a7391\xc0\xaf"}',
    "surrogate in UTF-8": b'{"id":"a7391\xed\xa0\x80"}',
    "UTF-16": '{"id":"a7391"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"id":"a7391"}'.encode("utf-16-le"),
    "Latin-1": '{"id":"é7391"}'.encode("latin-1"),
    "gzip": b"\x1f\x8b\x08\x00\x00",
}
BAD_BODIES = {name: text.encode() for name, text in MALFORMED.items()} | MALFORMED_BYTES

STRANGE_VALUES = {
    "/area/lat": ("1e999", "-1e999", "1" + "0" * 400, "9" * 5_000, "7391e308"),
    "/area/radius_m": ("1e999", "1" + "0" * 400, "9" * 5_000),
    "/headline": ('"a\\ud800"', '"\\udc00b"', '"\\udc00\\ud800"', '"a\\u0000"', '"a\\u009f"'),
    "/id": ('"a\\ud800"', '"a\\u0000"'),
    "/category": ('"a\\ud800"', '"a\\u0000"'),
    "/description": ('"a\\ud800"', '"\\ud83c \\udf0d"'),
    "/approval/reviewer": ('"a\\ud800"',),
}


def send(node: Node, content: bytes, path: str = "/v1/alerts", **headers: str) -> httpx.Response:
    """POST bytes as they are."""
    headers = {"Content-Type": "application/json"} | bearer(node.desk) | headers
    return node.api.post(path, content=content, headers=headers)


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_what_is_no_strict_json_is_malformed(node: Node, body: bytes):
    """Section 2, "Lexical rules": 400."""
    assert_problem(send(node, body), 400, "malformed-json")


@pytest.mark.parametrize(
    ("pointer", "literal"), [(pointer, text) for pointer, texts in STRANGE_VALUES.items() for text in texts]
)
def test_a_value_that_json_allows_and_no_field_does_is_an_invalid_value(node: Node, pointer: str, literal: str):
    """Section 2: numbers outside double range, lone surrogates, control characters are 422."""
    body = put(alert(ground()), pointer, "HERE")
    check(send(node, text_of(body, '"HERE"', literal).encode()), 422, [("invalid-value", pointer)])


def test_depth_32_is_not_too_deep(node: Node):
    """Section 2: nesting deeper than 32 is 400; at 32 it is only an unknown field."""
    body = text_of(alert(ground(), notes="HERE"), '"HERE"', "[" * 31 + "]" * 31)
    check(send(node, body.encode()), 422, [("unknown-field", "/notes")])


def test_a_key_with_a_lone_surrogate_is_refused_without_being_named(node: Node):
    """Section 4: `pointer` names an unknown field only if its name is plain."""
    body = text_of(alert(ground(), HERE=7391), '"HERE"', '"\\ud800"')
    problem = problem_of(send(node, body.encode()), 422)
    assert {error["pointer"] for error in problem["errors"]} == {""}


def test_bad_revisions_of_an_alert_are_refused(node: Node):
    """Section 2: integers are 1 to 2^31-1 and written as integers; Booleans are none."""
    body = alert(ground())
    node.publish(body)
    for literal in ("0", "-1", "2147483648", "2.0", "2e0", "true", '"2"', "null", "[2]", "1e999"):
        text = text_of(revision_of(body, 2) | {"revision": "HERE"}, '"HERE"', literal)
        answer = send(node, text.encode(), f"/v1/alerts/{body['id']}/revisions")
        check(answer, 422, [("invalid-value", "/revision")])
    answer = node.post(f"/v1/alerts/{body['id']}/revisions", body)
    check(answer, 422, [("missing-field", "/revision")])
    assert node.state(body["id"])["alert"]["revision"] == 1


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
    """The id of an alert that every bad cancel tries to cancel."""
    return node.publish(alert(ground()))["id"]


@pytest.mark.parametrize("row", named(CANCEL_ROWS))
def test_a_bad_cancel_is_refused(node: Node, victim: str, row: Row):
    """Section 4, `cancel`: its body is as strict as an alert's."""
    body = put(cancel_body(2), row.pointer, row.value)
    check(node.post(f"/v1/alerts/{victim}/cancel", body), 422, row.errors)
    assert node.state(victim)["state"] == "live"


def test_a_reason_with_a_lone_surrogate_is_refused(node: Node, victim: str):
    """Section 2: 422 `invalid-value`, in a cancel too."""
    text = text_of(cancel_body(2, reason="HERE"), '"HERE"', '"a\\ud800"')
    check(send(node, text.encode(), f"/v1/alerts/{victim}/cancel"), 422, [("invalid-value", "/reason")])
    assert node.state(victim)["state"] == "live"


# -- order of decisions

NO_SCOPE = "alerts:receive alerts:test alerts:manage"


def test_the_body_is_too_large_beyond_64_kib_and_not_before(node: Node):
    """Section 4: 413 over 64 KiB, whether its length is announced or not."""
    text = json.dumps(alert(ground()))
    assert send(node, text.ljust(KIB64).encode()).status_code == 201
    assert_problem(send(node, text.ljust(KIB64 + 1).encode()), 413, "too-large")
    headers = {"Content-Type": "application/json"} | bearer(node.desk)
    chunks = (text.ljust(KIB64).encode() for _ in range(2))
    assert_problem(node.api.post("/v1/alerts", content=chunks, headers=headers), 413, "too-large")


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/problem+xml", ""]
)
def test_other_media_types_are_not_supported(node: Node, media: str):
    """Section 4: 415."""
    body = json.dumps(alert(ground(), headline=TEXT)).encode()
    assert_problem(send(node, body, **{"Content-Type": media}), 415, "unsupported-media-type")


def test_no_media_type_is_not_supported(node: Node):
    """Section 4: 415 without a Content-Type, too."""
    body = json.dumps(alert(ground(), headline=TEXT)).encode()
    answer = node.api.post("/v1/alerts", content=body, headers=bearer(node.desk))
    assert_problem(answer, 415, "unsupported-media-type")


def test_json_with_a_charset_is_json(node: Node):
    """Section 4, "JSON in and out": a parameter of the media type does no harm."""
    body = json.dumps(alert(ground())).encode()
    assert send(node, body, **{"Content-Type": "application/json; charset=utf-8"}).status_code == 201


HUGE = b"7391" * (KIB64 // 2)
PLAIN = {"Content-Type": "text/plain"}
ORDER = [  # scope (None: no token), method, path, body, headers, status, slug
    (None, "POST", "/v1/nowhere", HUGE, PLAIN, 401, "unauthorized"),
    (None, "GET", "/v1/nowhere", b"", {}, 401, "unauthorized"),
    (None, "DELETE", "/v1/alerts", b"", {}, 401, "unauthorized"),
    (None, "POST", "/v1/alerts", b"{7391", {}, 401, "unauthorized"),
    (NO_SCOPE, "POST", "/v1/alerts", HUGE, PLAIN, 403, "insufficient-scope"),
    (NO_SCOPE, "POST", "/v1/alerts", b"{7391", {}, 403, "insufficient-scope"),
    ("", "POST", "/v1/alerts", b"{}", {}, 403, "insufficient-scope"),
    (DESK_SCOPE, "POST", "/v1/nowhere", HUGE, PLAIN, 404, "not-found"),
    (DESK_SCOPE, "GET", "/v1", b"", {}, 404, "not-found"),
    (DESK_SCOPE, "GET", "/v2", b"", {}, 404, "not-found"),
    (DESK_SCOPE, "GET", "/v1/alerts/a/b/c", b"", {}, 404, "not-found"),
    (DESK_SCOPE, "PUT", "/v1/alerts", HUGE, PLAIN, 405, "method-not-allowed"),
    (DESK_SCOPE, "DELETE", "/v1/alerts", b"", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "PATCH", "/v1/alerts/some-alert", b"{}", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "GET", "/v1/alerts/some-alert/cancel", b"", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "GET", "/v1/alerts/some-alert/revisions", b"", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "POST", "/v1/policy", b"{}", {}, 405, "method-not-allowed"),
    (DESK_SCOPE, "POST", "/v1/alerts", HUGE, PLAIN, 413, "too-large"),
    (DESK_SCOPE, "POST", "/v1/alerts", b"{7391", PLAIN, 415, "unsupported-media-type"),
    (DESK_SCOPE, "POST", "/v1/alerts", b"{7391", {}, 400, "malformed-json"),
    (DESK_SCOPE, "POST", "/v1/alerts/some-alert/cancel", b"[7391]", {}, 400, "malformed-json"),
    (DESK_SCOPE, "POST", "/v1/alerts/some-alert/cancel", b"{}", {}, 422, "missing-field"),
    (DESK_SCOPE, "POST", "/v1/alerts/some-alert/revisions", b"{}", {}, 422, "missing-field"),
]


@pytest.mark.parametrize(("scope", "method", "path", "body", "headers", "status", "slug"), ORDER)
def test_the_first_decision_that_fits_wins(
    node: Node, scope: str | None, method: str, path: str, body: bytes, headers: Json, status: int, slug: str
):
    """Section 4, "Order of decisions"."""
    token = None if scope is None else node.keys.token(scope=scope)
    headers = {"Content-Type": "application/json"} | bearer(token) | headers
    answer = node.api.request(method, path, content=body, headers=headers)
    assert_problem(answer, status, slug)


# -- tokens


def test_anything_wrong_with_a_token_gets_one_and_the_same_answer(node: Node, keys: Keys):
    """Section 6; with `WWW-Authenticate`."""
    body, answers = alert(ground()), set()
    for name, token in keys.bad_tokens().items():
        answer = node.post("/v1/alerts", body, token)
        assert answer.status_code == 401, name
        assert "bearer" in answer.headers["www-authenticate"].lower()
        assert_problem(answer, 401, "unauthorized")
        answers.add((answer.text, answer.headers["www-authenticate"]))
    assert len(answers) == 1
    assert node.get(f"/v1/alerts/{body['id']}").status_code == 404


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic ZGVzazo3Mzkx", "Token x7391", "x7391"])
def test_no_bearer_token_is_unauthorized(node: Node, header: str | None):
    """Section 4: `Authorization: Bearer <JWT>`."""
    headers = {} if header is None else {"Authorization": header}
    assert_problem(node.api.get("/v1/alerts", headers=headers), 401, "unauthorized")


@pytest.mark.parametrize("call", ["/v1/alerts", "/v1/alerts/some-alert", "/v1/policy"])
def test_every_call_but_the_open_ones_needs_a_token(node: Node, call: str):
    """Section 4, the table."""
    assert_problem(node.api.get(call), 401, "unauthorized")


@pytest.mark.parametrize("sub", ["Jane Doe 7391", "desk@7391", "-desk7391", "d" * 129, "désk7391", "desk7391\n"])
def test_a_publisher_whose_sub_is_no_id_may_not_publish(node: Node, keys: Keys, sub: str):
    """Section 6: a publisher's `sub` matches the grammar of `id`, else 403."""
    problem_of(node.post("/v1/alerts", alert(ground()), keys.token(sub=sub)), 403)


GOOD_CLAIMS: dict[str, Json] = {
    "aud in a list": {"aud": ["other", "geocast"]},
    "nbf in the past": {"nbf": 1},
    "more scopes": {"scope": "alerts:publish other:scope"},
    "more claims": {"name": "desk", "iat": 1},
}


@pytest.mark.parametrize("claims", GOOD_CLAIMS.values(), ids=GOOD_CLAIMS.keys())
def test_a_good_token_is_good(node: Node, keys: Keys, claims: Json):
    """Section 6: the claims that are asked for, and any others."""
    node.publish(alert(ground()), keys.token(**claims))


def test_an_hs256_key_that_says_so_is_good(node: Node, keys: Keys):
    """Section 6: `oct` keys with HS256 for development."""
    token = keys.signed(keys.claims(), key=keys.secret, alg="HS256", kid="hs")
    node.publish(alert(ground()), token)


# -- 404, 403, 410, 409


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_an_alert_that_was_never_published_is_unknown(node: Node, call: str):
    """Section 4: 404, for a revision and a cancel."""
    name = new_id()
    body = cancel_body(2) if call == "cancel" else revision_of(alert(ground(), id=name), 2)
    assert_problem(node.post(f"/v1/alerts/{name}/{call}", body), 404, "unknown-alert")


def test_get_of_an_alert_that_was_never_published_is_404(node: Node):
    """Section 4, `GET /v1/alerts/{id}`."""
    assert_problem(node.get(f"/v1/alerts/{new_id()}"), 404, "unknown-alert")


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_another_publishers_alert_needs_the_scope_to_manage(node: Node, keys: Keys, call: str):
    """Section 4: 403 `not-yours`, before 409 and 410; with `alerts:manage` it works."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/{call}"

    def attempt(number: int) -> Json:
        return cancel_body(number) if call == "cancel" else revision_of(body, number)

    other = keys.token(sub="desk-two", scope=DESK_SCOPE)
    assert_problem(node.post(path, attempt(2), other), 403, "not-yours")
    assert_problem(node.post(path, attempt(9), other), 403, "not-yours")
    manager = keys.token(sub="desk-two", scope=f"{DESK_SCOPE} alerts:manage")
    assert node.post(path, attempt(2), manager).status_code == 201


@pytest.mark.parametrize("call", ["revisions", "cancel"])
def test_a_cancelled_alert_has_ended(node: Node, keys: Keys, call: str):
    """Section 4: 410, after 403 `not-yours` and before 409."""
    body = alert(ground())
    node.publish(body)
    node.cancel(body["id"], 2)
    path = f"/v1/alerts/{body['id']}/{call}"
    attempt = cancel_body(3, reason="Again") if call == "cancel" else revision_of(body, 3)
    assert_problem(node.post(path, attempt), 410, "alert-ended")
    assert_problem(node.post(path, attempt | {"revision": 7}), 410, "alert-ended")
    other = keys.token(sub="desk-two", scope=DESK_SCOPE)
    assert_problem(node.post(path, attempt, other), 403, "not-yours")


@pytest.mark.parametrize("number", [1, 3, 2**31 - 1])
def test_a_number_that_is_not_the_next_conflicts(node: Node, number: int):
    """Section 4: 409 `revision-conflict`, with `current`."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}"
    for answer in (
        node.post(f"{path}/revisions", revision_of(body, number)),
        node.post(f"{path}/cancel", cancel_body(number)),
    ):
        assert assert_problem(answer, 409, "revision-conflict")["current"] == 1


def test_a_number_that_is_taken_by_other_content_conflicts(node: Node):
    """Section 4: 409, for another revision and for a cancel of that number."""
    body = alert(ground())
    node.publish(body)
    node.revise(revision_of(body, 2))
    path = f"/v1/alerts/{body['id']}"
    other = node.post(f"{path}/revisions", revision_of(body, 2, headline="Something else"))
    assert assert_problem(other, 409, "revision-conflict")["current"] == 2
    cancel = node.post(f"{path}/cancel", cancel_body(2))
    assert assert_problem(cancel, 409, "revision-conflict")["current"] == 2


def test_a_known_id_conflicts_before_the_rules_and_after_the_fields(node: Node):
    """Section 4, "Order": 422 for section 2, then 409, then 422 for section 3."""
    body = alert(ground())
    node.publish(body)
    assert_problem(node.post("/v1/alerts", body | {"headline": "Other"}), 409, "id-conflict")
    assert_problem(node.post("/v1/alerts", body | {"threat": "individual"}), 409, "id-conflict")
    check(node.post("/v1/alerts", body | {"headline": ""}), 422, [("invalid-value", "/headline")])


def test_a_revision_keeps_the_incident(node: Node):
    """Section 4: another `occurred_at`, `status` or `id` than revision 1's is refused."""
    body = alert(ground())
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/revisions"
    changes = [
        ({"occurred_at": stamp(seconds=-50)}, "occurred-at-changed", "/occurred_at"),
        ({"status": "test"}, "status-changed", "/status"),
        ({"id": new_id()}, "id-mismatch", "/id"),
    ]
    for change, slug, pointer in changes:
        check(node.post(path, revision_of(body, 2) | change), 422, [(slug, pointer)])
    assert node.state(body["id"])["alert"]["revision"] == 1


def test_a_revision_may_not_end_earlier_than_the_current_one(node: Node):
    """Section 3: to end early, cancel; the same end or a later one is fine."""
    body = alert(ground(), expires_at=stamp(seconds=1_000))
    node.publish(body)
    path = f"/v1/alerts/{body['id']}/revisions"
    earlier = revision_of(body, 2, expires_at=stamp(seconds=900))
    check(node.post(path, earlier), 422, [("expiry-out-of-range", "/expires_at")])
    node.revise(revision_of(body, 2))
    node.revise(revision_of(body, 3, expires_at=stamp(seconds=1_100)))
    back = revision_of(body, 4, expires_at=stamp(seconds=1_050))
    check(node.post(path, back), 422, [("expiry-out-of-range", "/expires_at")])


def test_a_refused_revision_is_judged_by_the_rules_like_an_alert(node: Node):
    """Section 3 applies to revisions, but for the incident's age."""
    body = alert(ground())
    node.publish(body)
    bad = revision_of(body, 2, threat="individual", area=circle(ground(), 9))
    errors = [("not-community", "/threat"), ("radius-out-of-range", "/area/radius_m")]
    check(node.post(f"/v1/alerts/{body['id']}/revisions", bad), 422, errors)


# -- afterwards

SLUGS = [
    "category-not-alertable",
    "not-community",
    "not-approved",
    "stale",
    "not-yet",
    "expiry-out-of-range",
    "radius-out-of-range",
    "id-conflict",
    "id-mismatch",
    "occurred-at-changed",
    "status-changed",
    "unknown-alert",
    "alert-ended",
    "revision-conflict",
    "not-yours",
    "missing-field",
    "unknown-field",
    "invalid-value",
    "malformed-json",
    "unauthorized",
    "insufficient-scope",
    "not-found",
    "method-not-allowed",
    "too-large",
    "unsupported-media-type",
    "too-many-requests",
    "internal",
    "log-unavailable",
    "draining",
]


@pytest.mark.parametrize("slug", SLUGS)
def test_every_problem_type_is_explained_without_a_token(node: Node, slug: str):
    """Section 4, "Errors": `GET /problems/<slug>` explains it."""
    answer = node.api.get(f"/problems/{slug}")
    assert answer.status_code == 200
    assert slug in answer.text
    assert len(answer.text) > len(slug) + 20


def test_a_problem_type_that_does_not_exist_is_not_explained(node: Node):
    """An unknown slug is 404."""
    assert node.api.get("/problems/no-such-problem").status_code in (401, 404)


def test_the_node_goes_on_serving_after_all_of_this(node: Node):
    """A good alert still reaches a good session."""
    node.assert_serving()
