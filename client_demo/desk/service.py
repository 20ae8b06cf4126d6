"""The desk's page and what it talks to: JSON over HTTP, and one stream of events for each page that is open.

    POST /api/sign-in                  {key}                        who is at the desk; sets the cookie
    POST /api/sign-out
    GET  /api/events                   `all` first, then `item` and `desk` as they change; `tick` keeps it alive
    POST /api/items/{id}/preview       {form}                       what would be published, and what stands in the way
    POST /api/items/{id}/approve       {version, form}              publish, or revise what is live
    POST /api/items/{id}/cancel        {version, reason, confirmed, confirm}
    POST /api/items/{id}/ask            {version, what, …}           what is to be signed for that (approve, cancel)
    POST /api/items/{id}/sign           {version, form, signature}   sign it; with the last signature it is sent
    POST /api/items/{id}/withdraw       {version}                    let nobody sign it any more
    POST /api/items/{id}/dismiss, /reopen   {version}

Rule 1  `staff_page.sign_in` says who is there, and keeps other sites' pages out.
Rule 2  An answer is the item as it is then. 409: somebody else was first. 422: `troubles` say why not.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from client_demo.staff_page.changes import OpenPages
from client_demo.staff_page.sign_in import SignIn, error_response, read_body
from client_demo.web.server import event, event_stream, files, page_files

from .office import Office
from .queue import Conflict, Form, Item, NotAllowed, read_confirm, read_form, require_text
from .signing import read_signature
from .words import Trouble

ANSWER_S = 3.0  # how long an answer waits for the node's
PAGE = page_files("desk", "form", "list", "map", "outline", "signing")

Json = dict[str, Any]
Act = Callable[[Request, Item, str, Json], Awaitable[Response]]


class Service:
    """The routes. `keys`: reviewer -> key; `labels` says of the desk what the page shows."""

    def __init__(
        self,
        office: Office,
        pages: OpenPages,
        keys: Mapping[str, str],
        labels: Mapping[str, Any],
        clock: Callable[[], int],
    ) -> None:
        self._office, self._pages, self._labels, self._clock = office, pages, labels, clock
        self._sign_in = SignIn(keys, "desk")

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        acts: dict[str, Act] = {
            "preview": self._preview,
            "approve": self._approve,
            "cancel": self._cancel,
            "ask": self._ask,
            "sign": self._sign,
            "withdraw": self._withdraw,
            "dismiss": self._set_aside,
            "reopen": self._set_aside,
        }
        return [
            *files(PAGE),
            *self._sign_in.routes(),
            Route("/api/events", self._events),
            *(
                Route(f"/api/items/{{id}}/{name}", self._deciding(act), methods=["POST"], name=name)
                for name, act in acts.items()
            ),
        ]

    # ---- what there is to see --------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        name = self._sign_in.name_of(request)
        if name is None:
            return error_response(401, "Sign in first.")
        return event_stream(self._stream(name))

    async def _stream(self, name: str) -> AsyncIterator[str]:
        with self._pages.joined() as changes:
            yield event("all", {**self._desk(), "me": name, "items": [self._view(item) for item in self._office.queue]})
            while True:
                ids = await changes.next()
                known = [item for each in ids if (item := self._office.queue.get(each))]
                for item in known:
                    yield event("item", self._view(item))
                if len(known) < len(ids):  # the desk, or items that are gone
                    yield event("desk", self._desk())
                if not ids:
                    yield event("tick", {"now": self._clock()})

    def _desk(self) -> Json:
        office, policy = self._office, self._office.queue.policy
        return {
            **self._labels,
            "now": self._clock(),
            "ids": [item.id for item in office.queue],
            "feed": {"title": office.feed_title, "trouble": office.feed_trouble},
            "node": {"trouble": office.trouble, "policy": policy.name},
            "signed": policy.is_signed,
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
            "signing": item.signing.shown() if item.signing else None,
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
            name = self._sign_in.name_of(request)
            if name is None:
                return error_response(401, "Sign in first.")
            sent = await read_body(request)
            if isinstance(sent, Response):
                return sent
            item = self._office.queue.get(request.path_params["id"])
            if item is None:
                return error_response(404, "This incident is no longer on the desk.")
            try:
                return await act(request, item, name, sent)
            except ValueError as error:
                return error_response(400, str(error))
            except Conflict as conflict:
                return JSONResponse({"detail": str(conflict), "item": self._view(item)}, 409)
            except NotAllowed as not_allowed:
                return JSONResponse({"troubles": _told(not_allowed.troubles), "item": self._view(item)}, 422)

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

    async def _ask(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        del request
        if sent.get("what") == "cancel":
            reason = require_text("reason", sent.get("reason"))
            is_confirmed, confirm = sent.get("confirmed") is True, read_confirm(sent.get("confirm"))
            asked = await self._office.ask_to_cancel(item, _version(sent), reason, is_confirmed, name, confirm)
        else:
            asked = await self._office.ask_to_approve(item, _version(sent), _form(sent), name)
        return JSONResponse({"signing": asked.shown() if asked else None})

    async def _sign(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        del request
        signature = read_signature(sent.get("signature"), name, self._clock())
        self._office.sign(item, _version(sent), require_text("form", sent.get("form")), signature)
        return await self._decided(item)

    async def _withdraw(self, request: Request, item: Item, name: str, sent: Json) -> Response:
        del request
        self._office.withdraw(item, _version(sent), name)
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
