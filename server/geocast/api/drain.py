"""The orderly shutdown of a listener: refuse new requests and stop waiting for unfinished bodies (rule HD3)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Drain:
    """The state of a listener's shutdown. It limits all waits for request bodies."""

    def __init__(self) -> None:
        """Create the state of a listener that is not shutting down."""
        self.begun = False
        self._awaited: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """Begin the shutdown. All waits for request bodies end immediately."""
        self.begun = True
        for awaited in self._awaited:
            awaited.reschedule(0)

    @asynccontextmanager
    async def waiting(self, seconds: float) -> AsyncIterator[None]:
        """Limit how long the body of a `with` statement may wait for the body of a request.

        Raise TimeoutError after `seconds`, or as soon as the shutdown begins.
        """
        async with asyncio.timeout(0 if self.begun else seconds) as awaited:
            self._awaited.add(awaited)
            try:
                yield
            finally:
                self._awaited.discard(awaited)
