"""Which messages about calls each session is still owed, and the frames of these messages.

A session *is owed* a message if the message should be sent to the session and was not sent yet. To *note* a row (the
number of a session) means to remember that its session may be owed a message. A *seat* is a responder's assignment to a
call.

Rule 1  What a session is owed about a call follows from the state of the call and from what the session was sent. It
        is computed by `_next_message`, with the table of `delivery`, at the moment of writing. A noted row only says
        where to look.
        Example: a phone's socket is full while a call is opened, corrected and widened. When the socket has drained,
        the phone is sent one `call` message with the newest revision, as if the phone had just connected. So no
        revision is sent twice on a connection (RJ2, RJ6).
Rule 2  Sessions that were noted as `first`, because their people have a seat, or have just lost one, are sent their
        messages first. Then come the others, in the order in which they were noted.
Rule 3  Only the conditions in `_is_notified` decide which sessions a call notifies (RJ1). If the content of the call is
        corrected later, each notified session is sent the correction, wherever it is by then (RJ5). Two exceptions: a
        session whose person has a seat is sent a new task instead, and a session that has declined is sent nothing.
        Example: a responder is notified and walks out of the radius. Then the headline is corrected, so the responder
        is sent the correction. When the next wave widens the radius, the responder is not notified a second time.
Rule 4  The exact place is decrypted only while a task is written, and is not kept in memory (RZ2).
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, get_args

from ..clock import Now
from ..model.call import Person, Role
from .aeds import Aeds
from .delivery import OWED, CallDelivery, Has, Stands, stands
from .eligibility import Reason, SeatRequest, may_see, refusal
from .live_call import LiveCall, Open
from .messages import in_each_format, standdown_message, task_message, task_revision
from .port import Calls
from .registry import CallRegistry
from .responders import Responder, Responders
from .state import CallState, Seat, place_of

STANDDOWN, TASK, CALL = range(3)  # the order of messages in one write (RJ3)


class OwedMessages(Calls):
    """Knows the sessions that may be owed messages about calls, and makes the messages.

    A row is the number of a session. A session is owed a message if it should get the message and was not sent it yet.
    A seat is a responder's assignment to a call. The docstring of the module has the rules.
    """

    def __init__(self, capacity: int, open_: Open, aeds: Aeds, observe: Callable[[str, float], None]) -> None:
        self.calls = CallRegistry()
        self.rings = 0  # how many `call` messages were sent
        self.standdowns: dict[Reason, int] = dict.fromkeys(get_args(Reason), 0)
        self.seats: dict[str, int] = dict.fromkeys(get_args(Role), 0)  # how often an `accept` was answered by a task
        self._open = open_
        self._aeds = aeds
        self._observe = observe
        self.responders = Responders(capacity)
        self._noted: OrderedDict[int, set[LiveCall]] = OrderedDict()  # by row: calls about which a message may be owed

    @property
    def busy(self) -> bool:
        return bool(self._noted)

    def note(self, row: int, *calls: LiveCall, first: bool = False) -> None:
        """Remember that a session may be owed messages about these calls, and about refusals of its `accept`."""
        self._noted.setdefault(row, set()).update(calls)
        if first:
            self._noted.move_to_end(row, last=False)

    def take_noted(self, count: int) -> list[tuple[int, Iterable[LiveCall]]]:
        return [self._noted.popitem(last=False) for _ in range(min(count, len(self._noted)))]

    def frames(self, row: int, wire: int, now: Now, calls: Iterable[LiveCall] | None = None) -> list[bytes]:
        """Return the messages about calls that a session should get now, as frames, and record them as sent.

        If `calls` is None, consider all calls. `wire` is the number of the session's frame format. Messages that
        withdraw a call (`standdown`) come first, then tasks, then `call` messages (RJ3).
        """
        if calls is None:
            self._noted.pop(row, None)
            calls = self._candidates(row)
        if self.responders.find(row) is None and not calls:
            return []
        responder = self.responders.get(row)
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

    def _candidates(self, row: int) -> set[LiveCall]:
        """Return all calls about which a session may be owed messages."""
        responder = self.responders.find(row)
        calls = set(self.calls.of(self.responders.person_of(row)))
        if responder is not None:
            calls |= responder.calls
            if responder.on_duty:
                calls.update(self.calls.around(*self.responders.point_of(responder)))
        return calls

    def _next_message(self, responder: Responder, call: LiveCall, now: Now) -> "_Message | None":
        """Return the next message that the session should get about a call, and record it as sent (Rule 1).

        Return None if there is no such message.
        """
        state, delivery = call.state, call.deliveries.get(responder.row, NOTHING_SENT)
        if state is None or call.held_back or not may_see(state, responder.may_test):
            return None
        if call.expired(now):
            call.suspended = True
            return None
        seat, has = call.seat_of(responder.person), delivery.has
        now_stands = stands(state, call.summary.full, seat, responder.quals)
        if now_stands is Stands.UNFIT and responder.answer(call.id):
            has = Has.ASKED
        match OWED[has][now_stands]:
            case "call":
                return self._call(responder, call, state, delivery, now)
            case "task":
                return self._task(responder, call, state, seat, now)
            case None:
                return None
            case reason:
                return self._stand_down(responder, call, delivery, reason)

    def _call(
        self, responder: Responder, call: LiveCall, state: CallState, delivery: CallDelivery, now: Now
    ) -> "_Message | None":
        """Return the `call` message, or None if the session has it already, or is not to be notified (Rule 3)."""
        corrected = 0 < delivery.notified < state.content and not delivery.full
        lacks = delivery.notified < state.revision or delivery.unsure
        if not corrected and not (lacks and self._is_notified(responder, call.id, state, now)):
            return None
        call.note_notified(self.delivery(call, responder), state.revision)
        self.rings += 1
        self._note_last_sent(responder, call, "call")
        return _Message(CALL, call.frames(state))

    def _is_notified(self, responder: Responder, call_id: str, state: CallState, now: Now) -> bool:
        """Return whether a session at its present location should be notified of the call (RJ1).

        It is if its person could have a seat now. The caller has already checked earlier `decline` messages. A session
        is not notified if its person is excluded because of another call (RQ7). That is counted nowhere (DP30).
        """
        return refusal(state, self._seat_request_of(responder, call_id, None, now), now) is None

    def _seat_request_of(self, responder: Responder, call_id: str, eta_s: int | None, now: Now) -> SeatRequest:
        person = responder.person or _NOBODY
        here = responder.here if responder.on_duty else None
        busy = self.calls.is_busy(person, now)
        return SeatRequest(call_id, person, responder.quals, responder.may_test, here, busy, eta_s)

    def _task(
        self, responder: Responder, call: LiveCall, state: CallState, seat: Seat | None, now: Now
    ) -> "_Message | None":
        """Return the `task` message, which tells a responder where to go.

        Return None if the session has the newest task already, or if the place can't be decrypted. The exact place is
        in memory only until the frame is made (RZ2).
        """
        assert seat is not None
        delivery = self.delivery(call, responder)
        if not delivery.asked and delivery.task >= task_revision(state, seat):
            return None
        opened = None if state.entry is None else self._open(state.entry)
        if opened is None:
            return None  # the key has been removed; the task is sent when it is back (RZ5)
        delivery.task, delivery.asked, delivery.full = task_revision(state, seat), False, False
        if pending := responder.answer(call.id):
            self.seats[seat.role] += 1
            self._observe("accept", now.monotonic - pending.since)
            if seat.entry_number == call.first_acceptance:
                self._observe("first_seat", max(0, now.wall_ms - call.opened_at) / 1000)
        return _Message(TASK, in_each_format(task_message(state, seat, place_of(opened), self._aeds)))

    def _stand_down(self, responder: Responder, call: LiveCall, delivery: CallDelivery, reason: Reason) -> "_Message":
        """Return a `standdown` message with this reason, and record that the session's call or task is withdrawn."""
        delivery.withdraw(reason)
        self.standdowns[reason] += 1
        self._note_last_sent(responder, call, reason)
        return _Message(STANDDOWN, call.standdown(reason, call.rest_until(responder.person)))

    @staticmethod
    def _note_last_sent(responder: Responder, call: LiveCall, what: Reason | Literal["call"]) -> None:
        """Record which message about a call was the last that a session was sent.

        The record is needed for the answer to an `accept`. It is kept only while the session waits for the answer to an
        `accept` of this call.
        """
        if pending := responder.pending_for(call.id):
            pending.last_sent = what

    @staticmethod
    def delivery(call: LiveCall, responder: Responder) -> CallDelivery:
        """Return the record of what a session was sent about a call. Create the record if there is none."""
        found = call.deliveries.get(responder.row)
        if found is None:
            found = call.deliveries[responder.row] = CallDelivery()
            responder.calls.add(call)
        return found

    def rest_until(self, row: int, now: Now) -> int | None:
        return self.calls.rest_until(self.responders.person_of(row), now)


class _Message(NamedTuple):
    """A message to write: its rank in the order of messages, and its encoding in each wire format."""

    order: int
    frames: tuple[bytes, ...]


_NOBODY = Person("")  # a session without a token
NOTHING_SENT = CallDelivery()  # the record of a session that was sent nothing; do not change it
