"""A bare loop of `send()` in C, which shows the least that a fan-out can cost."""

from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.clients.websocket import unmasked
from bench.peers.base import ControlledPeer

SOURCE = Path(__file__).with_name("raw.c")


class Raw(ControlledPeer):
    """The program raw.c, one of the servers that geocast is compared with.

    It gets whole WebSocket frames instead of payloads.
    """

    name = "raw"
    lacks = "only send(): no matching by place, tokens, expiry, HTTP, WebSocket parser or handling of slow clients"

    def command(self) -> Sequence[str | Path]:
        """Compile raw.c; return the command that runs it."""
        return [processes.compile_c(SOURCE, self.home), str(self.port), str(self.control_port)]

    def send(self, payload: bytes) -> None:
        """Send the payload as one WebSocket frame, which is made once and is the same for all sessions."""
        super().send(unmasked(payload))
