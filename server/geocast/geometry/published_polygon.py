"""What a polygon that was asked for is published as (protocol, A16 to A19 and B7 to B9).

    positions ── Outline ──> a ring whose edges are split until each is its own arc
                    │ publish_polygons(outlines, simplify_m)
                    v
                 Polygons    with few enough corners, and with a buffer that makes up for what was left out

An edge that comes in is a straight line in longitude and latitude, as GIS means it. One that goes out is an arc of a
great circle, which is what `spherical_polygon` can decide by. What tells lines on a plane (do they cross, what of
them can be left out) is asked of shapely on the plane of `spherical_polygon`, where an arc is a straight line.

Angles are in degrees at the door and nowhere else.

Cost    Every step is linear in the number of corners, or a bound stands before it (HD3): MAX_COMPARED before asking
        whether a ring crosses itself, MAX_LEVELS in simplifying, MAX_PIECES in splitting.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..model.alert import Polygon
from . import lazy_shapely as shapely
from .sphere import EARTH_RADIUS_M, Disc, Floats, unit_vectors
from .spherical_polygon import SPREAD, Edges, Plane

MAX_POSITIONS = 2_500  # A16
MAX_CORNERS = 500  # P12: of a published area
MAX_PIECES = 5_000  # B7: of a ring, before it is simplified
STRAY_M = 10.0  # B7: how far an arc may be from its edge
SAME_M = 0.1  # B9: an edge that is nearer than this to its arc is its own arc
TOLERANCES_M = (50, 100, 200, 500, 1_000, 2_000, 5_000)  # B8
DECIMALS = 6  # B7: 0.11 m
MAX_COMPARED = 7_000_000  # pairs of edges that GEOS compares in 0.1 s; twice the pairs of a ring of 2,500 corners
FEW = 4  # times MAX_CORNERS: as many may be left of which rounding makes few enough
FEW_PIECES = 2_000  # of which all samples are taken at once
MAX_LEVELS = 30  # at which a line is cut at its farthest corner; a coast of 7,000 corners takes 24
BOX_TURNS = 24  # directions in which a box around a ring is tried
BOX_MARGIN_M = 0.5  # more than rounding can take from a box
NO_AREA = 1e-14  # radians: what is no wider than this is a line; the arithmetic is off by less
SAMPLES = 8  # a piece's distance from its arc is measured at its eighths; it is greatest in the middle

Positions: TypeAlias = Sequence[tuple[float, float]]
Ints: TypeAlias = NDArray[np.intp]


class TooComplex(ValueError):  # noqa: N818 (what it says of a ring)
    """The work on a ring would take longer than it may (rule HD3)."""


class RequestedPolygon:
    """A polygon that was asked for: its corners, its ring, split, and how far it is from its centre to the farthest."""

    __slots__ = (
        "_depths",
        "_judged",
        "_ring",
        "_simplified",
        "beyond_m",
        "compared",
        "corners",
        "crosses",
        "lat",
        "lng",
        "radius_m",
        "tangled",
    )

    def __init__(self, positions: Positions, *, may_cross: bool = False, most: int = MAX_PIECES) -> None:
        """`positions`: longitude and latitude, the last equal to the first (A16). Raises ValueError, for A17 to A19.

        `may_cross`: it may cross or touch itself, and is filled wherever it winds around (CP22); `crosses` says if so.
        Of a ring that would take too long to judge (`MAX_COMPARED`), `crosses` is true with `may_cross`, and `tangled`
        is true without: it can't be published. `most`: the most pieces into which its edges may be split.
        """
        self.corners = [(lat, lng) for lng, lat in positions[:-1]]  # as they were asked for
        lng, lat = np.array(positions, float).T
        self._be(*split_edges(lng, lat, most), may_cross=may_cross)

    @classmethod
    def of_arcs(
        cls, lng: Floats, lat: Floats, beyond_m: float, most_compared: int = MAX_COMPARED
    ) -> "RequestedPolygon":
        """One whose edges are arcs already, and that reaches so far beyond its ring. It may cross itself.

        `most_compared`: it is taken to cross itself if more comparisons are needed to tell. Raises ValueError (A18).
        """
        outline: RequestedPolygon = cls.__new__(cls)
        outline.corners = list(zip(lat[:-1].tolist(), lng[:-1].tolist(), strict=True))
        RequestedPolygon._be(outline, lng, lat, beyond_m, may_cross=True, most_compared=most_compared)
        return outline

    def _be(
        self, lng: Floats, lat: Floats, beyond_m: float, *, may_cross: bool, most_compared: int = MAX_COMPARED
    ) -> None:
        self.lng, self.lat, self.beyond_m = lng, lat, beyond_m
        self._ring = Corners(lng, lat)
        if len(self._ring) < 3:
            raise ValueError("must have at least three positions that differ")
        if self._ring.spread >= SPREAD:
            raise ValueError("must have every corner less than 60° from the middle of all")
        self.compared = self._ring.compared()
        costly = self.compared > most_compared
        self.tangled = costly and not may_cross
        self.crosses = not self.tangled and (costly or not self._ring.simple)
        if self.crosses and not (may_cross and self._ring.has_area):
            raise ValueError(
                "must have an area" if may_cross else "must not cross or touch itself, and must have an area"
            )
        self.radius_m = self._ring.spread * EARTH_RADIUS_M
        self._depths: Floats | None = None
        self._judged: dict[Callable[[Positions], bool], bool] = {}
        self._simplified: dict[float, Corners] = {
            0.0: self._ring
        }  # what has been worked out, for it is asked for again

    def judged(self, covers: Callable[[Positions], bool]) -> bool:
        """Return what `covers` says of its corners, (latitude, longitude); it is kept, for it is asked for again."""
        if covers not in self._judged:
            self._judged[covers] = covers(self.corners)
        return self._judged[covers]

    def ring(self, tolerance_m: float) -> "Corners":
        """Its ring, simplified by so much; 0: as it is."""
        found = self._simplified.get(tolerance_m)
        if found is None:
            kept = np.flatnonzero(self.depths() > tolerance_m / EARTH_RADIUS_M)
            found = Corners(self.lng[kept], self.lat[kept]) if len(kept) < len(self.lng) else self._ring
            self._simplified[tolerance_m] = found
        return found

    def may_be(self, ring: "Corners") -> bool:
        """Whether it may be published as this ring: it keeps A18, and A19 if the outline does."""
        return ring.spread < SPREAD and (self.crosses or ring.simple)

    def left(self, tolerance_m: float) -> int:
        """Return how many corners are left, simplified, before any are found to be equal."""
        return len(self.lng) - 1 if not tolerance_m else int((self.depths() > tolerance_m / EARTH_RADIUS_M).sum()) - 1

    def depths(self) -> Floats:
        """Return below which tolerance each corner remains (see `corner_depths`)."""
        if self._depths is None:
            self._depths = corner_depths(self.lng, self.lat, TOLERANCES_M[0])
        return self._depths

    def own_ring(self, tolerance_m: float) -> "Corners":
        """Return its ring, simplified; or, if nothing would be left of the ring, a box around it (rule HD10)."""
        ring = self.ring(tolerance_m)
        if len(ring) >= 3 and ring.has_area:
            return ring
        return Corners(*box_around(self.lng, self.lat))

    def published(self, ring: "Corners", tolerance_m: float) -> Polygon:
        """The polygon of this ring, which reaches as far beyond it as it takes to cover what was asked for (B9)."""
        beyond_m = self.beyond_m + (tolerance_m if ring is not self._ring else 0)
        return Polygon(ring.positions(), 10.0 * math.ceil((beyond_m + 1) / 10) if beyond_m else 0.0)


def publish_polygons(outlines: Sequence[RequestedPolygon], simplify_m: float) -> tuple[Polygon, ...] | None:
    """The published polygons of an area, simplified by as little as will do, and by `simplify_m` at most.

    First all rings are simplified alike, such that none crosses itself. If no tolerance allows that, each ring is
    simplified as far as it stays a ring, and may cross itself (rule HD10). Return None if that is not enough: there
    would be more than MAX_CORNERS, or rings that break A18; or one ring is `tangled`.
    """
    tolerances_m = [0, *(each for each in TOLERANCES_M if each <= simplify_m)]
    if any(each.tangled for each in outlines):
        return None
    # Where far too many corners are left, no ring is made of them.
    tolerances_m = [each for each in tolerances_m if sum(ring.left(each) for ring in outlines) <= FEW * MAX_CORNERS]
    for tolerance_m in tolerances_m:
        pairs = [(each, each.ring(tolerance_m)) for each in outlines]
        if _number(pairs) <= MAX_CORNERS and all(each.may_be(ring) for each, ring in pairs):
            return tuple(each.published(ring, tolerance_m) for each, ring in pairs)
    for tolerance_m in (each for each in tolerances_m if each):
        pairs = [(each, each.own_ring(tolerance_m)) for each in outlines]
        if _number(pairs) <= MAX_CORNERS and all(ring.spread < SPREAD for _, ring in pairs):
            return tuple(each.published(ring, tolerance_m) for each, ring in pairs)
    return None


def _number(pairs: "Sequence[tuple[RequestedPolygon, Corners]]") -> int:
    return sum(len(ring) for _, ring in pairs)


class Corners:
    """Corners as they would be published, and whether they may be."""

    def __init__(self, lng: Floats, lat: Floats) -> None:
        """`lng`, `lat`: closed."""
        self.lng, self.lat = _alike(np.round(lng, DECIMALS), np.round(lat, DECIMALS))
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
        """Return at least how many pairs of edges are compared to tell whether the ring is simple (rule HD3).

        GEOS compares chains of edges that go in one direction, where their boxes overlap. Two chains of i and j edges
        take about i + j comparisons. Here boxes count as overlapping if they do in x, or in y, whichever are fewer.
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
        """Whether the ring neither crosses nor touches itself, and has an area."""
        return bool(shapely.is_valid(shapely.polygons(self._xy)))

    @property
    def has_area(self) -> bool:
        """Whether a ring that crosses itself winds around anything at all."""
        # To take it apart where it crosses itself can take hours. So its area is summed up along its edges. What it
        # winds around to the left and to the right has two signs, and may be of one size: so the area is weighed, by
        # e^u, which is nowhere alike. Of what is gone there and back nothing remains.
        from_first = self._xy - self._xy[0]
        size = np.abs(from_first).max()
        x, y = from_first.T / size
        u = x + math.sqrt(2) * y
        up = np.diff(u)
        level = up == 0
        weight = np.exp(u[:-1]) * np.where(level, 1.0, np.expm1(up) / np.where(level, 1.0, up))  # of an edge, mean
        parts = weight * np.diff(y)
        return bool(abs(parts.sum()) * size > NO_AREA * np.abs(parts).sum())

    def positions(self) -> tuple[tuple[float, float], ...]:
        """Longitude and latitude of the corners, counter-clockwise, the last equal to the first."""
        step = 1 if shapely.is_ccw(shapely.linearrings(self._xy)) else -1
        return tuple(zip(self.lng[::step].tolist(), self.lat[::step].tolist(), strict=True))


