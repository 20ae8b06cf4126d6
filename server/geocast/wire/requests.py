"""The requests of publishers: parse them, and turn them into alerts that do not contain the exact place.

A request becomes an alert in two steps, and each step has a type of its own:

    bytes ── parse_publication ──> Publication    as requested: `RequestedCircle`s with the exact centre
                                       │ .accept(terms, current)
                                       v
                                     Alert        as published: `Circle`s only

Rule 1  The requested centre of a circle may be somebody's address. Only a `Publication` has it. All later stages (log,
        matching, frames, metrics, log lines) use an `Alert`, and no function computes a requested circle from a
        published circle. (Polygons are published nearly unchanged, so a `RequestedPolygon` is not a secret.)
Rule 2  Nothing computed from a requested circle is kept, except the published circle.
Rule 3  Two requests have the same content if their accepted `Alert`s are equal. For this to work, an accepted alert
        depends only on the request, the terms (the parts of the policy under which it was accepted), and the revision
        before it. All of these are stored. For example, a publisher repeats a request because the response was lost.
        The node accepts the repeated request under the terms of the stored entry, finds both alerts equal, and answers
        with the stored entry.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from ..model.errors import GeocastError, Malformed
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

# ---- well-formed requests --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestedCircle:
    """A circle as a publisher requested it, with its exact centre, which does not appear in its `repr`.

    No function outside this module has a parameter of this type.
    """

    lat: float = field(repr=False)
    lng: float = field(repr=False)
    radius_m: float


@dataclass(frozen=True, slots=True)
class Publication:
    """A well-formed request to publish a revision of an alert, with the exact place (Rule 1).

    `expires_at` is None if the publisher left it out. `one_shape` is True if `area` was sent as a single shape
    instead of a list; JSON Pointers to the shape then have no index.
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
        """Return the alert that is published if the request is accepted, without the exact place (Rules 1 and 3).

        `terms` are the parts of the policy on which the published form depends: the current ones, or for a repeated
        request those of its first acceptance. `current` is the revision before this one, or None.
        """
        return Alert(
            **{each.name: getattr(self, each.name) for each in _AS_SENT},
            expires_at=self.occurred_at + terms.default_age_ms if self.expires_at is None else self.expires_at,
            area=self.published(terms, current) or (),
            approval=approval_of(self.approval),
            confirm=self.confirm.in_order(),
        )

    def published(self, terms: AcceptedTerms, current: Revision | None) -> tuple[Circle | Polygon, ...] | None:
        """Return the area to be published, or None if it would be too complex (rule P12).

        `terms` and `current` are as for `accept`.
        """
        return _publish(self.area, terms, current)

    def precompute(self, simplify_m: int) -> None:
        """Compute the published polygons now, which takes up to 40 ms.

        Later calls of other methods use the stored results.
        """
        publish_polygons([shape for shape in self.area if isinstance(shape, RequestedPolygon)], simplify_m)

    def facts(self) -> "PolicyFacts":
        """Return the values in this request that the policy checks."""
        shapes = self._shapes()
        return PolicyFacts(
            **{name: getattr(self, name) for name in _CHECKED_AS_SENT},
            approved_at=_approved_at(self.approval),
            radii=tuple((f"{at}/radius_m", each.radius_m) for at, each in shapes if isinstance(each, RequestedCircle)),
            polygons=tuple((at, each) for at, each in shapes if isinstance(each, RequestedPolygon)),
            takes_default=self.expires_at is None,
            texts=tuple((f"/{name}", getattr(self, name) or "") for name in _WORDS),
        )

    def outside_jurisdiction(self, where: "AllowedArea") -> "list[OutsideShape]":
        """Return an OutsideShape for each shape that is not completely inside the publisher's area (rule P22).

        `where` is the area in which the publisher may publish.
        """
        return [found for at, shape in self._shapes() if (found := outside_shape(at, _place(shape), where))]

    def _shapes(self) -> list[tuple[str, "RequestedCircle | RequestedPolygon"]]:
        """Return the shapes of the request as a list of pairs: the shape's JSON Pointer, and the shape."""
        return [("/area" if self.one_shape else f"/area/{n}", shape) for n, shape in enumerate(self.area)]


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """The values in a request that the policy checks.

    If a field is missing or invalid, its attribute is None (rule P9). Times are in ms since 1970. `radii` lists the
    requested radii of circles in metres, each with its JSON Pointer. `polygons` lists the requested polygons, each with
    its pointer. `takes_default` is True if `expires_at` was left out. `texts` lists the texts that people will read,
    each with its pointer; a text is None if it is invalid.
    """

    category: str | None = None
    threat: str | None = None
    occurred_at: int | None = None
    expires_at: int | None = None
    approved_at: int | None = None
    radii: tuple[tuple[str, float], ...] = ()
    polygons: tuple[tuple[str, RequestedPolygon], ...] = ()
    takes_default: bool = False
    texts: tuple[tuple[str, str | None], ...] = ()
    confirm: Confirm | None = NOTHING_CONFIRMED
    status: Status | None = None
    severity: Severity | None = None


