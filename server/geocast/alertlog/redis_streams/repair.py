"""The repair of a log that has lost entries, from the copies in this process's memory (Rules 2 to 4 of the package).

    follower and appender ── keep(entry) ──> StoredEntries: the entries of alerts that have not ended
                                                  │
    heartbeat ── a new epoch or server ──> Repairer.begin
                                                  │ 1. alerts and calls that are over; 2. a second later, the others
                                                  v
    append.lua, "mending", for up to 500 chains at once; it answers for each entry:
        stored           the log had lost the entry; it has been restored
        same, ours       the log has the entry
        other            the log has another entry under this number: a conflict (Rule 3)
        refused          the entry may not follow the entries in the log

A *chain* is the sequence of entries of one alert or call. An *epoch* is a number that rises when the log has lost
entries. All processes repair the log at the same time, and Redis runs their scripts one after another. So each entry is
stored by the first process that has it, and the other processes get the answer `same`.
Example: node A knows the entries 1 and 2 of an alert, and node B knows 2 and 3. The log has lost all three. A stores 1
and 2; B gets `same` for 2 and stores 3. If B is first, it stores 2 and 3, and A then stores 1. The chain is complete
again, whatever the order.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

from ...model.alert import Untrusted
from ...model.call import KINDS, MOVED, Acceptance, CallEntry, Release, body_of
from ...model.errors import LogUnavailable, trace
from .. import codec, drop_unverified_cancels
from ..decoding import in_turns
from .delivery_counts import DeliveryCounts
from .history import History
from .stored import Id, Stored, StoredDecoder
from .writer import Writer

logger = logging.getLogger(__name__)

RETRY_S = 0.25  # the time between a failed attempt and the next one
PAUSE_S = 1.0  # the time between putting back alerts that are over, and the other alerts (Rule 2)
MAX_SCRIPT = 500  # the largest number of alerts that one script puts back
FORGET_S = 30.0  # the time between two searches for alerts that have ended
LONGEST_LIFE_S = 8 * 86_400.0  # the longest life that a policy allows (a week), and a day for clocks that differ

Chain = Sequence[Stored]


class _Alert:
    """The copies of one alert's entries, by number, and what two clocks showed when the entries arrived."""

    __slots__ = ("_learnt", "_wall_ahead_ms", "entries")

    def __init__(self) -> None:
        self.entries: dict[int, Stored] = {}
        self._learnt = time.monotonic()
        # The wall clock minus the monotonic clock, in ms: the smallest difference seen when an entry arrived.
        self._wall_ahead_ms = float("inf")

    def look_at_the_clocks(self) -> None:
        """Record the current difference between the wall clock and the monotonic clock, if it is the smallest so far.

        Example: the wall clock was an hour ahead when revision 1 arrived, and is set right before revision 2 arrives.
        The difference at revision 2 is smaller by an hour, and corrects the mistake.
        """
        self._wall_ahead_ms = min(self._wall_ahead_ms, time.time_ns() / 1_000_000 - time.monotonic() * 1000)

    def forget_places(self) -> None:
        """If this is a call for help that has ended, drop its `call` entries, because they contain a place (Rule 4)."""
        if any(stored.kind == "end" for stored in self.entries.values()):
            self.entries = {number: stored for number, stored in self.entries.items() if stored.kind != "call"}

    def ended(self, now_ms: float, now: float) -> bool:
        """Return whether the alert has ended according to two estimates of the current time.

        Also return True if the alert is older than any alert can be. The first estimate is `now_ms`, in ms since 1970.
        The second is the wall clock's time when the alert arrived, plus the time that has passed since then by the
        monotonic clock. `now` is the monotonic clock in seconds.
        """
        now_ms = min(now_ms, now * 1000 + self._wall_ahead_ms)
        last_ms = max(stored.ends_at for stored in self.entries.values())
        return last_ms <= now_ms or now - self._learnt >= LONGEST_LIFE_S


