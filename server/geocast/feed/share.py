"""A limit on the processor time that strangers' requests may take (rule FA7).

Work is done in steps of at most STEP_S, one step at a time, and everything else has its turn between two steps. A step
is paid for with a rest of RESTS times its length, so that the process has three quarters of its time for everything
else. Up to SPARE_S of these rests are put off until later: a request in a quiet time is answered at once.
Requests wait for their turn in order.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from ..api.responses import RETRY_AFTER_S
from ..model import problems
from ..model.problems import Problem

STEP_S = 0.003
RESTS = 3
SPARE_S = 1.5  # so half a second of work needs no rest, if nobody asked in the 2 s before
MOST_S = 4.0  # how long a request may wait for its turn
LONGEST_S = 8.0  # how long a turn may last: in a flood, 2 s of work


@dataclass(eq=False, repr=False)
class Share:
    """Gives requests their turns, which take at most a quarter of the process's time together."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    worked: Callable[[], float] = time.thread_time  # on a busy machine less than the time that has passed

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()
        self._began = math.inf  # `worked` when the current step began
        self._paid = 0.0  # when the rests of all steps will be over (monotonic, seconds)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it while the block runs. Raise Problem (503) if it takes too long."""
        try:
            # Answers to a flood must not all be due at the same moment.
            async with asyncio.timeout(MOST_S * random.uniform(0.5, 1)):  # noqa: S311 (not a secret)
                await self._turn.acquire()
            try:
                async with asyncio.timeout(LONGEST_S):
                    await self._rest()
                    yield
            finally:
                self._end()
                self._turn.release()
        except TimeoutError:
            raise Problem.later(problems.BUSY, RETRY_AFTER_S) from None

    async def step(self) -> None:
        """Rest if the current step has lasted STEP_S. Call this at least after each millisecond of work."""
        if self.worked() - self._began >= STEP_S:
            self._end()
            await self._rest()

    def _end(self) -> None:
        work_s = max(0.0, self.worked() - self._began)
        self._paid = max(self._paid, self.now() - work_s) + (1 + RESTS) * work_s

    async def _rest(self) -> None:
        self._began = math.inf  # what others do meanwhile is not counted, even if this is cancelled
        await self.sleep(max(0.0, self._paid - SPARE_S - self.now()))
        self._began = self.worked()
