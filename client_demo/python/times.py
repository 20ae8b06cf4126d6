"""Times as the protocol writes them, and as integers of milliseconds since 1970 (UTC)."""

import time
from datetime import UTC, datetime

# On Linux, this is a clock that nobody sets and that counts while the machine sleeps. Elsewhere it is the wall clock:
# with a monotonic clock that stops in sleep, a client would still show an alert that ended while the lid was closed.
_OWN_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_REALTIME)


def wall_ms() -> int:
    """Return the time of day, in ms since 1970."""
    return time.time_ns() // 1_000_000


def own_ms() -> int:
    """Return the time on the client's own clock, in ms since some moment.

    The server's `now` relates it to the time of day.
    """
    return time.clock_gettime_ns(_OWN_CLOCK) // 1_000_000


def parse_time(text: str) -> int:
    """Return an RFC 3339 time in ms since 1970, cutting off finer digits. Raise ValueError for any other text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without an offset from UTC: {text}")
    return ms_of(moment)


def ms_of(moment: datetime) -> int:
    """Return an aware datetime in ms since 1970. It is computed with integers, because a float would be rounded."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def format_time(ms: int) -> str:
    """Return `ms` since 1970 as a text in UTC, with milliseconds and `Z`."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"
