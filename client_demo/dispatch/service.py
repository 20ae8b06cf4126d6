"""The HTTP service for the dispatch page: JSON requests, and one stream of events for each open page.

    POST /api/sign-in                    {key}               signs a dispatcher in; sets the cookie
    POST /api/sign-out
    GET  /api/events                     `all`, whenever anything has changed; `tick` keeps it alive
    POST /api/open                       {record, form}      call responders
    POST /api/calls/{id}/correct         {content, form}     replace the place or the text
    POST /api/calls/{id}/end             {reason}            end the call: everybody stands down

A response has the new state of the call, as in `all`. `staff_page.service` explains how a decision is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from client_demo.staff_page.changes import OpenPages
from client_demo.staff_page.decisions import NotAllowed
from client_demo.staff_page.service import StaffService, refused, require_integer, require_object
from client_demo.staff_page.sign_in import Json, SignIn
from client_demo.web.server import page_files

from .call_control import CallCase, CallControl, Form, read_form, read_text
from .records import Record

ANSWER_S = 3.0  # how long a response waits for the node's answer
PAGE = page_files("dispatch", "call", "form")


class DispatchService(StaffService):
    """The HTTP service of the dispatch page.

    `keys` maps each dispatcher to their sign-in key. `labels` are fields that are sent to the page, which shows them
    unchanged.
    """

    def __init__(
        self,
        control: CallControl,
        pages: OpenPages,
        keys: Mapping[str, str],
        labels: Mapping[str, Any],
        clock: Callable[[], int],
    ) -> None:
        super().__init__(SignIn(keys, "dispatch"), pages, labels, clock)
        self._control = control

    def routes(self) -> list[BaseRoute]:
        """Return all routes of the page."""
        decisions = {
            "/api/open": self._open,
            "/api/calls/{id}/correct": self._correct,
            "/api/calls/{id}/end": self._end,
        }
        return self.routes_of(PAGE, decisions)

    # ---- what the page is sent -------------------------------------------------------------------------------

    def all_for(self, name: str) -> Json:
        """Return all records and all calls."""
        control = self._control
        cases = {case.record: case for case in control.cases.values()}
        return {
            **self._labels,
            "me": name,
            "now": self._clock(),
            "trouble": control.trouble,
            "status": control.status,
            "retimed": control.retimes,
            "categories": {key: category["title"] for key, category in control.categories.items()},
            "records": [_shown(record, cases.get(record.key)) for record in control.records.values()],
            "calls": [_view(case) for case in control.cases.values() if case.is_call],
        }

    def news_for(self, name: str, ids: set[str]) -> Iterator[tuple[str, Json]]:
        """Return all records and all calls again, because they are few."""
        del ids
        yield "all", self.all_for(name)

    # ---- decisions of dispatchers ----------------------------------------------------------------------------

    async def _open(self, _: Request, name: str, sent: Json) -> Response:
        record = read_text("record", sent.get("record"))
        return await self._decided(self._control.open(record, _form_in(sent), name))

    async def _correct(self, request: Request, name: str, sent: Json) -> Response:
        content = require_integer(sent, "content")
        return await self._decided(self._control.correct(request.path_params["id"], content, _form_in(sent), name))

    async def _end(self, request: Request, name: str, sent: Json) -> Response:
        reason = read_text("reason", sent.get("reason"))
        return await self._decided(self._control.end(request.path_params["id"], reason, name))

    async def _decided(self, case: CallCase) -> Response:
        await self._control.answered(case, ANSWER_S)
        return refused(NotAllowed(case.troubles)) if case.troubles else JSONResponse({"call": _view(case)})


def _form_in(sent: Json) -> Form:
    return read_form(require_object(sent, "form"))


def _shown(record: Record, case: CallCase | None) -> Json:
    return {
        "key": record.key,
        "nature": record.nature,
        "recorded_at": record.recorded_at,
        "lat": record.lat,
        "lng": record.lng,
        "address": record.address,
        "category": record.category,
        "status": record.status,
        "obstacle": record.obstacle,
        "call": case.id if case and case.is_call else None,
        "refused": "; ".join(trouble.text for trouble in case.troubles) if case else "",
    }


def _view(case: CallCase) -> Json:
    return {
        "id": case.id,
        "record": case.record,
        "by": case.by,
        "pending": case.pending,
        "form": case.form,
        "near": case.near,
        "state": case.state,
        "troubles": [trouble.to_map() for trouble in case.troubles],
    }
