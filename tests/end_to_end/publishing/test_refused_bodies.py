"""Bodies that the API refuses: malformed JSON, and invalid revision numbers."""

import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.node import Node
from end_to_end.kit.refusals import assert_problem, check, problem_of, put, send, text_of

BAD_BODIES = {  # tests/wire/test_strict_json.py has more cases
    "empty": (b"", "line 1, column 1: Expecting value"),
    "a list": (b'[{"id":"a7391"}]', "not an object"),
    "a missing comma": (b'{"id":"a7391"\n "revision":1}', "line 2, column 2: Expecting ',' delimiter"),
    "two values": (b'{"id":"a7391"} {"id":"a7391"}', "line 1, column 16: Extra data"),
    "NaN": (b'{"x":NaN,"id":"a7391"}', "NaN or Infinity"),
    "duplicate key deep inside": (b'{"x":[{"y":7391,"y":7391}]}', "a key twice in one object"),
    "depth 33": (b'{"x":' + b"[" * 32 + b"]" * 32 + b"}", "nested too deep"),
    "depth 30,000, never closed": (b"[" * 30_000, "nested too deep"),
    "byte-order mark": (b'\xef\xbb\xbf{"id":"a7391"}', "line 1, column 1: Expecting value"),
    "bad UTF-8": (b'{"id":"a7391\xff"}', "invalid UTF-8 at byte 13"),
    "gzip": (b"\x1f\x8b\x08\x00\x00", "invalid UTF-8 at byte 2"),
}

STRANGE_VALUES = {
    "/area/lat": ("1e999", "-1e999", "1" + "0" * 400, "9" * 5_000, "7391e308"),
    "/area/radius_m": ("1e999", "1" + "0" * 400, "9" * 5_000),
    "/headline": ('"a\\ud800"', '"\\udc00b"', '"\\udc00\\ud800"', '"a\\u0000"', '"a\\u009f"'),
    "/id": ('"a\\ud800"', '"a\\u0000"'),
    "/category": ('"a\\ud800"', '"a\\u0000"'),
    "/description": ('"a\\ud800"', '"\\ud83c \\udf0d"'),
    "/approval/reviewer": ('"a\\ud800"',),
}


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_body_that_is_not_strict_json_is_malformed(node: Node, body: bytes, reason: str):
    """The answer is 400, and says where and why, without repeating anything of the body (section 2, rule L1)."""
    answer = send(node, body)
    assert_problem(answer, 400, "malformed-json")
    assert problem_of(answer, 400)["detail"].endswith(f"In this body: {reason}.")


@pytest.mark.parametrize(
    ("pointer", "literal"), [(pointer, text) for pointer, texts in STRANGE_VALUES.items() for text in texts]
)
def test_json_value_that_no_field_allows_is_invalid(node: Node, pointer: str, literal: str):
    """Numbers out of double range, lone surrogates and control characters get 422 (section 2)."""
    body = put(alert(ground()), pointer, "HERE")
    check(send(node, text_of(body, '"HERE"', literal).encode()), 422, [("invalid-value", pointer)])


def test_nesting_of_depth_32_is_accepted(node: Node):
    """Deeper nesting gets 400; at 32 levels the field is only unknown (section 2)."""
    body = text_of(alert(ground(), notes="HERE"), '"HERE"', "[" * 31 + "]" * 31)
    check(send(node, body.encode()), 422, [("unknown-field", "/notes")])


def test_error_does_not_repeat_a_key_with_a_lone_surrogate(node: Node):
    """`pointer` names an unknown field only if its name is plain (section 4)."""
    body = text_of(alert(ground(), HERE=7391), '"HERE"', '"\\ud800"')
    problem = problem_of(send(node, body.encode()), 422)
    assert {error["pointer"] for error in problem["errors"]} == {""}


def test_invalid_revision_numbers_are_refused(node: Node):
    """A number is an integer of 1 to 2^31-1, written as an integer; a Boolean is not a number (section 2)."""
    body = alert(ground())
    node.publish(body)
    for literal in ("0", "-1", "2147483648", "2.0", "2e0", "true", '"2"', "null", "[2]", "1e999"):
        text = text_of(revision_of(body, 2) | {"revision": "HERE"}, '"HERE"', literal)
        answer = send(node, text.encode(), f"/v1/alerts/{body['id']}/revisions")
        check(answer, 422, [("invalid-value", "/revision")])
    answer = node.post(f"/v1/alerts/{body['id']}/revisions", body)
    check(answer, 422, [("missing-field", "/revision")])
    assert node.state(body["id"])["alert"]["revision"] == 1
