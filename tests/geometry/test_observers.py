"""What somebody who sees all that is published can work out of it about the address behind it.

The attacker knows the rules, as they are in `geocast.geometry.sphere`, the requested radii, and how the circles of a
request lie to each other; of corrections, how far from the address they are at most. Each attack asks for which
places exactly the same would have been published. It is tried on the rules of now and on those before B11 and B12,
which put each circle into the cell that it lies in, and it has to succeed on those: an attack that fails on both
shows nothing.
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
    """What is published for circles, behind a revision that has `held`."""
    return publish_area(requested, RESOLUTION, held)


def before(requested, held=()):
    """The same by the rules before B11 and B12."""
    return [publish_circle(*disc, RESOLUTION) for disc in requested]


def shifted(place, east_m, north_m):
    """A place that many metres off, as a program at a desk would reckon."""
    return place[0] + north_m * METRE, place[1] + east_m * METRE / math.cos(math.radians(place[0]))


def grid(place, half_m, step_m):
    """Points in a square round a place: metres east and north of it."""
    way = np.arange(-half_m, half_m + step_m / 2, step_m)
    return np.stack(np.meshgrid(way, way), -1)


def candidates(place, step_m):
    """Points all over the cell that a place is in."""
    cell = cell_of(*place, RESOLUTION)
    centre = h3.cell_to_latlng(cell)
    points = [shifted(centre, *way) for way in grid(centre, 300, step_m).reshape(-1, 2)]
    return [point for point in points if cell_of(*point, RESOLUTION) == cell]


# ---- sixteen circles round one address -----------------------------------------------------------------------


def sixteen_round(place):
    """Circles in two rings round a place, as one would ask for to draw something like its street."""
    turns = [(n * math.tau / 15, 90 + 170 * (n % 2)) for n in range(15)]
    rings = [shifted(place, way_m * math.sin(turn), way_m * math.cos(turn)) for turn, way_m in turns]
    return [(*point, RADIUS_M) for point in [place, *rings]]


def share_of_fitting(rules, place, seen, step_m=11.0):
    """For how much of the cell what is seen of `sixteen_round` would be the same."""
    points = candidates(place, step_m)
    wanted = seen(rules(sixteen_round(place)))
    return sum(seen(rules(sixteen_round(point))) == wanted for point in points) / len(points)


def share_by_landmarks(place, count):
    """For how much of the cell the same is published, if the attacker knows where all circles but the first are."""
    _, *known = sixteen_round(place)[: count + 1]
    points = candidates(place, 11.0)
    wanted = now([(*place, RADIUS_M), *known])
    return sum(now([(*point, RADIUS_M), *known]) == wanted for point in points) / len(points)


@pytest.mark.parametrize("place", PLACES)
def test_sixteen_circles_round_an_address_do_not_give_it_away(place):
    """B12: they fit nine tenths of the cell and more; each put into its own cell, they fit a few houses."""
    assert share_of_fitting(before, place, list) < 0.03
    assert share_of_fitting(now, place, list) > 0.9


@pytest.mark.parametrize("place", PLACES)
def test_circles_round_known_places_do(place):
    """B12 says so: who knows where the others are learns where the first is; from one of them a part of the cell."""
    assert 0.1 < share_by_landmarks(place, 1) < 0.8
    assert share_by_landmarks(place, 15) < 0.1


# ---- ten thousand probes -------------------------------------------------------------------------------------


def told_among(probes):
    """The attacker sees no alert, only which of its subscribers at these places are told: a function of the area."""
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


def test_ten_thousand_probes_on_the_edge_tell_no_more_than_the_area():
    """B4: matching knows the published circles only, so who is told where gives away the cell and no more."""
    rng = np.random.default_rng(7)
    ways, turns = rng.uniform(900, 1_700, 10_000), rng.uniform(0, math.tau, 10_000)
    told = told_among([shifted(DALLAS, w * math.sin(t), w * math.cos(t)) for w, t in zip(ways, turns, strict=True)])
    assert share_of_fitting(before, DALLAS, told, 22.0) < 0.15
    assert share_of_fitting(now, DALLAS, told, 22.0) > 0.9


# ---- a hundred corrections -----------------------------------------------------------------------------------

STEP_M, HALF_M = 10.0, 700.0


class Corrections:
    """An alert that is corrected again and again, to within `spread_m` of one address, and who watches it.

    For each revision the attacker finds out which requested cells would have given what was published, behind the
    revision before; and so, for each point of a map, how likely all of it is if the address is there.
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
        """For each point of the map, how likely a correction of an address there lies in the mask."""
        return np.clip(np.fft.irfft2(np.fft.rfft2(mask) * self.kernel, mask.shape), 0, 1)

    def corrected(self, address):
        """Places that the address is corrected to."""
        way_m, turn = self.spread_m * math.sqrt(self.rng.random()), self.rng.uniform(0, math.tau)
        return [(*shifted(address, way_m * math.sin(turn), way_m * math.cos(turn)), RADIUS_M)]

    def left_of_the_cell(self, address, revisions):
        """How large the region is that holds the address with 95 %, as a share of a cell."""
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
    """Addresses 20 m within the border of a cell: in the middle of its edges, and in a corner."""
    cell = cell_of(*DALLAS, RESOLUTION)
    centre, corners = h3.cell_to_latlng(cell), h3.cell_to_boundary(cell)
    for one, other in ((0, 1), (2, 3), (4, 4)):
        edge = [(a + b) / 2 for a, b in zip(corners[one], corners[other], strict=True)]
        yield tuple(c + (e - c) * 0.9 for c, e in zip(centre, edge, strict=True))


def left_on_average(rules, spread_m):
    """What a hundred corrections of addresses by a border leave, on average."""
    corrections = Corrections(rules, spread_m, np.random.default_rng(11))
    return np.mean([corrections.left_of_the_cell(address, 100) for address in by_a_border() for _ in range(4)])


def test_a_hundred_corrections_by_a_border_do_not_trace_it():
    """B11: that one of them was outside of the cell shows once, and neither where nor how often.

    What is left is the strip on both sides of the cell's border that is as wide as corrections are long: on average
    1.3 cells for 100 m.
    """
    assert left_on_average(before, 100.0) < 0.05
    assert left_on_average(now, 100.0) > 0.9


def test_a_hundred_short_corrections_by_a_border_leave_a_part_of_the_cell():
    """B11: the strip is narrower where corrections are short."""
    assert left_on_average(before, 50.0) < 0.05 < 0.5 < left_on_average(now, 50.0) < 0.9
    assert 0.15 < left_on_average(now, 20.0) < 0.5
