"""The log in a Redis stream keeps the contract, on a real Redis, and what only a Redis can do to it."""

import asyncio
import dataclasses
import logging
import subprocess
import sys
import time
import uuid
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgpack
import pytest
from alertlog.chains import a_call, a_claim, a_release, a_widening, an_end
from alertlog.contract import PATIENCE_S, DurableContract, entries, live, read, read_on
from alertlog.later import MULTIPOLYGON, a_tombstone, of_another_kind, with_area, with_members
from support.fakes import a_cancel, a_revision
from support.ports import a_free_port
from support.redis_server import RedisServer, needs_redis, sentinel_url, trio, wait_until
from support.wall_clock import WallClock, needs_wall_clock

from geocast.alertlog import BATCH_BYTES, PLACE_MS, RETENTION_MS, Counts, codec
from geocast.alertlog.redis_streams import RedisStreamsLog, appender, delivery_counts, heartbeat, target
from geocast.alertlog.redis_streams import connection as redis_connection
from geocast.alertlog.redis_streams import follower as redis_follower
from geocast.alertlog.redis_streams import log as redis_log
from geocast.alertlog.redis_streams import writer as redis_writer
from geocast.alertlog.redis_streams.connection import Primary, Reader
from geocast.alertlog.redis_streams.stored import Stored
from geocast.alertlog.trusted_time import TrustedTime
from geocast.clock import SystemClock
from geocast.errors import ConfigError, LogUnavailable
from geocast.stream.live_alerts import LiveAlerts

