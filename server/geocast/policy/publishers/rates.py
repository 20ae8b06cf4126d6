"""Limits how often each publisher may publish on this node (rule PG2).

The times of the last hour are stored for each publisher, so that "30 in a minute" is true for every window of a minute.
A token bucket, which refills while it is used, would allow up to twice as many in its first minute.
"""

import math
from collections import deque
from collections.abc import Hashable, Sequence

from ...model import problems
from ...model.problems import Problem
from .bounds import Rate

KEPT_S = 3600.0  # the longest window of a rate


class Rates:
    """Remembers when recent requests came, and refuses a request if there were too many.

    Requests are counted by key; a key stands for a publisher. Times are in seconds of the monotonic clock. A rate is
    the largest number of requests in a window of time.
    """

    def __init__(self) -> None:
        self._taken: dict[Hashable, deque[float]] = {}
        self._swept_s = float("-inf")

    def take(self, key: Hashable, rates: Sequence[Rate], now_s: float) -> float:
        """Record one request with the key `key` and return 0, unless one of the rates is used up.

        If one is used up, record nothing, and return the number of seconds to wait.
        """
        self._sweep(now_s)
        taken = self._taken.setdefault(key, deque())
        while taken and taken[0] <= now_s - KEPT_S:
            taken.popleft()
        waits = [taken[-rate.number] + rate.within_s - now_s for rate in rates if len(taken) >= rate.number]
        wait_s = max(0.0, *waits) if waits else 0.0
        if not wait_s:
            taken.append(now_s)
        return wait_s

    def claim(self, key: Hashable, rates: Sequence[Rate], now_s: float) -> None:
        """Record one request with the key `key`. Raise Problem (429) if one of the rates is used up.

        The problem's text has the number of seconds to wait.
        """
        if wait_s := self.take(key, rates, now_s):
            after_s = math.ceil(wait_s)
            raise Problem.later(
                problems.RATE_LIMITED, after_s, f"The next one is allowed in {after_s} s. Nothing was stored."
            )

    def give_back(self, key: Hashable, taken_s: float) -> None:
        """Remove the record of a request that failed, so that it does not count.

        It was recorded at the time `taken_s`.
        """
        taken = self._taken.get(key)
        if taken is not None and taken_s in taken:
            taken.remove(taken_s)

    def _sweep(self, now_s: float) -> None:
        """Remove all keys without a request in the last hour. Do this at most once per hour."""
        if now_s - self._swept_s >= KEPT_S:
            self._swept_s = now_s
            self._taken = {key: taken for key, taken in self._taken.items() if taken and taken[-1] > now_s - KEPT_S}
