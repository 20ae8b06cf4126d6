"""Entries as bytes, for the backends that store them.

MessagePack maps with the names of the dataclasses' fields. A reader ignores fields that it doesn't know, so that
nodes of different versions can share a log.
"""

import zlib
from typing import Any

import msgpack

from ..alert import Alert, Approval, Cancel, Circle, Entry, Revision, Terms


def encode(entry: Entry) -> bytes:
    """The bytes of `entry`."""
    packed: bytes = msgpack.packb(_revision(entry) if isinstance(entry, Revision) else _cancel(entry))
    return packed


def decode(data: bytes) -> Entry:
    """The entry in `data`. Raises ValueError if it isn't one."""
    try:
        fields = msgpack.unpackb(data)
        return _to_revision(fields) if fields["kind"] == "revision" else _to_cancel(fields)
    # msgpack raises its own classes, wrong shapes raise KeyError, TypeError and others: all say "not an entry".
    except Exception as error:
        raise ValueError(f"not an entry: {type(error).__name__}") from None


def checksum(alert_id: str, revision: int, payload: bytes) -> int:
    """The CRC-32 that a backend keeps beside the bytes of an entry."""
    return zlib.crc32(payload, zlib.crc32(f"{alert_id} {revision}".encode()))


def _revision(entry: Revision) -> dict[str, Any]:
    alert = entry.alert
    return {
        "kind": "revision",
        "id": alert.id,
        "revision": entry.revision,
        "source": entry.source,
        "issued_at": entry.issued_at,
        "terms": [entry.terms.title, entry.terms.max_age_ms, entry.terms.location_resolution],
        "category": alert.category,
        "headline": alert.headline,
        "description": alert.description,
        "severity": alert.severity,
        "status": alert.status,
        "occurred_at": alert.occurred_at,
        "expires_at": alert.expires_at,
        "area": [circle.to_map() for circle in alert.area],
        "approval": [alert.approval.reviewer, alert.approval.approved_at],
    }


def _to_revision(fields: dict[str, Any]) -> Revision:
    alert = Alert(
        id=_text(fields["id"]),
        category=_text(fields["category"]),
        headline=_text(fields["headline"]),
        description=None if fields["description"] is None else _text(fields["description"]),
        severity=fields["severity"],
        status=fields["status"],
        occurred_at=_integer(fields["occurred_at"]),
        expires_at=_integer(fields["expires_at"]),
        area=tuple(Circle(float(c["lat"]), float(c["lng"]), float(c["radius_m"])) for c in fields["area"]),
        approval=Approval(*fields["approval"]),
    )
    return Revision(
        alert,
        _integer(fields["revision"]),
        _text(fields["source"]),
        _integer(fields["issued_at"]),
        Terms(*fields["terms"]),
    )


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
    }


def _to_cancel(fields: dict[str, Any]) -> Cancel:
    if fields["kind"] != "cancel":
        raise ValueError("neither revision nor cancel")
    return Cancel(
        id=_text(fields["id"]),
        revision=_integer(fields["revision"]),
        reason=_text(fields["reason"]),
        approval=Approval(*fields["approval"]),
        source=_text(fields["source"]),
        cancelled_at=_integer(fields["cancelled_at"]),
        ends_at=_integer(fields["ends_at"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value
