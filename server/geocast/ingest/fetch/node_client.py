"""Posts CAP messages to a node, and says what its answers mean (rule FE4).

An answer is final if it is 200 or 201, or a refusal because of the message itself. Everything else says that the node
can't decide now, or that the operator has to change something first: no answer, 429, 5xx, a token that is not valid, or
a node without CAP. Then the message has to be posted again.
"""

import asyncio
import json
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpcore

from ...clock import Clock
from ...egress.http_times import parse_retry_after

POST_S = 30.0  # the time limit for one request
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_DETAIL = 300  # characters
ACCEPTED = ("published", "updated", "replaced", "cancelled")  # the outcomes that come with 201
UNANSWERED = "no-answer"
_FINAL = (400, 409, 410, 413, 415, 422)
_FINAL_TYPES = ("sender-not-allowed", "not-yours")  # of 403
_WORD = re.compile(r"[a-z][a-z0-9-]{0,60}")


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """A node's answer about a message.

    `outcome` is the outcome of CAP, or the slug of a problem. If `is_final` is false, the message has to be posted
    again, after `retry_after_s` seconds if the node said so. `is_limited` says that there were too many alerts (429).
    `detail` is a sentence about a refusal, for people.
    """

    outcome: str
    is_final: bool
    retry_after_s: float | None = None
    is_limited: bool = False
    detail: str = field(default="", compare=False)

    @property
    def is_accepted(self) -> bool:
        """Whether the message has created or changed an alert."""
        return self.is_final and self.outcome in ACCEPTED


class NodeClient:
    """Posts messages on kept connections to one node. Call `close` at the end."""

    def __init__(self, url: str, token_file: Path | None, clock: Clock) -> None:
        """Create a client. `url` is that of `/v1/cap`; `token_file` is used for feeds without one of their own."""
        self._url = url
        self._token_file = token_file
        self._clock = clock
        self._pool = httpcore.AsyncConnectionPool(ssl_context=ssl.create_default_context(), keepalive_expiry=30.0)

    async def close(self) -> None:
        """Close all of its connections."""
        await self._pool.aclose()

    async def post(
        self, message: bytes, charset: str | None, token_file: Path | None, *, dry_run: bool = False
    ) -> NodeAnswer:
        """Post a message, and return the node's answer. The token is read from its file each time."""
        try:
            token = _token(token_file or self._token_file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return NodeAnswer("no-token", is_final=False, detail=f"the token file: {why}")
        kind = "application/cap+xml" + (f"; charset={charset}" if charset else "")
        headers = [("Content-Type", kind), ("Authorization", f"Bearer {token}")]
        url = self._url + ("?dry_run=true" if dry_run else "")
        try:
            async with (
                asyncio.timeout(POST_S),
                self._pool.stream("POST", url, headers=headers, content=message) as response,
            ):
                body = bytearray()
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        return NodeAnswer(UNANSWERED, is_final=False)
                fields = {name.lower(): text.decode("latin-1") for name, text in response.headers}
                wait_s = parse_retry_after(fields.get(b"retry-after"), self._clock.now().wall_ms)
                return answer_of(response.status, bytes(body), wait_s)
        except (TimeoutError, OSError, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
            return NodeAnswer(UNANSWERED, is_final=False)


def answer_of(status: int, body: bytes, retry_after_s: float | None = None) -> NodeAnswer:
    """Return what an answer with this status and body means."""
    detail = ""
    try:
        said = json.loads(body)
        words = [said.get("outcome"), *(each["type"] for each in said.get("errors", ())), said.get("type")]
        word = next(str(each).rpartition("/")[2] for each in words if each)
        detail = str(said.get("detail", ""))[:MAX_DETAIL]
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        word = ""
    if not _WORD.fullmatch(word):
        return NodeAnswer(f"status-{status}", False, retry_after_s, status == 429)  # not the answer of a node
    is_final = status in (200, 201, *_FINAL) or (status == 403 and word in _FINAL_TYPES)
    return NodeAnswer(word, is_final, retry_after_s, status == 429, detail if detail.isprintable() else "")


def _token(path: Path | None) -> str:
    if path is None:
        raise ValueError("none is given, neither for the feed nor by --token-file")
    token = path.read_text("ascii").strip()
    if not token or not token.isprintable() or " " in token:
        raise ValueError("it holds no token")
    return token
