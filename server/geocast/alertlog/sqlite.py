"""A log in one SQLite file, for one machine and any number of its processes.

    append ──> queue ──> thread "log-writer": BEGIN IMMEDIATE, up to 500 inserts, COMMIT (fsync) ──> True or False
                                                                          │
    follow <── rows <── thread "log-reader" <── data_version changed <────┴── inotify: the write-ahead log was written

How this backend keeps the rules of the `alertlog` package:

LogA1,
LogA2   A batch of appends is one `BEGIN IMMEDIATE` transaction. So at any time only one writer in all processes can
        read the last number of an alert and insert an entry with the next one.
        Example: processes A and B append different revisions 2. A has the write lock. B waits for the lock, then finds
        that number 2 is taken, and its `append` returns False.
LogA3   In WAL mode with `synchronous=FULL`, COMMIT returns after the fsync. All appends that come in during a commit
        share the next commit (group commit), so 500 concurrent appends take a few fsyncs.
        Example: the machine loses power after COMMIT and before the answer. The entry is in the file. If the publisher
        repeats the request, the answer is the stored entry.
LogA4   Readers see only committed rows, and a commit in WAL mode is visible only after it is synced.
LogF1   Positions are AUTOINCREMENT row ids, assigned inside the write transaction. So they rise in the order of commits
        and are never used twice, not even after the last rows were purged.
LogF2   An append of this process wakes its followers (the readers that wait for new entries) at once. An append of
        another process changes `PRAGMA data_version`. The kernel reports when a process writes to the write-ahead log
        (`inotify.py`). From then on the version is read every POLL_S seconds, until it has changed or BUSY_S seconds
        have passed. Without inotify the version is read every POLL_S seconds all the time.
        Example: process B writes its commit at 0 ms, and the fsync ends at 30 ms. The kernel wakes process A at 0 ms.
        A reads the version at 0, 8, 16, 24 and 32 ms, and finds the new entry at 32 ms.
LogL2   An index on (ends_at, id) has the order of LogL1, so a page can begin at any place in this order.
LogR1   Alerts are deleted only if both the wall clock and the trusted time of the file allow it (`trusted_time.py`).
LogR2   Each row has a CRC-32. A row with a wrong checksum, or with bytes that are not an entry, stays in the file. It
        is skipped and counted, and a log message gives its position. If SQLite can't read the file any more, all
        readable rows are copied into a new file, and the old file is renamed (`sqlite_file`).
LogC3,
LogC4   The entries that contain the place of a call are in a partial index, whose condition compares the first bytes of
        an entry. So SQLite maintains the index by itself, whichever release writes. Deleted entries are overwritten in
        the file. The write-ahead log may have older copies of their bytes, so it is written back to the file and
        truncated.

There are two threads, each with a connection of its own: one writes, one reads. The event loop has a third connection,
on which it reads `data_version` and small batches. Before each use of a connection, the log checks that the file and
its companions (`-wal`, `-shm`) are still at their paths.
Example: an operator replaces the file with a backup while the node runs. The open connections still use the old file,
which has no name any more, so every new entry would be lost. Appends raise LogUnavailable instead.
"""

import asyncio
import contextlib
import functools
import logging
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.core import Metric

from .. import failpoints
from ..clock import Now, Turn
from ..metrics import append_times
from ..model.alert import Entry, OtherKind
from ..model.call import KINDS, CallEntry
from ..model.errors import ConfigError, LogUnavailable, trace
from . import (
    BATCH,
    BATCH_BYTES,
    DECODE_AT_ONCE,
    DECODE_S,
    HEARTBEAT_S,
    PAGE,
    PLACE_MS,
    RETENTION_MS,
    Counts,
    Cursor,
    EntryVerifier,
    Page,
    Positioned,
    Seen,
    TrustAll,
    codec,
    current,
    drop_unverified_cancels,
    ended_at,
    is_doubtful,
    is_followed,
    may_follow,
    page,
    sqlite_file,
)
from .inotify import FileWatch
from .sqlite_file import COLUMNS, is_of_kind
from .trusted_time import NEWEST, TrustedTime

logger = logging.getLogger(__name__)

