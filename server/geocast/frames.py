"""Messages to WebSocket frames, and back: two wire formats, one encoded frame for every session of a format.

Server frames are not masked (RFC 6455, 5.1) and no extension is negotiated, so a frame's bytes don't depend on the
connection. An alert is encoded once per format, and the very same bytes object goes to every transport. That is why a
fan-out costs no more than a `write` per session (ADR 1).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from websockets.frames import Frame, Opcode

from .alert import Cancel, Entry, Revision
from .clock import format_time
from .strict import load_json, load_msgpack


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
WIRES = (JSON, MSGPACK)

PING = Frame(Opcode.PING, b"").serialize(mask=False)


def alert_map(revision: Revision) -> dict[str, Any]:
    """An alert as subscribers and publishers see it (protocol, section 2): never `approval` or `threat`."""
    alert = revision.alert
    found: dict[str, Any] = {
        "id": alert.id,
        "revision": revision.revision,
        "category": alert.category,
        "title": revision.terms.title,
        "headline": alert.headline,
    }
    if alert.description is not None:
        found["description"] = alert.description
    return found | {
        "severity": alert.severity,
        "status": alert.status,
        "source": revision.source,
        "occurred_at": format_time(alert.occurred_at),
        "issued_at": format_time(revision.issued_at),
        "expires_at": format_time(alert.expires_at),
        "area": [shape.to_map() for shape in alert.area],
    }


def encode(entry: Entry) -> tuple[bytes, ...]:
    """The frame that tells subscribers of `entry`, for each wire format in the order of WIRES."""
    message = _cancel_message(entry) if isinstance(entry, Cancel) else {"type": "alert", "alert": alert_map(entry)}
    return tuple(wire.frame(message) for wire in WIRES)


def _cancel_message(cancel: Cancel) -> dict[str, Any]:
    return {
        "type": "cancel",
        "id": cancel.id,
        "revision": cancel.revision,
        "reason": cancel.reason,
        "cancelled_at": format_time(cancel.cancelled_at),
    }
