"""The devices of this process: each is known by its digest, and has a row (an index) in the fan-out."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

from ..model.errors import StoreUnavailable
from ..stream.fanout import FanOut
from .delivery_journal import DeliveryJournal
from .device_state import DeviceEvent
from .devices import Admission, Device
from .devicestore import RegistrationKey
from .queues import Queues


class Devices:
    """All devices of this process."""

    def __init__(self, capacity: int, fanout: FanOut, queues: Queues, recorder: DeliveryJournal) -> None:
        """Create an empty object for the `capacity` rows of a fan-out."""
        self.forgotten: Counter[str] = Counter()  # number of devices forgotten, by reason
        self.to_forget: set[RegistrationKey] = set()  # registrations that the store could not forget yet
        self._fanout = fanout
        self._queues = queues
        self._recorder = recorder
        self._rows: list[Device | None] = [None] * capacity
        self._by_digest: dict[bytes, Device] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Device]:
        return iter(list(self._by_digest.values()))

    def parts(self, size: int) -> Iterator[list[Device]]:
        """Yield all devices in lists of at most `size`, without those that have left by then."""
        devices = list(self)
        for start in range(0, len(devices), size):
            yield [each for each in devices[start : start + size] if each.is_here]

    def at(self, row: int) -> Device:
        """Return the device in this row of the fan-out. There must be one."""
        device = self._rows[row]
        assert device is not None, "the fan-out hands alerts to rows that have a device"
        return device

    def find(self, digest: bytes) -> Device | None:
        """Return the device with this digest, or None. Remove a device that has left, if an error has kept it."""
        device = self._by_digest.get(digest)
        if device is not None and not device.is_here:
            self._remove(device)
            return None
        return device

    def enter(self, device: Device, row: int) -> None:
        """Add a device, which has been given a row in the fan-out. There must be no device with its digest yet."""
        self._queues.enter(device)
        device.admission = Admission(device.lane)
        device.row, self._rows[row] = row, device
        self._by_digest[device.digest] = device

    def leave(self, device: Device, why: str | None = None) -> None:
        """Remove a device from this process. Do nothing if it is not here.

        If the device has a request under way, the request continues and gives back its slot when it ends. Its outcome
        is recorded, but the device is not offered anything more. `why` is the reason if the device is forgotten, or
        None if it only moves to another process.
        """
        if device.is_here:
            self._fanout.leave(device.row)
            self._rows[device.row] = None
            device.row = -1
            device.on(DeviceEvent.LEAVE)
            self._queues.leave(device.lane, was_marked=device.marked)
            if why is not None:
                self.forgotten[why] += 1
        self._remove(device)

    def _remove(self, device: Device) -> None:
        if self._by_digest.get(device.digest) is device:
            del self._by_digest[device.digest]

    # ---- forgetting ----------------------------------------------------------------------------------------------

    async def forget(self, devices: Sequence[Device], why: str) -> None:
        """Forget devices: remove them from this process, and from the store with their delivery records (WPR9).

        `why` is the reason under which metrics count them. If the store can't be used, the deletion is retried later;
        the devices are sent nothing from now on in any case.
        """
        self.drop(devices, why)
        await self.forget_in_store()

    def drop(self, devices: Sequence[Device], why: str) -> None:
        """Remove devices from this process. They are deleted from the store later."""
        self.to_forget.update([device.known for device in devices if device.is_here])
        for device in devices:
            self.leave(device, why)

    async def forget_in_store(self) -> None:
        """Delete devices from the store, including those that could not be deleted before."""
        gone = list(self.to_forget)
        for known in gone:  # those that an error has kept here
            device = self.find(known.device)
            if device is not None and device.known == known:
                self.leave(device)
        if gone:
            with contextlib.suppress(StoreUnavailable):
                await self._recorder.forget(gone)
                self.to_forget.difference_update(gone)
