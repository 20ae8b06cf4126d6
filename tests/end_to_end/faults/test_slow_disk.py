"""A disk that takes long to store an entry delays only the request that waits for it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, circle, place
from end_to_end.kit.node import Node
from end_to_end.kit.times import wait_until
from support.preloaded import COMPILER, stuck_disk

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler (gcc)")

SPOT = 32.78, -96.8


def test_stuck_disk_delays_only_the_request_that_waits_for_it(tmp_path: Path) -> None:
    """Pings, new sessions, lists and readiness are answered. Then the alert is stored and sent."""
    gate = tmp_path / "gate"
    with Node(tmp_path, **stuck_disk(gate)) as node, ThreadPoolExecutor() as publisher:
        area = circle(SPOT, 300)
        old = node.publish(alert(SPOT, area=area))["id"]
        with node.join(place(SPOT)) as session:
            session.listen(old, 1)
            gate.touch()
            new = publisher.submit(node.publish, alert(SPOT, area=area))
            wait_until((tmp_path / "gate.reached").exists, "the request waits for the disk")
            session.ask("ping")
            with node.join(place(SPOT)) as later:
                later.listen(old, 1)
            assert node.live() == {old}
            assert node.api_status() == 200
            assert not new.done()
            gate.unlink()
            session.listen(new.result()["id"], 1)
        assert metric(node, "geocast_append_seconds_count") == 2


def metric(node: Node, name: str) -> float:
    """Return the value of a metric without labels."""
    lines = node.api.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))
