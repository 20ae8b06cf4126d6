"""The reader of the alert log: it applies every entry to the live alerts of this process, in order and forever.

`LogReader` follows the log and calls `apply` for each entry; `LogHealth` knows whether the log can be used. Four things
make reading harder than a loop over entries:

The event loop      The log may deliver thousands of entries at a time, for example after a repair, while sessions need
                    the event loop. So the reader lets the loop run after APPLY_AT_ONCE entries or APPLY_S seconds, but
                    never between two consecutive entries of one alert. Example: the log restores revision 1 and its
                    cancel (LogF4). If the loop ran between them, the fan-out would send revision 1 although the alert
                    is cancelled.
A wall clock ahead  At the start, entries of alerts that have ended are not read, because there may be many. If the wall
                    clock was ahead at the start, live alerts were left out. Example: a node starts at 10:00 with a
                    clock that says 12:00, and leaves out an alert that expires at 11:00. When the clock is set right at
                    10:05, the reader reads the log again and applies that alert.
Changed keys        An entry is *believed* if the verifier accepts its approvals, which depends on the reviewers' keys
                    and the policy. When they change, live alerts are verified again from memory at once, even if the
                    log fails (HD17), and the log is read again for entries that were not believed (NC3).
Missing chains      Verifying an entry needs the kinds of all earlier entries of its alert, its *chain* (HD1). If some
                    of them had ended when the log was read, this process does not know them, and the reader asks the
                    log for the alert's history.
"""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric

from .. import tasks
from ..alertlog import HEARTBEAT_S, AlertLog, Counts, Positioned
from ..alertlog.decoding import in_turns
from ..clock import Clock, Turn
from ..metrics import counter
from ..model.alert import Entry, OtherKind, Untrusted, is_id
from ..model.call import CallEntry
from ..model.errors import LogUnavailable, trace
from .live_alerts import LiveAlerts

logger = logging.getLogger(__name__)

PURGE_S = 60.0  # time between two calls of `purge`
DEAF_S = 3 * HEARTBEAT_S  # if no batch has come for this long, not even an empty one, the reader counts as stuck
RETRY_S = 0.25  # time between attempts to read a log that could not be read
APPLY_AT_ONCE = 64  # limits on what is applied in one turn of the event loop: number of entries …
APPLY_S = 0.004  # … and seconds: a polygon of 500 corners takes 0.3 ms (HD4)
VERIFY_AT_ONCE = 8  # number of live alerts verified in one turn of the event loop: two signatures take 0.2 ms
FREEZE_AT = 500  # number of entries read again after which the garbage collector no longer looks at them

Followed = Entry | CallEntry | Untrusted
_ChainAndHistory = tuple[Sequence[Followed], Sequence[Entry | OtherKind]]  # (entries, history to verify them)


