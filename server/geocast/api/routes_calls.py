"""The calls of the api listener for dispatchers: to open calls for help, to end them, and to see who comes.

guard ──> a call, here ──> calling ──> answers
"""

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from ..auth.scopes import DISPATCH
from ..auth.tokens import Requester
from ..calls.service import CallOutcome
from . import openapi_calls as documents
from .context import ApiContext
from .middleware import body_of, publishing_as, without_query
from .responses import stored

CONTENT, END = "content", "end"
KINDS = ("call", CONTENT, END)


def add_dispatch(app: FastAPI, api: ApiContext) -> None:
    """Add the calls about calls to the api listener. Where the policy has no calls, none can be opened (RO1)."""
    for kind in KINDS:
        api.metrics.calls_accepted.labels(kind)  # makes it 0: Prometheus can't see an increase of what was not there

    @app.post("/v1/calls", **documents.OPEN)
    async def open_call(request: Request) -> Response:
        dispatcher = _dispatching(request)
        return _written(api, await api.calling.open(await body_of(request), dispatcher), "call")

    @app.post("/v1/calls/{call_id}/revisions", **documents.REVISE)
    async def revise_call(request: Request, call_id: str) -> Response:
        dispatcher = _dispatching(request)
        return _written(api, await api.calling.revise(call_id, await body_of(request), dispatcher), CONTENT)

    @app.post("/v1/calls/{call_id}/end", **documents.END)
    async def end_call(request: Request, call_id: str) -> Response:
        dispatcher = _dispatching(request)
        return _written(api, await api.calling.end(call_id, await body_of(request), dispatcher), END)

    @app.get("/v1/calls/{call_id}", **documents.GET)
    async def get_call(request: Request, call_id: str) -> Response:
        dispatcher = _dispatching(request)
        async with api.places.reads.turn(request.scope["grant"].subject):
            return JSONResponse(await api.calling.state(call_id, dispatcher))

    @app.get("/v1/calls", **documents.LIST)
    async def open_calls(request: Request) -> Response:
        # One after the other: to encode a thousand at once would hold up whatever else this process does.
        dispatcher = _dispatching(request)
        async with api.places.reads.turn(request.scope["grant"].subject):
            calls = [JSONResponse(each).body async for each in api.calling.open_calls(dispatcher)]
        return Response(b'{"calls":[' + b",".join(calls) + b"]}", media_type=JSONResponse.media_type)


def _dispatching(request: Request) -> Requester:
    """Who asks. Raises Problem: 403 without the scope, 422 for a query."""
    dispatcher = publishing_as(request, DISPATCH)
    without_query(request)
    return dispatcher


def _written(api: ApiContext, outcome: CallOutcome, kind: str) -> Response:
    """201, or 200 to a repeat."""
    if not outcome.created:
        return JSONResponse(outcome.answer)
    api.metrics.calls_accepted.labels(kind).inc()
    return stored(outcome.answer, f"/v1/calls/{outcome.answer['id']}")
