"""A limit on the processor time that strangers' requests may take (rule FA7).

Work is done in steps of at most STEP_S, one step at a time. After a step, no other begins for RESTS times as long, so
that the process has three quarters of its time for everything else. Requests wait for their turn in order.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from ..api.responses import RETRY_AFTER_S
from ..model import problems
from ..model.problems import Problem

STEP_S = 0.003
RESTS = 3
MOST_S = 2.0  # how long a request may wait for its turn, and how long its turn may last


class Share:
    """Gives requests their turns, which take at most a quarter of the process's time together."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._began = self._next = 0.0  # when the current step began; when the next one may begin (monotonic, seconds)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it while the block runs. Raise Problem (503) if it takes too long."""
        busy = Problem.later(problems.BUSY, RETRY_AFTER_S)
        try:
            # Answers to a flood must not all be due at the same moment.
            async with asyncio.timeout(MOST_S * random.uniform(0.5, 1)):  # noqa: S311 (not a secret)
                await self._turn.acquire()
        except TimeoutError:
            raise busy from None
        try:
            async with asyncio.timeout(MOST_S):
                await self._rest()
                yield
        except TimeoutError:
            raise busy from None
        finally:
            self._end()
            self._turn.release()

    async def step(self) -> None:
        """Rest if the current step has lasted STEP_S. Call this at least after each millisecond of work."""
        if self._now() - self._began >= STEP_S:
            self._end()
            await self._rest()

    def _end(self) -> None:
        now = self._now()
        self._next = max(self._next, now + RESTS * (now - self._began))

    async def _rest(self) -> None:
        await self._sleep(max(0.0, self._next - self._now()))
        self._began = self._now()
