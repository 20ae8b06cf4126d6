"""The requirements for a Redis that keeps a log, and the start of a node with it."""

import asyncio
import contextlib
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from alertlog.chains import a_call, an_end
from alertlog.reading import PATIENCE_S, live, read
from alertlog.redis_streams.tools import Following, lasting, not_raising, opened, run, stored_in, until
from support.fakes import a_cancel, a_revision
from support.ports import a_free_port
from support.redis_server import RedisServer, needs_redis, wait_until

from geocast.alertlog import Counts, tail
from geocast.alertlog.redis_streams import RedisStreamsLog
from geocast.alertlog.redis_streams.tail import RedisTail
from geocast.model.errors import ConfigError, LogUnavailable
from geocast.storage.redis import target

pytestmark = needs_redis

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
def test_redis_with_unsuitable_configuration_is_refused_with_reason(changes, reason):
    """A fact that the server does not report counts as an unmet requirement (section 7 of the protocol)."""
    info = {name: value for name, value in (FIT | changes).items() if value is not None}
    found = target.unfit(info, volatile=False)
    assert found is None if reason is None else reason in found


def test_error_for_unsuitable_redis_names_data_at_risk():
    """The store of push devices has the same requirements for Redis, and its error speaks of devices."""
    found = target.unfit(FIT | {"aof_enabled": 0}, volatile=False, keeps="devices")
    assert found == "it has no append-only file (appendonly yes), and would forget devices"


def test_check_accepts_redis_without_append_only_file_if_allowed():
    """`--allow-volatile-log` accepts a Redis without an append-only file."""
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
def test_start_refuses_unsuitable_redis_with_one_line_error(tmp_path, options, message):
    """`start` raises ConfigError with one clear line and no password (section 7 of the protocol)."""
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
def test_start_accepts_redis_without_append_only_file_if_allowed(tmp_path, options, replicas, caplog):
    """`--allow-volatile-log` accepts such a Redis, and a warning explains the consequence."""
    with RedisServer(tmp_path / "redis", **options) as server:

        async def main():
            async with opened(server.url, replicas=replicas, volatile=True) as log:
                assert await log.append(a_revision())
                assert await log.history("a-1") == [a_revision()]

        run(main)
    assert "is volatile: alerts are lost when Redis crashes" in caplog.text


NEVER_SYNCS = "it never syncs its append-only file: set appendfsync always (or everysec)"


@pytest.mark.parametrize("user", ["", "blind"])
def test_log_is_unavailable_while_redis_does_not_sync_to_disk(server, user):
    """A heartbeat notices the problem, even if the user may not call CONFIG. Nothing is stored from then on (LogA3)."""
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
        """Return a list to which the outcome of each heartbeat from now on is appended."""
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


def test_redis_that_syncs_every_second_is_accepted_with_warning(tmp_path, caplog):
    """An append takes about a second (LogA3), and `history` returns only durable entries (LogA4)."""
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


def test_redis_that_is_unreachable_at_start_is_used_once_it_answers(tmp_path, caplog):
    """A node can start while Redis is unreachable, and is ready as soon as Redis answers."""
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
    assert f"log Redis at 127.0.0.1:{server.port} can't be used (Redis can't be reached); trying again" in caplog.text


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_waiting_for_redis_says_so_and_can_be_stopped(workers, tmp_path):
    """SIGTERM ends the node with status 0, even if Redis was never reachable (sections 4 and 7 of the protocol)."""
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


def test_redis_user_with_documented_rights_can_use_the_whole_log(tmp_path, time_passes_for_all):
    """The rights in settings.md are sufficient."""
    settings = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "settings.md").read_text("utf-8")
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


@pytest.mark.parametrize("kind", [RedisStreamsLog, RedisTail])
async def test_log_is_there_only_after_a_node_has_made_it(server, kind, monkeypatch):
    """A reader with a mistyped database or prefix makes no log of its own."""
    monkeypatch.setattr(tail, "MADE_S", 0.0)
    async with contextlib.AsyncExitStack() as stack:
        log = kind(server.url)
        stack.push_async_callback(log.stop)
        with pytest.raises(ConfigError, match=r"no alert log at Redis at 127\.0\.0\.1:\d+: a node makes it"):
            await tail.refuse_missing(log)
        assert server.command("DBSIZE") == 0
        async with opened(server.url):
            await tail.refuse_missing(log)
