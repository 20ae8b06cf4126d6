"""The parser for the texts of CAP's elements `circle` and `polygon` (rules CP22 and CP23).

    circle   "47.5,9.7 20"                       latitude,longitude and a radius in kilometres
    polygon  "47.5,9.7 47.6,9.9 47.4,9.8 47.5,9.7"

Two small mistakes are corrected and noted: a ring that is not closed, and longitudes beyond ±180°, up to ±360°.
"""

import re
from dataclasses import dataclass, field

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PAIR = re.compile(f"({_NUMBER}),({_NUMBER})", re.ASCII)
_PLAIN = re.compile(_NUMBER, re.ASCII)
MAX_WORK = 50_000  # the largest number of corners in one message; they take 0.5 s to process (rule HD3)
_WORK_OF_SHAPE = 20  # the cost of a shape, as a number of corners, in addition to its own corners
MAX_DIGITS = 40  # the largest number of characters in a number: enough for any float, and quick to parse


@dataclass(frozen=True, slots=True)
class CapCircle:
    """A circle in a CAP message: its centre in degrees and its radius in metres.

    A circle of radius 0 is a point, not an area.
    """

    lat: float = field(repr=False)
    lng: float = field(repr=False)
    radius_m: float

    @property
    def work(self) -> int:
        """The cost of processing the circle, expressed as a number of corners."""
        return _WORK_OF_SHAPE


@dataclass(frozen=True, slots=True)
class CapRing:
    """A polygon in a CAP message: its corners as (latitude, longitude) in degrees; the last equals the first."""

    corners: tuple[tuple[float, float], ...] = field(repr=False)

    @property
    def work(self) -> int:
        """The cost of processing the polygon, expressed as a number of corners."""
        return _WORK_OF_SHAPE + len(self.corners)


def work_of(text: str) -> int:
    """Return an upper bound of the cost of processing the shape in `text`, without parsing it.

    The cost is expressed as a number of corners.
    """
    return _WORK_OF_SHAPE + len(text.split())


def circle(text: str) -> tuple[CapCircle, frozenset[str]]:
    """Return the circle that `text` describes, and notes that name what was corrected in it.

    Raise ValueError, with a text that says why, if the circle is invalid.
    """
    parts = text.split()
    if len(parts) != 2:
        raise ValueError("must be a pair lat,lng and a radius in kilometres")
    lat, lng, wrapped = _place(parts[0])
    radius_km = _number(parts[1])
    if radius_km < 0:
        raise ValueError("must have a radius of 0 km or more")
    return CapCircle(lat, lng, radius_km * 1000), frozenset({"lng-wrapped"} if wrapped else ())


def polygon(text: str) -> tuple[CapRing, frozenset[str]]:
    """Return the polygon that `text` describes, and notes that name what was corrected in it.

    Raise ValueError, with a text that says why, if the polygon is invalid.
    """
    places = [_place(part) for part in text.split()]
    corners = [(lat, lng) for lat, lng, _ in places]
    notes = {"lng-wrapped"} if any(wrapped for _, _, wrapped in places) else set()
    if corners[:1] != corners[-1:]:
        corners.append(corners[0])
        notes.add("ring-closed")
    if len(set(corners)) < 3:
        raise ValueError("must have at least three corners that differ")
    return CapRing(tuple(corners)), frozenset(notes)


def _place(text: str) -> tuple[float, float, bool]:
    """Return the latitude and longitude in a text of the form `lat,lng`, and whether the longitude was corrected.

    A longitude beyond ±180° is corrected by a full turn (360°). Raise ValueError if the text is invalid.
    """
    found = _PAIR.fullmatch(text)
    if found is None:
        raise ValueError("must have pairs lat,lng of plain decimals")
    if len(text) > 2 * MAX_DIGITS:  # check this before float(), whose time grows with the number of digits
        raise ValueError("must have numbers in plain decimals")
    lat, lng = float(found[1]), float(found[2])
    if not -90 <= lat <= 90:
        raise ValueError("must have latitudes of -90 to 90")
    if not -360 <= lng <= 360:
        raise ValueError("must have longitudes of -360 to 360")
    wrapped = (lng + 180) % 360 - 180 if abs(lng) > 180 else lng
    return lat + 0.0, wrapped + 0.0, wrapped != lng


def _number(text: str) -> float:
    if len(text) > MAX_DIGITS or not _PLAIN.fullmatch(text):
        raise ValueError("must have numbers in plain decimals")
    return float(text)
