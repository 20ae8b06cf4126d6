"""The calls of the api listener: HTTP for review services and operators (protocol, section 4).

    door (the connection) ──> guard ──> a call, here ──> publishing, or the log ──> answers

FastAPI routes and documents. Whatever goes wrong leaves here as `application/problem+json`.
"""

import contextlib
import functools
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from .. import __version__
from ..auth.scopes import AUDIT, DISPATCH, MANAGE, PUBLISH
from ..errors import LogUnavailable
from ..metrics import CONTENT_TYPE, gauge
from ..model import problems
from ..model.alert import Revision
from ..model.problems import Problem
from ..policy import Policy
from ..policy.confirmation import AREA
from ..policy.pii import KINDS
from ..wire.frames import alert_map
from . import asyncapi, openapi, openapi_calls, stream_html
from .answers import HealthOut, ReadyOut, StateOut
from .context import ApiContext
from .examples import STEP_MS
from .http_server import serve
from .middleware import Middleware, body_of, granted, is_dry_run, page_asked, publishing_as
from .pages import Shown, add_pages
from .responses import allowed, as_problem, dry, exact, listed, problem_answer, rounded, state, written
from .routes_calls import add_dispatch

MAX_SCRAPERS = 16  # connections to the listener of --metrics


def make_app(api: ApiContext, *, with_metrics: bool = True) -> ASGIApp:
    """The ASGI application of the api listener. `with_metrics`: whether /metrics is here."""
    app = FastAPI(
        title="geocast",
        version=__version__,
        summary="Approved alerts in, to every subscriber inside the radius.",
        openapi_url=None,  # served by ourselves, with the request bodies added
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_alerts(app, api)
    _add_cap(app, api)
    add_dispatch(app, api)
    _add_operations(app, api)
    _add_documents(app, api)
    if with_metrics:
        _add_metrics(app, api)
    return _guarded(app, api)


def make_metrics_app(api: ApiContext) -> ASGIApp:
    """The ASGI application of `--metrics`: nothing but the metrics (H13)."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    _add_metrics(app, api)
    return _guarded(app, api)


@contextlib.asynccontextmanager
async def serving(
    api: ApiContext, listener: socket.socket, metrics_listener: socket.socket | None
) -> AsyncIterator[None]:
    """Serve the api on its socket for as long as the block runs; the metrics there too, or on a socket of their own."""
    async with contextlib.AsyncExitStack() as both:
        await both.enter_async_context(
            serve(make_app(api, with_metrics=metrics_listener is None), listener, api.metrics)
        )
        if metrics_listener is not None:
            await both.enter_async_context(serve(make_metrics_app(api), metrics_listener, api.metrics, MAX_SCRAPERS))
        yield


def _guarded(app: FastAPI, api: ApiContext) -> ASGIApp:
    """The application, answering with problems only, behind its guard."""

    async def problem(request: Request, error: Exception) -> Response:
        found = as_problem(error)
        if found.type is problems.METHOD_NOT_ALLOWED:
            found.headers["Allow"] = allowed(app.routes, request.url.path)
        return problem_answer(api, found)

    for kind in (Problem, LogUnavailable, HTTPException, Exception):
        app.add_exception_handler(kind, problem)
    return Middleware(app, api)


def _add_alerts(app: FastAPI, api: ApiContext) -> None:
    @app.post("/v1/alerts", **openapi.PUBLISH)
    async def publish(request: Request) -> Response:
        publisher = publishing_as(request, PUBLISH)
        api.publishing.check_publisher(publisher)
        dry_run = is_dry_run(request)
        body = await body_of(request)
        async with api.places.judging(publisher.subject, dry_run=dry_run):
            outcome = await api.publishing.publish(body, publisher, dry_run=dry_run)
        return dry(outcome) if dry_run else written(api, outcome, "alert")

    @app.post("/v1/alerts/{alert_id}/revisions", **openapi.REVISE)
    async def revise(request: Request, alert_id: str) -> Response:
        publisher = publishing_as(request, PUBLISH, MANAGE)
        api.publishing.check_publisher(publisher)
        dry_run = is_dry_run(request)
        body = await body_of(request)
        async with api.places.judging(publisher.subject, dry_run=dry_run):
            outcome = await api.publishing.revise(alert_id, body, publisher, dry_run=dry_run)
        return dry(outcome) if dry_run else written(api, outcome, "revision")

    @app.post("/v1/alerts/{alert_id}/cancel", **openapi.CANCEL)
    async def cancel(request: Request, alert_id: str) -> Response:
        publisher = publishing_as(request, PUBLISH, MANAGE)
        dry_run = is_dry_run(request)
        body = await body_of(request)
        async with api.places.judging(publisher.subject, dry_run=dry_run):
            outcome = await api.publishing.cancel(alert_id, body, publisher, dry_run=dry_run)
        return dry(outcome) if dry_run else written(api, outcome, "cancel")

    @app.get("/v1/alerts/{alert_id}", **openapi.GET)
    async def get(request: Request, alert_id: str) -> Response:
        grant = granted(request, PUBLISH, MANAGE)
        async with api.places.reads.turn(grant.subject):
            history = await api.alert_log.history(alert_id)
            revisions = [entry for entry in history if isinstance(entry, Revision)]
            if not revisions:
                raise Problem(problems.UNKNOWN_ALERT)
            alert = alert_map(revisions[-1])
            answer: StateOut = {"state": state(history, api.clock.now().wall_ms), "alert": alert}
            if MANAGE in grant.scopes or (revisions[0].issuer, revisions[0].source) == grant.subject:
                counts = await api.alert_log.counts(alert_id)
                answer["delivery"] = exact(counts) if AUDIT in grant.scopes else rounded(counts)
            return JSONResponse(answer)

    @app.get("/v1/alerts", **openapi.LIST)
    async def live(request: Request) -> Response:
        grant = granted(request, PUBLISH, MANAGE)
        after, limit = page_asked(request)
        async with api.places.reads.turn(grant.subject):
            return await listed(await api.alert_log.live(api.clock.now().wall_ms, after, limit), limit)

    @app.get("/v1/policy", **openapi.POLICY)
    async def policy(request: Request) -> Response:
        granted(request, PUBLISH, MANAGE, DISPATCH)
        return JSONResponse(api.policy.model_dump(exclude_none=True))


def _add_cap(app: FastAPI, api: ApiContext) -> None:
    if api.taking is not None:
        from .routes_cap import add_cap  # what reads XML takes 0.2 s and 10 MB: many a node is sent no message of CAP

        add_cap(app, api)


def _add_operations(app: FastAPI, api: ApiContext) -> None:
    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Response:
        return JSONResponse(HealthOut(status="alive"))

    @app.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        reasons, calls = api.unready(), api.degraded()
        answer: ReadyOut = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        if calls:
            answer["degraded"] = [f"calls: {calls} with entries that no key of --call-keys opens"]
        return JSONResponse(answer, 503 if reasons else 200)

    api.metrics.watch(lambda: [gauge("ready", "1 if /readyz says 200", not api.unready())])
    for kind in ("alert", "revision", "cancel"):
        api.metrics.accepted.labels(kind)  # makes it 0: Prometheus can't see an increase of what was not there before
    for each in problems.ALL:
        api.metrics.refused.labels(each.slug)
    for kind in (AREA, *KINDS):
        api.metrics.held.labels(kind)

    @app.get("/problems/{slug}", **openapi.PROBLEM)
    async def problem_type(slug: str) -> Response:
        found = problems.BY_SLUG.get(slug)
        if found is None:
            raise Problem(problems.NOT_FOUND)
        return JSONResponse(found.to_map())


def _add_metrics(app: FastAPI, api: ApiContext) -> None:
    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        return Response(api.metrics.render(), media_type=CONTENT_TYPE)


def _add_documents(app: FastAPI, api: ApiContext) -> None:
    """Each document is made when it has changed: that takes 3 ms, and anybody may ask for it without a token."""
    made: tuple[Policy, int, Shown] | None = None

    def openapi_json() -> Shown:
        nonlocal made
        step = api.clock.now().wall_ms // STEP_MS
        if made is None or made[:2] != (api.policy, step):
            models = (*openapi_calls.BODIES, *openapi_calls.ANSWERS)
            made = api.policy, step, _as_json(openapi.openapi(app, api.policy, step * STEP_MS, models))
        return made[2]

    @functools.cache
    def asyncapi_json() -> Shown:
        return _as_json(asyncapi.document())

    @functools.cache
    def stream_page() -> Shown:
        return Shown.of(stream_html.page(asyncapi.document()).encode(), "text/html")

    add_pages(app, {"/openapi.json": openapi_json, "/v1/asyncapi.json": asyncapi_json, "/docs/stream": stream_page})


def _as_json(document: dict[str, Any]) -> Shown:
    return Shown.of(json.dumps(document, ensure_ascii=False).encode(), "application/json")
