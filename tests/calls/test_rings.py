"""How many a ring calls: the simulation behind the default rings and `enough` (docs/calls.md, RN4)."""

import math
import random

import pytest

from geocast.calls.seat_request import is_near
from geocast.calls.state import DecryptedEntry, first_state
from geocast.model.call import CallEntry, ExactPlace, Near, Nothing, Opening, Widening
from geocast.policy.calls import CallCategory

TERMS = CallCategory(title="Cardiac arrest", quals=["cpr"]).terms("public")
NEAR = Near(47.0, 8.0, 210.0)
OPENING = Opening("cardiac_arrest", "Help", "actual", "cad-3", 0, 0, 10, NEAR, TERMS)
TOWNS = 150
M_PER_DEGREE = 111_195.0
FARTHEST_M = 1_800.0  # beyond the last ring


def opened(number, body, secret):
    """An entry with both its parts."""
    entry = CallEntry("c-1", number, 10, "widen" if isinstance(body, Widening) else "call", b"", b"x")
    return DecryptedEntry(entry, body, secret)


def town(dice, within_1_km):
    """Responders as they are spread where so many are within 1 km, on average: latitude, longitude, reach."""
    spots = []
    for _ in range(round(within_1_km * (FARTHEST_M / 1_000) ** 2)):
        metres, way = FARTHEST_M * math.sqrt(dice.random()), dice.uniform(0, 2 * math.pi)
        north, east = metres * math.cos(way) / M_PER_DEGREE, metres * math.sin(way) / M_PER_DEGREE
        spots.append((NEAR.lat + north, NEAR.lng + east / math.cos(math.radians(NEAR.lat)), 0.0))
    return spots


def called(call, spots):
    """Who is called when the ring has widened as often as it is to, by the rule itself."""
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
def test_the_default_rings_call_about_ten_where_there_are_ten_or_a_hundred(within_1_km, low, high):
    """RN4: 9 to 12 on average, and all of the first ring where 300 are within 1 km."""
    dice = random.Random(within_1_km)
    counts = []
    for _ in range(TOWNS):
        call = first_state(opened(1, OPENING, ExactPlace(NEAR.lat, NEAR.lng, "public")))
        spots = town(dice, within_1_km)
        found = called(call, spots)
        assert len(found) >= TERMS.enough or call.wave == len(TERMS.rings_m) - 1
        counts.append(len(found))
    assert low < sum(counts) / TOWNS < high
