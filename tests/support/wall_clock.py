"""A wall clock for one process, which a test sets while the process runs; the monotonic clock stays the machine's.

    clock = WallClock(tmp_path / "clock")
    subprocess.Popen(…, env={**os.environ, **clock.environment})
    clock.set(2 * 3600)      # it is two hours ahead from now on

The process is the real one: `wall_clock.c` is loaded into it. (libfaketime, which does as much and more, makes Redis
hang before it has begun: its allocator asks for the time.) `needs_wall_clock` skips what can't run without a compiler.
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
    """How far the wall clock of a process, and of all that it starts, is ahead; right at the start."""

    def __init__(self, file: Path) -> None:
        """`file`: one that nobody else has."""
        self._set: list[tuple[float, float]] = [(0.0, 0.0)]  # monotonic time, ahead from then on
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": preloading(SOURCE), "WALL_CLOCK": str(file)}

    def set(self, ahead_s: float) -> None:
        """The clock is so many seconds ahead from now on, or behind if that is below 0."""
        self._set.append((time.monotonic(), ahead_s))
        struct.pack_into("q", self._shared, 0, round(ahead_s * 1e9))

    def lately(self, within_s: float) -> list[float]:
        """How far ahead it has been within that time, all of it."""
        since = time.monotonic() - within_s
        ends = [at for at, _ in self._set[1:]] + [float("inf")]
        return [ahead_s for (_, ahead_s), end in zip(self._set, ends, strict=True) if end >= since]


def started_with(clock: WallClock | None) -> dict[str, str]:
    """The environment of a process that goes by this clock, or by the machine's."""
    return {**os.environ, **(clock.environment if clock is not None else {})}
