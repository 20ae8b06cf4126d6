"""How many requests a push service is sent at once, and who waits for how long (WPO2).

    answer                                          outcome    then
    ---------------------------------------------   --------   -------------------------------------------------------
    2xx                                             sent
    404, 410                                        gone       the device is forgotten
    413                                             large      at once again, in a small body from now on
    3xx, 400, 401, 403, every other one             refused    the device waits an hour, and is never forgotten for it
    429                                             busy       it waits for Retry-After; else 2, 4, 8 … 300 s, ± 50 %
    5xx, no connection, TLS failed                  failed     it waits 2, 4, 8 … 300 s, ± 50 %
    no answer in time, connection lost meanwhile    maybe      the same; it may have been sent

A service has a *lane*: AT_MOST requests under way. The last three outcomes are bad ones for the lane too. When BAD in a
row are, or BAD of its last WINDOW answers, of as many owners' devices, the lane is halved, at most once in HALVE_S. (So
one person who provokes them does nothing, with however many devices.) GOOD successes widen it by one. A lane of 0 is
closed: one request at a time looks whether the service is back, at first after a second, then more and more rarely.

Pure: the time is passed in, in seconds of the monotonic clock, and so is chance.
"""

from collections import deque
from collections.abc import Hashable
from enum import Enum

AT_MOST = 200
BAD, WINDOW, GOOD = 5, 100, 100
HALVE_S = 1.0
FIRST_LOOK_S, LAST_LOOK_S = 1.0, 30.0

FIRST_WAIT_S, LAST_WAIT_S = 2.0, 300.0
REFUSED_WAIT_S = 3600.0
MAX_RETRY_AFTER_S = 600.0


class Outcome(Enum):
    """What came of a request. The table tells which answer is which."""

    SENT = "sent"
    GONE = "gone"
    LARGE = "large"
    REFUSED = "refused"
    BUSY = "busy"
    FAILED = "failed"
    MAYBE = "maybe"


BAD_ONES = frozenset({Outcome.BUSY, Outcome.FAILED, Outcome.MAYBE})


def outcome_of(status: int) -> Outcome:
    """What an answer with this status means."""
    if 200 <= status < 300:
        return Outcome.SENT
    if status >= 500:
        return Outcome.FAILED
    named = {404: Outcome.GONE, 410: Outcome.GONE, 413: Outcome.LARGE, 429: Outcome.BUSY}
    return named.get(status, Outcome.REFUSED)


def wait_s(outcome: Outcome, failures: int, retry_after_s: float | None, chance: float) -> float:
    """For how many seconds a device waits after an outcome.

    `failures`: how many there have been in a row, this one included; `chance`: from 0 to 1, drawn by the caller.
    """
    if outcome in (Outcome.SENT, Outcome.LARGE):
        return 0.0
    if outcome is Outcome.REFUSED:
        return REFUSED_WAIT_S
    if outcome is Outcome.BUSY and retry_after_s is not None:
        return min(max(1.0, retry_after_s), MAX_RETRY_AFTER_S)
    grown = min(FIRST_WAIT_S * 2.0 ** min(failures - 1, 16), LAST_WAIT_S)
    return grown * (0.5 + chance)


class Lane:
    """The requests of one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.width = AT_MOST  # requests that may be under way; 0: closed
        self.under_way = 0
        self._answers: deque[Hashable | None] = deque(maxlen=WINDOW)  # who had a bad one, None for a good one
        self._successes = 0  # since it was last widened
        self._halve_at = float("-inf")  # not before
        self._look_at = float("inf")  # when a closed lane may be tried
        self._look_s = FIRST_LOOK_S

    @property
    def is_open(self) -> bool:
        """Whether the service takes anything, as far as we know."""
        return self.width > 0

    def has_room(self, now_s: float) -> bool:
        """Whether a request may be sent now."""
        if self.is_open:
            return self.under_way < self.width
        return self.under_way == 0 and now_s >= self._look_at

    def start(self) -> None:
        """A request is under way; there is room for it."""
        self.under_way += 1

    def withdraw(self) -> None:
        """A request was not sent after all."""
        self.under_way -= 1

    def end(self, outcome: Outcome, owner: Hashable, now_s: float) -> None:
        """What came of a request to a device of this owner."""
        self.under_way -= 1
        is_bad = outcome in BAD_ONES
        if not self.is_open:
            self._looked(now_s, is_bad=is_bad)
            return
        self._answers.append(owner if is_bad else None)
        if is_bad:
            self._successes = 0
            if now_s >= self._halve_at and self._is_failing():
                self._halve(now_s)
        elif outcome is Outcome.SENT:
            self._successes += 1
            if self._successes >= GOOD:
                self._successes = 0
                self.width = min(AT_MOST, self.width + 1)

    def _is_failing(self) -> bool:
        last = list(self._answers)[-BAD:]
        in_a_row = len(last) == BAD and None not in last and len(set(last)) == BAD
        return in_a_row or len(set(self._answers) - {None}) >= BAD

    def _halve(self, now_s: float) -> None:
        self.width //= 2
        self._halve_at = now_s + HALVE_S
        self._answers.clear()
        if not self.is_open:
            self._look_s = FIRST_LOOK_S
            self._look_at = now_s + FIRST_LOOK_S

    def _looked(self, now_s: float, *, is_bad: bool) -> None:
        """A closed lane was tried, or what was under way when it was closed has come to an end."""
        if not is_bad:
            self.width, self._look_at = 1, float("inf")
        elif now_s >= self._look_at:
            self._look_s = min(self._look_s * 2, LAST_LOOK_S)
            self._look_at = now_s + self._look_s
