"""The server of the live map. It serves the page in `web/map/`, and sends the page what a subscriber can't know.

A page is a subscriber like any other: the node sends it the alerts at its own place. Everything else on the map comes
from this server as server-sent events. An event replaces the last one with the same name:

    published  {alerts, current}   all live alerts, from `GET /v1/alerts`; `current` is false if the api does not answer
    people     {cells}             the number of simulated subscribers in each H3 cell
    told       {id, revision, title, severity, cells, told, last_ms}
               a delivery to simulated subscribers: `told` is their number, and `cells` maps each H3 cell to [number, ms
               from the publisher's request until the first of them had it]. `last_ms` is the time until the last had
               it; without `last_ms` they received it later, because they moved or reconnected

A node tells nobody where its subscribers are. The demo knows their places only because it simulates them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from client_demo.python.publisher import Publisher, PublishError
from client_demo.web.server import (
    LIBRARY,
    LOOPBACK,
    WEB,
    application,
    content_policy,
    event,
    event_stream,
    files,
    page_files,
    serving,
)

MAP_PORT = 8780
EVERY_S = 1.0  # between two requests to the api
QUIET_S = 15.0  # seconds without an event until a comment is sent, to notice that a page has gone
BEHIND = 256  # the most events that may wait for one page; beyond that, the page has to reconnect
FILES = {
    **page_files("map", "list", "scene"),
    "/worker.js": WEB / "map" / "worker.js",  # at the root, so that the page is in the worker's scope
    **LIBRARY,
}


@dataclass(frozen=True, slots=True)
class View:
    """The settings that the map's page requests once.

    They are the URL of the node's stream, a token for the node, the place that the map shows first (in degrees), the
    URL of a map style, and the URL of `geocast push` (with `/v1`) if the page can register there.
    """

    stream_url: str
    token: str | None = None
    place: tuple[float, float] | None = None  # degrees
    style_url: str | None = None
    push_url: str | None = None
    feed_url: str | None = None  # of the node's public feed, so that the page may tell the server no place

    def to_map(self) -> dict[str, Any]:
        """Return the settings as a dict for JSON, leaving out those that are None."""
        place = None if self.place is None else dict(zip(("lat", "lng"), self.place, strict=True))
        fields = {"stream": self.stream_url, "token": self.token, "place": place, "style": self.style_url}
        fields["push"] = self.push_url
        fields["feed"] = None if self.feed_url is None else f"{self.feed_url}/v1/alerts.geojson"
        return {name: value for name, value in fields.items() if value is not None}

    def policy(self) -> str:
        """Return the page's Content-Security-Policy.

        The page may connect to the node, to its feed, to `geocast push` and to the origin of the map style.
        """
        more = [url for url in (self.push_url, self.feed_url) if url is not None]
        return content_policy(connect=[self.stream_url, *more], style_url=self.style_url)

    def route(self) -> Route:
        """Return the route at which the page requests these settings."""

        async def send(_: Request) -> Response:
            return JSONResponse(self.to_map(), headers={"Cache-Control": "no-store"})

        return Route("/view.json", send)


class LiveMap:
    """Sends events to all open pages of the live map.

    `publisher` is only used for reading, and should give up soon if the node does not answer.
    """

    def __init__(self, publisher: Publisher, view: View) -> None:
        self.url = ""
        self.view = view
        self._publisher = publisher
        self._last: dict[str, Any] = {"published": {"alerts": [], "current": False}}
        self._pages: set[asyncio.Queue[str | None]] = set()

    # ---- the events for the pages ----------------------------------------------------------------------------

    async def watch(self) -> None:
        """Read the live alerts from the node every EVERY_S seconds, until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """Close the streams of events to all pages."""
        for page in self._pages:
            page.put_nowait(None)

    async def refresh(self) -> None:
        """Read the live alerts from the node once, and send them to the pages if they have changed."""
        try:
            published = {"alerts": await self._publisher.live(), "current": True}
        except PublishError:
            published = {**self._last["published"], "current": False}
        if published != self._last["published"]:
            self._last["published"] = published
            self._tell("published", published)

    def people(self, cells: Mapping[str, int]) -> None:
        """Tell the open pages, and those opened later, how many simulated subscribers are in each H3 cell."""
        self._last["people"] = {"cells": cells}
        self._tell("people", self._last["people"])

    def told(self, fan_out: Mapping[str, Any]) -> None:
        """Send the open pages an event `told` about a delivery. Pages that are opened later are not sent this event."""
        self._tell("told", fan_out)

    def _tell(self, name: str, data: object) -> None:
        line = event(name, data)
        for page in list(self._pages):
            is_behind = page.qsize() >= BEHIND
            if is_behind:
                self._pages.discard(page)
            page.put_nowait(None if is_behind else line)

    # ---- HTTP routes -----------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the routes that the page requests: its settings and its events."""
        return [self.view.route(), Route("/events", self._events)]

    async def _events(self, _: Request) -> Response:
        return event_stream(self._lines())

    async def _lines(self) -> AsyncIterator[str]:
        page: asyncio.Queue[str | None] = asyncio.Queue()
        self._pages.add(page)
        try:
            for name, data in self._last.items():
                yield event(name, data)
            while True:
                try:
                    async with asyncio.timeout(QUIET_S):
                        line = await page.get()
                except TimeoutError:
                    line = ":\n\n"
                if line is None:
                    break
                yield line
        finally:
            self._pages.discard(page)


Cells = dict[
    str, tuple[int, int, int]
]  # H3 cell -> number of recipients, times of the first and the last delivery (ns)


def by_revision(rows: Iterable[Sequence[Any]]) -> dict[tuple[str, int], Cells]:
    """Merge the rows about deliveries that the crowd's processes have returned.

    Return, by id and revision, the deliveries in each cell.
    """
    found: dict[tuple[str, int], Cells] = {}
    for alert_id, revision, cell, count, first, last in rows:
        cells = found.setdefault((alert_id, revision), {})
        before = cells.get(cell, (0, first, last))
        cells[cell] = before[0] + count, min(before[1], first), max(before[2], last)
    return found


def fan_out(cells: Cells, sent: int | None) -> dict[str, Any]:
    """Return those fields of an event `told` that describe who has received a revision.

    If `sent` (ns) is given, the fields include how long after `sent` the first recipient in each cell received the
    revision, and how long after it the last of all did.
    """
    told = sum(count for count, _, _ in cells.values())
    if sent is None:
        return {"cells": {cell: [count, 0] for cell, (count, _, _) in cells.items()}, "told": told}

    def ms(at: int) -> float:
        return round((at - sent) / 1e6, 3)

    timed = {cell: [count, ms(first)] for cell, (count, first, _) in cells.items()}
    return {"cells": timed, "told": told, "last_ms": ms(max(last for _, _, last in cells.values()))}


@contextlib.asynccontextmanager
async def live_map(api_url: str, token: str, view: View, port: int = 0, bind: str = LOOPBACK) -> AsyncIterator[LiveMap]:
    """Serve the map for the duration of an `async with` block. Raise OSError if the port is taken."""
    async with Publisher(api_url, token, patience_s=0) as publisher:
        shown = LiveMap(publisher, view)
        routes = [*files(FILES), *shown.routes()]
        async with serving(application(routes, view.policy()), port, bind) as shown.url:
            watching = asyncio.create_task(shown.watch())
            try:
                yield shown
            finally:
                watching.cancel()
                shown.close()
