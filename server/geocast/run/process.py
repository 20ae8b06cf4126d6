"""What all processes have in common: signals, reloads, metrics, readiness, and the order of the start and the end.

A process is a list of parts (`tasks.Part`). They start in the order in which they are added. When the first SIGTERM or
SIGINT has come, all of them drain at the same time, for at most `drain_s` seconds or until a second signal. Then they
are stopped in the opposite order. If that hangs, because a disk does, the process ends without it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from prometheus_client.core import Metric

from .. import tasks
from ..api.health_app import make_health_app
from ..api.http_server import serve
from ..clock import SystemClock
from ..metrics import Metrics, counters, report_caught
from ..tasks import Part

logger = logging.getLogger(__name__)

MAX_SCRAPERS = 16
END_S = 10.0  # the time for stopping the parts, if no more of `drain_s` is left; a listener may take 5 s of it

_P = TypeVar("_P", bound=Part)
_T = TypeVar("_T")


class Stop:
    """Handles SIGTERM and SIGINT.

    The first signal sets `asked`, which starts the drain. Every later signal sets `hurry`, which cuts the drain short.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)

    def ask(self) -> None:
        """Handle SIGTERM or SIGINT: the first signal sets `asked`, every later one `hurry`."""
        if self.asked.is_set():
            logger.warning("a second signal to stop has arrived; closing the open connections at once")
            self.hurry.set()
        self.asked.set()


class Process:
    """A process with its parts, to be used in an `async with` block, at whose end the parts are stopped.

    `clock`, `metrics` and `stop` are for all parts.
    """

    def __init__(self, drain_s: float = 0.0) -> None:
        """Create a process that drains for at most `drain_s` seconds."""
        self.clock, self.stop, self.metrics = SystemClock(), Stop(), Metrics()
        self._drain_s = drain_s
        self._end_within_s = END_S  # how long stopping the parts may take
        self._parts: list[Part] = []
        self._opened = contextlib.AsyncExitStack()
        tasks.watch_loop()
        self.metrics.watch(_task_failures)

    async def __aenter__(self) -> "Process":
        return self

    async def __aexit__(self, *raised: object) -> None:
        ending = asyncio.get_running_loop().call_later(self._end_within_s, _end_at_once)
        try:
            await self._opened.aclose()
        finally:
            ending.cancel()

    async def add(self, part: _P) -> _P:
        """Start a part and its tasks, and return it."""
        await part.start()
        self._opened.push_async_callback(part.stop)
        self.metrics.watch(part.metrics)
        self._parts.append(part)
        await self.enter(tasks.running(**part.named_tasks()))
        return part

    async def enter(self, context: AbstractAsyncContextManager[_T]) -> _T:
        """Enter a context, which is left when the process ends."""
        return await self._opened.enter_async_context(context)

    def at_end(self, close: Callable[[], object]) -> None:
        """Call `close()` when the process ends."""
        self._opened.callback(close)

    async def reload_by(self, reload: Callable[[], Awaitable[None]]) -> None:
        """Await `reload()` after each SIGHUP from now on (see `_hangups`)."""
        await self.enter(_hangups(reload))

    async def serve_metrics(self, listener: socket.socket | None) -> None:
        """Serve `/metrics`, `/healthz` and `/readyz` on `listener` from now on. Do nothing if it is None."""
        if listener is not None:
            await self.enter(serve(make_health_app(self.unready, self.metrics), listener, self.metrics, MAX_SCRAPERS))

    def unready(self) -> list[str]:
        """Return the reasons why the process is not ready."""
        reasons = ["draining"] if self.stop.asked.is_set() else []
        for part in self._parts:
            reasons += part.unready()
        return list(dict.fromkeys([*reasons, *tasks.unready()]))

    async def until_stopped(self) -> None:
        """Wait for a signal to stop, then drain."""
        await self.stop.asked.wait()
        logger.info("stopping")
        deadline = time.monotonic() + self._drain_s
        drains = [asyncio.ensure_future(part.drain(deadline, self.stop.hurry)) for part in self._parts]
        await asyncio.wait(drains, timeout=self._drain_s + END_S)
        self._end_within_s = max(deadline - time.monotonic(), END_S)
        for drain in drains:
            if drain.done() and (error := drain.exception()) is not None:
                report_caught("draining failed", error)


@contextlib.asynccontextmanager
async def _hangups(reload: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Await `reload()` after each SIGHUP while the block runs.

    Several signals that arrive at once cause one reload. The caller must have blocked SIGHUP, so that a signal that
    arrives before the block starts is not lost. After the block, the signal is ignored.
    """
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait_for_signals() -> None:
        while signal.sigwaitinfo({signal.SIGHUP}).si_pid != os.getpid():  # the signal at the end is from this process
            with contextlib.suppress(RuntimeError):  # the loop has been closed after an error
                loop.call_soon_threadsafe(asked.set)

    # Don't use a handler: while Python ends, it restores the default, which ends the process if any thread gets the
    # signal. SIGHUP stays blocked in all threads instead, because each inherits this from the one that has started it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    waiting = threading.Thread(target=wait_for_signals, name="hangups", daemon=True)
    waiting.start()
    try:
        async with tasks.running(reload=tasks.whenever(asked, reload)):
            yield
    finally:
        assert waiting.ident is not None
        signal.pthread_kill(waiting.ident, signal.SIGHUP)
        waiting.join()


def _task_failures() -> Iterable[Metric]:
    text = "Unexpected errors that have ended a task, or a callback of the event loop"
    return [counters("task_failures", text, "task", tasks.failures.items())]


def _end_at_once() -> None:
    logger.error("stopping takes too long, so the process ends at once; what was not recorded may be repeated")
    logging.shutdown()
    os._exit(1)
