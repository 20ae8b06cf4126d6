"""An `accept` that waits for its answer: its states, and what changes them.

A responder's session sends `accept` to ask for a seat, which means to be assigned to the call. If the log has to
decide, the call hub creates a pending accept. The worker asks the log, repeatedly while the log is unavailable, and
reports the answer to the hub. If the seat is granted, the hub sends the session its `task` as soon as the seat is read
from the log, and not before (RV1). If the seat is refused, the hub sends a `standdown`.

| state       | the session accepts again | the session declines | the log grants | the log refuses | the session is answered | the session leaves |
|-------------|---------------------------|----------------------|----------------|-----------------|-------------------------|--------------------|
| `ASKED`     | `ASKED`                   | `WITHDRAWN`          | `STORED`       | `DONE`          | `DONE`                  | `DONE`             |
| `WITHDRAWN` | `ASKED`                   | `WITHDRAWN`          | `STORED` *     | `DONE`          | `UNWANTED`              | `UNWANTED`         |
| `STORED`    | `DONE`                    | `STORED` *           |                |                 | `DONE`                  | `DONE`             |
| `UNWANTED`  |                           |                      | `DONE` *       | `DONE`          |                         |                    |
| `DONE`      |                           |                      | `DONE`         | `DONE`          |                         |                    |

* The hub also asks the worker to release the seat (M19). An empty cell means that the event cannot occur in the state.
`tests/calls/test_pending_accept.py` compares this table with `NEXT`.

Example 1: A responder accepts, declines while Redis fails over, and closes the app. The pending accept is now
`UNWANTED`. If the log grants the seat later, the seat is released.
Example 2: A responder accepts, and this process reads the seat from the log before its own append has returned. The task
is sent, and the accept is `DONE`. The grant that is reported afterwards changes nothing.
"""  # noqa: E501 (a table)

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .eligibility import Reason


class AcceptState(Enum):
    """The state of an `accept` (a responder's offer to help): the log's decision, and what the session waits for."""

    ASKED = "the log has not answered yet"
    WITHDRAWN = "the log has not answered yet, and the session has declined since"
    STORED = "the log has the seat, and this process has not read it yet"
    UNWANTED = "nobody waits for the answer, and a seat that the log grants is to be released"
    DONE = "nobody waits for the answer"


class AcceptEvent(Enum):
    """An event that changes the state of an `accept` (a responder's offer to help)."""

    ACCEPT = "the session accepts again"
    DECLINE = "the session declines"
    GRANT = "the log grants"
    REFUSE = "the log refuses"
    ANSWER = "the session is answered"
    LEAVE = "the session leaves"


_S, _E = AcceptState, AcceptEvent
# The states after the events in their order: ACCEPT, DECLINE, GRANT, REFUSE, ANSWER, LEAVE. None: it can't occur.
_ROWS: dict[AcceptState, tuple[AcceptState | None, ...]] = {
    _S.ASKED: (_S.ASKED, _S.WITHDRAWN, _S.STORED, _S.DONE, _S.DONE, _S.DONE),
    _S.WITHDRAWN: (_S.ASKED, _S.WITHDRAWN, _S.STORED, _S.DONE, _S.UNWANTED, _S.UNWANTED),
    _S.STORED: (_S.DONE, _S.STORED, None, None, _S.DONE, _S.DONE),
    _S.UNWANTED: (None, None, _S.DONE, _S.DONE, None, None),
    _S.DONE: (None, None, _S.DONE, _S.DONE, None, None),
}
NEXT = {
    state: {event: after for event, after in zip(_E, row, strict=True) if after is not None}
    for state, row in _ROWS.items()
}
# the transitions with * in the table
RELEASING = {(_S.WITHDRAWN, _E.GRANT), (_S.UNWANTED, _E.GRANT), (_S.STORED, _E.DECLINE)}


@dataclass(slots=True, eq=False)
class PendingAccept:
    """An `accept` message that waits for its answer.

    `since` is the time at which the message was received, in seconds of the monotonic clock. `eta_s` is the number of
    seconds until the responder's arrival, as estimated by the responder. `last_sent` is the last message about the call
    that the session was sent after `since`; a refusal that would only repeat it is not sent.
    """

    call_id: str
    eta_s: int | None
    since: float
    state: AcceptState = AcceptState.ASKED
    last_sent: Reason | Literal["call"] | None = None

    @property
    def waiting(self) -> bool:
        """Whether the session still waits for the answer to its `accept`."""
        return self.state not in (AcceptState.UNWANTED, AcceptState.DONE)

    def on(self, event: AcceptEvent) -> bool:
        """Change the state because of an event.

        Return True if the seat (the responder's assignment to the call) must be released now.
        """
        releases = (self.state, event) in RELEASING
        self.state = NEXT[self.state][event]
        return releases
