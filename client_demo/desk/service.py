"""The HTTP service for the desk's page: JSON requests, and one stream of events for each open page.

    POST /api/sign-in                  {key}                        signs a reviewer in; sets the cookie
    POST /api/sign-out
    GET  /api/events                   `all` first, then `item` and `desk` as they change; `tick` keeps it alive
    POST /api/items/{id}/preview       {form}                       return a preview and the reasons against it
    POST /api/items/{id}/approve       {version, form}              publish the alert, or revise a live one
    POST /api/items/{id}/cancel        {version, reason, confirmed, confirm}
    POST /api/items/{id}/ask            {version, what, …}           return the text that reviewers must sign
    POST /api/items/{id}/sign           {version, form, signature}   add a signature; with the last one it is sent
    POST /api/items/{id}/withdraw       {version}                    end the collection of signatures
    POST /api/items/{id}/dismiss, /reopen   {version}

A response has the new state of the item, even if the decision is refused (see `staff_page.service`).
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from client_demo.staff_page.changes import OpenPages
from client_demo.staff_page.decisions import Conflict, NotAllowed
from client_demo.staff_page.service import Decide, StaffService, refused, require_integer, require_object
from client_demo.staff_page.sign_in import Json, SignIn, error_response
from client_demo.web.server import page_files

from .alert_control import AlertControl
from .queue import Form, Item, read_confirm, read_form, require_text
from .signing import read_signature

ANSWER_S = 3.0  # how long a response waits for the node's answer
PAGE = page_files("desk", "form", "list", "map", "outline", "signing")

# A function that carries out a decision: (item, name of the person, JSON object that was sent) -> response.
Act = Callable[[Item, str, Json], Awaitable[Response]]


class DeskService(StaffService):
    """The HTTP routes of the desk.

    `keys` maps each reviewer to the key for signing in. `labels` has members that are sent to the page, which shows
    them unchanged.
    """

    def __init__(
        self,
        control: AlertControl,
        pages: OpenPages,
        keys: Mapping[str, str],
        labels: Mapping[str, Any],
        clock: Callable[[], int],
    ) -> None:
        super().__init__(SignIn(keys, "desk"), pages, labels, clock)
        self._control = control
        self._views = itertools.count(1)

    def routes(self) -> list[BaseRoute]:
        """Return all routes of the desk."""
        acts: dict[str, Act] = {
            "preview": self._preview,
            "approve": self._approve,
            "cancel": self._cancel,
            "ask": self._ask,
            "sign": self._sign,
            "withdraw": self._withdraw,
            "dismiss": partial(self._set_aside, "dismiss"),
            "reopen": partial(self._set_aside, "reopen"),
        }
        return self.routes_of(PAGE, {f"/api/items/{{id}}/{name}": self._about_item(act) for name, act in acts.items()})

    # ---- what the page is sent -------------------------------------------------------------------------------

    def all_for(self, name: str) -> Json:
        """Return the state of the desk and all its items, for a page that has just opened its stream of events."""
        return {**self._desk(), "me": name, "items": [self._view(item) for item in self._control.queue]}

    def news_for(self, name: str, ids: set[str]) -> Iterator[tuple[str, Json]]:
        """Return the items that have changed.

        The state of the desk comes with them if it has changed, or if items were removed.
        """
        del name
        known = [item for each in ids if (item := self._control.queue.get(each))]
        for item in known:
            yield "item", self._view(item)
        if len(known) < len(ids):
            yield "desk", self._desk()

    def _desk(self) -> Json:
        control, policy = self._control, self._control.queue.policy
        return {
            **self._labels,
            "now": self._clock(),
            "ids": [item.id for item in control.queue],
            "feed": {"title": control.feed_title, "trouble": control.feed_trouble},
            "node": {"trouble": control.trouble, "policy": policy.name},
            "signed": policy.is_signed,
            "categories": {key: dict(category) for key, category in policy.categories.items()},
            "wordings": control.queue.wordings(),
        }

    def _view(self, item: Item) -> Json:
        """Return an item as its page shows it.

        An answer and an event may overtake each other on the way to the page. It shows the one with the higher `view`.
        """
        queue, seen = self._control.queue, item.sighting
        incident = seen.incident
        return {
            "id": item.id,
            "version": item.version,
            "view": next(self._views),
            "state": item.state,
            "pending": item.pending.what if item.pending else None,
            "signing": item.signing.shown() if item.signing else None,
            "waits": item.waits,
            "troubles": [trouble.to_map() for trouble in item.troubles],
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

    # ---- decisions of reviewers ------------------------------------------------------------------------------

    def _about_item(self, act: Act) -> Decide:
        async def decide(request: Request, name: str, sent: Json) -> Response:
            item = self._control.queue.get(request.path_params["id"])
            if item is None:
                return error_response(404, "This incident is no longer on the desk.")
            try:
                return await act(item, name, sent)
            except (Conflict, NotAllowed) as error:
                return refused(error, item=self._view(item))

        return decide

    async def _preview(self, item: Item, name: str, sent: Json) -> Response:
        found = await self._control.preview(item, _form_in(sent), name)
        return JSONResponse({**found, "troubles": [trouble.to_map() for trouble in found["troubles"]]})

    async def _approve(self, item: Item, name: str, sent: Json) -> Response:
        self._control.approve(item, require_integer(sent, "version"), _form_in(sent), name)
        return await self._decided(item)

    async def _cancel(self, item: Item, name: str, sent: Json) -> Response:
        reason = require_text("reason", sent.get("reason"))
        confirm = read_confirm(sent.get("confirm"))
        version, is_confirmed = require_integer(sent, "version"), sent.get("confirmed") is True
        self._control.cancel(item, version, reason, is_confirmed, name, confirm)
        return await self._decided(item)

    async def _ask(self, item: Item, name: str, sent: Json) -> Response:
        version = require_integer(sent, "version")
        if sent.get("what") == "cancel":
            reason = require_text("reason", sent.get("reason"))
            is_confirmed, confirm = sent.get("confirmed") is True, read_confirm(sent.get("confirm"))
            asked = await self._control.ask_to_cancel(item, version, reason, is_confirmed, name, confirm)
        else:
            asked = await self._control.ask_to_approve(item, version, _form_in(sent), name)
        return JSONResponse({"signing": asked.shown() if asked else None})

    async def _sign(self, item: Item, name: str, sent: Json) -> Response:
        signature = read_signature(sent.get("signature"), name, self._clock())
        self._control.sign(item, require_integer(sent, "version"), require_text("form", sent.get("form")), signature)
        return await self._decided(item)

    async def _withdraw(self, item: Item, name: str, sent: Json) -> Response:
        self._control.withdraw(item, require_integer(sent, "version"), name)
        return await self._decided(item)

    async def _set_aside(self, what: str, item: Item, name: str, sent: Json) -> Response:
        self._control.set_aside(item, require_integer(sent, "version"), what, name)
        return await self._decided(item)

    async def _decided(self, item: Item) -> Response:
        await self._control.answered(item, ANSWER_S)
        if item.troubles:
            return refused(NotAllowed(item.troubles), item=self._view(item))
        return JSONResponse({"item": self._view(item)})


def _form_in(sent: Json) -> Form:
    return read_form(require_object(sent, "form"))
