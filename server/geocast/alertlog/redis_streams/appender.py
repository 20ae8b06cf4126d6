"""The queue of appends: appends that wait for a connection share one script and one wait for the disk.

Example: 500 requests come in at once, and one script stores all their entries. While it waits for the disk, up to three
other scripts store entries that come in later. Entries that come in while all four scripts wait are sent together as
soon as one of the four is done.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...model.errors import LogUnavailable, trace
from ...storage.redis.durable import WRITE_S
from .stored import Stored
from .writer import Writer

logger = logging.getLogger(__name__)

AGAIN_S = 0.1  # the time between two attempts to send a batch
APPENDERS = 4  # how many scripts with appends may run at once; while one waits for the disk, others are sent
MAX_WAITING = 10_000  # when so many appends are in the queue, further appends raise LogUnavailable
MAX_SCRIPT = 500  # the largest number of entries that one script stores


@dataclass(slots=True)
class _Waiting:
    """An append that has not been answered yet.

    `token` is random and identifies the append if it is sent again. `future` gets the result: whether the entry was
    stored. `deadline` is in seconds of the monotonic clock.
    """

    stored: Stored
    token: str
    future: "asyncio.Future[bool]"
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
        self._queue: list[_Waiting] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def append(self, stored: Stored) -> bool:
        """Store the entry and return True once it is durable, or return False if its number is not the next one.

        Raise LogUnavailable if the log can't be used now, the queue is full, or the entry is not durable within
        WRITE_S seconds.
        """
        if problem := self._problem():
            raise LogUnavailable(problem)
        if len(self._queue) >= MAX_WAITING:
            raise LogUnavailable("too many appends are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._queue.append(_Waiting(stored, uuid.uuid4().hex, future, time.monotonic() + WRITE_S))
        if len(self._sending) < APPENDERS:
            task = loop.create_task(self._send_all())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        try:
            async with asyncio.timeout(WRITE_S):
                # If the caller is cancelled because its client has disconnected, the entry is still stored.
                return await asyncio.shield(future)
        except TimeoutError:
            raise LogUnavailable(f"not stored within {WRITE_S:g} s") from None

    async def finish(self) -> None:
        """Wait until all appends in the queue have been answered."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def _send_all(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:MAX_SCRIPT], self._queue[MAX_SCRIPT:]
            try:
                stored = await self._send(batch)
            except Exception as error:
                failure = error if isinstance(error, LogUnavailable) else LogUnavailable(type(error).__name__)
                if failure is not error:
                    logger.error("an append to the log met an unexpected error: %s", trace(error))
                for waiting in batch:
                    waiting.future.set_exception(failure)
                    waiting.future.exception()  # marks the error as retrieved: its caller may have been cancelled
            else:
                for waiting, was_stored in zip(batch, stored, strict=True):
                    waiting.future.set_result(was_stored)

    async def _send(self, batch: Sequence[_Waiting]) -> list[bool]:
        """Send a batch to Redis, repeatedly if necessary. Return for each append whether its entry was stored.

        All attempts use the same tokens. Raise LogUnavailable if Redis does not answer in time.
        Example: Redis stores an entry, and the reply is lost. At the second attempt the script answers `ours`, which
        counts as stored (LogA2).
        """
        deadline = batch[-1].deadline  # the latest; `append` itself gives up an earlier entry in time
        entries = [waiting.stored.arguments(waiting.token, more=False) for waiting in batch]
        while True:
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
