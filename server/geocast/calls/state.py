"""The state of a call, computed from its chain: content, current radius, seats, and whether the call is over.

The chain of a call is all its entries in the log, in order. The state depends only on the decrypted entries.
`CallService` computes it from the whole chain for each decision; `LiveCall` applies entry after entry. Both get the
same state. A seat is a responder's assignment to the call; an entry of the kind `claim` gives a seat to a person.

Rule 1  No entry is refused here: what is in the log has happened. If a `claim` names a seat that somebody else has, the
        `claim` was put back after a failover of Redis. Its person already knows where to go, and so gets an additional
        seat, with number 0 (RV7).
Rule 2  `revision` is the revision of the message `call`. It is the number of the entry that last changed the content;
        or that of a later `release`, if the call had enough responders and begins to notify again because one of them
        has given up a seat (RV6). Neither a wider radius nor a `claim` makes a new revision.
Rule 3  Entries after the end have no effect.
Rule 4  A `claim` counts once. If the log has put it back, it has another number but the same encrypted part.
        Example: after a seat was released, somebody who can write to the log, but has no key, appends a copy of its
        `claim`. The copy does not give the seat to the person again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..clock import Now
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
    """An entry of a call in the log, with its public body and its decrypted secret."""

    entry: CallEntry
    body: Body
    secret: Secret


@dataclass(frozen=True, slots=True)
class Seat:
    """A person's seat: the person's assignment to a call.

    `number` starts at 1; it is 0 for an additional seat (RV7). `entry_number` is the number of the entry that gave the
    seat. Times are in ms since 1970. `changed_at` is the time of the person's last report of progress, or None if there
    was none.
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
    """The time at which a person accepted a call, and the time at which they gave it up again, in ms since 1970."""

    accepted_at: int
    at: int


@dataclass(slots=True)
class CallState:
    """The state of a call after the entries that were applied so far.

    `number` is the number of the last entry. `content` is the number of the entry that last changed the content.
    `entry` is that entry, with the place still encrypted; it is None for a call that ended long ago (RZ4). Rule 2 of
    the module explains `revision`. `wave` is the index of the current radius in `rings_m`.
    """

    id: str
    opening: Opening
    entry: CallEntry | None
    number: int
    content: int
    revision: int
    wave: int = 0
    seats: dict[Person, Seat] = field(default_factory=dict)
    left: dict[Person, Left] = field(default_factory=dict)  # people without a seat who have released one
    end: Ending | None = None
    accepted_seals: set[bytes] = field(default_factory=set)  # encrypted parts of the claims that have counted (Rule 4)

    @property
    def radius_m(self) -> int:
        """The current search radius around the exact place, in metres."""
        rings = self.opening.terms.rings_m
        return rings[min(self.wave, len(rings) - 1)]

    @property
    def reach_m(self) -> float:
        """The current search radius around the centre of the published circle `near`, in metres."""
        return self.opening.near.radius_m + self.radius_m

    @property
    def free_seat(self) -> int | None:
        """The lowest number of a seat to which nobody is assigned, or None if there is no such seat (RV5)."""
        held = {seat.number for seat in self.seats.values()}
        return next((number for number in range(1, len(self.opening.terms.seats) + 1) if number not in held), None)

    @property
    def full(self) -> bool:
        """Whether the call has enough responders, so that none of its seats is free (RV6)."""
        return self.free_seat is None

    def is_open(self, now: Now) -> bool:
        """Return whether the call is open at the time `now`: it has neither ended nor expired."""
        return self.end is None and now.wall_ms < self.opening.expires_at

    def take(self, opened: DecryptedEntry) -> None:
        """Apply the next entry of the call."""
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
                if secret not in self.seats:  # a person has at most one seat (RV3)
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


def fold(chain: Iterable[DecryptedEntry]) -> CallState | None:
    """Return the state of a call after all of these entries, which must be in order.

    Return None if no entry says what the call is about. Normally its `call` entries do. They have the exact place, so
    they are deleted some time after the end; then the `end` entry says what the call was about.
    """
    entries = list(chain)
    known = next((each for kind in (Opening, Ending) for each in entries if isinstance(each.body, kind)), None)
    if known is None:
        return None
    first, body, _ = known
    assert isinstance(body, Opening | Ending)
    opening, end = (body, None) if isinstance(body, Opening) else (body.call, body)
    number = first.revision
    state = CallState(first.id, opening, None if end else first, number, number, number)
    for each in entries:
        if each is not known:
            state.take(each)
    state.end = state.end or end
    return state


def place_of(opened: DecryptedEntry) -> ExactPlace:
    """Return the exact place in a decrypted `call` entry. Raise ValueError if the entry is of another kind."""

    if not isinstance(opened.secret, ExactPlace):
        raise ValueError("an entry without a place")
    return opened.secret
