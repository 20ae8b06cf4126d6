"""The devices of this process, in memory, and when something is due for one."""

import hashlib
import secrets
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from ..auth.tokens import Subject
from ..stream.live_alerts import LiveAlert
from .addresses import Endpoint
from .device_state import NEXT, DeviceEvent, DeviceState
from .devicestore import RegistrationKey, shard_of
from .encryption import Record
from .messages import PushMessage
from .service_limits import Gate, ServiceLimit, Slots

SECRET_BYTES = 24
RENEW_MS = 3 * 86_400_000  # before its lease ends a device is told so

Urgency = tuple[int, bool]  # the least is sent first: minus the rank of the severity, not a cancel


class Owed:
    """The alert or cancel that a request is under way for.

    `recipient`: whether the device was one of the alert before. `held`: whether it has said meanwhile that it holds it.
    """

    __slots__ = ("alert", "held", "message", "recipient")

    def __init__(self, alert: LiveAlert, message: PushMessage, recipient: bool) -> None:
        self.alert = alert
        self.message = message
        self.recipient = recipient
        self.held = False


class Device:
    """One registration, as a row of the fan-out."""

    __slots__ = (
        "digest",
        "endpoint",
        "endpoint_digest",
        "failures",
        "gate",
        "lane",
        "looked_at_ms",
        "marked",
        "owed",
        "place",
        "record",
        "resumes_at",
        "row",
        "served",
        "state",
        "term",
        "until_ms",
        "urgency",
    )

    def __init__(
        self,
        digest: bytes,
        record: Record,
        endpoint: Endpoint,
        endpoint_digest: bytes,
        until_ms: int,
        term: int,
    ) -> None:
        """`until_ms`: when its lease ends; `term`: of its shard."""
        self.digest = digest
        self.record = record
        self.endpoint = endpoint
        self.endpoint_digest = endpoint_digest
        self.until_ms = until_ms
        self.term = term
        self.state = DeviceState.IDLE
        self.row = -1  # in the fan-out; -1 before it enters and after it leaves
        self.lane: ServiceLimit  # of the host of its endpoint; from `PushScheduler.join` on
        self.served = False  # the last push to its endpoint was taken
        self.marked = False  # its stored record says that its host has taken a push
        self.place: tuple[ServiceLimit, Slots]  # UNDER_WAY: where the request has its places
        self.owed: Owed | None = None  # UNDER_WAY: what the request is for, if it is for an alert
        self.urgency: Urgency = (0, True)  # WAITING: of the most urgent thing that it is owed
        self.gate: Gate | None = None  # WAITING: at which it waits
        self.resumes_at = 0.0  # PAUSED: until when, on the monotonic clock
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

    @property
    def is_here(self) -> bool:
        """Whether it is a device of this process still."""
        return self.row >= 0

    def on(self, event: DeviceEvent) -> None:
        """Change the state. Raise KeyError for what cannot happen in this state."""
        self.state = NEXT[self.state][event]


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
            if device.is_here:
                due.append(device)
        return due


def new_secret() -> str:
    """A secret for a device's service worker, whose token will be old when it needs one."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest_of_secret(secret: str) -> bytes:
    """What is kept of a secret. It has 192 bits of chance, so it can't be guessed from this."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()
