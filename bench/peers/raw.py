"""The bare send loop in C: the lower limit of what a fan-out costs."""

from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.clients.websocket import unmasked
from bench.peers.base import ControlledPeer

SOURCE = Path(__file__).with_name("raw.c")


class Raw(ControlledPeer):
    """The peer raw.c, which gets whole frames instead of payloads."""

    name = "raw"
    lacks = (
        "everything but send(): no match by place, no token, no expiry, no HTTP, no WebSocket parser, no slow clients"
    )

    def command(self) -> Sequence[str | Path]:
        """Compile raw.c; return the command that runs it."""
        return [processes.compile_c(SOURCE, self.home), str(self.port), str(self.control_port)]

    def send(self, payload: bytes) -> None:
        """Send the payload as a frame that is made once for all sessions."""
        super().send(unmasked(payload))
