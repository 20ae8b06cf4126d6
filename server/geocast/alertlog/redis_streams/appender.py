"""Appends: those that wait for a connection share one script and one wait for the disk."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...errors import LogUnavailable
from .stored import Stored
from .writer import APPEND_S, Writer

AGAIN_S = 0.1  # between attempts of an append
APPENDERS = 4  # scripts with appends under way at once; while one waits to be synced, others are sent
MAX_WAITING = 10_000  # appends in the queue; when there are more, the log is unavailable
MAX_SCRIPT = 500  # entries that one script stores


@dataclass(slots=True)
class _Waiting:
    """An append that waits to be sent."""

    stored: Stored
    token: str
    future: "asyncio.Future[bool]"
    deadline: float


class Appender:
    """The queue of appends, and the few scripts that store what waits in it."""

    def __init__(self, writer: Writer, problem: Callable[[], str | None], keep: Callable[[Stored], None]) -> None:
        """`problem`: why nothing can be appended now; `keep`: is told what was stored."""
        self._writer = writer
        self._problem = problem
        self._keep = keep
        self._queue: list[_Waiting] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def append(self, stored: Stored) -> bool:
        """Store it if its number is the next one; durable when this returns. Raises LogUnavailable."""
        if problem := self._problem():
            raise LogUnavailable(problem)
        if len(self._queue) >= MAX_WAITING:
            raise LogUnavailable("too many appends are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._queue.append(_Waiting(stored, uuid.uuid4().hex, future, time.monotonic() + APPEND_S))
        if len(self._sending) < APPENDERS:
            task = loop.create_task(self._send_all())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        try:
            async with asyncio.timeout(APPEND_S):
                # Whoever posted may go away: what is in the queue is stored all the same, so it is not cancelled.
                return await asyncio.shield(future)
        except TimeoutError:
            raise LogUnavailable(f"not stored within {APPEND_S:g} s") from None

    async def finish(self) -> None:
        """Return when nothing waits any more."""
        if self._sending:
            await asyncio.wait(self._sending)

    async def _send_all(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:MAX_SCRIPT], self._queue[MAX_SCRIPT:]
            try:
                stored = await self._send(batch)
            except Exception as error:
                failure = error if isinstance(error, LogUnavailable) else LogUnavailable(type(error).__name__)
                for waiting in batch:
                    waiting.future.set_exception(failure)
                    waiting.future.exception()  # if nobody waits any more, asyncio would warn that nobody looked
            else:
                for waiting, was_stored in zip(batch, stored, strict=True):
                    waiting.future.set_result(was_stored)

    async def _send(self, batch: Sequence[_Waiting]) -> list[bool]:
        """Send appends until Redis answers."""
        deadline = batch[0].deadline
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
