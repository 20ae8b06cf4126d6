"""The bodies that a desk posts, each test's on a ground of its own."""

import itertools
from collections.abc import Iterator
from typing import Any

from end_to_end.kit.earth import Point
from end_to_end.kit.times import stamp

SEVERITIES = ("extreme", "severe", "moderate", "minor")
TWELVE = [
    "burglary",
    "vehicle_break_in_theft",
    "robbery",
    "shots_fired",
    "shooting",
    "stabbing",
    "hostage",
    "arson",
    "fire_residential",
    "fire_commercial",
    "fire_structure",
    "explosion",
]

Json = dict[str, Any]

_numbers = itertools.count(1)


def new_id(prefix: str = "alert") -> str:
    """An id that no other alert of this run has; letters only, so that it looks like no coordinate."""
    letters, number = "", next(_numbers)
    while number:
        number, digit = divmod(number, 26)
        letters += chr(ord("a") + digit)
    return f"{prefix}-{letters}"


def _grid(south: float, north: float, step_lat: float, step_lng: float) -> Iterator[Point]:
    lats = int((north - south) / step_lat)
    lngs = int(350 / step_lng)
    return ((south + i * step_lat, -175 + j * step_lng) for j in range(lngs) for i in range(lats))


_grounds = _grid(-58, 58, 2, 4)
_beacons = _grid(62, 66, 0.1, 0.2)


def ground() -> Point:
    """A spot of its own for a test, 200 km from every other: nobody else's alert is heard there."""
    return next(_grounds)


def beacon_ground() -> Point:
    """A spot for a beacon (`Node.settle`), 10 km from every other and far from every ground."""
    return next(_beacons)


def circle(spot: Point, radius_m: float = 800) -> Json:
    """A circle around a spot."""
    return {"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": radius_m}


def place(spot: Point, **fields: Any) -> Json:
    """An exact place at a spot, or one with `accuracy_m`."""
    return {"lat": spot[0], "lng": spot[1], **fields}


def approval(**fields: Any) -> Json:
    """An approval half a minute old."""
    return {"reviewer": "desk-lead", "approved_at": stamp(seconds=-30), **fields}


def alert(spot: Point, **fields: Any) -> Json:
    """A good alert about a burglary a minute ago; a field of `None` is left out."""
    body = {
        "id": new_id(),
        "category": "burglary",
        "headline": "Burglary nearby",
        "severity": "moderate",
        "threat": "community",
        "occurred_at": stamp(seconds=-60),
        "area": circle(spot),
        "approval": approval(),
    } | fields
    return {name: value for name, value in body.items() if value is not None}


def revision_of(body: Json, number: int, **fields: Any) -> Json:
    """The next revision of an alert: same content but for the fields that are given."""
    return body | {"revision": number, "headline": f"Burglary nearby, revision {number}"} | fields


def cancel_body(number: int, **fields: Any) -> Json:
    """A cancel that takes a number."""
    return {"revision": number, "reason": "False alarm", "approval": approval(), **fields}
