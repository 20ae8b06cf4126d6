"""The alert: what a publisher sends, what is accepted, and what the log keeps.

Parsing is the only way in. It has two steps, and the type of what comes out tells where one stands:

    bytes ── parse_publication ──> Publication    as requested: `RequestedCircle`s with the exact centre
                                       │ .accept(terms, current)
                                       v
                                     Alert        as published: `Circle`s only

Rule 1  A requested centre is an address. It lives in a `Publication` and goes no further: everything downstream
        (log, matching, frames, metrics, log lines) takes an `Alert`, and no function makes a requested circle
        out of a published one.
Rule 2  Neither the requested circle nor anything computed from it, except the published circle, is kept.
Rule 3  Two requests have the same content if the `Alert`s that they are accepted as are equal. So what an `Alert`
        comes to depends on the request, on the terms, and on the revision that it follows; all of these are kept.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from .cells import publish_area, publish_circle
from .clock import parse_time
from .errors import GeocastError, Violation

SEVERITIES = ("minor", "moderate", "severe", "extreme")  # CAP 1.2, <severity>; ascending
SEVERITY_RANK = {name: rank for rank, name in enumerate(SEVERITIES)}
EXTREME = SEVERITY_RANK["extreme"]

Severity = Literal["extreme", "severe", "moderate", "minor"]
Status = Literal["actual", "exercise", "test"]

ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_ID = re.compile(ID_PATTERN)
MAX_INTEGER = 2**31 - 1
# Which rules of the published circle an alert is accepted by: 1 is B1 to B3 alone, 2 has B11 and B12 besides.
RULES = 2


def is_id(text: str) -> bool:
    """Whether `text` matches the grammar of an alert's id, which a publisher's `sub` has to match too."""
    return _ID.fullmatch(text) is not None


# ---- what is accepted ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Circle:
    """A published circle: centre in degrees, radius in metres. All that anyone downstream ever sees of a place."""

    lat: float
    lng: float
    radius_m: float

    def to_map(self) -> dict[str, Any]:
        """The shape as it is sent and stored."""
        return {"type": "circle", "lat": self.lat, "lng": self.lng, "radius_m": self.radius_m}


@dataclass(frozen=True, slots=True)
class OtherShape:
    """A shape of a type that a later release publishes and this one does not know (protocol, G2, G4).

    Nobody is inside of it as far as this release can tell; it is sent as it came.
    """

    members: Mapping[str, Any]  # as MessagePack and JSON both can have them, `type` included

    def to_map(self) -> dict[str, Any]:
        """The shape as it is sent and stored."""
        return dict(self.members)


Shape = Circle | OtherShape


@dataclass(frozen=True, slots=True)
class Approval:
    """Who decided to publish, and when (ms). Kept in the log, sent to nobody."""

    reviewer: str
    approved_at: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the policy went into an accepted alert, and by which rules of the published circle.

    A repeated request is judged by the same terms.
    """

    title: str
    max_age_ms: int
    location_resolution: int
    rules: int = RULES


@dataclass(frozen=True, slots=True)
class Alert:
    """The content of one revision in accepted form: defaults filled in, times in ms, area as published."""

    id: str
    category: str
    headline: str
    description: str | None
    severity: Severity
    status: Status
    occurred_at: int
    expires_at: int
    area: tuple[Shape, ...]
    approval: Approval

    @property
    def circles(self) -> tuple[Circle, ...]:
        """The shapes of the area that a place can be inside of: those that this release knows."""
        return tuple(shape for shape in self.area if isinstance(shape, Circle))


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision, as the log holds it: the alert, its number, who published it and when (ms)."""

    alert: Alert
    revision: int
    source: str
    issued_at: int
    terms: Terms

    @property
    def id(self) -> str:
        """The alert's id."""
        return self.alert.id

    @property
    def ends_at(self) -> int:
        """When this stops to matter (ms)."""
        return self.alert.expires_at

    def same_content(self, other: "Entry") -> bool:
        """Whether `other` says the same; who says it, and when, doesn't count."""
        return isinstance(other, Revision) and self.alert == other.alert and self.revision == other.revision


@dataclass(frozen=True, slots=True)
class Cancel:
    """An accepted cancel. It takes the next revision number; `ends_at` (ms) is the cancelled alert's expiry."""

    id: str
    revision: int
    reason: str
    approval: Approval
    source: str
    cancelled_at: int
    ends_at: int

    def same_content(self, other: "Entry") -> bool:
        """Whether `other` says the same; who says it, and when, doesn't count."""
        return isinstance(other, Cancel) and (self.id, self.revision, self.reason, self.approval) == (
            other.id,
            other.revision,
            other.reason,
            other.approval,
        )


