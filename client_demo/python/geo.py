"""Distances on the sphere, as the protocol defines them in the section "Distance".

The server's code is not used, so that clients decide independently of the server. Coordinates are in degrees, distances
in metres. `h3` is imported only when a cell is used: programs whose places are points can do without it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import asin, atan2, cos, degrees, hypot, radians, sin, sqrt
from typing import Any

from .polygon import circle_around, depth_of, is_polygon, middle, unit_vector

EARTH_RADIUS_M = 6_371_007.180918475  # the radius that H3 uses, as the protocol says
MAX_ACCURACY_M = 2000.0
EDGE_M = 0.01  # "within 1 cm of the edge either answer is right"

Shape = Mapping[str, Any]


def distance_m(a_lat: float, a_lng: float, b_lat: float, b_lng: float) -> float:
    """Return the great-circle distance in metres, by the haversine formula."""
    a, b = radians(a_lat), radians(b_lat)
    half_lat, half_lng = (b - a) / 2, radians(b_lng - a_lng) / 2
    square = sin(half_lat) ** 2 + cos(a) * cos(b) * sin(half_lng) ** 2
    return 2 * EARTH_RADIUS_M * asin(min(1.0, sqrt(square)))


def offset(lat: float, lng: float, north_m: float, east_m: float) -> tuple[float, float]:
    """Return the point that is about `north_m` metres north and `east_m` metres east of a point.

    The result is not exact enough to decide whether a place is inside an area.
    """
    new_lat = max(-90.0, min(90.0, lat + degrees(north_m / EARTH_RADIUS_M)))
    new_lng = lng + degrees(east_m / (EARTH_RADIUS_M * max(0.01, cos(radians(lat)))))
    return new_lat, (new_lng + 180) % 360 - 180


def along(a_lat: float, a_lng: float, b_lat: float, b_lng: float, share: float) -> tuple[float, float]:
    """Return a point on the great circle from a to b, at the fraction `share` (0 to 1) of the way.

    The points a and b must not be antipodes.
    """
    angle = distance_m(a_lat, a_lng, b_lat, b_lng) / EARTH_RADIUS_M
    if angle == 0:
        return a_lat, a_lng
    from_a, from_b = sin((1 - share) * angle) / sin(angle), sin(share * angle) / sin(angle)
    x, y, z = (
        from_a * one + from_b * other
        for one, other in zip(unit_vector(a_lat, a_lng), unit_vector(b_lat, b_lng), strict=True)
    )
    return degrees(atan2(z, hypot(x, y))), degrees(atan2(y, x))


def cell_reach_m(cell: str) -> float:
    """Return the distance in metres from the centre of an H3 cell to its farthest corner.

    No point of the cell is farther from the centre.
    """
    import h3

    centre = h3.cell_to_latlng(cell)
    return max(distance_m(*centre, *corner) for corner in h3.cell_to_boundary(cell))


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a subscriber: a point with a reach (its uncertainty) in metres.

    `here` means that the person is there now. A person with a qualification is on duty if one of the places has `here`
    (call-rules.md), and otherwise off duty.
    """

    lat: float
    lng: float
    reach_m: float = 0.0
    cell: str | None = None
    here: bool = False

    @classmethod
    def at(cls, lat: float, lng: float, accuracy_m: float = 0.0, *, here: bool = False) -> "Place":
        """Return a place at a point, with this accuracy.

        An accuracy above 2,000 m counts as 2,000 m (protocol, "Messages").
        """
        return cls(lat, lng, min(max(accuracy_m, 0.0), MAX_ACCURACY_M), here=here)

    @classmethod
    def in_cell(cls, cell: str, *, here: bool = False) -> "Place":
        """Return a place at the centre of an H3 cell; its reach is the distance to the cell's farthest corner.

        Raise ValueError if `cell` is not an H3 cell with a resolution of 7 to 15.
        """
        import h3

        if not h3.is_valid_cell(cell) or not 7 <= h3.get_resolution(cell) <= 15:
            raise ValueError(f"not an H3 cell of resolution 7 to 15: {cell}")
        lat, lng = h3.cell_to_latlng(cell)
        return cls(lat, lng, cell_reach_m(cell), cell.lower(), here)

    @classmethod
    def from_map(cls, place: Mapping[str, Any]) -> "Place":
        """Return the place in the JSON object `place` of a message."""
        here = place.get("here", False)
        if "cell" in place:
            return cls.in_cell(place["cell"], here=here)
        return cls.at(place["lat"], place["lng"], place.get("accuracy_m", 0.0), here=here)

    def to_map(self) -> dict[str, Any]:
        """Return the place as a JSON object for a message. A cell is sent without coordinates."""
        here = {"here": True} if self.here else {}
        if self.cell is not None:
            return {"cell": self.cell, **here}
        point: dict[str, Any] = {"lat": self.lat, "lng": self.lng}
        return {**point, **({"accuracy_m": self.reach_m} if self.reach_m else {}), **here}


