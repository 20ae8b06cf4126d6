"""A log in the memory of this process, for tests and benchmarks.

It keeps all rules of the package `alertlog` except durability: its entries are lost when the process ends.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress

from prometheus_client.core import Metric

from ..model.alert import Cancel, Entry, OtherKind, Revision, Untrusted
from ..model.call import CallEntry
from . import (
    BATCH,
    HEARTBEAT_S,
    PAGE,
    PLACE_MS,
    RETENTION_MS,
    Counts,
    Cursor,
    EntryVerifier,
    Page,
    Positioned,
    Seen,
    TrustAll,
    current,
    drop_unverified_cancels,
    ended_at,
    is_followed,
    is_last,
    may_follow,
    page,
)
from .decoding import believed

_FOLLOWED = (Revision, Cancel, CallEntry)


class MemoryLog:
    """A log in memory, which keeps all rules of the `alertlog` package except durability."""

    def __init__(self, verifier: EntryVerifier | None = None) -> None:
        self.name = "memory:"
        self.verifier = verifier or TrustAll()
        self.quarantined = 0
        self._entries: list[Positioned] = []
        self._history: dict[str, list[Entry | OtherKind]] = {}
        self._ends: dict[str, int] = {}  # the latest end of each alert's entries
        self._cursors: list[Cursor] = []  # the ends in `_ends` with their ids, sorted as in `live` (LogL1)
        self._positions: dict[str, int] = {}  # the position of each alert's last revision; 0 if it has none
        self._counts: dict[str, Counts] = {}
        self._last = 0
        self._appended = asyncio.Event()  # set, and replaced by a new event, at each append

    async def examine(self) -> str:
        """Return a description of the log for the operator. There is nothing to check."""
        return "in memory: gone when the process ends"

    async def is_there(self) -> bool:
        """Return True: it is made with this object."""
        return True

    async def start(self) -> None:
        """Do nothing: there is nothing to open."""

    async def stop(self) -> None:
        """Do nothing: there is nothing to close."""

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` and return True, or return False if it can't be the next entry of its alert or call."""
        if not may_follow(entry, reversed(self._history.get(entry.id, []))):
            return False
        self.take(entry)
        return True

    def take(self, entry: Entry | OtherKind) -> None:
        """Store `entry` without any check. Tests use this method to store entries like those of a later release."""
        self._history.setdefault(entry.id, []).append(entry)
        self._last += 1
        self._lasts_until(entry.id, entry.ends_at)
        self._positions[entry.id] = self._last if isinstance(entry, Revision) else self._positions.get(entry.id, 0)
        if isinstance(entry, _FOLLOWED):
            self._entries.append(Positioned(self._last, entry))
        self._appended.set()
        self._appended = asyncio.Event()

    def _lasts_until(self, alert_id: str, ends_at: int) -> None:
        if ends_at > self._ends.get(alert_id, -1):
            self._forget_end(alert_id)
            self._ends[alert_id] = ends_at
            insort(self._cursors, Cursor(ends_at, alert_id))

    def _forget_end(self, alert_id: str) -> None:
        if (ends_at := self._ends.pop(alert_id, None)) is not None:
            del self._cursors[bisect_left(self._cursors, Cursor(ends_at, alert_id))]

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """Return all entries of one alert or call, ordered by number.

        The result is empty if the log has no entries with this id.
        """
        return tuple(entry for entry in self._chain(alert_id) if entry is not None)

    def _chain(self, alert_id: str) -> list[Entry | OtherKind | None]:
        return drop_unverified_cancels(
            [self._verified(entry) for entry in self._history.get(alert_id, ())], self.verifier
        )

    def _verified(self, entry: Entry | OtherKind) -> Entry | OtherKind:
        return believed(entry, self.verifier, (entry.id, entry.revision), f"number {entry.revision} of its alert")

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """Return a page of up to `limit` live alerts.

        `after` is the attribute `after` of the previous page, or None for the first page.
        """
        return await page(self._look, now_ms, after, limit)

    async def _look(self, after: Cursor, count: int) -> Sequence[Seen]:
        start = bisect_right(self._cursors, after)
        return [self._seen(cursor) for cursor in self._cursors[start : start + count]]

    def _seen(self, cursor: Cursor) -> Seen:
        return Seen(cursor, self._positions[cursor.id], current(reversed(self._chain(cursor.id))))

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """Return the ids of the calls for help that are open at `now_ms` (ms since 1970)."""
        calls = (i for i, history in self._history.items() if any(isinstance(entry, CallEntry) for entry in history))
        return [i for i in calls if self._ends[i] > now_ms and not any(map(is_last, self._history[i]))]

    async def tail(self) -> int:
        """Return the position of the last entry in the log; 0 if nothing was ever appended."""
        return self._last

    async def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end."""
        there = self._last  # `ended_before_ms` does not apply to entries after this position
        while True:
            appended = self._appended
            behind = self._entries[bisect_right(self._entries, after, key=lambda p: p.position) :]
            wanted = [p for p in behind if p.position > there or self._lasts(p.entry, ended_before_ms)]
            for start in range(0, len(wanted), BATCH):
                judged = ((p.position, self._verified(p.entry)) for p in wanted[start : start + BATCH])
                if followed := [Positioned(at, each) for at, each in judged if is_followed(each)]:
                    yield followed
            after = behind[-1].position if behind else after
            if not behind or after >= self._last:  # the first condition is needed if the last entry was purged
                yield ()
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await appended.wait()

    def _lasts(self, entry: Entry | CallEntry | Untrusted, until_ms: int) -> bool:
        """Return whether an entry or an earlier one of its alert ends at `until_ms` or later, or is one of a call."""
        earlier = (each for each in self._history[entry.id] if each.revision <= entry.revision)
        return isinstance(entry, CallEntry) or any(each.ends_at >= until_ms for each in earlier)

    def metrics(self) -> Iterable[Metric]:
        """Return nothing: this log has no metrics of its own."""
        return ()

    def nudge(self) -> None:
        """Do nothing: no other process can append."""

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add `counts` to the delivery counts that are stored under the same ids."""
        for alert_id, more in counts.items():
            self._counts[alert_id] = self._counts.get(alert_id, Counts()).plus(more)

    async def counts(self, alert_id: str) -> Counts:
        """Return the delivery counts stored for an alert, a call, or a revision of a call.

        `alert_id` is the id of the alert or call, or a key from `under_revision`.
        """
        return self._counts.get(alert_id, Counts())

    async def purge(self, now_ms: int) -> int:
        """Delete alerts that ended at least RETENTION_MS ago, and places of calls that ended at least PLACE_MS ago.

        (The place of a call for help is the place of its incident.) Return the number of deleted entries.
        """
        places = self._forget_places(now_ms)
        cutoff = now_ms - RETENTION_MS
        gone = {i for i, history in self._history.items() if max(entry.ends_at for entry in history) < cutoff}
        self._entries = [p for p in self._entries if p.entry.id not in gone]
        self._counts = {name: each for name, each in self._counts.items() if name.partition("/")[0] not in gone}
        for alert_id in gone:
            self._positions.pop(alert_id, None)
            self._forget_end(alert_id)
        return places + sum(len(self._history.pop(alert_id)) for alert_id in gone)

    def _forget_places(self, now_ms: int) -> int:
        there = [entry for history in self._history.values() for entry in history if isinstance(entry, CallEntry)]
        over = {entry.id for entry in there if entry.kind == "end" and ended_at(entry) <= now_ms - PLACE_MS}
        gone = [entry for entry in there if entry.kind == "call" and entry.id in over]
        for entry in gone:
            self._history[entry.id].remove(entry)
        self._entries = [p for p in self._entries if p.entry not in gone]
        return len(gone)
