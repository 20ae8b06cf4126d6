"""How many requests are under way at once, for each host and in all, and how long a device waits (WPO2, HD2, HD19).

    answer                                          outcome    then
    ---------------------------------------------   --------   -------------------------------------------------------
    2xx                                             sent
    404, 410                                        gone       the device is forgotten
    413                                             large      at once again, in a small body from now on
    3xx, 400, 401, 403, every other one             refused    the device waits an hour, and is never forgotten for it
    429, 503                                        busy       it waits for Retry-After; else 2, 4, 8 … 300 s, ± 50 %
    every other 5xx                                 failed     the same
    no connection, TLS failed                       away       it waits 2, 4, 8 … 300 s, ± 50 %
    no answer in time, connection lost meanwhile    maybe      the same; it may have been sent

A *lane* is the requests to one host. It is *known* when the host has taken a push, or when the operator has named that
host and not a `*.name` above it. Requests to known hosts share one set of slots. Requests to all other hosts share a
small set of their own, UNKNOWN for each host, so a host that does not work takes nothing from one that does.

Rule 1  A known lane starts with FIRST requests at once, and each push that was taken within QUICK_S adds one. After
        IDLE_S without a push that was taken it is FIRST again. So a host that hangs or is slow takes few slots.
Rule 2  The outcomes busy, away and maybe concern the service, if they come from a device whose last push was taken.
        When more than half of the last OWNERS owners had one, and at least BAD owners had, the lane is halved, at most
        once in HALVE_S. GOOD pushes that were taken widen it by one. A lane of 0 is closed.
Rule 3  One request at a time looks whether a closed host is back: first after a second, then more and more rarely. It
        is for a device whose last push was taken; if none asks within GRACE_S, for any device.

This module does no I/O: the time is passed in, in seconds of the monotonic clock, and so is chance.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from enum import Enum
from typing import Any

AT_MOST = 200  # requests to one host
FIRST, QUICK_S, IDLE_S = 32, 2.0, 5.0
UNKNOWN = 2  # requests to a host that is not known
BAD, OWNERS, GOOD = 5, 100, 100
HALVE_S = 1.0
FIRST_LOOK_S, LAST_LOOK_S, GRACE_S = 1.0, 30.0, 5.0

FIRST_WAIT_S, LAST_WAIT_S = 2.0, 300.0
REFUSED_WAIT_S = 3600.0
MAX_RETRY_AFTER_S = 600.0
LAST_TRY_S = 5.0  # before the end of an alert, no `Retry-After` is waited for any longer


class PushOutcome(Enum):
    """What came of a request. The table tells which answer is which."""

    SENT = "sent"
    GONE = "gone"
    LARGE = "large"
    REFUSED = "refused"
    BUSY = "busy"
    FAILED = "failed"
    AWAY = "away"
    MAYBE = "maybe"


OF_THE_SERVICE = frozenset({PushOutcome.BUSY, PushOutcome.AWAY, PushOutcome.MAYBE})


def outcome_of(status: int) -> PushOutcome:
    """Return the outcome of an answer with this status."""
    if 200 <= status < 300:
        return PushOutcome.SENT
    named = {
        404: PushOutcome.GONE,
        410: PushOutcome.GONE,
        413: PushOutcome.LARGE,
        429: PushOutcome.BUSY,
        503: PushOutcome.BUSY,
    }
    return named.get(status, PushOutcome.FAILED if status >= 500 else PushOutcome.REFUSED)


def wait_s(outcome: PushOutcome, failures: int, retry_after_s: float | None, left_s: float, chance: float) -> float:
    """Return for how many seconds a device waits after an outcome.

    `failures` is how many there have been in a row, this one included. `left_s` is what is left of the alert's life: a
    `Retry-After` beyond it ends LAST_TRY_S before it (rule HD19). The caller draws `chance` from 0 to 1.
    """
    if outcome in (PushOutcome.SENT, PushOutcome.LARGE):
        return 0.0
    if outcome is PushOutcome.REFUSED:
        return REFUSED_WAIT_S
    if outcome in (PushOutcome.BUSY, PushOutcome.FAILED) and retry_after_s is not None:
        return max(1.0, min(retry_after_s, MAX_RETRY_AFTER_S, left_s - LAST_TRY_S))
    grown = min(FIRST_WAIT_S * 2.0 ** min(failures - 1, 16), LAST_WAIT_S)
    return grown * (0.5 + chance)


class Gate(ABC):
    """Something of which each request takes a place, and the devices that wait for one."""

    __slots__ = ("coming", "under_way", "waiting")

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting: list[Any] = []  # a heap, which belongs to `scheduler`
        self.coming = 0  # devices that waited here, and are about to be tried

    @abstractmethod
    def free(self, _now_s: float) -> int:
        """Return how many more requests may be sent now."""


class Slots(Gate):
    """Requests under way at once, to whatever hosts, with a bound for each owner."""

    __slots__ = ("_at_most", "_of", "_of_one")

    def __init__(self, at_most: int, of_one: int) -> None:
        """`of_one` is how many requests the devices of one owner may have under way here."""
        super().__init__()
        self._at_most, self._of_one = at_most, of_one
        self._of: dict[Hashable, int] = {}

    def free(self, _now_s: float = 0.0) -> int:
        """Return how many more requests may be sent."""
        return self._at_most - self.under_way

    def allows(self, owner: Hashable) -> bool:
        """Return whether this owner has fewer requests under way than the bound."""
        return self._of.get(owner, 0) < self._of_one

    def start(self, owner: Hashable) -> None:
        """Take a slot for a device of this owner."""
        self.under_way += 1
        self._of[owner] = self._of.get(owner, 0) + 1

    def end(self, owner: Hashable) -> None:
        """Give back a slot that this owner has."""
        self.under_way -= 1
        left = self._of.pop(owner) - 1
        if left:
            self._of[owner] = left


class ServiceLimit(Gate):
    """The requests to one host."""

    __slots__ = (
        "_halve_at",
        "_latest",
        "_look_at",
        "_look_s",
        "_pace",
        "_successes",
        "_taken_at",
        "devices",
        "host",
        "known",
        "marked",
        "named",
        "service",
        "width",
    )

    def __init__(self, host: str, service: str, *, named: bool = True) -> None:
        """`host` is a name, with its port; `service` the entry of the list; `named`: the entry names this very host."""
        super().__init__()
        self.host, self.service, self.named = host, service, named
        self.known = named
        self.devices = 0  # of this process, with an endpoint at this host
        self.marked = 0  # devices of these whose stored record says that the host has taken a push
        self.width = AT_MOST  # 0: closed
        self._pace = FIRST  # Rule 1
        self._taken_at = float("-inf")  # when the last push was taken
        self._latest: dict[Hashable, bool] = {}  # of the last owners, the latest last: whether it went badly
        self._successes = 0  # since it was last widened
        self._halve_at = float("-inf")  # not before
        self._look_at = float("inf")  # when a closed lane may be tried
        self._look_s = FIRST_LOOK_S

    @property
    def is_open(self) -> bool:
        """Whether the host takes anything, as far as is known."""
        return self.width > 0

    def free(self, _now_s: float) -> int:
        """Return how many more requests may be sent now; for a closed lane 0 or less."""
        if not self.known:
            return UNKNOWN - self.under_way
        if _now_s - self._taken_at > IDLE_S:
            self._pace = FIRST
        return min(self.width, self._pace) - self.under_way

    def has_room(self, now_s: float, *, served: bool = True) -> bool:
        """Return whether a request may be sent now; `served`: the last push to its device was taken."""
        if self.is_open:
            return self.free(now_s) > 0
        return self.under_way == 0 and now_s >= self._look_at + (0.0 if served else GRACE_S)

    def start(self) -> None:
        """Count a request as under way; there is room for it."""
        self.under_way += 1

    def withdraw(self) -> None:
        """A request was not sent after all."""
        self.under_way -= 1

    def end(
        self, outcome: PushOutcome, owner: Hashable, now_s: float, *, served: bool = True, took_s: float = 0.0
    ) -> None:
        """Note what came of a request to a device of this owner, and how long that took."""
        self.under_way -= 1
        is_taken = outcome is PushOutcome.SENT
        if is_taken:
            self._taken_at, self.known = now_s, True
            if took_s <= QUICK_S and self._pace < AT_MOST:
                self._pace += 1
        if not self.is_open:
            self._looked(now_s, is_back=outcome not in OF_THE_SERVICE)
        elif is_taken:
            self._note(owner, is_bad=False)
            self._successes += 1
            if self._successes >= GOOD:
                self._successes = 0
                self.width = min(AT_MOST, self.width + 1)
        elif served and outcome in OF_THE_SERVICE:
            self._note(owner, is_bad=True)
            self._successes = 0
            bad = sum(self._latest.values())
            if now_s >= self._halve_at and bad >= BAD and 2 * bad > len(self._latest):
                self._halve(now_s)

    def _note(self, owner: Hashable, *, is_bad: bool) -> None:
        self._latest.pop(owner, None)
        self._latest[owner] = is_bad
        if len(self._latest) > OWNERS:
            del self._latest[next(iter(self._latest))]

    def _halve(self, now_s: float) -> None:
        self.width //= 2
        self._halve_at = now_s + HALVE_S
        self._latest.clear()
        if not self.is_open:
            self._look_s = FIRST_LOOK_S
            self._look_at = now_s + FIRST_LOOK_S

    def _looked(self, now_s: float, *, is_back: bool) -> None:
        """Note the end of a look, or of a request that was under way when the lane was closed."""
        if is_back:
            self.width, self._look_at = 1, float("inf")
        elif now_s >= self._look_at:
            self._look_s = min(self._look_s * 2, LAST_LOOK_S)
            self._look_at = now_s + self._look_s
