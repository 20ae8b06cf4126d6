"""The live side of calls in one process: which are open, who was told what, and who is owed something.

Calls and responders are few, so nothing of this flies with the alerts: the hub asks this one when a session comes,
moves or goes, and has it write before its own flights. Like the hub it knows no clock, no socket and no asyncio. What
has to be done in the log it asks for by an `LogRequest`.

    an entry is read                     take: the rows that it may concern are noted
    a turn of the pump                   take_noted, frames: what these rows are owed of these calls
    hello, move, token, drained          frames: all that the session is owed now
    accept, decline, report              an errand, or an answer that is noted

Rule 1  What a session is owed about a call is computed from the call's state and from what the session was told
        (`_next_message`), at the moment it is written; a noted row is a hint where to look. So a slow session is a
        late joiner, and nothing is sent twice: one (id, revision) once on a connection (RJ2, RJ6).
Rule 2  Rows of those who hold a seat, or have just lost one, go before those of all others; of those who are rung the
        nearest go first.
Rule 3  A call rings for a session by RJ1, and by nothing else. A recipient is sent new content wherever it is (RJ5),
        but who holds a seat gets it as a new task, and who has declined is left alone.
Rule 4  When the end was read, or either clock has ended a call, nothing is said of it any more but `over` (RJ7, RJ9):
        to its recipients and holders, once and before it expires, and as the answer to an `accept`.
Rule 5  The exact place is opened while a task is written, and not kept (RZ2). No responder's place leaves this hub
        (RZ7), but in a claim, while this process judges it.
Rule 6  A seat belongs to a person, by issuer and `sub`. A session may act for that person's seat, and is sent the task,
        only if a qualification of its own token counts for the call (HD5).
"""

import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
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

HOLDING_S = 30.0  # how long a session's word is kept that it holds a call that is unknown here (R5e)
UNKNOWN_KEPT = 256  # … and of how many calls
REPORT_S = 5.0  # between two reports of a session that count (M20)
JITTER_S = 0.1  # RN2: so that of several processes one widens
UNANSWERED_S = 60.0  # from when on a call is unanswered while nobody holds a seat
KEPT_S = 86_400.0  # how long a call that has expired is known while its `end` does not come: the log forgets it then
STANDDOWN, TASK, CALL = range(3)  # the order of messages in one write (RJ3)
LOOK_S = 0.2  # between looks at the times of all calls
INITIAL_CAPACITY = 1 << 10  # rings for which address space is taken at the start


# ---- errands: what is to be done in the log ------------------------------------------------------------------------


class AcceptRequest(NamedTuple):
    """Claim a seat for this session: by `seat_request`, and then tell by `on_answer`."""

    responder: Responder
    pending: PendingAccept


class ReleaseRequest(NamedTuple):
    """Release the seat of a call that this person holds, if it is the one that was accepted then (ms; None: any)."""

    call_id: str
    person: Person
    accepted_at: int | None = None


class ReportRequest(NamedTuple):
    """Report how far this person is."""

    call_id: str
    person: Person
    state: SeatState


class RestoreRequest(NamedTuple):
    """The log has lost claims of this call that were read: `lost` says which seats, as long as they are not back."""

    call_id: str


LogRequest = AcceptRequest | ReleaseRequest | ReportRequest | RestoreRequest


