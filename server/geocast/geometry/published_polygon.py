"""Requested polygons, and the polygons that are published for them (protocol, rules A16 to A19 and B7 to B9).

    positions ── RequestedPolygon ──> a ring whose edges are split until each is close to its arc
                    │ publish_polygons(outlines, simplify_m)
                    v
                 Polygons    with at most MAX_CORNERS together, and with a buffer that compensates for removed corners

An edge of a requested polygon is a straight line in longitude and latitude, as in GIS. An edge of a published polygon
is an arc of a great circle, as `spherical_polygon` needs it. For example, the great circle between two places on the
49th parallel, at 123° W and 95° W, runs 95 km north of the parallel in the middle. So an edge along the parallel is
split into many short arcs.

The library shapely tests whether lines cross, and which corners can be removed. It works on the plane of
`spherical_polygon`, where arcs are straight lines. Latitudes and longitudes are in degrees, other angles in radians.

Cost    The work of every step is proportional to the number of corners, or has a limit (rule HD3): MAX_COMPARED for the
        test whether a ring crosses itself, MAX_LEVELS for simplifying, MAX_PIECES for splitting.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np

from ..model.alert import Polygon
from . import lazy_shapely as shapely
from .sphere import EARTH_RADIUS_M, Disc, Floats, lat_lng, unit_vectors
from .spherical_polygon import SPREAD, Edges, Ints, Plane

MAX_POSITIONS = 2_500  # the largest number of positions of a requested ring (rule A16)
MAX_CORNERS = 500  # the largest number of corners of a published area (rule P12)
MAX_PIECES = 5_000  # the largest number of pieces after a ring's edges are split, before it is simplified (rule B7)
STRAY_M = 10.0  # the greatest distance from a piece of an edge to its arc (rule B7)
SAME_M = 0.1  # an edge whose distance from its arc is at most this needs no buffer (rule B9)
TOLERANCES_M = (50, 100, 200, 500, 1_000, 2_000, 5_000)  # tolerances for simplifying (rule B8)
DECIMALS = 6  # decimals of published degrees, which are exact to 0.11 m (rule B7)
MAX_COMPARED = 7_000_000  # pairs of edges that GEOS compares in 0.1 s; a ring of 2,500 corners needs half as many
FEW = 4  # FEW * MAX_CORNERS corners are enough before rounding, which makes some corners equal
FEW_PIECES = 2_000  # if there are fewer pieces, all sampled distances are computed at once
MAX_LEVELS = 30  # levels before some cuts are made in the middle of a line; a coast of 7,000 corners takes 24
BOX_TURNS = 24  # the number of directions that are tried for a box around a ring
BOX_MARGIN_M = 0.5  # the margin that is added on each side of a box; it is more than the rounding error
NO_AREA = 1e-14  # radians; a narrower ring counts as a line without an area; rounding errors are smaller
SAMPLES = 8  # a piece's distance from its arc is measured at each eighth of its length; it is greatest in the middle

Positions: TypeAlias = Sequence[tuple[float, float]]


class TooComplex(ValueError):  # noqa: N818 (the name describes the ring)
    """Raised if it would take too long to process a ring (rule HD3)."""


class RequestedPolygon:
    """A polygon in a request, with a ring whose edges are split until each is close to an arc of a great circle.

    `corners` has (latitude, longitude) as requested. `lng` and `lat` are the closed ring with split edges, and the
    polygon includes everything within `beyond_m` metres of that ring. `radius_m` is the distance from the middle of the
    corners to the farthest corner. `crosses`: whether the ring crosses or touches itself. `tangled`: whether the ring
    cannot be published, because the test for crossings would take too long.
    """

    def __init__(
        self,
        lng: Floats,
        lat: Floats,
        beyond_m: float,
        most_compared: int = MAX_COMPARED,
        *,
        corners: Positions | None = None,
        may_cross: bool = True,
    ) -> None:
        """Make a polygon from a ring whose edges are arcs of great circles already, so that they need no splitting.

        `lng` and `lat` are the corners of the closed ring. The polygon includes everything within `beyond_m` metres of
        the ring. `corners` has (latitude, longitude) as requested, if they differ from those of the ring.

        If the test for crossings would take more than `most_compared` comparisons, the ring is assumed to cross itself.
        With `may_cross`, the ring may cross or touch itself, and everything around which it winds is inside (rule
        CP22). Without it, a ring that is too costly to test is `tangled`, and cannot be published.

        Raise ValueError if the ring has no area, breaks rule A18, or crosses itself although it may not.
        """
        self.lng, self.lat, self.beyond_m = lng, lat, beyond_m
        self.corners = list(zip(lat[:-1].tolist(), lng[:-1].tolist(), strict=True)) if corners is None else corners
        self._ring = Corners(lng, lat)
        if len(self._ring) < 3:
            raise ValueError("must have at least three positions that differ")
        if self._ring.spread >= SPREAD:
            raise ValueError("must have every corner less than 60° from the middle of all corners")
        self.compared = self._ring.compared()
        costly = self.compared > most_compared
        self.tangled = costly and not may_cross
        self.crosses = not self.tangled and (costly or not self._ring.simple)
        if self.crosses and not (may_cross and self._ring.has_area):
            wrong = "must have an area" if may_cross else "must not cross or touch itself, and must have an area"
            raise ValueError(wrong)
        self.radius_m = self._ring.spread * EARTH_RADIUS_M
        self._covered: dict[Callable[[Positions], bool], bool] = {}
        self._simplified: dict[float, Corners] = {0.0: self._ring}  # by tolerance: the simplified ring

    @classmethod
    def requested(cls, positions: Positions) -> "RequestedPolygon":
        """Make a polygon from (longitude, latitude) pairs. The last pair must equal the first (rule A16).

        Raise ValueError if the ring breaks one of the rules A17 to A19, or must be split into more than MAX_PIECES
        pieces.
        """
        lng, lat = np.array(positions, float).T
        return cls(*split_edges(lng, lat), corners=[(lat, lng) for lng, lat in positions[:-1]], may_cross=False)

    def is_covered(self, covers: Callable[[Positions], bool]) -> bool:
        """Return the result of `covers(corners)`, which is computed once and then remembered."""
        if covers not in self._covered:
            self._covered[covers] = covers(self.corners)
        return self._covered[covers]

    def ring(self, tolerance_m: float) -> "Corners":
        """Return the ring simplified by `tolerance_m` metres, or not simplified if the tolerance is 0."""
        found = self._simplified.get(tolerance_m)
        if found is None:
            kept = np.flatnonzero(self.depths > tolerance_m / EARTH_RADIUS_M)
            found = Corners(self.lng[kept], self.lat[kept]) if len(kept) < len(self.lng) else self._ring
            self._simplified[tolerance_m] = found
        return found

    def is_publishable(self, ring: "Corners") -> bool:
        """Return whether the polygon may be published with `ring`, which is a simplified form of its own ring.

        The ring must not be too wide (rule A18). It must not cross itself, unless the requested ring already does (rule
        A19).
        """
        return ring.spread < SPREAD and (self.crosses or ring.simple)

    def corners_left(self, tolerance_m: float) -> int:
        """Return the number of corners that remain if the ring is simplified by `tolerance_m` metres.

        Corners that would become equal, and would be removed later, are counted as well.
        """
        return len(self.lng) - 1 if not tolerance_m else int((self.depths > tolerance_m / EARTH_RADIUS_M).sum()) - 1

    @cached_property
    def depths(self) -> Floats:
        """The depth of each corner: the largest tolerance for simplifying the ring at which the corner remains.

        Tolerances are in units of the sphere's radius. `corner_depths` explains how they are computed.
        """
        return corner_depths(self.lng, self.lat, TOLERANCES_M[0])

    def own_ring(self, tolerance_m: float) -> "Corners":
        """Return the ring simplified by `tolerance_m` metres; or a box, if the simplified ring has no area (rule HD10).

        The box contains the whole polygon.
        """
        ring = self.ring(tolerance_m)
        if len(ring) >= 3 and ring.has_area:
            return ring
        return Corners(*box_around(self.lng, self.lat))

    def published(self, ring: "Corners", tolerance_m: float) -> Polygon:
        """Return this polygon as it is published with `ring`, its own ring simplified by `tolerance_m` metres.

        Its buffer is wide enough to cover the whole requested polygon (rule B9).
        """
        beyond_m = self.beyond_m + (tolerance_m if ring is not self._ring else 0)
        return Polygon(ring.positions(), 10.0 * math.ceil((beyond_m + 1) / 10) if beyond_m else 0.0)


def publish_polygons(outlines: Sequence[RequestedPolygon], simplify_m: float) -> tuple[Polygon, ...] | None:
    """Return the polygons to publish for a requested area, or None if the area can't be published.

    All polygons are simplified by the same tolerance: the smallest one, up to `simplify_m` metres, with which they have
    at most MAX_CORNERS corners together.

    At first, no simplified ring may cross itself. If no tolerance is sufficient, the tolerances are tried again: now
    rings may cross themselves, and a ring that would vanish is replaced by a box (rule HD10). Return None if even then
    there are more than MAX_CORNERS corners, if a ring breaks rule A18, or if one of the outlines is `tangled` (the test
    whether it crosses itself would take too long).
    """
    tolerances_m = [0, *(each for each in TOLERANCES_M if each <= simplify_m)]
    if any(each.tangled for each in outlines):
        return None
    # Skip tolerances that leave far too many corners, to avoid the work of making their rings.
    tolerances_m = [each for each in tolerances_m if may_be_few(outlines, each)]
    for tolerance_m in tolerances_m:
        pairs = [(each, each.ring(tolerance_m)) for each in outlines]
        if _number(pairs) <= MAX_CORNERS and all(each.is_publishable(ring) for each, ring in pairs):
            return tuple(each.published(ring, tolerance_m) for each, ring in pairs)
    for tolerance_m in (each for each in tolerances_m if each):
        pairs = [(each, each.own_ring(tolerance_m)) for each in outlines]
        if _number(pairs) <= MAX_CORNERS and all(ring.spread < SPREAD for _, ring in pairs):
            return tuple(each.published(ring, tolerance_m) for each, ring in pairs)
    return None


def may_be_few(outlines: Sequence[RequestedPolygon], tolerance_m: float) -> bool:
    """Return whether the rings, simplified by `tolerance_m`, may together have few enough corners after rounding."""
    return sum(each.corners_left(tolerance_m) for each in outlines) <= FEW * MAX_CORNERS


def _number(pairs: "Sequence[tuple[RequestedPolygon, Corners]]") -> int:
    return sum(len(ring) for _, ring in pairs)


class Corners:
    """The corners of a ring, rounded as they would be published. Tests whether the ring may be published."""

    def __init__(self, lng: Floats, lat: Floats) -> None:
        """Make the corners from the longitudes and latitudes of a closed ring. Round them and drop repeated ones."""
        self.lng, self.lat = _unique_spelling(np.round(lng, DECIMALS), np.round(lat, DECIMALS))
        apart = np.flatnonzero((np.diff(self.lng) != 0) | (np.diff(self.lat) != 0))
        apart = np.append(apart, 0)  # the last corner is the first
        self.lng, self.lat = self.lng[apart], self.lat[apart]
        points = np.array(unit_vectors(self.lat, self.lng))
        plane = Plane(points[:, :-1])
        self.spread = plane.spread(points) if len(apart) > 3 else np.pi
        self._xy = np.array(plane.to_plane(*points)).T

    def __len__(self) -> int:
        return len(self.lng) - 1

    def compared(self) -> int:
        """Return a lower bound of the number of pairs of edges that a test for crossings has to compare (rule HD3).

        GEOS splits the ring into chains of edges that go in one direction, and compares two chains if their boxes
        overlap. Two chains of i and j edges take about i + j comparisons. Here, the overlaps are counted once along x
        and once along y, and the smaller count is returned.
        """
        step = np.diff(self._xy, axis=0) >= 0
        begin = np.flatnonzero(np.append(True, (step[1:] != step[:-1]).any(axis=1)))
        edges = np.diff(np.append(begin, len(step)))
        corners = np.append(begin, len(step))
        found = []
        for at in self._xy.T:  # a chain goes in one direction, so its ends are its bounds
            low, high = np.minimum(at[corners[:-1]], at[corners[1:]]), np.maximum(at[corners[:-1]], at[corners[1:]])
            overlapping = np.searchsorted(np.sort(low), high, "right") - np.searchsorted(np.sort(high), low, "left")
            found.append(int((overlapping * edges).sum()))
        return min(found)

    @cached_property
    def simple(self) -> bool:
        """Whether the ring encloses an area, and neither crosses nor touches itself."""
        return bool(shapely.is_valid(shapely.polygons(self._xy)))

    @property
    def has_area(self) -> bool:
        """Whether there is a point around which the ring winds. This may be so even if the ring crosses itself."""
        # Splitting a ring at its crossings can take hours, so the area is computed as an integral along the edges. In a
        # figure of eight, the two halves have opposite signs, and cancel each other out if they have the same size. To
        # prevent this, the area is weighted by e^u, which is different at each u. A line that goes there and back still
        # cancels out, as it should.
        from_first = self._xy - self._xy[0]
        size = np.abs(from_first).max()
        x, y = from_first.T / size
        u = x + math.sqrt(2) * y
        up = np.diff(u)
        level = up == 0
        # The weight of an edge is the mean of e^u on the edge.
        weight = np.exp(u[:-1]) * np.where(level, 1.0, np.expm1(up) / np.where(level, 1.0, up))
        parts = weight * np.diff(y)
        return bool(abs(parts.sum()) * size > NO_AREA * np.abs(parts).sum())

    def positions(self) -> tuple[tuple[float, float], ...]:
        """Return the corners as (longitude, latitude), in counter-clockwise order; the last equals the first."""
        step = 1 if shapely.is_ccw(shapely.linearrings(self._xy)) else -1
        return tuple(zip(self.lng[::step].tolist(), self.lat[::step].tolist(), strict=True))


def _unique_spelling(lng: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return longitudes and latitudes written in such a way that equal points have equal coordinates.

    Longitude -180 becomes 180, the longitude of a pole becomes 0, and -0 becomes 0.
    """
    lng = np.where(np.abs(lat) == 90, 0.0, np.where(lng <= -180, lng + 360, lng))
    return lng + 0.0, lat + 0.0


