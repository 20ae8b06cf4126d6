"""The scripts whose writes have to be durable: appends and heartbeats.

A *heartbeat* is an item that is written to the stream once a second, to check that Redis works. Each script is
followed, on the same connection, by commands that wait until its writes are on the disks. The script's answer contains
the log's *epoch* (a number that rises when entries were lost) and the number of its last entry; both are reported to
`history.History`.
"""

import logging
from collections.abc import Iterable
from typing import Any

from ...storage.redis.durable import WRITE_S, Unsynced, run_durably
from ...storage.redis.primary import Primary
from . import scripts
from .history import History
from .stored import Id, parse_id

logger = logging.getLogger(__name__)

BEAT_MS = 900  # no heartbeat is written if the last one is younger than this


class Writer:
    """Runs scripts that write to the log, and waits after each script until its writes are durable.

    A *heartbeat* is an item that is written to the stream every second, to check that Redis can store entries. An
    *epoch* is a number that rises when the log has lost entries.
    """

    def __init__(self, primary: Primary, keys: str, history: History, *, replicas: int, volatile: bool) -> None:
        """Prepare to write to the Redis server `primary`.

        `keys` is the prefix of all keys of the log. `replicas` and `volatile` have the same meaning as in
        `RedisStreamsLog`.
        """
        self.unproven = False  # whether a write was not synced in time and no later write has been synced
        self._primary = primary
        self._keys = keys
        self._history = history
        self._replicas = replicas
        self._volatile = volatile

    async def store(
        self, entries: Iterable[tuple[Any, ...]], within_s: float = WRITE_S, *, mending: bool = False
    ) -> list[Any]:
        """Run `append.lua`, wait until the stored entries are durable, and return one answer for each entry.

        `entries` has the arguments of each entry, from `Stored.arguments`. If `mending` is true, lost entries are being
        put back, so gaps in their numbers are allowed. Raise LogUnavailable if Redis fails or the entries are not
        durable in time.
        """
        arguments = [argument for entry in entries for argument in entry]
        answer: list[Any] = await self._durably(scripts.APPEND, int(mending), *arguments, within_s=within_s)
        epoch, seq, *answers = answer
        self._note(epoch, seq)
        return answers

    async def beat(self, young_ms: int = BEAT_MS, ended: int | str = "", least: int = 0) -> tuple[int, int, Id]:
        """Write a heartbeat (an item in the stream), and wait until it and all entries before it are durable.

        If the last heartbeat is younger than `young_ms`, write none. Return the log's epoch (a number that rises when
        entries were lost), the number of its last entry, and the id of the last item in the stream. If `ended` is
        given, and the log is still in this epoch, the log begins a new epoch above `least`.
        """
        epoch, seq, place, size, summed, digest = await self._durably(scripts.BEAT, young_ms, ended, least)
        top = parse_id(place)
        self._note(epoch, seq)
        self._history.told_top(top)
        self._history.told_content(size, parse_id(summed), digest)
        return epoch, seq, top

    async def prove(self) -> tuple[int, int]:
        """Prove that Redis can write durably.

        Return the log's epoch and the number of its last entry. If the last write was not synced in time, write a new
        heartbeat (an item in the stream) in any case. A heartbeat that exists already would prove nothing, because it
        may have been synced before the disk stopped.
        """
        epoch, seq, _ = await self.beat(0 if self.unproven else BEAT_MS)
        self.unproven = False
        return epoch, seq

    async def new_epoch(self, ended: int, least: int) -> tuple[int, int, Id]:
        """Make the log begin a new epoch above `least`, because it has lost entries.

        If the log is not in the epoch `ended` any more, another process was faster, and no epoch begins. Return the
        log's epoch, the number of its last entry, and the id of the last item in the stream.
        """
        return await self.beat(BEAT_MS, ended, least)

    def _note(self, epoch: int, seq: int) -> None:
        if self._history.told(epoch, seq):
            logger.error(
                "log %s has lost entries (failover, restore or flush); the nodes put back what they have (epoch %d)",
                self._primary.name,
                epoch,
            )

    async def _durably(self, script: str, *arguments: Any, within_s: float = WRITE_S) -> Any:
        """Run a script and return its answer once its writes are as durable as configured."""
        call = ("EVAL", script, 1, self._keys, *self._history.mark, *arguments)
        try:
            return await run_durably(
                self._primary, call, replicas=self._replicas, volatile=self._volatile, within_s=within_s
            )
        except Unsynced:
            self.unproven = True
            raise
