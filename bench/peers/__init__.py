"""The servers under measurement: geocast, and its peers, which are other servers that push a message to many sockets.

The same WebSocket client connects to all of them. Each module configures its peer as well as possible for this one
task; its attribute `lacks` names the features of geocast that the peer does not have.
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
