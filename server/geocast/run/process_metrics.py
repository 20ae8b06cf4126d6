"""The listener of a process without an API, for `/metrics`, `/healthz` and `/readyz`."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from .. import tasks
from ..api.health_app import make_health_app
from ..api.http_server import serve
from ..metrics import Metrics, counters

MAX_SCRAPERS = 16


def watch_tasks(metrics: Metrics) -> None:
    """Count the failures of all tasks of the event loop that runs now. Each process calls this once."""
    tasks.watch_loop()
    text = "Unexpected errors that have ended a task, or a callback of the event loop"
    metrics.watch(lambda: [counters("task_failures", text, "task", tasks.failures.items())])


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
