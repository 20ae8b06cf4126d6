"""The log of alerts in one SQLite file: appends, deletions and queries."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import Metric

from ... import failpoints
from ...clock import Now
from ...metrics import append_times
from ...model.alert import Entry, OtherKind
from ...model.call import CallEntry
from ...model.errors import ConfigError
from .. import (
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
    may_follow,
    page,
)
from ..append_queue import AppendQueue
from ..trusted_time import NEWEST, TrustedTime
from . import log_file
from .connections import Connections
from .follower import LAST, SqliteFollowers
from .log_file import COLUMNS, is_of_kind
from .rows import Row, RowDecoder, entry_of, select

TRUNCATE_S = 0.05  # how long truncating waits for readers of the write-ahead log; no process can write meanwhile
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


class SqliteLog:
    """A log of alerts in one SQLite file.

    The package's docstring says how it keeps the rules of the `alertlog` package.
    """

    def __init__(self, path: Path, *, max_pages: int | None = None, verifier: EntryVerifier | None = None) -> None:
        """Prepare to use the log at `path`, without opening it.

        `max_pages` limits the file's size in pages; tests use it to simulate a full disk. `verifier` checks the entries
        that are read; without a verifier, all entries are accepted.
        """
        self.name = str(path.absolute())
        self.verifier = verifier or TrustAll()
        self._files = Connections(path, max_pages)
        self._rows = RowDecoder(str(path), self.verifier)
        self._followers = SqliteFollowers(self._files, self._rows)
        self._appends = AppendQueue(self._commit)
        self._trusted_time = TrustedTime()
        self._append_times = append_times()
        self._untruncated = False  # whether the write-ahead log may have bytes of deleted places

    @property
    def quarantined(self) -> int:
        """The number of unreadable entries found since this process started (LogR2)."""
        return len(self._rows) + self._files.lost

    # ---- opening and closing the log -------------------------------------------------------------------------------

    async def examine(self) -> str:
        """Return a description of the file at the log's path, for the operator.

        Raise ConfigError or LogUnavailable if the path can't be used for a log.
        """
        path = self._files.path
        try:
            return f"{path}: {await asyncio.to_thread(log_file.examined, path)}"
        except ConfigError as error:
            raise ConfigError(f"log {path}: {error}") from None

    async def is_there(self) -> bool:
        """Return whether there is a file with something in it at the log's path."""
        return log_file.is_there(self._files.path)

    async def start(self) -> None:
        """Open or create the file, and repair a corrupt one.

        Raise ConfigError if only an operator can solve the problem. A problem that may pass, such as a full disk, is
        not raised; until it is solved, all other methods raise LogUnavailable.
        """
        await self._files.start()

    async def stop(self) -> None:
        """Commit the waiting appends, then close the file."""
        await self._appends.finish()
        await self._files.stop()
        self._followers.close()

    # ---- writing to the log ----------------------------------------------------------------------------------------

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` in the next transaction.

        Return True after the transaction was synced, or False if the number of `entry` is not the next one (LogA1). The
        entry waits in a queue while another transaction is being committed. Raise LogUnavailable if the queue is full
        or the transaction fails.

        Example: two concurrent appends are different revisions 2 of one alert. Both are in the same transaction. The
        first is inserted; the second finds that number 2 is taken, and its request gets False.
        """
        with self._append_times.time():
            return await self._appends.append(entry)

    async def _commit(self, entries: Sequence[Entry | CallEntry]) -> list[bool]:
        """Store entries in one transaction, and return for each of them whether it was stored.

        The followers in this process are woken only after the commit, so they never get an entry that is not synced to
        disk (rule LogA4).
        """
        stored = await self._files.write(lambda db: [_insert(db, entry) for entry in entries])
        self._followers.nudge()
        return stored

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add `counts` to the stored delivery counts of each id.

        After a failed write, first test whether writing works again. The test writes as many bytes as the largest entry
        takes, and deletes them. A smaller write might fit into the free pages of the file while the disk is still full.
        """
        self._files.check()
        if self._files.write_failed:
            await self._files.write(_probe)
            await self._files.write(_end_probe)
        if not counts:
            await self._files.in_writer(lambda _: None)  # so that the caller notices a disk that hangs
            return
        rows = [(alert_id, *added) for alert_id, added in counts.items()]
        await self._files.write(lambda db: _add_counts(db, rows))

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
        total = await self._purge_places(now_ms)
        rows = await self._files.select(f"SELECT {COLUMNS} FROM entry ORDER BY position DESC LIMIT {NEWEST}")
        newest = [entry for _, entry in self._rows.readable(rows)]
        cutoff = self._trusted_time.at_least(newest, Now(now_ms, time.monotonic())) - RETENTION_MS
        while gone := await self._files.write(lambda db: _purge(db, cutoff)):
            total += gone
        return total

    async def _purge_places(self, now_ms: int) -> int:
        """Delete the `call` entries, which contain a place, of calls that ended PLACE_MS ago or earlier (LogC4).

        Return the number of deleted entries. The write-ahead log may still have the bytes of these entries, so it is
        truncated. If another process is reading the write-ahead log now, it is truncated at one of the next purges.
        """
        ends = self._rows.readable(await self._files.select(_ENDS))
        over = [end.id for _, end in ends if isinstance(end, CallEntry) and ended_at(end) <= now_ms - PLACE_MS]
        gone = await self._files.write(lambda db: _purge_places(db, over)) if over else 0
        self._untruncated = self._untruncated or gone > 0
        if self._untruncated:
            self._untruncated = not await self._files.in_writer(_truncate)
        return gone

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
        rows = await self._files.select(_LOOK, *after, count)
        cursors = [Cursor(row[-1], row[1]) for row in rows]
        last_ones = [(row[0], entry) for row, entry in self._rows.readable([row[:-1] for row in rows])]
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
        rows = await self._files.select(f"SELECT {COLUMNS} FROM entry WHERE id = ? ORDER BY revision", alert_id)
        chain = drop_unverified_cancels([entry for _, entry in self._rows.readable(rows)], self.verifier)
        return [(row[0], entry) for row, entry in zip(rows, chain, strict=True)]

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """Return the ids of the open calls for help, in the order in which they were opened."""
        return [call_id for (call_id,) in await self._files.select(_OPEN, now_ms)]

    async def tail(self) -> int:
        """Return the position of the last entry in the log; 0 if the log is empty."""
        return int((await self._files.select(LAST))[0][0])

    def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end."""
        return self._followers.follow(after, ended_before_ms)

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics that this log keeps about itself, for Prometheus."""
        return self._append_times.collect()

    def nudge(self) -> None:
        """Wake the followers of this process, which then look for new entries."""
        self._followers.nudge()

    async def counts(self, alert_id: str) -> Counts:
        """Return the delivery counts stored for an alert, a call, or a revision of a call.

        `alert_id` is the id of the alert or call, or a key from `under_revision`.
        """
        columns = {row[1] for row in await self._files.select("PRAGMA table_info(delivery)")}
        # Commits between 0.1.0 and 0.2.0 have added these columns to `delivery`, and may still count in them.
        declined, pushed = (
            f"coalesce(more.{name}, 0)" + (f" + delivery.{name}" if name in columns else "")
            for name in ("declined", "pushed")
        )
        tables = "delivery LEFT JOIN delivery_more AS more USING (id)"
        query = f"SELECT sent, acked, {declined}, {pushed} FROM {tables} WHERE id = ?"
        rows = await self._files.select(query, alert_id)
        return Counts(*rows[0]) if rows else Counts()


# ---- functions that are given a connection; most run in the two threads --------------------------------------------


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
        [[busy, *_]] = select(db, "PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.execute(f"PRAGMA busy_timeout = {log_file.BUSY_TIMEOUT_S * 1000:.0f}")
    return not busy


def _entry_in_place(row: Row) -> Entry | OtherKind:
    """Return the entry in a row, for the check before an append. Raise ValueError if the row is damaged.

    If the bytes are those of an entry with another id or number, return an `OtherKind`, so that only the row's number
    counts (HD15).
    Example: somebody with access to the file copies the bytes of a cancel into a row of another alert. This must not
    end the other alert.
    """
    entry = entry_of(row)
    _, alert_id, revision, ends_at, *_ = row
    is_in_place = (entry.id, entry.revision) == (alert_id, revision)
    return entry if is_in_place else OtherKind(alert_id, revision, ends_at)
