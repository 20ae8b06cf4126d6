"""Simulated schedules: the same ones each time; `make simulate` runs as many as wanted."""

import os
import subprocess
import sys
from collections.abc import Iterable

import pytest
from simulator import planted, rings

# Seeds that found a fault of geocast, once.
REMEMBERED = [(1, 1245), (1, 5478), (2, 1359)]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 600, 100))
def test_simulated_schedules_send_each_phone_what_it_has_to_be_sent(first: int):
    """Nobody inside is missed, nobody outside is told, and nothing is sent after its end (section 5, E1)."""
    _all_pass(1, range(first, first + 100))


@pytest.mark.slow
def test_simulated_schedules_lose_nothing_in_redis_that_may_not_be_lost():
    """Each node reads all that the log has, once, and the log has all that was accepted (LogA1 to LogF4)."""
    _all_pass(2, range(60))


@pytest.mark.parametrize(("ring", "seed"), REMEMBERED)
def test_a_schedule_that_found_a_fault_passes(ring: int, seed: int):
    _all_pass(ring, [seed])


def _all_pass(ring: int, seeds: Iterable[int]) -> None:
    with rings.simulating(ring) as run:
        for seed in seeds:
            assert run(seed).faults == [], f"make simulate RING={ring} SEED={seed}"


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


@pytest.mark.parametrize(
    ("fault", "ring", "first", "schedules"),
    [
        ("what was sent with an answer is not recorded", 1, 0, 400),
        ("an append that is repeated at another server looks like the one that was read", 2, 1359, 1),
    ],
)
def test_a_planted_fault_is_found(fault: str, ring: int, first: int, schedules: int):
    """A simulator that finds nothing proves nothing."""
    range_of_seeds = ["--first", str(first), "--schedules", str(schedules)]
    found = subprocess.run(
        [sys.executable, "-m", "simulator", "--plant", fault, "--ring", str(ring), "--until", *range_of_seeds],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert f"make simulate RING={ring} SEED=" in found.stdout
