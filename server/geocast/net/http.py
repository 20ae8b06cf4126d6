"""The api listener: HTTP for review services and operators (protocol, section 4).

    Guard ── 429, 503 draining, 401 ──> routes ── 403 scope; 404, 405 path ──> body ── 413, 415, 400 ──> publishing

FastAPI routes and documents; the bodies are read raw, since a framework's own parser takes NaN and duplicate keys.
Whatever goes wrong leaves here as `application/problem+json`.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import swagger_ui_bundle
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__, failpoints, problems
from ..alert import Cancel, Entry, OtherKind, Revision, is_id
from ..alertlog import AlertLog, Counts
from ..clock import Clock, format_time
from ..errors import LogUnavailable, Malformed, trace
from ..frames import alert_map
from ..metrics import CONTENT_TYPE, Metrics, gauge
from ..policy import Policy
from ..problems import Problem, Violation
from ..publishing import Outcome, Publisher, Publishing
from ..strict import load_json
from ..tokens import AUDIT, MANAGE, PUBLISH, Grant, Tokens
from . import asyncapi, documents
from .door import serve

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
BODY_S = 10.0  # for a whole body to arrive
MAX_REQUESTS = 2_000  # under way at once
RETRY_AFTER_S = 1
MAX_SCRAPERS = 16  # connections to the listener of --metrics
LEAST_COUNT = 20  # sessions of one's own that it takes to see another one in a rounded count
PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/asyncapi.json", "/docs"})
PUBLIC_UNDER = ("/problems/", "/docs/")

_STATIC = Path(swagger_ui_bundle.swagger_ui_path)


@dataclass(slots=True)
class Api:
    """What the api listener works on. `unready` gives the reasons why the node is not ready, if any."""

    publishing: Publishing
    alert_log: AlertLog
    policy: Policy
    tokens: Tokens
    clock: Clock
    metrics: Metrics
    unready: Callable[[], list[str]]
    draining: bool = False
    requests: int = field(default=0, init=False)  # under way


def make_app(api: Api, *, with_metrics: bool = True) -> ASGIApp:
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
    _add_operations(app, api)
    _add_documents(app)
    if with_metrics:
        _add_metrics(app, api)
    return _guarded(app, api)


def make_metrics_app(api: Api) -> ASGIApp:
    """The ASGI application of `--metrics`: nothing but the metrics (H13)."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    _add_metrics(app, api)
    return _guarded(app, api)


@contextlib.asynccontextmanager
async def serving(api: Api, listener: socket.socket, scraped: socket.socket | None) -> AsyncIterator[None]:
    """Serve the api on its socket, and the metrics there or on one of their own, for as long as the block runs."""
    async with contextlib.AsyncExitStack() as both:
        await both.enter_async_context(serve(make_app(api, with_metrics=scraped is None), listener, api.metrics))
        if scraped is not None:
            await both.enter_async_context(serve(make_metrics_app(api), scraped, api.metrics, MAX_SCRAPERS))
        yield


def _guarded(app: FastAPI, api: Api) -> ASGIApp:
    """The application, answering with problems only, behind its guard."""

    async def problem(request: Request, error: Exception) -> Response:
        found = _as_problem(error)
        if found.type is problems.METHOD_NOT_ALLOWED:
            found.headers["Allow"] = _allowed(app, request.url.path)
        return _problem(api, found)

    for kind in (Problem, LogUnavailable, HTTPException, Exception):
        app.add_exception_handler(kind, problem)
    return Guard(app, api)


# ---- the calls ---------------------------------------------------------------------------------------------------


