"""The bodies of the feed's answers, and how long caches may keep them (rule PF2).

A body is put together from pictures (each alert's part as bytes) when somebody asks for it, at most once a second.
Everybody gets the same bytes. The body contains no alert that had ended when it was made. Caches may keep it until the
first of its alerts ends, and no longer than 5 s. So a cancel reaches clients at most 5 s late, if the caches in between
obey `Cache-Control`.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate

from ..api.responses import etag
from ..clock import Clock, Now
from ..stream.live_alerts import LiveAlert
from . import atom, geojson
from .cap import Issuer
from .gallery import Gallery
from .picture import Picture

MAKE_S = 1.0  # the shortest time between making two bodies of one kind
MAX_AGE_S = 5
AT_ONCE = 500  # how many alerts to process (1 to 2 µs each) before the event loop may serve its sockets


@dataclass(frozen=True, slots=True)
class Body:
    """The body of an answer, with its ETag and three times.

    `changed_ms` is when the content last changed, in ms since 1970. `made` is when the body was made, and `until` is
    when it must no longer be used; both are times of the monotonic clock, in seconds.
    """

    content: bytes
    tag: str
    changed_ms: int
    made: float
    until: float

    def headers(self, now: Now) -> dict[str, str]:
        """Return the HTTP headers of an answer with this body. A 304 (Not Modified) answer has the same headers."""
        age = int(max(0.0, min(MAX_AGE_S, self.until - now.monotonic)))
        return {
            "ETag": self.tag,
            "Last-Modified": formatdate(self.changed_ms / 1000, usegmt=True),
            "Cache-Control": f"public, max-age={age}, must-revalidate",
        }


@dataclass(slots=True)
class CachedBody:
    """Makes the bodies of one kind of answer, such as the GeoJSON of all live alerts, and keeps the latest one.

    The picture of an alert (in `gallery`) has the alert's part of each document, as bytes. `part` takes an alert and
    its picture, and returns the alert's part of this body, or b"" if the alert is not in it. `whole` puts the parts
    together, newest first; its second argument is `newest_ms`, the issue time, in ms since 1970, of the newest alert
    that was ever in a body, or the time of the start.
    """

    gallery: Gallery
    clock: Clock
    newest_ms: int
    part: Callable[[LiveAlert, Picture], bytes]
    whole: Callable[[Iterable[bytes], int], bytes]
    _body: Body | None = None
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def body(self) -> Body:
        """Return the current body, which is at most a second old. If necessary, make it."""
        async with self._making:
            now = self.clock.now()
            kept = self._body
            if kept is None or now.monotonic >= min(kept.made + MAKE_S, kept.until):
                kept = self._body = await self._make()
            return kept

    async def _make(self) -> Body:
        now = self.clock.now()
        parts: list[tuple[int, bytes]] = []
        until = math.inf
        for number, alert_id in enumerate(list(self.gallery.pictures), start=1):
            shown = self.gallery.shown(alert_id, now)
            if shown is not None and (part := self.part(*shown)):
                parts.append((shown[1].issued_at, part))
                until = min(until, _end(*shown, now))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        self.newest_ms = max([self.newest_ms, *(issued_at for issued_at, _ in parts)])
        content, tag = await asyncio.to_thread(self._put_together, parts)
        before = self._body
        changed_ms = before.changed_ms if before is not None and before.tag == tag else now.wall_ms
        return Body(content, tag, changed_ms, now.monotonic, until)

    def _put_together(self, parts: list[tuple[int, bytes]]) -> tuple[bytes, str]:
        parts.sort(key=lambda each: -each[0])
        content = self.whole([part for _, part in parts], self.newest_ms)
        return content, etag(content)


def of_one(content: bytes, alert: LiveAlert, picture: Picture, now: Now) -> Body:
    """Return the body of an answer about one alert. `content` is the content of the body."""
    return Body(content, etag(content), picture.issued_at, now.monotonic, _end(alert, picture, now))


def _end(alert: LiveAlert, picture: Picture, now: Now) -> float:
    return min(alert.deadline, now.deadline(alert.expires_at), now.deadline(picture.ends_at))


def features(gallery: Gallery, clock: Clock) -> CachedBody:
    """Return an object that makes the body of the GeoJSON document, with all live alerts.

    The body also has a tombstone of each cancelled alert, until the time when the alert would have ended.
    """

    def part(alert: LiveAlert, picture: Picture) -> bytes:
        cancelled, is_tombstone = alert.cancel is not None, isinstance(picture.feature, geojson.Tombstone)
        return picture.feature if cancelled == is_tombstone else b""  # b"": the cancel is not drawn yet

    return CachedBody(gallery, clock, clock.now().wall_ms, part, lambda parts, _: geojson.collection(parts))


def entries(gallery: Gallery, clock: Clock, issuer: Issuer) -> CachedBody:
    """Return an object that makes the body of the Atom feed, with all live alerts.

    The body also has each cancel, until the time when the cancelled alert would have ended.
    """

    def whole(parts: Iterable[bytes], newest_ms: int) -> bytes:
        return atom.feed(parts, newest_ms, issuer)

    return CachedBody(gallery, clock, clock.now().wall_ms, lambda _, picture: picture.entry, whole)
