"""The calls of one process: which calls are open, which messages each session was sent, and which it is still owed.

There are few calls and few responders, so calls do not use the fan-out of alerts. The stream's hub, which knows all
sessions by number (their *rows*), notifies this hub when a session arrives, moves, sends a message or leaves. The
stream's hub also writes the frames that this hub returns, before any alert. This hub has no clock, no socket and no
asyncio. It asks the worker for changes of the log by a `LogRequest`.

In this package, a session *is owed* a message if the message should be sent to the session and was not sent yet. To
*note* a row means to remember that its session may be owed a message. A *seat* is a responder's assignment to a call.

    event                                what this hub does
    an entry is read from the log        `take` notes the rows that the entry may concern
    a turn of the stream's hub           `take_noted` and `frames` return what these rows are owed
    hello, move, token, drained socket   `frames` returns everything that the session is owed
    accept, decline, report              a `LogRequest` is made, or an answer is kept and the row is noted

Rule 1  What a session is owed about a call follows from the state of the call and from what the session was sent. It
        is computed by `_next_message` at the moment of writing. A noted row only says where to look.
        Example: a phone's socket is full while a call is opened, corrected and widened. When the socket has drained,
        the phone is sent one `call` message with the newest revision, as if the phone had just connected. So no
        revision is sent twice on a connection (RJ2, RJ6).
Rule 2  Sessions of people who have a seat, or have just lost one, are sent their messages first. Then come the sessions
        that the call notifies, the nearest first.
Rule 3  Only the conditions in `_is_notified` decide which sessions a call notifies (RJ1). If the content of the call is
        corrected later, each notified session is sent the correction, wherever it is by then (RJ5). Two exceptions: a
        session whose person has a seat is sent a new task instead, and a session that has declined is sent nothing.
        Example: a responder is notified and walks out of the radius. Then the headline is corrected, so the responder
        is sent the correction. When the next wave widens the radius, the responder is not notified a second time.
Rule 4  A call is over when its end was read from the log, or when either clock says that it has expired. From then on
        the only message about the call is `over` (RJ7, RJ9). If the log has the end, and the call has not expired yet,
        `over` is sent once to each session that has a task, or that was notified and has not declined. Every later
        `accept` is answered with `over`, too.
Rule 5  The exact place is decrypted only while a task is written, and is not kept in memory (RZ2). A responder's
        location leaves this hub only in a `SeatRequest`, while this process decides about the seat (RZ7).
Rule 6  A seat belongs to a person, who is identified by issuer and `sub`. A session is sent the person's task, and may
        act for the seat, only if the call asks for a qualification of the session's own token (HD5).
        Example: a volunteer accepts on a phone, and also has a web page open whose token has no qualifications. Only
        the phone is sent the task. A `decline` from the page does not release the seat.
"""

import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import ceil, inf
from random import random
from typing import Literal, NamedTuple

from ..alertlog import Counts
from ..clock import Now
from ..matching.circle_index import NONE, CircleIndex
from ..model.alert import Circle
from ..model.call import CallEntry, Person, SeatState
from .aeds import NO_AEDS, Aeds
from .eligibility import Here, Reason, Refusal, SeatRequest, is_near, is_wanted, may_see, refusal
from .live_call import CallDelivery, CallSummary, LiveCall, Open
from .messages import in_each_format, standdown_message, task_message, task_revision
from .pending_accept import AcceptEvent, AcceptState, PendingAccept
from .responders import Responder, ResponderRights, Responders
from .state import CallState, Seat, place_of

