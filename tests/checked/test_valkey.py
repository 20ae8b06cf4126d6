"""Valkey in the place of Redis: the contract of the log, devices, calls, and random faults."""

import pytest
from checked.suite import run_again
from checked.tool import Tool

TOOL = Tool("Valkey", "the log and the devices in Redis' place", debian=("valkey-server",), commands=("valkey-server",))
pytestmark = [pytest.mark.checked, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize(
    ("paths", "least"),
    [
        (("tests/alertlog/redis_streams", "tests/alertlog/test_redis_history.py", "tests/push"), 200),
        (("tests/end_to_end/faults/test_redis_faults.py", "tests/end_to_end/faults/test_failover.py"), 20),
        (("tests/end_to_end/faults/test_nemesis.py", "-k", "redis or sentinels or replicas"), 3),
    ],
    ids=["contract", "single faults", "random faults"],
)
def test_valkey_keeps_the_log_as_redis_does(record_property, tmp_path, paths, least):
    """The project's own tests start Valkey, also as Sentinel."""
    run_again(record_property, tmp_path / "report.xml", *paths, least=least, TEST_REDIS="valkey-server")
