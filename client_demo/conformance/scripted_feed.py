"""A public feed that does what the current scenario says, for clients that decide on the device (rule PF6).

    feed = ScriptedFeed(wait_s=20)
    async with feed.serve("127.0.0.1", 0) as address:   # http://{address}/v1/alerts.geojson
        talk = await feed.client()                      # a client has asked, and has reported its places
        await talk.alert("a")                           # the client has asked since: it has the document
        …

A feed learns nothing about a client, so the client has to report: it posts `{"places": […], "holding": {id: revision}}`
to `/report` at the start and whenever the alerts that it holds change, and with `"shown": {"id": …, "revision": …}`
when it has shown a revision. With these reports, the scenarios of the stream can be played with a feed, too.

Rule 1  The document is changed only after the client has asked for it, so that the client sees every change.
"""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import formatdate
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from client_demo.python.times import wall_ms
from client_demo.web.server import serving

from .scripted_server import Findings, Over, ScriptedServer, Talk

FEED_PATH, REPORT_PATH = "/v1/alerts.geojson", "/report"
ASKS_S = 10.0  # how long to wait for the next request of the client
MAX_AGE_S = 0  # so that a client may ask as often as it likes
SAYS_WHO = ("authorization", "cookie", "referer")  # headers that no request to the feed needs


class FeedTalk(Talk):
    """The reports of one client, and the document that it is shown. The scenarios use it like a connection."""

    def __init__(self, server: "ScriptedFeed", hello: Mapping[str, Any]) -> None:
        """Begin with what the client has last reported, as if it were a `hello`."""
        self.server, self.feed = server, server
        self.arrived_at = time.monotonic()
        self.hello = dict(hello)
        self.said, self.said_at = [], []
        self._heard = asyncio.Event()

    async def say(self, message: Mapping[str, Any]) -> None:
        """Change the document as this message says, and wait until the client has asked for it."""
        if message["type"] == "alert":
            await self.feed.put(message["alert"])
        elif message["type"] == "cancel":
            await self.feed.cancel(message)

    def hear(self, report: Mapping[str, Any]) -> None:
        """Take a report of the client."""
        if isinstance(shown := report.get("shown"), Mapping):
            self.said.append({"type": "ack", **shown})
            self.said_at.append(time.monotonic())
        self._heard.set()

    async def close(self, _code: int) -> float:
        """Return the time: there is no connection to close, and what the client holds is reported anyway."""
        return time.monotonic()

    async def pings(self, within_s: float) -> bool:
        """Return whether the client asks for the document within `within_s` seconds."""
        return await self.feed.asked(within_s)


class ScriptedFeed(ScriptedServer):
    """A server of the feed, which the scenarios use like a server of the stream."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.requests: list[Request] = []
        self.report: dict[str, Any] | None = None  # the client's last report
        self.failure = 0  # an HTTP status to answer with, instead of the document
        self.odd = ""  # a document to answer with, instead of the good one
        self._alerts: dict[str, Mapping[str, Any]] = {}
        self._cancelled: list[Mapping[str, Any]] = []
        self._talk: FeedTalk | None = None
        self._changed = asyncio.Condition()

    def begin(self, findings: Findings) -> None:
        """Begin a new scenario with an empty document."""
        super().begin(findings)
        self._alerts, self._cancelled, self.report, self.failure, self.odd = {}, [], None, 0, ""

    async def client(self) -> FeedTalk:
        """Return the client, once it has asked and reported. Raise Over if it does not come."""
        if not await self._until(lambda: self.report is not None, self.wait_s) or not await self.asked(self.wait_s):
            why = f"no client has asked for the feed and reported its places within {self.wait_s:g} s"
            self.findings.unmet("feed", why)
            raise Over(why)
        return self._next_talk()

    async def back(self, _since: float, _within_s: float) -> FeedTalk | None:
        """Return the client with its last report, once it has asked again; None if it does not ask."""
        return self._next_talk() if await self.asked(ASKS_S) else None

    def _next_talk(self) -> FeedTalk:
        self._talk = FeedTalk(self, self.report or {})
        return self._talk

    # ---- the document ----------------------------------------------------------------------------------------------

    async def put(self, alert: Mapping[str, Any]) -> None:
        """Put a revision of an alert into the document, and wait until the client has asked for it."""
        self._alerts[alert["id"]] = alert
        await self.asked(ASKS_S)

    async def cancel(self, cancel: Mapping[str, Any]) -> None:
        """Replace an alert by its tombstone, and wait until the client has asked for the document."""
        self._alerts.pop(cancel["id"], None)
        self._cancelled.append(cancel)
        await self.asked(ASKS_S)

    async def omit(self, alert_id: str) -> None:
        """Leave an alert out, as a node that is behind, and wait until the client has asked for the document."""
        self._alerts.pop(alert_id, None)
        await self.asked(ASKS_S)

    async def asked(self, within_s: float) -> bool:
        """Wait for the next request that is answered, and return whether it comes in time."""
        count = len(self.requests)
        return await self._until(lambda: len(self.requests) > count, within_s)

    async def _until(self, is_true: Any, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(is_true)
                return True
        return False

    # ---- the server ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[str]:
        """Run the server for the duration of an `async with` block; yield its address as `host:port`."""
        routes = [Route(FEED_PATH, self._answer), Route(REPORT_PATH, self._reported, methods=["POST"])]
        async with serving(Starlette(routes=routes), port, host, date_header=False) as url:
            yield f"{host}:{url.rpartition(':')[2]}"

    async def _answer(self, request: Request) -> Response:
        self.came = True
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        date = formatdate((wall_ms() + self.skew_ms) // 1000, usegmt=True)
        if self.failure:
            return Response(status_code=self.failure, headers={"Date": date})
        features = [
            {"type": "Feature", "id": key, "geometry": None, "properties": a} for key, a in self._alerts.items()
        ]
        good = {"type": "FeatureCollection", "features": features, "cancelled": self._cancelled}
        body = self.odd.encode() or json.dumps(good).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Date": date, "Cache-Control": f"public, max-age={MAX_AGE_S}, must-revalidate"}
        if request.headers.get("If-None-Match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/geo+json")

    async def _reported(self, request: Request) -> Response:
        report = await request.json()
        async with self._changed:
            self.report = report
            if self._talk is not None:
                self._talk.hear(report)
            self._changed.notify_all()
        return Response(status_code=204)
