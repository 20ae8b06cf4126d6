"""The start of a page for staff: its settings, its listener, and the links that sign people in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from client_demo.web.server import LOOPBACK, application, content_policy, serving

ATTEMPT_S = 2.0  # how long a request is repeated before the page shows that the node does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """The settings that the review desk and the dispatch page share.

    `feed_format` is the path of a file that describes the feed. `status` is the status that new alerts or calls have:
    actual, exercise or test. `style_url` is the URL of a map style that shows streets.
    """

    api_url: str
    token: str
    feed_format: Path | None = None
    status: str = "exercise"
    port: int = 0
    bind: str = LOOPBACK
    style_url: str | None = None


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A page that is being served.

    It has its address, the links that sign people in, and the task of the service, which ends only when it fails.
    """

    url: str
    links: dict[str, str]
    working: asyncio.Future[None]


@contextlib.asynccontextmanager
async def serve_page(
    settings: PageSettings,
    routes: Sequence[BaseRoute],
    keys: Mapping[str, str],
    work: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncIterator[OpenPage]:
    """Serve these routes and run the service during the `with` block. Raise OSError if the port is taken."""
    app = application(routes, content_policy(style_url=settings.style_url))
    async with serving(app, settings.port, settings.bind) as url:
        working = asyncio.ensure_future(work())
        try:
            yield OpenPage(url, {name: f"{url}/#key={key}" for name, key in keys.items()}, working)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
