"""A WebSocket client of the stream that uses little CPU, so that one process can hold hundreds of connections.

All sessions of a format are sent the same bytes, so each frame is decoded only once per process.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable
from typing import Any

from end_to_end.kit.alerts import Json
from end_to_end.kit.wire import frame, request_bytes, upgrade_headers

PATIENCE_S = 30.0
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


@functools.lru_cache(maxsize=4_096)
def _read(payload: bytes) -> Json:
    message: Json = json.loads(payload)
    return message


class Listener(asyncio.Protocol):
    """One connection: sends `hello`, answers pings, and passes every message to `on_message`."""

    def __init__(self, hello: Json | None, on_message: Callable[[Listener, Json], None]) -> None:
        self._hello, self._on_message = hello, on_message
        self._data = bytearray()
        self._is_open = False
        self.welcomed: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.code = 1006
        self.status = 0
        self.pongs: list[float] = []
        self._pinged = 0.0
        self.is_leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the upgrade to WebSocket."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(request_bytes("GET", "/v1/stream", upgrade_headers("geocast.v1.json")))

    def connection_lost(self, exc: Exception | None) -> None:
        """Resolve `ended`, and fail `welcomed` if no welcome came."""
        if not self.ended.done():
            self.ended.set_result(None)
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(f"not welcomed: status {self.status}, close code {self.code}"))
            self.welcomed.exception()  # mark the exception as retrieved: perhaps nobody waits for it

    def data_received(self, data: bytes) -> None:
        """Parse the answer to the upgrade request, then frames."""
        self._data += data
        if not self._is_open:
            head, found, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not found:
                return
            self.status = int(head.split(b" ", 2)[1])
            self._data, self._is_open = bytearray(rest), True
            if self._hello is not None:
                self.say("hello", **self._hello)
        self._frames()

    def _frames(self) -> None:
        data, at = self._data, 0
        while len(data) - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if len(data) < start + size:
                break
            self._take(data[at] & 0x0F, bytes(data[start : start + size]))
            at = start + size
        del data[:at]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(PONG, payload)
        elif opcode == PONG:
            self.pongs.append(time.monotonic() - self._pinged)
            self._pinged = 0.0
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big") or 1005
            self.transport.close()
        else:
            message = _read(payload)
            if message["type"] == "welcome" and not self.welcomed.done():
                self.welcomed.set_result(message)
            self._on_message(self, message)

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one frame with this opcode and payload."""
        self.transport.write(frame(opcode, payload))

    def say(self, kind: str, **fields: Any) -> None:
        """Send one message of the protocol as a text frame."""
        self.send(TEXT, json.dumps({"type": kind, **fields}).encode())

    def ping(self) -> float:
        """Send a ping unless an earlier one is unanswered; return the age of that one in seconds, or 0."""
        if self._pinged:
            return time.monotonic() - self._pinged
        self._pinged = time.monotonic()
        self.send(PING, b"")
        return 0.0

    def leave(self) -> None:
        """Abort the connection."""
        self.is_leaving = True
        self.transport.abort()


def ignored(_listener: Listener, _message: Json) -> None:
    """Ignore a message."""


async def listen(port: int, hello: Json | None, on_message: Callable[[Listener, Json], None] = ignored) -> Listener:
    """Connect to a node's stream and, if `hello` is given, wait for the welcome. Raise OSError or TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        _, listener = await asyncio.get_running_loop().create_connection(
            lambda: Listener(hello, on_message), "127.0.0.1", port
        )
        if hello is not None:
            try:
                await listener.welcomed
            except BaseException:
                listener.leave()
                raise
    return listener
