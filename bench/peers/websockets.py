"""The library `websockets` with `broadcast`, which its documentation recommends for many clients.

It runs with uvloop and without compression.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.base import ControlledPeer

SERVER = Path(__file__).with_name("websockets_server.py")


class Websockets(ControlledPeer):
    """The program websockets_server.py, one of the servers that geocast is compared with."""

    name = "websockets"
    lacks = "no matching by place, no tokens, no expiry, no log; unbounded buffers for slow clients"

    def command(self) -> Sequence[str | Path]:
        """Return the command that runs websockets_server.py."""
        return [sys.executable, "-P", SERVER, str(self.port), str(self.control_port)]
