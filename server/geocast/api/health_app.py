"""The ASGI application on the address of `--metrics`, of processes that are no nodes."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..metrics import CONTENT_TYPE, Metrics

_NOT_STORED = {"Cache-Control": "no-store"}


def make_health_app(unready: Callable[[], list[str]], of: Metrics) -> ASGIApp:
    """Return the ASGI application that serves `/metrics`, `/healthz` and `/readyz` on the address of `--metrics`."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_NOT_STORED)

    async def readyz(_: Request) -> Response:
        reasons = unready()
        status = {"status": "not ready", "reasons": reasons} if reasons else {"status": "ready"}
        return JSONResponse(status, 503 if reasons else 200, _NOT_STORED)

    async def metrics(_: Request) -> Response:
        return Response(await of.scrape(), headers=_NOT_STORED, media_type=CONTENT_TYPE)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
