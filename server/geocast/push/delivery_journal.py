"""The journal: a record of the alerts that devices were sent, written before and after each push request (WPS2, WPS4).

A *line* (`DeliveryRecord`) says which revision of an alert a device was sent. Its state is MAYBE before the request,
SENT after the push service has accepted it. Devices are divided into shards, and each shard belongs to one process at a
time. The *term* of a shard is a number that grows whenever the shard gets another owner.

Rule 1  Lines are written behind (`storage/write_behind`): an unavailable store delays no alert for long. Lines whose
        requests started before the lines were written are counted.
Rule 2  The outcome of a request is written with the next transaction, at most SETTLE_S seconds later. So one sync of
        the disk serves many requests.
Rule 3  The store refuses a line if a later term of its shard has begun, and the line is then dropped. The new owner of
        the shard relies on what was recorded before the request: the alert may have been sent (rule WPN1). If the store
        refuses a line of an earlier term, but this process has become the owner of the shard again since, this process
        keeps the shard.

Example for Rule 2: 256 requests start together. One transaction records all of them as MAYBE. Their answers come within
the next 30 ms, and one more transaction records them as SENT.

Example for Rule 3: this process loses shard 5 while a request is under way. The service answers 201, and the store
refuses the line SENT. The new owner finds MAYBE, and sends the current revision once more under the same Topic, so the
push service replaces the first message if it has not delivered it yet.
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import TypeVar

from ..model.errors import StoreUnavailable
from ..storage.write_behind import WriteBehind
from .devicestore import DeliveryRecord, DeviceStore, RegistrationKey, shard_of
from .shards import Shards

_T = TypeVar("_T")


class DeliveryJournal(WriteBehind[tuple[bytes, bytes], DeliveryRecord]):
    """Writes the journal: the records, in the device store, of the alerts that devices were sent.

    A *line* is one record: which revision of an alert a device was sent. A newer line of a device and an alert replaces
    an older one.
    """

    SETTLE_S = 0.05

    def __init__(self, store: DeviceStore, shards: Shards) -> None:
        """Create a journal that writes to `store`.

        Devices are divided into shards, and each shard belongs to one process. If the store refuses records of a shard
        because it belongs to another process now, the journal calls `shards.refused` (Rule 3).
        """
        super().__init__("device store")
        self.unrecorded = 0  # number of lines whose requests started before the lines were written (Rule 1)
        self._store = store
        self._shards = shards

    async def before(self, lines: Sequence[DeliveryRecord]) -> None:
        """Record that devices are about to be sent alerts. Call this before the requests are sent.

        When this returns, the records are on stable storage, unless the store is unavailable.
        """
        self.add(_by_subject(lines))
        await self.written()
        if self.error is not None:
            self.unrecorded += len(lines)

    def after(self, line: DeliveryRecord) -> None:
        """Record the outcome of a push request. The record is written with the next transaction (Rule 2)."""
        self.note(_by_subject([line]))

    async def store(self, notes: Mapping[tuple[bytes, bytes], DeliveryRecord]) -> None:
        """Write these lines in one transaction. Raise StoreUnavailable if that fails."""
        if refused := await self._store.note(list(notes.values())):  # the refused lines are dropped (Rule 3)
            terms = self._shards.terms
            named = {(shard_of(line.device), line.term) for line in notes.values()}
            self._shards.refused([shard for shard in refused if (shard, terms.get(shard)) in named])

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Delete devices from the device store, as `DeviceStore.forget` does.

        Raise StoreUnavailable if the store can't be used.
        """
        await self.watched(self._store.forget(devices))

    async def watched(self, write: Awaitable[_T]) -> _T:
        """Await a write to the device store, and note whether it works. Raise StoreUnavailable if it does not."""
        try:
            result = await write
        except StoreUnavailable as error:
            self.failed(str(error))
            raise
        self.worked()
        return result


def _by_subject(lines: Sequence[DeliveryRecord]) -> dict[tuple[bytes, bytes], DeliveryRecord]:
    return {(line.device, line.alert): line for line in lines}
