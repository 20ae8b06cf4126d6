"""Followers that read a replica of Redis (`--log-follow`): which server is read, and when it is left."""

import asyncio
import contextlib
import logging

import pytest
from alertlog.contract import DurableContract
from alertlog.reading import PATIENCE_S
from alertlog.redis_streams.tools import (
    Between,
    Following,
    Link,
    Withholding,
    lasting,
    opened,
    run,
    sample_of,
    until,
    write,
)
from end_to_end.kit.proxy import Proxy
from support.redis_server import RedisServer, needs_redis, sentinel_url, trio, wait_until

from geocast.alertlog import codec
from geocast.alertlog.redis_streams import RedisStreamsLog, reading
from geocast.alertlog.redis_streams import follower as redis_follower
from geocast.alertlog.redis_streams import log as redis_log
from geocast.alertlog.redis_streams.reading import PRIMARY, PrimaryEnds, ServerChoice, unfit
from geocast.alertlog.redis_streams.stored import Stored
from geocast.model.errors import ConfigError

pytestmark = needs_redis

READS = "geocast_log_read_lag_seconds"


@contextlib.contextmanager
def replica_of(server, folder, appendonly="no"):
    """Run a replica, and yield it when it has everything that `server` has.

    It needs no append-only file, unless it is promoted (and can't be stopped while it writes its first one).
    """
    with RedisServer(folder, replica_of=server, appendonly=appendonly) as replica:
        wait_until(lambda: replica.synced, "the replica is in sync")
        yield replica


@pytest.fixture(scope="module")
def shared_replica(shared, tmp_path_factory):
    """Yield a replica of the shared Redis."""
    with replica_of(shared, tmp_path_factory.mktemp("replica")) as replica:
        yield replica


@pytest.fixture
def replica(server, tmp_path):
    """Yield a replica for one test."""
    with replica_of(server, tmp_path / "replica") as running:
        yield running


@pytest.fixture
def soon(monkeypatch):
    """Let followers come back to a replica soon after it is fit again."""
    monkeypatch.setattr(reading, "FIT_S", 0.05)
    monkeypatch.setattr(reading, "MEASURE_S", 0.05)
    monkeypatch.setattr(reading, "LIST_S", 0.05)


@pytest.fixture
def strict(monkeypatch):
    """Let followers leave a replica soon when nothing comes from it."""
    monkeypatch.setattr(reading, "LAG_S", 1.2)  # more than a read waits for an entry


def name_of(server):
    """Return the name of a server in log messages and metrics."""
    return f"127.0.0.1:{server.port}"


def read_by(log):
    """Return the name of the server that a log reads, from its metrics."""
    return next((s.labels["server"] for m in log.metrics() for s in m.samples if s.name == READS), None)


async def reads(log, server):
    """Wait until the log reads this server."""
    await until(lambda: read_by(log) == (server if server == PRIMARY else name_of(server)), "the server is read")


async def appended(log, *ids):
    """Append an alert for each id, repeating the attempt while the log is unavailable."""
    for each in ids:
        await until(lambda each=each: log.append(lasting(each)), "stored")


async def told(following, *ids):
    """Wait until a follower has got these alerts, and require that it got nothing twice and nothing out of order."""
    await until(lambda: [each for each, _ in following.given] == list(ids), f"{ids} are followed")
    assert following.positions == sorted(set(following.positions))


# ---- the contract of the log -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
class TestRedisStreamsLogOnReplica(DurableContract):
    """All rules of the port, with followers that read a replica (RG2)."""

    modules = (redis_log, redis_follower)
    most_large = 4

    @pytest.fixture(autouse=True)
    def _servers(self, shared, shared_replica, monkeypatch):
        """Require that only the replica is read."""
        self._urls = shared.url, shared_replica.url
        monkeypatch.setattr(reading, "LAG_S", PATIENCE_S)
        read = set()
        note = ServerChoice._note
        monkeypatch.setattr(ServerChoice, "_note", lambda choice, name: (read.add(name), note(choice, name)))
        yield
        assert read <= {name_of(shared_replica)}

    def new(self, tmp_path):
        url, followed = (f"{each}?prefix={tmp_path.name[:60]}" for each in self._urls)
        return RedisStreamsLog(url, follow=followed)

    async def write(self, log, later):
        await write(log, later)


# ---- which server is read ----------------------------------------------------------------------------------------


