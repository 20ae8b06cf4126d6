"""Converts between times as the protocol writes them, and integers of ms since 1970 (UTC)."""

import time
from datetime import UTC, datetime

# On Linux, this is a clock that nobody sets and that counts while the machine sleeps. Elsewhere it is the wall clock:
# with a monotonic clock that stops in sleep, a client would still show an alert that ended while the lid was closed.
_OWN_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_REALTIME)


def wall_ms() -> int:
    """Return the present time of the wall clock, in ms since 1970."""
    return time.time_ns() // 1_000_000


def own_ms() -> int:
    """Return the present time of the client's own clock, in ms since some moment.

    The difference between this clock and the time of day is known only from the server's `now`.
    """
    return time.clock_gettime_ns(_OWN_CLOCK) // 1_000_000


def parse_time(text: str) -> int:
    """Return a time in the format of RFC 3339 as ms since 1970. Digits after the milliseconds are ignored.

    Raise ValueError if the text is not such a time, or has no offset from UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without an offset from UTC: {text}")
    return ms_of(moment)


def ms_of(moment: datetime) -> int:
    """Return a datetime with a time zone as ms since 1970. Integers are used, because a float would be rounded."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def format_time(ms: int) -> str:
    """Return a time, given in ms since 1970, as text in UTC with milliseconds: "2026-01-31T12:00:00.000Z"."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"
