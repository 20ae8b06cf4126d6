"""The sessions that calls concern: whose they are, who is on duty, and where.

Rule 1  A session without a qualification is one entry of one dict, by its person, until it says where it is, holds a
        call or answers one, or is told of one (RJ6, RJ9).
Rule 2  Where a session is stays here (RZ7), and is in the index while it is on duty, and only then (RQ4).
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from ..auth.tokens import Subject
from ..geometry.sphere import Vector
from ..matching.place_index import PlaceIndex
from ..model.alert import Circle
from ..model.call import Person
from .eligibility import MAX_REACH_M, Here, Refusal
from .live_call import LiveCall
from .pending_accept import AcceptEvent, PendingAccept

INITIAL_CAPACITY = 1 << 12  # places for which address space is taken at the start


class ResponderRights(Protocol):
    """What a session's token says of it."""

    @property
    def may_test(self) -> bool:
        """Whether calls of the status `test` and `exercise` exist for it (R6)."""
        ...

    @property
    def subject(self) -> Subject | None:
        """The subject of its token; None without a token."""
        ...

    @property
    def quals(self) -> frozenset[str]:
        """The qualifications that count (RQ1 to RQ3)."""
        ...


class Responder:
    """A session that calls concern."""

    __slots__ = (
        "calls", "gone", "here", "may_test", "pending", "person", "quals", "refused", "reported", "row", "slot",
        "unknown",
    )  # fmt: skip

    def __init__(self, row: int, person: Person | None) -> None:
        self.row = row
        self.person = person  # None without a token
        self.quals: frozenset[str] = frozenset()
        self.may_test = False
        self.here: Here | None = None
        self.slot = -1  # of its place in the index, while it is on duty
        self.calls: set[LiveCall] = set()  # of which it was told something
        self.pending: PendingAccept | None = None
        self.refused: dict[str, Refusal] = {}  # answers to its accepts that are to be sent, by id
        self.unknown: dict[str, int] = {}  # what it says it holds, and is not known here
        self.reported = float("-inf")  # when a report of it last counted, on the monotonic clock
        self.gone = False

    @property
    def on_duty(self) -> bool:
        """Whether it has a qualification that counts, and says where it is (RQ4)."""
        return self.slot >= 0

    def pending_for(self, call_id: str) -> PendingAccept | None:
        """Return the `accept` of this call that waits for its answer, if there is one."""
        return self.pending if self.pending is not None and self.pending.call_id == call_id else None

    def end_pending(self, event: AcceptEvent) -> None:
        """Let the pending `accept`, if there is one, take an event after which the session waits no more."""
        if self.pending is not None:
            self.pending.on(event)
            self.pending = None


class Responders:
    """All sessions with a token, by row and by person, and those that calls concern."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: how many rows there are."""
        self._persons: list[Person | None] = [None] * capacity  # by row
        self._rows: dict[Person, int | set[int]] = {}  # by person: the row, or the rows if there are several
        self._known: dict[int, Responder] = {}  # by row
        self._here = PlaceIndex(INITIAL_CAPACITY)  # of those on duty

    @property
    def on_duty(self) -> int:
        """How many sessions are on duty."""
        return len(self._here)

    def find(self, row: int) -> Responder | None:
        """The session, if calls concern it."""
        return self._known.get(row)

    def get(self, row: int) -> Responder:
        """The session, as one that calls concern from now on."""
        found = self._known.get(row)
        if found is None:
            found = self._known[row] = Responder(row, self._persons[row])
        return found

    def person_of(self, row: int) -> Person | None:
        """Whose session it is; None without a token."""
        return self._persons[row]

    def rows_of(self, persons: Iterable[Person]) -> Iterator[int]:
        """The rows of all sessions of these people."""
        for person in persons:
            rows = self._rows.get(person, ())
            yield from (rows,) if isinstance(rows, int) else rows

    def set_rights(self, row: int, rights: ResponderRights) -> None:
        """The session has this token now."""
        subject = rights.subject
        self._name(row, None if subject is None else Person(subject.sub, subject.issuer))
        found = self._known.get(row)
        if found is None and (rights.quals or rights.may_test):
            found = self.get(row)
        if found is not None:
            found.person, found.quals, found.may_test = self._persons[row], rights.quals, rights.may_test
            self._file(found)

    def move(self, row: int, here: Here | None) -> None:
        """The session is there now, by its own word; None: it does not say."""
        found = self._known.get(row) if here is None else self.get(row)
        if found is not None:
            found.here = None if here is None else (here[0], here[1], min(here[2], MAX_REACH_M))
            self._file(found)

    def leave(self, row: int) -> Responder | None:
        """The session is over: it is forgotten, and so is where it was. Returns it, if calls concerned it."""
        self._name(row, None)
        found = self._known.pop(row, None)
        if found is not None:
            found.end_pending(AcceptEvent.LEAVE)
            found.gone, found.here = True, None
            self._file(found)
        return found

    def within(self, circle: Circle) -> list[int]:
        """The rows of those on duty inside a circle, nearest first."""
        rows, distance_m = self._here.match([circle])
        found: list[int] = rows[np.argsort(distance_m, kind="stable")].tolist()
        return found

    def point_of(self, responder: Responder) -> tuple[Vector, float]:
        """Where a session on duty is, on the unit sphere, and its reach in metres."""
        return self._here.place(responder.slot)

    def _name(self, row: int, person: Person | None) -> None:
        """The session is this person's."""
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
        """The session is no more this person's."""
        rows = self._rows[person]
        if isinstance(rows, set) and len(rows) > 1:
            rows.discard(row)
        else:
            del self._rows[person]

    def _file(self, responder: Responder) -> None:
        """Have its place in the index if it is on duty (Rule 2)."""
        here = responder.here if responder.quals else None
        if here is None:
            if responder.slot >= 0:
                self._here.remove(responder.slot)
                responder.slot = -1
        elif responder.slot >= 0:
            self._here.move(responder.slot, *here)
        else:
            responder.slot = self._here.add(responder.row, *here)
