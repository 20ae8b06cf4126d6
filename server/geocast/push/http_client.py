"""Pushes over HTTP: the requests that a push service understands (RFC 8030, 5)."""

import ssl
from collections.abc import Collection

from .. import failpoints
from ..clock import Clock
from ..egress.http1 import request
from ..egress.outcomes import PostOutcome, PostResponse
from ..egress.post_client import PATIENCE_S, HttpPostClient
from .client import Push


class HttpPushClient(HttpPostClient):
    """Sends pushes to push services on the internet. Call `open` first."""

    def __init__(self, clock: Clock, private: Collection[str] = (), tls: ssl.SSLContext | None = None) -> None:
        """Create a client.

        Hosts in `private` may have internal addresses. If `tls` is None, the system's certificate authorities are
        trusted.
        """
        super().__init__(lambda: clock.now().wall_ms, private, tls or ssl.create_default_context())

    async def send(self, push: Push, within_s: float) -> PostResponse:
        where, data = push.endpoint, _request(push)
        answer = await self.post(where.host, where.port, data, min(PATIENCE_S, within_s), is_known=push.is_known)
        if answer.outcome not in (PostOutcome.AWAY, PostOutcome.MAYBE):
            failpoints.hit("push-answered")
        return answer


def _request(push: Push) -> bytes:
    endpoint = push.endpoint
    fields = {
        "Authorization": push.authorization,
        "Content-Encoding": "aes128gcm",
        "TTL": str(push.ttl_s),
        "Urgency": push.urgency,
        "Topic": push.topic,
    }
    return request(endpoint.authority, endpoint.target, fields, push.body)
