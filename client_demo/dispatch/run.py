"""Opens the dispatch page: node, records and page put together; for the command line, and for the demo.

async with open_dispatch(Settings(api_url=…, token=…, feed=Path("calls.csv"))) as page:
    print(page.links)  # dispatcher -> the address that signs them in
    await page.working  # until something fails
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client_demo.desk.feed_format import FeedError, optional_format
from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.desk.run import OpenDesk
from client_demo.python.dispatcher import Dispatcher
from client_demo.python.times import wall_ms
from client_demo.staff_page.changes import OpenPages
from client_demo.web.server import LOOPBACK, application, content_policy, serving

from .control import Control
from .records import calls_for_help
from .service import Service

DISPATCH_PORT = 8775
ATTEMPT_S = 2.0  # how long a request is repeated before the page is told that it has no answer yet


@dataclass(frozen=True, slots=True)
class Settings:
    """How it is to be opened. `retimes`: what the file tells counts as having just happened, as in a replay;
    `style_url` is a map style for streets."""

    api_url: str
    token: str
    feed: Path = SAMPLE
    feed_format: Path | None = None
    dispatchers: Sequence[str] = ("dispatch-1",)
    status: str = "exercise"
    retimes: bool = True
    port: int = 0
    bind: str = LOOPBACK
    style_url: str | None = None


@contextlib.asynccontextmanager
async def open_dispatch(settings: Settings) -> AsyncIterator[OpenDesk]:
    """Serve the page while the block runs. Raises FeedError, PublishError and OSError (the port)."""
    feed = settings.feed
    found = read_records(feed.name, feed_text(feed), optional_format(settings.feed_format))
    async with contextlib.AsyncExitStack() as cleanup:
        dispatcher = await cleanup.enter_async_context(
            Dispatcher(settings.api_url, settings.token, patience_s=ATTEMPT_S)
        )
        categories = (await dispatcher.policy()).get("calls") or {}
        if not categories:
            raise FeedError("the node's policy has no [calls]: nobody can be called")
        pages = OpenPages()
        control = Control(
            dispatcher,
            calls_for_help(found, categories),
            categories,
            status=settings.status,
            retimes=settings.retimes,
            changed=pages.changed,
            clock=wall_ms,
        )
        keys = {name: secrets.token_urlsafe(24) for name in settings.dispatchers}
        labels = {"feed": found.format.title, "style_url": settings.style_url}
        app = application(
            Service(control, pages, keys, labels, wall_ms).routes(), content_policy(style_url=settings.style_url)
        )
        url = await cleanup.enter_async_context(serving(app, settings.port, settings.bind))
        working = asyncio.ensure_future(control.run())
        cleanup.push_async_callback(_end, working)
        yield OpenDesk(url, {name: f"{url}/#key={key}" for name, key in keys.items()}, working)


async def _end(working: asyncio.Future[None]) -> None:
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
