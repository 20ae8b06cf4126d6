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

from ..clock import MAX_MS
from ..model import call as calls
from ..model.alert import (
    FINEST_RESOLUTION,
    NOTHING_CONFIRMED,
    SEVERITY_RANK,
    AcceptedTerms,
    Alert,
    AlertText,
    Approval,
    ApprovalProof,
    Cancel,
    Certainty,
    Circle,
    Confirm,
    Entry,
    Origin,
    OtherKind,
    OtherShape,
    Polygon,
    Revision,
    Shape,
    Signature,
    Status,
    Urgency,
)
from ..model.call import CallEntry

KINDS = ("revision", "cancel", *calls.KINDS)  # those that this release knows
ENDINGS = ("cancel", "end")  # nothing follows one of these
MAX_ENTRY_BYTES = 64 * 1024  # F8: eight languages at their longest do not fit


def encode(entry: Entry | CallEntry) -> bytes:
    """The bytes by which backends store `entry`; `decode` reads them."""
    packed: bytes = msgpack.packb(_map(entry))
    return packed


def _map(entry: Entry | CallEntry) -> dict[str, Any]:
    if isinstance(entry, CallEntry):
        return _call(entry)
    return _revision(entry) if isinstance(entry, Revision) else _cancel(entry)


def begins(kind: str) -> bytes:
    """What stands behind the first byte of an entry of a call of this kind: it can be told by that alone."""
    return b"".join(map(msgpack.packb, ("kind", kind)))


def fits(entry: Entry | CallEntry) -> bool:
    """Whether `entry` is small enough for a log (LogA5)."""
    return len(encode(entry)) <= MAX_ENTRY_BYTES


def kind_of(entry: Entry | CallEntry) -> str:
    """The kind under which `entry` is stored: one of KINDS."""
    if isinstance(entry, CallEntry):
        return entry.kind
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
        if kind in calls.KINDS:
            return _to_call(fields, alert_id, revision)
        return _to_revision(fields) if kind == "revision" else _to_cancel(fields)
    # msgpack raises its own classes, wrong shapes raise KeyError, TypeError and others: all say "not an entry".
    except Exception as error:
        raise ValueError(f"not an entry: {type(error).__name__}") from None


def renumbered(data: bytes, revision: int) -> bytes:
    """The bytes of the entry in `data` under another number; members that this release does not know stay.

    One of a call keeps the number for which it was sealed (LogC5).
    """
    fields = _unpack(data)
    sealed_as = {"sealed_as": fields.get("sealed_as") or fields["revision"]} if "sealed" in fields else {}
    packed: bytes = msgpack.packb(fields | {"revision": revision} | sealed_as)
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
        **_origin(entry.origin),
        **_warned(alert),
        **_proof(entry.proof),
        **_issuer(entry),
    }


def _warned(alert: Alert) -> dict[str, Any]:
    """The members that only entries of official warnings have; any other entry has the same bytes as ever."""
    members = {
        "texts": [_text_map(text, first=n == 0) for n, text in enumerate(alert.texts)] or None,
        "urgency": alert.urgency,
        "certainty": alert.certainty,
        "onset_at": alert.onset_at,
        "web": alert.web,
    }
    return _given(members)


def _text_map(text: AlertText, *, first: bool) -> dict[str, Any]:
    """A text; the headline and description of the first stand where releases look that know no texts."""
    members = {
        "language": text.language,
        "title": text.title,
        "headline": None if first else text.headline,
        "description": None if first else text.description,
        "instruction": text.instruction,
        "area_desc": text.area_desc,
    }
    return _given(members)


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _terms(terms: AcceptedTerms) -> list[Any]:
    found = [terms.title, terms.default_age_ms, terms.location_resolution]
    return [*found, terms.simplify_m] if terms.simplify_m else found  # else the same bytes as ever


def _to_revision(fields: dict[str, Any]) -> Revision:
    alert = Alert(
        id=_text(fields["id"]),
        category=_text(fields["category"]),
        headline=_text(fields["headline"]),
        description=_text_or_none(fields["description"]),
        severity=_one_of(SEVERITY_RANK, fields["severity"]),
        status=cast(Status, _text(fields["status"])),  # a later release may know others
        occurred_at=_time(fields["occurred_at"]),
        expires_at=_time(fields["expires_at"]),
        area=tuple(map(to_shape, fields["area"])),
        approval=_to_approval(fields["approval"]),
        confirm=_to_confirm(fields),
        texts=_to_texts(fields),
        urgency=cast(Urgency | None, _text_or_none(fields.get("urgency"))),  # a later release may know others
        certainty=cast(Certainty | None, _text_or_none(fields.get("certainty"))),
        onset_at=None if fields.get("onset_at") is None else _time(fields["onset_at"]),
        web=_text_or_none(fields.get("web")),
    )
    title, default_age_ms, location_resolution, *more = fields["terms"]
    return Revision(
        alert,
        _integer(fields["revision"]),
        _text(fields["source"]),
        _time(fields["issued_at"]),
        AcceptedTerms(
            _text(title),
            _integer(default_age_ms),
            _resolution(location_resolution),
            _integer(fields.get("rules", 1)),
            _integer(more[0]) if more else 0,
        ),
        _to_origin(fields.get("origin")),
        _to_proof(fields),
        _text(fields.get("issuer") or ""),
    )


