"""Entries as they are stored in the stream, and where they stand in it."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...model.alert import Entry, OtherKind
from ...model.call import CallEntry
from .. import EntryVerifier, codec, ended_at

logger = logging.getLogger(__name__)

EPOCH_SHIFT = 40  # bits of a position below the epoch

Id = tuple[int, int]  # of an entry of a stream: milliseconds, and a number within them
Fields = Mapping[bytes, bytes]
Server = tuple[str, str]  # one life of one process, and one history (`run_id` and `master_replid` of INFO)
ZERO: Id = (0, 0)


def parse_id(text: bytes) -> Id:
    """The id that Redis writes so."""
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)


def text_of(place: Id) -> str:
    """An id as Redis reads it."""
    return f"{place[0]}-{place[1]}"


def position_of(epoch: int, seq: int) -> int:
    """The position (LogF1) of the entry with this number."""
    return epoch << EPOCH_SHIFT | seq


class Stored(NamedTuple):
    """An entry as it is stored."""

    id: str
    revision: int
    kind: str
    ends_at: int
    payload: bytes

    @classmethod
    def of(cls, entry: Entry | CallEntry) -> "Stored":
        """An entry in the form in which it is stored."""
        return cls(entry.id, entry.revision, codec.kind_of(entry), entry.ends_at, codec.encode(entry))

    @classmethod
    def read(cls, fields: Fields) -> "Stored":
        """From the fields of the stream. Raises ValueError if it is not what was written."""
        try:
            alert_id, revision, payload = fields[b"i"].decode(), int(fields[b"r"]), fields[b"p"]
            if codec.checksum(alert_id, revision, payload) != int(fields[b"c"]):
                raise ValueError("checksum differs")
            return cls(alert_id, revision, fields[b"k"].decode(), int(fields[b"x"]), payload)
        except KeyError:
            raise ValueError("a field is missing") from None

    def entry(self) -> Entry | OtherKind:
        """What it says. Raises ValueError if that can't be read."""
        if self.kind not in codec.KINDS:
            return OtherKind(self.id, self.revision, self.ends_at)
        return codec.decode(self.payload, self.id, self.revision, self.ends_at)

    def seal(self) -> bytes:
        """What this entry of a call has and no other; nothing of any other entry. Raises ValueError."""
        entry = self.entry()
        return entry.sealed if isinstance(entry, CallEntry) else b""

    def renumbered(self, revision: int) -> "Stored":
        """The same under another number."""
        return self._replace(revision=revision, payload=codec.renumbered(self.payload, revision))

    def arguments(self, token: str, *, more: bool) -> tuple[Any, ...]:
        """What `append.lua` takes; `more`: the next one belongs to the same chain."""
        checksum = codec.checksum(self.id, self.revision, self.payload)
        entry = self.entry() if self.kind == "end" else None
        return *self, checksum, token, int(more), ended_at(entry) if isinstance(entry, CallEntry) else ""


class Quarantine:
    """What can't be read, which is named and counted once (LogR2)."""

    def __init__(self, name: str, verifier: EntryVerifier) -> None:
        """`name`: of the log, for the line that says so; `verifier`: which entries are believed."""
        self.verifier = verifier
        self._name = name
        self._places: set[Id] = set()

    def __len__(self) -> int:
        return len(self._places)

    def readable(self, place: Id, fields: Fields) -> tuple[Stored, Entry | OtherKind] | None:
        """What is in an entry of the stream; None if it can't be read."""
        try:
            stored = Stored.read(fields)
            return stored, self.believed(stored, f"{place[0]}-{place[1]} of the stream")
        except ValueError as error:
            self.add(place, error)
            return None

    def believed(self, stored: Stored, place: str) -> Entry | OtherKind:
        """What an entry says, if it is believed. Raises ValueError if that can't be read."""
        entry = stored.entry()
        return (
            entry if isinstance(entry, OtherKind) else self.verifier.verify(entry, (stored.id, stored.revision), place)
        )

    def add(self, place: Id, error: ValueError) -> None:
        """What stands here can't be read, and why."""
        if place not in self._places:
            self._places.add(place)
            logger.error("log %s: entry %d-%d of the stream set aside: %s", self._name, *place, error)
