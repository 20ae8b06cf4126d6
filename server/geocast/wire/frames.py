"""Encode messages as WebSocket frames, in the wire formats JSON and MessagePack.

Server frames are not masked (RFC 6455, 5.1) and no extension is negotiated, so the bytes of a frame do not depend on
the connection. So an alert is encoded once for each format, and the same bytes object is written to every transport.
Therefore a fan-out costs no more than one `write` for each session (ADR 1). An alert in several languages has one frame
for each format and each language in which it is sent.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import msgpack
from websockets.frames import Frame, Opcode

from ..model.alert import AcceptedTerms, Alert, AlertText, ApprovalProof, Cancel, Entry, Revision, Shape, TimeMs
from ..model.members import members_of
from ..model.times import format_time
from .output import AlertOut, area_out
from .strict_json import load_json, load_msgpack

FIN = 0x80  # the bit of a frame's first byte that marks the last frame of a message


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire format: how messages are encoded as WebSocket frames and decoded.

    `number` is its index in WIRES. `subprotocol` is the WebSocket subprotocol by which a client selects the format.
    `opcode` is the opcode of its frames. `loads` raises UnicodeDecodeError for text that is not UTF-8, and Malformed
    for any other data that is not exactly one strict JSON object or MessagePack map.
    """

    number: int
    subprotocol: str
    opcode: Opcode
    dumps: Callable[[Mapping[str, Any]], bytes]
    loads: Callable[[bytes], dict[str, Any]]

    def frame(self, message: Mapping[str, Any]) -> bytes:
        """Return the message as one unmasked frame."""
        data = self.dumps(message)
        return _head(self.opcode, len(data)) + data


def _head(opcode: int, size: int) -> bytes:
    """Return the header of an unmasked frame with `size` bytes of payload (RFC 6455, 5.2).

    `Frame.serialize` does the same, but takes 3 µs, which is as long as it takes to encode `welcome`.
    """
    if size < 126:
        return bytes((FIN | opcode, size))
    if size < 1 << 16:
        return bytes((FIN | opcode, 126)) + size.to_bytes(2)
    return bytes((FIN | opcode, 127)) + size.to_bytes(8)


# `json.dumps` would make a new encoder for each message.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _json(message: Mapping[str, Any]) -> bytes:
    return _JSON.encode(message).encode()


JSON = Wire(0, "geocast.v1.json", Opcode.TEXT, _json, load_json)
MSGPACK = Wire(1, "geocast.v1.msgpack", Opcode.BINARY, msgpack.packb, load_msgpack)
FORMATS = (JSON, MSGPACK)
# The formats for clients that verify approvals (rule S7). Their messages differ from those of the other formats only
# for entries with a proof (rule F9).
SIGNED = tuple(
    replace(wire, number=number, subprotocol=f"{wire.subprotocol}.signed")
    for number, wire in enumerate(FORMATS, len(FORMATS))
)
WIRES = FORMATS + SIGNED

PING = Frame(Opcode.PING, b"").serialize(mask=False)


class _Sent(NamedTuple):
    """A field of an alert as it is sent: its name, and where its value comes from.

    `source` is the index of the object that has the value, in the list of objects from which an alert is built. `write`
    converts the value to its form in the message, or is None if the value is sent unchanged.
    """

    name: str
    source: int
    write: Callable[[Any], Any] | None


_WRITE: Mapping[Any, Callable[[Any], Any]] = {TimeMs: format_time, tuple[Shape, ...]: area_out}


def _sent_fields(*sources: type) -> tuple[_Sent, ...]:
    """Return the fields of `AlertOut` in order, and for each of them where its value comes from.

    `sources` are dataclasses. The value of a field comes from the first dataclass that declares the field.
    """
    declared = {each.name: (n, each.type) for n, kind in reversed([*enumerate(sources)]) for each in members_of(kind)}
    declared["languages"] = (sources.index(Alert), None)  # a property of `Alert`, not a field
    found = [(name, *declared[name]) for name in AlertOut.__annotations__ if name in declared]
    return tuple(_Sent(name, source, _WRITE.get(kind)) for name, source, kind in found)


