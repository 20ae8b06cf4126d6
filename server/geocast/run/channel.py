"""Datagrams between the processes of one node, over Unix sockets in a folder that no other program uses.

Nothing depends on a single datagram. A *nudge* is a datagram which only says that there is something to do: if the
nudge about a new log entry is lost, the log is polled a moment later. If a report is lost, another one follows within a
second. So there are no connections, and nothing has to be repaired when a process is replaced.

A process learns of a new configuration by a *mailbox*. SIGHUP makes a running node read its keys, revoked tokens,
policy and publishers again (BA2), and never ends a process. If the node is one process, its event loop handles the
signal. If the node has several processes, the supervisor handles it: it reads and parses the files, writes their
contents to one file (the mailbox), and sends the other processes a datagram. The other processes then read the mailbox;
they also check it once a second, in case the datagram was lost. A process that is started later is forked with the new
values.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

MAX_DATAGRAM = 128 * 1024  # bytes; the report of a stream process, with all its metrics, has some 10,000


class Channel:
    """The socket with which a process sends datagrams to other processes of the node and receives theirs.

    A process's socket has the process's name, which is its address.
    """

    def __init__(self, folder: Path, name: str, received: Callable[[bytes], None]) -> None:
        """Create the socket `name` in the folder, and start to receive datagrams.

        The function `received` is called in the event loop with each datagram that arrives.
        """
        self._folder = folder
        self._received = received
        path = folder / name
        path.unlink(missing_ok=True)  # left by a process of the same name that has died
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_DATAGRAM)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def send(self, name: str, data: bytes) -> None:
        """Send a datagram to the process called `name`.

        It is lost if that process does not exist or its queue is full.
        """
        _send(self._socket, self._folder, name, data)

    def close(self) -> None:
        """Stop receiving, and close the socket.

        The socket's file remains until a process with the same name replaces it.
        """
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._received(self._socket.recv(MAX_DATAGRAM))


def tell(folder: Path, name: str, data: bytes) -> None:
    """Send one datagram to the process called `name`, from a process that has no event loop.

    Like `Channel.send`, this never fails: the datagram may be lost.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        _send(sender, folder, name, data)


def _send(sender: socket.socket, folder: Path, name: str, data: bytes) -> None:
    with contextlib.suppress(OSError):
        sender.sendto(data, str(folder / name))


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
