"""The handler of SIGHUP, which makes a process read its configuration again."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

from .. import tasks


@contextlib.asynccontextmanager
async def hangups(reload: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Await `reload()` after each SIGHUP while the block runs.

    Several signals that arrive at once cause one reload. The caller must have blocked SIGHUP, so that a signal that
    arrives before the block starts is not lost. After the block, the signal is ignored.
    """
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    # Don't use `add_signal_handler` of the loop: closing the loop would restore the default, which ends the process.
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(asked.set))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        async with tasks.running(reload=tasks.whenever(asked, reload)):
            yield
    finally:
        # Don't use SIG_IGN: Python prints a traceback if the signal comes while SIG_IGN is being set. Block the signal
        # as well, because Python restores the default, which ends the process, when it finalizes.
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
