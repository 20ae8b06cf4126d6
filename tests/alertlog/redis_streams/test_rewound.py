"""A Redis that has lost entries: nodes restore them, and followers notice the loss."""

import time
from contextlib import aclosing
from itertools import chain

import msgpack
import pytest
from alertlog.later import MULTIPOLYGON, a_tombstone, of_another_kind, with_area, with_members
from alertlog.reading import entries, live, read, read_on
from alertlog.redis_streams.tools import (
    Following,
    Link,
    lasting,
    lasting_later,
    opened,
    put_back,
    run,
    sample_of,
    stored_in,
    until,
    write,
)
from support.fakes import a_cancel, a_revision
from support.redis_server import RedisServer, needs_redis, sentinel_url, trio, wait_until
from support.wall_clock import WallClock, needs_wall_clock

from geocast.alertlog import Counts
from geocast.alertlog.redis_streams import follower as redis_follower
from geocast.alertlog.redis_streams.stored import Stored
from geocast.clock import SystemClock
from geocast.model.errors import LogUnavailable
from geocast.storage.redis import target
from geocast.storage.redis.primary import OTHERS_S, Primary
from geocast.stream.live_alerts import LiveAlerts

pytestmark = needs_redis


# ---- restoring lost entries --------------------------------------------------------------------------------------


def test_entries_lost_in_redis_flush_are_restored_with_cancels_first(server):
    """No follower gets an alert that was cancelled (Rules 1 and 2)."""

    async def main():
        async with opened(server.url) as log, opened(server.url) as other, Following(log) as following:
            for entry in (lasting("live"), lasting("off"), a_revision("past")):
                await log.append(entry)
            await log.append(a_cancel("off", ends_at=lasting().ends_at))
            await other.append(lasting("live", 2))
            await log.add_counts({"live": Counts(3, 1)})
            await until(lambda: ("live", 2) in following.given, "all is followed")
            async with Following(other) as newcomer:
                await until(lambda: ("live", 2) in newcomer.given, "it knows all, and not only what it has appended")
                server.command("FLUSHALL")
                newcomer.given.clear()
                await put_back(log, ["live"])
                await until(lambda: ("live", 2) in newcomer.given, "it comes again")
                assert newcomer.known == [("off", 1), ("off", 2), ("live", 1), ("live", 2)]
            await until(lambda: log.counts("live"), "counts")
            assert following.known[:5] == [("live", 1), ("off", 1), ("past", 1), ("off", 2), ("live", 2)]
            assert following.positions == sorted(set(following.positions))
            assert await log.history("past") == []
            await until(lambda: counted(log), "counts are put back too")
            assert sum(sample_of(each, "geocast_log_put_back_total") for each in (log, other)) == 4

    async def counted(log):
        return await log.counts("live") == Counts(3, 1)

    run(main)


@pytest.mark.usefixtures("patient")
async def test_after_split_brain_all_nodes_have_live_alerts_of_both_sides(server, tmp_path):
    """Three alerts were acknowledged by the old primary, five by the new one.

    If both sides used the same number, the entry of the new primary stays (Rules 1 to 3).
    """
    with RedisServer(tmp_path / "replica", replica_of=server) as replica:
        wait_until(lambda: replica.synced, "in step")
        async with Link(server) as link, opened(link.url) as old, opened(link.url) as returning:
            for alert_id in ("both", "cancel-lost", "cancelled"):
                assert await old.append(lasting(alert_id))
            assert await old.append(a_cancel("cancelled", ends_at=lasting().ends_at))
            async with Following(old) as following, Following(returning) as away:
                await until(lambda: len(away.given) == len(following.given) == 4, "both know all")
                await until(lambda: stored_in(replica) == stored_in(server), "in step")
                replica.command("REPLICAOF", "NO", "ONE")
                for n in range(3):
                    assert await old.append(lasting(f"old-{n}"))
                assert await old.append(lasting("both", 2, headline="of the old"))
                assert await old.append(a_cancel("cancel-lost", ends_at=lasting().ends_at))
                await until(lambda: ("cancel-lost", 2) in following.given, "all is followed")
                async with opened(replica.url) as new:
                    for n in range(5):
                        assert await new.append(lasting(f"new-{n}"))
                    assert await new.append(lasting("both", 2, headline="of the new"))
                    assert await new.append(lasting("cancel-lost", 2, headline="of the new"))
                    link.lead_to(replica)
                    union = {*(f"old-{n}" for n in range(3)), *(f"new-{n}" for n in range(5)), "both"}
                    await put_back(new, union)
                    for each in (following, away):
                        wanted = {(alert_id, 1) for alert_id in union}
                        await until(lambda each=each, w=wanted: w <= set(each.given), "each knows all")
                        assert each.positions == sorted(set(each.positions))
                        assert ("cancel-lost", 3) in each.given
                    assert [e.alert.headline for e in await new.history("both")][1] == "of the new"
                    # The other node may have restored everything before `old` gets its second conflict.
                    await until(lambda: sample_of(old, "geocast_log_conflicts_total") == 2, "both are counted")


