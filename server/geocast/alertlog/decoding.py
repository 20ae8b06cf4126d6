"""Decoding of stored entries, as all backends of the log do it: in turns, verified, and unreadable ones set aside."""

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable, Iterable
from typing import TypeVar

from ..clock import Turn
from ..model.alert import Entry, OtherKind
from . import DECODE_AT_ONCE, DECODE_S, EntryVerifier

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


async def in_turns(items: Iterable[_T], most: int = DECODE_AT_ONCE, seconds: float = DECODE_S) -> AsyncIterator[_T]:
    """Yield these items, and let the event loop run after `most` of them, or after this number of seconds."""
    turn = Turn(most, seconds)
    for item in items:
        yield item
        if turn.is_over():
            await asyncio.sleep(0)
            turn = Turn(most, seconds)


def believed(
    entry: Entry | OtherKind, verifier: EntryVerifier, stands_under: tuple[str, int], place: str
) -> Entry | OtherKind:
    """Return the entry, or an `Untrusted` in its place if the verifier does not accept it (LogJ1).

    `stands_under` and `place` have the same meaning as in `EntryVerifier.verify`.
    """
    return entry if isinstance(entry, OtherKind) else verifier.verify(entry, stands_under, place)


class Quarantine:
    """The stored entries that can't be read. Each of them is logged and counted once (LogR2)."""

    def __init__(self, name: str, verifier: EntryVerifier) -> None:
        """Begin without any. `name` is the log's name in log messages; `verifier` says which entries are accepted."""
        self.verifier = verifier
        self._name = name
        self._found: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._found)

    def add(self, key: Hashable, place: str, error: ValueError) -> None:
        """Count an unreadable entry and log `error`, unless the entry was counted before.

        `key` identifies the entry, and `place` says in words where it is.
        """
        if key not in self._found:
            self._found.add(key)
            logger.error("log %s: %s is unreadable and is skipped: %s", self._name, place, error)
