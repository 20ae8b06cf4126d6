"""What a call's chain comes to: its content, the ring in force, who holds which seat, and whether it is over.

A fold over opened entries, in the log's order; pure. Whoever judges a claim folds the whole chain anew, whoever rings
responders takes in entry after entry, and both come to the same.

Rule 1  Nothing is refused here: what stands in the log has happened. A claim for a seat that another holds is one that
        was put back when no seat was left: its holder was told where to go, so it stands, as seat 0 (RV7).
Rule 2  `revision` is what a `call` says: the number of the newest content, or of the release that has made a full call
        ring again (RV6). A wider ring and a claim make none.
Rule 3  Nothing follows an end.
Rule 4  A claim stands once. One that was put back has another number and the same seal; so has one that somebody who
        writes to the log, and has no key, has copied behind the release of its seat.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..model.call import (
    Acceptance,
    Body,
    CallEntry,
    Ending,
    ExactPlace,
    Opening,
    Person,
    Release,
    Report,
    Role,
    SeatState,
    Secret,
    Widening,
)


class DecryptedEntry(NamedTuple):
    """An entry with both of its parts."""

    entry: CallEntry
    body: Body
    secret: Secret


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat that somebody has. `number` is 0 for a seat beyond those that exist (RV7).

    `entry_number` is the number of the entry that took it.
    Times are in ms since 1970; `changed_at` is that of the last report, if there was one.
    """

    number: int
    role: Role
    person: Person
    entry_number: int
    accepted_at: int
    eta_s: int | None = None
    aed: str | None = None
    state: SeatState = "going"
    changed_at: int | None = None


class Left(NamedTuple):
    """When somebody had accepted a seat, and when they gave it back, in ms since 1970."""

    accepted_at: int
    at: int


@dataclass(slots=True)
class CallState:
    """A call, as far as its chain has been read.

    `number` is that of the last entry; `content` that of the newest content, decrypted by `decrypted_chain`; `entry`
    holds it with its place encrypted (None for a call that ended long ago: RZ4). `wave` is an index of `rings_m`.
    """

    id: str
    opening: Opening
    entry: CallEntry | None
    number: int
    content: int
    revision: int
    wave: int = 0
    seats: dict[Person, Seat] = field(default_factory=dict)  # by who holds it
    left: dict[Person, Left] = field(default_factory=dict)  # by who has given one back, and holds none now
    end: Ending | None = None
    accepted_seals: set[bytes] = field(default_factory=set)  # their seals (Rule 4)

    @property
    def radius_m(self) -> int:
        """The ring in force, in metres from the place at most."""
        rings = self.opening.terms.rings_m
        return rings[min(self.wave, len(rings) - 1)]

    @property
    def reach_m(self) -> float:
        """The radius of the ring in force round the centre of `near`, in metres."""
        return self.opening.near.radius_m + self.radius_m

    @property
    def free_seat(self) -> int | None:
        """The lowest seat that nobody holds (RV5); None if the call is full."""
        held = {seat.number for seat in self.seats.values()}
        return next((number for number in range(1, len(self.opening.terms.seats) + 1) if number not in held), None)

    @property
    def full(self) -> bool:
        """Whether no seat is free (RV6)."""
        return self.free_seat is None

    def take(self, opened: DecryptedEntry) -> None:
        """Take in the next entry of the chain."""
        entry, body, secret = opened
        self.number = max(self.number, entry.revision)
        if self.end is not None:
            return
        match body:
            case Opening():
                self.opening, self.entry = body, entry
                self.content = self.revision = entry.revision
            case Widening(ring=ring):
                self.wave = max(self.wave, min(ring, len(self.opening.terms.rings_m) - 1))
            case Acceptance() if isinstance(secret, Person) and entry.sealed not in self.accepted_seals:
                self.accepted_seals.add(entry.sealed)
                if secret not in self.seats:  # RV3
                    self._seat(entry, body, secret)
            case Release() if isinstance(secret, Person):
                was_full = self.full
                if (seat := self.seats.pop(secret, None)) is not None:
                    self.left[secret] = Left(seat.accepted_at, body.at)
                if was_full and not self.full:
                    self.revision = entry.revision
            case Report() if isinstance(secret, Person) and secret in self.seats:
                held = self.seats[secret]
                self.seats[secret] = replace(held, state=body.state, changed_at=body.at)
            case Ending():
                self.end = body

    def _seat(self, entry: CallEntry, claim: Acceptance, person: Person) -> None:
        taken = claim.seat in {seat.number for seat in self.seats.values()}
        self.left.pop(person, None)
        number = 0 if taken or not 1 <= claim.seat <= len(self.opening.terms.seats) else claim.seat
        self.seats[person] = Seat(number, claim.role, person, entry.revision, claim.at, claim.eta_s, claim.aed)


def first_state(first: DecryptedEntry) -> CallState | None:
    """The call as its first entry has it: a `call`, or, where the place has been deleted, any; None if none tells."""
    entry, body, _ = first
    if isinstance(body, Opening):
        return CallState(entry.id, body, entry, entry.revision, entry.revision, entry.revision)
    if isinstance(body, Ending):
        number = entry.revision
        return CallState(entry.id, body.call, None, number, number, number, end=body)
    return None


def fold(chain: Iterable[DecryptedEntry]) -> CallState | None:
    """What a whole chain, in order, comes to; None if nothing in it tells what the call is about.

    Where the entries with the place have been deleted, the end tells it. So it is looked for first.
    """
    entries = list(chain)
    known = next((each for each in entries if isinstance(each.body, Opening)), None)
    known = known or next((each for each in entries if isinstance(each.body, Ending)), None)
    if known is None:
        return None
    state = first_state(known)
    assert state is not None
    end, state.end = state.end, None
    for each in entries:
        if each is not known:
            state.take(each)
    state.end = state.end or end
    return state


def place_of(opened: DecryptedEntry) -> ExactPlace:
    """The place in a `call`. Raises ValueError if it is none."""
    if not isinstance(opened.secret, ExactPlace):
        raise ValueError("an entry without a place")
    return opened.secret
