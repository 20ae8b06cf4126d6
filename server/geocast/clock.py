"""Time: the clock that is passed in, and times as text.

Inside the server a time of day is an integer of milliseconds since 1970 (UTC), and a deadline is a float of seconds on
the monotonic clock. The wall clock may be set while the node runs, and the monotonic clock never jumps; so whatever
must not last longer because somebody sets the time (a token, a silence, a live alert) has a deadline. Both clocks are
read together, once for each slice of work, as a `Now`: all decisions of a slice are made at the same moment.
"""

import functools
import re
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z: the last time whose year has four digits
STEP_S = 0.5  # between two looks 50 ms apart: more than slewing moves a clock, or a busy machine seems to


class Now(NamedTuple):
    """One reading of both clocks: `wall_ms` since 1970, `monotonic` in seconds."""

    wall_ms: int
    monotonic: float

    def deadline(self, wall_ms: int) -> float:
        """The monotonic time, in seconds, at which the wall clock will say `wall_ms` unless it is set."""
        return self.monotonic + (wall_ms - self.wall_ms) / 1000


class Clock(Protocol):
    """Where the time comes from: it is passed in, so that the time is part of a test's input."""

    def now(self) -> Now:
        """Read both clocks, one directly after the other."""
        ...


class SystemClock:
    """The clocks of the machine that this process runs on."""

    def now(self) -> Now:
        return Now(time.time_ns() // 1_000_000, time.monotonic())


class StepWatch:
    """Notices when the wall clock is set: unless it is, it goes as fast as the monotonic clock."""

    def __init__(self, now: Now) -> None:
        self._ahead = _ahead(now)
        self.steps = 0  # times that it was set

    def look(self, now: Now) -> float:
        """By how many seconds it was set since the last look, above 0 if it was set forward; 0 if it was not."""
        step, self._ahead = _ahead(now) - self._ahead, _ahead(now)
        if abs(step) < STEP_S:
            return 0.0
        self.steps += 1
        return step


def _ahead(now: Now) -> float:
    return now.wall_ms / 1000 - now.monotonic


def parse_time(text: object) -> int:
    """Milliseconds since 1970 of `YYYY-MM-DDThh:mm:ss[.1-9 digits](Z|±hh:mm)`; finer digits are cut off.

    Raises ValueError for anything else: another grammar, a date that does not exist, second 60, a time before
    1970 or after 9999.
    """
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("not a time")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    offset_hour, offset_minute = int(found[9] or 0), int(found[10] or 0)
    if year < 1970 or offset_hour > 23 or offset_minute > 59:
        raise ValueError("not a time")
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise ValueError("not a time") from None
    offset = timedelta(hours=offset_hour, minutes=offset_minute)
    seconds = (moment - _EPOCH - (-offset if found[8] == "-" else offset)) // timedelta(seconds=1)
    ms = seconds * 1000 + int((found[7] or "").ljust(3, "0")[:3])
    if not 0 <= ms <= MAX_MS:
        raise ValueError("not a time")
    return ms


def format_time(ms: int) -> str:
    """`ms` since 1970 as the server writes times: UTC, with `Z` and milliseconds."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@functools.lru_cache(8)  # there may be thousands in a second
def _second(seconds: int) -> str:
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
