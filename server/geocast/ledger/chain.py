"""The lines of a ledger: each is JSON, with a number and the SHA-256 of the line before (rule LE1)."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..model.errors import Malformed
from ..wire.strict_json import load_json

HASH = re.compile("[0-9a-f]{64}")
_HEAD = re.compile("([0-9]{1,15}):([0-9a-f]{64})")


class ChainHead(NamedTuple):
    """The head of a ledger: the number of its last record, and the SHA-256 (in hex) of the line with that record."""

    n: int
    hash: str

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"


NOTHING = ChainHead(0, "0" * 64)  # the head of an empty ledger


def written(members: Mapping[str, Any]) -> bytes:
    """Return a JSON object with these members, encoded as one line without a line break at its end."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def behind(head: ChainHead, members: Mapping[str, Any]) -> bytes:
    """Return the line of a new record with these members, which comes after the current last record.

    `head` describes that last record: its number, and the hash of its line. The returned line has no line break
    at its end.
    """
    return written({"n": head.n + 1, "prev": head.hash, **members})


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def read(line: bytes) -> dict[str, Any]:
    """Parse a line of the chain, and return the members of its JSON object.

    Raise ValueError if the line is not an object with a number `n` of at least 1.
    """
    try:
        members = load_json(line)
    except (Malformed, UnicodeDecodeError):
        raise ValueError("is not a line of a ledger") from None
    if type(members.get("n")) is not int or members["n"] < 1:
        raise ValueError("has no number")
    return members


def head_of(line: bytes) -> ChainHead:
    """Return the head (number and hash) of a ledger whose last line is `line`.

    Raise ValueError if `line` is invalid.
    """
    return ChainHead(read(line)["n"], digest(line))


def follow(head: ChainHead | None, line: bytes) -> tuple[dict[str, Any], ChainHead]:
    """Check that `line` follows the line described by `head`, and return the line's members and the new head.

    A head is the number of a record and the hash of its line. `head` is None for the oldest line that remains, because
    the files before it may have been deleted (rule LE3). Raise ValueError if the line does not follow.
    """
    members = read(line)
    if head is None:
        head = ChainHead(members["n"] - 1, str(members.get("prev")))
        if not HASH.fullmatch(head.hash) or (head.n == 0 and head != NOTHING):
            raise ValueError("has no valid hash of the line before")
    if members["n"] != head.n + 1:
        raise ValueError(f"has the number {members['n']}, but {head.n + 1} was expected")
    if members.get("prev") != head.hash:
        raise ValueError("does not have the hash of the line before: one of the two lines was changed")
    return members, ChainHead(members["n"], digest(line))


def parse_head(text: str) -> ChainHead:
    """Parse a head (number and hash) as `geocast ledger head` prints it. Raise ValueError for any other text."""
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise ValueError("expected N:HASH, as geocast ledger head prints it")
    return ChainHead(int(found[1]), found[2])