def _to_texts(fields: Mapping[str, Any]) -> tuple[AlertText, ...]:
    """The texts; of the first the headline and the description are those of the entry."""
    found = fields.get("texts", ())
    first = {"headline": fields["headline"], "description": fields["description"]}
    return tuple(_to_text({**members, **(first if n == 0 else {})}) for n, members in enumerate(found))


def _to_text(members: Mapping[str, Any]) -> AlertText:
    return AlertText(
        language=_text(members["language"]),
        title=_text(members["title"]),
        headline=_text(members["headline"]),
        description=_text_or_none(members.get("description")),
        instruction=_text_or_none(members.get("instruction")),
        area_desc=_text_or_none(members.get("area_desc")),
    )


def to_shape(members: Mapping[str, Any]) -> Shape:
    """The shape with these members. Raises KeyError, TypeError or ValueError if it is none that could be sent."""
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


def _origin(origin: Origin | None) -> dict[str, Any]:
    """The member of an entry with the message of CAP that it was made of; none where there was none."""
    return {} if origin is None else {"origin": [origin.sender, origin.identifier, origin.blocks]}


def _to_origin(elements: Sequence[Any] | None) -> Origin | None:
    if elements is None:
        return None
    sender, identifier, blocks, *_ = elements
    return Origin(_text(sender), _text(identifier), _integer(blocks))


def _proof(proof: ApprovalProof | None) -> dict[str, Any]:
    """The member of an entry with it. What is beside it stays as older releases know it (NC7)."""
    if proof is None:
        return {}
    signatures = [[each.protected, each.signature] for each in proof.signatures]
    return {"proof": {"form": proof.form, "signatures": signatures}}


def _to_proof(fields: Mapping[str, Any]) -> ApprovalProof | None:
    members = fields.get("proof")
    if members is None:
        return None
    signatures = tuple(Signature(_text(protected), _text(mac)) for protected, mac, *_ in members["signatures"])
    return ApprovalProof(_text(members["form"]), signatures)


def _issuer(entry: Entry) -> dict[str, Any]:
    """Return the member with the publisher's issuer; none for the key set itself, as in earlier releases (rule HD5)."""
    return {"issuer": entry.issuer} if entry.issuer else {}


def _cancel(entry: Cancel) -> dict[str, Any]:
    into = {"into": entry.into} if entry.into else {}  # else the same bytes as ever
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
        **into,
        **_proof(entry.proof),
        **_issuer(entry),
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
        into=_text(fields.get("into") or ""),
        proof=_to_proof(fields),
        issuer=_text(fields.get("issuer") or ""),
    )


def _call(entry: CallEntry) -> dict[str, Any]:
    sealed_as = {"sealed_as": entry.sealed_as} if entry.sealed_as else {}
    return {
        "kind": entry.kind,
        "id": entry.id,
        "revision": entry.revision,
        "ends_at": entry.ends_at,
        "plain": entry.plain,
        "sealed": entry.sealed,
        **sealed_as,
    }


def _to_call(fields: dict[str, Any], call_id: str, revision: int) -> CallEntry:
    """The entry of a call. What its two parts say is not looked at: the seal tells whether they are good (LogC2)."""
    if (fields["id"], _integer(fields["revision"])) != (call_id, revision):
        raise ValueError("another place")
    sealed, sealed_as = _bytes(fields["sealed"]), _integer(fields.get("sealed_as", 0))
    if not sealed:
        raise ValueError("not sealed")
    if sealed_as and not (fields["kind"] in calls.MOVED and 0 < sealed_as < revision):
        raise ValueError("sealed for another place")
    return CallEntry(
        id=call_id,
        revision=revision,
        ends_at=_time(fields["ends_at"]),
        kind=fields["kind"],
        plain=_bytes(fields["plain"]),
        sealed=sealed,
        sealed_as=sealed_as,
    )


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("not bytes")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _one_of(known: Mapping[Any, object], value: Any) -> Any:
    if value not in known:
        raise ValueError("not one of those that are known")
    return value


def _time(value: object) -> int:
    """A time, in ms since 1970, that can be written with four digits for the year."""
    if not 0 <= _integer(value) <= MAX_MS:
        raise ValueError("not a time")
    return _integer(value)


def _resolution(value: object) -> int:
    if not 0 <= _integer(value) <= FINEST_RESOLUTION:
        raise ValueError("not a resolution of H3")
    return _integer(value)


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not an integer")
    return value
