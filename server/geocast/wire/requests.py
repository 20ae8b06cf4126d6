"""What a publisher sends, and what it is accepted as: here the exact place ends.

Parsing is the only way in. It has two steps, and the type of what comes out tells where one stands:

    bytes ── parse_publication ──> Publication    as requested: `RequestedCircle`s with the exact centre
                                       │ .accept(terms, current)
                                       v
                                     Alert        as published: `Circle`s only

Rule 1  The requested centre of a circle is an address. It lives in a `Publication` and goes no further: everything
        downstream (log, matching, frames, metrics, log lines) takes an `Alert`, and no function makes a requested
        circle out of a published one. (A polygon hides nothing: its `RequestedPolygon` is no secret.)
Rule 2  Neither the requested circle nor anything computed from it, except the published circle, is kept.
Rule 3  Two requests have the same content if the `Alert`s that they are accepted as are equal. So what an `Alert`
        comes to depends on the request, on the terms, and on the revision that it follows; all of these are kept.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from ..errors import GeocastError, Malformed
from ..geometry.published_polygon import RequestedPolygon, publish_polygons
from ..geometry.sphere import publish_area, publish_circle
from ..model import problems
from ..model.alert import (
    MAX_FORM_BYTES,
    MAX_SIGNATURES,
    NOTHING_CONFIRMED,
    AcceptedTerms,
    Alert,
    Approval,
    ApprovalProof,
    Circle,
    Confirm,
    Polygon,
    Revision,
    Severity,
    Signature,
    Status,
    is_id,
)
from ..model.members import members_of
from ..model.problems import Violation
from .fields import (
    Description,
    Headline,
    Id,
    Latitude,
    Longitude,
    RevisionNumber,
    Ring,
    StrictModel,
    Text,
    Time,
    broken_fields,
    usable,
)
from .strict_json import load_json

MAX_AREA_KM2 = 10_000_000_000  # more than sixteen circles can cover

# ---- what is requested -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestedCircle:
    """A circle as it was asked for, with its exact centre, which no `repr` shows.

    Nothing outside this module takes one.
    """

    lat: float = field(repr=False)
    lng: float = field(repr=False)
    radius_m: float


@dataclass(frozen=True, slots=True)
class Publication:
    """A well-formed request to publish a revision (Rule 1).

    `expires_at` is None where it was left out. `one_shape` says that `area` was sent as one shape and not as a list, so
    that JSON Pointers into it have no index.
    """

    id: str
    category: str
    headline: str
    description: str | None
    severity: Severity
    status: Status
    threat: str
    occurred_at: int
    expires_at: int | None
    area: tuple[RequestedCircle | RequestedPolygon, ...] = field(repr=False)
    approval: "Approved"
    revision: int
    one_shape: bool
    confirm: Confirm

    def accept(self, terms: AcceptedTerms, current: Revision | None) -> Alert:
        """The alert in accepted form. Here the exact place ends (Rules 1 and 3).

        `terms`: those of the policy, or those of then for a repeated request; `current`: the revision that it follows.
        """
        return Alert(
            **{each.name: getattr(self, each.name) for each in _AS_SENT},
            expires_at=self.occurred_at + terms.default_age_ms if self.expires_at is None else self.expires_at,
            area=self.published(terms, current) or (),
            approval=approval_of(self.approval),
            confirm=self.confirm.in_order(),
        )

    def published(self, terms: AcceptedTerms, current: Revision | None) -> tuple[Circle | Polygon, ...] | None:
        """The area as published; None if it would be too complex (P12)."""
        return _publish(self.area, terms, current)

    def precompute(self, simplify_m: int) -> None:
        """Work out what its polygons are published as, which takes up to 40 ms; it is kept, and then takes none."""
        publish_polygons([shape for shape in self.area if isinstance(shape, RequestedPolygon)], simplify_m)

    def facts(self) -> "PolicyFacts":
        """The part of the request that the policy judges."""
        return PolicyFacts(
            self.category,
            self.threat,
            self.occurred_at,
            self.expires_at,
            _approved_at(self.approval),
            tuple(
                (f"{at}/radius_m", shape.radius_m)
                for at, shape in self._shapes()
                if not isinstance(shape, RequestedPolygon)
            ),
            tuple((at, shape) for at, shape in self._shapes() if isinstance(shape, RequestedPolygon)),
            self.expires_at is None,
            tuple((f"/{name}", getattr(self, name) or "") for name in _WORDS),
            self.confirm,
            self.status,
            self.severity,
        )

    def outside_jurisdiction(self, where: "AllowedArea") -> "list[OutsideShape]":
        """The shapes that are not where they may be (P22)."""
        return [found for at, shape in self._shapes() if (found := outside_shape(at, _place(shape), where))]

    def _shapes(self) -> list[tuple[str, "RequestedCircle | RequestedPolygon"]]:
        """Each shape with the JSON Pointer to it."""
        return [("/area" if self.one_shape else f"/area/{n}", shape) for n, shape in enumerate(self.area)]


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What a request claims and the policy judges. A claim is None where its field was left out or is unusable (P9).

    Times are in ms since 1970. `radii` are the requested radii of circles in metres, each with the JSON Pointer to it;
    `polygons` are what was asked for, each with the pointer to the shape. `takes_default`: `expires_at` was left out.
    `texts` are those that people will read, each with the pointer to it; one is None if it is unusable.
    """

    category: str | None
    threat: str | None
    occurred_at: int | None
    expires_at: int | None
    approved_at: int | None
    radii: tuple[tuple[str, float], ...]
    polygons: tuple[tuple[str, RequestedPolygon], ...] = ()
    takes_default: bool = False
    texts: tuple[tuple[str, str | None], ...] = ()
    confirm: Confirm | None = NOTHING_CONFIRMED
    status: Status | None = None
    severity: Severity | None = None


