"""The log, only read: a real file, and a real Redis whose user may do no more."""

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

from geocast.alertlog import codec
from geocast.alertlog.redis_streams import RedisStreamsLog, tail
from geocast.alertlog.redis_streams.tail import RedisTail
from geocast.alertlog.sqlite import SqliteLog
from geocast.alertlog.sqlite_tail import SqliteTail
from geocast.errors import ConfigError, LogUnavailable

ENTRIES = [a_revision(), a_revision("b-1"), a_revision(revision=2), a_cancel(revision=3)]
LEDGER = Path(__file__).resolve().parents[2] / "docs" / "operations" / "ledger.md"


@asynccontextmanager
async def opened(log):
    """A log of a node."""
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def seen(observer, count, batches=None):
    """So many entries, as they come."""
    found = []
    async with asyncio.timeout(30), aclosing(batches or observer.follow()) as each:
        async for batch in each:
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError("it ended")


def keys(found):
    """Which entries these are."""
    return [(each.entry.id, each.entry.revision) for each in found]


async def _drain(following):
    """Take what comes, and let it go."""
    async for _ in following:
        pass


# ---- a file --------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """Where the log is."""
    return tmp_path / "geocast.db"


def test_the_entries_of_a_file_come_in_order_and_those_to_come(path):
    """Obs1: with their bytes; positions rise."""

    async def go():
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

    asyncio.run(go())


def test_a_file_is_waited_for(path):
    """Obs3: and nothing is made where there is none."""

    async def go():
        reading = SqliteTail(path)
        await reading.start()
        with pytest.raises(LogUnavailable, match="there is no file yet"):
            await seen(reading, 1)
        assert not path.exists()
        async with opened(SqliteLog(path)) as log:
            assert await log.append(ENTRIES[0])
            assert keys(await seen(reading, 1)) == [("a-1", 1)]

    asyncio.run(go())


def test_somebody_elses_file_is_refused(path):
    """K1."""
    path.write_bytes(b"")
    asyncio.run(SqliteTail(path).start())
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (a)")
    db.close()
    with pytest.raises(ConfigError, match=r"geocast\.db: is no alert log"):
        asyncio.run(SqliteTail(path).start())


def test_an_entry_that_cannot_be_read_comes_as_that(path):
    """Obs1."""

    async def go():
        async with opened(SqliteLog(path)) as log:
            for entry in ENTRIES:
                await log.append(entry)
            await log._write(lambda db: db.execute("UPDATE entry SET payload = x'00' WHERE position = 2").close())
            found = await seen(SqliteTail(path), 4)
            assert [each.entry is None for each in found] == [False, True, False, False]
            assert (found[1].id, found[1].payload) == ("b-1", b"\0")

    asyncio.run(go())


def test_a_file_that_was_replaced_is_read_anew(path):
    """Obs2, Obs3."""

    async def go():
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

    asyncio.run(go())


def test_nothing_is_written_to_the_file(path):
    """The observer's connection can't."""

    async def go():
        async with opened(SqliteLog(path)):
            db = SqliteTail(path)._open()
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                db.execute("DELETE FROM entry")
            db.close()

    asyncio.run(go())


# ---- a Redis -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def reader(server):
    """The URL of the user that ledger.md makes, which may only read."""
    [line] = re.findall(r"^ACL SETUSER (.*)$", LEDGER.read_text("utf-8"), re.MULTILINE)
    server.command("ACL", "SETUSER", *line.replace(">PASSWORD", ">secret").split())
    server.command("DEL", *["{geocast}:stream", "{geocast}:meta", "{geocast}:ends"])
    for key in server.command("KEYS", "{geocast}:alert:*"):
        server.command("DEL", key)
    return f"redis://ledger:secret@127.0.0.1:{server.port}/0"


@needs_redis
def test_the_entries_of_a_stream_come_in_order_and_those_to_come(server, reader):
    """Obs1: to a user that may only read."""

    async def go():
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

    asyncio.run(go())


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
def test_the_user_of_the_documents_may_do_no_more(reader, command):
    """ledger.md: whoever has the ledger's machine can't change the log by it."""
    with library.Redis.from_url(reader) as client, pytest.raises(library.exceptions.NoPermissionError):
        client.execute_command(*command)


@needs_redis
def test_a_wrong_password_is_told_at_the_start(reader):
    """K1: without it."""
    with pytest.raises(ConfigError, match="it refuses the user, the password") as caught:
        asyncio.run(RedisTail(reader.replace("secret", "wrong-one")).start())
    assert "wrong-one" not in str(caught.value)


@needs_redis
def test_a_rewound_history_comes_in_its_new_epoch(server, reader):
    """Obs2, LogF4: a node puts back what was lost, and it is given again."""
    entry = a_revision("lost-1", expires_at=int(time.time() * 1000) + 3_600_000)

    async def go():
        reading = RedisTail(reader)
        async with opened(RedisStreamsLog(server.url)) as log:
            assert await log.append(entry)
            [first] = await seen(reading, 1)
            server.command("DEL", "{geocast}:stream", "{geocast}:meta", "{geocast}:ends", "{geocast}:alert:lost-1")
            [again] = await seen(reading, 1)
        await reading.stop()
        assert (again.entry, again.payload) == (first.entry, first.payload)
        assert again.epoch > first.epoch

    asyncio.run(go())


@needs_redis
def test_silence_is_told_from_deafness(server, reader, monkeypatch):
    """Obs3: where no heartbeat of a node comes, nobody writes, or what is read is not what is written."""
    monkeypatch.setattr(tail, "SILENCE_S", 1.5)

    async def go():
        reading = RedisTail(reader)
        with pytest.raises(LogUnavailable, match="no heartbeat of any node comes"):
            await seen(reading, 1)
        async with opened(RedisStreamsLog(server.url)) as log:
            assert await log.append(ENTRIES[0])
            assert keys(await seen(reading, 1)) == [("a-1", 1)]
        await reading.stop()

    asyncio.run(go())


@needs_redis
def test_a_server_that_was_away_is_read_on(server, reader):
    """Obs3: from where it was, if the log has that still."""

    async def go():
        reading = RedisTail(reader)
        async with opened(RedisStreamsLog(server.url)) as log:
            assert await log.append(ENTRIES[0])
            assert len(await seen(reading, 1)) == 1
            assert await log.append(ENTRIES[1])
            assert keys(await seen(reading, 1)) == [("b-1", 1)]
        await reading.stop()

    asyncio.run(go())
