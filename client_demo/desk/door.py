"""The door of a page that people sign in at, and what it is told by: keys, requests, events.

Rule 1  Who is there is told by a key of their own, in a cookie that no script can read and no other site's page can
        send. A request that changes something must come from the page's own origin.
Rule 2  An event is never queued: a page that is slow is sent the latest state of what has changed meanwhile.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

MOST_BODY = 64 << 10
TICK_S = 10.0

Json = dict[str, Any]


class News:
    """What one page has to be told of: the ids of items that have changed; "" is the desk itself."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._event = asyncio.Event()

    def add(self, item_id: str) -> None:
        """Something has changed."""
        self._ids.add(item_id)
        self._event.set()

    async def next(self) -> set[str]:
        """What has changed since the last call; empty after TICK_S without anything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._event.wait()
        self._event.clear()
        ids, self._ids = self._ids, set()
        return ids


class Room:
    """The pages that are open."""

    def __init__(self) -> None:
        self._pages: set[News] = set()

    def changed(self, item_id: str = "") -> None:
        """Tell everybody."""
        for news in self._pages:
            news.add(item_id)

    @contextlib.contextmanager
    def joined(self) -> Iterator[News]:
        """What changes while the block runs, from its beginning."""
        news = News()
        self._pages.add(news)
        try:
            yield news
        finally:
            self._pages.remove(news)


class Door:
    """Who may come in: `keys`, name -> key. `cookie` is the beginning of the cookie's name."""

    def __init__(self, keys: Mapping[str, str], cookie: str) -> None:
        self._keys, self._prefix = keys, cookie

    def routes(self) -> list[BaseRoute]:
        """To sign in and out."""
        return [
            Route("/api/sign-in", self._sign_in, methods=["POST"]),
            Route("/api/sign-out", self._sign_out, methods=["POST"]),
        ]

    def who(self, request: Request) -> str | None:
        """Who has sent this; None for nobody who is known."""
        return self._name_of(_value_of(request.headers.get("cookie", ""), self._cookie(request)))

    async def _sign_in(self, request: Request) -> Response:
        sent = await body_of(request)
        if isinstance(sent, Response):
            return sent
        name = self._name_of(sent.get("key"))
        if name is None:
            return refusal(401, "This key opens nothing here. The service prints a link for each reviewer.")
        answer = JSONResponse({"name": name})
        answer.set_cookie(self._cookie(request), self._keys[name], httponly=True, samesite="strict", max_age=86_400)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        sent = await body_of(request)
        if isinstance(sent, Response):
            return sent
        answer = JSONResponse({})
        answer.delete_cookie(self._cookie(request), httponly=True, samesite="strict")
        return answer

    def _name_of(self, key: object) -> str | None:
        """Whose key this is. JSON can spell half a character: such a text is nobody's key, and no reason to fail."""
        if not isinstance(key, str):
            return None
        said = key.encode("utf-8", "replace")
        found = [name for name, known in self._keys.items() if secrets.compare_digest(known.encode(), said)]
        return found[0] if found else None

    def _cookie(self, request: Request) -> str:
        """Cookies know no port: two desks on one machine need two names."""
        return f"{self._prefix}_{request.url.port}"


async def body_of(request: Request) -> Json | Response:
    """The JSON object of a request from the page itself (Rule 1), or the refusal."""
    host = request.headers.get("host", "")
    if request.headers.get("origin") not in (f"http://{host}", f"https://{host}"):  # letter by letter: nothing to parse
        return refusal(403, "This request does not come from the desk's own page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            return refusal(413, f"A request may have {MOST_BODY >> 10} KiB at most.")
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    return sent if isinstance(sent, dict) else refusal(400, "A JSON object is expected.")


def refusal(status: int, detail: str) -> Response:
    """An answer that says no, and why."""
    return JSONResponse({"detail": detail}, status)


def _value_of(cookies: str, name: str) -> str | None:
    """A cookie's value in a `Cookie` header. Ours has no quotes; the library's reader of quotes takes the square of
    their length in time."""
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return next((value for key, _, value in pairs if key == name), None)
