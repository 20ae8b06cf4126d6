"""How a process uses the log: it reads all of it, in order and for ever, and knows whether it can be used."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from ..alertlog import HEARTBEAT_S, AlertLog, Counts, Positioned
from ..clock import Clock
from ..errors import LogUnavailable, trace
from ..model.alert import Entry, OtherKind, Untrusted
from ..model.call import CallEntry
from .live_alerts import LiveAlerts

logger = logging.getLogger(__name__)

PURGE_S = 60.0  # between looks for alerts that the log may forget
DEAF_S = 3 * HEARTBEAT_S  # if the log has given nothing for so long, not even an empty batch, the reader is stuck
RETRY_S = 0.25  # between attempts to read a log that could not be read
APPLY_AT_ONCE = 64  # entries that are applied before the loop may look at its sockets …
APPLY_S = 0.004  # … and for how long: a polygon of 500 corners takes 0.3 ms (HD4)
VERIFY_AT_ONCE = 8  # live alerts that are judged again before that: two signatures take 0.2 ms

Followed = Entry | CallEntry | Untrusted
_ChainAndHistory = tuple[Sequence[Followed], Sequence[Entry | OtherKind]]  # entries to apply, and to verify them by


class LogHealth:
    """Knows whether the log can be used, stores delivery counts in it, and has it forget old alerts."""

    def __init__(self, alert_log: AlertLog, clock: Clock) -> None:
        self.error: str | None = None  # why the log could not be written or read last time
        self._log = alert_log
        self._clock = clock

    async def store(self, counts: Mapping[str, Counts]) -> bool:
        """Store counts. With none to store, it still finds out whether a log that failed has recovered."""
        try:
            await self._log.add_counts(counts)
        except LogUnavailable as error:
            self.failed("written", error)
            return False
        if self.error is not None:
            logger.warning("the log can be used again")
            self.error = None
        return True

    async def purge(self) -> None:
        """Have the log forget old alerts. If it can't now, it will the next time."""
        with contextlib.suppress(LogUnavailable):
            await self._log.purge(self._clock.now().wall_ms)

    def failed(self, what: str, error: LogUnavailable) -> None:
        """Note that the log could not be read or written, and log the first of such failures in a row."""
        if self.error is None:
            logger.error("the log can't be %s: %s", what, error)
        self.error = str(error)

    def unready(self) -> list[str]:
        """Why a process that needs the log is not ready."""
        return [] if self.error is None else [f"log unreachable: {self.error}"]


