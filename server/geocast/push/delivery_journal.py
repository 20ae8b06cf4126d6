"""The journal: a record of the alerts that devices were sent, written before and after each push request (WPS2, WPS4).

A *line* (`DeliveryRecord`) says which revision of an alert a device was sent. Its state is MAYBE before the request,
SENT after the push service has accepted it. Devices are divided into shards, and each shard belongs to one process at a
time. The *term* of a shard is a number that grows whenever the shard gets another owner.

Rule 1  Lines are written in the order in which they were recorded, one transaction at a time.
Rule 2  The outcome of a request is written with the next transaction, at most SETTLE_S seconds later. So one sync of
        the disk serves many requests.
Rule 3  An unavailable store delays no alert. Lines that could not be written are counted, and are written together with
        later lines.
Rule 4  The store refuses a line if a later term of its shard has begun, and the line is then dropped. The new owner of
        the shard relies on what was recorded before the request: the alert may have been sent (rule WPN1). If the store
        refuses a line of an earlier term, but this process has become the owner of the shard again since, this process
        keeps the shard.

Example for Rule 2: 256 requests start together. One transaction records all of them as MAYBE. Their answers come within
the next 30 ms, and one more transaction records them as SENT.

Example for Rule 4: this process loses shard 5 while a request is under way. The service answers 201, and the store
refuses the line SENT. The new owner finds MAYBE, and sends the current revision once more under the same Topic, so the
push service replaces the first message if it has not delivered it yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from typing import TypeVar

from ..model.errors import StoreUnavailable
from .devicestore import DeliveryRecord, DeviceStore, Limits, Put, RegistrationKey, StoredDevice, shard_of
from .shards import Shards

logger = logging.getLogger(__name__)

SETTLE_S = 0.05

_T = TypeVar("_T")


class DeliveryJournal:
    """Writes the journal: the records, in the device store, of the alerts that devices were sent.

    A *line* is one record: which revision of an alert a device was sent. `error` is the reason why the last write
    failed, or None if it succeeded.
    """

    def __init__(self, store: DeviceStore, shards: Shards) -> None:
        """Create a journal that writes to `store`.

        Devices are divided into shards, and each shard belongs to one process. If the store refuses records of a shard
        because it belongs to another process now, the journal calls `shards.refused` (Rule 4).
        """
        self.error: str | None = None
        self.unrecorded = 0  # number of lines that could not be written in time (Rule 3)
        self._store = store
        self._shards = shards
        # The lines that wait to be written, by device and alert. A newer line replaces an older one.
        self._lines: dict[tuple[bytes, bytes], DeliveryRecord] = {}
        self._turn = asyncio.Lock()  # held during a transaction, so that there is one at a time (Rule 1)
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def before(self, lines: Sequence[DeliveryRecord]) -> None:
        """Record that devices are about to be sent alerts. Call this before the requests are sent.

        When this returns, the records are on stable storage, unless the store is unavailable (Rule 3).
        """
        self._add(lines)
        await self.flush()

    def after(self, line: DeliveryRecord) -> None:
        """Record the outcome of a push request. The record is written with the next transaction (Rule 2)."""
        self._add([line])
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._flush_now)

    def _add(self, lines: Sequence[DeliveryRecord]) -> None:
        self._lines.update({(line.device, line.alert): line for line in lines})

    def _flush_now(self) -> None:
        self._flushing = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write all records that have not been written yet.

        If there are none but the last write failed, check whether the store works again.
        """
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
                self._lines = lines | self._lines  # keep the lines (Rule 3), even if this task is being cancelled
                if not isinstance(error, StoreUnavailable):
                    raise
                self.unrecorded += len(lines)
                self._failed(error)
            else:
                self._worked()
                if refused:  # the refused lines are dropped (Rule 4)
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
        """Store a device in the device store, and return the result of `DeviceStore.put`.

        Raise StoreUnavailable if the store can't be used.
        """
        return await self._written(self._store.put(device, was, limits=limits, note=note, lines=lines))

    async def rename(self, was: StoredDevice, device: StoredDevice, lines: Sequence[DeliveryRecord]) -> None:
        """Store a device under a new digest, and delete it under its old digest.

        `device` is the device with its new digest, `lines` are its delivery records (which alerts it was sent), and
        `was` is the device as it is stored now. Raise StoreUnavailable if the store can't be used.
        """
        await self._written(self._store.put(device, None, lines=lines))
        await self.forget([was.known])

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Delete devices from the device store, as `DeviceStore.forget` does.

        Raise StoreUnavailable if the store can't be used.
        """
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
            logger.error("device store: writing fails (%s); pushes go on, and are recorded later", error)
        self.error = str(error)

    def _worked(self) -> None:
        if self.error is not None:
            logger.warning("device store: writing works again")
            self.error = None
