"""Covers many detailed shapes by a few coarse ones, so that no official warning has to be refused (rule HD10).

A *piece* is a polygon without holes, together with a buffer: everything within `beyond_m` metres of its ring. An
*outline* is a polygon that can be published as it is. `few` turns many pieces into a few outlines in one of three ways:

    bridged             if the corners are few enough, and only the number of shapes is too large
    united              if the shapes have too many corners
    boxed and bridged   if uniting on a fine grid fails, because many shapes are far from each other

**Bridged**: two shapes become one. The new ring goes around the first shape, along a line to the second shape, around
it, and back along the line. It does not wind around the line itself. So the new shape consists of both shapes and a
narrow strip along the line, as wide as the buffer (`beyond_m`).

**United**: all rings that fit on one plane are drawn on a grid of squares on that plane. A square is marked if a ring
passes through it or encloses its centre. The marked squares become polygons without holes. GRIDS lists the grids
from the finest to the coarsest. The first grid whose result has few enough corners is used.

**Boxed**: shapes that are near each other are replaced by one box around all of them.

Rule 1  The result covers each given piece, and everything within `beyond_m` of that piece's ring.
Rule 2  The work depends on the number of corners and squares, not on how often rings cross or turn (rule HD3).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from . import lazy_shapely as shapely
from .polygon_union import Piece, solid
from .published_polygon import (
    MAX_CORNERS,
    TOLERANCES_M,
    Corners,
    RequestedPolygon,
    box_around,
    counted,
    may_be_few,
    publish_polygons,
)
from .sphere import EARTH_RADIUS_M, Disc, Floats, lat_lngs, unit_vectors
from .spherical_polygon import SPREAD, Ints, Plane, angle_between

GRIDS = (256, 128, 64, 32, 16, 8, 4, 2, 1)  # the numbers of squares along a side of each grid
WIDE = math.radians(45)  # largest angle from a plane's centre; up to it, distances on the plane are at most doubled
LEAST_M = 100.0  # the smallest side of a square
MAX_MARKS = 300_000  # limit of the sum of points sampled on rings and crossings of rows by rings: 0.1 s
MAX_STEPS = 8 * MAX_CORNERS  # limit of the marked area's corners; most vanish when steps are simplified to slopes
FINE = 64  # squares along a side of the last grid that is tried before boxes are
MOST_BOXED = 600
MOST_BRIDGED = 125  # shapes; more can't have at most MAX_CORNERS: each has 3, and each bridge adds 2
SIDES = 16  # sides of the polygon around a circle
_SAMPLE = 0.5  # distance between two sampled points on an edge, in sides of a square


def around(disc: Disc) -> Piece:
    """Return a polygon (without a buffer) that contains the whole circle `disc`."""
    lat, lng, radius_m = disc
    plane = Plane(np.array(unit_vectors(np.array([lat]), np.array([lng]))))
    far = math.tan(min(radius_m / EARTH_RADIUS_M, WIDE)) / math.cos(math.pi / SIDES)
    turns = np.append(np.arange(SIDES), 0) * (2 * math.pi / SIDES)
    return Piece(_ring_of(plane.from_plane(far * np.cos(turns), far * np.sin(turns))), 0.0)


def few(given: Sequence[Piece], most: int, finest: int = GRIDS[0]) -> list[RequestedPolygon] | None:
    """Return at most `most` publishable polygons that together cover all pieces.

    A piece is a polygon without holes, together with a buffer around its ring. `finest` is the finest grid to try,
    given as the number of squares along a side. Return None if no such polygons are found, for instance because a piece
    is too wide for a grid.
    """
    if most < len(given) <= MOST_BRIDGED and (outlines := _outlines(given)):
        for tolerance_m in (0, *TOLERANCES_M):
            if may_be_few(outlines, tolerance_m):
                found = _bridged([(each, each.own_ring(tolerance_m)) for each in outlines], tolerance_m, most)
                if found is not None:
                    return found
    found = _united(given, most, [each for each in GRIDS if FINE <= each <= finest])
    if found is None and most < len(given) <= MOST_BOXED:
        found = _bridged_as_they_are(_boxed(given, (MAX_CORNERS + 2 * most) // 6), most)
    return found or _united(given, most, [each for each in GRIDS if each < FINE])


# ---- bridging shapes -----------------------------------------------------------------------------------------------


def _bridged(
    pairs: Sequence[tuple[RequestedPolygon, Corners]], tolerance_m: float, most: int
) -> list[RequestedPolygon] | None:
    """Return at most `most` polygons that together cover the given ones, by joining polygons that are near each other.

    Two polygons are joined by a bridge: a line along which the new ring goes from one polygon to the other, and back.
    Each item of `pairs` has a polygon, and the polygon's ring after it was simplified by `tolerance_m` metres. Return
    None if the result would have too many corners, or a polygon that is too wide.

    A ring that crosses itself is replaced by a box, because joined rings must all turn in the same direction: where two
    rings of opposite directions overlap, their winding numbers would add up to 0, and a place there would be outside.
    """
    bridges = max(len(pairs) - most, 0)
    if len(pairs) > MOST_BRIDGED or sum(len(ring) for _, ring in pairs) + 2 * bridges > MAX_CORNERS:
        return None
    given = [_simple(each, ring, tolerance_m) for each, ring in pairs]
    groups = dict(enumerate(given))
    for one, other in islice(_nearest(given), bridges):
        groups[one] = _bridge(groups[one], groups.pop(other))
    found = _outlines(list(groups.values()))
    return found if found and publish_polygons(found, 0) is not None else None


def _bridged_as_they_are(given: Sequence[Piece], most: int) -> list[RequestedPolygon] | None:
    outlines = _outlines(given)
    return outlines and _bridged([(each, each.own_ring(0)) for each in outlines], 0, most)


def _boxed(given: Sequence[Piece], most: int) -> list[Piece]:
    """Return at most `most` boxes that together cover the given polygons.

    Each box is drawn around polygons that are near each other, or around a single polygon.
    """
    groups = {n: [piece] for n, piece in enumerate(given)}
    for one, other in islice(_nearest(given), max(len(given) - most, 0)):
        groups[one] += groups.pop(other)
    found = []
    for group in groups.values():
        lng, lat = box_around(*np.hstack([piece.ring for piece in group]))
        found.append(Piece(np.array([lng, lat]), max(piece.beyond_m for piece in group)))
    return found


def _nearest(given: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Yield the steps that merge all polygons into one group, two groups at a time, the nearest polygons first.

    At the start, each polygon is a group of its own. Each step is a pair (one, other): the group `other` is merged into
    the group `one`. A group is identified by the index of one of its polygons.
    """
    points = [piece.points() for piece in given]
    middles = _directions(np.array([each[:, :-1].sum(axis=1) for each in points]).T)
    pairs = zip(points, middles.T, strict=True)
    spreads = np.array([float(angle_between(each, middle.reshape(3, 1)).max()) for each, middle in pairs])
    # Build a minimum spanning tree (Prim): the next piece is the one with the smallest gap to a piece in the tree.
    gap, nearest, left = np.full(len(given), np.inf), np.zeros(len(given), np.intp), np.ones(len(given), np.bool_)
    links, new = [], 0
    for _ in range(len(given) - 1):
        left[new] = False
        gaps = angle_between(middles, middles[:, new : new + 1]) - spreads - spreads[new]
        closer = gaps < gap
        gap[closer], nearest[closer] = gaps[closer], new
        new = int(np.where(left, gap, np.inf).argmin())
        links.append((float(gap[new]), int(nearest[new]), new))
    of = list(range(len(given)))  # by piece: its current group
    for _, start, end in sorted(links):
        one, other = of[start], of[end]
        of = [one if each == other else each for each in of]
        yield one, other


