"""The place index, compared with brute force by an independent haversine. Small pages split and merge often."""

import math
import random

import h3.api.basic_int as h3
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geocast.geometry.sphere import cell_of, cell_place, unit_vector
from geocast.matching.columns import Column
from geocast.matching.place_index import NO_BALL, PAGE_SIZE, UNCOVERED_PAGES, PlaceIndex, nearest_first
from geocast.model.alert import Circle

CM = 0.01
RADIUS_OF_EARTH_M = 6_371_007.180918475
DALLAS = (32.7767, -96.797)
PENTAGONS = [h3.cell_to_latlng(cell) for cell in h3.get_pentagons(9)]
CORNERS = [(90.0, 0.0), (-90.0, 0.0), (0.0, 180.0), (65.0, -180.0), (0.0, 0.0), DALLAS]
RADII = [100.0, 1_000.0, 10_000.0, 50_000.0, 500_000.0]
REACHES = [0.0, 5.0, 60.0, 255.9, 256.0, 2_000.0]
PAGE_SIZES = [2, 5, 16, PAGE_SIZE]


class CheckedPlaceIndex:
    """A place index, and the content that it should have: slot -> (row, latitude, longitude, reach)."""

    def __init__(self, page_size=PAGE_SIZE):
        self.index = PlaceIndex(capacity=4, page_size=page_size)
        self.places = {}

    def add(self, row, lat, lng, reach=0.0):
        slot = self.index.add(row, lat, lng, reach)
        assert slot not in self.places
        self.places[slot] = (row, lat, lng, reach)
        return slot

    def move(self, slot, lat, lng, reach=0.0):
        self.index.move(slot, lat, lng, reach)
        self.places[slot] = (self.places[slot][0], lat, lng, reach)

    def remove(self, slot):
        self.index.remove(slot)
        del self.places[slot]

    def check(self, *area):
        """Compare a search with brute force. Within a centimetre of an edge both results are correct."""
        self.index.uncovered_pages = UNCOVERED_PAGES
        uncovered = self.index.match(area)
        self.index.uncovered_pages = 0
        rows, distances = self.index.match(area)
        np.testing.assert_array_equal((rows, distances), uncovered)
        assert rows.dtype == np.int32
        assert distances.dtype == np.float64
        surely, perhaps = self.expected(area, -CM), self.expected(area, CM)
        said = dict(zip(rows.tolist(), distances.tolist(), strict=True))
        assert list(said) == sorted(said)
        assert len(said) == len(rows)
        assert surely.keys() <= said.keys() <= perhaps.keys()
        assert all(perhaps[row] - CM <= said[row] <= surely.get(row, math.inf) + CM for row in said)
        return len(said)

    def expected(self, area, slack):
        """Return a dict from rows that are inside by at least `-slack` metres to their distances."""
        nearest = {}
        if not self.places:
            return nearest
        row, lat, lng, reach = np.array(list(self.places.values())).T
        for circle in area:
            distance = haversine_m(circle.lat, circle.lng, lat, lng)
            for at in np.flatnonzero(distance <= circle.radius_m + reach + slack):
                key = int(row[at])
                nearest[key] = min(nearest.get(key, math.inf), distance[at])
        return nearest


def haversine_m(lat1, lng1, lat2, lng2):
    """Return distances by another formula than the index's. The arguments may be arrays."""
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    across = np.cos(phi1) * np.cos(phi2) * np.sin(np.radians(lng2 - lng1) / 2) ** 2
    h = np.sin((phi2 - phi1) / 2) ** 2 + across
    return 2 * RADIUS_OF_EARTH_M * np.arcsin(np.sqrt(np.minimum(1.0, h)))


def point_at(centre, bearing, distance_m):
    """Return the point at this bearing (radians) and distance from the centre."""
    phi, delta = math.radians(centre[0]), distance_m / RADIUS_OF_EARTH_M
    sin_phi = math.sin(phi) * math.cos(delta) + math.cos(phi) * math.sin(delta) * math.cos(bearing)
    east = math.sin(bearing) * math.sin(delta) * math.cos(phi)
    theta = math.radians(centre[1]) + math.atan2(east, math.cos(delta) - math.sin(phi) * sin_phi)
    lng = math.remainder(math.degrees(theta), 360)
    return math.degrees(math.asin(max(-1.0, min(1.0, sin_phi)))), lng