class StoredEntries:
    """Copies of the entries of all alerts that have not ended, in this process's memory (Rule 2).

    If a copy is dropped too early, it cannot be put back. So an alert counts as ended only if three clocks agree:

    1. this machine's wall clock, which may be ahead for a moment;
    2. this machine's wall clock when the alert arrived, plus the time since then by the monotonic clock;
    3. the newest id of the stream, which is a time of Redis' clock. If that clock was ahead once, the ids stay ahead,
       because they never decrease.

    Example: the clock of this machine jumps a day ahead. According to clock 1 all alerts are over. According to
    clocks 2 and 3 they are not, so all copies are kept.
    Example: Redis' clock was a day ahead once. According to clock 3 all later alerts end a day too early, but clocks 1
    and 2 are right.

    An alert that arrived longer ago than any alert can last is dropped in any case.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._alerts: dict[str, _Alert] = {}
        self._forgot = float("-inf")  # the monotonic time of the last search for ended alerts

    def __contains__(self, alert_id: str) -> bool:
        return alert_id in self._alerts

    def keep(self, stored: Stored) -> None:
        """Keep a copy of an entry in memory until its alert has ended.

        If there is a copy of an entry with the same id and number already, keep that one instead.
        """
        alert = self._alert(stored.id)
        alert.entries.setdefault(stored.revision, stored)
        alert.forget_places()

    def forget(self, copies: deque[tuple[Id, Stored]]) -> None:
        """Drop these copies, with the ids of their items. What was read does not agree with the primary."""
        while copies:
            _, stored = copies.pop()
            entries = self._alerts[stored.id].entries if stored.id in self else {}
            if entries.get(stored.revision) == stored:
                del entries[stored.revision]
            if not entries:
                self._alerts.pop(stored.id, None)

    def replace(self, stored: Stored) -> None:
        """Replace the copy of an entry with `stored`, which the log now has under the same id and number (Rule 3)."""
        alert = self._alert(stored.id)
        alert.entries[stored.revision] = stored
        alert.forget_places()

    def _alert(self, alert_id: str) -> _Alert:
        """Return the object that has the copies of one alert's entries.

        It is created if it does not exist. Also record in it what the clocks show now.
        """
        if alert_id not in self._alerts:
            self._alerts[alert_id] = _Alert()
        alert = self._alerts[alert_id]
        alert.look_at_the_clocks()
        return alert

    def forget_ended_now_and_then(self) -> None:
        """Drop alerts that have ended. Do nothing if this was last done less than FORGET_S seconds ago."""
        if time.monotonic() - self._forgot >= FORGET_S:
            self.forget_ended()

    def forget_ended(self) -> None:
        """Drop the entries of all alerts that have ended."""
        self._forgot = now = time.monotonic()
        now_ms = min(time.time_ns() // 1_000_000, self._history.top[0])
        self._alerts = {i: alert for i, alert in self._alerts.items() if not alert.ended(now_ms, now)}

    def before(self, stored: Stored) -> Chain:
        """Return the copies of the earlier entries of the same alert, ordered by number.

        Their numbers are lower than that of `stored`.
        """
        alert = self._alerts.get(stored.id)
        entries = {} if alert is None else alert.entries
        return [entries[number] for number in sorted(entries) if number < stored.revision]

    def chains(self) -> Iterator[Chain]:
        """Yield one list for each alert in memory now. It has the copies of the alert's entries, ordered by number."""
        for alert in list(self._alerts.values()):
            yield [alert.entries[number] for number in sorted(alert.entries)]


