"""Tells when somebody writes to a file: Linux' inotify(7), so that a reader of it need not look again and again.

A write is told at once and a commit of SQLite can be read only after the sync that follows: so what is told is that
it is time to look, for a while.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2
_EVENTS_BYTES = 65_536  # of events that are read at once; they are thrown away


class FileWatch:
    """Watches one file, for one event loop: after `listen`, calls `told` once if it was written to since `told`."""

    def __init__(self, path: Path, told: Callable[[], None]) -> None:
        """Raises OSError where there is no inotify, no such file, or the user has no watch left."""
        self._told = told
        self._listening = False
        self._descriptor = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _call("inotify_add_watch", self._descriptor, os.fsencode(path), _IN_MODIFY)
        except OSError:
            os.close(self._descriptor)
            raise

    def listen(self) -> None:
        """Have `told` called at the next write, or at the loop's next turn if there was one since it was called."""
        if not self._listening:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Watch no more, and give the watch back to the kernel."""
        self._stop_listening()
        os.close(self._descriptor)

    def _read(self) -> None:
        self._stop_listening()  # many writes cost no more than one, while somebody looks anyway
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._descriptor, _EVENTS_BYTES)) > _EVENTS_BYTES // 2:
                pass
        self._told()

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._descriptor)


def _call(name: str, *arguments: int | bytes) -> int:
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    result: int = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
