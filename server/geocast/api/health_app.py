"""The routes `/metrics`, `/healthz` and `/readyz`, and an ASGI application that has only these."""

from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..metrics import CONTENT_TYPE, Metrics
from .answers import HealthOut, ReadyOut

_NOT_STORED = {"Cache-Control": "no-store"}


def health_routes(
    unready: Callable[[], list[str]],
    complete: Callable[[ReadyOut], object] = lambda _: None,
    headers: Mapping[str, str] | None = None,
) -> list[Route]:
    """Return the routes `/healthz` and `/readyz`.

    `unready` returns the reasons why the process is not ready. `complete` adds what else is said at `/readyz`.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse(HealthOut(status="alive"), headers=headers)

    async def readyz(_: Request) -> Response:
        reasons = unready()
        answer: ReadyOut = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        complete(answer)
        return JSONResponse(answer, 503 if reasons else 200, headers)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_route(of: Metrics, headers: Mapping[str, str] | None = None) -> Route:
    """Return the route `/metrics`."""

    async def metrics(_: Request) -> Response:
        return Response(await of.scrape(), headers=headers, media_type=CONTENT_TYPE)

    return Route("/metrics", metrics)


def make_health_app(unready: Callable[[], list[str]], of: Metrics) -> ASGIApp:
    """Return the ASGI application on the address of `--metrics`, of processes that are no nodes."""
    return Starlette(routes=[*health_routes(unready, headers=_NOT_STORED), metrics_route(of, _NOT_STORED)])
