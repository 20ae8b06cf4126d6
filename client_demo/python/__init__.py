"""The client library: hear of the alerts around you, or publish them. It imports no other package of client_demo.

    listening    client (asyncio shell) -> link (one connection), holdings (what is held, what changed),
                 calls (what a responder holds and answers), reconnect (when to come back), verify (what reviewers
                 have signed)
    publishing   publisher, and dispatcher for calls -> api (one request, as often as it takes)
    shared       geo (the sphere), times, wire (JSON and MessagePack)

holdings, calls, reconnect, verify and geo do no I/O and have no clock of their own: time is passed in. README.md begins
with a client in ten lines. Installed by itself, it is the package `geocast_client`.
"""

from .calls import CallChange, CallKind, Calls
from .client import Client
from .dispatcher import Dispatcher
from .geo import Place
from .holdings import Change, Holdings, Kind
from .link import ClientError
from .publisher import Publisher, PublishError, Refused, Unanswered
from .verify import Untrusted, Verifier

__all__ = [
    "CallChange",
    "CallKind",
    "Calls",
    "Change",
    "Client",
    "ClientError",
    "Dispatcher",
    "Holdings",
    "Kind",
    "Place",
    "PublishError",
    "Publisher",
    "Refused",
    "Unanswered",
    "Untrusted",
    "Verifier",
]

__version__ = "0.1.0"