def _bridge(one: Piece, other: Piece) -> Piece:
    """Return one polygon that consists of two given ones and a bridge, the line between their nearest corners.

    The new ring goes around the first polygon to the bridge, along the bridge, around the second polygon, and back
    along the bridge.
    """
    a, b = one.points()[:, :-1], other.points()[:, :-1]
    at, to = np.unravel_index(int((a.T @ b).argmax()), (a.shape[1], b.shape[1]))
    ours, theirs = one.ring, other.ring
    ring = np.hstack([ours[:, : at + 1], theirs[:, to:-1], theirs[:, : to + 1], ours[:, at:]])
    return Piece(ring, max(one.beyond_m, other.beyond_m))


def _simple(outline: RequestedPolygon, ring: Corners, tolerance_m: float) -> Piece:
    """Return a polygon that covers `outline` and whose ring does not cross itself. Its corners are counter-clockwise.

    `ring` is the ring of `outline` after it was simplified by `tolerance_m` metres. It becomes the ring of the result,
    unless it crosses itself; then the result is a box.
    """
    polygon = outline.published(ring, tolerance_m)
    corners = polygon.ring if ring.simple else zip(*box_around(ring.lng, ring.lat), strict=True)
    return Piece(np.array(list(corners)).T, polygon.buffer_m)