def test_log_that_follows_replica_sends_no_xread_to_primary(server, replica):
    """Each reader would cost the primary 10 µs an append (RG1)."""

    async def main():
        async with opened(server.url, follow=replica.url) as log, Following(log) as following:
            await appended(log, "a", "b")
            await told(following, "a", "b")
            assert sample_of(log, READS) < 1
            await log.history("a")

    run(main)
    commands = [set(each.command("INFO", "commandstats")) for each in (server, replica)]
    assert "cmdstat_xread" not in commands[0]
    assert "cmdstat_xread" in commands[1]
    assert "cmdstat_eval" not in commands[1]


def test_user_of_replica_that_may_only_read_is_enough(server, replica):
    """The replica needs neither scripts nor writes (RG6)."""
    replica.command("ACL", "SETUSER", "reader", "on", ">secret", "~{geocast}:*", "+info", "+xread", "+xrange")
    replica.command("ACL", "SETUSER", "reader", "+xrevrange")
    url = replica.url.replace("redis://", "redis://reader:secret@")

    async def main():
        async with opened(server.url, follow=url) as log, Following(log) as following:
            await appended(log, "a")
            await told(following, "a")
            assert read_by(log) == name_of(replica)

    run(main)


@pytest.mark.parametrize(
    ("follow", "message"),
    [
        ("replica", "Sentinels"),
        ("nearby", "expected redis://"),
        ("redis://127.0.0.1:1/1", "the database and prefix of --log"),
        ("redis://127.0.0.1:1/0?prefix=x", "the database and prefix of --log"),
        ("redis+sentinel://127.0.0.1:1/geocast", "one replica"),
        ("redis://192.0.2.1:1/0", "needs TLS"),
    ],
)
def test_follow_option_that_names_no_replica_of_the_log_is_refused(follow, message):
    """The message names the option and never repeats the URL."""
    with pytest.raises(ConfigError, match=r"^--log-follow") as refused:
        RedisStreamsLog("redis://127.0.0.1:1/0", follow=follow)
    assert message in str(refused.value)
    assert "192.0.2.1" not in str(refused.value)


def test_examine_names_the_server_that_would_be_read_and_its_lag(server, replica):
    """Nothing is written; a replica that is not fit is named with the reason (RG1)."""

    async def said(follow):
        return (await RedisStreamsLog(server.url, follow=follow).examine()).rpartition(" replicas, ")[2]

    async def main():
        assert await said("primary") == "reads the primary"
        assert f"reads {name_of(replica)}, 0.0" in await said(replica.url)
        replica.command("REPLICAOF", "127.0.0.1", "1")
        assert await said(replica.url) == f"reads the primary: {name_of(replica)}: its link to the primary is broken"

    run(main)
    assert server.command("DBSIZE") == 0


@pytest.mark.usefixtures("soon")
def test_log_that_starts_while_redis_is_away_reads_replica_later(server, replica):
    """Until the primary has answered, nothing is known about its replicas (RG4)."""
    server.kill()

    async def main():
        async with opened(server.url, follow=replica.url) as log, Following(log) as following:
            await until(lambda: following.failures, "the log can't be read")
            server.start()
            await reads(log, replica)
            await appended(log, "a")
            await told(following, "a")

    run(main)


# ---- leaving a replica, and coming back ---------------------------------------------------------------------------


def cut_off(server, replica):
    replica.command("REPLICAOF", "127.0.0.1", "1")
    return lambda: replica.command("REPLICAOF", "127.0.0.1", server.port)


def promoted(server, replica):
    replica.command("REPLICAOF", "NO", "ONE")
    return lambda: replica.command("REPLICAOF", "127.0.0.1", server.port)


def killed(_, replica):
    replica.kill()
    return replica.start


def paused(_, replica):
    replica.pause()
    return replica.resume


@pytest.mark.usefixtures("soon", "strict")
@pytest.mark.parametrize("harmed", [cut_off, promoted, killed, paused])
def test_replica_that_fails_is_left_and_read_again_without_gap_or_repetition(server, replica, harmed, caplog):
    """What is appended meanwhile comes from the primary; one warning says so (RG3, RG4)."""

    async def main():
        async with opened(server.url, follow=replica.url) as log, Following(log) as following:
            await appended(log, "a")
            await told(following, "a")
            epoch = sample_of(log, "geocast_log_epoch")
            with caplog.at_level(logging.WARNING):
                heal = harmed(server, replica)
                await appended(log, "b")
                await told(following, "a", "b")
                await reads(log, PRIMARY)
                assert read_by(log) == PRIMARY
                heal()
                await reads(log, replica)
                await appended(log, "c")
                await told(following, "a", "b", "c")
            assert following.failures == []
            assert sample_of(log, "geocast_log_epoch") == epoch
            [warning] = [each.getMessage() for each in caplog.records if each.name == reading.__name__]
            assert name_of(replica) in warning

    run(main)


