"""Phones that follow the public feed, in the demo: they tell the node no place, and are told the same alerts.

Rule 1  Each phone is a real client of the feed at a place near an incident, and does not move. All their bytes go
        through a `Tap`, which searches them for the places.
Rule 2  When a revision contains a phone, the phone *had to* get the alert, unless the revision was current for a
        shorter time than a phone may be late. Only the last message about an alert is judged: it must be the newest
        revision, or the cancellation.
Rule 3  A phone that was in no revision of an alert is not told of it. Within 1 cm of the edge, both are right.
"""

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from client_demo.desk.feed_format import Incident
from client_demo.python.client import Client
from client_demo.python.geo import EDGE_M, Place, depth_m, offset
from client_demo.python.holdings import Change, Kind

from .verdict import Published

PHONES = 40
EVERY_S = 1.0  # the pause between two requests; a real phone asks every 30 s
LATE_S = EVERY_S + 6.0
PATIENCE_S = 15.0  # how long to wait until all phones have what they had to get
FAR_M = 900.0  # how far a phone is from an incident, at most, to the north and to the east
PATH = "/v1/alerts.geojson"
CANCELLED = -1


@dataclass(slots=True)
class FeedVerdict:
    """The verdict on the phones that follow the feed. It counts pairs, each of one phone and one alert.

    `expected` is the number of pairs in which the phone should have the alert's newest message, and `told` the number
    in which it has. `outside` counts alerts that do not concern the phone, and `known` the phones whose place was found
    in what they sent, or whose requests differed from those of the others.
    """

    phones: int = 0
    expected: int = 0
    told: int = 0
    outside: int = 0
    known: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every phone has what concerns it and nothing else, and the node knows no place."""
        return self.told > 0 and self.told == self.expected and not (self.outside or self.known)

    def line(self) -> str:
        """Return the verdict as one line for programs."""
        return (
            f"feed-mode: expected={self.expected} told={self.told} outside={self.outside} "
            f"places_known_to_server={self.known} phones={self.phones}"
        )


@dataclass(slots=True)
class FeedPhone:
    """One phone: its place, and the last message about each alert: a revision, or CANCELLED."""

    place: Place
    last: dict[str, int] = field(default_factory=dict)

    def take(self, change: Change) -> None:
        """Record a change that the client reports."""
        self.last[change.alert["id"]] = CANCELLED if change.kind is Kind.CANCELLED else change.alert["revision"]


class Tap:
    """Passes bytes between the phones and the node, and keeps the distinct heads of requests."""

    def __init__(self, url: str) -> None:
        self._node = urlsplit(url)
        self.heads: set[bytes] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen on a free port during the `async with` block; yield the URL of the node for the phones."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection of a phone."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            answers, requests = await asyncio.open_connection(self._node.hostname, self._node.port)
            back = asyncio.ensure_future(_copy(answers, writer))
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.heads.add(re.sub(rb"(?i)\r\nif-none-match: [^\r]*", b"", head))
                    requests.write(head)
            finally:
                back.cancel()
                requests.close()
                writer.close()

    def known(self, phones: Sequence[FeedPhone]) -> int:
        """Return how many of the phones gave something away: their place, or a request that is not the same for all."""
        if len(self.heads) != 1:
            return len(phones)
        [head] = self.heads
        digits = [f"{value:.3f}".encode() for phone in phones for value in (phone.place.lat, phone.place.lng)]
        return sum(any(each in head for each in digits[2 * n : 2 * n + 2]) for n in range(len(phones)))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


def check_phones(published: Sequence[Published], phones: Sequence[FeedPhone], now_ns: int) -> FeedVerdict:
    """Judge every phone (Rules 2 and 3), and return the verdict without `known`. Alerts are still live at `now_ns`."""
    found = FeedVerdict(phones=len(phones))
    by_id: dict[str, list[Published]] = {}
    for item in sorted(published, key=lambda item: item.revision):
        by_id.setdefault(item.id, []).append(item)
    for phone in phones:
        for alert_id, items in by_id.items():
            _check(found, phone, phone.last.get(alert_id), items, now_ns)
        found.outside += len(phone.last.keys() - by_id.keys())
    return found


def _check(found: FeedVerdict, phone: FeedPhone, last: int | None, items: Sequence[Published], now_ns: int) -> None:
    ends = [item.sent for item in items[1:]] + [now_ns]
    depths = [depth_m(item.area or (), [phone.place]) for item in items]
    if last is not None and max(depths) < -EDGE_M:
        found.outside += 1
        return
    had_to = any(
        depth > EDGE_M and (end == now_ns or (end - item.accepted) / 1e9 > LATE_S)
        for item, depth, end in zip(items, depths, ends, strict=True)
    )
    newest = CANCELLED if items[-1].area is None else items[-1].revision
    found.expected += had_to or last is not None
    found.told += last == newest


class FeedPhones:
    """The phones, and what they have been told."""

    def __init__(self, phones: Sequence[FeedPhone], tap: Tap) -> None:
        self._phones, self._tap = phones, tap

    async def verdict(self, published: Sequence[Published]) -> FeedVerdict:
        """Wait until all phones have what they had to get, or for at most PATIENCE_S seconds; return the verdict."""
        ends_at, now_ns = time.monotonic() + PATIENCE_S, time.monotonic_ns()
        while True:
            found = check_phones(published, self._phones, now_ns)
            found.known = self._tap.known(self._phones)
            if found.is_good or time.monotonic() > ends_at:
                return found
            await asyncio.sleep(EVERY_S)


@contextlib.asynccontextmanager
async def feed_phones(url: str, incidents: Sequence[Incident]) -> AsyncIterator[FeedPhones]:
    """Run phones near the incidents during the `async with` block. They follow the public feed at `url`."""
    dice = random.Random(len(incidents))
    near = [(each.lat, each.lng) for each in incidents if each.lat is not None and each.lng is not None]
    phones = []
    for lat, lng in (dice.choice(near) for _ in range(PHONES if near else 0)):
        spot = offset(lat, lng, dice.uniform(-FAR_M, FAR_M), dice.uniform(-FAR_M, FAR_M))
        phones.append(FeedPhone(Place.at(*spot, dice.choice((0.0, 25.0)))))
    tap = Tap(url)
    async with tap.running() as node:
        usual: dict[str, Any] = {"source": "feed", "feed": f"{node}{PATH}", "feed_every_s": EVERY_S, "on_status": len}
        clients = [Client("", [one.place], on_change=one.take, **usual) for one in phones]
        running = [asyncio.ensure_future(client.run()) for client in clients]
        try:
            yield FeedPhones(phones, tap)
        finally:
            for client in clients:
                client.stop()
            await asyncio.gather(*running, return_exceptions=True)
