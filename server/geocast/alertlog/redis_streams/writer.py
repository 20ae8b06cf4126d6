"""The scripts whose writes have to be durable: appends and heartbeats. What they answer is told to the history."""

import logging
from collections.abc import Iterable
from typing import Any

from ...errors import LogUnavailable
from . import scripts
from .connection import Primary
from .history import History
from .stored import Id, parse_id

logger = logging.getLogger(__name__)

APPEND_S = 2.5  # for an entry to be stored and durable, attempts and all
SYNC_S = 1.5  # for the disk and the replicas to have it: `everysec` takes a second
ASK_REPLICAS_MS = (2, 5, 10, 20, 50, 100)  # how long to wait before they are asked again
BEAT_MS = 900  # a younger heartbeat is not followed by another


class Unsynced(LogUnavailable):
    """What was written is not on enough disks yet."""


async def run_durably(
    primary: Primary, call: tuple[Any, ...], *, replicas: int, volatile: bool, within_s: float = APPEND_S
) -> Any:
    """What Redis answers to a writing script, once what it wrote is on its disk and on so many replicas.

    Raises Unsynced if that took too long, and LogUnavailable.
    """
    # A replica tells how far it has synced when it is asked, which is when a wait begins, and else once a second.
    # So it is asked again and again; once there are enough the waits that are left answer at once.
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
    """Runs the writing scripts, each with a wait behind it until what it wrote is durable."""

    def __init__(self, primary: Primary, keys: str, history: History, *, replicas: int, volatile: bool) -> None:
        """`keys`: what all names of the log begin with. `replicas`, `volatile`: as for the log."""
        self.unproven = False  # something was not synced in time, and nothing has been since
        self._primary = primary
        self._keys = keys
        self._history = history
        self._replicas = replicas
        self._volatile = volatile

    async def store(
        self, entries: Iterable[tuple[Any, ...]], within_s: float = APPEND_S, *, mending: bool = False
    ) -> list[Any]:
        """Run `append.lua`, and wait until what it stored is durable. Its answers, one for each entry."""
        arguments = [argument for entry in entries for argument in entry]
        answer: list[Any] = await self._durably(scripts.APPEND, int(mending), *arguments, within_s=within_s)
        epoch, seq, *answers = answer
        self._note(epoch, seq)
        return answers

    async def beat(self, young_ms: int = BEAT_MS, ended: int | str = "", least: int = 0) -> tuple[int, int, Id]:
        """(epoch, seq, id of the last entry of the stream), all durable; there is a heartbeat that young."""
        epoch, seq, place = await self._durably(scripts.BEAT, young_ms, ended, least)
        top = parse_id(place)
        self._note(epoch, seq)
        self._history.told_top(top)
        return epoch, seq, top

    async def prove(self) -> tuple[int, int]:
        """(epoch, seq); a log that was not synced in time has to sync a heartbeat that is written now.

        One that is young already was written before, so that it is synced proves nothing of what comes next.
        """
        epoch, seq, _ = await self.beat(0 if self.unproven else BEAT_MS)
        self.unproven = False
        return epoch, seq

    async def new_epoch(self, ended: int, least: int) -> tuple[int, int, Id]:
        """History was rewound: have the log begin an epoch above `least`, if it is still in the epoch `ended`."""
        return await self.beat(BEAT_MS, ended, least)

    def _note(self, epoch: int, seq: int) -> None:
        if self._history.told(epoch, seq):
            logger.error("log %s: its history was rewound, cut or flushed: epoch %d begins", self._primary.name, epoch)

    async def _durably(self, script: str, *arguments: Any, within_s: float = APPEND_S) -> Any:
        """What a writing script answers, once what it wrote is as durable as was asked."""
        call = ("EVAL", script, 1, self._keys, *self._history.mark, *arguments)
        try:
            return await run_durably(
                self._primary, call, replicas=self._replicas, volatile=self._volatile, within_s=within_s
            )
        except Unsynced:
            self.unproven = True
            raise
