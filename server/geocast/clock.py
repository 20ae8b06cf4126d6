"""Clocks that are passed as parameters.

Inside the server a time of day is an integer of milliseconds since 1970 (UTC). A deadline is a float of seconds on the
monotonic clock. Somebody may set the wall clock while the node runs, but the monotonic clock never jumps. So everything
that must end in time even if the wall clock is set (a token, the silence of a client, a live alert) has a deadline. For
example, an alert that expires in 10 minutes ends after 10 minutes, even if the wall clock is set back by an hour.

Both clocks are read together, as a `Now`, at the start of each short piece of work. So all decisions within that piece
of work use the same time.
"""

import time
from typing import NamedTuple, Protocol

STEP_S = 0.5  # more than slewing or a busy machine can cause between two readings 50 ms apart


class Now(NamedTuple):
    """A reading of both clocks at the same moment: `wall_ms` in ms since 1970 (UTC), `monotonic` in seconds."""

    wall_ms: int
    monotonic: float

    def deadline(self, wall_ms: int) -> float:
        """Return the monotonic time, in seconds, at which the wall clock will show `wall_ms` if nobody sets it."""
        return self.monotonic + (wall_ms - self.wall_ms) / 1000


class Clock(Protocol):
    """A source of the current time. Clocks are passed as parameters, so that tests can control the time."""

    def now(self) -> Now:
        """Read both clocks, one directly after the other."""


class SystemClock:
    """The clocks of the machine that this process runs on."""

    def now(self) -> Now:
        return Now(time.time_ns() // 1_000_000, time.monotonic())


class LeaseClock(SystemClock):
    """The clocks of the machine, with a monotonic clock that goes on while the machine sleeps, if the system has one.

    What another machine may do after a time, it may also do while this one sleeps.
    """

    _ID = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has the first

    def now(self) -> Now:
        return Now(time.time_ns() // 1_000_000, time.clock_gettime(self._ID))


class StepWatch:
    """Detects when somebody sets the wall clock, by comparing it with the monotonic clock."""

    def __init__(self, now: Now) -> None:
        self._ahead = _ahead(now)
        self.steps = 0  # number of detected jumps

    def look(self, now: Now) -> float:
        """Return by how many seconds somebody has set the wall clock since the last call.

        The result is positive if the clock was set forward and negative if it was set back. It is 0 if nobody has set
        the clock, or by less than STEP_S seconds.
        """
        step, self._ahead = _ahead(now) - self._ahead, _ahead(now)
        if abs(step) < STEP_S:
            return 0.0
        self.steps += 1
        return step


def _ahead(now: Now) -> float:
    return now.wall_ms / 1000 - now.monotonic


class Turn:
    """Limits how long work may go on before the event loop runs again: a number of items, or a number of seconds."""

    def __init__(self, most: int, seconds: float) -> None:
        self._left = most
        self._until = time.perf_counter() + seconds

    def is_over(self) -> bool:
        """Count one item, and return whether it is time to let the event loop run."""
        self._left -= 1
        return self._left <= 0 or time.perf_counter() >= self._until
