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

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from ..model.alert import Entry, OtherKind
from ..model.errors import ConfigError, LogUnavailable

MADE_S = 5.0  # how long a reader waits for a node that was started together with it


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

    name: str  # the absolute path of its file, or its Redis, without secrets

    async def is_there(self) -> bool:
        """Return whether a node has made the log. Raise LogUnavailable if this can't be found out now."""
        ...

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


class _Made(Protocol):
    name: str

    async def is_there(self) -> bool: ...


async def refuse_missing(log: _Made) -> None:
    """Raise ConfigError if the log that a process reads is not there within MADE_S, since only nodes make logs.

    Example: somebody mistypes the path of the log. A relay that made an empty file there would be ready, and its siren
    would stay silent.
    """
    until = time.monotonic() + MADE_S
    try:
        while not await log.is_there():
            if time.monotonic() >= until:
                raise ConfigError(f"--log: there is no alert log at {log.name}: a node makes it when it starts")
            await asyncio.sleep(0.1)
    except LogUnavailable:
        return  # whoever reads it tries again until it can be used
