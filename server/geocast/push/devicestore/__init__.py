"""The store of devices and of what each was sent: what must survive a restart, or be known to other processes.

This module is the port, written as a specification. The modules beside it implement it, and one test suite runs on all
of them (`tests/push/devicestore/contract.py`). A store sees only digests and encrypted bytes, never an endpoint, a
place or a `sub` (`encryption`). A *line* (`DeliveryRecord`) says what one device was sent of one alert.

Devices
    DevS1   When `put` returns STORED, the device is on stable storage and replaces the device with its digest, if any.
            Another device with its endpoint is forgotten in the same transaction (rule WPR8).
    DevS2   `put` changes nothing and returns CHANGED if the stored device is not the one that the caller read. So no
            change is based on an outdated device. It also returns TOO_MANY or FULL for a new device beyond the limits
            that it is given: those of the owner, or of the store.
    DevS3   When `forget` returns, the devices and all their lines are gone, in one transaction. Devices that are not
            what the caller knows stay: those that have registered again, with another secret, endpoint or lease.
    DevS4   A device that was forgotten and is put again is another registration, with another secret and no lines. A
            device that is put again with its secret keeps its lines.

Lines
    DevS5   There is at most one line for each device and alert. When `note` returns, its lines are on stable storage,
            all or none, in their order. A line whose state is None removes the stored line.
    DevS6   A line for a registration that is not in the store is ignored: the device was forgotten meanwhile.
    DevS7   A line of a term that is not the newest of its shard is refused, and `note` returns the shard (`shards`).

All
    DevS8   When a method raises StoreUnavailable or the process dies, the operation is done as a whole or not at all. A
            store that was unreachable may be called again.
    DevS9   `load` yields each device of these shards once, with all its lines, if it was there the whole time.
    DevS10  `follow` yields what other stores have put or forgotten since this store's `start`, in order, with the notes
            of the changes. `find` sees a change that was yielded. If changes are lost, `follow` yields None.
    DevS11  A store for one process is locked by that process until it is closed or dies.
    DevS12  A store that may lose stored data, as a replica that takes over may, says so: it sets `lost`, and `follow`
            yields None. The process that holds a shard then calls `restore` with its devices, notes their lines again,
            and clears `lost`. `restore` overwrites nothing newer, and is refused for a term that is over.

Example for DevS2: a phone changes its places by process A while its service worker changes the endpoint by process B.
Both read the same device. A puts first; B gets CHANGED, reads again, and applies the endpoint to the new places.

Example for DevS4 and DevS6: a device is forgotten while a push to it is under way, and registers again. The line of
that push names the old secret, so the new registration does not count as sent, and is sent the alert.

Example for DevS8: the connection breaks after the commit. The caller gets StoreUnavailable although the device is
stored, so it must read the device before it relies on either.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

SHARDS = 64


def shard_of(device: bytes) -> int:
    """Return the shard, 0 to 63, of the device with this digest."""
    return device[0] % SHARDS


class RegistrationKey(NamedTuple):
    """A registration of a device: its endpoint and the end of its lease. `secret` is the SHA-256 of its secret."""

    device: bytes
    secret: bytes
    endpoint: bytes
    until_ms: int


class StoredDevice(NamedTuple):
    """A device as a store sees it: digests of it, its owner and its endpoint, and the rest encrypted in `sealed`."""

    device: bytes
    owner: bytes
    endpoint: bytes
    secret: bytes  # SHA-256 of the secret, which distinguishes this registration from an earlier one
    until_ms: int  # the end of the lease, in ms since 1970
    sealed: bytes

    @property
    def known(self) -> RegistrationKey:
        """The registration key, by which `forget` identifies the registration."""
        return RegistrationKey(self.device, self.secret, self.endpoint, self.until_ms)


class State(IntEnum):
    """How sure it is that a device was sent the current entry of an alert.

    MAYBE: a request was sent or about to be; or only an older revision was sent. The device is a recipient that may
    lack the current entry.
    """

    MAYBE = 1
    SENT = 2


class DeliveryRecord(NamedTuple):
    """A line: what one device was sent of one alert.

    `number` is the entry's number, `ends_at_ms` the alert's end as known then, and `secret` that of the registration.
    """

    device: bytes
    alert: bytes
    number: int
    state: State | None  # None: remove the line
    ends_at_ms: int
    secret: bytes
    term: int = 0  # the term of the shard; 0 in lines that were read


class PutResult(Enum):
    """The result of a `put`, whether it stored the device or why not."""

    STORED = "stored"
    CHANGED = "changed"
    TOO_MANY = "too many"
    FULL = "full"


class Put(NamedTuple):
    """The result of a `put`, and the devices that had the same endpoint and were forgotten."""

    result: PutResult
    replaced: tuple[bytes, ...] = ()


class Limits(NamedTuple):
    """The most devices that one owner may have, and that the store may have."""

    owned: int
    devices: int


class Change(NamedTuple):
    """A device that was put or forgotten, with the note of the change."""

    device: bytes
    note: bytes


Found = tuple[StoredDevice, Sequence[DeliveryRecord]]


class DeviceStore(Protocol):
    """The port.

    The module's docstring has the rules. All methods except `start` and `stop` may raise StoreUnavailable.
    """

    lost: bool  # whether the store may have lost data (DevS12)

    async def start(self) -> None:
        """Open the store. Raise ConfigError if it can't be used as configured."""
        ...

    async def stop(self) -> None:
        """Close the store. All that was written is stored."""
        ...

    def load(self, shards: Collection[int]) -> AsyncIterator[Sequence[Found]]:
        """Yield the devices of these shards in batches, each with its lines (DevS9)."""
        ...

    async def find(self, device: bytes) -> Found | None:
        """Return the device with this digest and its lines."""
        ...

    async def knowing(self, secret: bytes) -> StoredDevice | None:
        """Return the device whose secret has this SHA-256."""
        ...

    async def owned(self, owner: bytes) -> Sequence[StoredDevice]:
        """Return all devices of the owner with this digest."""
        ...

    async def put(
        self,
        device: StoredDevice,
        was: StoredDevice | None,
        *,
        limits: Limits | None = None,
        note: bytes = b"",
        lines: Sequence[DeliveryRecord] = (),
    ) -> Put:
        """Store a device (DevS1, DevS2). `was` is the stored device that the caller read, None if there was none.

        Other stores get `note` with the change (DevS10). `lines` are stored with the device.
        """
        ...

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Forget the devices that are still these registrations (DevS3)."""
        ...

    async def note(self, lines: Sequence[DeliveryRecord]) -> Collection[int]:
        """Write lines (DevS5, DevS6); return the shards whose lines were refused (DevS7)."""
        ...

    async def restore(self, devices: Sequence[tuple[StoredDevice, int]]) -> Collection[int]:
        """Put back devices, each with the term of its shard (DevS12). Return the shards that were refused (DevS7)."""
        ...

    async def purge(self, shards: Collection[int], now_ms: int, is_over: Callable[[bytes], bool], /) -> int:
        """Remove the lines of alerts whose end has passed and for which `is_over` is true; return their number.

        `is_over` gets the alert's digest. Lines of other shards may be removed too.
        """
        ...

    def follow(self) -> AsyncIterator[Sequence[Change] | None]:
        """Yield the changes of other stores, forever (DevS10)."""
        ...
