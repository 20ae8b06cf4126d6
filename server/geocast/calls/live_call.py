"""One call of this process: its chain as far as it was read, whether it has ended, and who was told what of it.

Rule 1  The chain is kept sealed, and folded anew where an entry comes out of order, or opens only now. What is told to
        somebody is opened while it is written.
Rule 2  A call has ended when its `end` was read, or when either clock says so: the wall clock has reached `expires_at`,
        or the monotonic deadline has passed that was made of it when this process learnt of the call. That one is at
        the latest as long ahead as the call had to live when it was issued, since the wall clock may be wrong.
Rule 3  A seat that was read and that the log has lost (another entry has its number now) is held on: who was told where
        to go is not untold (RV7). Its claim is put back under a higher number, by the log (LogC5) or for the hub, and
        then that counts.
Rule 4  With the `end` everything sealed is let go of (RZ4).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..alertlog import Counts, under_revision
from ..clock import Now
from ..matching.circle_index import NONE
from ..model.call import Acceptance, CallEntry, Person, Release
from .eligibility import Reason
from .messages import call_message, in_each_format, standdown_message
from .state import CallState, DecryptedEntry, Seat, fold

MAX_LIFE_S = 7_200.0  # that a policy can give a call; of one that can't be opened nothing else is known
WIDEN_S = 0.2  # RN2: from one ring to the next, while fewer than `enough` were called
ACKS_KEPT = 3  # revisions that can still be acknowledged, as of an alert (M5)

Open = Callable[[CallEntry], DecryptedEntry | None]  # None: it does not open


@dataclass(slots=True)
class CallDelivery:
    """What one session was told of a call on its connection, or says that it holds.

    `notified`: the newest revision of the call that it was sent; 0 if it was sent none, and then it is no recipient.
    `task`: the revision of its task, 0 if it has none. `full`: it was stood down because the call was full, and has
    not been notified since.
    `unsure`: what it holds may be the ring or the task of a seat that was given back, so the ring is sent again (HD18).
    """

    notified: int = 0
    task: int = 0
    full: bool = False
    unsure: bool = False
    declined: bool = False
    again: bool = False  # its `accept` is to be answered by the task it has
    over: bool = False  # it is to be told of the end
    called: int = 0  # the revision for which it counts as called
    refused: int = 0  # … and the one for which it counts as declined
    unacked: list[int] = field(default_factory=list)  # revisions that were sent and not acknowledged


class CallSummary(NamedTuple):
    """What of a call decides who is told something: two of them tell what an entry has changed."""

    content: int = 0
    revision: int = 0
    wave: int = -1
    full: bool = False
    over: bool = False
    holders: frozenset[tuple[Person, int]] = frozenset()  # who holds a seat, and the number of the claim


class LiveCall:
    """A call, from its first entry until it has ended and expired."""

    def __init__(self, first: CallEntry, order: int, now: Now) -> None:
        self.id = first.id
        self.order = order  # of arrival, among the calls of this process
        self.opened_at = 0  # when its first content that was read was issued, in ms since 1970
        self.first_acceptance = 0  # the number of the first claim that was read
        self.state: CallState | None = None  # while no content of it opens
        self.told: dict[int, CallDelivery] = {}  # by row
        self.released: dict[Person, int] = {}  # who has given a seat back, and the number of the entry that says so
        self.lost: dict[Person, Seat] = {}  # Rule 3
        self.summary = CallSummary()  # what decides who is told something
        self.undecrypted: set[int] = set()  # numbers of entries that do not open
        self.index_slot = NONE  # by which the call hub's index knows its circle; NONE: it is for nobody
        self.wave_at = now.monotonic  # when the ring in force was read
        self.called = 0  # under the current revision, and not declined, as far as this process has it
        self.check_at = 0.0  # when it is to be looked at again whether to widen, on the monotonic clock
        self.last_of_first_wave = -1  # the last row of the first ring, until it was written to
        self.suspended = False  # somebody was not told something because of the wall clock alone
        self._counts: dict[str, Counts] = {}  # since they were last taken, by the names under which they are stored
        self._frames: tuple[bytes, ...] = ()
        self._standdowns: dict[Reason, tuple[bytes, ...]] = {}
        self._chain: dict[int, CallEntry] = {}
        self._expires_at = first.ends_at
        self.over_by = now.monotonic + MAX_LIFE_S  # when it has ended by no clock that could be wrong
        self.deadline = now.monotonic + MAX_LIFE_S
        if now.wall_ms < first.ends_at:
            self.deadline = min(self.deadline, now.deadline(first.ends_at))

    # ---- the chain -----------------------------------------------------------------------------------------------

    def take(self, entry: CallEntry, open_: Open, now: Now) -> None:
        """Take in an entry. If its number was another's, the log has lost that one (Rule 3)."""
        known = self._chain.get(entry.revision)
        if self.summary.over or any(entry.sealed == each.sealed for each in self._chain.values()):
            return  # known, or a copy: whoever can write to the log may have made one
        self._chain[entry.revision] = entry
        if known is None and self.state is not None and entry.revision == self.state.number + 1:
            self._append(self.state, entry, open_)
        else:
            self._fold(open_)
        self._settle(now)

    def decrypt_again(self, open_: Open, now: Now) -> None:
        """Other keys are in force: what did not open may open now (RZ5)."""
        self._fold(open_)
        self._settle(now)

    def _append(self, state: CallState, entry: CallEntry, open_: Open) -> None:
        opened = self._opened(entry, open_)
        if opened is None:
            state.number = entry.revision
            return
        state.take(opened)
        self._note(opened)

    def _fold(self, open_: Open) -> None:
        held = self.holders()
        opened = [each for _, entry in sorted(self._chain.items()) if (each := self._opened(entry, open_))]
        self.released.clear()
        self.state = fold(opened)
        if self.state is not None:
            self.state.number = max(self._chain)
            self.lost = {person: seat for person, seat in held.items() if person not in self.state.seats}
        for each in opened:
            self._note(each)

    def _opened(self, entry: CallEntry, open_: Open) -> DecryptedEntry | None:
        opened = open_(entry)
        (self.undecrypted.add if opened is None else self.undecrypted.discard)(entry.revision)
        return opened

    def _note(self, opened: DecryptedEntry) -> None:
        """Keep in mind what the state does not: who has given a seat back, and who has the lost one again."""
        if isinstance(opened.body, Acceptance):
            self.first_acceptance = self.first_acceptance or opened.entry.revision
        if isinstance(opened.secret, Person):
            person = opened.secret
            if isinstance(opened.body, Release):
                self.released[person] = opened.entry.revision
                if person in self.lost and self.lost[person].entry_number < opened.entry.revision:
                    del self.lost[person]
            elif self.state is not None and person in self.state.seats:
                self.released.pop(person, None)
                self.lost.pop(person, None)

    def _settle(self, now: Now) -> None:
        state, content_before = self.state, self.summary.content
        self._frames = ()
        self.summary = CallSummary()
        if state is None:
            return
        holders = frozenset((person, seat.entry_number) for person, seat in self.holders().items())
        over = state.end is not None
        self.summary = CallSummary(state.content, state.revision, state.wave, state.full, over, holders)
        opening = state.opening
        self.opened_at = self.opened_at or opening.issued_at
        latest = now.monotonic + (opening.expires_at - opening.issued_at) / 1000
        if opening.expires_at != self._expires_at:  # what is added to its end is added to its deadline
            self.deadline += (opening.expires_at - self._expires_at) / 1000
            self._expires_at = opening.expires_at
        self.deadline = min(self.deadline, latest)
        if state.content != content_before:
            self.over_by = latest
        if over:
            self._chain.clear()
            self.undecrypted.clear()
            state.entry = None

    # ---- what it comes to ----------------------------------------------------------------------------------------

    def holders(self) -> dict[Person, Seat]:
        """Who holds a seat, lost ones included (Rule 3)."""
        return self.lost | self.state.seats if self.state is not None else {}

    @property
    def is_actual(self) -> bool:
        """Whether it is neither a test nor an exercise: those hold nobody off (RQ7)."""
        return self.state is not None and self.state.opening.status == "actual"

    def seat_of(self, person: Person | None) -> Seat | None:
        """The seat that somebody holds."""
        if person is None or self.state is None:
            return None
        return self.state.seats.get(person) or self.lost.get(person)

    def expired(self, now: Now) -> bool:
        """Whether either clock has ended it (Rule 2)."""
        return now.monotonic >= self.deadline or now.wall_ms >= self._expires_at

    def expired_for_sure(self, now: Now) -> bool:
        """Whether both clocks have ended it."""
        return now.monotonic >= self.deadline and now.wall_ms >= self._expires_at

    def frames(self, state: CallState) -> tuple[bytes, ...]:
        """The ring as frames, by the number of the wire, encoded when somebody needs it for the first time."""
        if not self._frames:
            self._frames = in_each_format(call_message(state))
        return self._frames

    def standdown(self, reason: Reason) -> tuple[bytes, ...]:
        """The standdown for this reason, in the same way."""
        found = self._standdowns.get(reason)
        if found is None:
            found = self._standdowns[reason] = in_each_format(standdown_message(self.id, reason))
        return found

    def widens_at(self, called: int) -> float:
        """When the next ring is to be tried (RN2), on the monotonic clock, if so many were called and may still come.

        Infinite if it does not widen: it is full, or over, or the last ring is in force.
        """
        state = self.state
        if state is None or state.end is not None or state.full or state.wave + 1 >= len(state.opening.terms.rings_m):
            return float("inf")
        terms = state.opening.terms
        return self.wave_at + (WIDEN_S if called < terms.enough else terms.answer_s)

    def called_of(self, counts: Counts) -> int:
        """Return how many were called under the current revision and have not declined (HD16).

        `counts`: what all processes have stored under `count_name`.
        """
        return max(self.called, counts.sent - counts.declined)

    @property
    def count_name(self) -> str:
        """The name under which rings of the current revision are counted."""
        return under_revision(self.id, self.summary.revision)

    # ---- who was told what ---------------------------------------------------------------------------------------

    def begin_revision(self) -> None:
        """The call has a new revision, under which nobody was called yet."""
        self.called = 0

    def note_notified(self, told: CallDelivery, revision: int) -> None:
        """The ring was handed to the session's transport."""
        told.notified, told.called, told.full, told.unsure = revision, revision, False, False
        told.unacked = [*told.unacked, revision][-ACKS_KEPT:]
        self.called += 1
        self._count(Counts(sent=1), revision)

    def note_ack(self, told: CallDelivery, revision: int) -> bool:
        """Count that a revision was shown, if it was sent on this connection and is not counted yet (M5)."""
        if revision not in told.unacked:
            return False
        told.unacked.remove(revision)
        self._count(Counts(acked=1))
        return True

    def note_declined(self, told: CallDelivery) -> None:
        """The session has declined it: it counts as called no more (RN2)."""
        if self.state is not None and told.called == self.state.revision:
            self.called -= 1
            told.called = 0
        if told.notified > told.refused:  # once for each ring: whoever accepts meanwhile may decline it again
            told.refused = told.notified
            self._count(Counts(declined=1), told.notified)
        told.declined = True

    def _count(self, more: Counts, revision: int = 1) -> None:
        """Add to the counts of the call, and to those of the revision."""
        for name in {self.id, under_revision(self.id, revision)}:
            self._counts[name] = self._counts.get(name, Counts()).plus(more)

    def take_counts(self) -> dict[str, Counts]:
        """Return what was counted since the last time, by the names under which it is to be stored."""
        counts, self._counts = self._counts, {}
        return counts
