"""Clocks that are ahead, on a node or on Redis: nothing is deleted early."""

import time

from alertlog.reading import read
from alertlog.redis_streams.tools import lasting, opened, run
from support.redis_server import RedisServer, needs_redis
from support.wall_clock import WallClock, needs_wall_clock

from geocast.alertlog import RETENTION_MS

pytestmark = needs_redis


async def test_node_clock_that_is_ahead_causes_no_deletion(shared, monkeypatch):
    """The log deletes nothing early (LogR1), and the process keeps its own copies of entries (Rule 2)."""
    async with opened(f"{shared.url}?prefix=ahead") as log:
        assert await log.append(lasting())
        ahead_ms = time.time_ns() // 1_000_000 + 10 * RETENTION_MS
        assert await log.purge(ahead_ms) == 0
        monkeypatch.setattr(time, "time_ns", lambda: ahead_ms * 1_000_000)
        log._known.forget_ended()
        assert "a-1" in log._known


@needs_wall_clock
def test_redis_clock_that_is_ahead_causes_no_deletion(tmp_path):
    """Both clocks have to agree (LogR1, Rule 2). Items in the stream that are not entries stay as well."""
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
def test_node_and_redis_clocks_that_are_both_ahead_cause_no_deletion(tmp_path):
    """Neither clock counts beyond the trusted time of the log (LogR1)."""
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
def test_stream_ids_and_node_clock_that_are_ahead_cause_no_deletion(tmp_path, monkeypatch):
    """The clock of Redis was ahead for a while, so its stream ids stay ahead.

    Later the clock of the node is ahead (Rule 2).
    """
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