Point = tuple[float, float]  # latitude and longitude in degrees


class AllowedArea(Protocol):
    """The area in which one publisher may publish."""

    def contains(self, lat: float, lng: float) -> bool:
        """Return whether the point (degrees) is in the area."""
        ...

    def covers(self, corners: Sequence[Point]) -> bool:
        """Return whether the polygon with these corners lies completely in the area.

        The polygon's edges are straight lines in latitude and longitude (rule A17).
        """
        ...


@dataclass(frozen=True, slots=True)
class OutsideShape:
    """Identifies a requested shape that is outside the area where its publisher may publish.

    `pointer` is the JSON Pointer to the shape; the shape's coordinates are not part of this object. `swapped` is True
    if all its points would be inside if latitude and longitude were exchanged.
    """

    pointer: str
    swapped: bool


def outside_shape(
    pointer: str, place: Point | Sequence[Point] | RequestedPolygon, where: AllowedArea
) -> OutsideShape | None:
    """Return an OutsideShape if the shape is not completely inside the area `where`, otherwise None.

    `pointer` is the JSON Pointer to the shape. `place` is the centre of a circle, or the corners of a polygon; the
    result contains no part of it.
    """
    points = place.corners if isinstance(place, RequestedPolygon) else [place] if isinstance(place, tuple) else place
    if isinstance(place, tuple):
        fits = where.contains(*place)
    else:
        fits = place.is_covered(where.covers) if isinstance(place, RequestedPolygon) else where.covers(points)
    return None if fits else OutsideShape(pointer, all(where.contains(lng, lat) for lat, lng in points))


