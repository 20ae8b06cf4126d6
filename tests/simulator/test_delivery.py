"""The delivery under simulated schedules: the same ones each time; `python -m simulator` runs as many as wanted."""

import os
import subprocess
import sys

import pytest
from simulator import rings

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
