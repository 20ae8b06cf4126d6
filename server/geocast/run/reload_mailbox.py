"""SIGHUP: it makes a node read keys, revoked tokens, policy and publishers again, and never ends a process (BA2).

With one process the event loop handles the signal. With several the supervisor does: it reads and parses the files,
leaves the result as a file in the folder of the channels (the *mailbox*), and nudges the other processes, which read
it there. They also look there once a second, so a lost nudge costs a second. A process that is started later is forked
with the new values.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ..stream.server import background
from .key_source import KeySource
from .runtime_config import RuntimeConfig


@contextlib.asynccontextmanager
async def reloading(in_force: RuntimeConfig, source: KeySource | None) -> AsyncIterator[None]:
    """Reload at each SIGHUP while the block runs, and fetch keys at a URL. Several signals at once are one reload.

    The caller has blocked the signal, so that a signal which comes too early waits. After the block it is ignored.
    """
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    async def reload_when_asked() -> None:
        while True:
            await asked.wait()
            asked.clear()
            in_force.reload()
            if source is not None:
                source.fetch_now()

    # Not by `add_signal_handler` of the loop: closing the loop would restore the default, which ends the process.
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(asked.set))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        async with background(reload_when_asked()):
            yield
    finally:
        # Not SIG_IGN: Python prints a traceback if the signal comes while SIG_IGN is being set. And blocked, since
        # Python restores the default, which ends the process, when it finalizes.
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


class ReloadMailbox:
    """A file with which one process passes bytes to others: readers get the newest version, and always a whole one."""

    def __init__(self, folder: Path, name: str = "in-force") -> None:
        self._path = folder / name
        self._seen = (0, 0)  # inode and time of the version that was last read

    def write(self, packed: bytes) -> None:
        """Replace the content atomically. Raise OSError."""
        beside = self._path.with_suffix(".new")
        beside.write_bytes(packed)
        beside.replace(self._path)

    def look(self, take: Callable[[bytes], None]) -> None:
        """Call `take` with the content, if there is a version that this reader has not seen."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                self._seen = found.st_ino, found.st_mtime_ns
                take(self._path.read_bytes())
