"""Work that takes milliseconds, in threads beside the loop, with a share for each subject (rule HD6)."""

import asyncio
from collections.abc import Callable, Hashable
from typing import TypeVar

from ..config import SHARE
from ..shares import Turns

THREADS = 4  # at work at a time; with more, each would only wait for its turn of the interpreter
MAX_WORKS = 64  # at work, or waiting for a thread

_T = TypeVar("_T")


class Threads:
    """Does the work that it is given in a thread, THREADS at a time: the loop goes on meanwhile."""

    def __init__(self, share: float = SHARE) -> None:
        """Start nothing before there is work. `share`: the part of the threads that one subject may have."""
        self._turns = Turns("requests that are worked out beside the others", MAX_WORKS, THREADS, share)

    async def __call__(self, work: Callable[[], _T], subject: Hashable, /) -> _T:
        """Return what `work` returns, and raise what it raises; or a Problem (429) if `subject` has its share."""
        async with self._turns.turn(subject):
            return await asyncio.to_thread(work)
