"""An interface for reading a log without writing to it, for programs that might have no permission to write to the log.

(The command `geocast ledger` is such a program.) Every entry is yielded, including entries that can't be read. The
interface guarantees less than `AlertLog` does. In exchange, reading requires no writes at all:

    Obs1    `follow` yields every entry in the log, in the order of the log, and then the entries that are appended. It
            yields an empty batch when it has reached the end, and then another one at least every few seconds.
    Obs2    `follow` may yield entries again: after a failure, and if it can't know whether the log is still the same
            one. Its caller recognizes repeated entries by id, revision and bytes.
            Example: Redis fails over, and the new primary lacks the last entry that was yielded. All entries are
            yielded again, from the first one on.
    Obs3    When the log is unavailable, `follow` raises LogUnavailable; callers may then call it again. It never
            returns without an error.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from ..model.alert import Entry, OtherKind


class RawEntry(NamedTuple):
    """A log entry with its stored bytes and its position in the log.

    `epoch` is a number that rises when the log has lost entries; it is 0 in a log without epochs. `entry` is None if
    the bytes can't be decoded.
    """

    epoch: int
    position: int
    id: str
    revision: int
    payload: bytes
    entry: Entry | OtherKind | None


class LogTail(Protocol):
    """The interface of objects that read a log without writing to it.

    Its rules (Obs1 to Obs3) are in the module's docstring.
    """

    async def start(self) -> None:
        """Check that the log can be read. Raise ConfigError if the configuration makes this impossible.

        A problem that may pass is not raised here; `follow` raises it.
        """
        ...

    async def stop(self) -> None:
        """Close all files and connections that are open."""
        ...

    def follow(self) -> AsyncGenerator[Sequence[RawEntry], None]:
        """Yield the entries of the log in batches, without end (Obs1 to Obs3)."""
        ...
