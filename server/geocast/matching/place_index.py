"""An index of places, which finds the sessions inside an area.

A place has coordinates and a *reach*, which is its uncertainty in metres. It is identified by a *slot*, a number that
never changes, and it is stored in a *page*, which may change. Pages are like the leaves of a B-tree: each page has the
places of one range of keys, and is split in two when it is full. A place's key is its H3 cell, so the places of a page
are neighbours. Each page also has a *ball*: a bounding sphere in space around all its places with their reach. The
places inside a circle are found in four steps:

    cover        find the cells in which a place inside the circle may be, as ranges of keys
    pages        find the pages with such keys whose ball the circle touches (without a cover if there are few pages)
    candidates   take every place of these pages
    exact test   keep the candidates that are inside according to their squared chord

Both cover and balls are necessary. For example, a page whose keys lie in two large cells may have a ball as wide as a
country, and the cover excludes this page. The cover of a small circle contains a whole city, and the balls exclude most
of the city.

Rule 1  Cover and balls may include too much, but never too little. The radius of a ball is measured as a chord of the
        unit sphere. It is at least |place - centre| + reach for each of its places. The chord of a sum of arcs is at
        most the sum of their chords, so a circle that contains a place touches the place's ball, also at the poles,
        across the antimeridian and around pentagons. A ball grows when a place is written, and shrinks to fit when its
        page is filled again.
Rule 2  Only the exact test decides, with the current coordinates of a place (`sphere`, Rule 1).
Rule 3  If a position in a page has no place, all its numbers are NaN. Such a position is inside no area, and does not
        reveal where a subscriber was before.
Rule 4  Except `match`, each method works on one or two pages, however many places there are. The index is never rebuilt
        or copied as a whole (except by `Column`, when it grows). So a `move` never blocks the event loop.
Rule 5  Places with a great reach are in pages of their own: their keys have bit 63 set. In a page with other places,
        one such place would make the ball so wide that nearly every circle would touch the page.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..geometry.sphere import (
    EARTH_RADIUS_M,
    Floats,
    Vector,
    cell_of,
    chord2,
    chord2_to_m,
    cover,
    limit_chord2,
    unit_vector,
)
from ..geometry.spherical_polygon import SphericalPolygon
from ..model.alert import Circle, KnownShape, Polygon
from .circle_index import Bounded
from .columns import Column
from .polygons import PolygonMatcher

Ints: TypeAlias = NDArray[np.int32]
Place: TypeAlias = tuple[float, float, float]  # latitude and longitude in degrees, reach in metres

PAGE_SIZE = 256  # places per page; `bench match` is about as fast with 128 and with 512
# The H3 resolution of the cells that are used as keys. A cell is 130 m wide, so a stadium has several cells, and the
# crowd in it is spread over several pages. A finer resolution would take no more time.
KEY_RESOLUTION = 10
# A place counts as having a great reach (Rule 5) if its reach is at least this long, which is about the width of a page
# in a city. The keys of such places have bit 63 set. This bit is 0 in all H3 cells, so these keys sort after all
# others.
GREAT_REACH_M = 256.0
GREAT_REACH_KEY = 1 << 63
# The number of pages that are tested at a time: 512 KiB of coordinates, which fit into the processor's second-level
# cache.
PAGES_AT_A_TIME = 64
# With at most this many pages, test all their places at once, without first sorting the pages into inside, outside and
# unsure. Sorting so few pages saves no time (`bench match`).
FEW_PAGES = 128
# If the index has at most this many pages, the balls of all of them are tested without a cover first. With 80 pages, a
# search for a circle of 500 m takes 5 to 11 µs less; with 330, a cover saves as much as it costs. (`bench growth`
# measures such searches as a part of applying entries in a hub.)
UNCOVERED_PAGES = 128
# The number of places for which address space is reserved at the start: 97 MB of addresses. Each place takes 72 bytes
# of memory.
INITIAL_CAPACITY = 1 << 20
# A margin larger than the rounding errors (about 1e-16 on the unit sphere). It is added to distances so that no page is
# missed.
ROUNDING = 1e-12
DENSE = 16  # if the greatest row is at most this many times the number of rows, a column for all rows beats sorting
# The ball of an empty page. Its radius is so far below zero that no circle touches it.
NO_BALL = (0.0, 0.0, 0.0, -9.0)

X, Y, Z, REACH = range(4)
_NOBODY: tuple[Ints, Floats] = np.empty(0, np.int32), np.empty(0)


class PlaceIndex:
    """An index of the places of a node's sessions, which finds the sessions inside an area.

    A place has coordinates and a reach, which is its uncertainty in metres. Places are stored in pages, which are
    blocks of neighbouring places. A place is identified by its slot, a number that never changes. Each page has a
    bounding sphere around all its places, its *ball*. The docstring of the module explains how an area is matched.

    `capacity` is the number of places for which address space is reserved. If there are more places, the arrays are
    copied. `page_size` is the number of places in a page; tests use small pages, which are split and merged often. They
    also change `uncovered_pages`, the number of pages up to which no cover is made.
    """

    def __init__(self, capacity: int = INITIAL_CAPACITY, page_size: int = PAGE_SIZE) -> None:
        self.uncovered_pages = UNCOVERED_PAGES
        self._size = page_size
        self._greatest_reach_m = 0.0  # of all past and present places, so never too small

        # Columns indexed by slot: the row of the place's session (the number that the hub gives to a session), the
        # place's key, and its position (page number * page size + offset in the page).
        self._rows, self._keys, self._positions = Column("i", capacity), Column("Q", capacity), Column("q", capacity)
        self._slots_made = 0
        self._free_slots: list[int] = []

        # Columns indexed by page: the places (a row each for x, y, z and reach), their slots, and the ball (x, y, z,
        # radius). A page's places are at its first `count` offsets.
        pages = 1 + 2 * capacity // page_size  # a page is about 0.7 full, as the leaves of a B-tree are
        self._places, self._slots = Column("d", pages, 4, page_size), Column("i", pages, page_size)
        self._balls = Column("d", pages, 4)
        self._counts: list[int] = []
        self._free_pages: list[int] = []

        # The pages in use, in the order of their keys. A page has the keys from its own lowest key to the lowest key of
        # the next page. Both ends are included, because one key may have more places than fit into a page.
        self._lows = [0]
        self._order = array("i", [self._new_page()])

    def __len__(self) -> int:
        return self._slots_made - len(self._free_slots)

    # ---- adding, moving and removing places ------------------------------------------------------------------------

    def add(self, row: int, lat: float, lng: float, reach_m: float) -> int:
        """Add a place of the session in `row`, and return its slot, the number that identifies it in the other methods.

        `lat` and `lng` are in degrees. `reach_m` is the place's uncertainty in metres.
        """
        slot = self._free_slots.pop() if self._free_slots else self._new_slot()
        self._rows.items[slot] = row
        self._put_in(slot, _key(lat, lng, reach_m), unit_vector(lat, lng), reach_m)
        return slot

    def move(self, slot: int, lat: float, lng: float, reach_m: float) -> None:
        """Move a place to new coordinates in degrees, with a new reach (uncertainty) in metres.

        If the place stays in the same page (block of neighbouring places), as it does for people on foot, only its
        coordinates and reach are written. That takes 3 µs (`bench match`, "move near").
        """
        key, position = _key(lat, lng, reach_m), self._positions.items[slot]
        point = unit_vector(lat, lng)
        assert position >= 0, "no such place"
        if key == self._keys.items[slot] or self._order[self._find(key)] == position // self._size:
            self._keys.items[slot] = key
            self._write(position, point, reach_m)
        else:
            self._take_out(slot)
            self._put_in(slot, key, point, reach_m)

    def remove(self, slot: int) -> None:
        """Remove a place and erase its coordinates (Rule 3). Its slot may be reused."""
        self._take_out(slot)
        self._positions.items[slot], self._keys.items[slot] = -1, 0
        self._free_slots.append(slot)

    def place(self, slot: int) -> tuple[Vector, float]:
        """Return the unit vector of a place, and its reach (uncertainty) in metres."""
        places, at, size = self._places.items, self._first_of(self._positions.items[slot]), self._size
        return (places[at], places[at + size], places[at + 2 * size]), places[at + 3 * size]

    # ---- finding the places inside an area -------------------------------------------------------------------------

    def match(self, area: Sequence[KnownShape]) -> tuple[Ints, Floats]:
        """Return two arrays: the rows (session numbers) with a place inside the area, and their distances in metres.

        The rows are distinct and ascending. A row's distance is the smallest distance from any of its places inside a
        shape to the centre of that shape.
        """
        found = [part for shape in area for part in self._inside(shape) if len(part[0])]
        if not found:  # this is frequent: many alerts concern no session of this process
            return _NOBODY
        slots = np.concatenate([slots for slots, _ in found])
        chords2 = np.concatenate([chords2 for _, chords2 in found])
        rows, chords2 = _nearest_of_each(self._rows.view[slots], chords2)
        return rows, chord2_to_m(chords2)

    def _inside(self, shape: KnownShape) -> list[tuple[Ints, Floats]]:
        """Return the places that are inside the shape.

        The result is a list of pairs of arrays: the slots of some places, and the squares of their straight-line
        distances to the shape's centre (on a sphere of radius 1).
        """
        return self._inside_circle(shape) if isinstance(shape, Circle) else self._inside_polygon(shape)

    def _inside_polygon(self, polygon: Polygon) -> list[tuple[Ints, Floats]]:
        ring = SphericalPolygon(polygon.ring, polygon.buffer_m)
        pages = self._pages_near(ring, ring.centre)
        matcher = PolygonMatcher(ring)
        few = len(pages) <= FEW_PAGES
        inside, unsure = (pages[:0], np.arange(len(pages))) if few else matcher.sort(self._balls.view[pages])
        limit = limit_chord2(ring.radius_m + self._greatest_reach_m)
        parts = []
        for sure, which in ((True, inside), (False, unsure)):
            for start in range(0, len(which), PAGES_AT_A_TIME):
                some = which[start : start + PAGES_AT_A_TIME]
                places = self._places.view[pages[some]]
                chords2 = chord2(places[:, X], places[:, Y], places[:, Z], ring.centre)
                page, offset = np.nonzero(chords2 <= limit)
                if not sure:
                    points = np.ascontiguousarray(places[page, :, offset].T)
                    those = matcher.inside(points[:REACH], points[REACH])
                    page, offset = page[those], offset[those]
                parts.append((self._slots.view[pages[some][page], offset], chords2[page, offset]))
        return parts

    def _inside_circle(self, circle: Circle) -> list[tuple[Ints, Floats]]:
        centre = unit_vector(circle.lat, circle.lng)
        pages = self._pages_near(circle, centre)
        return [
            self._inside_pages(pages[start : start + PAGES_AT_A_TIME], centre, circle.radius_m)
            for start in range(0, len(pages), PAGES_AT_A_TIME)
        ]

    def _pages_near(self, circle: Bounded, centre: Vector) -> Ints:
        """Return the pages (blocks of neighbouring places) that may have a place inside the circle.

        A page is returned if two things are true: at least one of its keys (H3 cells) is among the cells that cover the
        circle, and the bounding sphere of its places touches the circle. If there are few pages, only the second
        condition is tested.
        """
        if len(self._order) <= self.uncovered_pages:
            pages: Ints = np.array(self._order)
        else:
            reach_m = circle.radius_m + self._greatest_reach_m
            pages = self._pages_in(cover(circle.lat, circle.lng, reach_m, KEY_RESOLUTION))
        x, y, z, radius = self._balls.view[pages].T
        chord = math.sqrt(limit_chord2(circle.radius_m)) + ROUNDING
        near: Ints = pages[np.sqrt(chord2(x, y, z, centre)) <= radius + chord]
        return near

    def _pages_in(self, key_ranges: Sequence[tuple[int, int]]) -> Ints:
        """Return the pages (blocks of neighbouring places) that may have a place whose key is in one of these ranges.

        Pages of places with a great reach are included: their keys are the same except for one bit (Rule 5). No page is
        returned twice, and at least one page is returned.
        """
        order: Ints = np.array(self._order)
        parts, end = [], 0
        for great in (0, GREAT_REACH_KEY) if self._greatest_reach_m >= GREAT_REACH_M else (0,):
            for first, last in key_ranges:
                start = max(end, bisect_left(self._lows, first | great) - 1)
                end = max(end, bisect_right(self._lows, last | great))
                if start < end:
                    parts.append(order[start:end])
        return np.concatenate(parts)

    def _inside_pages(self, pages: Ints, centre: Vector, radius_m: float) -> tuple[Ints, Floats]:
        """Return the slots of those places in these pages that are inside a circle, and their squared chords.

        A place's chord is its straight-line distance to the circle's centre, on a sphere of radius 1. The first
        comparison excludes all places that would be outside even with the greatest reach of all places. The remaining
        places are inside if their chord is at most the circle's radius. For the others, each place's own reach is added
        to the radius (Rule 2).
        """
        places = self._places.view[pages]
        all_chords2 = chord2(places[:, X], places[:, Y], places[:, Z], centre).ravel()
        at = np.flatnonzero(all_chords2 <= limit_chord2(radius_m + self._greatest_reach_m))
        if len(at) == 0:  # usually so if the circle is small; this saves half of the time
            return _NOBODY
        chords2 = all_chords2[at]
        inside = chords2 <= limit_chord2(radius_m)
        unsure = np.flatnonzero(~inside)  # these are few; the sine in their limits costs more than everything else
        page, offset = np.divmod(at[unsure], self._size)
        inside[unsure] = chords2[unsure] <= limit_chord2(radius_m + places[page, REACH, offset])
        return self._slots.view[pages].ravel()[at[inside]], chords2[inside]

    # ---- a place and its page ----------------------------------------------------------------------------

    def _find(self, key: int) -> int:
        """Return the index in `_order` of the page (block of neighbouring places) in which this key belongs."""
        return bisect_right(self._lows, key) - 1

    def _put_in(self, slot: int, key: int, point: Vector, reach_m: float) -> None:
        """Add the place to the page (block of neighbouring places) in which its key belongs.

        If the page is full, split it first.
        """
        at = self._find(key)
        if self._counts[self._order[at]] == self._size:
            self._split(at)
            at = self._find(key)
        page = self._order[at]
        position = page * self._size + self._counts[page]
        self._counts[page] += 1
        self._slots.items[position] = slot
        self._keys.items[slot] = key
        self._positions.items[slot] = position
        self._write(position, point, reach_m)

    def _take_out(self, slot: int) -> None:
        """Remove the place from its page (block of neighbouring places).

        The last place of the page moves to the position that becomes free, so that the page has no gaps.
        """
        position = self._positions.items[slot]
        assert position >= 0, "no such place"
        page = position // self._size
        count = self._counts[page] - 1
        last = page * self._size + count
        places, at, end = self._places.items, self._first_of(position), self._first_of(last)
        for _ in (X, Y, Z, REACH):
            places[at], places[end] = places[end], math.nan
            at, end = at + self._size, end + self._size
        moved = self._slots.items[position] = self._slots.items[last]
        self._positions.items[moved] = position
        self._counts[page] = count
        if 4 * count <= self._size and count % max(1, self._size // 8) == 0:
            self._merge(page, self._keys.items[slot])

    def _write(self, position: int, point: Vector, reach_m: float) -> None:
        """Store the coordinates and the reach of a place at this position.

        Each page (block of neighbouring places) has a bounding sphere. If the place is not inside the sphere of its
        page, the sphere is enlarged (Rule 1).
        """
        x, y, z = point
        places, at, size = self._places.items, self._first_of(position), self._size
        places[at] = x
        places[at + size] = y
        places[at + 2 * size] = z
        places[at + 3 * size] = reach_m
        if reach_m > self._greatest_reach_m:
            self._greatest_reach_m = reach_m
        balls, ball = self._balls.items, position // size * 4
        if balls[ball + 3] < 0:  # the first place of the page becomes the centre of its ball
            balls[ball], balls[ball + 1], balls[ball + 2], balls[ball + 3] = x, y, z, 0.0
        radius = math.dist(point, balls[ball : ball + 3]) + reach_m / EARTH_RADIUS_M
        if radius > balls[ball + 3]:
            balls[ball + 3] = radius

    def _first_of(self, position: int) -> int:
        """Return the index in `places.items` of the x coordinate of the place at this position.

        The place's y, z and reach come after it, each one page size further on.
        """
        return position + position // self._size * 3 * self._size

    # ---- splitting, joining and filling pages ----------------------------------------------------------------------

    def _split(self, at: int) -> None:
        """Split a full page (block of neighbouring places) in two.

        A new page gets the half of the places that have the greater keys. It comes directly after the old page in
        `_order`.
        """
        page, new = self._order[at], self._new_page()
        places, slots = self._places.view[page].copy(), self._slots.view[page].copy()
        keys = self._keys.view[slots]
        by_key = np.argsort(keys)
        lower, upper = np.array_split(by_key, 2)
        self._fill(page, places[:, lower], slots[lower])
        self._fill(new, places[:, upper], slots[upper])
        self._lows.insert(at + 1, int(keys[upper[0]]))
        self._order.insert(at + 1, new)

    def _merge(self, page: int, key: int) -> None:
        """Join a nearly empty page (block of neighbouring places) with the next or the previous page, if possible.

        It is possible if the two pages together have at most half as many places as fit into a page. `key` is a key in
        the page's range. If very many places have this key, it is in the range of several consecutive pages, so the
        search for the page starts at the first of them.
        """
        at = self._order.index(page, max(0, bisect_left(self._lows, key) - 1))
        for left in (at, at - 1):
            if 0 <= left < len(self._order) - 1 and self._fit(left):
                self._join(left)
                return

    def _fit(self, left: int) -> bool:
        return sum(self._counts[page] for page in self._order[left : left + 2]) <= self._size // 2

    def _join(self, left: int) -> None:
        """Move all places of the page at `left` + 1 in `_order` into the page at `left`, and free the emptied page."""
        page, emptied = self._order[left], self._order[left + 1]
        pages = [(each, self._counts[each]) for each in (page, emptied)]
        places = np.concatenate([self._places.view[each, :, :count] for each, count in pages], axis=1)
        slots = np.concatenate([self._slots.view[each, :count] for each, count in pages])
        self._fill(page, places, slots)
        self._fill(emptied, places[:, :0], slots[:0])
        del self._lows[left + 1], self._order[left + 1]
        self._free_pages.append(emptied)

    def _fill(self, page: int, places: Floats, slots: Ints) -> None:
        """Replace all places of a page (block of neighbouring places), and shrink its bounding sphere to fit."""
        count = len(slots)
        self._places.view[page, :, :count] = places
        self._places.view[page, :, count:] = math.nan
        self._slots.view[page, :count] = slots
        self._positions.view[slots] = page * self._size + np.arange(count)
        self._counts[page] = count
        self._balls.view[page] = _ball(places) if count else NO_BALL

    def _new_page(self) -> int:
        """Return the number of an empty page (block of places), which the caller must insert into `_order`."""
        if self._free_pages:
            return self._free_pages.pop()
        page = len(self._counts)
        if page == len(self._balls):
            for column in (self._places, self._slots, self._balls):
                column.grow()
        self._places.view[page] = math.nan
        self._balls.view[page] = NO_BALL
        self._counts.append(0)
        return page

    def _new_slot(self) -> int:
        slot = self._slots_made
        if slot == len(self._rows):
            for column in (self._rows, self._keys, self._positions):
                column.grow()
        self._slots_made += 1
        return slot


def nearest_first(rows: Ints, distances: Floats, count: int) -> Ints:
    """Move the rows (session numbers) with the `count` smallest distances to the front, and return all rows.

    The rows at the front are sorted by distance, and the other rows keep their order. `distances` has the distance of
    each row, in any unit. Sorting all rows would make the sending slower: rows sorted by distance are sockets in random
    order in memory, for which sending takes a quarter longer (ADR 6). So the last recipients would wait longer.
    """
    nearest = np.argpartition(distances, count - 1)[:count] if 0 < count < len(rows) else np.arange(len(rows))
    nearest = nearest[np.argsort(distances[nearest], kind="stable")][: max(0, count)]
    return np.concatenate([rows[nearest], np.delete(rows, nearest)])


def _key(lat: float, lng: float, reach_m: float) -> int:
    cell = cell_of(lat, lng, KEY_RESOLUTION)
    return cell if reach_m < GREAT_REACH_M else cell | GREAT_REACH_KEY


def _ball(places: Floats) -> tuple[float, float, float, float]:
    """Return a sphere (x, y, z, radius) that contains all of these places, each with its reach (Rule 1).

    `places` is an array with four rows: x, y, z, and the reach in metres.
    """
    x, y, z = (float(axis.mean()) for axis in places[:REACH])
    radius = np.sqrt(chord2(places[X], places[Y], places[Z], (x, y, z))) + places[REACH] / EARTH_RADIUS_M
    return x, y, z, float(radius.max())


def _nearest_of_each(rows: Ints, chords2: Floats) -> tuple[Ints, Floats]:
    """Return each session's row (number) once, in ascending order, with the smallest of its squared chords.

    `rows` has the row of each place that was found, so a session with several places is in it several times. `chords2`
    has the squared chord of each place: the square of the distance to the centre of the shape that contains the place.
    """
    if len(rows) < 2:
        return rows, chords2
    end = int(rows.max()) + 1
    if end <= DENSE * len(rows):  # a tenth of the time of sorting: 58 instead of 624 µs for 15,000 rows (`bench match`)
        least = np.full(end, math.inf)
        np.minimum.at(least, rows, chords2)
        found = np.flatnonzero(least < math.inf)
        return found.astype(rows.dtype), least[found]
    by_row = np.argsort(rows)
    rows, chords2 = rows[by_row], chords2[by_row]
    new = np.ones(len(rows), np.bool_)
    np.not_equal(rows[1:], rows[:-1], out=new[1:])
    first = np.flatnonzero(new)
    return rows[first], np.minimum.reduceat(chords2, first)
