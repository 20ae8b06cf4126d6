"""Bodies that the api refuses: what is no strict JSON, and numbers of revisions."""

from __future__ import annotations

import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.node import Node
from end_to_end.kit.refusals import assert_problem, check, problem_of, put, send, text_of

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