# The largest number of entries that the event loop reads itself, from the page cache. Reading so few in a thread would
# be slower: while the loop sends messages to many connections, a thread waits a few milliseconds for the GIL.
FEW = 32
POLL_S = 0.008  # the time between two reads of `data_version`; one read takes 60 µs
TRUNCATE_S = 0.05  # how long truncating waits for readers of the write-ahead log; no process can write meanwhile
BUSY_S = 1.0  # how long to poll after a write to the write-ahead log; a commit after that is found after HEARTBEAT_S
RETRY_S = 0.25  # the time between two attempts to open the file
MAX_WAITING = 10_000  # when so many appends are in the queue, further appends raise LogUnavailable
MAX_COMMIT = 500  # the largest number of appends in one transaction
PURGE_BATCH = 500  # the largest number of alerts that one transaction deletes

# Selects the next alerts in the order in which `live` returns them (rule LogL1). For each alert, it selects the last
# entry, and the latest time at which any of its entries ends.
#
# The inner query reads the index on (ends_at, id) in order, beginning after the cursor. It skips a row if another row
# of the same alert ends later, so it finds each alert once, at its latest end. The outer query adds the last entry of
# the alert (the row with the highest revision number), which is nearly always enough to know whether the alert is live.
# Example: an alert has revision 1 (ends at 12:00), revision 2 (ends at 15:00) and a cancel (ends at 15:00). The 12:00
# row is skipped, DISTINCT merges the two 15:00 rows, and the outer query adds the cancel. So even after its cancel, the
# alert keeps its position at 15:00, and a client that reads page by page does not get it twice.
_LOOK = f"""
SELECT {COLUMNS}, latest FROM (
    SELECT DISTINCT ends_at AS latest, id AS alert_id FROM entry AS one
    WHERE (ends_at, id) > (?, ?)
    AND NOT EXISTS (SELECT 1 FROM entry AS other WHERE other.id = one.id AND other.ends_at > one.ends_at)
    ORDER BY ends_at, id LIMIT ?
) CROSS JOIN entry ON id = alert_id AND revision = (SELECT max(revision) FROM entry AS other WHERE other.id = alert_id)
ORDER BY latest, id
"""
_OF_A_CALL = " OR ".join(map(is_of_kind, KINDS))
# Selects the ids of calls that have a `call` entry, have no `end` entry and have not expired. The condition on `one` is
# that of the partial index `entry_with_a_place`, so SQLite reads only the entries in this index, not the whole log.
_OPEN = f"""
SELECT id FROM entry AS one WHERE {is_of_kind("call", "one")}
AND NOT EXISTS (SELECT 1 FROM entry AS other WHERE other.id = one.id AND {is_of_kind("end", "other")})
AND EXISTS (SELECT 1 FROM entry AS other WHERE other.id = one.id AND other.ends_at > ?)
GROUP BY id ORDER BY min(position)
"""
# Selects the `end` entries of those calls whose `call` entry (with the place of the incident) has not been deleted yet.
# The index `entry_with_a_place` finds these calls.
_ENDS = f"""
SELECT DISTINCT {", ".join(f"last.{column}" for column in COLUMNS.split(", "))}
FROM entry AS one CROSS JOIN entry AS last ON last.id = one.id AND {is_of_kind("end", "last")}
WHERE {is_of_kind("call", "one")}
"""
_PROBE = " " * (codec.MAX_ENTRY_BYTES + 1_024)  # at least as large as any entry (LogA5), and not a valid id

_T = TypeVar("_T")
_Row = tuple[int, str, int, int, bytes, int]


