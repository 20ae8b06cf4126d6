"""Delivery counts: how often each revision was delivered, added up over all processes.

Each process writes its own sums, in a field named after the process. A reader adds up all fields.
Example: a process has counted 100 deliveries and writes "100". The reply is lost, so it writes "100" again, which
changes nothing. A command that adds 100 would have counted them twice.
"""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from ...storage.redis.primary import Primary
from .. import Counts

KEPT_MS = 9 * 86_400_000  # more than the longest life of an alert (a week) plus a day of retention
MAX_COUNTED = 10_000  # the largest number of alerts whose counts are kept in memory


class DeliveryCounts:
    """Stores the delivery counts of this process in Redis, and reads the sums over all processes."""

    def __init__(self, primary: Primary, keys: str) -> None:
        """Prepare to count in the Redis server `primary`. `keys` is the prefix of all keys of the log."""
        self.sums: dict[str, Counts] = {}  # by alert id: what this process has counted under its current name
        self._primary = primary
        self._keys = keys
        self._process = uuid.uuid4().hex[:12]
        self._writing = asyncio.Lock()  # makes sure that an older sum is never written after a newer one

    async def add(self, counts: Mapping[str, Counts]) -> None:
        """Add `counts` to the sums of this process, and write these sums to Redis.

        `counts` maps the id of an alert or call, or a key from `under_revision`, to delivery counts. Raise
        LogUnavailable if the sums can't be written.
        """
        async with self._writing:
            await self._write({i: self.sums.get(i, Counts()).plus(more) for i, more in counts.items()})

    async def write_again(self) -> None:
        """Write all sums of this process to Redis again, because Redis may have lost them.

        Raise LogUnavailable if they can't be written.
        """
        async with self._writing:
            await self._write(dict(self.sums))

    async def total(self, alert_id: str) -> Counts:
        """Return the delivery counts of one alert, call or revision, added up over all processes.

        `alert_id` is an id, or a key from `under_revision`. Raise LogUnavailable if the counts can't be read.
        """
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
        if len(self.sums) > MAX_COUNTED:  # forget the sums, and start again from 0 under another name
            self.sums = {}
            self._process = uuid.uuid4().hex[:12]

    def _key(self, alert_id: str) -> str:
        return f"{self._keys}counts:{alert_id}"
