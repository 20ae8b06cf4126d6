"""A log in one SQLite file: one machine, any number of processes.

How the rules of the port are kept:

LogA1,
LogA2   A batch is one `BEGIN IMMEDIATE` transaction, so that one writer at a time, of whatever process, looks at the
        last number and inserts the next one.
LogA3   WAL with `synchronous=FULL`: COMMIT returns after the fsync. All appends that come in while one commit is
        under way share the next one (group commit): 500 concurrent posts cost a few fsyncs.
LogA4   Readers see what is committed, and a WAL commit is visible only after it is synced.
LogF1   Positions are AUTOINCREMENT row ids, given out inside the write transaction: they rise in the order of
        commits and are never used twice.
LogF2   An append of this process wakes the followers at once. One of another process is noticed by
        `PRAGMA data_version`: the kernel tells of a write to the write-ahead log (`inotify.py`), and from then on the
        version is asked for every POLL_S, until it has changed or BUSY_S are over. Where the kernel can't tell, it is
        asked for all the time.
LogL2   An index on (ends_at, id) gives the order of LogL1, and where in it a page begins.
LogR1   Neither the wall clock nor what the file bears witness to says that it is too early (`trusted_time.py`).
LogR2   Each row has a CRC-32. A row that fails it, or that is no entry, is set aside in place: skipped, named by its
        position in a log line, and counted. A file that SQLite can't read any more is renamed, and every row that can
        still be read goes into a new one (`sqlite_file`).
LogC3,
LogC4   Entries that hold the place of a call have an index of their own, which the file keeps by the first bytes of
        what is stored: nobody has to fill it, and no release can forget to. Deleted entries are overwritten, and the
        write-ahead log, where older bytes of them may be, is emptied into the file and cut.

Two threads, a connection each: one writes, one reads. The event loop itself only asks for `data_version`, and whether
the file and its companions are still at their paths: what is written to one that was deleted or replaced would be
lost, so that is refused.
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
from ..clock import Now
from ..errors import ConfigError, LogUnavailable, trace
from ..model.alert import Entry, OtherKind
from ..model.call import KINDS, CallEntry
from . import (
    BATCH,
    BATCH_BYTES,
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

FEW = 32  # entries that the loop itself reads, from memory: in a fan-out, a thread gets the GIL after milliseconds
POLL_S = 0.008  # how late an append of another process may be noticed; each look takes 60 µs
CUT_S = 0.05  # for who reads the write-ahead log to leave it, so that it can be cut; nobody writes meanwhile
BUSY_S = 1.0  # from a write to the write-ahead log to the end of its sync; if it takes longer, HEARTBEAT_S more
RETRY_S = 0.25  # after the file could not be opened for a reason that passes
MAX_WAITING = 10_000  # appends in the queue; beyond, the log is unavailable
MAX_COMMIT = 500  # appends in one transaction
PURGE_BATCH = 500  # alerts forgotten in one transaction

# The next alerts in the order of LogL1, each with its last entry.
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
# Calls with a `call` entry, and with the `end` that some of them have.
_OPEN = f"""
SELECT id FROM entry AS one WHERE {is_of_kind("call", "one")}
AND NOT EXISTS (SELECT 1 FROM entry AS other WHERE other.id = one.id AND {is_of_kind("end", "other")})
AND EXISTS (SELECT 1 FROM entry AS other WHERE other.id = one.id AND other.ends_at > ?)
GROUP BY id ORDER BY min(position)
"""
_ENDS = f"""
SELECT DISTINCT {", ".join(f"last.{column}" for column in COLUMNS.split(", "))}
FROM entry AS one CROSS JOIN entry AS last ON last.id = one.id AND {is_of_kind("end", "last")}
WHERE {is_of_kind("call", "one")}
"""
_PROBE = " " * (codec.MAX_ENTRY_BYTES + 1_024)  # no id; takes as much room as any entry (LogA5)

_T = TypeVar("_T")
_Row = tuple[int, str, int, int, bytes, int]


class SqliteLog:
    """A log in one SQLite file. The module tells how it keeps the rules of the port."""

    def __init__(self, path: Path, *, max_pages: int | None = None, verifier: EntryVerifier | None = None) -> None:
        """`max_pages` caps the size of the file, in pages: a disk that fills up, for tests."""
        self.verifier = verifier or TrustAll()
        self.quarantined = 0
        self._path = path
        self._max_pages = max_pages
        self._bad_rows: set[int] = set()
        self._witness = TrustedTime()
        self._queue: list[tuple[Entry | CallEntry, asyncio.Future[bool]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._appended = asyncio.Event()  # replaced by a new one at each commit of ours
        self._woken = asyncio.Event()  # the same, and at each write to the write-ahead log that is told
        self._write_failed = False
        self._uncut = False  # the write-ahead log may have bytes of places that were deleted
        self._problem: str | None = "it is not open"  # why it can't be used
        self._identity: sqlite_file.Identity = ()  # of the files that are open
        self._opening: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._written: FileWatch | None = None  # of the write-ahead log
        self._busy_until = 0.0  # the monotonic time up to which another process may be committing
        self._writer: sqlite3.Connection  # these three are there when there is no problem
        self._reader: sqlite3.Connection
        self._watcher: sqlite3.Connection
        self._writer_thread = ThreadPoolExecutor(1, "log-writer")
        self._reader_thread = ThreadPoolExecutor(1, "log-reader")

    # ---- life ------------------------------------------------------------------------------------------------

    async def examine(self) -> str:
        """Look whether the file can be used, or made."""
        try:
            return f"{self._path}: {await asyncio.to_thread(sqlite_file.examined, self._path)}"
        except ConfigError as error:
            raise ConfigError(f"log {self._path}: {error}") from None

    async def start(self) -> None:
        """Open or create the file, mending a broken one. Raises ConfigError.

        What passes, as a full disk does, is waited for, by every method.
        """
        try:
            await self._open()
        except ConfigError as error:
            raise ConfigError(f"log {self._path}: {error}") from None
        except LogUnavailable as error:
            logger.warning("log %s: %s; going on trying", self._path, error)
            self._problem = str(error)
            self._opening = asyncio.get_running_loop().create_task(self._open_for_ever())

    async def stop(self) -> None:
        """Commit what is waiting, then close."""
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
        self._identity = sqlite_file.identity(self._path)
        self._written = _watched(_write_ahead_log(self._path), self._stirred)
        self._problem = None

    async def _open_for_ever(self) -> None:
        while self._problem is not None and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._stopping.wait()
            try:
                await self._open()
            except (ConfigError, LogUnavailable) as error:
                if str(error) != self._problem:
                    logger.warning("log %s: %s; going on trying", self._path, error)
                self._problem = str(error)
            except Exception as error:
                self._problem = type(error).__name__
                logger.error("log %s: opening it failed: %s", self._path, trace(error))

    def _check(self) -> None:
        """Raise LogUnavailable if the file is not open, or it or a companion is not the one at its path any more."""
        if self._problem is not None:
            raise LogUnavailable(self._problem)
        if sqlite_file.identity(self._path) != self._identity:
            raise LogUnavailable("its file, -wal or -shm was deleted or replaced; put it back, or start the node again")

    # ---- append ------------------------------------------------------------------------------------------------

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` if its number is the next one; durable when this returns True."""
        if len(self._queue) >= MAX_WAITING:
            raise LogUnavailable("too many appends are waiting")
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, future))
        if self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit_all())
        # Whoever posted may go away; what is in the queue is stored all the same.
        return await asyncio.shield(future)

    async def _commit_all(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:MAX_COMMIT], self._queue[MAX_COMMIT:]
                await self._commit(batch)
        finally:
            self._committer = None

    async def _commit(self, batch: list[tuple[Entry | CallEntry, asyncio.Future[bool]]]) -> None:
        try:
            stored = await self._write(lambda db: [_insert(db, entry) for entry, _ in batch])
        except Exception as error:
            failure = error if isinstance(error, LogUnavailable) else LogUnavailable(type(error).__name__)
            for _, future in batch:
                future.set_exception(failure)
                future.exception()  # it may be that nobody waits any more
            return
        for (_, future), was_stored in zip(batch, stored, strict=True):
            future.set_result(was_stored)
        self.nudge()

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add to the deliveries of each alert; with nothing to add, try a failed writer again."""
        self._check()
        if self._write_failed:
            await self._write(_probe)
            await self._write(_end_probe)
        if not counts:
            return
        rows = [(alert_id, *added) for alert_id, added in counts.items()]
        await self._write(lambda db: _add_counts(db, rows))

    async def purge(self, now_ms: int) -> int:
        """Forget alerts of which every entry ended RETENTION_MS ago, PURGE_BATCH at a time, and places of calls."""
        places = await self._purge_places(now_ms)
        rows = await self._select(f"SELECT {COLUMNS} FROM entry ORDER BY position DESC LIMIT {NEWEST}")
        newest = [entry for _, entry in self._readable(rows)]
        cutoff = self._witness.at_least(newest, Now(now_ms, time.monotonic())) - RETENTION_MS
        total = places
        while True:
            gone = await self._write(lambda db: _purge(db, cutoff))
            total += gone
            if not gone:
                return total

    async def _purge_places(self, now_ms: int) -> int:
        """Delete the places of calls that ended PLACE_MS ago (LogC4)."""
        ends = [entry for _, entry in self._readable(await self._select(_ENDS)) if isinstance(entry, CallEntry)]
        over = [end.id for end in ends if ended_at(end) <= now_ms - PLACE_MS]
        gone = await self._write(lambda db: _purge_places(db, over)) if over else 0
        self._uncut = self._uncut or gone > 0
        if self._uncut:
            self._uncut = not await self._in(self._writer_thread, lambda: _cut(self._writer))
        return gone

    async def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in one transaction, synced before this returns. No cursor may be what it returns.

        (One that is let go of in another thread resets its statement there, while this one may be using it again.)
        """
        self._check()
        try:
            result = await self._in(self._writer_thread, lambda: _transact(self._writer, work))
        except LogUnavailable:
            self._write_failed = True
            raise
        self._write_failed = False
        return result

    # ---- read --------------------------------------------------------------------------------------------------

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """All entries of one alert."""
        return [entry for _, entry in await self._chain(alert_id) if entry is not None]

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """A page of the live alerts."""
        return await page(self._look, now_ms, after, limit)

    async def _look(self, after: Cursor, count: int) -> Sequence[Seen]:
        rows = await self._select(_LOOK, *after, count)
        cursors = [Cursor(row[-1], row[1]) for row in rows]
        last_ones = [(row[0], entry) for row, entry in self._readable([row[:-1] for row in rows])]
        for at, (_, entry) in enumerate(last_ones):
            is_other = isinstance(entry, OtherKind) and not isinstance(entry, CallEntry)
            if is_other or is_doubtful(entry, self.verifier):
                last_ones[at] = await self._below(cursors[at].id)
        return [
            Seen(cursor, position, current([entry]))
            for cursor, (position, entry) in zip(cursors, last_ones, strict=True)
        ]

    async def _below(self, alert_id: str) -> tuple[int, Entry | OtherKind | None]:
        """The last entry of this alert that is believed and of a kind that we know, and its position; 0 without one."""
        found = [each for each in await self._chain(alert_id) if not isinstance(each[1], OtherKind)]
        return found[-1] if found else (0, None)

    async def _chain(self, alert_id: str) -> list[tuple[int, Entry | OtherKind | None]]:
        """Return the position of each entry of an alert, and the entry, or None if it is unreadable or not believed."""
        rows = await self._select(f"SELECT {COLUMNS} FROM entry WHERE id = ? ORDER BY revision", alert_id)
        chain = drop_unverified_cancels([entry for _, entry in self._readable(rows)], self.verifier)
        return [(row[0], entry) for row, entry in zip(rows, chain, strict=True)]

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """The calls that are open."""
        return [call_id for (call_id,) in await self._select(_OPEN, now_ms)]

    async def tail(self) -> int:
        """The position of the last entry."""
        return int((await self._select("SELECT coalesce(max(position), 0) FROM entry"))[0][0])

    async def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """The entries behind `after`, and those to come."""
        there = await self.tail() if ended_before_ms else 0
        query = (
            f"SELECT {COLUMNS} FROM entry WHERE position > ? AND (position > ? OR ends_at >= ? OR {_OF_A_CALL}) "
            "ORDER BY position LIMIT ?"
        )
        at_end = False
        while True:
            self._check()
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
                found = [(row[0], entry) for row, entry in self._readable(rows)]
                if followed := [Positioned(p, e) for p, e in found if is_followed(e)]:
                    yield followed
            at_end = not full
            if at_end:
                yield ()
                await self._news(appended, seen)

    def metrics(self) -> Iterable[Metric]:
        """The port's own figures are all there is."""
        return ()

    def nudge(self) -> None:
        """Have `follow` look at once."""
        self._appended.set()
        self._appended = asyncio.Event()
        self._wake()

    async def _news(self, appended: asyncio.Event, seen: int) -> None:
        """Return when something was committed since, by us or by another process, or after HEARTBEAT_S."""
        deadline = time.monotonic() + HEARTBEAT_S
        while not appended.is_set() and time.monotonic() < deadline:
            woken, pause_s = self._woken, self._pause_s(deadline)  # before the version: a write after that is told
            if self._data_version() != seen:
                self._busy_until = 0.0
                return
            # Not wait_for: in Python 3.11 it can swallow a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await woken.wait()

    def _pause_s(self, deadline: float) -> float:
        """For how long a follower need not ask for the version, unless it is woken."""
        now = time.monotonic()
        if self._written is None or now < self._busy_until:
            return POLL_S
        self._written.listen()
        return deadline - now

    def _stirred(self) -> None:
        """The write-ahead log was written to, by us or by another process."""
        self._busy_until = time.monotonic() + BUSY_S
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()

    async def counts(self, alert_id: str) -> Counts:
        """The deliveries of one alert."""
        rows = await self._select("SELECT sent, acked, declined, pushed FROM delivery WHERE id = ?", alert_id)
        return Counts(*rows[0]) if rows else Counts()

    async def _select(self, query: str, *values: str | int) -> list[Any]:
        self._check()
        return await self._in(self._reader_thread, lambda: _select(self._reader, query, *values))

    def _data_version(self) -> int:
        try:
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise _unavailable(error) from None

    def _readable(self, rows: Sequence[_Row]) -> Iterator[tuple[_Row, Entry | OtherKind | None]]:
        """Each row with the entry in it; None if it can't be read."""
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

    def _set_aside(self, position: int, error: ValueError) -> None:
        if position not in self._bad_rows:
            self._bad_rows.add(position)
            self.quarantined += 1
            logger.error("log %s: entry at position %d set aside: %s", self._path, position, error)

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