class LogReader:
    """Reads the log into the live alerts of a process, by `apply`, and makes up for a wall clock that was ahead.

    `caught_up` is set once it has come to the end of the log, `position` is that of the last entry it has applied, and
    `applied` how many that were.
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
        """`apply` takes each entry of an alert, so that `live` knows of it, and `calls` each of a call, as often as it
        is read; `keeper` is told when the log can't be read. What is live is judged again from memory as soon as the
        judge of the log changes, whatever the log does (HD17).
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
        self._left_out_until = 0  # what ended before this, in ms since 1970, was left out when the log was read
        self._verified_by = alert_log.verifier.version
        live.verifier = alert_log.verifier
        self._verifier_changed = asyncio.Event()
        alert_log.verifier.watch(self._verifier_changed.set)
        self._heard = time.monotonic()  # when the log last gave something, in seconds of the monotonic clock

    def unready(self) -> list[str]:
        """The reasons why what it has read may not be all there is."""
        stuck = time.monotonic() - self._heard > DEAF_S
        return [f"log reader stuck for more than {DEAF_S:g} s"] if stuck else []

    async def read_for_ever(self) -> None:
        """Apply every entry of the log, for ever. What ended before this began is left out."""
        self._left_out_until = self._clock.now().wall_ms
        verifying = asyncio.get_running_loop().create_task(self._verify_live_for_ever())
        try:
            while True:
                try:
                    await self._read()
                except LogUnavailable as error:
                    self._keeper.failed("read", error)
                except Exception as error:
                    logger.error("the log reader failed: %s", trace(error))
                await asyncio.sleep(RETRY_S)
        finally:
            verifying.cancel()

    async def _verify_live_for_ever(self) -> None:
        """Judge what is live again each time that the judge has changed (HD17)."""
        while True:
            await self._verifier_changed.wait()
            self._verifier_changed.clear()
            try:
                await self._verify_live()
            except Exception as error:
                logger.error("judging the live alerts again failed: %s", trace(error))

    async def _verify_live(self) -> None:
        """Judge what is live again, from memory; the loop gets its turns meanwhile."""
        for number, alert in enumerate(list(self._live), start=1):
            self._live.verify_again(alert)
            if number % VERIFY_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _read(self) -> None:
        batches = self._log.follow(self.position, self._left_out_until)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                self._heard = time.monotonic()
                if batch:
                    await self._apply_all(batch)
                else:
                    self.caught_up.set()
                await self._make_up_for_a_clock_ahead()
                await self._verify_again()

    async def _apply_all(self, batch: Sequence[Positioned]) -> None:
        """Apply what was read, and let the loop look at its sockets now and then, between alerts (LogF4)."""
        histories = await self._histories([entry for _, entry in batch])
        turn = _Turn()
        for (position, entry), (_, following) in zip(batch, [*batch[1:], (0, None)], strict=True):
            self.position = position
            self._apply(entry, histories.get(entry.id, ()))
            if turn.is_over() and (following is None or following.id != entry.id):
                await asyncio.sleep(0)
                turn = _Turn()

    async def _histories(self, entries: Sequence[Followed]) -> dict[str, Sequence[Entry | OtherKind]]:
        """Read the histories of those alerts of which earlier entries are unknown here and were not given (HD1)."""
        found: dict[str, Sequence[Entry | OtherKind]] = {}
        last: dict[str, int] = {}
        for entry in entries:
            if isinstance(entry, CallEntry):
                continue
            given = 0 < entry.revision - 1 <= last.get(entry.id, 0)
            if not given and entry.id not in found and self._live.lacks_chain(entry):
                found[entry.id] = await self._log.history(entry.id)
            last[entry.id] = entry.revision
        return found

    def _apply(self, entry: Followed, history: Sequence[Entry | OtherKind]) -> None:
        """Apply one entry. `history`: of its alert, if it had to be read."""
        self.applied += 1
        if isinstance(entry, CallEntry):
            self._take_call(entry)
            return
        if history:
            self._live.learn(entry, history)
        self._take(entry)

    async def _make_up_for_a_clock_ahead(self) -> None:
        """Read the log again if the wall clock says that what was left out of it has not ended after all.

        Apply each chain of which any entry may have been left out. The last entry alone does not tell: it may be one
        that is not believed, which names any end. An alert that was given before and has ended since does not begin
        again (Rule 3 of the live alerts).

        The log may be out of reach on the way: then all of it is done again with the next batch. So what is left out is
        forgotten only when every chain has been applied.
        """
        now = self._clock.now()
        until = max(self._left_out_until, self._live.missed_until)
        if now.wall_ms >= until:
            return
        logger.warning("the wall clock was ahead when the log was read; reading what was taken for ended")
        found = await self._chains(now.wall_ms)
        chains = await self._with_histories([each for each in found if any(entry.ends_at <= until for entry in each)])
        self._left_out_until = until
        self._live.correct(now)
        await self._apply_chains(chains)
        self._left_out_until = now.wall_ms

    async def _verify_again(self) -> None:
        """Verify what is live, and what was not believed when it was read, if that may come out otherwise now (NC3)."""
        version = self._log.verifier.version
        if version == self._verified_by:
            return
        await self._verify_live()
        await self._apply_chains(await self._with_histories(await self._chains(self._clock.now().wall_ms)))
        self._verified_by = version

    async def _chains(self, ended_before_ms: int) -> list[list[Followed]]:
        """All that the log has, alert by alert and call by call, but for what ended before this time."""
        chains: dict[str, list[Followed]] = {}
        batches = self._log.follow(0, ended_before_ms)
        async with contextlib.aclosing(batches):
            async for batch in batches:
                if not batch:
                    break
                for _, entry in batch:
                    chains.setdefault(entry.id, []).append(entry)
        return list(chains.values())

    async def _with_histories(self, chains: Sequence[Sequence[Followed]]) -> list[_ChainAndHistory]:
        """Read from the log what is needed to verify these chains, so that to apply them asks nothing of it."""
        found: list[_ChainAndHistory] = []
        for chain in chains:
            history: Sequence[Entry | OtherKind] = ()
            if self._log.verifier.needs_chain and not isinstance(chain[0], CallEntry):
                is_whole = [entry.revision for entry in chain] == list(range(1, len(chain) + 1))
                history = chain if is_whole else await self._log.history(chain[0].id)
            found.append((chain, history))
        return found

    async def _apply_chains(self, chains: Sequence[_ChainAndHistory]) -> None:
        """Apply what was read once more; the loop gets its turns meanwhile, between alerts."""
        turn = _Turn()
        for chain, history in chains:
            for entry in chain:
                self._apply(entry, history)
            if turn.is_over():
                await asyncio.sleep(0)
                turn = _Turn()


class _Turn:
    """How much is done before the loop may look at its sockets: APPLY_AT_ONCE things, for APPLY_S at most."""

    def __init__(self) -> None:
        self._left = APPLY_AT_ONCE
        self._until = time.perf_counter() + APPLY_S

    def is_over(self) -> bool:
        """Count one thing that was done; return whether the loop is due."""
        self._left -= 1
        return self._left <= 0 or time.perf_counter() >= self._until