async def test_sentinel_failover_keeps_replicated_entries(tmp_path):
    """If a replica is required, acknowledged entries are on the new primary, and the log recovers (LogA3, LogF3)."""
    with trio(tmp_path) as (servers, sentinels):
        async with opened(sentinel_url(sentinels), replicas=1) as log, Following(log) as following:
            await until(lambda: log.append(lasting("a-1")), "stored")
            servers[0].kill()
            await until(lambda: log.append(lasting("a-2")), "stored by the new primary")
            await until(lambda: following.known == [("a-1", 1), ("a-2", 1)], "followed")
            assert len(await live(log, int(time.time() * 1000))) == 2


async def test_log_finds_new_primary_although_one_sentinel_never_answers(tmp_path):
    """The machine of a Sentinel and of the primary is lost: nothing there even refuses a connection (LogF3)."""
    with trio(tmp_path) as (servers, sentinels):
        async with opened(sentinel_url(sentinels), replicas=1) as log:
            await until(lambda: log.append(lasting("a-1")), "stored")
            sentinels[0].pause()
            servers[0].pause()
            try:
                await until(lambda: log.append(lasting("a-2")), "stored by the new primary")
            finally:
                sentinels[0].resume()
                servers[0].resume()


async def test_time_limit_of_a_command_does_not_include_the_look_up_of_the_primary(tmp_path):
    """Otherwise a heartbeat never succeeds if a Sentinel is lost and the new primary is far away (LogF3)."""
    with trio(tmp_path) as (_, sentinels):
        primary = Primary(target.parse(sentinel_url(sentinels)))
        sentinels[0].pause()  # so that the look-up takes OTHERS_S
        try:
            assert await primary.call("PING", within_s=OTHERS_S / 2)
        finally:
            sentinels[0].resume()
            await primary.close()


async def test_entry_stored_only_on_old_primary_and_its_replica_during_failover_is_not_acknowledged(tmp_path):
    """A failover has begun without these two servers, so entries synced by them will be lost (LogA3)."""
    with trio(tmp_path) as (servers, sentinels):
        async with opened(sentinel_url(sentinels), replicas=1) as log:
            await until(lambda: log.append(lasting("a-1")), "stored")
            await log._heart.stop()  # or it would look for another primary, once a second
            for server in servers:  # each may be promoted, and none be made a replica
                server.command("ACL", "SETUSER", "default", "-replicaof", "-slaveof", "+slaveof|no")
            sentinels[0].command("SENTINEL", "FAILOVER", "geocast")
            wait_until(lambda: sentinels[0].primary_port() != servers[0].port, "another is promoted")
            with pytest.raises(LogUnavailable):
                await log.append(lasting("a-2"))


async def test_lost_entries_of_later_release_are_restored_byte_for_byte(server):
    """Entries with unknown kinds, fields and shapes are restored, wherever they are in an alert (LogG5, Rule 2)."""
    written = [
        *(of_another_kind("call", n, kind) for n, kind in enumerate(("vigil", "watch", "dawn"), 1)),
        a_tombstone("tombstone"),
        with_members(lasting("live")),
        of_another_kind("live", 2),
        with_area(MULTIPOLYGON, alert_id="live", revision=3, expires_at=lasting().ends_at),
        with_members(lasting("off")),
        with_members(a_cancel("off", ends_at=lasting().ends_at)),
        of_another_kind("off", 3, "note"),
        of_another_kind("begun", 1, "draft"),
        with_members(lasting("begun", 2)),
    ]
    written = [lasting_later(each) for each in written]
    async with opened(server.url) as log, Following(log) as following:
        await write(log, *written)
        known = [("tombstone", 1), ("live", 1), ("live", 3), ("off", 1), ("off", 2), ("begun", 2)]
        await until(lambda: following.known == known, "all is followed")
        server.command("FLUSHALL")
        await put_back(log, ["live", "begun"])
        await until(lambda: len(stored_in(server)) == len(written), "all is there")
        by_alert = sorted(stored_in(server), key=lambda each: each[0])
        assert by_alert == sorted((tuple(each) for each in written), key=lambda each: each[0])
        assert following.known == known
        assert log.quarantined == 0
        assert not await log.append(lasting("off", 4))
        assert await log.append(lasting("live", 4))