def _place(shape: RequestedCircle | RequestedPolygon) -> Point | RequestedPolygon:
    return shape if isinstance(shape, RequestedPolygon) else (shape.lat, shape.lng)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A well-formed request to cancel an alert. `revision` is the number that the cancel will have."""

    id: str
    revision: int
    reason: str
    approval: "Approved"
    confirm: Confirm

    def facts(self) -> PolicyFacts:
        """Return the values in this request that the policy checks: its approval, reason and confirmations."""
        texts = (("/reason", self.reason),)
        return PolicyFacts(approved_at=_approved_at(self.approval), texts=texts, confirm=self.confirm)


# The approval of a request: without signatures (rule A11), with signatures, or None if it was left out.
Approved = Approval | ApprovalProof | None


def approval_of(approved: Approved) -> Approval:
    """Return the approval of a request as an `Approval`, which has the reviewer and the time (rule A11).

    For an approval by signatures, return an empty `Approval`, because the reviewers are known only after the signatures
    were checked.
    """
    return approved if isinstance(approved, Approval) else Approval("", 0)


def _approved_at(approved: Approved) -> int | None:
    """Return the time of approval in ms since 1970, which rule P3 checks.

    Return None for an approval by signatures, whose time rule AP4 checks.
    """
    return approved.approved_at if isinstance(approved, Approval) else None


def _publish(
    area: Sequence[RequestedCircle | RequestedPolygon], terms: AcceptedTerms, current: Revision | None
) -> tuple[Circle | Polygon, ...] | None:
    """Return the area to be published, or None if it would be too complex.

    `current` is the revision before this one, or None. Rules B11 and B12 apply only to circles.
    """
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


# ---- models of the bodies, with their fields in the order of the protocol's table --------------------------------


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
    """A polygon: a GeoJSON Polygon geometry (RFC 7946) of one ring, with longitude and latitude in degrees."""

    type: Literal["Polygon"]
    coordinates: Ring


class ApprovalRequest(StrictModel):
    """An approval without signatures: the reviewer who decided to publish, and the time of that decision."""

    reviewer: Annotated[Text, Field(min_length=1, max_length=128)]
    approved_at: Time


def _strict_form(text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FORM_BYTES:
        raise PydanticCustomError("form", "must have at most {most} bytes", {"most": MAX_FORM_BYTES})
    try:
        members = load_json(text.encode())
        json.dumps(members, ensure_ascii=False, allow_nan=False).encode()  # raises for values that break rule L2
    except (Malformed, ValueError):
        raise PydanticCustomError("form", "must be a form: one strict JSON object as text") from None
    return text


class SignatureRequest(StrictModel):
    """A reviewer's signature of the text `form`: a detached JWS, whose two members are in base64url without padding."""

    protected: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,1024}$")]
    signature: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{86}$")]


class ProofRequest(StrictModel):
    """An approval by signatures: the text `form` that a dry run returned, and the reviewers' signatures of it."""

    form: Annotated[str, Field(max_length=MAX_FORM_BYTES), AfterValidator(_strict_form)]
    signatures: Annotated[list[SignatureRequest], Field(min_length=1, max_length=MAX_SIGNATURES)]


def _once_each(kinds: list[str]) -> list[str]:
    if len(set(kinds)) < len(kinds):
        raise PydanticCustomError("kinds", "must name each kind once")
    return kinds


# Kinds of words that look like personal data (`policy/pii.KINDS`) and that a person may confirm.
Confirmable = Literal["address", "units", "phone", "contact", "name"]


Kinds = Annotated[
    list[Confirmable], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_once_each)
]


class ConfirmRequest(StrictModel):
    """The confirmations of a person.

    `area_km2` confirms a large area by its size, and `text` lists the kinds of suspicious words that are intended.
    """

    area_km2: Annotated[float, Field(gt=0, le=MAX_AREA_KM2, allow_inf_nan=False)] = 0.0  # 0 means "left out"
    text: Kinds = Field(default_factory=list)


# An area is one shape, or a list of 1 to 16 shapes. These names are the tags of the two unions. They contain a space,
# so that `fields.broken_fields` can tell them from the names of fields.
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


def _kind_of_approval(approval: object) -> str:
    return _BY_PROOF if isinstance(approval, dict) and approval.keys() & {"form", "signatures"} else _BY_WORD


Approving = Annotated[
    Annotated[ApprovalRequest, Tag(_BY_WORD)] | Annotated[ProofRequest, Tag(_BY_PROOF)],
    Discriminator(_kind_of_approval),
]


class AlertRequest(StrictModel):
    """The body of `POST /v1/alerts`. An empty text and the time 0, as defaults, stand for fields that were left out."""

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
    """The body of `POST /v1/alerts/{id}/revisions`: the complete alert, and the number of the new revision."""

    id: Id = ""  # empty means "left out", since the path has the id
    revision: RevisionNumber


Reason = Annotated[Text, Field(min_length=1, max_length=280)]


class CancelRequest(StrictModel):
    """The body of `POST /v1/alerts/{id}/cancel`."""

    revision: RevisionNumber
    reason: Reason
    approval: Approving
    confirm: ConfirmRequest = ConfirmRequest()


