"""The bare send loop in C: the limit."""

from collections.abc import Sequence
from pathlib import Path

from bench import processes
from bench.clients.websocket import unmasked
from bench.peers.base import ControlledPeer

SOURCE = Path(__file__).with_name("raw.c")


class Raw(ControlledPeer):
    """See raw.c. It is given a whole frame, not the payload."""

    name = "raw"
    lacks = (
        "everything but send(): no match by place, no token, no expiry, no HTTP, no WebSocket parser, no slow clients"
    )

    def command(self) -> Sequence[str | Path]:
        """Compile it, and run it."""
        return [processes.compile_c(SOURCE, self.home), str(self.port), str(self.control_port)]

    def send(self, payload: bytes) -> None:
        """Framed here, once for all."""
        super().send(unmasked(payload))
