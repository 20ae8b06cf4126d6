"""The scripts whose writes have to be durable: appends and heartbeats.

Each script is followed by a wait for the disks on the same connection. Its answer contains the epoch and the number of
the last entry, which are passed to the history (`history.History`).
"""

import logging
from collections.abc import Iterable
from typing import Any

from ...errors import LogUnavailable
from . import scripts
from .connection import Primary
from .history import History
from .stored import Id, parse_id

logger = logging.getLogger(__name__)

APPEND_S = 2.5  # the time in which an entry has to be durable, with all attempts
SYNC_S = 1.5  # the time in which the disk and the replicas have to have it; `everysec` takes a second
ASK_REPLICAS_MS = (2, 5, 10, 20, 50, 100)  # the lengths of the waits, each of which asks the replicas again
BEAT_MS = 900  # if the last heartbeat is younger, no other one is written


class Unsynced(LogUnavailable):
    """The error for a write that is not yet on enough disks."""


async def run_durably(
    primary: Primary, call: tuple[Any, ...], *, replicas: int, volatile: bool, within_s: float = APPEND_S
) -> Any:
    """Return the answer to a script that writes, once its writes are on the server's disk and on `replicas` replicas.

    Raises Unsynced if that took too long, and LogUnavailable.
    """
    # A replica reports how far it has synced when it is asked, at the beginning of a wait, and otherwise once a second.
    # So several waits of growing length ask it repeatedly. Once enough replicas have synced, all other waits end at
    # once.
    waits_ms = [*(ASK_REPLICAS_MS if replicas else ()), max(1, int(min(SYNC_S, within_s / 2) * 1000))]
    command = ("WAIT",) if volatile else ("WAITAOF", 1)
    waits = [(*command, replicas, wait_ms) for wait_ms in waits_ms]
    answer, *_, synced = await primary.pipe([call, *waits], within_s=within_s, confirmed=True)
    local, on_replicas = (1, synced) if volatile else synced
    if local < 1 or on_replicas < replicas:
        here = "here" if local else "not here"
        raise Unsynced(f"synced {here}, and on {on_replicas} of {replicas} replicas")
    return answer


class Writer:
    """The runner of the scripts that write. It waits after each of them until its writes are durable."""

    def __init__(self, primary: Primary, keys: str, history: History, *, replicas: int, volatile: bool) -> None:
        """Write at `primary`. `keys` is the prefix of all keys of the log.

        `replicas` and `volatile` have the same meaning as in `RedisStreamsLog`.
        """
        self.unproven = False  # whether a write was not synced in time, and none has been synced since
        self._primary = primary
        self._keys = keys
        self._history = history
        self._replicas = replicas
        self._volatile = volatile

    async def store(
        self, entries: Iterable[tuple[Any, ...]], within_s: float = APPEND_S, *, mending: bool = False
    ) -> list[Any]:
        """Run `append.lua`, wait until the stored entries are durable, and return one answer for each entry.

        `mending`: the entries are put back, so gaps in their numbers are allowed.
        """
        arguments = [argument for entry in entries for argument in entry]
        answer: list[Any] = await self._durably(scripts.APPEND, int(mending), *arguments, within_s=within_s)
        epoch, seq, *answers = answer
        self._note(epoch, seq)
        return answers

    async def beat(self, young_ms: int = BEAT_MS, ended: int | str = "", least: int = 0) -> tuple[int, int, Id]:
        """Write a heartbeat unless there is one younger than `young_ms`, and wait until all entries are durable.

        Return the epoch, the number of the last entry, and the id of the last item of the stream. With `ended`, the log
        begins a new epoch above `least` if it is still in the epoch `ended`.
        """
        epoch, seq, place = await self._durably(scripts.BEAT, young_ms, ended, least)
        top = parse_id(place)
        self._note(epoch, seq)
        self._history.told_top(top)
        return epoch, seq, top

    async def prove(self) -> tuple[int, int]:
        """Show that Redis can write durably, and return the epoch and the number of the last entry.

        After a write that was not synced in time, a new heartbeat is written and synced. A young heartbeat that exists
        already would prove nothing: it may have been synced before the disk stopped.
        """
        epoch, seq, _ = await self.beat(0 if self.unproven else BEAT_MS)
        self.unproven = False
        return epoch, seq

    async def new_epoch(self, ended: int, least: int) -> tuple[int, int, Id]:
        """Make the log begin an epoch above `least` because its history was rewound; return the same as `beat`.

        Nothing happens if the log is not in the epoch `ended` any more, because another process was faster.
        """
        return await self.beat(BEAT_MS, ended, least)

    def _note(self, epoch: int, seq: int) -> None:
        if self._history.told(epoch, seq):
            logger.error("log %s was rewound, cut or flushed; epoch %d begins", self._primary.name, epoch)

    async def _durably(self, script: str, *arguments: Any, within_s: float = APPEND_S) -> Any:
        """Return the answer of a script, once its writes are as durable as configured."""
        call = ("EVAL", script, 1, self._keys, *self._history.mark, *arguments)
        try:
            return await run_durably(
                self._primary, call, replicas=self._replicas, volatile=self._volatile, within_s=within_s
            )
        except Unsynced:
            self.unproven = True
            raise
