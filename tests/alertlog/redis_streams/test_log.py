"""The log in a Redis stream keeps the contract, on a real Redis; appends, counts, and entries that can't be read."""

import asyncio
import logging

import pytest
from alertlog.contract import DurableContract
from alertlog.reading import entries, live
from alertlog.redis_streams.tools import Following, Link, lasting, not_raising, opened, run, sample_of, until, write
from support.fakes import a_revision
from support.redis_server import RedisServer, needs_redis, wait_until

from geocast.alertlog import BATCH_BYTES, Counts, codec
from geocast.alertlog.redis_streams import RedisStreamsLog, appender, delivery_counts
from geocast.alertlog.redis_streams import follower as redis_follower
from geocast.alertlog.redis_streams import log as redis_log
from geocast.model.errors import LogUnavailable
from geocast.storage.redis.primary import Reader

pytestmark = needs_redis


@pytest.mark.usefixtures("patient")
class TestRedisStreamsLog(DurableContract):
    """All rules of the port, with a real Redis."""

    modules = (redis_log, redis_follower)
    most_large = 4  # that is the fewest reads of two

    @pytest.fixture(autouse=True)
    def _server(self, shared):
        self._url = shared.url

    def new(self, tmp_path):
        return RedisStreamsLog(f"{self._url}?prefix={tmp_path.name[:60]}")

    async def write(self, log, later):
        await write(log, later)


def test_size_of_redis_reply_is_limited_to_one_batch(shared, monkeypatch):
    """A connection of 20 Mbit/s transfers BATCH_BYTES in time, even if the entries are large."""
    answers = []
    ask = Reader.ask

    async def noted(self, *command, **options):
        answer = await ask(self, *command, **options)
        if command[0] == "XREAD":
            answers.append(sum(len(fields.get(b"p", b"")) for _, read in answer or () for _, fields in read))
        return answer

    monkeypatch.setattr(Reader, "ask", noted)
    large = [lasting(f"a-{n}", description="x" * 65_000) for n in range(200)]

    async def main():
        async with opened(f"{shared.url}?prefix=large") as log:
            await asyncio.gather(*map(log.append, large))
            given = await entries(log)
        assert sorted(entry.id for entry in given) == sorted(each.id for each in large)

    run(main)
    assert max(answers) > BATCH_BYTES // 2
    assert max(answers) <= BATCH_BYTES


# ---- appending entries -------------------------------------------------------------------------------------------


async def test_append_with_lost_reply_is_stored_once_and_returns_true(server):
    """Exactly one entry is stored, and `append` returns True (LogA2, LogA3)."""
    async with Link(server) as link, opened(link.url) as log:
        for n in range(3):
            link.lose_reply_to = b"WAITAOF"
            if n:  # of what is sent after a heartbeat, an append
                link.lose_reply_to = f"a-{n}".encode()
            assert await log.append(a_revision(f"a-{n}"))
            assert not await log.append(a_revision(f"a-{n}"))
            await until(lambda n=n: link.lost == n + 1, "the reply is lost")
        assert [entry.id for entry in await entries(log)] == ["a-0", "a-1", "a-2"]


async def test_append_with_too_few_replicas_raises_and_can_be_repeated(server, tmp_path):
    """The numbers in the reply to WAITAOF are checked, and the log recovers by itself (LogA3)."""
    async with opened(server.url) as unaware, opened(server.url, replicas=1) as log:
        await unaware._heart.stop()  # its heartbeats would note as durable what is so for it
        with pytest.raises(LogUnavailable, match=r"^synced here, and on 0 of 1 replicas$"):
            await log.append(a_revision())
        with pytest.raises(LogUnavailable, match="0 of 1 replicas"):
            await log.add_counts({})
        assert await unaware.append(a_revision("seen"))
        with pytest.raises(LogUnavailable, match="0 of 1 replicas"):
            await log.history("seen")  # a request may not be answered by what is not durable
        with RedisServer(tmp_path / "replica", replica_of=server) as replica:
            await until(lambda: log.append(a_revision("a-2")), "an append is stored")
            assert await log.history("seen") == [a_revision("seen")]
            assert replica.command("HGET", "{geocast}:alert:a-2", "last") == b"1"


async def test_repeated_append_finds_entry_that_was_not_replicated(server, tmp_path):
    """The failed append may have stored the entry. When the repeated append finds the entry, it is durable (LogA3)."""
    with RedisServer(tmp_path / "replica", replica_of=server) as replica:
        wait_until(lambda: replica.synced, "in step")
        async with opened(server.url, replicas=1) as log:

            async def stored_here_alone():
                await until(lambda: not_raising(log.add_counts({})), "well")
                replica.pause()
                with pytest.raises(LogUnavailable):
                    await log.append(a_revision())
                replica.resume()
                return server.command("HGET", "{geocast}:alert:a-1", "last") == b"1"

            await until(stored_here_alone, "the append comes before the heartbeat that notices the pause")
            await until(lambda: not_raising(log.add_counts({})), "well again")
            assert not await log.append(a_revision())
            assert await log.history("a-1") == [a_revision()]


