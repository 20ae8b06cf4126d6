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
from itertools import chain
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from .sphere import EARTH_RADIUS_M, Floats, Vector, chord2, cross, dot, unit_vectors

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.intp]

ROUNDING = 1e-12  # the arithmetic of the plane is off by some 1e-16
FAR = 1.5  # radians from the centre of a plane, from which on no bound is set by where a point is on it
_AXES: tuple[Vector, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SPREAD = math.radians(60)  # A18: a corner is nearer to the centre than this


class Plane:
    """The plane that touches the sphere at `centre`, with coordinates x and y in radii of the sphere."""

    __slots__ = ("centre", "east", "north")

    def __init__(self, points: Floats) -> None:
        """`points`: unit vectors, as columns (3, n). The centre is the direction of their sum."""
        # Numbers, not arrays: with those each step would take some µs, a tenth of what a small ring takes in all.
        x, y, z = points.sum(axis=1).tolist()
        self.centre = _unit(x, y, z)
        # Any direction that is not the centre's own will do: that of the axis which is farthest from it.
        sizes = [abs(each) for each in self.centre]
        self.east = _unit(*cross(_AXES[sizes.index(min(sizes))], self.centre))
        self.north = cross(self.centre, self.east)

    def to_plane(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Where points are on the plane, seen from the middle of the sphere; NaN on the side away from it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead = _along(x, y, z, self.centre)
            scale = 1 / np.where(ahead > 0, ahead, np.nan)
            return _along(x, y, z, self.east) * scale, _along(x, y, z, self.north) * scale

    def at(self, point: Vector) -> tuple[float, float]:
        """`to_plane` of one point, to the last bit, in a tenth of the time."""
        ahead = dot(point, self.centre)
        scale = 1 / ahead if ahead > 0 else math.nan
        return dot(point, self.east) * scale, dot(point, self.north) * scale

    def from_plane(self, x: Floats, y: Floats) -> Floats:
        """The unit vectors, as columns, of points on the plane."""
        axes = np.array([self.centre, self.east, self.north]).T
        points = axes @ np.array([np.ones_like(x), x, y])
        length = np.sqrt((points * points).sum(axis=0))
        found: Floats = points / length
        return found

    def spread(self, points: Floats) -> float:
        """The angle from the centre to the farthest of the points, in radians."""
        farthest = float(chord2(points[0], points[1], points[2], self.centre).max())
        return 2 * math.asin(min(math.sqrt(farthest) / 2, 1.0))


class SphericalPolygon:
    """A ring ready to be asked: `lat`, `lng` and `radius_m` are of a circle around all that is inside of it."""

    __slots__ = ("buffer_m", "corners", "lat", "lng", "plane", "radius_m", "xy")

    def __init__(self, corners: Sequence[tuple[float, float]], buffer_m: float) -> None:
        """`corners`: longitude and latitude, the last equal to the first; `buffer_m`: how far it reaches beyond."""
        lng, lat = np.fromiter(chain.from_iterable(corners), float, 2 * len(corners)).reshape(-1, 2).T
        self.corners: Floats = np.array(unit_vectors(lat, lng))  # (3, n + 1)
        self.plane = Plane(self.corners[:, :-1])
        self.xy: Floats = np.array(self.plane.to_plane(*self.corners))
        if not np.isfinite(self.xy).all():
            self.xy = np.nan_to_num(self.xy)  # Rule 3: anywhere, but somewhere
        self.buffer_m = buffer_m
        x, y, z = self.plane.centre
        self.lat, self.lng = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
        # An arc of less than half a circle is nowhere farther from a point than 90°, unless one of its ends is.
        self.radius_m = self.plane.spread(self.corners) * EARTH_RADIUS_M + buffer_m

    @property
    def centre(self) -> Vector:
        """The direction of the sum of the corners, from which distances are counted (D6)."""
        return self.plane.centre

    def area_m2(self) -> float:
        """The area that it encloses, the strip of `buffer_m` around it included, in m².

        The triangles between the centre and each edge (F. Eriksson, "On the Measure of Solid Angles"), and Steiner's
        formula on the sphere for the strip. That is exact for convex rings, and too much rather than too little for
        others, whose strip overlaps itself.
        """
        a, b, c = self.corners[:, :-1], self.corners[:, 1:], np.array(self.plane.centre).reshape(3, 1)
        inside = 1 + _dot(a, b) + _dot(b, c) + _dot(c, a)
        enclosed = abs(float(2 * np.arctan2(_dot(_cross(a, b), c), inside).sum()))
        length, beyond = float(angle_between(a, b).sum()), angle_of(self.buffer_m)
        strip = length * math.sin(beyond) + (2 * math.pi - enclosed) * (1 - math.cos(beyond))
        return (enclosed + strip) * EARTH_RADIUS_M**2

    def edges(self) -> "Edges":
        """Its edges, as many as corners, for `apart`."""
        return Edges(self.corners[:, :-1], self.corners[:, 1:])

    def contains(self, place: Vector, reach_m: float) -> bool:
        """Whether a place, with its reach in metres, is inside."""
        x, y = self.plane.at(place)
        if winding(x, y, self.xy[:, :-1], self.xy[:, 1:]).sum(dtype=np.int32) != 0:
            return True
        allowed = angle_of(self.buffer_m + reach_m)
        if allowed <= 0:
            return False
        # What it takes to be exact is worked out for the few edges that may be near.
        far = math.atan(math.hypot(x, y)) + allowed
        margin = stretched(allowed, far) if far < FAR else math.inf
        (near,) = np.nonzero(overlap(x, y, margin, *boxes(self.xy)))
        edges = Edges(self.corners[:, near], self.corners[:, near + 1])
        return bool((edges.apart(*place) <= allowed).any())

    def contains_all(self, places: Floats, reach_m: Floats) -> Bools:
        """Which places, unit vectors (3, n), are inside. Each is held against each edge."""
        x, y = (each[:, np.newaxis] for each in self.plane.to_plane(*places))
        found: Bools = winding(x, y, self.xy[:, :-1], self.xy[:, 1:]).sum(axis=1, dtype=np.int32) != 0
        allowed = angle_of(self.buffer_m + reach_m)
        rest = np.flatnonzero(~found & (allowed > 0))
        if len(rest):
            apart = self.edges().apart(*places[:, rest, np.newaxis])
            found[rest] = (apart <= allowed[rest, np.newaxis]).any(axis=1)
        return found


def boxes(xy: Floats) -> tuple[Floats, Floats]:
    """The least and the greatest x and y of each edge of a ring on the plane, (2, n) each."""
    return np.minimum(xy[:, :-1], xy[:, 1:]), np.maximum(xy[:, :-1], xy[:, 1:])


def stretched(angle: float, far: float) -> float:
    """How far apart on the plane that is at most which is an angle apart on the sphere, up to `far` from the centre.

    At the angle `far` all is up to 1 / cos² of it as far apart.
    """
    return angle / math.cos(far) ** 2 + ROUNDING


def margins(x: Floats, y: Floats, angle: Floats) -> Floats:
    """How far from each point on the plane the points can be that are within an angle of it (radians), at most.

    It is infinite for points on which nothing can be said: beyond FAR, or NaN. (See `stretched`.)
    """
    far = np.arctan(np.hypot(x, y)) + angle
    cos = np.cos(far)
    return np.where(far < FAR, angle / (cos * cos) + ROUNDING, np.inf)


def overlap(x: Floats | float, y: Floats | float, margin: Floats | float, low: Floats, high: Floats) -> Bools:
    """Whether a box comes within the margin of a point, or the margin is infinite; all shapes have to fit together."""
    beside = (low[0] <= x + margin) & (high[0] >= x - margin) & (low[1] <= y + margin) & (high[1] >= y - margin)
    found: Bools = beside | np.isinf(margin)
    return found


def winding(x: Floats | float, y: Floats | float, start: Floats, end: Floats) -> NDArray[np.int8]:
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

    __slots__ = ("rows",)

    def __init__(self, a: Floats, b: Floats) -> None:
        """`a` and `b`: where each begins and ends."""
        # (a - b) × (a + b) is twice a × b, and keeps all its digits where a and b are neighbours.
        normal = _cross(a - b, a + b)
        length = np.sqrt((normal * normal).sum(axis=0))
        normal /= np.where(length > 0, length, np.nan)
        # On the positive side of n × a a point is beside the arc, not behind it; of b × n, beside and not ahead. All
        # in one array, from which `take` takes in a fifth of the time.
        self.rows: Floats = np.concatenate([a, b, normal, _cross(normal, a), _cross(b, normal)])

    def take(self, which: Ints) -> "Edges":
        """Some of them; one may be taken more than once."""
        some = Edges.__new__(Edges)
        some.rows = self.rows.take(which, axis=1)
        return some

    def apart(self, x: Floats | float, y: Floats | float, z: Floats | float) -> Floats:
        """The angle in radians between a point and the nearest point of each arc; all shapes have to fit together.

        That is asin |p·n| where the foot of the perpendicular lies on the arc, else the angle to the nearer end. (NaN,
        as the normal of an arc without length, lies beside nothing.)
        """
        a, b, normal, behind, ahead = (self.rows[at : at + 3] for at in range(0, 15, 3))
        off = np.abs(_along(x, y, z, normal))
        beside = (_along(x, y, z, behind) >= 0) & (_along(x, y, z, ahead) >= 0)
        to_end = np.minimum(_chord2(x, y, z, a), _chord2(x, y, z, b))
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


def _along(x: Floats | float, y: Floats | float, z: Floats | float, direction: Floats | Vector) -> Floats:
    product: Any = x * direction[0] + y * direction[1] + z * direction[2]
    found: Floats = product
    return found


def _chord2(x: Floats | float, y: Floats | float, z: Floats | float, end: Floats) -> Floats:
    off_x, off_y, off_z = x - end[0], y - end[1], z - end[2]
    squared: Floats = off_x * off_x + off_y * off_y + off_z * off_z
    return squared


def _angle(squared: Floats) -> Floats:
    return 2 * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1.0))


def _unit(x: float, y: float, z: float) -> Vector:
    """The direction; of nothing, nothing."""
    length = math.sqrt(x * x + y * y + z * z) or 1.0
    return x / length, y / length, z / length
