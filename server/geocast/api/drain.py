"""The end of a listener: new requests are refused, and bodies that have not arrived are given up (rule HD3)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Drain:
    """Whether a listener is going away, and the bodies that it still waits for."""

    def __init__(self) -> None:
        """Begin as a listener that stays."""
        self.begun = False
        self._awaited: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """Go away: end the wait for each body at once."""
        self.begun = True
        for awaited in self._awaited:
            awaited.reschedule(0)

    @asynccontextmanager
    async def waiting(self, seconds: float) -> AsyncIterator[None]:
        """Wait for a body in this block. Raise TimeoutError after `seconds`, or when the listener goes away."""
        async with asyncio.timeout(0 if self.begun else seconds) as awaited:
            self._awaited.add(awaited)
            try:
                yield
            finally:
                self._awaited.discard(awaited)
