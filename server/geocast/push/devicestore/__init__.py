"""The store of devices and of what each device was sent, which survives restarts and is shared by processes.

This module is the interface, written as a specification. The modules beside it implement it, and one test suite runs on
all of them (`tests/push/devicestore/contract.py`). A store sees only digests and encrypted bytes, never an endpoint, a
place or a `sub` (`encryption`).

A *line* (`DeliveryRecord`) says which revision of an alert a device was sent. A *registration* ends with its lease,
unless the device registers again. Devices are divided into 64 shards, and each shard belongs to one process at a time.
A *term* is the time for which a process has a shard. The terms of a shard are numbered, and each has a higher number
than the term before.

Devices
    DevS1   When `put` returns STORED, the device is on stable storage, and has replaced the device that had the same
            digest, if any. Another device with the same endpoint is forgotten in the same transaction (rule WPR8).
    DevS2   If the stored device is not the one that the caller read, `put` changes nothing and returns CHANGED. So no
            change is based on an outdated device. `put` returns TOO_MANY or FULL for a new device that would exceed
            the given limit of its owner or of the whole store.
    DevS3   When `forget` returns, the devices and all their lines are gone, in one transaction. If a device has
            registered again, with another secret, endpoint or lease than the caller knows, it stays.
    DevS4   If a device is forgotten and put again, it has a new registration, with another secret and no lines. If a
            device is put again with the same secret, it keeps its lines.

Lines
    DevS5   There is at most one line for each device and alert. When `note` returns, its lines are on stable storage,
            all or none, in their order. A line whose state is None removes the stored line. Without lines, `note` finds
            out whether the store can be written.
    DevS6   A line for a registration that is not in the store is ignored, because the device was forgotten meanwhile.
    DevS7   If the term that a line names is not the newest term of its shard, the line is refused, and `note` returns
            the shard.

All
    DevS8   When a method raises StoreUnavailable or the process dies, the operation was either done completely or not
            done at all. A store that was unreachable may be called again.
    DevS9   `load` yields each device of the given shards once, with all its lines, if the device was stored during the
            whole call.
    DevS10  `follow` yields what other processes have put or forgotten since this store's `start`, in order, with the
            notes of the changes. `find` sees a change that was yielded. If changes are lost, `follow` yields None.
    DevS11  A store that only one process may use is locked by that process until the process closes the store or dies.
    DevS13  A row that can't be read harms no other. A line counts as maybe sent (`read_line`); a device is one that no
            key opens.
    DevS12  If stored data may have been lost, for instance when a replica takes over, the store sets `lost`, and
            `follow` yields None. The process that holds a shard then calls `restore` with its devices, writes their
            lines again, and clears `lost`. `restore` overwrites no newer data, and is refused if the term is over.

Example for DevS2: a phone changes its places through process A while its service worker changes the endpoint through
process B. Both processes read the same device. A puts first; B gets CHANGED, reads again, and applies the endpoint to
the new places.

Example for DevS4 and DevS6: a device is forgotten while a push to it is under way, and registers again. The line of
that push names the old secret, so it is ignored, and the new registration is sent the alert.

Example for DevS8: the connection breaks after the commit. The caller gets StoreUnavailable although the device is
stored, so it must read the device before it relies on the old or the new state.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from enum import Enum, IntEnum
from typing import Any, NamedTuple, Protocol

SHARDS = 64


def shard_of(device: bytes) -> int:
    """Return the shard (one of 64 subsets of the devices, numbered from 0) of the device with this digest."""
    return device[0] % SHARDS


class RegistrationKey(NamedTuple):
    """Identifies one registration of a device by three digests and the time at which the registration ends.

    The digests are those of the device, its secret (a SHA-256) and its endpoint. `until_ms` is the time, in ms since
    1970.
    """

    device: bytes
    secret: bytes
    endpoint: bytes
    until_ms: int


class StoredDevice(NamedTuple):
    """A device as it is stored: digests, the time at which its registration ends, and everything else encrypted."""

    device: bytes
    owner: bytes
    endpoint: bytes
    secret: bytes  # SHA-256 of the secret, which distinguishes this registration from an earlier one
    until_ms: int  # the end of the lease, in ms since 1970
    sealed: bytes

    @property
    def known(self) -> RegistrationKey:
        """The key that identifies this registration, for instance for `forget`."""
        return RegistrationKey(self.device, self.secret, self.endpoint, self.until_ms)


class State(IntEnum):
    """How certain it is that a device was sent the current entry (revision or cancel) of an alert.

    - MAYBE: the device may lack the current entry. Either a request with that entry was sent or is about to be sent, or
      the device was only sent an older revision. In both cases, the device counts as a recipient of the alert.
    - SENT: the push service has accepted a request with the current entry.
    """

    MAYBE = 1
    SENT = 2


class DeliveryRecord(NamedTuple):
    """A line of the journal: which revision of an alert a device was sent.

    `number` is the number of the revision, `ends_at_ms` the time at which the alert ended according to that revision,
    and `secret` the SHA-256 of the registration's secret.
    """

    device: bytes
    alert: bytes
    number: int
    state: State | None  # None: remove the line
    ends_at_ms: int
    secret: bytes
    term: int = 0  # the term of the shard; 0 in lines that were read

    @property
    def is_odd(self) -> bool:
        """Whether the line could not be read, so that it only says that the device was maybe sent the alert."""
        return self.number == 0


def read_line(device: bytes, alert: bytes, secret: bytes, row: Sequence[Any]) -> DeliveryRecord:
    """Return a line from its stored values: the number of the revision, the state, and the end of the alert.

    If a damaged store or a later release has left them odd, the device counts as one that was maybe sent the alert. So
    it is told the current entry once more, or the cancel.
    """
    try:
        number, state, ends_at_ms = row
        if isinstance(number, int) and number > 0 and isinstance(ends_at_ms, int) and ends_at_ms >= 0:
            return DeliveryRecord(device, alert, number, State(state), ends_at_ms, secret)
    except (TypeError, ValueError):
        pass
    return DeliveryRecord(device, alert, 0, State.MAYBE, 0, secret)


class PutResult(Enum):
    """The result of a `put`: STORED, or the reason why the device was not stored (DevS2)."""

    STORED = "stored"
    CHANGED = "changed"
    TOO_MANY = "too many"
    FULL = "full"


class Put(NamedTuple):
    """The result of a `put`, and the digests of the devices that were forgotten because they had the same endpoint."""

    result: PutResult
    replaced: tuple[bytes, ...] = ()


class Limits(NamedTuple):
    """How many devices one owner may have at most, and how many the whole store may have."""

    owned: int
    devices: int


class Change(NamedTuple):
    """A change that another process has made: the device that was put or forgotten, and the note given to `put`."""

    device: bytes
    note: bytes


Found = tuple[StoredDevice, Sequence[DeliveryRecord]]


class DeviceStore(Protocol):
    """The interface of a store of devices.

    A *line* (`DeliveryRecord`) says which revision of an alert a device was sent. A *shard* is a subset of the
    devices. One process at a time holds a shard, for a *term* that has a number. The rules DevS1 to DevS12 are in the
    module's docstring. All methods except `start` and `stop` may raise StoreUnavailable.
    """

    lost: bool  # whether the store may have lost data (DevS12)

    async def start(self) -> None:
        """Open the store. Raise ConfigError if it can't be used as configured."""

    async def stop(self) -> None:
        """Close the store. Data that was written stays in the store."""

    def load(self, shards: Collection[int]) -> AsyncIterator[Sequence[Found]]:
        """Yield the devices of these shards (subsets of the devices) in batches (DevS9).

        Each device comes with its delivery records (which alerts it was sent).
        """

    async def find(self, device: bytes) -> Found | None:
        """Return the device with this digest and its delivery records (which alerts it was sent), or None."""

    async def knowing(self, secret: bytes) -> StoredDevice | None:
        """Return the device that has a secret with this SHA-256, or None if there is no such device."""

    async def owned(self, owner: bytes) -> Sequence[StoredDevice]:
        """Return all devices that belong to the owner with this digest."""

    async def put(
        self,
        device: StoredDevice,
        was: StoredDevice | None,
        *,
        limits: Limits | None = None,
        note: bytes = b"",
        lines: Sequence[DeliveryRecord] = (),
    ) -> Put:
        """Store a device (DevS1, DevS2).

        `was` is the stored device that the caller read, or None if there was none. `note` is passed to other processes
        together with the change (DevS10). The delivery records `lines` are stored with the device.
        """

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Delete these registrations, with the delivery records of their devices (DevS3).

        If a device has registered again meanwhile, its newer registration stays.
        """

    async def note(self, lines: Sequence[DeliveryRecord]) -> Collection[int]:
        """Write delivery records: which revisions of alerts devices were sent (DevS5, DevS6).

        Return the shards (subsets of the devices) whose records were refused, because another process has taken the
        shard (DevS7).
        """

    async def restore(self, devices: Sequence[tuple[StoredDevice, int]]) -> Collection[int]:
        """Store devices again that may have been lost, each with the number of its shard's term (DevS12).

        A shard is a subset of the devices, and a process has it for a *term*. Return the shards whose devices were
        refused because the term is over (DevS7).
        """

    async def purge(self, shards: Collection[int], now_ms: int, is_over: Callable[[bytes], bool], /) -> int:
        """Remove the delivery records of alerts whose end has passed and for which `is_over` returns True.

        Return how many records were removed. `is_over` is called with the digest of an alert. Records of other shards
        than those in `shards` may be left unchecked.
        """

    def follow(self) -> AsyncIterator[Sequence[Change] | None]:
        """Yield the changes that other processes make, forever; yield None if some were lost (DevS10)."""