# The fields of an alert that are accepted as they were sent.
_AS_SENT = tuple(
    each
    for each in members_of(Alert, without=("expires_at", "area", "approval", "confirm"))
    if each.name in AlertRequest.model_fields
)
# The values of a request that the policy checks as they were sent.
_CHECKED_AS_SENT = ("category", "threat", "occurred_at", "expires_at", "confirm", "status", "severity")
# The texts of a request that people will read. The policy checks all of them (rule P24).
_WORDS: Mapping[str, TypeAdapter[str]] = {
    name: TypeAdapter(AlertRequest.__annotations__[name], config=ConfigDict(strict=True))
    for name, each in AlertRequest.model_fields.items()
    if each.annotation is str and name not in ("id", "category")
}

# ---- parsing bodies ----------------------------------------------------------------------------------------------

_Model = TypeVar("_Model", bound=StrictModel)


class Invalid(GeocastError):  # noqa: N818 (the word of the protocol)
    """Raised if a request body does not have the form that section 2 of the protocol requires.

    `violations` lists the invalid fields, and `facts()` returns the valid parts, so that the policy can check them. So
    one response can list everything that is wrong, and a publisher does not need many attempts.
    """

    def __init__(self, violations: Sequence[Violation], facts: PolicyFacts, area: object = None) -> None:
        """Create the error. `area` is the unvalidated value of the body's field `area`."""
        super().__init__(violations[0].detail)
        self.violations = violations
        self._facts = facts
        self._area = area

    def facts(self) -> PolicyFacts:
        """Return the values in the request body that the policy checks, as far as they are valid."""
        return self._facts

    def published(self, terms: AcceptedTerms, current: Revision | None) -> tuple[Circle | Polygon, ...] | None:
        """Return the area to be published, or None if it is invalid or would be too complex (rule P12).

        `terms` and `current` are as for `Publication.accept`.
        """
        area = usable(_AREA, self._area)
        return None if area is None else _publish(_requested_area(area), terms, current)

    def outside_jurisdiction(self, where: AllowedArea) -> list[OutsideShape]:
        """Return an OutsideShape for each valid shape that is not completely inside the publisher's area (rule P22)."""
        found = [(at, usable(_SHAPE, shape)) for at, shape in _shapes_of(self._area).items()]
        places = [(at, _place(_requested(shape))) for at, shape in found if shape is not None]
        return [each for at, place in places if (each := outside_shape(at, place, where))]


# The approval that is assumed if a dry run leaves it out, so that everything else is checked.
_PLACEHOLDER_APPROVAL = {"reviewer": "-", "approved_at": "1970-01-01T00:00:00Z"}


def parse_publication(body: Mapping[str, Any], *, dry_run: bool = False) -> Publication:
    """Parse a request to publish revision 1 of an alert.

    Raise Invalid if the body is invalid. `body` comes from `strict_json.load_json`. If `dry_run` is true, the approval
    may be left out.
    """
    return _publication(_validate(AlertRequest, body, dry_run=dry_run), is_approved="approval" in body)


def parse_revision(body: Mapping[str, Any], alert_id: str, *, dry_run: bool = False) -> Publication:
    """Parse a request to publish the next revision of `alert_id`.

    Raise Invalid if the body is invalid. If `dry_run` is true, the approval may be left out.
    """
    model = _validate(RevisionRequest, body, id_mismatch(body, alert_id), dry_run=dry_run)
    return _publication(model.model_copy(update={"id": alert_id}), is_approved="approval" in body)


def parse_cancellation(body: Mapping[str, Any], alert_id: str, *, dry_run: bool = False) -> Cancellation:
    """Parse a request to cancel `alert_id`.

    Raise Invalid if the body is invalid. If `dry_run` is true, the approval may be left out.
    """
    try:
        model = _validate(CancelRequest, body, dry_run=dry_run)
    except Invalid as invalid:
        # A cancel has to obey only two rules of section 3: the ones about the approval (P3) and about texts (P24).
        texts = (("/reason", usable(_REASON, body.get("reason"))),)
        found = invalid.facts()
        facts = PolicyFacts(approved_at=found.approved_at, texts=texts, confirm=found.confirm)
        raise Invalid(invalid.violations, facts) from None
    approved = _approved(model.approval) if "approval" in body else None
    return Cancellation(alert_id, model.revision, model.reason, approved, _confirm(model.confirm))


