"""The OpenAPI document of the HTTP API: all operations that a node can have, without the examples.

A node leaves out what it does not serve, and adds examples that it would accept now (`geocast/api/openapi.py`).

The schemas of request bodies come from the models with which `wire/requests.py` validates them, so the document can't
differ from the code. The schemas of answers come from the types `…Out`, which the routes build; their docstrings are
the descriptions in the document.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from geocast import __version__
from geocast.alertlog import PAGE
from geocast.api.answers import AcceptedOut, CancelledOut, CapOut, HealthOut, LiveOut, ReadyOut, StateOut
from geocast.api.middleware import CAP_PATH, CAP_TYPES, CURSOR_PATTERN
from geocast.calls.dispatcher_view import CallAcceptedOut, CallEndedOut, CallsOut, CallStateOut
from geocast.calls.request import CallRequest, ContentRequest, EndRequest
from geocast.model import problems
from geocast.model.alert import ID_PATTERN
from geocast.model.problems import Problem, ProblemOut, ProblemTypeOut, Violation
from geocast.policy import Policy
from geocast.wire.requests import AlertRequest, CancelRequest, RevisionRequest

from .schemas import REF, schemas_of

_DESCRIPTION = """\
To try a request: *Authorize* with a token (`geocast token`, or the one that `geocast serve --dev` prints), *Try it
out*, *Execute*. The examples can be sent unchanged, from top to bottom. They use the minute in which this page was
loaded and have the status `test`: only subscribers whose token has `alerts:test` receive them.
"""
_INFO = {
    "title": "geocast",
    "summary": "Approved alerts in, to every subscriber inside the radius.",
    "version": __version__,
    "description": _DESCRIPTION,
}
_TAGS = {
    "alerts": "Publish, correct, cancel and list alerts.",
    "calls": "Call for qualified people nearby.",
    "cap": "Take official warnings.",
    "operations": "Watch the node.",
}
_TOKEN: list[dict[str, list[str]]] = [{"token": []}]


def problems_of(*statuses: int) -> dict[int, dict[str, Any]]:
    """Return OpenAPI descriptions of the error responses with these statuses, as a dict from status to description.

    A description lists the problem types that have this status.
    """
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    found = [each for each in problems.ALL if each.status == status]
    wrong = [Violation(found[0], "/category", found[0].explanation)] if status == 422 else ()
    media = {"schema": {"$ref": REF.format(model="ProblemOut")}, "example": Problem(found[0], "", wrong).body()}
    return {
        "description": "Problem: " + ", ".join(each.slug for each in found),
        "content": {"application/problem+json": media},
    }


def _json_of(model: type) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}}


def answer(model: type, description: str) -> dict[str, Any]:
    """Return the OpenAPI description of a response with a JSON body of type `model`."""
    return {"description": description, **_json_of(model)}


def answers_to_read(model: type, description: str, *statuses: int) -> dict[int, dict[str, Any]]:
    """Return the OpenAPI responses of an operation that only reads, as a dict from status to response.

    `model` is the type of the body for status 200. `statuses` are errors that this operation can have, in addition to
    those that every such operation can have.
    """
    return {200: answer(model, description), **_READ, **problems_of(*statuses)}


def answers_to_write(
    model: type, repeated: str, *statuses: int, linked: Mapping[str, Any] = {}
) -> dict[int, dict[str, Any]]:
    """Return the OpenAPI responses of an operation that stores an entry, as a dict from status to response.

    201 means that the entry was stored, and 200 that it had been stored before. `model` is the type of the body for
    both. `repeated` is the description of the 200 response. `statuses` are errors that this operation can have, in
    addition to those that every such operation can have. `linked` contains the OpenAPI links of the 201 response.
    """
    stored = {**answer(model, "On stable storage"), **linked}
    return {201: stored, 200: answer(model, repeated), **_READ, **_WRITE, **problems_of(*statuses)}


def links(parameter: str, *operations: str) -> dict[str, Any]:
    """Return OpenAPI links from a response to other operations, which take the `id` in the response as a parameter.

    `parameter` is the name of that parameter. Tools such as schemathesis follow the links.
    """
    parameters = {parameter: "$response.body#/id"}
    return {"links": {name: {"operationId": name, "parameters": parameters} for name in operations}}


def in_path(name: str, **schema: Any) -> dict[str, Any]:
    """Return the OpenAPI description of a path parameter. Its schema is that of an id, unless another one is given."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", **(schema or _ID)}}


