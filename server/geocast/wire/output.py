"""Types of what the server sends: frames and answers are made of them, and OpenAPI and AsyncAPI describe them.

They are maps at runtime and cost nothing; mypy compares what is made with what is documented. The docstrings stand in
the documents as descriptions.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import TypedDict  # pydantic reads that of `typing` from Python 3.12 on

from ..model import languages
from ..model.alert import MAX_TEXTS, Certainty, Severity, Shape, Status, Urgency

# A time as the server writes it (L8).
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
    """A published polygon: one ring of longitudes and latitudes, with arcs of great circles between them.

    It reaches `buffer_m` metres beyond its ring.
    """

    type: Literal["Polygon"]
    coordinates: Annotated[list[Annotated[list[PositionOut], Field(min_length=4)]], Field(min_length=1, max_length=1)]
    buffer_m: NotRequired[Annotated[float, Field(gt=0)]]


class OtherShapeOut(TypedDict):
    """A shape of a type that is yet to come (G1). An alert with one is shown all the same (G2)."""

    type: Annotated[str, Field(json_schema_extra={"not": {"enum": ["circle", "Polygon"]}})]


AreaOut = Annotated[list[CircleOut | PolygonOut | OtherShapeOut], Field(min_length=1)]
LanguageOut = Annotated[str, Field(pattern=languages.PATTERN)]


class AlertOut(TypedDict):
    """An alert as subscribers see it, in one language if it has several."""

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
    """Return the shapes of an area as they are sent."""
    return cast(AreaOut, [shape.to_map() for shape in area])