def _approved(model: ApprovalRequest | ProofRequest) -> Approval | ApprovalProof:
    if isinstance(model, ApprovalRequest):
        return Approval(model.reviewer, model.approved_at)
    return ApprovalProof(model.form, tuple(Signature(each.protected, each.signature) for each in model.signatures))


def id_mismatch(body: Mapping[str, Any], path_id: str) -> list[Violation]:
    """Return a violation if the body has a valid id that is not the one in the path."""
    given = body.get("id")
    if not isinstance(given, str) or not is_id(given) or given == path_id:
        return []
    return [Violation(problems.ID_MISMATCH, "/id", "must be the id in the path, or left out")]


def validated(
    model: type[_Model], body: Mapping[str, Any], broken: Sequence[Violation], facts: Callable[[], PolicyFacts]
) -> _Model:
    """Return the validated body of a request.

    Raise Invalid, with the result of `facts`, if the body breaks a rule, or if `broken` has violations already.
    """
    try:
        valid = model.model_validate(body)
    except ValidationError as error:
        broken = [*broken, *broken_fields(error)]
    if broken:
        raise Invalid(broken, facts(), body.get("area")) from None
    return valid


def _validate(
    model: type[_Model], body: Mapping[str, Any], broken: Sequence[Violation] = (), *, dry_run: bool
) -> _Model:
    given = {"approval": _PLACEHOLDER_APPROVAL, **body} if dry_run else body
    return validated(model, given, broken, lambda: _usable_facts(body))


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
    # -0.0 counts as 0 (rule L3). Adding 0.0 turns -0.0 into 0.0, and changes no other number.
    return RequestedCircle(shape.lat + 0.0, shape.lng + 0.0, float(shape.radius_m))


def area_of(
    shapes: Iterable[tuple[float, float, float] | RequestedPolygon],
) -> tuple[RequestedCircle | RequestedPolygon, ...]:
    """Return a requested area with these shapes.

    Circles are given as (latitude, longitude, radius in metres), polygons as RequestedPolygon.
    """
    return tuple(each if isinstance(each, RequestedPolygon) else RequestedCircle(*each) for each in shapes)


def has_polygons(body: Mapping[str, Any]) -> bool:
    """Return whether the area in a request body has a polygon, which takes milliseconds to parse."""
    area = body.get("area")
    shapes = area if isinstance(area, list) else [area]
    return any(_type_of(shape) == _POLYGON for shape in shapes)


# ---- the valid parts of an invalid body ------------------------------------------------------------------------

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
    """Return the values in an invalid body that the policy can still check, because their own fields are valid."""
    approval = body.get("approval")
    shapes = _shapes_of(body.get("area"))
    radii = [(f"{at}/radius_m", usable(_RADIUS, shape.get("radius_m"))) for at, shape in _maps_of_kind(shapes, _CIRCLE)]
    polygons = [(at, usable(_RING, shape.get("coordinates"))) for at, shape in _maps_of_kind(shapes, _POLYGON)]
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
    """Return the shapes of an unvalidated area as a dict by JSON Pointer. The shapes may be invalid."""
    return {f"/area/{n}": shape for n, shape in enumerate(area)} if isinstance(area, list) else {"/area": area}


def _maps_of_kind(shapes: Mapping[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Return those shapes that are dicts and are of the given kind (circle or polygon).

    The result has pairs of the shape's JSON Pointer and the dict. All fields but the kind may be invalid.
    """
    return [(at, shape) for at, shape in shapes.items() if isinstance(shape, dict) and _type_of(shape) == kind]