def _add_alerts(app: FastAPI, api: Api) -> None:
    @app.post("/v1/alerts", **documents.PUBLISH)
    async def publish(request: Request) -> Response:
        publisher = _publisher(request, PUBLISH)
        dry_run = _dry_run(request)
        outcome = await api.publishing.publish(await _body(request), publisher, dry_run=dry_run)
        return _dry(outcome) if dry_run else _written(api, outcome, "alert")

    @app.post("/v1/alerts/{alert_id}/revisions", **documents.REVISE)
    async def revise(request: Request, alert_id: str) -> Response:
        publisher = _publisher(request, PUBLISH, MANAGE)
        dry_run = _dry_run(request)
        outcome = await api.publishing.revise(alert_id, await _body(request), publisher, dry_run=dry_run)
        return _dry(outcome) if dry_run else _written(api, outcome, "revision")

    @app.post("/v1/alerts/{alert_id}/cancel", **documents.CANCEL)
    async def cancel(request: Request, alert_id: str) -> Response:
        publisher = _publisher(request, PUBLISH, MANAGE)
        _no_query(request)
        return _written(api, await api.publishing.cancel(alert_id, await _body(request), publisher), "cancel")

    @app.get("/v1/alerts/{alert_id}", **documents.GET)
    async def get(request: Request, alert_id: str) -> Response:
        grant = _grant(request, PUBLISH, MANAGE)
        history = await api.alert_log.history(alert_id)
        revisions = [entry for entry in history if isinstance(entry, Revision)]
        if not revisions:
            raise Problem(problems.UNKNOWN_ALERT)
        answer = {"state": _state(history, api.clock.now().wall_ms), "alert": alert_map(revisions[-1])}
        if MANAGE in grant.scopes or revisions[0].source == grant.sub:
            counts = await api.alert_log.counts(alert_id)
            answer["delivery"] = counts._asdict() if AUDIT in grant.scopes else _rounded(counts)
        return JSONResponse(answer)

    @app.get("/v1/alerts", **documents.LIST)
    async def live(request: Request) -> Response:
        _grant(request, PUBLISH, MANAGE)
        return JSONResponse(
            {"alerts": [alert_map(revision) for revision in await api.alert_log.live(api.clock.now().wall_ms)]}
        )

    @app.get("/v1/policy", **documents.POLICY)
    async def policy(request: Request) -> Response:
        _grant(request, PUBLISH, MANAGE)
        return JSONResponse(api.policy.model_dump())


def _add_operations(app: FastAPI, api: Api) -> None:
    @app.get("/healthz", **documents.HEALTH)
    async def healthz() -> Response:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", **documents.READY)
    async def readyz() -> Response:
        reasons = api.unready()
        if reasons:
            return JSONResponse({"status": "not ready", "reasons": reasons}, 503)
        return JSONResponse({"status": "ready"})

    api.metrics.watch(lambda: [gauge("ready", "1 if /readyz says 200", not api.unready())])
    for kind in ("alert", "revision", "cancel"):
        api.metrics.accepted.labels(kind)  # at 0: Prometheus can't see the increase of what was not there
    for each in problems.ALL:
        api.metrics.refused.labels(each.slug)

    @app.get("/problems/{slug}", **documents.PROBLEM)
    async def problem_type(slug: str) -> Response:
        found = problems.BY_SLUG.get(slug)
        if found is None:
            raise Problem(problems.NOT_FOUND)
        return JSONResponse(found.to_map())


def _add_metrics(app: FastAPI, api: Api) -> None:
    @app.get("/metrics", **documents.METRICS)
    async def metrics() -> Response:
        return Response(api.metrics.render(), media_type=CONTENT_TYPE)


def _add_documents(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(documents.openapi(app))

    @app.get("/v1/asyncapi.json", include_in_schema=False)
    async def stream() -> Response:
        return JSONResponse(asyncapi.document())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="geocast api",
            swagger_js_url="/docs/swagger-ui-bundle.js",
            swagger_css_url="/docs/swagger-ui.css",
            swagger_favicon_url="/docs/favicon-32x32.png",
        )

    app.mount("/docs", StaticFiles(directory=_STATIC))


# ---- answers -----------------------------------------------------------------------------------------------------

_DRY = ("id", "expires_at", "area")


def _accepted(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Cancel):
        return {"id": entry.id, "revision": entry.revision, "cancelled_at": format_time(entry.cancelled_at)}
    return {
        "id": entry.id,
        "revision": entry.revision,
        "issued_at": format_time(entry.issued_at),
        "expires_at": format_time(entry.alert.expires_at),
        "area": [shape.to_map() for shape in entry.alert.area],
    }


def _dry(outcome: Outcome[Any]) -> Response:
    return JSONResponse({name: value for name, value in _accepted(outcome.entry).items() if name in _DRY})


def _written(api: Api, outcome: Outcome[Any], kind: str) -> Response:
    if not outcome.created:
        return JSONResponse(_accepted(outcome.entry))
    api.metrics.accepted.labels(kind).inc()
    return _Accepted(_accepted(outcome.entry), 201, {"Location": f"/v1/alerts/{outcome.entry.id}"})


