"""Waiting for keys that were published a moment ago: whoever shows a token of an unknown key waits for the next set.

It can't be used to hold anything up: the set is fetched at most once in a while, however often it is asked for
(`run/key_source.py`); a wait ends with the fetch, and after WAIT_S at the latest; and only so many may wait. All others
are refused at once, as they are where keys are in a file.
"""

import asyncio
from collections.abc import Callable

WAIT_S = 5.0
MAX_WAITING = 256  # of a process: a `hello` that waits may have 64 KiB


class NewerKeys:
    """Those in this process who wait. `ask` has the set fetched, or says `settle` at once if that can't be now."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._waiting: list[Callable[[], None]] = []
        self._deadline: asyncio.TimerHandle | None = None

    def wait(self, then: Callable[[], None]) -> bool:
        """Have `then` called when it is known whether there are newer keys. False if too many wait already."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(then)
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(WAIT_S, self.settle)
            asyncio.get_running_loop().call_soon(self._ask)
        return True

    async def waited(self) -> None:
        """Return when it is known whether there are newer keys, or at once if too many wait already."""
        known = asyncio.Event()
        if self.wait(known.set):
            await known.wait()

    def settle(self) -> None:
        """There are newer keys in force, or there are none: let all who wait go on."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()
