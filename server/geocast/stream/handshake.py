"""Ordinary handshakes: the WebSocket requests of well-behaved clients, accepted without the parser of `websockets`.

The library's parser is a generator that reads one line at a time, and takes 85 of the 300 µs of CPU of a connect
(`bench storm`). Almost all requests have the same simple shape, which this module recognizes with one pattern. It only
accepts: it returns None for every other request, also for one that must be refused, and the library decides.

Rule 1  What this module accepts, the library accepts too, with the same answer, byte for byte. A test compares the
        two on random requests.
"""

import functools
import re
from base64 import b64encode
from collections.abc import Callable
from email.utils import formatdate
from hashlib import sha1

from ..wire.frames import WIRES, Wire

MAX_BYTES = 4096  # a longer head is not ordinary; the library's own limits are higher

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(rb"GET /v1/stream HTTP/1\.1\r\n((?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n)+)\r\n")
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_OFFERS = re.compile(_TOKEN + rb"(?:[ \t]*,[ \t]*" + _TOKEN + rb")*")
_MAX_FIELDS = 64
_CONNECTIONS = (b"upgrade", b"keep-alive, upgrade")
_BODY = (b"content-length", b"transfer-encoding")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nDate: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
)

_WIRES = {wire.subprotocol.encode(): wire for wire in WIRES}


def accepted(head: bytes, may_connect: Callable[[str | None], bool], now_s: float) -> tuple[Wire, bytes] | None:
    """Return the wire format and the 101 response for an ordinary request, or None for any other.

    `head` is the request with its empty line. `may_connect` says whether a page with this Origin may connect; it gets
    None if there is no Origin. `now_s` is the time in s since 1970.
    """
    matched = _HEAD.fullmatch(head) if len(head) <= MAX_BYTES else None
    if matched is None:
        return None
    fields: dict[bytes, bytes] = {}
    lines = matched[1].split(b"\r\n")[:-1]
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip(b" \t")
    key, offers = fields.get(b"sec-websocket-key", b""), fields.get(b"sec-websocket-protocol", b"")
    origin = fields.get(b"origin")
    if (
        len(fields) < len(lines)  # a field that comes twice
        or len(lines) > _MAX_FIELDS
        or fields.get(b"upgrade", b"").lower() != b"websocket"
        or fields.get(b"connection", b"").lower() not in _CONNECTIONS
        or fields.get(b"sec-websocket-version") != b"13"
        or b"host" not in fields
        or not _KEY.fullmatch(key)
        or any(name in fields for name in _BODY)
        or not _OFFERS.fullmatch(offers)
        or not may_connect(None if origin is None else origin.decode("iso-8859-1"))
    ):
        return None
    wire = next((_WIRES[name] for offer in offers.split(b",") if (name := offer.strip(b" \t")) in _WIRES), None)
    if wire is None:
        return None
    seal = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
    return wire, _ANSWER % (_date(int(now_s)), seal, wire.subprotocol.encode())


@functools.lru_cache(2)
def _date(now_s: int) -> bytes:
    return formatdate(now_s, usegmt=True).encode()
