"""The OpenAPI document: what it says of each call that `api/routes_alerts.py` serves.

The schemas of request bodies are made of the models that `wire/requests.py` validates with, so that the document can't
differ from the code. FastAPI knows nothing of these bodies, since they are read raw; so they are added here. The types
`…Out` are those that answers are made of. Their docstrings stand in the document as descriptions.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core.core_schema import DictSchema, WithDefaultSchema

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
To try a call: *Authorize* with a token (`geocast token`, or the one that `geocast serve --dev` prints), *Try it out*,
*Execute*. The examples can be sent as they are, from top to bottom. They are of the minute in which this page was
loaded, and have the status `test`: only subscribers whose token has `alerts:test` are told.
"""
SECURITY: list[dict[str, list[str]]] = [{"token": []}]
_REF = "#/components/schemas/{model}"


class Schemas(GenerateJsonSchema):
    """Pydantic's schemas, made as strict as our parsing and freed of noise.

    - A default stands for "left out" in our models, so the schema doesn't tell it.
    - A map whose keys have a grammar takes no other keys, so its schema is closed.
    - Field names speak for themselves, so they get no title.

    What comes out is valid JSON Schema of Draft 7 and of 2020-12.
    """

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def dict_schema(self, schema: DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        if "patternProperties" in found:
            found.pop("propertyNames", None)
            found["additionalProperties"] = False
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (pydantic's signature)
        return False


def schemas_of(*models: type) -> dict[str, Any]:
    """The schemas of these models and of all that is in them, by name."""
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (model.__name__, "validation", TypeAdapter(model)) for model in models
    ]
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template=_REF, schema_generator=Schemas)
    found: dict[str, Any] = schemas["$defs"]
    return found


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers with these statuses: problems, each with those that have it."""
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


def json_body(model: type) -> dict[str, Any]:
    """The part of a call's description that says what its body is."""
    return {"requestBody": {"required": True, **_json_of(model)}}


def answer(model: type, description: str) -> dict[str, Any]:
    """The part of a call's description that says what one answer is."""
    return {"description": description, **_json_of(model)}


def _links() -> dict[str, Any]:
    """OpenAPI's links: the calls that take the id of an answer. Tools such as schemathesis follow them."""
    return {"links": {name: {"operationId": name, "parameters": _FROM_ANSWER} for name in ("get", "revise", "cancel")}}


def described(summary: str, **more: Any) -> dict[str, Any]:
    """A call's description, as FastAPI takes it for the route."""
    return {"summary": summary, "response_model": None, "tags": ["alerts"], **more}


READ = problems_of(401, 403, 429, 500, 503)
WRITE = READ | problems_of(400, 408, 413, 415, 422)
_FROM_ANSWER = {"alert_id": "$response.body#/id"}
ID_SCHEMA = {"type": "string", "pattern": f"^{ID_PATTERN}$"}
_ALERT_ID = {"name": "alert_id", "in": "path", "required": True, "schema": ID_SCHEMA}
_ID = {"parameters": [_ALERT_ID]}
_SLUG_SCHEMA = {"type": "string", "examples": list(problems.BY_SLUG)}
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "description": "Decide and store nothing.",
    "schema": {"type": "boolean", "default": False},
}