def described(
    name: str,
    summary: str,
    answers: Mapping[int, dict[str, Any]],
    *parameters: dict[str, Any],
    tag: str = "alerts",
    body: type | dict[str, Any] | None = None,
    security: Sequence[dict[str, list[str]]] = _TOKEN,
) -> dict[str, Any]:
    """Return the OpenAPI description of an operation.

    `name` is its operationId. `answers` maps statuses to responses; `body` is a model (for a JSON body) or a dict of
    media types.
    """
    content = {"content": body} if isinstance(body, dict) else _json_of(body) if body else {}
    return {
        "tags": [tag],
        "summary": summary,
        "operationId": name,
        "parameters": [*parameters],
        **({"requestBody": {"required": True, **content}} if content else {}),
        "responses": {str(status): each for status, each in answers.items()},
        **({"security": [*security]} if security else {}),
    }


_READ = problems_of(401, 403, 429, 500, 503)
_WRITE = problems_of(400, 408, 413, 415, 422)
_ID = {"pattern": f"^{ID_PATTERN}$"}
_ALERT_ID = in_path("alert_id")
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "description": "Check the request and return the result, but store nothing.",
    "schema": {"type": "boolean", "default": False},
}
_AFTER = {
    "name": "after",
    "in": "query",
    "description": "The cursor after which the page begins, from the Link header of the previous page.",
    "schema": {"type": "string", "pattern": f"^{CURSOR_PATTERN}$"},
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "description": "The maximum number of alerts.",
    "schema": {"type": "integer", "minimum": 1, "maximum": PAGE, "default": PAGE},
}
_LINK = {
    "description": "The address of the next page, with rel=next (RFC 8288). Absent if there are no more alerts.",
    "schema": {"type": "string"},
}
_XML = {"schema": {"type": "string", "description": "A CAP message (version 1.2, 1.1 or 1.0) of at most 2 MiB."}}
_TEXT = {"description": "Successful Response", "content": {"text/plain": {"schema": {"type": "string"}}}}
_PUBLISHED = "Published before, with the same content; or a dry run"
_open = partial(described, tag="operations", security=())  # needs no token
_of_calls = partial(described, tag="calls")
_CALL_ID = in_path("call_id")

