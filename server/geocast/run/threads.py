"""Threads for work that takes milliseconds, beside the event loop, with a share for each subject (rule HD6).

The threads are daemons and belong to no executor of asyncio. So a process that ends does not wait for them, and work
that still waits for its turn is never started. Its clients get no answer (rule HD3).
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import Any, TypeVar

from ..config import SHARE
from ..policy.shares import Turns

THREADS = 4  # more threads would only wait for the interpreter's lock
MAX_WORKS = 64  # pieces of work that run or wait for a thread

_T = TypeVar("_T")


class Threads:
    """A pool of `number` threads that run work while the event loop goes on."""

    def __init__(self, share: float = SHARE, number: int = THREADS) -> None:
        """Create the pool; threads start when there is work. `share`: the part of them that one subject may have."""
        self._turns = Turns("requests that are worked out beside the others", MAX_WORKS, number, share)
        self._number = number
        self._todo: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def __call__(self, work: Callable[[], _T], subject: Hashable, /) -> _T:
        """Run `work` in a thread and return its result or raise its error; raise a Problem (429) beyond the share."""
        async with self._turns.turn(subject):
            if len(self._threads) < self._number:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()
            done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
            self._todo.put((work, done))
            return await done

    def _work(self) -> None:
        while True:
            work, done = self._todo.get()
            if done.cancelled():
                continue
            try:
                result, error = work(), None
            except BaseException as raised:
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller waits for the result
                done.get_loop().call_soon_threadsafe(_settle, done, result, error)
            del work, done, result, error


def _settle(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if done.done():  # the caller was cancelled
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
