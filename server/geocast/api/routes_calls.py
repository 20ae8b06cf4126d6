"""The api listener's routes for dispatchers: open, correct and end calls for help, and see who responds.

middleware ──> a route, here ──> `calls.service` ──> responses
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..auth.scopes import DISPATCH
from ..auth.tokens import Requester
from ..calls.service import CallOutcome, CallService
from .context import ApiContext, Endpoint
from .middleware import body_of, publishing_as, without_query
from .responses import stored

KINDS = ("call", "content", "end")


def call_routes(api: ApiContext) -> list[Route]:
    """Return the routes for calls for help. If the policy has no calls, requests to open one are refused (RO1)."""
    for kind in KINDS:
        api.metrics.calls_accepted.labels(kind)  # creates the series at 0, so that Prometheus sees the first increase

    def writing(kind: str, decide: Callable[..., Awaitable[CallOutcome]]) -> Endpoint:
        """Return the handler of requests that store an entry of a call.

        It answers 201 for a new entry, and 200 if the request repeats an earlier one. New entries are counted in the
        metrics under `kind`.
        """

        async def write(request: Request) -> Response:
            dispatcher = _dispatching(request)
            outcome = await decide(api.calling, *request.path_params.values(), await body_of(request), dispatcher)
            if not outcome.created:
                return JSONResponse(outcome.answer)
            api.metrics.calls_accepted.labels(kind).inc()
            return stored(outcome.answer, f"/v1/calls/{outcome.answer['id']}")

        return write

    async def get_call(request: Request) -> Response:
        dispatcher = _dispatching(request)
        async with api.places.reads.turn(dispatcher.subject):
            return JSONResponse(await api.calling.state(request.path_params["call_id"], dispatcher))

    async def open_calls(request: Request) -> Response:
        # Encode the calls one by one, because encoding a thousand at once would block the event loop.
        dispatcher = _dispatching(request)
        async with api.places.reads.turn(dispatcher.subject):
            calls = [JSONResponse(each).body async for each in api.calling.open_calls(dispatcher)]
        return Response(b'{"calls":[' + b",".join(calls) + b"]}", media_type=JSONResponse.media_type)

    return [
        Route("/v1/calls", writing("call", CallService.open), methods=["POST"]),
        Route("/v1/calls/{call_id}/revisions", writing("content", CallService.revise), methods=["POST"]),
        Route("/v1/calls/{call_id}/end", writing("end", CallService.end), methods=["POST"]),
        Route("/v1/calls/{call_id}", get_call),
        Route("/v1/calls", open_calls),
    ]


def _dispatching(request: Request) -> Requester:
    """Return the dispatcher who sends the request.

    Raise Problem: 403 if the token lacks the scope for dispatchers, and 422 if the request has a query.
    """
    dispatcher = publishing_as(request, DISPATCH)
    without_query(request)
    return dispatcher
