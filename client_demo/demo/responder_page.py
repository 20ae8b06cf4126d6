"""Serves `web/respond/`: the page of a responder, who is called to those who need help near.

The page is a client like any other: it speaks to the node alone, with a token that comes behind the # of its address
and that nobody else is told, this server included.
"""

import contextlib
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from client_demo.web.server import (
    LIBRARY,
    LOOPBACK,
    MAP_LIBRARIES,
    SHARED,
    WEB,
    application,
    beside,
    files,
    serving,
)

from .live_map import View

RESPONDER_PORT = 8790
PAGE = {
    "/": WEB / "respond" / "respond.html",
    **beside("respond/respond.css", "respond/respond.js", "respond/card.js", "respond/alarm.js"),
    **LIBRARY,
    **SHARED,
    **MAP_LIBRARIES,
}


@contextlib.asynccontextmanager
async def responder_page(view: View, port: int = 0, bind: str = LOOPBACK) -> AsyncIterator[str]:
    """Serve the page for as long as the block runs; its address. Raises OSError when the port is taken."""

    async def told_once(_: Request) -> JSONResponse:
        return JSONResponse(view.to_map(), headers={"Cache-Control": "no-store"})

    routes = [*files(PAGE), Route("/view.json", told_once)]
    async with serving(application(routes, view.policy()), port, bind) as url:
        yield url


def signed_in(url: str, token: str) -> str:
    """The page's address for who has this token. What is behind the # goes to no server."""
    return f"{url}/#token={token}"
