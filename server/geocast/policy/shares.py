"""Shares: how many places of a bounded thing one subject may take (rule HD6).

Rule 1  At most `bound` places of a thing are taken at a time, and at most `most` of them by one subject: a quarter of
        the bound, unless the operator sets another share. A share is at least one place.
Rule 2  A place beyond either number is refused at once, by a Problem (429) with `Retry-After`.
Rule 3  A place is taken by a `with` block, and given back when the block is left, however that happens: an exception
        and a cancelled task included.
Rule 4  A subject without a place takes no memory.
Rule 5  Places that are kept elsewhere, as open calls are in the log, are counted by the caller and passed in. A `with`
        block then covers the moment between counting and storing, so that requests at the same time see each other.
Rule 6  Work that is slow has turns besides: of those that have a place only some are at work, and a share of these for
        each subject. The others wait, in order of arrival among those of their subject, and hold up nobody else.
Rule 7  Requests of one subject begin one by one, at most one in each turn of the loop. Example: a dispatcher sends 16
        calls at once, of 2 ms each. Other connections are served after each of them, not after 32 ms.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from ..config import SHARE
from ..model import problems
from ..model.problems import Problem


def share_of(bound: int, share: float) -> int:
    """Return how many of `bound` places one subject may take."""
    return max(1, int(bound * share))


class Shares:
    """The places of one bounded thing, counted by subject."""

    def __init__(self, things: str, bound: int, share: float = SHARE, retry_after_s: int = 1) -> None:
        """Prepare `bound` places. `things` names them in refusals, in the plural; `share` is above 0, at most 1."""
        self.bound = bound
        self.most = share_of(bound, share)
        self._things = things
        self._retry_after_s = retry_after_s
        self._taken: Counter[Hashable] = Counter()
        self._all = 0

    @contextmanager
    def place(self, subject: Hashable, own_elsewhere: int = 0, all_elsewhere: int = 0) -> Iterator[None]:
        """Hold a place for `subject` while the block runs. Raise Problem (429) if there is none for it."""
        if self._taken[subject] + own_elsewhere >= self.most:
            raise self._refusal(f"Of the {self._things} this token's subject has its share already: {self.most:,}.")
        if self._all + all_elsewhere >= self.bound:
            raise self._refusal(f"Of the {self._things} there are as many as this server takes: {self.bound:,}.")
        self._taken[subject] += 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._taken[subject] -= 1
            if not self._taken[subject]:
                del self._taken[subject]

    def _refusal(self, detail: str) -> Problem:
        return Problem.later(problems.TOO_MANY_REQUESTS, self._retry_after_s, f"{detail} Nothing was stored.")


class Turns:
    """The same for slow work, of which only some is done at a time (Rule 6)."""

    def __init__(self, things: str, bound: int, at_once: int, share: float = SHARE) -> None:
        """Prepare `bound` places, of which `at_once` are at work."""
        self.places = Shares(things, bound, share)
        self._at_once = share_of(at_once, share)
        self._free = asyncio.Semaphore(at_once)
        self._own: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, subject: Hashable) -> AsyncIterator[None]:
        """Wait for a turn of `subject`, and have it while the block runs. Raise Problem (429) if it has no place."""
        with self.places.place(subject):
            own = self._own.get(subject) or asyncio.Semaphore(self._at_once)
            self._own[subject] = own
            async with own, self._free:
                yield


class Starts:
    """The beginnings of requests: one of each subject in a turn of the loop (Rule 7)."""

    def __init__(self) -> None:
        self._own: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def wait(self, subject: Hashable) -> None:
        """Wait until a request of `subject` may begin."""
        own = self._own.get(subject) or asyncio.Lock()
        self._own[subject] = own
        async with own:
            await asyncio.sleep(0)
