"""Access to the stored devices, decrypted: any process may read, change and forget any device (rule WPN2).

Two processes may change a device at once. So each change names the state that it was based on, and if another process
was faster, the device is read again and the change is made again.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..auth.tokens import Subject
from ..model.errors import StoreUnavailable
from . import devicestore
from .delivery_journal import DeliveryJournal
from .devices import Device
from .devicestore import DeliveryRecord, DeviceStore, Limits, Put, PutResult, RegistrationKey, StoredDevice
from .encryption import Keyring, Record

TRIES = 20  # attempts at one change before StoreUnavailable is raised


class OpenedDevice(NamedTuple):
    """A stored device with its decrypted record.

    Each of `lines` says which revision of an alert the device was sent. `key` is the index of the key that encrypted
    the record.
    """

    stored: StoredDevice
    record: Record
    lines: Sequence[DeliveryRecord]
    key: int = 0


# A function that decides how to change a device. It takes the stored device, or None if there is none. It returns the
# device's new record and the end of its lease, or None to leave the device unchanged.
Change = Callable[[OpenedDevice | None], tuple[Record, int] | None]
# A function that is called when a device registers. It takes the stored device and its delivery records (one for each
# alert that was sent to the device). It returns the delivery records to store with the registration: those of the
# alerts that the device says it has.
Held = Callable[[StoredDevice, Sequence[DeliveryRecord]], Sequence[DeliveryRecord]]


class DeviceRepository:
    """Reads, changes and deletes the devices of a store, for a process that has the store's keys."""

    def __init__(self, store: DeviceStore, recorder: DeliveryJournal, keyring: Keyring) -> None:
        """Create a repository of the devices in `store`.

        `recorder` watches all writes, so it knows whether the store can be written.
        """
        self.recorder = recorder
        self._store = store
        self._keyring = keyring

    def digest_of(self, owner: Subject, device_id: str) -> bytes:
        """Return the digest by which the store identifies an owner's device.

        The digest depends on the owner and the device id. So if two owners use the same id, they have two devices (rule
        WPR1).
        """
        return self._keyring.digest("device", owner.sub, device_id, *_issuer_of(owner))

    async def find(self, device: bytes) -> OpenedDevice | None:
        """Return the device with this digest, or None if there is none or no key decrypts it.

        Raise StoreUnavailable if the store can't be used.
        """
        found = await self._store.find(device)
        return None if found is None else self.opened(*found)

    async def knowing(self, secret: bytes) -> OpenedDevice | None:
        """Return the device that has a secret with this SHA-256.

        Return None if there is no such device or no key decrypts it. Raise StoreUnavailable if the store can't be used.
        """
        stored = await self._store.knowing(secret)
        return None if stored is None else self.opened(stored)

    async def owned(self, owner: Subject) -> Sequence[RegistrationKey]:
        """Return the registration keys of all devices that belong to an owner.

        Raise StoreUnavailable if the store can't be used.
        """
        return [each.known for each in await self._store.owned(self._owner_digest(owner))]

    async def change(
        self,
        device: bytes,
        change: Change,
        limits: Limits | None = None,
        holding: Mapping[str, int] | None = None,
        held: Held = lambda _stored, _lines: (),
    ) -> tuple[Put | None, OpenedDevice | None]:
        """Store a new state of a device. The function `change` makes it from the old state.

        Return the store's result, and the device before the change (None if it was not stored). `change` is called with
        the stored device or None, and called again if another process has changed the device in the meantime. If
        `change` returns None, nothing is stored, and the returned result is None.

        `holding` maps the ids of the alerts that the device says it has to their revisions. It is passed on to the
        process that is responsible for the device (rule WPN2). `held` is called with the new stored device and its
        delivery records so far, and returns the delivery records to store with the device.

        Raise StoreUnavailable if the store can't be used, or if other processes were faster TRIES times in a row.
        """
        note = self._keyring.seal_note(json.dumps(holding).encode(), device) if holding else b""
        for _ in range(TRIES):
            found = await self._store.find(device)
            before = None if found is None else self.opened(*found)
            made = change(before)
            if made is None:
                return None, before
            stored = self.sealed(*made)
            was, told = (None, ()) if found is None else found
            write = self._store.put(stored, was, limits=limits, note=note, lines=held(stored, told))
            put = await self.recorder.watched(write)
            if put.result is not PutResult.CHANGED:
                return put, before
        raise StoreUnavailable("other processes keep changing the device")

    async def rewrite(self, device: Device, **changes: Any) -> None:
        """Change fields of a device's record, in this process and in the store.

        If the store can't be used, the change is lost when this process ends; but the next process that has the device
        will learn the same from the answer to its first push. If the store has a newer registration of the device, the
        stored record is left unchanged.
        """
        device.record = replace(device.record, **changes)
        known = device.known

        def change(kept: OpenedDevice | None) -> tuple[Record, int] | None:
            if kept is None or kept.stored.known != known:
                return None  # the device has registered again meanwhile
            return replace(kept.record, **changes), known.until_ms

        with contextlib.suppress(StoreUnavailable):
            await self.change(device.digest, change)

    def sealed(self, record: Record, until_ms: int) -> StoredDevice:
        """Return a device in the encrypted form in which the store keeps it.

        `until_ms` is the time at which its registration ends.
        """
        digest = self.digest_of(record.subject, record.id)
        return StoredDevice(
            digest,
            self._owner_digest(record.subject),
            self._keyring.digest("endpoint", record.endpoint),
            record.secret,
            until_ms,
            self._keyring.seal(record, digest, until_ms),
        )

    def holding(self, change: devicestore.Change) -> Mapping[str, int]:
        """Return the alerts that a device said it had when it changed its registration: alert id -> revision.

        The encrypted note of the change contains them. Return an empty dict if no key decrypts the note.
        """
        try:
            told: dict[str, int] = json.loads(self._keyring.open_note(change.note, change.device))
        except ValueError:
            return {}
        return told

    def _owner_digest(self, owner: Subject) -> bytes:
        return self._keyring.digest("owner", owner.sub, *_issuer_of(owner))

    def opened(self, stored: StoredDevice, lines: Sequence[DeliveryRecord] = ()) -> OpenedDevice | None:
        """Return a stored device with its decrypted record, or None if no key decrypts it."""
        try:
            record, key = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
        except (TypeError, ValueError):
            return None
        return OpenedDevice(stored, record, lines, key)


def _issuer_of(owner: Subject) -> tuple[str, ...]:
    """Return the strings that stand for the owner's issuer when a digest is computed.

    There is none if the issuer is empty, so that digests of earlier releases stay the same (rule HD5).
    """
    return (owner.issuer,) if owner.issuer else ()
