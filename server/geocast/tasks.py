"""Supervision of the long-running tasks of a process: none of them ends unnoticed.

`running` starts each task under a name. If a task raises, or returns although it should not, this is logged and
counted, and the task starts again after FIRST_WAIT_S, doubling to LAST_WAIT_S. After TOLERATED failures in a row,
`unready` names the task until it works again. So what is started has to be able to start again: it keeps its state
elsewhere, and does first what a failure has interrupted.

A *part* of a process, such as the reader of the log, has tasks, metrics and reasons why it is not ready.

Tasks that run once, and callbacks of the event loop, are not started here. `watch_loop` logs and counts their failures.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from prometheus_client.core import Metric

from .model.errors import trace
from .model.times import backoff_s

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[Any]]

FIRST_WAIT_S, LAST_WAIT_S = 0.1, 30.0
TOLERATED = 3  # number of failures in a row from which the process is not ready
STEADY_S = 10.0  # a task that has run for this long since its last start works again, if it did not say so before
CANCEL_AGAIN_S = 10.0  # if a task has not ended after this time, it is cancelled again

failures: dict[str, int] = {}  # the name of each task that was started -> its failures since the start of the process
_running: set["_Task"] = set()
_own: ContextVar["_Task"] = ContextVar("_own")


class _Task:
    """A supervised task: what it does, and how it went lately."""

    def __init__(self, name: str, work: Work) -> None:
        self.name, self._work = name, work
        self.in_a_row = 0  # number of failures since it last worked
        self.error = ""  # type of the last failure
        self.says = False  # whether the task says itself when it works
        self._started_at = float("inf")  # when it was started last, by the monotonic clock; infinite while it waits
        failures.setdefault(name, 0)

    @property
    def fails(self) -> bool:
        """Whether the task has failed repeatedly, and does not work again."""
        return self.in_a_row >= TOLERATED and not self._is_steady()

    def _is_steady(self) -> bool:
        return not self.says and time.monotonic() - self._started_at >= STEADY_S

    async def run(self) -> None:
        """Do the work, and do it again after each failure, until the task is cancelled."""
        task = asyncio.current_task()
        assert task is not None
        _own.set(self)
        _running.add(self)
        try:
            while True:
                self._started_at = time.monotonic()
                error: BaseException = RuntimeError("the task has returned")
                try:
                    # In a task of its own: a task group that a child has ended leaves its task marked as cancelled.
                    await asyncio.ensure_future(self._work())
                except (Exception, asyncio.CancelledError) as raised:  # a library may raise CancelledError by itself
                    if task.cancelling():
                        raise
                    error = raised
                if task.cancelling():  # the work has lost its cancellation
                    return
                await asyncio.sleep(self._failed(error))
        finally:
            _running.discard(self)

    def _failed(self, error: BaseException) -> float:
        """Log and count a failure, and return for how many seconds to wait."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        self.in_a_row = 1 if self._is_steady() else self.in_a_row + 1
        self._started_at, self.error = float("inf"), type(error).__name__
        failures[self.name] += 1
        logger.error("task %s failed: %s", self.name, trace(error))
        return backoff_s(FIRST_WAIT_S, self.in_a_row, LAST_WAIT_S)


class Part:
    """A part of a process. A subclass has those of the methods that it needs; by default they do nothing."""

    async def start(self) -> None:
        """Start the part, before its tasks. Raise ConfigError if the configuration makes that impossible."""

    def named_tasks(self) -> Mapping[str, Work]:
        """Return the tasks that run while the process does, by name (with underscores)."""
        return {}

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the part for Prometheus."""
        return ()

    def unready(self) -> list[str]:
        """Return the reasons why the part is not ready, for `/readyz`."""
        return []

    async def drain(self, deadline: float, hurry: asyncio.Event) -> None:
        """Finish what has begun, when the process is to end.

        Return when the monotonic clock reaches `deadline` or `hurry` is set, at the latest.
        """

    async def stop(self) -> None:
        """Stop the part, after its tasks have ended."""


def unready() -> list[str]:
    """Return the tasks of this process that fail again and again, as reasons for `/readyz`."""
    return sorted(f"task {each.name} fails: {each.error}" for each in _running if each.fails)


def works() -> None:
    """Record that the task in which this is called works: earlier failures no longer count as failures in a row."""
    if (own := _own.get(None)) is not None:
        own.in_a_row, own.says = 0, True


def every(pause_s: float | Callable[[], float], work: Callable[[], Any]) -> Work:
    """Return work that calls `work`, which may be a coroutine function, at once and then after every pause."""

    async def call_for_ever() -> None:
        while True:
            result = work()
            if result is not None:
                await result
            works()
            await asyncio.sleep(pause_s() if callable(pause_s) else pause_s)

    return call_for_ever


def whenever(event: asyncio.Event, work: Work) -> Work:
    """Return work that awaits `work()` each time that `event` is set. If it fails, it is still due."""

    async def wait_for_ever() -> None:
        while True:
            await event.wait()
            event.clear()
            try:
                await work()
            except BaseException:
                event.set()
                raise
            works()

    return wait_for_ever


def after(event: asyncio.Event, work: Work) -> Work:
    """Return work that begins when `event` is set."""

    async def wait_then_work() -> None:
        await event.wait()
        await work()

    return wait_then_work


async def first_of(deadline: float, *awaited: Awaitable[object]) -> None:
    """Wait until one of these has ended, or the monotonic clock reaches `deadline` (in seconds); cancel the others."""
    waits = [asyncio.ensure_future(each) for each in awaited]
    within_s = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@contextlib.asynccontextmanager
async def running(**named: Work) -> AsyncIterator[None]:
    """Run and supervise tasks while the block runs. Cancel them when the block ends, with or without an error.

    The name of a task has hyphens where the keyword has underscores.
    """
    started = [start(name.replace("_", "-"), work) for name, work in named.items()]
    try:
        yield
    finally:
        await ended(*started)


def start(name: str, work: Work) -> "asyncio.Future[None]":
    """Start one task, which is supervised. The caller ends it by `ended`."""
    return asyncio.ensure_future(_Task(name, work).run())


async def ended(*started: "asyncio.Future[None]") -> None:
    """Cancel tasks, and wait until all of them have ended."""
    pending = {task for task in started if not task.done()}
    while pending:  # a library may lose a cancellation, as `asyncio.wait_for` of Python 3.11 does
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*started, return_exceptions=True)


def watch_loop() -> None:
    """Log and count the exceptions of callbacks, and of tasks that run once, of the event loop that runs now.

    Code that catches an unexpected exception and goes on passes it to the loop's handler itself, with the key `caught`.
    """
    failures.setdefault("callback", 0)
    asyncio.get_running_loop().set_exception_handler(_unhandled)


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, RuntimeError) and context.get("message") == "Fatal error on SSL protocol":
        return  # a connection was closed while uvloop still had bytes to write: nothing has failed
    caught = "caught" in context  # by code of ours, which goes on; its message says what has failed
    if error is None or (isinstance(error, OSError) and not caught):  # about sockets, such as too many open files
        loop.default_exception_handler(context)
        return
    failures["callback"] += 1
    what = context["message"] if caught else "a callback or a task that runs once failed"
    logger.error("%s: %s", what, trace(error))