_PUBLISH = described(
    "publish",
    "Publish an alert",
    answers_to_write(AcceptedOut, _PUBLISHED, 409, linked=links("alert_id", "get", "revise", "cancel")),
    _DRY_RUN,
    body=AlertRequest,
)
_REVISE = described(
    "revise",
    "Publish the next revision",
    answers_to_write(AcceptedOut, _PUBLISHED, 404, 409, 410),
    _ALERT_ID,
    _DRY_RUN,
    body=RevisionRequest,
)
_CANCEL = described(
    "cancel",
    "Cancel an alert",
    answers_to_write(CancelledOut, "Cancelled before, with the same content; or a dry run", 404, 409, 410),
    _ALERT_ID,
    _DRY_RUN,
    body=CancelRequest,
)
_GET = described("get", "An alert's state and delivery counts", answers_to_read(StateOut, "Known", 404), _ALERT_ID)
_PAGES = answers_to_read(LiveOut, "A page", 422)
_PAGES[200]["headers"] = {"Link": _LINK}
_LIST = described("list", "The live alerts, in pages", _PAGES, _AFTER, _LIMIT)
_POLICY = described("policy", "The current policy", answers_to_read(Policy, "The categories and their limits"))
_CAP = described(
    "cap",
    "Submit a CAP message",
    answers_to_write(CapOut, "Received before, out of date, or not for publication; or a dry run"),
    _DRY_RUN,
    tag="cap",
    body=dict.fromkeys(CAP_TYPES, _XML),
    security=[*_TOKEN, {"secret": []}],
)
_OPEN_CALL = _of_calls(
    "open_call",
    "Call responders",
    answers_to_write(
        CallAcceptedOut,
        "Opened before, with the same content",
        409,
        410,
        linked=links("call_id", "get_call", "revise_call", "end_call"),
    ),
    body=CallRequest,
)
_REVISE_CALL = _of_calls(
    "revise_call",
    "Correct a call",
    answers_to_write(CallAcceptedOut, "Sent before, with the same content", 404, 409, 410),
    _CALL_ID,
    body=ContentRequest,
)
_END_CALL = _of_calls(
    "end_call", "End a call", answers_to_write(CallEndedOut, "Ended before", 404), _CALL_ID, body=EndRequest
)
_GET_CALL = _of_calls(
    "get_call", "A call's state, and its responders", answers_to_read(CallStateOut, "Known", 404, 422), _CALL_ID
)
_LIST_CALLS = _of_calls(
    "list_calls",
    "The open calls",
    answers_to_read(CallsOut, "The caller's own calls, or all calls with alerts:manage", 422),
)
_HEALTH = _open("healthz", "Whether the process is alive", {200: answer(HealthOut, "It is")})
_READY = _open(
    "readyz",
    "Whether the node is ready",
    {200: answer(ReadyOut, "Ready"), 503: answer(ReadyOut, "Not ready, with the reasons")},
)
_PROBLEM = _open(
    "problem",
    "What a problem type means",
    {200: answer(ProblemTypeOut, "A problem type"), **problems_of(404)},
    in_path("slug", examples=list(problems.BY_SLUG)),
)
_METRICS = _open("metrics", "Metrics in Prometheus' text format", {200: _TEXT})
_PATHS = {
    "/v1/alerts": {"post": _PUBLISH, "get": _LIST},
    "/v1/alerts/{alert_id}/revisions": {"post": _REVISE},
    "/v1/alerts/{alert_id}/cancel": {"post": _CANCEL},
    "/v1/alerts/{alert_id}": {"get": _GET},
    "/v1/policy": {"get": _POLICY},
    CAP_PATH: {"post": _CAP},
    "/v1/calls": {"post": _OPEN_CALL, "get": _LIST_CALLS},
    "/v1/calls/{call_id}/revisions": {"post": _REVISE_CALL},
    "/v1/calls/{call_id}/end": {"post": _END_CALL},
    "/v1/calls/{call_id}": {"get": _GET_CALL},
    "/healthz": {"get": _HEALTH},
    "/readyz": {"get": _READY},
    "/problems/{slug}": {"get": _PROBLEM},
    "/metrics": {"get": _METRICS},
}
_BODIES = (AlertRequest, RevisionRequest, CancelRequest)
_ANSWERS = (
    AcceptedOut,
    CancelledOut,
    CapOut,
    StateOut,
    LiveOut,
    Policy,
    ProblemOut,
    HealthOut,
    ReadyOut,
    ProblemTypeOut,
)
_OF_CALLS = (CallRequest, ContentRequest, EndRequest, CallAcceptedOut, CallEndedOut, CallStateOut, CallsOut)


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the api listener."""
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": _PATHS,
        "components": {
            "schemas": schemas_of(*_BODIES, *_ANSWERS, *_OF_CALLS),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "secret": {"type": "apiKey", "in": "header", "name": "CAP-Webhook-Auth"},
            },
        },
    }