Point = tuple[float, float]  # latitude and longitude in degrees


class AllowedArea(Protocol):
    """Says where shapes may be, for one publisher."""

    def contains(self, lat: float, lng: float) -> bool:
        """Whether a point may be there."""
        ...

    def covers(self, corners: Sequence[Point]) -> bool:
        """Whether a ring may be there, with all that it winds around; its edges are straight as A17 says."""
        ...


@dataclass(frozen=True, slots=True)
class OutsideShape:
    """A requested shape that is not where it may be; the JSON Pointer to it, and nothing of where it is.

    `swapped`: its points may be there with latitude and longitude exchanged.
    """

    pointer: str
    swapped: bool


def outside_shape(
    pointer: str, place: Point | Sequence[Point] | RequestedPolygon, where: AllowedArea
) -> OutsideShape | None:
    """Judge the centre of a circle, or the corners of a ring; None: it may be there. Nothing of it is kept."""
    points = place.corners if isinstance(place, RequestedPolygon) else [place] if isinstance(place, tuple) else place
    if isinstance(place, tuple):
        fits = where.contains(*place)
    else:
        fits = place.judged(where.covers) if isinstance(place, RequestedPolygon) else where.covers(points)
    return None if fits else OutsideShape(pointer, all(where.contains(lng, lat) for lat, lng in points))