def near(rng, centre, scale_m):
    """Return a random point at about this distance from the centre, usually nearer, sometimes much farther."""
    return point_at(centre, rng.uniform(0, 2 * math.pi), scale_m * min(30.0, rng.expovariate(1)))


def check_pages(index):
    """Assert that the pages keep Rules 1 and 3, and are in the order of their keys."""
    lows = [*index._lows, 2**64 - 1]
    assert lows == sorted(lows)
    assert len(set(index._order)) == len(index._order)
    held = 0
    for at, page in enumerate(index._order):
        count = index._counts[page]
        slots = index._slots.view[page, :count]
        places = index._places.view[page]
        assert np.isnan(places[:, count:]).all()
        assert (index._positions.view[slots] == page * index._size + np.arange(count)).all()
        assert all(lows[at] <= int(key) <= lows[at + 1] for key in index._keys.view[slots])
        x, y, z, radius = index._balls.view[page]
        reach = places[3, :count] / RADIUS_OF_EARTH_M
        off = np.linalg.norm(places[:3, :count] - [[x], [y], [z]], axis=0) + reach
        assert (off <= radius + 1e-12).all()
        held += count
    assert held == len(index)
    assert all(np.isnan(index._places.view[page]).all() for page in index._free_pages)
    assert all(tuple(index._balls.view[page]) == NO_BALL for page in index._free_pages)


# ---- places that do not move -------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_search_agrees_with_brute_force_in_cities_and_country(page_size):
    """The index has 2,000 places in and around a few cities. There are 50 circles, and reaches from 0 to 2,000 m."""
    rng, checked = random.Random(page_size), CheckedPlaceIndex(page_size)
    cities = [near(rng, DALLAS, 300_000) for _ in range(5)]
    for row in range(2_000):
        checked.add(row, *near(rng, rng.choice(cities), 10_000), rng.choice(REACHES))
    hits = sum(
        checked.check(Circle(*near(rng, rng.choice(cities), 5_000), radius)) for radius in RADII for _ in range(10)
    )
    assert hits > 5_000
    check_pages(checked.index)


@pytest.mark.parametrize("page_size", [5, PAGE_SIZE])
def test_search_agrees_with_brute_force_in_large_index(page_size):
    """The places fill many pages, and every array grows more than once."""
    rng, checked = random.Random(page_size), CheckedPlaceIndex(page_size)
    for row in range(12_000):
        checked.add(row, *near(rng, DALLAS, 20_000), rng.choice([0.0, 0.0, 0.0, 30.0, 1_400.0]))
    for radius in RADII:
        assert checked.check(Circle(*near(rng, DALLAS, 10_000), radius))
    check_pages(checked.index)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("centre", CORNERS)
def test_search_agrees_with_brute_force_at_poles_and_antimeridian(page_size, centre):
    """The circles lie around and next to points where longitudes jump."""
    rng, checked = random.Random(1), CheckedPlaceIndex(page_size)
    for row in range(400):
        checked.add(row, *near(rng, centre, rng.choice(RADII)), rng.choice(REACHES))
    for radius in RADII:
        for middle in (centre, near(rng, centre, radius), near(rng, centre, radius)):
            checked.check(Circle(*middle, radius))
    assert checked.check(Circle(*centre, 600_000.0)) > 100


@pytest.mark.parametrize("resolution", [1, 4, 7, 9, 10])
def test_search_agrees_with_brute_force_around_pentagons(resolution):
    """H3's rings and children are irregular there. The radii are those for which the cover depends on them."""
    rng, checked = random.Random(resolution), CheckedPlaceIndex(8)
    edge = h3.average_hexagon_edge_length(resolution, "m")
    pentagons = [h3.cell_to_latlng(cell) for cell in h3.get_pentagons(resolution)]
    for row in range(1_200):
        checked.add(row, *near(rng, pentagons[row % 12], edge), rng.choice([0.0, 0.0, edge / 10]))
    for pentagon in pentagons:
        for radius in (edge / 3, edge / 2.01, edge, 3 * edge):
            checked.check(Circle(*near(rng, pentagon, edge), radius))
            assert checked.check(Circle(*pentagon, radius)) > 0


