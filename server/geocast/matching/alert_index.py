"""An index of the areas of live alerts, which finds the areas that contain a place.

Circles are found by `circle_index` without any further test. Polygons are found there by their bounding circles, and
are then tested exactly by `spherical_polygon`.
"""

from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

from ..geometry.sphere import Vector
from ..geometry.spherical_polygon import SphericalPolygon
from ..model.alert import Circle, KnownShape, Polygon
from .circle_index import CircleIndex

T = TypeVar("T")
# The handle of an area: the id that the index of circles gave to the circles of the area. If the area has polygons, the
# handle is a tuple: that id, and the id of each polygon.
Filed: TypeAlias = "int | tuple[int, ...]"
INITIAL_CAPACITY = 1 << 12  # number of polygons for which address space is reserved at the start


class AlertIndex(Generic[T]):
    """An index of areas, which finds the areas that contain a place. Each area belongs to an item, such as an alert."""

    def __init__(self) -> None:
        self._circles: CircleIndex[T] = CircleIndex()
        self._rings: CircleIndex[tuple[T, SphericalPolygon]] = CircleIndex(INITIAL_CAPACITY)

    def add(self, item: T, area: Sequence[KnownShape]) -> Filed:
        """Add an area that belongs to `item`. Return a handle for `discard`."""
        circles = self._circles.add(item, [shape for shape in area if isinstance(shape, Circle)])
        rings = [SphericalPolygon(shape.ring, shape.buffer_m) for shape in area if isinstance(shape, Polygon)]
        return (circles, *(self._rings.add((item, ring), [ring]) for ring in rings)) if rings else circles

    def discard(self, filed: Filed) -> None:
        """Remove the area for which `add` returned this handle."""
        circles, *rings = (filed,) if isinstance(filed, int) else filed
        self._circles.discard(circles)
        for ring in rings:
            self._rings.discard(ring)

    def containing(self, place: Vector, reach_m: float) -> list[T]:
        """Return the items with an area that contains the place or comes within `reach_m` metres of it.

        An item is in the list more than once if several polygons of its area do so.
        """
        found = self._circles.containing(place, reach_m)
        if len(self._rings):
            near = self._rings.containing(place, reach_m)
            found += [item for item, ring in near if ring.contains(place, reach_m)]
        return found
