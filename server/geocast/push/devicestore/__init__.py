"""Where devices are kept, and what each was told: what has to be known again after a restart, and by other processes.

This module is the port, written as a spec; the modules beside it keep it, and one suite of tests runs on all of them
(`tests/push/devicestore/contract.py`). A store sees digests and sealed bytes, and no endpoint, place or `sub`
(encryption.py).

Devices
    DevS1   When `put` returns STORED the device is on stable storage, in the place of the one that had its digest, if
            any. Another device with its endpoint is forgotten in the same transaction (WPR8).
    DevS2   `put` is refused, and changes nothing, when what the store has of the device is not what the caller has
            read (CHANGED); so what is read, changed and put is never an old one. It is also refused beyond the limits
            that it is given, for a device that is new: TOO_MANY of its owner, or FULL.
    DevS3   When `forget` returns, the devices and all that they were told are gone, in one transaction; but for those
            that are not what the caller knows any more: registered anew, at another endpoint, or with another lease.
    DevS4   A device that was forgotten and is put again is another registration: it has another secret, and has been
            told nothing. One that is put again with its secret keeps what it was told.

What they were told
    DevS5   There is at most one line for each device and alert. When `note` returns, its lines are on stable storage,
            all or none, in their order; one whose state is None takes the line away.
    DevS6   A line for a registration that is not there is passed over: it was forgotten meanwhile.
    DevS7   A line of a term that is not the newest of its shard is refused, and `note` returns the shard (shards.py).

All
    DevS8   When a method raises StoreUnavailable, or the process dies, what it was to do may be done or not, as a
            whole. A store that was out of reach may be called again.
    DevS9   `load` gives each device of these shards once, with all its lines, if it was there all the while.
    DevS10  `follow` gives what others than this store have put or forgotten since its `start`, in order, with the notes
            that they left; after that a `find` sees it. If some of it is gone it says so, by None.
    DevS11  A store that can have one process only is locked by it, until it is closed or dies.
    DevS12  A store that may lose what was stored for sure, as a replica may that takes over, says so: it is `lost` from
            then on, and `follow` gives None. Whoever holds a shard has it `restore` all of that, notes again what its
            devices were told, and takes the word away. What is newer is not put back over, nor by whose term is over.
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

SHARDS = 64


def shard_of(device: bytes) -> int:
    """The shard that the device with this digest is in: 0 to 63."""
    return device[0] % SHARDS


class RegistrationKey(NamedTuple):
    """Which registration of a device, at which endpoint, until when. `secret` is the SHA-256 of its secret."""

    device: bytes
    secret: bytes
    endpoint: bytes
    until_ms: int


class StoredDevice(NamedTuple):
    """A device as a store sees it: digests of it, its owner and its endpoint; `sealed` is all else that is known."""

    device: bytes
    owner: bytes
    endpoint: bytes
    secret: bytes  # SHA-256 of it; it tells this registration from an earlier one
    until_ms: int  # its lease, since 1970
    sealed: bytes

    @property
    def known(self) -> RegistrationKey:
        """What it is known by when it is to be forgotten."""
        return RegistrationKey(self.device, self.secret, self.endpoint, self.until_ms)


class State(IntEnum):
    """How sure it is that a device was told a revision, or a cancel.

    MAYBE: a request went out, or was about to; or an older revision was sent, so it is a recipient that lacks what is
    current.
    """

    MAYBE = 1
    SENT = 2


class DeliveryRecord(NamedTuple):
    """What one device was told of one alert: the number of the entry. `ends_at_ms`: of the alert, as it was then."""

    device: bytes
    alert: bytes
    number: int
    state: State | None  # None: the line is to be taken away
    ends_at_ms: int
    secret: bytes  # of the registration that was told
    term: int = 0  # in which it was told; lines that are read have none


class PutResult(Enum):
    """What came of a `put`."""

    STORED = "stored"
    CHANGED = "changed"
    TOO_MANY = "too many"
    FULL = "full"


class Put(NamedTuple):
    """What came of it, and the devices that had its endpoint and are forgotten."""

    result: PutResult
    replaced: tuple[bytes, ...] = ()


class Limits(NamedTuple):
    """How many devices there may be: of one owner, and of all."""

    owned: int
    devices: int


class Change(NamedTuple):
    """A device that was put or forgotten, and the note that was left with it."""

    device: bytes
    note: bytes


Found = tuple[StoredDevice, Sequence[DeliveryRecord]]


class DeviceStore(Protocol):
    """The port; the rules are in the module's docstring. All but `start` and `stop` may raise StoreUnavailable."""

    lost: bool  # DevS12

    async def start(self) -> None:
        """Open it. Raises ConfigError if it can't be used as configured."""
        ...

    async def stop(self) -> None:
        """Close it; what was written is stored."""
        ...

    def load(self, shards: Collection[int]) -> AsyncIterator[Sequence[Found]]:
        """The devices of these shards, some at a time, each with what it was told (DevS9)."""
        ...

    async def find(self, device: bytes) -> Found | None:
        """The device with this digest, and what it was told."""
        ...

    async def knowing(self, secret: bytes) -> StoredDevice | None:
        """The device whose secret has this SHA-256."""
        ...

    async def owned(self, owner: bytes) -> Sequence[StoredDevice]:
        """All devices of an owner, by its digest."""
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
        """Store a device (DevS1, DevS2). `was`: what the caller has read of it, None that there was none.

        `note` is given to the others with it (DevS10). `lines`: what it was told, as a device with another digest.
        """
        ...

    async def forget(self, devices: Collection[RegistrationKey]) -> None:
        """Forget devices, as far as they are what is known (DevS3)."""
        ...

    async def note(self, lines: Sequence[DeliveryRecord]) -> Collection[int]:
        """Write what devices were told (DevS5, DevS6); the shards whose lines are refused (DevS7)."""
        ...

    async def restore(self, devices: Sequence[tuple[StoredDevice, int]]) -> Collection[int]:
        """Put back devices, each of the term of its shard (DevS12); the shards that are refused (DevS7)."""
        ...

    async def purge(self, shards: Collection[int], now_ms: int, is_over: Callable[[bytes], bool], /) -> int:
        """Take away lines of alerts whose end has passed and that are over: of these shards, maybe of others too.

        Returns how many.
        """
        ...

    def follow(self) -> AsyncIterator[Sequence[Change] | None]:
        """What others change, for ever (DevS10)."""
        ...
