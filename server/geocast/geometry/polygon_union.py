"""The union of many polygons: zones are simplified, cut so that they have no holes, and joined (rules CZ1 and CZ2).

    rings of a GeoJSON polygon ── pieces ──> Piece, Piece, …        at the start of a node
    pieces of the zones of a block ── join ──> fewer Pieces         when a message arrives

All work is done on the plane of `spherical_polygon`, in metres. There arcs are straight lines, so shapely can be used,
which knows nothing of the sphere. A distance on that plane is never shorter than the distance on the sphere.

Rule 1  The result covers the given pieces, each with everything within `beyond_m` of its ring.
Rule 2  Places far from all zones stay outside. So a hole is not filled: the polygon is cut through the hole instead.
        The exception are holes in which every place is within `beyond_m` of the ring, since these are covered anyway.
        For example, a lake 150 m wide in a zone with a `beyond_m` of 100 m is filled; a lake 10 km wide is not.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import lazy_shapely as shapely
from .published_polygon import kept_corners, split_edges
from .sphere import EARTH_RADIUS_M, Floats, unit_vectors
from .spherical_polygon import SPREAD, Plane

TOLERANCE_M = 100.0  # for simplifying zones (rule CZ1)
TIDY_M = 10.0  # for simplifying joined polygons, whose corners are rounded
SHORT_DEG = 0.01  # an edge that spans less longitude and latitude than this is within 0.1 m of its arc
MAX_EDGES = 1_000_000  # edges of a given ring
MAX_WORK = 9_000  # the limit of `work` for pieces to join: 0.1 s, up to four times per message (rule HD3)
WORK_OF_PIECE = 12  # the work of a piece besides its corners, in corners
_TOO_WIDE = "must have every corner less than 60° from the middle of all corners"
_QUARTER = 4  # edges that approximate a quarter of a circle
_STRETCH = 1 / math.cos(SPREAD) ** 2  # the greatest ratio of a distance on the plane to that on the sphere
_INNER = math.cos(math.pi / (4 * _QUARTER))  # distance from a unit circle's centre to the middle of such an edge


class Piece(NamedTuple):
    """A polygon without holes: everything inside its ring, or within `beyond_m` metres of the ring.

    `ring` has longitude and latitude of the corners, (2, n + 1), closed. The edges are arcs.
    """

    ring: Floats
    beyond_m: float

    def points(self) -> Floats:
        """Return the unit vectors of the corners, (3, n + 1)."""
        lng, lat = self.ring
        return np.array(unit_vectors(lat, lng))

    def radius_m(self) -> float:
        """Return the distance from the middle of the corners to the farthest corner, in metres."""
        points = self.points()
        return Plane(points[:, :-1]).spread(points) * EARTH_RADIUS_M

    def keeps_a18(self) -> bool:
        """Return whether every corner is less than 60° from the middle of the corners."""
        return _Metres([self.points()]).spread < SPREAD


def pieces(rings: Sequence[Floats]) -> list[Piece]:
    """Return the pieces for a polygon of GeoJSON, or no pieces if the polygon has no area.

    `rings` have longitude and latitude, (2, n + 1); the first is the outer ring. Raise ValueError if a ring breaks rule
    A17 or A18.
    """
    split = [_split(ring) for ring in rings]
    on = _Metres([np.array(unit_vectors(lat, lng)) for lng, lat, _ in split], of=1)
    if on.spread >= SPREAD:
        raise ValueError(_TOO_WIDE)
    corners, beyond_m = [], 0.0
    for xy, (lng, lat, stray_m) in zip(on.corners, split, strict=True):
        kept = kept_corners(lng, lat, TOLERANCE_M)
        whole = len(kept) == len(lng) or len(kept) < 4  # a ring needs three corners, and the first again
        corners.append(xy if whole else xy[kept])
        beyond_m = max(beyond_m, stray_m + (0.0 if len(kept) == len(lng) else TOLERANCE_M))
    outer, *holes = [shapely.linearrings(xy) for xy in corners]
    found = [on.piece(part, beyond_m) for part in solid(shapely.polygons(outer, holes=holes or None), beyond_m)]
    if not all(piece.keeps_a18() for piece in found):
        raise ValueError(_TOO_WIDE)
    return found


def _split(ring: Floats) -> tuple[Floats, Floats, float]:
    """Return the same as `split_edges`, but skip that function if all edges are short.

    Real zones have short edges, and `split_edges` would take half of the time for them.
    """
    lng, lat = ring
    return (lng, lat, 0.0) if (np.abs(np.diff(ring)) <= SHORT_DEG).all() else split_edges(lng, lat, MAX_EDGES)


def work(given: Sequence[Piece]) -> int:
    """Return an estimate of the work to join these pieces, in corners."""
    return sum(piece.ring.shape[1] + WORK_OF_PIECE for piece in given)


def simpler(piece: Piece, tolerance_m: float) -> Piece:
    """Return the piece with fewer corners and a `beyond_m` that is larger by the tolerance.

    Return the same piece if no corner can be left out, or too few would remain.
    """
    lng, lat = piece.ring
    kept = kept_corners(lng, lat, tolerance_m)
    return Piece(piece.ring[:, kept], piece.beyond_m + tolerance_m) if 4 <= len(kept) < piece.ring.shape[1] else piece


def join(given: Sequence[Piece], gap_m: float = 0.0) -> list[Piece]:
    """Return the pieces, with those joined that touch or are less than `gap_m` apart.

    Each zone was simplified by itself, so neighbours may overlap or leave gaps between them. So pieces are widened,
    united, and narrowed again, which closes such gaps and also narrow bays. Pieces that were joined across a gap stay
    wider by `gap_m` / 2. The `work` of the given pieces must not exceed MAX_WORK.
    """
    found: list[Piece] = []
    for near in _near(given, gap_m):
        on = _Metres([piece.points() for piece in near])
        joined = list(on.joined(near, gap_m)) if len(near) > 1 and on.spread < SPREAD else near
        found += joined if all(piece.keeps_a18() for piece in joined) else near
    return found


class _Metres:
    """Rings projected on one plane. `corners` has an array (n, 2) of positions in metres for each ring."""

    def __init__(self, rings: Sequence[Floats], of: int | None = None) -> None:
        """Project closed rings of unit vectors. The first `of` rings, or all, decide where the plane's centre is."""
        self._plane = Plane(np.hstack([ring[:, :-1] for ring in rings[:of]]))
        self.spread = max(self._plane.spread(ring) for ring in rings)
        self.corners = [np.array(self._plane.to_plane(*ring)).T * EARTH_RADIUS_M for ring in rings]

    def piece(self, polygon: Any, beyond_m: float) -> Piece:
        """Return a polygon of shapely as a piece."""
        x, y = shapely.get_coordinates(polygon).T / EARTH_RADIUS_M
        vx, vy, vz = self._plane.from_plane(x, y)
        return Piece(np.degrees([np.arctan2(vy, vx), np.arcsin(np.clip(vz, -1, 1))]), beyond_m)

    def joined(self, near: Sequence[Piece], gap_m: float) -> Iterator[Piece]:
        """Yield the pieces, with those joined that are near enough, and the others unchanged."""
        beyond_m = max(piece.beyond_m for piece in near)
        # The plane stretches distances, and most where it is farthest from its centre.
        stretch = 1 / math.cos(self.spread) ** 2
        wide_m, back_m = (beyond_m + 1.0 + gap_m / 2) * stretch, (beyond_m + 1.0) * stretch
        polygons = np.array([_valid(shapely.polygons(xy)) for xy in self.corners])
        together = shapely.get_parts(shapely.union_all(shapely.buffer(polygons, wide_m, quad_segs=_QUARTER)))
        piece, part = shapely.STRtree(together).query(shapely.point_on_surface(polygons), predicate="within")
        for n, wider in enumerate(together):
            those = piece[part == n]
            if len(those) == 1:
                yield near[those[0]]
                continue
            # Narrow the shape a little less than it was widened, because the circles are polygons (Rule 1).
            whole = shapely.buffer(wider, -back_m * _INNER, quad_segs=_QUARTER)
            for part in solid(whole, beyond_m):
                yield _tidy(self.piece(part, beyond_m))


