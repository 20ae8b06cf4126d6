"""Limits on how many push requests run at once, by host and in all, and the waits after an answer (WPO2, HD2, HD19).

    answer                                          outcome    effect
    ---------------------------------------------   --------   -------------------------------------------------------
    2xx                                             sent
    404, 410                                        gone       the device is forgotten
    413                                             large      sent again at once; bodies are small from now on
    3xx, any other 4xx                              refused    the device waits an hour; it is never forgotten for this
    429, 503                                        busy       it waits for Retry-After; else 2, 4, 8 … 300 s, ± 50 %
    any other 5xx                                   failed     the same as for busy
    no connection, TLS failed                       away       it waits 2, 4, 8 … 300 s, ± 50 %
    no answer in time, connection lost meanwhile    maybe      the same as for away; the alert may have been sent

A *lane* (`ServiceLimit`) is the limit for one host. Its *width* is how many requests to the host may run at once; a
lane of width 0 is *closed*. A host is *known* when it has accepted a push, or when the operator has allowed this very
host by name rather than by a `*.name`. Requests to known hosts share one set of slots. Requests to all other hosts
share a small set of their own, with at most UNKNOWN requests for each host. So a host that doesn't work takes no slot
from a host that works.

Rule 1  Besides its width, a known lane has a *pace*, which also limits the requests that run at once. The pace starts
        at FIRST and grows by one with each push that is accepted within QUICK_S. After IDLE_S without an accepted push,
        it is reset to FIRST. So a host that hangs or is slow uses few slots.
Rule 2  The outcomes busy, away and maybe count against the host if the previous push to the same device was accepted.
        For each of the last OWNERS owners of devices, only the latest outcome counts. When more than half of these
        outcomes, and at least BAD of them, are against the host, the width is halved, at most once in HALVE_S. After
        GOOD accepted pushes, with no outcome against the host in between, the width grows by one.
Rule 3  A closed lane is tested with one request at a time: first after FIRST_LOOK_S; the wait doubles with each test,
        up to LAST_LOOK_S. The test is a push to a device whose last push was accepted. If there is no such device for
        GRACE_S, the push may be to any device.

Example for Rule 1: a host accepts each push in 50 ms. Its pace grows from 32 to 200 within about 170 pushes, far less
than a second. Another host accepts connections and never answers: 32 requests wait for their timeouts, and the other
slots stay free.

Example for Rule 2: somebody registers 1,000 devices with made-up endpoints at a real host, which answers them with 503.
None of these devices ever had a push accepted, so the lane stays open for everybody else. And if all devices of one
owner fail, they count as one of OWNERS.

Example for Rule 3: the host answers 503 to everybody. The width is halved again and again, from 200 to 0. After 1 s one
request tests the host, then after 2, 4, 8, 16, 30, 30 … s. The first answer that doesn't count against the host opens
the lane with a width of 1.

This module does no I/O: callers pass in the random numbers, and the time in seconds of the monotonic clock.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable
from typing import Any

from ..egress.outcomes import PostOutcome
from ..model.times import backoff_s

AT_MOST = 200  # the greatest width
FIRST, QUICK_S, IDLE_S = 32, 2.0, 5.0
UNKNOWN = 2  # limit on requests under way to a host that is not known
BAD, OWNERS, GOOD = 5, 100, 100
HALVE_S = 1.0
FIRST_LOOK_S, LAST_LOOK_S, GRACE_S = 1.0, 30.0, 5.0

FIRST_WAIT_S, LAST_WAIT_S = 2.0, 300.0
REFUSED_WAIT_S = 3600.0
MAX_RETRY_AFTER_S = 600.0
LAST_TRY_S = 5.0  # a `Retry-After` that ends after the alert is cut to this long before the alert's end


# The outcomes that count against the host (Rule 2).
OF_THE_SERVICE = frozenset({PostOutcome.BUSY, PostOutcome.AWAY, PostOutcome.MAYBE})


def wait_s(outcome: PostOutcome, failures: int, retry_after_s: float | None, left_s: float, chance: float) -> float:
    """Return how many seconds a device waits after an outcome before it is sent anything more.

    `failures` is the number of failures in a row, including this one. `retry_after_s` is the wait that the service
    asked for in `Retry-After`, or None. The alert ends in `left_s` seconds; a `Retry-After` is shortened to end
    LAST_TRY_S seconds before that (rule HD19). `chance` is a random number from 0 to 1, which spreads the waits of many
    devices.
    """
    if outcome in (PostOutcome.SENT, PostOutcome.LARGE):
        return 0.0
    if outcome is PostOutcome.REFUSED:
        return REFUSED_WAIT_S
    if outcome in (PostOutcome.BUSY, PostOutcome.FAILED) and retry_after_s is not None:
        return max(1.0, min(retry_after_s, MAX_RETRY_AFTER_S, left_s - LAST_TRY_S))
    grown = backoff_s(FIRST_WAIT_S, failures, LAST_WAIT_S)
    return grown * (0.5 + chance)


class Gate(ABC):
    """A limit on requests under way, with a queue of the devices that have to wait because of the limit."""

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting: list[Any] = []  # a heap of waiting devices, which `queues` fills and empties
        self.coming = 0  # number of devices moved from this queue to the queue for slots, and not tried yet

    @abstractmethod
    def free(self, now_s: float) -> int:
        """Return how many more requests the limit allows to start now."""

    def start(self, _owner: Hashable = None) -> None:
        """Count a request to a device of this owner as under way. The caller has checked that one may start."""
        self.under_way += 1

    def end(self, _owner: Hashable = None) -> None:
        """Stop counting a request to a device of this owner, whether it was sent or not."""
        self.under_way -= 1


class Slots(Gate):
    """Limits how many requests may be under way to all hosts together, and how many to the devices of one owner."""

    def __init__(self, at_most: int, of_one: int) -> None:
        """Allow `at_most` requests under way in total, and `of_one` requests to the devices of each owner."""
        super().__init__()
        self._at_most, self._of_one = at_most, of_one
        self._of: Counter[Hashable] = Counter()

    def free(self, _now_s: float = 0.0) -> int:
        """Return how many more requests the limit allows to start, at whatever time."""
        return self._at_most - self.under_way

    def allows(self, owner: Hashable) -> bool:
        """Return whether this owner is still below the limit for one owner's requests under way."""
        return self._of[owner] < self._of_one

    def start(self, owner: Hashable = None) -> None:
        super().start()
        self._of[owner] += 1

    def end(self, owner: Hashable = None) -> None:
        super().end()
        self._of[owner] -= 1
        if not self._of[owner]:
            del self._of[owner]


