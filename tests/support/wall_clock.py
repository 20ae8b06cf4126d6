"""A wall clock for one process that a test sets while the process runs. The monotonic clock stays the machine's.

    clock = WallClock(tmp_path / "clock")
    subprocess.Popen(…, env={**os.environ, **clock.environment})
    clock.set(2 * 3600)      # two hours ahead from now on

The process runs its real program, with `wall_clock.c` loaded into it. (libfaketime makes Redis hang at its start,
because Redis's allocator asks for the time.) `needs_wall_clock` skips a test if there is no compiler.
"""

import mmap
import os
import struct
import time
from pathlib import Path

import pytest
from support.preloaded import COMPILER, preloading

SOURCE = Path(__file__).with_suffix(".c")
WITHOUT_COMPILER = "no C compiler (requirements/system.sh): a process can't have a clock of its own"
needs_wall_clock = pytest.mark.skipif(COMPILER is None, reason=WITHOUT_COMPILER)


class WallClock:
    """An adjustable offset to the wall clock of a process and of all processes that it starts; 0 at first."""

    def __init__(self, file: Path) -> None:
        """Create the clock. `file` must not be used by anybody else."""
        self._set: list[tuple[float, float]] = [(0.0, 0.0)]  # (monotonic time, lead in seconds from then on)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": preloading(SOURCE), "WALL_CLOCK": str(file)}

    def set(self, ahead_s: float) -> None:
        """Set the clock's lead to `ahead_s` seconds; a negative value puts it behind."""
        self._set.append((time.monotonic(), ahead_s))
        struct.pack_into("q", self._shared, 0, round(ahead_s * 1e9))

    def lately(self, within_s: float) -> list[float]:
        """Return all leads, in seconds, that the clock has had within the last `within_s` seconds."""
        since = time.monotonic() - within_s
        ends = [at for at, _ in self._set[1:]] + [float("inf")]
        return [ahead_s for (_, ahead_s), end in zip(self._set, ends, strict=True) if end >= since]


def started_with(clock: WallClock | None) -> dict[str, str]:
    """Return the environment for a process that uses this clock, or the machine's clock if it is None."""
    return {**os.environ, **(clock.environment if clock is not None else {})}