def _alike(lng: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Corners such that one place has one way to be written: 180 for -180, longitude 0 at the poles, and no -0."""
    lng = np.where(np.abs(lat) == 90, 0.0, np.where(lng <= -180, lng + 360, lng))
    return lng + 0.0, lat + 0.0


# ---- splitting (B7) ------------------------------------------------------------------------------------------------


def split_edges(lng: Floats, lat: Floats, most: int = MAX_PIECES) -> tuple[Floats, Floats, float]:
    """A closed ring with its edges split evenly, and how far it has to reach beyond to make up for what is left (B9).

    Raises ValueError, for A17, and if there would be more than `most` edges.
    """
    [found] = split_rings([(lng, lat)], most)
    return found


def split_rings(rings: Sequence[tuple[Floats, Floats]], most: int) -> list[tuple[Floats, Floats, float]]:
    """Split the edges of several closed rings, as `split_edges` does; `most`: edges of all of them together."""
    starts, ends = [], []
    for ring in rings:
        lng, lat = _alike(*ring)
        at_pole = np.abs(lat) == 90
        start, end = lng[:-1], lng[1:]
        # A17: an edge to a pole runs along the meridian of its other end.
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


def _evenly(pieces: Ints) -> tuple[Ints, Floats]:
    """For each piece of each edge: the number of its edge, and how far along the edge it begins."""
    edge = np.repeat(np.arange(len(pieces)), pieces)
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    return edge, (np.arange(len(edge)) - first) / pieces[edge]


class _Lines:
    """Straight lines in longitude and latitude: where they begin, and how far they go."""

    def __init__(self, lng: Floats, lat: Floats, over: Floats, up: Floats) -> None:
        self.lng, self.lat, self.over, self.up = lng, lat, over, up

    def at(self, which: Ints, share: Floats) -> tuple[Floats, Floats]:
        """Longitude, in [-180, 180), and latitude of points at this share of some of the lines."""
        lng = self.lng[which] + share * self.over[which]
        return (lng + 180) % 360 - 180, self.lat[which] + share * self.up[which]

    def pieces(self, most: int) -> tuple[Ints, Floats]:
        """Into how many pieces to split each, and how far each is from its arc, unsplit. Raises ValueError."""
        stray_m = self._stray_m(np.arange(len(self.lng)), np.ones(len(self.lng), np.intp))
        fails = np.ones(len(self.lng), np.intp)
        # The distance goes by the square.
        does: Ints = np.maximum(1, np.ceil(np.sqrt(stray_m / STRAY_M))).astype(np.intp)
        todo = np.flatnonzero(does > 1)
        while len(todo):
            if does.sum() > most:
                raise TooComplex(f"must have fewer or shorter edges: more than {most:,} arcs stand for them")
            too_few = todo[self._stray_m(todo, does[todo]) > STRAY_M]
            fails[too_few], does[too_few] = does[too_few], 2 * does[too_few]
            todo = too_few
        guess = does - 1  # nearly always too few
        while len(todo := np.flatnonzero(does - fails > 1)):
            middle = np.maximum(guess[todo], (does[todo] + fails[todo]) // 2)
            guess[todo] = 0
            far = self._stray_m(todo, middle) > STRAY_M
            fails[todo[far]], does[todo[~far]] = middle[far], middle[~far]
        return does, stray_m

    def _stray_m(self, which: Ints, pieces: Ints) -> Floats:
        """How far some lines are from the arcs of so many pieces, in metres at most."""
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


# ---- simplifying (B8) ----------------------------------------------------------------------------------------------


def kept_corners(lng: Floats, lat: Floats, tolerance_m: float) -> Ints:
    """Which corners of a closed ring remain (Douglas and Peucker), as ascending indices, the first and the last too.

    The ring is cut into two lines, at its first corner and the one that is farthest from it: GEOS may leave out the
    first corner of a closed ring, however far it sticks out.
    """
    points = np.array(unit_vectors(lat, lng))
    xy = np.array(Plane(points[:, :-1]).to_plane(*points)).T
    far = int(np.argmax(((xy - xy[0]) ** 2).sum(axis=1)))
    kept: list[int] = [0]
    for first, last in ((0, far), (far, len(xy) - 1)):
        kept += _line_kept(xy, first, last, tolerance_m / EARTH_RADIUS_M)
    return np.array(kept)


def corner_depths(lng: Floats, lat: Floats, least_m: float) -> Floats:
    """Return for each corner of a closed ring below which tolerance it remains, in radii of the sphere.

    These are the tolerances of Douglas and Peucker, as `kept_corners` has them: a corner remains if it is farther than
    the tolerance from the line between the two corners around it that remain, and so were the corners before it. The
    first corner and the farthest from it always remain. Depths below `least_m` are 0 or any number up to `least_m`.

    The work is done for all lines of a level at once. After MAX_LEVELS levels a line is cut in the middle two times of
    three, so that a zigzag takes not much longer than a coast; it keeps some corners more than it has to.
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
    """Return how far points are from lines on the plane, in the steps of GEOS, so that both agree to the last bit."""
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


def smallest_circle(corners: Positions, radius_m: float) -> Disc | None:
    """Return the circle of this radius around the middle of a ring's corners, if it holds all of them (rule HD10).

    `corners`: latitude and longitude.
    """
    lat, lng = np.array(corners, float).T
    points = np.array(unit_vectors(lat, lng))
    plane = Plane(points)
    if plane.spread(points) * EARTH_RADIUS_M > radius_m:
        return None
    x, y, z = plane.centre
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x)), radius_m


def box_around(lng: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return a small box of four arcs that holds a ring, as its corners, closed (rule HD10)."""
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
    """Which points of a line from one corner to another remain, but for the first."""
    line = shapely.linestrings(np.column_stack([xy[first : last + 1], np.arange(first, last + 1)]))
    simple = shapely.simplify(line, tolerance, preserve_topology=False)
    yield from shapely.get_coordinates(simple, include_z=True)[1:, 2].astype(np.intp).tolist()
