"""Damaged rows, and files that are damaged, missing, or not a log."""

import errno
import os
import shutil
import socket
import sqlite3
from contextlib import aclosing, closing, suppress
from pathlib import Path

import pytest
from alertlog.later import MULTIPOLYGON, of_another_kind, with_area, with_members
from alertlog.reading import entries, live, read, read_on
from alertlog.sqlite.tools import ENDS_MS, Opened, contents, edit, fill, run, write
from support.fakes import NOON_MS, FakeClock, a_revision, alert_request

from geocast import policy
from geocast.alertlog import RETENTION_MS, Counts, codec, decoding
from geocast.alertlog.sqlite import follower, log_file
from geocast.auth.tokens import Requester
from geocast.ingest.publish import Publishing
from geocast.model.errors import ConfigError, LogUnavailable

# ---- rows that can't be read -------------------------------------------------------------------------------------


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
def test_unreadable_row_is_skipped_and_counted_while_others_are_served(path, caplog, damage):
    """The row is counted once, and nothing is deleted (LogR2)."""
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
            said = [record.getMessage() for record in caplog.records if record.name == decoding.logger.name]
            assert len(said) == 1
            assert "position 3" in said[0]
            assert await log.append(a_revision("a-5"))
            assert not await log.append(a_revision("a-2", 2))
            assert not await log.append(a_revision("a-2", 8))

    run(main)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM entry").fetchone() == (6,)


def test_new_alert_with_id_of_unreadable_row_is_refused(path):
    """The unreadable entry may have been a cancel, so its id must not be used again (LogR2, LogA2)."""
    fill(path, 1)
    edit(path, ["UPDATE entry SET payload = x'00'"])

    async def main():
        async with Opened(path) as log:
            publishing = Publishing(log, policy.load(None), FakeClock())
            with pytest.raises(LogUnavailable):
                await publishing.publish(alert_request(id="a-0"), Requester("desk"))
            assert await entries(log) == []

    run(main)


def test_followers_continue_after_any_number_of_unreadable_rows(path, monkeypatch):
    """An empty batch means the end of the log, not a batch of unreadable rows (LogF2, LogR2)."""
    monkeypatch.setattr(follower, "BATCH", 3)
    fill(path, 10)
    edit(path, ["UPDATE entry SET payload = x'00' WHERE position BETWEEN 3 AND 9"])
    assert contents(path) == (["a-0", "a-1", "a-9"], 7)


# ---- files that can't be read ------------------------------------------------------------------------------------


PAGE = 4096


def damaged(path, damage):
    """Fill a log of some 100 pages and damage its file. Return its size in pages."""
    fill(path, 1000)
    edit(path, ["PRAGMA wal_checkpoint(TRUNCATE)"])
    data = bytearray(path.read_bytes())
    pages = len(data) // PAGE
    path.write_bytes(bytes(damage(data, pages)))
    return pages


def zeroed(data, first, count):
    """Return the bytes with some pages set to zero."""
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
def test_readable_rows_of_corrupt_file_are_saved(path, caplog, damage, least):
    """The old file is kept, and the log continues in a new one (LogR2)."""
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


def test_entries_of_later_release_are_saved_from_corrupt_file_byte_for_byte(path):
    """Entries with unknown kinds and fields are saved from a file with a damaged page (LogR2, LogG5)."""
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


@pytest.mark.usefixtures("time_passes_for_all")
def test_columns_and_tables_of_later_release_are_ignored(path):
    """The new columns have defaults, and the version is the same, so this release can write (LogG6)."""
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
            log._files.write_failed = True
            await log.add_counts({})
            assert await log.counts("a-0") == Counts(3, 2)
            assert [entry.id for entry in await entries(log)] == ["a-0", "a-1"]
            assert await log.purge(ENDS_MS + RETENTION_MS + 1) == 2

    run(main)