Entry = Revision | Cancel


@dataclass(frozen=True, slots=True)
class OtherKind:
    """An entry of a kind that a later release writes and this one does not know (protocol, G4).

    It takes a number of its alert, and it keeps the alert from being forgotten until `ends_at` (ms). What it says is
    not for this release: it is in `history` alone, so that its number is known to be taken.
    """

    id: str
    revision: int
    ends_at: int


# ---- what is requested -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestedCircle:
    """A circle as it was asked for, exact centre and all. Nothing outside this module takes one."""

    lat: float = field(repr=False)
    lng: float = field(repr=False)
    radius_m: float


@dataclass(frozen=True, slots=True)
class Publication:
    """A well-formed request to publish a revision; see Rule 1. `expires_at` is None where it was left out."""

    id: str
    category: str
    headline: str
    description: str | None
    severity: Severity
    status: Status
    threat: str
    occurred_at: int
    expires_at: int | None
    area: tuple[RequestedCircle, ...] = field(repr=False)
    approval: Approval
    revision: int
    one_shape: bool  # `area` was sent as one shape, not as a list: pointers into it have no index

    def accept(self, terms: Terms, current: Revision | None) -> Alert:
        """The alert in accepted form, behind the revision `current` if it follows one: here the exact place ends."""
        return Alert(
            id=self.id,
            category=self.category,
            headline=self.headline,
            description=self.description,
            severity=self.severity,
            status=self.status,
            occurred_at=self.occurred_at,
            expires_at=self.occurred_at + terms.max_age_ms if self.expires_at is None else self.expires_at,
            area=_publish(self.area, terms, current.alert.circles if current is not None else ()),
            approval=self.approval,
        )

    def claims(self) -> "Claims":
        """What the policy judges."""
        return Claims(
            self.category,
            self.threat,
            self.occurred_at,
            self.expires_at,
            self.approval.approved_at,
            tuple((_radius_pointer(n, self.one_shape), circle.radius_m) for n, circle in enumerate(self.area)),
        )


@dataclass(frozen=True, slots=True)
class Claims:
    """What a request claims and the policy judges; None where the field was left out or is unusable.

    `radii` are the requested radii in metres, each with the JSON Pointer to it.
    """

    category: str | None
    threat: str | None
    occurred_at: int | None
    expires_at: int | None
    approved_at: int | None
    radii: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A well-formed request to cancel."""

    id: str
    revision: int
    reason: str
    approval: Approval


def _radius_pointer(n: int, one_shape: bool) -> str:
    return "/area/radius_m" if one_shape else f"/area/{n}/radius_m"


def _publish(area: Sequence[RequestedCircle], terms: Terms, current: Sequence[Circle]) -> tuple[Circle, ...]:
    requested = [(circle.lat, circle.lng, circle.radius_m) for circle in area]
    if terms.rules == 1:
        return tuple(Circle(*publish_circle(*disc, terms.location_resolution)) for disc in requested)
    held = [(circle.lat, circle.lng, circle.radius_m) for circle in current]
    return tuple(Circle(*disc) for disc in publish_area(requested, terms.location_resolution, held))


# ---- the fields, in the order of the protocol's table -------------------------------------------------------------

# A lone surrogate can't be encoded, and pydantic lets it pass in a str that has no pattern.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_BUT_NEWLINE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _no_control(text: str) -> str:
    if _CONTROL.search(text):
        raise PydanticCustomError("text", "must hold no control character and no lone surrogate")
    return text


def _no_control_but_newline(text: str) -> str:
    if _CONTROL_BUT_NEWLINE.search(text):
        raise PydanticCustomError("text", "must hold no control character but line feed, and no lone surrogate")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("text", "must hold a character that is not white space")
    return text


def _time(value: object) -> int:
    try:
        return parse_time(value)
    except ValueError:
        raise PydanticCustomError("time", "must be a time such as 2026-01-31T12:00:00Z") from None


# What the schemas say of these rules, in patterns of ECMA 262; the code above decides.
_PLAIN = "[^\\u0000-\\u001f\\u007f-\\u009f]"
_NOT_BLANK = f"^{_PLAIN}*[^\\s\\u0000-\\u001f\\u007f-\\u009f]{_PLAIN}*$"
_LINES = "^[^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f]*$"
_CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME_PATTERN = (
    "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    f"T{_CLOCK}:[0-5][0-9](\\.[0-9]{{1,9}})?(Z|[+-]{_CLOCK})$"
)

Text = Annotated[str, AfterValidator(_no_control), Field(json_schema_extra={"pattern": f"^{_PLAIN}*$"})]
Headline = Annotated[
    Text,
    Field(min_length=1, max_length=140, json_schema_extra={"pattern": _NOT_BLANK}),
    AfterValidator(_not_blank),
]
Description = Annotated[
    str,
    AfterValidator(_no_control_but_newline),
    Field(max_length=1000, json_schema_extra={"pattern": _LINES}),
]
Time = Annotated[
    int,
    PlainValidator(_time, json_schema_input_type=str),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "pattern": _TIME_PATTERN, "examples": ["2026-01-31T12:00:00Z"]}
    ),
]
Id = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", examples=["desk-7.e3b0c442"])]
RevisionNumber = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]


class StrictModel(BaseModel):
    """Nothing is converted, nothing is ignored, and no error carries the value that it refuses."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class CircleRequest(StrictModel):
    """A circle: centre in degrees, radius in metres."""

    type: Literal["circle"]
    lat: Latitude
    lng: Longitude
    radius_m: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ApprovalRequest(StrictModel):
    """Who decided to publish this, and when."""

    reviewer: Annotated[Text, Field(min_length=1, max_length=128)]
    approved_at: Time


