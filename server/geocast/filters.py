"""What subscribers want to see, as columns: which filters let an alert through is one array expression.

Equal filters share a number; number 0 lets everything pass. A filter never holds back an extreme alert.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .alert import EXTREME


class Filter(NamedTuple):
    """`categories` to see (None: all), and the least severity, as a rank (0: all). Both have to pass."""

    categories: frozenset[str] | None = None
    min_rank: int = 0

    def passes(self, category: str, rank: int) -> bool:
        """Whether an alert of this category and severity may be seen through it."""
        if rank == EXTREME:
            return True
        return rank >= self.min_rank and (self.categories is None or category in self.categories)


EVERYTHING = Filter()


class Filters:
    """The distinct filters in use, each with a number."""

    def __init__(self) -> None:
        self._numbers = {EVERYTHING: 0}
        self._filters: list[Filter] = [EVERYTHING]
        self._uses = [1]  # the first is never given back
        self._free: list[int] = []
        self._min_rank = np.zeros(64, np.int8)
        self._wants: dict[str, NDArray[np.bool_]] = {}  # category seen so far -> per filter: is it wanted?

    def take(self, wanted: Filter) -> int:
        """The number of `wanted`, one use more of it."""
        number = self._numbers.get(wanted)
        if number is None:
            number = self._add(wanted)
        self._uses[number] += 1
        return number

    def give_back(self, number: int) -> None:
        """One use less."""
        self._uses[number] -= 1
        if self._uses[number] == 0:
            del self._numbers[self._filters[number]]
            self._filters[number] = EVERYTHING  # the number waits for another; a filter's categories can take 6 KB
            self._free.append(number)

    def __getitem__(self, number: int) -> Filter:
        return self._filters[number]

    def passing(self, category: str, rank: int) -> NDArray[np.bool_]:
        """Per filter number: whether it lets an alert of this category and severity through."""
        n = len(self._filters)
        if rank == EXTREME:
            return np.ones(n, np.bool_)
        wants = self._wants.get(category)
        if wants is None:
            wants = self._wants[category] = np.zeros(len(self._min_rank), np.bool_)
            wants[:n] = [_wants(wanted, category) for wanted in self._filters]
        return wants[:n] & (self._min_rank[:n] <= rank)

    def _add(self, wanted: Filter) -> int:
        if self._free:
            number = self._free.pop()
            self._filters[number] = wanted
        else:
            number = len(self._filters)
            self._filters.append(wanted)
            self._uses.append(0)
            if number == len(self._min_rank):
                self._grow()
        self._numbers[wanted] = number
        self._min_rank[number] = wanted.min_rank
        for category, wants in self._wants.items():
            wants[number] = _wants(wanted, category)
        return number

    def _grow(self) -> None:
        self._min_rank = np.concatenate([self._min_rank, np.zeros_like(self._min_rank)])
        self._wants = {c: np.concatenate([w, np.zeros_like(w)]) for c, w in self._wants.items()}


def _wants(wanted: Filter, category: str) -> bool:
    return wanted.categories is None or category in wanted.categories
