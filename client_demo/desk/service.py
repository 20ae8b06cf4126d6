"""The desk's page and what it talks to: JSON over HTTP, and one stream of events for each page that is open.

    POST /api/sign-in                  {key}                        who is at the desk; sets the cookie
    POST /api/sign-out
    GET  /api/events                   `all` first, then `item` and `desk` as they change; `tick` keeps it alive
    POST /api/items/{id}/preview       {form}                       what would be published, and what stands in the way
    POST /api/items/{id}/approve       {version, form}              publish, or revise what is live
    POST /api/items/{id}/cancel        {version, reason, confirmed, confirm}
    POST /api/items/{id}/dismiss, /reopen   {version}

Rule 1  Who is at the desk is told by a key of their own, in a cookie that no script can read and no other site's page
        can send. A request that changes something must come from the desk's own page (Origin).
Rule 2  An answer is the item as it is then. 409: somebody else was first. 422: `troubles` say why not.
Rule 3  An event is never queued: a page that is slow is sent the latest state of what has changed meanwhile.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from client_demo.web.server import MAP_LIBRARIES, SHARED, WEB, beside, files

from .office import Office
from .queue import Conflict, Form, Item, NotAllowed, read_confirm, read_form, require_text
from .words import Trouble

MOST_BODY = 64 << 10
ANSWER_S = 3.0  # how long an answer waits for the node's
TICK_S = 10.0
PAGE = {
    "/": WEB / "desk" / "desk.html",
    **beside("desk/desk.css", "desk/desk.js", "desk/form.js", "desk/list.js", "desk/map.js", "desk/outline.js"),
    **SHARED,
    **MAP_LIBRARIES,
}

Json = dict[str, Any]
Act = Callable[[Request, Item, str, Json], Awaitable[Response]]


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

    def changed(self, item: Item | None) -> None:
        """Tell everybody."""
        for news in self._pages:
            news.add(item.id if item else "")

    @contextlib.contextmanager
    def joined(self) -> Iterator[News]:
        """What changes while the block runs, from its beginning."""
        news = News()
        self._pages.add(news)
        try:
            yield news
        finally:
            self._pages.remove(news)


class Service:
    """The routes. `keys`: reviewer -> key; `labels` says of the desk what the page shows."""

    def __init__(
        self, office: Office, room: Room, keys: Mapping[str, str], labels: Mapping[str, Any], clock: Callable[[], int]
    ) -> None:
        self._office, self._room, self._keys, self._labels, self._clock = office, room, keys, labels, clock

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        acts: dict[str, Act] = {
            "preview": self._preview,
            "approve": self._approve,
            "cancel": self._cancel,
            "dismiss": self._set_aside,
            "reopen": self._set_aside,
        }
        return [
            *files(PAGE),
            Route("/api/sign-in", self._sign_in, methods=["POST"]),
            Route("/api/sign-out", self._sign_out, methods=["POST"]),
            Route("/api/events", self._events),
            *(
                Route(f"/api/items/{{id}}/{name}", self._deciding(act), methods=["POST"], name=name)
                for name, act in acts.items()
            ),
        ]

    # ---- who is there ----------------------------------------------------------------------------------------

    async def _sign_in(self, request: Request) -> Response:
        sent = await _body(request)
        if isinstance(sent, Response):
            return sent
        name = self._name_of(sent.get("key"))
        if name is None:
            return _refusal(401, "This key opens nothing here. The service prints a link for each reviewer.")
        answer = JSONResponse({"name": name})
        answer.set_cookie(_cookie(request), self._keys[name], httponly=True, samesite="strict", max_age=86_400)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        sent = await _body(request)
        if isinstance(sent, Response):
            return sent
        answer = JSONResponse({})
        answer.delete_cookie(_cookie(request), httponly=True, samesite="strict")
        return answer

    def _name_of(self, key: object) -> str | None:
        """Whose key this is. JSON can spell half a character: such a text is nobody's key, and no reason to fail."""
        if not isinstance(key, str):
            return None
        said = key.encode("utf-8", "replace")
        found = [name for name, known in self._keys.items() if secrets.compare_digest(known.encode(), said)]
        return found[0] if found else None

    def _reviewer(self, request: Request) -> str | None:
        return self._name_of(_value_of(request.headers.get("cookie", ""), _cookie(request)))

    # ---- what there is to see --------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        name = self._reviewer(request)
        if name is None:
            return _refusal(401, "Sign in first.")
        return StreamingResponse(
            self._stream(name), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _stream(self, name: str) -> AsyncIterator[str]:
        with self._room.joined() as news:
            yield _event(
                "all", {**self._desk(), "me": name, "items": [self._view(item) for item in self._office.queue]}
            )
            while True:
                ids = await news.next()
                known = [item for each in ids if (item := self._office.queue.get(each))]
                for item in known:
                    yield _event("item", self._view(item))
                if len(known) < len(ids):  # the desk, or items that are gone
                    yield _event("desk", self._desk())
                if not ids:
                    yield _event("tick", {"now": self._clock()})

    def _desk(self) -> Json:
        office, policy = self._office, self._office.queue.policy
        return {
            **self._labels,
            "now": self._clock(),
            "ids": [item.id for item in office.queue],
            "feed": {"title": office.feed_title, "trouble": office.feed_trouble},
            "node": {"trouble": office.trouble, "policy": policy.name},
            "categories": {key: dict(category) for key, category in policy.categories.items()},
            "wordings": office.queue.wordings(),
        }

    def _view(self, item: Item) -> Json:
        queue, seen = self._office.queue, item.sighting
        incident = seen.incident
        return {
            "id": item.id,
            "version": item.version,
            "state": item.state,
            "pending": item.pending.what if item.pending else None,
            "waits": item.waits,
            "troubles": _told(item.troubles),
            "nature": seen.nature,
            "category": item.category,
            "obstacle": item.obstacle,
            "locked": item.is_locked,
            "occurred_at": incident.occurred_at,
            "recorded_at": seen.recorded_at if seen.is_retimed else None,
            "stale_at": queue.stale_at(item),
            "district": seen.district,
            "rows": [[[cell.column, cell.parts] for cell in row] for row in seen.rows],
            "row_count": seen.row_count,
            "proposal": queue.proposal(item),
            "form": item.form,
            "draft": item.draft,
            "alert_id": item.alert_id if item.revision else None,
            "revision": item.revision,
            "published": item.published,
            "delivery": item.delivery,
            "history": [{"what": each.what, "by": each.by, "at": each.at} for each in item.history],
        }

    # ---- what is done ----------------------------------------------------------------------------------------

    def _deciding(self, act: Act) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            name = self._reviewer(request)
            if name is None:
                return _refusal(401, "Sign in first.")
            sent = await _body(request)
            if isinstance(sent, Response):
                return sent
            item = self._office.queue.get(request.path_params["id"])
            if item is None:
                return _refusal(404, "This incident is no longer on the desk.")
            try:
                return await act(request, item, name, sent)
            except ValueError as error:
                return _refusal(400, str(error))
            except Conflict as conflict:
                return JSONResponse({"detail": str(conflict), "item": self._view(item)}, 409)
            except NotAllowed as refusal:
                return JSONResponse({"troubles": _told(refusal.troubles), "item": self._view(item)}, 422)

        return endpoint

    async def _preview(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        del request
        found = await self._office.preview(item, _form(sent), name)
        return JSONResponse({**found, "troubles": _told(found["troubles"])})

    async def _approve(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        del request
        self._office.approve(item, _version(sent), _form(sent), name)
        return await self._decided(item)

    async def _cancel(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        del request
        reason = require_text("reason", sent.get("reason"))
        confirm = read_confirm(sent.get("confirm"))
        self._office.cancel(item, _version(sent), reason, sent.get("confirmed") is True, name, confirm)
        return await self._decided(item)

    async def _set_aside(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        self._office.set_aside(item, _version(sent), request.url.path.rpartition("/")[2], name)
        return await self._decided(item)

    async def _decided(self, item: Item) -> Response:
        await self._office.answered(item, ANSWER_S)
        if item.troubles:
            return JSONResponse({"troubles": _told(item.troubles), "item": self._view(item)}, 422)
        return JSONResponse({"item": self._view(item)})


# ---- requests and answers ----------------------------------------------------------------------------------------


async def _body(request: Request) -> Json | Response:
    """The JSON object of a request from the desk's own page (Rule 1), or the refusal."""
    host = request.headers.get("host", "")
    if request.headers.get("origin") not in (f"http://{host}", f"https://{host}"):  # letter by letter: nothing to parse
        return _refusal(403, "This request does not come from the desk's own page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY:
            return _refusal(413, f"A request may have {MOST_BODY >> 10} KiB at most.")
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):
        sent = None
    return sent if isinstance(sent, dict) else _refusal(400, "A JSON object is expected.")


def _form(sent: Json) -> Form:
    form = sent.get("form")
    if not isinstance(form, dict):
        raise ValueError("form: an object is expected")
    return read_form(form)


def _version(sent: Json) -> int:
    version = sent.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError("version: a number is expected")
    return version


def _told(troubles: list[Trouble]) -> list[Json]:
    return [{"field": each.field, "text": each.text} | ({"held": each.held} if each.held else {}) for each in troubles]


def _refusal(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status)


def _event(name: str, data: Json) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def _cookie(request: Request) -> str:
    """Cookies know no port: two desks on one machine need two names."""
    return f"desk_{request.url.port}"


def _value_of(cookies: str, name: str) -> str | None:
    """A cookie's value in a `Cookie` header. Ours has no quotes; the library's reader of quotes takes the square of
    their length in time."""
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return next((value for key, _, value in pairs if key == name), None)