async def test_restored_cancel_with_new_number_keeps_unknown_fields(server, tmp_path):
    """The cancel is appended again under the next number, with the fields of a later release (Rule 3, LogG5)."""
    ends_at = lasting().ends_at
    with RedisServer(tmp_path / "replica", replica_of=server) as replica:
        wait_until(lambda: replica.synced, "in step")
        async with Link(server) as link, opened(link.url) as old:
            assert await old.append(lasting("a-1"))
            async with Following(old) as following:
                await until(lambda: following.given, "followed")
                await until(lambda: stored_in(replica) == stored_in(server), "in step")
                replica.command("REPLICAOF", "NO", "ONE")
                await write(old, with_members(a_cancel(ends_at=ends_at)))
                await until(lambda: ("a-1", 2) in following.given, "followed")
                async with opened(replica.url) as new:
                    await write(new, lasting_later(of_another_kind(revision=2)))
                    link.lead_to(replica)
                    await until(lambda: ("a-1", 3) in following.given, "it is appended again")
                    assert [entry.revision for entry in await new.history("a-1")] == [1, 2, 3]
                    wanted = with_members(a_cancel(revision=3, ends_at=ends_at))
                    assert msgpack.unpackb(stored_in(replica)[-1][4]) == msgpack.unpackb(wanted.payload)
                    assert old.quarantined == new.quarantined == 0


# ---- what followers notice of a loss -----------------------------------------------------------------------------


async def test_reader_of_live_alert_pages_continues_after_redis_lost_entries(server):
    """Restored alerts have the same place in the order as before (LogL1)."""
    ends_at = lasting().ends_at
    async with opened(server.url) as log, Following(log) as following:
        ids = [f"a-{n}" for n in range(6)]
        for alert_id in (*ids[3:], *ids[:3]):
            await log.append(a_revision(alert_id, expires_at=ends_at))
        assert await log.append(a_revision("a-5", 2, expires_at=ends_at))
        await until(lambda: ("a-5", 2) in following.given, "all is followed")
        first = await log.live(0, limit=2)
        server.command("FLUSHALL")
        await put_back(log, ids)
        second = await log.live(0, first.after, 2)
        third = await log.live(0, second.after, 2)
        found = [sorted(entry.id for entry in page.revisions) for page in (first, second, third)]
        assert found == [ids[:2], ids[2:4], ids[4:]]
        assert third.after is None


async def test_alert_restored_after_its_cancel_is_cancelled(shared):
    """The first node that restores entries knows only the cancel.

    A process that starts then reads the cancel before the revision (Rule 2, R2).
    """
    async with opened(f"{shared.url}?prefix=early") as log:
        cancel = a_cancel(ends_at=lasting().ends_at)
        for entry in (cancel, lasting()):
            await log._writer.store([Stored.of(entry).arguments("put back", more=False)], mending=True)
        assert [entry.revision for entry in await entries(log)] == [2, 1]
        alerts, now = LiveAlerts(1), SystemClock().now()
        for entry in await entries(log):
            alerts.apply(entry, now)
        assert [alert.current for alert in alerts] == [cancel]


async def test_live_revision_is_restored_although_earlier_one_ended_before_start(server):
    """No process knows revision 1 any more, but revision 2 is live (Rule 2)."""
    now_ms = int(time.time() * 1000)
    async with opened(server.url) as first:
        assert await first.append(a_revision(expires_at=now_ms - 1))
        assert await first.append(lasting("a-1", 2))
    async with opened(server.url) as log, aclosing(log.follow(0, now_ms)) as follower:
        assert [entry.revision for _, entry in await read_on(follower)] == [2]
        server.command("FLUSHALL")
        await put_back(log, ["a-1"])
        assert not await log.append(lasting("a-1", 1))
        assert await log.append(lasting("a-1", 3))


