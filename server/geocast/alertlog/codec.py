"""Entries as bytes, for the backends that store them.

MessagePack maps with the names of the dataclasses' fields. Nodes of different releases share a log, so a reader passes
over what it doesn't know (the rules LogG1 to LogG5 of the port): members of any map, further elements of `approval` and
`terms`, shapes of other types, entries of other kinds.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgpack

from ..alert import (
    NOTHING_CONFIRMED,
    SEVERITY_RANK,
    Alert,
    Approval,
    Cancel,
    Circle,
    Confirm,
    Entry,
    OtherKind,
    OtherShape,
    Polygon,
    Revision,
    Shape,
    Status,
    Terms,
)
from ..clock import MAX_MS

KINDS = ("revision", "cancel")  # those that this release knows


def encode(entry: Entry) -> bytes:
    """The bytes by which backends store `entry`; `decode` reads them."""
    packed: bytes = msgpack.packb(_revision(entry) if isinstance(entry, Revision) else _cancel(entry))
    return packed


def kind_of(entry: Entry) -> str:
    """The kind under which `entry` is stored: one of KINDS."""
    return "revision" if isinstance(entry, Revision) else "cancel"


def decode(data: bytes, alert_id: str, revision: int, ends_at: int) -> Entry | OtherKind:
    """The entry in `data`. Raises ValueError if it isn't one, or is one that could not be sent.

    `alert_id`, `revision` and `ends_at` (ms) are what stands beside it in the log: of an entry of another kind
    nothing else is known.
    """
    try:
        fields = _unpack(data)
        kind = _text(fields["kind"])
        if kind not in KINDS:
            return OtherKind(alert_id, revision, ends_at)
        return _to_revision(fields) if kind == "revision" else _to_cancel(fields)
    # msgpack raises its own classes, wrong shapes raise KeyError, TypeError and others: all say "not an entry".
    except Exception as error:
        raise ValueError(f"not an entry: {type(error).__name__}") from None


def renumbered(data: bytes, revision: int) -> bytes:
    """The bytes of the entry in `data` under another number; members that this release does not know stay."""
    packed: bytes = msgpack.packb(_unpack(data) | {"revision": revision})
    return packed


def checksum(alert_id: str, revision: int, payload: bytes) -> int:
    """The CRC-32 that a backend keeps beside the bytes of an entry."""
    return zlib.crc32(payload, zlib.crc32(f"{alert_id} {revision}".encode()))


def _unpack(data: bytes) -> dict[Any, Any]:
    # A map in a member that this release does not know may have other keys than texts.
    fields: dict[Any, Any] = msgpack.unpackb(data, strict_map_key=False)
    return fields


def _revision(entry: Revision) -> dict[str, Any]:
    alert = entry.alert
    # Without it an entry is one of rules 1. So those are the same bytes as ever when they are put back.
    rules = {"rules": entry.terms.rules} if entry.terms.rules != 1 else {}
    return {
        "kind": "revision",
        "id": alert.id,
        "revision": entry.revision,
        "source": entry.source,
        "issued_at": entry.issued_at,
        "terms": _terms(entry.terms),
        "category": alert.category,
        "headline": alert.headline,
        "description": alert.description,
        "severity": alert.severity,
        "status": alert.status,
        "occurred_at": alert.occurred_at,
        "expires_at": alert.expires_at,
        "area": [shape.to_map() for shape in alert.area],
        "approval": [alert.approval.reviewer, alert.approval.approved_at],
        **rules,
        **_confirm(alert.confirm),
    }


def _terms(terms: Terms) -> list[Any]:
    found = [terms.title, terms.default_age_ms, terms.location_resolution]
    return [*found, terms.simplify_m] if terms.simplify_m else found  # else the same bytes as ever


def _to_revision(fields: dict[str, Any]) -> Revision:
    alert = Alert(
        id=_text(fields["id"]),
        category=_text(fields["category"]),
        headline=_text(fields["headline"]),
        description=None if fields["description"] is None else _text(fields["description"]),
        severity=_one_of(SEVERITY_RANK, fields["severity"]),
        status=cast(Status, _text(fields["status"])),  # a later release may know others
        occurred_at=_time(fields["occurred_at"]),
        expires_at=_time(fields["expires_at"]),
        area=tuple(map(_to_shape, fields["area"])),
        approval=_to_approval(fields["approval"]),
        confirm=_to_confirm(fields),
    )
    title, default_age_ms, location_resolution, *more = fields["terms"]
    return Revision(
        alert,
        _integer(fields["revision"]),
        _text(fields["source"]),
        _time(fields["issued_at"]),
        Terms(
            _text(title),
            _integer(default_age_ms),
            _integer(location_resolution),
            _integer(fields.get("rules", 1)),
            _integer(more[0]) if more else 0,
        ),
    )


def _to_shape(members: Mapping[str, Any]) -> Shape:
    if _text(members["type"]) == "circle":
        return Circle(float(members["lat"]), float(members["lng"]), float(members["radius_m"]))
    json.dumps(members, allow_nan=False)  # raises for what could not be sent
    if members["type"] == "Polygon" and _is_one_ring(members["coordinates"]):
        ring = tuple((float(lng), float(lat)) for lng, lat in members["coordinates"][0])
        return Polygon(ring, float(members.get("buffer_m", 0)))
    return OtherShape(members)


def _is_one_ring(coordinates: Sequence[Any]) -> bool:
    """Whether this release knows such polygons: a later one may publish others, with holes for example."""
    return len(coordinates) == 1 and len(coordinates[0]) > 3


def _to_approval(elements: Sequence[Any]) -> Approval:
    reviewer, approved_at, *_ = elements
    return Approval(_text(reviewer), _time(approved_at))


def _confirm(confirm: Confirm) -> dict[str, Any]:
    """The member of an entry with it; none where nothing was confirmed: that entry has the same bytes as ever."""
    members = {"area_km2": confirm.area_km2, "text": list(confirm.text)}
    return {"confirm": members} if confirm != NOTHING_CONFIRMED else {}


def _to_confirm(fields: Mapping[str, Any]) -> Confirm:
    members = fields.get("confirm", {})
    area_km2 = members.get("area_km2")
    return Confirm(None if area_km2 is None else float(area_km2), tuple(map(_text, members.get("text", ()))))


def _cancel(entry: Cancel) -> dict[str, Any]:
    return {
        "kind": "cancel",
        "id": entry.id,
        "revision": entry.revision,
        "reason": entry.reason,
        "approval": [entry.approval.reviewer, entry.approval.approved_at],
        "source": entry.source,
        "cancelled_at": entry.cancelled_at,
        "ends_at": entry.ends_at,
        **_confirm(entry.confirm),
    }


def _to_cancel(fields: dict[str, Any]) -> Cancel:
    return Cancel(
        id=_text(fields["id"]),
        revision=_integer(fields["revision"]),
        reason=_text(fields["reason"]),
        approval=_to_approval(fields["approval"]),
        source=_text(fields["source"]),
        cancelled_at=_time(fields["cancelled_at"]),
        ends_at=_time(fields["ends_at"]),
        confirm=_to_confirm(fields),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _one_of(known: Mapping[Any, object], value: Any) -> Any:
    if value not in known:
        raise ValueError("not one of those that are known")
    return value


def _time(value: object) -> int:
    """A time, in ms since 1970, that can be written with four digits for the year."""
    if not 0 <= _integer(value) <= MAX_MS:
        raise ValueError("not a time")
    return _integer(value)


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value
