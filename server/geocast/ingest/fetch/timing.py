"""When to read a feed again, and when to try a message again (rules FE3 and FE4). Pure functions."""

import random
import re
from collections.abc import Mapping

from ...model.times import backoff_s

MOST_ASKED_S = 600.0  # a server's wish to be asked later is obeyed up to this time
MOST_BACKOFF_S = 900.0
NODE_FIRST_S, NODE_MOST_S = 1.0, 30.0  # the first and the longest pause after the node has not accepted a message
JITTER = 0.1  # a pause is shortened by up to this part, so that many readers don't ask at the same time

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?([0-9]{1,9})", re.IGNORECASE)


def after_success(interval_s: float, headers: Mapping[str, str], chance: float) -> float:
    """Return the seconds from a successful reading of a feed to the next.

    `headers` are the answer's header fields, with names in lower case. `chance` is a random number from 0 to 1. A
    server can ask for a longer pause with `Cache-Control: max-age`, but not for a shorter one.
    """
    found = _MAX_AGE.search(headers.get("cache-control", ""))
    age = headers.get("age", "")
    fresh_s = float(found[1]) - (float(age[:9]) if age.isascii() and age.isdigit() else 0.0) if found else 0.0
    return max(interval_s * (1 - JITTER * chance), min(fresh_s, MOST_ASKED_S))


def after_failure(interval_s: float, failures: int, retry_after_s: float | None, chance: float) -> float:
    """Return the seconds from the last of `failures` failed readings in a row to the next attempt.

    `retry_after_s` are the seconds that the server asked for, or None.
    """
    pause_s = backoff_s(interval_s, failures, max(MOST_BACKOFF_S, interval_s)) * (1 - JITTER * chance)
    return max(pause_s, min(retry_after_s or 0.0, MOST_ASKED_S))


def node_pause(failures: int, retry_after_s: float | None) -> float:
    """Return the seconds until the node is tried again, after `failures` failures in a row."""
    return max(backoff_s(NODE_FIRST_S, failures, NODE_MOST_S), min(retry_after_s or 0.0, MOST_ASKED_S))


def chance() -> float:
    """Return a random number from 0 to 1."""
    return random.random()  # noqa: S311 (this is no secret)
