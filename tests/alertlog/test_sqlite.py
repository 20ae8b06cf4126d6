"""The log in one SQLite file keeps the contract, and what only a file can do to it."""

import asyncio
import dataclasses
import errno
import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import aclosing, closing, suppress
from pathlib import Path

import msgpack
import pytest
from alertlog.chains import a_call, a_claim, an_end
from alertlog.contract import PATIENCE_S, DurableContract, entries, live, read, read_on
from alertlog.later import MULTIPOLYGON, of_another_kind, with_area, with_members
from support.fakes import NOON_MS, FakeClock, a_cancel, a_revision, alert_request

from geocast import policy
from geocast.alertlog import PLACE_MS, RETENTION_MS, Counts, Cursor, codec, inotify, sqlite, sqlite_file
from geocast.alertlog.sqlite import SqliteLog
from geocast.alertlog.trusted_time import TrustedTime
from geocast.errors import ConfigError, LogUnavailable
from geocast.ingest.publish import Publisher, Publishing

pytestmark = pytest.mark.timeout(120)

ENDS_MS = a_revision().ends_at


@pytest.fixture(autouse=True)
def _time_passes_for_all(request, monkeypatch):
    """The entries of most tests bear witness to any time: what counts is the clock that a test passes to `purge`."""
    if "witness" not in request.function.__name__:
        monkeypatch.setattr(TrustedTime, "at_least", lambda _witness, _newest, now: now.wall_ms)


TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def path(tmp_path):
    """Where the log is."""
    return tmp_path / "geocast.db"


class TestSqliteLog(DurableContract):
    """All rules."""

    modules = (sqlite,)
    most_large = 3

    def new(self, tmp_path):
        return SqliteLog(tmp_path / "geocast.db")

    async def write(self, log, later):
        write(log._path, later)


class Opened:
    """Some logs on one file, open for as long as the block runs."""

    def __init__(self, path, count=1, **options):
        self._logs = [SqliteLog(path, **options) for _ in range(count)]

    async def __aenter__(self):
        for log in self._logs:
            await log.start()
        return self._logs if len(self._logs) > 1 else self._logs[0]

    async def __aexit__(self, *_):
        for log in self._logs:
            await log.stop()


def run(main):
    """Run a coroutine function to its end, within bounds."""

    async def bounded():
        async with asyncio.timeout(PATIENCE_S):
            return await main()

    return asyncio.run(bounded())


def fill(path, count):
    """Store this many alerts, a-0 and so on, in one go, and close the file."""

    def insert(db):
        return [sqlite._insert(db, a_revision(f"a-{n}")) for n in range(count)]

    async def main():
        async with Opened(path) as log:
            assert all(await log._write(insert))

    run(main)


def contents(path):
    """(ids in the log, how many entries were set aside)."""

    async def main():
        async with Opened(path) as log:
            return [entry.id for entry in await entries(log)], log.quarantined

    return run(main)


def edit(path, *statements):
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(path)) as db, db:
        for statement, *values in statements:
            db.execute(statement, values)
        db.commit()


def write(path, *entries):
    """Store entries as a later release does."""
    statement = "INSERT INTO entry (id, revision, ends_at, payload, checksum) VALUES (?, ?, ?, ?, ?)"
    edit(path, *((statement, e.id, e.revision, e.ends_at, e.payload, e.checksum) for e in entries))


# ---- pages ---------------------------------------------------------------------------------------------------


def steps_of_a_page(path, after):
    """How many steps SQLite's machine takes for a page of 50, in tens."""
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    async def main():
        async with Opened(path) as log:
            log._reader.set_progress_handler(count, 10)
            page = await log.live(NOON_MS, after, 50)
            assert len(page.revisions) == 50

    run(main)
    return steps


def test_a_page_costs_what_a_page_is(tmp_path):
    """LogL2: whether 200 alerts are live or 4,000, at the start and in the middle; many end at the same time."""
    few, many = tmp_path / "few.db", tmp_path / "many.db"
    fill(few, 200)
    fill(many, 4_000)
    for after in (None, Cursor(ENDS_MS, "a-123")):
        assert steps_of_a_page(many, after) < 1.1 * steps_of_a_page(few, after)


def test_a_file_of_a_release_without_pages_gets_what_they_take(path):
    """LogL2: its index on the ends alone gives way."""
    fill(path, 5)
    edit(path, ["DROP INDEX entry_ends_at_id"], ["CREATE INDEX entry_ends_at ON entry (ends_at)"])
    assert contents(path) == ([f"a-{n}" for n in range(5)], 0)
    with closing(sqlite3.connect(path)) as db:
        indexes = {row[1] for row in db.execute("PRAGMA index_list(entry)") if row[3] == "c" and not row[4]}
    assert indexes == {"entry_ends_at_id"}


# ---- several processes on one file ---------------------------------------------------------------------------


def test_an_append_of_another_process_is_noticed(path, monkeypatch):
    """LogF1, LogF2: by `PRAGMA data_version`; no heartbeat is needed."""
    monkeypatch.setattr(sqlite, "HEARTBEAT_S", 3600.0)

    async def main():
        async with Opened(path, 2) as (one, other), aclosing(other.follow(0)) as follower:
            assert await read_on(follower) == []
            for n in range(3):
                waiting = asyncio.ensure_future(read_on(follower))
                await one.append(a_revision(f"a-{n}"))
                assert [entry.id for _, entry in await waiting] == [f"a-{n}"]

    run(main)


