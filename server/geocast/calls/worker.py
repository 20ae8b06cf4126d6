"""The worker that carries out the call hub's requests in the log, and does what is due: wider radii and ends of calls.

A seat is a responder's assignment to a call. A wave is a step in which a call notifies people within a wider radius.

Rule 1  If the log is unavailable, a request is tried again, as long as somebody waits for the result and the call is
        not over. Each try makes its decision from the state at that time.
        Example: a responder accepts while Redis fails over, and walks out of the radius in the meantime. The try that
        reaches the log finds the responder outside, and the answer is `far`.
Rule 2  Every process tries to widen a call when that is due (RN2). This depends on the number of sessions that all
        processes have notified (RN3), or, if the log can't be read, on this process's own number. The log stores each
        wave once, so it does not matter which process is first.
Rule 3  New counts are stored at each check, and before this process decides whether to widen a call.
Rule 4  If Redis loses entries, the log itself puts them back, including those that gave seats. There is one exception:
        somebody else has taken and released the same seat in the meantime. Then this worker gives the person a seat
        again, because a responder who knows where to go must not be called off because of a loss (RV7).
Rule 5  An entry that no key decrypts is skipped, counted, and logged. The process stays ready: otherwise, somebody who
        can write to the log could put it out of service (HD8).
Rule 6  A call that has expired by both clocks is ended in the log (RZ4), by the first process that notices it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping
from functools import partial
from math import inf
from random import random
from typing import Any, Protocol

from prometheus_client.core import Metric

from ..alertlog import AlertLog, Counts
from ..clock import Clock
from ..metrics import Metrics, counter, counters, gauge, report_caught
from ..model.alert import is_id
from ..model.call import CallEntry, Person, SeatState
from ..model.errors import LogUnavailable
from .aeds import NO_AEDS, Aeds
from .decrypted_chain import opened
from .eligibility import Refusal, SeatRequest
from .encryption import CallKeys
from .hub import AcceptRequest, CallHub, LogRequest, ReleaseRequest, ReportRequest, RestoreRequest
from .live_call import MAX_LIFE_S, LiveCall
from .state import Seat

logger = logging.getLogger(__name__)

TICK_S = 0.05  # longest time between two checks while a radius can grow: other processes need this one's counts
REST_S = 0.5  # longest time between two checks while no radius can grow
CHECK_S = 0.2  # shortest time between two readings of one call's counts
END_S = 1.0  # time between two searches for expired calls
END_JITTER_S = 0.1  # longest random delay before an end is written, so that only one process writes it
RESTORE_S = 3.0  # wait this long before restoring seats: the log may put back lost entries by itself
RETRY_S, RETRY_MOST_S = 0.25, 2.0  # first and longest pause between two tries if the log is unavailable


class CallDecisions(Protocol):
    """Makes decisions about calls, from all entries of a call in the log.

    All methods may raise LogUnavailable. `service.CallService` implements this protocol. The worker imports only the
    protocol, because `CallService` handles the exact places that dispatchers send, and no module that delivers messages
    may import it.
    """

    async def accept(self, seat_request: SeatRequest) -> Refusal | None:
        """Try to give a person a seat, which means to assign the person to a call.

        Return None if the person has a seat now, otherwise the reason for the refusal.
        """

    async def release(self, call_id: str, person: Person, accepted_at: int | None) -> None:
        """Release a person's seat, which means that the person is no longer assigned to the call.

        If `accepted_at` (ms since 1970) is not None, release the seat only if it was accepted at that time.
        """

    async def report(self, call_id: str, person: Person, state: SeatState) -> None:
        """Store the progress (`state`) that a responder on the way to a call has reported."""

    async def widen(self, call_id: str, ring: int) -> None:
        """Widen a call's search radius to `rings_m[ring]`, if that is the next radius."""

    async def restore(self, call_id: str, seat: Seat) -> None:
        """Store again a seat (a person's assignment to a call) that the log has lost.

        Do nothing if the person has a seat.
        """

    async def expire(self, call_id: str) -> None:
        """Store in the log that a call has ended because it has expired."""


