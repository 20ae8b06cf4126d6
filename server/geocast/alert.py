"""The alert: what was accepted, as the log keeps it and everybody downstream sees it.

Nothing here knows an exact place: `requests` makes an `Alert` of what was asked for, and there the exact place ends.
Times are in milliseconds since 1970 (UTC), angles in degrees, lengths in metres.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

SEVERITIES = ("minor", "moderate", "severe", "extreme")  # the words of CAP 1.2, <severity>; in ascending order
SEVERITY_RANK = {name: rank for rank, name in enumerate(SEVERITIES)}
EXTREME = SEVERITY_RANK["extreme"]

Severity = Literal["extreme", "severe", "moderate", "minor"]
Status = Literal["actual", "exercise", "test"]

ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
_ID = re.compile(ID_PATTERN)
# The rules of the published circle by which an alert is accepted now: 1 is B1 to B3 alone, 2 has B11 and B12 besides.
RULES = 2


def is_id(text: str) -> bool:
    """Whether `text` matches the grammar of an alert's id, which a publisher's `sub` has to match too."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Circle:
    """A published circle: the only thing that anybody downstream ever sees of where an incident was."""

    lat: float
    lng: float
    radius_m: float

    def to_map(self) -> dict[str, Any]:
        """The shape as it is sent to subscribers and stored."""
        return {"type": "circle", "lat": self.lat, "lng": self.lng, "radius_m": self.radius_m}


@dataclass(frozen=True, slots=True)
class Polygon:
    """A published polygon (B7): edges are arcs of great circles, and it reaches `buffer_m` beyond its ring.

    `ring` has longitude and latitude of each corner, counter-clockwise, the last equal to the first.
    """

    ring: tuple[tuple[float, float], ...]
    buffer_m: float = 0.0

    def to_map(self) -> dict[str, Any]:
        """The shape as it is sent to subscribers and stored: a GeoJSON geometry (RFC 7946), and its buffer if any."""
        found: dict[str, Any] = {"type": "Polygon", "coordinates": [[list(corner) for corner in self.ring]]}
        return found | ({"buffer_m": self.buffer_m} if self.buffer_m else {})


@dataclass(frozen=True, slots=True)
class OtherShape:
    """A shape of a type that a later release publishes and this one does not know (protocol, G2, G4).

    As far as this release can tell nobody is inside of it. It is sent as it came.
    """

    members: Mapping[str, Any]  # as MessagePack and JSON both can have them, `type` included

    def to_map(self) -> dict[str, Any]:
        """The shape as it came, which is how it is sent and stored."""
        return dict(self.members)


Shape = Circle | Polygon | OtherShape
KnownShape = Circle | Polygon


@dataclass(frozen=True, slots=True)
class Approval:
    """Who decided to publish, and when. It is kept in the log and sent to nobody."""

    reviewer: str
    approved_at: int


@dataclass(frozen=True, slots=True)
class Confirm:
    """What of a request was held, and a person has confirmed (A21): how much it covers in km², kinds of words."""

    area_km2: float | None = None
    text: tuple[str, ...] = ()

    def in_order(self) -> "Confirm":
        """The same in accepted form: it does not matter in which order kinds were named."""
        return Confirm(self.area_km2, tuple(sorted(self.text)))


NOTHING_CONFIRMED = Confirm()


@dataclass(frozen=True, slots=True)
class Terms:
    """What of the policy went into an accepted alert, and by which rules its circles were published.

    The terms are kept with each revision, so that a request which is repeated after the policy has changed is judged by
    the terms under which it was first accepted.
    """

    title: str
    default_age_ms: int  # how long after its incident an alert ends that says nothing else
    location_resolution: int
    rules: int = RULES
    simplify_m: int = 0  # B8


@dataclass(frozen=True, slots=True)
class Alert:
    """The content of one revision in accepted form: defaults filled in, times as numbers, the area as published."""

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
    confirm: Confirm = NOTHING_CONFIRMED

    @property
    def circles(self) -> tuple[Circle, ...]:
        """The circles of the area."""
        return tuple(shape for shape in self.area if isinstance(shape, Circle))

    @property
    def shapes(self) -> tuple[KnownShape, ...]:
        """The shapes of the area that a place can be inside of: those that this release knows."""
        return tuple(shape for shape in self.area if not isinstance(shape, OtherShape))


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted revision, as the log holds it: the alert, the revision's number, who published it and when."""

    alert: Alert
    revision: int
    source: str
    issued_at: int
    terms: Terms

    @property
    def id(self) -> str:
        """The alert's id, which all its entries share."""
        return self.alert.id

    @property
    def ends_at(self) -> int:
        """When this entry stops to matter: the alert's expiry, as a cancel has it too."""
        return self.alert.expires_at

    def same_content(self, other: "Entry") -> bool:
        """Whether `other` says the same (H5). Who has said it, and when, doesn't count."""
        return isinstance(other, Revision) and self.alert == other.alert and self.revision == other.revision


@dataclass(frozen=True, slots=True)
class Cancel:
    """An accepted cancel. It takes the alert's next number; `ends_at` is the expiry of the revision that it cancels."""

    id: str
    revision: int
    reason: str
    approval: Approval
    source: str
    cancelled_at: int
    ends_at: int
    confirm: Confirm = NOTHING_CONFIRMED

    def same_content(self, other: "Entry") -> bool:
        """Whether `other` says the same (H5). Who has said it, and when, doesn't count."""
        return isinstance(other, Cancel) and self == replace(
            other, source=self.source, cancelled_at=self.cancelled_at, ends_at=self.ends_at
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
