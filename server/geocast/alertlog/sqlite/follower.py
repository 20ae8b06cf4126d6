"""The followers of a log in SQLite: readers that wait for entries of this process and of others.

    append of this process ── nudge ──────────────────────────────────────────┐
                                                                              v
    append of another one ── inotify ──> read `data_version` until it changes ──> read the new rows

An append of this process wakes its followers at once. An append of another process changes `PRAGMA data_version`. The
kernel reports when a process writes to the write-ahead log (`inotify`). From then on the version is read every POLL_S
seconds, until it has changed or BUSY_S seconds have passed. Without inotify the version is read every POLL_S seconds
all the time.
Example: process B writes its commit at 0 ms, and the fsync ends at 30 ms. The kernel wakes process A at 0 ms. A reads
the version at 0, 8, 16, 24 and 32 ms, and finds the new entry at 32 ms.
"""

import asyncio
import contextlib
import functools
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Sequence

from ...model.call import KINDS
from .. import BATCH, BATCH_BYTES, HEARTBEAT_S, Positioned, is_followed
from ..decoding import in_turns
from .connections import Connections
from .inotify import FileWatch
from .log_file import COLUMNS, is_of_kind
from .rows import Row, RowDecoder, select, unavailable

logger = logging.getLogger(__name__)

# The largest number of entries that the event loop reads itself, from the page cache. Reading so few in a thread would
# be slower: while the loop sends messages to many connections, a thread waits a few milliseconds for the GIL.
FEW = 32
POLL_S = 0.008  # the time between two reads of `data_version`; one read takes 60 µs
BUSY_S = 1.0  # how long to poll after a write to the write-ahead log; a commit after that is found after HEARTBEAT_S

_OF_A_CALL = " OR ".join(map(is_of_kind, KINDS))
_NEXT = f"""
SELECT {COLUMNS} FROM entry WHERE position > ?1 AND (
    position > ?2 OR ends_at >= ?3 OR {_OF_A_CALL} OR EXISTS (
        SELECT 1 FROM entry AS earlier WHERE earlier.id = entry.id AND earlier.revision < entry.revision
        AND earlier.ends_at >= ?3
    )
) ORDER BY position LIMIT ?4
"""
LAST = "SELECT coalesce(max(position), 0) FROM entry"


class SqliteFollowers:
    """Runs the followers of this process, and notices commits for them."""

    def __init__(self, files: Connections, rows: RowDecoder) -> None:
        self._files = files
        self._rows = rows
        self._appended = asyncio.Event()  # set, and replaced by a new event, at each commit of this process
        self._woken = asyncio.Event()  # like `_appended`, but also set when inotify reports a write
        self._closing = contextlib.ExitStack()
        self._busy_until = 0.0  # the monotonic time until which another process may be committing

    async def follow(self, after: int, ended_before_ms: int) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end.

        Stored entries are read in large batches by the reader thread. At the end of the log the event loop reads new
        entries itself, at most FEW at a time; if there are more, the thread reads them.
        Example: a node starts with a log of 100,000 entries. The thread reads a hundred batches, and the loop serves
        its connections meanwhile. Then alerts are published one after another, and the loop reads each of them at once.
        """
        # Entries after the position `there` are yielded, ended or not.
        there = (await self._files.select(LAST))[0][0] if ended_before_ms else 0
        at_end = False
        while True:
            self._files.check()
            # Get the event and the version before reading the rows. Any commit after the rows were read then sets this
            # event or changes the version, so `_wait_for_commit` notices the commit.
            appended, seen = self._appended, self._data_version()
            values = after, there, ended_before_ms
            if at_end:
                rows, full = _batch(values, FEW, self._files.watcher)
            else:
                rows, full = await self._files.read(functools.partial(_batch, values, BATCH))
            if rows:
                after = rows[-1][0]
                read = [(row[0], entry) async for row, entry in in_turns(self._rows.readable(rows))]
                if followed := [Positioned(position, entry) for position, entry in read if is_followed(entry)]:
                    yield followed
            at_end = not full
            if at_end:
                yield ()
                await self._wait_for_commit(appended, seen)

    def nudge(self) -> None:
        """Wake the followers, which then look for new entries."""
        self._appended.set()
        self._appended = asyncio.Event()
        self._wake()

    def close(self) -> None:
        """Stop watching the file."""
        self._closing.close()

    async def _wait_for_commit(self, appended: asyncio.Event, seen: int) -> None:
        """Wait until this or another process commits, but at most HEARTBEAT_S seconds.

        `appended` is the event that the next commit of this process sets. `seen` is the value of `PRAGMA data_version`
        before the rows were read.

        Example: process B begins to commit when this process is at the end of the log. B's write wakes this process,
        which reads the version: it still equals `seen`, because B's fsync is not done. So this process reads the
        version every POLL_S seconds until it has changed. If B dies before its commit, the version never changes; after
        BUSY_S seconds, this process stops polling and waits for the next write.
        """
        deadline = time.monotonic() + HEARTBEAT_S
        while not appended.is_set() and time.monotonic() < deadline:
            # Get the event and set up the watch before reading the version. A write by another process then either has
            # changed this version already, or will set the event.
            woken, pause_s = self._woken, self._pause_s(deadline)
            if self._data_version() != seen:
                self._busy_until = 0.0
                return
            # `asyncio.wait_for` is not used: in Python 3.11 it can swallow a cancellation that comes together with the
            # event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await woken.wait()

    def _pause_s(self, deadline: float) -> float:
        """Return how many seconds a follower may wait until it reads `data_version` again."""
        now = time.monotonic()
        if now < self._busy_until or self._written is None:
            return POLL_S
        self._written.listen()
        return deadline - now

    @functools.cached_property
    def _written(self) -> FileWatch | None:
        """The watch on the write-ahead log; None if inotify is unavailable, so that followers poll all the time."""
        file = self._files.path.resolve()  # SQLite puts the write-ahead log beside the file, not beside a link to it
        try:
            watch = FileWatch(file.with_name(f"{file.name}-wal"), self._on_write)
        except OSError as error:
            logger.info(
                "log %s: inotify is unavailable (%s); polling the log instead", self._files.path, error.strerror
            )
            return None
        self._closing.callback(watch.close)
        return watch

    def _on_write(self) -> None:
        """Begin to poll `data_version` for BUSY_S seconds, because a process has written to the write-ahead log."""
        self._busy_until = time.monotonic() + BUSY_S
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    def _data_version(self) -> int:
        """Return a number that changes whenever another connection has committed.

        Raise LogUnavailable if it can't be read. SQLite counts for each connection separately, so the number is always
        read on `watcher`, which never writes.
        """
        return int(select(self._files.watcher, "PRAGMA data_version")[0][0])


def _batch(values: tuple[int, int, int], limit: int, db: sqlite3.Connection) -> tuple[list[Row], bool]:
    """Return the next batch of rows, and whether there may be more rows. `values` are the first three in `_NEXT`.

    There may be more if the batch is full: its entries have BATCH_BYTES, or it has `limit` rows. So one read never
    takes more than a few MB of memory, even if every entry has 64 KiB.
    """
    rows: list[Row] = []
    size = 0
    with unavailable(), contextlib.closing(db.execute(_NEXT, (*values, limit))) as cursor:
        for row in cursor:
            rows.append(row)
            size += len(row[4])
            if size >= BATCH_BYTES:
                return rows, True
    return rows, len(rows) == limit
