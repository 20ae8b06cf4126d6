"""The api listener's routes for publishers and operators, and the ASGI application itself (protocol, section 4).

    http_server (the connection) ──> middleware ──> a route, here ──> publishing, or the log ──> responses

Every error is answered as `application/problem+json`.
"""

import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..auth.scopes import AUDIT, DISPATCH, MANAGE, PUBLISH
from ..ingest.publish import Publishing, PublishOutcome
from ..metrics import gauge
from ..model import problems
from ..model.alert import Revision
from ..model.problems import Problem
from ..policy.confirmation import AREA
from ..policy.pii import KINDS
from ..wire.frames import alert_map
from .answers import ReadyOut, StateOut
from .context import ApiContext, Endpoint
from .health_app import health_routes, metrics_route
from .http_server import serve
from .middleware import Middleware, body_of, granted, is_dry_run, page_asked, publishing_as
from .pages import page_routes
from .responses import application, dry, exact, listed, problem_answer, rounded, state, written
from .routes_calls import call_routes

MAX_SCRAPERS = 16  # the highest number of connections to the listener of --metrics


def make_app(api: ApiContext, *, with_metrics: bool = True) -> ASGIApp:
    """Return the ASGI application of the api listener. `with_metrics` says whether it serves /metrics."""
    routes = [*_alerts(api), *call_routes(api), *_operations(api)]
    if api.taking is not None:
        from .routes_cap import cap_route  # imports the XML parser: 0.2 s and 10 MB that many nodes don't need

        routes.append(cap_route(api))
    if with_metrics:
        routes.append(metrics_route(api.metrics))
    return _guarded([*routes, *page_routes(api, {route.path for route in routes})], api)


def make_metrics_app(api: ApiContext) -> ASGIApp:
    """Return the ASGI application of the listener of `--metrics`, which serves only the metrics (rule H13)."""
    return _guarded([metrics_route(api.metrics)], api)


@contextlib.asynccontextmanager
async def serving(
    api: ApiContext, listener: socket.socket, metrics_listener: socket.socket | None
) -> AsyncIterator[None]:
    """Serve the HTTP API while the `with` block runs.

    Metrics are served on the socket `metrics_listener`, or on the API's own socket if it is None.
    """
    its_own: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
    if metrics_listener is not None:
        its_own = serve(make_metrics_app(api), metrics_listener, api.metrics, MAX_SCRAPERS)
    async with serve(make_app(api, with_metrics=metrics_listener is None), listener, api.metrics), its_own:
        yield


def _guarded(routes: Sequence[Route], api: ApiContext) -> ASGIApp:
    """Return an application with these routes, in which the middleware checks each request first.

    The application answers every error with a problem document.
    """

    for route in routes:
        route.methods = (route.methods or set()) - {"HEAD"}  # Starlette would answer it, too
    return Middleware(application(routes, functools.partial(problem_answer, api)), api)


def _alerts(api: ApiContext) -> list[Route]:
    own = (PUBLISH, MANAGE)  # the scopes of publishers, who may change and read

    def writing(kind: str, decide: Callable[..., Awaitable[PublishOutcome[Any]]], *scopes: str) -> Endpoint:
        async def write(request: Request) -> Response:
            publisher = publishing_as(request, *scopes)
            if kind != "cancel":  # nothing limits a cancel
                api.publishing.check_publisher(publisher)
            dry_run = is_dry_run(request)
            given = (*request.path_params.values(), await body_of(request), publisher)
            async with api.places.dry_runs.turn(publisher.subject) if dry_run else contextlib.nullcontext():
                outcome = await decide(api.publishing, *given, dry_run=dry_run)
            return dry(outcome) if dry_run else written(api, outcome, kind)

        return write

    async def get(request: Request) -> Response:
        grant, alert_id = granted(request, *own), request.path_params["alert_id"]
        async with api.places.reads.turn(grant.subject):
            history = await api.alert_log.history(alert_id)
            revisions = [entry for entry in history if isinstance(entry, Revision)]
            if not revisions:
                raise Problem(problems.UNKNOWN_ALERT)
            alert = alert_map(revisions[-1])
            answer: StateOut = {"state": state(history, api.clock.now().wall_ms), "alert": alert}
            if MANAGE in grant.scopes or (revisions[0].issuer, revisions[0].source) == grant.subject:
                counts = await api.alert_log.counts(alert_id)
                answer["delivery"] = exact(counts) if AUDIT in grant.scopes else rounded(counts, len(revisions))
            return JSONResponse(answer)

    async def live(request: Request) -> Response:
        grant = granted(request, *own)
        after, limit = page_asked(request)
        async with api.places.reads.turn(grant.subject):
            return await listed(await api.alert_log.live(api.clock.now().wall_ms, after, limit), limit)

    async def policy(request: Request) -> Response:
        granted(request, *own, DISPATCH)
        return JSONResponse(api.policy.model_dump(exclude_none=True))

    return [
        Route("/v1/alerts", writing("alert", Publishing.publish, PUBLISH), methods=["POST"]),
        Route("/v1/alerts/{alert_id}/revisions", writing("revision", Publishing.revise, *own), methods=["POST"]),
        Route("/v1/alerts/{alert_id}/cancel", writing("cancel", Publishing.cancel, *own), methods=["POST"]),
        Route("/v1/alerts/{alert_id}", get),
        Route("/v1/alerts", live),
        Route("/v1/policy", policy),
    ]


def _operations(api: ApiContext) -> list[Route]:
    def complete(answer: ReadyOut) -> None:
        if calls := api.degraded():
            answer["degraded"] = [f"calls: {calls} with entries that no key of --call-keys opens"]
        if reads := api.reads():
            answer["reads"] = reads

    api.metrics.watch(lambda: [gauge("ready", "1 if /readyz says 200", not api.unready())])
    for kind in ("alert", "revision", "cancel"):
        api.metrics.accepted.labels(kind)  # creates the series at 0, so that Prometheus sees the first increase
    for each in problems.ALL:
        api.metrics.refused.labels(each.slug)
    for kind in (AREA, *KINDS):
        api.metrics.held.labels(kind)

    async def problem_type(request: Request) -> Response:
        found = problems.BY_SLUG.get(request.path_params["slug"])
        if found is None:
            raise Problem(problems.NOT_FOUND)
        return JSONResponse(found.to_map())

    return [*health_routes(api.unready, complete), Route("/problems/{slug}", problem_type)]
