"""An `accept` that waits for its answer: its states, and what changes them.

The call hub creates a pending accept when a session accepts a call and the log has to decide. The worker asks the log,
again and again while the log is away, and reports the answer to the hub. The hub sends the session its `task` when the
seat is read from the log, not before (RV1), or a `standdown`.

| state       | the session accepts again | the session declines | the log grants | the log refuses | the session is answered | the session leaves | the attempt fails |
|-------------|---------------------------|----------------------|----------------|-----------------|-------------------------|--------------------|-------------------|
| `ASKED`     | `ASKED`                   | `WITHDRAWN`          | `STORED`       | `DONE`          | `DONE`                  | `DONE`             | `DONE`            |
| `WITHDRAWN` | `ASKED`                   | `WITHDRAWN`          | `STORED` *     | `DONE`          | `UNWANTED`              | `UNWANTED`         | `UNWANTED`        |
| `STORED`    | `DONE`                    | `STORED` *           |                |                 | `DONE`                  | `DONE`             |                   |
| `UNWANTED`  |                           |                      | `DONE` *       | `DONE`          |                         |                    |                   |
| `DONE`      |                           |                      | `DONE`         | `DONE`          |                         |                    |                   |

* The hub also has the seat released (M19). A cell without a state cannot occur. `tests/calls/test_pending_accept.py`
compares this table with `NEXT`.

Two examples. A responder accepts, declines while Redis fails over, and closes the app: the pending accept is `UNWANTED`,
and a seat that the log had granted in the meantime is released. A responder accepts, and the seat is read from the log
before the append has returned: the task is sent and the accept is `DONE`; the grant that follows changes nothing.
"""  # noqa: E501 (a table)

from enum import Enum
from typing import Literal

from .eligibility import Reason


class AcceptState(Enum):
    """How far the log and the session are with an `accept`."""

    ASKED = "the log has not answered yet"
    WITHDRAWN = "the log has not answered yet, and the session has declined since"
    STORED = "the log has the seat, and this process has not read it yet"
    UNWANTED = "nobody waits for the answer, and a seat that the log grants is to be released"
    DONE = "nobody waits for the answer"


class AcceptEvent(Enum):
    """An event that changes the state of an `accept`."""

    ACCEPT = "the session accepts again"
    DECLINE = "the session declines"
    GRANT = "the log grants"
    REFUSE = "the log refuses"
    ANSWER = "the session is answered"
    LEAVE = "the session leaves"
    FAIL = "the attempt fails"


_S, _E = AcceptState, AcceptEvent
NEXT: dict[AcceptState, dict[AcceptEvent, AcceptState]] = {
    _S.ASKED: {
        _E.ACCEPT: _S.ASKED,
        _E.DECLINE: _S.WITHDRAWN,
        _E.GRANT: _S.STORED,
        _E.REFUSE: _S.DONE,
        _E.ANSWER: _S.DONE,
        _E.LEAVE: _S.DONE,
        _E.FAIL: _S.DONE,
    },
    _S.WITHDRAWN: {
        _E.ACCEPT: _S.ASKED,
        _E.DECLINE: _S.WITHDRAWN,
        _E.GRANT: _S.STORED,
        _E.REFUSE: _S.DONE,
        _E.ANSWER: _S.UNWANTED,
        _E.LEAVE: _S.UNWANTED,
        _E.FAIL: _S.UNWANTED,
    },
    _S.STORED: {_E.ACCEPT: _S.DONE, _E.DECLINE: _S.STORED, _E.ANSWER: _S.DONE, _E.LEAVE: _S.DONE},
    _S.UNWANTED: {_E.GRANT: _S.DONE, _E.REFUSE: _S.DONE},
    _S.DONE: {_E.GRANT: _S.DONE, _E.REFUSE: _S.DONE},
}
RELEASING = {(_S.WITHDRAWN, _E.GRANT), (_S.UNWANTED, _E.GRANT), (_S.STORED, _E.DECLINE)}  # * in the table


class PendingAccept:
    """An `accept` that waits for its answer.

    `since`: when it was read, in seconds of the monotonic clock. `eta_s`: in how many seconds the responder says to
    arrive. `last_sent`: what the session was sent about the call since then; a refusal that says the same is not sent.
    """

    __slots__ = ("call_id", "eta_s", "last_sent", "since", "state")

    def __init__(self, call_id: str, eta_s: int | None, since: float) -> None:
        self.call_id = call_id
        self.eta_s = eta_s
        self.since = since
        self.state = AcceptState.ASKED
        self.last_sent: Reason | Literal["call"] | None = None

    @property
    def waiting(self) -> bool:
        """Whether the session still waits for an answer."""
        return self.state not in (AcceptState.UNWANTED, AcceptState.DONE)

    def on(self, event: AcceptEvent) -> bool:
        """Take an event. Return whether the seat is to be released now."""
        releases = (self.state, event) in RELEASING
        self.state = NEXT[self.state][event]
        return releases
