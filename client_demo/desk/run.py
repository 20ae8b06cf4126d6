"""Starts a desk, for the command line and for the demo: connects the node, the stored state, the feed and page.

async with open_desk(DeskSettings(api_url=…, token=…, feed="calls.csv")) as desk:
    print(desk.links)  # reviewer -> the address that signs them in
    await desk.working  # until something fails
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client_demo.python.link import first_to_end
from client_demo.python.publisher import Publisher
from client_demo.python.times import wall_ms
from client_demo.staff_page.changes import OpenPages
from client_demo.staff_page.run import ATTEMPT_S, OpenPage, PageSettings, serve_page

from .alert_control import AlertControl
from .feed_format import optional_format
from .feeds import SAMPLE
from .queue import Queue
from .service import DeskService
from .source import open_feed
from .store import Store
from .triage import Policy

DESK_PORT = 8770


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskSettings(PageSettings):
    """The settings of a desk. `feed` is the path of a file, or a URL."""

    feed: str = str(SAMPLE)
    state: Path = Path("review.db")
    reviewers: Sequence[str] = ("desk-1", "desk-2")
    speed: float = 1.0
    ahead: int = 12
    is_as_recorded: bool = False
    every_s: float = 60.0


@contextlib.asynccontextmanager
async def open_desk(settings: DeskSettings) -> AsyncIterator[OpenPage]:
    """Run the desk for the duration of an `async with` block.

    Raise FeedError if the feed can't be used, StoreError if the stored state can't, PublishError if the node can't be
    reached or refuses, and OSError if the port is taken.
    """
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
        control = AlertControl(publisher, queue, store, pages.changed, wall_ms)
        keys = store.keys(settings.reviewers)
        labels = {"status": settings.status, "style_url": settings.style_url}
        routes = DeskService(control, pages, keys, labels, wall_ms).routes()
        opened = serve_page(
            settings, routes, keys, lambda: first_to_end(control.run(), feed(control.take, control.tell_feed))
        )
        yield await cleanup.enter_async_context(opened)
