"""All live alerts as GeoJSON (RFC 7946; rules PF1 and PF4)."""

import json
from collections.abc import Iterable
from typing import Any

from ..model.alert import Circle, Polygon, Revision, Shape
from ..wire.frames import alert_map, texts_of
from . import map_polygons
from .joining import joined

MEDIA_TYPE = "application/geo+json"


def feature(revision: Revision, *, plain: bool = False) -> bytes:
    """Return the GeoJSON feature of one alert.

    Its properties are the members that are sent to subscribers, including the exact `area`. Its geometry is for drawing
    on a map; it is null if `plain` is true. An official warning also has `texts`, in all its languages.
    """
    texts = texts_of(revision)
    properties = alert_map(revision) | ({"texts": texts} if texts else {})
    members = {
        "type": "Feature",
        "id": revision.id,
        "geometry": None if plain else geometry(revision.alert.area),
        "properties": properties,
    }
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def collection(features: Iterable[bytes]) -> bytes:
    """Return one GeoJSON document (a FeatureCollection) with these features."""
    return joined(b'{"type":"FeatureCollection","features":[', b",\n", features, b"]}")


def geometry(area: Iterable[Shape]) -> dict[str, Any] | None:
    """Return shapes as one GeoJSON geometry; None if none of them can be drawn (RFC 7946, 3.2, allows null).

    The number of positions (corners) per alert is limited, and divided equally among its shapes (rule HD4).
    """
    shapes = tuple(area)
    polygons = [rings for shape in shapes for rings in _drawn(shape, map_polygons.MOST_POSITIONS // len(shapes))]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons} if polygons else None


def _drawn(shape: Shape, most: int) -> list[map_polygons.Rings]:
    if isinstance(shape, Circle):
        return map_polygons.of_circle(shape.lat, shape.lng, shape.radius_m, most)
    if isinstance(shape, Polygon):
        return map_polygons.of_ring(shape.ring, most)
    return []
