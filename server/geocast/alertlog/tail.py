"""The log, only read: for who has no part in it, and perhaps no right to write to it.

Another port beside `AlertLog`, for one use: to see every entry, those included that can't be read. What is promised is
less, so that nothing has to be written for it:

    Obs1    `follow` gives every entry that is in the log, in its order, and goes on with those to come. It gives an
            empty batch at the end, and again at least once in a few seconds.
    Obs2    It may give again what it has given, as often as it likes: after a failure, and where it can't be told
            whether the log is the same. Whoever follows knows by (id, revision) and bytes what it has had.
    Obs3    It does not end because the log is out of reach: it raises LogUnavailable, and may be called again.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from ..model.alert import Entry, OtherKind


class RawEntry(NamedTuple):
    """An entry as it stands in the log.

    `epoch` rises when the log's history was rewound; 0 where a log has none. `entry` is None if it can't be read.
    """

    epoch: int
    position: int
    id: str
    revision: int
    payload: bytes
    entry: Entry | OtherKind | None


class LogTail(Protocol):
    """The port; its rules are in the module's docstring."""

    async def start(self) -> None:
        """Look whether there is a log. Raises ConfigError if it can't be read as configured.

        What passes is waited for, by `follow`.
        """
        ...

    async def stop(self) -> None:
        """Let go of what is open."""
        ...

    def follow(self) -> AsyncGenerator[Sequence[RawEntry], None]:
        """The entries that are there, and those to come (Obs1 to Obs3)."""
        ...
