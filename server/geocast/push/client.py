"""The port to push services: a push goes out, and an answer comes, or none."""

from typing import NamedTuple, Protocol

from .addresses import Endpoint
from .service_limits import PushOutcome


class Push(NamedTuple):
    """A request to a push service (RFC 8030, 5): where to, what, and for how long it is good."""

    endpoint: Endpoint
    body: bytes
    ttl_s: int
    urgency: str
    topic: str
    authorization: str
    is_known: bool = True  # its host has taken a push, or is one that the operator has named


class PushResponse(NamedTuple):
    """What came of it. `status` is that of HTTP, or what went wrong in a word, as metrics have it."""

    outcome: PushOutcome
    status: str
    retry_after_s: float | None = None


class PushClient(Protocol):
    """Sends pushes. It never raises for what a service does, or fails to do."""

    async def send(self, push: Push, within_s: float) -> PushResponse:
        """Send one, and wait for its answer, no longer than that."""
        ...