pytestmark = [needs_redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One Redis for all tests that do it no harm."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def server(tmp_path):
    """A Redis of a test's own."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def time_passes_for_all(monkeypatch):
    """What the log bears witness to is any time: what counts is the clock that a test passes to `purge`."""
    monkeypatch.setattr(TrustedTime, "at_least", lambda _witness, _newest, now: now.wall_ms)


@pytest.fixture
def patient(monkeypatch):
    """A Redis that gets no turn on a busy machine is not away: who tests no deadline waits as long as tests do."""
    monkeypatch.setattr(appender, "APPEND_S", PATIENCE_S)
    monkeypatch.setattr(redis_writer, "SYNC_S", PATIENCE_S)
    monkeypatch.setattr(redis_follower, "ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(heartbeat, "INFO_S", PATIENCE_S)
    monkeypatch.setattr(redis_connection, "CONNECT_S", PATIENCE_S)
    for asks in (Reader.ask, Primary.call, Primary.pipe, redis_writer.Writer._durably):
        monkeypatch.setitem(asks.__kwdefaults__, "within_s", PATIENCE_S)
    monkeypatch.setattr(redis_writer.Writer.store, "__defaults__", (PATIENCE_S,))


@pytest.fixture(autouse=True)
def _patient_with_a_redis_that_nobody_harms(request):
    """Who shares a Redis tests no deadline."""
    if "shared" in request.fixturenames:
        request.getfixturevalue("patient")


@pytest.mark.usefixtures("time_passes_for_all", "patient")
class TestRedisStreamsLog(DurableContract):
    """All rules."""

    modules = (redis_log, redis_follower)
    most_large = 4  # that is the fewest reads of two

    @pytest.fixture(autouse=True)
    def _server(self, shared):
        self._url = shared.url

    def new(self, tmp_path):
        return RedisStreamsLog(f"{self._url}?prefix={tmp_path.name[:60]}")

    async def write(self, log, later):
        await write(log, later)


def test_no_answer_of_redis_has_more_than_a_batch_of_the_largest_entries(shared, monkeypatch):
    """BATCH_BYTES: each is carried in time by a line of 20 Mbit/s, however large the entries are that wait."""
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


async def write(log, *entries):
    """Store entries as a later release does: its script stores other kinds, also behind a cancel."""
    stored = [Stored(*entry).arguments("of a later release", more=False) for entry in entries]
    for what, *_ in await log._writer.store(stored, mending=True):
        assert what == b"stored"


# ---- tools ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def opened(url, **options):
    """A log, open for as long as the block runs."""
    log = RedisStreamsLog(url, **options)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


def run(main):
    """Run a coroutine function to its end, within bounds."""

    async def bounded():
        async with asyncio.timeout(2 * PATIENCE_S):
            return await main()

    return asyncio.run(bounded())


def lasting(alert_id="a-1", revision=1, **changes):
    """A revision that goes on to live for an hour of the machine's clock."""
    return a_revision(alert_id, revision, expires_at=int(time.time() * 1000) + 3_600_000, **changes)


async def until(true, what):
    """Return as soon as `true()`, or `await true()`, is; fail in the end."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(LogUnavailable):
            found = true()
            if await found if asyncio.iscoroutine(found) else found:
                return
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)


class Following:
    """Whoever follows a log for ever, as a node does: (id, revision) of all it was given, in order."""

    def __init__(self, log):
        self.given = []
        self.positions = []
        self.failures = []
        self._log = log

    async def __aenter__(self):
        self._task = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def known(self):
        """Each that it was given, once."""
        return list(dict.fromkeys(self.given))

    async def _follow(self):
        while True:
            try:
                async with aclosing(self._log.follow(self.positions[-1] if self.positions else 0)) as batches:
                    async for batch in batches:
                        self.given += [(entry.id, entry.revision) for _, entry in batch]
                        self.positions += [position for position, _ in batch]
            except LogUnavailable as error:
                self.failures.append(str(error))
            await asyncio.sleep(0.05)


class Link:
    """A way to a Redis that can be led to another one, and can lose replies.

    Purpose: what an address does that moves at a failover, and a network that fails behind a command. Lies: what it
    loses it loses once, at a place of the test's choice.
    """

    def __init__(self, server):
        self.port = server.port
        self.lose_reply_to = None  # of the next request with these bytes in it the reply is lost, and the connection
        self.lost = 0
        self._writers = set()

    async def __aenter__(self):
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_):
        self._listener.close()
        self.cut()
        await self._listener.wait_closed()

    def lead_to(self, server):
        """From now on the way leads to `server`."""
        self.port = server.port
        self.cut()

    def cut(self):
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        there, away = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers |= {writer, away}
        losing = False

        async def requests():
            nonlocal losing
            while data := await reader.read(1 << 20):
                if self.lose_reply_to is not None and self.lose_reply_to in data:
                    self.lose_reply_to, losing = None, True
                away.write(data)

        async def replies():
            while data := await there.read(1 << 20):
                if losing:
                    self.lost += 1
                    return
                writer.write(data)

        tasks = [asyncio.ensure_future(requests()), asyncio.ensure_future(replies())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, away):
            end.transport.abort()
            self._writers.discard(end)


# ---- append --------------------------------------------------------------------------------------------------


def test_an_append_whose_reply_was_lost_is_stored_once_and_knows_it(server):
    """LogA2, LogA3: exactly one entry, and `append` says True."""

    async def main():
        async with Link(server) as link, opened(link.url) as log:
            for n in range(3):
                link.lose_reply_to = b"WAITAOF"
                if n:  # of what is sent after a heartbeat, an append
                    link.lose_reply_to = f"a-{n}".encode()
                assert await log.append(a_revision(f"a-{n}"))
                assert not await log.append(a_revision(f"a-{n}"))
                await until(lambda n=n: link.lost == n + 1, "the reply is lost")
            assert [entry.id for entry in await entries(log)] == ["a-0", "a-1", "a-2"]

    run(main)


def test_too_few_replicas_are_told_and_the_same_append_may_be_repeated(server, tmp_path):
    """LogA3: the counts that WAITAOF gives are looked at; it heals by itself."""

    async def main():
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

    run(main)


def test_an_entry_that_was_stored_but_not_replicated_is_known_when_it_is_repeated(server, tmp_path):
    """LogA3: it may have been stored; whoever is told so then may rely on it."""

    async def main():
        with RedisServer(tmp_path / "replica", replica_of=server) as replica:
            wait_until(lambda: replica.synced, "in step")
            async with opened(server.url, replicas=1) as log:
                replica.pause()
                with pytest.raises(LogUnavailable):
                    await log.append(a_revision())
                assert server.command("HGET", "{geocast}:alert:a-1", "last") == b"1"
                replica.resume()
                await until(lambda: not_raising(log.add_counts({})), "well again")
                assert not await log.append(a_revision())
                assert await log.history("a-1") == [a_revision()]

    run(main)


async def not_raising(awaitable):
    """Whether this ends without LogUnavailable."""
    await awaitable
    return True


@pytest.mark.parametrize("harm", ["pause", "kill"])
def test_when_redis_is_away_it_is_told_in_time_and_all_heals_by_itself(server, harm):
    """LogA3, LogF3: publishers are told within 3 s, followers go on where they were, and nothing comes twice."""

    async def main():
        async with opened(server.url) as log, Following(log) as following:
            assert await log.append(lasting("a-1"))
            getattr(server, harm)()
            with pytest.raises(LogUnavailable):
                await log.append(lasting("a-2"))
            assert appender.APPEND_S < 3, "that is for how long it waits, whatever turns a machine gives to it"
            await until(lambda: log._heart.problem is not None, "it is known to be away")
            with pytest.raises(LogUnavailable):
                await log.add_counts({})
            {"pause": server.resume, "kill": server.start}[harm]()
            await until(lambda: log.append(lasting("a-3")), "an append is stored")
            await until(lambda: ("a-3", 1) in following.given, "it is followed")
            assert following.given.count(("a-1", 1)) == following.given.count(("a-3", 1)) == 1
            assert [entry.id for entry in await entries(log)].count("a-2") <= 1

    run(main)


def test_a_full_redis_takes_nothing_and_loses_nothing(server):
    """LogA3: unavailable, and what was stored can be read and forgotten; it heals by itself."""

    async def main():
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

    run(main)


# ---- history that was rewound --------------------------------------------------------------------------------


async def put_back(log, ids):
    """Wait until these alerts are live in the log."""

    async def all_live():
        return {entry.id for entry in await live(log, int(time.time() * 1000))} == set(ids)

    await until(all_live, f"{ids} are live")


def test_what_a_flushed_redis_has_lost_is_put_back_cancels_first(server):
    """Rule 1, Rule 2: and nothing that was cancelled comes back to life, for nobody."""

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


def sample_of(log, name):
    """The value of one of a log's metrics."""
    return next(sample.value for metric in log.metrics() for sample in metric.samples if sample.name == name)


@pytest.mark.usefixtures("patient")
def test_after_a_split_brain_all_have_the_union_of_what_is_live(server, tmp_path):
    """Rule 1, Rule 2: three acknowledged on the old primary, promotion, five new ones; conflicts go the log's way."""

    async def main():
        with RedisServer(tmp_path / "replica", replica_of=server) as replica:
            wait_until(lambda: replica.synced, "in step")
            async with Link(server) as link, opened(link.url) as old, opened(link.url) as returning:
                for alert_id in ("both", "cancel-lost", "cancelled"):
                    assert await old.append(lasting(alert_id))
                assert await old.append(a_cancel("cancelled", ends_at=lasting().ends_at))
                async with Following(old) as following, Following(returning) as away:
                    await until(lambda: len(away.given) == len(following.given) == 4, "both know all")
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
                        # The other one may have put all back before this one has come to its second conflict.
                        await until(lambda: sample_of(old, "geocast_log_conflicts_total") == 2, "both are counted")

    run(main)


def test_a_sentinel_failover_loses_nothing_that_was_replicated(tmp_path):
    """LogA3, LogF3: with a replica asked for, what was acknowledged is on the new primary; all heals by itself."""

    async def main():
        with trio(tmp_path) as (servers, sentinels):
            async with opened(sentinel_url(sentinels), replicas=1) as log, Following(log) as following:
                await until(lambda: log.append(lasting("a-1")), "stored")
                servers[0].kill()
                await until(lambda: log.append(lasting("a-2")), "stored by the new primary")
                await until(lambda: following.known == [("a-1", 1), ("a-2", 1)], "followed")
                assert len(await live(log, int(time.time() * 1000))) == 2

    run(main)


def test_what_an_old_primary_and_its_replica_have_is_not_acknowledged(tmp_path):
    """LogA3: a failover has begun, and these two have not heard of it; what they sync will be lost."""

    async def main():
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

    run(main)


def lasting_later(later):
    """An entry of a later release that lives as long as those of `lasting`."""
    return later._replace(ends_at=lasting().ends_at)


def stored_in(server):
    """(id, number, kind, ends_at, bytes) of all entries in the stream, in order."""
    found = [fields for _, fields in server.command("XRANGE", "{geocast}:stream", "-", "+")]
    return [(f[b"i"].decode(), int(f[b"r"]), f[b"k"].decode(), int(f[b"x"]), f[b"p"]) for f in found if b"h" not in f]


def test_what_a_later_release_wrote_is_put_back_byte_for_byte(server):
    """LogG5, Rule 2: other kinds, wherever in an alert they stand, unknown members and unknown shapes."""
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

    async def main():
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

    run(main)


def test_a_cancel_that_lost_its_number_keeps_the_members_that_nobody_knows(server, tmp_path):
    """Rule 3, LogG5: appended again under the next number, with all that a later release put into it."""
    ends_at = lasting().ends_at

    async def main():
        with RedisServer(tmp_path / "replica", replica_of=server) as replica:
            wait_until(lambda: replica.synced, "in step")
            async with Link(server) as link, opened(link.url) as old:
                assert await old.append(lasting("a-1"))
                async with Following(old) as following:
                    await until(lambda: following.given, "followed")
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

    run(main)


# ---- calls -------------------------------------------------------------------------------------------------------


def in_time(entry):
    """The same entry of a call, that lives as long as those of `lasting`."""
    return dataclasses.replace(entry, ends_at=lasting().ends_at)


async def is_given(following, *wanted):
    """Wait until a follower was given these (id, number)."""
    await until(lambda: set(wanted) <= set(following.given), f"{wanted} are followed")


def test_calls_that_a_flushed_redis_has_lost_are_put_back_without_places_that_are_over(server):
    """LogC5, RZ4: those that were ended come first and without `call` entries, open ones whole and byte for byte."""
    going_on = [a_call(1, "open"), a_widening(2, "open"), a_claim(3, call_id="open")]
    ended = [a_call(1, "over"), a_claim(2, call_id="over"), a_call(3, "over"), an_end(4, "over")]
    going_on, ended = [in_time(each) for each in going_on], [in_time(each) for each in ended]

    async def main():
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

    run(main)


def test_after_a_split_brain_claims_and_ends_are_under_the_next_number_once(server, tmp_path, caplog):
    """LogC5, RV7, RZ3: though two nodes put them back. Of those there is no alarm: nothing is lost.

    Not a claim whose seat was given back (`back`), nor one of a call that is over (`off`).
    """

    async def main():
        with RedisServer(tmp_path / "replica", replica_of=server) as replica:
            wait_until(lambda: replica.synced, "in step")
            async with Link(server) as link, opened(link.url) as old, opened(link.url) as beside:
                ids = ("swapped", "ended", "back", "off")
                for call_id in ids:
                    assert await old.append(in_time(a_call(1, call_id)))
                async with Following(old) as following, Following(beside) as also:
                    await is_given(also, *((call_id, 1) for call_id in ids))
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

    run(main)


def test_an_entry_that_was_moved_is_put_back_where_it_stood_then(server):
    """LogC5: as often as the log loses it; it keeps the number that it was sealed for."""
    moved = in_time(dataclasses.replace(a_claim(3), sealed_as=2))

    async def main():
        async with opened(server.url) as log, Following(log) as following:
            for entry in (in_time(a_call()), in_time(a_claim(2)), moved):
                await log.append(entry)
            await is_given(following, ("c-1", 3))
            server.command("FLUSHALL")
            await until(lambda: len(stored_in(server)) == 3, "all is put back")
            assert (await log.history("c-1"))[2] == moved
            assert msgpack.unpackb(codec.renumbered(codec.encode(moved), 9))["sealed_as"] == 2

    run(main)


def test_who_has_not_read_the_end_puts_no_place_back_behind_it(shared):
    """LogC4: the script takes none, whether it was deleted already or lost; other entries of the call it does."""

    async def main():
        async with opened(f"{shared.url}?prefix=behind") as log:
            for entry in (a_call(), a_claim(2), an_end(3)):
                assert await log.append(entry)
            assert await log.purge(a_call().ends_at) == 1
            for entry, wanted in ((a_call(), b"refused"), (a_call(4), b"refused"), (a_claim(2), b"other")):
                [(what, *_)] = await log._writer.store([Stored.of(entry).arguments("x", more=False)], mending=True)
                assert what == wanted
            assert [entry.revision for entry in await log.history("c-1")] == [2, 3]

    run(main)


def test_what_was_lost_of_an_alert_does_not_come_back_into_a_call(shared):
    """LogC1: nor the other way round, where an id was taken anew by the other kind."""

    async def main():
        async with opened(f"{shared.url}?prefix=mixed") as log:
            for there, lost in ((a_call(), a_revision("c-1", 2)), (a_revision(), a_call(2, "a-1"))):
                assert await log.append(there)
                [(what, *_)] = await log._writer.store([Stored.of(lost).arguments("x", more=False)], mending=True)
                assert what == b"refused"

    run(main)


def test_a_place_that_was_deleted_is_in_no_file_of_redis_that_is_rewritten(server):
    """LogC4, RZ4: nor in its memory, of which that is a copy; though what stood beside it is there."""
    places = [in_time(a_call(1, f"c-{n}")) for n in range(20)]
    server.command("CONFIG", "SET", "rdbcompression", "no")

    def files():
        rewrites = server.command("INFO", "persistence")["aof_rewrites"]
        server.command("BGREWRITEAOF")
        wait_until(lambda: server.command("INFO", "persistence")["aof_rewrites"] > rewrites, "it is being rewritten")
        wait_until(lambda: not server.command("INFO", "persistence")["aof_rewrite_in_progress"], "it was")
        return b"".join(each.read_bytes() for each in server.folder.rglob("*.rdb"))

    async def main():
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

    run(main)


def test_a_place_is_deleted_by_the_clock_that_is_behind(shared):
    """LogC4: ours may be ahead of that of Redis, and nothing goes before both have it."""
    now_ms = int(time.time() * 1000)

    async def main():
        async with opened(f"{shared.url}?prefix=clocks") as log:
            for call_id, at in (("recent", now_ms - PLACE_MS + 60_000), ("past", now_ms - PLACE_MS - 1)):
                await log.append(in_time(a_call(1, call_id)))
                await log.append(in_time(an_end(2, call_id, at)))
            assert await log.purge(now_ms - 60_000) == 0
            assert await log.purge(now_ms + 3_600_000) == 1
            assert [len(await log.history(call_id)) for call_id in ("recent", "past")] == [2, 1]

    run(main)


def test_who_walks_through_the_live_alerts_goes_on_in_a_new_epoch(server):
    """LogL1: once it is put back, what was lost stands where it stood."""
    ends_at = lasting().ends_at

    async def main():
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

    run(main)


def test_a_cancel_that_was_put_back_before_its_alert_still_calls_it_off(shared):
    """Rule 2, R2: who knows the cancel alone is first; a process that starts then finds the two in that order."""

    async def main():
        async with opened(f"{shared.url}?prefix=early") as log:
            cancel = a_cancel(ends_at=lasting().ends_at)
            for entry in (cancel, lasting()):
                await log._writer.store([Stored.of(entry).arguments("put back", more=False)], mending=True)
            assert [entry.revision for entry in await entries(log)] == [2, 1]
            alerts, now = LiveAlerts(1), SystemClock().now()
            for entry in await entries(log):
                alerts.apply(entry, now)
            assert [alert.current for alert in alerts] == [cancel]

    run(main)


def test_an_alert_whose_first_revision_ended_before_the_start_is_put_back(server):
    """Rule 2: nobody knows number 1 any more, and number 2 lives."""
    now_ms = int(time.time() * 1000)

    async def main():
        async with opened(server.url) as first:
            assert await first.append(a_revision(expires_at=now_ms - 1))
            assert await first.append(lasting("a-1", 2))
        async with opened(server.url) as log, aclosing(log.follow(0, now_ms)) as follower:
            assert [entry.revision for _, entry in await read_on(follower)] == [2]
            server.command("FLUSHALL")
            await put_back(log, ["a-1"])
            assert not await log.append(lasting("a-1", 1))
            assert await log.append(lasting("a-1", 3))

    run(main)


@pytest.mark.parametrize("cut", ["XDEL", "XTRIM", "DEL"])
def test_an_entry_that_vanishes_from_the_stream_is_put_back(server, cut):
    """Rule 1: by the size of the stream, or by the sequence numbers, whichever comes first."""

    async def main():
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

    run(main)


@pytest.mark.parametrize("cut", ["FLUSHALL", "DEL {geocast}:stream"])
def test_a_follower_hears_when_the_ids_of_the_stream_go_back(server, cut):
    """Rule 1: on the same connection, as after a clock that was ahead; by the epoch, for ids say nothing then."""

    async def main():
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

    run(main)


@needs_wall_clock
def test_a_follower_hears_when_the_clock_of_redis_was_ahead_and_is_set_right(tmp_path):
    """Rule 1: two hours, then a flush; the ids of the stream, and the epoch, go back with it."""
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


def test_a_gap_in_what_comes_is_noticed(server):
    """Rule 1: by the sequence numbers, also where the stream has as many entries as it should."""

    async def main():
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

    run(main)


def test_a_restart_that_lost_nothing_rewinds_nothing(server):
    """Rule 1: another process of Redis with the same history is no new epoch."""

    async def main():
        async with opened(server.url) as log, Following(log) as following:
            await log.append(lasting("a-0"))
            await until(lambda: following.given, "followed")
            server.kill()
            server.start()
            await until(lambda: log.append(lasting("a-1")), "stored")
            await until(lambda: following.given == [("a-0", 1), ("a-1", 1)], "each once")
            assert sample_of(log, "geocast_log_rewinds_total") == 0

    run(main)


# ---- deafness ------------------------------------------------------------------------------------------------


def test_a_reader_of_another_server_than_the_one_that_is_written_is_found_out(server, shared, monkeypatch):
    """LogF2: no empty batch says "up to date" when the stream that is read is not the one that is written."""

    async def main():
        async with opened(server.url) as log:
            monkeypatch.setattr(log._primary, "reader", Primary(target.parse(shared.url)).reader)
            with pytest.raises(LogUnavailable, match="not the one that is written"):
                await anext(log.follow(0))
            with pytest.raises(LogUnavailable, match="not the one that is written"):
                await log.add_counts({})
            monkeypatch.undo()
            assert await read(log) == []
            await log.add_counts({})

    run(main)


def test_what_was_read_and_not_given_is_given_to_the_next(server, monkeypatch):
    """LogF1: a reader that fails behind an entry, before it has given it, has not given it."""

    def fails(_follower):
        raise LogUnavailable("deaf")

    async def main():
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

    run(main)


def test_a_reader_that_goes_deaf_is_found_out_by_heartbeats(server, tmp_path, monkeypatch):
    """LogF2: of a primary that was demoted, within 3 s."""

    async def main():
        with RedisServer(tmp_path / "replica", replica_of=server) as replica:
            wait_until(lambda: replica.synced, "in step")
            async with opened(server.url) as log, aclosing(log.follow(0)) as follower:
                assert await read_on(follower) == []
                async with Link(server) as link, opened(link.url) as moving, aclosing(moving.follow(0)) as deaf:
                    monkeypatch.setattr(moving._primary, "reader", log._primary.reader)
                    await read_on(deaf)
                    replica.command("REPLICAOF", "NO", "ONE")
                    link.lead_to(replica)  # but for the reader, whose connection stays
                    with pytest.raises(LogUnavailable, match="not the one that is written"):
                        await forever(deaf)

    run(main)


async def forever(batches):
    """Take batches until it fails."""
    async for _ in batches:
        pass


# ---- starting ------------------------------------------------------------------------------------------------

FIT = {
    "redis_version": "7.2.4",
    "cluster_enabled": 0,
    "aof_enabled": 1,
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"redis_version": "8.0.2"}, None),
        ({"redis_version": "7.0.15"}, "7.2 or later"),
        ({"redis_version": None}, "7.2 or later"),
        ({"cluster_enabled": 1}, "cluster mode"),
        ({"cluster_enabled": None}, "cluster mode"),
        ({"aof_enabled": 0}, "no append-only file"),
        ({"aof_enabled": None}, "no append-only file"),
        ({"maxmemory": 1 << 30}, None),
        ({"maxmemory_policy": "allkeys-lru"}, None),
        ({"maxmemory": 1 << 30, "maxmemory_policy": "allkeys-lru"}, "may evict"),
        ({"maxmemory": 1 << 30, "maxmemory_policy": "volatile-ttl"}, "may evict"),
        ({"maxmemory": 1 << 30, "maxmemory_policy": None}, "may evict"),
        ({"maxmemory": None}, None),
        ({"maxmemory": None, "maxmemory_policy": None}, "may evict"),
    ],
)
def test_which_redis_can_keep_a_log(changes, reason):
    """Section 7, starting safely: what a server does not say is not assumed."""
    info = {name: value for name, value in (FIT | changes).items() if value is not None}
    found = target.unfit(info, volatile=False)
    assert found is None if reason is None else reason in found


