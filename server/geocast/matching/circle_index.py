"""An index of circles, which finds the areas of live alerts that may contain a place.

A search has three steps: cubes -> candidates -> exact test.

Each shape of an area is indexed as a circle: a circle by itself, any other shape by its bounding circle. Space is
divided into cubes in eight ways, called levels. The cubes of the first level are 1 km wide. On each further level they
are four times as wide as on the level before, and on the last level they are wider than the earth. A circle is stored
in the cube that contains its centre, on the first level whose cubes are at least four times as wide as the circle's
radius. For example, a circle with a radius of 800 m is on the level with a width of 4 km. On each level, a search
examines the cubes whose circles may contain the place, which are nearly always one to eight cubes.

Rule 1  The cubes divide the space around the unit sphere, not its surface. So poles, the antimeridian and pentagons are
        not special cases: two places that are at most `d` metres apart on the sphere differ by at most `d / R` in each
        of x, y and z.
Rule 2  Only the exact test decides whether a circle contains the place (with the formula in Rule 1 of `sphere`). If the
        shape is not a circle, only its bounding circle was tested, and the caller must test the shape itself.
Rule 3  The cost of a search depends on the number of areas nearby, not on the number of all areas.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from ..geometry.sphere import EARTH_RADIUS_M, Vector, chord2, limit_chord2, unit_vector
from ..geometry.spherical_polygon import SphericalPolygon
from ..model.alert import Circle
from .columns import Column

# Widths of the cubes, by level: 1 km, 4 km, … Eight cubes of the last width contain the whole sphere.
WIDTHS_M = tuple(1024.0 * 4**level for level in range(8))
# The greatest radius on each level except the last, which takes all greater radii.
RADII_M = tuple(width_m / 4 for width_m in WIDTHS_M[:-1])
NONE = -1  # returned by `add` for an area without a shape
# The number of circles for which address space is reserved at the start: 4 MiB. Each circle takes 40 bytes of memory.
INITIAL_CAPACITY = 1 << 17
FEW = 24  # for at most this many candidates, a loop is faster than numpy
# A margin larger than the rounding errors (about 1e-16 on the unit sphere). It is added to distances so that no cube of
# the index is missed.
ROUNDING = 1e-12
# A cube has a number along each axis, counted from the centre of the earth. The cube's key combines the three numbers,
# like digits in a number system with this base.
_BASE = 1 << 20

T = TypeVar("T")
# The slots of the circles in a cube. Nearly every cube has only one circle; its slot is then stored as a plain number,
# which takes a third of the memory of an array.
Slots: TypeAlias = "int | array[int]"
Bounded: TypeAlias = Circle | SphericalPolygon  # shapes with `lat`, `lng` and `radius_m` of a bounding circle


class CircleIndex(Generic[T]):
    """An index that finds areas by the circles around their shapes. Each area belongs to an item, such as an alert."""

    def __init__(self, capacity: int = INITIAL_CAPACITY) -> None:
        """Create an index with address space for `capacity` circles.

        If there are more circles, the arrays are copied into larger ones.
        """
        self._levels = [_Level(width_m) for width_m in WIDTHS_M]
        # Each circle has a slot, which is its index into these columns: x, y, z and radius; the position in its cube's
        # array; the next slot of the same area.
        self._circles, self._at, self._next = Column("d", capacity, 4), Column("i", capacity), Column("i", capacity)
        self._items: list[T | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._items) - len(self._free)

    def add(self, item: T, area: Sequence[Bounded]) -> int:
        """Add an area that belongs to `item`. Return its number for `discard`; NONE if the area has no shapes."""
        number = NONE
        for shape in area:
            slot = self._new_slot()
            self._items[slot] = item
            place = unit_vector(shape.lat, shape.lng)
            self._circles.view[slot] = (*place, shape.radius_m)
            self._level(shape.radius_m).put(slot, place, shape.radius_m, self._at.items)
            self._next.items[slot], number = number, slot
        return number

    def discard(self, number: int) -> None:
        """Remove the area for which `add` returned this number."""
        while number != NONE:
            *place, radius_m = self._circles.items[4 * number : 4 * number + 4].tolist()
            self._level(radius_m).take(number, (place[0], place[1], place[2]), self._at.items)
            self._items[number] = None
            self._free.append(number)
            number = self._next.items[number]

    def containing(self, place: Vector, reach_m: float) -> list[T]:
        """Return the items with a circle that contains the place or comes within `reach_m` metres of it.

        No item is in the list twice.
        """
        found: dict[T, None] = {}
        for level in self._levels:
            if level.cubes:
                few: list[int] = []
                for slots in level.near(place, reach_m):
                    if isinstance(slots, int):
                        few.append(slots)
                    elif len(slots) <= FEW:
                        few += slots
                    else:
                        found.update(self._of_many(slots, place, reach_m))
                found.update(self._of_few(few, place, reach_m))
        return list(found)

    def _of_few(self, slots: Iterable[int], place: Vector, reach_m: float) -> Iterator[tuple[T, None]]:
        circles = self._circles.items
        for slot in slots:
            x, y, z, radius_m = circles[4 * slot : 4 * slot + 4].tolist()
            off_x, off_y, off_z = x - place[0], y - place[1], z - place[2]
            squared = off_x * off_x + off_y * off_y + off_z * off_z
            limit_m = radius_m + reach_m
            # A chord is shorter than its arc, so the first comparison excludes most circles without computing a sine.
            if squared <= (limit_m / EARTH_RADIUS_M + ROUNDING) ** 2 and squared <= limit_chord2(limit_m):
                yield self._item(slot)

    def _of_many(self, slots: "array[int]", place: Vector, reach_m: float) -> Iterator[tuple[T, None]]:
        numbers = np.array(slots)
        x, y, z, radius_m = self._circles.view[numbers].T
        inside = chord2(x, y, z, place) <= limit_chord2(radius_m + reach_m)
        yield from map(self._item, numbers[inside].tolist())

    def _item(self, slot: int) -> tuple[T, None]:
        item = self._items[slot]
        assert item is not None, "a cube holds a circle that was discarded"
        return item, None

    def _level(self, radius_m: float) -> "_Level":
        return self._levels[bisect_left(RADII_M, radius_m)]

    def _new_slot(self) -> int:
        if self._free:
            return self._free.pop()
        slot = len(self._items)
        if slot == len(self._at):
            for column in (self._circles, self._at, self._next):
                column.grow()
        self._items.append(None)
        return slot


class _Level:
    """One level of the index. `cubes` has all cubes of this level's width that contain circles, by their keys."""

    __slots__ = ("cubes", "greatest_m", "width")

    def __init__(self, width_m: float) -> None:
        self.width = width_m / EARTH_RADIUS_M
        self.cubes: dict[int, Slots] = {}
        self.greatest_m = 0.0  # the greatest radius since the level was last empty, so never too small

    def put(self, slot: int, place: Vector, radius_m: float, at: memoryview) -> None:
        """Put the circle `slot` into the cube that contains its centre.

        A cube with several circles has an array of them. In this case the circle's index in the array is stored in
        `at[slot]`.
        """
        key = self._key(place)
        held = self.cubes.get(key)
        self.greatest_m = max(self.greatest_m, radius_m) if self.cubes else radius_m
        if held is None:
            self.cubes[key] = slot
            return
        if isinstance(held, int):
            at[held] = 0
            held = self.cubes[key] = array("i", [held])
        at[slot] = len(held)
        held.append(slot)

    def take(self, slot: int, place: Vector, at: memoryview) -> None:
        """Remove the circle `slot` from its cube.

        If the cube has an array of circles, the last circle in the array moves to the place that becomes free.
        """
        key = self._key(place)
        held = self.cubes[key]
        if not isinstance(held, int) and len(held) > 1:
            last = held.pop()
            if last != slot:
                held[at[slot]] = last
                at[last] = at[slot]
        else:
            del self.cubes[key]

    def near(self, place: Vector, reach_m: float) -> Iterable[Slots]:
        """Return the contents of all cubes that may have a circle within `reach_m` metres of the place.

        The content of a cube is the slot (number) of its only circle, or an array of the slots of its circles. Some of
        the cubes may be farther away.
        """
        reach = (self.greatest_m + reach_m) / EARTH_RADIUS_M + ROUNDING
        width, cubes = self.width, self.cubes
        low = [math.floor((each - reach) / width) for each in place]
        high = [math.floor((each + reach) / width) + 1 for each in place]
        if (high[0] - low[0]) * (high[1] - low[1]) * (high[2] - low[2]) >= len(cubes):
            return list(cubes.values())
        return [
            cubes[key]
            for x in range(low[0], high[0])
            for y in range(low[1], high[1])
            for key in range((x * _BASE + y) * _BASE + low[2], (x * _BASE + y) * _BASE + high[2])
            if key in cubes
        ]

    def _key(self, place: Vector) -> int:
        x, y, z = (math.floor(each / self.width) for each in place)
        return (x * _BASE + y) * _BASE + z
