"""The conversion of times to and from text, and pauses that grow.

A time of day is an integer of milliseconds since 1970 (UTC).
"""

import functools
import re
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z, the last time with a year of four digits


def parse_time(text: object) -> int:
    """Return the time in ms since 1970 that a text of the form `YYYY-MM-DDThh:mm:ss[.1-9 digits](Z|±hh:mm)` denotes.

    Fractions of a millisecond are cut off. Raise ValueError for everything else: another form, a date that does not
    exist, second 60, a time before 1970 or after 9999.
    """
    if not isinstance(text, str) or _TIME.fullmatch(text) is None or text < "1970":
        raise ValueError("not a time")
    try:
        ms = (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
    except ValueError:
        raise ValueError("not a time") from None
    if not 0 <= ms <= MAX_MS:
        raise ValueError("not a time")
    return ms


def format_time(ms: int) -> str:
    """Return the text for a time in ms since 1970, for example `2030-01-31T12:00:00.000Z`.

    All times that the server writes have this form: UTC, with milliseconds and `Z`.
    """
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


def backoff_s(first_s: float, failures: int, most_s: float) -> float:
    """Return the pause after `failures` failures in a row: `first_s`, then twice as long each time up to `most_s`."""
    return min(first_s * 2.0 ** min(failures - 1, 16), most_s)


@functools.lru_cache(8)  # thousands of times may be in the same second
def _second(seconds: int) -> str:
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}"
