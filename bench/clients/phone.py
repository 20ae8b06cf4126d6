"""A client with one session, which sends a message and blocks until it is answered."""

import json
import socket
from typing import Any, Self

from bench.clients.websocket import PATH, SUBPROTOCOL, handshake, masked


def frame(**message: Any) -> bytes:
    """Return a message as the WebSocket frame that a client sends: JSON, masked."""
    return masked(json.dumps(message).encode())


class Phone:
    """A client with one session of its own. Use it in a `with` statement, or close it."""

    def __init__(self, port: int, hello: bytes) -> None:
        """Connect to the node, send `hello`, and wait for the welcome."""
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()
        self.say(handshake(port, PATH, SUBPROTOCOL))
        while b"\r\n\r\n" not in self._data:
            self._more()
        del self._data[: self._data.index(b"\r\n\r\n") + 4]
        self.say(hello)
        self.hear("welcome")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection to the node."""
        self._socket.close()

    def say(self, data: bytes) -> None:
        """Send these bytes, which must be complete WebSocket frames, to the node."""
        self._socket.sendall(data)

    def ask(self, data: bytes) -> None:
        """Send a message, and wait until it is answered with `ok` or `pong`."""
        self.say(data)
        self.hear("ok", "pong")

    def hear(self, *kinds: str) -> dict[str, Any]:
        """Wait for the next message, whose type must be one of `kinds`, and return it."""
        message = self._next()
        assert message["type"] in kinds, message
        return message

    def _next(self) -> dict[str, Any]:
        """Wait for the next text message, ignoring pings, and return it as a dict."""
        while True:
            while len(self._data) < 2:
                self._more()
            opcode, size, start = self._data[0], self._data[1], 2
            if size == 126:
                while len(self._data) < 4:
                    self._more()
                size, start = int.from_bytes(self._data[2:4], "big"), 4
            while len(self._data) < start + size:
                self._more()
            payload = bytes(self._data[start : start + size])
            del self._data[: start + size]
            if opcode == 0x81:
                message: dict[str, Any] = json.loads(payload)
                return message

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        assert data, "the node hung up"
        self._data += data
