"""Work that takes milliseconds, in threads beside the loop, with a share for each subject (rule HD6).

The threads are daemons, and belong to no executor of asyncio: so a process that ends waits for none of them, and what
is still waiting for its turn is never begun. Nobody is answered by then (rule HD3).
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import Any, TypeVar

from ..config import SHARE
from ..policy.shares import Turns

THREADS = 4  # at work at a time; with more, each would only wait for its turn of the interpreter
MAX_WORKS = 64  # at work, or waiting for a thread

_T = TypeVar("_T")


class Threads:
    """Does the work that it is given in a thread, `number` at a time: the loop goes on meanwhile."""

    def __init__(self, share: float = SHARE, number: int = THREADS) -> None:
        """Start nothing before there is work. `share`: the part of the threads that one subject may have."""
        self._turns = Turns("requests that are worked out beside the others", MAX_WORKS, number, share)
        self._number = number
        self._todo: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def __call__(self, work: Callable[[], _T], subject: Hashable, /) -> _T:
        """Return what `work` returns, and raise what it raises; or a Problem (429) if `subject` has its share."""
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