def test_a_follower_that_has_nothing_to_do_sleeps_until_the_kernel_tells_of_a_write(path, monkeypatch):
    """LogF2: it would look 125 times a second, 1 % of a core for each process. A link to the file is none of it."""
    monkeypatch.setattr(sqlite, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(sqlite, "BUSY_S", 0.2)
    link = path.with_name("link")

    async def main():
        async with Opened(path) as one:
            link.symlink_to(path)
            async with Opened(link) as other, aclosing(other.follow(0)) as follower:
                looks = 0
                asked = other._data_version

                def counted():
                    nonlocal looks
                    looks += 1
                    return asked()

                monkeypatch.setattr(other, "_data_version", counted)
                assert await read_on(follower) == []
                for n in range(3):
                    waiting = asyncio.ensure_future(read_on(follower))
                    before = -1
                    while looks != before:  # for ever, if it does not sleep
                        before = looks
                        await asyncio.sleep(0.1)
                    await one.append(a_revision(f"a-{n}"))
                    assert [entry.id for _, entry in await waiting] == [f"a-{n}"]

    run(main)


@pytest.mark.parametrize("call", ["inotify_init1", "inotify_add_watch"])
def test_without_a_word_of_the_kernel_a_follower_looks_again_and_again(path, monkeypatch, call):
    """LogF2: a user may have no watch left, and a sandbox no inotify."""
    monkeypatch.setattr(sqlite, "HEARTBEAT_S", 3600.0)
    made = inotify._call

    def fails(name, *arguments):
        if name == call:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return made(name, *arguments)

    monkeypatch.setattr(inotify, "_call", fails)

    async def main():
        async with Opened(path, 2) as (one, other), aclosing(other.follow(0)) as follower:
            assert await read_on(follower) == []
            waiting = asyncio.ensure_future(read_on(follower))
            await one.append(a_revision("a-1"))
            assert [entry.id for _, entry in await waiting] == ["a-1"]

    run(main)


def test_a_nudge_does_not_wait_for_the_poll(path, monkeypatch):
    """`AlertLog.nudge`: another process may have appended."""
    monkeypatch.setattr(sqlite, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(sqlite, "POLL_S", 3600.0)

    async def main():
        async with Opened(path, 2) as (one, other), aclosing(other.follow(0)) as follower:
            assert await read_on(follower) == []
            waiting = asyncio.ensure_future(read_on(follower))
            await asyncio.sleep(0)
            await one.append(a_revision())
            other.nudge()
            assert [entry.id for _, entry in await waiting] == ["a-1"]

    run(main)


def test_of_concurrent_appends_of_several_processes_one_is_stored(path):
    """LogA1, LogA2: by whatever process; both see the same."""

    async def main():
        async with Opened(path, 3) as logs:
            for number in range(1, 6):
                rivals = [(log, a_revision(revision=number, headline=f"H{n}")) for n, log in enumerate(logs * 5)]
                stored = await asyncio.gather(*(log.append(rival) for log, rival in rivals))
                assert sum(stored) == 1
                winner = rivals[stored.index(True)][1]
                for log in logs:
                    assert (await log.history("a-1"))[-1] == winner
            first, *others = [await read(log) for log in logs]
            assert others == [first] * 2
            assert [entry.revision for _, entry in first] == [1, 2, 3, 4, 5]

    run(main)


def test_followers_of_all_processes_get_the_same_in_the_same_order(path):
    """LogF1: no entry turns up later below a position that was already given, whoever appends."""

    async def follow(log, count):
        seen = []
        async with aclosing(log.follow(0)) as follower:
            while len(seen) < count:
                seen += await read_on(follower)
        return seen

    async def main():
        async with Opened(path, 3) as logs:
            following = [asyncio.ensure_future(follow(log, 150)) for log in logs]
            for turn in range(10):
                await asyncio.gather(
                    *(log.append(a_revision(f"a-{turn}-{i}-{n}")) for i, log in enumerate(logs) for n in range(5))
                )
            first, *others = await asyncio.gather(*following)
            assert others == [first] * 2
            assert len({position for position, _ in first}) == 150
            assert first == sorted(first, key=lambda positioned: positioned.position)

    run(main)


def test_who_waits_too_long_for_another_processs_write_is_told(path, monkeypatch):
    """LogA3, LogF3: LogUnavailable while the file is locked; afterwards all goes on."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.01)

    async def main():
        async with Opened(path) as log:
            with closing(sqlite3.connect(path, isolation_level=None)) as hog:
                hog.execute("BEGIN IMMEDIATE")
                with pytest.raises(LogUnavailable, match="locked"):
                    await log.append(a_revision())
                with pytest.raises(LogUnavailable):
                    await log.add_counts({"a-1": Counts(1, 0)})
                with pytest.raises(LogUnavailable):
                    await log.add_counts({})
                assert await entries(log) == []
                hog.execute("ROLLBACK")
            await log.add_counts({})
            assert await log.append(a_revision())

    run(main)


# ---- group commit --------------------------------------------------------------------------------------------


def test_concurrent_appends_share_their_commits(path, monkeypatch):
    """LogA3: 500 concurrent appends cost a few syncs, not 500."""
    commits = []
    transact = sqlite._transact

    def counted(db, work):
        commits.append(1)
        return transact(db, work)

    monkeypatch.setattr(sqlite, "_transact", counted)

    async def main():
        async with Opened(path) as log:
            assert all(await asyncio.gather(*(log.append(a_revision(f"a-{n}")) for n in range(500))))
            assert len(await entries(log)) == 500

    run(main)
    assert 1 <= len(commits) <= 5


def test_a_commit_returns_after_its_sync(path):
    """LogA3: WAL with `synchronous=FULL` (2), on every connection that writes."""

    async def main():
        async with Opened(path) as log:
            pragmas = [
                await log._in(log._writer_thread, lambda name=name: log._writer.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("journal_mode", "synchronous")
            ]
            assert pragmas == ["wal", 2]

    run(main)


def test_each_append_of_a_shared_commit_gets_its_own_answer(path):
    """LogA1, LogA2: one of them may be refused, the others are stored."""

    async def main():
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

    run(main)


def test_an_append_that_fails_oddly_does_not_stop_the_log(path, monkeypatch):
    """LogA3: whoever shared its commit is told that the outcome is unknown, and the next one is stored."""
    encode = codec.encode

    def odd(entry):
        if entry.id == "odd":
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "odd")
        return encode(entry)

    monkeypatch.setattr(codec, "encode", odd)

    async def main():
        async with Opened(path) as log:
            appends = [log.append(a_revision(alert_id)) for alert_id in ("a", "odd", "b")]
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
            assert all(isinstance(outcome, LogUnavailable) for outcome in outcomes)
            assert await log.append(a_revision("a"))
            assert [entry.id for entry in await entries(log)] == ["a"]

    run(main)


def test_too_many_waiting_appends_are_refused(path, monkeypatch):
    """LogA3: the queue is bounded; what is in it is stored."""
    monkeypatch.setattr(sqlite, "MAX_WAITING", 3)

    async def main():
        async with Opened(path) as log:
            appends = [asyncio.ensure_future(log.append(a_revision(f"a-{n}"))) for n in range(5)]
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
            assert outcomes[:3] == [True] * 3
            assert [type(outcome) for outcome in outcomes[3:]] == [LogUnavailable] * 2
            assert await log.append(a_revision("a-4"))

    run(main)


# ---- a full disk ---------------------------------------------------------------------------------------------


async def append_until_full(log):
    """Append until it can't; what was stored."""
    stored = []
    for n in range(10_000):
        try:
            assert await log.append(a_revision(f"a-{n}", description="x" * 900))
        except LogUnavailable:
            return stored
        stored.append(f"a-{n}")
    raise AssertionError("never full")


def test_a_full_disk_makes_the_log_unavailable_until_there_is_room(path):
    """LogA3, LogF3: what was stored is served; what was not may be repeated when there is room."""

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
            await log._in(log._writer_thread, lambda: log._writer.execute("PRAGMA max_page_count = 100000"))
            assert await log.append(a_revision(f"a-{len(stored)}"))
            await log.add_counts({"a-0": Counts(1, 1)})
        return [*stored, f"a-{len(stored)}"]

    stored = run(main)
    assert contents(path) == (stored, 0)


# ---- rows that can't be read ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        ["UPDATE entry SET payload = x'00' WHERE id = 'a-2'"],
        ["UPDATE entry SET payload = zeroblob(length(payload)) WHERE id = 'a-2'"],
        ["UPDATE entry SET payload = x'' WHERE id = 'a-2'"],
        ["UPDATE entry SET checksum = checksum + 1 WHERE id = 'a-2'"],
        ["UPDATE entry SET revision = 7 WHERE id = 'a-2'"],
        ["UPDATE entry SET payload = ?, checksum = ? WHERE id = 'a-2'", b"\xc1", codec.checksum("a-2", 1, b"\xc1")],
        ["UPDATE entry SET payload = ?, checksum = ? WHERE id = 'a-2'", b"\x80", codec.checksum("a-2", 1, b"\x80")],
    ],
    ids=["cut", "zeros", "empty", "checksum", "number", "no msgpack", "no entry"],
)
def test_a_row_that_cannot_be_read_is_set_aside_and_the_rest_is_served(path, caplog, damage):
    """LogR2: it is counted, once, and nothing is deleted."""
    fill(path, 5)
    edit(path, damage)

    async def main():
        async with Opened(path) as log:
            for _ in range(3):
                assert [entry.id for entry in await entries(log)] == ["a-0", "a-1", "a-3", "a-4"]
                assert len(await live(log, NOON_MS)) == 4
                assert list(await log.history("a-2")) == []
            assert log.quarantined == 1
            assert await log.tail() == 5
            said = [record.getMessage() for record in caplog.records if record.name == sqlite.logger.name]
            assert len(said) == 1
            assert "position 3" in said[0]
            assert await log.append(a_revision("a-5"))
            assert not await log.append(a_revision("a-2", 2))
            assert not await log.append(a_revision("a-2", 8))

    run(main)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM entry").fetchone() == (6,)


