"""Reading one device from the store and applying it to this process (Rules 1 and 2 of `device_manager`)."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..geometry.sphere import cell_place
from ..matching.filters import Filter
from ..matching.place_index import Place
from ..model import languages
from ..model.alert import SEVERITY_RANK
from ..model.errors import trace
from ..stream.own_tests import split_request
from .device_repository import DeviceRepository, OpenedDevice
from .devices import Device
from .devicestore import shard_of
from .encryption import Record
from .lease_watch import LeaseWatch, may_test
from .means import DeviceMeans
from .own_tests import DeviceTests
from .scheduler import PushScheduler

logger = logging.getLogger(__name__)

NAMED = 20  # limit on the log lines about devices of the store that can't be used
RECHECKED = 500  # number of devices whose tokens are checked, or whose lines are written, at once


@dataclass(eq=False)
class DeviceReader:
    """Reads devices from the store, and adds, changes or removes them in this process."""

    means: DeviceMeans
    records: DeviceRepository
    sending: PushScheduler
    leases: LeaseWatch
    tests: DeviceTests
    set_aside: int = 0  # number of stored devices that this process can't use as they are; they stay in the store
    # Devices to read again, because of an error, and what they said they have. A write that failed may be done.
    unsure: dict[bytes, Mapping[str, int]] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while one device is read and applied (Rule 2)
    reading: set[bytes] | None = None  # digests of devices that were read during a load (Rule 2)
    _named: int = 0  # number of devices set aside that the log names

    def __post_init__(self) -> None:
        self._fanout, self._devices, self._lines = self.sending.fanout, self.sending.devices, self.sending.lines

    async def read(self, digest: bytes, holding: Mapping[str, int] | None = None) -> int | None:
        """Read a device from the store and apply its state here; return how many pushes it will now be sent.

        Return None if the device does not belong to this process. `holding` maps the ids of the alerts that the device
        says it has to their revisions. Raise StoreUnavailable if the store can't be used.
        """
        if shard_of(digest) not in self.means.shards.terms:
            return None
        async with self.turn:
            if self.reading is not None:
                self.reading.add(digest)
            return self._apply(digest, await self.records.find(digest), holding or {})

    async def count_owed(self, digest: bytes, holding: Mapping[str, int]) -> int:
        """Return how many pushes a device of another process will be sent.

        The answer to a registration contains this number, whichever process received the request (rule WPN2). `holding`
        maps the ids of the alerts that the device says it has to their revisions. To count them, the device is entered
        into this process's fan-out for a moment. So the same code decides as in the process that sends.

        Raise StoreUnavailable if the store can't be used.
        """
        kept = await self.records.find(digest)
        if kept is None:
            return 0
        holding, asked = split_request(holding)
        record, now = kept.record, self.sending.tick()
        told = self._lines.revisions(kept.lines)
        told |= {alert_id: max(held, told.get(alert_id, 0)) for alert_id, held in holding.items()}
        row = self._fanout.enter(_places(record), _filter(record), may_test=may_test(record, now))
        self._fanout.trust_holding(row, told, now)
        owed = self._fanout.take_owed_by(row, now)
        self._fanout.leave(row)
        return len(owed) + (asked is not None)

    def _apply(self, digest: bytes, kept: OpenedDevice | None, holding: Mapping[str, int]) -> int | None:
        """Add, change or remove a device in this process, so that it agrees with the store.

        Return how many pushes the device will now be sent, or None if it does not belong to this process. `kept` is the
        stored device, or None if it is not in the store. `holding` may have a request for an own test. If the secret of
        a device has changed, the device was forgotten and has registered again, so the alerts that it was sent earlier
        no longer count.

        Example: the owner of a device deletes it and registers it again through another process, and this process reads
        it only once, after both changes. The new secret shows that the device must start afresh.
        """
        told, (holding, asked) = holding, split_request(holding)
        device = self._devices.find(digest)
        if device is not None and (kept is None or kept.record.secret != device.record.secret):
            self._devices.leave(device)  # it was forgotten, and may have registered again
            device = None
        if kept is None or shard_of(digest) not in self.means.shards.terms:
            return None
        if self.means.stands(kept.record) is False:  # its token was revoked before it was read
            if device is not None:
                self._devices.leave(device)
            self._devices.forgotten["revoked"] += 1
            self._devices.to_forget.add(kept.stored.known)
            return 0
        try:
            if device is None:
                device = self.enter(kept, holding)
            else:
                self._change(device, kept, holding)
        except Exception as error:
            if device is not None:
                self._devices.leave(device)
            self.try_again(digest, told, error)
            return None
        if device is None:
            return None
        owed = self.sending.send_owed(device)
        if asked is None:
            return owed
        self.tests.ask(device, asked)  # after the alerts that the device lacks
        return owed + 1

    def enter(self, kept: OpenedDevice, holding: Mapping[str, int]) -> Device | None:
        """Add a device, so that it can be offered alerts. Return None if it can't be used or its lease has ended.

        The lease is the time for which the registration is valid. A device can't be used if its push service is no
        longer allowed, if the VAPID key of its subscription is gone, or if this process has as many devices as it may
        have. It stays in the store, because the operator may change that.
        """
        (stored, record, lines, _), now = kept, self.sending.tick()
        endpoint = self.means.services.allowed(record.endpoint)
        if endpoint is None or not self.means.vapid.has(record.vapid) or len(self._devices) >= self.means.capacity:
            self.set_aside += 1
            return None
        if any(line.is_odd for line in lines):
            self.name(stored.device, "a delivery record can't be read, and counts as maybe sent")
        if stored.until_ms <= now.wall_ms:
            self._devices.to_forget.add(stored.known)
            return None
        term = self.means.shards.terms[shard_of(stored.device)]
        device = Device(stored.device, record, endpoint, stored.endpoint, stored.until_ms, term)
        row = self._fanout.enter(_places(record), _filter(record), may_test=may_test(record, now))
        try:
            self._devices.enter(device, row)
            self._fanout.trust_holding(row, self._lines.revisions(lines), now)
            self._hold(device, holding)
            self.leases.watch(device)
        except BaseException:
            if device.is_here:
                self._devices.leave(device)
            else:
                self._fanout.leave(row)
            raise
        return device

    def _change(self, device: Device, kept: OpenedDevice, holding: Mapping[str, int]) -> None:
        """Apply a new registration to a device of this process.

        `holding` maps the ids of the alerts that the device says it has to their revisions. If one of these alerts is
        being sent to the device right now and the request fails, the device still has the alert. So `device.owed`,
        which describes the request, records that.
        """
        before, record, now = device.record, kept.record, self.sending.tick()
        device.record, device.until_ms = record, kept.stored.until_ms
        self._fanout.move(device.row, _places(record))
        self._fanout.set_filter(device.row, _filter(record))
        self._fanout.set_rights(device.row, may_test=may_test(record, now))
        self._hold(device, holding)
        if device.owed is not None and (held := holding.get(device.owed.alert.id)) is not None:
            device.owed.recipient = True
            device.owed.held = held >= device.owed.message.number
        endpoint = self.means.services.allowed(record.endpoint)
        if endpoint is not None and record.endpoint != before.endpoint:
            device.endpoint, device.endpoint_digest = endpoint, kept.stored.endpoint
            self.sending.moved(device)
        self.leases.watch(device)

    def _hold(self, device: Device, holding: Mapping[str, int]) -> None:
        """Note the alerts that a device says it has, in the fan-out and in the journal."""
        now = self.sending.tick()
        self._fanout.trust_holding(device.row, holding, now)
        for line in self._lines.of_held(device, holding, now):
            self.records.recorder.after(line)

    def try_again(self, digest: bytes, holding: Mapping[str, int], error: Exception) -> None:
        """Set a device aside after an unexpected error, and have `sweep` read it once more."""
        if digest not in self.unsure:
            self.name(digest, trace(error))
            self.unsure[digest] = holding

    def name(self, digest: bytes, why: str) -> None:
        """Count and name a stored device that can't be used as it is, or not without loss. It stays in the store.

        The log names the first NAMED of a process.
        """
        self.set_aside += 1
        if self._named < NAMED:
            self._named += 1
            logger.error("device store: device %s: %s", digest.hex(), why)

    async def recheck(self) -> None:
        """Forget the devices whose tokens are no longer valid (rule BA3). Other tasks run between batches.

        Call this after the token keys or revocations were reloaded, and after shards were loaded.
        """
        for part in self._devices.parts(RECHECKED):
            await self._devices.forget([each for each in part if not self.means.stands(each.record)], "revoked")
            await asyncio.sleep(0)


def _places(record: Record) -> list[Place]:
    """Return the places of a device's record in the form that the fan-out uses.

    Each place is the centre and the extent of an H3 cell.
    """
    return [cell_place(int(cell, 16)) for cell in record.cells]


def _filter(record: Record) -> Filter:
    categories = None if record.categories is None else frozenset(record.categories)
    return Filter(categories, SEVERITY_RANK[record.min_severity], languages.understood(record.languages))
