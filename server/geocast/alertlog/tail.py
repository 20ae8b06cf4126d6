"""A port for reading the log only, for programs that may have no right to write to it, such as the ledger.

It gives every entry, including entries that can't be read. It promises less than `AlertLog`, so that a reader need not
write anything:

    Obs1    `follow` gives every entry in the log, in the order of the log, and then the entries that are appended. It
            gives an empty batch at the end, and then another one at least every few seconds.
    Obs2    `follow` may give entries again: after a failure, and if it can't know whether the log is the same. Its
            caller recognizes these by id, revision and bytes.
            Example: Redis fails over, and the new primary lacks the last entry that was given. All entries are given
            again, from the first one on.
    Obs3    When the log is unavailable, `follow` raises LogUnavailable, and may be called again. It never just ends.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from ..model.alert import Entry, OtherKind


class RawEntry(NamedTuple):
    """An entry with its bytes and its place in the log.

    `epoch` rises when the log's history was rewound; it is 0 in a log without epochs. `entry` is None if the bytes
    can't be read.
    """

    epoch: int
    position: int
    id: str
    revision: int
    payload: bytes
    entry: Entry | OtherKind | None


class LogTail(Protocol):
    """The port for readers, whose rules are in the module's docstring."""

    async def start(self) -> None:
        """Check that the log can be read. Raises ConfigError if it can't be read as configured.

        A problem that may pass is not raised here, but by `follow`.
        """
        ...

    async def stop(self) -> None:
        """Close all files or connections."""
        ...

    def follow(self) -> AsyncGenerator[Sequence[RawEntry], None]:
        """Yield the entries of the log in batches, without end (Obs1 to Obs3)."""
        ...
