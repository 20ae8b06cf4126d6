"""The start of a dispatch page, for the command line and for the demo: connects the node, the records and the page.

async with open_dispatch(DispatchSettings(api_url=…, token=…, feed=Path("calls.csv"))) as page:
    print(page.links)  # dispatcher -> the address that signs them in
    await page.working  # until something fails
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client_demo.desk.feed_format import FeedError, optional_format
from client_demo.desk.feeds import SAMPLE, feed_text, read_records
from client_demo.python.dispatcher import Dispatcher
from client_demo.python.times import wall_ms
from client_demo.staff_page.changes import OpenPages
from client_demo.staff_page.run import ATTEMPT_S, OpenPage, PageSettings, serve_page

from .call_control import CallControl
from .records import area_of, calls_for_help
from .service import DispatchService

DISPATCH_PORT = 8775


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchSettings(PageSettings):
    """The settings of the dispatch page.

    If `retimes` is True, a call that is opened from a record of the feed is dated half a minute ago, instead of with
    the record's own time. So an old feed can be replayed as if it were live.
    """

    feed: Path = SAMPLE
    dispatchers: Sequence[str] = ("dispatch-1",)
    retimes: bool = True


@contextlib.asynccontextmanager
async def open_dispatch(settings: DispatchSettings) -> AsyncIterator[OpenPage]:
    """Serve the page during the `with` block.

    Raise FeedError or PublishError if the feed or the node can't be used, and OSError if the port is taken.
    """
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
        control = CallControl(
            dispatcher,
            calls_for_help(found, categories),
            categories,
            status=settings.status,
            retimes=settings.retimes,
            changed=pages.changed,
            clock=wall_ms,
        )
        keys = {name: secrets.token_urlsafe(24) for name in settings.dispatchers}
        labels = {"feed": found.format.title, "area": area_of(found), "style_url": settings.style_url}
        routes = DispatchService(control, pages, keys, labels, wall_ms).routes()
        yield await cleanup.enter_async_context(serve_page(settings, routes, keys, control.run))