def _tidy(piece: Piece) -> Piece:
    """Return the piece with fewer corners, or unchanged if it would then cross itself."""
    lng, lat = piece.ring
    tidy = Piece(np.take(piece.ring, kept_corners(lng, lat, TIDY_M), axis=1), piece.beyond_m + TIDY_M)
    [xy] = _Metres([tidy.points()]).corners
    return tidy if shapely.is_valid(shapely.polygons(xy)) else piece


def _near(given: Sequence[Piece], gap_m: float) -> Iterator[list[Piece]]:
    """Yield groups of pieces whose bounding spheres touch or nearly touch, directly or by way of others.

    Whether the pieces of a group really touch is found out later, on the group's plane.
    """
    points = [piece.points() for piece in given]
    middles = np.array([each.mean(axis=1) for each in points])
    farthest = [((each.T - middle) ** 2).sum(axis=1).max() for each, middle in zip(points, middles, strict=True)]
    beyond_m = np.array([piece.beyond_m + gap_m for piece in given])
    reach = np.sqrt(farthest) + beyond_m * _STRETCH / EARTH_RADIUS_M
    left = np.ones(len(given), np.bool_)
    for first in range(len(given)):
        todo = [first] if left[first] else []
        left[first] = False
        group = []
        while todo:
            each = todo.pop()
            group.append(each)
            apart = np.sqrt(((middles - middles[each]) ** 2).sum(axis=1))
            close = np.flatnonzero(left & (apart <= reach + reach[each]))
            left[close] = False
            todo += close.tolist()
        if group:
            yield [given[each] for each in sorted(group)]


def solid(shape: Any, beyond_m: float) -> Iterator[Any]:
    """Yield polygons without holes that make up the shape. Holes that are covered anyway are filled (Rule 2)."""
    for part in shapely.get_parts(_valid(shape)):
        if shapely.get_type_id(part) != 3 or shapely.area(part) < 1:  # not a polygon, or less than a square metre
            continue
        outer = shapely.get_exterior_ring(part)
        holes = [
            hole
            for hole in shapely.get_rings(part)[1:]
            if not shapely.is_empty(shapely.buffer(shapely.polygons(hole), -beyond_m))
        ]
        if not holes:
            yield shapely.polygons(outer)
            continue
        whole = shapely.polygons(outer, holes=holes)
        left, bottom, right, top = shapely.bounds(whole)
        x = shapely.get_x(shapely.point_on_surface(shapely.polygons(holes[0])))
        for side in (shapely.box(left, bottom, x, top), shapely.box(x, bottom, right, top)):
            yield from solid(shapely.intersection(whole, side), beyond_m)


def _valid(shape: Any) -> Any:
    """Return the shape without self-crossings: everything that a ring winds around is inside."""
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape, method="structure", keep_collapsed=False)
