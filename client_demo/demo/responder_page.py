"""The server of `web/respond/`: the page of a responder, who is called to people in need nearby.

The page is a client like any other: it talks only to the node. Its token comes after the # in the page's address, so no
server receives it, not even this one.
"""

import contextlib
from collections.abc import AsyncIterator

from client_demo.web.server import LIBRARY, LOOPBACK, application, files, page_files, serving

from .live_map import View

RESPONDER_PORT = 8790
PAGE = page_files("respond", "card", "alarm") | LIBRARY


@contextlib.asynccontextmanager
async def responder_page(view: View, port: int = 0, bind: str = LOOPBACK) -> AsyncIterator[str]:
    """Serve the page while the block runs; yield its address. Raises OSError if the port is taken."""
    routes = [*files(PAGE), view.route()]
    async with serving(application(routes, view.policy()), port, bind) as url:
        yield url


def signed_in(url: str, token: str) -> str:
    """Return the page's address with this token behind the #, a part that is sent to no server."""
    return f"{url}/#token={token}"