class SqliteLog:
    """A log of alerts in one SQLite file.

    The module's docstring says how it keeps the rules of the `alertlog` package.
    """

    def __init__(self, path: Path, *, max_pages: int | None = None, verifier: EntryVerifier | None = None) -> None:
        """Prepare to use the log at `path`, without opening it.

        `max_pages` limits the file's size in pages; tests use it to simulate a full disk. `verifier` checks the entries
        that are read; without a verifier, all entries are accepted.
        """
        self.name = str(path.absolute())
        self.verifier = verifier or TrustAll()
        self.quarantined = 0
        self._path = path
        self._max_pages = max_pages
        self._bad_rows: set[int] = set()
        self._trusted_time = TrustedTime()
        self._append_times = append_times()
        self._queue: list[tuple[Entry | CallEntry, asyncio.Future[bool]]] = []  # the appends that wait for a commit
        self._committer: asyncio.Task[None] | None = None  # the task that commits `_queue`; None if the queue is empty
        self._appended = asyncio.Event()  # set, and replaced by a new event, at each commit of this process
        self._woken = asyncio.Event()  # like `_appended`, but also set when inotify reports a write
        self._write_failed = False  # whether the last transaction failed
        self._untruncated = False  # whether the write-ahead log may have bytes of deleted places
        self._problem: str | None = "it is not open"  # why the log can't be used; None if it can
        self._identity: sqlite_file.Identity = ()  # the identity of the files that are open
        self._opening: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._written: FileWatch | None = None  # the watch on the write-ahead log
        self._busy_until = 0.0  # the monotonic time until which another process may be committing
        self._writer: sqlite3.Connection  # this connection and the next two are set while `_problem` is None
        self._reader: sqlite3.Connection
        self._watcher: sqlite3.Connection
        self._writer_thread = ThreadPoolExecutor(1, "log-writer")
        self._reader_thread = ThreadPoolExecutor(1, "log-reader")

    # ---- opening and closing the log -------------------------------------------------------------------------------

    async def examine(self) -> str:
        """Return a description of the file at the log's path, for the operator.

        Raise ConfigError or LogUnavailable if the path can't be used for a log.
        """
        try:
            return f"{self._path}: {await asyncio.to_thread(sqlite_file.examined, self._path)}"
        except ConfigError as error:
            raise ConfigError(f"log {self._path}: {error}") from None

    async def is_there(self) -> bool:
        """Return whether there is a file with something in it at the log's path."""
        return sqlite_file.is_there(self._path)

    async def start(self) -> None:
        """Open or create the file, and repair a corrupt one.

        Raise ConfigError if only an operator can solve the problem. A problem that may pass, such as a full disk, is
        not raised. Instead, opening is tried again every RETRY_S seconds, and all other methods raise LogUnavailable
        until this succeeds.
        """
        try:
            await self._open()
        except ConfigError as error:
            raise ConfigError(f"log {self._path}: {error}") from None
        except LogUnavailable as error:
            logger.warning("log %s can't be opened (%s); trying again", self._path, error)
            self._problem = str(error)
            self._opening = asyncio.get_running_loop().create_task(self._open_for_ever())

    async def stop(self) -> None:
        """Commit the waiting appends, then close the file."""
        self._stopping.set()
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        while self._committer is not None:
            await asyncio.wait([self._committer])
        if self._problem is None:
            await self._in(self._writer_thread, self._writer.close)
            await self._in(self._reader_thread, self._reader.close)
            self._watcher.close()
        if self._written is not None:
            self._written.close()
        self._writer_thread.shutdown()
        self._reader_thread.shutdown()

    async def _open(self) -> None:
        """Open three connections to the file, and watch the write-ahead log for writes.

        Raise ConfigError or LogUnavailable if a connection can't be opened.
        """
        writer, lost = await self._in(self._writer_thread, lambda: sqlite_file.opened(self._path))
        self.quarantined += lost
        try:
            reader, watcher = await self._in(self._reader_thread, lambda: sqlite_file.connect_twice(self._path))
            if self._max_pages is not None:
                await self._in(self._writer_thread, lambda: _cap(writer, self._max_pages))
        except sqlite3.Error as error:
            await self._in(self._writer_thread, writer.close)
            raise sqlite_file.reason_of(error) from None
        self._writer, self._reader, self._watcher = writer, reader, watcher
        # From now on `_check` compares the files at the path with the files that were opened here.
        self._identity = sqlite_file.identity(self._path)
        self._written = _watched(_write_ahead_log(self._path), self._on_write)
        self._problem = None

    async def _open_for_ever(self) -> None:
        """Try to open the file every RETRY_S seconds, until this succeeds or the log is stopped.

        Log each new reason for a failure once.
        """
        while self._problem is not None and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._stopping.wait()
            try:
                await self._open()
            except (ConfigError, LogUnavailable) as error:
                if str(error) != self._problem:
                    logger.warning("log %s still can't be opened (now because of: %s); trying again", self._path, error)
                self._problem = str(error)
            except Exception as error:
                self._problem = type(error).__name__
                logger.error(
                    "log %s can't be opened because of an unexpected error: %s; trying again", self._path, trace(error)
                )

    def _check(self) -> None:
        """Raise LogUnavailable if the log's file is not open, or if the file was deleted or replaced.

        The same applies if the file `-wal` or `-shm` beside it was deleted or replaced. Every method calls this one
        before it uses the file. A call makes three stat(2) system calls, which take a few microseconds.
        """
        if self._problem is not None:
            raise LogUnavailable(self._problem)
        if sqlite_file.identity(self._path) != self._identity:
            raise LogUnavailable("its file, -wal or -shm was deleted or replaced; put it back, or start the node again")

    # ---- writing to the log ----------------------------------------------------------------------------------------

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` in the next transaction.

        Return True after the transaction was synced, or False if the number of `entry` is not the next one (LogA1). The
        entry waits in a queue while another transaction is being committed. Raise LogUnavailable if the queue is full
        or the transaction fails.

        Example: ten requests come in while the disk syncs a commit for 5 ms. Their entries wait, and the next
        transaction stores all of them. So each of the ten requests waits for at most two syncs.
        Example: two of the ten are different revisions 2 of one alert. Both are in the same transaction. The first is
        inserted; the second finds that number 2 is taken, and its request gets False.
        """
        if len(self._queue) >= MAX_WAITING:
            raise LogUnavailable("too many appends are waiting")
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, future))
        if self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit_all())
        # If the caller is cancelled because its client has disconnected, the entry is still stored.
        with self._append_times.time():
            return await asyncio.shield(future)

    async def _commit_all(self) -> None:
        """Commit batches from the queue until it is empty.

        Appends that come in during a commit are in the next batch.
        """
        try:
            while self._queue:
                batch, self._queue = self._queue[:MAX_COMMIT], self._queue[MAX_COMMIT:]
                await self._commit(batch)
        finally:
            self._committer = None

    async def _commit(self, batch: list[tuple[Entry | CallEntry, asyncio.Future[bool]]]) -> None:
        """Commit one batch of appends, and set the result of each append.

        If the commit fails, every append in the batch raises LogUnavailable. The followers in this process are woken
        only after the commit, so they never get an entry that is not synced to disk (rule LogA4).
        """
        try:
            stored = await self._write(lambda db: [_insert(db, entry) for entry, _ in batch])
        except Exception as error:
            failure = error if isinstance(error, LogUnavailable) else LogUnavailable(type(error).__name__)
            if failure is not error:
                logger.error("an append to the log met an unexpected error: %s", trace(error))
            for _, future in batch:
                future.set_exception(failure)
                future.exception()  # marks the error as retrieved, because the caller may have been cancelled
            return
        for (_, future), was_stored in zip(batch, stored, strict=True):
            future.set_result(was_stored)
        self.nudge()

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add `counts` to the stored delivery counts of each id.

        After a failed write, first test whether writing works again. The test writes as many bytes as the largest entry
        takes, and deletes them. A smaller write might fit into the free pages of the file while the disk is still full.
        """
        self._check()
        if self._write_failed:
            await self._write(_probe)
            await self._write(_end_probe)
        if not counts:
            await self._in(self._writer_thread, lambda: None)  # so that the caller notices a disk that hangs
            return
        rows = [(alert_id, *added) for alert_id, added in counts.items()]
        await self._write(lambda db: _add_counts(db, rows))

    async def purge(self, now_ms: int) -> int:
        """Delete alerts that ended at least RETENTION_MS ago, and places of calls that ended at least PLACE_MS ago.

        (The place of a call for help is the place of its incident.) Return the number of deleted entries. An alert
        counts as ended when all of its entries have ended according to both the wall clock and the trusted time
        (`trusted_time.py`). Each transaction deletes at most PURGE_BATCH alerts.
        Example: this machine's clock is a day ahead. The newest entry was accepted and approved two hours ago, so the
        trusted time is right, and nothing is deleted early.
        Example: nothing was published for three days, and this machine's clock is right. The trusted time is late by up
        to three days, so old alerts are deleted later than they could be.
        """
        places = await self._purge_places(now_ms)
        rows = await self._select(f"SELECT {COLUMNS} FROM entry ORDER BY position DESC LIMIT {NEWEST}")
        newest = [entry for _, entry in self._readable(rows)]
        cutoff = self._trusted_time.at_least(newest, Now(now_ms, time.monotonic())) - RETENTION_MS
        total = places
        while True:
            gone = await self._write(lambda db: _purge(db, cutoff))
            total += gone
            if not gone:
                return total

    async def _purge_places(self, now_ms: int) -> int:
        """Delete the `call` entries, which contain a place, of calls that ended PLACE_MS ago or earlier (LogC4).

        Return the number of deleted entries. The write-ahead log may still have the bytes of these entries, so it is
        truncated. If another process is reading the write-ahead log now, it is truncated at one of the next purges.
        """
        ends = [entry for _, entry in self._readable(await self._select(_ENDS)) if isinstance(entry, CallEntry)]
        over = [end.id for end in ends if ended_at(end) <= now_ms - PLACE_MS]
        gone = await self._write(lambda db: _purge_places(db, over)) if over else 0
        self._untruncated = self._untruncated or gone > 0
        if self._untruncated:
            self._untruncated = not await self._in(self._writer_thread, lambda: _truncate(self._writer))
        return gone

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in one transaction, wait until the transaction is synced, and return the result of `work`.

        `work` must not return a cursor: if another thread freed the cursor, its statement would be reset while the
        writer thread may be using it.
        """
        self._check()
        try:
            result = await self._in(self._writer_thread, lambda: _transact(self._writer, work))
        except LogUnavailable:
            self._write_failed = True
            raise
        self._write_failed = False
        return result

    # ---- reading the log -------------------------------------------------------------------------------------------

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """Return all readable entries of one alert or call, ordered by number."""
        return [entry for _, entry in await self._chain(alert_id) if entry is not None]

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """Return a page of up to `limit` live alerts.

        `after` is the attribute `after` of the previous page, or None for the first page.
        """
        return await page(self._look, now_ms, after, limit)

    async def _look(self, after: Cursor, count: int) -> Sequence[Seen]:
        """Return the `count` alerts that come after the cursor `after` in the list, whether or not they are live.

        Usually only the last entry of an alert is read. All entries of an alert are read if its last entry was written
        by a later release, or if only the earlier entries can show whether the last one is accepted.
        Example: the last entry is a cancel with too few approvals for its alert. It becomes `Untrusted`, and the
        revision before it is the current one (HD1).
        """
        rows = await self._select(_LOOK, *after, count)
        cursors = [Cursor(row[-1], row[1]) for row in rows]
        last_ones = [(row[0], entry) for row, entry in self._readable([row[:-1] for row in rows])]
        for at, (_, entry) in enumerate(last_ones):
            is_other = isinstance(entry, OtherKind) and not isinstance(entry, CallEntry)
            if is_other or is_doubtful(entry, self.verifier):
                last_ones[at] = await self._last_known_entry(cursors[at].id)
        return [
            Seen(cursor, position, current([entry]))
            for cursor, (position, entry) in zip(cursors, last_ones, strict=True)
        ]

    async def _last_known_entry(self, alert_id: str) -> tuple[int, Entry | OtherKind | None]:
        """Return (position, entry) for the last entry of an alert that is accepted and of a known kind.

        Return (0, None) if there is no such entry. If the last entry is damaged, return its position and None.
        """
        found = [each for each in await self._chain(alert_id) if not isinstance(each[1], OtherKind)]
        return found[-1] if found else (0, None)

    async def _chain(self, alert_id: str) -> list[tuple[int, Entry | OtherKind | None]]:
        """Return a pair (position, entry) for each entry of an alert or call, ordered by number.

        The pair of an entry that can't be read has None in place of the entry. The pair of an entry that is not
        accepted has an `Untrusted`, whose content is ignored.
        """
        rows = await self._select(f"SELECT {COLUMNS} FROM entry WHERE id = ? ORDER BY revision", alert_id)
        chain = drop_unverified_cancels([entry for _, entry in self._readable(rows)], self.verifier)
        return [(row[0], entry) for row, entry in zip(rows, chain, strict=True)]

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """Return the ids of the open calls for help, in the order in which they were opened."""
        return [call_id for (call_id,) in await self._select(_OPEN, now_ms)]

    async def tail(self) -> int:
        """Return the position of the last entry in the log; 0 if the log is empty."""
        return int((await self._select("SELECT coalesce(max(position), 0) FROM entry"))[0][0])

    async def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end.

        Stored entries are read in large batches by the reader thread. At the end of the log the event loop reads new
        entries itself, at most FEW at a time; if there are more, the thread reads them.
        Example: a node starts with a log of 100,000 entries. The thread reads a hundred batches, and the loop serves
        its connections meanwhile. Then alerts are published one after another, and the loop reads each of them at once.
        """
        there = await self.tail() if ended_before_ms else 0  # entries after this position are yielded, ended or not
        query = (
            f"SELECT {COLUMNS} FROM entry WHERE position > ? AND (position > ? OR ends_at >= ? OR {_OF_A_CALL}) "
            "ORDER BY position LIMIT ?"
        )
        at_end = False
        while True:
            self._check()
            # Get the event and the version before reading the rows. Any commit after the rows were read then sets this
            # event or changes the version, so `_wait_for_commit` notices the commit.
            appended, seen = self._appended, self._data_version()
            limit = FEW if at_end else BATCH
            values = after, there, ended_before_ms, limit
            if at_end:
                rows, full = _batch(self._watcher, query, *values)
            else:
                read = functools.partial(_batch, self._reader, query, *values)
                rows, full = await self._in(self._reader_thread, read)
            if rows:
                after = rows[-1][0]
                if followed := [Positioned(p, e) for p, e in await self._read_in_turns(rows) if is_followed(e)]:
                    yield followed
            at_end = not full
            if at_end:
                yield ()
                await self._wait_for_commit(appended, seen)

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics that this log keeps about itself, for Prometheus."""
        return self._append_times.collect()

    def nudge(self) -> None:
        """Wake the followers of this process, which then look for new entries."""
        self._appended.set()
        self._appended = asyncio.Event()
        self._wake()

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
        """Return how many seconds a follower may wait until it reads `data_version` again.

        (A follower is a reader that waits for new entries.)
        """
        now = time.monotonic()
        if self._written is None or now < self._busy_until:
            return POLL_S
        self._written.listen()
        return deadline - now

    def _on_write(self) -> None:
        """Begin to poll `data_version` for BUSY_S seconds, because a process has written to the write-ahead log."""
        self._busy_until = time.monotonic() + BUSY_S
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    async def counts(self, alert_id: str) -> Counts:
        """Return the delivery counts stored for an alert, a call, or a revision of a call.

        `alert_id` is the id of the alert or call, or a key from `under_revision`.
        """
        columns = {row[1] for row in await self._select("PRAGMA table_info(delivery)")}
        # Commits between 0.1.0 and 0.2.0 have added these columns to `delivery`, and may still count in them.
        declined, pushed = (
            f"coalesce(more.{name}, 0)" + (f" + delivery.{name}" if name in columns else "")
            for name in ("declined", "pushed")
        )
        tables = "delivery LEFT JOIN delivery_more AS more USING (id)"
        rows = await self._select(f"SELECT sent, acked, {declined}, {pushed} FROM {tables} WHERE id = ?", alert_id)
        return Counts(*rows[0]) if rows else Counts()

    async def _select(self, query: str, *values: str | int) -> list[Any]:
        """Run a query in the reader thread, and return its rows. Raise LogUnavailable if the file can't be read."""
        self._check()
        return await self._in(self._reader_thread, lambda: _select(self._reader, query, *values))

    def _data_version(self) -> int:
        """Return a number that changes whenever another connection has committed.

        Raise LogUnavailable if it can't be read. SQLite counts for each connection separately, so the number is always
        read on `_watcher`, which never writes.
        """
        try:
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise _unavailable(error) from None

    def _readable(self, rows: Sequence[_Row]) -> Iterator[tuple[_Row, Entry | OtherKind | None]]:
        """Yield a pair (row, entry) for each of these rows of the log.

        The pair of an entry that can't be read has None in place of the entry (LogR2). The pair of an entry that is not
        accepted has an `Untrusted`, whose content is ignored (LogJ1).
        """
        for row in rows:
            try:
                entry = _read(row)
                position, alert_id, number, *_ = row
                if isinstance(entry, OtherKind):
                    yield row, entry
                else:
                    yield row, self.verifier.verify(entry, (alert_id, number), f"position {position}")
            except ValueError as error:
                self._set_aside(row[0], error)
                yield row, None

    async def _read_in_turns(self, rows: Sequence[_Row]) -> list[tuple[int, Entry | OtherKind | None]]:
        """Return the position and the entry of each row, as `_readable` does, and let the event loop run meanwhile."""
        found = []
        turn = Turn(DECODE_AT_ONCE, DECODE_S)
        for row, entry in self._readable(rows):
            found.append((row[0], entry))
            if turn.is_over():
                await asyncio.sleep(0)
                turn = Turn(DECODE_AT_ONCE, DECODE_S)
        return found

    def _set_aside(self, position: int, error: ValueError) -> None:
        """Count and log an unreadable row, unless it was counted before (LogR2)."""
        if position not in self._bad_rows:
            self._bad_rows.add(position)
            self.quarantined += 1
            logger.error(
                "log %s: the entry at position %d is unreadable and is skipped: %s", self._path, position, error
            )

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


# ---- functions that are given a connection; most run in the two threads --------------------------------------------


def _write_ahead_log(path: Path) -> Path:
    file = path.resolve()  # SQLite puts the write-ahead log beside the file itself, not beside a link to it
    return file.with_name(f"{file.name}-wal")


def _watched(path: Path, on_write: Callable[[], None]) -> FileWatch | None:
    """Return a watch on the file at `path`, or None if inotify is unavailable.

    Without a watch, followers poll all the time.
    """
    try:
        return FileWatch(path, on_write)
    except OSError as error:
        logger.info("log %s: inotify is unavailable (%s); polling the log instead", path, error.strerror)
        return None


def _cap(db: sqlite3.Connection, max_pages: int | None) -> None:
    db.execute(f"PRAGMA max_page_count = {max_pages:d}")


def _probe(db: sqlite3.Connection) -> None:
    """Write a row that is larger than any entry, to test whether the disk has enough space.

    Raise sqlite3.Error if there is too little.
    """
    db.execute("INSERT OR REPLACE INTO delivery (id, sent, acked) VALUES (?, 0, 0)", (_PROBE,))


def _end_probe(db: sqlite3.Connection) -> None:
    """Delete the row that `_probe` wrote. Its pages in the file are then free for the next entries."""
    db.execute("DELETE FROM delivery WHERE id = ?", (_PROBE,))


def _add_counts(db: sqlite3.Connection, rows: Sequence[tuple[str, int, int, int, int]]) -> None:
    db.executemany(
        "INSERT INTO delivery (id, sent, acked) VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET sent = sent + excluded.sent, acked = acked + excluded.acked",
        [row[:3] for row in rows],
    )
    db.executemany(
        "INSERT INTO delivery_more (id, declined, pushed) VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET declined = declined + excluded.declined, pushed = pushed + excluded.pushed",
        [(alert_id, *more) for alert_id, _, _, *more in rows if any(more)],
    )


def _select(connection: sqlite3.Connection, query: str, *values: str | int) -> list[Any]:
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise _unavailable(error) from None


def _batch(connection: sqlite3.Connection, query: str, *values: int) -> tuple[list[_Row], bool]:
    """Run a query, and return a batch of its rows, and whether there may be more rows.

    There may be more if the batch is full: its entries have BATCH_BYTES, or it has as many rows as the query's limit
    (the last item of `values`). So one read never takes more than a few MB of memory, even if every entry has 64 KiB.
    """
    rows: list[_Row] = []
    size = 0
    try:
        with contextlib.closing(connection.execute(query, values)) as cursor:
            for row in cursor:
                rows.append(row)
                size += len(row[4])
                if size >= BATCH_BYTES:
                    return rows, True
    except sqlite3.Error as error:
        raise _unavailable(error) from None
    return rows, len(rows) == values[-1]


def _transact(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T]) -> _T:
    """Run `work` in one transaction and return its result. If SQLite fails, roll back and raise LogUnavailable.

    BEGIN IMMEDIATE acquires the write lock at once. With a plain BEGIN two processes could read the same last number,
    and one of them would then fail with "database is locked" although it could have waited.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        result = work(db)
        db.execute("COMMIT")
    except BaseException as error:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise _unavailable(error) from None
        raise
    return result


def _insert(db: sqlite3.Connection, entry: Entry | CallEntry) -> bool:
    """Insert the entry and return True, or return False if it may not follow the stored entries (LogA1).

    The alert's rows are read from the last one backwards, and no more than necessary.
    Example: the stored entries are revision 1, a cancel, and an entry of a later release. The next number is 4. But the
    last entry of a kind that this release knows is the cancel, so this release may append nothing (LogG2).
    """
    query = f"SELECT {COLUMNS} FROM entry WHERE id = ? ORDER BY revision DESC"
    with contextlib.closing(db.execute(query, (entry.id,))) as rows:
        try:
            if not may_follow(entry, map(_entry_in_place, rows)):
                return False
        except ValueError:  # the last entry can't be read; nothing may follow it, because it may have been a cancel
            return False
    payload = codec.encode(entry)
    db.execute(
        "INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)",
        (entry.id, entry.revision, entry.ends_at, payload, codec.checksum(entry.id, entry.revision, payload)),
    )
    failpoints.hit("in-commit")
    return True


def _purge(db: sqlite3.Connection, cutoff_ms: int) -> int:
    """Delete up to PURGE_BATCH alerts whose entries all ended before the cutoff. Return the number of deleted entries.

    Also delete delivery counts of ids that have no entries any more.
    Example: revision 1 ended on Monday, and revision 2, which extended the alert, ends on Wednesday. Both are kept
    until Thursday. So a request that repeats revision 1 on Wednesday still gets its first answer.
    """
    gone = db.execute(
        "DELETE FROM entry WHERE id IN (SELECT DISTINCT id FROM entry AS e WHERE ends_at < ?1 AND NOT EXISTS "
        f"(SELECT 1 FROM entry AS o WHERE o.id = e.id AND o.ends_at >= ?1) LIMIT {PURGE_BATCH})",
        (cutoff_ms,),
    ).rowcount
    for table in ("delivery", "delivery_more") if gone else ():
        db.execute(
            f"DELETE FROM {table} WHERE NOT EXISTS "
            f"(SELECT 1 FROM entry WHERE entry.id = substr({table}.id, 1, instr({table}.id || '/', '/') - 1))"
        )
    return gone


def _purge_places(db: sqlite3.Connection, over: Sequence[str]) -> int:
    """Delete the `call` entries, which contain a place, of the calls with these ids.

    Return the number of deleted entries. Their bytes are overwritten with zeros in the pages of the file, because the
    connection has the setting `secure_delete`.
    """
    statement = f"DELETE FROM entry WHERE id = ? AND {is_of_kind('call')}"
    return sum(db.execute(statement, (call_id,)).rowcount for call_id in over)


def _truncate(db: sqlite3.Connection) -> bool:
    """Copy the write-ahead log into the database file, and then truncate the write-ahead log.

    Return False if another process is still reading the write-ahead log. A process in the middle of a query needs the
    old pages in it. Truncating waits for such processes, but only for TRUNCATE_S, because no process can write
    meanwhile.
    """
    db.execute(f"PRAGMA busy_timeout = {TRUNCATE_S * 1000:.0f}")
    try:
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise _unavailable(error) from None
    finally:
        db.execute(f"PRAGMA busy_timeout = {sqlite_file.BUSY_TIMEOUT_S * 1000:.0f}")
    return not busy


def _read(row: _Row) -> Entry | OtherKind:
    """Return the decoded entry in a row of the log. Raise ValueError if the row is damaged."""
    _, alert_id, revision, ends_at, payload, checksum = row
    if not isinstance(payload, bytes) or codec.checksum(alert_id, revision, payload) != checksum:
        raise ValueError("checksum differs")
    return codec.decode(payload, alert_id, revision, ends_at)


def _entry_in_place(row: _Row) -> Entry | OtherKind:
    """Return the entry in a row, for the check before an append. Raise ValueError if the row is damaged.

    If the bytes are those of an entry with another id or number, return an `OtherKind`, so that only the row's number
    counts (HD15).
    Example: somebody with access to the file copies the bytes of a cancel into a row of another alert. This must not
    end the other alert.
    """
    entry = _read(row)
    _, alert_id, revision, ends_at, *_ = row
    is_in_place = (entry.id, entry.revision) == (alert_id, revision)
    return entry if is_in_place else OtherKind(alert_id, revision, ends_at)


def _unavailable(error: sqlite3.Error) -> LogUnavailable:
    # SQLite's error messages describe conditions such as "database or disk is full". They never contain stored values,
    # so they can be logged.
    return LogUnavailable(str(error))
