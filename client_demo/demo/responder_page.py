"""Serves `web/respond/`: the page of a responder, who is called to people in need nearby.

The page is a client like any other: it talks only to the node. Its token is in the page's address after the #, a part
that browsers send to no server, not even to this one.
"""

import contextlib
from collections.abc import AsyncIterator

from client_demo.web.server import LIBRARY, LOOPBACK, application, files, page_files, serving

from .live_map import View

RESPONDER_PORT = 8790
PAGE = page_files("respond", "card", "alarm") | LIBRARY


@contextlib.asynccontextmanager
async def responder_page(view: View, port: int = 0, bind: str = LOOPBACK) -> AsyncIterator[str]:
    """Serve the page for the duration of an `async with` block; yield the address of the page.

    Raise OSError if the port is taken.
    """
    routes = [*files(PAGE), view.route()]
    async with serving(application(routes, view.policy()), port, bind) as url:
        yield url


def signed_in(url: str, token: str) -> str:
    """Return the address of the page with this token after the #, a part that browsers send to no server."""
    return f"{url}/#token={token}"
