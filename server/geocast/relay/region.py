"""The polygon that a target asks for, and whether the area of an alert meets it (rule WH1).

The polygon is one of the sphere, like those of alerts: its edges are arcs of great circles. Two polygons meet if a
corner of one is in the other or in its buffer, or if two edges cross. Nothing else is possible: if no edges cross, the
nearest points of two edges include an end of one of them.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..geometry.sphere import EARTH_RADIUS_M, Floats, unit_vector
from ..geometry.spherical_polygon import SPREAD, SphericalPolygon
from ..model.alert import Circle, KnownShape

MAX_CORNERS = 200
LEAST_M2 = 1.0


class Region:
    """A polygon on the sphere that a target asks for."""

    def __init__(self, corners: Sequence[tuple[float, float]]) -> None:
        """Prepare a region with these corners, (longitude, latitude) in degrees, in either direction.

        Raise ValueError if the polygon has too many corners, is too wide, or has no area.
        """
        ring = [*corners, corners[0]] if corners and corners[0] != corners[-1] else [*corners]
        if not 4 <= len(ring) <= MAX_CORNERS + 1:
            raise ValueError(f"must have 3 to {MAX_CORNERS} corners")
        if not all(abs(lng) <= 180 and abs(lat) <= 90 for lng, lat in ring):
            raise ValueError("must have corners [longitude, latitude] from -180 to 180 and from -90 to 90")
        self._polygon = SphericalPolygon(ring, 0.0)
        if self._polygon.radius_m >= SPREAD * EARTH_RADIUS_M:
            raise ValueError("must have every corner less than 60° from the middle of all corners")
        if not self._polygon.area_m2() >= LEAST_M2:
            raise ValueError("must have an area")

    def meets(self, area: Sequence[KnownShape]) -> bool:
        """Return whether any of these shapes has a point in common with the region."""
        return any(self._meets(shape) for shape in area)

    def _meets(self, shape: KnownShape) -> bool:
        if isinstance(shape, Circle):
            return self._polygon.contains(unit_vector(shape.lat, shape.lng), shape.radius_m)
        own, other = self._polygon, SphericalPolygon(shape.ring, shape.buffer_m)
        middles = np.array([own.centre, other.centre])
        apart_m = 2 * math.asin(min(1.0, float(np.linalg.norm(middles[0] - middles[1])) / 2)) * EARTH_RADIUS_M
        if apart_m > own.radius_m + other.radius_m + 1:
            return False
        return bool(
            own.contains_all(other.corners, np.full(other.corners.shape[1], shape.buffer_m)).any()
            or other.contains_all(own.corners, np.zeros(own.corners.shape[1])).any()
            or _crossing(own.corners, other.corners)
        )


def _crossing(ring: Floats, other: Floats) -> bool:
    """Return whether an edge of a ring crosses an edge of another one. Both are closed rings of unit vectors, (3, n).

    Two arcs cross if the ends of each are on different sides of the other's plane, and the crossing is on the half of
    the sphere where both arcs are.
    """
    a, b = ring[:, :-1, None], ring[:, 1:, None]
    c, d = other[:, None, :-1], other[:, None, 1:]
    ab, cd = np.cross(a, b, axis=0), np.cross(c, d, axis=0)
    turns = [(ab * c).sum(0), -(ab * d).sum(0), -(cd * a).sum(0), (cd * b).sum(0)]
    return bool((np.all([each > 0 for each in turns], 0) | np.all([each < 0 for each in turns], 0)).any())
