"""Shares: limits on how much of a resource one subject may use, for instance of the requests in progress (rule HD6).

A *subject* is a client, usually identified by its token's issuer and `sub`. A resource has a number of *places*.

Rule 1  At most `bound` places are taken at a time, and at most `most` of them by one subject. This is the subject's
        *share*: a quarter of `bound`, unless the operator configures another fraction, but at least one place.
Rule 2  A request for a place that would exceed one of these numbers is refused at once, by a Problem (429) with
        `Retry-After`.
Rule 3  A place is taken for the duration of a `with` block. It is given back when the block ends, even if it ends by an
        exception or because the task is cancelled.
Rule 4  A subject without a place takes no memory.
Rule 5  Places that are stored elsewhere, such as open calls in the log, are counted by the caller and passed in. The
        `with` block covers the time between counting and storing. Example: a subject may have 250 open calls and has
        249. It sends two requests at the same time. For both, 249 calls are counted in the log. But the first request
        has a place here while its call is stored, so the second one is refused.
Rule 6  Slow work also has turns: only some of the requests with a place are processed at a time, and only a part of
        these for one subject. The other requests wait. Those of one subject are processed in order of arrival. A
        subject with a long queue does not delay the requests of other subjects.
Rule 7  Requests of one subject start one by one, at most one in each iteration of the event loop. Example: a dispatcher
        sends 16 requests at once, of 2 ms each. Other connections are served after each request, not after 32 ms.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

from ..model import problems
from ..model.problems import Problem


def share_of(bound: int, share: float) -> int:
    """Return how many of `bound` places one client may take: the fraction `share` of them, but at least one."""
    return max(1, int(bound * share))


class Shares:
    """Limits how much of a resource is used at a time: in total, and by each subject.

    A subject is a client. A resource has a number of places; a place is, for instance, one request in progress.
    """

    def __init__(self, things: str, bound: int, share: float, retry_after_s: int = 1) -> None:
        """Prepare `bound` places, all of them free.

        One subject may take the fraction `share` of them (above 0, at most 1). `things` is the plural noun that error
        texts use for the places. `retry_after_s` is the number of seconds after which a refused client may try again.
        """
        self.bound = bound
        self.most = share_of(bound, share)
        self._things = things
        self._retry_after_s = retry_after_s
        self._taken: Counter[Hashable] = Counter()
        self._all = 0

    @contextmanager
    def place(self, subject: Hashable, own_elsewhere: int = 0, all_elsewhere: int = 0) -> Iterator[None]:
        """Take a place for `subject` for the duration of a `with` block.

        Raise Problem (429) if the subject, or all subjects together, may take no more. Places that are recorded
        elsewhere count, too (Rule 5): the subject has `own_elsewhere` of them, and all subjects together have
        `all_elsewhere`.
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
    """Limits how many requests with slow work are accepted, and how many of them are processed at a time (Rule 6).

    An accepted request first takes a place, and then waits for its turn to be processed.
    """

    def __init__(self, things: str, bound: int, at_once: int, share: float) -> None:
        """Prepare `bound` places for requests. At most `at_once` of the requests are processed at the same time.

        One subject (client) may use the fraction `share` of both numbers. `things` is the plural noun that error texts
        use for the requests.
        """
        self.places = Shares(things, bound, share)
        self._at_once = share_of(at_once, share)
        self._free = asyncio.Semaphore(at_once)
        self._own: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, subject: Hashable, pause: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[None]:
        """Wait until a request of `subject` may be processed. Its turn lasts for the duration of a `with` block.

        Raise Problem (429) if the subject, or all subjects together, may have no more requests. `pause` is awaited just
        before the turn; further requests of the subject wait meanwhile.
        """
        with self.places.place(subject):
            own = self._own.get(subject) or asyncio.Semaphore(self._at_once)
            self._own[subject] = own
            async with own:
                if pause is not None:
                    await pause()  # before taking a turn, so that other subjects can use the turn meanwhile
                async with self._free:
                    yield


class Starts:
    """Spreads the starts of requests over time.

    In each iteration of the event loop, at most one request of each subject (client) starts (Rule 7).
    """

    def __init__(self) -> None:
        self._own: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def wait(self, subject: Hashable) -> None:
        """Wait until the next request of `subject` may start."""
        own = self._own.get(subject) or asyncio.Lock()
        self._own[subject] = own
        async with own:
            await asyncio.sleep(0)