class CallWorker:
    """Runs the call hub of a process, and the tasks that carry out the hub's requests in the log."""

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
        """Create a worker and its hub, for sessions with rows (session numbers) from 0 to `capacity` - 1.

        `config` returns the service and the keys of the current configuration. `store` stores counts in the log, and
        returns whether it succeeded.
        """
        self._config = config
        self._service, keys = config()
        took = {"first_ring": metrics.call_first_ring, "accept": metrics.call_accept, "first_seat": metrics.call_seat}
        self.hub = CallHub(
            capacity, partial(opened, keys), self._handle, aeds, lambda what, seconds: took[what].observe(seconds)
        )
        self.wake: Callable[[], None] = lambda: None  # called when a session may have to be sent a message
        self.widenings = 0  # waves that this process has tried to start
        self._log = alert_log
        self._store_counts = store
        self._clock = clock
        self._under_way: dict[Hashable, asyncio.Task[Any]] = {}  # by a key of which there may be one at a time
        self._reports: dict[tuple[str, Person], ReportRequest] = {}  # each person's last one that is not stored yet
        self._stirred = asyncio.Event()
        self._end_at = 0.0

    def adopt(self) -> None:
        """Start using the current configuration.

        With its keys, try again to decrypt the entries that could not be decrypted before (RZ5).
        """
        self._service, keys = self._config()
        self.hub.adopt(partial(opened, keys), self._clock.now())
        self.wake()

    def read(self, entry: CallEntry, position: int = 0) -> None:
        """Process an entry of a call from the log. `position` is its position in the log."""
        failed = self.hub.failed
        self.hub.take(entry, self._clock.now())
        if self.hub.failed > failed:
            name = entry.id if is_id(entry.id) else "with an id of another form"
            text = "call %s: entry %d, at position %d of the log, is ignored: no key of --call-keys decrypts it"
            logger.error(text, name, entry.revision, position)
        self._stirred.set()
        self.wake()

    async def run(self) -> None:
        """Store counts, widen search radii and end expired calls, until this task is cancelled.

        Then cancel the tasks that this worker has started, and store the last counts.
        """
        try:
            while True:
                self._stirred.clear()
                self._look()
                soon = self.hub.calls.seconds_to_widening(self._clock.now())
                # Don't use `asyncio.wait_for`: in Python 3.11 it may lose a cancellation that arrives together with the
                # event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(TICK_S, max(0.0, soon)) if soon < inf else REST_S):
                        await self._stirred.wait()
        except asyncio.CancelledError:  # after an error, this method is called again
            for task in self._under_way.values():
                task.cancel()
            await self._store()
            raise

    def degraded(self) -> int:
        """Return the number of calls with entries that none of the keys decrypts.

        `/readyz` reports the number, but still answers 200 (Rule 5).
        """
        return self.hub.calls.degraded(self._clock.now())

    # ---- periodic work ---------------------------------------------------------------------------------------------

    def _look(self) -> None:
        now = self._clock.now()
        self._start(self._store())
        for call in self.hub.calls.due_to_widen(now):
            if call.check_at <= now.monotonic:
                call.check_at = now.monotonic + CHECK_S
                self._start(self._widen(call), call.id)
        if now.monotonic >= self._end_at:
            self._end_at = now.monotonic + END_S
            for call_id in self.hub.calls.to_end(now):
                self._start(self._expire(call_id), call_id)

    async def _widen(self, call: LiveCall) -> None:
        """Widen the search radius of a call if it is time to do so, given how many sessions were notified."""
        await self._store()
        try:
            called = call.called_of(await self._log.counts(call.count_name))
        except LogUnavailable:
            called = call.called
        if call.state is not None and call.widens_at(called) <= self._clock.now().monotonic:
            self.widenings += 1
            with contextlib.suppress(LogUnavailable):
                await self._service.widen(call.id, call.state.wave + 1)

    async def _expire(self, call_id: str) -> None:
        await asyncio.sleep(END_JITTER_S * random())  # noqa: S311 (so that only one of several processes does it)
        if call_id in self.hub.calls.to_end(self._clock.now()):
            with contextlib.suppress(LogUnavailable):
                await self._service.expire(call_id)

    async def _store(self) -> None:
        """Add this process's new counts to those in the log, which are the sums for all processes (RN3)."""
        if (counts := self.hub.calls.take_counts()) and not await self._store_counts(counts):
            self.hub.calls.put_back_counts(counts)

    # ---- requests from the hub -------------------------------------------------------------------------------------

    def _handle(self, request: LogRequest) -> None:
        match request:
            case AcceptRequest():
                self._start(self._retry(lambda: self._accept(request)))
            case ReleaseRequest(call_id, person, accepted_at):
                give_back = self._retry(lambda: self._service.release(call_id, person, accepted_at), call_id)
                self._start(give_back, request)
            case RestoreRequest(call_id):
                self._start(self._restore(call_id))
            case ReportRequest(call_id, person):
                self._reports[call_id, person] = request
                self._start(self._report(request))

    async def _accept(self, request: AcceptRequest) -> None:
        """Ask the log to assign a person to a call, and pass the answer to the hub."""
        while (seat_request := self.hub.seat_request(request, self._clock.now())) is not None:
            if self.hub.calls.may_be_open(seat_request.call_id, self._clock.now()):
                reason = await self._service.accept(seat_request)
            else:
                reason = "over"
            if reason == "over" and self.hub.calls.is_open_for(seat_request, self._clock.now()):
                raise LogUnavailable("the log has lost the call, or has an end that this process has not read yet")
            if self.hub.on_answer(request, reason, self._clock.now()):
                self.wake()
                return

    async def _report(self, request: ReportRequest) -> None:
        """Store the newest progress that a responder has reported.

        If an older report still waits to be stored, it is dropped, because the newer one would not count so soon after
        it (M20).
        """
        whose = request.call_id, request.person

        async def store() -> None:
            if self._reports.get(whose) is request:
                await self._service.report(*request)

        await self._retry(store, request.call_id)
        if self._reports.get(whose) is request:
            del self._reports[whose]

    async def _restore(self, call_id: str) -> None:
        """Store seats (responders' assignments) again that the log has lost and has not put back by itself (RV7)."""
        await asyncio.sleep(RESTORE_S)
        call = self.hub.calls.get(call_id)
        for seat in [] if call is None else list(call.lost.values()):
            await self._retry(partial(self._put_back, call_id, seat), call_id)

    async def _put_back(self, call_id: str, seat: Seat) -> None:
        await self._service.restore(call_id, seat)  # each try uses the service of the current configuration

    async def _retry(self, do: Callable[[], Awaitable[None]], call_id: str | None = None) -> None:
        """Call `do` until it succeeds, or until this process knows that the call `call_id` is over (Rule 1)."""
        pause_s, until = RETRY_S, self._clock.now().monotonic + MAX_LIFE_S
        while self._clock.now().monotonic < until:
            try:
                if call_id is not None and not self.hub.calls.may_be_open(call_id, self._clock.now()):
                    return
                await do()
                return
            except LogUnavailable:
                pass
            except Exception as error:
                report_caught("a request to the log for a call failed; trying again", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    def _start(self, work: Coroutine[Any, Any, object], key: Hashable = None) -> None:
        """Start a task. If it has a key, start it only if no task with this key is running."""
        if key in self._under_way:
            work.close()
            return
        task = asyncio.ensure_future(work)
        own = task if key is None else key
        self._under_way[own] = task
        task.add_done_callback(lambda _: self._under_way.pop(own))

    # ---- metrics for Prometheus ------------------------------------------------------------------------------------

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of calls for Prometheus."""
        hub, calls, now = self.hub, self.hub.calls, self._clock.now()
        yield gauge(
            "responders_on_duty", "Sessions with a qualification that say where they are", hub.responders.on_duty
        )
        yield gauge("calls_open", "Calls that have not ended", len(calls.open_calls(now)))
        yield gauge("calls_unanswered", "Calls open for a minute of which nobody holds a seat", calls.unanswered(now))
        yield counter("call_rings", "Rings handed to transports", hub.rings)
        yield counter("call_widenings", "Times that this process has tried to widen a ring", self.widenings)
        yield counters("call_answers", "What responders have said", "answer", hub.answers.items())
        yield counters("call_seats", "Accepts that were answered with a task", "role", hub.seats.items())
        yield counters("call_standdowns", "Standdowns sent", "reason", hub.standdowns.items())
        text = "Calls that have not expired and have entries that no key opens"
        yield gauge("calls_degraded", text, calls.degraded(now))
        yield counter("call_unsealed_failed", "Entries of calls that could not be opened", hub.failed)