@pytest.mark.parametrize("cut", ["XDEL", "XTRIM", "DEL"])
async def test_entry_deleted_from_redis_stream_is_restored(server, cut):
    """Either the size of the stream or the numbers of the entries show the loss (Rule 1)."""
    async with opened(server.url) as log, Following(log) as following:
        for n in range(3):
            await log.append(lasting(f"a-{n}"))
        await until(lambda: len(following.given) == 3, "all is followed")
        place = server.command("HGET", "{geocast}:alert:a-1", "1")
        stream = "{geocast}:stream"
        server.command(
            *{"XDEL": ("XDEL", stream, place), "XTRIM": ("XTRIM", stream, "MAXLEN", 1), "DEL": ("DEL", stream)}[cut]
        )
        await put_back(log, ["a-0", "a-1", "a-2"])
        assert sorted(entry.id for entry in await entries(log)) == ["a-0", "a-1", "a-2"]
        assert sample_of(log, "geocast_log_rewinds_total") == 1


@pytest.mark.parametrize("cut", ["FLUSHALL", "DEL {geocast}:stream"])
async def test_follower_notices_when_redis_stream_ids_go_back(server, cut):
    """The clock was ahead and is corrected while the connection stays open.

    So only the epoch (a number that changes when the log has lost entries) shows the loss (Rule 1).
    """
    async with opened(server.url) as log, Following(log) as following:
        await log.append(lasting("a-0"))
        server.command("XSETID", "{geocast}:stream", "9999999999999-0")
        server.command("HSET", "{geocast}:meta", "epoch", 9999999999999)
        await until(lambda: log.append(lasting("a-1")), "stored")
        await until(lambda: ("a-1", 1) in following.given, "followed")
        server.command(*cut.split())
        await put_back(log, ["a-0", "a-1"])
        await until(lambda: log.append(lasting("a-2")), "stored")
        await until(lambda: ("a-2", 1) in following.given, "followed")
        assert following.positions == sorted(set(following.positions))


@needs_wall_clock
def test_follower_notices_when_redis_clock_is_set_back(tmp_path):
    """The clock goes back by two hours before a flush, so stream ids and epoch numbers go back as well (Rule 1)."""
    server = RedisServer(tmp_path / "redis")
    server.clock = WallClock(tmp_path / "clock")
    server.clock.set(7200)

    async def main():
        async with opened(server.url) as log, Following(log) as following:
            assert await log.append(lasting("a-0", 1))
            await until(lambda: ("a-0", 1) in following.given, "followed")
            server.clock.set(0)
            server.command("FLUSHALL")
            await until(lambda: log.append(lasting("a-1")), "stored")
            await until(lambda: ("a-1", 1) in following.given, "followed")
            await put_back(log, ["a-0", "a-1"])
            assert following.positions == sorted(set(following.positions))

    with server:
        run(main)


async def test_gap_in_entry_numbers_is_noticed_as_loss(server):
    """The numbers show the loss even if the stream has the right size (Rule 1)."""
    async with opened(server.url) as log, opened(server.url) as other, Following(log) as following:
        await log.append(lasting("a-0"))
        await until(lambda: following.given, "followed")
        await other.append(lasting("known"))
        await until(lambda: len(following.given) == 2, "followed")
        server.command("HINCRBY", "{geocast}:meta", "seq", 1)  # as if an entry had come and gone
        await other.append(lasting("next"))
        await until(lambda: following.known[-1:] == [("next", 1)], "followed")
        await until(lambda: sample_of(log, "geocast_log_rewinds_total") == 1, "noticed")
        assert following.positions == sorted(set(following.positions))


@pytest.mark.usefixtures("patient")
async def test_entry_with_id_and_number_of_lost_entry_is_noticed_as_loss(server, tmp_path):
    """After a clock of Redis was ahead, both sides of a failover give the same ids to different entries (Rule 1)."""
    with RedisServer(tmp_path / "replica", replica_of=server) as replica:
        wait_until(lambda: replica.synced, "in step")
        async with Link(server) as link, opened(link.url) as log, Following(log) as following:
            server.command("XSETID", "{geocast}:stream", "9999999999999-0")
            await log.append(lasting("both"))
            await until(lambda: following.given, "followed")
            wait_until(lambda: stored_in(replica), "in step")
            replica.command("REPLICAOF", "NO", "ONE")
            await log.append(lasting("lost"))
            await until(lambda: ("lost", 1) in following.given, "followed")
            place = server.command("HGET", "{geocast}:alert:lost", "1")
            [(_, fields)] = server.command("XRANGE", "{geocast}:stream", place, place)
            store_at(replica, place, fields, Stored.of(lasting("new")))
            link.lead_to(replica)
            await until(lambda: ("new", 1) in following.given, "followed")
            await put_back(log, ["both", "lost", "new"])
            assert following.positions == sorted(set(following.positions))


