"""The sessions that may be called to help: which person they belong to, their qualifications, and their locations.

A session is identified by its row, which is its number in the stream's hub.

Rule 1  For a session without a qualification, only the person is stored: one entry in a dict. The session becomes a
        `Responder` when it sends its location, says in `holding` that it already has a call, answers a call, or is sent
        something about a call (RJ6, RJ9).
Rule 2  The location of a session stays in this module (RZ7). It is in the index only while the session is on duty, that
        is, while it shares its location and has a qualification that counts for calls (RQ4).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..auth.tokens import Subject
from ..geometry.sphere import Vector
from ..matching.place_index import PlaceIndex
from ..model.alert import Circle
from ..model.call import Person
from .eligibility import MAX_REACH_M, Here, Refusal, is_wanted, may_see
from .live_call import LiveCall
from .pending_accept import AcceptEvent, PendingAccept
from .state import CallState

INITIAL_CAPACITY = 1 << 12  # number of locations for which address space is reserved at the start


class ResponderRights(Protocol):
    """The rights that a session has by its token."""

    @property
    def may_test(self) -> bool:
        """Whether the session may see calls whose status is `test` or `exercise` (R6)."""

    @property
    def subject(self) -> Subject | None:
        """The subject (issuer and `sub`) of the session's token; None if the session has no token."""

    @property
    def quals(self) -> frozenset[str]:
        """The qualifications in the session's token that count for calls (RQ1 to RQ3)."""


@dataclass(slots=True, eq=False)
class Responder:
    """A session that may be sent messages about calls for help, and what is known about it."""

    row: int
    person: Person | None  # None if the session has no token
    quals: frozenset[str] = frozenset()
    may_test: bool = False
    here: Here | None = None
    slot: int = -1  # where the index has its location; -1 while the session is off duty
    calls: set[LiveCall] = field(default_factory=set)  # the calls that record what this session was sent
    pending: PendingAccept | None = None
    refused: dict[str, Refusal] = field(default_factory=dict)  # by call: refusals of an `accept` to be sent
    unknown: dict[str, int] = field(default_factory=dict)  # by call that this process has not read: what it holds
    reported: float = float("-inf")  # monotonic time of the last report that counted

    @property
    def on_duty(self) -> bool:
        """Whether the session shares its location and has a qualification that counts for calls (RQ4)."""
        return self.slot >= 0

    def pending_for(self, call_id: str) -> PendingAccept | None:
        """Return the session's `accept` of this call if it still waits for an answer, otherwise None."""
        return self.pending if self.pending is not None and self.pending.call_id == call_id else None

    def answer(self, call_id: str) -> PendingAccept | None:
        """Return the session's `accept` of this call if it waits for an answer, and stop waiting: it is answered."""
        pending = self.pending_for(call_id)
        if pending is not None:
            self.end_pending(AcceptEvent.ANSWER)
        return pending

    def may_help(self, call: CallState) -> bool:
        """Return whether the session may see the call, and has a qualification that the call asks for."""
        return is_wanted(call, self.quals) and may_see(call, self.may_test)

    def end_pending(self, event: AcceptEvent) -> None:
        """Apply an event to the session's unanswered `accept`, if it has one, and stop waiting for the answer."""
        if self.pending is not None:
            self.pending.on(event)
            self.pending = None


class Responders:
    """Keeps all sessions with a token, by row (the session's number) and by person.

    Those sessions that may be sent messages about calls for help each have a `Responder` as well.
    """

    def __init__(self, capacity: int) -> None:
        """Create the object without sessions; their rows (session numbers) may be from 0 to `capacity` - 1."""
        self._persons: list[Person | None] = [None] * capacity  # each session's person, by row
        self._rows: dict[Person, int | set[int]] = {}  # by person: the row, or a set of several rows
        self._known: dict[int, Responder] = {}  # the responders, by row
        self._here = PlaceIndex(INITIAL_CAPACITY)  # the locations of the sessions on duty

    @property
    def on_duty(self) -> int:
        """The number of sessions on duty: those with a location and with a qualification that counts for calls."""
        return len(self._here)

    def find(self, row: int) -> Responder | None:
        """Return the `Responder` of the session with this row (session number), or None if the session has none."""
        return self._known.get(row)

    def get(self, row: int) -> Responder:
        """Return the `Responder` of the session with this row (session number). Create it if the session has none."""
        found = self._known.get(row)
        if found is None:
            found = self._known[row] = Responder(row, self._persons[row])
        return found

    def person_of(self, row: int) -> Person | None:
        """Return the person to whom a session belongs; None if the session has no token."""
        return self._persons[row]

    def rows_of(self, persons: Iterable[Person]) -> Iterator[int]:
        """Yield the rows (session numbers) of all sessions that belong to these people."""
        for person in persons:
            rows = self._rows.get(person, ())
            yield from (rows,) if isinstance(rows, int) else rows

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """Set the rights of a session to those that its current token grants."""
        subject = rights.subject
        self._name(row, None if subject is None else Person(subject.sub, subject.issuer))
        found = self._known.get(row)
        if found is None and (rights.quals or rights.may_test):
            found = self.get(row)
        if found is not None:
            found.person, found.quals, found.may_test = self._persons[row], rights.quals, rights.may_test
            self._file(found)

    def move(self, row: int, here: Here | None) -> None:
        """Set the location of a session to the one that its client has sent.

        None means that the client no longer shares its location.
        """
        found = self._known.get(row) if here is None else self.get(row)
        if found is not None:
            found.here = None if here is None else (here[0], here[1], min(here[2], MAX_REACH_M))
            self._file(found)

    def leave(self, row: int) -> None:
        """Forget a session that has ended, and its location. It can be called again after an error."""
        self._name(row, None)
        if (found := self._known.get(row)) is not None:
            found.end_pending(AcceptEvent.LEAVE)
            found.here = None
            self._file(found)
            del self._known[row]

    def within(self, circle: Circle) -> list[int]:
        """Return the rows (session numbers) of the sessions on duty inside a circle, the nearest first."""
        rows, distance_m = self._here.match([circle])
        found: list[int] = rows[np.argsort(distance_m, kind="stable")].tolist()
        return found

    def point_of(self, responder: Responder) -> tuple[Vector, float]:
        """Return the location of a session on duty: a unit vector (x, y, z) from the earth's centre, and its reach.

        The reach is the uncertainty of the location in metres.
        """
        return self._here.place(responder.slot)

    def _name(self, row: int, person: Person | None) -> None:
        """Record to which person a session belongs; None if the session has no token."""
        old = self._persons[row]
        if old == person:
            return
        if old is not None:
            self._forget(old, row)
        self._persons[row] = person
        if person is not None:
            rows = self._rows.setdefault(person, row)
            if isinstance(rows, set):
                rows.add(row)
            elif rows != row:
                self._rows[person] = {rows, row}

    def _forget(self, person: Person, row: int) -> None:
        """Remove a session from the set of the sessions that belong to a person."""
        rows = self._rows[person]
        if isinstance(rows, set) and len(rows) > 1:
            rows.discard(row)
        else:
            del self._rows[person]

    def _file(self, responder: Responder) -> None:
        """Bring the index of locations up to date with a session.

        The index has the location of each session that is on duty, and no others (Rule 2).
        """

        here = responder.here if responder.quals else None
        if here is None:
            if responder.slot >= 0:
                self._here.remove(responder.slot)
                responder.slot = -1
        elif responder.slot >= 0:
            self._here.move(responder.slot, *here)
        else:
            responder.slot = self._here.add(responder.row, *here)