@pytest.mark.usefixtures("soon", "strict")
@pytest.mark.parametrize("chained", [False, True], ids=["of the primary", "of a replica"])
def test_replica_from_which_nothing_comes_is_left_although_its_link_looks_whole(server, tmp_path, chained):
    """The network drops what the primary sends: heartbeats don't come through the replica (RG4, RG6)."""
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.port))
        near = stack.enter_context(replica_of(proxy, tmp_path / "near"))
        if chained:
            near = stack.enter_context(replica_of(near, tmp_path / "chained"))

        async def main():
            async with opened(server.url, follow=near.url) as log, Following(log) as following:
                await appended(log, "a")
                await told(following, "a")
                assert read_by(log) == name_of(near)
                proxy.down.stall()
                await appended(log, "b")
                await told(following, "a", "b")
                await reads(log, PRIMARY)
                assert near.synced
                proxy.heal()
                await reads(log, near)
                await appended(log, "c")
                await told(following, "a", "b", "c")

        run(main)


@pytest.mark.usefixtures("strict")
def test_replica_that_is_behind_position_is_not_read(server, tmp_path):
    """A new follower waits for the replica to catch up, and then reads the primary, without going back (RG3)."""
    with Proxy(server.port) as proxy, replica_of(proxy, tmp_path / "replica") as replica:

        async def main():
            async with opened(server.url, follow=replica.url) as log:
                async with Following(log) as following:
                    await appended(log, "a")
                    await told(following, "a")
                proxy.down.stall()
                await appended(log, "b")
                async with contextlib.aclosing(log.follow(following.positions[-1])) as batches:
                    assert read_by(log) == name_of(replica)
                    first = await anext(batches)
                    assert [entry.id for _, entry in first] == ["b"]
                    assert read_by(log) == PRIMARY

        run(main)


@pytest.mark.usefixtures("patient")
def test_move_while_old_entries_are_read_begins_no_epoch(server, replica, monkeypatch):
    """The deleted entries that leave gaps in the old ones are no loss of the log."""
    monkeypatch.setattr(reading, "LAG_S", PATIENCE_S)
    monkeypatch.setattr(redis_follower, "BATCH", 50)

    async def main():
        ids = [f"a-{n}" for n in range(200)]
        async with opened(server.url) as log:
            await asyncio.gather(*(log.append(lasting(each)) for each in ids))
            gone = server.command("XRANGE", "{geocast}:stream", "-", "+", "COUNT", 150)[-1][0]
            server.command("XDEL", "{geocast}:stream", gone)
            server.command("HINCRBY", "{geocast}:meta", "size", -1)
        async with opened(server.url, follow=replica.url) as log:
            epoch = sample_of(log, "geocast_log_epoch")
            async with contextlib.aclosing(log.follow(0)) as batches:
                given = [*await anext(batches)]
                assert read_by(log) == name_of(replica)
                replica.kill()
                while len(given) < 199:
                    given += await anext(batches)
            assert read_by(log) == PRIMARY
            assert len({entry.id for _, entry in given}) == 199
            assert sample_of(log, "geocast_log_epoch") == epoch

    run(main)


# ---- a replica that somebody else controls, or that is broken ----------------------------------------------------


def alters(alert_id, name, value):
    """Return a function that changes a field of the entries of one alert in answers to XREAD."""

    def alter(answer):
        for _, fields in answer[0][1]:
            if alert_id.encode() in fields:
                fields[fields.index(name) + 1] = value
        return answer

    return alter