# ---- uniting shapes on a grid --------------------------------------------------------------------------------------


def _united(given: Sequence[Piece], most: int, grids: Sequence[int]) -> list[RequestedPolygon] | None:
    """Return at most `most` polygons that together cover all given ones, and consist of the squares of a grid.

    `grids` lists the grids to try, each given as the number of squares along a side. The first grid is used whose
    result has few enough polygons and corners. Return None if there is no such grid.
    """
    groups = list(_groups(given))
    for squares in grids:
        parts: list[Piece] = []
        for group in groups:
            drawn = group.parts(squares)
            if drawn is None or len(parts) + len(drawn) > MOST_BRIDGED:
                break
            parts += drawn
        else:
            found = _bridged_as_they_are(parts, most)
            if found is not None:
                return found
    return None


def _groups(given: Sequence[Piece]) -> "Iterator[_Group]":
    """Split the polygons into groups, and yield each group projected on a plane of its own.

    The polygons of a group are near enough to each other for one plane.
    """
    sizes = np.array([piece.ring.shape[1] - 1 for piece in given])
    points = Piece(np.hstack([piece.ring for piece in given]), 0.0).points()
    last = np.cumsum(sizes + 1) - 1
    start, end = np.delete(points, last, axis=1), np.delete(points, last - sizes, axis=1)
    ring: Ints = np.repeat(np.arange(len(given)), sizes)
    first = np.cumsum(sizes) - sizes
    middles = _directions(np.add.reduceat(start, first, axis=1))
    spreads = np.maximum.reduceat(angle_between(start, middles[:, ring]), first)
    beyond_m = np.array([each.beyond_m for each in given])
    left = np.ones(len(given), np.bool_)
    while left.any():
        n = int(left.argmax())
        near = left & (angle_between(middles, middles[:, n : n + 1]) + spreads < WIDE)
        near[n] = True
        left &= ~near
        those = near[ring]
        yield _Group(start[:, those], end[:, those], ring[those], float(beyond_m[near].max()))


class _Group:
    """The edges of several polygons that are near each other, projected on one plane. Coordinates are in metres."""

    def __init__(self, start: Floats, end: Floats, ring: Ints, beyond_m: float) -> None:
        """Project the edges of the group's polygons on a plane.

        Edge i runs from `start[:, i]` to `end[:, i]`; both arrays consist of unit vectors and have the shape (3, n).
        `ring[i]` is the index of the ring to which edge i belongs. `beyond_m` is the width in metres of the widest
        buffer among the group's polygons.
        """
        self._beyond_m = beyond_m
        self._plane = Plane(start)
        self._fits = self._plane.spread(start) < SPREAD
        self._start, self._end = (np.array(self._plane.to_plane(*each)) * EARTH_RADIUS_M for each in (start, end))
        self._ring = ring

    def parts(self, squares: int) -> list[Piece] | None:
        """Return polygons without holes, made of grid squares, that together cover the group's polygons.

        The grid has `squares` squares along a side. A square is included if a ring passes through it or encloses its
        centre. Return None if the group is too wide to be projected on a plane, or if the result would have too many
        corners or polygons.
        """
        if not self._fits:
            return None
        low, high = self._start.min(axis=1), self._start.max(axis=1)
        size_m = max(float((high - low).max()) / squares, LEAST_M)
        start, end = ((each - low[:, np.newaxis]) / size_m for each in (self._start, self._end))
        marked = _marked(start, end, self._ring, squares)
        if marked is None or _steps(marked) > MAX_STEPS:
            return None
        row, column = np.nonzero(marked)
        shape = shapely.coverage_union_all(shapely.box(column, row, column + 1, row + 1))
        shape = shapely.transform(shape, lambda xy: xy * size_m + low)
        # Between two sampled points, an edge may cut off a corner of a square that is not marked, so widen the buffer.
        beyond_m = self._beyond_m + size_m * _SAMPLE
        found = list(islice(solid(shape, beyond_m + size_m), MOST_BRIDGED + 1))
        return [self._part(each, size_m, beyond_m) for each in found] if len(found) <= MOST_BRIDGED else None

    def _part(self, shape: Any, size_m: float, beyond_m: float) -> Piece:
        x, y = shapely.get_coordinates(shape).T / EARTH_RADIUS_M
        whole = Piece(_ring_of(self._plane.from_plane(x, y)), beyond_m)
        ring = _outline(whole).ring(size_m)  # simplifying turns the steps between squares into slopes
        if not 3 <= len(ring) < len(x) - 1 or not ring.simple:
            return whole
        return Piece(np.array([ring.lng, ring.lat]), beyond_m + size_m)