# One shape, or a list of 1 to 16. (For the names of tags, see `_location`.)
_ONE, _MANY = "one shape", "list of shapes"
Area = Annotated[
    Annotated[CircleRequest, Tag(_ONE)]
    | Annotated[list[CircleRequest], Field(min_length=1, max_length=16), Tag(_MANY)],
    Discriminator(lambda value: _MANY if isinstance(value, list) else _ONE),
]


class AlertRequest(StrictModel):
    """The body of `POST /v1/alerts`. The defaults of `description` and `expires_at` stand for "left out"."""

    id: Id
    category: Text
    headline: Headline
    description: Description = ""
    severity: Severity
    status: Status = "actual"
    threat: Literal["community", "individual"]
    occurred_at: Time
    expires_at: Time = 0
    area: Area
    approval: ApprovalRequest


class RevisionRequest(AlertRequest):
    """The body of `POST /v1/alerts/{id}/revisions`: the whole alert again, and its next number."""

    id: Id = ""  # may be left out: the path has it
    revision: RevisionNumber


class CancelRequest(StrictModel):
    """The body of `POST /v1/alerts/{id}/cancel`."""

    revision: RevisionNumber
    reason: Annotated[Text, Field(min_length=1, max_length=280)]
    approval: ApprovalRequest


# ---- parsing -----------------------------------------------------------------------------------------------------

_Model = TypeVar("_Model", bound=StrictModel)


class Invalid(GeocastError):  # noqa: N818 (the word of the protocol)
    """A body that breaks section 2: each broken field, and what of it the policy can still judge."""

    def __init__(self, violations: Sequence[Violation], claims: Claims) -> None:
        super().__init__(violations[0].detail)
        self.violations = violations
        self.claims = claims


def parse_publication(body: Mapping[str, Any]) -> Publication:
    """The request in `body` (from `strict.load_json`), as revision 1. Raises Invalid."""
    return _publication(_validate(AlertRequest, body))


def parse_revision(body: Mapping[str, Any], alert_id: str) -> Publication:
    """The request in `body` to revise `alert_id`. Raises Invalid."""
    mismatch = "id" in body and isinstance(body["id"], str) and is_id(body["id"]) and body["id"] != alert_id
    if mismatch:
        raise Invalid([_ID_MISMATCH, *_broken(RevisionRequest, body)], _usable_claims(body))
    return _publication(_validate(RevisionRequest, body).model_copy(update={"id": alert_id}))


def parse_cancellation(body: Mapping[str, Any], alert_id: str) -> Cancellation:
    """The request in `body` to cancel `alert_id`. Raises Invalid."""
    try:
        model = _validate(CancelRequest, body)
    except Invalid as invalid:
        # Of the rules of section 3 a cancel knows only the approval's.
        claims = Claims(None, None, None, None, invalid.claims.approved_at, ())
        raise Invalid(invalid.violations, claims) from None
    approval = Approval(model.approval.reviewer, model.approval.approved_at)
    return Cancellation(alert_id, model.revision, model.reason, approval)


