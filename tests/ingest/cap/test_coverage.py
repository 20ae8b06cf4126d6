"""What is published covers what the message says, whatever its size and shape (HD10)."""

import numpy as np
import pytest
from ingest.cap import coverage
from ingest.cap.issuer import CapIngestHarness, a_message, an_area, an_info, code
from support import s2

from geocast.geometry.polygon_union import pieces
from geocast.ingest.cap.zones import Zones
from geocast.model.alert import Circle

LOST_A_SPIT = (58, 193, 229)  # seeds whose zones have a spit that simplifying turned into a line there and back


def zones_of(rings):
    """Return a harness with a zone for each ring, and a message that names all of them."""
    zones = Zones({("UGC", str(n)): pieces([np.array(ring).T]) for n, ring in enumerate(rings)})
    area = an_area(geocode=[code("UGC", str(n)) for n in range(len(rings))])
    return CapIngestHarness(in_force=coverage.ANY_SIZE, zones=zones), a_message("m", 0, (), an_info(area))


def skerries(count, size_m):
    """Return small islands, 11 km from each other."""
    dice = np.random.default_rng(7)
    return [s2.a_ring(dice, (60 + n % 9 * 0.1, 20 + n // 9 * 0.2), size_m, 7) for n in range(count)]


@pytest.mark.parametrize("seed", [*LOST_A_SPIT, *range(600, 640)])
def test_no_place_of_random_warning_is_outside_of_published_area(seed):
    """The sizes are 50 m to 5,000 km. Zones, rings, circles, islands, lagoons and spits are tried (HD10, CZ1)."""
    places, worst_m = coverage.worst_m(seed)
    assert places > 20
    assert worst_m <= coverage.FALLS_SHORT_M


def test_no_place_on_islet_of_150_m_is_outside_of_published_area():
    """The circle covers what simplifying the zone removed (CZ1, HD10)."""
    dice, worst_m = np.random.default_rng(3), []
    for _ in range(60):
        islet = s2.a_ring(dice, (dice.uniform(-70, 70), dice.uniform(-180, 180)), dice.uniform(70, 160), 40)
        room, message = zones_of([islet])
        [revision] = room.taken(message).alerts
        worst_m.append(coverage.shortfalls_m(revision.alert.area, coverage.places(dice, [islet])).max())
    assert max(worst_m) <= coverage.FALLS_SHORT_M


def test_islet_smaller_than_least_circle_is_published_as_circle():
    """A zone that the circle covers with its buffer needs no polygon."""
    room, message = zones_of([s2.a_ring(np.random.default_rng(1), (60, 20), 40, 3)])
    [revision] = room.taken(message).alerts
    assert [type(shape) for shape in revision.alert.area] == [Circle]


@pytest.mark.parametrize("size_m", [40, 90])
def test_zone_of_70_skerries_is_published(size_m):
    """Each is smaller than `min_radius_m`, and there are more than an alert may have (P7, HD10)."""
    rings = skerries(70, size_m)
    room, message = zones_of(rings)
    answer = room.taken(message)
    assert "united" in answer.notes
    at = np.vstack([coverage.vectors(np.array(ring)) for ring in rings])
    assert coverage.shortfalls_m(answer.alerts[0].alert.area, at).max() <= coverage.FALLS_SHORT_M
