"""Conversion of shapes on the sphere to polygons of a flat map in longitude and latitude, for drawing (rule PF4).

The sides of an alert's shapes are arcs of great circles. GeoJSON (RFC 7946) requires straight lines between corners,
polygons that don't cross the antimeridian (3.1.9), and counter-clockwise exterior rings (3.1.6). A ring here is the
closed line around a shape. Each ring goes through four steps:

1.  Its arcs are split until each straight line is within 10 m of its arc.
2.  Its longitudes are unrolled: they continue beyond ±180°, so that no line jumps across the map. A ring from 179° to
    -179° becomes one from 179° to 181°.
3.  A ring around a pole does not end where it began, but 360° farther. It is closed along the map's edge at ±90°.
4.  The map is cut into strips of 360°, and the parts in each strip are moved back into the range of -180° to 180°.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from ..geometry.sphere import EARTH_RADIUS_M, Floats, lat_lngs, unit_vector, unit_vectors
from ..geometry.spherical_polygon import angle_between

CORNERS = 64  # the corners of the polygon that is drawn for a circle
OFF_M = 10.0  # the greatest distance between a straight line and its arc
MOST_PIECES = 1024  # the most pieces of one arc; close to a pole no number of pieces would be enough
MOST_CROSSINGS = 1_000  # how often a ring may cross itself; splitting so many takes 30 ms, and grows quadratically
MOST_POSITIONS = 5_000  # for all shapes of one alert; a shape that has too many is drawn as a box (rule HD4)
DECIMALS = 6  # the decimal places of a coordinate in degrees; the last one is 0.1 m
_WORLD = [[-180.0, -90.0], [180.0, -90.0], [180.0, 90.0], [-180.0, 90.0], [-180.0, -90.0]]
# The largest radius of a circle that is drawn as a polygon. For a larger circle, the polygon's corners would be on the
# other half of the sphere, so the whole map is drawn.
_WHOLE_M = math.pi / 2 * EARTH_RADIUS_M * 0.98

Rings = list[list[list[float]]]  # the coordinates of a GeoJSON polygon: rings of [longitude, latitude]


def of_circle(lat: float, lng: float, radius_m: float, most: int = MOST_POSITIONS) -> list[Rings]:
    """Return polygons of the flat map that cover a circle on the sphere.

    The circle is replaced with a polygon that encloses it: its CORNERS corners are outside the circle, and each side
    touches the circle. `most` limits the number of positions, as in `of_ring`.
    """
    if radius_m >= _WHOLE_M:
        return [[_WORLD]]
    angle = math.atan(math.tan(radius_m / EARTH_RADIUS_M) / math.cos(math.pi / CORNERS))
    return of_ring(_around(lat, lng, angle), most)


def _around(lat: float, lng: float, angle: float) -> list[tuple[float, float]]:
    """Return a closed ring of CORNERS corners around a point, counter-clockwise, each as (longitude, latitude).

    Every corner is at the same distance from the point: the angle `angle`, in radians, seen from the centre of the
    Earth.
    """
    centre = np.array(unit_vector(lat, lng))
    north = np.array(unit_vector(lat + 90, lng))
    west = np.cross(north, centre) * -1
    turns = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False) + np.pi / CORNERS
    points = (
        np.cos(angle) * centre + np.sin(angle) * (np.cos(turns)[:, None] * north + np.sin(turns)[:, None] * west)
    ).T
    lat_of, lng_of = lat_lngs(points)
    corners = list(zip(lng_of, lat_of, strict=True))
    return [*corners, corners[0]]


def of_ring(ring: Sequence[tuple[float, float]], most: int = MOST_POSITIONS) -> list[Rings]:
    """Return polygons of the flat map that cover the area inside a ring of arcs on the sphere.

    The ring is a list of corners (longitude, latitude), counter-clockwise; the last one equals the first. If more than
    `most` positions would be necessary, a box around the ring is returned (rule HD4).
    """
    corners = np.array(ring)
    points = np.array(unit_vectors(corners[:, 1], corners[:, 0]))
    flat = _unrolled(corners, points, most)
    if flat is None:
        return [_rings(part) for part in _cut(_box(points))]
    turn = round((flat[-1, 0] - flat[0, 0]) / 360)
    if turn:  # the inside is on the left, so an eastward ring surrounds the north pole, a westward one the south pole
        pole = 90.0 * turn
        flat = np.vstack([flat, [flat[-1, 0], pole], [flat[0, 0], pole], flat[:1]])
    try:
        return [_rings(part) for part in _cut(_filled(flat))]
    except shapely.GEOSException:
        return [_rings(part) for part in _cut(_box(points))]


def _box(points: Floats) -> shapely.Polygon:
    """Return a box of the flat map that covers these points of the sphere.

    `points` has a unit vector in each column. The box encloses the smallest spherical cap that covers the points and is
    centred at their mean.
    """
    x, y, z = points.sum(axis=1).tolist()
    lng, lat = math.atan2(y, x), math.atan2(z, math.hypot(x, y))
    centre = np.array(unit_vector(math.degrees(lat), math.degrees(lng)))[:, None]
    angle = float(angle_between(centre, points).max()) + OFF_M / EARTH_RADIUS_M
    if angle >= math.pi / 2:
        return shapely.box(-180, -90, 180, 90)
    south, north = max(lat - angle, -math.pi / 2), min(lat + angle, math.pi / 2)
    if abs(lat) + angle >= math.pi / 2:  # the cap contains a pole, and therefore every longitude
        lng, wide = 0.0, math.pi
    else:
        wide = math.asin(math.sin(angle) / math.cos(lat))
    return shapely.box(*map(math.degrees, (lng - wide, south, lng + wide, north)))


def _filled(flat: Floats) -> shapely.Geometry:
    """Return the area of the flat map that a ring winds around (rule D4).

    If the ring crosses itself more than MOST_CROSSINGS times, return its convex hull instead.
    """
    shape = shapely.Polygon(flat)
    if shape.is_valid:
        return shape
    if _crosses_much(shapely.linestrings(np.stack([flat[:-1], flat[1:]], axis=1))):
        return shape.convex_hull
    return shapely.make_valid(shape, method="structure", keep_collapsed=False)


def _crosses_much(lines: NDArray[np.object_]) -> bool:
    """Return whether the lines of a ring cross each other more than MOST_CROSSINGS times."""
    tree = shapely.STRtree(lines)
    left = 2 * MOST_CROSSINGS + 3 * len(lines)  # each pair is found twice; a line also finds itself and two neighbours
    for start in range(0, len(lines), 100):  # in small steps, because 5,000 lines may all cross each other
        left -= len(tree.query(lines[start : start + 100], "intersects")[0])
        if left < 0:
            return True
    return False


def _unrolled(corners: Floats, points: Floats, most: int) -> Floats | None:
    """Return a ring of arcs as straight lines of the flat map, each within OFF_M metres of its arc.

    The result is an array of the ends of the lines, with a row (longitude, latitude) for each. The longitudes are
    unrolled: they continue beyond ±180°, so that no line jumps across the map. `points` has the unit vectors of
    `corners`, one in each column. Each arc is split evenly into 1, 2, 4 … pieces until the lines are close enough, but
    into at most MOST_PIECES. Return None if there would be more than `most` lines.
    """
    pieces = np.ones(len(corners) - 1, np.intp)
    todo = np.arange(len(pieces))
    split: dict[int, Floats] = {}  # by the number of the arc: the points between its two corners
    count = 1
    while True:
        if pieces.sum() > most:
            return None
        lng, lat = _along(corners[todo], points[:, todo], points[:, todo + 1], 2 * count + 1)
        lng = np.unwrap(lng, period=360)
        off = _distances(
            (lng[:, :-2:2] + lng[:, 2::2]) / 2, (lat[:, :-2:2] + lat[:, 2::2]) / 2, lng[:, 1::2], lat[:, 1::2]
        )
        far = off.max(axis=1) > OFF_M if count < MOST_PIECES else np.zeros(len(todo), bool)
        if count > 1:
            inner = np.stack([lng[:, 2:-2:2], lat[:, 2:-2:2]], axis=2)
            split |= {int(edge): inner[row] for row, edge in enumerate(todo) if not far[row]}
        todo = todo[far]
        if not len(todo):
            break
        count *= 2
        pieces[todo] = count
    parts = [
        part for edge in range(len(pieces)) for part in (corners[edge : edge + 1], split.get(edge)) if part is not None
    ]
    flat = np.vstack([*parts, corners[-1:]])
    flat[:, 0] = np.unwrap(flat[:, 0], period=360)
    return flat


def _along(corners: Floats, starts: Floats, ends: Floats, count: int) -> tuple[Floats, Floats]:
    """Return the longitudes and latitudes of `count` evenly spaced points on each arc, as two arrays.

    Each array has one row for each arc.
    """
    angle = 2 * np.arctan2(np.linalg.norm(starts - ends, axis=0), np.linalg.norm(starts + ends, axis=0))
    share = np.linspace(0, 1, count)
    still = angle < 1e-12
    sine = np.where(still, 1.0, np.sin(angle))[:, None]
    before, after = np.sin(np.outer(angle, 1 - share)) / sine, np.sin(np.outer(angle, share)) / sine
    lat, lng = lat_lngs(starts[:, :, None] * before + ends[:, :, None] * after)
    return np.where(still[:, None], corners[:, :1], lng), np.where(still[:, None], corners[:, 1:], lat)


def _distances(lng1: Floats, lat1: Floats, lng2: Floats, lat2: Floats) -> Floats:
    a, b = np.array(unit_vectors(lat1, lng1)), np.array(unit_vectors(lat2, lng2))
    return EARTH_RADIUS_M * angle_between(a, b)


def _cut(shape: shapely.Geometry) -> Iterator[shapely.Polygon]:
    """Cut an unrolled shape into strips of 360° of longitude, and yield each part as a polygon between -180° and 180°.

    (The longitudes of an unrolled shape may continue beyond ±180°.)
    """
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