@pytest.mark.parametrize("reach", REACHES)
@pytest.mark.parametrize("radius", RADII)
def test_search_is_exact_to_two_centimetres_at_edge(radius, reach):
    """All radii and reaches are tested, in all directions."""
    checked, expected = CheckedPlaceIndex(4), set()
    for row in range(72):
        off = 0.02 if row % 2 else -0.02
        checked.add(row, *point_at(DALLAS, row / 72 * 2 * math.pi, radius + reach + off), reach)
        expected |= set() if row % 2 else {row}
    assert set(checked.index.match([Circle(*DALLAS, radius)])[0].tolist()) == expected


def test_place_at_centre_is_inside_smallest_circle():
    """The bounding ball of a page with one place has the radius 0."""
    for centre in [*CORNERS, *PENTAGONS]:
        checked = CheckedPlaceIndex()
        checked.add(7, *centre)
        assert checked.check(Circle(*centre, 1e-3)) == 1


def test_bounding_ball_of_single_place_is_as_wide_as_its_reach():
    """It grows only as far as the place reaches after a move (Rule 1)."""
    index = PlaceIndex(4)
    slot = index.add(1, *DALLAS, 60.0)
    assert index._balls.items[3] * RADIUS_OF_EARTH_M == pytest.approx(60.0)
    index.move(slot, *point_at(DALLAS, 0.0, 20.0), 50.0)
    assert index._balls.items[3] * RADIUS_OF_EARTH_M == pytest.approx(70.0, abs=CM)


def test_bounding_ball_of_page_with_few_places_is_small():
    """The ball is centred on the page's first place, not on the centre of the earth."""
    checked = CheckedPlaceIndex()
    checked.add(7, *DALLAS)
    assert checked.index._balls.view[0].tolist() == [*unit_vector(*DALLAS), 0.0]
    checked.add(8, *point_at(DALLAS, 1.0, 500.0))
    assert checked.index._balls.view[0][3] < 1_000 / RADIUS_OF_EARTH_M
    check_pages(checked.index)


def test_cell_is_matched_if_its_farthest_corner_may_be_inside():
    """A subscriber who only sends a cell of resolution 7 is matched from 1.4 km away."""
    lat, lng, reach = cell_place(h3.latlng_to_cell(*DALLAS, 7))
    checked = CheckedPlaceIndex(4)
    for row in range(20):
        checked.add(row, *near(random.Random(row), DALLAS, 300))
    checked.add(99, lat, lng, reach)
    for off, inside in ((-1, True), (1, False)):
        circle = Circle(*point_at((lat, lng), 1.0, 100 + reach + off), 100.0)
        assert (99 in checked.index.match([circle])[0]) is inside
        checked.check(circle)


@pytest.mark.parametrize("page_size", [2, PAGE_SIZE])
def test_circle_with_radius_of_half_circumference_contains_every_place(page_size):
    """A circle smaller by a kilometre leaves out the antipode, unless the place's reach is large enough."""
    checked = CheckedPlaceIndex(page_size)
    for row, (lat, lng) in enumerate(CORNERS):
        checked.add(row, lat, lng)
    checked.add(50, -DALLAS[0], DALLAS[1] + 180, 0.0)
    checked.add(51, -DALLAS[0], DALLAS[1] + 180, 2_000.0)
    half = math.pi * RADIUS_OF_EARTH_M
    everybody = [*range(len(CORNERS)), 50, 51]
    assert checked.index.match([Circle(*DALLAS, half)])[0].tolist() == everybody
    assert checked.index.match([Circle(*DALLAS, 1e12)])[0].tolist() == everybody
    assert set(everybody) - set(checked.index.match([Circle(*DALLAS, half - 1_000)])[0].tolist()) == {50}


def test_search_without_places_or_circles_finds_nothing():
    """Either the index has no places, or the area has no circles."""
    checked = CheckedPlaceIndex()
    assert checked.check(Circle(*DALLAS, 1e8)) == 0
    checked.add(1, *DALLAS)
    assert checked.check() == 0
    assert checked.check(Circle(-10.0, 10.0, 500.0)) == 0


