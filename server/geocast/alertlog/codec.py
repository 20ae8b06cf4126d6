"""The encoding of log entries as bytes, for the backends that store them.

An entry is a MessagePack map with the names of the dataclasses' fields. Nodes of different releases share a log. So a
reader ignores everything that it does not know (rules LogG1 to LogG5 of the package): members of any map, additional
elements of `approval` and `terms`, shapes of other types, and entries of other kinds than revisions, cancels and the
entries of calls.

A member with its default value is not stored. So an entry that uses no features of later releases has the same bytes as
in earlier releases, and stays the same when it is restored to a log that has lost it (LogG5).
Example: an alert for which nobody had to confirm anything has no member `confirm`, as in releases without
confirmations.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, NamedTuple

import msgpack

from ..model import call as calls
from ..model.alert import (
    AcceptedTerms,
    Alert,
    AlertText,
    Approval,
    ApprovalProof,
    Cancel,
    Confirm,
    Entry,
    Origin,
    OtherKind,
    Revision,
    Shape,
    Signature,
    TimeMs,
)
from ..model.call import CallEntry
from ..model.members import CHECKS, Member, integer, members_of, resolution, text, to_shape
from ..model.times import MAX_MS

KINDS = ("revision", "cancel", *calls.KINDS)  # all kinds of entries that this release can decode
ENDINGS = ("cancel", "end")  # kinds of entries after which nothing may be appended to the chain
MAX_ENTRY_BYTES = 64 * 1024  # too little for the longest texts in eight languages (rule F8)


def encode(entry: Entry | CallEntry) -> bytes:
    """Return the stored bytes of an entry. `decode` is the inverse."""
    packed: bytes = msgpack.packb(_map(entry))
    return packed


def _map(entry: Entry | CallEntry) -> dict[str, Any]:
    if isinstance(entry, Revision):
        return _revision(entry)
    members = _OF_CALL if isinstance(entry, CallEntry) else _OF_CANCEL
    return {"kind": kind_of(entry), **_written(entry, members)}


def begins(kind: str) -> bytes:
    """Return the bytes that follow the first byte in every stored call entry of this kind.

    By comparing these bytes, a backend can find such entries without decoding any.
    """
    return b"".join(map(msgpack.packb, ("kind", kind)))


def fits(entry: Entry | CallEntry) -> bool:
    """Return whether the encoded form of `entry` is small enough for a log (LogA5)."""
    return len(encode(entry)) <= MAX_ENTRY_BYTES


def kind_of(entry: Entry | CallEntry) -> str:
    """Return the kind under which `entry` is stored: one of KINDS."""
    if isinstance(entry, CallEntry):
        return entry.kind
    return "revision" if isinstance(entry, Revision) else "cancel"


def decode(data: bytes, alert_id: str, revision: int, ends_at: int) -> Entry | OtherKind:
    """Return the entry that `data` encodes.

    `alert_id`, `revision` and `ends_at` (ms since 1970) are stored beside `data`. If this release does not know the
    entry's kind, return an `OtherKind` with just these three. Raise ValueError if `data` is not an entry, or is an
    entry that can't be sent to clients.
    """
    try:
        fields = _unpack(data)
        kind = text(fields["kind"])
        if kind not in KINDS:
            return OtherKind(alert_id, revision, ends_at)
        if kind in calls.KINDS:
            return _to_call(fields, alert_id, revision)
        return _to_revision(fields) if kind == "revision" else Cancel(**_read(fields, _OF_CANCEL))
    # Catch all exceptions: msgpack raises its own, and members with wrong values raise KeyError, TypeError and others.
    except Exception as error:
        raise ValueError(f"not an entry: {type(error).__name__}") from None


def renumbered(data: bytes, revision: int) -> bytes:
    """Return the encoded entry `data`, encoded again with the number `revision`.

    Members that this release does not know stay unchanged. An entry of a call also stores the number for which it was
    encrypted (LogC5).
    """
    fields = _unpack(data)
    sealed_as = {"sealed_as": fields.get("sealed_as") or fields["revision"]} if "sealed" in fields else {}
    packed: bytes = msgpack.packb(fields | {"revision": revision} | sealed_as)
    return packed


def checksum(alert_id: str, revision: int, payload: bytes) -> int:
    """Return the CRC-32 of an entry's id, number and encoded bytes. Backends store it beside the bytes."""
    return zlib.crc32(payload, zlib.crc32(f"{alert_id} {revision}".encode()))


