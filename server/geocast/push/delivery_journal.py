"""What devices were told, noted in the store: before a request that it may be sent, after it what came of it (WPS2,
WPS4).

Rule 1  Lines are written in the order in which they came, one transaction after the other.
Rule 2  What a request has come to waits for the next transaction, SETTLE_S at the longest. So one sync serves many.
Rule 3  A store that is away holds no alert up: what could not be noted is counted, and tried again with the next.
Rule 4  What the store refuses, because a later term of its shard has begun, is dropped: who has the shard now goes by
        what was noted before, which is that it may have been sent (WPN1). If the line is of a term that we had before
        the one that we have, nothing is lost by it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from typing import TypeVar

from ..errors import StoreUnavailable
from .devicestore import DeliveryRecord, DeviceStore, Limits, Put, RegistrationKey, StoredDevice, shard_of
from .shards import Shards

logger = logging.getLogger(__name__)

SETTLE_S = 0.05

_T = TypeVar("_T")


class DeliveryJournal:
    """Writes to the store. `error` says why it could not last time."""

    def __init__(self, store: DeviceStore, shards: Shards) -> None:
        """`shards` is told of those whose lines are refused."""
        self.error: str | None = None
        self.unrecorded = 0  # lines that were not in the store when they should have been
        self._store = store
        self._shards = shards
        self._lines: dict[
            tuple[bytes, bytes], DeliveryRecord
        ] = {}  # to be written, by device and alert; the newest counts
        self._turn = asyncio.Lock()  # Rule 1
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def before(self, lines: Sequence[DeliveryRecord]) -> None:
        """Note that these may be sent. When this returns it is on stable storage, unless the store is away."""
        self._add(lines)
        await self.flush()

    def after(self, line: DeliveryRecord) -> None:
        """Note what has come of one, soon (Rule 2)."""
        self._add([line])
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._flush_now)

    def _add(self, lines: Sequence[DeliveryRecord]) -> None:
        self._lines.update({(line.device, line.alert): line for line in lines})

    def _flush_now(self) -> None:
        self._flushing = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write all that waits. With nothing to write, a store that failed is tried again."""
        async with self._turn:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._lines and self.error is None:
                return
            lines, self._lines = self._lines, {}
            try:
                refused = await self._store.note(list(lines.values()))
            except BaseException as error:
                self._lines = lines | self._lines  # Rule 3; who is cancelled, as at the end, loses nothing either
                if not isinstance(error, StoreUnavailable):
                    raise
                self.unrecorded += len(lines)
                self._failed(error)
            else:
                self._worked()
                if refused:  # Rule 4
                    terms = self._shards.terms
                    named = {(shard_of(line.device), line.term) for line in lines.values()}
                    self._shards.refused([shard for shard in refused if (shard, terms.get(shard)) in named])

    async def put(
        self,
        device: StoredDevice,
        was: StoredDevice | None,
        *,
        limits: Limits | None,
        note: bytes,
        lines: Sequence[DeliveryRecord],
    ) -> Put:
        """Put a device, as the store has it. Raises StoreUnavailable."""
        return await self._written(self._store.put(device, was, limits=limits, note=note, lines=lines))

    async def rename(self, was: StoredDevice, device: StoredDevice, lines: Sequence[DeliveryRecord]) -> None:
        """Store a device and what it was told by another digest, and forget the old one. Raises StoreUnavailable."""
        await self._written(self._store.put(device, None, lines=lines))
        await self.forget([was.known])

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Forget devices, as the store does. Raises StoreUnavailable."""
        await self._written(self._store.forget(devices))

    async def _written(self, write: Awaitable[_T]) -> _T:
        try:
            result = await write
        except StoreUnavailable as error:
            self._failed(error)
            raise
        self._worked()
        return result

    def _failed(self, error: StoreUnavailable) -> None:
        if self.error is None:
            logger.error("the store of devices can't be written: %s", error)
        self.error = str(error)

    def _worked(self) -> None:
        if self.error is not None:
            logger.warning("the store of devices can be used again")
            self.error = None
