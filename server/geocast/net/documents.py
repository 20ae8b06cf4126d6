"""What the OpenAPI document says of each call; `net/http.py` does it.

Request bodies are the models that `alert.py` validates with, so that the document can't differ from the code.
"""

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from ..alert import ID_PATTERN, AlertRequest, CancelRequest, RevisionRequest, Severity, Status
from ..errors import PROBLEMS
from ..policy import Policy

_SECURITY: list[dict[str, list[str]]] = [{"token": []}]
_REF = "#/components/schemas/{model}"


class CircleOut(BaseModel):
    """A published circle: centre in degrees, radius in metres."""

    type: Literal["circle"]
    lat: float
    lng: float
    radius_m: float


class AlertOut(BaseModel):
    """An alert as subscribers see it."""

    id: str
    revision: int
    category: str
    title: str
    headline: str
    description: str | None = None
    severity: Severity
    status: Status
    source: str
    occurred_at: str = Field(json_schema_extra={"format": "date-time"})
    issued_at: str = Field(json_schema_extra={"format": "date-time"})
    expires_at: str = Field(json_schema_extra={"format": "date-time"})
    area: list[CircleOut]


class AcceptedOut(BaseModel):
    """A revision that is in the log. `revision` and `issued_at` are left out for a dry run."""

    id: str
    revision: int | None = None
    issued_at: str | None = Field(None, json_schema_extra={"format": "date-time"})
    expires_at: str = Field(json_schema_extra={"format": "date-time"})
    area: list[CircleOut]


class CancelledOut(BaseModel):
    """A cancel that is in the log."""

    id: str
    revision: int
    cancelled_at: str = Field(json_schema_extra={"format": "date-time"})


class DeliveryOut(BaseModel):
    """(connection, revision) pairs handed over by all nodes, and those acknowledged."""

    sent: int
    acked: int


class StateOut(BaseModel):
    """An alert, whether it is live, and how far it got."""

    state: Literal["live", "cancelled", "expired"]
    alert: AlertOut
    delivery: DeliveryOut


class LiveOut(BaseModel):
    """All live alerts."""

    alerts: list[AlertOut]


class ViolationOut(BaseModel):
    """One broken rule: its problem type, a JSON Pointer to the field, and a sentence."""

    type: str
    pointer: str
    detail: str


class ProblemOut(BaseModel):
    """RFC 9457. `errors` for 422, `current` for a revision conflict."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[ViolationOut] | None = None
    current: int | None = None


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    slugs = [slug for slug, (code, _, _) in PROBLEMS.items() if code == status]
    return {
        "description": "Problem: " + ", ".join(slugs),
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemOut")}}},
    }


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _call(summary: str, **more: Any) -> dict[str, Any]:
    return {"summary": summary, "response_model": None, **more}


_READ = _problems(401, 403, 429, 500, 503)
_WRITE = _READ | _problems(400, 413, 415, 422)
_ID_SCHEMA = {"type": "string", "pattern": f"^{ID_PATTERN}$"}
_ID = {"parameters": [{"name": "alert_id", "in": "path", "required": True, "schema": _ID_SCHEMA}]}
_DRY_RUN = {
    "parameters": [
        {
            "name": "dry_run",
            "in": "query",
            "description": "Decide and store nothing.",
            "schema": {"type": "boolean", "default": False},
        }
    ]
}

PUBLISH = _call(
    "Publish an alert",
    status_code=201,
    openapi_extra={"security": _SECURITY, **_DRY_RUN, **_json_body(AlertRequest)},
    responses={
        200: {"model": AcceptedOut, "description": "Published before, with the same content; or a dry run"},
        201: {"model": AcceptedOut, "description": "On stable storage"},
        **_WRITE,
        **_problems(409),
    },
)
REVISE = _call(
    "Publish the next revision",
    status_code=201,
    openapi_extra={"security": _SECURITY, **_ID, **_json_body(RevisionRequest)},
    responses={
        200: {"model": AcceptedOut, "description": "Published before, with the same content"},
        201: {"model": AcceptedOut, "description": "On stable storage"},
        **_WRITE,
        **_problems(404, 409, 410),
    },
)
CANCEL = _call(
    "Cancel an alert",
    status_code=201,
    openapi_extra={"security": _SECURITY, **_ID, **_json_body(CancelRequest)},
    responses={
        200: {"model": CancelledOut, "description": "Cancelled before, with the same content"},
        201: {"model": CancelledOut, "description": "On stable storage"},
        **_WRITE,
        **_problems(404, 409, 410),
    },
)
GET = _call(
    "An alert's state and delivery counts",
    openapi_extra={"security": _SECURITY, **_ID},
    responses={200: {"model": StateOut, "description": "Known"}, **_READ, **_problems(404)},
)
LIST = _call(
    "All live alerts",
    openapi_extra={"security": _SECURITY},
    responses={200: {"model": LiveOut, "description": "In the order of publication"}, **_READ},
)
POLICY = _call(
    "The policy in force",
    openapi_extra={"security": _SECURITY},
    responses={200: {"model": Policy, "description": "What may be alerted, and what never is"}, **_READ},
)
HEALTH = _call("Whether the process is alive", tags=["operations"])
READY = _call(
    "Whether the node is ready",
    tags=["operations"],
    responses={503: {"description": "Not ready, with the reasons"}},
)
METRICS = _call("Metrics in Prometheus' text format", tags=["operations"])
PROBLEM = _call("What a problem type means", tags=["operations"], responses=_problems(404))


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document: FastAPI's, with the bodies that are read raw."""
    document = app.openapi()
    requests = [(model, "validation") for model in (AlertRequest, RevisionRequest, CancelRequest)]
    answers = [(ProblemOut, "serialization")]
    _, schemas = models_json_schema([*requests, *answers], ref_template=_REF)  # type: ignore[list-item]
    components = document.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | schemas["$defs"]
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    for path in document["paths"].values():
        for call in path.values():
            _without_framework_errors(call)
    return document


def _without_framework_errors(call: dict[str, Any]) -> None:
    """Take out what FastAPI adds for its own validation, which never answers here; and parameters named twice."""
    call["parameters"] = list({p["name"]: p for p in call.get("parameters", [])}.values())
    invalid = call["responses"].get("422", {})
    if "HTTPValidationError" in str(invalid):
        del call["responses"]["422"]