# ---- splitting edges (B7) ------------------------------------------------------------------------------------------


def split_edges(lng: Floats, lat: Floats, most: int = MAX_PIECES) -> tuple[Floats, Floats, float]:
    """Split each edge of a closed ring into equal pieces, so that each piece is close to the arc between its ends.

    Return the longitudes and latitudes of the new ring, and the width in metres of the buffer with which it covers the
    original ring (rule B9). Raise ValueError if the ring breaks rule A17, and TooComplex if there would be more than
    `most` edges.
    """
    [found] = split_rings([(lng, lat)], most)
    return found


def split_rings(rings: Sequence[tuple[Floats, Floats]], most: int) -> list[tuple[Floats, Floats, float]]:
    """Split the edges of several closed rings at once. Return, for each ring, what `split_edges` would return.

    Raise TooComplex if there would be more than `most` edges in all rings together.
    """
    starts, ends = [], []
    for ring in rings:
        lng, lat = _unique_spelling(*ring)
        at_pole = np.abs(lat) == 90
        start, end = lng[:-1], lng[1:]
        # An edge to a pole runs along the meridian of its other end (rule A17).
        starts.append((np.where(at_pole[:-1], end, start), lat[:-1]))
        ends.append((np.where(at_pole[1:], start, end), lat[1:]))
    (from_lng, from_lat), (to_lng, to_lat) = np.concatenate(starts, axis=1), np.concatenate(ends, axis=1)
    over = (to_lng - from_lng + 180) % 360 - 180  # the short way round
    if (np.abs(over) >= 180).any():
        raise ValueError("must have no edge that spans 180° of longitude or more")
    lines = _Lines(from_lng, from_lat, over, to_lat - from_lat)
    pieces, stray_m = lines.pieces(most)
    split = np.array(lines.at(*_evenly(pieces)))
    begin = np.cumsum([0, *(len(lng) - 1 for lng, _ in rings)])[:-1]  # the first edge of each ring
    corners = np.cumsum(np.add.reduceat(pieces, begin))[:-1]
    far_m = np.maximum.reduceat(stray_m, begin)
    return [
        (np.append(lng, lng[0]), np.append(lat, lat[0]), STRAY_M if each > SAME_M else 0.0)
        for (lng, lat), each in zip(np.split(split, corners, axis=1), far_m.tolist(), strict=True)
    ]


