"""The two formats of messages on the stream: each message is a map, in JSON (text) or MessagePack (bytes).

`msgpack` is imported only when it is used: programs that use JSON can do without it.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Literal, cast
from urllib.parse import urlsplit

WireName = Literal["json", "msgpack"]
Message = dict[str, Any]
MAX_DEPTH = 32  # of nested maps and lists (protocol, L1)
MAX_WHOLE = 2**63  # larger numbers can't be stored by every program


@dataclass(frozen=True, slots=True)
class Wire:
    """A format of messages: its WebSocket subprotocol, and the functions that encode and decode messages."""

    subprotocol: str
    encode: Callable[[Mapping[str, Any]], str | bytes]
    decode: Callable[[str | bytes], Any]

    def read(self, frame: str | bytes) -> Message:
        """Return the message in a frame. Raise ValueError if the frame has none."""
        try:
            message = self.decode(frame)
        except Exception as error:  # MessagePack's library has errors of many types
            raise ValueError(type(error).__name__) from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise ValueError("no message")
        return message

    def signed(self) -> "Wire":
        """Return a copy of this format that uses the subprotocol for the stream with reviewers' signatures (F9)."""
        return replace(self, subprotocol=f"{self.subprotocol}.signed")


def _json_text(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _msgpack_bytes(message: Mapping[str, Any]) -> bytes:
    import msgpack

    return cast(bytes, msgpack.packb(message))


def _read_json(frame: str | bytes) -> Any:
    return json.loads(frame)


def _read_msgpack(frame: str | bytes) -> Any:
    import msgpack

    return msgpack.unpackb(frame)


WIRES: dict[WireName, Wire] = {
    "json": Wire("geocast.v1.json", _json_text, _read_json),
    "msgpack": Wire("geocast.v1.msgpack", _msgpack_bytes, _read_msgpack),
}


def is_plain(value: object, depth: int = MAX_DEPTH) -> bool:
    """Return whether a value is of JSON's types, as the protocol reads them, so that it can be stored and sent.

    Infinite and huge numbers, lone surrogates, deep nesting and MessagePack's own types are not plain.
    """
    match value:
        case None | bool():
            return True
        case str():
            return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
        case int():
            return -MAX_WHOLE <= value < MAX_WHOLE
        case float():
            return math.isfinite(value)
        case dict() | list() if depth > 0:
            inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            is_named = isinstance(value, list) or all(isinstance(key, str) for key in value)
            return is_named and all(is_plain(each, depth - 1) for each in inner)
    return False


def is_loopback(url: str) -> bool:
    """Return whether the URL names this machine. If so, a proxy that is set in the environment must not be used."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
