"""Delivery counts: how often each revision was delivered, over all processes.

Each process writes its own sums, under a name of its own, and a reader adds them up.
Example: a process has counted 100 deliveries and writes "100". The reply is lost, so it writes "100" again, which
changes nothing. A command to add 100 would have counted them twice.
"""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from .. import Counts
from .connection import Primary

KEPT_MS = 9 * 86_400_000  # longer than the longest life of an alert, a week, and a day of retention
MAX_COUNTED = 10_000  # the most alerts whose counts are kept in memory


class DeliveryCounts:
    """The counts of this process, and access to those of all processes."""

    def __init__(self, primary: Primary, keys: str) -> None:
        """Write to `primary`. `keys` is the prefix of all keys of the log."""
        self.sums: dict[str, Counts] = {}  # the deliveries that this process has counted under its current name
        self._primary = primary
        self._keys = keys
        self._process = uuid.uuid4().hex[:12]
        self._writing = asyncio.Lock()  # so that an older sum is never written after a newer one

    async def add(self, counts: Mapping[str, Counts]) -> None:
        """Add to the counted deliveries of each id. Raises LogUnavailable."""
        async with self._writing:
            await self._write({i: self.sums.get(i, Counts()).plus(more) for i, more in counts.items()})

    async def write_again(self) -> None:
        """Write all sums of this process again, to a log that may have lost them. Raises LogUnavailable."""
        async with self._writing:
            await self._write(dict(self.sums))

    async def total(self, alert_id: str) -> Counts:
        """Return the deliveries of one id over all processes. Raises LogUnavailable."""
        total = Counts()
        for value in await self._primary.call("HVALS", self._key(alert_id)):
            numbers = value.split()[: len(total)]  # other releases may write more or fewer numbers (LogG6)
            total = total.plus(Counts(*map(int, numbers)))
        return total

    async def _write(self, sums: Mapping[str, Counts]) -> None:
        commands: list[tuple[Any, ...]] = []
        for alert_id, counts in sums.items():
            key = self._key(alert_id)
            commands += [("HSET", key, self._process, " ".join(map(str, counts))), ("PEXPIRE", key, KEPT_MS)]
        await self._primary.pipe(commands)
        self.sums.update(sums)
        if len(self.sums) > MAX_COUNTED:  # forget the sums, and go on from 0 under another name
            self.sums = {}
            self._process = uuid.uuid4().hex[:12]

    def _key(self, alert_id: str) -> str:
        return f"{self._keys}counts:{alert_id}"