# ---- in the threads ----------------------------------------------------------------------------------------------


def _write_ahead_log(path: Path) -> Path:
    file = path.resolve()  # it is beside the file itself, not beside a link to it
    return file.with_name(f"{file.name}-wal")


def _watched(path: Path, told: Callable[[], None]) -> FileWatch | None:
    try:
        return FileWatch(path, told)
    except OSError as error:
        logger.info("log %s: the kernel tells of no writes (%s), so we look all the time", path, error.strerror)
        return None


def _cap(db: sqlite3.Connection, max_pages: int | None) -> None:
    db.execute(f"PRAGMA max_page_count = {max_pages:d}")


def _probe(db: sqlite3.Connection) -> None:
    db.execute("INSERT OR REPLACE INTO delivery (id, sent, acked) VALUES (?, 0, 0)", (_PROBE,))


def _end_probe(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM delivery WHERE id = ?", (_PROBE,))


def _add_counts(db: sqlite3.Connection, rows: Sequence[tuple[str, int, int, int, int]]) -> None:
    db.executemany(
        "INSERT INTO delivery (id, sent, acked, declined, pushed) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET sent = sent + excluded.sent, acked = acked + excluded.acked, "
        "declined = declined + excluded.declined, pushed = pushed + excluded.pushed",
        rows,
    )


def _select(connection: sqlite3.Connection, query: str, *values: str | int) -> list[Any]:
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise _unavailable(error) from None


def _batch(connection: sqlite3.Connection, query: str, *values: int) -> tuple[list[_Row], bool]:
    """Entries of a batch, and whether it is full: there may be more then. The last of `values` is how many, at most."""
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
    query = f"SELECT {COLUMNS} FROM entry WHERE id = ? ORDER BY revision DESC"
    with contextlib.closing(db.execute(query, (entry.id,))) as rows:
        try:
            if not may_follow(entry, map(_standing, rows)):
                return False
        except ValueError:  # set aside: nobody knows what it said, so nothing may follow it
            return False
    payload = codec.encode(entry)
    db.execute(
        "INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)",
        (entry.id, entry.revision, entry.ends_at, payload, codec.checksum(entry.id, entry.revision, payload)),
    )
    failpoints.hit("in-commit")
    return True


def _purge(db: sqlite3.Connection, cutoff_ms: int) -> int:
    gone = db.execute(
        "DELETE FROM entry WHERE id IN (SELECT DISTINCT id FROM entry AS e WHERE ends_at < ?1 AND NOT EXISTS "
        f"(SELECT 1 FROM entry AS o WHERE o.id = e.id AND o.ends_at >= ?1) LIMIT {PURGE_BATCH})",
        (cutoff_ms,),
    ).rowcount
    if gone:
        db.execute(
            "DELETE FROM delivery WHERE NOT EXISTS "
            "(SELECT 1 FROM entry WHERE entry.id = substr(delivery.id, 1, instr(delivery.id || '/', '/') - 1))"
        )
    return gone


def _purge_places(db: sqlite3.Connection, over: Sequence[str]) -> int:
    statement = f"DELETE FROM entry WHERE id = ? AND {is_of_kind('call')}"
    return sum(db.execute(statement, (call_id,)).rowcount for call_id in over)


def _cut(db: sqlite3.Connection) -> bool:
    """Empty the write-ahead log into the file. False if that has to wait for who reads it."""
    db.execute(f"PRAGMA busy_timeout = {CUT_S * 1000:.0f}")
    try:
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        raise _unavailable(error) from None
    finally:
        db.execute(f"PRAGMA busy_timeout = {sqlite_file.BUSY_TIMEOUT_S * 1000:.0f}")
    return not busy


def _read(row: _Row) -> Entry | OtherKind:
    """The entry in a row. Raises ValueError if it is not what was written."""
    _, alert_id, revision, ends_at, payload, checksum = row
    if not isinstance(payload, bytes) or codec.checksum(alert_id, revision, payload) != checksum:
        raise ValueError("checksum differs")
    return codec.decode(payload, alert_id, revision, ends_at)


def _standing(row: _Row) -> Entry | OtherKind:
    """Return the entry in a row. Of one that belongs elsewhere only the number counts (HD15). Raises ValueError."""
    entry = _read(row)
    _, alert_id, revision, ends_at, *_ = row
    is_in_place = (entry.id, entry.revision) == (alert_id, revision)
    return entry if is_in_place else OtherKind(alert_id, revision, ends_at)


def _unavailable(error: sqlite3.Error) -> LogUnavailable:
    # The messages of SQLite name conditions ("database or disk is full"), never values.
    return LogUnavailable(str(error))