def test_a_broken_row_may_not_be_written_over(path):
    """LogR2, LogA2: nobody knows what it said, so the same id does not begin again."""
    fill(path, 1)
    edit(path, ["UPDATE entry SET payload = x'00'"])

    async def main():
        async with Opened(path) as log:
            publishing = Publishing(log, policy.load(None), FakeClock())
            with pytest.raises(LogUnavailable):
                await publishing.publish(alert_request(id="a-0"), Publisher("desk"))
            assert await entries(log) == []

    run(main)


def test_followers_go_on_behind_any_number_of_broken_rows(path, monkeypatch):
    """LogF2, LogR2: an empty batch says that the end was reached, not that a batch held nothing that can be read."""
    monkeypatch.setattr(sqlite, "BATCH", 3)
    fill(path, 10)
    edit(path, ["UPDATE entry SET payload = x'00' WHERE position BETWEEN 3 AND 9"])
    assert contents(path) == (["a-0", "a-1", "a-9"], 7)


# ---- files that can't be read --------------------------------------------------------------------------------

PAGE = 4096


def damaged(path, damage):
    """Fill a log of some 100 pages and damage its file. Its size, in pages."""
    fill(path, 1000)
    edit(path, ["PRAGMA wal_checkpoint(TRUNCATE)"])
    data = bytearray(path.read_bytes())
    pages = len(data) // PAGE
    path.write_bytes(bytes(damage(data, pages)))
    return pages


