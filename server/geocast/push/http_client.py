"""Pushes over HTTP: the requests that a push service understands (RFC 8030, 5)."""

from .. import failpoints
from ..egress.http1 import request
from ..egress.outcomes import PostOutcome, PostResponse
from ..egress.post_client import PATIENCE_S, HttpPostClient
from .client import Push


class HttpPushClient(HttpPostClient):
    """Sends pushes to push services on the internet. Call `open` first."""

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
