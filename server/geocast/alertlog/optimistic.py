"""The optimistic writer, for a log with several writers: read an alert's history, decide what to append, append it.

    read ──> decide ──> append ── stored ──> the plan's answer
     ^          │         │
     │          │ nothing │ another writer has taken the number
     │          v to append
     │      the plan's answer
     └────────────────────┘

Rule 1  Decisions are based on what is in the log, never on what this process remembers. So every attempt reads the
        history again.
Rule 2  A decision is a pure function of the history: it waits for nothing and stores nothing, so it can be repeated. It
        returns a `Plan`, or raises the error with which the request is refused. Each entry of the plan has the number
        after the last entry of its history. If a plan has no entries, its answer is returned at once; examples are
        repeated requests and dry runs.
Rule 3  The log stores an entry only under the next number (LogA1). If another writer has taken that number meanwhile,
        read the history and decide again. After ATTEMPTS attempts, raise LogUnavailable; the client repeats its
        request.
Rule 4  If the log itself raises LogUnavailable, raise it at once. The entry may or may not be stored (LogA3). If the
        client repeats its request, the decision finds out, because it first looks for its own entry in the history.

Example: the history of an alert is [revision 1], and nodes A and B each receive a different revision 2 at the same
time.

1. Both read [revision 1], and both decide to append revision 2.
2. Node A appends first. The log refuses node B's entry, because number 2 is taken.
3. Node B reads [revision 1, revision 2] and decides again: 409 `revision-conflict`. Without the second decision B would
   have answered 201 for an entry that is not in the log.

If node B had received the same revision as node A, its second decision would have found the entry in the history, and
the answer would be 200 with node A's entry. If node A dies after its append and before its answer, the client repeats
the request at node B, which finds the entry in the same way. So no request is ever stored twice.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from .. import failpoints
from ..model.alert import Entry
from ..model.call import CallEntry
from ..model.errors import LogUnavailable
from . import AlertLog

ATTEMPTS = 20  # the largest number of decisions on one request (Rule 3)

_Read = TypeVar("_Read")
_Answer = TypeVar("_Answer")
_E = TypeVar("_E", bound=Entry | CallEntry)


class Plan(NamedTuple, Generic[_Answer, _E]):
    """The decision about a request: the entries to append, in order, and the answer to give once all are stored."""

    answer: _Answer
    entries: Sequence[_E] = ()


class OptimisticWriter(Generic[_E]):
    """Decides from an alert's history what to append to it, and decides again if another writer was faster."""

    def __init__(self, alert_log: AlertLog, appended: Callable[[_E], None], overtaken: str) -> None:
        """Create a writer to `alert_log`.

        `appended` is called with each entry after it was stored. `overtaken` is the text of the LogUnavailable error
        that is raised if other writers were faster at every attempt.
        """
        self._log = alert_log
        self._appended = appended
        self._overtaken = overtaken

    async def decide_and_append(
        self,
        read: Callable[[], Awaitable[_Read]],
        decide: Callable[[_Read], Plan[_Answer, _E]],
        append: Callable[[Sequence[_E]], Awaitable[bool]] | None = None,
    ) -> _Answer:
        """Read a history, decide what to append, and append it. Return the answer that was decided on.

        If another writer was faster, begin again with reading (Rules 1 to 4). `read` returns the history. `decide`
        turns the history into a plan, or raises the error with which the request is refused. `append`, if given, is
        called in place of this object's `append`, for callers that do something before or after it. Raise
        LogUnavailable if the log is unavailable or all ATTEMPTS attempts fail.
        """
        for _ in range(ATTEMPTS):
            plan = decide(await read())
            if not plan.entries or await (append or self.append)(plan.entries):
                return plan.answer
        raise LogUnavailable(self._overtaken)

    async def append(self, entries: Sequence[_E]) -> bool:
        """Append entries in order.

        Return True if all were stored; stop and return False when the log refuses one. The log refuses an entry if its
        number is taken. The entries that come before the refused one stay stored.
        """
        for entry in entries:
            if not await self._log.append(entry):
                return False
            failpoints.hit("after-append")
            self._appended(entry)
        return True
