"""The devices of this process: loading, changing, renewing and removing them (rules WPR9, WPS5, WPN1, WPN2).

Devices are divided into 64 shards, and each shard belongs to one process at a time. The fan-out decides who is sent
which alert; each device of this process has a row (an index) in it. The *lease* of a device is the time until which its
registration is valid.

    a shard is taken ──> its devices, from the store ──> `devices`, rows of the fan-out ──> `scheduler`
    a process put or forgot a device ──> the owner of its shard reads the device again
    a shard is let go ──> rows and devices leave this process; the store has them

Rule 1  This process uses a device in the state that it last read from the store. A change is written to the store
        first; then the owner of the device's shard, which may be this or another process, reads the device again. So if
        there are two changes, the later one wins.
Rule 2  Devices are read from the store and applied here one at a time. If a device is read while its shard is being
        loaded, it is read again after the load, because the data in a batch of the load may be older.
Rule 3  A device that is to be forgotten leaves this process at once, and is removed from the store as soon as the store
        can be written. If the store has a newer registration of the device, that registration stays, and comes back to
        this process as a change.

Example for Rule 1: a phone sends two PUTs, which reach processes A and B; B owns the shard. A stores its change and
announces it; B stores its own and reads the device. When the announcement reaches B, B reads the device again. Each
read returns the newest state of the store, so the order of announcements doesn't matter.

Example for Rule 2: the load of shard 5 reads a batch with device D. Before the batch is applied, D registers another
place. D is read, is not in this process yet, and is added with the new place; the load then skips the D of its batch.
If the load had added D first, the read would apply the new place. The read at the end covers all other orders.

Example for Rule 3: the lease of a device ends while this process can't reach Redis. The device is sent nothing more,
and every `sweep` tries to forget it in the store. Meanwhile the device registers again, through another process. The
store then does not forget it, because the end of its lease is not the one that this process names, and the change
brings it back.

Everything runs in one thread: nothing else changes the fan-out between two `await`s.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..alertlog import Counts
from ..metrics import report_caught
from ..model.alert import Entry, Untrusted
from ..model.errors import StoreUnavailable
from ..stream.live_alerts import LiveAlerts
from .delivery_journal import DeliveryJournal
from .device_reader import RECHECKED, DeviceReader
from .device_repository import Change, DeviceRepository, OpenedDevice
from .devicestore import DeliveryRecord, Limits, PutResult, RegistrationKey, StoredDevice, shard_of
from .lease_watch import LeaseWatch
from .means import DeviceMeans
from .own_tests import DeviceTests
from .scheduler import PushScheduler
from .shard_loader import ShardLoader

logger = logging.getLogger(__name__)

RESTORED = 200  # number of devices in one write that stores them again
AGAIN_S = 1.0  # pause after the store was unreachable


class Changed(NamedTuple):
    """The result of `DeviceManager.put`.

    `result` is the store's result, or None if there was nothing to store. `before` is the device before the change, or
    None if it was not in the store. `live` is the number of pushes that the device will be sent now.
    """

    result: PutResult | None
    before: OpenedDevice | None
    live: int


class DeviceManager:
    """Loads the devices of this process, applies changes to them and removes them; `PushScheduler` sends the pushes.

    The *lease* of a device is the time until which its registration is valid. A *shard* is a subset of the devices,
    which belongs to one process at a time. The module's docstring has the rules.
    """

    def __init__(self, means: DeviceMeans) -> None:
        """Create a manager without devices."""
        self.own_tests = means.own_tests
        self.recorder = DeliveryJournal(means.store, means.shards)
        self.records = DeviceRepository(means.store, self.recorder, means.keyring)
        self.sending = PushScheduler(means, self.records)
        self.fanout, self.devices = self.sending.fanout, self.sending.devices
        self._leases = LeaseWatch(self.sending, self.records)
        self._tests = DeviceTests(self.sending, self.own_tests, means.clock)
        self.reader = DeviceReader(means, self.records, self.sending, self._leases, self._tests)
        self.loader = ShardLoader(self.reader)
        self._store, self._shards = means.store, means.shards
        self._may_lack = False  # whether changes of other processes may have been missed
        self._retrying: asyncio.Task[None] | None = None  # deals with devices to forget, and devices to read again

    @property
    def live(self) -> LiveAlerts:
        """The live alerts (neither cancelled nor expired) that this process knows."""
        return self.fanout.live

    # ---- entries of the alert log, and work that is due ----------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted) -> None:
        """Process an entry (a revision or a cancel) of the alert log: push it to the devices that it concerns."""
        now = self.sending.tick()
        self.fanout.deliver(entry, now)
        self.sending.lines.learn(entry.id, now)
        self.sending.wake()

    async def sweep(self) -> None:
        """Do all work that is due by now.

        Call this several times a second. Forget alerts that have ended, resume devices whose pause is over, withdraw
        the right to receive tests from devices whose tokens have expired, send the tests that devices have asked for,
        remind devices whose registrations end soon, forget devices whose registrations have ended, and start to retry
        failed writes. Nothing here waits for the store.
        """
        now = self.sending.tick()
        self.fanout.sweep(now)
        self.live.take_counts()  # drop these counts of offers: `pushed` counts what services accepted
        self.sending.resume_due()
        self._tests.send_due()
        self._leases.sweep(now)
        self.sending.wake()
        if (self.devices.to_forget or self.reader.unsure) and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.get_running_loop().create_task(self._retry())
        self.recorder.flush_soon()

    async def write_out(self) -> None:
        """Retry the writes to the device store that failed earlier, for a limited time.

        First delete the devices that could not be deleted. Then read the devices whose stored state is uncertain
        because a write failed. Then write the lines of the journal (which alerts the devices were sent).
        """
        await self._retry()
        await self.recorder.flush()

    async def _retry(self) -> None:
        try:
            await self.devices.forget_in_store()
            for digest, holding in list(self.reader.unsure.items()):
                await self.reader.read(digest, holding)
                if self.reader.unsure.get(digest) is holding:
                    del self.reader.unsure[digest]
        except StoreUnavailable:
            pass
        except Exception as error:
            report_caught("device store: what failed earlier has failed again", error)

    async def store_counts(self, store: Callable[[Mapping[str, Counts]], Awaitable[bool]]) -> None:
        """Pass to `store` how many pushes of each alert were accepted.

        If `store` returns False, keep the numbers (H7).

        The journal of the alerts that devices were sent is written first. So a push is recorded in the device store
        before it is counted. If the process is killed and the push is repeated, it still counts once.

        Example: the services have accepted 100 pushes, these are in the journal, and the process is killed before it
        counts them. The next process doesn't send them again, so they are never counted. The count is too low, but
        never too high.
        """
        taken = self.sending.pushed.copy()
        await self.recorder.flush()
        self.sending.pushed -= taken
        if not await store({alert_id: Counts(pushed=pushes) for alert_id, pushes in taken.items()}):
            self.sending.pushed.update(taken)

    # ---- registrations, and changes by other processes -----------------------------------------------------------

    async def put(
        self, digest: bytes, change: Change, limits: Limits | None = None, holding: Mapping[str, int] | None = None
    ) -> Changed:
        """Change a device in the store; then apply the change in the process that owns the device's shard.

        The arguments are those of `DeviceRepository.change`. Other devices with the same endpoint are forgotten (rule
        WPR8). Raise StoreUnavailable if the store can't be used.
        """

        def held(stored: StoredDevice, told: Sequence[DeliveryRecord]) -> Sequence[DeliveryRecord]:
            return self.sending.lines.held(holding or {}, self.sending.tick(), stored, told)

        changing = {digest: holding or {}}
        with self._reread_if_it_fails(changing):
            put, before = await self.records.change(digest, change, limits, holding, held)
            if put is None or put.result is not PutResult.STORED:
                return Changed(None if put is None else put.result, before, 0)
            changing.update({each: {} for each in put.replaced})
            for each in put.replaced:  # they had the same endpoint (rule WPR8)
                self.devices.forgotten["replaced"] += 1
                await self.reader.read(each)
            live = await self.reader.read(digest, holding)
        if live is None:  # another process has the device's shard, and reads the change soon
            live = await self.reader.count_owed(digest, holding or {})
        return Changed(put.result, before, live)

    async def forget_asked(self, devices: Sequence[RegistrationKey]) -> None:
        """Forget devices because their owner has asked for it, even if other processes have them (rule WPN2).

        Raise StoreUnavailable if the store can't be used.
        """
        with self._reread_if_it_fails({known.device: {} for known in devices}):
            await self.recorder.forget(devices)
            for known in devices:
                self.devices.forgotten["asked"] += 1
                await self.reader.read(known.device)

    @contextlib.contextmanager
    def _reread_if_it_fails(self, changing: Mapping[bytes, Mapping[str, int]]) -> Iterator[None]:
        """Return a context manager. If its block raises an exception, `sweep` will read these devices again.

        `changing` has, for the digest of each device, the alerts that the device says it has. The store may have done
        the write although an exception was raised. Example: the connection to Redis breaks after the script ran and
        before the answer arrived. The client gets a 503, but the store has the new registration, so this process must
        use it.
        """
        try:
            yield
        except BaseException:
            self.reader.unsure.update(changing)
            raise

    async def follow(self) -> None:
        """Apply the changes that other processes make to devices of this process, forever (rule WPN2).

        After an error, changes may have been missed, so all devices are read again.
        """
        while True:
            try:
                if self._may_lack:
                    await self._read_all()
                self._may_lack = True  # until the store says otherwise, if this is called again after an error
                async for changes in self._store.follow():
                    if changes is None:
                        await self._read_all()
                        continue
                    for each in changes:
                        if shard_of(each.device) in self._shards.terms:
                            holding = self.records.holding(each)
                            with self._reread_if_it_fails({each.device: holding}):
                                await self.reader.read(each.device, holding)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN_S)

    async def _read_all(self) -> None:
        """Read all devices again, because changes were missed or the store lost data.

        If the store lost data, store the devices of this process again first. Apply only devices that differ from the
        store. Finally, write the delivery records of the devices (which alerts they were sent) again.
        """
        logger.warning("device store: updates were missed; reading all devices of this process again")
        if self._store.lost:
            await self._put_back()
        digests = {device.digest for device in self.devices}
        async for batch in self._store.load(self._shards.terms):
            for stored, _ in batch:
                # After the loop, these are the devices that differ here and in the store, or that only one of the two
                # has.
                (digests.discard if self._is_up_to_date(stored) else digests.add)(stored.device)
        for digest in digests:
            await self.reader.read(digest)
        for part in self.devices.parts(RECHECKED):
            await self.recorder.before([line for device in part for line in self.sending.lines.of(device, self.live)])

    def _is_up_to_date(self, stored: StoredDevice) -> bool:
        """Return whether this process has a device exactly as it is stored.

        Return False if no key can decrypt the stored record.
        """
        device, kept = self.devices.find(stored.device), self.records.opened(stored)
        if device is None or kept is None:
            return False
        return (device.until_ms, device.record) == (stored.until_ms, kept.record)

    async def _put_back(self) -> None:
        """Store the devices of this process again, because the store may have lost them (rule DevS12).

        The store refuses devices of a shard that another process has taken meanwhile, and keeps registrations that are
        newer.
        """
        for part in self.devices.parts(RESTORED):
            rows = [(self.records.sealed(each.record, each.until_ms), each.term) for each in part]
            self._shards.refused(await self._store.restore(rows))
        self._store.lost = False