class Repairer:
    """Restores entries that the log has lost, in a background task.

    The method `begin` starts the task, or restarts it if it is running.
    """

    def __init__(
        self,
        name: str,
        writer: Writer,
        known: StoredEntries,
        counting: DeliveryCounts,
        chain_of: Callable[[str], Awaitable[Chain]],
        aside: StoredDecoder,
    ) -> None:
        """Prepare to put back the entries in `known`, and the delivery counts in `counting`.

        `name` is the name of the log for log messages. `chain_of(id)` returns the readable entries that the log has
        with this id. `aside` decodes entries and checks whether they are accepted.
        """
        self._aside = aside
        self.put_back = 0  # how many lost entries have been put back
        self.conflicts = 0  # how many were not put back, because the log has other entries under their numbers
        self._name = name
        self._writer = writer
        self._known = known
        self._counting = counting
        self._chain_of = chain_of
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start or restart the task that puts back what the log has lost. It repeats the repair until it succeeds."""
        if self._task is not None:
            self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._mend_until_done())

    async def stop(self) -> None:
        """Cancel the task and wait until it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _mend_until_done(self) -> None:
        """Repair the log; whenever it is unavailable, wait and repeat the whole repair.

        If an unexpected error occurs, log it and give up.
        """
        while True:
            try:
                return await self._mend()
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                logger.error("the repair of a log that has lost entries failed: %s", trace(error))
                return None

    async def _mend(self) -> None:
        """Put back all known entries that the log has lost: first the alerts and calls that are over, then the others.

        Between the two steps there is a pause, in which the other processes put back the cancels that they know (Rule
        2). Without the pause, a process that knows an alert but not its cancel could bring the alert back to life for a
        moment.
        """
        self._known.forget_ended()
        chains = [accepted async for chain in in_turns(self._known.chains()) if (accepted := self._accepted(chain))]
        before = self.put_back
        for cancelled in (True, False):
            wanted = [chain for chain in chains if any(stored.kind in codec.ENDINGS for stored in chain) is cancelled]
            for start in range(0, len(wanted), MAX_SCRIPT):
                await self._put_back(wanted[start : start + MAX_SCRIPT])
            if cancelled:
                await asyncio.sleep(PAUSE_S)
        await self._counting.write_again()
        if self.put_back > before:
            logger.warning("log %s had lost %d entries, which were put back", self._name, self.put_back - before)

    def _accepted(self, chain: Chain) -> Chain:
        """Return those entries of an alert that are accepted now; the others are not put back (LogJ3).

        Example: a reviewer's key was revoked after the reviewer had approved an alert. The alert's revision is not put
        back.
        """
        verifier = self._aside.verifier
        entries = drop_unverified_cancels([self._aside.believed(each, "a copy in memory") for each in chain], verifier)
        return [stored for stored, entry in zip(chain, entries, strict=True) if not isinstance(entry, Untrusted)]

    async def _put_back(self, chains: Sequence[Chain]) -> None:
        """Put the entries of some alerts back into the log with one script, and handle its answers (Rule 3).

        Each item of `chains` has the entries of one alert, ordered by number.
        """
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
            if is_lost and stored.kind in ("cancel", *MOVED):
                # The log once had this entry, so somebody may rely on it. It is appended again, under another number.
                moved = await self._append_again(stored, last, last_kind)
            if what == b"other":
                # No error is logged for an entry of a call for help that was appended under another number, because
                # nothing is lost then.
                if not (moved and stored.kind in MOVED):
                    self.conflicts += 1
                    logger.error(
                        "log %s: a lost entry can't be put back: another entry now has its number",
                        self._name,
                    )
                # Keep in memory the entry that the log has under this number, in place of the lost one, if it is
                # accepted.
                kind, ends_at, payload = theirs
                with contextlib.suppress(ValueError):
                    there = stored._replace(kind=kind.decode(), ends_at=int(ends_at), payload=payload)
                    if there in self._accepted([*self._known.before(there), there]):
                        self._known.replace(there)

    async def _append_again(self, stored: Stored, last: int, last_kind: bytes) -> bool:
        """Append a lost entry under a new number, the one after the last entry in the log (Rule 3).

        Return whether the entry is in the log now. The entry is not appended if its alert or call is over, or if the
        log has it under another number already. `last` and `last_kind` are the number and the kind of the last entry in
        the log.
        Example: two nodes know a `claim` with the number 2, which the log has lost, and the log has another entry 2.
        Node A appends the claim as entry 3. Node B finds A's entry by its encrypted part, and appends nothing.
        Example: before this node appends its entry as number 3, a third node appends another entry 3. append.lua then
        answers `other` with the new last number, and this node tries number 4.
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
        """Return whether the log already has this entry of a call, under the same number or a different one.

        For the cancel of an alert, return False without a search: append.lua refuses a second cancel anyway, because no
        entry may follow a cancel (rule LogA1).
        """
        if stored.kind not in MOVED:
            return False
        return stored.seal() in {each.seal() for each in await self._chain_of(stored.id)}


def _given_back(chain: Chain) -> set[Stored]:
    """Return those `claim` entries of a call that are no longer needed, because the seat was given back later.

    (A `claim` gives a responder a seat, that is, a place among the responders who go to the call.)
    """
    held: dict[int, Stored] = {}
    found: set[Stored] = set()
    for stored in chain:
        if stored.kind not in KINDS:
            return found  # an alert; don't decode it
        with contextlib.suppress(ValueError):
            entry = stored.entry()
            body = body_of(entry) if isinstance(entry, CallEntry) else None
            match body:
                case Acceptance(seat=seat):
                    held[seat] = stored
                case Release(seat=seat) if seat in held:
                    found.add(held.pop(seat))
    return found
