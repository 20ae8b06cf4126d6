"""The OpenAPI document, and the descriptions of all its operations except calls for help (see `openapi_calls`).

The schemas of request bodies come from the models with which `wire/requests.py` validates them, so the document can't
differ from the code. The schemas of answers come from the types `…Out`, which the routes build; their docstrings are
the descriptions in the document.
"""

import copy
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, TupleSchema, WithDefaultSchema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .. import __version__
from ..alertlog import PAGE
from ..model import problems
from ..model.alert import ID_PATTERN
from ..model.problems import Problem, ProblemOut, ProblemTypeOut, Violation
from ..policy import Policy
from ..wire.requests import AlertRequest, CancelRequest, RevisionRequest
from .answers import AcceptedOut, CancelledOut, CapOut, HealthOut, LiveOut, ReadyOut, StateOut
from .examples import Named, example_id, examples
from .middleware import CAP_TYPES, CURSOR_PATTERN

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
_REF = "#/components/schemas/{model}"
_TOKEN: list[dict[str, list[str]]] = [{"token": []}]


class ApiRoute(Route):
    """A route for one HTTP method and path.

    `description` is the OpenAPI operation of the route. If it is None, the OpenAPI document does not list the route.
    """

    def __init__(
        self,
        method: str,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        description: Mapping[str, Any] | None = None,
    ) -> None:
        """Create the route. Unlike Starlette's own routes, a GET route does not answer HEAD requests."""
        super().__init__(path, endpoint, methods=[method])
        self.methods = {method}
        self.method = method.lower()
        self.description = description


class Schemas(GenerateJsonSchema):
    """Generates JSON Schemas that match our strict parser and have no redundant keywords.

    - Defaults are omitted: in our models a default only says that the client did not send the field.
    - A map whose keys must match a pattern accepts no other keys, so its schema is closed.
    - A pair of numbers also has `items`, for readers that do not know `prefixItems` (Draft 7 has no such keyword).
    - Fields get no title, because their names are clear enough.

    The results are valid in JSON Schema Draft 7 and 2020-12.
    """

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        if "patternProperties" in found:
            found.pop("propertyNames", None)
            found["additionalProperties"] = False
        return found

    def tuple_schema(self, schema: TupleSchema) -> JsonSchemaValue:
        found = super().tuple_schema(schema)
        types = {each.get("type") for each in found.get("prefixItems", ())}
        return found | ({"items": {"type": "number"}} if types == {"number"} else {})

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's signature)
        return False


def schemas_of(*models: type) -> dict[str, Any]:
    """Return the JSON Schemas of these models, as a dict from model name to schema.

    Models that these contain are included.
    """
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (model.__name__, "validation", TypeAdapter(model)) for model in models
    ]
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template=_REF, schema_generator=Schemas)
    found: dict[str, Any] = schemas["$defs"]
    return found


def problems_of(*statuses: int) -> dict[int, dict[str, Any]]:
    """Return OpenAPI descriptions of the error responses with these statuses, as a dict from status to description.

    A description lists the problem types that have this status.
    """
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    found = [each for each in problems.ALL if each.status == status]
    wrong = [Violation(found[0], "/category", found[0].explanation)] if status == 422 else ()
    media = {"schema": {"$ref": _REF.format(model="ProblemOut")}, "example": Problem(found[0], "", wrong).body()}
    return {
        "description": "Problem: " + ", ".join(each.slug for each in found),
        "content": {"application/problem+json": media},
    }


def _json_of(model: type) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}}


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

PUBLISH = described(
    "publish",
    "Publish an alert",
    answers_to_write(AcceptedOut, _PUBLISHED, 409, linked=links("alert_id", "get", "revise", "cancel")),
    _DRY_RUN,
    body=AlertRequest,
)
REVISE = described(
    "revise",
    "Publish the next revision",
    answers_to_write(AcceptedOut, _PUBLISHED, 404, 409, 410),
    _ALERT_ID,
    _DRY_RUN,
    body=RevisionRequest,
)
CANCEL = described(
    "cancel",
    "Cancel an alert",
    answers_to_write(CancelledOut, "Cancelled before, with the same content; or a dry run", 404, 409, 410),
    _ALERT_ID,
    _DRY_RUN,
    body=CancelRequest,
)
CAP = described(
    "cap",
    "Submit a CAP message",
    answers_to_write(CapOut, "Received before, out of date, or not for publication; or a dry run"),
    _DRY_RUN,
    tag="cap",
    body=dict.fromkeys(CAP_TYPES, _XML),
    security=[*_TOKEN, {"secret": []}],
)
GET = described("get", "An alert's state and delivery counts", answers_to_read(StateOut, "Known", 404), _ALERT_ID)
_PAGES = answers_to_read(LiveOut, "A page", 422)
_PAGES[200]["headers"] = {"Link": _LINK}
LIST = described("list", "The live alerts, in pages", _PAGES, _AFTER, _LIMIT)
POLICY = described("policy", "The current policy", answers_to_read(Policy, "The categories and their limits"))
HEALTH = _open("healthz", "Whether the process is alive", {200: answer(HealthOut, "It is")})
READY = _open(
    "readyz",
    "Whether the node is ready",
    {200: answer(ReadyOut, "Ready"), 503: answer(ReadyOut, "Not ready, with the reasons")},
)
METRICS = _open("metrics", "Metrics in Prometheus' text format", {200: _TEXT})
PROBLEM = _open(
    "problem",
    "What a problem type means",
    {200: answer(ProblemTypeOut, "A problem type"), **problems_of(404)},
    in_path("slug", examples=list(problems.BY_SLUG)),
)
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


def openapi(routes: Iterable[ApiRoute], policy: Policy, now_ms: int, models: Sequence[type] = ()) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document that describes these routes.

    Its examples are for the minute that contains `now_ms`. `models` are the types of bodies and answers of operations
    that other modules describe.
    """
    shown, paths = examples(policy, now_ms), dict[str, dict[str, Any]]()
    for route in routes:
        if route.description is not None:
            call = paths.setdefault(route.path, {})[route.method] = copy.deepcopy(dict(route.description))
            _show(call, shown)
    used = {tag for calls in paths.values() for call in calls.values() for tag in call["tags"]}
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": schemas_of(*_BODIES, *_ANSWERS, *models),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "secret": {"type": "apiKey", "in": "header", "name": "CAP-Webhook-Auth"},
            },
        },
    }


def _show(call: dict[str, Any], shown: dict[str, Named]) -> None:
    """Add examples to an operation: to its bodies, its answers and its path parameters.

    `call` is the OpenAPI description of the operation, and `shown` has the examples.
    """
    for part in (call.get("requestBody", {}), *call["responses"].values()):
        for media in part.get("content", {}).values():
            model = media["schema"].get("$ref", "").rpartition("/")[2]
            if model in shown:
                media["examples"] = shown[model]
    for parameter in call["parameters"]:
        if example := example_id(shown, parameter["name"]):
            parameter["example"] = example
