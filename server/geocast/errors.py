"""What can go wrong, as data.

    GeocastError
    ├── ConfigError        the node can't start as configured: one line, exit status 2
    ├── Malformed          bytes that are not one strict JSON or MessagePack map
    ├── LogUnavailable     the alert log can't take or give entries now; the outcome of an append is unknown
    ├── StoreUnavailable   the store of devices can't take or give now; what was under way may be done or not
    └── Problem            an answer of the api, in `problems`

An error names fields, limits and what was expected; it never repeats a value that was refused.
"""

import traceback
from collections.abc import Iterable


class GeocastError(Exception):
    """Base of all errors that geocast raises on purpose."""


class ConfigError(GeocastError):
    """The node can't start as it is configured. Its text is the one line that the operator sees.

    `problems` are that line and those of all else that was found to be wrong at the same time.
    """

    def __init__(self, problem: str, *others: str) -> None:
        super().__init__(problem)
        self.problems = (problem, *others)


class Malformed(GeocastError):  # noqa: N818 (the word of the protocol)
    """Bytes that are not one strict JSON object or MessagePack map."""


class LogUnavailable(GeocastError):  # noqa: N818
    """The alert log is out of reach or full. An append that raised this may have been stored."""


class StoreUnavailable(GeocastError):  # noqa: N818
    """The store of devices is out of reach or full. What it was to do may be done or not, as a whole."""


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a sentence that refuses a word: which known one is the nearest; empty if none is near.

    `prefix`: what all of them begin with, which is not compared.
    """
    from difflib import get_close_matches

    near = get_close_matches(word.removeprefix(prefix), [each.removeprefix(prefix) for each in sorted(known)], 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def trace(error: BaseException) -> str:
    """Where an unexpected error came from: its type and the lines of code that it went through.

    This is what is logged of it. Its own words are left out, since they may repeat what was sent.
    """
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
