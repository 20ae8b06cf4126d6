"""HTTP requests to the api, with retries: the code that publishers and dispatchers share.

Rule 1  After 503, 500 or no answer, it is not known whether the request was carried out. So the client sends the same
        bytes again until an answer comes. The server treats a repeated request as the same one (protocol, "Durable").
Rule 2  A request that was refused is not sent again; the refusal lists every broken rule in plain words. A request that
        exceeds the publisher's rate limit is also refused, because an alert that is sent minutes late is not the alert
        that was approved.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from .wire import is_loopback

if TYPE_CHECKING:
    import httpx

ANSWER_S = 10.0
MAX_RETRY_AFTER_S = 3600.0
FIRST_WAIT_S, LAST_WAIT_S = 0.25, 8.0
SENT_AGAIN = {408, 429, 500, 502, 503, 504}  # a proxy answers 502 or 504 if the server gave it no answer

Answer = dict[str, Any]


class PublishError(Exception):
    """Raised if the server could not be reached, or has refused the request. The text is one line for the user."""


class Unanswered(PublishError):  # noqa: N818 (an outcome)
    """Raised if a request was not answered within `patience_s` seconds.

    The server may or may not have carried out the request.
    """


class Refused(PublishError):  # noqa: N818 (an answer)
    """Raised if the server refused a request.

    `status` is the HTTP status, and `problem` the problem document. `lines` has one line of text for each broken rule.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status, self.problem = status, problem
        self.lines = list(_in_words(status, problem))
        super().__init__("; ".join(self.lines))

    @property
    def slug(self) -> str:
        """The last part of the problem's type, such as `stale`; "" if the problem has no type."""
        return str(self.problem.get("type", "")).removeprefix("/problems/")


def _in_words(status: int, problem: Mapping[str, Any]) -> list[str]:
    errors = problem.get("errors")
    if not errors:
        title, detail = problem.get("title", f"status {status}"), problem.get("detail")
        return [f"{title}: {detail}" if detail else str(title)]
    return [f"{error.get('pointer') or 'the request'}: {error.get('detail') or error.get('type')}" for error in errors]


def retry_after_s(value: str | None) -> float:
    """Return the number of seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3).

    `value` is the value of the header, which is a number of seconds or a date; None if there is no such header. The
    result is 0 if `value` is None or invalid. It is at most MAX_RETRY_AFTER_S, so that a wrong header cannot keep a
    client away for good.
    """
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(value)
        left_s = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, left_s), MAX_RETRY_AFTER_S)


class ApiClient:
    """A connection to the server's HTTP API. Use one of its subclasses, as an async context manager.

    A request that gets no answer is repeated for at most `patience_s` seconds; then Unanswered is raised. Before each
    repetition, `on_retry` is called with the reason, one line of text for a person.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        patience_s: float = 60.0,
        on_retry: Callable[[str], object] = lambda _why: None,
        transport: "httpx.AsyncBaseTransport | None" = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import httpx  # not above: a program that only listens can do without it

        self._url, self._patience_s, self._sleep, self._clock = url, patience_s, sleep, clock
        self._on_retry = on_retry
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=ANSWER_S,
            transport=transport,
            trust_env=not is_loopback(url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def policy(self) -> Answer:
        """Return the server's present policy: the categories of alerts that may be published, with their limits."""
        return await self._call("GET", "/v1/policy")

    # ---- one request with its retries ------------------------------------------------------------------------

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        return json_of(await self._answer(method, path, body))

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> "httpx.Response":
        content = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        headers = {} if content is None else {"Content-Type": "application/json"}
        give_up_at = self._clock() + self._patience_s
        wait_s = FIRST_WAIT_S
        while True:
            request = self._http.build_request(method, path, content=content, headers=headers)
            answer, trouble, at_least_s = await self._try(request)
            if answer is not None:
                return answer
            pause_s = max(at_least_s, wait_s * random.uniform(0.5, 1.0))
            if self._clock() + pause_s > give_up_at:
                raise Unanswered(f"{self._url} gave no answer: {trouble}")
            self._on_retry(f"{self._url} gave no answer: {trouble}; trying again")
            await self._sleep(pause_s)
            wait_s = min(LAST_WAIT_S, 2 * wait_s)

    async def _try(self, request: "httpx.Request") -> "tuple[httpx.Response | None, str, float]":
        """Send a request once. Return the answer, or None if the request has to be repeated.

        In the second case, also return the cause in words, and the seconds that the server's `Retry-After` asks for (0
        without one). Raise Refused if the server refuses the request.
        """
        import httpx

        try:
            response = await self._http.send(request)
        except httpx.TransportError as error:
            return None, str(error) or type(error).__name__, 0.0
        if response.is_success:
            return response, "", 0.0
        refused = Refused(response.status_code, json_of(response))
        if refused.status not in SENT_AGAIN or refused.slug == "rate-limited":
            raise refused
        return None, str(refused), _wait(response)


def _wait(response: "httpx.Response") -> float:
    return retry_after_s(response.headers.get("Retry-After"))


def in_path(own_id: str) -> str:
    """Return an id, quoted so that it can be used as one segment of a URL's path."""
    return quote(own_id, safe="")


def json_of(response: "httpx.Response") -> Answer:
    """Return the body of a response as a dict.

    If the body is not a JSON object (but, for example, an error page of a proxy), return a dict with the HTTP status.
    """
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        return body
    return {"title": f"status {response.status_code} {response.reason_phrase}, without a problem document"}