_IN_LANGUAGES = _sent_fields(AlertText, Alert, Revision)
_THE_SAME_FOR_ALL = _sent_fields(Alert, Revision, AcceptedTerms)
_WORDS = tuple(each for each in _IN_LANGUAGES if each.source == 0)
assert len(_IN_LANGUAGES) == len(AlertOut.__annotations__), "each member of AlertOut is declared by a dataclass"


def alert_map(revision: Revision, text: int = 0) -> AlertOut:
    """Return an alert as a dict for subscribers and publishers (protocol, section 2), without `approval` and `threat`.

    `text` is an index in the alert's `texts` and selects the language. It is ignored for an alert without texts.
    """
    alert = revision.alert
    if alert.texts:
        return cast(AlertOut, _values_of(_IN_LANGUAGES, alert.texts[text], alert, revision))
    return cast(AlertOut, _values_of(_THE_SAME_FOR_ALL, alert, revision, revision.terms))


def texts_of(revision: Revision) -> list[dict[str, Any]]:
    """Return the texts of an alert as a list of dicts, one for each language, in the issuer's order.

    The list is empty if the alert has no texts in several languages.
    """
    return [_values_of(_WORDS, text) for text in revision.alert.texts]


def _values_of(members: Iterable[_Sent], *sources: object) -> dict[str, Any]:
    """Return these fields as a dict of names and values, without the fields that are None (rule F2)."""
    return {
        name: write(value) if write else value
        for name, source, write in members
        if (value := getattr(sources[source], name)) is not None
    }


def encode(entry: Entry, text: int = 0) -> tuple[bytes, ...]:
    """Return an entry as frames for subscribers, one for each wire format in the order of WIRES.

    `text` is the index of the text that selects the language, as in `alert_map`. Cancels and entries with a proof have
    only one language (rule LA4).
    """
    plain, signed = _messages(entry, text)
    frames = _in_each_format(plain)
    return frames + (frames if signed is plain else _in_each_format(signed))


def encode_json(entry: Entry, text: int = 0) -> tuple[bytes, bytes]:
    """Return an entry as two JSON messages for push devices: one without its proof and one with it.

    `text` is the index of the text that selects the language, as in `alert_map`.
    """
    plain, signed = _messages(entry, text)
    data = _json(plain)
    return data, data if signed is plain else _json(signed)


def _messages(entry: Entry, text: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two messages for an entry: one for ordinary streams, and one for streams that want proofs (rule F9).

    A proof is the text that reviewers have signed, with their signatures. If the entry has no proof, both messages are
    the same object.
    """
    message = cancel_message(entry) if isinstance(entry, Cancel) else {"type": "alert", "alert": alert_map(entry, text)}
    return message, message if entry.proof is None else _with_proof(message, entry.proof)


def _in_each_format(message: Mapping[str, Any]) -> tuple[bytes, ...]:
    return tuple(wire.frame(message) for wire in FORMATS)


def _with_proof(message: Mapping[str, Any], proof: ApprovalProof) -> dict[str, Any]:
    """Return an `alert` or `cancel` message in the form for clients that want proofs.

    A proof is the text that the reviewers signed, with their signatures. The result has the proof, the fields that
    identify the entry, and the fields that the signed text does not contain.
    """
    beside = {name: value for name, value in message.items() if name != "reason"}
    if "alert" in message:
        beside["alert"] = {name: message["alert"][name] for name in ("id", "revision", "issued_at")}
    return {**beside, "proof": proof.to_map()}


def cancel_message(cancel: Cancel) -> dict[str, Any]:
    """Return a cancel as a `cancel` message (protocol, M13)."""
    return {
        "type": "cancel",
        "id": cancel.id,
        "revision": cancel.revision,
        "reason": cancel.reason,
        "cancelled_at": format_time(cancel.cancelled_at),
    }
