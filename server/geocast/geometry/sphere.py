"""The sphere and its cells: every formula about places, and the only file that imports h3.

Angles are in degrees at the door and nowhere else. Distances are in metres, along great circles of a sphere
of radius `EARTH_RADIUS_M` (protocol, section 2 "Distance").

Rule 1  A place is inside a circle if its squared chord to the centre, on the unit sphere and in float64, is
        at most `limit_chord2(radius_m + reach_m)`. Whoever matches, one place or a million, uses this formula, so
        that all agree. It is not `dot >= cos`, since near 1 a cosine is coarse: it is a centimetre off at 1 m, and a
        metre at 1 cm.
Rule 2  H3 cells name an area: what is published, what a subscriber tells, where in memory to look. They never
        decide who is inside, because the boundary of a cell is not the edge of a circle.
"""

import math
import re
from collections.abc import Sequence
from typing import TypeAlias, overload

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_M = 6_371_007.180918475  # H3's: the authalic radius of WGS 84
HALF_CIRCUMFERENCE_M = math.pi * EARTH_RADIUS_M

# What a subscriber may say instead of a point (protocol, section 5 "Messages").
MIN_PLACE_RESOLUTION, MAX_PLACE_RESOLUTION = 7, 15
_CELL = re.compile("[0-9a-f]{15}")
# The average edge of a cell, by resolution from 0 to 15, so in descending order.
_EDGES_M = [h3.average_hexagon_edge_length(resolution, "m") for resolution in range(16)]
_LAST_CELL = (1 << 63) - 1

Floats: TypeAlias = NDArray[np.float64]
Vector: TypeAlias = tuple[float, float, float]
Disc: TypeAlias = tuple[float, float, float]  # a circle: latitude and longitude of its centre, radius in metres


# ---- the sphere --------------------------------------------------------------------------------------------


def unit_vector(lat: float, lng: float) -> Vector:
    """The point on the unit sphere. At a pole any `lng` gives the same, and so do 180 and -180 anywhere."""
    phi, theta = math.radians(lat), math.radians(lng)
    cos_phi = math.cos(phi)
    return cos_phi * math.cos(theta), cos_phi * math.sin(theta), math.sin(phi)


def unit_vectors(lat: Floats, lng: Floats) -> tuple[Floats, Floats, Floats]:
    """`unit_vector` for arrays: x, y and z, each as long as `lat`."""
    phi, theta = np.radians(lat), np.radians(lng)
    cos_phi = np.cos(phi)
    return cos_phi * np.cos(theta), cos_phi * np.sin(theta), np.sin(phi)


def distance_m(lat1: float, lng1: float, lat2: float, lng2: float) -> float:
    """The great-circle distance in metres.

    The angle between a and b is 2 atan2(|a - b|, |a + b|) (W. Kahan, "How Futile are Mindless Assessments of
    Roundoff", section 12): good to nanometres for neighbours and for antipodes alike.
    """
    a, b = unit_vector(lat1, lng1), unit_vector(lat2, lng2)
    opposite = (-b[0], -b[1], -b[2])
    return 2 * EARTH_RADIUS_M * math.atan2(math.dist(a, b), math.dist(a, opposite))


def circle_area_m2(radius_m: float) -> float:
    """The area of a circle on the sphere, in m²: 2πR²(1 − cos(r/R)), written so that small ones keep their digits."""
    half = math.sin(min(radius_m, HALF_CIRCUMFERENCE_M) / (2 * EARTH_RADIUS_M))
    return 4 * math.pi * EARTH_RADIUS_M**2 * half * half


def chord2(x: Floats, y: Floats, z: Floats, centre: Vector) -> Floats:
    """The square of the straight line (the chord) from each point to `centre`, through the unit sphere.

    It grows with the distance on the sphere, from 0 to 4. It is computed in place, so that no more than two arrays of
    that size are needed at once.
    """
    result = x - centre[0]
    result *= result
    for axis, middle in ((y, centre[1]), (z, centre[2])):
        off = axis - middle
        off *= off
        result += off
    return result


