"""Deletion of old entries in a SQLite log, and the upgrade of files of earlier releases."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alertlog.chains import a_call, a_claim, an_end
from alertlog.reading import entries
from alertlog.sqlite.tools import ENDS_MS, Opened, edit, fill, run
from support.fakes import NOON_MS, a_revision

from geocast.alertlog import PLACE_MS, RETENTION_MS, Counts
from geocast.alertlog.sqlite import log as sqlite_log

pytestmark = pytest.mark.usefixtures("time_passes_for_all")


def test_purge_in_several_transactions_never_leaves_half_an_alert(path, monkeypatch):
    """Each transaction deletes whole alerts, so readers and crashes between transactions find no half ones (LogR1)."""
    monkeypatch.setattr(sqlite_log, "PURGE_BATCH", 3)
    halves = []
    purge = sqlite_log._purge

    def watched(db, cutoff_ms):
        gone = purge(db, cutoff_ms)
        halves.extend(db.execute("SELECT id FROM entry GROUP BY id HAVING count(*) <> 2").fetchall())
        return gone

    monkeypatch.setattr(sqlite_log, "_purge", watched)

    async def main():
        async with Opened(path) as log:
            for n in range(10):
                await log.append(a_revision(f"a-{n}", expires_at=ENDS_MS - n))
            for n in range(10):
                await log.append(a_revision(f"a-{n}", 2, expires_at=ENDS_MS + n))
            assert await log.purge(ENDS_MS + RETENTION_MS + 1000) == 20
            assert await entries(log) == []

    run(main)
    assert halves == []


def test_bytes_of_purged_entries_are_no_longer_in_file(path):
    """The bytes are overwritten, and the write-ahead log is empty when the last node is closed (DP16)."""

    async def main():
        async with Opened(path) as log:
            for n in range(50):
                await log.append(a_revision(f"a-{n}", headline="a headline to forget"))
            assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 50

    run(main)
    assert b"a headline to forget" not in b"".join(each.read_bytes() for each in path.parent.glob("geocast.db*"))


def test_deleted_place_of_call_is_in_no_database_file_of_running_node(path):
    """The bytes are overwritten and the write-ahead log is truncated; other entries stay (LogC4, RZ4)."""
    places, kept = [a_call(1, f"c-{n}") for n in range(20)], [an_end(2, f"c-{n}") for n in range(20)]

    async def main():
        async with Opened(path, 2) as (log, other):
            for entry in (*places, *kept, a_call(1, "open")):
                await log.append(entry)
            assert len(await entries(other)) == 41
            assert all(entry.sealed in files() for entry in places)
            assert await log.purge(NOON_MS + PLACE_MS) == 20
            found = files()
            assert not any(entry.sealed in found for entry in places)
            assert all(entry.sealed in found for entry in kept)
            assert await other.append(a_claim(2, call_id="open"))

    def files():
        return b"".join(each.read_bytes() for each in path.parent.glob("geocast.db*"))

    run(main)


def test_write_ahead_log_in_use_is_truncated_by_next_purge(path):
    """Truncation is retried as long as the write-ahead log may contain a deleted place (LogC4)."""
    place, beside = a_call(), Path(f"{path}-wal")

    async def main():
        async with Opened(path) as log:
            for entry in (place, an_end(2)):
                await log.append(entry)
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM entry").fetchone()
                assert await log.purge(NOON_MS + PLACE_MS) == 1
                assert place.sealed in files()
            assert await log.purge(NOON_MS + PLACE_MS) == 0
            assert place.sealed not in files()

    def files():
        return path.read_bytes() + beside.read_bytes()

    run(main)


def test_open_calls_are_found_by_database_index(path):
    """The index contains only the entries with a place (LogC3, LogC4)."""
    fill(path, 1)
    with closing(sqlite3.connect(path)) as db:
        for query in (sqlite_log._OPEN, sqlite_log._ENDS):
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", (0,) if "?" in query else ())]
            assert plan[0] == "SCAN one USING INDEX entry_with_a_place"
            assert [step for step in plan[1:] if step.startswith("SCAN")] == []


def test_database_file_of_older_release_gets_index_and_table_for_calls(path):
    """Release 0.1.0 can still write with its own SQL statement, which gives a row three values (LogG6)."""
    fill(path, 1)
    edit(
        path,
        ["DROP INDEX entry_with_a_place"],
        ["DROP TABLE delivery_more"],
        ["INSERT INTO delivery VALUES ('a-0', 4, 3)"],
    )

    async def main():
        async with Opened(path) as log:
            await log.add_counts({"a-0": Counts(1, 1, 1)})
            assert await log.counts("a-0") == Counts(5, 4, 1)
            edit(path, ["UPDATE delivery SET sent = 6"], ["INSERT INTO delivery VALUES ('b', 1, 0)"])
            assert await log.counts("a-0") == Counts(6, 4, 1)
            assert await log.counts("b") == Counts(1, 0, 0)
            assert await log.append(a_call())
            assert list(await log.open_calls(NOON_MS)) == ["c-1"]

    run(main)


def test_counts_that_a_later_commit_than_0_1_0_writes_into_columns_of_its_own_are_added(path):
    """Such a commit adds the columns also to a file that this release uses at that time (LogG6)."""
    fill(path, 1)
    added = (
        "INSERT INTO delivery (id, sent, acked, declined, pushed) VALUES ('a-0', 1, 1, 2, 3) "
        "ON CONFLICT (id) DO UPDATE SET sent = sent + excluded.sent, acked = acked + excluded.acked, "
        "declined = declined + excluded.declined, pushed = pushed + excluded.pushed"
    )

    async def main():
        async with Opened(path) as log:
            await log.add_counts({"a-0": Counts(4, 3, 0, 9)})
            columns = [
                [f"ALTER TABLE delivery ADD COLUMN {n} INTEGER NOT NULL DEFAULT 0"] for n in ("declined", "pushed")
            ]
            edit(path, *columns, [added])
            assert await log.counts("a-0") == Counts(5, 4, 2, 12)
            await log.add_counts({"a-0": Counts(declined=1, pushed=1)})
            assert await log.counts("a-0") == Counts(5, 4, 3, 13)
            assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 1
            assert await log.counts("a-0") == Counts()

    run(main)
