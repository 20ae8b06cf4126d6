"""The types of the messages that the server sends, from which the OpenAPI and AsyncAPI documents are generated.

At runtime the messages are plain dicts, and the types cost nothing; mypy checks that the code builds what is
documented. The docstrings of the types appear as descriptions in the documents.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ..model import languages
from ..model.alert import MAX_TEXTS, Certainty, Severity, Shape, Status, Urgency

# A time as the server writes it (rule L8).
TimeOut = Annotated[
    str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", json_schema_extra={"format": "date-time"})
]


class CircleOut(TypedDict):
    """A published circle: centre in degrees, radius in metres."""

    type: Literal["circle"]
    lat: Annotated[float, Field(ge=-90, le=90)]
    lng: Annotated[float, Field(ge=-180, le=180)]
    radius_m: Annotated[float, Field(gt=0)]


PositionOut = tuple[Annotated[float, Field(ge=-180, le=180)], Annotated[float, Field(ge=-90, le=90)]]


class PolygonOut(TypedDict):
    """A published polygon: one ring of positions that are connected by arcs of great circles.

    A position is longitude and latitude in degrees. The area includes everything within `buffer_m` metres of the ring.
    """

    type: Literal["Polygon"]
    coordinates: Annotated[list[Annotated[list[PositionOut], Field(min_length=4)]], Field(min_length=1, max_length=1)]
    buffer_m: NotRequired[Annotated[float, Field(gt=0)]]


class OtherShapeOut(TypedDict):
    """A shape of a type that only later versions define (G1). Clients show the alert nevertheless (G2)."""

    type: Annotated[str, Field(json_schema_extra={"not": {"enum": ["circle", "Polygon"]}})]


AreaOut = Annotated[list[CircleOut | PolygonOut | OtherShapeOut], Field(min_length=1)]
LanguageOut = Annotated[str, Field(pattern=languages.PATTERN)]


class AlertOut(TypedDict):
    """An alert as subscribers see it, in one of its languages."""

    id: str
    revision: int
    category: str
    title: str
    headline: str
    description: NotRequired[str]
    instruction: NotRequired[str]
    area_desc: NotRequired[str]
    language: NotRequired[LanguageOut]
    languages: NotRequired[Annotated[list[LanguageOut], Field(min_length=1, max_length=MAX_TEXTS)]]
    severity: Severity
    urgency: NotRequired[Urgency]
    certainty: NotRequired[Certainty]
    status: Status
    source: str
    occurred_at: TimeOut
    onset_at: NotRequired[TimeOut]
    issued_at: TimeOut
    expires_at: TimeOut
    web: NotRequired[Annotated[str, Field(pattern="^[Hh][Tt][Tt][Pp][Ss]?://", max_length=1_000)]]
    area: AreaOut


def area_out(area: Sequence[Shape]) -> AreaOut:
    """Return the shapes of an area in the form in which they are sent, as a list of dicts."""
    return cast(AreaOut, [shape.to_map() for shape in area])
