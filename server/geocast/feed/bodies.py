"""The bodies that everybody is sent, and how long each may be kept (PF2).

A body is made when it is asked for, at most once a second, and the same bytes serve all. Nothing in it was over when it
was made. It may be kept until the first of what it tells ends, and for 5 s at most: so a cancel is 5 s late at most
behind a cache that keeps to that.
"""

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import NamedTuple

from ..clock import Clock, Now
from ..live import LiveAlert, LiveAlerts
from . import atom, geojson

MAKE_S = 1.0  # between two bodies of one kind
MAX_AGE_S = 5
AT_ONCE = 50  # alerts that are written out before the loop may look at its sockets: 0.3 ms each


@dataclass(frozen=True, slots=True)
class Body:
    """What is answered: its bytes, their tag, when it last changed, and the deadline until which it may be kept.

    `changed_ms` is in ms since 1970; `made` and `until` are monotonic, in seconds.
    """

    content: bytes
    tag: str
    changed_ms: int
    made: float
    until: float

    def headers(self, now: Now) -> dict[str, str]:
        """Those that go with it, and with a 304."""
        age = int(max(0.0, min(MAX_AGE_S, self.until - now.monotonic)))
        return {
            "ETag": self.tag,
            "Last-Modified": formatdate(self.changed_ms / 1000, usegmt=True),
            "Cache-Control": f"public, max-age={age}, must-revalidate",
        }


class _Written(NamedTuple):
    """What an alert is in a body: of which number, when that was issued, and the bytes, if any."""

    number: int
    issued_at: int
    part: bytes


class Kept:
    """A kind of body. `parts` gives its parts and `whole` puts them together."""

    def __init__(
        self,
        live: LiveAlerts,
        clock: Clock,
        part: Callable[[LiveAlert], bytes],
        whole: Callable[[Iterable[bytes], int], bytes],
    ) -> None:
        """`part`: what an alert is in it, b"" for nothing; `whole`: of parts, newest first, and the time of that."""
        self._live = live
        self._clock = clock
        self._part = part
        self._whole = whole
        self._written: dict[str, _Written] = {}  # by id
        self._newest_ms = clock.now().wall_ms  # when the newest of what was ever told was issued
        self._body: Body | None = None
        self._making = asyncio.Lock()

    async def body(self) -> Body:
        """The body as it is now, or was a second ago at most."""
        async with self._making:
            now = self._clock.now()
            kept = self._body
            if kept is None or now.monotonic >= min(kept.made + MAKE_S, kept.until):
                kept = self._body = await self._make()
            return kept

    async def _make(self) -> Body:
        await self._write_out()
        now = self._clock.now()
        alerts = {alert.id: alert for alert in self._live if not alert.ended(now)}
        told = [written for alert_id, written in self._written.items() if alert_id in alerts and written.part]
        told.sort(key=lambda written: -written.issued_at)
        self._newest_ms = max([self._newest_ms, *(written.issued_at for written in told[:1])])
        content, tag = await asyncio.to_thread(self._put_together, [written.part for written in told])
        before = self._body
        changed_ms = before.changed_ms if before is not None and before.tag == tag else now.wall_ms
        until = min((_end(alert, now) for alert in alerts.values()), default=math.inf)
        return Body(content, tag, changed_ms, now.monotonic, until)

    async def _write_out(self) -> None:
        """Write out what is new, and forget what is gone."""
        before, self._written = self._written, {}
        new = 0
        for alert in list(self._live):
            written = before.get(alert.id)
            if written is None or written.number != alert.number:
                written = _Written(alert.number, issued_at(alert), self._part(alert))
                new += 1
                if new % AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._written[alert.id] = written

    def _put_together(self, parts: list[bytes]) -> tuple[bytes, str]:
        content = self._whole(parts, self._newest_ms)
        return content, _tag(content)


def of_one(content: bytes, alert: LiveAlert, now: Now) -> Body:
    """The body that tells of one alert alone."""
    return Body(content, _tag(content), issued_at(alert), now.monotonic, _end(alert, now))


def issued_at(alert: LiveAlert) -> int:
    """When what is current of it was accepted, in ms since 1970."""
    return alert.revision.issued_at if alert.cancel is None else alert.cancel.cancelled_at


def _end(alert: LiveAlert, now: Now) -> float:
    return min(alert.deadline, now.deadline(alert.expires_at))


def _tag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def features(live: LiveAlerts, clock: Clock) -> Kept:
    """All live alerts as GeoJSON."""

    def part(alert: LiveAlert) -> bytes:
        return geojson.feature(alert.revision) if is_public(alert) and alert.cancel is None else b""

    return Kept(live, clock, part, lambda parts, _: geojson.collection(parts))


def entries(live: LiveAlerts, clock: Clock, site: atom.Site) -> Kept:
    """All live alerts, and cancels until their alerts would have ended, as Atom."""

    def part(alert: LiveAlert) -> bytes:
        return atom.entry(alert.revision, alert.cancel, site) if is_public(alert) else b""

    return Kept(live, clock, part, lambda parts, newest_ms: atom.feed(parts, newest_ms, site))


def is_public(alert: LiveAlert) -> bool:
    """PF1: nothing but what is actual."""
    return not alert.restricted
