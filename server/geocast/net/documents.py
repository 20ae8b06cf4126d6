"""The OpenAPI document: what it says of each call that `net/calls.py` serves.

The schemas of request bodies are made of the models that `requests.py` validates with, so that the document can't
differ from the code. FastAPI knows nothing of these bodies, since they are read raw; so they are added here. The models
`…Out` describe answers and are never instantiated. Their docstrings stand in the document as descriptions.
"""

from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core.core_schema import DictSchema, WithDefaultSchema

from .. import problems
from ..alert import ID_PATTERN, Severity, Status
from ..alertlog import PAGE
from ..policy import Policy
from ..problems import Problem, Violation
from ..requests import AlertRequest, CancelRequest, RevisionRequest
from .examples import Named, alert_id, examples
from .guard import CURSOR_PATTERN

_DESCRIPTION = """\
To try a call: *Authorize* with a token (`geocast token`, or the one that `geocast serve --dev` prints), *Try it out*,
*Execute*. The examples can be sent as they are, from top to bottom. They are of the minute in which this page was
loaded, and have the status `test`: only subscribers whose token has `alerts:test` are told.
"""
_SECURITY: list[dict[str, list[str]]] = [{"token": []}]
_REF = "#/components/schemas/{model}"


# A time as the server writes it (L8).
TimeOut = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", json_schema_extra={"format": "date-time"})
]


class CircleOut(BaseModel):
    """A published circle: centre in degrees, radius in metres."""

    type: Literal["circle"]
    lat: Annotated[float, Field(ge=-90, le=90)]
    lng: Annotated[float, Field(ge=-180, le=180)]
    radius_m: Annotated[float, Field(gt=0)]


PositionOut = tuple[Annotated[float, Field(ge=-180, le=180)], Annotated[float, Field(ge=-90, le=90)]]


class PolygonOut(BaseModel):
    """A published polygon: one ring of longitudes and latitudes, with arcs of great circles between them.

    It reaches `buffer_m` metres beyond its ring.
    """

    type: Literal["Polygon"]
    coordinates: Annotated[list[Annotated[list[PositionOut], Field(min_length=4)]], Field(min_length=1, max_length=1)]
    buffer_m: Annotated[float, Field(gt=0)] = 0.0


class OtherShapeOut(BaseModel):
    """A shape of a type that is yet to come (G1). An alert with one is shown all the same (G2)."""

    type: Annotated[str, Field(json_schema_extra={"not": {"enum": ["circle", "Polygon"]}})]


Area = Annotated[list[CircleOut | PolygonOut | OtherShapeOut], Field(min_length=1)]


class AlertOut(BaseModel):
    """An alert as subscribers see it."""

    id: str
    revision: int
    category: str
    title: str
    headline: str
    description: str = ""
    severity: Severity
    status: Status
    source: str
    occurred_at: TimeOut
    issued_at: TimeOut
    expires_at: TimeOut
    area: Area


class ReachOut(BaseModel):
    """How far an alert goes: the areas of its shapes, in km², rounded up; what they share counts for each."""

    area_km2: Annotated[float, Field(ge=0)]


class AcceptedOut(BaseModel):
    """A revision that is in the log. Of a dry run there is `reach`, and no `revision` and `issued_at`."""

    id: str
    revision: int = 0
    issued_at: TimeOut = ""
    expires_at: TimeOut
    area: Area
    reach: ReachOut = ReachOut(area_km2=0)


class CancelledOut(BaseModel):
    """A cancel that is in the log."""

    id: str
    revision: int
    cancelled_at: TimeOut


class DeliveryOut(BaseModel):
    """(connection, revision) pairs handed over by all nodes, and those acknowledged; rounded without alerts:audit."""

    sent: int
    acked: int
    rounded: Literal[True] = True


class StateOut(BaseModel):
    """An alert, whether it is live, and how far it got: that of others' alerts with alerts:manage only."""

    state: Literal["live", "cancelled", "expired"]
    alert: AlertOut
    delivery: DeliveryOut = DeliveryOut(sent=0, acked=0)


class LiveOut(BaseModel):
    """Alerts that are live now: all, or a page of them. In a page they are in the order of publication."""

    alerts: list[AlertOut]


class ViolationOut(BaseModel):
    """One broken rule: its problem type, a JSON Pointer to the field, and a sentence.

    Of what is held there is its `kind`: of an area how much it covers; of words from where to where they stand, in
    characters from 0, the end excluded.
    """

    type: str
    pointer: str
    detail: str
    kind: str = ""
    area_km2: float = 0.0
    start: int = 0
    end: int = 0


class ProblemOut(BaseModel):
    """A problem (RFC 9457). A 422 has `errors`, a revision conflict has `current`."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ViolationOut] = []
    current: int = 0


class HealthOut(BaseModel):
    """The process is alive and answers."""

    status: Literal["alive"]


class ReadyOut(BaseModel):
    """Whether the node is ready, and if not, why."""

    status: Literal["ready", "not ready"]
    reasons: list[str] = []


class ProblemTypeOut(BaseModel):
    """What a problem type means."""

    type: str
    title: str
    status: int
    explanation: str


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


def schemas_of(*models: type[BaseModel]) -> dict[str, Any]:
    """The schemas of these models and of all that is in them, by name."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF, schema_generator=Schemas
    )
    found: dict[str, Any] = schemas["$defs"]
    return found


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    found = [each for each in problems.ALL if each.status == status]
    wrong = [Violation(found[0], "/category", found[0].explanation)] if status == 422 else ()
    media = {"schema": {"$ref": _REF.format(model="ProblemOut")}, "example": Problem(found[0], "", wrong).body()}
    return {
        "description": "Problem: " + ", ".join(each.slug for each in found),
        "content": {"application/problem+json": media},
    }


