"""Connections to the primary, and the queue of appends: what one failure means for the others."""

import asyncio
from types import SimpleNamespace

import pytest
from alertlog.redis_streams.tools import lasting, run, until
from support.redis_server import needs_redis

from geocast.alertlog.redis_streams import appender
from geocast.alertlog.redis_streams.appender import Appender
from geocast.alertlog.redis_streams.stored import Stored
from geocast.model.errors import LogUnavailable
from geocast.storage.redis import primary as redis_primary
from geocast.storage.redis import target
from geocast.storage.redis.durable import WRITE_S
from geocast.storage.redis.primary import Primary


@needs_redis
def test_command_that_gets_no_connection_in_time_leaves_the_connections_of_others(server, monkeypatch):
    """All are in use; that says nothing about the server, and dropping them would cost each a new connection."""
    monkeypatch.setattr(redis_primary, "CONNECTIONS", 1)

    async def main():
        primary = Primary(target.parse(server.url))
        try:
            await primary.call("PING")
            client = primary._client
            monkeypatch.setattr(redis_primary, "ANSWER_S", 0.05)
            slow = asyncio.ensure_future(primary.call("BLPOP", "list", 0, within_s=60))
            await until(lambda: server.command("INFO", "clients")["blocked_clients"], "it waits")
            with pytest.raises(LogUnavailable):
                await primary.call("PING")
            assert primary._client is client
            server.command("RPUSH", "list", "item")
            assert list(await slow) == [b"list", b"item"]
        finally:
            await primary.close()

    run(main)


class _Writer:
    """Purpose: a Redis that is slow. Lies: it stores nothing, and answers when `go` is set."""

    def __init__(self):
        self.go = asyncio.Event()
        self.within = []

    async def store(self, entries, within_s):
        self.within.append(within_s)
        await self.go.wait()
        return [[b"stored"] for _ in entries]


async def test_append_that_joins_an_older_one_in_a_batch_has_its_whole_time(monkeypatch):
    """The older one had waited for two of its 2.5 s; the script has to be done when the younger one gives up."""
    now = 0.0
    monkeypatch.setattr(appender, "time", SimpleNamespace(monotonic=lambda: now))
    writer, kept = _Writer(), []
    appending = Appender(writer, lambda: None, kept.append)
    waiting = []
    for number in range(appender.APPENDERS):
        waiting.append(asyncio.ensure_future(appending.append(Stored.of(lasting(f"a-{number}")))))
        await until(lambda number=number: len(writer.within) > number, "it is sent")
    waiting.append(asyncio.ensure_future(appending.append(Stored.of(lasting("older")))))
    await asyncio.sleep(0)
    now = 2.0
    waiting.append(asyncio.ensure_future(appending.append(Stored.of(lasting("younger")))))
    await asyncio.sleep(0)
    writer.go.set()
    assert await asyncio.gather(*waiting) == [True] * len(waiting)
    assert writer.within[appender.APPENDERS :] == [WRITE_S]
