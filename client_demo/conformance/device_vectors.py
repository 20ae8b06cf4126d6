"""Test vectors for clients that decide on the device, for `make_vectors`: 10,000 places at the edges of 100 areas.

Each area has a seed of its own, so that a test can make some of them again.
"""

import random
from typing import Any, TypeAlias

import h3
from mpmath import degrees, mpf

from .exact import Json, bearing, distance_m, margin_m, walk
from .polygon_vectors import polygon, ring

EDGE_M = mpf("0.01")
DECIMALS = 9  # of a coordinate: a tenth of a millimetre
CENTRES = {
    "in Dallas": (32.7767, -96.797),
    "on the equator, at the prime meridian": (0.0, 0.0),
    "over the antimeridian": (-17.0, 179.9995),
    "on the antimeridian, written as -180": (64.5, -180.0),
    "around the north pole": (89.999, 45.0),
    "around the south pole": (-90.0, 123.0),
    "in the far south": (-54.8, -68.3),
    "beside the north pole": (88.5, -179.0),
}
RADII_M = (110.0, 1020.0, 20_180.0, 400_000.0, 2_000_000.0, 9_000_000.0)
SIZES_M = (150.0, 1_500.0, 30_000.0, 400_000.0, 2_500_000.0)
CORNERS, BUFFERS_M = (3, 4, 6, 9), (0.0, 20.0, 0.0, 1_020.0)
OFFSETS_M = tuple(mpf(text) for text in ("-1", "1", "-0.02", "0.02", "-40", "40"))
ACCURACIES_M = (0, 0, 0, 12.5, 2000)
AREAS, PLACES = 100, 100

Place: TypeAlias = list[Any] | str  # [lat, lng], [lat, lng, accuracy_m] or a cell


def as_json(place: Place) -> Json:
    """Return a place in the form of the protocol."""
    if isinstance(place, str):
        return {"cell": place}
    return dict(zip(("lat", "lng", "accuracy_m"), place, strict=False))


def _rounded(lat: float, lng: float) -> tuple[float, float]:
    return round(lat, DECIMALS), round(lng, DECIMALS)


def _beside_edge(dice: random.Random, corners: list[list[float]], beyond_m: mpf) -> tuple[float, float]:
    """Return a point that is `beyond_m` metres to the right of some point of some edge."""
    n = dice.randrange(len(corners) - 1)
    (a_lng, a_lat), (b_lng, b_lat) = corners[n : n + 2]
    along_m = distance_m(a_lat, a_lng, b_lat, b_lng) * dice.uniform(0.05, 0.95)
    spot = walk(a_lat, a_lng, degrees(bearing(a_lat, a_lng, b_lat, b_lng)), along_m)
    return walk(*spot, degrees(bearing(*spot, b_lat, b_lng)) + 90, beyond_m)


def _place(dice: random.Random, shape: Json, centre: tuple[float, float], wide_m: float) -> Place:
    """Return a place at the edge of a shape, or (one in ten) anywhere around it; one in twelve is a cell."""
    accuracy_m, offset = dice.choice(ACCURACIES_M), dice.choice(OFFSETS_M)
    if dice.random() < 0.1:
        spot = walk(*centre, dice.uniform(0, 360), mpf(wide_m * dice.uniform(0, 1.5)))
    elif shape["type"] == "circle":
        spot = walk(*centre, dice.uniform(0, 360), shape["radius_m"] + accuracy_m + offset)
    else:
        spot = _beside_edge(dice, shape["coordinates"][0], shape.get("buffer_m", 0) + accuracy_m + offset)
    if dice.random() < 1 / 12:
        return str(h3.latlng_to_cell(*spot, dice.choice((7, 8, 9, 11))))
    lat, lng = _rounded(*spot)
    return [lat, lng, accuracy_m] if accuracy_m else [lat, lng]


def case(number: int) -> Json:
    """Return one area with its places, and for each place whether it is inside: `1` or `0`."""
    dice = random.Random(f"device {number}")
    where, centre = list(CENTRES.items())[number % len(CENTRES)]
    if number % 2:
        wide_m, corners = dice.choice(SIZES_M), dice.choice(CORNERS)
        shape = polygon(ring(dice, *centre, wide_m, corners), dice.choice(BUFFERS_M))
        what = f"a polygon of {corners} corners and {wide_m:g} m"
    else:
        wide_m = dice.choice(RADII_M)
        shape = {"type": "circle", "lat": centre[0], "lng": centre[1], "radius_m": wide_m}
        what = f"a circle of {wide_m:g} m"
    places: list[Place] = []
    inside = ""
    while len(places) < PLACES:
        place = _place(dice, shape, centre, wide_m)
        margin = margin_m(as_json(place), shape)
        if abs(margin) > EDGE_M:
            places.append(place)
            inside += "1" if margin > 0 else "0"
    return {"why": f"{what} {where}", "area": [shape], "places": places, "inside": inside}


def strange() -> list[Json]:
    """Return cases with a shape of an unknown type, which contains nobody if the device decides (G4)."""
    blob = {"type": "blob", "points": [[1, 2]]}
    circle = {"type": "circle", "lat": 32.7767, "lng": -96.797, "radius_m": 110.0}
    places = [[32.7767, -96.797], [32.7767, -96.79]]
    return [
        {"why": "a shape of unknown type contains nobody", "area": [blob], "places": places, "inside": "00"},
        {"why": "beside it a circle counts", "area": [blob, circle], "places": places, "inside": "10"},
    ]


def device() -> Json:
    """Return the content of the file `device.json`."""
    return {
        "about": "Whether a place is inside an area, as a client decides that follows the feed (PF6; D1 to D6, M7, M8, "
        "G4): for each of `places`, `inside` has one character, 1 or 0. A place is [lat, lng], [lat, lng, accuracy_m] "
        "or an H3 cell. Nine in ten are at the edge: 2 cm, 1 m or 40 m inside or outside. None is within 1 cm of it.",
        "cases": [*(case(number) for number in range(AREAS)), *strange()],
    }
