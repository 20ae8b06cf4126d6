"""A Redis for all tests of a module, one for a single test, and patience with both."""

import pytest
from alertlog.reading import PATIENCE_S
from support.redis_server import RedisServer

from geocast.alertlog.redis_streams import appender, heartbeat
from geocast.alertlog.redis_streams import connection as redis_connection
from geocast.alertlog.redis_streams import follower as redis_follower
from geocast.alertlog.redis_streams import writer as redis_writer
from geocast.alertlog.redis_streams.connection import Primary, Reader
from geocast.alertlog.trusted_time import TrustedTime


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