@overload
def limit_chord2(limit_m: float) -> float: ...
@overload
def limit_chord2(limit_m: Floats) -> Floats: ...
def limit_chord2(limit_m: Floats | float) -> Floats | float:
    """The squared chord of each distance in metres: 4 sin²(d / 2R).

    From half the circumference on it is infinite, for no place is farther away than that. (Within 3 m of the antipode
    the squared chord hardly changes, and tells distances to 20 cm only.)
    """
    if isinstance(limit_m, float):  # numpy takes 4 µs for one number (`timeit`), a tenth of matching a small circle
        half = math.sin(min(limit_m, HALF_CIRCUMFERENCE_M) / (2 * EARTH_RADIUS_M))
        return 4 * half * half if limit_m < HALF_CIRCUMFERENCE_M else math.inf
    half_chord = np.sin(np.minimum(limit_m, HALF_CIRCUMFERENCE_M) / (2 * EARTH_RADIUS_M))
    return np.where(limit_m < HALF_CIRCUMFERENCE_M, 4 * half_chord * half_chord, np.inf)


def chord2_to_m(squared: Floats) -> Floats:
    """The distance in metres of each squared chord."""
    return 2 * EARTH_RADIUS_M * np.arcsin(np.minimum(np.sqrt(squared) / 2, 1.0))


# ---- the cells ---------------------------------------------------------------------------------------------


def cell_of(lat: float, lng: float, resolution: int) -> int:
    """The H3 cell that holds the point (degrees), however the point is written.

    180 and -180 are the same meridian, but H3 may give two cells for them if the point is on the very edge of a cell.
    At the poles any `lng` gives the same cell, since the poles lie on no edge.
    """
    cell: int = h3.latlng_to_cell(lat, -180.0 if lng == 180 else lng, resolution)
    return cell


def cell_from_string(text: str, coarsest: int = MIN_PLACE_RESOLUTION, finest: int = MAX_PLACE_RESOLUTION) -> int | None:
    """The cell that a subscriber names: 15 lower-case hex digits, valid, of such a resolution (7 to 15). Else None."""
    if _CELL.fullmatch(text) is None:
        return None
    cell = int(text, 16)
    if not h3.is_valid_cell(cell):
        return None
    return cell if coarsest <= h3.get_resolution(cell) <= finest else None


def cell_place(cell: int) -> tuple[float, float, float]:
    """The cell as a place: latitude and longitude of its centre, and its reach in metres.

    The reach is the greatest distance from the centre to the boundary. The boundary that H3 gives has a point
    at each corner and wherever an edge crosses from one face of the icosahedron to the next. Between two of
    them an edge is an arc of a great circle (H3 projects gnomonically), so the farthest point is one of them.
    """
    lat, lng = h3.cell_to_latlng(cell)
    return lat, lng, _farthest_m(lat, lng, [cell])


def _farthest_m(lat: float, lng: float, cells: Sequence[int]) -> float:
    return max(distance_m(lat, lng, *point) for cell in cells for point in h3.cell_to_boundary(cell))


# ---- the published circles -----------------------------------------------------------------------------------


def publish_circle(lat: float, lng: float, radius_m: float, resolution: int) -> Disc:
    """The published circle for a requested one (protocol, B1 and B2).

    It contains the requested circle, and is the same wherever in the cell the requested centre was.
    """
    return _publish((lat, lng, radius_m), resolution, None, 0.0)[0]


def publish_area(requested: Sequence[Disc], resolution: int, held: Sequence[Disc] = ()) -> list[Disc]:
    """The published circles for those of a request (protocol, B1, B2, B11 and B12). `held`: the current revision's.

    Each contains the circle that it stands for. The way from the first requested centre to its published one is a
    rotation of the sphere, and all other centres go with it before they are looked up. So what is published depends
    on the first one's cell and on how the circles lie to each other. Were each put into the cell that it lies in, a
    dozen circles around one address would each tell on which side of a border it is.
    """
    first, *others = requested
    published, moved_m = _publish(first, resolution, held[0] if held else None, 0.0)
    area = [published]
    for number, (lat, lng, radius_m) in enumerate(others, 1):
        disc = (*_carried(lat, lng, first, published), radius_m)
        area.append(_publish(disc, resolution, held[number] if number < len(held) else None, moved_m)[0])
    return area


