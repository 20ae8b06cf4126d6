"""No process of geocast can take all of a machine's memory: units, containers and pods have a limit."""

import re

import pytest
import yaml
from support.pages import ROOT

UNITS = sorted((ROOT / "docs/deploy").glob("*.service"))
UNITS_OF_SYSTEMD = {"K": 2**10, "M": 2**20, "G": 2**30}
WORKLOADS = {
    "geocast-fetch": "fetch/statefulset.yaml",
    "geocast-push": "push/deployment.yaml",
    "geocast-relay": "relay/statefulset.yaml",
}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_unit_has_a_limit_on_its_memory(unit):
    """A node, whose sessions are not known here, may have most of the machine; others as much as their pods."""
    [limit] = re.findall(r"^MemoryMax=(.+)$", unit.read_text(), re.MULTILINE)
    if unit.stem == "geocast":
        assert limit == "75%"
        return
    size = int(limit[:-1]) * UNITS_OF_SYSTEMD[limit[-1]]
    assert 2**28 <= size <= 2**30
    if workload := WORKLOADS.get(unit.stem):
        text = (ROOT / "docs/deploy/kubernetes" / workload).read_text()
        assert f"limits: {{memory: {limit}i}}" in text


def test_each_container_of_the_server_has_a_limit_on_its_memory():
    """The demo runs on somebody's laptop."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    ours = {"node", "push", "fetch", "relay"}
    assert {name for name in ours if re.fullmatch("[0-9]+[mg]", str(services[name].get("mem_limit")))} == ours
