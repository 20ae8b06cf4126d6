"""What the store has of devices, opened: read, changed and put back, by any process (WPN2).

Two processes may change one device at once. So what is put says what was read, and who comes second reads again.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from ..auth.tokens import Subject
from ..errors import StoreUnavailable
from . import devicestore
from .delivery_journal import DeliveryJournal
from .devicestore import DeliveryRecord, DeviceStore, Limits, Put, PutResult, RegistrationKey, StoredDevice
from .encryption import Keyring, Record

TRIES = 20  # of a change, before the store counts as away


class OpenedDevice(NamedTuple):
    """A device of the store, opened. `lines`: what it was told."""

    stored: StoredDevice
    record: Record
    lines: Sequence[DeliveryRecord]


Change = Callable[[OpenedDevice | None], tuple[Record, int] | None]  # what becomes of it: a record, and until when
Held = Callable[
    [StoredDevice, Sequence[DeliveryRecord]], Sequence[DeliveryRecord]
]  # what a device holds, by what it was told


class DeviceRepository:
    """The devices of the store, for who has its keys."""

    def __init__(self, store: DeviceStore, recorder: DeliveryJournal, keyring: Keyring) -> None:
        """What is written goes by the recorder, which knows whether the store can be written."""
        self._store = store
        self._recorder = recorder
        self._keyring = keyring

    def digest_of(self, owner: Subject, device_id: str) -> bytes:
        """By which a device is known: of two owners two devices, whatever they call them."""
        return self._keyring.digest("device", owner.sub, device_id, *_issuer_of(owner))

    async def find(self, device: bytes) -> OpenedDevice | None:
        """The device with this digest; None also if no key opens it. Raises StoreUnavailable."""
        found = await self._store.find(device)
        return None if found is None else self._opened(*found)

    async def knowing(self, secret: bytes) -> OpenedDevice | None:
        """The device whose secret has this SHA-256. Raises StoreUnavailable."""
        stored = await self._store.knowing(secret)
        return None if stored is None else self._opened(stored, ())

    async def owned(self, owner: Subject) -> Sequence[RegistrationKey]:
        """All devices of one owner. Raises StoreUnavailable."""
        return [each.known for each in await self._store.owned(self._owner_digest(owner))]

    async def change(
        self,
        device: bytes,
        change: Change,
        limits: Limits | None = None,
        holding: Mapping[str, int] | None = None,
        held: Held = lambda _stored, _lines: (),
    ) -> tuple[Put | None, OpenedDevice | None]:
        """Put what `change` makes of a device, a record and a lease; what came of it, and what was there.

        `change` is given None where there is none, and may return None: then nothing is put. It is asked again when
        another process was faster. `holding` is told to who has the device (WPN2), and what `held` makes of it is
        stored with the device. Raises StoreUnavailable.
        """
        note = self._keyring.seal_note(json.dumps(holding).encode(), device) if holding else b""
        for _ in range(TRIES):
            found = await self._store.find(device)
            before = None if found is None else self._opened(*found)
            made = change(before)
            if made is None:
                return None, before
            stored = self.sealed(*made)
            was, told = (None, ()) if found is None else found
            put = await self._recorder.put(stored, was, limits=limits, note=note, lines=held(stored, told))
            if put.result is not PutResult.CHANGED:
                return put, before
        raise StoreUnavailable("others change the device again and again")

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Forget devices, as far as they are what is known. Raises StoreUnavailable."""
        await self._recorder.forget(devices)

    def sealed(self, record: Record, until_ms: int) -> StoredDevice:
        """A device as the store has it."""
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
        """What a device said it holds, by the note of a change."""
        try:
            told: dict[str, int] = json.loads(self._keyring.open_note(change.note, change.device))
        except ValueError:
            return {}
        return told

    def _owner_digest(self, owner: Subject) -> bytes:
        return self._keyring.digest("owner", owner.sub, *_issuer_of(owner))

    def _opened(self, stored: StoredDevice, lines: Sequence[DeliveryRecord]) -> OpenedDevice | None:
        try:
            record, _ = self._keyring.open(stored.sealed, stored.device, stored.until_ms)
        except ValueError:
            return None
        return OpenedDevice(stored, record, lines)


def _issuer_of(owner: Subject) -> tuple[str, ...]:
    """Return what a digest has of the issuer: nothing if it is empty, as in digests of earlier releases (rule HD5)."""
    return (owner.issuer,) if owner.issuer else ()