class _Accepted(JSONResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        failpoints.hit("after-201")


def _state(history: Sequence[Entry | OtherKind], now_ms: int) -> str:
    if any(isinstance(entry, Cancel) for entry in history):
        return "cancelled"
    last = [entry for entry in history if isinstance(entry, Revision)][-1]
    return "live" if now_ms < last.ends_at else "expired"


def _rounded(counts: Counts) -> dict[str, Any]:
    """Counts that don't tell of a person, however small the alert, or short (H11)."""
    return {name: _down(number) for name, number in counts._asdict().items()} | {"rounded": True}


def _down(number: int) -> int:
    """A count down to its two leading digits, and to tens at least; 0 below LEAST_COUNT."""
    unit = max(10, 10 ** (len(str(number)) - 2))
    return number // unit * unit if number >= LEAST_COUNT else 0


def _as_problem(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case LogUnavailable():
            return Problem(problems.LOG_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_S)})
        case HTTPException(status_code=405):
            return Problem(problems.METHOD_NOT_ALLOWED)
        case HTTPException(status_code=404):
            return Problem(problems.NOT_FOUND)
    return Problem(problems.INTERNAL)


def _allowed(app: FastAPI, path: str) -> str:
    """All methods of a path (RFC 9110, 15.5.6); Starlette names those of the first route only."""
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.path_regex.match(path)]
    return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


def _problem(api: Api, problem: Problem) -> Response:
    api.metrics.refused.labels(problem.slug).inc()
    return JSONResponse(problem.body(), problem.status, problem.headers, "application/problem+json")


# ---- requests ----------------------------------------------------------------------------------------------------


def _grant(request: Request, *scopes: str) -> Grant:
    """The caller's grant, if it holds one of `scopes`."""
    grant: Grant = request.scope["grant"]
    if not grant.scopes & set(scopes):
        raise Problem(problems.INSUFFICIENT_SCOPE, f"The token lacks the scope {' or '.join(scopes)}.")
    return grant


def _publisher(request: Request, *scopes: str) -> Publisher:
    grant = _grant(request, *scopes)
    if not is_id(grant.sub):
        raise Problem(
            problems.INSUFFICIENT_SCOPE, "The token's sub can't be shown as a source: it must match the grammar of id"
        )
    return Publisher(grant.sub, MANAGE in grant.scopes)


def _dry_run(request: Request) -> bool:
    parameters = list(request.query_params.multi_items())
    match parameters:
        case []:
            return False
        case [("dry_run", ("true" | "false") as value)]:
            return value == "true"
    wrong = "the only query parameter is dry_run, true or false, once"
    raise Problem.of([Violation(problems.INVALID_VALUE, "", wrong)])


def _no_query(request: Request) -> None:
    if request.url.query:
        raise Problem.of([Violation(problems.INVALID_VALUE, "", "this call takes no query parameters")])


async def _body(request: Request) -> dict[str, Any]:
    """The request's body as one strict JSON object. Raises Problem: 413, 415, 400, in this order."""
    data = b""
    try:
        async with asyncio.timeout(BODY_S):
            if int(request.headers.get("Content-Length", "0")) > MAX_BODY_BYTES:
                raise Problem(problems.TOO_LARGE)
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY_BYTES:
                    raise Problem(problems.TOO_LARGE)
    except (TimeoutError, ClientDisconnect):
        raise Problem(problems.MALFORMED_JSON, f"The body did not arrive within {BODY_S:g} s.") from None
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE)
    try:
        return load_json(data)
    except (Malformed, UnicodeDecodeError):
        raise Problem(problems.MALFORMED_JSON) from None


class Guard:
    """What comes before any route: how many requests at once, whether we are going away, who is asking."""

    def __init__(self, app: ASGIApp, api: Api) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing that fails in it gets out of here but as a problem."""
        if scope["type"] != "http":
            return
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self._api.requests += 1
        try:
            refused = None if _is_public(scope["path"]) else self._refused(scope)
            await (self._app if refused is None else _problem(self._api, refused))(scope, receive, observed)
        except Exception as error:
            log.error("a request failed: %s", trace(error))
            if not started:
                await _problem(self._api, Problem(problems.INTERNAL))(scope, receive, send)
        finally:
            self._api.requests -= 1

    def _refused(self, scope: Scope) -> Problem | None:
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        if self._api.requests > MAX_REQUESTS:
            return Problem(problems.TOO_MANY_REQUESTS, headers=retry)
        if self._api.draining:
            return Problem(problems.DRAINING, headers=retry)
        grant = self._api.tokens.check(_bearer(scope), self._api.clock.now(), again=True)
        if grant is None:
            return Problem(problems.UNAUTHORIZED, headers={"WWW-Authenticate": 'Bearer realm="geocast"'})
        scope["grant"] = grant
        return None


def _is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(PUBLIC_UNDER)


def _bearer(scope: Scope) -> str:
    """The bearer token (RFC 6750); empty if there is not exactly one."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    kind, _, token = values[0].decode("latin-1").partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if kind.lower() == "bearer" else ""
