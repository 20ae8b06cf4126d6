"""Opens the desk: node, state, feed and page put together; for the command line, and for the demo.

async with open_desk(Settings(api_url=…, token=…, feed="calls.csv")) as desk:
    print(desk.links)  # reviewer -> the address that signs them in
    await desk.working  # until something fails
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client_demo.python.link import first_to_end
from client_demo.python.publisher import Publisher
from client_demo.python.times import wall_ms
from client_demo.staff_page.changes import OpenPages
from client_demo.web.server import LOOPBACK, application, content_policy, serving

from .feed_format import optional_format
from .feeds import SAMPLE
from .office import Office
from .queue import Queue
from .service import Service
from .source import open_feed
from .store import Store
from .triage import Policy

DESK_PORT = 8770
ATTEMPT_S = 2.0  # how long a request is repeated before the page is told that it has no answer yet


@dataclass(frozen=True, slots=True)
class Settings:
    """How the desk is to be opened. `feed` is a file or an address, `feed_format` a file that describes it, and
    `style_url` a map style for streets."""

    api_url: str
    token: str
    feed: str = str(SAMPLE)
    feed_format: Path | None = None
    state: Path = Path("review.db")
    reviewers: Sequence[str] = ("desk-1", "desk-2")
    status: str = "exercise"
    port: int = 0
    bind: str = LOOPBACK
    speed: float = 1.0
    ahead: int = 12
    is_as_recorded: bool = False
    every_s: float = 60.0
    style_url: str | None = None


@dataclass(frozen=True, slots=True)
class OpenDesk:
    """A desk at work: its address, for each reviewer the address that signs them in, and the work, which never ends
    by itself but by a failure."""

    url: str
    links: dict[str, str]
    working: asyncio.Future[None]


@contextlib.asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[OpenDesk]:
    """Serve the desk while the block runs. Raises FeedError, StoreError, PublishError and OSError (the port)."""
    feed = open_feed(
        settings.feed,
        optional_format(settings.feed_format),
        speed=settings.speed,
        ahead=settings.ahead,
        is_as_recorded=settings.is_as_recorded,
        every_s=settings.every_s,
        clock=wall_ms,
    )
    async with contextlib.AsyncExitStack() as cleanup:
        publisher = await cleanup.enter_async_context(Publisher(settings.api_url, settings.token, patience_s=ATTEMPT_S))
        policy = Policy.from_map(await publisher.policy())
        store = cleanup.enter_context(contextlib.closing(Store(settings.state)))
        pages = OpenPages()
        queue = Queue(policy, settings.status, store.items(wall_ms()))
        office = Office(publisher, queue, store, pages.changed, wall_ms)
        keys = store.keys(settings.reviewers)
        labels = {"status": settings.status, "style_url": settings.style_url}
        app = application(
            Service(office, pages, keys, labels, wall_ms).routes(), content_policy(style_url=settings.style_url)
        )
        url = await cleanup.enter_async_context(serving(app, settings.port, settings.bind))
        working = asyncio.ensure_future(first_to_end(office.run(), feed(office.take, office.tell_feed)))
        cleanup.push_async_callback(_end, working)
        yield OpenDesk(url, {name: f"{url}/#key={key}" for name, key in keys.items()}, working)


async def _end(working: asyncio.Future[None]) -> None:
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
