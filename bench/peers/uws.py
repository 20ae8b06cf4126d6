"""The library uWebSockets (C++), used through the package socketify.

The server uses publish/subscribe. The benchmark publishes over a WebSocket connection.
"""

import importlib.util
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.clients.websocket import handshake, masked
from bench.peers.base import Peer

SERVER = Path(__file__).with_name("uws_server.py")


class Uws(Peer):
    """The program uws_server.py, one of the servers that geocast is compared with."""

    name = "uws"
    lacks = "no matching by place, no tokens, no expiry, no log, no publishing over HTTP here"

    def command(self) -> Sequence[str | Path]:
        """Return the command that runs uws_server.py."""
        if importlib.util.find_spec("socketify") is None:
            raise processes.Unavailable("socketify is not installed (make bench-peers)")
        return [sys.executable, "-P", SERVER, str(self.port)]

    def start(self) -> None:
        """Start the server, and connect to it as the publisher."""
        super().start()
        self._lock = threading.Lock()
        self._publisher = socket.create_connection(("127.0.0.1", self.port))
        self._publisher.sendall(handshake(self.port, "/publish"))
        while b"\r\n\r\n" not in self._publisher.recv(4096):
            pass

    def send(self, payload: bytes) -> None:
        """Send the payload as one WebSocket message."""
        with self._lock:
            self._publisher.sendall(masked(payload))

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "_publisher"):
            self._publisher.close()
        super().__exit__(*exc)
