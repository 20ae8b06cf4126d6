"""The devices of this process, in memory, and when something is due for one."""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count

from ..auth.tokens import Subject
from ..model.close_codes import Close
from ..stream.live_alerts import LiveAlert
from .addresses import Endpoint
from .device_hub import Urgency
from .devicestore import RegistrationKey, shard_of
from .encryption import Record
from .messages import PushMessage
from .service_limits import Gate, ServiceLimit, Slots

SECRET_BYTES = 24
RENEW_MS = 3 * 86_400_000  # before its lease ends a device is told so


class Owed:
    """A message that the hub has written for a device.

    `recipient`: whether it was one of the alert before. `held`: whether it has said meanwhile that it holds this.
    """

    __slots__ = ("alert", "held", "message", "recipient")

    def __init__(self, alert: LiveAlert, message: PushMessage, recipient: bool) -> None:
        self.alert = alert
        self.message = message
        self.recipient = recipient
        self.held = False

    @property
    def urgency(self) -> Urgency:
        """In which order it is sent: the least first."""
        return -self.alert.rank, not self.message.is_cancel


class Device:
    """One registration. It is its own peer of the hub: what the hub writes is `taken`, with the device."""

    __slots__ = (
        "busy",
        "digest",
        "endpoint",
        "endpoint_digest",
        "failures",
        "gate",
        "lane",
        "looked_at_ms",
        "marked",
        "owed",
        "paused",
        "place",
        "record",
        "resumes_at",
        "row",
        "served",
        "taken",
        "term",
        "until_ms",
        "waits",
    )

    descriptor = -1  # it has no socket

    def __init__(
        self,
        digest: bytes,
        record: Record,
        endpoint: Endpoint,
        endpoint_digest: bytes,
        until_ms: int,
        term: int,
        taken: "Callable[[Device, bytes], None]",
    ) -> None:
        """`until_ms`: its lease; `term`: of its shard; `taken` is called with what the hub writes to it."""
        self.digest = digest
        self.record = record
        self.endpoint = endpoint
        self.endpoint_digest = endpoint_digest
        self.until_ms = until_ms
        self.term = term
        self.taken = taken
        self.row = -1  # in the hub; -1 when it is forgotten, or another process has it
        self.lane: ServiceLimit  # of the host of its endpoint; from `PushScheduler.join` on
        self.served = False  # the last push to its endpoint was taken
        self.marked = False  # its stored record says that its host has taken a push
        self.busy = False  # a request is under way …
        self.place: tuple[ServiceLimit, Slots]  # … which has its place in these
        self.owed: Owed | None = None  # … and tells of this, if it tells of an alert
        self.waits: Urgency | None = None  # for a place, and for how urgent a thing …
        self.gate: Gate | None = None  # … of this
        self.paused = False  # after a failure …
        self.resumes_at = 0.0  # … until then, by the monotonic clock
        self.failures = 0  # in a row
        self.looked_at_ms: int | None = None  # when its lease is looked at next

    @property
    def lease_due_ms(self) -> int:
        """When something is due for its lease: `renew`, and after that its end (WPR9)."""
        return self.until_ms if self.record.renewed else self.until_ms - RENEW_MS

    @property
    def owner(self) -> Subject:
        """The subject whose device it is: bounds are for each owner (rule HD5)."""
        return self.record.subject

    @property
    def shard(self) -> int:
        """The shard that it is in."""
        return shard_of(self.digest)

    @property
    def known(self) -> RegistrationKey:
        """What it is known by."""
        return RegistrationKey(self.digest, self.record.secret, self.endpoint_digest, self.until_ms)

    def write(self, data: bytes) -> None:
        """Take what the hub writes to it."""
        self.taken(self, data)

    def close(self, close: Close) -> None:
        """Nothing: the hub of devices ends none."""

    def abort(self) -> None:
        """Nothing: the hub of devices drops none."""


class Devices:
    """All of them, by digest."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, Device] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def __iter__(self) -> Iterator[Device]:
        return iter(list(self._by_digest.values()))

    def find(self, digest: bytes) -> Device | None:
        """The device with this digest."""
        return self._by_digest.get(digest)

    def add(self, device: Device) -> None:
        """Take in a device, whose digest nobody has."""
        self._by_digest[device.digest] = device

    def remove(self, device: Device) -> None:
        """Take a device out, if it is there."""
        if self._by_digest.get(device.digest) is device:
            del self._by_digest[device.digest]


class Times:
    """Devices, each with a time at which something is due. Who is given a later time is asked at the old one, too."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Device]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, at: float, device: Device) -> None:
        """Something is due for the device then."""
        heappush(self._heap, (at, next(self._order), device))

    def take(self, now: float) -> list[Device]:
        """Take out those whose time has come; forgotten ones are passed over."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            device = heappop(self._heap)[2]
            if device.row >= 0:
                due.append(device)
        return due


def new_secret() -> str:
    """A secret for a device's service worker, whose token will be old when it needs one."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest_of_secret(secret: str) -> bytes:
    """What is kept of a secret. It has 192 bits of chance, so it can't be guessed from this."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()
