"""Appends to the log in Redis: batches of them share one script and one wait for the disk.

Example: 500 requests come in at once, and one script stores all their entries. While it waits for the disk, up to three
other scripts store entries that come in later. Entries that come in while all four scripts wait are sent together as
soon as one of the four is done.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...model.errors import LogUnavailable
from ...storage.redis.durable import WRITE_S
from ..append_queue import AppendQueue
from .stored import Stored
from .writer import Writer

AGAIN_S = 0.1  # the time between two attempts to send a batch
APPENDERS = 4  # how many scripts with appends may run at once; while one waits for the disk, others are sent


class _Waiting(NamedTuple):
    """An append that has not been answered yet.

    `token` is random, and the same in each attempt. `deadline` is in seconds of the monotonic clock.
    """

    stored: Stored
    token: str
    deadline: float


class Appender:
    """Queues appends, and sends them to Redis in batches, from up to APPENDERS tasks at once."""

    def __init__(self, writer: Writer, problem: Callable[[], str | None], keep: Callable[[Stored], None]) -> None:
        """Create an empty queue, whose appends are sent to Redis through `writer`.

        `problem` is a function that returns the reason why nothing can be appended now, or None. `keep` is called with
        each stored entry, to keep a copy in memory.
        """
        self._writer = writer
        self._problem = problem
        self._keep = keep
        self._queue = AppendQueue(self._send, APPENDERS)

    async def append(self, stored: Stored) -> bool:
        """Store the entry and return True once it is durable, or return False if its number is not the next one.

        Raise LogUnavailable if the log can't be used now, the queue is full, or the entry is not durable within
        WRITE_S seconds.
        """
        if problem := self._problem():
            raise LogUnavailable(problem)
        waiting = _Waiting(stored, uuid.uuid4().hex, time.monotonic() + WRITE_S)
        try:
            async with asyncio.timeout(WRITE_S):
                return await self._queue.append(waiting)
        except TimeoutError:
            raise LogUnavailable(f"not stored within {WRITE_S:g} s") from None

    async def finish(self) -> None:
        """Wait until all appends in the queue have been answered."""
        await self._queue.finish()

    async def _send(self, batch: Sequence[_Waiting]) -> list[bool]:
        """Send a batch to Redis, repeatedly if necessary. Return for each append whether its entry was stored.

        Each attempt has its number behind the tokens: after a failover it may store the entry in another history,
        where followers must not take it for the one that they have read. Raise LogUnavailable if Redis does not answer
        in time.
        Example: Redis stores an entry, and the reply is lost. At the second attempt the script answers `ours`, which
        counts as stored (LogA2).
        """
        deadline = batch[-1].deadline  # the latest; `append` itself gives up an earlier entry in time
        attempt = 0
        while True:
            attempt += 1
            entries = [waiting.stored.arguments(f"{waiting.token}-{attempt}", more=False) for waiting in batch]
            try:
                answers = await self._writer.store(entries, max(0.0, deadline - time.monotonic()))
            except LogUnavailable:
                if self._problem() is not None or time.monotonic() + AGAIN_S >= deadline:
                    raise
                await asyncio.sleep(AGAIN_S)
                continue
            stored = [answer[0] in (b"stored", b"ours") for answer in answers]
            for waiting, was_stored in zip(batch, stored, strict=True):
                if was_stored:
                    self._keep(waiting.stored)
            return stored
