"""Clocks that are passed as parameters, and the conversion of times to and from text.

Inside the server a time of day is an integer of milliseconds since 1970 (UTC). A deadline is a float of seconds on the
monotonic clock. Somebody may set the wall clock while the node runs, but the monotonic clock never jumps. So everything
that must end in time even if the wall clock is set (a token, the silence of a client, a live alert) has a deadline. For
example, an alert that expires in 10 minutes ends after 10 minutes, even if the wall clock is set back by an hour.

Both clocks are read together, as a `Now`, at the start of each short piece of work. So all decisions within that piece
of work use the same time.
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
MAX_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last time with a year of four digits
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
        ...


class SystemClock:
    """The clocks of the machine that this process runs on."""

    def now(self) -> Now:
        return Now(time.time_ns() // 1_000_000, time.monotonic())


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


def parse_time(text: object) -> int:
    """Return the time in ms since 1970 that a text of the form `YYYY-MM-DDThh:mm:ss[.1-9 digits](Z|±hh:mm)` denotes.

    Fractions of a millisecond are cut off. Raise ValueError for everything else: another form, a date that does not
    exist, second 60, a time before 1970 or after 9999.
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
    """Return the text for a time in ms since 1970, for example `2030-01-31T12:00:00.000Z`.

    All times that the server writes have this form: UTC, with milliseconds and `Z`.
    """
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@functools.lru_cache(8)  # thousands of times may be in the same second
def _second(seconds: int) -> str:
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