@pytest.mark.parametrize("harm", ["pause", "kill"])
async def test_unreachable_redis_is_reported_in_time_and_log_recovers(server, harm):
    """Publishers get an answer within 3 s, and followers continue without repeats (LogA3, LogF3)."""
    async with opened(server.url) as log, Following(log) as following:
        assert await log.append(lasting("a-1"))
        getattr(server, harm)()
        with pytest.raises(LogUnavailable):
            await log.append(lasting("a-2"))
        assert appender.WRITE_S < 3, "that is for how long it waits, whatever turns a machine gives to it"
        await until(lambda: log._heart.problem is not None, "it is known to be away")
        with pytest.raises(LogUnavailable):
            await log.add_counts({})
        {"pause": server.resume, "kill": server.start}[harm]()
        await until(lambda: log.append(lasting("a-3")), "an append is stored")
        await until(lambda: ("a-3", 1) in following.given, "it is followed")
        assert following.given.count(("a-1", 1)) == following.given.count(("a-3", 1)) == 1
        assert [entry.id for entry in await entries(log)].count("a-2") <= 1


async def test_full_redis_refuses_appends_and_loses_nothing(server):
    """Stored entries can be read and purged, and the log recovers by itself (LogA3)."""
    async with opened(server.url) as log, Following(log) as following:
        assert await log.append(lasting())
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(LogUnavailable, match="full"):
            await log.append(lasting("a-2"))
        assert len(await log.history("a-1")) == 1
        assert await log.purge(0) == 0
        server.command("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: log.append(lasting("a-2")), "an append is stored")
        await until(lambda: following.known == [("a-1", 1), ("a-2", 1)], "it is followed")


# ---- entries that can't be read ----------------------------------------------------------------------------------


def test_unreadable_entry_is_skipped_and_counted_while_others_are_served(server, caplog):
    """Foreign and damaged entries are counted once, and followers continue (LogR2)."""

    async def main():
        async with opened(server.url) as log, Following(log) as following:
            await log.append(lasting("a-0"))
            stream = "{geocast}:stream"
            server.command("XADD", stream, "*", "what", "ever")
            server.command("XADD", stream, "*", "e", "x", "n", "y", "x", "z", "h2", "")
            await log.append(lasting("a-1"))
            await until(lambda: following.given == [("a-0", 1), ("a-1", 1)], "followed")
            assert log.quarantined == 2
            assert sample_of(log, "geocast_log_rewinds_total") == 0
            # Store the entry with another payload than the one that was written.
            place = server.command("HGET", "{geocast}:alert:a-1", "1")
            [(_, fields)] = server.command("XRANGE", stream, place, place)
            broken = fields | {b"p": codec.encode(lasting("a-1", headline="other"))}
            new = server.command("XADD", stream, "*", *(part for item in broken.items() for part in item))
            server.command("HSET", "{geocast}:alert:a-1", "1", new)
            assert await log.history("a-1") == []
            assert [entry.id for entry in await live(log, 0)] == ["a-0"]
            assert log.quarantined == 3

    run(main)
    assert "is unreadable and is skipped" in caplog.text


# ---- delivery counts ---------------------------------------------------------------------------------------------


async def test_delivery_counts_are_added_only_once_if_the_reply_of_redis_was_lost(server):
    """Repeated counts are not added twice, and the counts of all nodes are summed (section 4 of the protocol)."""
    async with Link(server) as link, opened(link.url) as log, opened(server.url) as other:
        await other.add_counts({"a-1": Counts(10, 5)})
        link.lose_reply_to = b"HSET"
        with pytest.raises(LogUnavailable):
            await log.add_counts({"a-1": Counts(2, 1)})
        await until(lambda: not_raising(log.add_counts({"a-1": Counts(3, 1)})), "counted")
        assert await other.counts("a-1") == Counts(13, 6)


async def test_delivery_counts_written_by_other_releases_are_read(server):
    """Later releases write more numbers, earlier ones only two or three (LogG6)."""
    async with opened(server.url) as log:
        await log.add_counts({"a-1": Counts(2, 1)})
        stored = {"later": "10 5 7 9 2", "before calls": "100 50", "before pushes": "1000 500 70"}
        server.command("HSET", "{geocast}:counts:a-1", *(part for pair in stored.items() for part in pair))
        assert await log.counts("a-1") == Counts(1112, 556, 77, 9)


async def test_delivery_counts_of_many_alerts_are_dropped_from_memory_but_stay_stored(shared, monkeypatch):
    """After MAX_COUNTED alerts the process stores its counts under a new name, starting from 0."""
    monkeypatch.setattr(delivery_counts, "MAX_COUNTED", 3)
    async with opened(f"{shared.url}?prefix=many") as log:
        for n in range(10):
            await log.add_counts({"a-0": Counts(1, 0), f"a-{n}": Counts(1, 1)})
            assert len(log._counting.sums) <= 4
        assert await log.counts("a-0") == Counts(10, 1)
        assert await log.counts("a-9") == Counts(1, 1)


def test_no_password_is_logged(tmp_path, caplog):
    """No error and no log line repeats the password (section 7 of the protocol, settings.md)."""
    caplog.set_level(logging.DEBUG)
    with RedisServer(tmp_path / "redis", password="hunter2") as server:

        async def main():
            async with opened(server.url) as log:
                assert await log.append(lasting())
                server.kill()
                with pytest.raises(LogUnavailable) as caught:
                    await log.append(lasting("a-2"))
                assert "hunter2" not in str(caught.value)
                await until(lambda: log._heart.problem is not None, "known to be away")

        run(main)
    assert "hunter2" not in caplog.text
