"""All live alerts, and what was cancelled, as GeoJSON (RFC 7946; rules PF1, PF4 and PF6)."""

import json
from collections.abc import Iterable
from typing import Any

from ..model.alert import Cancel, Circle, Polygon, Revision, Shape
from ..model.times import format_time
from ..wire.frames import alert_map, cancel_message, texts_of
from . import map_polygons

MEDIA_TYPE = "application/geo+json"


class Tombstone(bytes):
    """The JSON of a cancelled alert, which stays in the document until the alert would have ended (rule PF6)."""


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


def tombstone(cancel: Cancel, revision: Revision) -> Tombstone:
    """Return the tombstone of an alert: the `cancel` message, and when its last revision would have ended."""
    members = cancel_message(cancel) | {"expires_at": format_time(revision.alert.expires_at)}
    return Tombstone(json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode())


def collection(parts: Iterable[bytes]) -> bytes:
    """Return one GeoJSON document (a FeatureCollection) with these features and tombstones.

    The tombstones are in `cancelled`, a foreign member (RFC 7946, 6.1).
    """
    found: tuple[list[bytes], list[bytes]] = [], []
    for part in parts:
        found[isinstance(part, Tombstone)].append(part)
    features, cancelled = map(b",\n".join, found)  # for megabytes, `join` releases the interpreter's lock (rule HD4)
    return b"".join((b'{"type":"FeatureCollection","features":[', features, b'],"cancelled":[', cancelled, b"]}"))


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
