"""Formulas about places, circles and H3 cells on the sphere. Only this module imports h3.

Parameters and results have latitudes and longitudes in degrees; inside the functions, points are unit vectors.
Distances are in metres, along great circles of a sphere of radius `EARTH_RADIUS_M` (protocol, section 2 "Distance").
A place has a latitude, a longitude and a *reach*: its uncertainty in metres.

Rule 1  A place is inside a circle if its squared chord to the centre, on the unit sphere and in float64, is at most
        `limit_chord2(radius_m + reach_m)`. All code that matches places uses this formula, for one place or a million,
        so that all results agree. The formula is not `dot >= cos`, because cosines near 1 have few digits left: for a
        distance of 1 m they are wrong by a centimetre, for 1 cm by a metre.
Rule 2  H3 cells are used only to blur a published centre, to describe a subscriber's rough place, and to search indexes
        in memory. They never decide whether a place is inside a circle.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_M = 6_371_007.180918475  # as in H3: the authalic radius of WGS 84
HALF_CIRCUMFERENCE_M = math.pi * EARTH_RADIUS_M

# The resolutions of cells that subscribers may send instead of points (protocol, section 5 "Messages").
MIN_PLACE_RESOLUTION, MAX_PLACE_RESOLUTION = 7, 15
_CELL = re.compile("[0-9a-f]{15}")
# The average edge length of a cell at each resolution from 0 to 15. (So the lengths are in descending order.)
_EDGES_M = [h3.average_hexagon_edge_length(resolution, "m") for resolution in range(16)]
_LAST_CELL = (1 << 63) - 1

Floats: TypeAlias = NDArray[np.float64]
FloatOrFloats = TypeVar("FloatOrFloats", float, Floats)
Vector: TypeAlias = tuple[float, float, float]
Points: TypeAlias = Floats | tuple[Any, Any, Any]  # coordinates x, y and z of one or more points
Disc: TypeAlias = tuple[float, float, float]  # a circle: latitude and longitude of its centre, radius in metres


# ---- distances on the sphere ---------------------------------------------------------------------------------------


def unit_vector(lat: float, lng: float) -> Vector:
    """Return a point on the sphere, given by latitude and longitude in degrees, as a unit vector (x, y, z).

    Different coordinates of one point give the same vector: any `lng` at a pole, and `lng` 180 and -180.
    """
    phi, theta = math.radians(lat), math.radians(lng)
    cos_phi = math.cos(phi)
    return cos_phi * math.cos(theta), cos_phi * math.sin(theta), math.sin(phi)


def lat_lng(point: Vector) -> tuple[float, float]:
    """Return the latitude and longitude, in degrees, of a unit vector."""
    x, y, z = point
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def lat_lngs(points: Floats) -> tuple[Floats, Floats]:
    """Return the latitudes and the longitudes, in degrees, of unit vectors, an array of shape (3, n)."""
    x, y, z = points
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def unit_vectors(lat: Floats, lng: Floats) -> tuple[Floats, Floats, Floats]:
    """Return points, given in degrees, as unit vectors: three arrays x, y and z, each of the shape of `lat`."""
    phi, theta = np.radians(lat), np.radians(lng)
    cos_phi = np.cos(phi)
    return cos_phi * np.cos(theta), cos_phi * np.sin(theta), np.sin(phi)


def distance_m(lat1: float, lng1: float, lat2: float, lng2: float) -> float:
    """Return the great-circle distance between two points in metres.

    The angle between a and b is 2 atan2(|a - b|, |a + b|) (W. Kahan, "How Futile are Mindless Assessments of Roundoff",
    section 12). This formula is accurate to nanometres, for close points as well as for antipodes.
    """
    a, b = unit_vector(lat1, lng1), unit_vector(lat2, lng2)
    opposite = (-b[0], -b[1], -b[2])
    return 2 * EARTH_RADIUS_M * math.atan2(math.dist(a, b), math.dist(a, opposite))


def circle_area_m2(radius_m: float) -> float:
    """Return the area of a circle on the sphere, in m²: 2πR²(1 − cos(r/R)).

    The formula is rewritten with a sine, so that small circles keep their digits.
    """
    half = math.sin(min(radius_m, HALF_CIRCUMFERENCE_M) / (2 * EARTH_RADIUS_M))
    return 4 * math.pi * EARTH_RADIUS_M**2 * half * half


def chord2(x: Floats | float, y: Floats | float, z: Floats | float, centre: Vector | Floats) -> Floats:
    """Return the squared length of the straight line (chord) from each point on the unit sphere to `centre`.

    If `centre` is an array of points, the arguments are broadcast against each other, as in numpy.

    It is between 0 and 4, and grows with the distance on the sphere. The steps are computed in place, so that at most
    two new arrays exist at a time.
    """
    result: Any = x - centre[0]
    result *= result
    for axis, middle in ((y, centre[1]), (z, centre[2])):
        off: Any = axis - middle
        off *= off
        result += off
    found: Floats = result
    return found


def limit_chord2(limit_m: FloatOrFloats) -> FloatOrFloats:
    """Return, for each distance in metres on the sphere, the squared length of the chord: 4 sin²(d / 2R).

    The chord is the straight line between two points at this distance, on a sphere of radius 1. The result is infinite
    for half the circumference and more, because no two points are farther apart. (Within 3 m of the antipode the
    squared chord hardly changes, so distances there are only accurate to 20 cm.)
    """
    if isinstance(limit_m, float):  # for one number, numpy takes 4 µs: 10 % of the time to match a small circle
        half = math.sin(min(limit_m, HALF_CIRCUMFERENCE_M) / (2 * EARTH_RADIUS_M))
        return 4 * half * half if limit_m < HALF_CIRCUMFERENCE_M else math.inf
    half_chord = np.sin(np.minimum(limit_m, HALF_CIRCUMFERENCE_M) / (2 * EARTH_RADIUS_M))
    return np.where(limit_m < HALF_CIRCUMFERENCE_M, 4 * half_chord * half_chord, np.inf)


def chord2_to_m(squared: Floats) -> Floats:
    """Return, for each squared length of a chord of the unit sphere, the distance in metres on the earth's surface.

    This is the inverse of `limit_chord2`.
    """
    return 2 * EARTH_RADIUS_M * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1.0))


# ---- H3 cells ---------------------------------------------------------------------------------------------


def cell_of(lat: float, lng: float, resolution: int) -> int:
    """Return the H3 cell at this resolution that contains a point, given in degrees.

    Different coordinates of one point give the same cell.

    Longitude 180 is replaced by -180, because H3 may return two different cells for them if the point lies exactly on
    the edge of a cell. At the poles any `lng` gives the same cell, because the poles do not lie on an edge.
    """
    cell: int = h3.latlng_to_cell(lat, -180.0 if lng == 180 else lng, resolution)
    return cell


def cell_from_string(text: str, coarsest: int = MIN_PLACE_RESOLUTION, finest: int = MAX_PLACE_RESOLUTION) -> int | None:
    """Return the H3 cell whose index the string is, or None if it is not a valid cell of an allowed resolution.

    The string must have 15 lower-case hexadecimal digits, and the resolution must be between `coarsest` and `finest`.
    """
    if _CELL.fullmatch(text) is None:
        return None
    cell = int(text, 16)
    if not h3.is_valid_cell(cell):
        return None
    return cell if coarsest <= h3.get_resolution(cell) <= finest else None


def cell_place(cell: int) -> tuple[float, float, float]:
    """Return the latitude and longitude of a cell's centre, and the cell's reach in metres.

    The reach is the greatest distance from the centre to the cell's boundary. H3 describes the boundary by points: one
    at each corner, and one wherever an edge crosses from one face of the icosahedron to the next. Between two such
    points the edge is an arc of a great circle (H3 projects gnomonically). So the farthest point of the boundary is one
    of these points.
    """
    lat, lng = h3.cell_to_latlng(cell)
    return lat, lng, _farthest_m(lat, lng, [cell])


def _farthest_m(lat: float, lng: float, cells: Sequence[int]) -> float:
    return max(distance_m(lat, lng, *point) for cell in cells for point in h3.cell_to_boundary(cell))


# ---- circles that are published -----------------------------------------------------------------------------------


def publish_circle(lat: float, lng: float, radius_m: float, resolution: int) -> Disc:
    """Return the circle to publish instead of a requested circle (protocol, rules B1 and B2).

    The published circle contains the requested circle. It is the same for all requested circles of one radius whose
    centres are in one cell.
    """
    return _publish((lat, lng, radius_m), resolution, None, 0.0)[0]


def publish_area(requested: Sequence[Disc], resolution: int, held: Sequence[Disc] = ()) -> list[Disc]:
    """Return the circles to publish instead of the requested circles (protocol, rules B1, B2, B11 and B12).

    Each published circle contains the requested circle with the same index. `held` has the circles that were published
    with the alert's current revision; it is empty if there is no current revision.

    The first centre is moved to its published centre by a rotation of the sphere. All other centres are rotated in the
    same way before their cells are looked up. So the result only depends on the cell of the first centre and on the
    positions of the circles relative to each other. Otherwise, a dozen circles around one address would reveal more
    than one cell does: each of them would tell on which side of a cell's border its centre is.
    """
    first, *others = requested
    published, moved_m = _publish(first, resolution, held[0] if held else None, 0.0)
    area = [published]
    for number, (lat, lng, radius_m) in enumerate(others, 1):
        disc = (*_rotated(lat, lng, first, published), radius_m)
        area.append(_publish(disc, resolution, held[number] if number < len(held) else None, moved_m)[0])
    return area


def _publish(disc: Disc, resolution: int, held: Disc | None, moved_m: float) -> tuple[Disc, float]:
    """Return the circle to publish for `disc`, and the greatest possible distance between the two centres, in metres.

    `moved_m` is how far `disc` may already have been moved away from the requested circle, in metres. `held` is the
    circle that was published with the alert's current revision, or None.
    """
    lat, lng, radius_m = disc
    cell = cell_of(lat, lng, resolution)
    if held is not None and cell in (around := h3.grid_disk(old := cell_of(*held[:2], resolution), 1)):
        lat, lng, _ = cell_place(old)
        far_m = _farthest_m(lat, lng, around)
        wide = (lat, lng, _rounded_up(radius_m + moved_m + far_m))
        # Once widened, the circle stays wide, even if the centre moves back into the cell `old`. Otherwise a series of
        # corrections would reveal which of them were outside this cell.
        if cell != old or wide == held:
            return wide, far_m
    lat, lng, reach_m = cell_place(cell)
    return (lat, lng, _rounded_up(radius_m + moved_m + reach_m)), reach_m


def _rounded_up(radius_m: float) -> float:
    return 10.0 * math.ceil(radius_m / 10)


def _rotated(lat: float, lng: float, start: Disc, end: Disc) -> tuple[float, float]:
    """Return where a point moves if the sphere is rotated so that the centre of `start` moves to the centre of `end`.

    The shortest such rotation is used. The centres must not be antipodes. This is Rodrigues' formula with the axis a ×
    b, not normalised: its length is the sine of the angle, a · b is the cosine, and (1 - cos) / sin² is 1 / (1 + cos).
    """
    a, b, v = unit_vector(*start[:2]), unit_vector(*end[:2]), unit_vector(lat, lng)
    axis, cosine = cross(a, b), dot(a, b)
    turned, along = cross(axis, v), dot(axis, v) / (1 + cosine)
    x, y, z = (cosine * v[n] + turned[n] + along * axis[n] for n in range(3))
    return lat_lng((x, y, z))


def cross(a: Points, b: Points) -> tuple[Any, Any, Any]:
    """Return the cross product a × b, which `np.cross` takes three times as long for."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Points, b: Points) -> Any:
    """Return the dot product a · b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# ---- covers of circles by cells ------------------------------------------------------------------------------------


def cover(lat: float, lng: float, radius_m: float, resolution: int) -> list[tuple[int, int]]:
    """Return ranges of H3 cells that together contain the cell of every point in a circle.

    The ranges are pairs (first, last) in ascending order, of cells at `resolution`. They may contain more cells than
    necessary, but never fewer. They contain all descendants of the coarser cell at the circle's centre, and of that
    cell's neighbours. The coarser cells have the finest resolution at which the radius is at most half an average edge.
    That is enough:

    - A point within the radius lies in one of these cells if the radius is at most the width of the ring of neighbours.
      The narrowest ring, close to a pentagon, is 0.70 average edges wide (measured over resolutions 0 to 7).
    - The cell of a point may not be a descendant of the coarse cell in which the point lies, because children stick out
      of their parent (h3geo.org, "Indexing"). They stick out by 0.05 of its circumradius (measured), which is at most
      1.1 average edges. Half an average edge is less than 0.70 - 0.05 * 1.1.
    """
    coarse = sum(2 * radius_m <= edge_m for edge_m in _EDGES_M[: resolution + 1]) - 1
    if coarse < 0:
        return [(0, _LAST_CELL)]
    return [_descendants(cell, coarse, resolution) for cell in sorted(h3.grid_disk(cell_of(lat, lng, coarse), 1))]


def _descendants(cell: int, own: int, resolution: int) -> tuple[int, int]:
    """Return the smallest and the largest H3 index that a descendant of a cell may have.

    `resolution` is the resolution of the descendants. `own` is that of the cell itself, which is the same or coarser.
    In an H3 index, bits 52 to 55 are the resolution. Below bit 45 there are fifteen digits of three bits, the coarsest
    first: 0 to 6, or 7 for digits that are finer than the resolution (h3geo.org, "H3Index").
    """
    digits = (1 << 3 * (resolution - own)) - 1 << 3 * (15 - resolution)
    last = cell + (resolution - own << 52)
    return last & ~digits, last
