"""The port to push services: a push goes out, and an answer comes back or none."""

from typing import NamedTuple, Protocol

from .addresses import Endpoint
from .service_limits import PushOutcome


class Push(NamedTuple):
    """A request to a push service (RFC 8030, 5).

    `ttl_s` is how many seconds the service may keep the message. `is_known` says that the host has taken a push, or
    that the operator named it.
    """

    endpoint: Endpoint
    body: bytes
    ttl_s: int
    urgency: str
    topic: str
    authorization: str
    is_known: bool = True


class PushResponse(NamedTuple):
    """The result of a push. `status` is the HTTP status or a word for what went wrong, as used in metrics."""

    outcome: PushOutcome
    status: str
    retry_after_s: float | None = None


class PushClient(Protocol):
    """A client of push services. It never raises for anything that a service does or fails to do."""

    async def send(self, push: Push, within_s: float) -> PushResponse:
        """Send a push and return its result, after at most `within_s` seconds."""
        ...
