"""The calls that one process has read: found by id, by place and by responder, and those for which something is due.

A seat is a responder's assignment to a call.

Rule 1  A call is over when its end was read from the log, or when either clock says that it has expired.
Rule 2  A person is excluded from other calls while assigned to an actual call (neither a test nor an exercise), and for
        a while after its end (RQ7).
"""

from collections.abc import Iterable, Mapping
from itertools import count
from math import ceil, inf

from ..alertlog import Counts
from ..clock import Now
from ..geometry.sphere import Vector
from ..matching.circle_index import NONE, CircleIndex
from ..model.alert import Circle
from ..model.call import CallEntry, Person
from .eligibility import SeatRequest, refusal
from .live_call import CallSummary, LiveCall
from .state import CallState

UNANSWERED_S = 60.0  # a call counts as unanswered if nobody has accepted it within this time
KEPT_S = 86_400.0  # an expired call without an `end` is forgotten after this time; the log forgets it then, too
INITIAL_CAPACITY = 1 << 10  # number of circles for which address space is reserved at the start


class CallRegistry(dict[str, LiveCall]):
    """The calls of one process, by id. A call is in it from its first entry until it is certainly over."""

    def __init__(self) -> None:
        super().__init__()
        self._arrivals = count()
        self._near: CircleIndex[LiveCall] = CircleIndex(INITIAL_CAPACITY)  # the circles inside which calls notify
        self._widening: set[LiveCall] = set()  # calls with a free seat whose radius can still grow
        self._seated: dict[Person, set[LiveCall]] = {}  # by person: the calls to which they are assigned
        self._resting: dict[Person, float] = {}  # monotonic time until which a person is excluded (Rule 2)
        self._counts: dict[str, Counts] = {}  # counts to store, by the name under which the log has them

    # ---- finding calls ---------------------------------------------------------------------------------------------

    def get_or_begin(self, entry: CallEntry, now: Now) -> LiveCall:
        """Return the call of this entry. If the entry is the first one that was read, the call does not have it yet."""
        if entry.id not in self:
            self[entry.id] = LiveCall(entry, next(self._arrivals), now, self._counts)
        return self[entry.id]

    def of(self, person: Person | None) -> Iterable[LiveCall]:
        """Return the calls to which a person is assigned, unless their end was read."""
        return self._seated.get(person, ()) if person is not None else ()

    def around(self, place: Vector, reach_m: float) -> list[LiveCall]:
        """Return the calls that notify sessions at this place, which is uncertain by `reach_m` metres."""
        return self._near.containing(place, reach_m)

    def open_calls(self, now: Now) -> list[LiveCall]:
        """Return the calls that are neither ended nor expired."""
        return [each for each in self.values() if each.state is not None and not each.is_over(now)]

    def may_be_open(self, call_id: str, now: Now) -> bool:
        """Return whether the call may still be open. It may be unless this process knows that it is over."""
        call = self.get(call_id)
        return call is None or not call.is_over(now)

    def is_open_for(self, seat_request: SeatRequest, now: Now) -> bool:
        """Return whether this process has read the call, and the call is not over for the person in this request."""
        call = self.get(seat_request.call_id)
        if call is None or call.state is None or call.is_over(now):
            return False
        return refusal(call.state, seat_request, now) != "over"

    # ---- changes of calls ------------------------------------------------------------------------------------------

    def update_seats(self, call: LiveCall, before: CallSummary, after: CallSummary) -> None:
        """Record who is assigned to a call after it has changed. Nobody is once its end was read."""
        held, hold = ({person for person, _ in each.holders} for each in (before, after))
        hold = set() if after.over else hold
        for person in held - hold:
            calls = self._seated.get(person, set())
            calls.discard(call)
            if not calls:
                self._seated.pop(person, None)
        for person in hold - held:
            self._seated.setdefault(person, set()).add(call)

    def update_circle(self, call: LiveCall, state: CallState) -> None:
        """Record where a call notifies, and whether its radius can grow, after it has changed.

        A call notifies unless it has ended, or has enough responders.
        """
        self._near.discard(call.index_slot)
        call.index_slot = NONE
        if state.end is None and not state.full:
            call.index_slot = self._near.add(call, [circle_of(state)])
        (self._widening.add if call.widens_at(0) < inf else self._widening.discard)(call)

    def drop(self, call: LiveCall) -> None:
        """Forget a call that has expired.

        Call this only if the call's end was read, if the call can't be decrypted, or if it is so old that even the log
        has forgotten it.
        """
        self.update_seats(call, call.summary, CallSummary())
        self._near.discard(call.index_slot)
        self._widening.discard(call)
        del self[call.id]

    # ---- people who are excluded from other calls ------------------------------------------------------------------

    def let_rest(self, person: Person, until: float) -> None:
        """Exclude a person from calls until this time of the monotonic clock, if not for longer already."""
        self._resting[person] = max(self._resting.get(person, 0.0), until)

    def wake_rested(self, now: Now) -> None:
        """Forget that people are excluded whose time is over."""
        for person in [person for person, until in self._resting.items() if until <= now.monotonic]:
            del self._resting[person]

    def rest_until(self, person: Person | None, now: Now) -> int | None:
        """Return the time until which a person gets no calls, after having helped at one, in ms since 1970.

        Return None if there is no such time.
        """
        until = self._resting.get(person, 0.0) if person is not None else 0.0
        return None if until <= now.monotonic else now.wall_ms + ceil((until - now.monotonic) * 1000)

    def is_busy(self, person: Person | None, now: Now) -> bool:
        """Return whether a person is excluded from other calls (Rule 2)."""
        return self.rest_until(person, now) is not None or any(call.is_actual for call in self.of(person))

    # ---- what is due -----------------------------------------------------------------------------------------------

    def expired(self, now: Now) -> list[LiveCall]:
        """Return the calls to forget, because both clocks say that they have expired.

        A call whose end was not read is kept for a day longer.
        """
        return [
            each
            for each in self.values()
            if each.expired_for_sure(now)
            if each.state is None or each.state.end is not None or now.monotonic >= each.deadline + KEPT_S
        ]

    def to_end(self, now: Now) -> list[str]:
        """Return the ids of expired calls whose `end` was not read from the log, and which this node may end (RZ4).

        An `end` in the log affects all nodes. So a node may end a call only if it has known the call's content for the
        whole lifetime of that content.

        Example: the wall clock of a node is an hour fast. Every call looks expired there as soon as it is read. The
        node sends nothing about these calls, but does not end them for the other nodes.
        """
        calls = [each for each in self.values() if each.state is not None and each.state.end is None]
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

    # ---- numbers ---------------------------------------------------------------------------------------------------

    def unanswered(self, now: Now) -> int:
        """Return the number of open calls to which no responder is assigned.

        Calls that were opened less than UNANSWERED_S seconds ago don't count.
        """
        since = now.wall_ms - UNANSWERED_S * 1000
        return sum(not call.holders() and call.opened_at <= since for call in self.open_calls(now))

    def degraded(self, now: Now) -> int:
        """Return the number of unexpired calls with entries that no key decrypts (HD8)."""
        return sum(bool(call.undecrypted) and not call.expired(now) for call in self.values())

    def take_counts(self) -> dict[str, Counts]:
        """Return how many messages were sent, acknowledged and declined since this method was last called (HD16).

        The result is a dict. Each key names a call or a revision of a call. Counting starts again from zero.
        """
        counts = dict(self._counts)
        self._counts.clear()
        return counts

    def put_back_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add counts that could not be stored in the log, so that the next `take_counts` returns them again."""
        for name, more in counts.items():
            self._counts[name] = self._counts.get(name, Counts()).plus(more)


def circle_of(call: CallState) -> Circle:
    """Return the circle inside which the call notifies sessions now.

    It has the same centre as the published circle (RZ6).
    """
    return Circle(call.opening.near.lat, call.opening.near.lng, call.reach_m)
