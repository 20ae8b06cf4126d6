"""A call as one process knows it: the entries read so far, its end, and what each session was sent about it.

The chain of a call is all of its entries in the log, numbered from 1. A seat is a responder's assignment to the call.

Rule 1  The chain is kept encrypted. Normally a new entry is applied to the state of the call. If an entry arrives out
        of order, or new keys decrypt an old one, the state is computed again from the whole chain. The exact place is
        decrypted only when a task is written.
Rule 2  A call has ended when its `end` was read, or when either clock says so: the wall clock has reached `expires_at`,
        or the monotonic deadline has passed. The deadline is computed from `expires_at` when this process first reads
        the call, and is never further ahead than the lifetime that the call had when it was issued.
        Example: a node starts with a wall clock that is two hours slow, and reads a call that lives 30 minutes. By the
        wall clock the call would live for 2.5 hours there. By the deadline it lives for at most 30 minutes.
Rule 3  A responder keeps a seat that this process has read, even if the log then loses its entry and stores another
        entry under the same number: the responder knows where to go, and is not called off (RV7). The log (LogC5) or
        the call worker stores the lost entry again under a higher number. From then on the new entry counts.
Rule 4  When the `end` is read, everything encrypted is dropped (RZ4).
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..alertlog import Counts, under_revision
from ..clock import Now
from ..matching.circle_index import NONE
from ..model.call import Acceptance, CallEntry, Person, Release
from .delivery import CallDelivery
from .eligibility import Reason
from .messages import call_message, in_each_format, standdown_message
from .state import CallState, DecryptedEntry, Seat, fold

MAX_LIFE_S = 7_200.0  # longest lifetime that a policy can give a call; assumed for a call that can't be decrypted
WIDEN_S = 0.2  # time from one wave to the next if fewer than `enough` sessions were notified (RN2)
ACKS_KEPT = 3  # a session can acknowledge only this number of newest revisions, as for alerts (M5)

Open = Callable[[CallEntry], DecryptedEntry | None]  # decrypts an entry; returns None if no key does


class CallSummary(NamedTuple):
    """The properties of a call that decide which sessions are sent a message.

    Comparing the summaries before and after an entry shows what the entry has changed.
    """

    content: int = 0
    revision: int = 0
    wave: int = -1
    full: bool = False
    over: bool = False
    holders: frozenset[tuple[Person, int]] = frozenset()  # people with a seat, and the entries that gave it


class LiveCall:
    """A call, kept from the time when its first entry is read from the log until the call has ended and expired.

    The chain of a call is all its entries in the log. A seat is a responder's assignment to the call.
    """

    def __init__(self, first: CallEntry, order: int, now: Now, counts: dict[str, Counts]) -> None:
        """Create a call that has read no entry yet, not even `first`. It adds what it counts to `counts`."""
        self.id = first.id
        self.order = order  # number of this call in the order in which this process has read calls
        self.opened_at = 0  # when the first content that was read was issued, in ms since 1970
        self.first_acceptance = 0  # the number of the first entry that gave a seat
        self.state: CallState | None = None  # None while no content can be decrypted
        self.deliveries: dict[int, CallDelivery] = {}  # by row, the session's number
        self.released: dict[Person, int] = {}  # by person: the number of the entry that released the seat
        self.lost: dict[Person, Seat] = {}  # seats that the log has lost (Rule 3)
        self.summary = CallSummary()
        self.undecrypted: set[int] = set()  # numbers of entries that no key decrypts
        self.held_back = 0  # the number of an entry that could not be taken; 0 if the call may be sent
        self.index_slot = NONE  # where the hub's index has the call's circle; NONE if nowhere
        self.wave_at = now.monotonic  # when the current wave was read
        self.called = 0  # sessions here that were notified of the current revision and have not declined
        self.check_at = 0.0  # monotonic time of the next check whether to widen the radius
        self.last_of_first_wave = -1  # row of the first wave's farthest session, until it is notified
        self.suspended = False  # a message was withheld because the call has expired by a clock
        self._counts = counts  # by the name under which the log has them
        self._encoded: dict[Hashable, tuple[bytes, ...]] = {}  # frames, by what the message depends on
        self._chain: dict[int, CallEntry] = {}
        self._expires_at = first.ends_at
        self.over_by = now.monotonic + MAX_LIFE_S  # by then it has certainly expired, whatever the clocks say
        self.deadline = now.monotonic + MAX_LIFE_S
        if now.wall_ms < first.ends_at:
            self.deadline = min(self.deadline, now.deadline(first.ends_at))

    # ---- applying the entries of the call -------------------------------------------------------------------------

    def take(self, entry: CallEntry, open_: Open, now: Now) -> None:
        """Process an entry of the call.

        If this process had read another entry with the same number before, the log has lost that other entry (Rule 3).
        """
        if self.summary.over or any(entry.sealed == each.sealed for each in self._chain.values()):
            return  # already known, or a copy made by somebody who can write to the log
        is_next = self.state is not None and entry.revision == self.state.number + 1
        self._chain[entry.revision] = entry
        self._read(open_, entry if is_next else None)
        self._settle(now)

    @contextmanager
    def held_back_on_error(self, number: int) -> Iterator[None]:
        """Return a context manager for a block of code that takes the entry with this number.

        If the block raises an error, forget the entry again, and have nothing sent about the call meanwhile.
        """
        chain, summary = dict(self._chain), self.summary
        try:
            yield
        except Exception:
            self.held_back, self._chain, self.summary = number, chain, summary
            if self.state is not None:
                self.state.number = -1  # so that the next entry reads the whole chain
            raise

    def decrypt_again(self, open_: Open, now: Now) -> None:
        """Decrypt all entries of the call again, with new keys (RZ5)."""
        self._read(open_)
        self._settle(now)

    def _read(self, open_: Open, following: CallEntry | None = None) -> None:
        """Apply the next entry to the state. If it is None, compute the state again from the whole chain."""
        entries = [following] if following else [entry for _, entry in sorted(self._chain.items())]
        opened = {entry.revision: open_(entry) for entry in entries}
        readable = [each for each in opened.values() if each is not None]
        self.undecrypted -= opened.keys()
        self.undecrypted |= {number for number, each in opened.items() if each is None}
        if following is None:
            held = self.holders()
            self.released.clear()
            self.state = fold(readable)
            if self.state is not None:
                self.lost = {person: seat for person, seat in held.items() if person not in self.state.seats}
        elif self.state is not None:
            for each in readable:
                self.state.take(each)
        if self.state is not None:
            self.state.number = max(self._chain)
        for each in readable:
            self._note(each)

    def _note(self, opened: DecryptedEntry) -> None:
        """Record, from a decrypted entry, which seats were released and which lost seats the log has again.

        A seat is a responder's assignment to the call. `CallState` records neither of these two changes.
        """
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
        self._encoded.clear()
        self.summary = CallSummary()
        if state is None:
            return
        holders = frozenset((person, seat.entry_number) for person, seat in self.holders().items())
        over = state.end is not None
        self.summary = CallSummary(state.content, state.revision, state.wave, state.full, over, holders)
        opening = state.opening
        self.opened_at = self.opened_at or opening.issued_at
        latest = now.monotonic + (opening.expires_at - opening.issued_at) / 1000
        if opening.expires_at != self._expires_at:  # the deadline moves by as much
            self.deadline += (opening.expires_at - self._expires_at) / 1000
            self._expires_at = opening.expires_at
        self.deadline = min(self.deadline, latest)
        if state.content != content_before:
            self.over_by = latest
        if over:
            self._chain.clear()
            self.undecrypted.clear()
            state.entry = None

    # ---- the state of the call -------------------------------------------------------------------------------------

    def holders(self) -> dict[Person, Seat]:
        """Return the seats that are taken (assignments to the call): a dict from the assigned person to the seat.

        Seats that the log has lost are included (Rule 3).
        """
        return self.lost | self.state.seats if self.state is not None else {}

    @property
    def is_actual(self) -> bool:
        """Whether the call is neither a test nor an exercise.

        Only actual calls exclude people from other calls (RQ7).
        """
        return self.state is not None and self.state.opening.status == "actual"

    def seat_of(self, person: Person | None) -> Seat | None:
        """Return the seat of a person (the person's assignment to this call), or None if the person has none."""
        if person is None or self.state is None:
            return None
        return self.state.seats.get(person) or self.lost.get(person)

    def expired(self, now: Now) -> bool:
        """Return whether the call has expired according to the wall clock, the monotonic clock or both (Rule 2)."""
        return now.monotonic >= self.deadline or now.wall_ms >= self._expires_at

    def expired_for_sure(self, now: Now) -> bool:
        """Return whether the call has expired according to both the wall clock and the monotonic clock."""
        return now.monotonic >= self.deadline and now.wall_ms >= self._expires_at

    def is_over(self, now: Now) -> bool:
        """Return whether the call has ended or expired (Rule 2)."""
        return self.summary.over or self.expired(now)

    def frames(self, state: CallState) -> tuple[bytes, ...]:
        """Return the `call` message as a tuple of frames, one for each wire format."""
        return self._encode("call", lambda: call_message(state))

    def standdown(self, reason: Reason, rest_until: int | None = None) -> tuple[bytes, ...]:
        """Return the `standdown` message, which withdraws the call or a task, as a tuple with a frame for each format.

        `rest_until` is the time until which the person will get no other calls, in ms since 1970, or None.
        """
        return self._encode((reason, rest_until), lambda: standdown_message(self.id, reason, rest_until))

    def _encode(self, key: Hashable, message: Callable[[], Mapping[str, Any]]) -> tuple[bytes, ...]:
        """Return the frames of a message. They are encoded when they are first needed after a change of the call."""
        if key not in self._encoded:
            self._encoded[key] = in_each_format(message())
        return self._encoded[key]

    def rest_until(self, person: Person | None) -> int | None:
        """Return when a person who helped in this call may be called again (RQ7), in ms since 1970.

        Return None if the call has not ended, if the person was not assigned to it, or if its terms give no rest.
        """
        state = self.state
        if state is None or state.end is None or not self.is_actual or self.seat_of(person) is None:
            return None
        return state.end.at + state.opening.terms.rest_s * 1000 if state.opening.terms.rest_s else None

    def widens_at(self, called: int) -> float:
        """Return the time at which the search radius grows next, in seconds of the monotonic clock (RN2).

        `called` is the number of sessions that were notified. Return infinity if the call has enough responders, if it
        is over, or if its radius is already the largest one.
        """
        state = self.state
        if state is None or state.end is not None or state.full or state.wave + 1 >= len(state.opening.terms.rings_m):
            return float("inf")
        terms = state.opening.terms
        return self.wave_at + (WIDEN_S if called < terms.enough else terms.answer_s)

    def called_of(self, counts: Counts) -> int:
        """Return the number of sessions that were notified of the current revision and have not declined (HD16).

        `counts` are the counts of all processes, which the log stores under `count_name`.
        """
        return max(self.called, counts.sent - counts.declined)

    @property
    def count_name(self) -> str:
        """The name under which the log counts the notifications of the current revision."""
        return under_revision(self.id, self.summary.revision)

    # ---- what was sent and answered --------------------------------------------------------------------------------

    def note_notified(self, delivery: CallDelivery, revision: int) -> None:
        """Record that the `call` message with this revision was handed to the session's transport."""
        delivery.notified, delivery.called, delivery.full, delivery.unsure = revision, revision, False, False
        delivery.unacked = [*delivery.unacked, revision][-ACKS_KEPT:]
        self.called += 1
        self._count(Counts(sent=1), revision)

    def note_ack(self, delivery: CallDelivery, revision: int) -> None:
        """Count a session's acknowledgement of a revision.

        It does not count if the revision was not sent on this connection, or has been acknowledged already (M5).
        """
        if revision in delivery.unacked:
            delivery.unacked.remove(revision)
            self._count(Counts(acked=1))

    def note_declined(self, delivery: CallDelivery) -> None:
        """Record that the session has declined. From now on, it is not counted among the notified sessions (RN2)."""
        if self.state is not None and delivery.called == self.state.revision:
            self.called -= 1
            delivery.called = 0
        if delivery.notified > delivery.refused:  # once per revision, even if the session accepts and declines again
            delivery.refused = delivery.notified
            self._count(Counts(declined=1), delivery.notified)
        delivery.declined = True

    def _count(self, more: Counts, revision: int = 1) -> None:
        """Add `more` to the counts of the call as a whole, and to the counts of this revision of the call."""
        for name in {self.id, under_revision(self.id, revision)}:
            self._counts[name] = self._counts.get(name, Counts()).plus(more)