def _place(shape: RequestedCircle | RequestedPolygon) -> Point | RequestedPolygon:
    return shape if isinstance(shape, RequestedPolygon) else (shape.lat, shape.lng)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A well-formed request to cancel; `revision` is the number that the cancel is to take."""

    id: str
    revision: int
    reason: str
    approval: "Approved"
    confirm: Confirm

    def facts(self) -> PolicyFacts:
        """The part of the request that the policy judges: its approval and its words."""
        texts = (("/reason", self.reason),)
        return PolicyFacts(None, None, None, None, _approved_at(self.approval), (), texts=texts, confirm=self.confirm)


Approved = (
    Approval | ApprovalProof | None
)  # how a request was approved: as A11 says, or with signatures; None: it was not said


def approval_of(approved: Approved) -> Approval:
    """Who approved, as A11 has it. Of signatures that is known when they have been checked."""
    return approved if isinstance(approved, Approval) else Approval("", 0)


def _approved_at(approved: Approved) -> int | None:
    """When, as P3 judges it. Of signatures AP4 judges that."""
    return approved.approved_at if isinstance(approved, Approval) else None


def _publish(
    area: Sequence[RequestedCircle | RequestedPolygon], terms: AcceptedTerms, current: Revision | None
) -> tuple[Circle | Polygon, ...] | None:
    """The area as published; B11 and B12 are about its circles, and look at nothing else in it."""
    published = publish_polygons([shape for shape in area if isinstance(shape, RequestedPolygon)], terms.simplify_m)
    if published is None:
        return None
    held = current.alert.circles if current is not None else ()
    circles = iter(_publish_circles([shape for shape in area if not isinstance(shape, RequestedPolygon)], terms, held))
    polygons = iter(published)
    return tuple(next(polygons) if isinstance(shape, RequestedPolygon) else next(circles) for shape in area)


def _publish_circles(
    area: Sequence[RequestedCircle], terms: AcceptedTerms, current: Sequence[Circle]
) -> tuple[Circle, ...]:
    if not area:
        return ()
    requested = [(circle.lat, circle.lng, circle.radius_m) for circle in area]
    if terms.rules == 1:
        return tuple(Circle(*publish_circle(*disc, terms.location_resolution)) for disc in requested)
    held = [(circle.lat, circle.lng, circle.radius_m) for circle in current]
    return tuple(Circle(*disc) for disc in publish_area(requested, terms.location_resolution, held))


# ---- the bodies of requests, with their fields in the order of the protocol's table ------------------------------


def _known_type(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("shape", "must be circle or Polygon") from None


class CircleRequest(StrictModel):
    """A circle: centre in degrees, radius in metres."""

    type: Annotated[Literal["circle"], WrapValidator(_known_type)]
    lat: Latitude
    lng: Longitude
    radius_m: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PolygonRequest(StrictModel):
    """A polygon: a GeoJSON Polygon geometry (RFC 7946) of one ring, positions as longitude and latitude in degrees."""

    type: Literal["Polygon"]
    coordinates: Ring


class ApprovalRequest(StrictModel):
    """Who decided to publish this, and when."""

    reviewer: Annotated[Text, Field(min_length=1, max_length=128)]
    approved_at: Time


def _strict_form(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FORM_BYTES:
        raise PydanticCustomError("form", "must have at most {most} bytes", {"most": MAX_FORM_BYTES})
    try:
        members = load_json(text.encode())
        json.dumps(members, ensure_ascii=False, allow_nan=False).encode()  # raises for what L2 has no place for
    except (Malformed, ValueError):
        raise PydanticCustomError("form", "must be a form: the text of one strict JSON object") from None
    return text


class SignatureRequest(StrictModel):
    """A reviewer's signature of the form: a detached JWS, both members in base64url without padding."""

    protected: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,1024}$")]
    signature: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{86}$")]


class ProofRequest(StrictModel):
    """What was approved, as the text that a dry run gave, and who has signed that."""

    form: Annotated[str, Field(max_length=MAX_FORM_BYTES), AfterValidator(_strict_form)]
    signatures: Annotated[list[SignatureRequest], Field(min_length=1, max_length=MAX_SIGNATURES)]


def _once_each(kinds: list[str]) -> list[str]:
    if len(set(kinds)) < len(kinds):
        raise PydanticCustomError("kinds", "must name each kind once")
    return kinds


# Those of `policy/pii.KINDS` that can be confirmed.
Confirmable = Literal["address", "units", "phone", "contact", "name"]


Kinds = Annotated[
    list[Confirmable], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_once_each)
]


class ConfirmRequest(StrictModel):
    """What a person has confirmed of what would be held: km², and kinds of words. Nothing that is not held."""

    area_km2: Annotated[float, Field(gt=0, le=MAX_AREA_KM2, allow_inf_nan=False)] = 0.0  # stands for "left out"
    text: Kinds = Field(default_factory=list)


