"""Handle SIGHUP, which makes a running node read its keys, revoked tokens, policy and publishers again (BA2).

The signal never ends a process. If the node is one process, its event loop handles the signal. If the node has several
processes, the supervisor handles it: it reads and parses the files, writes their contents to one file (the *mailbox*),
and sends the other processes a datagram. The other processes then read the mailbox; they also check it once a second,
in case the datagram was lost. A process that is started later is forked with the new values.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path


class ReloadMailbox:
    """A file through which one process passes bytes to others.

    Readers always get the latest version, and never a part of it.
    """

    def __init__(self, folder: Path, name: str = "in-force") -> None:
        self._path = folder / name
        self._seen = (0, 0)  # inode and modification time of the version that was read last

    def write(self, packed: bytes) -> None:
        """Replace the content of the file atomically. Raise OSError if that fails."""
        beside = self._path.with_suffix(".new")
        beside.write_bytes(packed)
        beside.replace(self._path)

    def look(self, take: Callable[[bytes], None]) -> None:
        """Call `take` with the content of the file, unless the file is unchanged since the last call of this method."""
        with contextlib.suppress(FileNotFoundError):
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                self._seen = found.st_ino, found.st_mtime_ns
                take(self._path.read_bytes())