def _json_of(model: type[BaseModel]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}}


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": True, **_json_of(model)}}


def _answer(model: type[BaseModel], description: str) -> dict[str, Any]:
    return {"description": description, **_json_of(model)}


def _links() -> dict[str, Any]:
    """OpenAPI's links: the calls that take the id of an answer. Tools such as schemathesis follow them."""
    return {"links": {name: {"operationId": name, "parameters": _FROM_ANSWER} for name in ("get", "revise", "cancel")}}


def _call(summary: str, **more: Any) -> dict[str, Any]:
    return {"summary": summary, "response_model": None, "tags": ["alerts"], **more}


_READ = _problems(401, 403, 429, 500, 503)
_WRITE = _READ | _problems(400, 408, 413, 415, 422)
_FROM_ANSWER = {"alert_id": "$response.body#/id"}
_ID_SCHEMA = {"type": "string", "pattern": f"^{ID_PATTERN}$"}
_ALERT_ID = {"name": "alert_id", "in": "path", "required": True, "schema": _ID_SCHEMA}
_ID = {"parameters": [_ALERT_ID]}
_SLUG_SCHEMA = {"type": "string", "examples": list(problems.BY_SLUG)}
_DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "description": "Decide and store nothing.",
    "schema": {"type": "boolean", "default": False},
}

PUBLISH = _call(
    "Publish an alert",
    operation_id="publish",
    status_code=201,
    openapi_extra={"security": _SECURITY, "parameters": [_DRY_RUN], **_json_body(AlertRequest)},
    responses={
        200: _answer(AcceptedOut, "Published before, with the same content; or a dry run"),
        201: _answer(AcceptedOut, "On stable storage") | _links(),
        **_WRITE,
        **_problems(409),
    },
)
REVISE = _call(
    "Publish the next revision",
    operation_id="revise",
    status_code=201,
    openapi_extra={"security": _SECURITY, "parameters": [_ALERT_ID, _DRY_RUN], **_json_body(RevisionRequest)},
    responses={
        200: _answer(AcceptedOut, "Published before, with the same content; or a dry run"),
        201: _answer(AcceptedOut, "On stable storage"),
        **_WRITE,
        **_problems(404, 409, 410),
    },
)
CANCEL = _call(
    "Cancel an alert",
    operation_id="cancel",
    status_code=201,
    openapi_extra={"security": _SECURITY, **_ID, **_json_body(CancelRequest)},
    responses={
        200: _answer(CancelledOut, "Cancelled before, with the same content"),
        201: _answer(CancelledOut, "On stable storage"),
        **_WRITE,
        **_problems(404, 409, 410),
    },
)
GET = _call(
    "An alert's state and delivery counts",
    operation_id="get",
    openapi_extra={"security": _SECURITY, **_ID},
    responses={200: _answer(StateOut, "Known"), **_READ, **_problems(404)},
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
LIST = _call(
    "The live alerts, in pages",
    operation_id="list",
    openapi_extra={"security": _SECURITY, "parameters": _PAGE},
    responses={200: _answer(LiveOut, "A page") | {"headers": {"Link": _LINK}}, **_READ, **_problems(422)},
)
POLICY = _call(
    "The policy in force",
    operation_id="policy",
    openapi_extra={"security": _SECURITY},
    responses={200: _answer(Policy, "What may be alerted, and what never is"), **_READ},
)
HEALTH = _call(
    "Whether the process is alive",
    operation_id="healthz",
    tags=["operations"],
    responses={200: _answer(HealthOut, "It is")},
)
READY = _call(
    "Whether the node is ready",
    operation_id="readyz",
    tags=["operations"],
    responses={200: _answer(ReadyOut, "Ready"), 503: _answer(ReadyOut, "Not ready, with the reasons")},
)
METRICS = _call(
    "Metrics in Prometheus' text format", operation_id="metrics", tags=["operations"], response_class=PlainTextResponse
)
PROBLEM = _call(
    "What a problem type means",
    operation_id="problem",
    tags=["operations"],
    openapi_extra={"parameters": [{"name": "slug", "in": "path", "required": True, "schema": _SLUG_SCHEMA}]},
    responses={200: _answer(ProblemTypeOut, "A problem type"), **_problems(404)},
)
_BODIES = (AlertRequest, RevisionRequest, CancelRequest)
_ANSWERS = (AcceptedOut, CancelledOut, StateOut, LiveOut, Policy, ProblemOut, HealthOut, ReadyOut, ProblemTypeOut)


def openapi(app: FastAPI, policy: Policy, now_ms: int) -> dict[str, Any]:
    """The OpenAPI 3.1 document: FastAPI's, with the bodies that are read raw, and examples of now."""
    document = app.openapi()
    document["info"]["description"] = _DESCRIPTION
    shown = examples(policy, now_ms)
    components = document["components"] = {"schemas": schemas_of(*_BODIES, *_ANSWERS)}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
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
        if parameter["name"] == "alert_id":
            parameter["example"] = alert_id(shown)


def _without_framework_errors(call: dict[str, Any]) -> None:
    """Take out the 422 that FastAPI adds for its own validation, which never answers here, and doubled parameters."""
    call["parameters"] = list({p["name"]: p for p in call.get("parameters", [])}.values())
    invalid = call["responses"].get("422", {})
    if "HTTPValidationError" in str(invalid):
        del call["responses"]["422"]
