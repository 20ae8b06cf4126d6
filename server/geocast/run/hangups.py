"""The handler of SIGHUP, which makes a process read its configuration again."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

from .. import tasks


@contextlib.asynccontextmanager
async def hangups(reload: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
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
