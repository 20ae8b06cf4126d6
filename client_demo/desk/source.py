"""The sources of incidents: a file that is replayed, or a URL that is polled.

Rule 1  A replay shifts the times in the file. The first `ahead` incidents have just happened when the desk opens. The
        others follow as in the file, but `speed` times as fast. The title says that it is a replay.
Rule 2  A poll fetches the feed only if it has changed (ETag, Last-Modified). It asks at most as often as configured,
        and less often if the server says so. The bytes and the seconds of a fetch are limited, and redirects are not
        followed. The text is parsed in a thread, so that the page stays responsive. Of a long feed, only the newest
        incidents are taken.
Rule 3  A fetch that fails is reported in one line, and tried again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from client_demo.python.publisher import retry_after_s
from client_demo.python.times import format_time
from client_demo.python.wire import is_loopback

from .feed_format import FeedError, Format
from .feeds import Records, feed_text, read_records
from .queue import Sighting, sighting

MOST_BYTES = 16 << 20
FETCH_S = 30.0
LEAST_EVERY_S = 5.0
LONGEST_WAIT_S = 900.0
MOST_INCIDENTS = 2000  # of one edition of a feed, only the newest are read; four times what a desk keeps undecided


def as_recorded(records: Records) -> list[Sighting]:
    """Return the newest incidents of a feed, with the times that the feed has."""
    return [sighting(group, records, group.incident.occurred_at) for group in records.groups[-MOST_INCIDENTS:]]


class Replay:
    """Replays the incidents of a feed's file as if they were happening now (Rule 1).

    Times are in ms since 1970. Incidents without a time come first, and are not given a time. Raise FeedError if no
    incident has a time.
    """

    def __init__(self, records: Records, opened_at: int, *, speed: float, ahead: int) -> None:
        self._records, self._opened_at, self._speed = records, opened_at, speed
        times = [group.incident.occurred_at for group in records.groups if group.incident.occurred_at is not None]
        if not times:
            raise FeedError("the feed can't be replayed: no record has a time that can be read; give --as-recorded")
        self._pivot = times[min(max(ahead, 1), len(times)) - 1]
        self._span = format_time(times[0])[:10], format_time(times[-1])[:10]
        self._shown = 0

    @property
    def title(self) -> str:
        """The title of the replay on the page."""
        first, last = self._span
        days = first if first == last else f"{first} to {last}"
        pace = "" if self._speed == 1 else f", {self._speed:g} times as fast"
        return f"Replay of {self._records.format.title}, recorded {days}{pace}; the times are moved to now"

    def due(self, now_ms: int) -> Iterator[Sighting]:
        """Yield the incidents that have happened, according to the replay, since the last call of this method."""
        groups = self._records.groups
        while self._shown < len(groups):
            group = groups[self._shown]
            at = self._moved(group.incident.occurred_at)
            if at is not None and at > now_ms:
                return
            self._shown += 1
            yield sighting(group, self._records, at)

    def next_at(self) -> int | None:
        """Return the time at which the next incident happens, or None if all have happened."""
        groups = self._records.groups
        return self._moved(groups[self._shown].incident.occurred_at) if self._shown < len(groups) else None

    def _moved(self, recorded_at: int | None) -> int | None:
        return None if recorded_at is None else self._opened_at + int((recorded_at - self._pivot) / self._speed)


class Poll:
    """Polls a URL for new editions of a feed (Rule 2)."""

    def __init__(
        self,
        url: str,
        every_s: float,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        kind: Format | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FeedError("the feed's address has to begin with https:// or http://")
        self._url, self._every_s, self._kind = url, max(every_s, LEAST_EVERY_S), kind
        self.name = parts.hostname  # not the whole address, which may contain an access key
        self._validators: dict[str, str] = {}
        self._failures, self._retry_after_s = 0, 0.0
        self._http = httpx.AsyncClient(transport=transport, timeout=FETCH_S, trust_env=not is_loopback(url))
        self.wait_s = self._every_s

    async def close(self) -> None:
        """Close the HTTP connection."""
        await self._http.aclose()

    async def fetch(self) -> Records | None:
        """Return the feed, or None if it has not changed since the last fetch.

        Set `wait_s`, the number of seconds until the next fetch. Raise FeedError if the feed can't be fetched or used.
        """
        self._retry_after_s = 0.0
        try:
            async with asyncio.timeout(FETCH_S):
                records = await self._fetch()
        except (httpx.HTTPError, TimeoutError) as error:
            why = f"{self.name} can't be read: {type(error).__name__}"
        except FeedError as error:
            why = str(error)
        else:
            self._failures, self.wait_s = 0, self._every_s
            return records
        doubled_s = self._every_s * 2 ** min(self._failures, 8)
        self._failures += 1
        self.wait_s = min(LONGEST_WAIT_S, max(doubled_s, self._retry_after_s))
        raise FeedError(why)

    async def _fetch(self) -> Records | None:
        async with self._http.stream("GET", self._url, headers=self._validators) as answer:
            if answer.status_code == httpx.codes.NOT_MODIFIED:
                return None
            if answer.status_code != httpx.codes.OK:
                self._retry_after_s = retry_after_s(answer.headers.get("Retry-After"))
                raise FeedError(f"{self.name} can't be read: it answers {answer.status_code} {answer.reason_phrase}")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise FeedError(f"{self.name} can't be used: it gives more than {MOST_BYTES >> 20} MiB")
        try:
            records = await asyncio.to_thread(read_records, self.name, body.decode("utf-8-sig"), self._kind)
        except UnicodeDecodeError:
            raise FeedError(f"{self.name} can't be used: it is not UTF-8 text") from None
        pairs = (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
        self._validators = {ask: answer.headers[tell] for ask, tell in pairs if tell in answer.headers}
        return records


Take = Callable[[Iterable[Sighting]], None]
Tell = Callable[[str, str], None]  # (the feed's title, its trouble or "")
Feed = Callable[[Take, Tell], Coroutine[Any, Any, None]]  # runs until cancelled


def open_feed(
    where: str,
    kind: Format | None = None,
    *,
    speed: float,
    ahead: int,
    is_as_recorded: bool,
    every_s: float,
    clock: Callable[[], int],
) -> Feed:
    """Return a function that brings the incidents of a file or of a URL to the desk, until cancelled.

    A file is replayed or, with `is_as_recorded`, its incidents are all taken at once; a URL is polled. `kind` is the
    format of the feed. Raise FeedError if a file can't be used.
    """
    if "://" in where:
        return partial(_run_poll, Poll(where, every_s, kind=kind))
    path = Path(where)
    records = read_records(path.name, feed_text(path), kind)
    if is_as_recorded:
        return partial(_run_once, records)
    return partial(_run_replay, Replay(records, clock(), speed=speed, ahead=ahead), clock)


async def _run_once(records: Records, take: Take, tell: Tell) -> None:
    tell(records.format.title, "")
    take(as_recorded(records))
    await asyncio.Event().wait()


async def _run_replay(replay: Replay, clock: Callable[[], int], take: Take, tell: Tell) -> None:
    tell(replay.title, "")
    take(replay.due(clock()))
    while (next_at := replay.next_at()) is not None:
        await asyncio.sleep(min(60.0, max(0.05, (next_at - clock()) / 1000)))
        take(replay.due(clock()))
    await asyncio.Event().wait()


async def _run_poll(poll: Poll, take: Take, tell: Tell) -> None:
    title = poll.name
    try:
        while True:
            try:
                records = await poll.fetch()
                if records is not None:
                    title = f"{records.format.title} ({poll.name})"
                    take(await asyncio.to_thread(as_recorded, records))
                tell(title, "")
            except FeedError as error:
                tell(title, str(error))
            await asyncio.sleep(poll.wait_s)
    finally:
        await poll.close()