class LogHealth(tasks.Part):
    """Tracks whether the alert log can be used, and if not, why.

    All readers and writers of the log in a process share it.
    """

    def __init__(self, alert_log: AlertLog, clock: Clock) -> None:
        self.entries_failed = 0  # number of entries that could not be applied
        self._errors: dict[str, str] = {}  # "read" or "written" -> why the last attempt failed
        self._failed: dict[tuple[LogReader, str], Followed] = {}  # (reader, id) -> the entry that could not be applied
        self._log = alert_log
        self._clock = clock
        self._storing_since = float("inf")  # the monotonic time at which `store` began to wait for the log

    async def store(self, counts: Mapping[str, Counts]) -> bool:
        """Store delivery counts in the log, and return whether that succeeded.

        Call this method regularly, even with no counts: it detects whether the log can be written.
        """
        self._storing_since = time.monotonic()
        try:
            await self._log.add_counts(counts)
        except LogUnavailable as error:
            self.failed("written", error)
            return False
        finally:
            self._storing_since = float("inf")
        self.worked("written")
        return True

    async def purge(self) -> None:
        """Make the log delete old alerts (LogR1).

        If the log can't be used now, do nothing; the next call will do it.
        """
        with contextlib.suppress(LogUnavailable):
            await self._log.purge(self._clock.now().wall_ms)
            self.worked("written")

    def failed(self, what: str, error: LogUnavailable) -> None:
        """Record that an attempt to read or write the alert log failed.

        `what` is "read" or "written". Only the first of several failures in a row is logged.
        """
        if not self._errors:
            logger.error("the alert log can't be %s (%s); trying again", what, error)
        self._errors[what] = str(error)

    def worked(self, what: str) -> None:
        """Record that the alert log was read or written. Everybody who has done so calls this, so no error stays."""
        if self._errors.pop(what, None) is not None and not self._errors:
            logger.warning("the alert log can be used again")

    def unready(self) -> list[str]:
        """Return the reasons why a process that needs the log is not ready; an empty list if the log can be used."""
        now_ms = self._clock.now().wall_ms
        self._failed = {key: entry for key, entry in self._failed.items() if entry.ends_at > now_ms}
        reasons = [f"log unreachable: {error}" for error in dict.fromkeys(self._errors.values())]
        if time.monotonic() - self._storing_since > DEAF_S:
            reasons.append(f"log unreachable: no answer for more than {DEAF_S:g} s")
        odd = {f"entry {each.revision} of {_name(each.id)} could not be applied" for each in self._failed.values()}
        return reasons + sorted(odd)

    def note_applied(self, reader: "LogReader", entry: Followed) -> None:
        """Record that a reader has applied an entry, which supersedes one of the same id that it could not apply."""
        if self._failed and (failed := self._failed.get((reader, entry.id))) and failed.revision <= entry.revision:
            del self._failed[reader, entry.id]

    def note_failed(self, reader: "LogReader", entry: Followed) -> None:
        """Record that a reader could not apply an entry, not even at a second attempt."""
        self.entries_failed += 1
        self._failed[reader, entry.id] = entry

    def metrics(self) -> Iterator[Metric]:
        """Yield how many entries could not be applied by the readers of this process."""
        text = "Entries of the log that could not be applied because of an unexpected error"
        yield counter("log_entries_failed", text, self.entries_failed)


