"""Bodies of alert requests, and places that are far enough apart for every test to have its own."""

import itertools
from collections.abc import Iterator
from typing import Any

from end_to_end.kit.earth import Point
from end_to_end.kit.times import stamp

SEVERITIES = ("extreme", "severe", "moderate", "minor")
CATEGORIES = [
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
    """Return an id that no other alert of this run has; it has only letters, so it cannot look like a coordinate."""
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
    """Return a new place for a test, 200 km from every other place, so that tests never see each other's alerts."""
    return next(_grounds)


def beacon_ground() -> Point:
    """Return a new place for a beacon (`Node.settle`), 10 km from every other beacon and far from all test places."""
    return next(_beacons)


def circle(spot: Point, radius_m: float = 800) -> Json:
    """Return a circle around a place."""
    return {"type": "circle", "lat": spot[0], "lng": spot[1], "radius_m": radius_m}


def place(spot: Point, **fields: Any) -> Json:
    """Return the exact place of a subscriber at a point; `fields` adds members such as `accuracy_m`."""
    return {"lat": spot[0], "lng": spot[1], **fields}


def approval(**fields: Any) -> Json:
    """Return an approval that was given 30 seconds ago."""
    return {"reviewer": "desk-lead", "approved_at": stamp(seconds=-30), **fields}


def alert(spot: Point, **fields: Any) -> Json:
    """Return a valid alert about a burglary one minute ago; a field of `None` is left out."""
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
    """Return the body of the next revision of an alert: the same content except for the headline and `fields`."""
    return body | {"revision": number, "headline": f"Burglary nearby, revision {number}"} | fields


def cancel_body(number: int, **fields: Any) -> Json:
    """Return the body of a cancel with this revision number."""
    return {"revision": number, "reason": "False alarm", "approval": approval(), **fields}
