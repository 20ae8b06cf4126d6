"""SIGHUP: read keys, revoked tokens, policy and publishers anew, and never end by it, whenever it comes (BA2).

In one process the loop is told of it. In several the supervisor is; it reads and parses, leaves the result as a file
in the folder of the channels (the *board*), and nudges the others, which look there. A nudge that is lost costs a
second: they look by themselves as often. A process that is started later is forked with what is in force.
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
    """Reload at each SIGHUP for as long as the block runs, and fetch what is fetched. Several at once are one.

    Before it the caller has blocked the signal, so one that comes too early waits. After it, it is ignored.
    """
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    async def reload_when_asked() -> None:
        while True:
            await asked.wait()
            asked.clear()
            in_force.reload()
            if source is not None:
                source.fetch_now()

    # Not by the loop's `add_signal_handler`: when the loop is closed it would put back what ends the process.
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(asked.set))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    try:
        async with background(reload_when_asked()):
            yield
    finally:
        # Not SIG_IGN: Python reports one that comes while that is set, with a traceback. And blocked, for at its end
        # Python puts back what ends the process.
        signal.signal(signal.SIGHUP, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


class ReloadMailbox:
    """A file by which one process hands something to others: whole, and the latest that was left there."""

    def __init__(self, folder: Path, name: str = "in-force") -> None:
        self._path = folder / name
        self._seen = (0, 0)  # inode and time of what was last read

    def write(self, packed: bytes) -> None:
        """Leave it there, whole at once. Raises OSError."""
        beside = self._path.with_suffix(".new")
        beside.write_bytes(packed)
        beside.replace(self._path)

    def look(self, take: Callable[[bytes], None]) -> None:
        """Take what is there, if it is new to this reader."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                self._seen = found.st_ino, found.st_mtime_ns
                take(self._path.read_bytes())
