"""Work that takes milliseconds, in threads beside the loop.

The threads are daemons, and belong to no executor of asyncio: so a process that ends waits for none of them, and what
is still waiting for its turn is never begun. Nobody is answered by then (rule HD3).
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

THREADS = 4  # at work at a time; with more, each would only wait for its turn of the interpreter

_T = TypeVar("_T")


class Threads:
    """Does what it is given in a thread, `number` at a time: the loop goes on meanwhile."""

    def __init__(self, number: int = THREADS) -> None:
        """Nothing is started before there is work."""
        self._free = asyncio.Semaphore(number)
        self._number = number
        self._todo: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def __call__(self, work: Callable[[], _T], /) -> _T:
        """What the work comes to; what it raises."""
        async with self._free:
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
