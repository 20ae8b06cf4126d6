"""Attacks on the exact place of an incident, by somebody who sees everything that is published.

The attacker knows the rules in `geocast.geometry.sphere`, the requested radii, and the positions of a request's circles
relative to each other. For corrections, the attacker knows the greatest distance from the address. Each attack looks
for all places for which exactly the same would have been published.

Each attack is tried on the current rules, and on the rules before B11 and B12, which moved each circle to the centre of
its own cell. The attack must succeed on the old rules, since an attack that always fails would prove nothing.
"""

import math

import h3.api.basic_int as h3
import numpy as np
import pytest
from support.fakes import DALLAS

from geocast.geometry.sphere import EARTH_RADIUS_M, cell_of, publish_area, publish_circle
from geocast.matching.place_index import PlaceIndex
from geocast.model.alert import Circle

pytestmark = pytest.mark.slow

RESOLUTION, RADIUS_M = 9, 800.0
METRE = math.degrees(1 / EARTH_RADIUS_M)  # of latitude
PLACES = [DALLAS, (64.8378, -147.7164), (-33.8688, 151.2093)]


def now(requested, held=()):
    """Return the published circles by the current rules, if the current revision has the circles `held`."""
    return publish_area(requested, RESOLUTION, held)


def before(requested, held=()):
    """Return the published circles by the rules before B11 and B12."""
    return [publish_circle(*disc, RESOLUTION) for disc in requested]


def shifted(place, east_m, north_m):
    """Return the place at this distance, in the simple way of a program at a publisher's desk."""
    return place[0] + north_m * METRE, place[1] + east_m * METRE / math.cos(math.radians(place[0]))


def grid(place, half_m, step_m):
    """Return points in a square around a place, as metres east and north of the place."""
    way = np.arange(-half_m, half_m + step_m / 2, step_m)
    return np.stack(np.meshgrid(way, way), -1)


def candidates(place, step_m):
    """Return points all over the cell of a place."""
    cell = cell_of(*place, RESOLUTION)
    centre = h3.cell_to_latlng(cell)
    points = [shifted(centre, *way) for way in grid(centre, 300, step_m).reshape(-1, 2)]
    return [point for point in points if cell_of(*point, RESOLUTION) == cell]


# ---- sixteen circles round one address -----------------------------------------------------------------------


def sixteen_round(place):
    """Return circles in two rings around a place, as a publisher would draw something like a street."""
    turns = [(n * math.tau / 15, 90 + 170 * (n % 2)) for n in range(15)]
    rings = [shifted(place, way_m * math.sin(turn), way_m * math.cos(turn)) for turn, way_m in turns]
    return [(*point, RADIUS_M) for point in [place, *rings]]


def share_of_fitting(rules, place, seen, step_m=11.0):
    """Return for which share of the cell the attacker would see the same of `sixteen_round`."""
    points = candidates(place, step_m)
    wanted = seen(rules(sixteen_round(place)))
    return sum(seen(rules(sixteen_round(point))) == wanted for point in points) / len(points)


def share_by_landmarks(place, count):
    """Return for which share of the cell the same is published, if the attacker knows all places except the first."""
    _, *known = sixteen_round(place)[: count + 1]
    points = candidates(place, 11.0)
    wanted = now([(*place, RADIUS_M), *known])
    return sum(now([(*point, RADIUS_M), *known]) == wanted for point in points) / len(points)


@pytest.mark.parametrize("place", PLACES)
def test_sixteen_circles_around_address_do_not_reveal_the_address(place):
    """The circles are consistent with 90 % of the cell or more.

    With a separate cell for each circle, only a few houses would be left (rule B12).
    """
    assert share_of_fitting(before, place, list) < 0.03
    assert share_of_fitting(now, place, list) > 0.9


@pytest.mark.parametrize("place", PLACES)
def test_circles_around_known_places_reveal_address(place):
    """Rule B12 admits that one known place reveals part of the cell, and that all of them reveal the address."""
    assert 0.1 < share_by_landmarks(place, 1) < 0.8
    assert share_by_landmarks(place, 15) < 0.1


# ---- ten thousand probes -------------------------------------------------------------------------------------


def told_among(probes):
    """Return a function from an area to what the attacker learns about it.

    The attacker sees no alert, only which of the attacker's own subscribers, at these places, are sent the alert.
    """
    index = PlaceIndex()
    for row, place in enumerate(probes):
        index.add(row, *place, 0.0)
    answers = {}

    def told(area):
        key = tuple(area)
        if key not in answers:
            answers[key] = np.sort(index.match([Circle(*disc) for disc in area])[0]).tobytes()
        return answers[key]

    return told


