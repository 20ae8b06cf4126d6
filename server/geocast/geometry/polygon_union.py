"""The union of many polygons, such as the zones of a CAP message (rules CZ1 and CZ2).

Polygons are simplified, cut so that they have no holes, and joined. A *piece* is a polygon without holes, together with
a buffer: everything within `beyond_m` metres of its ring.

    the rings of a GeoJSON polygon ── pieces ──> Piece, Piece, …        when a node starts
    the pieces of a message's zones ── join ──> fewer Pieces            when the message arrives

All work is done in metres on the plane of `spherical_polygon`. There, arcs are straight lines. So shapely, which knows
nothing about spheres, can be used. A distance on the plane is never shorter than the distance on the sphere.

Rule 1  The result covers each given piece, and everything within `beyond_m` of that piece's ring.
Rule 2  Places far from all zones stay outside. So a hole is not filled. Instead, the polygon is cut into two along a
        line through the hole. The only holes that are filled are those in which every place is within `beyond_m` of the
        ring, because such a hole is covered anyway.
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
SHORT_DEG = 0.01  # an edge with smaller differences of longitude and latitude is within 0.1 m of its arc
MAX_EDGES = 1_000_000  # the largest number of edges of a ring after its edges are split
MAX_WORK = 9_000  # the limit of `work` for pieces to join: 0.1 s, up to four times per message (rule HD3)
WORK_OF_PIECE = 12  # joining a piece costs this much in addition to its own corners
_TOO_WIDE = "must have every corner less than 60° from the middle of all corners"
_QUARTER = 4  # shapely approximates a quarter of a circle by this number of edges
_FINE_QUARTER = 16  # the same where nothing is lost by more edges
_SLIVER_M2 = 1.0  # a smaller polygon can't be published as it is: its corners may become equal by rounding
_NO_WIDTH_M = 1e-6  # a narrower polygon is a line; rounding errors are smaller
_STRETCH = 1 / math.cos(SPREAD) ** 2  # the greatest ratio of a distance on the plane to that on the sphere
_INNER = math.cos(math.pi / (4 * _QUARTER))  # distance from a unit circle's centre to the middle of such an edge


class Piece(NamedTuple):
    """A polygon without holes, together with a buffer: everything within `beyond_m` metres of its ring.

    `ring` is an array of shape (2, n + 1) with the longitudes and latitudes of the corners; the last corner equals the
    first. The edges are arcs of great circles.
    """

    ring: Floats
    beyond_m: float

    def points(self) -> Floats:
        """Return the corners as unit vectors: an array of shape (3, n + 1). The last corner equals the first."""
        lng, lat = self.ring
        return np.array(unit_vectors(lat, lng))

    def radius_m(self) -> float:
        """Return the distance from the middle of all corners to the farthest corner, in metres."""
        points = self.points()
        return Plane(points[:, :-1]).spread(points) * EARTH_RADIUS_M

    def keeps_a18(self) -> bool:
        """Return whether the polygon is narrow enough for rule A18.

        Each corner must be less than 60° away from the middle of all corners.
        """
        return _Metres([self.points()]).spread < SPREAD


def pieces(rings: Sequence[Floats]) -> list[Piece]:
    """Return polygons without holes that together cover a GeoJSON polygon, which may have holes.

    `rings` are arrays of shape (2, n + 1) with longitudes and latitudes. The first is the outer ring, and the others
    are holes. Return an empty list if the polygon has no area. Raise ValueError if a ring breaks rule A17 or A18.
    """
    split = [_split(ring) for ring in rings]
    on = _Metres([np.array(unit_vectors(lat, lng)) for lng, lat, _ in split], of=1)
    if on.spread >= SPREAD:
        raise ValueError(_TOO_WIDE)
    beyond_m = max(stray_m for _, _, stray_m in split)
    kept = [kept_corners(lng, lat, TOLERANCE_M) for lng, lat, _ in split]
    # A ring needs three corners, and the first one once more.
    corners = [xy[each] if len(each) >= 4 else xy for xy, each in zip(on.corners, kept, strict=True)]
    parts = None
    if any(len(each) < len(xy) for each, xy in zip(corners, on.corners, strict=True)):
        parts = _simplified(_polygon(corners), _polygon(on.corners), beyond_m + TOLERANCE_M)
        beyond_m += 0.0 if parts is None else TOLERANCE_M
    found = [on.piece(part, beyond_m) for part in parts or solid(_polygon(on.corners), beyond_m)]
    if not all(piece.keeps_a18() for piece in found):
        raise ValueError(_TOO_WIDE)
    return found


def _polygon(corners: Sequence[Floats]) -> Any:
    outer, *holes = [shapely.linearrings(xy) for xy in corners]
    return shapely.polygons(outer, holes=holes or None)


def _simplified(simple: Any, whole: Any, beyond_m: float) -> list[Any] | None:
    """Return a simplified polygon as polygons without holes; None if these and their buffers do not cover `whole`.

    If simplified rings cross, land between them may vanish, such as a spit whose two shores become the same line.
    """
    parts = list(solid(simple, beyond_m))
    if shapely.is_valid(simple):
        return parts
    covered = shapely.union_all(shapely.buffer(parts, TOLERANCE_M, quad_segs=_FINE_QUARTER))
    return parts if shapely.covers(covered, _valid(whole)) else None


def _split(ring: Floats) -> tuple[Floats, Floats, float]:
    """Return a ring after its long edges were split by `split_edges`; unchanged if all edges are short.

    The result has the form of that of `split_edges`: longitudes, latitudes, and the width of the buffer. The edges of
    real zones are short. For such zones, the calls would take half of the total time.
    """
    lng, lat = ring
    return (lng, lat, 0.0) if (np.abs(np.diff(ring)) <= SHORT_DEG).all() else split_edges(lng, lat, MAX_EDGES)


def work(given: Sequence[Piece]) -> int:
    """Return an estimate of the cost of joining these polygons, expressed as a number of corners."""
    return sum(piece.ring.shape[1] + WORK_OF_PIECE for piece in given)


def simpler(piece: Piece, tolerance_m: float) -> Piece:
    """Return the polygon with fewer corners, and with a buffer (`beyond_m`) that is `tolerance_m` metres wider.

    Return `piece` itself if no corner can be removed, or if too few corners would remain.
    """
    lng, lat = piece.ring
    kept = kept_corners(lng, lat, tolerance_m)
    return Piece(piece.ring[:, kept], piece.beyond_m + tolerance_m) if 4 <= len(kept) < piece.ring.shape[1] else piece


def join(given: Sequence[Piece], gap_m: float = 0.0) -> list[Piece]:
    """Return the given polygons, after joining those that touch or are less than `gap_m` metres apart.

    Each zone was simplified by itself, so neighbours may overlap or have gaps between them. To close such gaps,
    polygons are widened, united, and then narrowed again; this also closes narrow bays. Polygons that were joined
    across a gap stay wider by `gap_m` / 2. The caller must make sure that the `work` of the given polygons is at most
    MAX_WORK.
    """
    found: list[Piece] = []
    for near in _near(given, gap_m):
        on = _Metres([piece.points() for piece in near])
        joined = list(on.joined(near, gap_m)) if len(near) > 1 and on.spread < SPREAD else near
        found += joined if all(piece.keeps_a18() for piece in joined) else near
    return found


class _Metres:
    """Projects rings on one plane, and joins polygons there.

    `corners` has one array (n, 2) for each ring: the positions of its corners on the plane, in metres.
    """

    def __init__(self, rings: Sequence[Floats], of: int | None = None) -> None:
        """Project `rings`, which are closed rings of unit vectors, on one plane.

        The plane's centre is the middle of the first `of` rings, or of all rings if `of` is None.
        """
        self._plane = Plane(np.hstack([ring[:, :-1] for ring in rings[:of]]))
        self.spread = max(self._plane.spread(ring) for ring in rings)
        self.corners = [np.array(self._plane.to_plane(*ring)).T * EARTH_RADIUS_M for ring in rings]

    def piece(self, polygon: Any, beyond_m: float) -> Piece:
        """Return a shapely polygon that lies on this plane as a `Piece` with a buffer of `beyond_m` metres."""
        x, y = shapely.get_coordinates(polygon).T / EARTH_RADIUS_M
        vx, vy, vz = self._plane.from_plane(x, y)
        return Piece(np.degrees([np.arctan2(vy, vx), np.arcsin(np.clip(vz, -1, 1))]), beyond_m)

    def joined(self, near: Sequence[Piece], gap_m: float) -> Iterator[Piece]:
        """Yield the polygons of `near`, after joining those that touch or are less than `gap_m` metres apart.

        A polygon that is joined with no other is yielded unchanged.
        """
        beyond_m = max(piece.beyond_m for piece in near)
        # Distances on the plane are longer than on the sphere, most of all far from the plane's centre.
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
            # Shrink the shape slightly less than it was grown, because shapely's buffer approximates circles by
            # polygons (Rule 1).
            whole = shapely.buffer(wider, -back_m * _INNER, quad_segs=_QUARTER)
            for each in solid(whole, beyond_m):
                yield _tidy(self.piece(each, beyond_m))


def _tidy(piece: Piece) -> Piece:
    """Return the polygon with fewer corners; or unchanged, if its ring would cross itself with fewer corners."""
    lng, lat = piece.ring
    tidy = Piece(np.take(piece.ring, kept_corners(lng, lat, TIDY_M), axis=1), piece.beyond_m + TIDY_M)
    [xy] = _Metres([tidy.points()]).corners
    return tidy if shapely.is_valid(shapely.polygons(xy)) else piece


def _near(given: Sequence[Piece], gap_m: float) -> Iterator[list[Piece]]:
    """Yield groups of polygons that may touch each other, according to their bounding spheres.

    Two polygons are in one group if their bounding spheres touch or nearly touch, directly or through a chain of other
    polygons. Whether the polygons themselves touch is tested later, on the group's plane.
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
    """Yield shapely polygons without holes that together make up `shape`.

    A hole is filled if every place in it is within `beyond_m` metres of the hole's edge. To remove any other hole, the
    shape is cut in two along a line through the hole (Rule 2).
    """
    for part in shapely.get_parts(_valid(shape)):
        if shapely.get_type_id(part) != 3 or shapely.area(part) <= shapely.length(part) * _NO_WIDTH_M:
            continue
        if shapely.area(part) < _SLIVER_M2:
            part = shapely.buffer(part, _SLIVER_M2, quad_segs=1)  # noqa: PLW2901 (a long sliver, such as a spit)
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
    """Return the same area as a shape whose rings do not cross themselves.

    Everything around which a ring of `shape` winds is inside.
    """
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape, method="structure", keep_collapsed=False)
