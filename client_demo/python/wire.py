"""The two formats of messages on the stream: each message is a map, in JSON (text) or MessagePack (bytes).

`msgpack` is imported only when it is used: programs that use JSON can do without it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Literal, cast
from urllib.parse import urlsplit

WireName = Literal["json", "msgpack"]
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wire:
    """A format of messages: its WebSocket subprotocol, and the functions that encode and decode messages."""

    subprotocol: str
    encode: Callable[[Mapping[str, Any]], str | bytes]
    decode: Callable[[str | bytes], Message]

    def signed(self) -> "Wire":
        """Return a copy of this format that uses the subprotocol for the stream with reviewers' signatures (F9)."""
        return replace(self, subprotocol=f"{self.subprotocol}.signed")


def _json_text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _msgpack_bytes(message: Mapping[str, Any]) -> bytes:
    import msgpack

    return cast(bytes, msgpack.packb(message))


def _read_json(frame: str | bytes) -> Message:
    return cast(Message, json.loads(frame))


def _read_msgpack(frame: str | bytes) -> Message:
    import msgpack

    return cast(Message, msgpack.unpackb(frame))


WIRES: dict[WireName, Wire] = {
    "json": Wire("geocast.v1.json", _json_text, _read_json),
    "msgpack": Wire("geocast.v1.msgpack", _msgpack_bytes, _read_msgpack),
}


def is_loopback(url: str) -> bool:
    """Return whether the URL names this machine. If so, a proxy that is set in the environment must not be used."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
