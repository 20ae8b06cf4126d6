"""A log in this process's memory, for tests and benches.

It keeps all rules of the port but durability: when the process ends, everything is gone.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import suppress

from prometheus_client.core import Metric

from ..alert import Entry, OtherKind, Revision
from . import BATCH, HEARTBEAT_S, RETENTION_MS, Counts, Positioned, current, follows


class MemoryLog:
    """A log that is gone when its process ends. The module tells which rules it keeps."""

    def __init__(self) -> None:
        self.quarantined = 0
        self._entries: list[Positioned] = []
        self._history: dict[str, list[Entry | OtherKind]] = {}
        self._counts: dict[str, Counts] = {}
        self._last = 0
        self._appended = asyncio.Event()  # replaced by a new one at each append

    async def start(self) -> None:
        """There is nothing to open."""

    async def stop(self) -> None:
        """There is nothing to close."""

    async def append(self, entry: Entry) -> bool:
        """Store `entry` if its number is the next one."""
        if not follows(entry, reversed(self._history.get(entry.id, []))):
            return False
        self.take(entry)
        return True

    def take(self, entry: Entry | OtherKind) -> None:
        """Store `entry`, which nobody judges any more. (Tests play a later release by this.)"""
        self._history.setdefault(entry.id, []).append(entry)
        self._last += 1
        if not isinstance(entry, OtherKind):
            self._entries.append(Positioned(self._last, entry))
        self._appended.set()
        self._appended = asyncio.Event()

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """All entries of one alert."""
        return tuple(self._history.get(alert_id, ()))

    async def live(self, now_ms: int) -> Sequence[Revision]:
        """The current revision of each live alert."""
        currents = {alert_id: current(chain) for alert_id, chain in self._history.items()}
        return [
            entry
            for _, entry in self._entries
            if isinstance(entry, Revision) and entry is currents[entry.id] and entry.ends_at > now_ms
        ]

    async def tail(self) -> int:
        """The position of the last entry."""
        return self._last

    async def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """The entries behind `after`, and those to come."""
        there = self._last
        while True:
            appended = self._appended
            behind = self._entries[bisect_right(self._entries, after, key=lambda p: p.position) :]
            wanted = [p for p in behind if p.position > there or p.entry.ends_at >= ended_before_ms]
            for start in range(0, len(wanted), BATCH):
                yield wanted[start : start + BATCH]
            after = behind[-1].position if behind else after
            if not behind or after >= self._last:  # the last may have been purged
                yield ()
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await appended.wait()

    def metrics(self) -> Iterable[Metric]:
        """The port's own figures are all there is."""
        return ()

    def nudge(self) -> None:
        """There is no other process that could append."""

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add to the deliveries of each alert."""
        for alert_id, more in counts.items():
            self._counts[alert_id] = self._counts.get(alert_id, Counts()).plus(more)

    async def counts(self, alert_id: str) -> Counts:
        """The deliveries of one alert."""
        return self._counts.get(alert_id, Counts())

    async def purge(self, now_ms: int) -> int:
        """Forget the alerts that ended RETENTION_MS ago."""
        cutoff = now_ms - RETENTION_MS
        gone = {i for i, history in self._history.items() if max(entry.ends_at for entry in history) < cutoff}
        self._entries = [p for p in self._entries if p.entry.id not in gone]
        for alert_id in gone:
            self._counts.pop(alert_id, None)
        return sum(len(self._history.pop(alert_id)) for alert_id in gone)
