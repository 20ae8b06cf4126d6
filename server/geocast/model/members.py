"""The lists of members (fields) of the dataclasses in `alert`, which decide how alerts are stored, signed and sent.

A member's declared type decides how the member is written and read. `alertlog/codec`, `stream/compact_revision`,
`approvals/form` and `wire/frames` loop over the members. Each of these modules has a table of the types that need
special treatment. So a new optional member of a known type is stored as soon as `Alert` or `AlertText` declares it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from .alert import (
    FINEST_RESOLUTION,
    SEVERITY_RANK,
    Certainty,
    Circle,
    OtherShape,
    Polygon,
    Severity,
    Shape,
    Status,
    Urgency,
)


class Member(NamedTuple):
    """A member (field) of a dataclass.

    `type` is its declared type; if that is `X | None`, `type` is `X`. `default` is its default value, or MISSING if it
    has none.
    """

    name: str
    type: Any
    may_be_none: bool
    default: Any

    @property
    def is_optional(self) -> bool:
        """Whether the member has a default, so that it may be left out when the dataclass is stored."""
        return self.default is not MISSING


def members_of(kind: type, *, without: tuple[str, ...] = ()) -> tuple[Member, ...]:
    """Return the members (fields) of a dataclass in the order of declaration, except those named in `without`."""
    hints = get_type_hints(kind, include_extras=True)
    found = (each for each in fields(kind) if each.name not in without)
    return tuple(_member(each.name, hints[each.name], each.default) for each in found)


def _member(name: str, hint: Any, default: Any) -> Member:
    others = [each for each in get_args(hint) if each is not NoneType]
    may_be_none = len(others) < len(get_args(hint))
    return Member(name, others[0] if may_be_none else hint, may_be_none, default)


# ---- checks of values that were read: each returns its value, or raises TypeError or ValueError --------------------


def text(value: object) -> str:
    """Return `value` if it is a string. Raise TypeError if it is not."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def integer(value: object) -> int:
    """Return `value` if it is an integer. Raise TypeError if it is not, or if it is a boolean."""
    if type(value) is not int:
        raise TypeError("not an integer")
    return value


def resolution(value: object) -> int:
    """Return `value` if it is an H3 resolution. Raise TypeError or ValueError if it is not."""
    if not 0 <= integer(value) <= FINEST_RESOLUTION:
        raise ValueError("not a resolution of H3")
    return integer(value)


def severity(value: Any) -> Any:
    """Return `value` if it is one of the severities of alerts. Raise ValueError if it is not."""
    if value not in SEVERITY_RANK:
        raise ValueError("not a severity")
    return value


# A status, urgency or certainty may be any string, because a later release may know other words for it.
CHECKS: Mapping[Any, Callable[[Any], Any]] = {
    str: text,
    Severity: severity,
    **dict.fromkeys((Status, Urgency, Certainty), text),
}


_MOST_M = 21_000_000.0  # more than half the way around the Earth

# ---- shapes ------------------------------------------------------------------------------------------------------


def to_shape(members: Mapping[str, Any]) -> Shape:
    """Return the shape with these members, which are in their stored form.

    Raise KeyError, TypeError or ValueError if the shape can't be sent to clients.
    """
    if text(members["type"]) == "circle":
        return Circle(
            _within(members["lat"], -90, 90),
            _within(members["lng"], -180, 180),
            _within(members["radius_m"], 0, _MOST_M),
        )
    if members["type"] == "Polygon" and _is_one_ring(members["coordinates"]):
        ring = tuple((_within(lng, -180, 180), _within(lat, -90, 90)) for lng, lat in members["coordinates"][0])
        return Polygon(ring, _within(members.get("buffer_m", 0), 0, _MOST_M))
    json.dumps(members, allow_nan=False)  # raises an error if JSON can't have the members, all of which are sent
    return OtherShape(members)


def _within(value: Any, least: float, most: float) -> float:
    """Return a number from `least` to `most`. Raise ValueError for others, with which matching places would fail."""
    if not least <= float(value) <= most:
        raise ValueError("out of range")
    return float(value)


def _is_one_ring(coordinates: Sequence[Any]) -> bool:
    """Return whether a polygon's GeoJSON coordinates consist of a single ring with more than three positions.

    A later release may publish other polygons, such as polygons with holes, which have several rings.
    """
    return len(coordinates) == 1 and len(coordinates[0]) > 3