def margin_m(shape: Shape, place: Place) -> float:
    """Return how deep a place is inside a circle or polygon, in metres; negative if it is outside."""
    if is_polygon(shape):
        return depth_of(shape, place.lat, place.lng, EARTH_RADIUS_M) + place.reach_m
    return float(shape["radius_m"]) + place.reach_m - distance_m(place.lat, place.lng, shape["lat"], shape["lng"])


def depth_m(area: Iterable[Shape], places: Sequence[Place]) -> float:
    """Return how deep the places are inside an area, in metres: the depth of the place that is deepest inside.

    The result is negative if all places are outside, and -inf if there are no places. A shape of an unknown type counts
    as containing every place, so that the alert is shown (protocol, "Growing").
    """
    best = float("-inf")
    for shape in area:
        if shape.get("type") != "circle" and not is_polygon(shape):
            return float("inf") if places else best
        best = max(best, max((margin_m(shape, place) for place in places), default=best))
    return best


def is_inside(area: Iterable[Shape], places: Sequence[Place]) -> bool:
    """Return whether at least one of the places is inside at least one of the shapes, or on its edge."""
    return depth_m(area, places) >= 0


def judge_of(area: Iterable[Shape]) -> Callable[[Sequence[Place]], bool]:
    """Return a function that says whether at least one of the places is inside an area or on its edge.

    It is for a client that decides alone: a shape of an unknown type contains nobody (protocol, G4). Polygons far away
    are excluded by the circles around them, which are computed once.
    """
    shapes: list[tuple[Shape, tuple[float, float, float]]] = []
    for shape in area:
        if is_polygon(shape):
            shapes.append((shape, circle_around(shape, EARTH_RADIUS_M)))
        elif shape.get("type") == "circle":
            shapes.append((shape, (shape["lat"], shape["lng"], float(shape["radius_m"]))))

    def judge(places: Sequence[Place]) -> bool:
        return any(
            distance_m(place.lat, place.lng, lat, lng) <= radius_m + place.reach_m and margin_m(shape, place) >= 0
            for shape, (lat, lng, radius_m) in shapes
            for place in places
        )

    return judge


def away_m(area: Iterable[Shape], places: Sequence[Place]) -> float | None:
    """Return the smallest distance, in metres, between any of the places and the centre of any of the shapes.

    Return None if there are no places, or no shapes with a centre.
    """
    centres = [centre for shape in area if (centre := _centre(shape)) is not None]
    return min((distance_m(place.lat, place.lng, *centre) for centre in centres for place in places), default=None)


def _centre(shape: Shape) -> tuple[float, float] | None:
    """Return the point from which distances to a shape are measured (protocol, D6); None for an unknown shape."""
    if is_polygon(shape):
        x, y, z = middle(shape)
        return degrees(atan2(z, hypot(x, y))), degrees(atan2(y, x))
    return (shape["lat"], shape["lng"]) if shape.get("type") == "circle" else None
