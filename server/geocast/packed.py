"""An accepted revision in few bytes: how a live alert keeps it while nobody needs it.

As objects a revision takes 1.3 KiB, and nearly all live alerts concern no session of a process. The bytes are for this
process alone, so they name no field. What the alert's other revisions share is kept beside them by whoever packs.
"""

from dataclasses import astuple
from typing import Any

import msgpack

from .alert import Alert, Approval, Circle, Confirm, OtherShape, Polygon, Revision, Shape, Terms


def pack(revision: Revision) -> bytes:
    """All of a revision but its id."""
    alert, terms = revision.alert, revision.terms
    packed: bytes = msgpack.packb(
        (
            (revision.revision, revision.source, revision.issued_at),
            (alert.category, alert.headline, alert.description, alert.severity, alert.status),
            (alert.occurred_at, alert.expires_at),
            [_plain(shape) for shape in alert.area],
            (alert.approval.reviewer, alert.approval.approved_at),
            astuple(terms),
            (alert.confirm.area_km2, alert.confirm.text),
        )
    )
    return packed


def unpack(alert_id: str, data: bytes) -> Revision:
    """The revision that was packed."""
    head, texts, times, area, approval, terms, (area_km2, kinds) = msgpack.unpackb(data, strict_map_key=False)
    number, source, issued_at = head
    category, headline, description, severity, status = texts
    occurred_at, expires_at = times
    alert = Alert(
        alert_id,
        category,
        headline,
        description,
        severity,
        status,
        occurred_at,
        expires_at,
        tuple(map(_shape, area)),
        Approval(*approval),
        Confirm(area_km2, tuple(kinds)),
    )
    return Revision(alert, number, source, issued_at, Terms(*terms))


def _plain(shape: Shape) -> Any:
    """A circle as three numbers, a polygon as its buffer and its ring end to end, any other shape as it came."""
    if isinstance(shape, Circle):
        return shape.lat, shape.lng, shape.radius_m
    if isinstance(shape, Polygon):
        return [shape.buffer_m], [number for corner in shape.ring for number in corner]
    return shape.members


def _shape(plain: Any) -> Shape:
    if not isinstance(plain, list):
        return OtherShape(plain)
    if len(plain) == 3:
        return Circle(*plain)
    [buffer_m], numbers = plain
    return Polygon(tuple(zip(numbers[::2], numbers[1::2], strict=True)), buffer_m)
