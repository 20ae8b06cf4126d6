"""The journal of what devices were sent, in the store: before each request and after it (rules WPS2, WPS4).

Rule 1  Lines are written in the order in which they came, one transaction at a time.
Rule 2  The outcome of a request waits for the next transaction, for at most SETTLE_S. So one sync serves many requests.
Rule 3  An unavailable store delays no alert: lines that could not be written are counted, and written with the next
        ones.
Rule 4  A line that the store refuses, because a later term of its shard has begun, is dropped. The new owner of the
        shard uses what was noted before the request: the alert may have been sent (rule WPN1). If the line is of an
        earlier term of this process, nothing is lost by that.

Example for Rule 2: 256 requests start together. One transaction notes all of them as MAYBE. Their answers come within
the next 30 ms, and one more transaction notes them as SENT.

Example for Rule 4: this process loses shard 5 while a request is under way. The service answers 201, and the line SENT
is refused. The new owner finds MAYBE, and sends the current revision once more under the same Topic.
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
    """The writer of deliveries to the store. `error` is why the last write failed, None if it worked."""

    def __init__(self, store: DeviceStore, shards: Shards) -> None:
        """Create a journal. Shards whose lines the store refuses are reported to `shards`."""
        self.error: str | None = None
        self.unrecorded = 0  # lines that could not be written in time
        self._store = store
        self._shards = shards
        # Lines to write, by device and alert. A newer line replaces an older one.
        self._lines: dict[tuple[bytes, bytes], DeliveryRecord] = {}
        self._turn = asyncio.Lock()  # one transaction at a time (Rule 1)
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def before(self, lines: Sequence[DeliveryRecord]) -> None:
        """Note that these alerts may be sent. On return that is on stable storage, unless the store is unavailable."""
        self._add(lines)
        await self.flush()

    def after(self, line: DeliveryRecord) -> None:
        """Note the outcome of a request soon (Rule 2)."""
        self._add([line])
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._flush_now)

    def _add(self, lines: Sequence[DeliveryRecord]) -> None:
        self._lines.update({(line.device, line.alert): line for line in lines})

    def _flush_now(self) -> None:
        self._flushing = asyncio.get_running_loop().create_task(self.flush())

    async def flush(self) -> None:
        """Write all lines. Without lines, try a store that failed again."""
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
                self._lines = lines | self._lines  # Rule 3; also if this task is cancelled
                if not isinstance(error, StoreUnavailable):
                    raise
                self.unrecorded += len(lines)
                self._failed(error)
            else:
                self._worked()
                if refused:  # these lines are dropped (Rule 4)
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
        """Store a device, as `DeviceStore.put` does. Raise StoreUnavailable."""
        return await self._written(self._store.put(device, was, limits=limits, note=note, lines=lines))

    async def rename(self, was: StoredDevice, device: StoredDevice, lines: Sequence[DeliveryRecord]) -> None:
        """Store a device and its lines under another digest, and forget the old one. Raise StoreUnavailable."""
        await self._written(self._store.put(device, None, lines=lines))
        await self.forget([was.known])

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Forget devices, as `DeviceStore.forget` does. Raise StoreUnavailable."""
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
