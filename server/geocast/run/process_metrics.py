"""The listener of a process without an API, for `/metrics`, `/healthz` and `/readyz`."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from ..api.health_app import make_health_app
from ..api.http_server import serve
from ..metrics import Metrics

MAX_SCRAPERS = 16


@contextlib.asynccontextmanager
async def serving_metrics(
    unready: Callable[[], list[str]], metrics: Metrics, listener: socket.socket | None
) -> AsyncIterator[None]:
    """Serve `/metrics`, `/healthz` and `/readyz` on `listener` while the block runs.

    Do nothing if `listener` is None.
    """
    if listener is None:
        yield
        return
    async with serve(make_health_app(unready, metrics), listener, metrics, MAX_SCRAPERS):
        yield
