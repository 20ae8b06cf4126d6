"""The journal: a record of the alerts that devices were sent, written before and after each push request (WPS2, WPS4).

A *line* (`DeliveryRecord`) says which revision of an alert a device was sent. Its state is MAYBE before the request,
SENT after the push service has accepted it. Devices are divided into shards, and each shard belongs to one process at a
time. The *term* of a shard is a number that grows whenever the shard gets another owner.

Rule 1  Lines are written in the order in which they were recorded, one transaction at a time.
Rule 2  The outcome of a request is written with the next transaction, at most SETTLE_S seconds later. So one sync of
        the disk serves many requests.
Rule 3  An unavailable store delays no alert. A request waits at most PATIENCE_S for its line, and not at all while the
        last write failed or has not ended. Such lines are counted, and are written when the store works again. A write
        without an answer may still arrive late, so the first lines that are written after a failure are written twice.
        The store is also written to every PROBE_S, so that an idle process notices a failure, and its end.
Rule 4  The store refuses a line if a later term of its shard has begun, and the line is then dropped. The new owner of
        the shard relies on what was recorded before the request: the alert may have been sent (rule WPN1). If the store
        refuses a line of an earlier term, but this process has become the owner of the shard again since, this process
        keeps the shard.

Example for Rule 2: 256 requests start together. One transaction records all of them as MAYBE. Their answers come within
the next 30 ms, and one more transaction records them as SENT.

Example for Rule 3: the disk hangs. The first 200 requests start a second later than they should, and all others at
once. 30 s later the disk works again, and one transaction has everything that was sent meanwhile.

Example for Rule 4: this process loses shard 5 while a request is under way. The service answers 201, and the store
refuses the line SENT. The new owner finds MAYBE, and sends the current revision once more under the same Topic, so the
push service replaces the first message if it has not delivered it yet.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Sequence
from itertools import islice
from typing import TypeVar

from ..metrics import report_caught
from ..model.errors import StoreUnavailable
from .devicestore import DeliveryRecord, DeviceStore, Limits, Put, RegistrationKey, StoredDevice, shard_of
from .shards import Shards

logger = logging.getLogger(__name__)

SETTLE_S = 0.05
PATIENCE_S = 1.0  # the longest time for which pushes wait for the store
PROBE_S = 1.0  # time between two probes of the store
AT_ONCE = 5_000  # limit on the lines of a transaction: what piled up during an outage takes several

_T = TypeVar("_T")


class DeliveryJournal:
    """Writes the journal: the records, in the device store, of the alerts that devices were sent.

    A *line* is one record: which revision of an alert a device was sent. `error` is the reason why the last write
    failed or takes too long, or None if it succeeded.
    """

    def __init__(self, store: DeviceStore, shards: Shards) -> None:
        """Create a journal that writes to `store`.

        Devices are divided into shards, and each shard belongs to one process. If the store refuses records of a shard
        because it belongs to another process now, the journal calls `shards.refused` (Rule 4).
        """
        self.error: str | None = None
        self.unrecorded = 0  # number of lines whose requests started before the lines were written (Rule 3)
        self._store = store
        self._shards = shards
        # The lines that wait to be written, by device and alert. A newer line replaces an older one.
        self._lines: dict[tuple[bytes, bytes], DeliveryRecord] = {}
        self._is_probing = False  # whether to write even if there are no lines
        self._is_doubtful = False  # whether lines of a failed write may still arrive in the store (Rule 3)
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None  # runs while there is something to write (Rule 1)
        self._ending: asyncio.Future[None] | None = None  # the end of the next attempt, which has all lines of now

    async def before(self, lines: Sequence[DeliveryRecord]) -> None:
        """Record that devices are about to be sent alerts. Call this before the requests are sent.

        When this returns, the records are on stable storage, unless the store is unavailable (Rule 3).
        """
        self._add(lines)
        if self.error is None:
            await self.flush()
        if self.error is not None:
            self.unrecorded += len(lines)

    def after(self, line: DeliveryRecord) -> None:
        """Record the outcome of a push request. The record is written with the next transaction (Rule 2)."""
        self._add([line])
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self.flush_soon)

    def _add(self, lines: Sequence[DeliveryRecord]) -> None:
        self._lines.update({(line.device, line.alert): line for line in lines})

    async def probe(self) -> None:
        """Write to the store even if there is nothing to record, but wait at most PATIENCE_S seconds for that."""
        self._is_probing = True
        await self.flush()

    async def flush(self) -> None:
        """Write all records that have not been written yet, but wait at most PATIENCE_S seconds for that."""
        written = self.flush_soon()
        if written is not None:
            _, late = await asyncio.wait([written], timeout=PATIENCE_S)
            if late:
                self._failed(f"no answer for {PATIENCE_S:g} s")

    def flush_soon(self) -> "asyncio.Future[None] | None":
        """Start to write all records that have not been written yet, and return a future that ends with the attempt.

        Return None if there is nothing to do.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        if self._ending is None and (self._lines or self._is_probing or self._writing is not None):
            self._ending = loop.create_future()
        if self._ending is not None and (self._writing is None or self._writing.done()):
            self._writing = loop.create_task(self._write_all())
        return self._ending

    async def _write_all(self) -> None:
        try:
            while (written := self._ending) is not None:
                self._ending = None
                try:
                    for _ in range(-(-len(self._lines) // AT_ONCE) or self._is_probing):
                        await self._write()
                except StoreUnavailable as error:
                    self._failed(str(error))
                except Exception as error:
                    report_caught("device store: writing failed for an unexpected reason", error)
                    self._failed("unexpected error")
                finally:
                    written.set_result(None)
        finally:
            self._writing = None

    async def _write(self) -> None:
        """Write the oldest AT_ONCE lines in one transaction."""
        self._is_probing = False
        lines = dict(islice(self._lines.items(), AT_ONCE))
        for each in lines:
            del self._lines[each]
        try:
            refused = await self._store.note(list(lines.values()))
        except BaseException:
            self._lines = lines | self._lines  # keep the lines (Rule 3), even if this task is being cancelled
            self._is_doubtful = True
            raise
        if self._is_doubtful:
            self._lines, self._is_doubtful = lines | self._lines, False
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
            self._failed(str(error))
            raise
        self._worked()
        return result

    def _failed(self, error: str) -> None:
        if self.error is None:
            logger.error("device store: writing fails (%s); pushes go on, and are recorded later", error)
        self.error = error

    def _worked(self) -> None:
        if self.error is not None:
            logger.warning("device store: writing works again")
            self.error = None
