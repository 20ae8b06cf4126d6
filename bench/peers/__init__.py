"""What is measured: geocast, and others that push one message to many sockets. All speak WebSocket to the same client.

Each file configures its peer at its best for this one task, and says in `lacks` what it does not do that geocast does.
"""

from bench.peers.base import System
from bench.peers.geocast import Geocast, GeocastByTransports, GeocastInContainer, GeocastOnRedis
from bench.peers.nats import Nats
from bench.peers.nchan import Nchan
from bench.peers.raw import Raw
from bench.peers.uws import Uws
from bench.peers.websockets import Websockets

PEERS: dict[str, type[System]] = {each.name: each for each in (Raw, Websockets, Uws, Nchan, Nats)}
PEERS |= {"redis": GeocastOnRedis, "container": GeocastInContainer, "transports": GeocastByTransports}

__all__ = ["PEERS", "Geocast", "System"]
