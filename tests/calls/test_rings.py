"""The simulation behind the default radii and `enough`: how many responders each radius notifies (RN4)."""

import math
import random

import pytest

from geocast.calls.eligibility import is_near
from geocast.calls.state import DecryptedEntry, fold
from geocast.model.alert import Circle
from geocast.model.call import CallEntry, ExactPlace, Nothing, Opening, Widening
from geocast.policy.calls import CallCategory

TERMS = CallCategory(title="Cardiac arrest", quals=["cpr"]).terms("public")
NEAR = Circle(47.0, 8.0, 210.0)
OPENING = Opening("cardiac_arrest", "Help", "actual", "cad-3", 0, 0, 10, NEAR, TERMS)
TOWNS = 150
M_PER_DEGREE = 111_195.0
FARTHEST_M = 1_800.0  # beyond the last ring


def opened(number, body, secret):
    """Return an entry with both parts."""
    entry = CallEntry("c-1", number, 10, "widen" if isinstance(body, Widening) else "call", b"", b"x")
    return DecryptedEntry(entry, body, secret)


def town(dice, within_1_km):
    """Return responders with this average number within 1 km, as latitude, longitude and uncertainty."""
    spots = []
    for _ in range(round(within_1_km * (FARTHEST_M / 1_000) ** 2)):
        metres, way = FARTHEST_M * math.sqrt(dice.random()), dice.uniform(0, 2 * math.pi)
        north, east = metres * math.cos(way) / M_PER_DEGREE, metres * math.sin(way) / M_PER_DEGREE
        spots.append((NEAR.lat + north, NEAR.lng + east / math.cos(math.radians(NEAR.lat)), 0.0))
    return spots


def called(call, spots):
    """Return the responders who are notified after all waves that are due by the rule itself."""
    inside = [spot for spot in spots if is_near(call, spot)]
    for ring in range(1, len(TERMS.rings_m)):
        if len(inside) >= TERMS.enough:
            break
        call.take(opened(ring + 1, Widening(ring, 0), Nothing()))
        inside = [spot for spot in spots if is_near(call, spot)]
    return inside


@pytest.mark.parametrize(
    ("within_1_km", "low", "high"), [(10, 8.5, 10.5), (30, 9.5, 11.5), (100, 11, 13.5), (300, 27, 31)]
)
def test_default_radii_notify_about_ten_responders_or_all_in_the_first_radius(within_1_km, low, high):
    """On average 9 to 12 are notified, or everybody within the first radius if 300 are within 1 km (RN4)."""
    dice = random.Random(within_1_km)
    counts = []
    for _ in range(TOWNS):
        call = fold([opened(1, OPENING, ExactPlace(NEAR.lat, NEAR.lng, "public"))])
        spots = town(dice, within_1_km)
        found = called(call, spots)
        assert len(found) >= TERMS.enough or call.wave == len(TERMS.rings_m) - 1
        counts.append(len(found))
    assert low < sum(counts) / TOWNS < high