def test_what_is_unfit_names_what_would_be_lost():
    """The store of devices asks the same of a Redis."""
    found = target.unfit(FIT | {"aof_enabled": 0}, volatile=False, keeps="devices")
    assert found == "it has no append-only file (appendonly yes), and would forget devices"


def test_a_volatile_redis_may_be_accepted():
    """`--allow-volatile-log`."""
    assert target.unfit(FIT | {"aof_enabled": 0}, volatile=True) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"appendonly": "no"}, "no append-only file"),
        ({"appendfsync": "no"}, "never syncs"),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, "may evict"),
        ({"cluster_enabled": "yes"}, "cluster mode"),
        ({"password": "hunter2"}, "refuses the user, the password"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_redis_that_cannot_keep_a_log_is_refused_in_one_line(tmp_path, options, message):
    """`AlertLog.start`: ConfigError; protocol, section 7: one clear line, and no password in it."""
    with RedisServer(tmp_path / "redis", **options) as server:
        url = server.url.replace("hunter2", "wrong-secret")

        async def main():
            async with opened(url):
                pass

        with pytest.raises(ConfigError, match=message) as caught:
            run(main)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert str(caught.value).startswith(f"log Redis at 127.0.0.1:{server.port}: ")


@pytest.mark.parametrize(("options", "replicas"), [({"appendonly": "no"}, 0), ({}, 0)])
def test_a_volatile_log_is_accepted_when_asked_for(tmp_path, options, replicas, caplog):
    """`--allow-volatile-log`: it says what that means."""
    with RedisServer(tmp_path / "redis", **options) as server:

        async def main():
            async with opened(server.url, replicas=replicas, volatile=True) as log:
                assert await log.append(a_revision())
                assert await log.history("a-1") == [a_revision()]

        run(main)
    assert "nothing makes sure that alerts survive a crash" in caplog.text


NEVER_SYNCS = "it never syncs its append-only file: set appendfsync always (or everysec)"


@pytest.mark.parametrize("user", ["", "blind"])
def test_a_redis_that_stops_to_sync_takes_nothing_until_it_does_again(server, user):
    """LogA3: a heartbeat tells, steadily, and from then on nothing is stored; also where CONFIG is forbidden."""
    rights = "on >secret ~* +@all -config +config|set"
    server.command("ACL", "SETUSER", "blind", *rights.split())
    url = server.url.replace("//", f"//{user}:secret@") if user else server.url

    async def main():
        async with opened(url) as log, opened(url) as other:
            assert await log.append(lasting())
            server.command("CONFIG", "SET", "appendfsync", "no")
            for each in (log, other):
                await until(lambda each=each: refuses(each), "it is known")
            beats = [beats_of(each) for each in (log, other)]
            await until(lambda: min(map(len, beats)) >= 4, "heartbeats")
            problem = "synced not here, and on 0 of 0 replicas" if user else NEVER_SYNCS
            assert {found for each in beats for found in each} == {problem}
            for each in (log, other):
                with pytest.raises(LogUnavailable, match=problem[:12]):
                    await each.append(lasting("a-2"))
            assert "a-2" not in [alert_id for alert_id, *_ in stored_in(server)]
            server.command("CONFIG", "SET", "appendfsync", "always")
            for n, each in enumerate((log, other)):
                await until(lambda each=each: not_raising(each.add_counts({})), "well again")
                assert await each.append(lasting(f"b-{n}"))

    async def refuses(log):
        with suppress(LogUnavailable):
            await log.append(lasting(f"probe-{uuid.uuid4().hex}"))
        return log._heart.problem is not None

    def beats_of(log):
        """A list that is told what each heartbeat from now on comes to."""
        found, beat = [], log._heart.beat

        async def watched():
            try:
                await beat()
            except LogUnavailable as error:
                found.append(str(error))
                raise
            found.append("none")

        log._heart.beat = watched
        return found

    run(main)


def test_everysec_is_warned_of_and_still_durable(tmp_path, caplog):
    """LogA3: a 201 then takes about a second; LogA4: what `history` tells is durable."""
    with RedisServer(tmp_path / "redis", appendfsync="everysec") as server:

        async def main():
            async with opened(server.url) as log, opened(server.url) as other:
                append = asyncio.ensure_future(log.append(a_revision()))
                await until(lambda: server.command("EXISTS", "{geocast}:alert:a-1"), "stored")
                assert await other.history("a-1") == [a_revision()]
                durable_seq = int(server.command("INFO", "persistence")["aof_pending_bio_fsync"])
                assert durable_seq == 0
                assert await append

        run(main)
    assert "appendfsync is everysec" in caplog.text


def test_a_redis_that_is_away_at_the_start_is_waited_for(tmp_path, caplog):
    """`RedisStreamsLog.start`: a node that restarts while Redis is away comes up, and is ready when Redis is."""
    server = RedisServer(tmp_path / "redis")

    async def main():
        async with opened(server.url) as log, Following(log) as following:
            with pytest.raises(LogUnavailable):
                await log.append(lasting())
            server.start()
            await until(lambda: log.append(lasting()), "stored")
            await until(lambda: following.given == [("a-1", 1)], "followed")

    try:
        run(main)
    finally:
        server.stop()
    assert f"log Redis at 127.0.0.1:{server.port}: Redis can't be reached; going on trying" in caplog.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_node_that_waits_for_redis_says_so_and_may_be_stopped(workers, tmp_path):
    """Protocol, section 4, `/readyz`; section 7, drain: SIGTERM ends it, with status 0, before Redis has come too."""
    ports = [a_free_port() for _ in range(3)]
    addresses = [f"127.0.0.1:{port}" for port in ports]
    where = ("--stream", addresses[0], "--api", addresses[1], "--log", f"redis://{addresses[2]}", "--workers", workers)
    command = [sys.executable, "-m", "geocast", "serve", "--dev", *where]

    def reasons():
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://{addresses[1]}/readyz", trust_env=False, timeout=PATIENCE_S)
            return answer.status_code == 503 and " ".join(answer.json()["reasons"])
        return ""

    with (tmp_path / "output").open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as node:
        try:
            wait_until(lambda: "starting: reading the log" in reasons(), "it says that it waits")
            assert "log unreachable: Redis can't be reached" in reasons()
            node.terminate()
            assert node.wait(PATIENCE_S) == 0
        finally:
            node.kill()


def test_a_user_with_few_rights_will_do(tmp_path, time_passes_for_all):
    """docs/settings.md: the rights that it names are enough."""
    settings = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text("utf-8")
    [line] = [line for line in settings.splitlines() if line.startswith("ACL SETUSER")]
    with RedisServer(tmp_path / "redis") as server:
        server.command(*line.replace("PASSWORD", "pa%ss").split())

        async def main():
            async with opened(f"redis://geocast:pa%25ss@127.0.0.1:{server.port}") as log:
                assert await log.append(a_revision())
                assert await log.append(a_cancel())
                await log.add_counts({"a-1": Counts(1, 0)})
                assert await log.counts("a-1") == Counts(1, 0)
                assert len(await read(log)) == len(await log.history("a-1")) == 2
                assert await live(log, 0) == []
                assert await log.tail() > 0
                assert await log.append(a_call())
                assert list(await log.open_calls(0)) == ["c-1"]
                assert await log.append(an_end(2))
                assert await log.purge(2**41) == 4

        run(main)


def test_a_clock_of_ours_that_is_ahead_forgets_nothing(shared, monkeypatch):
    """LogR1; and Rule 2: it goes on to know what it may have to put back."""

    async def main():
        async with opened(f"{shared.url}?prefix=ahead") as log:
            assert await log.append(lasting())
            ahead_ms = time.time_ns() // 1_000_000 + 10 * RETENTION_MS
            assert await log.purge(ahead_ms) == 0
            monkeypatch.setattr(time, "time_ns", lambda: ahead_ms * 1_000_000)
            log._known.forget_ended()
            assert "a-1" in log._known

    run(main)


@needs_wall_clock
def test_a_clock_of_redis_that_is_ahead_forgets_nothing(tmp_path):
    """LogR1, Rule 2: two clocks have to agree. What no alert knows of stays, too."""
    server = RedisServer(tmp_path / "redis")
    server.clock = WallClock(tmp_path / "clock")

    async def main():
        async with opened(server.url) as log:
            assert await log.append(lasting())
            server.command("XADD", log._stream, "*", "foreign", "entry")
            server.clock.set(10 * RETENTION_MS / 1000)
            await log._writer.beat(0)
            assert server.command("TIME")[0] > time.time() + 9 * RETENTION_MS / 1000
            assert await log.purge(time.time_ns() // 1_000_000) == 0
            log._known.forget_ended()
            assert "a-1" in log._known
            assert server.command("XLEN", log._stream) == 3

    with server:
        run(main)


@needs_wall_clock
def test_two_clocks_that_are_ahead_at_once_forget_nothing(tmp_path):
    """LogR1: ours and that of Redis are not believed beyond what the entries of the log bear witness to."""
    server = RedisServer(tmp_path / "redis")
    server.clock = WallClock(tmp_path / "clock")

    async def main():
        async with opened(server.url) as log:
            assert await log.append(lasting())
            server.clock.set(10 * RETENTION_MS / 1000)
            await log._writer.beat(0)
            assert await log.purge(time.time_ns() // 1_000_000 + 10 * RETENTION_MS) == 0
            assert (len(await read(log)), log.quarantined) == (1, 0)

    with server:
        run(main)


@needs_wall_clock
def test_ids_that_stay_ahead_and_a_clock_of_ours_forget_nothing(tmp_path, monkeypatch):
    """Rule 2: the clock of Redis was ahead once, so ids are for good; then ours is ahead for a moment."""
    server = RedisServer(tmp_path / "redis")
    server.clock = WallClock(tmp_path / "clock")

    async def main():
        async with opened(server.url) as log:
            server.clock.set(10 * RETENTION_MS / 1000)
            assert await log.append(lasting())
            server.clock.set(0.0)
            await log._writer.beat(0)
            assert log._history.top[0] > time.time_ns() // 1_000_000 + 9 * RETENTION_MS
            later_ns = time.time_ns() + 2 * RETENTION_MS * 1_000_000
            later = time.monotonic() + 9 * RETENTION_MS / 1000
            with monkeypatch.context() as patched:
                patched.setattr(time, "time_ns", lambda: later_ns)
                log._known.forget_ended()
            assert "a-1" in log._known
            with monkeypatch.context() as patched:
                patched.setattr(time, "monotonic", lambda: later)
                log._known.forget_ended()
            assert "a-1" not in log._known, "no alert lives so long"

    with server:
        run(main)


# ---- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost", "Redis at localhost:6379"),
        ("redis://127.0.0.1:7000/3?prefix=x.y", "Redis at 127.0.0.1:7000"),
        ("redis://[::1]:7000", "Redis at [::1]:7000"),
        ("redis://:secret@redis.example", "Redis at redis.example:6379"),
        ("rediss://redis.example/0?ca=/etc/ca.pem", "Redis at redis.example:6379"),
        ("rediss+sentinel://u:secret@a,b:7,[::1]/main/2", "main of the Sentinels a:26379,b:7,[::1]:26379"),
        ("redis+sentinel://127.0.0.1/main?sentinel_password=secret", "main of the Sentinels 127.0.0.1:26379"),
    ],
)
def test_a_url_names_a_redis(url, text):
    """docs/settings.md, a log in Redis; what may be logged of it has no password."""
    assert str(target.parse(url)) == text


def test_a_url_of_another_option_is_refused_by_its_name():
    """`--devices` takes the same URLs, under a prefix of its own."""
    assert target.parse("redis://localhost", "--devices", "geocast-devices").prefix == "geocast-devices"
    assert target.parse("redis://localhost?prefix=x", "--devices", "geocast-devices").prefix == "x"
    for url in (
        "redis:",
        "redis://127.0.0.1:0",
        "redis://127.0.0.1?x=1",
        "redis://127.0.0.1?prefix={",
        "redis://10.0.0.1",
    ):
        with pytest.raises(ConfigError, match=r"^--devices: "):
            target.parse(url, "--devices")


def test_a_url_says_who_and_where():
    """docs/settings.md, a log in Redis: every part."""
    found = target.parse("rediss+sentinel://u%40:p%2Fw@a:1,b/s/5?prefix=p&ca=/c&sentinel_username=su")
    assert (found.username, found.password, found.service, found.db) == ("u@", "p/w", "s", 5)
    assert (found.tls, found.ca, found.prefix) == (True, "/c", "p")
    assert (found.sentinel_username, found.sentinel_password) == ("su", None)


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis://:secret@",
        "redis://127.0.0.1:0",
        "redis://127.0.0.1:secret",
        "redis://127.0.0.1:99999",
        "redis://127.0.0.1/secret",
        "redis://127.0.0.1/0/1",
        "redis://127.0.0.1,127.0.0.2",
        "redis://127.0.0.1?secret",
        "redis://127.0.0.1?secret=1",
        "redis://127.0.0.1?prefix={secret}",
        "redis://127.0.0.1#secret",
        "redis://[::1",
        "redis+sentinel://127.0.0.1",
        "redis+sentinel://127.0.0.1/",
        "redis+sentinel://127.0.0.1/main/secret",
        "redis+sentinel:///main",
        "redis://secret.example",
        "redis://10.0.0.1:6379/0",
        "redis+sentinel://127.0.0.1,10.0.0.1/main",
    ],
)
def test_what_names_no_redis_or_one_open_to_a_network_is_refused(url):
    """Section 7, starting safely: one line that says what is expected, and repeats nothing."""
    with pytest.raises(ConfigError, match=r"^--log: ") as caught:
        target.parse(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- what can't be read --------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_set_aside_and_the_rest_is_served(server, caplog):
    """LogR2: foreign entries and broken ones are counted once, and followers go on."""

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
            # An entry with another payload than was written.
            place = server.command("HGET", "{geocast}:alert:a-1", "1")
            [(_, fields)] = server.command("XRANGE", stream, place, place)
            broken = fields | {b"p": codec.encode(lasting("a-1", headline="other"))}
            new = server.command("XADD", stream, "*", *(part for item in broken.items() for part in item))
            server.command("HSET", "{geocast}:alert:a-1", "1", new)
            assert await log.history("a-1") == []
            assert [entry.id for entry in await live(log, 0)] == ["a-0"]
            assert log.quarantined == 3

    run(main)
    assert "set aside" in caplog.text


# ---- counts --------------------------------------------------------------------------------------------------


def test_counts_whose_reply_was_lost_are_counted_once(server):
    """Protocol, section 4, counts: repeated, they are not added twice; over all nodes they add up."""

    async def main():
        async with Link(server) as link, opened(link.url) as log, opened(server.url) as other:
            await other.add_counts({"a-1": Counts(10, 5)})
            link.lose_reply_to = b"HSET"
            with pytest.raises(LogUnavailable):
                await log.add_counts({"a-1": Counts(2, 1)})
            await until(lambda: not_raising(log.add_counts({"a-1": Counts(3, 1)})), "counted")
            assert await other.counts("a-1") == Counts(13, 6)

    run(main)


def test_counts_of_other_releases_are_read(server):
    """LogG6: further figures behind those that this release knows, the two before calls, the three before pushes."""

    async def main():
        async with opened(server.url) as log:
            await log.add_counts({"a-1": Counts(2, 1)})
            stored = {"later": "10 5 7 9 2", "before calls": "100 50", "before pushes": "1000 500 70"}
            server.command("HSET", "{geocast}:counts:a-1", *(part for pair in stored.items() for part in pair))
            assert await log.counts("a-1") == Counts(1112, 556, 77, 9)

    run(main)


def test_counts_of_many_alerts_do_not_stay_in_memory(shared, monkeypatch):
    """`MAX_COUNTED`: sums go on under another name."""
    monkeypatch.setattr(delivery_counts, "MAX_COUNTED", 3)

    async def main():
        async with opened(f"{shared.url}?prefix=many") as log:
            for n in range(10):
                await log.add_counts({"a-0": Counts(1, 0), f"a-{n}": Counts(1, 1)})
                assert len(log._counting.sums) <= 4
            assert await log.counts("a-0") == Counts(10, 1)
            assert await log.counts("a-9") == Counts(1, 1)

    run(main)


def test_no_password_is_logged(tmp_path, caplog):
    """Protocol, section 7; docs/settings.md: no error and no log line repeats it."""
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
