"""Polygons on the sphere: their area, and whether a place is inside (protocol, rules D4 and D5).

Latitudes and longitudes are in degrees in parameters and results; all other angles are in radians. Edges are the
shorter arcs of great circles between their ends.

Rule 1  A ring is projected from the centre of the sphere onto the plane that touches the sphere at the ring's centre
        `c` (the gnomonic projection). On this plane arcs are exactly straight lines, and neither poles nor meridians
        are special cases. Points on the half of the sphere opposite `c` have no image on the plane; the ring does not
        wind around them.
Rule 2  A place is inside if the ring winds around it, or if its distance from an edge is at most `buffer_m` plus the
        place's reach (its uncertainty in metres). All code that matches places uses `winding` and `apart` below, for
        one place or a million, so that all results agree.
Rule 3  Nothing in this module raises an exception, whatever the corners are. Requests with invalid rings (protocol,
        rules A16 to A19) are refused earlier. If the log contains such a ring nevertheless, it must not stop a process.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .sphere import EARTH_RADIUS_M, FloatOrFloats, Floats, Vector, chord2, cross, dot, lat_lng, unit_vectors

Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.intp]

ROUNDING = 1e-12  # larger than the rounding errors on the plane, which are about 1e-16
FAR = 1.5  # radians from the centre of a plane; for points farther away, distances on the plane have no useful bound
_AXES: tuple[Vector, ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SPREAD = math.radians(60)  # every corner of a ring is nearer to the centre than this (rule A18)


class Plane:
    """The plane that touches the sphere at `centre`. Its coordinates x and y are in units of the sphere's radius."""

    __slots__ = ("centre", "east", "north")

    def __init__(self, points: Floats) -> None:
        """Make the plane that touches the sphere at the middle of `points` (the direction of their sum).

        `points` are unit vectors: an array of shape (3, n).
        """
        # Plain Python numbers are faster here than arrays. With arrays each step would take a few µs, which is 10 % of
        # the time that a small ring takes altogether.
        x, y, z = points.sum(axis=1).tolist()
        self.centre = _unit(x, y, z)
        # Any axis that is not parallel to the direction of the centre could be used to define east. The axis that is
        # closest to being perpendicular to that direction is used.
        sizes = [abs(each) for each in self.centre]
        self.east = _unit(*cross(_AXES[sizes.index(min(sizes))], self.centre))
        self.north = cross(self.centre, self.east)

    def to_plane(self, x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Return the positions of points on the plane: x and y, in units of the sphere's radius.

        The arguments are the coordinates of the points as unit vectors. Points on the half of the sphere opposite the
        centre have no position; their x and y are NaN.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            ahead = dot((x, y, z), self.centre)
            scale = 1 / np.where(ahead > 0, ahead, np.nan)
            return dot((x, y, z), self.east) * scale, dot((x, y, z), self.north) * scale

    def at(self, point: Vector) -> tuple[float, float]:
        """Return the position (x, y) of a single point on the plane.

        The result equals that of `to_plane` to the last bit, but takes a tenth of the time.
        """
        ahead = dot(point, self.centre)
        scale = 1 / ahead if ahead > 0 else math.nan
        return dot(point, self.east) * scale, dot(point, self.north) * scale

    def from_plane(self, x: Floats, y: Floats) -> Floats:
        """Return points on the plane, given by x and y, as unit vectors: an array of shape (3, n)."""
        axes = np.array([self.centre, self.east, self.north]).T
        points = axes @ np.array([np.ones_like(x), x, y])
        length = np.sqrt((points * points).sum(axis=0))
        found: Floats = points / length
        return found

    def spread(self, points: Floats) -> float:
        """Return the angle in radians between the plane's centre and the farthest of the points."""
        farthest = float(chord2(points[0], points[1], points[2], self.centre).max())
        return 2 * math.asin(min(math.sqrt(farthest) / 2, 1.0))


class SphericalPolygon:
    """A polygon with a buffer, prepared for testing whether places are inside it.

    `lat`, `lng` (degrees) and `radius_m` describe a circle that contains the whole polygon with its buffer.
    """

    __slots__ = ("buffer_m", "corners", "lat", "lng", "plane", "radius_m", "xy")

    def __init__(self, corners: Sequence[tuple[float, float]], buffer_m: float) -> None:
        """Make a polygon with these corners, and with a buffer of `buffer_m` metres around its ring.

        `corners` are (longitude, latitude) in degrees; the last equals the first.
        """
        lng, lat = np.fromiter(chain.from_iterable(corners), float, 2 * len(corners)).reshape(-1, 2).T
        self.corners: Floats = np.array(unit_vectors(lat, lng))  # (3, n + 1)
        self.plane = Plane(self.corners[:, :-1])
        self.xy: Floats = np.array(self.plane.to_plane(*self.corners))
        if not np.isfinite(self.xy).all():
            self.xy = np.nan_to_num(self.xy)  # any finite coordinates will do (Rule 3)
        self.buffer_m = buffer_m
        self.lat, self.lng = lat_lng(self.plane.centre)
        # If both ends of an arc are at most 90° from a point, so is the rest of the arc (arcs are shorter than 180°).
        self.radius_m = self.plane.spread(self.corners) * EARTH_RADIUS_M + buffer_m

    @property
    def centre(self) -> Vector:
        """The direction of the sum of the corners, a unit vector.

        Distances to the polygon are measured from here (rule D6).
        """
        return self.plane.centre

    def area_m2(self) -> float:
        """Return the area in m², including the strip of width `buffer_m` around the ring.

        The ring's area is the sum of the triangles between the centre and each edge (F. Eriksson, "On the Measure of
        Solid Angles"). The strip's area is computed by Steiner's formula on the sphere, which is exact for convex
        rings. In other rings the strip overlaps itself, and the result is too large rather than too small.
        """
        a, b, c = self.corners[:, :-1], self.corners[:, 1:], np.array(self.plane.centre).reshape(3, 1)
        inside = 1 + dot(a, b) + dot(b, c) + dot(c, a)
        enclosed = abs(float(2 * np.arctan2(dot(cross(a, b), c), inside).sum()))
        length, beyond = float(angle_between(a, b).sum()), angle_of(self.buffer_m)
        strip = length * math.sin(beyond) + (2 * math.pi - enclosed) * (1 - math.cos(beyond))
        return (enclosed + strip) * EARTH_RADIUS_M**2

    def edges(self) -> "Edges":
        """Return the edges of the ring as arcs, with which distances from the ring can be measured."""
        return Edges(self.corners[:, :-1], self.corners[:, 1:])

    def contains(self, place: Vector, reach_m: float) -> bool:
        """Return whether a place is inside the polygon or its buffer.

        `place` is a unit vector. The place counts as inside if any point within `reach_m` metres of it is inside.
        """
        x, y = self.plane.at(place)
        if winding(x, y, self.xy[:, :-1], self.xy[:, 1:]).sum(dtype=np.int32) != 0:
            return True
        allowed = angle_of(self.buffer_m + reach_m)
        if allowed <= 0:
            return False
        # The exact distance is only computed for the few edges that may be near.
        far = math.atan(math.hypot(x, y)) + allowed
        margin = stretched(allowed, far) if far < FAR else math.inf
        (near,) = np.nonzero(overlap(x, y, margin, *boxes(self.xy)))
        edges = Edges(self.corners[:, near], self.corners[:, near + 1])
        return bool((edges.apart(*place) <= allowed).any())

    def contains_all(self, places: Floats, reach_m: Floats) -> Bools:
        """Return an array of bool: for each place, whether it is inside the polygon or its buffer.

        `places` are unit vectors, (3, n). `reach_m` has the uncertainty of each place in metres: a place counts as
        inside if any point within this distance of it is inside. Each place is compared with each edge.
        """
        x, y = (each[:, np.newaxis] for each in self.plane.to_plane(*places))
        found: Bools = winding(x, y, self.xy[:, :-1], self.xy[:, 1:]).sum(axis=1, dtype=np.int32) != 0
        allowed = angle_of(self.buffer_m + reach_m)
        rest = np.flatnonzero(~found & (allowed > 0))
        if len(rest):
            apart = self.edges().apart(*places[:, rest, np.newaxis])
            found[rest] = (apart <= allowed[rest, np.newaxis]).any(axis=1)
        return found


def boxes(xy: Floats) -> tuple[Floats, Floats]:
    """Return the box around each edge of a ring on the plane.

    The result is two arrays of shape (2, n): the smallest x and y of each box, and the largest.
    """
    return np.minimum(xy[:, :-1], xy[:, 1:]), np.maximum(xy[:, :-1], xy[:, 1:])


def stretched(angle: float, far: float) -> float:
    """Return an upper bound of the distance on the plane between two points that are `angle` apart on the sphere.

    Both points are at most `far` from the plane's centre. The angles are in radians. In this part of the plane, the
    projection stretches distances by up to 1 / cos²(far).
    """
    return angle / math.cos(far) ** 2 + ROUNDING


def margins(x: Floats, y: Floats, angle: Floats) -> Floats:
    """Return, for each point (x, y) on the plane, a radius that covers all points within an angle of it on the sphere.

    `angle` has the angle for each point, in radians. The radius is a distance on the plane. It is infinite if no such
    radius is known: for points beyond FAR, and for NaN. `stretched` explains how angles and distances on the plane are
    related.
    """
    far = np.arctan(np.hypot(x, y)) + angle
    cos = np.cos(far)
    return np.where(far < FAR, angle / (cos * cos) + ROUNDING, np.inf)


def overlap(x: Floats | float, y: Floats | float, margin: Floats | float, low: Floats, high: Floats) -> Bools:
    """Return, for each point and each box on the plane, whether the point is within `margin` of the box.

    The result is an array of bool. `low` and `high` have the smallest and the largest x and y of each box. If a margin
    is infinite, the result is True for every box. The arguments are broadcast against each other, as in numpy.
    """
    beside = (low[0] <= x + margin) & (high[0] >= x - margin) & (low[1] <= y + margin) & (high[1] >= y - margin)
    found: Bools = beside | np.isinf(margin)
    return found


def winding(x: Floats | float, y: Floats | float, start: Floats, end: Floats) -> NDArray[np.int8]:
    """Return how much each edge on the plane adds to the winding number around each point (D. Sunday's algorithm).

    Consider the ray from the point to the right: an edge adds 1 if it crosses this ray upwards, -1 if it crosses it
    downwards, and otherwise 0. `start` and `end` are the ends of the edges, of shape (2, …). The arguments are
    broadcast against each other, as in numpy. The result is 0 for a point that is NaN.
    """
    (x0, y0), (x1, y1) = start, end
    left = (x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)
    up: NDArray[np.int8] = ((y0 <= y) & (y < y1) & (left > 0)).view(np.int8)
    down: NDArray[np.int8] = ((y1 <= y) & (y < y0) & (left < 0)).view(np.int8)
    return up - down


class Edges:
    """Arcs of great circles, with precomputed vectors for measuring how far points are from them."""

    __slots__ = ("rows",)

    def __init__(self, a: Floats, b: Floats) -> None:
        """Make arcs that go from `a` to `b`; both arrays consist of unit vectors, and have the shape (3, …)."""
        # (a - b) × (a + b) is twice a × b, and keeps all its digits where a and b are neighbours.
        normal = np.array(cross(a - b, a + b))
        length = np.sqrt((normal * normal).sum(axis=0))
        normal /= np.where(length > 0, length, np.nan)
        # A point is beside the arc if it is on the positive sides of both n × a (not behind) and b × n (not ahead). All
        # vectors are rows of one array, because `take` selects from one array in a fifth of the time.
        self.rows: Floats = np.concatenate([a, b, normal, cross(normal, a), cross(b, normal)])

    def take(self, which: Ints) -> "Edges":
        """Return a selection of the arcs: those with the indices `which`. An index may occur several times."""
        some = Edges.__new__(Edges)
        some.rows = self.rows.take(which, axis=1)
        return some

    def apart(self, x: Floats | float, y: Floats | float, z: Floats | float) -> Floats:
        """Return the angle in radians between each point and the nearest point of each arc.

        The arguments are broadcast against each other, as in numpy. If the foot of the perpendicular from the point
        lies on the arc, the angle is asin |p·n|. Otherwise, it is the angle to the nearer end of the arc. (For an arc
        without length, the normal n is NaN, so that the angle to an end is used.)
        """
        a, b, normal, behind, ahead = (self.rows[at : at + 3] for at in range(0, 15, 3))
        off = np.abs(dot((x, y, z), normal))
        beside = (dot((x, y, z), behind) >= 0) & (dot((x, y, z), ahead) >= 0)
        to_end = np.minimum(chord2(x, y, z, a), chord2(x, y, z, b))
        return np.where(beside, np.arcsin(np.minimum(off, 1.0)), _angle(to_end))


def angle_between(points: Floats, others: Floats) -> Floats:
    """Return the angles in radians between unit vectors, (3, …). The arguments are broadcast against each other."""
    return _angle(chord2(points[0], points[1], points[2], others))


def angle_of(distance_m: FloatOrFloats) -> FloatOrFloats:
    """Convert a distance in metres on the sphere to the angle, in radians, that it spans at the sphere's centre."""
    return distance_m / EARTH_RADIUS_M


def _angle(squared: Floats) -> Floats:
    return 2 * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1.0))


def _unit(x: float, y: float, z: float) -> Vector:
    """Return a vector of length 1 in the direction of the given one; or the given one, if its length is 0."""
    length = math.sqrt(x * x + y * y + z * z) or 1.0
    return x / length, y / length, z / length
