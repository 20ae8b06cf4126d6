"""The read-only view of the log, for a real file and for a real Redis whose user may only read."""

import asyncio
import os
import re
import sqlite3
import time
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import redis as library
from support.fakes import a_cancel, a_revision
from support.redis_server import RedisServer, needs_redis

from geocast import tasks
from geocast.alertlog import codec
from geocast.alertlog.redis_streams import RedisStreamsLog, tail
from geocast.alertlog.redis_streams.tail import RedisTail
from geocast.alertlog.sqlite.log import SqliteLog
from geocast.alertlog.sqlite.tail import SqliteTail
from geocast.model.errors import ConfigError, LogUnavailable
from geocast.run.ledger import write

ENTRIES = [a_revision(), a_revision("b-1"), a_revision(revision=2), a_cancel(revision=3)]
LEDGER = Path(__file__).resolve().parents[2] / "docs" / "operations" / "ledger.md"


@asynccontextmanager
async def opened(log):
    """Start a log as a node does, and stop it at the end."""
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def seen(observer, count, batches=None):
    """Return the first `count` entries, or more if their batch has more."""
    found = []
    async with asyncio.timeout(30), aclosing(batches or observer.follow()) as each:
        async for batch in each:
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError("it ended")


def keys(found):
    """Return the id and revision of each entry."""
    return [(each.entry.id, each.entry.revision) for each in found]


async def _drain(following):
    """Read all batches, and ignore them."""
    async for _ in following:
        pass


# ---- reading a log in SQLite ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """The path of the log's file."""
    return tmp_path / "geocast.db"


async def test_sqlite_tail_follows_entries_in_order(path):
    """Existing entries come first, then new ones, each with its bytes. Positions rise (rule Obs1)."""
    async with opened(SqliteLog(path)) as log:
        for entry in ENTRIES[:2]:
            assert await log.append(entry)
        reading = SqliteTail(path)
        await reading.start()
        first = asyncio.create_task(seen(reading, 4))
        await asyncio.sleep(0)
        for entry in ENTRIES[2:]:
            assert await log.append(entry)
        found = await first
        assert [each.entry for each in found] == ENTRIES
        assert [each.payload for each in found] == [codec.encode(each) for each in ENTRIES]
        assert [each.position for each in found] == sorted({each.position for each in found})
        assert {each.epoch for each in found} == {0}
        assert keys(await seen(reading, 4)) == keys(found)


async def test_sqlite_tail_waits_for_missing_file(path):
    """The tail does not create the file (rule Obs3)."""
    reading = SqliteTail(path)
    await reading.start()
    with pytest.raises(LogUnavailable, match="there is no file yet"):
        await seen(reading, 1)
    assert not path.exists()
    async with opened(SqliteLog(path)) as log:
        assert await log.append(ENTRIES[0])
        assert keys(await seen(reading, 1)) == [("a-1", 1)]


def test_sqlite_tail_refuses_other_database(path):
    """An empty file is accepted, because a node may be about to fill it (rule K1)."""
    path.write_bytes(b"")
    asyncio.run(SqliteTail(path).start())
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (a)")
    db.close()
    with pytest.raises(ConfigError, match=r"geocast\.db: is not an alert log"):
        asyncio.run(SqliteTail(path).start())


async def test_sqlite_tail_returns_unreadable_entry_without_decoded_content(path):
    """The entry has its id and its bytes (rule Obs1)."""
    async with opened(SqliteLog(path)) as log:
        for entry in ENTRIES:
            await log.append(entry)
        await log._files.write(lambda db: db.execute("UPDATE entry SET payload = x'00' WHERE position = 2").close())
        found = await seen(SqliteTail(path), 4)
        assert [each.entry is None for each in found] == [False, True, False, False]
        assert (found[1].id, found[1].payload) == ("b-1", b"\0")


async def test_sqlite_tail_reads_replaced_file_from_its_start(path):
    """The first attempt raises LogUnavailable (rules Obs2, Obs3)."""
    async with opened(SqliteLog(path)) as log:
        await log.append(ENTRIES[0])
        reading = SqliteTail(path)
        async with aclosing(reading.follow()) as batches:
            assert keys(await anext(batches)) == [("a-1", 1)]
            for suffix in ("", "-wal", "-shm"):
                os.rename(f"{path}{suffix}", f"{path}.old{suffix}")
            async with opened(SqliteLog(path)) as other:
                await other.append(ENTRIES[1])
                with pytest.raises(LogUnavailable, match="deleted or replaced"):
                    await _drain(batches)
                assert keys(await seen(reading, 1)) == [("b-1", 1)]


async def test_sqlite_tail_connection_is_read_only(path):
    """SQLite itself refuses a write."""
    async with opened(SqliteLog(path)):
        db = SqliteTail(path)._open()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM entry")
        db.close()


