"""Shapes of the sphere as polygons of a flat map in longitude and latitude: for drawing (PF4).

RFC 7946 wants straight lines between corners, nothing across the antimeridian (3.1.9), exterior rings counter-clockwise
(3.1.6). So the ring of a shape is split until each line is within 10 m of its arc, unrolled in longitude, closed along
the edge of the map where it winds around a pole, and cut into turns of 360°.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ..cells import EARTH_RADIUS_M, Floats, unit_vector, unit_vectors
from ..rings import angle_between

CORNERS = 64  # of a circle
OFF_M = 10.0  # how far a line may be from its arc
MOST_PIECES = 1024  # of an arc: those beside a pole never come close enough
MOST_CROSSINGS = 1_000  # of a ring with itself: to take it apart there takes 30 ms, and time grows with the square
DECIMALS = 6  # 0.1 m
_WORLD = [[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0], [-180.0, -90.0]]
# A circle of this radius has its corners on the other half of the sphere, and goes for the whole of it.
_WHOLE_M = math.pi / 2 * EARTH_RADIUS_M * 0.98

Rings = list[list[list[float]]]  # of a polygon of GeoJSON: corners as [longitude, latitude]


def of_circle(lat: float, lng: float, radius_m: float) -> list[Rings]:
    """Polygons that cover the circle: 64 corners around it, each side touching it."""
    if radius_m >= _WHOLE_M:
        return [[_WORLD]]
    angle = math.atan(math.tan(radius_m / EARTH_RADIUS_M) / math.cos(math.pi / CORNERS))
    return of_ring(_around(lat, lng, angle))


def _around(lat: float, lng: float, angle: float) -> list[tuple[float, float]]:
    """Corners at this angle from a point, counter-clockwise, the first one again at the end."""
    centre = np.array(unit_vector(lat, lng))
    north = np.array(unit_vector(lat + 90, lng))
    west = np.cross(north, centre) * -1
    turns = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False) + np.pi / CORNERS
    points = (
        np.cos(angle) * centre + np.sin(angle) * (np.cos(turns)[:, None] * north + np.sin(turns)[:, None] * west)
    ).T
    corners = list(zip(*_degrees(points), strict=True))
    return [*corners, corners[0]]


def of_ring(ring: Sequence[tuple[float, float]]) -> list[Rings]:
    """Polygons of the map for a ring of arcs, its corners as (longitude, latitude), counter-clockwise and closed."""
    flat = _unrolled(ring)
    turn = round((flat[-1, 0] - flat[0, 0]) / 360)
    if turn:  # eastward around the north pole, westward around the south pole: the inside is on the left
        pole = 90.0 * turn
        flat = np.vstack([flat, [flat[-1, 0], pole], [flat[0, 0], pole], flat[:1]])
    return [_rings(part) for part in _cut(_filled(flat))]


def _filled(flat: Floats) -> shapely.Geometry:
    """What a ring of the map winds around, without crossings (D4); what is around it if there are very many."""
    shape = shapely.Polygon(flat)
    if shape.is_valid:
        return shape
    lines = shapely.linestrings(np.stack([flat[:-1], flat[1:]], axis=1))
    # Each pair is found twice, each line with itself and with its neighbours.
    meet = len(shapely.STRtree(lines).query(lines, "intersects")[0]) - 3 * len(lines)
    if meet > 2 * MOST_CROSSINGS:
        return shape.convex_hull
    return shapely.make_valid(shape, method="structure", keep_collapsed=False)


def _unrolled(ring: Sequence[tuple[float, float]]) -> Floats:
    """The ring as lines: corners as rows of longitude, without a jump, and latitude."""
    corners = np.array(ring)
    corners[:, 0] = np.unwrap(corners[:, 0], period=360)
    points = np.array(unit_vectors(corners[:, 1], corners[:, 0]))
    lng, lat = _degrees(points[:, :-1] + points[:, 1:])  # the middle of each arc
    between_lng, between_lat = ((corners[:-1] + corners[1:]) / 2).T
    off = _distances(between_lng, between_lat, lng, lat)
    if off.max() <= OFF_M:
        return corners
    found: list[tuple[float, float]] = []
    for start, end, far in zip(ring, ring[1:], off > OFF_M, strict=False):
        found += _split(start, end)[:-1] if far else [start]
    whole = np.array([*found, ring[-1]])
    whole[:, 0] = np.unwrap(whole[:, 0], period=360)
    return whole


def _split(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """The arc in the fewest pieces, doubling, whose straight lines are within OFF_M of it."""
    pieces = 1
    while True:
        lng, lat = _along(start, end, 2 * pieces + 1)
        lng = np.unwrap(lng, period=360)
        off = _distances((lng[:-2:2] + lng[2::2]) / 2, (lat[:-2:2] + lat[2::2]) / 2, lng[1::2], lat[1::2])
        if pieces >= MOST_PIECES or off.max() <= OFF_M:
            found = list(zip(lng[::2].tolist(), lat[::2].tolist(), strict=True))
            return [start, *found[1:-1], end]
        pieces *= 2


def _along(start: tuple[float, float], end: tuple[float, float], count: int) -> tuple[Floats, Floats]:
    """So many points of the arc, evenly: longitudes and latitudes."""
    a, b = np.array(unit_vector(start[1], start[0])), np.array(unit_vector(end[1], end[0]))
    angle = 2 * math.atan2(math.dist(a, b), math.dist(a, -b))
    if angle < 1e-12:
        return np.full(count, start[0]), np.full(count, start[1])
    share = np.linspace(0, 1, count)[:, None]
    return _degrees(((np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / math.sin(angle)).T)


def _degrees(points: NDArray[np.float64]) -> tuple[Floats, Floats]:
    x, y, z = points
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def _distances(lng1: Floats, lat1: Floats, lng2: Floats, lat2: Floats) -> Floats:
    a, b = np.array(unit_vectors(lat1, lng1)), np.array(unit_vectors(lat2, lng2))
    return EARTH_RADIUS_M * angle_between(a, b)


def _cut(shape: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """The parts of a shape of the unrolled map in each turn of 360°, put where the map is."""
    if shape.is_empty:
        return
    west, _, east, _ = shape.bounds
    if west >= -180 and east <= 180 and isinstance(shape, shapely.Polygon):
        yield shape
        return
    for turn in range(math.floor((west + 180) / 360), math.ceil((east + 180) / 360)):
        part = shape.intersection(shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        for polygon in shapely.get_parts(part):
            if isinstance(polygon, shapely.Polygon) and polygon.area:
                yield shapely.transform(polygon, lambda corners, turn=turn: corners - [360 * turn, 0])


def _rings(polygon: shapely.Polygon) -> Rings:
    turned = shapely.geometry.polygon.orient(polygon)
    return [np.round(ring.coords, DECIMALS).tolist() for ring in (turned.exterior, *turned.interiors)]