# One shape, or a list of 1 to 16. The tags have a blank in them, by which `fields.broken_fields` knows them.
_ONE, _MANY, _CIRCLE, _POLYGON = "one shape", "list of shapes", "a circle", "a polygon"


def _type_of(shape: object) -> str:
    return _POLYGON if isinstance(shape, dict) and shape.get("type") == "Polygon" else _CIRCLE


ShapeRequest = Annotated[
    Annotated[CircleRequest, Tag(_CIRCLE)] | Annotated[PolygonRequest, Tag(_POLYGON)], Discriminator(_type_of)
]
Area = Annotated[
    Annotated[ShapeRequest, Tag(_ONE)] | Annotated[list[ShapeRequest], Field(min_length=1, max_length=16), Tag(_MANY)],
    Discriminator(lambda value: _MANY if isinstance(value, list) else _ONE),
]


_BY_WORD, _BY_PROOF = "by word", "by proof"


def _way_of(approval: object) -> str:
    return _BY_PROOF if isinstance(approval, dict) and approval.keys() & {"form", "signatures"} else _BY_WORD


Approving = Annotated[
    Annotated[ApprovalRequest, Tag(_BY_WORD)] | Annotated[ProofRequest, Tag(_BY_PROOF)], Discriminator(_way_of)
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
    approval: Approving
    confirm: ConfirmRequest = ConfirmRequest()


class RevisionRequest(AlertRequest):
    """The body of `POST /v1/alerts/{id}/revisions`: the whole alert again, and its next number."""

    id: Id = ""  # stands for "left out": the path has it
    revision: RevisionNumber


Reason = Annotated[Text, Field(min_length=1, max_length=280)]


class CancelRequest(StrictModel):
    """The body of `POST /v1/alerts/{id}/cancel`."""

    revision: RevisionNumber
    reason: Reason
    approval: Approving
    confirm: ConfirmRequest = ConfirmRequest()


# The members of an alert that are accepted as they were sent.
_AS_SENT = tuple(
    each
    for each in members_of(Alert, without=("expires_at", "area", "approval", "confirm"))
    if each.name in AlertRequest.model_fields
)
# The texts of a request that people will read: the policy judges all of them (P24).
_WORDS: Mapping[str, TypeAdapter[str]] = {
    name: TypeAdapter(AlertRequest.__annotations__[name], config=ConfigDict(strict=True))
    for name, each in AlertRequest.model_fields.items()
    if each.annotation is str and name not in ("id", "category")
}

# ---- parsing -----------------------------------------------------------------------------------------------------

_Model = TypeVar("_Model", bound=StrictModel)


class Invalid(GeocastError):  # noqa: N818 (the word of the protocol)
    """A body breaks section 2. `violations` has each broken field, `facts()` what the policy can still judge.

    So one answer lists everything that is wrong, and a desk need not try again and again.
    """

    def __init__(self, violations: Sequence[Violation], facts: PolicyFacts, area: object = None) -> None:
        """`area`: the field as it was sent."""
        super().__init__(violations[0].detail)
        self.violations = violations
        self._facts = facts
        self._area = area

    def facts(self) -> PolicyFacts:
        """The part of the request that can be judged."""
        return self._facts

    def published(self, terms: AcceptedTerms, current: Revision | None) -> tuple[Circle | Polygon, ...] | None:
        """The area as published; None if it is unusable, or would be too complex (P12)."""
        area = usable(_AREA, self._area)
        return None if area is None else _publish(_requested_area(area), terms, current)

    def outside_jurisdiction(self, where: AllowedArea) -> list[OutsideShape]:
        """The shapes that are not where they may be (P22); of those that are usable."""
        found = [(at, usable(_SHAPE, shape)) for at, shape in _shapes_of(self._area).items()]
        places = [(at, _place(_requested(shape))) for at, shape in found if shape is not None]
        return [each for at, place in places if (each := outside_shape(at, place, where))]


# It stands for the approval that a dry run may leave out, so that all else is judged.
_NOT_SAID = {"reviewer": "-", "approved_at": "1970-01-01T00:00:00Z"}


def parse_publication(body: Mapping[str, Any], *, dry_run: bool = False) -> Publication:
    """The request to publish revision 1 in `body`, which `strict_json.load_json` has read. Raises Invalid.

    With `dry_run` it need not be approved.
    """
    return _publication(_validate(AlertRequest, body, dry_run=dry_run), is_approved=_is_approved(body))


def parse_revision(body: Mapping[str, Any], alert_id: str, *, dry_run: bool = False) -> Publication:
    """The request in `body` to publish the next revision of `alert_id`. Raises Invalid."""
    mismatch = "id" in body and isinstance(body["id"], str) and is_id(body["id"]) and body["id"] != alert_id
    if mismatch:
        violations = [ID_MISMATCH, *_broken(RevisionRequest, body, dry_run=dry_run)]
        raise Invalid(violations, _usable_facts(body), body.get("area"))
    model = _validate(RevisionRequest, body, dry_run=dry_run)
    return _publication(model.model_copy(update={"id": alert_id}), is_approved=_is_approved(body))


def parse_cancellation(body: Mapping[str, Any], alert_id: str, *, dry_run: bool = False) -> Cancellation:
    """The request in `body` to cancel `alert_id`. Raises Invalid."""
    try:
        model = _validate(CancelRequest, body, dry_run=dry_run)
    except Invalid as invalid:
        # Of section 3 only the rules about the approval (P3) and about words (P24) are for cancels too.
        texts = (("/reason", usable(_REASON, body.get("reason"))),)
        approved_at, confirm = invalid.facts().approved_at, invalid.facts().confirm
        facts = PolicyFacts(None, None, None, None, approved_at, (), texts=texts, confirm=confirm)
        raise Invalid(invalid.violations, facts) from None
    approved = _approved(model.approval) if _is_approved(body) else None
    return Cancellation(alert_id, model.revision, model.reason, approved, _confirm(model.confirm))


def _is_approved(body: Mapping[str, Any]) -> bool:
    """Whether it is said how a request was approved. (If not, it is a dry run.)"""
    return "approval" in body


def _approved(model: ApprovalRequest | ProofRequest) -> Approval | ApprovalProof:
    if isinstance(model, ApprovalRequest):
        return Approval(model.reviewer, model.approved_at)
    return ApprovalProof(model.form, tuple(Signature(each.protected, each.signature) for each in model.signatures))


ID_MISMATCH = Violation(problems.ID_MISMATCH, "/id", "must be the id in the path, or left out")


def _validate(model: type[_Model], body: Mapping[str, Any], *, dry_run: bool = False) -> _Model:
    try:
        return model.model_validate({"approval": _NOT_SAID, **body} if dry_run else body)
    except ValidationError as error:
        raise Invalid(broken_fields(error), _usable_facts(body), body.get("area")) from None


def _broken(model: type[StrictModel], body: Mapping[str, Any], *, dry_run: bool) -> Sequence[Violation]:
    try:
        _validate(model, body, dry_run=dry_run)
    except Invalid as invalid:
        return invalid.violations
    return ()


def _publication(model: AlertRequest, *, is_approved: bool) -> Publication:
    given = model.model_fields_set
    absent = {each.name for each in _AS_SENT if each.may_be_none} - given
    as_sent: dict[str, Any] = {
        each.name: None if each.name in absent else getattr(model, each.name) for each in _AS_SENT
    }
    return Publication(
        **as_sent,
        threat=model.threat,
        expires_at=model.expires_at if "expires_at" in given else None,
        area=_requested_area(model.area),
        approval=_approved(model.approval) if is_approved else None,
        revision=getattr(model, "revision", 1),
        one_shape=not isinstance(model.area, list),
        confirm=_confirm(model.confirm),
    )


def _confirm(model: ConfirmRequest) -> Confirm:
    return Confirm(model.area_km2 or None, tuple(model.text))


def _requested_area(area: Any) -> tuple[RequestedCircle | RequestedPolygon, ...]:
    return tuple(map(_requested, area if isinstance(area, list) else [area]))


def _requested(shape: CircleRequest | PolygonRequest) -> RequestedCircle | RequestedPolygon:
    if isinstance(shape, PolygonRequest):
        return shape.coordinates
    # -0.0 is 0 (L3): adding 0.0 makes 0.0 of it and changes no other number.
    return RequestedCircle(shape.lat + 0.0, shape.lng + 0.0, float(shape.radius_m))


def area_of(
    shapes: Iterable[tuple[float, float, float] | RequestedPolygon],
) -> tuple[RequestedCircle | RequestedPolygon, ...]:
    """The area that is asked for where no JSON has it: circles as latitude, longitude and radius, and outlines."""
    return tuple(each if isinstance(each, RequestedPolygon) else RequestedCircle(*each) for each in shapes)


def has_polygons(body: Mapping[str, Any]) -> bool:
    """Whether there is a polygon in a body: then it takes milliseconds to read."""
    area = body.get("area")
    shapes = area if isinstance(area, list) else [area]
    return any(_type_of(shape) == _POLYGON for shape in shapes)


# ---- what of a broken body can still be judged -----------------------------------------------------------------

_CATEGORY: TypeAdapter[str] = TypeAdapter(AlertRequest.__annotations__["category"], config=ConfigDict(strict=True))
TIME: TypeAdapter[int] = TypeAdapter(Time)
_RADIUS: TypeAdapter[float] = TypeAdapter(CircleRequest.__annotations__["radius_m"], config=ConfigDict(strict=True))
_RING: TypeAdapter[RequestedPolygon] = TypeAdapter(Ring)
_REASON: TypeAdapter[str] = TypeAdapter(Reason, config=ConfigDict(strict=True))
_CONFIRM: TypeAdapter[ConfirmRequest] = TypeAdapter(ConfirmRequest)
_AREA: TypeAdapter[Any] = TypeAdapter(AlertRequest.__annotations__["area"])
_SHAPE: TypeAdapter[Any] = TypeAdapter(ShapeRequest)
_STATUS: TypeAdapter[Status] = TypeAdapter(Status)
_SEVERITY: TypeAdapter[Severity] = TypeAdapter(Severity)


def _usable_facts(body: Mapping[str, Any]) -> PolicyFacts:
    """What the policy can judge of a body that is not valid as a whole: each field that is valid by itself."""
    approval = body.get("approval")
    shapes = _shapes_of(body.get("area"))
    radii = [(f"{at}/radius_m", usable(_RADIUS, shape.get("radius_m"))) for at, shape in _maps(shapes, _CIRCLE)]
    polygons = [(at, usable(_RING, shape.get("coordinates"))) for at, shape in _maps(shapes, _POLYGON)]
    threat = body.get("threat")
    confirm = usable(_CONFIRM, body.get("confirm", {}))
    return PolicyFacts(
        category=usable(_CATEGORY, body.get("category")),
        threat=threat if threat in ("community", "individual") else None,
        occurred_at=usable(TIME, body.get("occurred_at")),
        expires_at=usable(TIME, body.get("expires_at")),
        approved_at=usable(TIME, approval.get("approved_at")) if isinstance(approval, dict) else None,
        radii=tuple((pointer, radius) for pointer, radius in radii if radius is not None),
        polygons=tuple((pointer, outline) for pointer, outline in polygons if outline is not None),
        takes_default="expires_at" not in body,
        texts=tuple((f"/{name}", usable(adapter, body.get(name, ""))) for name, adapter in _WORDS.items()),
        confirm=None if confirm is None else _confirm(confirm),
        status=usable(_STATUS, body.get("status", "actual")),
        severity=usable(_SEVERITY, body.get("severity")),
    )


def _shapes_of(area: object) -> dict[str, Any]:
    """Each shape of an area, however broken, by the JSON Pointer to it."""
    return {f"/area/{n}": shape for n, shape in enumerate(area)} if isinstance(area, list) else {"/area": area}


def _maps(shapes: Mapping[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Those shapes of a kind that are maps, however broken."""
    return [(at, shape) for at, shape in shapes.items() if isinstance(shape, dict) and _type_of(shape) == kind]
