"""Computes how deep a place is inside a published polygon (docs/guide/areas.md, D4 and D5).

The server's code is not used. Coordinates are in degrees, and distances in metres.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import asin, atan2, cos, degrees, hypot, inf, radians, sin, sqrt
from typing import Any, TypeAlias

Vector: TypeAlias = tuple[float, float, float]


def is_polygon(shape: Mapping[str, Any]) -> bool:
    """Return whether a shape is a polygon with one ring, as areas.md defines it.

    Any other polygon counts as a shape of an unknown type.
    """
    match shape:
        case {"type": "Polygon", "coordinates": [[*ring]]} if len(ring) > 3 and all(map(_is_position, ring)):
            return isinstance(shape.get("buffer_m", 0), int | float)
    return False


def _is_position(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, int | float) for each in value)


def middle(shape: Mapping[str, Any]) -> Vector:
    """Return the direction of the sum of the corners (unit vectors), as a unit vector. It is called `c` in areas.md."""
    corners = [unit_vector(lat, lng) for lng, lat in shape["coordinates"][0][1:]]
    return _normalised((sum(x for x, _, _ in corners), sum(y for _, y, _ in corners), sum(z for _, _, z in corners)))


def depth_of(shape: Mapping[str, Any], lat: float, lng: float, earth_radius_m: float) -> float:
    """Return how deep a point is inside a polygon and its buffer, in metres; negative if it is outside."""
    place = unit_vector(lat, lng)
    corners = [unit_vector(lat, lng) for lng, lat in shape["coordinates"][0]]
    away_m = earth_radius_m * min(_angle_to_arc(place, a, b) for a, b in pairwise(corners))
    return float(shape.get("buffer_m", 0)) + (away_m if _winds_around(corners, middle(shape), place) else -away_m)


def circle_around(shape: Mapping[str, Any], earth_radius_m: float) -> tuple[float, float, float]:
    """Return the centre and the radius of a circle that contains a polygon with its buffer: (lat, lng, metres).

    The radius is infinite if the polygon is very wide.
    """
    x, y, z = centre = middle(shape)
    widest = max(_angle(centre, unit_vector(lat, lng)) for lng, lat in shape["coordinates"][0])
    radius_m = earth_radius_m * widest + float(shape.get("buffer_m", 0)) + 1 if widest < 1 else inf  # 1 m: rounding
    return degrees(atan2(z, hypot(x, y))), degrees(atan2(y, x)), radius_m


def unit_vector(lat: float, lng: float) -> Vector:
    """Return the unit vector of a point that is given in degrees."""
    phi, theta = radians(lat), radians(lng)
    return cos(phi) * cos(theta), cos(phi) * sin(theta), sin(phi)


def _winds_around(corners: Sequence[Vector], centre: Vector, place: Vector) -> bool:
    """Return whether the ring winds around the point.

    The winding number is computed on the plane that touches the sphere at `centre`.
    """
    if _dot(place, centre) <= 0:
        return False
    axis = min(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), key=lambda axis: abs(_dot(axis, centre)))
    east = _normalised(_cross(axis, centre))
    north = _cross(centre, east)
    (x, y), turns = _on_plane(place, centre, east, north), 0
    for (x0, y0), (x1, y1) in pairwise(_on_plane(corner, centre, east, north) for corner in corners):
        left = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
        turns += (y0 <= y < y1 and left > 0) - (y1 <= y < y0 and left < 0)
    return turns != 0


def _on_plane(point: Vector, centre: Vector, east: Vector, north: Vector) -> tuple[float, float]:
    ahead = _dot(point, centre)
    return _dot(point, east) / ahead, _dot(point, north) / ahead


def _angle_to_arc(place: Vector, a: Vector, b: Vector) -> float:
    """Return the angle in radians from a place to the nearest point of the great-circle arc from a to b."""
    normal = _cross(
        _minus(a, b), (a[0] + b[0], a[1] + b[1], a[2] + b[2])
    )  # equals 2 (a × b), without loss of digits if a and b are close
    if any(normal):
        normal = _normalised(normal)
        if _dot(place, _cross(normal, a)) >= 0 and _dot(place, _cross(b, normal)) >= 0:
            return asin(min(1.0, abs(_dot(place, normal))))
    return min(_angle(place, a), _angle(place, b))


def _angle(a: Vector, b: Vector) -> float:
    off = _minus(a, b)
    return 2 * asin(min(1.0, sqrt(_dot(off, off)) / 2))


def _minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _normalised(v: Vector) -> Vector:
    length = sqrt(_dot(v, v)) or 1.0
    return v[0] / length, v[1] / length, v[2] / length
