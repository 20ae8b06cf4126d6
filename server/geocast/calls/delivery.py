"""What one session was sent about one call, and what it has to be sent next.

A seat is a responder's assignment to the call. The table gives the next message by what the session has of the call,
and how the call stands for the session. `full`, `left` and `over` are the reasons of a `standdown`.

| the session                    | a seat is free | no seat is free | its person has a seat | its person has a seat that the session may not use | it has no qualification | the call has ended |
|--------------------------------|----------------|-----------------|-----------------------|----------------------------------------------------|-------------------------|--------------------|
| has nothing                    | `call` *       |                 | `task`                |                                                    |                         |                    |
| has the call                   | `call` *       | `full`          | `task`                |                                                    |                         | `over`             |
| was told that the call is full | `call` *       |                 | `task`                |                                                    |                         | `over`             |
| has declined                   |                |                 | `task`                |                                                    |                         |                    |
| has a task                     | `left`         | `left`          | `task` *              |                                                    | `left`                  | `over`             |
| waits for an answer            | `left`         | `left`          | `task`                | `over`                                             | `left`                  | `over`             |

* If the session does not have it yet, or has an older one. A session that was not notified yet is sent a `call` only if
it meets the conditions of RJ1. `tests/calls/test_delivery.py` compares this table with `OWED`.

Example: a responder is notified, and two others accept. The responder is told that the call is full. One of the others
gives up the seat, so that there is a new revision of the call: the responder is notified again if still nearby.
"""  # noqa: E501 (a table)

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from .eligibility import Reason, is_wanted
from .state import CallState, Seat

Owed = Literal["call", "task", "full", "left", "over"]


class Has(Enum):
    """What a session has of a call, in the words of the table."""

    NOTHING = "has nothing"
    CALL = "has the call"
    FULL = "was told that the call is full"
    DECLINED = "has declined"
    TASK = "has a task"
    ASKED = "waits for an answer"


class Stands(Enum):
    """How a call stands for a session, in the words of the table."""

    FREE = "a seat is free"
    FULL = "no seat is free"
    SEATED = "its person has a seat"
    UNFIT = "its person has a seat that the session may not use"
    UNQUALIFIED = "it has no qualification"
    ENDED = "the call has ended"


# The columns are in the order of `Stands`. None: the session is owed nothing.
_ROWS: dict[Has, tuple[Owed | None, ...]] = {
    Has.NOTHING: ("call", None, "task", None, None, None),
    Has.CALL: ("call", "full", "task", None, None, "over"),
    Has.FULL: ("call", None, "task", None, None, "over"),
    Has.DECLINED: (None, None, "task", None, None, None),
    Has.TASK: ("left", "left", "task", None, "left", "over"),
    Has.ASKED: ("left", "left", "task", "over", "left", "over"),
}
OWED = {has: dict(zip(Stands, row, strict=True)) for has, row in _ROWS.items()}


@dataclass(slots=True)
class CallDelivery:
    """The messages about one call that one session has, because this process sent them or `holding` says so.

    `notified` is the newest revision of the call that the session has, or 0 if the session is not a recipient of the
    call. `task` is the revision of the session's task, or 0 if it has none. `full` says whether the session was sent a
    standdown with the reason `full`, and no notification after it. `unsure` is True if this process can't know whether
    the session has a `call` message, or the task of a seat that was released; therefore `call` is sent again (HD18).
    """

    notified: int = 0
    task: int = 0
    full: bool = False
    unsure: bool = False
    declined: bool = False
    asked: bool = False  # the session has accepted again, or has to be told of the end although it was sent nothing
    called: int = 0  # the revision for which the session counts as notified
    refused: int = 0  # the revision for which the session counts as declined
    unacked: list[int] = field(default_factory=list)  # revisions that were sent and not acknowledged

    @property
    def has(self) -> Has:
        """What the session has of the call: its row in the table."""
        if self.asked or self.task:
            return Has.ASKED if self.asked else Has.TASK
        if self.declined:
            return Has.DECLINED
        if not self.notified:
            return Has.NOTHING
        return Has.FULL if self.full else Has.CALL

    def withdraw(self, reason: Reason) -> None:
        """Record that the session was sent a `standdown` with this reason, so that it has no task any more."""
        self.task, self.asked, self.full = 0, False, reason == "full"
        if reason == "over":
            self.notified = 0


def stands(state: CallState, full: bool, seat: Seat | None, quals: frozenset[str]) -> Stands:
    """Return how a call stands for a session with these qualifications, whose person has `seat`: a column of the table.

    A seat is an assignment to the call. `full` says whether the call has enough responders.
    """
    if state.end is not None:
        return Stands.ENDED
    if seat is not None:
        return Stands.SEATED if is_wanted(state, quals) else Stands.UNFIT
    if not quals:
        return Stands.UNQUALIFIED
    return Stands.FULL if full else Stands.FREE