def counted(counts: Ints) -> tuple[Ints, Ints]:
    """Return two arrays: each index i repeated `counts[i]` times, and the number (from 0) of each repetition.

    Example: `counts` = [2, 0, 3] gives [0, 0, 2, 2, 2] and [0, 1, 0, 1, 2].
    """
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)


def _evenly(pieces: Ints) -> tuple[Ints, Floats]:
    """Split each edge i into `pieces[i]` pieces of equal length, and return where the pieces start.

    The result is two arrays with one item for each piece: the index of its edge, and the position of its start on the
    edge, from 0 to 1.
    """
    edge, number = counted(pieces)
    return edge, number / pieces[edge]


class _Lines:
    """Straight lines on the map of longitude and latitude.

    Each line is stored as its start, and as how far it goes to the east (`over`) and to the north (`up`).
    """

    def __init__(self, lng: Floats, lat: Floats, over: Floats, up: Floats) -> None:
        self.lng, self.lat, self.over, self.up = lng, lat, over, up

    def at(self, which: Ints, share: Floats) -> tuple[Floats, Floats]:
        """Return the longitudes, in [-180, 180), and the latitudes of points on lines.

        `which` has the index of the line for each point. `share` is the position of each point on its line, from 0
        (start) to 1 (end).
        """
        lng = self.lng[which] + share * self.over[which]
        return (lng + 180) % 360 - 180, self.lat[which] + share * self.up[which]

    def pieces(self, most: int) -> tuple[Ints, Floats]:
        """Return, for each line, the number of pieces to split it into, and its distance from the arc between its ends.

        The number is the smallest with which all pieces are within STRAY_M of their arcs. The distance is that of the
        unsplit line, in metres. Raise TooComplex if there would be more than `most` pieces.
        """
        stray_m = self._stray_m(np.arange(len(self.lng)), np.ones(len(self.lng), np.intp))
        insufficient = np.ones(len(self.lng), np.intp)
        # The distance from the arc is proportional to the square of the length.
        enough: Ints = np.maximum(1, np.ceil(np.sqrt(stray_m / STRAY_M))).astype(np.intp)
        todo = np.flatnonzero(enough > 1)
        while len(todo):
            if enough.sum() > most:
                raise TooComplex(f"must have fewer or shorter edges: they need more than {most:,} arcs")
            too_few = todo[self._stray_m(todo, enough[todo]) > STRAY_M]
            insufficient[too_few], enough[too_few] = enough[too_few], 2 * enough[too_few]
            todo = too_few
        guess = enough - 1  # try this first: `enough` is nearly always the smallest number
        while len(todo := np.flatnonzero(enough - insufficient > 1)):
            middle = np.maximum(guess[todo], (enough[todo] + insufficient[todo]) // 2)
            guess[todo] = 0
            far = self._stray_m(todo, middle) > STRAY_M
            insufficient[todo[far]], enough[todo[~far]] = middle[far], middle[~far]
        return enough, stray_m

    def _stray_m(self, which: Ints, pieces: Ints) -> Floats:
        """Return, for each line, its greatest distance in metres from the arcs into which it is turned by splitting it.

        Each line is split into equal pieces, and each piece becomes an arc between its ends. `which` has the indices of
        the lines, and `pieces` the number of pieces for each of them.
        """
        piece, begin = _evenly(pieces)
        size, line = 1 / pieces[piece], which[piece]
        arcs = Edges(self._vectors(line, begin), self._vectors(line, begin + size))
        steps = np.arange(1, SAMPLES).reshape(-1, 1) / SAMPLES
        shares = [begin + size * some for some in ([steps] if len(piece) < FEW_PIECES else steps)]
        far = np.max([np.atleast_2d(arcs.apart(*self._vectors(line, each))).max(axis=0) for each in shares], axis=0)
        return np.maximum.reduceat(far, np.cumsum(pieces) - pieces) * EARTH_RADIUS_M

    def _vectors(self, which: Ints, share: Floats) -> Floats:
        lng, lat = self.at(which, share)
        return np.array(unit_vectors(lat, lng))


# ---- simplifying rings (B8) ----------------------------------------------------------------------------------------


def kept_corners(lng: Floats, lat: Floats, tolerance_m: float) -> Ints:
    """Return the indices of the corners of a closed ring that remain after simplifying (Douglas and Peucker).

    The indices are ascending, and include the first and the last corner. The ring is cut into two lines, at its first
    corner and at the corner farthest from the first, and each line is simplified by itself. Otherwise, GEOS might
    remove the first corner of the closed ring, however far it sticks out.
    """
    points = np.array(unit_vectors(lat, lng))
    xy = np.array(Plane(points[:, :-1]).to_plane(*points)).T
    far = int(np.argmax(((xy - xy[0]) ** 2).sum(axis=1)))
    kept: list[int] = [0]
    for first, last in ((0, far), (far, len(xy) - 1)):
        kept += _line_kept(xy, first, last, tolerance_m / EARTH_RADIUS_M)
    return np.array(kept)


def corner_depths(lng: Floats, lat: Floats, least_m: float) -> Floats:
    """Return the depth of each corner of a closed ring: the corner remains if the ring is simplified by less than that.

    Depths are in units of the sphere's radius. They agree with the algorithm of Douglas and Peucker in `kept_corners`:
    a line is cut at its farthest corner, if that corner is farther than the tolerance from the line, and then both
    halves are cut in the same way. The first corner and the corner farthest from it always remain. Depths below
    `least_m` metres are not exact: they are 0 or any number up to `least_m`.

    All lines of a level are cut at once. After MAX_LEVELS levels, two of three cuts are in the middle of the line, so
    that a zigzag does not take much longer than a coast. The result for a zigzag then has a few unnecessary corners.
    """
    points = np.array(unit_vectors(lat, lng))
    xy = np.array(Plane(points[:, :-1]).to_plane(*points)).T
    depths = np.zeros(len(xy))
    cuts = np.array([0, int(np.argmax(((xy - xy[0]) ** 2).sum(axis=1))), len(xy) - 1])
    depths[cuts] = np.inf
    first, last, level = cuts[:-1], cuts[1:], 0
    least = least_m / EARTH_RADIUS_M
    while len(first := first[more := last - first > 1]):
        last, level = last[more], level + 1
        inner = last - first - 1
        begin = np.cumsum(inner) - inner
        line = np.repeat(np.arange(len(first)), inner)
        at = np.arange(len(line)) - begin[line] + first[line] + 1
        if level <= MAX_LEVELS or level % 3 == 0:
            far = _from_line(xy[at], xy[first[line]], xy[last[line]])
            farthest = np.maximum.reduceat(far, begin)
            hits = np.flatnonzero(far == farthest[line])
            cut = at[hits[np.searchsorted(line[hits], np.arange(len(first)))]]
        else:
            farthest, cut = np.full(len(first), np.inf), (first + last) // 2
        depths[cut] = np.minimum(farthest, np.minimum(depths[first], depths[last]))
        go_on = depths[cut] > least
        first, last = np.concatenate([first[go_on], cut[go_on]]), np.concatenate([cut[go_on], last[go_on]])
    return depths


def _from_line(points: Floats, start: Floats, end: Floats) -> Floats:
    """Return the distance of each point from its line on the plane.

    The distances are computed as in GEOS, so that the results are equal to the last bit.
    """
    (px, py), (ax, ay), (bx, by) = points.T, start.T, end.T
    dx, dy = bx - ax, by - ay
    squared = dx * dx + dy * dy
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ((px - ax) * dx + (py - ay) * dy) / squared
        beside = np.abs(((ay - py) * dx - (ax - px) * dy) / squared) * np.sqrt(squared)
    to_start = np.sqrt((px - ax) * (px - ax) + (py - ay) * (py - ay))
    to_end = np.sqrt((px - bx) * (px - bx) + (py - by) * (py - by))
    found: Floats = np.where((squared == 0) | (share <= 0), to_start, np.where(share >= 1, to_end, beside))
    return found


def smallest_circle(points: Floats, beyond_m: float, radius_m: float) -> Disc | None:
    """Return the circle of radius `radius_m` around the middle of a ring, if it covers the polygon (rule HD10).

    Return None if it does not. `points` are the corners of the closed ring as unit vectors, an array of shape
    (3, n + 1). The polygon includes everything within `beyond_m` metres of its ring.
    """
    plane = Plane(points[:, :-1])
    if plane.spread(points) * EARTH_RADIUS_M + beyond_m > radius_m:
        return None
    return *lat_lng(plane.centre), radius_m


def box_around(lng: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return a small box, bounded by four arcs of great circles, that contains a ring (rule HD10).

    The result is the box's closed ring: the longitudes and the latitudes of its corners.
    """
    points = np.array(unit_vectors(lat, lng))
    plane = Plane(points[:, :-1])
    xy = np.array(plane.to_plane(*points))
    turns = np.arange(BOX_TURNS) * (math.pi / 2 / BOX_TURNS)
    axes = np.array([[np.cos(turns), np.sin(turns)], [-np.sin(turns), np.cos(turns)]]).transpose(2, 0, 1)
    along = axes @ xy
    low, high = along.min(axis=2) - BOX_MARGIN_M / EARTH_RADIUS_M, along.max(axis=2) + BOX_MARGIN_M / EARTH_RADIUS_M
    best = int((high - low).prod(axis=1).argmin())
    (left, bottom), (right, top) = low[best], high[best]
    box = np.array([[left, right, right, left, left], [bottom, bottom, top, top, bottom]])
    x, y, z = plane.from_plane(*(axes[best].T @ box))
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(np.clip(z, -1, 1)))


def _line_kept(xy: Floats, first: int, last: int, tolerance: float) -> Iterator[int]:
    """Yield the indices of those corners of a line that remain after simplifying, except `first`.

    The line goes from the corner with the index `first` to the one with the index `last`. `xy` has the positions of all
    corners on the plane.
    """
    line = shapely.linestrings(np.column_stack([xy[first : last + 1], np.arange(first, last + 1)]))
    simple = shapely.simplify(line, tolerance, preserve_topology=False)
    yield from shapely.get_coordinates(simple, include_z=True)[1:, 2].astype(np.intp).tolist()
