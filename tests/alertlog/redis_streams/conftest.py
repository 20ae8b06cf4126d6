"""Fixtures: one Redis for all tests of a module, one Redis for a single test, and longer time limits for both."""

import pytest
from alertlog.reading import PATIENCE_S
from support.redis_server import RedisServer

from geocast.alertlog.redis_streams import appender, heartbeat
from geocast.alertlog.redis_streams import follower as redis_follower
from geocast.alertlog.redis_streams import writer as redis_writer
from geocast.storage.redis import durable
from geocast.storage.redis import primary as redis_primary
from geocast.storage.redis.primary import Primary, Reader


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Yield a Redis for all tests of a module that do not harm it."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def server(tmp_path):
    """Yield a Redis for one test."""
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def patient(monkeypatch):
    """Raise the time limits of the log, so that a Redis on a busy machine does not count as unreachable."""
    monkeypatch.setattr(appender, "WRITE_S", PATIENCE_S)
    monkeypatch.setattr(durable, "SYNC_S", PATIENCE_S)
    monkeypatch.setattr(redis_follower, "ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(heartbeat, "INFO_S", PATIENCE_S)
    monkeypatch.setattr(redis_primary, "CONNECT_S", PATIENCE_S)
    for asks in (Reader.ask, Primary.call, Primary.pipe, redis_writer.Writer._durably):
        monkeypatch.setitem(asks.__kwdefaults__, "within_s", PATIENCE_S)
    monkeypatch.setattr(redis_writer.Writer.store, "__defaults__", (PATIENCE_S,))


@pytest.fixture(autouse=True)
def _patient_with_a_redis_that_nobody_harms(request):
    """Raise the time limits in tests with the shared Redis, since none of these tests is about time limits."""
    if "shared" in request.fixturenames:
        request.getfixturevalue("patient")