_ID_MISMATCH = Violation("id-mismatch", "/id", "must be the id in the path, or left out")


def _validate(model: type[_Model], body: Mapping[str, Any]) -> _Model:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise Invalid(broken_fields(error), _usable_claims(body)) from None


def _broken(model: type[StrictModel], body: Mapping[str, Any]) -> Sequence[Violation]:
    try:
        _validate(model, body)
    except Invalid as invalid:
        return invalid.violations
    return ()


def _publication(model: AlertRequest) -> Publication:
    circles = model.area if isinstance(model.area, list) else [model.area]
    given = model.model_fields_set
    return Publication(
        id=model.id,
        category=model.category,
        headline=model.headline,
        description=model.description if "description" in given else None,
        severity=model.severity,
        status=model.status,
        threat=model.threat,
        occurred_at=model.occurred_at,
        expires_at=model.expires_at if "expires_at" in given else None,
        # + 0.0 makes 0.0 of -0.0; it is the same number.
        area=tuple(RequestedCircle(c.lat + 0.0, c.lng + 0.0, float(c.radius_m)) for c in circles),
        approval=Approval(model.approval.reviewer, model.approval.approved_at),
        revision=getattr(model, "revision", 1),
        one_shape=not isinstance(model.area, list),
    )


# ---- errors: which field, in whose words --------------------------------------------------------------------------

_NAMEABLE = re.compile(r"[A-Za-z0-9_]{1,40}")
_THREE_DIGITS = re.compile(r"[0-9]{3}")
_SLUGS = {"missing": "missing-field", "extra_forbidden": "unknown-field", "invalid_key": "unknown-field"}


def broken_fields(error: ValidationError) -> list[Violation]:
    """Each field that broke a model, in the order of its fields; unknown ones last. No value is repeated."""
    return [_violation(e) for e in error.errors(include_url=False, include_input=False, include_context=False)]


def _violation(error: ErrorDetails) -> Violation:
    slug = _SLUGS.get(error["type"], "invalid-value")
    if slug == "unknown-field":
        *parents, name = error["loc"]
        location = [*_location(parents), *([name] if _may_be_named(name) else [])]
    else:
        location = _location(error["loc"])
    detail = {"missing-field": "is needed", "unknown-field": "is not a field of this object"}.get(slug)
    return Violation(slug, "".join(f"/{part}" for part in location), detail or error["msg"])


def _location(parts: Sequence[int | str]) -> list[int | str]:
    """The parts that are fields and places in a list: a union's tag, which stands among them, has a blank in it."""
    return [part for part in parts if " " not in str(part)]


def _may_be_named(name: object) -> bool:
    """Whether an unknown field's name may be repeated: it can't hold a telephone number or a sentence."""
    return isinstance(name, str) and bool(_NAMEABLE.fullmatch(name)) and not _THREE_DIGITS.search(name)


_CATEGORY: TypeAdapter[str] = TypeAdapter(AlertRequest.__annotations__["category"], config=ConfigDict(strict=True))
_TIME: TypeAdapter[int] = TypeAdapter(Time)
_RADIUS: TypeAdapter[float] = TypeAdapter(CircleRequest.__annotations__["radius_m"], config=ConfigDict(strict=True))
_T = TypeVar("_T")


def _usable_claims(body: Mapping[str, Any]) -> Claims:
    """What can be judged of a body that is not valid as a whole."""
    approval = body.get("approval")
    area = body.get("area")
    shapes = area if isinstance(area, list) else [area]
    radii = [
        (_radius_pointer(n, shape is area), _usable(_RADIUS, shape.get("radius_m")))
        for n, shape in enumerate(shapes)
        if isinstance(shape, dict)
    ]
    threat = body.get("threat")
    return Claims(
        category=_usable(_CATEGORY, body.get("category")),
        threat=threat if threat in ("community", "individual") else None,
        occurred_at=_usable(_TIME, body.get("occurred_at")),
        expires_at=_usable(_TIME, body.get("expires_at")),
        approved_at=_usable(_TIME, approval.get("approved_at")) if isinstance(approval, dict) else None,
        radii=tuple((pointer, radius) for pointer, radius in radii if radius is not None),
    )


def _usable(adapter: TypeAdapter[_T], value: object) -> _T | None:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None
