"""Faults at random under load, by a seed, and the four zeros at the end.

`FAULT_SEED` and `FAULT_SECONDS` choose another run; `make soak-faults MINUTES=30` runs for long.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from end_to_end.harness import Keys, Node
from end_to_end.nemesis import Run, faults_of_node

SECONDS = float(os.environ.get("FAULT_SECONDS", "20"))


def seeds(*usual: int) -> pytest.MarkDecorator:
    """The usual seeds, or the one that was asked for."""
    asked = os.environ.get("FAULT_SEED")
    return pytest.mark.parametrize("seed", [int(asked)] if asked else usual)


def judge(run: Run) -> None:
    """Run it, say what happened, and ask for the zeros."""
    verdict = asyncio.run(run.go())
    print(f"\n{run.report()}\n{verdict}")
    run.assert_well(verdict)


@pytest.mark.slow
@seeds(1)
def test_one_node_of_several_processes_on_sqlite(keys: Keys, tmp_path: Path, seed: int):
    """Kill -9 and SIGSTOP of the node and of its processes."""
    with Node(tmp_path, keys, "--workers", "2") as node:
        judge(Run([node], faults_of_node(node), seed, SECONDS))
