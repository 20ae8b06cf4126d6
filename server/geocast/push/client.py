"""The interface for sending a push to a push service and getting its answer, if one comes."""

from typing import NamedTuple, Protocol

from .addresses import Endpoint
from .service_limits import PushOutcome


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


class PushResponse(NamedTuple):
    """The result of a push.

    `status` is the HTTP status as a string. If no valid answer came, `status` has a few words that say what went wrong.
    Metrics show it. `retry_after_s` is how many seconds the service asked to wait, or None.
    """

    outcome: PushOutcome
    status: str
    retry_after_s: float | None = None


class PushClient(Protocol):
    """Sends pushes to push services.

    If a push fails, `send` doesn't raise an exception: the returned `PushResponse` says what went wrong.
    """

    async def send(self, push: Push, within_s: float) -> PushResponse:
        """Send a push, and return its result after at most `within_s` seconds."""
        ...
