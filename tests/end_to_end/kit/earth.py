"""Geometry written from the contract alone: distances on H3's sphere, published circles, and polygons by S2."""

import math
from collections.abc import Iterator
from typing import Any

import h3
import numpy as np
from support.s2 import depth_m

EARTH_RADIUS_M = 6_371_007.180918475
EDGE_M = 0.01
"""Distance from the edge, in metres, within which both answers are right."""

Point = tuple[float, float]


def distance(a: Point, b: Point) -> float:
    """Return the great-circle distance in metres between two (lat, lng) points in degrees."""
    lat_a, lat_b = math.radians(a[0]), math.radians(b[0])
    half_lat = math.sin((lat_b - lat_a) / 2)
    half_lng = math.sin(math.radians(b[1] - a[1]) / 2)
    h = half_lat**2 + math.cos(lat_a) * math.cos(lat_b) * half_lng**2
    return 2 * EARTH_RADIUS_M * math.atan2(math.sqrt(h), math.sqrt(max(0.0, 1 - h)))


def beyond(origin: Point, bearing_deg: float, metres: float) -> Point:
    """Return the point at a distance and bearing from the origin; its longitude is within [-180, 180]."""
    lat, lng, bearing, angle = (*map(math.radians, (*origin, bearing_deg)), metres / EARTH_RADIUS_M)
    sin_lat = math.sin(lat) * math.cos(angle) + math.cos(lat) * math.sin(angle) * math.cos(bearing)
    to_lat = math.asin(max(-1.0, min(1.0, sin_lat)))
    east = math.sin(bearing) * math.sin(angle) * math.cos(lat)
    to_lng = lng + math.atan2(east, math.cos(angle) - math.sin(lat) * sin_lat)
    return math.degrees(to_lat), (math.degrees(to_lng) + 540) % 360 - 180


def cell_reach(cell: str) -> float:
    """Return the greatest distance, in metres, from a cell's centre to its boundary."""
    centre = h3.cell_to_latlng(cell)
    return max(distance(centre, corner) for corner in h3.cell_to_boundary(cell))


def published(lat: float, lng: float, radius_m: float, resolution: int = 9) -> dict[str, Any]:
    """Return the circle that is published for a requested circle (section 2, "The published circle")."""
    cell = h3.latlng_to_cell(lat, lng, resolution)
    centre = h3.cell_to_latlng(cell)
    radius = 10 * math.ceil((radius_m + cell_reach(cell)) / 10)
    return {"type": "circle", "lat": centre[0], "lng": centre[1], "radius_m": radius}


def published_area(
    requested: list[dict[str, Any]], current: list[dict[str, Any]] | None = None, resolution: int = 9
) -> list[dict[str, Any]]:
    """Return the circles that are published for requested circles (rules B11 and B12).

    `current`: the area of the alert's current revision.
    """
    first = requested[0]["lat"], requested[0]["lng"]
    area: list[dict[str, Any]] = []
    off = 0.0
    for number, circle in enumerate(requested):
        here = (circle["lat"], circle["lng"])
        if number:
            here = _turned(here, first, (area[0]["lat"], area[0]["lng"]))
        own = h3.latlng_to_cell(*here, resolution)
        shape = published(*here, circle["radius_m"] + off, resolution)
        reach = cell_reach(own)
        if current is not None and number < len(current):
            old = h3.latlng_to_cell(current[number]["lat"], current[number]["lng"], resolution)
            centre, around = h3.cell_to_latlng(old), h3.grid_disk(old, 1)
            far = max(distance(centre, corner) for cell in around for corner in h3.cell_to_boundary(cell))
            wide = 10 * math.ceil((circle["radius_m"] + off + far) / 10)
            if own in around and (own != old or wide == current[number]["radius_m"]):
                shape, reach = {"type": "circle", "lat": centre[0], "lng": centre[1], "radius_m": wide}, far
        area.append(shape)
        off = off or reach
    return area


def _turned(point: Point, start: Point, end: Point) -> Point:
    """Rotate a point by the shortest rotation of the sphere that takes `start` to `end`."""
    a, b, v = _vector(start), _vector(end), _vector(point)
    axis = np.cross(a, b)
    sine = float(np.linalg.norm(axis))
    if sine == 0:
        return point
    axis, angle = axis / sine, math.atan2(sine, float(a @ b))
    turned = v * math.cos(angle) + np.cross(axis, v) * math.sin(angle) + axis * (axis @ v) * (1 - math.cos(angle))
    return math.degrees(math.asin(max(-1.0, min(1.0, turned[2])))), math.degrees(math.atan2(turned[1], turned[0]))


def _vector(point: Point) -> Any:
    lat, lng = map(math.radians, point)
    return np.array([math.cos(lat) * math.cos(lng), math.cos(lat) * math.sin(lng), math.sin(lat)])


def locate(place: dict[str, Any]) -> tuple[Point, float]:
    """Return the point of a place, and its reach in metres."""
    if "cell" in place:
        return h3.cell_to_latlng(place["cell"]), cell_reach(place["cell"])
    return (place["lat"], place["lng"]), place.get("accuracy_m", 0)


def inside(places: list[dict[str, Any]], area: list[dict[str, Any]]) -> bool | None:
    """Return whether a place is in the area, or None if the last centimetre decides."""
    return within([locate(place) for place in places], area)


def within(located: list[tuple[Point, float]], area: list[dict[str, Any]]) -> bool | None:
    """Return the same as `inside`, for places that `locate` has converted."""
    margin = max(_margins(located, area), default=-math.inf)
    return None if abs(margin) <= EDGE_M else margin > 0


def _margins(located: list[tuple[Point, float]], area: list[dict[str, Any]]) -> Iterator[float]:
    for point, reach in located:
        for shape in area:
            if shape["type"] == "Polygon":
                [ring] = shape["coordinates"]
                [depth] = depth_m(ring, np.array([point[::-1]]))
                yield float(depth) + shape.get("buffer_m", 0.0) + reach
            else:
                yield shape["radius_m"] + reach - distance(point, (shape["lat"], shape["lng"]))
