"""Waves of clients, after which a node must be as it was before.

`make test` runs two small waves. `make soak` runs waves for minutes (`SOAK_MINUTES`), and measures the node's resident
memory after each. The soak fails if, after the tenth wave and with 99 % confidence, the memory grows by more than 16
bytes for each connection of a wave. CPython allocates at least 16 bytes, so a connection that leaves anything behind
leaves that much; a smaller slope comes from the allocator and cannot be told from zero. `WAVES_SEED` replays a run.
"""

import contextlib
import os
import random
import time
from pathlib import Path

import pytest
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import ORIGIN, Node
from end_to_end.kit.waves import BLOCKS, Trend, Waves

SEED = int(os.environ.get("WAVES_SEED", "20260131"))
MINUTES = float(os.environ.get("GEOCAST_SOAK_MINUTES", "0"))
# The least duration of a wave in a soak. The node remembers unknown alerts in `holding` for 30 s, so it always
# remembers those of the same number of waves.
WAVE_S = 5.0
WARM_UP = 10  # waves whose memory is not compared
LEAST = 16  # bytes: CPython's allocator rounds up to a multiple of that


def test_no_session_or_connection_remains_after_waves_of_clients(keys: Keys, tmp_path: Path):
    """No session, connection or place remains, every refusal has the right code, and nothing fails."""
    with (
        Node(tmp_path, keys, "--origins", ORIGIN) as node,
        contextlib.closing(Waves(node, random.Random(SEED), crowd=20, refused=20)) as waves,
    ):
        for _ in range(2):
            waves.wave()
        node.assert_serving()


@pytest.mark.skipif(not MINUTES, reason="a soak: `make soak`")
def test_memory_of_a_node_does_not_grow_with_the_number_of_waves_of_clients(keys: Keys, tmp_path: Path):
    """The test measures resident memory after each wave, for minutes."""
    print(f"\nwaves for {MINUTES:g} minutes, WAVES_SEED={SEED}")
    samples: list[float] = []
    with (
        Node(tmp_path, keys, "--origins", ORIGIN) as node,
        contextlib.closing(Waves(node, random.Random(SEED))) as waves,
    ):
        waves.prime()
        end = time.monotonic() + MINUTES * 60
        while time.monotonic() < end or len(samples) < WARM_UP + BLOCKS:
            next_wave = time.monotonic() + WAVE_S
            waves.wave()
            samples.append(waves.rss_kb())
            print(f"wave {len(samples)}: {samples[-1] / 1024:.1f} MB after {waves.connections} connections", flush=True)
            time.sleep(max(0.0, next_wave - time.monotonic()))
        node.assert_serving()
    trend, limit = Trend.of(samples[WARM_UP:]), LEAST * waves.connections / len(samples) / 1024
    print(f"KB per wave: {trend.slope:+.2f} ({trend.low:+.2f} to {trend.high:+.2f}); a leak from {limit:.1f} on")
    assert trend.low <= limit


# ---- the trend of memory samples -----------------------------------------------------------------------------------


def test_trend_of_memory_samples_finds_a_straight_line_despite_outliers():
    samples = [100.0 + 3 * n for n in range(120)]
    samples[7] = samples[70] = 10_000.0
    trend = Trend.of(samples)
    assert trend.slope == pytest.approx(3, abs=0.01)
    assert 2.9 < trend.low <= trend.slope <= trend.high < 3.1


def test_trend_of_memory_samples_finds_no_slope_in_noise():
    """At most 10 of 200 samples of noise show a slope; for independent samples about 2 are expected."""
    dice = random.Random(SEED)
    told = sum(Trend.of([dice.gauss(0, 100) for _ in range(60)]).low > 0 for _ in range(200))
    assert told <= 10


def test_trend_of_memory_samples_finds_a_small_leak_in_noise():
    """The leak is a fiftieth of one that a node once had."""
    dice = random.Random(SEED)
    assert all(Trend.of([30 * n + dice.gauss(0, 100) for n in range(60)]).low > 8 for _ in range(50))
