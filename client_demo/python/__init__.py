"""The client library: receive the alerts around you, or publish alerts. It imports no other package of client_demo.

    listening    client (the asyncio part) -> link (one connection), holdings (the alerts that a client has, and their
                 changes), calls (a responder's calls and answers), reconnect (when to reconnect), verify (signatures)
    without one  feed (the public feed, for a client that decides alone), and the same holdings
    publishing   publisher, and dispatcher for calls -> api (one HTTP request with its retries)
    shared       geo (the sphere), times, wire (JSON and MessagePack)

holdings, calls, reconnect, verify and geo do no I/O and have no clock of their own: callers pass the time as an
argument. README.md begins with a client in ten lines. If installed separately, the package is called `geocast_client`.
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

__version__ = "0.2.0"
