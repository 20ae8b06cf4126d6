"""Run work that takes milliseconds in threads, so that it does not block the event loop, and share them fairly (HD6).

Each piece of work is done for a *subject*, the client that has caused it, and no subject can occupy all threads. The
threads are daemons and belong to no executor of asyncio. So a process that ends does not wait for them, and work that
is still in the queue is never started. The clients that wait for such work get no answer (rule HD3).

A thread competes with the event loop for the interpreter. So after work that took more than LONG_S seconds of CPU, the
next work for the same subject must wait for as long as that work took. Example: a source sends nothing but messages
that take 170 ms each. It gets at most half of the interpreter's time, however many messages it sends. Short work is
never delayed.

Work may create tens of thousands of objects, such as the elements of a large CAP message. The garbage collector would
examine them while they are in use, again and again, and the interpreter does nothing else meanwhile: with 26,000
elements, this took 14 to 58 ms at a time. So it is paused while threads work (`CollectionPause`).
"""

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from queue import SimpleQueue
from typing import Any, TypeVar

from ..config import SHARE
from ..model.errors import GeocastError, without_frames
from ..policy.shares import Turns

THREADS = 4  # more threads would only wait for the interpreter's lock
MAX_WORKS = 64  # limit on pieces of work that run or wait for a thread
MOST_S = 10.0  # the longest time without automatic garbage collections, however much work there is
LONG_S = 0.005  # CPU time of work after which its subject pauses

_T = TypeVar("_T")


class CollectionPause:
    """A context in which no garbage is collected automatically. Several threads may be in it at the same time.

    Memory that is not part of a reference cycle is freed all the same. If threads are in the context without a gap for
    MOST_S seconds, the collector is resumed, so that cycles can't fill the memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._since = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._since = time.monotonic()
                gc.disable()
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside or time.monotonic() - self._since > MOST_S:
                gc.enable()


_collection_pause = CollectionPause()  # one for the process, as there is one collector


class Threads:
    """A pool of `number` threads for work that would block the event loop."""

    def __init__(
        self, share: float = SHARE, number: int = THREADS, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Create the pool.

        The threads themselves are started when there is work. `share` is the fraction of the pool that one subject (a
        token owner or CAP source) may use. `sleep` is a function that waits for a number of seconds.
        """
        self._turns = Turns("requests that are worked out beside the others", MAX_WORKS, number, share)
        self._number = number
        self._todo: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._sleep = sleep
        self._paused: dict[Hashable, float] = {}  # subject -> end of its pause, by the loop's clock

    async def __call__(self, work: Callable[[], _T], subject: Hashable, /) -> _T:
        """Run `work` in a thread, and return its result or raise its exception.

        `subject` is the client for whom the work is done. Raise a Problem (429) if too much work of this subject is
        queued or running already.
        """
        cpu_s = 0.0

        def measured() -> _T:
            nonlocal cpu_s
            began = time.thread_time()
            try:
                return work()
            finally:
                cpu_s = time.thread_time() - began

        loop = asyncio.get_running_loop()

        async def pause() -> None:
            if (pause_s := self._paused.get(subject, 0.0) - loop.time()) > 0:
                await self._sleep(pause_s)

        async with self._turns.turn(subject, pause):
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
            result: Any = None
            error: BaseException | None = None
            try:
                with _collection_pause:
                    result = work()
            except GeocastError as refused:
                error = without_frames(refused)  # so that what the work has made is freed here, and not in the loop
            except BaseException as raised:
                error = raised
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