# ---- reading a log in Redis ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis server."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def reader(server):
    """The URL of the user that docs/operations/ledger.md creates, who may only read."""
    [line] = re.findall(r"^ACL SETUSER (.*)$", LEDGER.read_text("utf-8"), re.MULTILINE)
    server.command("ACL", "SETUSER", *line.replace(">PASSWORD", ">secret").split())
    server.command("DEL", *["{geocast}:stream", "{geocast}:meta", "{geocast}:ends"])
    for key in server.command("KEYS", "{geocast}:alert:*"):
        server.command("DEL", key)
    return f"redis://ledger:secret@127.0.0.1:{server.port}/0"


@needs_redis
async def test_redis_tail_follows_entries_in_order(server, reader):
    """The Redis user may only read (rule Obs1)."""
    async with opened(RedisStreamsLog(server.url)) as log:
        for entry in ENTRIES[:2]:
            assert await log.append(entry)
        reading = RedisTail(reader)
        await reading.start()
        batches = reading.follow()
        found = await seen(reading, 2, batches)
        following = asyncio.create_task(seen(reading, 2))
        for entry in ENTRIES[2:]:
            assert await log.append(entry)
        found += await following
        await reading.stop()
        assert [each.entry for each in found] == ENTRIES
        assert [each.payload for each in found] == [codec.encode(each) for each in ENTRIES]
        assert [each.position for each in found] == [1, 2, 3, 4]
        assert len({each.epoch for each in found}) == 1
        assert found[0].epoch > 0


@needs_redis
@pytest.mark.parametrize(
    "command",
    [
        ("XADD", "{geocast}:stream", "*", "e", "1"),
        ("DEL", "{geocast}:stream"),
        ("HSET", "{geocast}:meta", "epoch", "1"),
        ("EVAL", "return 1", "0"),
        ("XRANGE", "other", "-", "+"),
        ("CONFIG", "GET", "*"),
        ("FLUSHALL",),
    ],
    ids=lambda command: command[0],
)
def test_documented_redis_user_may_only_read(reader, command):
    """Somebody who takes over the ledger's machine can't change the log (docs/operations/ledger.md)."""
    with library.Redis.from_url(reader) as client, pytest.raises(library.exceptions.NoPermissionError):
        client.execute_command(*command)


@needs_redis
def test_redis_tail_refuses_start_with_wrong_password(reader):
    """The error does not contain the password (rule K1)."""
    with pytest.raises(ConfigError, match="it refuses the user, the password") as caught:
        asyncio.run(RedisTail(reader.replace("secret", "wrong-one")).start())
    assert "wrong-one" not in str(caught.value)


@needs_redis
async def test_redis_tail_returns_entry_again_after_redis_lost_it(server, reader):
    """A node restores the lost entry.

    It then has a later epoch (a number that changes when the log has lost entries; rules Obs2, LogF4).
    """
    entry = a_revision("lost-1", expires_at=int(time.time() * 1000) + 3_600_000)
    reading = RedisTail(reader)
    async with opened(RedisStreamsLog(server.url)) as log:
        assert await log.append(entry)
        [first] = await seen(reading, 1)
        server.command("DEL", "{geocast}:stream", "{geocast}:meta", "{geocast}:ends", "{geocast}:alert:lost-1")
        [again] = await seen(reading, 1)
    await reading.stop()
    assert (again.entry, again.payload) == (first.entry, first.payload)
    assert again.epoch > first.epoch


@needs_redis
async def test_redis_tail_without_heartbeats_raises_log_unavailable(server, reader, monkeypatch):
    """Either no node writes, or the tail does not read where the nodes write (rule Obs3)."""
    monkeypatch.setattr(tail, "SILENCE_S", 1.5)
    reading = RedisTail(reader)
    with pytest.raises(LogUnavailable, match="no heartbeat of any node comes"):
        await seen(reading, 1)
    async with opened(RedisStreamsLog(server.url)) as log:
        assert await log.append(ENTRIES[0])
        assert keys(await seen(reading, 1)) == [("a-1", 1)]
    await reading.stop()


@needs_redis
async def test_redis_tail_continues_where_it_stopped(server, reader):
    """A second call returns only the new entry, if the log still has the last position (rule Obs3)."""
    reading = RedisTail(reader)
    async with opened(RedisStreamsLog(server.url)) as log:
        assert await log.append(ENTRIES[0])
        assert len(await seen(reading, 1)) == 1
        assert await log.append(ENTRIES[1])
        assert keys(await seen(reading, 1)) == [("b-1", 1)]
    await reading.stop()


async def test_failure_of_a_callback_of_the_ledger_is_logged_without_its_text(tmp_path, caplog):
    """As in every other process: the text of an exception may have a place in it."""

    def fail():
        raise ValueError(f"{48.2}")

    with pytest.raises(ConfigError):
        await write("sqlite:" + str(tmp_path / "none.db"), tmp_path / "ledger", None)
    counted = tasks.failures["callback"]
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
    assert tasks.failures["callback"] - counted == 1
    assert "48.2\n" not in caplog.text
