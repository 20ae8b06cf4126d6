"""The stored form of entries in the stream, and their ids and positions."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...model.alert import Entry, OtherKind
from ...model.call import CallEntry
from .. import EntryVerifier, codec, ended_at

logger = logging.getLogger(__name__)

EPOCH_SHIFT = 40  # the bits of a position below its epoch

Id = tuple[int, int]  # the id of an item in a stream: milliseconds, and a number within them
Fields = Mapping[bytes, bytes]
Server = tuple[str, str]  # `run_id` and `master_replid` of INFO: one run of one process, and one replication history
ZERO: Id = (0, 0)


def parse_id(text: bytes) -> Id:
    """Return the id in Redis' text form, such as b"1700000000000-0"."""
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)


def text_of(place: Id) -> str:
    """Return an id in Redis' text form."""
    return f"{place[0]}-{place[1]}"


def position_of(epoch: int, seq: int) -> int:
    """Return the position of the entry with this number in this epoch (LogF1)."""
    return epoch << EPOCH_SHIFT | seq


class Stored(NamedTuple):
    """An entry in its stored form: its encoded bytes, and the fields that scripts in Redis read."""

    id: str
    revision: int
    kind: str
    ends_at: int
    payload: bytes

    @classmethod
    def of(cls, entry: Entry | CallEntry) -> "Stored":
        """Return the stored form of an entry."""
        return cls(entry.id, entry.revision, codec.kind_of(entry), entry.ends_at, codec.encode(entry))

    @classmethod
    def read(cls, fields: Fields) -> "Stored":
        """Return the stored entry in these fields of the stream. Raises ValueError if they were damaged."""
        try:
            alert_id, revision, payload = fields[b"i"].decode(), int(fields[b"r"]), fields[b"p"]
            if codec.checksum(alert_id, revision, payload) != int(fields[b"c"]):
                raise ValueError("checksum differs")
            return cls(alert_id, revision, fields[b"k"].decode(), int(fields[b"x"]), payload)
        except KeyError:
            raise ValueError("a field is missing") from None

    def entry(self) -> Entry | OtherKind:
        """Return the decoded entry. Raises ValueError if it can't be read."""
        if self.kind not in codec.KINDS:
            return OtherKind(self.id, self.revision, self.ends_at)
        return codec.decode(self.payload, self.id, self.revision, self.ends_at)

    def seal(self) -> bytes:
        """Return the encrypted part of an entry of a call, by which it is recognized; b"" for other entries.

        Raises ValueError if the entry can't be read.
        """
        entry = self.entry()
        return entry.sealed if isinstance(entry, CallEntry) else b""

    def renumbered(self, revision: int) -> "Stored":
        """Return the entry with another number."""
        return self._replace(revision=revision, payload=codec.renumbered(self.payload, revision))

    def arguments(self, token: str, *, more: bool) -> tuple[Any, ...]:
        """Return the arguments of `append.lua` for this entry. `more`: the next entry belongs to the same chain."""
        checksum = codec.checksum(self.id, self.revision, self.payload)
        entry = self.entry() if self.kind == "end" else None
        return *self, checksum, token, int(more), ended_at(entry) if isinstance(entry, CallEntry) else ""


class Quarantine:
    """The decoder of entries, which logs and counts each one that can't be read once (LogR2)."""

    def __init__(self, name: str, verifier: EntryVerifier) -> None:
        """`name` is the name of the log in log lines. `verifier` checks which entries are accepted."""
        self.verifier = verifier
        self._name = name
        self._places: set[Id] = set()

    def __len__(self) -> int:
        return len(self._places)

    def readable(self, place: Id, fields: Fields) -> tuple[Stored, Entry | OtherKind] | None:
        """Return the entry in these fields of the stream, stored and decoded; None if it can't be read."""
        try:
            stored = Stored.read(fields)
            return stored, self.believed(stored, f"{place[0]}-{place[1]} of the stream")
        except ValueError as error:
            self.add(place, error)
            return None

    def believed(self, stored: Stored, place: str) -> Entry | OtherKind:
        """Return the decoded entry, or an `Untrusted` if it is not accepted. Raises ValueError if it can't be read.

        `place` describes its place in log lines.
        """
        entry = stored.entry()
        return (
            entry if isinstance(entry, OtherKind) else self.verifier.verify(entry, (stored.id, stored.revision), place)
        )

    def add(self, place: Id, error: ValueError) -> None:
        """Set aside the item at this place because of `error`."""
        if place not in self._places:
            self._places.add(place)
            logger.error("log %s: the entry %d-%d of the stream is set aside: %s", self._name, *place, error)