class CallHub:
    """The calls of this process, and its responders. The module tells how it works."""

    def __init__(
        self,
        capacity: int,
        open_: Open,
        ask: Callable[[LogRequest], None],
        aeds: Aeds = NO_AEDS,
        observe: Callable[[str, float], None] = lambda _what, _seconds: None,
    ) -> None:
        """`capacity`: how many rows there are. `open_` opens an entry; None: it does not open.

        `ask` is told what is to be done in the log, and may not do it at once. `observe` is told how long something
        took, in seconds: `first_ring`, `accept` and `first_seat`.
        """
        self.rings = self.acks = self.failed = 0  # of calls: sent, acknowledged; entries that did not open
        self.answers: Counter[str] = Counter()
        self.standdowns: Counter[Reason] = Counter()
        self.seats: Counter[str] = Counter()  # by role, of tasks that answered an `accept`
        self._open = open_
        self._ask = ask
        self._aeds = aeds
        self._observe = observe
        self._calls: dict[str, LiveCall] = {}
        self._responders = Responders(capacity)
        self._returning: deque[tuple[float, Responder]] = deque()  # those with something unknown, and until when
        self._near: CircleIndex[LiveCall] = CircleIndex(INITIAL_CAPACITY)  # of those that ring
        self._widening: set[LiveCall] = set()  # those that have a free seat, and a ring that is not in force yet
        self._seated: dict[Person, set[LiveCall]] = {}  # the calls, not ended, of which each holds a seat
        self._resting: dict[Person, float] = {}  # until when each is held off (RQ7), on the monotonic clock
        # Rows that may be owed something, and of which calls.
        self._noted: OrderedDict[int, set[LiveCall]] = OrderedDict()
        self._counts: dict[str, Counts] = {}  # since they were last taken, by the names under which they are stored
        self._arrivals = 0
        self._look_at = 0.0

    # ---- sessions ------------------------------------------------------------------------------------------------

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """The session has this token now."""
        self._responders.set_rights(row, rights)

    def move(self, row: int, here: Here | None) -> None:
        """The session is there now, by its own word; None: it does not say, and so is off duty (RQ4)."""
        self._responders.move(row, here)

    def take_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """The session has just come, and says which revisions of which calls it holds (RJ8)."""
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
        """The session is over. All that is known of it is forgotten."""
        self._noted.pop(row, None)
        responder = self._responders.leave(row)
        for call in responder.calls if responder is not None else ():
            del call.told[row]

    def _trust_holding(self, responder: Responder, call: LiveCall, state: CallState, held: int, now: Now) -> None:
        """Take a session's word that it holds a call, as the ring or as a task (R5); a clock may be wrong (Rule 4)."""
        if call.expired_for_sure(now) or not may_see(state, responder.may_test):
            return
        told = self._delivery(call, responder)
        told.notified = max(told.notified, held)
        told.over = state.end is not None
        if responder.person in call.released and call.seat_of(responder.person) is None:
            told.unsure = True
            if call.first_acceptance <= held < call.released[responder.person]:
                told.task = held  # perhaps it was: who has given a seat back on another connection has to hear of it

    # ---- what sessions say ---------------------------------------------------------------------------------------

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """The session says that it is going (M18). It is owed an answer, now or when the log has one."""
        self.answers["accept"] += 1
        responder, call = self._responders.get(row), self._calls.get(call_id)
        told = None if call is None else call.told.get(row)
        if told is not None:
            told.declined = False
        if call is not None and self._has_task(responder, call, now):
            self._delivery(call, responder).again = True  # RV3
            self._note(row, call, first=True)
        elif reason := self._refusal(responder, call_id, eta_s, now):
            self._refuse(responder, call_id, reason)
        elif responder.pending is None or responder.pending.state is AcceptState.STORED:
            responder.end_pending(AcceptEvent.ACCEPT)
            responder.pending = PendingAccept(call_id, eta_s, now.monotonic)
            self._ask(AcceptRequest(responder, responder.pending))
        elif pending := responder.pending_for(call_id):  # one call at a time (RV4): the client repeats the others
            pending.on(AcceptEvent.ACCEPT)
            pending.last_sent = None  # this `accept` needs an answer, too

    def _has_task(self, responder: Responder, call: LiveCall, now: Now) -> bool:
        """Whether a session is to be told where to go."""
        state = call.state
        if state is None or self._is_over(call, now) or not may_see(state, responder.may_test):
            return False
        return is_wanted(state, responder.quals) and call.seat_of(responder.person) is not None

    def _own_seat(self, responder: Responder, call: LiveCall) -> Seat | None:
        """Return the seat that a session may give back or report on, which is its person's (Rule 6).

        A session that was sent the task may do so after its qualification has lapsed, too.
        """
        told = call.told.get(responder.row, _NOTHING)
        may = told.task > 0 or (call.state is not None and is_wanted(call.state, responder.quals))
        return call.seat_of(responder.person) if may else None

    def _refusal(self, responder: Responder, call_id: str, eta_s: int | None, now: Now) -> Refusal | None:
        """Why a claim can be refused without the log; None if the log has to be asked (RV4)."""
        if responder.person is None or not responder.quals:
            return "over"
        call = self._calls.get(call_id)
        if call is None or call.state is None:
            return None  # this process may be behind
        seat_request = self._seat_request(responder, call_id, eta_s, now)
        return "over" if self._is_over(call, now) else refusal(call.state, seat_request, now)

    def decline(self, row: int, call_id: str) -> None:
        """The session says that it is not going (M19), or not any more."""
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
        """The session says how far it is (M20). It counts from who holds a seat, and once in REPORT_S."""
        responder, call = self._responders.find(row), self._calls.get(call_id)
        if responder is None or responder.person is None or call is None or self._is_over(call, now):
            return
        if self._own_seat(responder, call) is not None and now.monotonic >= responder.reported + REPORT_S:
            responder.reported = now.monotonic
            self._ask(ReportRequest(call_id, responder.person, state))

    def acknowledge(self, row: int, call_id: str, revision: int) -> None:
        """The session says that it has shown this revision of a call."""
        call = self._calls.get(call_id)
        if call is not None and row in call.told:
            self.acks += call.note_ack(call.told[row], revision)

    def seat_request(self, request: AcceptRequest, now: Now) -> SeatRequest | None:
        """The claim as it is now; None if nobody waits for it any more: the session is gone, or was answered."""
        responder, pending = request
        return self._seat_request(responder, pending.call_id, pending.eta_s, now) if pending.waiting else None

    def on_answer(self, request: AcceptRequest, reason: Refusal | None, now: Now) -> bool:
        """The log has judged the claim: refused, or (None) it stands there, and is told when it is read (RV1).

        What was read meanwhile may be newer. False: the session was rung, so the claim is to be judged anew.
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

    def give_up(self, request: AcceptRequest) -> None:
        """The claim could not be judged, for a reason that is a mistake of ours: the client may repeat it."""
        if request.responder.pending is request.pending:
            request.responder.end_pending(AcceptEvent.FAIL)

    def _seat_request(self, responder: Responder, call_id: str, eta_s: int | None, now: Now) -> SeatRequest:
        person = responder.person or _NOBODY
        here = responder.here if responder.on_duty else None
        busy = self._is_busy(person, now)
        return SeatRequest(call_id, person, responder.quals, responder.may_test, here, busy, eta_s)

    def _refuse(self, responder: Responder, call_id: str, reason: Refusal) -> None:
        responder.refused[call_id] = reason
        call = self._calls.get(call_id)
        if reason == "full" and call is not None and responder.row in call.told:
            call.told[responder.row].full = True  # so it is not told again
        if reason == "over" and call is not None and responder.row in call.told and self._clock_ended(responder, call):
            told = call.told[responder.row]
            told.notified = told.task = 0  # it is told anew, should that clock have been wrong
            call.suspended = True
        self._noted.setdefault(responder.row, set())
        self._noted.move_to_end(responder.row, last=False)

    # ---- the log -------------------------------------------------------------------------------------------------

    def knows(self, call_id: str) -> bool:
        """Whether this is a call that is known here."""
        return call_id in self._calls

    def take(self, entry: CallEntry, now: Now) -> None:
        """Take an entry of the log. Whom it may concern is noted."""
        call = self._calls.get(entry.id)
        if call is None:
            self._arrivals += 1
            call = self._calls[entry.id] = LiveCall(entry, self._arrivals, now)
        held = set(call.lost)
        with self._changing(call, now):
            call.take(entry, self._open, now)
        if call.lost.keys() - held:
            self._ask(RestoreRequest(call.id))

    def lost(self, call_id: str) -> list[Seat]:
        """The seats that were read and that the log has lost (RV7)."""
        call = self._calls.get(call_id)
        return [] if call is None else list(call.lost.values())

    def adopt(self, open_: Open, now: Now) -> None:
        """Other keys are in force: what did not open is tried again (RZ5)."""
        self._open = open_
        for call in [each for each in self._calls.values() if each.undecrypted]:
            with self._changing(call, now):
                call.decrypt_again(self._open, now)

    @contextlib.contextmanager
    def _changing(self, call: LiveCall, now: Now) -> Iterator[None]:
        """Around whatever changes a call: whom that may concern is noted, and what does not open is counted."""
        before, aside = call.summary, set(call.undecrypted)
        yield
        self.failed += len(call.undecrypted - aside)
        if call.state is not None and call.summary != before:
            self._changed(call, call.state, before, now)

    def _changed(self, call: LiveCall, state: CallState, before: CallSummary, now: Now) -> None:
        after = call.summary
        self._update_seated(call, before, after)
        if not before.revision:
            self._tell_returning(call, state, now)
        if after.over:
            self._finish(call, state, now)
            return
        if after.wave != before.wave:
            call.wave_at = now.monotonic + JITTER_S * random()  # noqa: S311 (nobody has to guess it)
        if after.revision != before.revision:
            call.begin_revision()
        self._note_concerned(call, state, before, after)

    def _note_concerned(self, call: LiveCall, state: CallState, before: CallSummary, after: CallSummary) -> None:
        """Note whom a call that is not over may concern now, by what has changed of it (Rule 2)."""
        new = after.content != before.content
        notified: list[int] = []
        if not after.full and (new or after.wave != before.wave or after.revision != before.revision):
            notified = self._responders.within(_circle(state))
        told = [*call.told] if new or (after.full and not before.full) else []
        for row in dict.fromkeys([*notified, *told]):
            self._note(row, call)
        if notified and not before.revision:
            call.last_of_first_wave = notified[-1]
        holders = after.holders if new else after.holders ^ before.holders
        for row in self._responders.rows_of({person for person, _ in holders}):
            self._note(row, call, first=True)
        self._update_index(call, state)

    def _finish(self, call: LiveCall, state: CallState, now: Now) -> None:
        """The end was read: recipients and holders are owed `over` (RJ7), and who held a seat rests (RQ7)."""
        end = state.end
        assert end is not None
        self._update_index(call, state)
        for row, told in call.told.items():
            told.over = told.task > 0 or (told.notified > 0 and not told.declined)
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

    def _tell_returning(self, call: LiveCall, state: CallState, now: Now) -> None:
        """A call has become known: those who say that they hold it are told what they lack (R5e)."""
        for _, responder in self._returning:
            held = responder.unknown.pop(call.id, None)
            if held is not None and not responder.gone:
                self._trust_holding(responder, call, state, held, now)
                self._note(responder.row, call)

    def _update_seated(self, call: LiveCall, before: CallSummary, after: CallSummary) -> None:
        """Keep in mind who holds a seat of a call that has not ended in the log (RQ7)."""
        held, holds = ({person for person, _ in each.holders} for each in (before, after))
        for person in held if after.over else held - holds:
            calls = self._seated.get(person, set())
            calls.discard(call)
            if not calls:
                self._seated.pop(person, None)
        for person in set() if after.over else holds - held:
            self._seated.setdefault(person, set()).add(call)

    def _update_index(self, call: LiveCall, state: CallState) -> None:
        """Have the ring in the index while the call is open and has a free seat, and only then."""
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

    # ---- who is sent what ----------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there are rows that may be owed something."""
        return bool(self._noted)

    def take_noted(self, count: int) -> list[tuple[int, Iterable[LiveCall]]]:
        """Take the next rows that may be owed something, and of which calls; `count` at most."""
        return [self._noted.popitem(last=False) for _ in range(min(count, len(self._noted)))]

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[LiveCall] | None = None) -> list[bytes]:
        """What the session is owed now, of these calls or of all, as frames of this wire. It counts as sent.

        Standdowns come first, then tasks, then rings (RJ3).
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
                    break  # nothing is owed behind one
            if call.last_of_first_wave == row and call.state is not None:
                call.last_of_first_wave = -1
                self._observe("first_ring", max(0, now.wall_ms - call.state.opening.issued_at) / 1000)
        return [each.frames[wire] for each in sorted(said, key=lambda each: each.order)]

    def _candidates(self, responder: Responder | None, person: Person | None) -> set[LiveCall]:
        """The calls of which a session may be owed something."""
        calls = set(self._seated.get(person, ())) if person is not None else set()
        if responder is not None:
            calls |= responder.calls
            if responder.on_duty:
                calls.update(self._near.containing(*self._responders.point_of(responder)))
        return calls

    def _next_message(self, responder: Responder, call: LiveCall, now: Now) -> "_Message | None":
        """The next message that the session is owed about a call, which counts as sent; None if there is none."""
        state, told = call.state, call.told.get(responder.row, _NOTHING)
        if state is None or not may_see(state, responder.may_test):
            return None
        if call.expired(now):
            call.suspended = True
            return None
        if state.end is not None:
            return self._stand_down(call, responder, told, "over") if told.over else None
        seat = call.seat_of(responder.person)
        if seat is not None and not is_wanted(state, responder.quals):
            return self._not_qualified(responder, call, told)
        if seat is not None:
            wanted = told.again or told.task < task_revision(state, seat)
            return self._task(responder, call, state, seat, now) if wanted else None
        if told.task or told.again:
            return self._stand_down(call, responder, told, "left")
        if told.declined or not responder.quals:
            return None
        if call.summary.full:
            return self._stand_down(call, responder, told, "full") if told.notified and not told.full else None
        corrected = 0 < told.notified < state.content and not told.full
        lacks = told.notified < state.revision or told.unsure
        if corrected or (lacks and self._is_notified(responder, state, now)):
            call.note_notified(self._delivery(call, responder), state.revision)
            self.rings += 1
            self._note_last_sent(responder, call, "call")
            return _Message(CALL, call.frames(state))
        return None

    def _is_notified(self, responder: Responder, state: CallState, now: Now) -> bool:
        """Whether a call with a free seat, which it may see and has not declined, rings for a session (RJ1)."""
        return (
            responder.on_duty
            and responder.here is not None
            and is_wanted(state, responder.quals)
            and not self._is_busy(responder.person, now)
            and is_near(state, responder.here)
        )

    def _task(self, responder: Responder, call: LiveCall, state: CallState, seat: Seat, now: Now) -> "_Message | None":
        """The task of who holds a seat. The place is in memory until the frame is made (RZ2)."""
        opened = None if state.entry is None else self._open(state.entry)
        if opened is None:
            return None  # of another key now: it is told when that is in force again (RZ5)
        told = self._delivery(call, responder)
        told.task, told.again, told.full = task_revision(state, seat), False, False
        if pending := responder.pending_for(call.id):
            responder.end_pending(AcceptEvent.ANSWER)
            self.seats[seat.role] += 1
            self._observe("accept", now.monotonic - pending.since)
            if seat.entry_number == call.first_acceptance:
                self._observe("first_seat", max(0, now.wall_ms - call.opened_at) / 1000)
        return _Message(TASK, in_each_format(task_message(state, seat, place_of(opened), self._aeds)))

    def _not_qualified(self, responder: Responder, call: LiveCall, told: CallDelivery) -> "_Message | None":
        """Return `over` if the session waits for an answer, and nothing else: its person holds a seat (Rule 6)."""
        if responder.pending_for(call.id):
            responder.end_pending(AcceptEvent.ANSWER)
        elif not told.again:
            return None
        return self._stand_down(call, responder, told, "over")

    def _stand_down(self, call: LiveCall, responder: Responder, told: CallDelivery, reason: Reason) -> "_Message":
        """Take back what the session was told, for this reason."""
        told.over = told.again = False
        told.full = reason == "full"
        told.task = 0
        if reason == "over":
            told.notified = 0
        self.standdowns[reason] += 1
        self._note_last_sent(responder, call, reason)
        return _Message(STANDDOWN, call.standdown(reason))

    @staticmethod
    def _note_last_sent(responder: Responder, call: LiveCall, what: Reason | Literal["call"]) -> None:
        """The session is told this of a call, of which it may wait for an answer."""
        if pending := responder.pending_for(call.id):
            pending.last_sent = what

    def _delivery(self, call: LiveCall, responder: Responder) -> CallDelivery:
        """What the session was told of a call, to be written to."""
        found = call.told.get(responder.row)
        if found is None:
            found = call.told[responder.row] = CallDelivery()
            responder.calls.add(call)
        return found

    def _is_busy(self, person: Person | None, now: Now) -> bool:
        """Whether somebody holds a seat of an open call that is no drill, or has held one not long ago (RQ7)."""
        if person is None or self._resting.get(person, 0.0) > now.monotonic:
            return person is not None
        return any(call.is_actual for call in self._seated.get(person, ()))

    @staticmethod
    def _clock_ended(responder: Responder, call: LiveCall) -> bool:
        """Whether a call that is over for a session is so by a clock alone."""
        state = call.state
        return (
            state is not None
            and state.end is None
            and is_wanted(state, responder.quals)
            and may_see(state, responder.may_test)
        )

    @staticmethod
    def _is_over(call: LiveCall, now: Now) -> bool:
        """Whether it has ended in the log, or by either clock (Rule 4)."""
        return call.summary.over or call.expired(now)

    # ---- upkeep --------------------------------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Do all that depends on time alone. Call it as often as the hub's."""
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
        """Forget a call: both clocks have ended it, and the log, or it is so old that the log has forgotten it."""
        del self._calls[call.id]
        self._near.discard(call.index_slot)
        self._widening.discard(call)
        self._update_seated(call, call.summary, CallSummary(over=True))
        for row in call.told:
            self._responders.get(row).calls.discard(call)
        for calls in self._noted.values():
            calls.discard(call)
        self.put_back_counts(call.take_counts())

    def to_end(self, now: Now) -> list[str]:
        """The ids of calls that have ended for sure, and whose end is not in the log as far as it was read (RZ4).

        All nodes obey an end. So it is not for a node whose wall clock is ahead, and by which it has made a deadline,
        but only for one that has known the content for as long as that had to live.
        """
        calls = [each for each in self._calls.values() if each.state is not None and each.state.end is None]
        return [each.id for each in calls if each.expired_for_sure(now) and now.monotonic >= each.over_by]

    def due_to_widen(self, now: Now) -> list[LiveCall]:
        """The calls for which the next ring may be due (RN2): by how many were called it is decided."""
        return [each for each in self._widening if each.widens_at(0) <= now.monotonic and not each.expired(now)]

    def seconds_to_widening(self, now: Now) -> float:
        """In how many seconds the next ring may be due that was not looked at yet; infinite if none will be."""
        calls = (each for each in self._widening if not each.expired(now))
        return min((max(each.widens_at(0), each.check_at) for each in calls), default=inf) - now.monotonic

    @property
    def may_widen(self) -> bool:
        """Whether any call may have to widen."""
        return bool(self._widening)

    def may_be_open(self, call_id: str, now: Now) -> bool:
        """Whether something may still be done about a call: it is not known to be over."""
        call = self._calls.get(call_id)
        return call is None or not self._is_over(call, now)

    def is_open_for(self, seat_request: SeatRequest, now: Now) -> bool:
        """Whether the call is known here, and not over for who claims a seat of it."""
        call = self._calls.get(seat_request.call_id)
        if call is None or call.state is None or self._is_over(call, now):
            return False
        return refusal(call.state, seat_request, now) != "over"

    def open_calls(self, now: Now) -> list[LiveCall]:
        """The calls that have not ended."""
        return [each for each in self._calls.values() if each.state is not None and not self._is_over(each, now)]

    def unanswered(self, now: Now) -> int:
        """How many calls have been open for UNANSWERED_S while nobody holds a seat."""
        since = now.wall_ms - UNANSWERED_S * 1000
        return sum(not call.holders() and call.opened_at <= since for call in self.open_calls(now))

    def degraded(self, now: Now) -> int:
        """Return how many calls that have not expired have entries that no key opens (HD8)."""
        return sum(bool(call.undecrypted) and not call.expired(now) for call in self._calls.values())

    @property
    def on_duty(self) -> int:
        """How many sessions are on duty (RQ4)."""
        return self._responders.on_duty

    def take_counts(self) -> dict[str, Counts]:
        """Return what was rung, acknowledged and declined since the last time, by call and by revision (HD16)."""
        for call in self._calls.values():
            self.put_back_counts(call.take_counts())
        counts, self._counts = self._counts, {}
        return counts

    def put_back_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add counts that were taken and could not be stored, so that they are taken again."""
        for name, more in counts.items():
            self._counts[name] = self._counts.get(name, Counts()).plus(more)


class _Message(NamedTuple):
    """A message that is about to be written: where it stands among others, and its frames by the wire's number."""

    order: int
    frames: tuple[bytes, ...]


_NOTHING = CallDelivery()  # of whom nothing was told; never written to
_NOBODY = Person("")  # a session without a token


def _circle(call: CallState) -> Circle:
    """The ring in force as a circle round the centre of `near` (RZ6)."""
    return Circle(call.opening.near.lat, call.opening.near.lng, call.reach_m)
