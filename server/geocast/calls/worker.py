"""What the call hub wants done in the log, and what time alone brings about: claims, reports, wider rings, ends.

Rule 1  An errand is tried until it is done. While the log is away it is tried again, for as long as somebody waits for
        it and the call is not over. A claim is judged anew each time, by what holds then.
Rule 2  Every process tries to widen (RN2), by how many all processes together have called (RN3); where that can't be
        read, by its own count. The ring is agreed upon in the log, so it does not matter who was first.
Rule 3  What was counted is written at once, and before it is decided whether to widen.
Rule 4  What Redis has lost the log puts back, claims too. One whose seat somebody else had and has given back it does
        not; that claim is made anew, for who was told where to go is not untold (RV7).
Rule 5  An entry that no key opens is set aside, counted and named in the journal. The process stays ready, because
        whoever can write to the log must not be able to switch it off (HD8).
Rule 6  A call that both clocks have ended is ended in the log (RZ4), by whichever process comes first.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from random import random
from typing import Any, Protocol

from prometheus_client.core import Metric

from ..alertlog import AlertLog, Counts
from ..clock import Clock
from ..errors import LogUnavailable, trace
from ..metrics import Metrics, counter, counters, gauge
from ..model.alert import is_id
from ..model.call import CallEntry, Person, SeatState
from .aeds import NO_AEDS, Aeds
from .decrypted_chain import opened
from .eligibility import REASONS, Refusal, SeatRequest
from .encryption import CallKeys
from .hub import AcceptRequest, CallHub, LogRequest, ReleaseRequest, ReportRequest, RestoreRequest
from .live_call import MAX_LIFE_S, LiveCall
from .state import Seat

logger = logging.getLogger(__name__)

TICK_S = 0.05  # between looks at what was counted while a call may widen, at most: others decide by it
REST_S = 0.5  # … and while none does
CHECK_S = 0.2  # between looks at how many were called, of one call
END_S = 1.0  # between looks for calls that have expired
END_JITTER_S = 0.1
RESTORE_S = 3.0  # what the log may take to put back what it has lost
RETRY_S, RETRY_MOST_S = 0.25, 2.0  # between attempts while the log is away: at first, and after some
ROLES = ("cpr", "aed")
ANSWERS = ("accept", "decline")


class CallDecisions(Protocol):
    """What decides by the log, and appends: `calling.Calling`. All of it may raise LogUnavailable.

    (That one knows what dispatchers send, exact places among it, and so no module that delivers may know it.)
    """

    async def accept(self, seat_request: SeatRequest) -> Refusal | None:
        """Give a seat to a responder; None: it has one."""
        ...

    async def release(self, call_id: str, person: Person, accepted_at: int | None) -> None:
        """Give back the seat that this person holds, if it is the one that was accepted then (None: any)."""
        ...

    async def report(self, call_id: str, person: Person, state: SeatState) -> None:
        """Note how far the holder of a seat is."""
        ...

    async def widen(self, call_id: str, ring: int) -> None:
        """Have the next ring in force, if it is that one; its index in `rings_m`."""
        ...

    async def restore(self, call_id: str, seat: Seat) -> None:
        """Put back the claim of a seat, unless its holder has one."""
        ...

    async def expire(self, call_id: str) -> None:
        """End a call that has expired."""
        ...


class CallWorker:
    """A call hub, and what does in the log what it asks for."""

    def __init__(
        self,
        capacity: int,
        config: Callable[[], tuple[CallDecisions, CallKeys]],
        alert_log: AlertLog,
        store: Callable[[Mapping[str, Counts]], Awaitable[bool]],
        clock: Clock,
        metrics: Metrics,
        aeds: Aeds = NO_AEDS,
    ) -> None:
        """`capacity`: how many sessions there may be; `config`: who decides now, and by which keys.

        `store` stores counts, and says whether it could.
        """
        self._config = config
        self._service, keys = config()
        took = {"first_ring": metrics.call_first_ring, "accept": metrics.call_accept, "first_seat": metrics.call_seat}
        self.hub = CallHub(
            capacity, partial(opened, keys), self._handle, aeds, lambda what, seconds: took[what].observe(seconds)
        )
        self.wake: Callable[[], None] = lambda: None  # called when somebody may be owed something
        self.widenings = 0  # that this process has tried
        self._log = alert_log
        self._store_counts = store
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._releasing: set[ReleaseRequest] = set()  # seats that are being given back
        self._reports: dict[tuple[str, Person], SeatState] = {}  # not stored yet, by call and person: the last of each
        self._looked_at: set[str] = set()  # calls of which it is being decided whether to widen or to end them
        self._stirred = asyncio.Event()
        self._end_at = 0.0

    def adopt(self) -> None:
        """Go by what is in force now. What did not open is tried again (RZ5)."""
        self._service, keys = self._config()
        self.hub.adopt(partial(opened, keys), self._clock.now())
        self.wake()

    def read(self, entry: CallEntry, position: int = 0) -> None:
        """Take an entry of the log, which has this position there."""
        failed = self.hub.failed
        self.hub.take(entry, self._clock.now())
        if self.hub.failed > failed:
            name = entry.id if is_id(entry.id) else "with an id of another form"
            text = "call %s: entry %d, at position %d of the log, set aside: no key of --call-keys opens it"
            logger.error(text, name, entry.revision, position)
        self._stirred.set()
        self.wake()

    async def run(self) -> None:
        """Do what is due, for ever; what is under way ends with it, and what was counted last is stored."""
        try:
            while True:
                self._stirred.clear()
                try:
                    self._look()
                except Exception as error:
                    logger.error("a look at the calls failed: %s", trace(error))
                if self.hub.may_widen:
                    await asyncio.sleep(min(TICK_S, max(0.0, self.hub.seconds_to_widening(self._clock.now()))))
                else:
                    # Not `asyncio.wait_for`: in Python 3.11 it loses a cancellation that comes with the event.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(REST_S):
                            await self._stirred.wait()
        finally:
            for task in self._under_way:
                task.cancel()
            await self._store()

    def degraded(self) -> int:
        """Return how many calls have entries that no key opens, for `/readyz`, which stays 200 (Rule 5)."""
        return self.hub.degraded(self._clock.now())

    # ---- what time brings ----------------------------------------------------------------------------------------

    def _look(self) -> None:
        now = self._clock.now()
        self._start(self._store())
        for call in self.hub.due_to_widen(now):
            if call.check_at <= now.monotonic:
                call.check_at = now.monotonic + CHECK_S
                self._start_once(call.id, self._widen(call))
        if now.monotonic >= self._end_at:
            self._end_at = now.monotonic + END_S
            for call_id in self.hub.to_end(now):
                self._start_once(call_id, self._expire(call_id))

    async def _widen(self, call: LiveCall) -> None:
        """Have the next ring in force, if it is due by how many were called."""
        await self._store()
        try:
            called = call.called_of(await self._log.counts(call.count_name))
        except LogUnavailable:
            called = call.called
        if call.state is not None and call.widens_at(called) <= self._clock.now().monotonic:
            self.widenings += 1
            await self._service.widen(call.id, call.state.wave + 1)

    async def _expire(self, call_id: str) -> None:
        await asyncio.sleep(END_JITTER_S * random())  # noqa: S311 (so that of several processes one does it)
        if call_id in self.hub.to_end(self._clock.now()):
            await self._service.expire(call_id)

    async def _store(self) -> None:
        """Add what was counted to what all processes have counted (RN3)."""
        if (counts := self.hub.take_counts()) and not await self._store_counts(counts):
            self.hub.put_back_counts(counts)

    # ---- errands -------------------------------------------------------------------------------------------------

    def _handle(self, request: LogRequest) -> None:
        match request:
            case AcceptRequest():
                self._start(self._accept(request))
            case ReleaseRequest(call_id, person, accepted_at) if request not in self._releasing:
                self._releasing.add(request)
                give_back = self._retry(call_id, lambda: self._service.release(call_id, person, accepted_at))
                self._start(give_back).add_done_callback(lambda _: self._releasing.discard(request))
            case RestoreRequest(call_id):
                self._start(self._restore(call_id))
            case ReportRequest(call_id, person, state):
                self._reports[call_id, person] = state
                self._start(self._report(call_id, person))

    async def _accept(self, request: AcceptRequest) -> None:
        """Have a claim judged by the log (Rule 1), and the session told."""
        pause_s = RETRY_S
        while (seat_request := self.hub.seat_request(request, self._clock.now())) is not None:
            try:
                if self.hub.may_be_open(seat_request.call_id, self._clock.now()):
                    reason = await self._service.accept(seat_request)
                else:
                    reason = "over"
                if reason == "over" and self.hub.is_open_for(seat_request, self._clock.now()):
                    raise LogUnavailable("it has lost the call, or has an end that was not read yet")
            except LogUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)
                continue
            except Exception:
                self.hub.give_up(request)
                raise
            if self.hub.on_answer(request, reason, self._clock.now()):
                self.wake()
                return

    async def _report(self, call_id: str, person: Person) -> None:
        """Store the last of somebody's reports: those that it has overtaken would keep it from counting (M20)."""

        async def store() -> None:
            state = self._reports.pop((call_id, person), None)
            if state is None:
                return  # another errand has stored it
            try:
                await self._service.report(call_id, person, state)
            except LogUnavailable:
                self._reports.setdefault((call_id, person), state)
                raise

        if not await self._retry(call_id, store):
            self._reports.pop((call_id, person), None)

    async def _restore(self, call_id: str) -> None:
        """Put claims back that the log has lost and has not put back by itself (RV7)."""
        await asyncio.sleep(RESTORE_S)
        for seat in self.hub.lost(call_id):
            await self._retry(call_id, partial(self._put_back, call_id, seat))

    async def _put_back(self, call_id: str, seat: Seat) -> None:
        await self._service.restore(call_id, seat)  # of what is in force now

    async def _retry(self, call_id: str, do: Callable[[], Awaitable[None]]) -> bool:
        """Try until it is done, or the call is over (Rule 1), of which this process may not know. Says which."""
        pause_s, until = RETRY_S, self._clock.now().monotonic + MAX_LIFE_S
        while self.hub.may_be_open(call_id, self._clock.now()) and self._clock.now().monotonic < until:
            try:
                await do()
                return True
            except LogUnavailable:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MOST_S)
        return False

    def _start_once(self, call_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin this, unless something of the kind is under way for the call."""
        if call_id in self._looked_at:
            work.close()
            return
        self._looked_at.add(call_id)
        self._start(work).add_done_callback(lambda _: self._looked_at.discard(call_id))

    def _start(self, work: Coroutine[Any, Any, object]) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(self._log_errors(work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    @staticmethod
    async def _log_errors(work: Coroutine[Any, Any, object]) -> None:
        """Do it; that the log is away is no news, and what is a mistake of ours ends nothing else."""
        try:
            await work
        except LogUnavailable:
            pass
        except Exception as error:
            logger.error("an errand of a call failed: %s", trace(error))

    # ---- metrics -------------------------------------------------------------------------------------------------

    def metrics(self) -> Iterator[Metric]:
        """What is counted of calls, for Prometheus."""
        hub, now = self.hub, self._clock.now()
        yield gauge("responders_on_duty", "Sessions with a qualification that say where they are", hub.on_duty)
        yield gauge("calls_open", "Calls that have not ended", len(hub.open_calls(now)))
        yield gauge("calls_unanswered", "Calls open for a minute of which nobody holds a seat", hub.unanswered(now))
        yield counter("call_rings", "Rings handed to transports", hub.rings)
        yield counter("call_widenings", "Times that this process has tried to widen a ring", self.widenings)
        yield counters("call_answers", "What responders have said", "answer", _each(ANSWERS, hub.answers))
        yield counters("call_seats", "Accepts that were answered with a task", "role", _each(ROLES, hub.seats))
        yield counters("call_standdowns", "Standdowns sent", "reason", _each(REASONS, hub.standdowns))
        text = "Calls that have not expired and have entries that no key opens"
        yield gauge("calls_degraded", text, hub.degraded(now))
        yield counter("call_unsealed_failed", "Entries of calls that could not be opened", hub.failed)


def _each(names: Iterable[str], counted: Mapping[Any, int]) -> list[tuple[str, float]]:
    """A value for each name, also of what has not been counted yet."""
    return [(name, counted.get(name, 0)) for name in names]
