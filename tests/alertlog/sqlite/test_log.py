"""The log in one SQLite file follows the contract: pages, commits, a full disk."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from alertlog.contract import DurableContract
from alertlog.reading import entries, live
from alertlog.sqlite.tools import ENDS_MS, Opened, contents, edit, fill, run, write
from support.fakes import NOON_MS, a_cancel, a_revision

from geocast.alertlog import Counts, Cursor, append_queue, codec
from geocast.alertlog.sqlite import connections, follower
from geocast.alertlog.sqlite import log as sqlite_log
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.model.errors import LogUnavailable


class TestSqliteLog(DurableContract):
    """All rules of the port, with a file."""

    modules = (sqlite_log, follower)

    def new(self, tmp_path):
        return SqliteLog(tmp_path / "geocast.db")

    async def write(self, log, later):
        write(log._files.path, later)


# ---- pages of live alerts ----------------------------------------------------------------------------------------


def steps_of_a_page(path, after):
    """Return how many steps SQLite's virtual machine takes for a page of 50, in tens."""
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    async def main():
        async with Opened(path) as log:
            log._files._reader.set_progress_handler(count, 10)
            page = await log.live(NOON_MS, after, 50)
            assert len(page.revisions) == 50

    run(main)
    return steps


def test_cost_of_page_of_live_alerts_does_not_depend_on_their_number(tmp_path):
    """A page costs the same with 200 and 4,000 live alerts, at the start and in the middle (LogL2)."""
    few, many = tmp_path / "few.db", tmp_path / "many.db"
    fill(few, 200)
    fill(many, 4_000)
    for after in (None, Cursor(ENDS_MS, "a-123")):
        assert steps_of_a_page(many, after) < 1.1 * steps_of_a_page(few, after)


def test_database_file_of_older_release_gets_index_for_pages(path):
    """The new index replaces the old one, which has only the end times (LogL2)."""
    fill(path, 5)
    edit(path, ["DROP INDEX entry_ends_at_id"], ["CREATE INDEX entry_ends_at ON entry (ends_at)"])
    assert contents(path) == ([f"a-{n}" for n in range(5)], 0)
    with closing(sqlite3.connect(path)) as db:
        indexes = {row[1] for row in db.execute("PRAGMA index_list(entry)") if row[3] == "c" and not row[4]}
    assert indexes == {"entry_ends_at_id"}


# ---- several appends in one commit -------------------------------------------------------------------------------


def test_concurrent_appends_share_a_few_commits(path, monkeypatch):
    """500 concurrent appends cost a few syncs, not 500 (LogA3)."""
    commits = []
    transact = connections.transact

    def counted(db, work):
        commits.append(1)
        return transact(db, work)

    monkeypatch.setattr(connections, "transact", counted)

    async def main():
        async with Opened(path) as log:
            assert all(await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(500))))
            assert len(await entries(log)) == 500

    run(main)
    assert 1 <= len(commits) <= 5


async def test_database_is_configured_to_sync_before_commit_returns(path):
    """Every connection that writes uses WAL and `synchronous=FULL` (LogA3)."""
    async with Opened(path) as log:
        pragmas = [
            await log._files.in_writer(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("journal_mode", "synchronous")
        ]
        assert pragmas == ["wal", 2]


async def test_appends_in_one_commit_get_separate_answers(path):
    """One append may be refused while the others are stored (LogA1, LogA2)."""
    async with Opened(path) as log:
        appends = [
            a_revision("a"),
            a_revision("a", 3),
            a_revision("b"),
            a_revision("a", 2),
            a_revision("b"),
            a_cancel("a", 3),
        ]
        assert await asyncio.gather(*map(log.append, appends)) == [True, False, True, True, False, True]


async def test_log_continues_after_append_with_unexpected_error(path, monkeypatch, caplog):
    """All appends in the same commit raise LogUnavailable, the log says so, and the next append is stored (LogA3)."""
    encode = codec.encode

    def odd(entry):
        if entry.id == "odd":
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "odd")
        return encode(entry)

    monkeypatch.setattr(codec, "encode", odd)
    async with Opened(path) as log:
        appends = [log.append(a_revision(alert_id)) for alert_id in ("a", "odd", "b")]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
        assert "unexpected error: UnicodeEncodeError" in caplog.text
        assert await log.append(a_revision("a"))
        assert [entry.id for entry in await entries(log)] == ["a"]


async def test_appends_beyond_limit_of_waiting_ones_are_refused(path, monkeypatch):
    """The appends that are already waiting are stored (LogA3)."""
    monkeypatch.setattr(append_queue, "MAX_WAITING", 3)
    async with Opened(path) as log:
        appends = [asyncio.ensure_future(log.append(a_revision(f"a-{n}"))) for n in range(5)]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert outcomes[:3] == [True] * 3
        assert [type(outcome) for outcome in outcomes[3:]] == [LogUnavailable] * 2
        assert await log.append(a_revision("a-4"))


# ---- a full disk -------------------------------------------------------------------------------------------------


async def append_until_full(log):
    """Append entries until an append fails, and return the stored entries."""
    stored = []
    for n in range(10_000):
        try:
            assert await log.append(a_revision(f"a-{n}", description="x" * 900))
        except LogUnavailable:
            return stored
        stored.append(f"a-{n}")
    raise AssertionError("never full")


def test_log_is_unavailable_while_disk_is_full(path):
    """Stored entries are served, and failed appends may be repeated when there is space again (LogA3, LogF3)."""

    async def main():
        async with Opened(path, max_pages=40) as log:
            stored = await append_until_full(log)
            assert stored
            with pytest.raises(LogUnavailable, match="full"):
                await log.append(a_revision(f"a-{len(stored)}", description="x" * 900))
            outcomes = await asyncio.gather(
                *(log.append(a_revision(f"b-{n}", description="x" * 900)) for n in range(50)), return_exceptions=True
            )
            assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
            assert [entry.id for entry in await entries(log)] == stored
            assert len(await live(log, NOON_MS)) == len(stored)
            await log._files.in_writer(lambda db: db.execute("PRAGMA max_page_count = 100000").close())
            assert await log.append(a_revision(f"a-{len(stored)}"))
            await log.add_counts({"a-0": Counts(1, 1)})
        return [*stored, f"a-{len(stored)}"]

    stored = run(main)
    assert contents(path) == (stored, 0)
