"""What the log has lost is put back (Rule 2, Rule 3)."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

from ...errors import LogUnavailable, trace
from .counting import Counting
from .history import History
from .stored import Stored
from .writer import Writer

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # after Redis could not be written
PAUSE_S = 1.0  # between what is cancelled and the rest (Rule 2)
MAX_SCRIPT = 500  # alerts that one script puts back
FORGET_S = 30.0  # between looks for alerts that have ended

Chain = Sequence[Stored]


class Known:
    """The entries of alerts that have not ended, as they are stored (Rule 2)."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._entries: dict[str, dict[int, Stored]] = {}
        self._forgot = float("-inf")  # the monotonic time at which entries of ended alerts were last let go

    def __contains__(self, alert_id: str) -> bool:
        return alert_id in self._entries

    def keep(self, stored: Stored) -> None:
        """Know an entry until its alert has ended; the first one under its number stays."""
        self._entries.setdefault(stored.id, {}).setdefault(stored.revision, stored)

    def replace(self, stored: Stored) -> None:
        """The log has this one under its number (Rule 3)."""
        self._entries.setdefault(stored.id, {})[stored.revision] = stored

    def forget_ended_now_and_then(self) -> None:
        """Let go of alerts that have ended, if that was not done in the last FORGET_S."""
        if time.monotonic() - self._forgot >= FORGET_S:
            self.forget_ended()

    def forget_ended(self) -> None:
        """Let go of alerts that have ended."""
        self._forgot = time.monotonic()
        # Our own clock may be ahead, and so may that of Redis, by which it makes ids: the earlier of the two counts.
        now_ms = min(time.time_ns() // 1_000_000, self._history.top[0])
        self._entries = {i: e for i, e in self._entries.items() if max(s.ends_at for s in e.values()) > now_ms}

    def chains(self) -> list[Chain]:
        """The entries of each alert, in order."""
        return [[entries[number] for number in sorted(entries)] for entries in self._entries.values()]


class Mender:
    """Puts back what is known; begun again, it starts over."""

    def __init__(
        self,
        name: str,
        writer: Writer,
        known: Known,
        counting: Counting,
        append: Callable[[Stored], Awaitable[bool]],
    ) -> None:
        """`name`: of the log, for what is said; `append`: for a cancel that has lost its number (Rule 3)."""
        self.put_back = 0  # entries that the log had lost
        self.conflicts = 0  # entries that could not be put back, because the log has others under their numbers
        self._name = name
        self._writer = writer
        self._known = known
        self._counting = counting
        self._append = append
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Put back what the log lacks, however long it takes."""
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._mend_for_sure())

    async def stop(self) -> None:
        """Leave off putting back, and wait until that has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _mend_for_sure(self) -> None:
        while True:
            try:
                return await self._mend()
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                logger.error("putting back failed: %s", trace(error))
                return None

    async def _mend(self) -> None:
        self._known.forget_ended()
        chains, before = self._known.chains(), self.put_back
        for cancelled in (True, False):
            wanted = [chain for chain in chains if any(stored.kind == "cancel" for stored in chain) is cancelled]
            for start in range(0, len(wanted), MAX_SCRIPT):
                await self._put_back(wanted[start : start + MAX_SCRIPT])
            if cancelled:
                await asyncio.sleep(PAUSE_S)
        await self._counting.write_again()
        if self.put_back > before:
            logger.warning("log %s: %d entries that it had lost were put back", self._name, self.put_back - before)

    async def _put_back(self, chains: Sequence[Chain]) -> None:
        entries = [(stored, stored is not chain[-1]) for chain in chains for stored in chain]
        token = uuid.uuid4().hex
        arguments = [stored.arguments(token, more=more) for stored, more in entries]
        answers = await self._writer.store(arguments, mending=True)
        for (stored, _), (what, last, last_kind, *theirs) in zip(entries, answers, strict=True):
            if what == b"stored":
                self.put_back += 1
            lost_cancel = what in (b"other", b"refused") and stored.kind == "cancel" and last_kind != b"cancel"
            if lost_cancel:  # it was accepted, so it is appended under the next number (Rule 3)
                await self._append(stored.renumbered(last + 1))
            if what == b"other":
                self.conflicts += 1
                logger.error("log %s: an entry can't be put back: the log has another one there", self._name)
                kind, ends_at, payload = theirs
                with contextlib.suppress(ValueError):
                    there = stored._replace(kind=kind.decode(), ends_at=int(ends_at), payload=payload)
                    self._known.replace(there)