def doubled(answer):
    """Send each item twice."""
    return [[answer[0][0], [item for item in answer[0][1] for _ in range(2)]]]


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "there at the start"])
def test_replica_that_withholds_entry_and_renumbers_is_left_and_entry_is_read(server, replica, caplog, earlier):
    """It can't make the running digest and the number that the primary reports to heartbeats (RG4)."""

    async def main():
        async with opened(server.url) as writer, Between(replica, Withholding("b")) as liar:
            if earlier:
                await appended(writer, "a", "b", "c")
            async with opened(server.url, follow=liar.url) as log, Following(log) as following:
                if not earlier:
                    await appended(writer, "a")
                    await until(lambda: following.given, "the first is followed")
                    assert read_by(log) == name_of(liar)
                    await appended(writer, "b", "c")
                await until(lambda: set(following.known) == {("a", 1), ("b", 1), ("c", 1)}, "the withheld one is read")
                assert read_by(log) == PRIMARY
                assert following.failures == []
                await appended(writer, "d")
                await until(lambda: ("d", 1) in following.given, "it goes on")
                true = {fields[b"i"].decode(): int(fields[b"n"]) for fields in entries_of(server)}
                last = dict(zip((each for each, _ in following.given), following.positions, strict=True))
                assert {each: position & (1 << 40) - 1 for each, position in last.items()} == true

    run(main)
    assert "withholds or alters entries" in caplog.text


def test_entry_that_a_replica_forged_is_not_kept_to_be_put_back_after_a_failover(server, replica):
    """When the replica is left, its copies go; the true entry with the same id and number is kept (RG4)."""
    forged = Stored.of(lasting("b", headline="forged"))

    def forge(answer):
        for name, value in ((b"p", forged.payload), (b"c", b"%d" % codec.checksum("b", 1, forged.payload))):
            answer = alters("b", name, value)(answer)
        return answer

    async def main():
        async with (
            Between(replica, forge) as liar,
            opened(server.url, follow=liar.url) as log,
            Following(log) as following,
        ):
            async with opened(server.url) as writer:  # only this process appends, so only it has the true entry
                await appended(writer, "a")
                await told(following, "a")
                await appended(writer, "b")
                await until(lambda: following.given.count(("b", 1)) == 2, "the true entry follows the forged one")
            [true] = [fields[b"p"] for fields in entries_of(server) if fields[b"i"] == b"b"]
            server.command("FLUSHALL")
            await until(lambda: len(entries_of(server)) == 2, "the entries are put back")
            assert [fields[b"p"] for fields in entries_of(server) if fields[b"i"] == b"b"] == [true]

    run(main)


def entries_of(server):
    """Return the fields of all entries in the stream."""
    return [fields for _, fields in server.command("XRANGE", "{geocast}:stream", "-", "+") if b"h" not in fields]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "alter",
    [
        lambda _: b"no list",
        lambda _: memoryview(b":7\r\n"),
        lambda _: memoryview(b"-ERR no\r\n"),
        lambda answer: [[answer[0][0], [[b"no id", [b"e", b"1"]]]]],
        lambda answer: [[answer[0][0], [[answer[0][1][0][0], b"no fields"]]]],
        lambda _: [[b"another", []]],
        doubled,
        alters("b", b"n", b"1" + b"0" * 12),
        alters("b", b"e", b"7"),
        alters("b", b"p", b"{}"),
        alters("b", b"i", b"other"),
    ],
    ids=["text", "number", "error", "id", "fields", "empty", "twice", "position", "epoch", "payload", "alert"],
)
def test_replica_with_malformed_or_altered_answers_is_left(server, replica, alter):
    """The primary is read, the log begins no new epoch, and its positions go on (RG4)."""
    altered = False

    def later(answer):
        return alter(answer) if altered else answer

    async def main():
        nonlocal altered
        async with (
            Between(replica, later) as liar,
            opened(server.url, follow=liar.url) as log,
            Following(log) as following,
        ):
            await appended(log, "a")
            await told(following, "a")
            epoch = sample_of(log, "geocast_log_epoch")
            altered = True
            await appended(log, "b")
            await until(lambda: ("b", 1) in following.given, "the true entry is read")
            await reads(log, PRIMARY)
            assert following.failures == []
            assert sample_of(log, "geocast_log_epoch") == epoch

    run(main)


