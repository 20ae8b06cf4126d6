"""The log in a Redis stream keeps the contract, on a real Redis, and what only a Redis can do to it."""

import pytest

pytest.register_assert_rewrite("alertlog.contract")

from alertlog.contract import DurableContract  # noqa: E402 (asserts come first)
from redis_server import RedisServer, needs_redis  # noqa: E402

from geocast.alertlog import redis_streams  # noqa: E402
from geocast.alertlog.redis_streams import RedisStreamsLog  # noqa: E402

pytestmark = [needs_redis, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One Redis for all tests that do it no harm."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


class TestRedisStreamsLog(DurableContract):
    """All rules."""

    module = redis_streams

    @pytest.fixture(autouse=True)
    def _server(self, server):
        self._url = server.url

    def new(self, tmp_path):
        return RedisStreamsLog(f"{self._url}?prefix={tmp_path.name[:60]}")
