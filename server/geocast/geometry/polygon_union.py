"""Many polygons as few: those of zones, simplified, without holes, and joined where they touch (CZ1, CZ2).

    rings of a GeoJSON polygon ── pieces ──> Piece, Piece, …        at the start of a node
    pieces of the zones of a block ── join ──> fewer Pieces         when a message comes

All of it is done on the plane of `spherical_polygon`, in metres, where an arc is a straight line; shapely, which is
asked there, knows nothing of the sphere. A distance on that plane is never shorter than on the sphere.

Rule 1  What comes out covers what went in, each piece being taken with all that is within `beyond_m` of its ring.
Rule 2  Nobody is told who is far from all zones: a hole is not filled, the polygon is cut through it instead. But for
        holes in which nobody is farther than `beyond_m` from the ring: those are covered anyway.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import lazy_shapely as shapely
from .published_polygon import kept_corners, split_edges
from .sphere import EARTH_RADIUS_M, Floats, unit_vectors
from .spherical_polygon import SPREAD, Plane

TOLERANCE_M = 100.0  # CZ1
TIDY_M = 10.0  # what has been joined is simplified by so much: its corners are round
SHORT_DEG = 0.01  # an edge that goes no farther in longitude and latitude is within 0.1 m of its arc
MAX_EDGES = 1_000_000  # of a ring that comes in
MAX_WORK = 9_000  # of pieces that are joined (`work`); that takes 0.1 s, and is done up to four times (HD3)
WORK_OF_PIECE = 12  # as much as that of so many corners
_TOO_WIDE = "must have every corner less than 60° from the middle of all"
_QUARTER = 4  # edges that stand for a quarter of a circle
_STRETCH = 1 / math.cos(SPREAD) ** 2  # by how much more than on the sphere a distance on the plane is, at most
_INNER = math.cos(math.pi / (4 * _QUARTER))  # how far the middle of such an edge is from the circle's centre


class Piece(NamedTuple):
    """A polygon without holes: its corners as longitude and latitude, (2, n + 1), closed; its edges are arcs.

    It stands for all that is inside, or within `beyond_m` of the ring.
    """

    ring: Floats
    beyond_m: float

    def points(self) -> Floats:
        """Unit vectors of its corners, (3, n + 1)."""
        lng, lat = self.ring
        return np.array(unit_vectors(lat, lng))

    def radius_m(self) -> float:
        """How far its farthest corner is from the middle of all, in metres."""
        points = self.points()
        return Plane(points[:, :-1]).spread(points) * EARTH_RADIUS_M

    def keeps_a18(self) -> bool:
        """Whether every corner is less than 60° from the middle of all."""
        return _Metres([self.points()]).spread < SPREAD


def pieces(rings: Sequence[Floats]) -> list[Piece]:
    """What stands for a polygon of GeoJSON: `rings` as longitude and latitude, (2, n + 1), the outer one first.

    Raises ValueError, for A17 and A18. No pieces: it has no area.
    """
    split = [_split(ring) for ring in rings]
    on = _Metres([np.array(unit_vectors(lat, lng)) for lng, lat, _ in split], of=1)
    if on.spread >= SPREAD:
        raise ValueError(_TOO_WIDE)
    corners, beyond_m = [], 0.0
    for xy, (lng, lat, stray_m) in zip(on.corners, split, strict=True):
        kept = kept_corners(lng, lat, TOLERANCE_M)
        whole = len(kept) == len(lng) or len(kept) < 4  # three that differ, and the first again
        corners.append(xy if whole else xy[kept])
        beyond_m = max(beyond_m, stray_m + (0.0 if len(kept) == len(lng) else TOLERANCE_M))
    outer, *holes = [shapely.linearrings(xy) for xy in corners]
    found = [on.piece(part, beyond_m) for part in solid(shapely.polygons(outer, holes=holes or None), beyond_m)]
    if not all(piece.keeps_a18() for piece in found):
        raise ValueError(_TOO_WIDE)
    return found


def _split(ring: Floats) -> tuple[Floats, Floats, float]:
    """As `split_edges`, which takes half of the time where nothing is to be split: edges of a real zone are short."""
    lng, lat = ring
    return (lng, lat, 0.0) if (np.abs(np.diff(ring)) <= SHORT_DEG).all() else split_edges(lng, lat, MAX_EDGES)


def work(given: Sequence[Piece]) -> int:
    """Return how much work it is to join pieces, in corners."""
    return sum(piece.ring.shape[1] + WORK_OF_PIECE for piece in given)


def simpler(piece: Piece, tolerance_m: float) -> Piece:
    """Return a piece with fewer corners, that reaches as far beyond its ring as makes up for it; or the same."""
    lng, lat = piece.ring
    kept = kept_corners(lng, lat, tolerance_m)
    return Piece(piece.ring[:, kept], piece.beyond_m + tolerance_m) if 4 <= len(kept) < piece.ring.shape[1] else piece


def join(given: Sequence[Piece], gap_m: float = 0.0) -> list[Piece]:
    """The same, with those in one that touch, or that are less than `gap_m` apart.

    Each was simplified by itself, so neighbours leave gaps between them, and overlap. So both sides are widened and
    narrowed again, which closes gaps, and bays that are as narrow. What is joined over a gap stays wider by half of it.
    `given`: of no more than MAX_WORK.
    """
    found: list[Piece] = []
    for near in _near(given, gap_m):
        on = _Metres([piece.points() for piece in near])
        joined = list(on.joined(near, gap_m)) if len(near) > 1 and on.spread < SPREAD else near
        found += joined if all(piece.keeps_a18() for piece in joined) else near
    return found


class _Metres:
    """The plane of some rings, whose corners are on it in metres, (n, 2)."""

    def __init__(self, rings: Sequence[Floats], of: int | None = None) -> None:
        """`rings`: unit vectors, closed. `of`: how many of them, from the first, count for the middle."""
        self._plane = Plane(np.hstack([ring[:, :-1] for ring in rings[:of]]))
        self.spread = max(self._plane.spread(ring) for ring in rings)
        self.corners = [np.array(self._plane.to_plane(*ring)).T * EARTH_RADIUS_M for ring in rings]

    def piece(self, polygon: Any, beyond_m: float) -> Piece:
        """A polygon of shapely's as a piece."""
        x, y = shapely.get_coordinates(polygon).T / EARTH_RADIUS_M
        vx, vy, vz = self._plane.from_plane(x, y)
        return Piece(np.degrees([np.arctan2(vy, vx), np.arcsin(np.clip(vz, -1, 1))]), beyond_m)

    def joined(self, near: Sequence[Piece], gap_m: float) -> Iterator[Piece]:
        """Those in one that are near enough; the others as they are."""
        beyond_m = max(piece.beyond_m for piece in near)
        # On the plane all is longer, and most so where it is farthest from the middle.
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
            # A little less than it was widened, for the circles have corners (Rule 1).
            whole = shapely.buffer(wider, -back_m * _INNER, quad_segs=_QUARTER)
            for part in solid(whole, beyond_m):
                yield _tidy(self.piece(part, beyond_m))


def _tidy(piece: Piece) -> Piece:
    """The same with fewer corners, if it does not come to cross itself."""
    lng, lat = piece.ring
    tidy = Piece(np.take(piece.ring, kept_corners(lng, lat, TIDY_M), axis=1), piece.beyond_m + TIDY_M)
    [xy] = _Metres([tidy.points()]).corners
    return tidy if shapely.is_valid(shapely.polygons(xy)) else piece


def _near(given: Sequence[Piece], gap_m: float) -> Iterator[list[Piece]]:
    """Those together whose bounding spheres are near enough to touch: on one plane it is seen whether they do."""
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
    """Polygons without holes that make up this shape, but for holes that are covered anyway (Rule 2)."""
    for part in shapely.get_parts(_valid(shape)):
        if shapely.get_type_id(part) != 3 or shapely.area(part) < 1:  # no polygon, or none of a square metre
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
    """The same without crossings: what a ring winds around is inside."""
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape, method="structure", keep_collapsed=False)