def test_ten_thousand_probes_at_edge_reveal_only_published_area():
    """Only the published circles decide who is inside, so probes reveal the cell and no more (rule B4)."""
    rng = np.random.default_rng(7)
    ways, turns = rng.uniform(900, 1_700, 10_000), rng.uniform(0, math.tau, 10_000)
    told = told_among([shifted(DALLAS, w * math.sin(t), w * math.cos(t)) for w, t in zip(ways, turns, strict=True)])
    assert share_of_fitting(before, DALLAS, told, 22.0) < 0.15
    assert share_of_fitting(now, DALLAS, told, 22.0) > 0.9


# ---- a hundred corrections -----------------------------------------------------------------------------------

STEP_M, HALF_M = 10.0, 700.0


class Corrections:
    """An alert that is corrected again and again, by up to `spread_m` around one address, and its observer.

    For each revision the attacker finds all cells of a requested centre that would have given the published circle,
    after the revision before. The attacker then computes the likelihood of all revisions for each point of a map.
    """

    def __init__(self, rules, spread_m, rng):
        self.rules, self.rng, self.spread_m = rules, rng, spread_m
        self.ways = grid(DALLAS, HALF_M, STEP_M)
        points = [shifted(DALLAS, *way) for way in self.ways.reshape(-1, 2)]
        self.cells = np.array([cell_of(*point, RESOLUTION) for point in points]).reshape(self.ways.shape[:2])
        near = np.hypot(*np.moveaxis(self.ways, -1, 0)) <= spread_m
        self.kernel = np.fft.rfft2(np.fft.ifftshift(near / near.sum()))
        self.likely = {cell: self.near(self.cells == cell) for cell in np.unique(self.cells)}

    def near(self, mask):
        """Return for each point of the map how likely a correction of an address there lies in the mask."""
        return np.clip(np.fft.irfft2(np.fft.rfft2(mask) * self.kernel, mask.shape), 0, 1)

    def corrected(self, address):
        """Return circles at a random corrected place."""
        way_m, turn = self.spread_m * math.sqrt(self.rng.random()), self.rng.uniform(0, math.tau)
        return [(*shifted(address, way_m * math.sin(turn), way_m * math.cos(turn)), RADIUS_M)]

    def left_of_the_cell(self, address, revisions):
        """Return the size of the region that contains the address with 95 %, as a share of a cell."""
        fits, held = np.ones(self.cells.shape), ()
        for _ in range(revisions):
            area = self.rules(self.corrected(address), held)
            fits *= sum(
                likely
                for cell, likely in self.likely.items()
                if self.rules([(*h3.cell_to_latlng(int(cell)), RADIUS_M)], held) == area
            )
            fits /= fits.max()
            held = area
        shares = np.sort((fits / fits.sum()).ravel())[::-1]
        count = np.searchsorted(np.cumsum(shares), 0.95) + 1
        return count * STEP_M**2 / h3.cell_area(cell_of(*address, RESOLUTION), "m^2")


def by_a_border():
    """Yield addresses 20 m inside the border of a cell: in the middle of two edges, and in a corner."""
    cell = cell_of(*DALLAS, RESOLUTION)
    centre, corners = h3.cell_to_latlng(cell), h3.cell_to_boundary(cell)
    for one, other in ((0, 1), (2, 3), (4, 4)):
        edge = [(a + b) / 2 for a, b in zip(corners[one], corners[other], strict=True)]
        yield tuple(c + (e - c) * 0.9 for c, e in zip(centre, edge, strict=True))


def left_on_average(rules, spread_m):
    """Return the mean result of a hundred corrections of addresses near a border."""
    corrections = Corrections(rules, spread_m, np.random.default_rng(11))
    return np.mean([corrections.left_of_the_cell(address, 100) for address in by_a_border() for _ in range(4)])


def test_a_hundred_corrections_near_cell_border_do_not_reveal_the_address():
    """Corrections outside the cell become visible once, without their place or number (rule B11).

    What remains is a strip on both sides of the cell's border, as wide as the corrections are long: on average 1.3
    cells for 100 m.
    """
    assert left_on_average(before, 100.0) < 0.05
    assert left_on_average(now, 100.0) > 0.9


def test_a_hundred_short_corrections_near_cell_border_reveal_only_part_of_cell():
    """The strip along the border is narrower if corrections are short (rule B11)."""
    assert left_on_average(before, 50.0) < 0.05 < 0.5 < left_on_average(now, 50.0) < 0.9
    assert 0.15 < left_on_average(now, 20.0) < 0.5
