"""Delivery counts: each process writes its own sums, so that a command whose reply was lost may be repeated."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from .. import Counts
from .connection import Primary

KEPT_MS = 9 * 86_400_000  # the longest life of an alert is a week, and a day of retention
MAX_COUNTED = 10_000  # alerts whose counts are kept in memory


class DeliveryCounts:
    """The sums of this process, and what writes them."""

    def __init__(self, primary: Primary, keys: str) -> None:
        """`keys`: what all names of the log begin with."""
        self.sums: dict[str, Counts] = {}  # what this process has added
        self._primary = primary
        self._keys = keys
        self._process = uuid.uuid4().hex[:12]
        self._writing = asyncio.Lock()  # sums are written one after the other

    async def add(self, counts: Mapping[str, Counts]) -> None:
        """Add to the deliveries of each alert. Raises LogUnavailable."""
        async with self._writing:
            await self._write({i: self.sums.get(i, Counts()).plus(more) for i, more in counts.items()})

    async def write_again(self) -> None:
        """Write what this process has added to a log that may have lost it. Raises LogUnavailable."""
        async with self._writing:
            await self._write(dict(self.sums))

    async def total(self, alert_id: str) -> Counts:
        """The deliveries of one alert, over all processes. Raises LogUnavailable."""
        total = Counts()
        for value in await self._primary.call("HVALS", self._key(alert_id)):
            numbers = value.split()[: len(total)]  # other releases count more, or less (LogG6)
            total = total.plus(Counts(*map(int, numbers)))
        return total

    async def _write(self, sums: Mapping[str, Counts]) -> None:
        commands: list[tuple[Any, ...]] = []
        for alert_id, counts in sums.items():
            key = self._key(alert_id)
            commands += [("HSET", key, self._process, " ".join(map(str, counts))), ("PEXPIRE", key, KEPT_MS)]
        await self._primary.pipe(commands)
        self.sums.update(sums)
        if len(self.sums) > MAX_COUNTED:  # go on under another name
            self.sums = {}
            self._process = uuid.uuid4().hex[:12]

    def _key(self, alert_id: str) -> str:
        return f"{self._keys}counts:{alert_id}"
