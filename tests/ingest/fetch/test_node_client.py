"""What the answers of a node mean (rule FE4)."""

import json

import pytest

from geocast.ingest.fetch.node_client import NodeAnswer, answer_of


@pytest.mark.parametrize(
    ("status", "body", "outcome", "is_final", "is_accepted"),
    [
        (201, {"outcome": "published"}, "published", True, True),
        (200, {"outcome": "repeated"}, "repeated", True, False),
        (200, {"outcome": "ignored", "why": "expired"}, "ignored", True, False),
        (422, {"type": "/problems/invalid", "errors": [{"type": "/problems/no-area"}]}, "no-area", True, False),
        (400, {"type": "/problems/malformed-xml"}, "malformed-xml", True, False),
        (403, {"type": "/problems/sender-not-allowed"}, "sender-not-allowed", True, False),
        (403, {"type": "/problems/insufficient-scope"}, "insufficient-scope", False, False),
        (401, {"type": "/problems/unauthorized"}, "unauthorized", False, False),
        (404, {"type": "/problems/not-found"}, "not-found", False, False),
        (429, {"type": "/problems/rate-limited"}, "rate-limited", False, False),
        (503, {"type": "/problems/log-unavailable"}, "log-unavailable", False, False),
        (500, {"type": "/problems/internal"}, "internal", False, False),
        (200, [], "status-200", False, False),
        (200, {"outcome": "<b>"}, "status-200", False, False),
        (502, None, "status-502", False, False),
        (201, "x", "status-201", False, False),
    ],
)
def test_answer_is_final_if_it_is_about_the_message(status, body, outcome, is_final, is_accepted):
    """An answer of a proxy, of a node without CAP or about the token says nothing about the message (rule FE4)."""
    answer = answer_of(status, json.dumps(body).encode(), 3.0)
    assert answer == NodeAnswer(outcome, is_final, 3.0, is_limited=status == 429)
    assert answer.is_accepted == is_accepted


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000, b'{"errors": [{}]}', b'{"errors": 3}'])
def test_answer_that_is_not_json_is_not_that_of_a_node(body):
    """The message is posted again (rule FE4)."""
    assert answer_of(200, body) == NodeAnswer("status-200", is_final=False)
