"""NATS (a server written in Go) with its WebSocket listener.

All sessions subscribe to one subject of core NATS; JetStream is not used. The publisher uses NATS' own protocol.
"""

import socket
import threading
from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.clients.websocket import Joining, handshake, masked
from bench.peers.base import Peer
from bench.places import Places

SUBJECT = "alerts"
CONFIG = """
listen: "127.0.0.1:{control_port}"
max_connections: {connections}
ping_interval: "1h"
write_deadline: "30s"
websocket {{ listen: "127.0.0.1:{port}", no_tls: true, compression: false }}
"""
_OPENING = b'CONNECT {"verbose":false,"pedantic":false}\r\n'


class Nats(Peer):
    """The program nats-server, one of the servers that geocast is compared with, configured for WebSocket clients."""

    name = "nats"
    lacks = "no matching by place, no expiry, no log (core NATS); tokens are not used here"

    def command(self) -> Sequence[str | Path]:
        """Return the command that starts nats-server with a configuration file."""
        program = processes.find_program("nats-server")
        config = self.home / "nats.conf"
        limit = processes.raise_descriptor_limit()
        config.write_text(CONFIG.format(control_port=self.control_port, port=self.port, connections=limit))
        return [program, "-c", config]

    def start(self) -> None:
        """Start the server, and connect to it as a publisher."""
        super().start()
        self._lock = threading.Lock()
        self._publisher = socket.create_connection(("127.0.0.1", self.control_port))
        self._publisher.sendall(_OPENING + b"PING\r\n")
        while b"PONG" not in self._publisher.recv(4096):
            pass

    def joining(self, places: Places) -> Joining:
        """Return what clients send to join.

        Each session subscribes and sends PING. The answer to the PING shows that the session has joined.
        """
        opening = masked(_OPENING + f"SUB {SUBJECT} 1\r\nPING\r\n".encode(), opcode=2)
        return Joining(handshake(self.port, "/"), [opening] * len(places), "PONG")

    def send(self, payload: bytes) -> None:
        """Publish the payload with the command PUB."""
        with self._lock:
            self._publisher.sendall(f"PUB {SUBJECT} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def __exit__(self, *exc: object) -> None:
        if hasattr(self, "_publisher"):
            self._publisher.close()
        super().__exit__(*exc)
