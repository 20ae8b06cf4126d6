"""The jurisdiction of a publisher: polygons of a map, whose edges are straight in longitude and latitude (RFC 7946).

This is not the geometry of alerts (`spherical_polygon`), whose edges are arcs of great circles. Borders are drawn on
maps, and a border along a parallel must stay on the parallel. So the tests are made by shapely, on a map: the plane of
longitude and latitude.

A ring is in the jurisdiction if all of its edges are, and if it does not wind around a hole of the jurisdiction. A ring
may cross itself.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...geometry import lazy_shapely as shapely
from ...geometry.spherical_polygon import winding
from ...model.errors import Malformed
from ...wire.strict_json import load_json

BORDER_DEG = 1e-7  # 1 cm of tolerance, because rounding may move an edge along a border to its other side
GEOMETRIES = "Polygon, MultiPolygon, a Feature of one, or a FeatureCollection of those"


class Jurisdiction:
    """The area in which a publisher may publish: the union of several polygons, including their borders."""

    def __init__(self, polygons: Sequence[Sequence[NDArray[np.float64]]]) -> None:
        """Prepare a jurisdiction that consists of `polygons`.

        Each polygon is a list of rings, the outer one first. A ring is an array with one row (longitude, latitude) for
        each corner, the last row equal to the first. Raise ValueError if the rings of a polygon are invalid; the
        error's text has the polygon's number.
        """
        self._parts = np.array([shapely.Polygon(rings[0], rings[1:]) for rings in polygons])
        for number, part in enumerate(self._parts, start=1):
            if not shapely.is_valid(part):
                raise ValueError(f"polygon {number}: its rings must not cross or share a line; holes must lie inside")
        shapely.prepare(self._parts)
        # Repeat the map to the west and to the east, so that a ring across the antimeridian is in one piece.
        turns = [shapely.transform(self._parts, lambda xy, by=by: xy + np.array([by, 0])) for by in (-360, 0, 360)]
        self._map = shapely.buffer(shapely.union_all(np.concatenate(turns)), BORDER_DEG, quad_segs=1)
        shapely.prepare(self._map)
        holes = [hole for part in shapely.get_parts(self._map) for hole in shapely.get_rings(part)[1:]]
        inside = shapely.point_on_surface([shapely.polygons(hole) for hole in holes])
        self._holes = shapely.get_coordinates(inside).T.reshape(2, -1, 1)

    def covers(self, corners: Sequence[tuple[float, float]]) -> bool:
        """Return whether the whole area inside a ring belongs to the jurisdiction. Borders belong to it.

        `corners` are (latitude, longitude). The edges of the ring are straight on the map (rule A17).
        """
        lat, lng = _unrolled(np.array(corners, float).T)
        if not shapely.covers(self._map, shapely.linestrings(lng, lat)):
            return False
        x, y = self._holes
        around = winding(x, y, np.array([lng[:-1], lat[:-1]]), np.array([lng[1:], lat[1:]]))
        return not around.sum(axis=1, dtype=np.int32).any()

    def contains(self, lat: float, lng: float) -> bool:
        """Return whether a point, given in degrees, is in the jurisdiction or on its border."""
        if abs(lat) == 90:  # a pole has every longitude, so it is a line on this map
            return bool(shapely.intersects(self._parts, shapely.linestrings([(-180, lat), (180, lat)])).any())
        meridians = (-180.0, 180.0) if abs(lng) == 180 else (lng,)  # the same meridian, at both edges of the map (L6)
        return any(bool(shapely.intersects_xy(self._parts, each, lat).any()) for each in meridians)


def _unrolled(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a ring as a closed line on a map that continues beyond the longitudes ±180°.

    `corners` and the result are arrays with a row of latitudes and a row of longitudes.
    """
    lat, lng = np.append(corners, corners[:, :1], axis=1)
    pole = np.abs(lat) == 90
    if pole.any():  # an edge to a pole runs along the meridian of its other end, so the pole is a line on the map (A17)
        twice = np.repeat(np.arange(len(lat)), np.where(pole, 2, 1))
        lat, at_pole = lat[twice], pole[twice]
        first = np.append(True, twice[1:] != twice[:-1])
        before, behind = np.roll(lng[:-1], 1)[twice % (len(lng) - 1)], np.roll(lng[:-1], -1)[twice % (len(lng) - 1)]
        lng = np.where(at_pole, np.where(first, before, behind), lng[twice])
    lng = np.unwrap(lng, period=360)
    turns = round((lng[-1] - lng[0]) / 360)
    if turns:  # the ring winds around the pole of the hemisphere in which its corners are
        end = math.copysign(90.0, lat.mean())
        lat, lng = np.append(lat, [end, end, lat[0]]), np.append(lng, [lng[-1], lng[0], lng[0]])
    lng = lng - 360 * round((lng.min() + lng.max()) / 720)
    return np.array([lat, lng])


def parse_jurisdiction(data: bytes) -> Jurisdiction:
    """Return the jurisdiction in a GeoJSON file with the content `data`.

    Raise ValueError if it is invalid. The error text never repeats any of the content.
    """
    try:
        document = load_json(data)
    except (Malformed, UnicodeDecodeError):
        raise ValueError("not strict JSON of one object") from None
    # GeoJSON before RFC 7946 allowed other coordinate reference systems, in the member `crs`.
    if document.get("crs") is not None and "CRS84" not in str(document["crs"]):
        raise ValueError("crs: must be left out: RFC 7946 allows only longitude and latitude of WGS 84 (OGC:CRS84)")
    polygons = [polygon for geometry in _geometries(document) for polygon in _polygons(geometry)]
    if not polygons:
        raise ValueError("holds no polygon")
    return Jurisdiction([_rings(polygon, number) for number, polygon in enumerate(polygons, start=1)])


def _geometries(document: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    features = [document]
    if document.get("type") == "FeatureCollection":
        listed = document.get("features")
        features = listed if isinstance(listed, list) else []
    for feature in features:
        is_feature = isinstance(feature, dict) and feature.get("type") == "Feature"
        geometry = feature.get("geometry") if is_feature else feature
        if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
            raise ValueError(f"must be a {GEOMETRIES}")
        yield geometry


def _polygons(geometry: Mapping[str, Any]) -> list[Any]:
    coordinates = geometry.get("coordinates")
    polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
    if not isinstance(polygons, list):
        raise ValueError("coordinates: must be lists of positions, nested as the type of the geometry requires")
    return polygons


def _rings(polygon: object, number: int) -> list[NDArray[np.float64]]:
    if not isinstance(polygon, list) or not polygon or not all(isinstance(ring, list) for ring in polygon):
        raise ValueError(f"polygon {number}: must be a list of one or more rings")
    return [_ring(ring, number) for ring in polygon]


def _ring(ring: list[Any], number: int) -> NDArray[np.float64]:
    if len(ring) < 4 or not all(map(_is_position, ring)):
        raise ValueError(f"polygon {number}: must have 4 or more positions in each ring, [longitude, latitude]")
    found = np.array([(each[0], each[1]) for each in ring], float)
    if not (np.abs(found) <= (180, 90)).all():
        raise ValueError(f"polygon {number}: must have longitudes from -180 to 180, latitudes from -90 to 90")
    if (found[0] != found[-1]).any():
        raise ValueError(f"polygon {number}: must have rings whose last position is the first one again")
    return found


def _is_position(value: object) -> bool:
    """Return whether a value is a GeoJSON position: a list of two numbers, or of three (the third is ignored)."""
    return isinstance(value, list) and 2 <= len(value) <= 3 and all(type(each) in (int, float) for each in value)