# ---- failover ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon", "strict", "patient")
def test_replica_that_keeps_history_of_old_primary_is_left_until_it_has_the_new_one(server, tmp_path):
    """It still follows the old primary, which was cut off; its link is whole, but its history is another (RG5)."""
    with (
        replica_of(server, tmp_path / "read") as read,
        replica_of(server, tmp_path / "next", appendonly="yes") as successor,
    ):

        async def main():
            async with (
                Link(server) as link,
                opened(link.url, follow=read.url) as log,
                opened(server.url) as cut_off,
                Following(log) as following,
            ):
                await appended(log, "a")
                await told(following, "a")
                successor.command("REPLICAOF", "NO", "ONE")
                link.lead_to(successor)
                await reads(log, PRIMARY)
                await appended(cut_off, "old")  # the old history goes on, and nobody may be told it by the replica
                await appended(log, "new")
                await until(lambda: ("new", 1) in following.given, "the new primary is followed")
                assert read.synced
                read.command("REPLICAOF", "127.0.0.1", successor.port)
                await reads(log, read)
                await appended(log, "last")
                await until(lambda: ("last", 1) in following.given, "the replica of the new primary is followed")
                assert following.positions == sorted(set(following.positions))
                assert "old" not in dict(following.given)

        run(main)


@pytest.mark.usefixtures("soon", "patient")
def test_entries_lost_by_primary_and_its_replica_are_restored_and_followed_in_new_epoch(server, replica):
    """The follower on the replica gets all entries again, at higher positions (RG5, LogF4)."""

    async def main():
        async with opened(server.url, follow=replica.url) as log, Following(log) as following:
            await appended(log, "a", "b")
            await told(following, "a", "b")
            server.command("FLUSHALL")
            await until(lambda: len(following.given) == 4, "both come again")
            assert following.positions == sorted(set(following.positions))
            await reads(log, replica)

    run(main)


@pytest.mark.usefixtures("soon")
async def test_log_on_sentinels_reads_replica_and_goes_on_after_failover(tmp_path):
    """The replica that is read is promoted, or the other one; nobody misses anything (RG1, RG5)."""
    with trio(tmp_path) as (servers, sentinels):
        async with opened(sentinel_url(sentinels), replicas=1, follow="replica") as log, Following(log) as following:
            await appended(log, "a")
            await told(following, "a")
            assert read_by(log) in map(name_of, servers[1:])
            servers[0].kill()
            await appended(log, "b")
            await until(lambda: following.known == [("a", 1), ("b", 1)], "followed")
            [left] = [each for each in servers[1:] if each.port != sentinels[0].primary_port()]
            await reads(log, left)
            await appended(log, "c")
            await until(lambda: following.known[-1] == ("c", 1), "followed")
            assert following.positions == sorted(set(following.positions))


# ---- decisions, without a Redis ----------------------------------------------------------------------------------


def test_lag_is_the_time_since_the_primary_has_had_items_beyond_a_place(monkeypatch):
    """What was reported before the clock of the primary went back does not count."""
    now = 0.0
    monkeypatch.setattr(reading.time, "monotonic", lambda: now)
    ends = PrimaryEnds()
    assert ends.lag_s((0, 0)) == 0
    for number in (1, 2, 2, 3):
        ends.report((number, 0))
        now += 1
    assert [ends.lag_s((place, 0)) for place in (0, 1, 2, 3)] == [4, 3, 1, 0]
    ends.report((2, 5))
    assert [ends.lag_s(place) for place in ((2, 0), (2, 5), (3, 0))] == [0, 0, 0]
    now += 1
    assert ends.lag_s((2, 0)) == 1


def test_item_that_is_reported_after_a_silence_of_the_primary_may_be_as_old_as_the_silence(monkeypatch):
    """A replica that is still cut off when the primary answers again is left at once."""
    now = 0.0
    monkeypatch.setattr(reading.time, "monotonic", lambda: now)
    ends = PrimaryEnds()
    ends.report((1, 0))
    now = 60.0
    ends.report((50, 0))
    assert (ends.lag_s((1, 0)), ends.lag_s((50, 0))) == (60, 0)


FIT = {"role": "slave", "master_link_status": "up", "master_sync_in_progress": 0, "loading": 0, "master_replid": "h"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"role": "master", "master_link_status": None}, None),
        ({"loading": 1}, "it is reading its data"),
        ({"async_loading": 1}, "it is reading its data"),
        ({"master_sync_in_progress": 1}, "it is being resynced"),
        ({"master_link_status": "down"}, "its link to the primary is broken"),
        ({"master_replid": "other"}, "it has another history than the primary"),
    ],
)
def test_server_is_fit_only_with_link_and_history_of_primary(changes, reason):
    """Each condition alone makes a server unfit (RG4, RG5)."""
    assert unfit({**FIT, **changes}, ("run", "h")) == reason
    assert unfit({**FIT, **changes}, None) is not None
