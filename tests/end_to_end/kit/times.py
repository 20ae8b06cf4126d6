"""Times as the contract writes them, and waiting for what will come."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from end_to_end.kit.wire import PATIENCE


def now() -> dt.datetime:
    """The wall clock, in UTC."""
    return dt.datetime.now(dt.UTC)


def stamp(moment: dt.datetime | None = None, **later: float) -> str:
    """A moment (now by default) and a timedelta later, as the contract writes times."""
    text = ((moment or now()) + dt.timedelta(**later)).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def moment(text: str) -> dt.datetime:
    """A time that the server wrote: UTC with `Z` and milliseconds, or it fails."""
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.UTC)


def wait_until(holds: Callable[[], Any], what: str | Callable[[], str]) -> Any:
    """Poll until something is true; its value. `what` it is, or how to say that when it has been waited for in vain."""
    deadline = time.monotonic() + PATIENCE
    while not (value := holds()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {PATIENCE} s in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
    return value
