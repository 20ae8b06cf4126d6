"""The bytes that a client sends, made in advance: a handshake and masked frames (RFC 6455). No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("geocast.v1.json")
PATH = "/v1/stream"  # of a node's stream
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # from RFC 6455, 1.3; no server here checks that it is random


@dataclass(frozen=True, slots=True)
class Joining:
    """How the sessions of a crowd join: one request for all, and the first text of each after the 101.

    `ready` is text in the frame that shows that a session has joined; if empty, the 101 shows it. `later` is the text
    of each session when it returns or is asked to send; if empty, `first` is sent again.
    """

    request: bytes
    first: Sequence[bytes]
    ready: str = ""
    later: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.first)


class Made(Sequence[bytes]):
    """A sequence whose texts are made on each access: those of a million sessions would take half a GB."""

    def __init__(self, count: int, make: Callable[[int], bytes]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        numbers = range(self._count)[at]
        return self._make(numbers) if isinstance(numbers, int) else [self._make(number) for number in numbers]


def handshake(port: int, path: str, subprotocol: str | None = None) -> bytes:
    """Return the request of an opening handshake."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """Return one frame of a client; its masking key is zero, which leaves the payload unchanged."""
    return _head(opcode, len(payload), 0x80) + bytes(4) + payload


def unmasked(payload: bytes, opcode: int = 1) -> bytes:
    """Return one frame of a server."""
    return _head(opcode, len(payload), 0) + payload


def _head(opcode: int, size: int, mask: int) -> bytes:
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, mask | size))
    if size < 65536:
        return bytes((first, mask | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask | 127)) + size.to_bytes(8, "big")
