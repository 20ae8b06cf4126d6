"""Serves `web/respond/`: the page of a responder, who is called to those who need help near.

The page is a client like any other: it speaks to the node alone, with a token that comes behind the # of its address
and that nobody else is told, this server included.
"""

import contextlib
from collections.abc import AsyncIterator

from client_demo.web.server import LIBRARY, LOOPBACK, application, files, page_files, serving

from .live_map import View

RESPONDER_PORT = 8790
PAGE = page_files("respond", "card", "alarm") | LIBRARY


@contextlib.asynccontextmanager
async def responder_page(view: View, port: int = 0, bind: str = LOOPBACK) -> AsyncIterator[str]:
    """Serve the page for as long as the block runs; its address. Raises OSError when the port is taken."""
    routes = [*files(PAGE), view.route()]
    async with serving(application(routes, view.policy()), port, bind) as url:
        yield url


def signed_in(url: str, token: str) -> str:
    """The page's address for who has this token. What is behind the # goes to no server."""
    return f"{url}/#token={token}"
