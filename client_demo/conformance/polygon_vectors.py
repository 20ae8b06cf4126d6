"""Test vectors about polygons (docs/guide/areas.md, D4 and D5), for `make_vectors`."""

import random
from collections.abc import Iterator
from itertools import pairwise
from math import pi

from mpmath import degrees, mp, mpf

from .exact import Json, bearing, distance_m, margin_m, walk

EDGE_M = mpf("0.01")
CENTRES = {
    "in Dallas": (32.7767, -96.797),
    "on the equator": (0.0, 0.0),
    "over the antimeridian": (-17.0, 179.999),
    "around the north pole": (89.9982, 45.0),
    "around the south pole": (-90.0, 0.0),
}
SIZES_M = (150.0, 9_000.0, 400_000.0, 3_000_000.0)
BUFFERS_M = (0.0, 20.0, 0.0, 260.0)
OFFSETS_M = (mpf("-40"), mpf("-0.02"), mpf("0.02"), mpf("40"))


def ring(dice: random.Random, lat: float, lng: float, size_m: float, corners: int) -> list[list[float]]:
    """Return a random ring around a point, counter-clockwise, whose edges do not cross."""
    points = []
    for n in range(corners):
        spot = walk(lat, lng, 360 - 360 * (n + dice.random() / 2) / corners, mpf(size_m) * dice.uniform(0.4, 1))
        points.append([round(spot[1], 6), round(spot[0], 6)])
    return [*points, points[0]]


def polygon(corners: list[list[float]], buffer_m: float = 0.0) -> Json:
    """Return a polygon as a JSON object, in the format of a shape of an area."""
    return {"type": "Polygon", "coordinates": [corners]} | ({"buffer_m": buffer_m} if buffer_m else {})


def beside_edges(corners: list[list[float]], beyond_m: mpf) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield points near a polygon, each together with what the point is near: "an edge" or "a corner".

    For some of the edges, there is a point `beyond_m` metres to the right of the middle of the edge, which is outside
    the polygon (or inside, if `beyond_m` is negative). There may be one more point, beyond a corner.
    """
    for (a_lng, a_lat), (b_lng, b_lat) in list(pairwise(corners))[:: max(1, len(corners) // 3)]:
        half = distance_m(a_lat, a_lng, b_lat, b_lng) / 2
        middle = walk(a_lat, a_lng, degrees(bearing(a_lat, a_lng, b_lat, b_lng)), half)
        yield "an edge", walk(*middle, degrees(bearing(*middle, b_lat, b_lng)) + 90, beyond_m)
    (before_lng, before_lat), (lng, lat), (after_lng, after_lat) = corners[:3]
    back, on = bearing(lat, lng, before_lat, before_lng), bearing(lat, lng, after_lat, after_lng)
    turn = (on - back) % (2 * pi)
    if beyond_m > 0 and turn > pi:  # a convex corner: the point is beyond it, away from both edges
        yield "a corner", walk(lat, lng, degrees(back + turn / 2), beyond_m)


def near_edges() -> Iterator[tuple[str, list[Json], list[Json]]]:
    """Yield cases with points near the edges of polygons and of their buffers, on both sides."""
    dice = random.Random(4)
    for where, (lat, lng) in CENTRES.items():
        for size_m, buffer_m in zip(SIZES_M, BUFFERS_M, strict=True):
            corners = ring(dice, lat, lng, size_m, dice.choice([3, 5, 8, 13]))
            for offset in OFFSETS_M:
                accuracy_m = dice.choice([0, 0, 25])
                for what, (y, x) in beside_edges(corners, offset + buffer_m + accuracy_m):
                    place: Json = {"lat": y, "lng": x} | ({"accuracy_m": accuracy_m} if accuracy_m else {})
                    side = "outside" if offset > 0 else "inside"
                    why = f"a polygon of {size_m:g} m {where}; {mp.nstr(abs(offset), 3)} m {side} {what}"
                    why += f", {buffer_m:g} m of buffer counted" if buffer_m else ""
                    why += f", {accuracy_m} m of accuracy counted" if accuracy_m else ""
                    yield why, [place], [polygon(corners, buffer_m)]


def others() -> Iterator[tuple[str, list[Json], list[Json]]]:
    """Yield the cases that `near_edges` does not have.

    For example, the point is in the middle of the polygon or on the other side of the earth, the polygon has 90 corners
    or a dent, the alert has several shapes, or the place is an H3 cell.
    """
    dice = random.Random(5)
    for where, (lat, lng) in CENTRES.items():
        shape = polygon(ring(dice, lat, lng, 2_000_000.0, 7))
        far = {"lat": -lat, "lng": lng - 180 if lng > 0 else lng + 180}
        yield f"a polygon {where}; its middle", [{"lat": lat, "lng": lng}], [shape]
        yield f"a polygon {where}; the other side of the earth", [far], [shape]
    many = polygon(ring(dice, 48.2, 16.4, 30_000.0, 90), 20.0)
    for n in range(10):
        lat, lng = walk(48.2, 16.4, dice.uniform(0, 360), mpf(dice.uniform(0, 36_000)))
        yield f"90 corners; a point {n + 1} of 10", [{"lat": lat, "lng": lng}], [many]
    dent = polygon([[10, 50], [10.1, 50], [10.1, 50.1], [10.05, 50.02], [10, 50.1], [10, 50]])
    yield "a ring with a dent; in the dent", [{"lat": 50.06, "lng": 10.05}], [dent]
    yield "a ring with a dent; below it", [{"lat": 50.01, "lng": 10.05}], [dent]
    yield "at the height of a corner, outside", [{"lat": 50.1, "lng": 10.05}], [dent]
    yield "at the height of a corner, inside", [{"lat": 50.02, "lng": 10.02}], [dent]
    circle = {"type": "circle", "lat": 0.0, "lng": 0.0, "radius_m": 1020.0}
    yield "a place is inside one of two shapes", [{"lat": 0.001, "lng": 0.0}], [dent, circle]
    yield "one of two places is inside", [{"lat": 5, "lng": 5}, {"lat": 50.01, "lng": 10.05}], [circle, dent]
    wide = polygon([[-60, 60], [-60, 50], [60, 50], [60, 60], [-60, 60]])
    yield "edges are arcs: 60° N between them is inside", [{"lat": 61, "lng": 0}], [wide]
    yield "edges are arcs: 55° N in the middle is outside", [{"lat": 55, "lng": 0}], [wide]
    yield "a cell that touches the polygon", [{"cell": "881f1d4887fffff"}], [many]
    turned = polygon([[10, 50], [10, 50.1], [10.1, 50.1], [10.1, 50], [10, 50]])
    yield "a clockwise ring is the same polygon", [{"lat": 50.05, "lng": 10.05}], [turned]


def polygons() -> Json:
    """Return the content of the file `polygons.json`."""
    cases = []
    for why, places, area in [*near_edges(), *others()]:
        margins = [margin_m(place, shape) for place in places for shape in area]
        if not any(abs(margin) <= EDGE_M for margin in margins):
            margin = round(float(max(margins)), 4)
            cases.append({"why": why, "places": places, "area": area, "inside": margin > 0, "margin_m": margin})
    return {
        "about": "Whether one of the places is inside the area (docs/guide/areas.md, D4 and D5). margin_m: metres "
        "inside the best shape, including its buffer and the accuracy; negative outside. No case is within 1 cm of an "
        "edge.",
        "cases": cases,
    }
