"""What the log has lost is put back (Rule 2 to Rule 4)."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

from ...errors import LogUnavailable, trace
from ...model.alert import Untrusted
from ...model.call import MOVED, Acceptance, CallEntry, Release, body_of
from .. import codec, drop_unverified_cancels
from .delivery_counts import DeliveryCounts
from .history import History
from .stored import Quarantine, Stored
from .writer import Writer

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # after Redis could not be written
PAUSE_S = 1.0  # between what is cancelled and the rest (Rule 2)
MAX_SCRIPT = 500  # alerts that one script puts back
FORGET_S = 30.0  # between looks for alerts that have ended
LONGEST_LIFE_S = 8 * 86_400.0  # the longest `max_age_s` of a policy is a week; a day is for clocks that differ

Chain = Sequence[Stored]


class _Alert:
    """The entries of one alert by their numbers, and how the clocks stood when this process learnt of it."""

    __slots__ = ("_learnt", "_wall_ahead_ms", "entries")

    def __init__(self) -> None:
        self.entries: dict[int, Stored] = {}
        self._learnt = time.monotonic()
        self._wall_ahead_ms = float("inf")  # of the monotonic clock, in ms: the least at which an entry was kept

    def look_at_the_clocks(self) -> None:
        """Another entry of it is kept: if the wall clock was set back since the last one, it was ahead then."""
        self._wall_ahead_ms = min(self._wall_ahead_ms, time.time_ns() / 1_000_000 - time.monotonic() * 1000)

    def forget_places(self) -> None:
        """Let go of the `call` entries of a call that has an end (Rule 4)."""
        if any(stored.kind == "end" for stored in self.entries.values()):
            self.entries = {number: stored for number, stored in self.entries.items() if stored.kind != "call"}

    def ended(self, now_ms: float, now: float) -> bool:
        """Whether it has: by this time since 1970, and by the wall clock of then and the time since; or of old age."""
        now_ms = min(now_ms, now * 1000 + self._wall_ahead_ms)
        last_ms = max(stored.ends_at for stored in self.entries.values())
        return last_ms <= now_ms or now - self._learnt >= LONGEST_LIFE_S


class StoredEntries:
    """The entries of alerts that have not ended, as they are stored (Rule 2).

    Whether an alert has ended is not left to one clock. Ours may be ahead for a moment. So may that of Redis, and then
    the ids of the stream, which never go back, stay ahead for good. But ours may have been right when the alert came.
    So it has ended if all three say so: our clock now, our clock of then and the time since, and the newest id. It has
    ended, too, if it was learnt of longer ago than any alert lives.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._alerts: dict[str, _Alert] = {}
        self._forgot = float("-inf")  # the monotonic time at which entries of ended alerts were last let go

    def __contains__(self, alert_id: str) -> bool:
        return alert_id in self._alerts

    def keep(self, stored: Stored) -> None:
        """Know an entry until its alert has ended; the first one under its number stays."""
        alert = self._alert(stored.id)
        alert.entries.setdefault(stored.revision, stored)
        alert.forget_places()

    def replace(self, stored: Stored) -> None:
        """The log has this one under its number (Rule 3)."""
        alert = self._alert(stored.id)
        alert.entries[stored.revision] = stored
        alert.forget_places()

    def _alert(self, alert_id: str) -> _Alert:
        if alert_id not in self._alerts:
            self._alerts[alert_id] = _Alert()
        alert = self._alerts[alert_id]
        alert.look_at_the_clocks()
        return alert

    def forget_ended_now_and_then(self) -> None:
        """Let go of alerts that have ended, if that was not done in the last FORGET_S."""
        if time.monotonic() - self._forgot >= FORGET_S:
            self.forget_ended()

    def forget_ended(self) -> None:
        """Let go of alerts that have ended."""
        self._forgot = now = time.monotonic()
        now_ms = min(time.time_ns() // 1_000_000, self._history.top[0])
        self._alerts = {i: alert for i, alert in self._alerts.items() if not alert.ended(now_ms, now)}

    def before(self, stored: Stored) -> Chain:
        """Return the entries of an alert that are known in front of this one, in order."""
        alert = self._alerts.get(stored.id)
        entries = {} if alert is None else alert.entries
        return [entries[number] for number in sorted(entries) if number < stored.revision]

    def chains(self) -> list[Chain]:
        """The entries of each alert, in order."""
        return [[alert.entries[number] for number in sorted(alert.entries)] for alert in self._alerts.values()]


class Repairer:
    """Puts back what is known; begun again, it starts over."""

    def __init__(
        self,
        name: str,
        writer: Writer,
        known: StoredEntries,
        counting: DeliveryCounts,
        chain_of: Callable[[str], Awaitable[Chain]],
        aside: Quarantine,
    ) -> None:
        """`name`: of the log, for what is said; `chain_of`: what the log has under an id, as far as it can be read.

        `aside` knows what is believed.
        """
        self._aside = aside
        self.put_back = 0  # entries that the log had lost
        self.conflicts = 0  # entries that could not be put back, because the log has others under their numbers
        self._name = name
        self._writer = writer
        self._known = known
        self._counting = counting
        self._chain_of = chain_of
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
        chains = [believed for chain in self._known.chains() if (believed := self._believed(chain))]
        before = self.put_back
        for cancelled in (True, False):
            wanted = [chain for chain in chains if any(stored.kind in codec.ENDINGS for stored in chain) is cancelled]
            for start in range(0, len(wanted), MAX_SCRIPT):
                await self._put_back(wanted[start : start + MAX_SCRIPT])
            if cancelled:
                await asyncio.sleep(PAUSE_S)
        await self._counting.write_again()
        if self.put_back > before:
            logger.warning("log %s: %d entries that it had lost were put back", self._name, self.put_back - before)

    def _believed(self, chain: Chain) -> Chain:
        """Those entries of an alert that are believed now (LogJ3)."""
        verifier = self._aside.verifier
        entries = drop_unverified_cancels(
            [self._aside.believed(each, "what is to be put back") for each in chain], verifier
        )
        return [stored for stored, entry in zip(chain, entries, strict=True) if not isinstance(entry, Untrusted)]

    async def _put_back(self, chains: Sequence[Chain]) -> None:
        entries = [(stored, stored is not chain[-1]) for chain in chains for stored in chain]
        token = uuid.uuid4().hex
        arguments = [stored.arguments(token, more=more) for stored, more in entries]
        answers = await self._writer.store(arguments, mending=True)
        given_back = {claim for chain in chains for claim in _given_back(chain)}
        for (stored, _), (what, last, last_kind, *theirs) in zip(entries, answers, strict=True):
            if what == b"stored":
                self.put_back += 1
            is_lost = what in (b"other", b"refused") and stored not in given_back
            moved = False
            if is_lost and stored.kind in ("cancel", *MOVED):  # it was accepted (Rule 3)
                moved = await self._append_again(stored, last, last_kind)
            if what == b"other":
                if not (moved and stored.kind in MOVED):  # of a call that one is lost no more, so nobody has to act
                    self.conflicts += 1
                    logger.error("log %s: an entry can't be put back: the log has another one there", self._name)
                kind, ends_at, payload = theirs
                with contextlib.suppress(ValueError):
                    there = stored._replace(kind=kind.decode(), ends_at=int(ends_at), payload=payload)
                    if there in self._believed([*self._known.before(there), there]):
                        self._known.replace(there)

    async def _append_again(self, stored: Stored, last: int, last_kind: bytes) -> bool:
        """Append it behind the last entry there, unless that is the end, or the log has it under another number.

        Returns whether the log has it now.
        """
        while not await self._is_there(stored):
            if last_kind.decode() in codec.ENDINGS:
                return False
            moved = stored.renumbered(last + 1)
            [(what, last, last_kind, *_)] = await self._writer.store([moved.arguments(uuid.uuid4().hex, more=False)])
            if what in (b"stored", b"same"):
                self._known.keep(moved)
                self.put_back += what == b"stored"
                return True
            if what != b"other":
                return False
        return True

    async def _is_there(self, stored: Stored) -> bool:
        """Whether the log has this entry of a call, under whatever number."""
        if stored.kind not in MOVED:
            return False
        return stored.seal() in {each.seal() for each in await self._chain_of(stored.id)}


def _given_back(chain: Chain) -> set[Stored]:
    """The claims of a call behind which their seat was given back."""
    held: dict[int, Stored] = {}
    found = set()
    for stored in chain:
        with contextlib.suppress(ValueError):
            entry = stored.entry()
            body = body_of(entry) if isinstance(entry, CallEntry) else None
            match body:
                case Acceptance(seat=seat):
                    held[seat] = stored
                case Release(seat=seat) if seat in held:
                    found.add(held.pop(seat))
    return found
