"""Computes distances and areas on the sphere to 50 digits, for the test vectors. Needs mpmath and h3.

The functions share no formula and no code with the server or a client, on purpose. Distances use the spherical law of
cosines instead of chords and haversines. The reach of a cell uses H3's centre and boundary. The test whether a point is
inside a polygon uses bearings instead of projections.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import h3
from mpmath import acos, asin, atan2, cos, degrees, floor, mp, mpf, pi, radians, sin

EARTH_RADIUS_M = mpf("6371007.180918475")
mp.dps = 50

Json = dict[str, Any]


def distance_m(lat1: float, lng1: float, lat2: float, lng2: float) -> mpf:
    """Return the great-circle distance between two points in metres.

    The law of cosines loses half of the digits if the points are near each other, so 50 digits leave enough.
    """
    a, b, between = radians(mpf(lat1)), radians(mpf(lat2)), radians(mpf(lng2) - mpf(lng1))
    cosine = sin(a) * sin(b) + cos(a) * cos(b) * cos(between)
    return EARTH_RADIUS_M * acos(max(mpf(-1), min(mpf(1), cosine)))


def walk(lat: float, lng: float, bearing_deg: float, metres: mpf) -> tuple[float, float]:
    """Return the point at this bearing and distance from a point, in degrees rounded to the nearest doubles."""
    a, angle, bearing = radians(mpf(lat)), metres / EARTH_RADIUS_M, radians(mpf(bearing_deg))
    there = asin(max(mpf(-1), min(mpf(1), sin(a) * cos(angle) + cos(a) * sin(angle) * cos(bearing))))
    turned = atan2(sin(bearing) * sin(angle) * cos(a), cos(angle) - sin(a) * sin(there))
    east = mpf(lng) + degrees(turned)
    return float(degrees(there)), float(east - 360 * floor((east + 180) / 360))


def cell_place(cell: str) -> tuple[float, float, mpf]:
    """Return the centre of an H3 cell, and its reach: the distance from the centre to the farthest corner."""
    lat, lng = h3.cell_to_latlng(cell)
    return lat, lng, max(distance_m(lat, lng, *corner) for corner in h3.cell_to_boundary(cell))


def margin_m(place: Json, shape: Json) -> mpf:
    """Return how deep a place is inside a shape, in metres; negative if it is outside."""
    if "cell" in place:
        lat, lng, reach = cell_place(place["cell"])
    else:
        lat, lng, reach = place["lat"], place["lng"], mpf(place.get("accuracy_m", 0))
    if shape["type"] == "circle":
        return mpf(shape["radius_m"]) + reach - distance_m(lat, lng, shape["lat"], shape["lng"])
    [ring] = shape["coordinates"]
    away = min(_to_arc_m(lat, lng, a, b) for a, b in pairwise(ring))
    return reach + mpf(shape.get("buffer_m", 0)) + (away if _winds_around(lat, lng, ring) else -away)


def bearing(lat1: float, lng1: float, lat2: float, lng2: float) -> mpf:
    """Return the direction from the first point to the second, in radians, clockwise from north."""
    a, b, between = radians(mpf(lat1)), radians(mpf(lat2)), radians(mpf(lng2) - mpf(lng1))
    return atan2(sin(between) * cos(b), cos(a) * sin(b) - sin(a) * cos(b) * cos(between))


def _to_arc_m(lat: float, lng: float, a: Sequence[float], b: Sequence[float]) -> mpf:
    """Return the distance in metres from a point to the nearest point of a great-circle arc.

    It is computed from the angles at the arc's ends.
    """
    (a_lng, a_lat), (b_lng, b_lat) = a, b
    to_a, to_b = distance_m(lat, lng, a_lat, a_lng), distance_m(lat, lng, b_lat, b_lng)
    at_a = bearing(a_lat, a_lng, lat, lng) - bearing(a_lat, a_lng, b_lat, b_lng)
    at_b = bearing(b_lat, b_lng, lat, lng) - bearing(b_lat, b_lng, a_lat, a_lng)
    if cos(at_a) < 0 or cos(at_b) < 0:
        return min(to_a, to_b)
    return EARTH_RADIUS_M * abs(asin(sin(to_a / EARTH_RADIUS_M) * sin(at_a)))


def _winds_around(lat: float, lng: float, ring: Sequence[Sequence[float]]) -> bool:
    """Return whether the polygon winds around the point: the bearings of its corners make a full turn.

    The polygon must be on the same half of the earth as the point.
    """
    if max(distance_m(lat, lng, corner[1], corner[0]) for corner in ring) > 2 * EARTH_RADIUS_M:
        return False  # too far away: no polygon in the test vectors is that wide
    ways = [bearing(lat, lng, corner[1], corner[0]) for corner in ring]
    turns = [(after - before + 3 * pi) % (2 * pi) - pi for before, after in pairwise(ways)]
    return bool(abs(sum(turns)) > pi)
