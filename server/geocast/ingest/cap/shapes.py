"""The texts of `circle` and `polygon`: numbers in plain decimals, pairs of latitude and longitude (CP22, CP23)."""

import re
from dataclasses import dataclass, field

_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PAIR = re.compile(f"({_NUMBER}),({_NUMBER})", re.ASCII)
_PLAIN = re.compile(_NUMBER, re.ASCII)
MAX_WORK = 50_000  # of the shapes of one message (rule HD3): as many corners are read and placed in 0.5 s
_WORK_OF_SHAPE = 20  # beside its corners
MAX_DIGITS = 40  # of a number: more than any double has, and few enough to be quick


@dataclass(frozen=True, slots=True)
class CapCircle:
    """A circle: centre in degrees, radius in metres. One of radius 0 is a point, and no area."""

    lat: float = field(repr=False)
    lng: float = field(repr=False)
    radius_m: float

    @property
    def work(self) -> int:
        """How much work it is, in corners."""
        return _WORK_OF_SHAPE


@dataclass(frozen=True, slots=True)
class CapRing:
    """A polygon: its corners as (latitude, longitude) in degrees, the first one again at the end."""

    corners: tuple[tuple[float, float], ...] = field(repr=False)

    @property
    def work(self) -> int:
        """How much work it is, in corners."""
        return _WORK_OF_SHAPE + len(self.corners)


def work_of(text: str) -> int:
    """Return how much work the shape in a text is at most, before it is read."""
    return _WORK_OF_SHAPE + len(text.split())


def circle(text: str) -> tuple[CapCircle, frozenset[str]]:
    """A circle, whose text has its radius in kilometres, and what was put right. Raises ValueError: what is wrong."""
    parts = text.split()
    if len(parts) != 2:
        raise ValueError("must be a pair lat,lng and a radius in kilometres")
    lat, lng, wrapped = _place(parts[0])
    radius_km = _number(parts[1])
    if radius_km < 0:
        raise ValueError("must have a radius of 0 km or more")
    return CapCircle(lat, lng, radius_km * 1000), frozenset({"lng-wrapped"} if wrapped else ())


def polygon(text: str) -> tuple[CapRing, frozenset[str]]:
    """A polygon, and what was put right. Raises ValueError, with what is wrong."""
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
    """A pair `lat,lng`, and whether its longitude was beyond ±180° and has been wrapped."""
    found = _PAIR.fullmatch(text)
    if found is None:
        raise ValueError("must be of pairs lat,lng of plain decimals")
    if len(text) > 2 * MAX_DIGITS:  # of plain decimals, as the pattern says
        raise ValueError("must be of plain decimals")
    lat, lng = float(found[1]), float(found[2])
    if not -90 <= lat <= 90:
        raise ValueError("must have latitudes of -90 to 90")
    if not -360 <= lng <= 360:
        raise ValueError("must have longitudes of -360 to 360")
    wrapped = (lng + 180) % 360 - 180 if abs(lng) > 180 else lng
    return lat + 0.0, wrapped + 0.0, wrapped != lng


def _number(text: str) -> float:
    if len(text) > MAX_DIGITS or not _PLAIN.fullmatch(text):
        raise ValueError("must be of plain decimals")
    return float(text)
