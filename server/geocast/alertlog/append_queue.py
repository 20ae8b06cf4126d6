"""The queue of appends: those that come in while others are being stored are stored together, as the next batch.

Example: ten requests come in while the disk syncs a batch for 5 ms. Their entries wait, and the next batch has all of
them. So each of the ten requests waits for at most two syncs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ..model.errors import LogUnavailable, trace

logger = logging.getLogger(__name__)

MAX_WAITING = 10_000  # when so many appends are in the queue, further appends raise LogUnavailable
MAX_BATCH = 500  # the largest number of appends that are stored together

_Append = TypeVar("_Append")


class AppendQueue(Generic[_Append]):
    """Appends that wait to be stored, and the tasks that store them in batches."""

    def __init__(self, store: Callable[[Sequence[_Append]], Awaitable[Sequence[bool]]], tasks: int = 1) -> None:
        """Create an empty queue.

        `store` stores a batch of appends. It returns for each of them whether it was stored, or raises LogUnavailable.
        Up to `tasks` batches are stored at once.
        """
        self._store = store
        self._most = tasks
        self._queue: list[tuple[_Append, asyncio.Future[bool]]] = []
        self._tasks: list[asyncio.Task[None]] = []  # some of them may be done

    async def append(self, append: _Append) -> bool:
        """Return whether this append was stored. Raise LogUnavailable if the queue is full or its batch fails."""
        if len(self._queue) >= MAX_WAITING:
            raise LogUnavailable("too many appends are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._queue.append((append, future))
        self._tasks = self._busy()
        if len(self._tasks) < self._most:
            self._tasks.append(loop.create_task(self._store_all()))
        # If the caller is cancelled because its client has disconnected, the entry is still stored.
        return await asyncio.shield(future)

    async def finish(self) -> None:
        """Wait until all appends in the queue have been answered."""
        while busy := self._busy():
            await asyncio.wait(busy)

    def _busy(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks if not task.done()]

    async def _store_all(self) -> None:
        """Store batches from the queue until it is empty."""
        while self._queue:
            batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
            try:
                stored = await self._store([append for append, _ in batch])
            except Exception as error:
                failure = error if isinstance(error, LogUnavailable) else LogUnavailable(type(error).__name__)
                if failure is not error:
                    logger.error("an append to the log met an unexpected error: %s", trace(error))
                for _, future in batch:
                    future.set_exception(failure)
                    future.exception()  # marks the error as retrieved, because the caller may have been cancelled
            else:
                for (_, future), was_stored in zip(batch, stored, strict=True):
                    future.set_result(was_stored)
