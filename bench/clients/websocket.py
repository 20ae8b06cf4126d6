"""The bytes that a client sends, made ahead: a handshake, and masked frames (RFC 6455). No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("geocast.v1.json")
PATH = "/v1/stream"  # of a node
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3; nobody here checks that it is random


@dataclass(frozen=True, slots=True)
class Joining:
    """How the sessions of a crowd join: the request of all, and what each says after the 101.

    `ready`: text in the frame that says that a session is in; if empty, the 101 says so. `later`: what each says
    when it comes back, or when it is asked to; as the first time if empty.
    """

    request: bytes
    first: Sequence[bytes]
    ready: str = ""
    later: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.first)


class Made(Sequence[bytes]):
    """Texts that are made each time they are asked for: those of a million sessions would take half a GB."""

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
    """An opening handshake."""
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
    """One frame of a client, with a key of zeros, which leaves the payload as it is."""
    return _head(opcode, len(payload), 0x80) + bytes(4) + payload


def unmasked(payload: bytes, opcode: int = 1) -> bytes:
    """One frame of a server."""
    return _head(opcode, len(payload), 0) + payload


def _head(opcode: int, size: int, mask: int) -> bytes:
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, mask | size))
    if size < 65536:
        return bytes((first, mask | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask | 127)) + size.to_bytes(8, "big")