def _marked(start: Floats, end: Floats, ring: Ints, squares: int) -> Any:
    """Return which squares of a grid are marked: those that a ring passes through, and those whose centre it encloses.

    Edge i of the rings runs from `start[:, i]` to `end[:, i]`; both arrays have the shape (2, n). Their unit of length
    is the side of a square. `ring[i]` is the index of the ring to which edge i belongs. The result is an array of bool,
    indexed by [row, column]. Return None if the work would take too long.
    """
    samples = np.ceil(np.abs(end - start).max(axis=0) / _SAMPLE).astype(np.intp) + 1
    # For each edge, `bottom` is the lowest row whose middle line the edge crosses, and `rows` is the number of rows,
    # from that one upwards, whose middle lines it crosses.
    bottom = np.ceil(np.minimum(start[1], end[1]) - 0.5).astype(np.intp)
    rows = np.ceil(np.maximum(start[1], end[1]) - 0.5).astype(np.intp) - bottom
    if samples.sum() + rows.sum() > MAX_MARKS:
        return None
    found = np.zeros((squares, squares), np.bool_)
    edge, at = counted(samples)
    share = at / np.maximum(samples - 1, 1)[edge]
    column, row = (start[:, edge] + share * (end - start)[:, edge]).astype(np.intp).clip(0, squares - 1)
    found[row, column] = True
    # Find where edges cross the middle line of a row, and sort these crossings by ring, row and x. At a crossing, the
    # ring's winding number changes by 1 if the edge goes up, or by -1 if it goes down (`turn`). So between two
    # crossings, the winding number is the sum of the changes so far. After a ring's last crossing with a row's middle
    # line, the sum is 0 again.
    edge, at = counted(rows)
    row = bottom[edge] + at
    share = (row + 0.5 - start[1, edge]) / (end - start)[1, edge]
    x = start[0, edge] + share * (end - start)[0, edge]
    order = np.lexsort((x, ring[edge] * squares + row))
    row, turn = row[order], np.where(end[1] > start[1], 1, -1)[edge[order]]
    column = np.ceil(x[order] - 0.5).astype(np.intp).clip(0, squares)  # the first column whose middle lies right of x
    inside = np.flatnonzero(np.cumsum(turn))
    change = np.zeros((squares, squares + 1), np.intp)
    np.add.at(change, (row[inside], column[inside]), 1)
    np.add.at(change, (row[inside], column[inside + 1]), -1)
    found |= np.cumsum(change, axis=1)[:, :-1] > 0
    return found


def _steps(marked: Any) -> int:
    """Return how many corners the area of the marked squares of a grid has.

    A point of the grid is a corner of the area if one or three of the four squares around it are marked.
    """
    wide = np.pad(marked, 1).astype(np.int8)
    four = wide[1:, 1:] + wide[1:, :-1] + wide[:-1, 1:] + wide[:-1, :-1]
    return int((four % 2).sum())


def _outlines(given: Sequence[Piece]) -> list[RequestedPolygon] | None:
    """Return each of the polygons in a form that can be published.

    Return None if one of the polygons has no area, or is too wide (rule A18).
    """
    try:
        return [_outline(piece) for piece in given]
    except ValueError:
        return None


def _outline(piece: Piece) -> RequestedPolygon:
    lng, lat = piece.ring
    return RequestedPolygon(lng, lat, piece.beyond_m)


def _ring_of(points: Floats) -> Floats:
    lat, lng = lat_lngs(points)
    return np.array([lng, lat])


def _directions(sums: Floats) -> Floats:
    length = np.linalg.norm(sums, axis=0)
    return sums / np.where(length > 0, length, 1.0)
