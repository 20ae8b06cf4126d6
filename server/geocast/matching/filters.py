"""What subscribers want to see, as columns: which filters let an alert through is one array expression.

Many sessions have few different filters. So equal filters share a number, and the hub keeps a number for each session;
for an alert it is enough to ask each number once. Number 0 lets everything pass. No filter holds back an extreme alert
(R7).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..model.alert import EXTREME


class Filter(NamedTuple):
    """What one subscriber wants to see: an alert has to pass both parts.

    `categories`: the keys of the policy's categories, None for all; `min_rank`: the least severity as a rank, 0 for
    all. `languages` holds nothing back: they say which text is sent (LA3), the most wanted first, as
    `languages.understood` gives them.
    """

    categories: frozenset[str] | None = None
    min_rank: int = 0
    languages: tuple[str, ...] = ()

    def passes(self, category: str, rank: int) -> bool:
        """Whether an alert of this category and severity may be seen through it."""
        if rank == EXTREME:
            return True
        return rank >= self.min_rank and (self.categories is None or category in self.categories)


EVERYTHING = Filter()


class Filters:
    """The different filters that are in use, each with a number. A number that nobody uses any more is used again."""

    def __init__(self) -> None:
        self._numbers = {EVERYTHING: 0}
        self._filters: list[Filter] = [EVERYTHING]
        self._uses = [1]  # by number; one use more than there is for number 0, so that it is never freed
        self._free: list[int] = []
        self._min_rank = np.zeros(64, np.int8)
        self._wants: dict[str, NDArray[np.bool_]] = {}  # category of an alert so far -> by number, whether it is wanted

    def take(self, wanted: Filter) -> int:
        """The number of this filter, for one session more. `give_back` follows when the session has another or ends."""
        number = self._numbers.get(wanted)
        if number is None:
            number = self._add(wanted)
        self._uses[number] += 1
        return number

    def give_back(self, number: int) -> None:
        """One session less uses this number. The last one frees it."""
        self._uses[number] -= 1
        if self._uses[number] == 0:
            del self._numbers[self._filters[number]]
            self._filters[number] = EVERYTHING  # the number waits for another; a filter's categories can take 6 KB
            self._free.append(number)

    def __getitem__(self, number: int) -> Filter:
        return self._filters[number]

    def passing(self, category: str, rank: int) -> NDArray[np.bool_]:
        """For each number, whether that filter lets an alert of this category and severity (a rank) through."""
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