HOLDING_S = 30.0  # how long a session's `holding` is remembered for calls that this process has not read yet (R5e)
UNKNOWN_KEPT = 256  # the largest number of calls that are remembered from one session's `holding`
REPORT_S = 5.0  # a report is ignored if the session's last one was less than this time ago (M20)
JITTER_S = 0.1  # longest random delay before a radius grows, so that not all processes try it at once (RN2)
UNANSWERED_S = 60.0  # a call counts as unanswered if nobody has accepted it within this time
KEPT_S = 86_400.0  # an expired call without an `end` is forgotten after this time; the log forgets it then, too
STANDDOWN, TASK, CALL = range(3)  # the order of messages in one write (RJ3)
LOOK_S = 0.2  # time between two checks whether a call has expired
INITIAL_CAPACITY = 1 << 10  # number of circles for which address space is reserved at the start


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

    This process had read the entries that gave these seats before the log lost the entries. `CallHub.lost` lists the
    seats.
    """

    call_id: str


LogRequest = AcceptRequest | ReleaseRequest | ReportRequest | RestoreRequest


class CallHub:
    """Keeps the calls and the responders of one process, and decides which messages about calls each session is sent.

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
        self.rings = self.acks = self.failed = (
            0  # how many `call` messages were sent, acknowledgements received, entries not decryptable
        )
        self.answers: Counter[str] = Counter()
        self.standdowns: Counter[Reason] = Counter()
        self.seats: Counter[str] = Counter()  # by role: how often an `accept` was answered by a task
        self._open = open_
        self._ask = ask
        self._aeds = aeds
        self._observe = observe
        self._calls: dict[str, LiveCall] = {}
        self._responders = Responders(capacity)
        self._returning: deque[tuple[float, Responder]] = deque()  # (kept until, who holds unknown calls)
        self._near: CircleIndex[LiveCall] = CircleIndex(INITIAL_CAPACITY)  # the circles inside which calls notify
        self._widening: set[LiveCall] = set()  # calls with a free seat whose radius can still grow
        self._seated: dict[Person, set[LiveCall]] = {}  # by person: the calls to which they are assigned
        self._resting: dict[Person, float] = {}  # monotonic time until which a person is excluded (RQ7)
        self._noted: OrderedDict[int, set[LiveCall]] = OrderedDict()  # by row: calls about which a message may be owed
        self._counts: dict[str, Counts] = {}  # counts to store, by the name under which the log has them
        self._arrivals = 0
        self._look_at = 0.0

    # ---- the life of a session -------------------------------------------------------------------------------------

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """Set the rights of a session to those that its current token grants."""
        self._responders.set_rights(row, rights)

    def move(self, row: int, here: Here | None) -> None:
        """Set the location of a session to the one that its client has sent (RQ4).

        None means that the client no longer shares its location. The session is then off duty, and is not sent any
        calls.
        """
        self._responders.move(row, here)

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Process the field `holding` of a new session: the calls that the client already has (RJ8).

        `holding` is a dict from the id of a call to the revision that the client has.
        """
        responder = self._responders.find(row)
        for call_id, held in holding.items():
            call = self._calls.get(call_id)
            if call is not None and call.state is not None:
                self._trust_holding(self._responders.get(row), call, call.state, held, now)
            elif responder is not None and responder.quals and len(responder.unknown) < UNKNOWN_KEPT:
                if not responder.unknown:
                    self._returning.append((now.monotonic + HOLDING_S, responder))
                responder.unknown[call_id] = held

    def leave(self, row: int) -> None:
        """Forget a session that has ended, and what it was sent about calls."""
        self._noted.pop(row, None)
        responder = self._responders.leave(row)
        for call in responder.calls if responder is not None else ():
            del call.deliveries[row]

    def _trust_holding(self, responder: Responder, call: LiveCall, state: CallState, held: int, now: Now) -> None:
        """Record that a session already has revision `held` of a call, because its client says so (R5).

        The client may have the revision as a `call` message or as a task. Do nothing if the session may not see the
        call, or if the call has expired according to both clocks (wall and monotonic). One clock alone may be wrong
        (Rule 4).
        """
        if call.expired_for_sure(now) or not may_see(state, responder.may_test):
            return
        delivery = self._delivery(call, responder)
        delivery.notified = max(delivery.notified, held)
        delivery.over = state.end is not None
        if responder.person in call.released and call.seat_of(responder.person) is None:
            delivery.unsure = True
            if call.first_acceptance <= held < call.released[responder.person]:
                # The session may still have the task of a seat that was released on another connection. If so, it is
                # owed a `standdown` with the reason `left`.
                delivery.task = held

    # ---- messages from sessions ------------------------------------------------------------------------------------

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """Process an `accept` (M18), with which a responder offers to help.

        The answer is a message that `frames` returns later: soon if this process can decide, otherwise after the log
        has decided.
        """
        self.answers["accept"] += 1
        responder, call = self._responders.get(row), self._calls.get(call_id)
        delivery = None if call is None else call.deliveries.get(row)
        if delivery is not None:
            delivery.declined = False
        if call is not None and self._has_task(responder, call, now):
            self._delivery(call, responder).again = True  # confirm the seat that the person already has (RV3)
            self._note(row, call, first=True)
        elif reason := self._refusal(responder, call_id, eta_s, now):
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
        state = call.state
        if state is None or self._is_over(call, now) or not may_see(state, responder.may_test):
            return False
        return is_wanted(state, responder.quals) and call.seat_of(responder.person) is not None

    def _own_seat(self, responder: Responder, call: LiveCall) -> Seat | None:
        """Return the seat (assignment to the call) that a session may release or report on; None if it has none.

        It is the seat of the session's person (Rule 6). A session that was sent the task may still do so after its
        qualification has lapsed.
        """
        delivery = call.deliveries.get(responder.row, _NOTHING)
        may = delivery.task > 0 or (call.state is not None and is_wanted(call.state, responder.quals))
        return call.seat_of(responder.person) if may else None

    def _refusal(self, responder: Responder, call_id: str, eta_s: int | None, now: Now) -> Refusal | None:
        """Return the reason to refuse an `accept` at once, without asking the log.

        Return None if there is no such reason; then the log must be asked (RV4).
        """
        if responder.person is None or not responder.quals:
            return "over"
        call = self._calls.get(call_id)
        if call is None or call.state is None:
            return None  # this process may not have read the call yet
        seat_request = self._seat_request(responder, call_id, eta_s, now)
        return "over" if self._is_over(call, now) else refusal(call.state, seat_request, now)

    def decline(self, row: int, call_id: str) -> None:
        """Process a `decline` (M19): a responder is not coming, or is no longer coming."""
        self.answers["decline"] += 1
        responder, call = self._responders.get(row), self._calls.get(call_id)
        pending, seat = responder.pending_for(call_id), None
        releases = pending is not None and pending.on(AcceptEvent.DECLINE)
        if call is not None and call.state is not None and may_see(call.state, responder.may_test):
            if call.summary.over:
                return
            call.note_declined(self._delivery(call, responder))
            seat = self._own_seat(responder, call)
        if responder.person is not None and (seat is not None or releases):
            self._ask(ReleaseRequest(call_id, responder.person, None if seat is None else seat.accepted_at))

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """Process a `report` (M20): the progress of a responder on the way to a call.

        The report is ignored if the session's person has no seat (assignment to the call), or if the session's last
        report was less than REPORT_S seconds ago.
        """
        responder, call = self._responders.find(row), self._calls.get(call_id)
        if responder is None or responder.person is None or call is None or self._is_over(call, now):
            return
        if self._own_seat(responder, call) is not None and now.monotonic >= responder.reported + REPORT_S:
            responder.reported = now.monotonic
            self._ask(ReportRequest(call_id, responder.person, state))

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        """Record that the session's client has shown this revision of a call to its user (M5)."""
        call = self._calls.get(call_id)
        if call is not None and row in call.deliveries:
            self.acks += call.note_ack(call.deliveries[row], revision)

    def seat_request(self, request: AcceptRequest, now: Now) -> SeatRequest | None:
        """Return the request for a seat (an assignment to a call) to make for a session, with its current location.

        Return None if the session has left or no longer waits for an answer.
        """
        responder, pending = request
        return self._seat_request(responder, pending.call_id, pending.eta_s, now) if pending.waiting else None

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
        call = self._calls.get(pending.call_id)
        if call is not None and self._is_over(call, now):
            reason = "over"
        elif pending.last_sent == "call":
            pending.last_sent = None
            return False
        responder.end_pending(AcceptEvent.REFUSE)
        if pending.last_sent != reason:
            self._refuse(responder, pending.call_id, reason)
        return True

    def _seat_request(self, responder: Responder, call_id: str, eta_s: int | None, now: Now) -> SeatRequest:
        person = responder.person or _NOBODY
        here = responder.here if responder.on_duty else None
        busy = self._is_busy(person, now)
        return SeatRequest(call_id, person, responder.quals, responder.may_test, here, busy, eta_s)

    def _refuse(self, responder: Responder, call_id: str, reason: Refusal) -> None:
        responder.refused[call_id] = reason
        call = self._calls.get(call_id)
        if reason == "full" and call is not None and responder.row in call.deliveries:
            call.deliveries[responder.row].full = True  # so that `full` is not sent a second time
        if (
            reason == "over"
            and call is not None
            and responder.row in call.deliveries
            and self._clock_ended(responder, call)
        ):
            delivery = call.deliveries[responder.row]
            delivery.notified = delivery.task = 0  # so it is notified again if the clock was wrong
            call.suspended = True
        self._noted.setdefault(responder.row, set())
        self._noted.move_to_end(responder.row, last=False)

    # ---- changes of calls ------------------------------------------------------------------------------------------

    def knows(self, call_id: str) -> bool:
        """Return whether this process knows a call with this id."""
        return call_id in self._calls

    def take(self, entry: CallEntry, now: Now) -> None:
        """Process an entry of a call from the log.

        Remember the sessions that may have to be sent a message because of it. After an unexpected error nothing is
        sent about the call until the same entry is taken at another attempt, or a later one.
        """
        call = self._calls.get(entry.id)
        if call is None:
            self._arrivals += 1
            call = self._calls[entry.id] = LiveCall(entry, self._arrivals, now)
        held, kept, was_held_back = set(call.lost), call.kept(), call.held_back
        try:
            with self._changing(call, now):
                call.take(entry, self._open, now)
        except Exception:
            call.hold_back(entry.revision, *kept)
            raise
        if was_held_back and entry.revision >= was_held_back:
            call.held_back = 0
            if call.state is not None and not call.summary.over:
                self._note_concerned(call, call.state, CallSummary(), call.summary)  # what could not be sent meanwhile
        if call.lost.keys() - held:
            self._ask(RestoreRequest(call.id))

    def lost(self, call_id: str) -> list[Seat]:
        """Return the seats (responders' assignments) of a call that the log has lost (RV7).

        This process had read the entries that gave these seats before the log lost the entries.
        """
        call = self._calls.get(call_id)
        return [] if call is None else list(call.lost.values())

    def adopt(self, open_: Open, now: Now) -> None:
        """Use new keys from now on, and decrypt with them, if possible, what the old keys could not decrypt (RZ5)."""
        self._open = open_
        for call in [each for each in self._calls.values() if each.undecrypted]:
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
        if call.state is not None and call.summary != before:
            self._changed(call, call.state, before, now)

    def _changed(self, call: LiveCall, state: CallState, before: CallSummary, now: Now) -> None:
        after = call.summary
        self._update_seated(call, before, after)
        if not before.revision:
            self._apply_kept_holding(call, state, now)
        if after.over:
            self._finish(call, state, now)
            return
        if after.wave != before.wave:
            call.wave_at = now.monotonic + JITTER_S * random()  # noqa: S311 (need not be unpredictable)
        if after.revision != before.revision:
            call.begin_revision()
        self._note_concerned(call, state, before, after)

    def _note_concerned(self, call: LiveCall, state: CallState, before: CallSummary, after: CallSummary) -> None:
        """Remember the sessions that may be owed a message because an open call has changed.

        They are remembered in the order of Rule 2, in which they will be sent their messages.
        """
        new = after.content != before.content
        notified: list[int] = []
        if not after.full and (new or after.wave != before.wave or after.revision != before.revision):
            notified = self._responders.within(_circle(state))
        recipients = [*call.deliveries] if new or (after.full and not before.full) else []
        for row in dict.fromkeys([*notified, *recipients]):
            self._note(row, call)
        if notified and not before.revision:
            call.last_of_first_wave = notified[-1]
        holders = after.holders if new else after.holders ^ before.holders
        for row in self._responders.rows_of({person for person, _ in holders}):
            self._note(row, call, first=True)
        self._update_index(call, state)

    def _finish(self, call: LiveCall, state: CallState, now: Now) -> None:
        """Process the end of a call: its sessions will be sent `over` (RJ7).

        The responders who were assigned to the call are excluded from other calls for a while (RQ7).
        """
        end = state.end
        assert end is not None
        self._update_index(call, state)
        for row, delivery in call.deliveries.items():
            delivery.over = delivery.task > 0 or (delivery.notified > 0 and not delivery.declined)
            self._note(row, call)
        rest_s = state.opening.terms.rest_s
        until = now.monotonic + min(rest_s, (end.at - now.wall_ms) / 1000 + rest_s)
        for person in call.holders() if call.is_actual else ():
            self._resting[person] = max(self._resting.get(person, 0.0), until)
        for row in self._responders.rows_of(call.holders()):
            responder = self._responders.find(row)
            if responder is not None and is_wanted(state, responder.quals):
                self._delivery(call, responder).over = True
                self._note(row, call, first=True)

    def _apply_kept_holding(self, call: LiveCall, state: CallState, now: Now) -> None:
        """Process what sessions said in `holding` about a call that this process has only read now (R5e).

        In `holding`, a client lists the calls that it already has.
        """
        for _, responder in self._returning:
            held = responder.unknown.pop(call.id, None)
            if held is not None and not responder.gone:
                self._trust_holding(responder, call, state, held, now)
                self._note(responder.row, call)

    def _update_seated(self, call: LiveCall, before: CallSummary, after: CallSummary) -> None:
        """Update `_seated`, a dict from each person to the calls to which the person is assigned (RQ7).

        Calls whose end was read from the log are left out.
        """
        held, holds = ({person for person, _ in each.holders} for each in (before, after))
        for person in held if after.over else held - holds:
            calls = self._seated.get(person, set())
            calls.discard(call)
            if not calls:
                self._seated.pop(person, None)
        for person in set() if after.over else holds - held:
            self._seated.setdefault(person, set()).add(call)

    def _update_index(self, call: LiveCall, state: CallState) -> None:
        """Update the index of the calls' circles, and the set of calls whose radius can grow, after a call has changed.

        The index has the circle of each call that has not ended and that still needs responders.
        """
        self._near.discard(call.index_slot)
        call.index_slot = NONE
        if state.end is None and not state.full:
            call.index_slot = self._near.add(call, [_circle(state)])
        if call.widens_at(0) < inf:
            self._widening.add(call)
        else:
            self._widening.discard(call)

    def _note(self, row: int, call: LiveCall, *, first: bool = False) -> None:
        self._noted.setdefault(row, set()).add(call)
        if first:
            self._noted.move_to_end(row, last=False)

    # ---- messages to sessions --------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there may be sessions that should get messages about calls and were not sent them yet."""
        return bool(self._noted)

    def take_noted(self, count: int) -> list[tuple[int, Iterable[LiveCall]]]:
        """Return up to `count` sessions that may be owed messages about calls, and forget them.

        The result is a list of pairs: the row (number) of a session, and the calls that the messages are about.
        `frames` returns the messages themselves.
        """
        return [self._noted.popitem(last=False) for _ in range(min(count, len(self._noted)))]

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[LiveCall] | None = None) -> list[bytes]:
        """Return the messages about calls that a session should get now, as frames, and record them as sent.

        If `calls` is None, consider all calls. `wire` is the number of the session's frame format. Messages that
        withdraw a call (`standdown`) come first, then tasks, then `call` messages (RJ3).
        """
        responder = self._responders.find(row)
        if calls is None:
            self._noted.pop(row, None)
            calls = self._candidates(responder, self._responders.person_of(row))
        if responder is None and not calls:
            return []
        responder = self._responders.get(row)
        said = []
        for call_id, reason in responder.refused.items():
            self.standdowns[reason] += 1
            said.append(_Message(STANDDOWN, in_each_format(standdown_message(call_id, reason))))
        responder.refused.clear()
        for call in sorted(calls, key=lambda each: each.order):
            while (message := self._next_message(responder, call, now)) is not None:
                said.append(message)
                if message.order == CALL:
                    break  # no other message about this call can follow
            if call.last_of_first_wave == row and call.state is not None:
                call.last_of_first_wave = -1
                self._observe("first_ring", max(0, now.wall_ms - call.state.opening.issued_at) / 1000)
        return [each.frames[wire] for each in sorted(said, key=lambda each: each.order)]

    def _candidates(self, responder: Responder | None, person: Person | None) -> set[LiveCall]:
        """Return all calls about which a session may be owed messages."""
        calls = set(self._seated.get(person, ())) if person is not None else set()
        if responder is not None:
            calls |= responder.calls
            if responder.on_duty:
                calls.update(self._near.containing(*self._responders.point_of(responder)))
        return calls

    def _next_message(self, responder: Responder, call: LiveCall, now: Now) -> "_Message | None":
        """Return the next message that the session should get about a call, and record it as sent (Rule 1).

        Return None if there is no such message.
        """
        state, delivery = call.state, call.deliveries.get(responder.row, _NOTHING)
        if state is None or call.held_back or not may_see(state, responder.may_test):
            return None
        if call.expired(now):
            call.suspended = True
            return None
        if state.end is not None:
            rest_until = call.rest_until(responder.person)
            return self._stand_down(call, responder, delivery, "over", rest_until) if delivery.over else None
        seat = call.seat_of(responder.person)
        if seat is not None and not is_wanted(state, responder.quals):
            return self._not_qualified(responder, call, delivery)
        if seat is not None:
            wanted = delivery.again or delivery.task < task_revision(state, seat)
            return self._task(responder, call, state, seat, now) if wanted else None
        if delivery.task or delivery.again:
            return self._stand_down(call, responder, delivery, "left")
        if delivery.declined or not responder.quals:
            return None
        if call.summary.full:
            return (
                self._stand_down(call, responder, delivery, "full") if delivery.notified and not delivery.full else None
            )
        corrected = 0 < delivery.notified < state.content and not delivery.full
        lacks = delivery.notified < state.revision or delivery.unsure
        if corrected or (lacks and self._is_notified(responder, state, now)):
            call.note_notified(self._delivery(call, responder), state.revision)
            self.rings += 1
            self._note_last_sent(responder, call, "call")
            return _Message(CALL, call.frames(state))
        return None

    def _is_notified(self, responder: Responder, state: CallState, now: Now) -> bool:
        """Return whether a session at its present location should be notified of the call (RJ1).

        The caller has already checked seats, rights and earlier `decline` messages. A session is not notified if its
        person is excluded because of another call (RQ7). That is counted nowhere (DP30).
        """
        here = responder.here if responder.on_duty and is_wanted(state, responder.quals) else None
        return here is not None and is_near(state, here) and not self._is_busy(responder.person, now)

    def _task(self, responder: Responder, call: LiveCall, state: CallState, seat: Seat, now: Now) -> "_Message | None":
        """Return the `task` message, which tells a responder where to go, or None if the place can't be decrypted.

        The exact place is in memory only until the frame is made (RZ2).
        """
        opened = None if state.entry is None else self._open(state.entry)
        if opened is None:
            return None  # the key has been removed; the task is sent when it is back (RZ5)
        delivery = self._delivery(call, responder)
        delivery.task, delivery.again, delivery.full = task_revision(state, seat), False, False
        if pending := responder.pending_for(call.id):
            responder.end_pending(AcceptEvent.ANSWER)
            self.seats[seat.role] += 1
            self._observe("accept", now.monotonic - pending.since)
            if seat.entry_number == call.first_acceptance:
                self._observe("first_seat", max(0, now.wall_ms - call.opened_at) / 1000)
        return _Message(TASK, in_each_format(task_message(state, seat, place_of(opened), self._aeds)))

    def _not_qualified(self, responder: Responder, call: LiveCall, delivery: CallDelivery) -> "_Message | None":
        """Return the message for a session that doesn't qualify for a call to which its person is assigned (Rule 6).

        It is a `standdown` with the reason `over` if the session waits for the answer to an `accept`. Otherwise, return
        None.
        """
        if responder.pending_for(call.id):
            responder.end_pending(AcceptEvent.ANSWER)
        elif not delivery.again:
            return None
        return self._stand_down(call, responder, delivery, "over")

    def _stand_down(
        self,
        call: LiveCall,
        responder: Responder,
        delivery: CallDelivery,
        reason: Reason,
        rest_until: int | None = None,
    ) -> "_Message":
        """Return a `standdown` message with this reason, and record that the session's call or task is withdrawn.

        `rest_until` is the time until which the person will get no other calls, in ms since 1970, or None.
        """
        delivery.over = delivery.again = False
        delivery.full = reason == "full"
        delivery.task = 0
        if reason == "over":
            delivery.notified = 0
        self.standdowns[reason] += 1
        self._note_last_sent(responder, call, reason)
        return _Message(STANDDOWN, call.standdown(reason, rest_until))

    @staticmethod
    def _note_last_sent(responder: Responder, call: LiveCall, what: Reason | Literal["call"]) -> None:
        """Record which message about a call was the last that a session was sent.

        The record is needed for the answer to an `accept`. It is kept only while the session waits for the answer to an
        `accept` of this call.
        """
        if pending := responder.pending_for(call.id):
            pending.last_sent = what

    def _delivery(self, call: LiveCall, responder: Responder) -> CallDelivery:
        """Return the record of what a session was sent about a call. Create the record if there is none."""
        found = call.deliveries.get(responder.row)
        if found is None:
            found = call.deliveries[responder.row] = CallDelivery()
            responder.calls.add(call)
        return found

    def rest_until(self, row: int, now: Now) -> int | None:
        """Return the time until which a session's person gets no calls, after having helped at one (RQ7).

        The time is in ms since 1970. Return None if there is no such time.
        """
        person = self._responders.person_of(row)
        until = self._resting.get(person, 0.0) if person is not None else 0.0
        return None if until <= now.monotonic else now.wall_ms + ceil((until - now.monotonic) * 1000)

    def _is_busy(self, person: Person | None, now: Now) -> bool:
        """Return whether a person is excluded from other calls (RQ7).

        This is so if the person is assigned to an actual call (neither a test nor an exercise), or was until recently.
        """
        if person is None or self._resting.get(person, 0.0) > now.monotonic:
            return person is not None
        return any(call.is_actual for call in self._seated.get(person, ()))

    @staticmethod
    def _clock_ended(responder: Responder, call: LiveCall) -> bool:
        """Return whether a call that is over for this session has only expired: the log has no end for it."""
        state = call.state
        return (
            state is not None
            and state.end is None
            and is_wanted(state, responder.quals)
            and may_see(state, responder.may_test)
        )

    @staticmethod
    def _is_over(call: LiveCall, now: Now) -> bool:
        """Return whether the call is over (Rule 4).

        A call is over if its end was read from the log, or if it has expired according to either clock.
        """
        return call.summary.over or call.expired(now)

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
        for person in [person for person, until in self._resting.items() if until <= now.monotonic]:
            del self._resting[person]
        for call in list(self._calls.values()):
            is_known = call.state is not None and call.state.end is None and now.monotonic < call.deadline + KEPT_S
            if call.expired_for_sure(now) and not is_known:
                self._drop(call)
            elif call.suspended and not call.expired(now) and call.state is not None:
                call.suspended = False
                self._note_concerned(call, call.state, CallSummary(), call.summary)

    def _drop(self, call: LiveCall) -> None:
        """Forget a call that has expired.

        Call this only if the call's end was read, if the call can't be decrypted, or if it is so old that even the log
        has forgotten it.
        """
        del self._calls[call.id]
        self._near.discard(call.index_slot)
        self._widening.discard(call)
        self._update_seated(call, call.summary, CallSummary(over=True))
        for row in call.deliveries:
            self._responders.get(row).calls.discard(call)
        for calls in self._noted.values():
            calls.discard(call)
        self.put_back_counts(call.take_counts())

    def to_end(self, now: Now) -> list[str]:
        """Return the ids of expired calls whose `end` was not read from the log, and which this node may end (RZ4).

        An `end` in the log affects all nodes. So a node may end a call only if it has known the call's content for the
        whole lifetime of that content.

        Example: the wall clock of a node is an hour fast. Every call looks expired there as soon as it is read. The
        node sends nothing about these calls, but does not end them for the other nodes.
        """
        calls = [each for each in self._calls.values() if each.state is not None and each.state.end is None]
        return [each.id for each in calls if each.expired_for_sure(now) and now.monotonic >= each.over_by]

    def due_to_widen(self, now: Now) -> list[LiveCall]:
        """Return the calls whose next wave, a notification within a wider radius, may be due (RN2).

        Whether the wave is due also depends on the number of notified sessions, which the caller must check.
        """
        return [each for each in self._widening if each.widens_at(0) <= now.monotonic and not each.expired(now)]

    def seconds_to_widening(self, now: Now) -> float:
        """Return the seconds until the next call must be checked for a wider radius; infinity if no radius can grow."""
        calls = (each for each in self._widening if not each.expired(now))
        return min((max(each.widens_at(0), each.check_at) for each in calls), default=inf) - now.monotonic

    @property
    def may_widen(self) -> bool:
        """Whether there is a call whose radius can still grow."""
        return bool(self._widening)

    def may_be_open(self, call_id: str, now: Now) -> bool:
        """Return whether the call may still be open. It may be unless this process knows that it is over."""
        call = self._calls.get(call_id)
        return call is None or not self._is_over(call, now)

    def is_open_for(self, seat_request: SeatRequest, now: Now) -> bool:
        """Return whether this process has read the call, and the call is not over for the person in this request."""
        call = self._calls.get(seat_request.call_id)
        if call is None or call.state is None or self._is_over(call, now):
            return False
        return refusal(call.state, seat_request, now) != "over"

    def open_calls(self, now: Now) -> list[LiveCall]:
        """Return the calls that are neither ended nor expired."""
        return [each for each in self._calls.values() if each.state is not None and not self._is_over(each, now)]

    def unanswered(self, now: Now) -> int:
        """Return the number of open calls to which no responder is assigned.

        Calls that were opened less than UNANSWERED_S seconds ago don't count.
        """
        since = now.wall_ms - UNANSWERED_S * 1000
        return sum(not call.holders() and call.opened_at <= since for call in self.open_calls(now))

    def degraded(self, now: Now) -> int:
        """Return the number of unexpired calls with entries that no key decrypts (HD8)."""
        return sum(bool(call.undecrypted) and not call.expired(now) for call in self._calls.values())

    @property
    def on_duty(self) -> int:
        """The number of sessions on duty: with a location, and with a qualification that counts for calls (RQ4)."""
        return self._responders.on_duty

    def take_counts(self) -> dict[str, Counts]:
        """Return how many messages were sent, acknowledged and declined since this method was last called (HD16).

        The result is a dict. Each key names a call or a revision of a call. Counting starts again from zero.
        """
        for call in self._calls.values():
            self.put_back_counts(call.take_counts())
        counts, self._counts = self._counts, {}
        return counts

    def put_back_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add counts that could not be stored in the log, so that the next `take_counts` returns them again."""
        for name, more in counts.items():
            self._counts[name] = self._counts.get(name, Counts()).plus(more)


class _Message(NamedTuple):
    """A message to write: its rank in the order of messages, and its encoding in each wire format."""

    order: int
    frames: tuple[bytes, ...]


_NOTHING = CallDelivery()  # the record of a session that was sent nothing; do not change it
_NOBODY = Person("")  # a session without a token


def _circle(call: CallState) -> Circle:
    """Return the circle inside which the call notifies sessions now.

    It has the same centre as the published circle (RZ6).
    """

    return Circle(call.opening.near.lat, call.opening.near.lng, call.reach_m)
