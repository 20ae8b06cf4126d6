"""Work that takes milliseconds, in threads beside the loop, with a share for each subject (rule HD6).

The threads are daemons, and belong to no executor of asyncio. So a process that ends waits for none of them, and work
that is still waiting for its turn is never begun. Nobody is answered by then (rule HD3).

A thread competes with the loop for the interpreter. So after work of more than LONG_S of CPU time, the next work of the
same subject begins only after a pause of that length. Example: a source sends nothing but messages that take 170 ms
each. It gets half of the interpreter's time at most, however many messages it sends. Short work is never delayed.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from queue import SimpleQueue
from typing import Any, TypeVar

from ..config import SHARE
from ..policy.shares import Turns

THREADS = 4  # at work at a time; with more, each would only wait for its turn of the interpreter
MAX_WORKS = 64  # at work, or waiting for a thread
LONG_S = 0.005  # CPU time of work after which its subject pauses

_T = TypeVar("_T")


class Threads:
    """Does the work that it is given in a thread, `number` at a time: the loop goes on meanwhile."""

    def __init__(
        self, share: float = SHARE, number: int = THREADS, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Start nothing before there is work.

        `share`: the part of the threads that one subject may have. `sleep`: waits for a number of seconds.
        """
        self._turns = Turns("requests that are worked out beside the others", MAX_WORKS, number, share)
        self._number = number
        self._todo: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._sleep = sleep
        self._paused: dict[Hashable, float] = {}  # until when each subject pauses, on the loop's clock

    async def __call__(self, work: Callable[[], _T], subject: Hashable, /) -> _T:
        """Return what `work` returns, and raise what it raises; or a Problem (429) if `subject` has its share."""
        cpu_s = 0.0

        def measured() -> _T:
            nonlocal cpu_s
            began = time.thread_time()
            try:
                return work()
            finally:
                cpu_s = time.thread_time() - began

        loop = asyncio.get_running_loop()
        async with self._turns.turn(subject):
            if (pause_s := self._paused.get(subject, 0.0) - loop.time()) > 0:
                await self._sleep(pause_s)
            if len(self._threads) < self._number:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
            done: asyncio.Future[_T] = loop.create_future()
            self._todo.put((measured, done))
            try:
                return await done
            finally:
                if cpu_s > LONG_S:
                    now = loop.time()
                    self._paused = {who: until for who, until in self._paused.items() if until > now}
                    self._paused[subject] = now + cpu_s

    def _work(self) -> None:
        while True:
            work, done = self._todo.get()
            if done.cancelled():
                continue
            try:
                result, error = work(), None
            except BaseException as raised:
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                done.get_loop().call_soon_threadsafe(_settle, done, result, error)
            del work, done, result, error


def _settle(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if done.done():  # whoever waited has gone away
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
