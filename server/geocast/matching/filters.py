"""The filters of subscribers, stored in arrays, so that one expression finds all filters that an alert passes.

Many sessions share a few different filters. So each different filter has a number, the hub stores one number for each
session, and each alert is compared once with each filter. Every alert passes the filter with the number 0. An alert of
severity extreme passes every filter (rule R7).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..model.alert import EXTREME


class Filter(NamedTuple):
    """The filter of one subscriber: the alerts that the subscriber wants to be sent.

    An alert must match both `categories` and `min_rank`. `categories` are keys of the policy's categories; None for
    all. `min_rank` is the rank (the severity as a number) of the lowest severity that is wanted; 0 for all. `languages`
    do not filter: they decide which text is sent (rule LA3). They are the result of `languages.understood`, the most
    wanted first.
    """

    categories: frozenset[str] | None = None
    min_rank: int = 0
    languages: tuple[str, ...] = ()

    def passes(self, category: str, rank: int) -> bool:
        """Return whether an alert of this category and rank (its severity as a number) passes the filter."""
        return rank == EXTREME or (rank >= self.min_rank and _wants(self, category))


EVERYTHING = Filter()


class Filters:
    """The distinct filters in use.

    Each has a number, and sessions store this number instead of the filter. When a filter is no longer used, its number
    becomes free for a new filter.
    """

    def __init__(self) -> None:
        self._numbers = {EVERYTHING: 0}
        self._filters: list[Filter] = [EVERYTHING]
        self._uses = [1]  # by number; number 0 is counted once more, so that it is never freed
        self._free: list[int] = []
        self._min_rank = np.zeros(64, np.int8)
        # By category: for each filter number, whether the filter wants the category.
        self._wants: dict[str, NDArray[np.bool_]] = {}

    def take(self, wanted: Filter) -> int:
        """Return the number of this filter, and record that it has one more user.

        The caller must call `give_back` when the session gets another filter or ends.
        """
        number = self._numbers.get(wanted)
        if number is None:
            number = self._add(wanted)
        self._uses[number] += 1
        return number

    def give_back(self, number: int) -> None:
        """Record that one user of the filter with this number has stopped using it.

        When nobody uses the filter any more, the number becomes free for a new filter.
        """
        self._uses[number] -= 1
        if self._uses[number] == 0:
            del self._numbers[self._filters[number]]
            self._filters[number] = EVERYTHING  # drop the filter, whose categories can take 6 KB
            self._free.append(number)

    def __getitem__(self, number: int) -> Filter:
        return self._filters[number]

    def passing(self, category: str, rank: int) -> NDArray[np.bool_]:
        """Return an array of bool, with one value for each filter number: whether the filter lets an alert through.

        `category` and `rank` (the severity as a number) describe the alert.
        """
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
                self._min_rank = np.concatenate([self._min_rank, np.zeros_like(self._min_rank)])
                self._wants = {c: np.concatenate([w, np.zeros_like(w)]) for c, w in self._wants.items()}
        self._numbers[wanted] = number
        self._min_rank[number] = wanted.min_rank
        for category, wants in self._wants.items():
            wants[number] = _wants(wanted, category)
        return number


def _wants(wanted: Filter, category: str) -> bool:
    return wanted.categories is None or category in wanted.categories
