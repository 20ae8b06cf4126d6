"""A feed of official warnings, and the process `geocast fetch` that brings them to the demo's node.

The feed is served on this machine. The process is killed between two warnings and started again, and each warning must
be published exactly once.
"""

import asyncio
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import httpx

from client_demo.python.publisher import Publisher

from .processes import Geocast, Node, free_ports

SOURCE = "feeds"
RADIUS_KM = 1.0
PUBLISHED_S = 20.0
_PUBLISHED = re.compile(rf'geocast_cap_messages_total{{outcome="published",source="{SOURCE}"}} ([0-9.]+)')
_CAP = """<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>{name}</identifier>
<sender>met@demo.example</sender><sent>{sent}</sent><status>Actual</status><msgType>Alert</msgType><scope>Public</scope><info><language>en</language>
<category>Met</category><event>Flood</event><urgency>Immediate</urgency><severity>Severe</severity>
<certainty>Observed</certainty><expires>{expires}</expires><headline>{headline}</headline><area>
<areaDesc>The river</areaDesc><circle>{lat},{lng} {radius_km}</circle></area></info></alert>"""


@dataclass(frozen=True, slots=True)
class FetchVerdict:
    """The verdict on the warnings of the feed: how many were published, and how many never or twice."""

    entries: int
    published: int
    twice: int

    @property
    def lost(self) -> int:
        """The number of warnings that were not published."""
        return self.entries - self.published

    @property
    def is_good(self) -> bool:
        """Whether each warning was published once."""
        return self.entries > 0 and not self.lost and not self.twice

    def line(self) -> str:
        """Return the verdict as one line for programs."""
        return f"fetch: entries={self.entries} published={self.published} lost={self.lost} twice={self.twice}"


class FetchedWarnings(Geocast):
    """The feed, and the process `geocast fetch` that reads it."""

    what = "`geocast fetch`"

    def __init__(self, folder: Path, node: Node) -> None:
        super().__init__(folder)
        self._node = node
        self._messages: list[str] = []
        [metrics] = free_ports(1)
        self.ready_url = f"http://127.0.0.1:{metrics}/readyz"
        self._arguments = (
            *("fetch", "--feeds", "feeds.toml", "--api", node.api_url, "--token-file", "feeds.token"),
            *("--metrics", f"127.0.0.1:{metrics}"),
        )

    async def start(self) -> None:
        """Serve the feed, start the process, and wait until it is ready. Raise ProcessError if that fails."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/feed.atom"
        feed = f'[feeds.demo]\nurl = "{url}"\ninterval_s = 15\nallow_http = true\nallow_private = true\n'
        (self._folder / "feeds.toml").write_text(feed, encoding="utf-8")
        token = self._node.issuer.token(SOURCE, ["alerts:publish"], 86_400)
        (self._folder / "feeds.token").write_text(token, encoding="utf-8")
        await self._start(*self._arguments)

    async def stop(self) -> None:
        if hasattr(self, "_server"):
            self._server.close()
        await super().stop()

    async def kill_and_start(self) -> None:
        """Kill the process, as a power cut would, and start it again."""
        self._process.kill()
        await self._process.wait()
        await self._reader
        await self._start(*self._arguments)

    async def warn(self, publisher: Publisher, headline: str, lat: float, lng: float) -> dict[str, Any]:
        """Add a warning to the feed, and return the alert that the node makes of it."""
        now_s = time.time()
        sent, expires = (time.strftime("%Y-%m-%dT%H:%M:%S-00:00", time.gmtime(at)) for at in (now_s, now_s + 1_800))
        name = f"demo-{len(self._messages)}"
        self._messages.append(
            _CAP.format(
                name=name, sent=sent, expires=expires, headline=escape(headline), lat=lat, lng=lng, radius_km=RADIUS_KM
            )
        )
        self._process.send_signal(signal.SIGHUP)  # read the feed now, rather than within its interval
        async with asyncio.timeout(PUBLISHED_S):
            while True:
                for alert in await publisher.live():
                    if alert["headline"] == headline:
                        return dict(alert)
                await asyncio.sleep(0.01)

    async def verdict(self, publisher: Publisher) -> FetchVerdict:
        """Return the verdict, from what the node says about its alerts and the messages that it has taken."""
        published = {each["id"] for each in await publisher.live() if each["source"] == SOURCE}
        async with httpx.AsyncClient(trust_env=False) as http:
            metrics = (await http.get(f"{self._node.api_url}/metrics")).text
        taken = _PUBLISHED.search(metrics)
        return FetchVerdict(len(self._messages), len(published), int(float(taken[1]) if taken else 0) - len(published))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request with the feed, whatever its path is."""
        await reader.readuntil(b"\r\n\r\n")
        entries = "".join(
            f'<entry><id>urn:demo:{number}</id><content type="application/cap+xml">{message}</content></entry>'
            for number, message in enumerate(self._messages)
        )
        body = f'<feed xmlns="http://www.w3.org/2005/Atom"><title>Warnings</title>{entries}</feed>'.encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/atom+xml\r\nContent-Length: {len(body)}\r\nConnection: close"
        )
        writer.write(f"{head}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
