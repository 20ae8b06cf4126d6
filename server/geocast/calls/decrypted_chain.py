"""Encryption and decryption of a call's log entries. Each entry has a public body and an encrypted part, its secret."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..model.alert import Cancel, OtherKind, Revision
from ..model.call import Body, CallEntry, Opening, Secret, body_of, kind_of, packed, secret_of
from .encryption import CallKeys, CantOpen
from .state import CallState, DecryptedEntry, fold


class DecryptedChain(NamedTuple):
    """The chain of a call (all its entries in the log), decrypted as far as the keys allow.

    `entries` has the entries that were decrypted. `number` is the number of the last entry, decrypted or not; 0 if the
    log has no entry of the call. `whole` says whether all entries were decrypted. `call` is the state of the call, or
    None if no decrypted entry says what the call is about.
    """

    entries: list[DecryptedEntry]
    number: int
    whole: bool
    call: CallState | None

    def contents(self) -> Iterator[tuple[CallEntry, Opening, Secret]]:
        """Yield every content that the call has had, oldest first.

        Each is a tuple of the entry that set the content, the entry's public body, and its secret (the exact place).
        """
        return ((entry, body, secret) for entry, body, secret in self.entries if isinstance(body, Opening))


def sealed(keys: CallKeys, call_id: str, number: int, ends_at: int, body: Body, secret: Secret) -> CallEntry:
    """Return an entry of a call that has this public body and this secret, encrypted with the first key.

    Raise ValueError if there is no key.
    """
    plain, kind = packed(body), kind_of(body)
    return CallEntry(call_id, number, ends_at, kind, plain, keys.seal(call_id, number, kind, plain, packed(secret)))


def opened(keys: CallKeys, entry: CallEntry) -> DecryptedEntry | None:
    """Decrypt an entry of a call. Return None if no key decrypts it, or if its parts are not valid."""
    try:
        return DecryptedEntry(entry, body_of(entry), secret_of(entry.kind, keys.open(entry)))
    except (CantOpen, ValueError):
        return None


def opened_chain(keys: CallKeys, history: Sequence[Revision | Cancel | OtherKind]) -> DecryptedChain:
    """Decrypt all entries of a call.

    `history` has all entries in the log with the call's id. If several entries have the same encrypted part, only the
    first counts, because anybody who can write to the log can append a copy of an entry.
    """
    entries: dict[bytes, CallEntry] = {}
    for entry in history:
        if isinstance(entry, CallEntry):
            entries.setdefault(entry.sealed, entry)
    found = [each for entry in entries.values() if (each := opened(keys, entry)) is not None]
    number = history[-1].revision if entries else 0
    return DecryptedChain(found, number, len(found) == len(entries), fold(found))
