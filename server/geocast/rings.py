"""Rings on the sphere: who is inside a published polygon (protocol, D4 and D5).

Angles are in degrees at the door and nowhere else. Edges are arcs of great circles, the short way.

Rule 1  A ring is looked at from the centre of the sphere, on the plane that touches it at the ring's centre `c` (the
        gnomonic projection). There arcs are straight lines, exactly, and no pole and no meridian is a special case. A
        point on the side away from `c` is not on that plane, and the ring does not wind around it.
Rule 2  A place is inside if the ring winds around it, or if it is within `buffer_m` and its reach of an edge. Whoever
        matches, one place or a million, uses `winding` and `apart` below, so that all agree.
Rule 3  Nothing here raises, whatever the corners are: what would be no ring (protocol, A16 to A19) is refused at the
        door, and an entry of the log that holds one all the same has to harm nobody.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from .cells import EARTH_RADIUS_M, Floats, Vector, unit_vectors

Bools: TypeAlias = NDArray[np.bool_]

SPREAD = math.radians(60)  # A18: a corner is nearer to the centre than this


class Plane:
    """The plane that touches the sphere at `centre`, with coordinates x and y in radii of the sphere."""

    __slots__ = ("centre", "east", "north")

    def __init__(self, points: Floats) -> None:
        """`points`: unit vectors, as columns (3, n). The centre is the direction of their sum."""
        total = points.sum(axis=1)
        self.centre: Floats = total / (math.sqrt(total @ total) or 1.0)
        # Any direction that is not the centre's own will do: that of the axis which is farthest from it.
        axis = np.eye(3)[np.argmin(np.abs(self.centre))]
        east = np.cross(axis, self.centre)
        self.east: Floats = east / (math.sqrt(east @ east) or 1.0)
        self.north: Floats = np.cross(self.centre, self.east)

    def to_plane(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Where points are on the plane, seen from the middle of the sphere; NaN on the side away from it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead = _along(x, y, z, self.centre)
            scale = 1 / np.where(ahead > 0, ahead, np.nan)
            return _along(x, y, z, self.east) * scale, _along(x, y, z, self.north) * scale

    def spread(self, points: Floats) -> float:
        """The angle from the centre to the farthest of the points, in radians."""
        return float(angle_between(points, self.centre[:, np.newaxis]).max())


class Ring:
    """A ring ready to be asked: `lat`, `lng` and `radius_m` are of a circle around all that is inside of it."""

    __slots__ = ("buffer_m", "corners", "lat", "lng", "plane", "radius_m", "xy")

    def __init__(self, corners: Sequence[tuple[float, float]], buffer_m: float) -> None:
        """`corners`: longitude and latitude, the last equal to the first; `buffer_m`: how far it reaches beyond."""
        lng, lat = np.array(corners, float).T
        self.corners: Floats = np.array(unit_vectors(lat, lng))  # (3, n + 1)
        self.plane = Plane(self.corners[:, :-1])
        self.xy: Floats = np.nan_to_num(self.plane.to_plane(*self.corners))  # Rule 3: anywhere, but somewhere
        self.buffer_m = buffer_m
        x, y, z = _vector(self.plane.centre)
        self.lat, self.lng = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
        # An arc of less than half a circle is nowhere farther from a point than 90°, unless one of its ends is.
        self.radius_m = self.plane.spread(self.corners) * EARTH_RADIUS_M + buffer_m

    @property
    def centre(self) -> Vector:
        """The direction of the sum of the corners, from which distances are counted (D6)."""
        return _vector(self.plane.centre)

    def area_m2(self) -> float:
        """The area that it encloses, the strip of `buffer_m` around it included, in m².

        The triangles between the centre and each edge (F. Eriksson, "On the Measure of Solid Angles"), and Steiner's
        formula on the sphere for the strip. That is exact for convex rings, and too much rather than too little for
        others, whose strip overlaps itself.
        """
        a, b, c = self.corners[:, :-1], self.corners[:, 1:], self.plane.centre[:, np.newaxis]
        inside = 1 + _dot(a, b) + _dot(b, c) + _dot(c, a)
        enclosed = abs(float(2 * np.arctan2(_dot(_cross(a, b), c), inside).sum()))
        length, beyond = float(angle_between(a, b).sum()), angle_of(self.buffer_m)
        strip = length * math.sin(beyond) + (2 * math.pi - enclosed) * (1 - math.cos(beyond))
        return (enclosed + strip) * EARTH_RADIUS_M**2

    def edges(self) -> "Edges":
        """Its edges, as many as corners, for `apart`."""
        return Edges(self.corners[:, :-1], self.corners[:, 1:])

    def holds(self, place: Vector, reach_m: float) -> bool:
        """Whether a place, with its reach in metres, is inside."""
        return bool(self.holds_all(np.array(place).reshape(3, 1), np.array([reach_m]))[0])

    def holds_all(self, places: Floats, reach_m: Floats) -> Bools:
        """Which places, unit vectors (3, n), are inside. Each is held against each edge."""
        x, y = (each[:, np.newaxis] for each in self.plane.to_plane(*places))
        found: Bools = winding(x, y, self.xy[:, :-1], self.xy[:, 1:]).sum(axis=1, dtype=np.int32) != 0
        allowed = angle_of(self.buffer_m + reach_m)
        rest = np.flatnonzero(~found & (allowed > 0))
        if len(rest):
            apart = self.edges().apart(*places[:, rest, np.newaxis])
            found[rest] = (apart <= allowed[rest, np.newaxis]).any(axis=1)
        return found


def winding(x: Floats, y: Floats, start: Floats, end: Floats) -> NDArray[np.int8]:
    """What edges on the plane add to the winding number around points: 1, 0 or -1 (D. Sunday, "Winding Number").

    `start` and `end` are the ends of edges, (2, …); all shapes have to fit together. Nothing winds around a point that
    is NaN. The edge counts that crosses the ray from the point to the right, from below or from above.
    """
    (x0, y0), (x1, y1) = start, end
    left = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
    up: NDArray[np.int8] = ((y0 <= y) & (y < y1) & (left > 0)).view(np.int8)
    down: NDArray[np.int8] = ((y1 <= y) & (y < y0) & (left < 0)).view(np.int8)
    return up - down


class Edges:
    """Arcs from `a` to `b`, unit vectors (3, …), with what the distance to them needs."""

    __slots__ = ("a", "ahead", "b", "behind", "normal")

    def __init__(self, a: Floats, b: Floats) -> None:
        """`a` and `b`: where each begins and ends."""
        self.a, self.b = a, b
        # (a - b) × (a + b) is twice a × b, and keeps all its digits where a and b are neighbours.
        normal = _cross(a - b, a + b)
        length = np.sqrt((normal * normal).sum(axis=0))
        self.normal: Floats = normal / np.where(length > 0, length, np.nan)
        self.behind: Floats = _cross(self.normal, a)  # on this side of it a point is beside the arc, not behind
        self.ahead: Floats = _cross(b, self.normal)

    def take(self, which: NDArray[np.intp]) -> "Edges":
        """Some of them; one may be taken more than once."""
        some = Edges.__new__(Edges)
        for name in Edges.__slots__:
            setattr(some, name, getattr(self, name)[:, which])
        return some

    def apart(self, x: Floats | float, y: Floats | float, z: Floats | float) -> Floats:
        """The angle in radians between a point and the nearest point of each arc; all shapes have to fit together.

        That is asin |p·n| where the foot of the perpendicular lies on the arc, else the angle to the nearer end. (NaN,
        as the normal of an arc without length, lies beside nothing.)
        """
        off = np.abs(_along(x, y, z, self.normal))
        beside = (_along(x, y, z, self.behind) >= 0) & (_along(x, y, z, self.ahead) >= 0)
        to_end = np.minimum(_chord2(x, y, z, self.a), _chord2(x, y, z, self.b))
        return np.where(beside, np.arcsin(np.minimum(off, 1.0)), _angle(to_end))


def angle_between(points: Floats, others: Floats) -> Floats:
    """The angle in radians between unit vectors, (3, …); the shapes have to fit together."""
    return _angle(_chord2(points[0], points[1], points[2], others))


@overload
def angle_of(distance_m: float) -> float: ...
@overload
def angle_of(distance_m: Floats) -> Floats: ...
def angle_of(distance_m: Floats | float) -> Floats | float:
    """The angle in radians, at the middle of the sphere, of so many metres on it."""
    return distance_m / EARTH_RADIUS_M


def _cross(a: Floats, b: Floats) -> Floats:
    """Of columns. `np.cross` takes three times as long."""
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _dot(a: Floats, b: Floats) -> Floats:
    """Of columns."""
    product: Floats = (a * b).sum(axis=0)
    return product


def _along(x: Floats | float, y: Floats | float, z: Floats | float, direction: Floats) -> Floats:
    product: Floats = x * direction[0] + y * direction[1] + z * direction[2]
    return product


def _chord2(x: Floats | float, y: Floats | float, z: Floats | float, end: Floats) -> Floats:
    off_x, off_y, off_z = x - end[0], y - end[1], z - end[2]
    squared: Floats = off_x * off_x + off_y * off_y + off_z * off_z
    return squared


def _angle(squared: Floats) -> Floats:
    return 2 * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1.0))


def _vector(point: Floats) -> Vector:
    x, y, z = point.tolist()
    return x, y, z
