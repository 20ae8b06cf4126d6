"""Polygons that are expensive to process, for benchmarks and for tests of areas.

Some are coasts with thousands of corners. Others are zigzags, for which simple algorithms need quadratic time.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Ring = list[tuple[float, float]]  # (longitude, latitude); the last corner equals the first


def closed(points: Any) -> Ring:
    """Return the closed ring with these corners: the first corner is repeated at the end.

    `points` is an array whose rows are longitude and latitude in degrees.
    """
    corners = [(float(lng), float(lat)) for lng, lat in np.asarray(points).tolist()]
    return [*corners, corners[0]]


def coast(corners: int, seed: int = 1, lat: float = 17.0, lng: float = -88.0, radius_deg: float = 0.8) -> Ring:
    """Return the outline of an island that has bays of all sizes. Its edges do not cross."""
    dice = np.random.default_rng(seed)
    turn = np.arange(corners) * 2 * math.pi / corners
    far = 1 + sum(0.35 / 2**n * np.sin(3 * 2**n * turn + dice.uniform(0, 6)) for n in range(1, 9))
    far = (far + dice.normal(size=corners) * 0.002) * radius_deg
    return closed(np.column_stack([lng + far * np.cos(turn), lat + far * np.sin(turn)]).round(6))


def zigzag(corners: int, size_deg: float = 0.05, lng: float = 10.0, lat: float = 40.0) -> Ring:
    """Return a ring shaped like the blade of a saw, whose edges do not cross.

    The teeth lie diagonally, so that the bounding boxes of the edges overlap.
    """
    teeth = corners - 3
    along = np.linspace(0, 0.2 * size_deg, teeth)
    across = np.where(np.arange(teeth) % 2, size_deg, 0.001 * size_deg)
    back = size_deg * np.array([[-0.01, 0.25], [-0.02, -0.02], [0.0, -0.02]])
    points = np.vstack([np.column_stack([across, along]), back])
    turned = np.column_stack([points[:, 0] - points[:, 1], points[:, 0] + points[:, 1]]) / math.sqrt(2)
    return closed(turned + np.array([lng, lat]))


def said(ring: Sequence[tuple[float, float]]) -> str:
    """Return the ring as the text of a `polygon` element of CAP: pairs `lat,lng`, separated by spaces."""
    return " ".join(f"{lat:.6f},{lng:.6f}" for lng, lat in ring)
