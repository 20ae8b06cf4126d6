"""The worker that carries out the call hub's requests in the log, and what is due by time: wider radii and ends.

Rule 1  A request is tried until it has succeeded. While the log is unavailable it is tried again, for as long as
        somebody waits for it and the call is not over. Each try decides by the state at that time.
        Example: a responder accepts while Redis fails over, and walks out of the radius in the meantime. The try that
        reaches the log finds the responder outside, and the answer is `far`.
Rule 2  Every process tries to widen a call (RN2), by the number of sessions that all processes have notified (RN3), or
        by its own number if the log can't be read. The log stores each wave once, so it does not matter which process
        is first.
Rule 3  Counts are stored at once, and before this process decides whether to widen.
Rule 4  The log itself puts back what Redis has lost, seat requests included. The exception is a seat request whose seat
        somebody else has taken and released since. That seat request is made again here, because a responder who was
        told where to go is not called off by a loss (RV7).
Rule 5  An entry that no key decrypts is set aside, counted, and logged. The process stays ready: otherwise, somebody
        who can write to the log could switch it off (HD8).
Rule 6  A call that both clocks have ended is ended in the log (RZ4), by the first process that comes to it.
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

TICK_S = 0.05  # longest time between two checks while a call can widen: other processes decide by this one's counts
REST_S = 0.5  # the same while no call can widen
CHECK_S = 0.2  # time between two readings of one call's counts
END_S = 1.0  # time between two searches for expired calls
END_JITTER_S = 0.1  # longest random delay of an end, so that one process writes it
RESTORE_S = 3.0  # time for the log to put back by itself what it has lost
RETRY_S, RETRY_MOST_S = 0.25, 2.0  # first and longest pause between two tries while the log is unavailable
ROLES = ("cpr", "aed")
ANSWERS = ("accept", "decline")


class CallDecisions(Protocol):
    """Decisions by the whole chain in the log, which `service.CallService` makes. All methods may raise LogUnavailable.

    This module imports no more than this protocol: `CallService` handles the exact places that dispatchers send, and
    no module that delivers messages may import it.
    """

    async def accept(self, seat_request: SeatRequest) -> Refusal | None:
        """Give a seat to a person. Return why not; None if the person has a seat."""
        ...

    async def release(self, call_id: str, person: Person, accepted_at: int | None) -> None:
        """Release this person's seat, if it was accepted at this time (None: at any time)."""
        ...

    async def report(self, call_id: str, person: Person, state: SeatState) -> None:
        """Store the progress of a person who has a seat."""
        ...

    async def widen(self, call_id: str, ring: int) -> None:
        """Start the next wave, if this is its index in `rings_m`."""
        ...

    async def restore(self, call_id: str, seat: Seat) -> None:
        """Put back a seat that the log has lost, unless its person has one."""
        ...

    async def expire(self, call_id: str) -> None:
        """End a call that has expired."""
        ...


class CallWorker:
    """The call hub of a process, and the tasks that carry out its requests in the log."""

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
        """Serve sessions with rows from 0 to `capacity` - 1.

        `config` returns the service and the keys of the current configuration. `store` stores counts, and returns
        whether it succeeded.
        """
        self._config = config
        self._service, keys = config()
        took = {"first_ring": metrics.call_first_ring, "accept": metrics.call_accept, "first_seat": metrics.call_seat}
        self.hub = CallHub(
            capacity, partial(opened, keys), self._handle, aeds, lambda what, seconds: took[what].observe(seconds)
        )
        self.wake: Callable[[], None] = lambda: None  # called when a session may be owed something
        self.widenings = 0  # waves that this process has tried to start
        self._log = alert_log
        self._store_counts = store
        self._clock = clock
        self._under_way: set[asyncio.Task[None]] = set()
        self._releasing: set[ReleaseRequest] = set()
        self._reports: dict[tuple[str, Person], SeatState] = {}  # the last report of each person that is not stored yet
        self._looked_at: set[str] = set()  # calls for which a task decides whether to widen or to end them
        self._stirred = asyncio.Event()
        self._end_at = 0.0

    def adopt(self) -> None:
        """Use the current configuration, and decrypt again what could not be decrypted before (RZ5)."""
        self._service, keys = self._config()
        self.hub.adopt(partial(opened, keys), self._clock.now())
        self.wake()

    def read(self, entry: CallEntry, position: int = 0) -> None:
        """Take an entry of the log. `position`: where the log has it."""
        failed = self.hub.failed
        self.hub.take(entry, self._clock.now())
        if self.hub.failed > failed:
            name = entry.id if is_id(entry.id) else "with an id of another form"
            text = "call %s: entry %d, at position %d of the log, was set aside: no key of --call-keys decrypts it"
            logger.error(text, name, entry.revision, position)
        self._stirred.set()
        self.wake()

    async def run(self) -> None:
        """Do what is due until cancelled. Then cancel the tasks under way, and store the last counts."""
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
        """Return how many calls have entries that no key decrypts, for `/readyz`, which stays 200 (Rule 5)."""
        return self.hub.degraded(self._clock.now())

    # ---- what is due by time -------------------------------------------------------------------------------------

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
        """Start the next wave, if it is due by the number of notified sessions."""
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
        """Add the counts of this process to the counts of all processes in the log (RN3)."""
        if (counts := self.hub.take_counts()) and not await self._store_counts(counts):
            self.hub.put_back_counts(counts)

    # ---- requests of the hub -------------------------------------------------------------------------------------

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
        """Ask the log for a seat until it has answered (Rule 1), and pass the answer to the hub."""
        pause_s = RETRY_S
        while (seat_request := self.hub.seat_request(request, self._clock.now())) is not None:
            try:
                if self.hub.may_be_open(seat_request.call_id, self._clock.now()):
                    reason = await self._service.accept(seat_request)
                else:
                    reason = "over"
                if reason == "over" and self.hub.is_open_for(seat_request, self._clock.now()):
                    raise LogUnavailable("the log has lost the call, or has an end that this process has not read yet")
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
        """Store the last report of a person. An earlier report, stored first, would keep it from counting (M20)."""

        async def store() -> None:
            state = self._reports.pop((call_id, person), None)
            if state is None:
                return  # another task has stored it
            try:
                await self._service.report(call_id, person, state)
            except LogUnavailable:
                self._reports.setdefault((call_id, person), state)
                raise

        if not await self._retry(call_id, store):
            self._reports.pop((call_id, person), None)

    async def _restore(self, call_id: str) -> None:
        """Put back the seats that the log has lost and has not put back by itself (RV7)."""
        await asyncio.sleep(RESTORE_S)
        for seat in self.hub.lost(call_id):
            await self._retry(call_id, partial(self._put_back, call_id, seat))

    async def _put_back(self, call_id: str, seat: Seat) -> None:
        await self._service.restore(call_id, seat)  # the service of the current configuration

    async def _retry(self, call_id: str, do: Callable[[], Awaitable[None]]) -> bool:
        """Try until `do` succeeds, or the call is over as far as this process knows (Rule 1). Return whether it did."""
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
        """Start a task for a call, unless one of `_looked_at` is under way for it."""
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
        """Await `work`. Ignore an unavailable log, and log other errors: they must not end other tasks."""
        try:
            await work
        except LogUnavailable:
            pass
        except Exception as error:
            logger.error("a request of a call to the log failed: %s", trace(error))

    # ---- metrics -------------------------------------------------------------------------------------------------

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of calls for Prometheus."""
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
    """Return the count of each name, 0 for a name that was not counted yet."""

    return [(name, counted.get(name, 0)) for name in names]