class ServiceLimit(Gate):
    """Limits how many requests run at once to one push service host. This package calls such a limit a *lane*."""

    def __init__(self, host: str, service: str, *, named: bool = True) -> None:
        """Create a limit for a host that is open.

        `host` is a host name with its port, `service` the entry of `--push-services` that allows it. `named` is True
        if the entry is this host's own name, not a `*.name`; then the host is trusted from the start.
        """
        super().__init__()
        self.host, self.service, self.named = host, service, named
        self.known = named
        self.devices = 0  # devices of this process with an endpoint at this host
        self.marked = 0  # number of those devices whose stored records say that the host has accepted a push
        self.width = AT_MOST  # limit on requests at once, which failures reduce (Rule 2); 0: closed
        self._pace = FIRST  # limit on requests at once, which accepted pushes raise (Rule 1)
        self._taken_at = float("-inf")  # when the last push was accepted
        self._latest: dict[Hashable, bool] = {}  # owner -> whether the latest outcome counts against the host
        self._successes = 0  # accepted pushes since the width last grew
        self._halve_at = float("-inf")  # the earliest time of the next halving
        self._test_at = float("inf")  # when the host is tested next, while it is closed
        self._test_again_s = FIRST_LOOK_S

    @property
    def is_open(self) -> bool:
        """Whether the host is open for requests. If False, the host is only tested from time to time (Rule 3)."""
        return self.width > 0

    def free(self, now_s: float) -> int:
        """Return how many more requests may start now; 0 or less if the limit is reached or the host is closed."""
        if not self.known:
            return UNKNOWN - self.under_way
        if now_s - self._taken_at > IDLE_S:
            self._pace = FIRST
        return min(self.width, self._pace) - self.under_way

    def has_room(self, now_s: float, *, served: bool = True) -> bool:
        """Return whether a request to a device may start now.

        `served` says whether the last push to this device was accepted. If the host is closed, such devices are
        preferred for testing it (Rule 3).
        """
        if self.is_open:
            return self.free(now_s) > 0
        return self.under_way == 0 and now_s >= self._test_at + (0.0 if served else GRACE_S)

    def record(
        self, outcome: PostOutcome, owner: Hashable, now_s: float, *, served: bool = True, took_s: float = 0.0
    ) -> None:
        """Record the outcome of a request to a device of this owner.

        `served` says whether the push before this one, to the same device, was accepted. `took_s` is how many seconds
        the request took.
        """
        is_taken = outcome is PostOutcome.SENT
        if is_taken:
            self._taken_at, self.known = now_s, True
            if took_s <= QUICK_S and self._pace < AT_MOST:
                self._pace += 1
        if not self.is_open:
            self._record_test(now_s, is_back=outcome not in OF_THE_SERVICE)
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
        """Record how the latest request to an owner's devices has ended.

        If `is_bad`, the outcome counts against the host. If outcomes of more than OWNERS owners are recorded, forget
        the oldest (Rule 2).
        """
        self._latest.pop(owner, None)
        self._latest[owner] = is_bad
        if len(self._latest) > OWNERS:
            del self._latest[next(iter(self._latest))]

    def _halve(self, now_s: float) -> None:
        self.width //= 2
        self._halve_at = now_s + HALVE_S
        self._latest.clear()
        if not self.is_open:
            self._test_again_s = FIRST_LOOK_S
            self._test_at = now_s + FIRST_LOOK_S

    def _record_test(self, now_s: float, *, is_back: bool) -> None:
        """Record the outcome of a request that ends while the host is closed (Rule 3).

        `is_back` says whether the outcome shows that the host works again. The request was a test, or it started before
        the host was closed.
        """
        if is_back:
            self.width, self._test_at = 1, float("inf")
        elif now_s >= self._test_at:
            self._test_again_s = min(self._test_again_s * 2, LAST_LOOK_S)
            self._test_at = now_s + self._test_again_s
