"""The interface for sending a push to a push service and getting its answer, if one comes."""

from typing import NamedTuple, Protocol

from .addresses import Endpoint
from .service_limits import PushOutcome


class Push(NamedTuple):
    """A request to a push service (RFC 8030, 5).

    `ttl_s` is how many seconds the service may keep the message. `is_known` is True if the host has accepted a push
    before, or if the operator allowed this very host by name.
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

    `status` is the HTTP status, or a word for what went wrong, as metrics show it. `retry_after_s` is the time in
    seconds that the service asked to wait, or None.
    """

    outcome: PushOutcome
    status: str
    retry_after_s: float | None = None


class PushClient(Protocol):
    """A client that sends pushes.

    Whatever a service does or fails to do becomes an outcome; `send` never raises for it.
    """

    async def send(self, push: Push, within_s: float) -> PushResponse:
        """Send a push and return its result within `within_s` seconds."""
        ...
