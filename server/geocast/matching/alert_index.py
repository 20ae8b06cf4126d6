"""Which live areas hold a place, whatever their shapes: circles by `areas` alone, polygons by their bounding circles
first and then exactly (`spherical_polygon`).
"""

from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

from ..geometry.sphere import Vector
from ..geometry.spherical_polygon import SphericalPolygon
from ..model.alert import Circle, KnownShape, Polygon
from .circle_index import NONE, CircleIndex

T = TypeVar("T")
# By what an area is discarded: the number of its circles; where it has polygons, each of theirs stands behind it.
Filed: TypeAlias = "int | tuple[int, ...]"
INITIAL_CAPACITY = 1 << 12  # polygons for which address space is taken at the start


class AlertIndex(Generic[T]):
    """Areas, each of which stands for something: `containing` says for what those stand that a place is inside of."""

    def __init__(self) -> None:
        self._circles: CircleIndex[T] = CircleIndex()
        self._rings: CircleIndex[tuple[T, SphericalPolygon]] = CircleIndex(INITIAL_CAPACITY)

    def add(self, item: T, area: Sequence[KnownShape]) -> Filed:
        """File an area for `item`. Returns that by which it is discarded."""
        circles = self._circles.add(item, [shape for shape in area if isinstance(shape, Circle)])
        rings = [SphericalPolygon(shape.ring, shape.buffer_m) for shape in area if isinstance(shape, Polygon)]
        return (circles, *(self._rings.add((item, ring), [ring]) for ring in rings)) if rings else circles

    def discard(self, filed: Filed) -> None:
        """Forget the area that was filed so."""
        circles, *rings = (filed,) if isinstance(filed, int) else filed
        self._circles.discard(circles)
        for ring in rings:
            self._rings.discard(ring)

    def containing(self, place: Vector, reach_m: float) -> list[T]:
        """What has the place within `reach_m` of its area; that may be in the list once for each of its polygons."""
        found = self._circles.containing(place, reach_m)
        if len(self._rings):
            near = self._rings.containing(place, reach_m)
            found += [item for item, ring in near if ring.contains(place, reach_m)]
        return found


__all__ = ["NONE", "AlertIndex", "Filed"]
