"""Random rings, and an independent oracle for polygons: Google's library S2, through spherely."""

import math

import numpy as np
import spherely

EARTH_RADIUS_M = 6_371_007.180918475
CENTRES = [(0.0, 0.0), (90.0, 0.0), (-90.0, 0.0), (89.99, 45.0), (10.0, 180.0), (-65.0, -179.999), (32.78, -96.8)]


def around(centre, bearings, distances_m):
    """Return the points (lng, lat) at these bearings and distances from a centre (lat, lng)."""
    lat, lng = np.radians(centre)
    east = np.array([-np.sin(lng), np.cos(lng), 0.0])
    up = np.array([np.cos(lat) * np.cos(lng), np.cos(lat) * np.sin(lng), np.sin(lat)])
    north = np.cross(up, east)
    angle = np.asarray(distances_m)[:, None] / EARTH_RADIUS_M
    way = np.cos(bearings)[:, None] * north + np.sin(bearings)[:, None] * east
    x, y, z = (np.cos(angle) * up + np.sin(angle) * way).T
    return np.column_stack([np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))])


def a_ring(dice, centre, size_m, corners):
    """Return a simple closed ring [(lng, lat), …] in the shape of a ragged star."""
    bearings = (np.arange(corners) + dice.uniform(0.1, 0.9, corners)) * (2 * math.pi / corners)
    points = around(centre, bearings, size_m * dice.uniform(0.3, 1, corners)).tolist()
    return [tuple(point) for point in [*points, points[0]]]


def places(dice, centre, size_m, count):
    """Return random points (lng, lat) inside a circle and some distance outside of it."""
    return around(centre, dice.uniform(0, 2 * math.pi, count), 1.5 * size_m * np.sqrt(dice.uniform(0, 1, count)))


def depth_m(ring, points):
    """Return how far inside a ring each point (lng, lat) is, in metres; a point outside has a negative depth."""
    polygon, spots = spherely.create_polygon(ring[:-1]), spherely.points(points[:, 0], points[:, 1])
    away = spherely.distance(spherely.boundary(polygon), spots, radius=EARTH_RADIUS_M)
    return np.where(spherely.intersects(polygon, spots), away, -away)
