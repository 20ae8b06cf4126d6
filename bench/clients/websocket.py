"""Functions that return the bytes of WebSocket handshakes and frames (RFC 6455). No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("geocast.v1.json")
PATH = "/v1/stream"  # the path of a node's WebSocket
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # from RFC 6455, 1.3; no server here checks that it is random


@dataclass(frozen=True, slots=True)
class Joining:
    """The bytes that the sessions of a crowd send to join a server.

    All sessions send the same handshake, `request`. When it has been answered with 101, each session sends its text in
    `first`. A session has joined when it receives a frame that contains `ready`; if `ready` is empty, the 101 is
    enough. A session sends its text in `later` when it reconnects, or when it is asked to; if `later` is empty, it
    sends the text in `first` again.
    """

    request: bytes
    first: Sequence[bytes]
    ready: str = ""
    later: Sequence[bytes] = ()

    def __len__(self) -> int:
        return len(self.first)


class Made(Sequence[bytes]):
    """A sequence of texts. Each text is made when it is accessed.

    Storing the texts of a million sessions would take half a GB.
    """

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
    """Return the request with which a client opens a WebSocket (the opening handshake)."""
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
    """Return one frame as a client sends it. Its masking key is zero, which leaves the payload unchanged."""
    return _head(opcode, len(payload), 0x80) + bytes(4) + payload


def unmasked(payload: bytes, opcode: int = 1) -> bytes:
    """Return one frame as a server sends it, without a mask."""
    return _head(opcode, len(payload), 0) + payload


def _head(opcode: int, size: int, mask: int) -> bytes:
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, mask | size))
    if size < 65536:
        return bytes((first, mask | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask | 127)) + size.to_bytes(8, "big")
