"""The live map's own process: serves `web/map/`, and tells it what it can't learn as a subscriber.

A page is a subscriber like any other: it hears of the alerts at its own place, from the node. What else is on the map
comes from here, as server-sent events, each of which replaces what was said before it under that name:

    published  {alerts, current}   all live alerts by `GET /v1/alerts`; `current` false while the api does not answer
    people     {cells}             how many simulated subscribers there are: H3 cell -> number
    told       {id, revision, title, severity, cells, told, last_ms}
               a fan-out as the simulated subscribers saw it: `told` in all, and H3 cell -> [how many, ms from the
               publisher's request to the first of them]; without `last_ms` they came upon it later, by moving or on
               return

The node tells nobody where its subscribers are. People and fan-outs are known only to a demo that plays them itself.
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
EVERY_S = 1.0  # between two looks at the api
QUIET_S = 15.0  # a comment is sent after that, so that a page that has gone is noticed
BEHIND = 256  # so many events may wait for one page, then it has to come again
FILES = {
    **page_files("map", "list", "scene"),
    "/worker.js": WEB / "map" / "worker.js",  # here, so that its scope is the page
    **LIBRARY,
}


@dataclass(frozen=True, slots=True)
class View:
    """What the page is told once: the node's stream, a token for it if needed, where to begin, a map style's URL, and
    where it can register for pushes (of `geocast push`, with `/v1`), if it can."""

    stream_url: str
    token: str | None = None
    place: tuple[float, float] | None = None  # degrees
    style_url: str | None = None
    push_url: str | None = None

    def to_map(self) -> dict[str, Any]:
        """As JSON; what there is not is left out."""
        place = None if self.place is None else dict(zip(("lat", "lng"), self.place, strict=True))
        fields = {"stream": self.stream_url, "token": self.token, "place": place, "style": self.style_url}
        fields["push"] = self.push_url
        return {name: value for name, value in fields.items() if value is not None}

    def policy(self) -> str:
        """The page may talk to the node, to what wakes it and, for tiles, to the origin of the style."""
        push = [] if self.push_url is None else [self.push_url]
        return content_policy(connect=[self.stream_url, *push], style_url=self.style_url)

    def route(self) -> Route:
        """Return the route by which the page asks for this view."""

        async def send(_: Request) -> Response:
            return JSONResponse(self.to_map(), headers={"Cache-Control": "no-store"})

        return Route("/view.json", send)


class LiveMap:
    """What the pages that are open are told. `publisher` is for looking only; it should not be patient."""

    def __init__(self, publisher: Publisher, view: View) -> None:
        self.url = ""
        self.view = view
        self._publisher = publisher
        self._last: dict[str, Any] = {"published": {"alerts": [], "current": False}}
        self._pages: set[asyncio.Queue[str | None]] = set()

    # ---- what there is to tell -------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look at the api again and again."""
        while True:
            await self.refresh()
            await asyncio.sleep(EVERY_S)

    def close(self) -> None:
        """End what is open: the pages' streams of events."""
        for page in self._pages:
            page.put_nowait(None)

    async def refresh(self) -> None:
        """Look at the api once."""
        try:
            published = {"alerts": await self._publisher.live(), "current": True}
        except PublishError:
            published = {**self._last["published"], "current": False}
        if published != self._last["published"]:
            self._last["published"] = published
            self._tell("published", published)

    def people(self, cells: Mapping[str, int]) -> None:
        """Where the simulated subscribers are."""
        self._last["people"] = {"cells": cells}
        self._tell("people", self._last["people"])

    def told(self, fan_out: Mapping[str, Any]) -> None:
        """A fan-out; pages that come later are not told of it."""
        self._tell("told", fan_out)

    def _tell(self, name: str, data: object) -> None:
        line = event(name, data)
        for page in list(self._pages):
            is_behind = page.qsize() >= BEHIND
            if is_behind:
                self._pages.discard(page)
            page.put_nowait(None if is_behind else line)

    # ---- HTTP ------------------------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """What the page asks for."""
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


Cells = dict[str, tuple[int, int, int]]  # H3 cell -> how many, when the first and the last of them were told (ns)


def by_revision(rows: Iterable[Sequence[Any]]) -> dict[tuple[str, int], Cells]:
    """The rows of `told` in the answers of the crowd's processes, brought together."""
    found: dict[tuple[str, int], Cells] = {}
    for alert_id, revision, cell, count, first, last in rows:
        cells = found.setdefault((alert_id, revision), {})
        before = cells.get(cell, (0, first, last))
        cells[cell] = before[0] + count, min(before[1], first), max(before[2], last)
    return found


def fan_out(cells: Cells, sent: int | None) -> dict[str, Any]:
    """The fields of `told` that say who was told, and how long after `sent` (ns) if that means anything."""
    told = sum(count for count, _, _ in cells.values())
    if sent is None:
        return {"cells": {cell: [count, 0] for cell, (count, _, _) in cells.items()}, "told": told}

    def ms(at: int) -> float:
        return round((at - sent) / 1e6, 3)

    timed = {cell: [count, ms(first)] for cell, (count, first, _) in cells.items()}
    return {"cells": timed, "told": told, "last_ms": ms(max(last for _, _, last in cells.values()))}


@contextlib.asynccontextmanager
async def live_map(api_url: str, token: str, view: View, port: int = 0, bind: str = LOOPBACK) -> AsyncIterator[LiveMap]:
    """Serve the map for as long as the block runs. Raises OSError when the port is taken."""
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