def store_at(server, place, fields, stored):
    """Store the first entry of an alert as `append.lua` does, but at a given id.

    `fields` are those of an entry with the same epoch and number in the log.
    """
    *values, checksum, token, _, _ = stored.arguments("another token", more=False)
    changed = dict(zip((b"i", b"r", b"k", b"x", b"p", b"c", b"t"), (*values, checksum, token), strict=True))
    index = f"{{geocast}}:alert:{stored.id}"
    server.command("XADD", "{geocast}:stream", place, *chain.from_iterable((fields | changed).items()))
    server.command("HSET", index, 1, place, "last", 1, "kind", stored.kind)
    server.command("ZADD", "{geocast}:ends", stored.ends_at, stored.id)
    server.command("HSET", "{geocast}:meta", "seq", fields[b"n"])
    server.command("HINCRBY", "{geocast}:meta", "size", 1)


async def test_redis_restart_without_lost_entries_is_not_taken_for_a_loss(server):
    """The epoch (a number that changes when the log has lost entries) stays the same (Rule 1)."""
    async with opened(server.url) as log, Following(log) as following:
        await log.append(lasting("a-0"))
        await until(lambda: following.given, "followed")
        server.kill()
        server.start()
        await until(lambda: log.append(lasting("a-1")), "stored")
        await until(lambda: following.given == [("a-0", 1), ("a-1", 1)], "each once")
        assert sample_of(log, "geocast_log_rewinds_total") == 0


# ---- followers that can't get new entries ------------------------------------------------------------------------


async def test_follower_that_reads_another_server_than_the_writer_raises_log_unavailable(server, shared, monkeypatch):
    """Otherwise an empty batch would wrongly tell the follower's user that it is up to date (LogF2)."""
    async with opened(server.url) as log:
        monkeypatch.setattr(log._primary, "reader", Primary(target.parse(shared.url)).reader)
        with pytest.raises(LogUnavailable, match="not the one that is written"):
            await anext(log.follow(0))
        with pytest.raises(LogUnavailable, match="not the one that is written"):
            await log.add_counts({})
        monkeypatch.undo()
        assert await read(log) == []
        await log.add_counts({})


async def test_entries_read_by_failed_follower_are_given_to_next_one(server, monkeypatch):
    """An entry that a follower has read, but not yet returned when it fails, is not delivered (LogF1)."""

    def fails(_follower):
        raise LogUnavailable("deaf")

    async with opened(server.url) as log:
        await log.append(lasting("a-0"))
        async with aclosing(log.follow(0)) as follower:
            [given] = await read_on(follower)
            await log.append(lasting("a-1"))
            monkeypatch.setattr(redis_follower._Follower, "_check_hearing", fails)
            with pytest.raises(LogUnavailable):
                await read_on(follower)
        monkeypatch.undo()
        assert [entry.id for _, entry in await read(log, after=given.position)] == ["a-1"]


async def test_follower_of_demoted_primary_raises_log_unavailable(server, tmp_path, monkeypatch):
    """A follower of a demoted primary fails within 3 s (LogF2)."""
    with RedisServer(tmp_path / "replica", replica_of=server) as replica:
        wait_until(lambda: replica.synced, "in step")
        async with opened(server.url) as log, aclosing(log.follow(0)) as follower:
            assert await read_on(follower) == []
            async with Link(server) as link, opened(link.url) as moving, aclosing(moving.follow(0)) as deaf:
                monkeypatch.setattr(moving._primary, "reader", log._primary.reader)
                await read_on(deaf)
                await until(lambda: stored_in(replica) == stored_in(server), "in step")
                replica.command("REPLICAOF", "NO", "ONE")
                link.lead_to(replica)  # but for the reader, whose connection stays
                with pytest.raises(LogUnavailable, match="not the one that is written"):
                    await forever(deaf)


async def forever(batches):
    """Read batches until the follower fails."""
    async for _ in batches:
        pass
