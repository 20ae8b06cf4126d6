"""What a polygon that was asked for is published as (protocol, A16 to A19 and B7 to B9).

    positions ── Outline ──> a ring whose edges are split until each is its own arc
                    │ publish_polygons(outlines, simplify_m)
                    v
                 Polygons    with few enough corners, and with a buffer that makes up for what was left out

An edge that comes in is a straight line in longitude and latitude, as GIS means it. One that goes out is an arc of a
great circle, which is what `rings` can decide by. What tells lines on a plane (do they cross, what of them can be left
out) is asked of shapely on the plane of `rings`, where an arc is a straight line.

Angles are in degrees at the door and nowhere else.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .alert import Polygon
from .cells import EARTH_RADIUS_M, Floats, unit_vectors
from .rings import SPREAD, Edges, Plane

MAX_POSITIONS = 2_500  # A16
MAX_CORNERS = 500  # P12: of a published area
MAX_PIECES = 5_000  # B7: of a ring, before it is simplified
STRAY_M = 10.0  # B7: how far an arc may be from its edge
SAME_M = 0.1  # B9: an edge that is nearer than this to its arc is its own arc
TOLERANCES_M = (50, 100, 200, 500, 1_000, 2_000, 5_000)  # B8
DECIMALS = 6  # B7: 0.11 m
NO_AREA = 1e-14  # radians: what is no wider than this is a line; the arithmetic is off by less
SAMPLES = 8  # a piece's distance from its arc is measured at its eighths; it is greatest in the middle

Positions: TypeAlias = Sequence[tuple[float, float]]
Ints: TypeAlias = NDArray[np.intp]


class Outline:
    """A polygon that was asked for: its corners, its ring, split, and how far it is from its centre to the farthest."""

    __slots__ = ("_beyond_m", "_lat", "_lng", "_ring", "_simplified", "corners", "crosses", "radius_m")

    def __init__(self, positions: Positions, *, may_cross: bool = False) -> None:
        """`positions`: longitude and latitude, the last equal to the first (A16). Raises ValueError, for A17 to A19.

        `may_cross`: it may cross or touch itself, and is filled wherever it winds around (CP22); `crosses` says if so.
        """
        self.corners = [(lat, lng) for lng, lat in positions[:-1]]  # as they were asked for
        self._be(*split_edges(*np.array(positions, float).T), may_cross=may_cross)

    @classmethod
    def of_arcs(cls, lng: Floats, lat: Floats, beyond_m: float) -> "Outline":
        """One whose edges are arcs already, and that reaches so far beyond its ring.

        It may cross itself, as far as rounding makes it. Raises ValueError (A18).
        """
        outline: Outline = cls.__new__(cls)
        outline.corners = list(zip(lat[:-1].tolist(), lng[:-1].tolist(), strict=True))
        Outline._be(outline, lng, lat, beyond_m, may_cross=True)
        return outline

    def _be(self, lng: Floats, lat: Floats, beyond_m: float, *, may_cross: bool) -> None:
        self._lng, self._lat, self._beyond_m = lng, lat, beyond_m
        self._ring = _Ring(self._lng, self._lat)
        if len(self._ring) < 3:
            raise ValueError("must have at least three positions that differ")
        if self._ring.spread >= SPREAD:
            raise ValueError("must have every corner less than 60° from the middle of all")
        self.crosses = not self._ring.simple
        if self.crosses and not (may_cross and self._ring.has_area):
            raise ValueError(
                "must have an area" if may_cross else "must not cross or touch itself, and must have an area"
            )
        self.radius_m = self._ring.spread * EARTH_RADIUS_M
        self._simplified: dict[float, _Ring] = {0.0: self._ring}  # what has been worked out, for it is asked for again

    def ring(self, tolerance_m: float) -> "_Ring":
        """Its ring, simplified by so much; 0: as it is."""
        found = self._simplified.get(tolerance_m)
        if found is None:
            kept = kept_corners(self._lng, self._lat, tolerance_m)
            found = _Ring(self._lng[kept], self._lat[kept]) if len(kept) < len(self._lng) else self._ring
            self._simplified[tolerance_m] = found
        return found

    def may_be(self, ring: "_Ring") -> bool:
        """Whether it may be published as this ring: it keeps A18, and A19 if the outline does."""
        return ring.spread < SPREAD and (self.crosses or ring.simple)

    def published(self, ring: "_Ring", tolerance_m: float) -> Polygon:
        """The polygon of this ring, which reaches as far beyond it as it takes to cover what was asked for (B9)."""
        beyond_m = self._beyond_m + (tolerance_m if ring is not self._ring else 0)
        return Polygon(ring.positions(), 10.0 * math.ceil((beyond_m + 1) / 10) if beyond_m else 0.0)


def publish_polygons(outlines: Sequence[Outline], simplify_m: float) -> tuple[Polygon, ...] | None:
    """The published polygons of an area, simplified by as little as will do, and by `simplify_m` at most.

    None if that is not enough: there would be more than MAX_CORNERS, or rings that break A18 or A19.
    """
    for tolerance_m in (0, *(each for each in TOLERANCES_M if each <= simplify_m)):
        rings = [each.ring(tolerance_m) for each in outlines]
        pairs = list(zip(outlines, rings, strict=True))
        if sum(map(len, rings)) <= MAX_CORNERS and all(each.may_be(ring) for each, ring in pairs):
            return tuple(each.published(ring, tolerance_m) for each, ring in pairs)
    return None


def _shapely() -> Any:
    """The library, which takes 3 MB and 0.1 s: many a node is never asked for a polygon."""
    import shapely

    return shapely


class _Ring:
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

    @cached_property
    def simple(self) -> bool:
        """Whether the ring neither crosses nor touches itself, and has an area."""
        shapely = _shapely()
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
        shapely = _shapely()
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
    lng, lat = _alike(lng, lat)
    at_pole = np.abs(lat) == 90
    start, end = lng[:-1], lng[1:]
    start, end = np.where(at_pole[:-1], end, start), np.where(at_pole[1:], start, end)  # A17: along the meridian
    over = (end - start + 180) % 360 - 180  # the short way round
    if (np.abs(over) >= 180).any():
        raise ValueError("must have no edge that spans 180° of longitude or more")
    lines = _Lines(start, lat[:-1], over, np.diff(lat))
    pieces, stray_m = lines.pieces(most)
    split_lng, split_lat = lines.at(*_evenly(pieces))
    beyond_m = STRAY_M if stray_m > SAME_M else 0.0
    return np.append(split_lng, split_lng[0]), np.append(split_lat, split_lat[0]), beyond_m


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

    def pieces(self, most: int) -> tuple[Ints, float]:
        """Into how many pieces to split each; how far one is from its arc at most, unsplit. Raises ValueError."""
        stray_m = self._stray_m(np.arange(len(self.lng)), np.ones(len(self.lng), np.intp))
        fails = np.ones(len(self.lng), np.intp)
        does = np.maximum(1, np.ceil(np.sqrt(stray_m / STRAY_M))).astype(np.intp)  # the distance goes by the square
        todo = np.flatnonzero(does > 1)
        while len(todo):
            if does.sum() > most:
                raise ValueError(f"must have fewer or shorter edges: more than {most:,} arcs stand for them")
            too_few = todo[self._stray_m(todo, does[todo]) > STRAY_M]
            fails[too_few], does[too_few] = does[too_few], 2 * does[too_few]
            todo = too_few
        while len(todo := np.flatnonzero(does - fails > 1)):
            middle = (does[todo] + fails[todo]) // 2
            far = self._stray_m(todo, middle) > STRAY_M
            fails[todo[far]], does[todo[~far]] = middle[far], middle[~far]
        return does, float(stray_m.max())

    def _stray_m(self, which: Ints, pieces: Ints) -> Floats:
        """How far some lines are from the arcs of so many pieces, in metres at most."""
        piece, begin = _evenly(pieces)
        size, line = 1 / pieces[piece], which[piece]
        arcs = Edges(self._vectors(line, begin), self._vectors(line, begin + size))
        shares = [begin + size * n / SAMPLES for n in range(1, SAMPLES)]
        far = np.max([arcs.apart(*self._vectors(line, share)) for share in shares], axis=0)
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


def _line_kept(xy: Floats, first: int, last: int, tolerance: float) -> Iterator[int]:
    """Which points of a line from one corner to another remain, but for the first."""
    shapely = _shapely()
    line = shapely.linestrings(np.column_stack([xy[first : last + 1], np.arange(first, last + 1)]))
    simple = shapely.simplify(line, tolerance, preserve_topology=False)
    yield from shapely.get_coordinates(simple, include_z=True)[1:, 2].astype(np.intp).tolist()