def zeroed(data, first, count):
    """Bytes with some pages made zero."""
    data[first * PAGE : (first + count) * PAGE] = bytes(count * PAGE)
    return data


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (lambda data, pages: b"this is no database " * 1000, 0),
        (lambda data, pages: b"\x00" * len(data), 0),
        (lambda data, pages: zeroed(data, 0, 1), 0),
        (lambda data, pages: data[: PAGE * (pages * 3 // 4)], 1),
        (lambda data, pages: data[: PAGE * (pages // 2) + 777], 1),
        (lambda data, pages: zeroed(data, pages // 2, 1), 900),
        (lambda data, pages: zeroed(data, pages // 2, 5), 700),
        (lambda data, pages: zeroed(data, pages - 1, 1), 900),
    ],
    ids=["garbage", "zeros", "no header", "cut", "cut in a page", "a page", "five pages", "the last page"],
)
def test_of_a_broken_file_every_row_that_can_be_read_is_saved(path, caplog, damage, least):
    """LogR2: the old file is kept, and the log goes on in a new one."""
    damaged(path, damage)
    before = path.read_bytes()

    async def main():
        async with Opened(path) as log:
            found = await read(log)
            for _, entry in found:
                assert list(await log.history(entry.id)) == [entry] == [a_revision(entry.id)]
            assert await log.append(a_revision("new"))
            assert [entry.id for _, entry in await read(log, found[-1].position if found else 0)] == ["new"]
            return found

    found = run(main)
    assert least <= len(found) < 1000
    assert [entry.id for _, entry in found] == [f"a-{position - 1}" for position, _ in found]
    kept = [
        other
        for other in path.parent.iterdir()
        if ".corrupt-" in other.name and not other.name.endswith(("-wal", "-shm"))
    ]
    assert [other.read_bytes() for other in kept] == [before]
    assert kept[0].name in caplog.text
    ids, quarantined = contents(path)
    assert len(ids) == len(found) + 1
    assert quarantined <= 1  # a row that a cut goes through may come over as it is, and is set aside there


def test_what_a_later_release_wrote_is_saved_byte_for_byte(path):
    """LogR2, LogG5: entries of other kinds and unknown members, out of a file with a broken page."""
    written = [
        each
        for n in range(200)
        for each in (
            of_another_kind(f"call-{n}"),
            with_members(a_revision(f"c-{n}")),
            with_area(MULTIPOLYGON, alert_id=f"b-{n}"),
        )
    ]
    fill(path, 1)
    write(path, *written)
    edit(path, ["PRAGMA wal_checkpoint(TRUNCATE)"])
    data = bytearray(path.read_bytes())
    path.write_bytes(zeroed(data, len(data) // PAGE // 2, 1))
    ids, quarantined = contents(path)
    with closing(sqlite3.connect(path)) as db:
        found = set(db.execute("SELECT id, payload FROM entry"))
    assert found - {("a-0", codec.encode(a_revision("a-0")))} <= {(each.id, each.payload) for each in written}
    assert len(found) + quarantined == 601
    assert 0 < quarantined < 200
    assert len([alert_id for alert_id, _ in found if alert_id.startswith("call-")]) > 100
    assert len(ids) == len([alert_id for alert_id, _ in found if not alert_id.startswith("call-")])


def test_columns_and_tables_of_a_later_release_are_no_hindrance(path):
    """LogG6: with defaults, and without a new version of the file, this release goes on to write."""
    fill(path, 1)
    edit(
        path,
        ["ALTER TABLE delivery ADD COLUMN later INTEGER NOT NULL DEFAULT 0"],
        ["ALTER TABLE entry ADD COLUMN kind TEXT"],
        ["CREATE TABLE device (id TEXT PRIMARY KEY) STRICT"],
    )

    async def main():
        async with Opened(path) as log:
            assert await log.append(a_revision("a-1"))
            await log.add_counts({"a-0": Counts(3, 2)})
            log._write_failed = True
            await log.add_counts({})
            assert await log.counts("a-0") == Counts(3, 2)
            assert [entry.id for entry in await entries(log)] == ["a-0", "a-1"]
            assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 2

    run(main)


def test_what_a_broken_file_lost_is_counted(path):
    """LogR2: an entry that can't be read is counted."""
    damaged(path, lambda data, pages: zeroed(data, pages // 2, 2))
    ids, quarantined = contents(path)
    assert len(ids) + quarantined == 1000
    assert quarantined > 0


def test_a_write_ahead_log_of_a_broken_file_is_kept_too(path):
    """LogR2: nothing is deleted."""
    fill(path, 10)
    path.write_bytes(b"garbage" * 1000)
    wal = path.with_name(path.name + "-wal")
    wal.write_bytes(b"whatever")
    contents(path)
    assert [other.read_bytes() for other in path.parent.glob("*.corrupt-*-wal")] == [b"whatever"]


def test_an_empty_file_is_a_new_log(path):
    """`AlertLog.start`: as `touch` leaves it."""
    path.touch()
    assert contents(path) == ([], 0)
    assert list(path.parent.glob("*.corrupt*")) == []


def test_a_good_file_is_left_as_it_is(path):
    """LogR2: nothing is set aside without need."""
    fill(path, 10)
    for _ in range(2):
        assert contents(path) == ([f"a-{n}" for n in range(10)], 0)
    assert list(path.parent.glob("*.corrupt*")) == []


def test_a_file_of_a_later_version_is_refused(path):
    """`AlertLog.start`: ConfigError, and the file is not touched."""
    fill(path, 3)
    edit(path, [f"PRAGMA user_version = {sqlite_file.VERSION + 1}"])
    with pytest.raises(ConfigError, match=r"^log .*geocast\.db: made by a later version of geocast$"):
        contents(path)
    edit(path, [f"PRAGMA user_version = {sqlite_file.VERSION}"])
    assert len(contents(path)[0]) == 3


def another_database(path):
    """Somebody's, with a table that happens to have the name of ours."""
    edit(path, ["CREATE TABLE entry (word TEXT)"], ["INSERT INTO entry VALUES ('kept')"])


def a_marked_database(path):
    """Somebody's, with a mark of its own and nothing in it yet."""
    edit(path, ["PRAGMA application_id = 7"], ["PRAGMA user_version = 1"], ["VACUUM"])


def a_broken_database(path):
    """Somebody's, with a page that can't be read."""
    edit(path, ["CREATE TABLE t (word TEXT)"], *(["INSERT INTO t VALUES (?)", "x" * 3000] for _ in range(20)))
    path.write_bytes(bytes(zeroed(bytearray(path.read_bytes()), 1, 3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text('{"keys": []}\n'),
        lambda path: path.write_bytes(b"x"),
        lambda path: path.write_bytes(b"SQLite format 3\0" + b"\1" * 5000),
        another_database,
        a_marked_database,
        a_broken_database,
    ],
    ids=["json", "a byte", "a header", "a database", "a marked database", "a broken database"],
)
def test_what_was_never_a_log_is_left_as_it_is(tmp_path, make):
    """`sqlite_file`, Rule 1: ConfigError, again and again; nothing is written to it, renamed or put in its place."""
    path = tmp_path / "keys.jwks"
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^log .*keys\.jwks: is no alert log; it is left as it is$"):
            contents(path)
        assert path.read_bytes() == before
        assert {other.name for other in tmp_path.iterdir()} <= {"keys.jwks", "keys.jwks.lock"}


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def a_device(path):
    """By a link, since only root can make one; it is never opened."""
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [os.mkfifo, a_socket, a_device], ids=["a pipe", "a socket", "a device"])
def test_what_is_no_file_is_not_even_opened(tmp_path, make):
    """`sqlite_file`, Rule 1: to open a pipe takes until somebody writes to it, and a device could be renamed."""
    path = tmp_path / "log"
    make(path)
    with pytest.raises(ConfigError, match=r"^log .*log: is no regular file$"):
        contents(path)
    assert [other.name for other in tmp_path.iterdir()] == ["log"]


def test_a_log_is_known_by_its_mark_its_schema_or_its_companion(path):
    """`sqlite_file`: one without the mark is of an earlier release; one that is broken through and through was here."""
    fill(path, 3)
    edit(path, ["PRAGMA application_id = 0"], ["PRAGMA wal_checkpoint(TRUNCATE)"])
    assert len(contents(path)[0]) == 3
    data = path.read_bytes()
    path.with_name(path.name + ".lock").unlink()
    path.write_bytes(data[: len(data) - PAGE])
    assert contents(path)[1] == 0
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1
    path.write_bytes(b"garbage" * 999)
    assert contents(path) == ([], 0)
    path.write_bytes(b"garbage" * 999)
    path.with_name(path.name + ".lock").unlink()
    with pytest.raises(ConfigError, match="is no alert log"):
        contents(path)


def test_mending_that_was_cut_short_is_ended_at_the_next_start(path, monkeypatch):
    """`sqlite_file`, Rule 3: between any two steps what could be read is in one file that will be the log."""
    damaged(path, lambda data, pages: zeroed(data, pages // 2, 1))

    def crash(_self, _target):
        raise OSError(errno.EIO, "crash")

    for steps in range(4):  # the copy gets its name; then the old file and its companions move, and the copy comes
        done = []
        rename = Path.rename

        def some(self, target, *, done=done, steps=steps, rename=rename):
            done.append(target)
            return crash(self, target) if len(done) > steps else rename(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", some)
            with suppress(LogUnavailable):
                sqlite_file.opened(path)[0].close()
    ids, _ = contents(path)
    assert 900 <= len(ids) < 1000
    assert not list(path.parent.glob("*.mend*"))
    assert len([name for name in path.parent.glob("*.corrupt-*") if not name.name.endswith(("-wal", "-shm"))]) >= 1


# ---- what passes -----------------------------------------------------------------------------------------------


async def until(true):
    """Return as soon as `await true()` is."""
    while True:
        with suppress(LogUnavailable):
            if await true():
                return
        await asyncio.sleep(0.01)


def waited_for(path, reason, end, caplog):
    """A log that can't be opened now says why to everybody, and is well as soon as `end` has been called."""

    async def main():
        async with Opened(path) as log:
            for call in (log.append(a_revision("a-1")), log.add_counts({}), read(log), log.tail(), log.purge(0)):
                with pytest.raises(LogUnavailable, match=reason):
                    await call
            end()
            await until(lambda: log.append(a_revision("a-1")))
            assert [entry.id for entry in await entries(log)][-1] == "a-1"
            await log.add_counts({})

    run(main)
    said = [record.getMessage() for record in caplog.records if record.name == sqlite.logger.name]
    assert len(said) == 1
    assert said[0].startswith(f"log {path}: ")
    assert said[0].endswith("; going on trying")


def test_a_file_that_is_locked_at_the_start_is_waited_for(path, monkeypatch, caplog):
    """`SqliteLog.start`, Rule 2: it passes."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.01)
    fill(path, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as hog:
        hog.execute("BEGIN IMMEDIATE")
        waited_for(path, "database is locked", lambda: hog.execute("ROLLBACK"), caplog)


def test_another_process_that_opens_the_file_is_waited_for(path, monkeypatch, caplog):
    """`SqliteLog.start`, Rule 2: also for long, and whether or not there is a file yet."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.01)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waited_for(path, "another process is opening it", lambda: fcntl.flock(lock, fcntl.LOCK_UN), caplog)


def test_a_log_that_waits_may_be_stopped(path, monkeypatch):
    """`AlertLog.stop`: before it was ever open."""
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.01)

    async def main():
        async with Opened(path):
            pass

    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(main)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (ValueError("no name"), False),
    ],
    ids=str,
)
def test_what_passes_is_told_from_what_an_operator_has_to_put_right(error, passes):
    """`sqlite_file`, Rule 2."""
    assert type(sqlite_file.reason_of(error)) is (LogUnavailable if passes else ConfigError)


# ---- a file that is not there any more ---------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_file_that_is_gone_is_missed_by_everybody(path, suffix, replaced):
    """LogA3, LogF3: what is written to it would be lost; when it is back all goes on."""

    async def main():
        async with Opened(path) as log, aclosing(log.follow(0)) as follower:
            assert await log.append(a_revision())
            assert len(await read_on(follower)) == 1
            own = path.with_name(path.name + suffix)
            away = own.rename(path.with_name("away"))
            if replaced:
                shutil.copy(away, own)
            calls = [log.append(a_revision("a-2")), log.add_counts({}), log.add_counts({"a-1": Counts(1, 0)})]
            calls += [log.history("a-1"), log.live(NOON_MS), log.tail(), log.counts("a-1"), log.purge(0)]
            for call in (read_on(follower), *calls):
                with pytest.raises(LogUnavailable, match=r"^its file, -wal or -shm was deleted or replaced"):
                    await call
            away.rename(own)
            await log.add_counts({})
            assert await log.append(a_revision("a-2"))
            assert [entry.id for entry in await entries(log)] == ["a-1", "a-2"]

    run(main)


@pytest.mark.parametrize("where", ["nowhere/geocast.db", ".", "file/geocast.db"])
def test_a_path_that_cannot_be_used_is_told_in_one_line(tmp_path, where):
    """`AlertLog.start`: ConfigError; protocol, section 7: one clear line."""
    (tmp_path / "file").touch()
    path = tmp_path / where
    with pytest.raises(ConfigError) as caught:
        contents(path)
    assert str(caught.value).startswith(f"log {path}: ")
    assert "\n" not in str(caught.value)


def test_a_reader_that_fails_is_told_and_may_be_called_again(path):
    """LogF3: it raises LogUnavailable, and may be called again."""

    class Failing:
        """A connection out of order. Lies: a real one fails in more ways."""

        def execute(self, *_):
            raise sqlite3.OperationalError("disk I/O error")

        def close(self):
            pass

    async def main():
        async with Opened(path) as log:
            await log.append(a_revision())
            reader, log._reader = log._reader, Failing()
            for call in (read(log), log.history("a-1"), log.live(NOON_MS), log.tail(), log.counts("a-1")):
                with pytest.raises(LogUnavailable, match="disk I/O error"):
                    await call
            log._reader = reader
            assert len(await read(log)) == 1

    run(main)


# ---- retention -----------------------------------------------------------------------------------------------


def test_a_purge_in_several_transactions_never_leaves_half_an_alert(path, monkeypatch):
    """LogR1: forgotten as a whole, also for whoever looks, or crashes, in between."""
    monkeypatch.setattr(sqlite, "PURGE_BATCH", 3)
    halves = []
    purge = sqlite._purge

    def watched(db, cutoff_ms):
        gone = purge(db, cutoff_ms)
        halves.extend(db.execute("SELECT id FROM entry GROUP BY id HAVING count(*) <> 2").fetchall())
        return gone

    monkeypatch.setattr(sqlite, "_purge", watched)

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


def test_a_purge_believes_its_clock_no_more_than_the_witness_of_the_file(path):
    """LogR1: a process whose clock is days ahead forgets nothing that is live, or known, beside one that is right."""
    ahead_ms = NOON_MS + 10 * RETENTION_MS

    async def main():
        async with Opened(path, 2) as logs:
            for log in logs:
                await log.append(a_revision(f"a-{logs.index(log)}"))
            assert [await log.purge(ahead_ms) for log in logs] == [0, 0]
            assert len(await entries(logs[0])) == 2

    run(main)


def test_what_was_purged_is_not_in_the_file_any_more(path):
    """DP16: its bytes are overwritten, and the write-ahead log is empty when the last node has let go of it."""

    async def main():
        async with Opened(path) as log:
            for n in range(50):
                await log.append(a_revision(f"a-{n}", headline="a headline to forget"))
            assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 50

    run(main)
    assert b"a headline to forget" not in b"".join(each.read_bytes() for each in path.parent.glob("geocast.db*"))


def test_a_place_that_was_deleted_is_in_no_file_though_the_node_runs_on(path):
    """LogC4, RZ4: its bytes are overwritten, and the write-ahead log is cut at once; what is kept is kept."""
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


def test_a_write_ahead_log_that_somebody_reads_is_cut_by_the_next_purge(path):
    """LogC4: it is tried again for as long as it may have a place in it."""
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


def test_calls_are_found_without_a_look_at_alerts(path):
    """LogC3, LogC4: by an index that holds no more than the places that are there."""
    fill(path, 1)
    with closing(sqlite3.connect(path)) as db:
        for query in (sqlite._OPEN, sqlite._ENDS):
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}", (0,) if "?" in query else ())]
            assert plan[0] == "SCAN one USING INDEX entry_with_a_place"
            assert [step for step in plan[1:] if step.startswith("SCAN")] == []


def test_a_file_of_a_release_before_calls_gets_what_they_take(path):
    """LogG6: a column with a default, so that a process of that release goes on to write."""
    fill(path, 1)
    edit(
        path,
        ["DROP INDEX entry_with_a_place"],
        ["ALTER TABLE delivery DROP COLUMN declined"],
        ["ALTER TABLE delivery DROP COLUMN pushed"],
        ["INSERT INTO delivery (id, sent, acked) VALUES ('a-0', 4, 3)"],
    )

    async def main():
        async with Opened(path) as log:
            await log.add_counts({"a-0": Counts(1, 1, 1)})
            assert await log.counts("a-0") == Counts(5, 4, 1)
            edit(path, ["UPDATE delivery SET sent = 6"], ["INSERT INTO delivery (id, sent, acked) VALUES ('b', 1, 0)"])
            assert await log.counts("b") == Counts(1, 0, 0)
            assert await log.append(a_call())
            assert list(await log.open_calls(NOON_MS)) == ["c-1"]

    run(main)


def test_a_file_of_a_release_before_pushes_gets_a_column_for_them(path):
    """LogG6: with a default, so that a process of that release goes on to write, by its own statement."""
    fill(path, 1)
    edit(
        path,
        ["ALTER TABLE delivery DROP COLUMN pushed"],
        ["INSERT INTO delivery (id, sent, acked, declined) VALUES ('a-0', 4, 3, 2)"],
    )

    added = (
        "INSERT INTO delivery (id, sent, acked, declined) VALUES ('a-0', 1, 1, 0) "
        "ON CONFLICT (id) DO UPDATE SET sent = sent + excluded.sent, acked = acked + excluded.acked, "
        "declined = declined + excluded.declined"
    )

    async def main():
        async with Opened(path) as log:
            await log.add_counts({"a-0": Counts(pushed=9)})
            edit(path, [added])
            assert await log.counts("a-0") == Counts(5, 4, 2, 9)

    run(main)


# ---- the bytes of an entry -----------------------------------------------------------------------------------

ENTRIES = [
    a_revision(),
    a_revision(description="", status="test"),
    a_revision(revision=2**31 - 1, description="é😀\n", severity="extreme"),
    a_revision(area=a_revision().alert.area * 16),
    a_cancel(),
    a_cancel(revision=9, reason="é"),
]


def decoded(data):
    """The entry in some bytes."""
    return codec.decode(data, "a-1", 1, ENDS_MS)


def changed(**changes):
    """A revision's bytes with other values for some members."""
    return msgpack.packb(msgpack.unpackb(codec.encode(a_revision())) | changes)


@pytest.mark.parametrize("entry", ENTRIES, ids=range(len(ENTRIES)))
def test_an_entry_is_read_as_it_was_written(entry):
    """LogA4: every field."""
    assert decoded(codec.encode(entry)) == entry


@pytest.mark.parametrize("entry", ENTRIES, ids=range(len(ENTRIES)))
def test_fields_of_a_later_version_are_ignored(entry):
    """Protocol, section 1, growing: log entries follow the same rule, so that old and new nodes run side by side."""
    fields = msgpack.unpackb(codec.encode(entry)) | {"colour": "red", "nested": {"a": [1]}}
    for shape in fields.get("area", ()):
        shape["height_m"] = 5
    assert decoded(msgpack.packb(fields)) == entry


@pytest.mark.parametrize("field", sorted(msgpack.unpackb(codec.encode(a_revision())).keys() - {"rules"}))
def test_what_lacks_a_field_is_no_entry(field):
    """LogR2: ValueError, whatever is wrong with it."""
    fields = msgpack.unpackb(codec.encode(a_revision()))
    del fields[field]
    with pytest.raises(ValueError, match=r"^not an entry: "):
        decoded(msgpack.packb(fields))


def test_an_entry_says_by_which_rules_it_was_accepted():
    """B12: in a key of its own; without it B11 and B12 were not, and such an entry is stored again as it was."""
    entry = a_revision()
    fields = msgpack.unpackb(codec.encode(entry))
    assert fields.pop("rules") == entry.terms.rules == 2
    older = decoded(msgpack.packb(fields))
    assert older == dataclasses.replace(entry, terms=dataclasses.replace(entry.terms, rules=1))
    assert codec.encode(older) == msgpack.packb(fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        msgpack.packb(5),
        msgpack.packb({}),
        msgpack.packb({"kind": 5}),
        msgpack.packb({"kind": "revision"}),
        msgpack.packb({"kind": "cancel"}),
        codec.encode(a_revision())[:-1],
        codec.encode(a_revision()) + b"\x00",
        changed(revision="1"),
        changed(revision=True),
        changed(id=5),
        changed(severity="dire"),
        changed(area=5),
        changed(area=[{"lat": 1.0, "lng": 1.0, "radius_m": 1.0}]),
        changed(area=[{"type": "circle", "lat": 1.0, "lng": 1.0}]),
        changed(area=[{"type": "cloud", "height_m": float("nan")}]),
        changed(area=[{"type": "cloud", "raw": b"x"}]),
        changed(approval=[]),
        changed(approval=["desk-7", "noon"]),
        changed(terms=[1]),
        changed(terms=["Robbery", 3_600_000, None]),
        msgpack.packb(msgpack.unpackb(codec.encode(a_cancel())) | {"ends_at": None}),
    ],
    ids=range(24),
)
def test_what_is_no_entry_is_told_by_one_kind_of_error(data):
    """LogR2: ValueError, and none of the library's own."""
    with pytest.raises(ValueError, match=r"^not an entry: "):
        decoded(data)


def test_no_requested_circle_is_in_the_file(path):
    """Protocol, section 2: neither the requested circle nor anything computed from it is kept anywhere."""
    exact = {"type": "circle", "lat": 32.776712345, "lng": -96.797098765, "radius_m": 777.77}

    async def main():
        async with Opened(path) as log:
            publishing = Publishing(log, policy.load(None), FakeClock())
            await publishing.publish(alert_request(area=exact), Publisher("desk"))

    run(main)
    for file in path.parent.iterdir():
        data = file.read_bytes()
        for value in (exact["lat"], exact["lng"], exact["radius_m"]):
            assert str(value).encode()[:9] not in data
            assert msgpack.packb(value)[1:] not in data
            assert msgpack.packb(value)[:0:-1] not in data


# ---- a process that dies -------------------------------------------------------------------------------------

APPENDING = """
import asyncio, sys
from pathlib import Path
from support.fakes import a_revision
from geocast import failpoints
from geocast.alertlog.sqlite import SqliteLog

async def append(log, n):
    for revision in range(1, 100):
        if await log.append(a_revision(f"a-{n}", revision)):
            print(f"a-{n}/{revision}", flush=True)

async def main():
    log = SqliteLog(Path(sys.argv[1]))
    await log.start()
    for n in range(int(sys.argv[2])):
        assert await log.append(a_revision(f"before-{n}"))
        print(f"before-{n}/1", flush=True)
    failpoints._armed = sys.argv[3]
    await asyncio.gather(*(append(log, n) for n in range(10)))

asyncio.run(main())
"""
PUBLISHING = """
import asyncio, sys
from pathlib import Path
from support.fakes import FakeClock, alert_request
from geocast import policy
from geocast.alertlog.sqlite import SqliteLog
from geocast.ingest.publish import Publisher, Publishing

async def main():
    log = SqliteLog(Path(sys.argv[1]))
    await log.start()
    await Publishing(log, policy.load(None), FakeClock()).publish(alert_request(), Publisher("desk"))

asyncio.run(main())
"""


def start(script, *arguments, failpoint=""):
    """Another process that runs this script."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "GEOCAST_FAILPOINT": failpoint}
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", script, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def killed(process, lines=None):
    """What a process said until it was killed: by itself, or by us after so many lines."""
    with process:
        said = []
        for line in process.stdout:
            said.append(line.strip())
            if len(said) == lines:
                process.kill()
                lines = None
    assert process.returncode == -signal.SIGKILL
    return said


def check_after_a_crash(path, said):
    """The log is readable, what `append` said True to is there, and each alert has its numbers without a gap."""

    async def main():
        async with Opened(path) as log:
            followed = await entries(log)
            assert log.quarantined == 0
            assert set(said) <= {f"{entry.id}/{entry.revision}" for entry in followed}
            for alert_id in {entry.id for entry in followed}:
                history = list(await log.history(alert_id))
                assert [entry.revision for entry in history] == list(range(1, len(history) + 1))
                assert history == [entry for entry in followed if entry.id == alert_id]
                assert await log.append(a_revision(alert_id, len(history) + 1))
            assert await log.append(a_revision("after"))

    run(main)


def test_what_was_stored_before_a_crash_in_a_commit_is_there(path):
    """LogA3, LogA4: the process dies inside a transaction; what it had not said True to is nowhere to be seen."""
    said = killed(start(APPENDING, path, 5, "in-commit"))
    assert said == [f"before-{n}/1" for n in range(5)]
    assert contents(path) == ([f"before-{n}" for n in range(5)], 0)
    check_after_a_crash(path, said)


def test_a_crash_in_the_first_commit_leaves_an_empty_log(path):
    """LogA3: GEOCAST_FAILPOINT names the place."""
    assert killed(start(APPENDING, path, 5, "", failpoint="in-commit")) == []
    assert contents(path) == ([], 0)
    check_after_a_crash(path, [])


@pytest.mark.parametrize("lines", [1, 40, 333])
def test_what_was_stored_before_a_kill_at_any_moment_is_there(path, lines):
    """LogA3: when `append` has said True the entry is on stable storage."""
    said = killed(start(APPENDING, path, 0, ""), lines)
    assert len(said) >= lines
    check_after_a_crash(path, said)


def test_a_publication_whose_answer_was_lost_in_a_crash_is_found_when_it_is_repeated(path):
    """LogA3; protocol, section 4, durable: repeat the same request until 200 or 201: one alert."""
    assert killed(start(PUBLISHING, path, failpoint="after-append")) == []

    async def main():
        async with Opened(path) as log:
            publishing = Publishing(log, policy.load(None), FakeClock())
            outcome = await publishing.publish(alert_request(), Publisher("other"))
            assert not outcome.created
            assert outcome.entry.source == "desk"
            assert await entries(log) == [outcome.entry]

    run(main)


def test_another_process_goes_on_when_one_dies_in_a_commit(path):
    """LogA3, LogF1: its lock dies with it."""

    async def main():
        async with Opened(path) as log:
            await log.append(a_revision("mine"))
            said = await asyncio.to_thread(lambda: killed(start(APPENDING, path, 3, "in-commit")))
            assert said == [f"before-{n}/1" for n in range(3)]
            assert await log.append(a_revision("mine", 2))
            assert [f"{entry.id}/{entry.revision}" for entry in await entries(log)] == ["mine/1", *said, "mine/2"]

    run(main)
