"""Work that takes milliseconds, in threads beside the loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

THREADS = 4  # at work at a time; with more, each would only wait for its turn of the interpreter

_T = TypeVar("_T")


class Threads:
    """Does what it is given in a thread, THREADS at a time: the loop goes on meanwhile."""

    def __init__(self) -> None:
        """Nothing is started before there is work."""
        self._free = asyncio.Semaphore(THREADS)

    async def __call__(self, work: Callable[[], _T], /) -> _T:
        """What the work comes to; what it raises."""
        async with self._free:
            return await asyncio.to_thread(work)
