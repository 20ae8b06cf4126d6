"""Boxes of latitudes and longitudes: which circles and polygons on the sphere meet them.

Latitudes and longitudes are in degrees in parameters; all other angles are in radians. Two sides of a box lie on
meridians, which are great circles. The other two lie on parallels, which are not.

Rule 1  The nearest point of a box is the nearest one on the meridian of the box whose longitude is nearest, because
        the distance between two points of given latitudes grows with the difference of their longitudes.
Rule 2  A polygon with its buffer meets a box if a corner of one is inside the other, or if an edge of the polygon
        crosses a side of the box, or comes nearer to it than the buffer. An edge that does not cross a side is nearest
        to the box at one of its ends, at its northernmost or southernmost point, or opposite a corner of the box.
Rule 3  Most polygons are decided by the circle around the box: they contain its centre, or do not touch it.
"""

import math
from dataclasses import dataclass

import numpy as np

from .sphere import EARTH_RADIUS_M, Floats, lat_lngs, unit_vector, unit_vectors
from .spherical_polygon import Bools, SphericalPolygon, angle_of

ROUNDING = 1e-12  # larger than the rounding errors of unit vectors, which are about 1e-16


@dataclass(frozen=True, slots=True)
class LatLngBox:
    """All points with a latitude from `south` to `north`, and a longitude from `west` up to `width` degrees east of it.

    `width` is from 0 to 360.
    """

    south: float
    north: float
    west: float
    width: float

    @property
    def middle(self) -> tuple[float, float]:
        """The latitude and the longitude of the middle of the box."""
        return (self.south + self.north) / 2, self.west + self.width / 2

    @property
    def radius(self) -> float:
        """The angle between the middle of the box and its farthest point, or more if the box is wider than 180°.

        The farthest point is a corner (Rule 1), if it is not on the other half of the sphere.
        """
        if self.width > 180:
            return math.pi
        lat, lng = self.middle
        corners = LatLngBox(lat, lat, lng, 0.0).apart(np.array([self.south, self.north]), np.array([self.west] * 2))
        return float(corners.max())

    def apart(self, lat: Floats, lng: Floats) -> Floats:
        """Return the angle between each point and the nearest point of the box; 0 for points inside (Rule 1)."""
        own, beside = np.radians(lat), np.radians(self._beside(lng))
        south, north = math.radians(self.south), math.radians(self.north)
        nearest = np.clip(np.arctan2(np.sin(own), np.cos(own) * np.cos(beside)), south, north)
        squared = np.sin(beside / 2) ** 2 * np.cos(own)
        away = [np.sin((at - own) / 2) ** 2 + np.cos(at) * squared for at in (nearest, south, north)]
        found: Floats = 2 * np.arcsin(np.sqrt(np.minimum(np.minimum.reduce(away), 1.0)))
        return found

    def contains_disc(self, lat: Floats, lng: Floats, angle: Floats) -> Bools:
        """Return, for each circle, whether it is certainly inside the box. `angle` has the radii of the circles.

        The result may be False for a circle that is only just inside, or near a pole.
        """
        own = np.radians(lat)
        with np.errstate(invalid="ignore"):
            # No meridian that is farther away than this touches the circle.
            reach = np.degrees(np.arcsin(np.sin(angle) / np.cos(own)))
        off = (lng - self.west) % 360
        is_beside = (self.width >= 360) | ((off >= reach) & (off + reach <= self.width))
        beyond = np.degrees(angle)
        return is_beside & (angle < math.pi / 2) & (lat - beyond >= self.south) & (lat + beyond <= self.north)

    def meets(self, polygon: SphericalPolygon) -> bool:
        """Return whether a polygon, or its buffer, has a point in the box (Rules 2 and 3)."""
        middle = unit_vector(*self.middle)
        if polygon.contains(middle, 0.0):
            return True
        if not polygon.contains(middle, self.radius * EARTH_RADIUS_M + 1):
            return False
        buffer = angle_of(polygon.buffer_m)
        if (self.apart(*lat_lngs(polygon.corners)) <= buffer).any():
            return True
        east = self.west + self.width
        lat, lng = np.array([self.south, self.south, self.north, self.north]), np.array([self.west, east] * 2)
        corners = np.array(unit_vectors(lat, lng))
        return bool(polygon.contains_all(corners, np.zeros(4)).any()) or self._is_crossed(polygon, buffer)

    def _beside(self, lng: Floats) -> Floats:
        """Return by how many degrees of longitude each meridian is outside of the box; 0 for those inside."""
        off = (lng - self.west) % 360
        return np.where(off <= self.width, 0.0, np.minimum(off - self.width, 360 - off))

    def _is_crossed(self, polygon: SphericalPolygon, buffer: float) -> bool:
        """Return whether an edge of the polygon crosses a side of the box, or is near a parallel in its middle."""
        rows = polygon.edges().rows
        normal, behind, ahead = (rows[at : at + 3] for at in (6, 9, 12))

        def is_on_edge(points: Floats) -> Bools:
            found: Bools = ((points * behind).sum(axis=0) >= -ROUNDING) & ((points * ahead).sum(axis=0) >= -ROUNDING)
            return found

        with np.errstate(invalid="ignore", divide="ignore"):
            # The northernmost points of the circles.
            top = np.array([0.0, 0.0, 1.0])[:, np.newaxis] - normal[2] * normal
            top /= np.sqrt((top * top).sum(axis=0))
            level = np.cross(normal, top, axis=0)
            if any((is_on_edge(each) & (self.apart(*lat_lngs(each)) <= buffer)).any() for each in (top, -top)):
                return True
            for parallel in (self.south, self.north):
                cos = math.sin(math.radians(parallel)) / top[2]
                sin = np.sqrt(1 - cos * cos)  # NaN for circles that do not come so far north or south
                for each in (cos * top + sin * level, cos * top - sin * level):
                    if (is_on_edge(each) & (self._beside(lat_lngs(each)[1]) <= 0)).any():
                        return True
            for meridian in (self.west, self.west + self.width):
                x, y = math.cos(math.radians(meridian)), math.sin(math.radians(meridian))
                each = np.cross(normal, np.array([-y, x, 0.0])[:, np.newaxis], axis=0)
                each *= np.sign(x * each[0] + y * each[1]) / np.sqrt((each * each).sum(axis=0))
                lat = lat_lngs(each)[0]
                if (is_on_edge(each) & (lat >= self.south) & (lat <= self.north)).any():
                    return True
        return False
