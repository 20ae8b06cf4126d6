"""The dispatch page and what it talks to: JSON over HTTP, and a stream of events.

    POST /api/sign-in                    {key}               who is there; sets the cookie
    POST /api/sign-out
    GET  /api/events                     `all`, whenever anything has changed; `tick` keeps it alive
    POST /api/open                       {record, form}      call responders
    POST /api/calls/{id}/correct         {content, form}     say the place or the text anew
    POST /api/calls/{id}/end             {reason}            have everybody stand down

An answer is what `all` has of the call then. 409: somebody else was first. 422: `troubles` say why not.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from client_demo.staff_page.changes import OpenPages
from client_demo.staff_page.sign_in import SignIn, error_response, read_body
from client_demo.web.server import event, event_stream, files, page_files

from .control import Case, Conflict, Control, Form, NotAllowed, read_form, read_text
from .records import Record

ANSWER_S = 3.0  # how long an answer waits for the node's
PAGE = page_files("dispatch", "call", "form")

Json = dict[str, Any]


class Service:
    """The routes. `keys`: dispatcher -> key; `labels` says what the page shows of where it is."""

    def __init__(
        self,
        control: Control,
        pages: OpenPages,
        keys: Mapping[str, str],
        labels: Mapping[str, Any],
        clock: Callable[[], int],
    ) -> None:
        self._control, self._pages, self._labels, self._clock = control, pages, labels, clock
        self._sign_in = SignIn(keys, "dispatch")

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        return [
            *files(PAGE),
            *self._sign_in.routes(),
            Route("/api/events", self._events),
            Route("/api/open", self._open, methods=["POST"]),
            Route("/api/calls/{id}/correct", self._correct, methods=["POST"]),
            Route("/api/calls/{id}/end", self._end, methods=["POST"]),
        ]

    # ---- what there is to see --------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        name = self._sign_in.name_of(request)
        if name is None:
            return error_response(401, "Sign in first.")
        return event_stream(self._stream(name))

    async def _stream(self, name: str) -> AsyncIterator[str]:
        with self._pages.joined() as changes:
            yield event("all", self._all(name))
            while True:
                changed = await changes.next()
                yield event("all", self._all(name)) if changed else event("tick", {"now": self._clock()})

    def _all(self, name: str) -> Json:
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

    # ---- what is done ----------------------------------------------------------------------------------------

    async def _open(self, request: Request) -> Response:
        return await self._decided(request, lambda name, sent: self._control.open(*_record_and_form(sent), name))

    async def _correct(self, request: Request) -> Response:
        call_id = request.path_params["id"]
        return await self._decided(
            request, lambda name, sent: self._control.correct(call_id, _content(sent), _form(sent), name)
        )

    async def _end(self, request: Request) -> Response:
        call_id = request.path_params["id"]
        return await self._decided(
            request, lambda name, sent: self._control.end(call_id, read_text("reason", sent.get("reason")), name)
        )

    async def _decided(self, request: Request, decide: Callable[[str, Json], Case]) -> Response:
        name = self._sign_in.name_of(request)
        if name is None:
            return error_response(401, "Sign in first.")
        sent = await read_body(request)
        if isinstance(sent, Response):
            return sent
        try:
            case = decide(name, sent)
        except ValueError as error:
            return error_response(400, str(error))
        except Conflict as conflict:
            return error_response(409, str(conflict))
        except NotAllowed as not_allowed:
            return JSONResponse({"troubles": _told(not_allowed.troubles)}, 422)
        await self._control.answered(case, ANSWER_S)
        if case.troubles:
            return JSONResponse({"troubles": _told(case.troubles)}, 422)
        return JSONResponse({"call": _view(case)})


# ---- requests and answers ----------------------------------------------------------------------------------------


def _record_and_form(sent: Json) -> tuple[str, Form]:
    return read_text("record", sent.get("record")), _form(sent)


def _form(sent: Json) -> Form:
    form = sent.get("form")
    if not isinstance(form, dict):
        raise ValueError("form: an object is expected")
    return read_form(form)


def _content(sent: Json) -> int:
    content = sent.get("content")
    if not isinstance(content, int) or isinstance(content, bool):
        raise ValueError("content: a number is expected")
    return content


def _told(troubles: list[tuple[str, str]]) -> list[Json]:
    return [{"field": field, "text": text} for field, text in troubles]


def _shown(record: Record, case: Case | None) -> Json:
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
        "refused": "; ".join(text for _, text in case.troubles) if case else "",
    }


def _view(case: Case) -> Json:
    return {
        "id": case.id,
        "record": case.record,
        "by": case.by,
        "pending": case.pending,
        "form": case.form,
        "near": case.near,
        "state": case.state,
        "troubles": _told(case.troubles),
    }