def test_lost_rows_of_corrupt_file_are_counted(path):
    """An entry that can't be read is counted (LogR2)."""
    damaged(path, lambda data, pages: zeroed(data, pages // 2, 2))
    ids, quarantined = contents(path)
    assert len(ids) + quarantined == 1000
    assert quarantined > 0


def test_write_ahead_log_of_corrupt_file_is_kept(path):
    """Nothing is deleted (LogR2)."""
    fill(path, 10)
    path.write_bytes(b"garbage" * 1000)
    wal = path.with_name(path.name + "-wal")
    wal.write_bytes(b"whatever")
    contents(path)
    assert [other.read_bytes() for other in path.parent.glob("*.corrupt-*-wal")] == [b"whatever"]


def test_empty_file_becomes_new_log(path):
    """An empty file, as `touch` makes it, is used as a new log (`AlertLog.start`)."""
    path.touch()
    assert contents(path) == ([], 0)
    assert list(path.parent.glob("*.corrupt*")) == []


def test_undamaged_file_is_not_changed(path):
    """No file is renamed without need (LogR2)."""
    fill(path, 10)
    for _ in range(2):
        assert contents(path) == ([f"a-{n}" for n in range(10)], 0)
    assert list(path.parent.glob("*.corrupt*")) == []


def test_file_of_later_version_is_refused(path):
    """`start` raises ConfigError and does not change the file."""
    fill(path, 3)
    edit(path, [f"PRAGMA user_version = {log_file.VERSION + 1}"])
    with pytest.raises(ConfigError, match=r"^log .*geocast\.db: made by a later version of geocast$"):
        contents(path)
    edit(path, [f"PRAGMA user_version = {log_file.VERSION}"])
    assert len(contents(path)[0]) == 3


def another_database(path):
    """Make a database of another program, with a table that has the name of the log's table."""
    edit(path, ["CREATE TABLE entry (word TEXT)"], ["INSERT INTO entry VALUES ('kept')"])


def a_marked_database(path):
    """Make a database of another program, with that program's application id and without tables."""
    edit(path, ["PRAGMA application_id = 7"], ["PRAGMA user_version = 1"], ["VACUUM"])


def a_broken_database(path):
    """Make a database of another program with a damaged page."""
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
def test_file_that_is_not_an_alert_log_is_refused_unchanged(tmp_path, make):
    """Each start raises ConfigError; the file is not written, renamed or replaced (`log_file`, Rule 1)."""
    path = tmp_path / "keys.jwks"
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^log .*keys\.jwks: is not an alert log; it was not changed$"):
            contents(path)
        assert path.read_bytes() == before
        assert {other.name for other in tmp_path.iterdir()} <= {"keys.jwks", "keys.jwks.lock"}


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def a_device(path):
    """Make a link to a device, which is never opened."""
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [os.mkfifo, a_socket, a_device], ids=["a pipe", "a socket", "a device"])
def test_special_file_is_refused_without_opening_it(tmp_path, make):
    """Opening a pipe could block forever, and a device could be renamed (`log_file`, Rule 1)."""
    path = tmp_path / "log"
    make(path)
    with pytest.raises(ConfigError, match=r"^log .*log: is not a regular file$"):
        contents(path)
    assert [other.name for other in tmp_path.iterdir()] == ["log"]


def test_corrupt_log_is_recognized_by_application_id_schema_or_lock_file(path):
    """A file without the application id is from an older release.

    A file without readable bytes is a log if its lock file exists.
    """
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
    with pytest.raises(ConfigError, match="is not an alert log"):
        contents(path)


def test_interrupted_repair_is_completed_at_next_start(path, monkeypatch):
    """Between any two steps all readable rows are in one file that becomes the log (`log_file`, Rule 3)."""
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
                log_file.opened(path)[0].close()
    ids, _ = contents(path)
    assert 900 <= len(ids) < 1000
    assert not list(path.parent.glob("*.mend*"))
    assert len([name for name in path.parent.glob("*.corrupt-*") if not name.name.endswith(("-wal", "-shm"))]) >= 1


# ---- a file that was deleted or replaced -------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_deleted_or_replaced_file_makes_log_unavailable(path, suffix, replaced):
    """Writes to such a file would be lost. When the file is back, the log continues (LogA3, LogF3)."""
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


@pytest.mark.parametrize("where", ["nowhere/geocast.db", ".", "file/geocast.db"])
def test_unusable_path_is_reported_in_one_line(tmp_path, where):
    """`start` raises ConfigError with one clear line (section 7 of the protocol)."""
    (tmp_path / "file").touch()
    path = tmp_path / where
    with pytest.raises(ConfigError) as caught:
        contents(path)
    assert str(caught.value).startswith(f"log {path}: ")
    assert "\n" not in str(caught.value)


async def test_failed_read_raises_log_unavailable_and_can_be_repeated(path):
    """`follow` raises LogUnavailable, and may be called again (LogF3)."""

    class Failing:
        """A connection that fails. Lies: a real connection fails in more ways."""

        def execute(self, *_):
            raise sqlite3.OperationalError("disk I/O error")

        def close(self):
            pass

    async with Opened(path) as log:
        await log.append(a_revision())
        reader, log._files._reader = log._files._reader, Failing()
        for call in (read(log), log.history("a-1"), log.live(NOON_MS), log.tail(), log.counts("a-1")):
            with pytest.raises(LogUnavailable, match="disk I/O error"):
                await call
        log._files._reader = reader
        assert len(await read(log)) == 1
