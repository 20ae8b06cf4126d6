"""The client library: hear of the alerts around you, or publish them. It imports nothing of the rooms beside it.

    listening    client (asyncio shell) -> link (one connection), holdings (what is held, what changed),
                 reconnect (when to come back)
    publishing   publisher (HTTP)
    shared       geo (the sphere), times, wire (JSON and MessagePack)

holdings, reconnect and geo do no I/O and have no clock of their own: time is passed in. README.md begins with a client
in ten lines. Installed by itself, it is the package `geocast_client`.
"""

from .client import Client
from .geo import Place
from .holdings import Change, Holdings, Kind
from .link import ClientError
from .publisher import Publisher, PublishError, Refused, Unanswered

__all__ = [
    "Change",
    "Client",
    "ClientError",
    "Holdings",
    "Kind",
    "Place",
    "PublishError",
    "Publisher",
    "Refused",
    "Unanswered",
]

__version__ = "0.1.0"
