"""Messages to WebSocket frames, and back: two wire formats, one encoded frame for every session of a format.

An alert in several languages is one frame for each format and each language that somebody is sent it in.

Server frames are not masked (RFC 6455, 5.1) and no extension is negotiated, so a frame's bytes don't depend on the
connection. So an alert is encoded once, and the very same bytes object goes to every transport. That is why a
fan-out costs no more than a `write` per session (ADR 1).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgpack
from websockets.frames import Frame, Opcode

from ..clock import format_time
from ..model.alert import AlertText, ApprovalProof, Cancel, Entry, Revision
from .strict_json import load_json, load_msgpack


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire format.

    `number` is its index in WIRES, by which the hub keeps it in a column; `subprotocol` is what a client offers to get
    it; `opcode` is that of its frames. `loads` raises UnicodeDecodeError for text that is not UTF-8 and Malformed for
    everything else that is not one strict map.
    """

    number: int
    subprotocol: str
    opcode: Opcode
    dumps: Callable[[Mapping[str, Any]], bytes]
    loads: Callable[[bytes], dict[str, Any]]

    def frame(self, message: Mapping[str, Any]) -> bytes:
        """`message` as one unmasked frame."""
        return Frame(self.opcode, self.dumps(message)).serialize(mask=False)


def _json(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _msgpack(message: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(message)
    return packed


JSON = Wire(0, "geocast.v1.json", Opcode.TEXT, _json, load_json)
MSGPACK = Wire(1, "geocast.v1.msgpack", Opcode.BINARY, _msgpack, load_msgpack)
FORMATS = (JSON, MSGPACK)
# The streams for clients that verify (S7): of the same formats, and different only where an entry has a proof (F9).
SIGNED = tuple(
    replace(wire, number=number, subprotocol=f"{wire.subprotocol}.signed")
    for number, wire in enumerate(FORMATS, len(FORMATS))
)
WIRES = FORMATS + SIGNED

PING = Frame(Opcode.PING, b"").serialize(mask=False)


def alert_map(revision: Revision, text: int = 0) -> dict[str, Any]:
    """An alert as subscribers and publishers see it (protocol, section 2): never `approval` or `threat`.

    `text`: in which of its languages, as an index of the alert's `texts`; an alert without texts is the same in all.
    """
    alert = revision.alert
    told = alert.texts[text] if alert.texts else None
    found = {
        "id": alert.id,
        "revision": revision.revision,
        "category": alert.category,
        **(_plain_words(revision) if told is None else _words(told)),
        "languages": [each.language for each in alert.texts] or None,
        "severity": alert.severity,
        "urgency": alert.urgency,
        "certainty": alert.certainty,
        "status": alert.status,
        "source": revision.source,
        "occurred_at": format_time(alert.occurred_at),
        "onset_at": None if alert.onset_at is None else format_time(alert.onset_at),
        "issued_at": format_time(revision.issued_at),
        "expires_at": format_time(alert.expires_at),
        "web": alert.web,
        "area": [shape.to_map() for shape in alert.area],
    }
    return {name: value for name, value in found.items() if value is not None}  # F2


def texts_of(revision: Revision) -> list[dict[str, Any]]:
    """What an alert says in each of its languages, in the issuer's order; nothing if it is the same for everybody."""
    words = map(_words, revision.alert.texts)
    return [{name: text for name, text in each.items() if text is not None} for each in words]


def _plain_words(revision: Revision) -> dict[str, Any]:
    alert = revision.alert
    return {"title": revision.terms.title, "headline": alert.headline, "description": alert.description}


def _words(text: AlertText) -> dict[str, Any]:
    return {
        "title": text.title,
        "headline": text.headline,
        "description": text.description,
        "instruction": text.instruction,
        "area_desc": text.area_desc,
        "language": text.language,
    }


def encode(entry: Entry, text: int = 0) -> tuple[bytes, ...]:
    """Return the frame that tells subscribers of `entry`, for each wire format in the order of WIRES.

    `text`: in which of its languages, as for `alert_map`; a cancel has one, and so has what has a proof (LA4).
    """
    plain, signed = _messages(entry, text)
    frames = _in_each_format(plain)
    return frames + (frames if signed is plain else _in_each_format(signed))


def encode_json(entry: Entry, text: int = 0) -> tuple[bytes, bytes]:
    """Return the message that tells devices of `entry` as JSON, and as JSON with its proof; `text` as for `encode`."""
    plain, signed = _messages(entry, text)
    data = _json(plain)
    return data, data if signed is plain else _json(signed)


def _messages(entry: Entry, text: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the message that tells of `entry`, and that of a signed stream: the same, unless it has a proof (F9)."""
    if isinstance(entry, Cancel):
        message = _cancel_message(entry)
    else:
        message = {"type": "alert", "alert": alert_map(entry, text)}
    return message, message if entry.proof is None else _proved(message, entry.proof)


def _in_each_format(message: Mapping[str, Any]) -> tuple[bytes, ...]:
    return tuple(wire.frame(message) for wire in FORMATS)


def _proved(message: Mapping[str, Any], proof: ApprovalProof) -> dict[str, Any]:
    """An `alert` or `cancel` with its proof: beside that stands what the form doesn't say, and what it belongs to."""
    beside = {name: value for name, value in message.items() if name != "reason"}
    if "alert" in message:
        beside["alert"] = {name: message["alert"][name] for name in ("id", "revision", "issued_at")}
    return {**beside, "proof": proof.to_map()}


def _cancel_message(cancel: Cancel) -> dict[str, Any]:
    return {
        "type": "cancel",
        "id": cancel.id,
        "revision": cancel.revision,
        "reason": cancel.reason,
        "cancelled_at": format_time(cancel.cancelled_at),
    }
