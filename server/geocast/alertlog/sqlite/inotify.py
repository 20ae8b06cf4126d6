"""Notifications about writes to a file, from Linux's inotify(7), so that readers need not poll the file.

The kernel reports a write at once. But SQLite shows a commit to readers only after the commit's data was synced to
disk, which comes later than the write. So after a notification the reader has to poll for a short time.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

_IN_MODIFY = 0x2
_EVENTS_BYTES = 65_536  # how many bytes of events to read at once; their content is ignored


class FileWatch:
    """Watches one file, and calls a function when some process writes to the file.

    After each call of `listen`, the function is called once.
    """

    def __init__(self, path: Path, on_write: Callable[[], None]) -> None:
        """Watch the file at `path`.

        `on_write` is the function to call when a process writes to the file. Raise OSError if inotify is unavailable,
        if there is no such file, or if the user has reached the limit of watches.
        """
        self._on_write = on_write
        self._listening = False
        self._descriptor = _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _call("inotify_add_watch", self._descriptor, os.fsencode(path), _IN_MODIFY)
        except OSError:
            os.close(self._descriptor)
            raise

    def listen(self) -> None:
        """Call `on_write` once, at the next write to the file.

        If the file was written to since the last call of `on_write`, call it as soon as the event loop is free.
        """
        if not self._listening:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Stop watching and release the kernel's watch."""
        self._stop_listening()
        os.close(self._descriptor)

    def _read(self) -> None:
        self._stop_listening()  # the reader polls now anyway, so later writes need not wake the event loop
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._descriptor, _EVENTS_BYTES)) > _EVENTS_BYTES // 2:
                pass
        self._on_write()

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
