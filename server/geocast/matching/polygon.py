"""Which places of the index are inside a polygon: bounding circle -> pages -> strips -> exact.

Rule 1  A page whose ball no edge comes near (with the polygon's buffer) lies inside or outside as a whole, and its
        ball's centre tells which. Most pages are such.
Rule 2  The places of all other pages are asked one by one, by the formulas of `rings`. The ring's plane is cut into
        strips along its x axis, and a place is held against the edges of its own strip: those that lie at its height,
        which is what winding asks for, and those that its distance may be small to. That leaves out edges that make
        no difference, and changes no answer.
Rule 3  What is in question at a time is bounded (PAIRS), so it takes little memory however long a ring is.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..cells import Floats
from ..rings import Bools, Ring, angle_between, angle_of, winding

Ints: TypeAlias = NDArray[np.intp]

PAIRS = 1 << 16  # of a place and an edge that are looked at in one go: 512 KiB for each column of them
RUN = 16  # edges that are looked at as one before they are looked at one by one
ROUNDING = 1e-12  # as for the balls of pages


class Judge:
    """A ring that many places are held against. Points are columns x, y, z."""

    def __init__(self, ring: Ring, greatest_reach_m: float) -> None:
        """`greatest_reach_m`: no place that is asked for has a greater one."""
        self._ring, self._edges = ring, ring.edges()
        self._start, self._end = ring.xy[:, :-1], ring.xy[:, 1:]
        allowed = angle_of(ring.buffer_m + greatest_reach_m)
        # On the plane all is farther apart than on the sphere: at the angle a from the middle up to 1 / cos² a times.
        farthest = min(angle_of(ring.radius_m + greatest_reach_m), 1.5)
        self._margin = allowed / math.cos(farthest) ** 2 + ROUNDING if allowed else 0.0
        self._strips = _Strips(ring.xy[1], self._margin)

    def sort(self, balls: Floats) -> tuple[Ints, Ints]:
        """Which balls of pages (rows x, y, z, radius) lie inside as a whole, and which an edge comes near.

        All others lie outside.
        """
        x, y, z, radius = balls.T
        length = np.sqrt(x * x + y * y + z * z)
        # Of the sphere, a ball holds a cap around the direction of its centre: that is how wide at most.
        wide = 2 * np.arcsin(np.clip((radius + np.abs(1 - length) + ROUNDING) / 2, 0.0, 1.0))
        centres = balls[:, :3].T / np.where(length > 0, length, 1.0)
        near = self._any_near(centres, wide + angle_of(self._ring.buffer_m))
        inside = self.inside(centres, np.full(len(balls), -self._ring.buffer_m))
        return np.flatnonzero(inside & ~near), np.flatnonzero(near)

    def _any_near(self, points: Floats, angle: Floats) -> Bools:
        """Which points are no farther than their angle from some edge."""
        runs, wide = _runs(self._ring.corners)
        to_run = angle_between(points[:, :, np.newaxis], runs[:, np.newaxis])
        point, run = np.nonzero(to_run <= angle[:, np.newaxis] + wide)
        edge = (run[:, np.newaxis] * RUN + np.arange(RUN)).ravel()
        point, edge = np.repeat(point, RUN)[edge < len(self._start[0])], edge[edge < len(self._start[0])]
        near = self._edges.take(edge).apart(*points[:, point]) <= angle[point]
        found = np.zeros(len(angle), np.bool_)
        found[point[near]] = True
        return found

    def inside(self, places: Floats, reach_m: Floats) -> Bools:
        """Which places are inside, each with its reach."""
        x, y = self._ring.plane.to_plane(*places)
        first, counts = self._strips.of(y)
        found = np.zeros(len(reach_m), np.bool_)
        asked = np.flatnonzero(counts)
        pairs = np.cumsum(counts[asked])
        cuts = np.unique(np.searchsorted(pairs, np.arange(PAIRS, pairs[-1:].sum(), PAIRS)))
        for some in np.split(asked, cuts):
            if len(some):
                place, at, begin = _ragged(first[some], counts[some])
                edge = self._strips.edges[at]
                found[some] = self._decide(places[:, some], x[some], y[some], reach_m[some], place, edge, begin)
        return found

    def _decide(
        self, places: Floats, x: Floats, y: Floats, reach_m: Floats, place: Ints, edge: Ints, begin: Ints
    ) -> Bools:
        """`inside`, with the pairs of a place and an edge, in the order of places, and where each place's begin."""
        px, py, start, end = x[place], y[place], self._start[:, edge], self._end[:, edge]
        inside: Bools = np.add.reduceat(winding(px, py, start, end), begin, dtype=np.int32) != 0
        allowed = angle_of(self._ring.buffer_m + reach_m)
        beside = (np.minimum(start[0], end[0]) - self._margin <= px) & (
            px <= np.maximum(start[0], end[0]) + self._margin
        )
        rest = np.flatnonzero((~inside & (allowed > 0))[place] & beside)
        if len(rest):
            place = place[rest]
            close = self._edges.take(edge[rest]).apart(*places[:, place]) <= allowed[place]
            inside[place[close]] = True
        return inside


class _Strips:
    """The edges of a ring by strips of its plane."""

    def __init__(self, y: Floats, margin: float) -> None:
        """`y`: those of the corners, the last the first; `margin`: how far beyond its ends an edge counts."""
        low, high = np.minimum(y[:-1], y[1:]) - margin, np.maximum(y[:-1], y[1:]) + margin
        self._low = low.min()
        self._count = len(low)
        self._height = (high.max() - self._low) / self._count * (1 + ROUNDING) or 1.0
        first = self._number(low)
        edges, strips, _ = _ragged(first, self._number(high) - first + 1)
        self.edges: Ints = edges[np.argsort(strips, kind="stable")]
        # By strip: how many edges it has, and where in `edges` they begin. The last, which has none, is for the rest.
        self._counts = np.bincount(strips, minlength=self._count + 2)
        self._first = np.cumsum(self._counts) - self._counts

    def _number(self, y: Floats) -> Ints:
        numbers: Ints = np.floor((y - self._low) / self._height).astype(np.intp)
        return numbers

    def of(self, y: Floats) -> tuple[Ints, Ints]:
        """For each height, where its edges begin in `edges` and how many there are. NaN has none."""
        with np.errstate(invalid="ignore"):
            number = (y - self._low) / self._height
            strip = np.where((number >= 0) & (number < self._count + 1), number, self._count + 1).astype(np.intp)
        return self._first[strip], self._counts[strip]


def _ragged(first: Ints, counts: Ints) -> tuple[Ints, Ints, Ints]:
    """The elements of runs of numbers, end to end: of which run each is, its number, and where each run begins."""
    begin = np.cumsum(counts) - counts
    run = np.repeat(np.arange(len(counts)), counts)
    return run, np.arange(len(run)) + (first - begin)[run], begin


def _runs(corners: Floats) -> tuple[Floats, Floats]:
    """The directions of runs of edges, and how far their corners are from there at most, in radians.

    Nor is any point of an edge farther away: a cap of less than 90° holds all arcs between its points.
    """
    edges = corners.shape[1] - 1
    middles, angles = [], []
    for start in range(0, edges, RUN):
        run = corners[:, start : min(start + RUN, edges) + 1]
        middle = run.sum(axis=1)
        middle /= math.sqrt(middle @ middle) or 1.0
        angle = float(angle_between(run, middle[:, np.newaxis]).max())
        middles.append(middle)
        angles.append(angle + ROUNDING if angle < math.pi / 2 else math.pi)
    return np.array(middles).T, np.array(angles)