class LogReader:
    """Applies the entries of the log to the live alerts of a process (see the module's docstring).

    `caught_up` is set when the reader has reached the end of the log for the first time. `position` is the position of
    the last entry applied, `applied` the number of entries applied.
    """

    def __init__(
        self,
        alert_log: AlertLog,
        clock: Clock,
        live: LiveAlerts,
        apply: Callable[[Entry | Untrusted], None],
        keeper: LogHealth,
        calls: Callable[[CallEntry], None] = lambda _: None,
    ) -> None:
        """Create a reader that calls `apply` for each entry of an alert and `calls` for each entry of a call for help.

        `apply` must pass the entry to `live.apply`. If an entry is read a second time, the functions are called with it
        again. Failures to read are reported to `keeper`. `live` is given the verifier of the log, which decides whether
        the approvals of an entry are accepted.
        """
        self.caught_up = asyncio.Event()
        self.position = 0
        self.applied = 0
        self._log = alert_log
        self._clock = clock
        self._live = live
        self._take = apply
        self._take_call = calls
        self._keeper = keeper
        self._left_out_until = 0  # entries that ended before this time, in ms since 1970, were not read at the start
        self._verified_by = alert_log.verifier.version
        live.verifier = alert_log.verifier
        self._verifier_changed = asyncio.Event()
        alert_log.verifier.watch(self._verifier_changed.set)
        self._last_batch_at = time.monotonic()  # when the last batch came, in seconds of the monotonic clock

    def unready(self) -> list[str]:
        """Return the reasons why recent entries may not have been read; an empty list if the reader works."""
        stuck = time.monotonic() - self._last_batch_at > DEAF_S
        return [f"log reader stuck for more than {DEAF_S:g} s"] if stuck else []

    async def read_for_ever(self) -> None:
        """Apply every entry of the log as it appears, forever, except entries of alerts that ended before the start.

        After an error, reading continues with the entry after the last one applied. Meanwhile the approvals of the live
        alerts are checked again, from memory, whenever keys or policy change (HD17).

        Example: Redis is down, and a reviewer's key is revoked. The alerts that only this reviewer approved must be
        withdrawn without waiting for Redis.
        """
        self._left_out_until = self._left_out_until or self._clock.now().wall_ms
        async with tasks.running(verification=tasks.whenever(self._verifier_changed, self._verify_live)):
            while True:
                try:
                    await self._read()
                except LogUnavailable as error:
                    self._keeper.failed("read", error)
                await asyncio.sleep(RETRY_S)

    async def _verify_live(self) -> None:
        """Check the approvals of all live alerts again. Let the event loop run after every VERIFY_AT_ONCE alerts."""
        for number, alert in enumerate(list(self._live), start=1):
            self._live.verify_again(alert)
            if number % VERIFY_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _read(self) -> None:
        """Follow the log from `position` until reading fails.

        An empty batch means that the end of the log is reached (LogF2). After every batch, which comes at least once a
        second, check whether the clock was ahead and whether the verifier has changed.
        """
        batches = self._log.follow(self.position, self._left_out_until)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                self._last_batch_at = time.monotonic()
                self._keeper.worked("read")
                if batch:
                    await self._apply_all(batch)
                elif not self.caught_up.is_set():
                    self.caught_up.set()
                    live = len(self._live) - self._live.suspended(self._clock.now())
                    logger.info("the alert log %s has %d live alerts", self._log.name, live)
                await self._reread_if_clock_was_ahead()
                await self._verify_again()
                tasks.works()

    async def _apply_all(self, batch: Sequence[Positioned]) -> None:
        """Apply a batch of entries.

        Let the event loop run regularly, but never between two entries of one alert (LogF4).
        """
        histories = await self._histories([entry for _, entry in batch])
        turn = Turn(APPLY_AT_ONCE, APPLY_S)
        # Take each entry together with the one that follows it in the batch, to see whether both are of the same alert.
        for (position, entry), (_, following) in zip(batch, [*batch[1:], (0, None)], strict=True):
            before, self.position = self.position, position
            try:
                self._apply(entry, histories.get(entry.id, ()))
            except BaseException:
                self.position = before  # so that the entry is read again
                raise
            if turn.is_over() and (following is None or following.id != entry.id):
                await asyncio.sleep(0)
                turn = Turn(APPLY_AT_ONCE, APPLY_S)

    async def _histories(self, entries: Sequence[Followed]) -> dict[str, Sequence[Entry | OtherKind]]:
        """Read the earlier entries of alerts that are needed to verify the entries of a batch (HD1).

        Return them in a dict by alert id. An alert is left out if this process knows its earlier entries. It is also
        left out if its previous entry is in the same batch, because `live` will know that entry by the time the next
        one is applied.
        """
        found: dict[str, Sequence[Entry | OtherKind]] = {}
        last: dict[str, int] = {}
        for entry in entries:
            if isinstance(entry, CallEntry):
                continue
            given = 0 < entry.revision - 1 <= last.get(entry.id, 0)  # the previous entry is in this batch
            if not given and entry.id not in found and self._live.lacks_chain(entry):
                found[entry.id] = await self._log.history(entry.id)
            last[entry.id] = entry.revision
        return found

    def _apply(self, entry: Followed, history: Sequence[Entry | OtherKind]) -> None:
        """Apply one entry. After an unexpected error try it once more, then go on without it.

        `history` has all entries of its alert in the log, or is empty if `live` knows the earlier ones already. The
        entry may end its alert, so an alert of which an entry is missing is sent to nobody new until a later entry of
        it is applied, or the same one when the log is read again.
        """
        self.applied += 1
        for is_last in (False, True):
            try:
                if isinstance(entry, CallEntry):
                    self._take_call(entry)
                else:
                    if history:
                        self._live.learn(entry, history)
                    self._take(entry)
            except Exception as error:
                what = "sent to nobody until it is superseded" if is_last else "trying again"
                logger.error(
                    "applying entry %d of %s failed; %s: %s", entry.revision, _name(entry.id), what, trace(error)
                )
            else:
                self._keeper.note_applied(self, entry)
                return
        self._keeper.note_failed(self, entry)
        if not isinstance(entry, CallEntry):
            self._live.hold_back(entry.id)

    async def _reread_if_clock_was_ahead(self) -> None:
        """Read the log again if live alerts were taken for ended and left out, because the wall clock was ahead.

        The wall clock was ahead if it now shows a time before the ends of the entries that were left out. Then every
        alert that may have an entry among them is applied. Testing only the alert's last entry would be wrong: that
        entry may not be believed, and may name any end. An alert that was applied before and has ended since does not
        become live again (Rule 3 of `live_alerts`).

        The log may fail during this work. `_left_out_until` is lowered only when everything has been applied, so in
        that case the work is repeated after the next batch.
        """
        now = self._clock.now()
        until = max(self._left_out_until, self._live.missed_until)
        if now.wall_ms >= until:
            return
        logger.warning(
            "the wall clock was ahead when the log was read, so some live alerts were taken for ended and skipped; "
            "reading them now"
        )
        found = await self._chains(now.wall_ms)
        chains = await self._with_histories([each for each in found if any(entry.ends_at <= until for entry in each)])
        # Everything has been read from the log. If applying the entries fails, the next call of this method needs
        # `until` to try again.
        self._left_out_until, self._live.missed_until = until, 0
        self._live.correct(now)
        await self._apply_chains(chains)
        self._left_out_until = now.wall_ms

    async def _verify_again(self) -> None:
        """Check the approvals of all entries again if the keys or the policy have changed since the last check (NC3).

        Live alerts are verified from memory. Entries that were not believed are not in memory, so the log is read
        again: with a new reviewer's key they may be believed now.
        """
        version = self._log.verifier.version
        if version == self._verified_by:
            return
        await self._verify_live()
        now_ms = self._clock.now().wall_ms
        await self._apply_chains(await self._with_histories(await self._chains(now_ms)))
        self._live.missed_until = max(self._live.missed_until, now_ms)  # if this clock is ahead, more has to be read
        self._verified_by = version

    async def _chains(self, ended_before_ms: int) -> list[list[Followed]]:
        """Read all alerts and calls that did not end before this time, and return the entries of each one as a group.

        The log is read from its beginning until the first empty batch, which means that its end is reached (LogF2).
        `position` does not change: the reader continues after it, and applying an entry twice changes nothing.
        """
        chains: dict[str, list[Followed]] = {}
        unfrozen = 0
        batches = self._log.follow(0, ended_before_ms)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                if not batch:
                    break
                for _, entry in batch:
                    chains.setdefault(entry.id, []).append(entry)
                unfrozen += len(batch)
                if unfrozen >= FREEZE_AT:  # else a collection would look at all of them: 170 ms for 30,000
                    unfrozen = 0
                    gc.collect(1)
                    gc.freeze()
        return list(chains.values())

    async def _with_histories(self, chains: Sequence[Sequence[Followed]]) -> list[_ChainAndHistory]:
        """Return each chain (the entries of one alert) together with the history that is needed to verify it.

        All histories are read before any entry is applied, so a failure of the log can't leave the entries half
        applied.
        """
        found: list[_ChainAndHistory] = []
        async for chain in in_turns(chains, APPLY_AT_ONCE, APPLY_S):
            history: Sequence[Entry | OtherKind] = ()
            if self._log.verifier.needs_chain and not isinstance(chain[0], CallEntry):
                # A chain without a gap is its own history. If there is a gap, an earlier entry has ended, or is of a
                # kind that only `history` returns.
                is_whole = [entry.revision for entry in chain] == list(range(1, len(chain) + 1))
                history = chain if is_whole else await self._log.history(chain[0].id)
            found.append((chain, history))
        return found

    async def _apply_chains(self, chains: list[_ChainAndHistory]) -> None:
        """Apply chains (the entries of one alert or call each) that were read again, and empty the list.

        Let the event loop run regularly, but only between two chains.
        """
        chains.reverse()
        each_freed = (chains.pop() for _ in range(len(chains)))  # all at once would take 100 ms for 30,000
        async for chain, history in in_turns(each_freed, APPLY_AT_ONCE, APPLY_S):
            for entry in chain:
                self._apply(entry, history)


def _name(entry_id: str) -> str:
    return entry_id if is_id(entry_id) else "an odd id"
