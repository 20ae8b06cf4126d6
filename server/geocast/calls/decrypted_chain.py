"""Entries with both of their parts: how they are made of a body and a secret, and opened again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..model.alert import Cancel, OtherKind, Revision
from ..model.call import Body, CallEntry, Opening, Secret, body_of, kind_of, packed, secret_of
from .encryption import CallKeys, CantOpen
from .state import CallState, DecryptedEntry, fold


class DecryptedChain(NamedTuple):
    """A call's chain as far as it opens.

    `number` is that of its last entry, and `whole` says whether all of it opens. `call` is what it comes to; None if
    nothing that opens tells that.
    """

    entries: list[DecryptedEntry]
    number: int
    whole: bool
    call: CallState | None

    def contents(self) -> Iterator[tuple[CallEntry, Opening, Secret]]:
        """Each content that the call has had, with its place."""
        return ((entry, body, secret) for entry, body, secret in self.entries if isinstance(body, Opening))


def sealed(keys: CallKeys, call_id: str, number: int, ends_at: int, body: Body, secret: Secret) -> CallEntry:
    """The entry with this number, sealed by the first of the keys. Raises ValueError if there is none."""
    plain, kind = packed(body), kind_of(body)
    return CallEntry(call_id, number, ends_at, kind, plain, keys.seal(call_id, number, kind, plain, packed(secret)))


def opened(keys: CallKeys, entry: CallEntry) -> DecryptedEntry | None:
    """The entry with both of its parts; None if no key opens it, or what is in it is none of a call."""
    try:
        return DecryptedEntry(entry, body_of(entry), secret_of(entry.kind, keys.open(entry)))
    except (CantOpen, ValueError):
        return None


def opened_chain(keys: CallKeys, history: Sequence[Revision | Cancel | OtherKind]) -> DecryptedChain | None:
    """The chain of a call; None if there is no entry of one.

    What is there twice counts once: an entry may be copied by whoever can write to the log.
    """
    entries: dict[bytes, CallEntry] = {}
    for entry in history:
        if isinstance(entry, CallEntry):
            entries.setdefault(entry.sealed, entry)
    if not entries:
        return None
    found = [each for entry in entries.values() if (each := opened(keys, entry)) is not None]
    return DecryptedChain(found, history[-1].revision, len(found) == len(entries), fold(found))