def _unpack(data: bytes) -> dict[Any, Any]:
    # Maps inside members that this release does not know may have keys that are not strings.
    fields: dict[Any, Any] = msgpack.unpackb(data, strict_map_key=False)
    return fields


def _revision(entry: Revision) -> dict[str, Any]:
    alert = entry.alert
    # Don't store `rules` if it is 1. Entries of older releases have no `rules`, so they are encoded to the same bytes
    # when they are stored again.
    rules = {"rules": entry.terms.rules} if entry.terms.rules != 1 else {}
    return {
        "kind": "revision",
        "id": alert.id,
        **_written(entry, _NEEDED_OF_REVISION),
        "terms": _terms(entry.terms),
        **_written(alert, _NEEDED),
        **rules,
        **_written(alert, [_CONFIRM]),
        **_written(entry, [_ORIGIN]),
        **_written(alert, _OPTIONAL),
        **_written(entry, _SIGNED),
    }


def _written(source: object, members: Iterable["_Stored"]) -> dict[str, Any]:
    """Return a dict with the stored values of some members of a dataclass.

    Members that have their default values are omitted.
    """
    return {
        name: write(value) if write else value
        for name, write, _, default in members
        if (value := getattr(source, name)) != default
    }


def _text_maps(texts: Sequence[AlertText]) -> list[dict[str, Any]]:
    """Return the texts of an alert (one for each language) in their stored form, as a list of dicts.

    The dict of the first text has no headline and no description: these are members of the entry itself, because older
    releases look for them there.
    """
    first, *others = (_written(text, _OF_TEXT) for text in texts)
    return [{name: value for name, value in first.items() if name not in _IN_ENTRY}, *others]


def _terms(terms: AcceptedTerms) -> list[Any]:
    found = [terms.title, terms.default_age_ms, terms.location_resolution]
    return [*found, terms.simplify_m] if terms.simplify_m else found  # 0 is not stored: the same bytes as before


def _to_revision(fields: dict[str, Any]) -> Revision:
    if fields.get("texts"):
        first, *others = fields["texts"]
        fields = fields | {"texts": [first | {name: fields[name] for name in _IN_ENTRY}, *others]}
    title, default_age_ms, location_resolution, *more = fields["terms"]
    terms = AcceptedTerms(
        text(title),
        integer(default_age_ms),
        resolution(location_resolution),
        integer(fields.get("rules", 1)),
        integer(more[0]) if more else 0,
    )
    alert = Alert(id=text(fields["id"]), **_read(fields, _OF_ALERT))
    return Revision(alert=alert, terms=terms, **_read(fields, _OF_REVISION))


def _read(fields: Mapping[str, Any], members: Iterable["_Stored"]) -> dict[str, Any]:
    """Return a dict with the decoded values of these members, which are stored in `fields`.

    If `fields` lacks a member, omit the member if it has a default; otherwise raise KeyError.
    """
    return {name: read(fields[name]) for name, _, read, default in members if default is MISSING or name in fields}


def _to_texts(found: Sequence[Mapping[str, Any]]) -> tuple[AlertText, ...]:
    return tuple(AlertText(**_read(members, _OF_TEXT)) for members in found)


def _to_approval(elements: Sequence[Any]) -> Approval:
    reviewer, approved_at, *_ = elements
    return Approval(text(reviewer), _time(approved_at))


def _to_confirm(members: Mapping[str, Any]) -> Confirm:
    area_km2 = members.get("area_km2")
    return Confirm(None if area_km2 is None else float(area_km2), tuple(map(text, members.get("text", ()))))


def _to_origin(elements: Sequence[Any]) -> Origin:
    sender, identifier, blocks, *_ = elements
    return Origin(text(sender), text(identifier), integer(blocks))


def _from_proof(proof: ApprovalProof) -> dict[str, Any]:
    """Return the form (the text that reviewers signed) with its signatures in their stored form (NC7)."""
    return {"form": proof.form, "signatures": [[each.protected, each.signature] for each in proof.signatures]}


