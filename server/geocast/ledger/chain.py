"""The chain: a line of JSON for each record, with its number and the SHA-256 of the line before (LE1)."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import Malformed
from ..wire.strict_json import load_json

HASH = re.compile("[0-9a-f]{64}")
_HEAD = re.compile("([0-9]{1,15}):([0-9a-f]{64})")


class ChainHead(NamedTuple):
    """The last record: its number, and the SHA-256 of its line in hex."""

    n: int
    hash: str

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"


NOTHING = ChainHead(0, "0" * 64)  # the head of a ledger without a record


def written(members: Mapping[str, Any]) -> bytes:
    """A line with these members, without its end."""
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def behind(head: ChainHead, members: Mapping[str, Any]) -> bytes:
    """The line of a record that follows the head."""
    return written({"n": head.n + 1, "prev": head.hash, **members})


def digest(data: bytes) -> str:
    """The SHA-256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def read(line: bytes) -> dict[str, Any]:
    """The members of a line. Raises ValueError."""
    try:
        members = load_json(line)
    except (Malformed, UnicodeDecodeError):
        raise ValueError("is no line of a ledger") from None
    if type(members.get("n")) is not int or members["n"] < 1:
        raise ValueError("has no number")
    return members


def head_of(line: bytes) -> ChainHead:
    """The head of a ledger that ends with this line. Raises ValueError."""
    return ChainHead(read(line)["n"], digest(line))


def follow(head: ChainHead | None, line: bytes) -> tuple[dict[str, Any], ChainHead]:
    """The members of the line behind `head`, and the new head. Raises ValueError if it does not follow.

    `head`: None for a line before which nothing is left.
    """
    members = read(line)
    if head is None:
        head = ChainHead(members["n"] - 1, str(members.get("prev")))
        if not HASH.fullmatch(head.hash) or (head.n == 0 and head != NOTHING):
            raise ValueError("has no hash of a line before")
    if members["n"] != head.n + 1:
        raise ValueError(f"has the number {members['n']}, and {head.n + 1} comes next")
    if members.get("prev") != head.hash:
        raise ValueError("does not have the hash of the line before: that one, or this, was changed")
    return members, ChainHead(members["n"], digest(line))


def parse_head(text: str) -> ChainHead:
    """A head as `geocast ledger head` prints it. Raises ValueError."""
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise ValueError("expected N:HASH, as geocast ledger head prints it")
    return ChainHead(int(found[1]), found[2])