def _publish(disc: Disc, resolution: int, held: Disc | None, moved_m: float) -> tuple[Disc, float]:
    """The published circle, and how far its centre may be from `disc`'s, which was moved by up to `moved_m` before."""
    lat, lng, radius_m = disc
    cell = cell_of(lat, lng, resolution)
    if held is not None and cell in (around := h3.grid_disk(old := cell_of(*held[:2], resolution), 1)):
        lat, lng, _ = cell_place(old)
        far_m = _farthest_m(lat, lng, around)
        wide = (lat, lng, _rounded_up(radius_m + moved_m + far_m))
        # Back in its own cell it stays wide, or a series of corrections would tell how often each was outside.
        if cell != old or wide == held:
            return wide, far_m
    lat, lng, reach_m = cell_place(cell)
    return (lat, lng, _rounded_up(radius_m + moved_m + reach_m)), reach_m


def _rounded_up(radius_m: float) -> float:
    return 10.0 * math.ceil(radius_m / 10)


def _carried(lat: float, lng: float, start: Disc, end: Disc) -> tuple[float, float]:
    """Where the shortest rotation of the sphere that takes one circle's centre to another's takes a point.

    This is Rodrigues' formula with the axis a × b, not normalised: its length is the sine of the angle, a · b the
    cosine, and (1 - cos) / sin² is 1 / (1 + cos). Centres are never opposite to each other.
    """
    a, b, v = unit_vector(*start[:2]), unit_vector(*end[:2]), unit_vector(lat, lng)
    axis, cosine = cross(a, b), dot(a, b)
    turned, along = cross(axis, v), dot(axis, v) / (1 + cosine)
    x, y, z = (cosine * v[n] + turned[n] + along * axis[n] for n in range(3))
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def cross(a: Vector, b: Vector) -> Vector:
    """Return the cross product a × b."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Vector, b: Vector) -> float:
    """Return the dot product a · b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# ---- the cover -----------------------------------------------------------------------------------------------


def cover(lat: float, lng: float, radius_m: float, resolution: int) -> list[tuple[int, int]]:
    """Ranges of cells, first and last, ascending: every point within the radius has its cell in one of them.

    The ranges may hold too much, never too little. They hold the descendants, at `resolution`, of the cell around the
    centre and of its neighbours, at the finest resolution where a ring of neighbours is wide enough:

    - A point within the radius lies in one of these cells if the radius is at most the width of the ring. That
      is 0.70 average edges where it is narrowest, close to a pentagon (measured over resolutions 0 to 7).
    - The point's cell may descend from another cell than the one it lies in, for children stick out of their
      parent (h3geo.org, "Indexing"): by 0.05 of its circumradius (measured), which is at most 1.1 average edges.

    Half an average edge is less than 0.70 - 0.05 * 1.1.
    """
    coarse = sum(2 * radius_m <= edge_m for edge_m in _EDGES_M[: resolution + 1]) - 1
    if coarse < 0:
        return [(0, _LAST_CELL)]
    return [_descendants(cell, coarse, resolution) for cell in sorted(h3.grid_disk(cell_of(lat, lng, coarse), 1))]


def _descendants(cell: int, own: int, resolution: int) -> tuple[int, int]:
    """The first and the last of the numbers that descendants of a cell may have.

    The cell is of resolution `own`, its descendants are of `resolution`, which is the same or finer. Bits 52 to 55 are
    the resolution. Below bit 45 lie fifteen digits of three bits, coarse ones first: 0 to 6, and 7 where the resolution
    has none (h3geo.org, "H3Index").
    """
    digits = (1 << 3 * (resolution - own)) - 1 << 3 * (15 - resolution)
    last = cell + (resolution - own << 52)
    return last & ~digits, last