PUBLISH = described(
    "Publish an alert",
    operation_id="publish",
    status_code=201,
    openapi_extra={"security": SECURITY, "parameters": [_DRY_RUN], **json_body(AlertRequest)},
    responses={
        200: answer(AcceptedOut, "Published before, with the same content; or a dry run"),
        201: answer(AcceptedOut, "On stable storage") | _links(),
        **WRITE,
        **problems_of(409),
    },
)
REVISE = described(
    "Publish the next revision",
    operation_id="revise",
    status_code=201,
    openapi_extra={"security": SECURITY, "parameters": [_ALERT_ID, _DRY_RUN], **json_body(RevisionRequest)},
    responses={
        200: answer(AcceptedOut, "Published before, with the same content; or a dry run"),
        201: answer(AcceptedOut, "On stable storage"),
        **WRITE,
        **problems_of(404, 409, 410),
    },
)
CANCEL = described(
    "Cancel an alert",
    operation_id="cancel",
    status_code=201,
    openapi_extra={"security": SECURITY, "parameters": [_ALERT_ID, _DRY_RUN], **json_body(CancelRequest)},
    responses={
        200: answer(CancelledOut, "Cancelled before, with the same content; or a dry run"),
        201: answer(CancelledOut, "On stable storage"),
        **WRITE,
        **problems_of(404, 409, 410),
    },
)
_XML = {"schema": {"type": "string", "description": "A message of CAP 1.2, 1.1 or 1.0, of at most 2 MiB."}}
CAP = described(
    "Take a message of CAP",
    operation_id="cap",
    tags=["cap"],
    status_code=201,
    openapi_extra={
        "security": [*SECURITY, {"secret": []}],
        "parameters": [_DRY_RUN],
        "requestBody": {"required": True, "content": dict.fromkeys(CAP_TYPES, _XML)},
    },
    responses={
        200: answer(CapOut, "Known, late, or not to be published; or a dry run"),
        201: answer(CapOut, "On stable storage"),
        **WRITE,
    },
)
GET = described(
    "An alert's state and delivery counts",
    operation_id="get",
    openapi_extra={"security": SECURITY, **_ID},
    responses={200: answer(StateOut, "Known"), **READ, **problems_of(404)},
)
_PAGE = [
    {
        "name": "after",
        "in": "query",
        "description": "Where the page begins; from the Link of the page before.",
        "schema": {"type": "string", "pattern": f"^{CURSOR_PATTERN}$"},
    },
    {
        "name": "limit",
        "in": "query",
        "description": "How many alerts at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": PAGE, "default": PAGE},
    },
]
_LINK = {
    "description": "There if there may be more: where the next page is, with rel=next (RFC 8288).",
    "schema": {"type": "string"},
}
LIST = described(
    "The live alerts, in pages",
    operation_id="list",
    openapi_extra={"security": SECURITY, "parameters": _PAGE},
    responses={200: answer(LiveOut, "A page") | {"headers": {"Link": _LINK}}, **READ, **problems_of(422)},
)
POLICY = described(
    "The policy in force",
    operation_id="policy",
    openapi_extra={"security": SECURITY},
    responses={200: answer(Policy, "What may be alerted, and what never is"), **READ},
)
HEALTH = described(
    "Whether the process is alive",
    operation_id="healthz",
    tags=["operations"],
    responses={200: answer(HealthOut, "It is")},
)
READY = described(
    "Whether the node is ready",
    operation_id="readyz",
    tags=["operations"],
    responses={200: answer(ReadyOut, "Ready"), 503: answer(ReadyOut, "Not ready, with the reasons")},
)
METRICS = described(
    "Metrics in Prometheus' text format", operation_id="metrics", tags=["operations"], response_class=PlainTextResponse
)
PROBLEM = described(
    "What a problem type means",
    operation_id="problem",
    tags=["operations"],
    openapi_extra={"parameters": [{"name": "slug", "in": "path", "required": True, "schema": _SLUG_SCHEMA}]},
    responses={200: answer(ProblemTypeOut, "A problem type"), **problems_of(404)},
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


def openapi(app: FastAPI, policy: Policy, now_ms: int, models: Sequence[type] = ()) -> dict[str, Any]:
    """The OpenAPI 3.1 document: FastAPI's, with the bodies that are read raw, and examples of now.

    `models`: of bodies and answers that are described elsewhere.
    """
    document = app.openapi()
    document["info"]["description"] = _DESCRIPTION
    shown = examples(policy, now_ms)
    components = document["components"] = {"schemas": schemas_of(*_BODIES, *_ANSWERS, *models)}
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "secret": {"type": "apiKey", "in": "header", "name": "CAP-Webhook-Auth"},
    }
    for path in document["paths"].values():
        for call in path.values():
            _without_framework_errors(call)
            _show(call, shown)
    return document


def _show(call: dict[str, Any], shown: dict[str, Named]) -> None:
    """Put these examples to the bodies and answers of a call, and to the id in its path."""
    for part in (call.get("requestBody", {}), *call["responses"].values()):
        for media in part.get("content", {}).values():
            model = media["schema"].get("$ref", "").rpartition("/")[2]
            if model in shown:
                media["examples"] = shown[model]
    for parameter in call["parameters"]:
        if example := example_id(shown, parameter["name"]):
            parameter["example"] = example


def _without_framework_errors(call: dict[str, Any]) -> None:
    """Take out the 422 that FastAPI adds for its own validation, which never answers here, and doubled parameters."""
    call["parameters"] = list({p["name"]: p for p in call.get("parameters", [])}.values())
    invalid = call["responses"].get("422", {})
    if "HTTPValidationError" in str(invalid):
        del call["responses"]["422"]
