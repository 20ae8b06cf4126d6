"""`websockets` with `broadcast`, as its documentation advises for many clients: uvloop, no compression."""

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.base import ControlledPeer

SERVER = Path(__file__).with_name("websockets_server.py")


class Websockets(ControlledPeer):
    """See websockets_server.py."""

    name = "websockets"
    lacks = "no match by place, no token, no expiry, no log; buffers without bound for slow clients"

    def command(self) -> Sequence[str | Path]:
        """A script."""
        return [sys.executable, "-P", SERVER, str(self.port), str(self.control_port)]
