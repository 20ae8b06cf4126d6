"""Shares: how many places of a bounded resource, such as requests under way, one subject may take (rule HD6).

Rule 1  At most `bound` places are taken at a time, and at most `most` of them by one subject: a quarter of the bound,
        unless the operator sets another share. A share is at least one place.
Rule 2  A request for a place beyond either number is refused at once, by a Problem (429) with `Retry-After`.
Rule 3  A place is taken by a `with` block. It is given back when the block ends, also by an exception or because the
        task is cancelled.
Rule 4  A subject without a place takes no memory.
Rule 5  Places that are stored elsewhere, such as open calls in the log, are counted by the caller and passed in. The
        `with` block covers the time between counting and storing. Example: a subject may have 250 open calls and has
        249. It sends two requests at the same time. Both count 249 in the log, but the first holds a place here while
        it is stored, so the second is refused.
Rule 6  Slow work also has turns: only some of the requests with a place are worked on at a time, and only a share of
        them for one subject. The others wait, in order of arrival within their subject. A subject with a long queue
        does not delay the requests of others.
Rule 7  Requests of one subject start one by one, at most one in each turn of the loop. Example: a dispatcher sends 16
        calls at once, of 2 ms each. Other connections are served after each of them, not after 32 ms.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from ..config import SHARE
from ..model import problems
from ..model.problems import Problem


def share_of(bound: int, share: float) -> int:
    """Return how many of `bound` places one subject may take: at least one."""
    return max(1, int(bound * share))


class Shares:
    """The places of one bounded resource, counted by subject."""

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
        """Hold a place for `subject` while the block runs. Raise Problem (429) if there is none for it.

        `own_elsewhere` and `all_elsewhere` are the numbers of places that are stored elsewhere (Rule 5): those of the
        subject and those of all subjects.
        """
        if self._taken[subject] + own_elsewhere >= self.most:
            raise self._refusal(f"This token's subject has its share of the {self._things} already: {self.most:,}.")
        if self._all + all_elsewhere >= self.bound:
            raise self._refusal(f"This server has as many {self._things} as it takes: {self.bound:,}.")
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
    """The places of slow work; only a part of the requests with a place is worked on at a time (Rule 6)."""

    def __init__(self, things: str, bound: int, at_once: int, share: float = SHARE) -> None:
        """Prepare `bound` places and `at_once` turns. `things` names the places in refusals, in the plural."""
        self.places = Shares(things, bound, share)
        self._at_once = share_of(at_once, share)
        self._free = asyncio.Semaphore(at_once)
        self._own: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, subject: Hashable, pause: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[None]:
        """Wait for a turn for `subject`, and hold it while the block runs. Raise Problem (429) if there is no place.

        `pause` is awaited before the turn, while the subject's other work waits, too.
        """
        with self.places.place(subject):
            own = self._own.get(subject) or asyncio.Semaphore(self._at_once)
            self._own[subject] = own
            async with own:
                if pause is not None:
                    await pause()  # without a turn, so that the turn is free for other subjects
                async with self._free:
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