# ---- several places or circles -----------------------------------------------------------------------------


def test_session_with_several_places_inside_is_returned_once():
    """The returned distance is that of the nearest place to the nearest centre."""
    checked = CheckedPlaceIndex(2)
    for metres in (700, 300, 900, 5_000):
        checked.add(3, *point_at(DALLAS, metres, metres))
    checked.add(1, *point_at(DALLAS, 1.0, 400))
    rows, distances = checked.index.match([Circle(*DALLAS, 1_000.0), Circle(*point_at(DALLAS, 2.0, 50), 1_000.0)])
    assert rows.tolist() == [1, 3]
    assert distances.tolist() == pytest.approx([400, 300], abs=60)
    assert checked.check(Circle(*DALLAS, 1_000.0)) == 2


@pytest.mark.parametrize("apart", [1, 1_000])
def test_place_in_any_circle_of_area_is_matched(apart):
    """Some circles overlap, some contain others, and some are apart. The rows of the sessions are near or far apart."""
    rng, checked = random.Random(3), CheckedPlaceIndex(8)
    for row in range(600):
        checked.add(row // 3 * apart, *near(rng, DALLAS, 5_000), rng.choice(REACHES))
    for _ in range(20):
        area = [Circle(*near(rng, DALLAS, 5_000), rng.choice([300.0, 3_000.0])) for _ in range(16)]
        assert checked.check(*area)


@pytest.mark.parametrize("page_size", [2, 4, PAGE_SIZE])
def test_search_is_correct_while_crowd_at_one_point_joins_moves_and_leaves(page_size):
    """More places than a page can hold have the same key, so no range of keys can separate them."""
    checked, elsewhere = CheckedPlaceIndex(page_size), point_at(DALLAS, 1.0, 9_000)
    circle = Circle(*DALLAS, 100.0)
    crowd = [checked.add(row, *DALLAS) for row in range(700)]
    assert checked.check(circle) == 700
    for slot in crowd[::2]:
        checked.move(slot, *elsewhere)
    assert checked.check(circle) == 350
    assert checked.check(Circle(*elsewhere, 100.0)) == 350
    check_pages(checked.index)
    for slot in crowd[100:]:
        checked.remove(slot)
    assert checked.check(circle) == 50
    check_pages(checked.index)


# ---- places that move --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [2, 7, PAGE_SIZE])
def test_search_agrees_with_brute_force_after_thousands_of_moves(page_size):
    """Places move within a cell and across the sea, reaches grow and shrink, and places are removed and added."""
    rng, checked = random.Random(page_size), CheckedPlaceIndex(page_size)
    slots = [checked.add(row, *near(rng, DALLAS, 3_000), rng.choice(REACHES)) for row in range(600)]
    homes = [DALLAS, *PENTAGONS[:2], (0.0, 180.0), (90.0, 0.0)]
    for step in range(4_000):
        slot = rng.choice(slots)
        if rng.random() < 0.3:
            checked.remove(slot)
            slots.remove(slot)
            slots.append(checked.add(rng.randrange(700), *near(rng, rng.choice(homes), 3_000)))
        else:
            checked.move(slot, *near(rng, rng.choice(homes), 3_000), rng.choice(REACHES))
        if step % 100 == 0:
            checked.check(Circle(*near(rng, rng.choice(homes), 1_000), rng.choice(RADII)))
    check_pages(checked.index)
    assert len(checked.index) == 600
    checked.check(*(Circle(*home, 5_000.0) for home in homes))


def test_small_move_of_place_takes_effect_at_once():
    """For a move within a cell or a page only the coordinates are written."""
    checked = CheckedPlaceIndex(4)
    slots = [checked.add(row, *DALLAS) for row in range(20)]
    checked.move(slots[7], *point_at(DALLAS, 0.0, 12))
    circle = Circle(*point_at(DALLAS, 0.0, 20), 10.0)
    assert checked.index.match([circle])[0].tolist() == [7]
    checked.move(slots[7], *DALLAS)
    assert checked.index.match([circle])[0].tolist() == []


def test_place_that_moves_within_its_page_keeps_its_position():
    """It has another key afterwards, but neither this place nor another one of the page is moved."""
    index = PlaceIndex(4)
    slots = [index.add(row, *point_at(DALLAS, row, 300), 0.0) for row in range(3)]
    before, key = index._positions.view[slots].tolist(), index._keys.items[slots[1]]
    index.move(slots[1], *point_at(DALLAS, 2.5, 600), 0.0)
    assert index._positions.view[slots].tolist() == before
    assert index._keys.items[slots[1]] != key


def test_only_pages_that_may_have_a_key_are_searched():
    """The lowest key of a page may also be the highest key of the page before it."""
    index = PlaceIndex(4, page_size=2)
    for row in range(12):
        index.add(row, *point_at(DALLAS, 1.0, 2_000.0 * row), 0.0)
    assert len(index._order) > 4
    for at, low in enumerate(index._lows[1:], 1):
        assert index._pages_in([(low + 1, low + 1)]).tolist() == [index._order[at]]
        assert index._pages_in([(low, low)]).tolist() == index._order[at - 1 : at + 1].tolist()


def test_change_of_radius_of_place_takes_effect_at_once():
    """The reach of a place changes from 0 to a kilometre and back, which also changes its page."""
    checked = CheckedPlaceIndex(4)
    slots = [checked.add(row, *DALLAS) for row in range(20)]
    circle = Circle(*point_at(DALLAS, 1.0, 1_000), 100.0)
    checked.move(slots[3], *DALLAS, 950.0)
    assert checked.index.match([circle])[0].tolist() == [3]
    assert checked.index.place(slots[3]) == (pytest.approx(unit_vector(*DALLAS)), 950.0)
    checked.move(slots[3], *DALLAS, 0.0)
    assert checked.index.match([circle])[0].tolist() == []


def test_removed_place_is_inside_nothing_and_its_slot_is_reused():
    """The new place in the slot is matched, and the old one is not."""
    checked = CheckedPlaceIndex()
    slot = checked.add(1, *DALLAS)
    checked.remove(slot)
    assert len(checked.index) == 0
    assert checked.check(Circle(*DALLAS, 1e8)) == 0
    assert checked.add(2, *PENTAGONS[0]) == slot
    assert checked.index.match([Circle(*DALLAS, 1e8)])[0].tolist() == [2]


def test_removed_place_cannot_be_moved_or_removed():
    """So a mistake of the caller is found before it does harm."""
    checked = CheckedPlaceIndex()
    slot = checked.add(1, *DALLAS)
    checked.remove(slot)
    with pytest.raises(AssertionError, match=r"^no such place"):
        checked.index.remove(slot)
    with pytest.raises(AssertionError, match=r"^no such place"):
        checked.index.move(slot, *DALLAS, 0.0)


def test_emptied_pages_are_reused():
    """A crowd that moves from city to city leaves no empty pages behind."""
    rng, checked = random.Random(2), CheckedPlaceIndex(8)
    slots = [checked.add(row, *near(rng, DALLAS, 5_000)) for row in range(800)]
    for city in PENTAGONS:
        for slot in slots:
            checked.move(slot, *near(rng, city, 5_000))
        check_pages(checked.index)
        assert len(checked.index._order) < 500
        checked.check(Circle(*city, 2_000.0))
    assert len(checked.index._counts) < 600  # in use or free
    for slot in slots:
        checked.remove(slot)
    check_pages(checked.index)
    assert len(checked.index._order) < 10


class AnyLife(RuleBasedStateMachine):
    """Any sequence of additions, moves and removals, close together and at difficult places, in the smallest pages."""

    points = st.builds(
        point_at,
        st.sampled_from([*CORNERS, *PENTAGONS]),
        st.floats(0, 6.3),
        st.sampled_from([0.0, 3.0, 80.0, 1_000.0, 40_000.0]),
    )
    reaches = st.sampled_from(REACHES)

    @initialize(page_size=st.integers(2, 5))
    def begin(self, page_size):
        self.checked = CheckedPlaceIndex(page_size)

    @rule(row=st.integers(0, 9), point=points, reach=reaches, copies=st.integers(1, 6))
    def add(self, row, point, reach, copies):
        for _ in range(copies):
            self.checked.add(row, *point, reach)

    @precondition(lambda self: self.checked.places)
    @rule(pick=st.integers(0), point=points, reach=reaches)
    def move(self, pick, point, reach):
        self.checked.move(self.any_slot(pick), *point, reach)

    @precondition(lambda self: self.checked.places)
    @rule(pick=st.integers(0))
    def remove(self, pick):
        self.checked.remove(self.any_slot(pick))

    @rule(point=points, radius=st.sampled_from([30.0, *RADII, 5e6]))
    def match(self, point, radius):
        self.checked.check(Circle(*point, radius))

    @invariant()
    def pages_are_in_order(self):
        if hasattr(self, "checked"):
            check_pages(self.checked.index)

    def any_slot(self, pick):
        return sorted(self.checked.places)[pick % len(self.checked.places)]


def test_two_pages_are_joined_when_half_of_a_page_holds_their_places():
    """A full page after them makes no difference."""
    checked = CheckedPlaceIndex(4)
    in_order = sorted((near(random.Random(n), DALLAS, 5_000) for n in range(8)), key=lambda at: cell_of(*at, 10))
    slots = [checked.add(row, *place) for row, place in enumerate(in_order)]
    assert [checked.index._counts[page] for page in checked.index._order] == [2, 2, 4]
    checked.remove(slots[1])
    assert [checked.index._counts[page] for page in checked.index._order] == [1, 2, 4]
    checked.remove(slots[3])
    assert [checked.index._counts[page] for page in checked.index._order] == [2, 4]
    check_pages(checked.index)


TestAnyLife = pytest.mark.slow(AnyLife.TestCase)
TestAnyLife.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


# ---- sorting by distance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [-1, 0, 1, 10, 99, 100, 1_000])
def test_nearest_first_sorts_nearest_and_keeps_order_of_others(count):
    """No row is lost, whatever the count."""
    rows = np.arange(0, 300, 3, dtype=np.int32)
    distances = np.random.default_rng(1).random(100)
    result = nearest_first(rows, distances, count)
    by_distance = rows[np.argsort(distances)].tolist()
    head = by_distance[: max(0, count)]
    assert result.dtype == np.int32
    assert result.tolist() == head + sorted(set(rows.tolist()) - set(head))


@pytest.mark.parametrize("count", [1, 2, 10, 500])
def test_nearest_first_finds_nearest_of_many_rows(count):
    """The nearest rows may be anywhere in the list."""
    rows, dice = np.arange(1_000, dtype=np.int32), np.random.default_rng(count)
    for _ in range(20):
        distances = dice.random(1_000)
        assert nearest_first(rows, distances, count)[:count].tolist() == np.argsort(distances)[:count].tolist()


@pytest.mark.parametrize("count", [100, 1_000])
def test_nearest_first_keeps_order_of_rows_at_equal_distances(count):
    """If all rows are among the nearest, those at the same distance keep their order."""
    rows = np.arange(100, dtype=np.int32)
    distances = np.arange(100) % 3
    assert nearest_first(rows, distances, count).tolist() == sorted(range(100), key=lambda row: row % 3)


@pytest.mark.parametrize("size", [0, 1])
def test_nearest_first_returns_empty_or_single_row_unchanged(size):
    """The requested count may be greater than the number of rows."""
    rows = np.arange(size, dtype=np.int32)
    assert nearest_first(rows, np.zeros(size), 300).tolist() == list(range(size))


# ---- arrays that grow --------------------------------------------------------------------------------------


def test_column_items_and_view_share_memory_after_growth():
    """Values written by `items` are read by `view`, and vice versa."""
    column = Column("d", 1, 2)
    column.items[1] = 5.0
    column.grow()
    assert column.view.tolist() == [[0.0, 5.0], [0.0, 0.0]]
    column.view[1, 0] = 7.0
    assert column.items[2] == 7.0
    assert len(column) == 2


def test_index_has_capacity_for_a_million_places():
    """The index reserves addresses, not memory, so that the default suits small nodes."""
    index = PlaceIndex()
    assert len(index._rows) == 1 << 20
    columns = (index._rows, index._keys, index._positions, index._places, index._slots, index._balls)
    assert 95e6 < sum(column.view.nbytes for column in columns) < 98e6
    assert index.add(0, *DALLAS, 0.0) == 0
    assert len(index) == 1
