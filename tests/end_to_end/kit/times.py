"""Times in the format of the contract, and polling."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from end_to_end.kit.wire import PATIENCE


def now() -> dt.datetime:
    """Return the current time in UTC."""
    return dt.datetime.now(dt.UTC)


def stamp(moment: dt.datetime | None = None, **later: float) -> str:
    """Return a moment (now by default), plus a timedelta, in the format of the contract."""
    text = ((moment or now()) + dt.timedelta(**later)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment(text: str) -> dt.datetime:
    """Parse a time that the server wrote; raise `ValueError` if it is not UTC with `Z` and milliseconds."""
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC)


def wait_until(holds: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Poll until `holds` is true, and return its value.

    `what` describes the awaited condition, as a text or as a function that returns one after the time is up.
    """
    deadline = time.monotonic() + PATIENCE
    while not (value := holds()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {PATIENCE} s in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
    return value
