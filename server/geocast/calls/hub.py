"""The calls of one process: what a session, an entry of the log and the passing of time change about them.

There are few calls and few responders, so calls do not use the fan-out of alerts. The stream's hub, which knows all
sessions by number (their *rows*), notifies this hub when a session arrives, moves, sends a message or leaves. The
stream's hub also writes the frames that this hub returns, before any alert. This hub has no clock, no socket and no
asyncio. It asks the worker for changes of the log by a `LogRequest`.

In this package, a session *is owed* a message if the message should be sent to the session and was not sent yet. To
*note* a row means to remember that its session may be owed a message. A *seat* is a responder's assignment to a call.

    event                                what this hub does
    an entry is read from the log        `take` notes the rows that the entry may concern
    a turn of the stream's hub           `take_noted` and `frames` (module `owed`) return what these rows are owed
    hello, move, token, drained socket   `frames` returns everything that the session is owed
    accept, decline, report              a `LogRequest` is made, or an answer is kept and the row is noted

Rule 1  Sessions of people who have a seat, or have just lost one, are sent their messages first. Then come the sessions
        that the call notifies, the nearest first.
Rule 2  A call is over when its end was read from the log, or when either clock says that it has expired. From then on
        the only message about the call is `over` (RJ7, RJ9). If the log has the end, and the call has not expired yet,
        `over` is sent once to each session that has a task, or that was notified and has not declined. Every later
        `accept` is answered with `over`, too.
Rule 3  A responder's location leaves this hub only in a `SeatRequest`, while this process decides about the seat (RZ7).
Rule 4  A seat belongs to a person, who is identified by issuer and `sub`. A session is sent the person's task, and may
        act for the seat, only if the call asks for a qualification of the session's own token (HD5).
        Example: a volunteer accepts on a phone, and also has a web page open whose token has no qualifications. Only
        the phone is sent the task. A `decline` from the page does not release the seat.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from random import random
from typing import NamedTuple

from ..clock import Now
from ..model.call import CallEntry, Person, SeatState
from .aeds import NO_AEDS, Aeds
from .eligibility import Here, Refusal, SeatRequest, is_wanted, may_see, refusal
from .live_call import CallSummary, LiveCall, Open
from .owed import NOTHING_SENT, OwedMessages
from .pending_accept import AcceptEvent, AcceptState, PendingAccept
from .registry import circle_of
from .responders import Responder, ResponderRights
from .state import CallState, Seat

HOLDING_S = 30.0  # how long a session's `holding` is remembered for calls that this process has not read yet (R5e)
UNKNOWN_KEPT = 256  # the largest number of calls that are remembered from one session's `holding`
REPORT_S = 5.0  # a report is ignored if the session's last one was less than this time ago (M20)
JITTER_S = 0.1  # longest random delay before a radius grows, so that not all processes try it at once (RN2)
LOOK_S = 0.2  # time between two checks whether a call has expired


# ---- requests for changes of the log -------------------------------------------------------------------------------


class AcceptRequest(NamedTuple):
    """Asks the worker to request a seat (an assignment to a call) for a session that has sent `accept`.

    `CallHub.seat_request` returns the details of the request. The worker passes the answer to `CallHub.on_answer`.
    """

    responder: Responder
    pending: PendingAccept


class ReleaseRequest(NamedTuple):
    """Asks the worker to release a person's seat (the person's assignment to a call).

    If `accepted_at` (ms since 1970) is not None, the seat is released only if the person accepted it at that time.
    """

    call_id: str
    person: Person
    accepted_at: int | None = None


class ReportRequest(NamedTuple):
    """Asks the worker to store the progress (`state`) that a responder on the way to a call has reported."""

    call_id: str
    person: Person
    state: SeatState


class RestoreRequest(NamedTuple):
    """Asks the worker to store seats (responders' assignments) of a call again, because the log has lost them.

    This process had read the entries that gave these seats before the log lost the entries. `LiveCall.lost` lists the
    seats.
    """

    call_id: str


LogRequest = AcceptRequest | ReleaseRequest | ReportRequest | RestoreRequest


class CallHub(OwedMessages):
    """Keeps the calls and the responders of one process, and notes which sessions are owed messages about calls.

    A row is the number of a session. A session is owed a message if it should get the message and was not sent it yet.
    A seat is a responder's assignment to a call. The docstring of the module has the rules.
    """

    def __init__(
        self,
        capacity: int,
        open_: Open,
        ask: Callable[[LogRequest], None],
        aeds: Aeds = NO_AEDS,
        observe: Callable[[str, float], None] = lambda _what, _seconds: None,
    ) -> None:
        """Create a hub without calls, for sessions with rows (session numbers) from 0 to `capacity` - 1.

        `open_` decrypts an entry, or returns None if no key decrypts it. `ask` accepts a request to change the log; it
        must return at once, before the request is carried out. `aeds` are the known defibrillators. `observe` is called
        with the name of a measured duration (`first_ring`, `accept` or `first_seat`) and its length in seconds.
        """
        super().__init__(capacity, open_, aeds, observe)
        self.failed = 0  # how many entries could not be decrypted
        self.answers = {"accept": 0, "decline": 0}
        self._ask = ask
        self._returning: deque[tuple[float, Responder]] = deque()  # (kept until, who holds unknown calls)
        self._look_at = 0.0

    # ---- the life of a session -------------------------------------------------------------------------------------

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        self.responders.set_rights(row, rights)

    def move(self, row: int, here: Here | None) -> None:
        self.responders.move(row, here)

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        responder = self.responders.find(row)
        for call_id, held in holding.items():
            call = self.calls.get(call_id)
            if call is not None and call.state is not None:
                self._trust_holding(self.responders.get(row), call, call.state, held, now)
            elif responder is not None and responder.quals and len(responder.unknown) < UNKNOWN_KEPT:
                if not responder.unknown:
                    self._returning.append((now.monotonic + HOLDING_S, responder))
                responder.unknown[call_id] = held

    def leave(self, row: int) -> None:
        self._noted.pop(row, None)
        responder = self.responders.find(row)
        for call in responder.calls if responder is not None else ():
            call.deliveries.pop(row, None)
        self.responders.leave(row)

    def _trust_holding(self, responder: Responder, call: LiveCall, state: CallState, held: int, now: Now) -> None:
        """Record that a session already has revision `held` of a call, because its client says so (R5).

        The client may have the revision as a `call` message or as a task. Do nothing if the session may not see the
        call, or if the call has expired according to both clocks (wall and monotonic). One clock alone may be wrong
        (Rule 2).
        """
        if call.expired_for_sure(now) or not may_see(state, responder.may_test):
            return
        delivery = self.delivery(call, responder)
        delivery.notified = max(delivery.notified, held)
        if responder.person in call.released and call.seat_of(responder.person) is None:
            delivery.unsure = True
            if call.first_acceptance <= held < call.released[responder.person]:
                # The session may still have the task of a seat that was released on another connection. If so, it is
                # owed a `standdown` with the reason `left`.
                delivery.task = held

    # ---- messages from sessions ------------------------------------------------------------------------------------

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        self.answers["accept"] += 1
        responder, call = self.responders.get(row), self.calls.get(call_id)
        if call is not None and row in call.deliveries and not call.summary.over:
            call.deliveries[row].declined = False
        if call is not None and self._has_task(responder, call, now):
            self.delivery(call, responder).asked = True  # confirm the seat that the person already has (RV3)
            self.note(row, call, first=True)
        elif reason := self._refusal(responder, call, call_id, eta_s, now):
            self._refuse(responder, call_id, reason)
        elif responder.pending is None or responder.pending.state is AcceptState.STORED:
            responder.end_pending(AcceptEvent.ACCEPT)
            responder.pending = PendingAccept(call_id, eta_s, now.monotonic)
            self._ask(AcceptRequest(responder, responder.pending))
        elif pending := responder.pending_for(call_id):  # only one is pending at a time (RV4); clients repeat others
            pending.on(AcceptEvent.ACCEPT)
            pending.last_sent = None  # so that this `accept` gets an answer, too

    def _has_task(self, responder: Responder, call: LiveCall, now: Now) -> bool:
        """Return whether the session may be sent a call's task, the message with the exact place.

        This is so if the call is not over, the session's person has a seat (an assignment to the call), and the
        session's own qualifications and rights are sufficient.
        """
        may_help = call.state is not None and responder.may_help(call.state)
        return may_help and not call.is_over(now) and call.seat_of(responder.person) is not None

    def _own_seat(self, responder: Responder, call: LiveCall) -> Seat | None:
        """Return the seat (assignment to the call) that a session may release or report on; None if it has none.

        It is the seat of the session's person (Rule 4). A session that was sent the task may still do so after its
        qualification has lapsed.
        """
        delivery = call.deliveries.get(responder.row, NOTHING_SENT)
        may = delivery.task > 0 or (call.state is not None and is_wanted(call.state, responder.quals))
        return call.seat_of(responder.person) if may else None

    def _refusal(
        self, responder: Responder, call: LiveCall | None, call_id: str, eta_s: int | None, now: Now
    ) -> Refusal | None:
        """Return the reason to refuse an `accept` at once, without asking the log.

        Return None if there is no such reason; then the log must be asked (RV4).
        """
        if responder.person is None or not responder.quals:
            return "over"
        if call is None or call.state is None:
            return None  # this process may not have read the call yet
        seat_request = self._seat_request_of(responder, call_id, eta_s, now)
        return "over" if call.is_over(now) else refusal(call.state, seat_request, now)

    def decline(self, row: int, call_id: str) -> None:
        self.answers["decline"] += 1
        responder, call = self.responders.get(row), self.calls.get(call_id)
        pending, seat = responder.pending_for(call_id), None
        releases = pending is not None and pending.on(AcceptEvent.DECLINE)
        if call is not None and call.state is not None and may_see(call.state, responder.may_test):
            if call.summary.over:
                return
            call.note_declined(self.delivery(call, responder))
            seat = self._own_seat(responder, call)
        if responder.person is not None and (seat is not None or releases):
            self._ask(ReleaseRequest(call_id, responder.person, None if seat is None else seat.accepted_at))

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        responder, call = self.responders.find(row), self.calls.get(call_id)
        if responder is None or responder.person is None or call is None or call.is_over(now):
            return
        if self._own_seat(responder, call) is not None and now.monotonic >= responder.reported + REPORT_S:
            responder.reported = now.monotonic
            self._ask(ReportRequest(call_id, responder.person, state))

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        call = self.calls.get(call_id)
        if call is not None and row in call.deliveries:
            call.note_ack(call.deliveries[row], revision)

    def seat_request(self, request: AcceptRequest, now: Now) -> SeatRequest | None:
        """Return the request for a seat (an assignment to a call) to make for a session, with its current location.

        Return None if the session has left or no longer waits for an answer.
        """
        responder, pending = request
        return self._seat_request_of(responder, pending.call_id, pending.eta_s, now) if pending.waiting else None

    def on_answer(self, request: AcceptRequest, reason: Refusal | None, now: Now) -> bool:
        """Process the log's answer to an `accept`, with which a session asks for a seat (an assignment to a call).

        `reason` is None if the log has stored the seat (RV1); otherwise, it is the reason why the seat is refused. The
        session is sent its task later, when this process reads the seat from the log.

        Return False if the log must be asked again, otherwise True. It must be asked again if the call has notified the
        session in the meantime: then the refusal is older than the message that the session was sent. Example: node A
        learns that the call has enough responders. Before this answer arrives, somebody at node B releases a seat, and
        the session is notified again. So the refusal "full" is no longer correct.
        """
        responder, pending = request
        if reason is None:
            if pending.on(AcceptEvent.GRANT) and responder.person is not None:
                self._ask(ReleaseRequest(pending.call_id, responder.person))
            return True
        if not pending.waiting:
            pending.on(AcceptEvent.REFUSE)
            return True
        call = self.calls.get(pending.call_id)
        if call is not None and call.is_over(now):
            reason = "over"
        elif pending.last_sent == "call":
            pending.last_sent = None
            return False
        responder.end_pending(AcceptEvent.REFUSE)
        if pending.last_sent != reason:
            self._refuse(responder, pending.call_id, reason)
        return True

    def _refuse(self, responder: Responder, call_id: str, reason: Refusal) -> None:
        responder.refused[call_id] = reason
        self.note(responder.row, first=True)
        call = self.calls.get(call_id)
        delivery = None if call is None else call.deliveries.get(responder.row)
        if call is None or delivery is None:
            return
        if reason == "full":
            delivery.full = True  # so that `full` is not sent a second time
        if reason == "over" and call.state and call.state.end is None and responder.may_help(call.state):
            delivery.notified = delivery.task = 0  # so it is notified again if the clock was wrong
            call.suspended = True

    # ---- changes of calls ------------------------------------------------------------------------------------------

    def take(self, entry: CallEntry, now: Now) -> None:
        """Process an entry of a call from the log.

        Remember the sessions that may have to be sent a message because of it. After an unexpected error nothing is
        sent about the call until the same entry is taken at another attempt, or a later one.
        """
        call = self.calls.get_or_begin(entry, now)
        held, was_held_back = set(call.lost), call.held_back
        with call.held_back_on_error(entry.revision), self._changing(call, now):
            call.take(entry, self._open, now)
        if was_held_back and entry.revision >= was_held_back:
            call.held_back = 0
            if call.state is not None and not call.summary.over:
                self._note_concerned(call, call.state, CallSummary(), call.summary)  # what could not be sent meanwhile
        if call.lost.keys() - held:
            self._ask(RestoreRequest(call.id))

    def adopt(self, open_: Open, now: Now) -> None:
        """Use new keys from now on, and decrypt with them, if possible, what the old keys could not decrypt (RZ5)."""
        self._open = open_
        for call in [each for each in self.calls.values() if each.undecrypted]:
            with self._changing(call, now):
                call.decrypt_again(self._open, now)

    @contextlib.contextmanager
    def _changing(self, call: LiveCall, now: Now) -> Iterator[None]:
        """Return a context manager for a block of code that changes a call.

        When the block ends, remember the sessions to which the change matters, and count the entries that could not be
        decrypted.
        """
        before, undecrypted_before = call.summary, set(call.undecrypted)
        yield
        self.failed += len(call.undecrypted - undecrypted_before)
        after, state = call.summary, call.state
        if state is None or after == before:
            return
        self.calls.update_seats(call, before, after)
        if not before.revision:
            self._apply_kept_holding(call, state, now)
        if after.over:
            self._finish(call, state, now)
            return
        if after.wave != before.wave:
            call.wave_at = now.monotonic + JITTER_S * random()  # noqa: S311 (need not be unpredictable)
        if after.revision != before.revision:
            call.called = 0
        self._note_concerned(call, state, before, after)

    def _note_concerned(self, call: LiveCall, state: CallState, before: CallSummary, after: CallSummary) -> None:
        """Remember the sessions that may be owed a message because an open call has changed.

        They are remembered in the order of Rule 1, in which they will be sent their messages.
        """
        new = after.content != before.content
        notified: list[int] = []
        if not after.full and (new or after.wave != before.wave or after.revision != before.revision):
            notified = self.responders.within(circle_of(state))
        recipients = [*call.deliveries] if new or (after.full and not before.full) else []
        for row in dict.fromkeys([*notified, *recipients]):
            self.note(row, call)
        if notified and not before.revision:
            call.last_of_first_wave = notified[-1]
        holders = after.holders if new else after.holders ^ before.holders
        for row in self.responders.rows_of({person for person, _ in holders}):
            self.note(row, call, first=True)
        self.calls.update_circle(call, state)

    def _finish(self, call: LiveCall, state: CallState, now: Now) -> None:
        """Process the end of a call: its sessions will be sent `over` (RJ7).

        The responders who were assigned to the call are excluded from other calls for a while (RQ7).
        """
        end = state.end
        assert end is not None
        self.calls.update_circle(call, state)
        for row in call.deliveries:
            self.note(row, call)
        rest_s = state.opening.terms.rest_s
        until = now.monotonic + min(rest_s, (end.at - now.wall_ms) / 1000 + rest_s)
        for person in call.holders() if call.is_actual else ():
            self.calls.let_rest(person, until)
        for row in self.responders.rows_of(call.holders()):
            responder = self.responders.find(row)
            if responder is not None and is_wanted(state, responder.quals):
                self.delivery(call, responder).asked = True
                self.note(row, call, first=True)

    def _apply_kept_holding(self, call: LiveCall, state: CallState, now: Now) -> None:
        """Process what sessions said in `holding` about a call that this process has only read now (R5e).

        In `holding`, a client lists the calls that it already has.
        """
        for _, responder in self._returning:
            held = responder.unknown.pop(call.id, None)
            if held is not None and self.responders.find(responder.row) is responder:
                self._trust_holding(responder, call, state, held, now)
                self.note(responder.row, call)

    # ---- periodic checks -------------------------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Forget expired calls, and forget that people are excluded when their time is over.

        If a call only seemed to be over because a clock was wrong, offer it to its sessions again. The stream's hub
        calls this method regularly.
        """
        if now.monotonic < self._look_at:
            return
        self._look_at = now.monotonic + LOOK_S
        while self._returning and self._returning[0][0] <= now.monotonic:
            self._returning.popleft()[1].unknown.clear()
        self.calls.wake_rested(now)
        for call in self.calls.expired(now):
            self._drop(call)
        for call in self.calls.values():
            if call.suspended and not call.expired(now) and call.state is not None:
                call.suspended = False
                self._note_concerned(call, call.state, CallSummary(), call.summary)

    def _drop(self, call: LiveCall) -> None:
        for row in call.deliveries:
            self.responders.get(row).calls.discard(call)
        for calls in self._noted.values():
            calls.discard(call)
        self.calls.drop(call)
