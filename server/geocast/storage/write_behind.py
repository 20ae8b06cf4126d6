"""Writing in the background: notes are written soon and in order, and a disk that fails delays nobody for long.

Rule 1  Notes are written in the order in which they were made, one transaction at a time. One sync of the disk serves
        all notes that have come since the last one. A later note about the same key replaces an earlier one.
Rule 2  An unavailable store delays nothing. Whoever needs a note on stable storage waits at most PATIENCE_S for it, and
        not at all while the last write failed or has not ended. The notes are kept, and are written when the store
        works again. A write without an answer may still arrive late, so the first notes that are written after a
        failure are written twice.
Rule 3  The store is also written to every PROBE_S (`probe`), so that an idle process notices a failure, and its end.

Example for Rule 2: the disk hangs. The first 200 pushes start a second later than they should, and all others at once.
30 s later the disk works again, and one transaction has everything that was sent meanwhile.
"""

import abc
import asyncio
import logging
from collections.abc import Mapping
from itertools import islice
from typing import Generic, TypeVar

from ..metrics import report_caught
from ..model.errors import StoreUnavailable

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0  # the longest time for which anything waits for the store

_Key = TypeVar("_Key")
_Note = TypeVar("_Note")


class WriteBehind(abc.ABC, Generic[_Key, _Note]):
    """Notes that wait to be written, by what they are about; a subclass writes them.

    `error` is the reason why the last write failed or takes too long, or None if it succeeded.
    """

    AT_ONCE = 5_000  # limit on the notes of a transaction: what piled up during an outage takes several
    PROBE_S = 1.0  # time between two calls of `probe`
    SETTLE_S = 0.0  # how long `note` waits for more notes

    def __init__(self, name: str) -> None:
        """Create the object. `name` names the store in the log."""
        self.error: str | None = None
        self._name = name
        self._notes: dict[_Key, _Note] = {}
        self._under_way = 0  # number of notes in the transaction that is being written
        self._is_probing = False  # whether to write even if there are no notes
        self._is_doubtful = False  # whether notes of a failed write may still arrive in the store (Rule 2)
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None  # runs while there is something to write (Rule 1)
        self._ending: asyncio.Future[None] | None = None  # the end of the next attempt, which has all notes of now

    @abc.abstractmethod
    async def store(self, notes: Mapping[_Key, _Note]) -> None:
        """Write these notes in one transaction. Raise StoreUnavailable if that fails."""

    @property
    def unwritten(self) -> int:
        """The number of notes that are not on stable storage yet."""
        return len(self._notes) + self._under_way

    def note(self, notes: Mapping[_Key, _Note]) -> None:
        """Have these notes written with the next transaction, which begins after SETTLE_S at the latest."""
        self.add(notes)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.SETTLE_S, self.flush_soon)

    def add(self, notes: Mapping[_Key, _Note]) -> None:
        """Add notes to those that wait, until something is written."""
        for key in notes:
            self._notes.pop(key, None)  # so that they are written in the order of the last notes
        self._notes.update(notes)

    async def written(self) -> None:
        """Wait until all notes are on stable storage, unless the store is unavailable (Rule 2)."""
        if self.error is None:
            await self.flush()

    async def probe(self) -> None:
        """Write to the store even if there is nothing to write, but wait at most PATIENCE_S seconds for that."""
        self._is_probing = True
        await self.flush()

    async def flush(self) -> None:
        """Write all notes that have not been written yet, but wait at most PATIENCE_S seconds for that."""
        written = self.flush_soon()
        if written is not None:
            _, late = await asyncio.wait([written], timeout=PATIENCE_S)
            if late:
                self.failed(f"no answer for {PATIENCE_S:g} s")

    async def finish(self) -> None:
        """Try once more to write all notes, however long that takes."""
        if (written := self.flush_soon()) is not None:
            await written

    def flush_soon(self) -> "asyncio.Future[None] | None":
        """Start to write all notes that have not been written yet, and return a future that ends with the attempt.

        Return None if there is nothing to do.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        if self._ending is None and (self._notes or self._is_probing or self._writing is not None):
            self._ending = loop.create_future()
        if self._ending is not None and (self._writing is None or self._writing.done()):
            self._writing = loop.create_task(self._write_all())
        return self._ending

    async def _write_all(self) -> None:
        try:
            while (written := self._ending) is not None:
                self._ending = None
                try:
                    for _ in range(-(-len(self._notes) // self.AT_ONCE) or self._is_probing):
                        await self._write()
                except StoreUnavailable as error:
                    self.failed(str(error))
                except Exception as error:
                    report_caught(f"{self._name}: writing failed for an unexpected reason", error)
                    self.failed("unexpected error")
                finally:
                    written.set_result(None)
        finally:
            self._writing = None

    async def _write(self) -> None:
        """Write the oldest AT_ONCE notes in one transaction."""
        self._is_probing = False
        notes = dict(islice(self._notes.items(), self.AT_ONCE))
        for each in notes:
            del self._notes[each]
        self._under_way = len(notes)
        try:
            await self.store(notes)
        except BaseException:
            self._notes = notes | self._notes  # keep the notes (Rule 2), even if this task is being cancelled
            self._is_doubtful = True
            raise
        finally:
            self._under_way = 0
        if self._is_doubtful:
            self._notes, self._is_doubtful = notes | self._notes, False
        self.worked()

    def failed(self, error: str) -> None:
        """Take note that a write has failed, and why."""
        if self.error is None:
            logger.error("%s: writing fails (%s); all goes on, and is recorded later", self._name, error)
        self.error = error

    def worked(self) -> None:
        """Take note that a write has succeeded."""
        if self.error is not None:
            logger.warning("%s: writing works again", self._name)
            self.error = None
