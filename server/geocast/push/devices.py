"""A device of this process, in memory, and a queue of the times at which something is due for devices."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from ..auth.tokens import Subject
from ..egress.outcomes import PostOutcome
from ..metrics import report_caught
from ..stream.live_alerts import LiveAlert
from .addresses import Endpoint
from .device_state import NEXT, DeviceEvent, DeviceState
from .devicestore import RegistrationKey, shard_of
from .encryption import Record
from .messages import PushMessage
from .service_limits import Gate, ServiceLimit, Slots

SECRET_BYTES = 24
RENEW_MS = 3 * 86_400_000  # how long before the end of its lease a device is sent a reminder

_NONE: Mapping[tuple[str, int], int] = {}  # shared, because hardly any device has others
Urgency = tuple[int, bool]  # (minus the severity's rank, False for a cancel); the smallest is sent first


@dataclass(slots=True, eq=False)
class Owed:
    """The alert or cancel that is being sent to a device, while the request is under way.

    `recipient` says whether the device was a recipient of the alert before the request. `held` is True if the device
    has registered again during the request, and has said that it has this revision. If the request then fails, the
    device still counts as having the revision. `outcome` is None as long as nothing was sent.
    """

    alert: LiveAlert
    message: PushMessage
    recipient: bool
    held: bool = False
    outcome: PostOutcome | None = None


@dataclass(slots=True, eq=False)
class Admission:
    """The limits that one request counts against: that of its host, and a set of slots while it is under way."""

    lane: ServiceLimit
    counted: list[ServiceLimit | Slots] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Device:
    """A registered device of this process.

    It has a row (an index) in the fan-out, which decides who is sent which alert. `until_ms` is the time at which its
    registration ends, in ms since 1970. A process leases each shard (a subset of the devices) that it is responsible
    for, and each lease has a number. `term` is the number of the lease of the device's shard.
    """

    digest: bytes
    record: Record
    endpoint: Endpoint
    endpoint_digest: bytes
    until_ms: int
    term: int
    state: DeviceState = DeviceState.IDLE
    row: int = -1  # its row in the fan-out; -1 before it enters and after it leaves
    lane: ServiceLimit = field(init=False)  # the limit of its endpoint's host; set by `Queues.enter`
    served: bool = False  # whether its push service accepted the last push
    marked: bool = False  # whether its stored record says that its host has accepted a push
    admission: Admission = field(init=False)  # of its latest request; set by `Devices.enter`
    owed: Owed | None = None  # UNDER_WAY: the alert that is being sent; None for a reminder
    urgency: Urgency = (0, True)  # WAITING: the urgency of the most urgent alert that it lacks
    gate: Gate | None = None  # WAITING: the limit in whose queue it waits
    resumes_at: float = 0.0  # PAUSED: the end of the pause, on the monotonic clock
    failures: int = 0  # failed requests in a row
    unmade: Mapping[tuple[str, int], int] = field(default_factory=lambda: _NONE)  # see `PushRequests.pause_unmade`
    looked_at_ms: int | None = None  # when its lease is checked next, in ms since 1970

    @property
    def lease_due_ms(self) -> int:
        """The time at which the device's lease (its registration) next needs attention, in ms since 1970.

        This is the time of the reminder, and once the device was reminded, the end of the lease (rule WPR9).
        """
        return self.until_ms if self.record.renewed else self.until_ms - RENEW_MS

    @property
    def owner(self) -> Subject:
        """The owner of the device: the subject of the token with which it registered.

        Limits count by owner (rule HD5).
        """
        return self.record.subject

    @property
    def shard(self) -> int:
        """The shard that the device belongs to: one of 64 subsets of the devices, as a number from 0 to 63."""
        return shard_of(self.digest)

    @property
    def known(self) -> RegistrationKey:
        """The key that identifies this registration of the device in the store."""
        return RegistrationKey(self.digest, self.record.secret, self.endpoint_digest, self.until_ms)

    @property
    def is_here(self) -> bool:
        """Whether this process still has the device."""
        return self.row >= 0

    @property
    def is_busy(self) -> bool:
        """Whether it has a request under way."""
        return self.state in (DeviceState.UNDER_WAY, DeviceState.LEAVING)

    def on(self, event: DeviceEvent) -> None:
        """Apply an event to the state of the device. Raise KeyError if the event can't happen in this state."""
        self.state = NEXT[self.state][event]


class Times:
    """A queue of devices, ordered by the times at which something is due for them.

    A device may be in the queue several times. If its time is moved to a later one, it is due at the old time too.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Device]] = []
        self._order = count()

    def put(self, at: float, device: Device) -> None:
        """Add a device to the queue, for the time `at`."""
        heappush(self._heap, (at, next(self._order), device))

    def handle(self, now: float, handle: Callable[[Device], None]) -> None:
        """Remove the devices whose time is at or before `now`, and call a function with each that is still here.

        If the function raises, the device is due again at the next call. So an unexpected error harms no other device.
        """
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
        for device in due:
            try:
                if device.is_here:
                    handle(device)
            except Exception as error:
                report_caught("what was due for a device failed", error)
                self.put(now, device)


def new_secret() -> str:
    """Return a random secret for a device's service worker.

    When the browser changes the subscription, the service worker identifies itself with this secret, because its token
    may have expired by then.
    """
    return secrets.token_urlsafe(SECRET_BYTES)


def digest_of_secret(secret: str) -> bytes:
    """Return the SHA-256 of a secret.

    It is stored instead of the secret. The secret has 192 random bits, so it can't be guessed from its digest.
    """
    return hashlib.sha256(secret.encode(errors="replace")).digest()
