"""Tests of calls over HTTP against an in-memory transport: paths, bodies and repeats."""

import json

import httpx
import pytest
from support.fake_nodes import FakeApi, answer

from client_demo.python.dispatcher import Dispatcher
from client_demo.python.publisher import Refused

CALL = {
    "id": "cad-3:8f",
    "category": "cardiac_arrest",
    "headline": "Adult, not breathing.",
    "occurred_at": "2031-05-01T12:00:00Z",
    "place": {"lat": 47.6780089, "lng": 8.8311129, "kind": "residence"},
}


@pytest.mark.parametrize(
    ("work", "expected", "body"),
    [
        (lambda d: d.open_call(CALL), ("POST", b"/v1/calls"), CALL),
        (
            lambda d: d.revise_call(CALL, 4),
            ("POST", b"/v1/calls/cad-3%3A8f/revisions"),
            {**CALL, "replaces": 4},
        ),
        (
            lambda d: d.end_call("cad-3:8f", "The crew is there."),
            ("POST", b"/v1/calls/cad-3%3A8f/end"),
            {"reason": "The crew is there."},
        ),
        (lambda d: d.call_state("cad-3:8f"), ("GET", b"/v1/calls/cad-3%3A8f"), None),
        (lambda d: d.policy(), ("GET", b"/v1/policy"), None),
    ],
)
def test_request_has_its_path_and_body(work, expected, body):
    """The id is quoted in the path; the body is JSON."""
    api = FakeApi(answer(200, {"id": "x"}), client=Dispatcher)
    assert api.call(work) == {"id": "x"}
    (request,) = api.requests
    assert (request.method, request.url.raw_path) == expected
    assert (json.loads(request.content) if body else None) == body


def test_calls_returns_own_open_calls():
    api = FakeApi(answer(200, {"calls": [{"id": "a"}, {"id": "b"}]}), client=Dispatcher)
    assert api.call(lambda dispatcher: dispatcher.calls()) == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize("trouble", [httpx.ConnectError("gone"), answer(503), answer(502)])
def test_request_is_repeated_until_answered(trouble):
    """The outcome is unknown, so the same bytes are sent (rule H2)."""
    api = FakeApi(trouble, trouble, answer(200, {"revision": 1}), client=Dispatcher)
    assert api.call(lambda dispatcher: dispatcher.open_call(CALL)) == {"revision": 1}
    assert len({request.content for request in api.requests}) == 1
    assert len(api.requests) == 3


def test_refusal_is_raised_at_once():
    """The error has every reason, but not the place."""
    problem = {"type": "/problems/call-ended", "title": "The call has ended", "status": 410}
    api = FakeApi(answer(410, problem), client=Dispatcher)
    with pytest.raises(Refused) as refusal:
        api.call(lambda dispatcher: dispatcher.end_call("a", "Over."))
    assert (refusal.value.status, refusal.value.slug, len(api.requests)) == (410, "call-ended", 1)
