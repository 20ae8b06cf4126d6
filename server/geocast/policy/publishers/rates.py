"""How often each publisher has published of late, on this node (PG2).

Of each the times are kept, so that "30 in a minute" means any minute. A number that refills would let twice as many
through in the first.
"""

import math
from collections import deque
from collections.abc import Hashable, Sequence

from ...model import problems
from ...model.problems import Problem
from .bounds import Rate

KEPT_S = 3600.0  # the longest stretch of a rate


class Rates:
    """The times at which each was counted in. They are monotonic, in seconds."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, deque[float]] = {}
        self._swept_s = float("-inf")

    def take(self, key: Hashable, rates: Sequence[Rate], now_s: float) -> float:
        """Count one in. Or say for how many seconds none may be, and count nothing; 0: it is counted."""
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
        """Count one in. Raises Problem (429), which says for how many seconds none may be."""
        if wait_s := self.take(key, rates, now_s):
            after_s = math.ceil(wait_s)
            raise Problem.later(
                problems.RATE_LIMITED, after_s, f"The next one may be in {after_s} s. Nothing was stored."
            )

    def give_back(self, key: Hashable, taken_s: float) -> None:
        """Count one out again that was counted in then, and came to nothing."""
        taken = self._taken.get(key)
        if taken is not None and taken_s in taken:
            taken.remove(taken_s)

    def _sweep(self, now_s: float) -> None:
        """Forget those who have not been here for an hour, once an hour."""
        if now_s - self._swept_s >= KEPT_S:
            self._swept_s = now_s
            self._taken = {key: taken for key, taken in self._taken.items() if taken and taken[-1] > now_s - KEPT_S}
