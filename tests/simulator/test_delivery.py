"""The delivery under simulated schedules: the same ones each time; `python -m simulator` runs as many as wanted."""

import os
import subprocess
import sys

import pytest
from simulator import planted, rings

SCHEDULES = 600


@pytest.mark.slow
def test_simulated_schedules_send_each_phone_what_it_has_to_be_sent():
    """Nobody inside is missed, nobody outside is told, and nothing is sent after its end (section 5, E1)."""
    with rings.simulating(1) as run:
        for seed in range(SCHEDULES):
            assert run(seed).faults == [], f"python -m simulator --seed {seed}"


def test_same_seed_gives_the_same_run():
    """A failure can be replayed on any machine, whatever the hashes of its strings."""
    told = "from simulator import rings\nwith rings.simulating(1) as run: print(*run(7).story, sep='\\n')"
    found = [
        subprocess.run(
            [sys.executable, "-c", told],
            env=os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert found[0] == found[1] != ""


def test_planted_faults_have_their_places():
    """`make planted` changes one place for each."""
    for name, fault in planted.FAULTS.items():
        assert planted.place_of(fault).read_text("utf-8").count(fault.old) == 1, name


def test_a_planted_fault_is_found():
    """A simulator that finds nothing proves nothing."""
    fault = "what was sent with an answer is not recorded"
    command = [sys.executable, "-m", "simulator", "--plant", fault, "--until", "--first", "0", "--schedules", "400"]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(command, env=os.environ | paths, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "make simulate RING=1 SEED=" in found.stdout
