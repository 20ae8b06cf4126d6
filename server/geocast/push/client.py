"""The interface for sending a push to a push service and getting its answer, if one comes."""

from typing import NamedTuple, Protocol

from ..egress.outcomes import PostResponse
from .addresses import Endpoint


class Push(NamedTuple):
    """A request to a push service (RFC 8030, 5).

    `ttl_s` is how many seconds the service may keep the message. `is_known` is True if the endpoint's host has accepted
    a push before, or if the operator allowed this very host by name.
    """

    endpoint: Endpoint
    body: bytes
    ttl_s: int
    urgency: str
    topic: str
    authorization: str
    is_known: bool = True


class PushClient(Protocol):
    """Sends pushes to push services.

    If a push fails, `send` doesn't raise an exception: the returned `PostResponse` says what went wrong.
    """

    async def send(self, push: Push, within_s: float) -> PostResponse:
        """Send a push, and return its result after at most `within_s` seconds."""