def _to_proof(members: Mapping[str, Any]) -> ApprovalProof:
    signatures = tuple(Signature(text(protected), text(mac)) for protected, mac, *_ in members["signatures"])
    return ApprovalProof(text(members["form"]), signatures)


def _to_call(fields: dict[str, Any], call_id: str, revision: int) -> CallEntry:
    """Return the call entry in `fields`.

    Its body and its encrypted part stay encoded, because readers check them (LogC2). Raise ValueError if the id in
    `fields` is not `call_id`, or the number is not `revision`.
    """
    entry = CallEntry(kind=fields["kind"], **_read(fields, _OF_CALL))
    if (entry.id, entry.revision) != (call_id, revision):
        raise ValueError("another place")
    if not entry.sealed:
        raise ValueError("not sealed")
    if entry.sealed_as and not (entry.kind in calls.MOVED and 0 < entry.sealed_as < revision):
        raise ValueError("sealed for another place")
    return entry


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("not bytes")
    return value


def _time(value: object) -> int:
    """Return `value`, a time in ms since 1970. Raise ValueError if it is not between the years 1970 and 9999."""
    if not 0 <= integer(value) <= MAX_MS:
        raise ValueError("not a time")
    return integer(value)


# ---- how the members of entries, alerts and texts are stored, by type ----------------------------------------------

_Convert = Callable[[Any], Any]
# _WRITE and _READ convert values, by the type of the member. _READ needs an item for every type that members have;
# otherwise importing this module raises KeyError. Values of types that are not in _WRITE are stored unchanged.
_READ: Mapping[Any, _Convert] = {
    **CHECKS,
    int: integer,
    bytes: _bytes,
    TimeMs: _time,
    tuple[Shape, ...]: lambda maps: tuple(map(to_shape, maps)),
    Approval: _to_approval,
    ApprovalProof: _to_proof,
    Confirm: _to_confirm,
    Origin: _to_origin,
    tuple[AlertText, ...]: _to_texts,
}
_WRITE: Mapping[Any, _Convert] = {
    tuple[Shape, ...]: lambda area: [shape.to_map() for shape in area],
    Approval: lambda approval: [approval.reviewer, approval.approved_at],
    ApprovalProof: _from_proof,
    Confirm: lambda confirm: {"area_km2": confirm.area_km2, "text": list(confirm.text)},
    Origin: lambda origin: [origin.sender, origin.identifier, origin.blocks],
    tuple[AlertText, ...]: _text_maps,
}


class _Stored(NamedTuple):
    """Describes how one member of an entry, an alert or a text is stored.

    `write` converts the member's value to its stored form; it is None if the value is stored unchanged. `read` converts
    the stored form back. `default` is MISSING if the member has no default value.
    """

    name: str
    write: _Convert | None
    read: _Convert
    default: Any


def _stored(members: Iterable[Member]) -> tuple[_Stored, ...]:
    return tuple(_Stored(each.name, _WRITE.get(each.type), _reader(each), each.default) for each in members)


def _reader(member: Member) -> _Convert:
    read = _READ[member.type]
    if member.default == "":
        return lambda value: read(value or "")
    return (lambda value: None if value is None else read(value)) if member.may_be_none else read


# In the order in which they are stored; the members of an alert are stored between those of its revision.
_OF_TEXT = _stored(members_of(AlertText))
_OF_CALL = _stored(members_of(CallEntry, without=("kind",)))
_OF_CANCEL = _stored(members_of(Cancel))
_OF_REVISION = _stored(members_of(Revision, without=("alert", "terms")))
_OF_ALERT = _stored(members_of(Alert, without=("id",)))
_NEEDED_OF_REVISION, _NEEDED = (
    tuple(each for each in members if each.default is MISSING) for members in (_OF_REVISION, _OF_ALERT)
)
_ORIGIN, *_SIGNED = _OF_REVISION[len(_NEEDED_OF_REVISION) :]
_CONFIRM, *_OPTIONAL = _OF_ALERT[len(_NEEDED) :]
_IN_ENTRY = ("headline", "description")  # the members of the first text that are stored in the entry itself
