"""Find the places in the place index that are inside a polygon.

A search has three steps: bounding circle -> pages -> exact test. The place index stores places in pages, which are
blocks of neighbouring places. Each page has a *ball*: a bounding sphere in space around all its places.

Rule 1  If a page's ball is farther from every edge than the polygon's buffer, all places of the page are inside, or all
        are outside. Then only the ball's centre is tested. This is so for most pages of a large polygon.
Rule 2  The places of all other pages are tested one by one, with the formulas of `spherical_polygon`. Edges that cannot
        change the result for a place are skipped. In the computation of the winding number, these are the edges that do
        not cross the horizontal line through the place on the ring's plane. In the computation of the distance, they
        are the edges whose box on the plane is too far away.
Rule 3  At most PAIRS pairs of a place and an edge are tested at a time. So the memory is limited, however many corners
        a ring has.
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

PAIRS = 1 << 16  # the largest number of pairs that are tested at a time: 512 KiB for each array
RUN = 16  # number of consecutive edges (a run) with a common box, which is tested before the single edges


class PolygonMatcher:
    """Tests which of many places are inside a polygon, or come within its buffer.

    Arrays of points have shape (3, n): rows x, y, z. The edges are grouped into runs of RUN consecutive edges, and each
    run has a box on the plane.
    """

    def __init__(self, ring: SphericalPolygon) -> None:
        self._ring = ring
        self._ends = np.concatenate([ring.xy[:, :-1], ring.xy[:, 1:]])  # x and y of both ends of each edge
        self._low, self._high = boxes(ring.xy)

    def sort(self, balls: Floats) -> tuple[Ints, Ints]:
        """Return the indices of the balls inside the polygon, and the indices of the balls that may come near an edge.

        The remaining balls are completely outside the polygon. `balls` is an array with one ball (a sphere around
        neighbouring places) in each row: x, y, z, radius.
        """
        x, y, z, radius = balls.T
        length = np.sqrt(x * x + y * y + z * z)
        # The part of the sphere's surface inside a ball is a cap around the direction of the ball's centre. `wide` is
        # an upper bound of the cap's radius.
        wide = 2 * np.arcsin(np.clip((radius + np.abs(1 - length) + ROUNDING) / 2, 0.0, 1.0))
        centres = balls[:, :3].T / np.where(length > 0, length, 1.0)
        x, y = self._ring.plane.to_plane(*centres)
        cut = self._near_edges(centres, x, y, wide + angle_of(self._ring.buffer_m))
        whole = np.flatnonzero(~cut)
        return whole[self.inside(centres[:, whole], np.full(len(whole), -self._ring.buffer_m))], np.flatnonzero(cut)

    def inside(self, places: Floats, reach_m: Floats) -> Bools:
        """Return an array of bool, one for each place: whether the place is inside the polygon.

        A place also counts as inside if the polygon is at most the place's reach (uncertainty) away. `reach_m` has the
        reach of each place in metres. The polygon includes its buffer.
        """
        x, y = self._ring.plane.to_plane(*places)
        found = np.zeros(len(y), np.bool_)
        upward = np.argsort(y)  # NaN comes last, and matches no edge
        x, y = x[upward], y[upward]
        allowed = angle_of(self._ring.buffer_m + reach_m[upward])
        margin = self._margin(float(allowed.max(initial=0.0)))
        for point, edge in _pairs_at_level(y, self._low[1] - margin, self._high[1] + margin):
            wound = self._winding_numbers(x, y, point, edge) != 0
            found[upward[wound]] = True
            if margin:
                px, rest = x[point], ~wound[point]
                rest &= (self._low[0, edge] - margin <= px) & (px <= self._high[0, edge] + margin)
                those, edges = point[rest], edge[rest]
                found[upward[those[self._within_angle(places, upward[those], edges, allowed[those])]]] = True
        return found

    def _margin(self, angle: float) -> float:
        """Return how far apart an edge and a place can be on the plane if they are at most `angle` apart on the sphere.

        `angle` is in radians.
        """
        farthest = min(angle_of(self._ring.radius_m) + angle, FAR)
        return stretched(angle, farthest) if angle > 0 else 0.0

    def _winding_numbers(self, x: Floats, y: Floats, point: Ints, edge: Ints) -> NDArray[Any]:
        """Return an array with the winding number of the ring around each point on the plane.

        `point` and `edge` are arrays of equal length: the indices of a point and of an edge. Each such pair is
        examined, and a point's winding number is the sum over its pairs.
        """
        ends = self._ends.take(edge, axis=1)
        return np.bincount(point, winding(x[point], y[point], ends[:2], ends[2:]), len(y))

    def _within_angle(self, points: Floats, point: Ints, edge: Ints, angle: Floats) -> Bools:
        """Return an array of bool, one for each pair of a point and an edge: whether they are at most `angle` apart.

        `point` and `edge` are arrays of equal length with the indices of the points and edges. `angle` is an array with
        one value in radians for each pair.
        """
        if len(point) == 0:
            return np.empty(0, np.bool_)
        close: Bools = self._edges.take(edge).apart(*points.take(point, axis=1)) <= angle
        return close

    def _near_edges(self, points: Floats, x: Floats, y: Floats, angle: Floats) -> Bools:
        """Return an array of bool, one for each point: whether an edge is at most the point's `angle` (radians) away.

        The result may also be true for a point that is a little farther away. `x` and `y` are the points on the plane.
        If the middle corner of a run of edges is near a point on the plane, the result for the point is true without a
        closer look. Only the other points are compared with the edges.
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
                found[those[self._within_angle(points, those, edge, angle[those])]] = True
        return found

    def _runs_near(self, x: Floats, y: Floats, margin: Floats) -> Iterator[tuple[Ints, Ints]]:
        """Yield pairs of a point and a run of edges near the point, as two arrays of indices of equal length.

        A run has RUN consecutive edges. It is near a point if its box (bounding rectangle) on the plane is at most the
        point's `margin` away.
        """
        starts = np.arange(0, len(self._low[0]), RUN)
        low = np.minimum.reduceat(self._low, starts, axis=1)[:, np.newaxis]
        high = np.maximum.reduceat(self._high, starts, axis=1)[:, np.newaxis]
        for some in _parts(len(x), PAIRS // len(starts)):
            column = some, np.newaxis
            point, run = np.nonzero(overlap(x[column], y[column], margin[column], low, high))
            yield point + some.start, run

    def _edges_of(self, point: Ints, run: Ints) -> tuple[Ints, Ints]:
        """Return all pairs of a point and an edge in the point's run.

        A run has RUN consecutive edges. `point` and `run` are arrays of equal length with the indices of points and of
        their runs. The result is two arrays of equal length with the indices of points and of edges.
        """
        edge = (run[:, np.newaxis] * RUN + np.arange(RUN)).ravel()
        there = edge < len(self._low[0])
        return np.repeat(point, RUN)[there], edge[there]

    @cached_property
    def _edges(self) -> Edges:
        return self._ring.edges()


def _pairs_at_level(y: Floats, low: Floats, high: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Yield all pairs of a point and an edge for which low[edge] <= y[point] < high[edge].

    Each yielded item is an array of point indices and an array of edge indices. `y` must be in ascending order.
    """
    first = y.searchsorted(low)
    counts = y.searchsorted(high) - first
    total = int(counts.sum())
    if total > PAIRS and len(y) > 1:
        half = len(y) // 2
        yield from _pairs_at_level(y[:half], low, high)
        for point, edge in _pairs_at_level(y[half:], low, high):
            yield point + half, edge
    elif total:
        edge = np.repeat(np.arange(len(counts)), counts)
        yield np.arange(total) + (first - np.cumsum(counts) + counts)[edge], edge


def _parts(count: int, size: int) -> Iterator[slice]:
    """Return slices of at most `size` items, but at least one, that together cover the indices 0 to `count` - 1."""
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, count, size))
