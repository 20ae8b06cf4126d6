"""Calls in a Redis that has lost entries, and the deletion of their places."""

import asyncio
import dataclasses
import time

import msgpack
from alertlog.chains import a_call, a_claim, a_release, a_widening, an_end
from alertlog.redis_streams.tools import (
    Following,
    Link,
    in_time,
    is_given,
    lasting,
    opened,
    sample_of,
    stored_in,
    until,
)
from support.fakes import a_revision
from support.redis_server import RedisServer, needs_redis, wait_until

from geocast.alertlog import PLACE_MS, codec
from geocast.alertlog.redis_streams.stored import Stored

pytestmark = needs_redis


async def test_calls_lost_in_redis_flush_are_restored_without_places_of_ended_calls(server):
    """Ended calls are restored first, without `call` entries, and open calls byte for byte (LogC5, RZ4)."""
    going_on = [a_call(1, "open"), a_widening(2, "open"), a_claim(3, call_id="open")]
    ended = [a_call(1, "over"), a_claim(2, call_id="over"), a_call(3, "over"), an_end(4, "over")]
    going_on, ended = [in_time(each) for each in going_on], [in_time(each) for each in ended]
    async with opened(server.url) as log, opened(server.url) as other, Following(other) as following:
        for entry in (*going_on, *ended):
            assert await log.append(entry)
        await is_given(following, ("open", 3), ("over", 4))
        server.command("FLUSHALL")
        await until(lambda: len(stored_in(server)) == 5, "all is put back")
        told = [*ended[1::2], *going_on]
        assert [each[:2] for each in stored_in(server)] == [(each.id, each.revision) for each in told]
        assert [each[4] for each in stored_in(server)] == [codec.encode(each) for each in told]
        assert list(await log.open_calls(0)) == ["open"]
        for entry in (a_call(1, "over"), a_call(3, "over"), a_claim(5, call_id="over")):
            assert not await log.append(in_time(entry))
        assert await log.append(in_time(a_claim(4, 2, "open")))


async def test_seat_and_end_entries_lost_in_split_brain_are_restored_once_under_next_number(server, tmp_path, caplog):
    """Two nodes restore the same entries, which are stored once and are no conflicts (LogC5, RV7, RZ3).

    A claim whose seat was given back (`back`), or whose call has ended (`off`), is not stored and counts as a conflict.
    """
    with RedisServer(tmp_path / "replica", replica_of=server) as replica:
        wait_until(lambda: replica.synced, "in step")
        async with Link(server) as link, opened(link.url) as old, opened(link.url) as beside:
            ids = ("swapped", "ended", "back", "off")
            for call_id in ids:
                assert await old.append(in_time(a_call(1, call_id)))
            async with Following(old) as following, Following(beside) as also:
                await is_given(also, *((call_id, 1) for call_id in ids))
                await until(lambda: stored_in(replica) == stored_in(server), "in step")
                replica.command("REPLICAOF", "NO", "ONE")
                claim, end = in_time(a_claim(2, call_id="swapped")), in_time(an_end(3, "ended"))
                lost = [
                    *(claim, in_time(a_claim(2, call_id="ended")), end),
                    *(in_time(a_claim(2, call_id="back")), in_time(a_release(3, call_id="back"))),
                    in_time(a_claim(2, call_id="off")),
                ]
                for entry in lost:
                    assert await old.append(entry)
                for each in (following, also):
                    await is_given(each, *((entry.id, entry.revision) for entry in lost))
                async with opened(replica.url) as new:
                    theirs = [in_time(a_claim(2, call_id=call_id)) for call_id in ids]
                    more = [in_time(a_widening(3, "ended")), in_time(an_end(3, "off"))]
                    for entry in (*theirs, *more):
                        assert await new.append(entry)
                    link.lead_to(replica)
                    for each in (following, also):
                        await is_given(each, ("swapped", 3), ("ended", 5))
                    for log in (old, beside):
                        await until(lambda log=log: log._mender._task.done(), "it has put back what it knows")
                        assert sample_of(log, "geocast_log_conflicts_total") == 2  # of `back` and `off`
                    assert caplog.text.count("can't be put back") == 4
                    chains = [list(await new.history(call_id)) for call_id in ids]
                moved = dataclasses.replace
                assert chains[0][1:] == [theirs[0], moved(claim, revision=3, sealed_as=2)]
                assert chains[1][1:3] == [theirs[1], more[0]]
                assert chains[1][3:] == [
                    moved(lost[1], revision=4, sealed_as=2),
                    moved(end, revision=5, sealed_as=3),
                ]
                assert chains[2][1:] == [theirs[2], lost[4]]
                assert chains[3][1:] == [theirs[3], more[1]]


