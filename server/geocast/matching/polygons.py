"""Which places of the index are inside a polygon: bounding circle -> pages -> exact.

Rule 1  A page whose ball no edge comes near (with the polygon's buffer) lies inside or outside as a whole, and its
        ball's centre tells which. Most pages of a large polygon are such.
Rule 2  The places of all other pages are asked one by one, by the formulas of `spherical_polygon`. An edge that makes
        no difference to a place is left out: of winding, those that do not lie at its height on the ring's plane; of
        the distance, those whose box on the plane is farther away. That changes no answer.
Rule 3  What is in question at a time is bounded (PAIRS), so it takes little memory however long a ring is.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..geometry.sphere import Floats
from ..geometry.spherical_polygon import (
    FAR,
    ROUNDING,
    Bools,
    Edges,
    Ints,
    SphericalPolygon,
    angle_of,
    boxes,
    margins,
    overlap,
    stretched,
    winding,
)

PAIRS = 1 << 16  # of a place and an edge that are looked at in one go: 512 KiB for each column of them
RUN = 16  # edges whose common box is looked at before their own


class PolygonMatcher:
    """A ring that many places are held against. Points are columns x, y, z."""

    def __init__(self, ring: SphericalPolygon) -> None:
        self._ring = ring
        self._ends = np.concatenate([ring.xy[:, :-1], ring.xy[:, 1:]])  # of each edge: x and y of both ends
        self._low, self._high = boxes(ring.xy)

    def sort(self, balls: Floats) -> tuple[Ints, Ints]:
        """Which balls of pages (rows x, y, z, radius) lie inside as a whole, and which an edge may come near.

        All others lie outside.
        """
        x, y, z, radius = balls.T
        length = np.sqrt(x * x + y * y + z * z)
        # Of the sphere, a ball holds a cap around the direction of its centre: that is how wide at most.
        wide = 2 * np.arcsin(np.clip((radius + np.abs(1 - length) + ROUNDING) / 2, 0.0, 1.0))
        centres = balls[:, :3].T / np.where(length > 0, length, 1.0)
        x, y = self._ring.plane.to_plane(*centres)
        cut = self._cut(centres, x, y, wide + angle_of(self._ring.buffer_m))
        whole = np.flatnonzero(~cut)
        return whole[self.inside(centres[:, whole], np.full(len(whole), -self._ring.buffer_m))], np.flatnonzero(cut)

    def inside(self, places: Floats, reach_m: Floats) -> Bools:
        """Which places are inside, each with its reach."""
        x, y = self._ring.plane.to_plane(*places)
        found = np.zeros(len(y), np.bool_)
        upward = np.argsort(y)  # NaN is last, at the height of no edge
        x, y = x[upward], y[upward]
        allowed = angle_of(self._ring.buffer_m + reach_m[upward])
        margin = self._margin(float(allowed.max(initial=0.0)))
        for point, edge in _level(y, self._low[1] - margin, self._high[1] + margin):
            wound = self._turns(x, y, point, edge) != 0
            found[upward[wound]] = True
            if margin:
                px, rest = x[point], ~wound[point]
                rest &= (self._low[0, edge] - margin <= px) & (px <= self._high[0, edge] + margin)
                those, edges = point[rest], edge[rest]
                found[upward[those[self._close(places, upward[those], edges, allowed[those])]]] = True
        return found

    def _margin(self, angle: float) -> float:
        """How far from it on the plane that can be which is within an angle of a place inside, at most."""
        farthest = min(angle_of(self._ring.radius_m) + angle, FAR)
        return stretched(angle, farthest) if angle > 0 else 0.0

    def _turns(self, x: Floats, y: Floats, point: Ints, edge: Ints) -> NDArray[Any]:
        """How often edges wind around points on the plane, by pairs of a point and an edge."""
        ends = self._ends.take(edge, axis=1)
        return np.bincount(point, winding(x[point], y[point], ends[:2], ends[2:]), len(y))

    def _close(self, points: Floats, point: Ints, edge: Ints, angle: Floats) -> Bools:
        """Whether, of pairs of a point and an edge, the two are no farther apart than the angle."""
        if len(point) == 0:
            return np.empty(0, np.bool_)
        close: Bools = self._edges.take(edge).apart(*points.take(point, axis=1)) <= angle
        return close

    def _cut(self, points: Floats, x: Floats, y: Floats, angle: Floats) -> Bools:
        """Which points, here on the plane, are within their angle of some edge; a few more may be found.

        Whatever has a corner within its margin counts as near. Only what has none is held against edges.
        """
        found = np.zeros(len(y), np.bool_)
        margin = margins(x, y, angle)
        for point, run in self._runs_near(x, y, margin):
            middle = np.minimum(run * RUN + RUN // 2, self._ring.xy.shape[1] - 1)
            off_x, off_y = self._ring.xy[0, middle] - x[point], self._ring.xy[1, middle] - y[point]
            found[point[off_x * off_x + off_y * off_y <= margin[point] ** 2]] = True
            rest = np.flatnonzero(~found[point])
            for some in _parts(len(rest), PAIRS // RUN):
                those, edge = self._edges_of(point[rest[some]], run[rest[some]])
                found[those[self._close(points, those, edge, angle[those])]] = True
        return found

    def _runs_near(self, x: Floats, y: Floats, margin: Floats) -> Iterator[tuple[Ints, Ints]]:
        """Pairs of a point and a run of edges whose box on the plane comes within the point's margin."""
        starts = np.arange(0, len(self._low[0]), RUN)
        low = np.minimum.reduceat(self._low, starts, axis=1)[:, np.newaxis]
        high = np.maximum.reduceat(self._high, starts, axis=1)[:, np.newaxis]
        for some in _parts(len(x), PAIRS // len(starts)):
            column = some, np.newaxis
            point, run = np.nonzero(overlap(x[column], y[column], margin[column], low, high))
            yield point + some.start, run

    def _edges_of(self, point: Ints, run: Ints) -> tuple[Ints, Ints]:
        """Pairs of a point and each edge of its run."""
        edge = (run[:, np.newaxis] * RUN + np.arange(RUN)).ravel()
        there = edge < len(self._low[0])
        return np.repeat(point, RUN)[there], edge[there]

    @cached_property
    def _edges(self) -> Edges:
        return self._ring.edges()


def _level(y: Floats, low: Floats, high: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Pairs of a point and an edge with low <= y < high; `y`, of points, ascends."""
    first = y.searchsorted(low)
    counts = y.searchsorted(high) - first
    total = int(counts.sum())
    if total > PAIRS and len(y) > 1:
        half = len(y) // 2
        yield from _level(y[:half], low, high)
        for point, edge in _level(y[half:], low, high):
            yield point + half, edge
    elif total:
        edge = np.repeat(np.arange(len(counts)), counts)
        yield np.arange(total) + (first - np.cumsum(counts) + counts)[edge], edge


def _parts(count: int, size: int) -> Iterator[slice]:
    """So many, in parts of some size."""
    return (slice(start, start + size) for start in range(0, count, max(1, size)))
