"""Log entries in the form in which they are stored in the stream, and their ids and positions."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...model.alert import Entry, OtherKind
from ...model.call import CallEntry
from .. import codec, ended_at
from ..decoding import Quarantine, believed

EPOCH_SHIFT = 40  # how many low bits of a position contain the sequence number; the epoch is above them

Id = tuple[int, int]  # the id of an item in a stream: milliseconds, and a number within them
Fields = Mapping[bytes, bytes]
Identity = tuple[bytes | None, ...]
ZERO: Id = (0, 0)


def parse_id(text: bytes) -> Id:
    """Return the id of a stream item, such as b"1700000000000-0", as a tuple of two integers."""
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)


def text_of(place: Id) -> str:
    """Return the id of a stream item in the text form that Redis expects, such as "1700000000000-0"."""
    return f"{place[0]}-{place[1]}"


def position_of(epoch: int, seq: int) -> int:
    """Return the position in the log of the entry with this epoch and sequence number (LogF1)."""
    return epoch << EPOCH_SHIFT | seq


def identity(fields: Fields) -> Identity:
    """Return what tells an entry of the stream from all others: the token of its append, and its checksum.

    One append may store several entries with the same token. Each attempt has its number behind the token.
    """
    return fields.get(b"t"), fields.get(b"c")


def digest_after(before: bytes, place: Id, fields: Fields) -> bytes:
    """Return the running digest of the stream's items after one more, given the digest `before` it, as beat.lua does.

    SHA-1 is what Lua in Redis has. To find two items with equal digests, one would have to know the digest before them
    and the random token of the append in advance.
    """
    parts = [b"%d:%s" % (len(text), text) for field in fields.items() for text in field]
    return hashlib.sha1(b" ".join([before, text_of(place).encode(), *parts])).hexdigest().encode()  # noqa: S324


class Stored(NamedTuple):
    """An entry in its stored form: its encoded bytes, and the fields that the scripts in Redis need."""

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
        """Return the stored entry that the fields of a stream item describe.

        Raise ValueError if the fields are damaged.
        """
        try:
            alert_id, revision, payload = fields[b"i"].decode(), int(fields[b"r"]), fields[b"p"]
            if codec.checksum(alert_id, revision, payload) != int(fields[b"c"]):
                raise ValueError("checksum differs")
            return cls(alert_id, revision, fields[b"k"].decode(), int(fields[b"x"]), payload)
        except KeyError:
            raise ValueError("a field is missing") from None

    def entry(self) -> Entry | OtherKind:
        """Return the decoded entry. Raise ValueError if it can't be decoded."""
        if self.kind not in codec.KINDS:
            return OtherKind(self.id, self.revision, self.ends_at)
        return codec.decode(self.payload, self.id, self.revision, self.ends_at)

    def seal(self) -> bytes:
        """Return the encrypted part of an entry of a call, or b"" for other entries.

        No two entries have equal encrypted parts, so it identifies the entry. Raise ValueError if the entry can't be
        decoded.
        """
        entry = self.entry()
        return entry.sealed if isinstance(entry, CallEntry) else b""

    def renumbered(self, revision: int) -> "Stored":
        """Return a copy of this entry with the number `revision`."""
        return self._replace(revision=revision, payload=codec.renumbered(self.payload, revision))

    def arguments(self, token: str, *, more: bool) -> tuple[Any, ...]:
        """Return the arguments that the script `append.lua` takes for this entry.

        `token` is random and identifies the append. `more` says whether the next entry in the same call of the script
        belongs to the same alert or call for help.
        """
        checksum = codec.checksum(self.id, self.revision, self.payload)
        entry = self.entry() if self.kind == "end" else None
        return *self, checksum, token, int(more), ended_at(entry) if isinstance(entry, CallEntry) else ""


class StoredDecoder(Quarantine):
    """Decodes stored entries. Each unreadable entry is logged and counted once (LogR2)."""

    def readable(self, place: Id, fields: Fields) -> tuple[Stored, Entry | OtherKind] | None:
        """Return the entry in the fields of a stream item, as a pair: its stored form, and the decoded entry.

        `place` is the item's id. If the entry can't be read, count and log it, and return None.
        """
        try:
            stored = Stored.read(fields)
            return stored, self.believed(stored, f"{place[0]}-{place[1]} of the stream")
        except ValueError as error:
            self.add_item(place, error)
            return None

    def believed(self, stored: Stored, place: str) -> Entry | OtherKind:
        """Return the decoded entry, or an `Untrusted` in its place if the verifier does not accept the entry.

        `place` says in words where the entry is, for log messages. Raise ValueError if the entry can't be decoded.
        """
        return believed(stored.entry(), self.verifier, (stored.id, stored.revision), place)

    def add_item(self, place: Id, error: ValueError) -> None:
        """Count an unreadable item of the stream and log `error`, unless the item was counted before.

        `place` is the item's id.
        """
        self.add(place, f"item {text_of(place)} of the stream", error)