async def test_lost_renumbered_entry_is_restored_under_its_new_number(server):
    """The entry keeps the number under which it was encrypted, however often the log loses the entry (LogC5)."""
    moved = in_time(dataclasses.replace(a_claim(3), sealed_as=2))
    async with opened(server.url) as log, Following(log) as following:
        for entry in (in_time(a_call()), in_time(a_claim(2)), moved):
            await log.append(entry)
        await is_given(following, ("c-1", 3))
        server.command("FLUSHALL")
        await until(lambda: len(stored_in(server)) == 3, "all is put back")
        assert (await log.history("c-1"))[2] == moved
        assert msgpack.unpackb(codec.renumbered(codec.encode(moved), 9))["sealed_as"] == 2


async def test_lost_call_entry_with_place_is_not_restored_after_end_of_call(shared):
    """The Lua script refuses a `call` entry after an end, and accepts the other entries of the call (LogC4)."""
    async with opened(f"{shared.url}?prefix=behind") as log:
        for entry in (a_call(), a_claim(2), an_end(3)):
            assert await log.append(entry)
        assert await log.purge(a_call().ends_at) == 1
        for entry, wanted in ((a_call(), b"refused"), (a_call(4), b"refused"), (a_claim(2), b"other")):
            [(what, *_)] = await log._writer.store([Stored.of(entry).arguments("x", more=False)], mending=True)
            assert what == wanted
        assert [entry.revision for entry in await log.history("c-1")] == [2, 3]


async def test_lost_alert_entry_is_not_restored_if_a_call_now_has_its_id_or_vice_versa(shared):
    """If the id of a lost alert is now used by a call, the lost entry is refused, and vice versa (LogC1)."""
    async with opened(f"{shared.url}?prefix=mixed") as log:
        for there, lost in ((a_call(), a_revision("c-1", 2)), (a_revision(), a_call(2, "a-1"))):
            assert await log.append(there)
            [(what, *_)] = await log._writer.store([Stored.of(lost).arguments("x", more=False)], mending=True)
            assert what == b"refused"


async def test_deleted_place_of_call_is_absent_from_rewritten_redis_file(server):
    """The memory of Redis does not contain the place either, since the file is written from it (LogC4, RZ4)."""
    places = [in_time(a_call(1, f"c-{n}")) for n in range(20)]
    server.command("CONFIG", "SET", "rdbcompression", "no")

    def files():
        rewrites = server.command("INFO", "persistence")["aof_rewrites"]
        server.command("BGREWRITEAOF")
        wait_until(lambda: server.command("INFO", "persistence")["aof_rewrites"] > rewrites, "it is being rewritten")
        wait_until(lambda: not server.command("INFO", "persistence")["aof_rewrite_in_progress"], "it was")
        return b"".join(each.read_bytes() for each in server.folder.rglob("*.rdb"))

    async with opened(server.url) as log:
        for n, place in enumerate(places):
            await log.append(place)
            await log.append(lasting(f"a-{n}"))
            await log.append(in_time(an_end(2, place.id)))
        there = await asyncio.to_thread(files)
        assert all(entry.sealed in there for entry in places)
        assert await log.purge(10**13) == 20
        there = await asyncio.to_thread(files)
        assert [entry.id for entry in places if entry.sealed in there] == []
        assert all(f"a-{n}".encode() in there for n in range(20))


async def test_place_of_call_is_deleted_only_when_node_and_redis_clocks_agree(shared):
    """This machine's clock may be ahead of Redis' clock (LogC4)."""
    now_ms = int(time.time() * 1000)
    async with opened(f"{shared.url}?prefix=clocks") as log:
        for call_id, at in (("recent", now_ms - PLACE_MS + 60_000), ("past", now_ms - PLACE_MS - 1)):
            await log.append(in_time(a_call(1, call_id)))
            await log.append(in_time(an_end(2, call_id, at)))
        assert await log.purge(now_ms - 60_000) == 0
        assert await log.purge(now_ms + 3_600_000) == 1
        assert [len(await log.history(call_id)) for call_id in ("recent", "past")] == [2, 1]
