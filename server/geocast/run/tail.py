"""The command `geocast tail`: prints the entries of the alert log, one line of JSON for each that is believed.

A line's `position` names the entry. A program that is started again with the last position that it has seen gets
everything that came after that entry. If the log no longer has the entry, because it was lost or is too old, the
program gets all entries again: so nothing is missing, and it must expect repetitions.
"""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

from ..alertlog import drop_unverified_cancels
from ..alertlog.tail import RawEntry
from ..approvals.verifier import ApprovalVerifier
from ..model.alert import Cancel, Entry, OtherKind, Revision
from ..wire.frames import alert_map, cancel_message
from .backends import entries_of, opened_tail


class Believed:
    """Decides which entries of a log that is read without writing to it are believed, and prints each of them once."""

    def __init__(self, verifier: ApprovalVerifier, after: str | None, write: Callable[[dict[str, Any]], None]) -> None:
        """Begin with what follows the entry at the position `after`, or with the first entry if it is None."""
        self._verifier, self._after, self._write = verifier, after, write
        self._chains: dict[str, dict[int, Entry | OtherKind | None]] = {}  # id -> number -> entry, verified by itself
        self._known: set[tuple[str, int, str]] = set()
        self._waiting: list[dict[str, Any]] = []  # lines that may be after the position, which was not found yet

    def take(self, raw: RawEntry) -> None:
        """Take an entry of the log."""
        digest = hashlib.sha256(raw.payload).hexdigest()[:16]
        position, known = f"{raw.epoch}-{raw.position}-{digest}", (raw.id, raw.revision, digest)
        if known not in self._known:
            self._known.add(known)
            entry = self._believed(raw)
            if isinstance(entry, Revision):
                self._waiting.append({"type": "alert", "alert": alert_map(entry), "position": position})
            elif isinstance(entry, Cancel) and not entry.is_tombstone:
                self._waiting.append({**cancel_message(entry), "position": position})
        if position == self._after:
            self._waiting, self._after = [], None
        if self._after is None:
            self.caught_up()

    def caught_up(self) -> None:
        """Print what waits: the end of the log is reached, so it does not have the position any more."""
        self._after, lines, self._waiting = None, self._waiting, []
        for line in lines:
            self._write(line)

    def _believed(self, raw: RawEntry) -> Entry | OtherKind | None:
        chain, entry = self._chains.setdefault(raw.id, {}), raw.entry
        if isinstance(entry, Revision | Cancel):
            entry = self._verifier.verify(entry, (raw.id, raw.revision), f"position {raw.position}")
        chain[raw.revision] = entry
        numbers = sorted(chain)
        believed = drop_unverified_cancels([chain[number] for number in numbers], self._verifier)
        return believed[numbers.index(raw.revision)]


async def tail(log: str, verifier: ApprovalVerifier, after: str | None, descriptor: int, *, until_now: bool) -> None:
    """Print the believed entries of the alert log to a file descriptor, for ever, or until the end of the log.

    Raise ConfigError if the value of `log` is not valid or there is no log, and BrokenPipeError if nobody reads.
    """

    def write(line: dict[str, Any]) -> None:
        os.write(descriptor, json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    found = Believed(verifier, after, write)
    async with opened_tail(log) as opened:
        async for batch in entries_of(opened):
            for raw in batch:
                found.take(raw)
            if not batch:
                found.caught_up()
                if until_now:
                    return
