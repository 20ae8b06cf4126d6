"""The exceptions that geocast raises on purpose.

    GeocastError
    ├── ConfigError        the configuration prevents the start: one line, exit status 2
    ├── Malformed          bytes are not one strict JSON or MessagePack map
    ├── LogUnavailable     the alert log can't be read or written now; an append may have succeeded or not
    ├── StoreUnavailable   the device store can't be read or written now; a change may have been made or not
    └── Problem            an unsuccessful response of the API, in `problems`

The text of an error names fields, limits and expected values. It never contains a refused value.
"""

import traceback
from collections.abc import Iterable
from typing import TypeVar


class GeocastError(Exception):
    """Base class of all exceptions that geocast raises on purpose."""


class ConfigError(GeocastError):
    """Raised if a node or command cannot start with its configuration. The text is the line that the operator sees.

    `problems` lists this line first, and then the lines of other problems that were found at the same time.
    """

    def __init__(self, problem: str, *others: str) -> None:
        super().__init__(problem)
        self.problems = (problem, *others)


class Malformed(GeocastError):  # noqa: N818 (the word of the protocol)
    """Raised for bytes that are not exactly one strict JSON object or MessagePack map."""


class LogUnavailable(GeocastError):  # noqa: N818
    """Raised if the alert log can't be reached or is full.

    If an append raises this, the entry may have been stored or not.
    """


class StoreUnavailable(GeocastError):  # noqa: N818
    """Raised if a store of devices or of state can't be reached or is full.

    The operation was done either completely or not at all.
    """


_Error = TypeVar("_Error", bound=GeocastError)


def without_frames(error: _Error) -> _Error:
    """Remove the frames in which an error was raised, and return the error.

    The frames keep everything alive that the code had made until then. For a large message, freeing that takes tens of
    milliseconds, in the thread that drops the error last.
    """
    error.__traceback__ = error.__context__ = None
    return error


def did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return "; did you mean …?" with the known word that is most similar to `word`, or "" if none is similar.

    `prefix` is a common beginning of all known words, which is left out of the comparison.
    """
    from difflib import get_close_matches

    near = get_close_matches(word.removeprefix(prefix), [each.removeprefix(prefix) for each in sorted(known)], 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def trace(error: BaseException) -> str:
    """Return the type and the traceback of an unexpected error, as text for the log.

    The error's own message is left out, because it may contain parts of a request.
    """
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def text_of(error: Exception) -> str:
    """Return the text of an error for the operator. For an unexpected type of error, return its type and traceback."""
    return str(error) if isinstance(error, ConfigError | OSError) else trace(error)
