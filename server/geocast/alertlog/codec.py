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
    NOTHING_CONFIRMED,
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
    if isinstance(entry, CallEntry):
        return _call(entry)
    return _revision(entry) if isinstance(entry, Revision) else _cancel(entry)


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
        return _to_revision(fields) if kind == "revision" else _to_cancel(fields)
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
        "revision": entry.revision,
        "source": entry.source,
        "issued_at": entry.issued_at,
        "terms": _terms(entry.terms),
        **_written(alert, _NEEDED),
        **rules,
        **_confirm(alert.confirm),
        **_origin(entry.origin),
        **_written(alert, _OPTIONAL),
        **_proof(entry.proof),
        **_issuer(entry),
    }


def _written(source: Alert | AlertText, members: Iterable["_Stored"]) -> dict[str, Any]:
    """Return a dict with the stored values of some members of an alert or a text.

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
    alert = Alert(
        id=text(fields["id"]), confirm=_to_confirm(fields), **_read(fields, _NEEDED), **_read(fields, _OPTIONAL)
    )
    title, default_age_ms, location_resolution, *more = fields["terms"]
    return Revision(
        alert,
        integer(fields["revision"]),
        text(fields["source"]),
        _time(fields["issued_at"]),
        AcceptedTerms(
            text(title),
            integer(default_age_ms),
            resolution(location_resolution),
            integer(fields.get("rules", 1)),
            integer(more[0]) if more else 0,
        ),
        _to_origin(fields.get("origin")),
        _to_proof(fields),
        text(fields.get("issuer") or ""),
    )


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


def _confirm(confirm: Confirm) -> dict[str, Any]:
    """Return {"confirm": …}, which says what a person confirmed, or {} if nothing was confirmed."""
    members = {"area_km2": confirm.area_km2, "text": list(confirm.text)}
    return {"confirm": members} if confirm != NOTHING_CONFIRMED else {}


def _to_confirm(fields: Mapping[str, Any]) -> Confirm:
    members = fields.get("confirm", {})
    area_km2 = members.get("area_km2")
    return Confirm(None if area_km2 is None else float(area_km2), tuple(map(text, members.get("text", ()))))


def _origin(origin: Origin | None) -> dict[str, Any]:
    """Return {"origin": …}, the CAP message from which the entry was made, or {} if it was not made from one."""
    return {} if origin is None else {"origin": [origin.sender, origin.identifier, origin.blocks]}


def _to_origin(elements: Sequence[Any] | None) -> Origin | None:
    if elements is None:
        return None
    sender, identifier, blocks, *_ = elements
    return Origin(text(sender), text(identifier), integer(blocks))


def _proof(proof: ApprovalProof | None) -> dict[str, Any]:
    """Return {"proof": …}, the form (the text that reviewers signed) with its signatures, or {} if none (NC7)."""
    if proof is None:
        return {}
    signatures = [[each.protected, each.signature] for each in proof.signatures]
    return {"proof": {"form": proof.form, "signatures": signatures}}


def _to_proof(fields: Mapping[str, Any]) -> ApprovalProof | None:
    members = fields.get("proof")
    if members is None:
        return None
    signatures = tuple(Signature(text(protected), text(mac)) for protected, mac, *_ in members["signatures"])
    return ApprovalProof(text(members["form"]), signatures)


def _issuer(entry: Entry) -> dict[str, Any]:
    """Return {"issuer": …}, the issuer of the publisher's token, or {} if the issuer is an empty string (HD5)."""
    return {"issuer": entry.issuer} if entry.issuer else {}


def _cancel(entry: Cancel) -> dict[str, Any]:
    into = {"into": entry.into} if entry.into else {}  # omitted if empty: the same bytes as in older releases
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
        id=text(fields["id"]),
        revision=integer(fields["revision"]),
        reason=text(fields["reason"]),
        approval=_to_approval(fields["approval"]),
        source=text(fields["source"]),
        cancelled_at=_time(fields["cancelled_at"]),
        ends_at=_time(fields["ends_at"]),
        confirm=_to_confirm(fields),
        into=text(fields.get("into") or ""),
        proof=_to_proof(fields),
        issuer=text(fields.get("issuer") or ""),
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
    """Return the call entry in `fields`.

    Its body and its encrypted part stay encoded, because readers check them (LogC2). Raise ValueError if the id in
    `fields` is not `call_id`, or the number is not `revision`.
    """
    if (fields["id"], integer(fields["revision"])) != (call_id, revision):
        raise ValueError("another place")
    sealed, sealed_as = _bytes(fields["sealed"]), integer(fields.get("sealed_as", 0))
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


def _time(value: object) -> int:
    """Return `value`, a time in ms since 1970. Raise ValueError if it is not between the years 1970 and 9999."""
    if not 0 <= integer(value) <= MAX_MS:
        raise ValueError("not a time")
    return integer(value)


# ---- how the members of alerts and texts are stored, by type -------------------------------------------------------

_Convert = Callable[[Any], Any]
# _WRITE and _READ convert values, by the type of the member. _READ needs an item for every type that members have;
# otherwise importing this module raises KeyError. Values of types that are not in _WRITE are stored unchanged.
_READ: Mapping[Any, _Convert] = {
    **CHECKS,
    TimeMs: _time,
    tuple[Shape, ...]: lambda maps: tuple(map(to_shape, maps)),
    Approval: _to_approval,
    tuple[AlertText, ...]: _to_texts,
}
_WRITE: Mapping[Any, _Convert] = {
    tuple[Shape, ...]: lambda area: [shape.to_map() for shape in area],
    Approval: lambda approval: [approval.reviewer, approval.approved_at],
    tuple[AlertText, ...]: _text_maps,
}


class _Stored(NamedTuple):
    """Describes how one member of an alert or of a text is stored.

    `write` converts the member's value to its stored form; it is None if the value is stored unchanged. `read` converts
    the stored form back. `default` is MISSING if the member has no default value.
    """

    name: str
    write: _Convert | None
    read: _Convert
    default: Any


def _stored(member: Member) -> _Stored:
    read = _READ[member.type]
    return _Stored(member.name, _WRITE.get(member.type), _or_none(read) if member.may_be_none else read, member.default)


def _or_none(read: _Convert) -> _Convert:
    return lambda value: None if value is None else read(value)


_ALERT = members_of(Alert, without=("id", "confirm"))
_NEEDED = tuple(_stored(each) for each in _ALERT if not each.is_optional)
_OPTIONAL = tuple(_stored(each) for each in _ALERT if each.is_optional)
_OF_TEXT = tuple(map(_stored, members_of(AlertText)))
_IN_ENTRY = ("headline", "description")  # the members of the first text that are stored in the entry itself
