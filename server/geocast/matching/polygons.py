"""The search for places of the place index inside a polygon: bounding circle -> pages -> exact.

Rule 1  If no edge comes near a page's ball (within the polygon's buffer), the whole page is inside or outside, and a
        test of the ball's centre tells which. Most pages of a large polygon are like that.
Rule 2  The places of all other pages are tested one by one, by the formulas of `spherical_polygon`. Edges that cannot
        change the result for a place are left out. For the winding number, these are edges that do not cross the
        place's y on the ring's plane. For the distance, these are edges whose box on the plane is too far away.
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

PAIRS = 1 << 16  # pairs of a place and an edge that are tested at a time: 512 KiB for each array
RUN = 16  # edges that share a box, which is tested before their own boxes


class PolygonMatcher:
    """A polygon that is prepared for the test of many places. Arrays of points have shape (3, n): rows x, y, z."""

    def __init__(self, ring: SphericalPolygon) -> None:
        self._ring = ring
        self._ends = np.concatenate([ring.xy[:, :-1], ring.xy[:, 1:]])  # x and y of both ends of each edge
        self._low, self._high = boxes(ring.xy)

    def sort(self, balls: Floats) -> tuple[Ints, Ints]:
        """Return the indices of balls that are completely inside, and of balls that an edge may come near.

        `balls` has rows (x, y, z, radius). All other balls are completely outside.
        """
        x, y, z, radius = balls.T
        length = np.sqrt(x * x + y * y + z * z)
        # A ball contains a cap of the sphere around the direction of its centre. This is an upper bound of the cap's
        # radius.
        wide = 2 * np.arcsin(np.clip((radius + np.abs(1 - length) + ROUNDING) / 2, 0.0, 1.0))
        centres = balls[:, :3].T / np.where(length > 0, length, 1.0)
        x, y = self._ring.plane.to_plane(*centres)
        cut = self._near_edges(centres, x, y, wide + angle_of(self._ring.buffer_m))
        whole = np.flatnonzero(~cut)
        return whole[self.inside(centres[:, whole], np.full(len(whole), -self._ring.buffer_m))], np.flatnonzero(cut)

    def inside(self, places: Floats, reach_m: Floats) -> Bools:
        """Return whether each place, with its reach in metres, is inside."""
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
        """Return the greatest distance on the plane from an edge to a place within `angle` of the edge."""
        farthest = min(angle_of(self._ring.radius_m) + angle, FAR)
        return stretched(angle, farthest) if angle > 0 else 0.0

    def _winding_numbers(self, x: Floats, y: Floats, point: Ints, edge: Ints) -> NDArray[Any]:
        """Return the winding number around each point on the plane, summed over pairs of a point and an edge."""
        ends = self._ends.take(edge, axis=1)
        return np.bincount(point, winding(x[point], y[point], ends[:2], ends[2:]), len(y))

    def _within_angle(self, points: Floats, point: Ints, edge: Ints, angle: Floats) -> Bools:
        """Return whether point and edge are at most `angle` apart, for each of the pairs."""
        if len(point) == 0:
            return np.empty(0, np.bool_)
        close: Bools = self._edges.take(edge).apart(*points.take(point, axis=1)) <= angle
        return close

    def _near_edges(self, points: Floats, x: Floats, y: Floats, angle: Floats) -> Bools:
        """Return whether points are within their angle of any edge. Some points a little farther away may count, too.

        `x` and `y` are the points on the plane. A point with a corner within its margin counts as near. Only points
        without such a corner are compared with the edges.
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
        """Yield pairs of a point and a run of edges whose box on the plane comes within the point's margin."""
        starts = np.arange(0, len(self._low[0]), RUN)
        low = np.minimum.reduceat(self._low, starts, axis=1)[:, np.newaxis]
        high = np.maximum.reduceat(self._high, starts, axis=1)[:, np.newaxis]
        for some in _parts(len(x), PAIRS // len(starts)):
            column = some, np.newaxis
            point, run = np.nonzero(overlap(x[column], y[column], margin[column], low, high))
            yield point + some.start, run

    def _edges_of(self, point: Ints, run: Ints) -> tuple[Ints, Ints]:
        """Return pairs of a point and each edge of its run."""
        edge = (run[:, np.newaxis] * RUN + np.arange(RUN)).ravel()
        there = edge < len(self._low[0])
        return np.repeat(point, RUN)[there], edge[there]

    @cached_property
    def _edges(self) -> Edges:
        return self._ring.edges()


def _pairs_at_level(y: Floats, low: Floats, high: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of a point and an edge with low <= y < high. The `y` of the points must be ascending."""
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
    """Return slices of at most `size` that together cover `count` items."""
    return (slice(start, start + size) for start in range(0, count, max(1, size)))
