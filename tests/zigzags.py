"""Rings that are hard work: coasts with thousands of corners, and zigzags that make naive geometry quadratic."""

import math

import numpy as np


def closed(points):
    """A ring of these corners, [(lng, lat), …], the last equal to the first."""
    corners = [tuple(point) for point in np.asarray(points).tolist()]
    return [*corners, corners[0]]


def coast(corners, seed=1, lat=17.0, lng=-88.0, radius_deg=0.8):
    """An island with bays of all sizes that does not cross itself."""
    dice = np.random.default_rng(seed)
    turn = np.arange(corners) * 2 * math.pi / corners
    far = 1 + sum(0.35 / 2**n * np.sin(3 * 2**n * turn + dice.uniform(0, 6)) for n in range(1, 9))
    far = (far + dice.normal(size=corners) * 0.002) * radius_deg
    return closed(np.column_stack([lng + far * np.cos(turn), lat + far * np.sin(turn)]).round(6))


def zigzag(corners, size_deg=0.05, lng=10.0, lat=40.0):
    """A saw whose teeth lie across the map, so that the boxes of all of its edges overlap; it does not cross itself."""
    teeth = corners - 3
    along = np.linspace(0, 0.2 * size_deg, teeth)
    across = np.where(np.arange(teeth) % 2, size_deg, 0.001 * size_deg)
    back = size_deg * np.array([[-0.01, 0.25], [-0.02, -0.02], [0.0, -0.02]])
    points = np.vstack([np.column_stack([across, along]), back])
    turned = np.column_stack([points[:, 0] - points[:, 1], points[:, 0] + points[:, 1]]) / math.sqrt(2)
    return closed(turned + np.array([lng, lat]))


def said(ring):
    """The ring as CAP has it."""
    return " ".join(f"{lat:.6f},{lng:.6f}" for lng, lat in ring)
