"""The optimistic writer, for a log with several writers: read the history, decide, append, try again if overtaken.

    read ──> decide ──> append ── stored ──> the plan's answer
     ^          │         │
     │          │ nothing │ another writer has taken the number
     │          v to append
     │      the plan's answer
     └────────────────────┘

Rule 1  The log decides, never what this process remembers. So every attempt reads the history again.
Rule 2  A decision is a pure function of what was read: it waits for nothing and stores nothing, so it can be made
        again. It returns a `Plan`, or raises why the request is refused. Each entry of the plan has the number after
        the last entry of its history. A plan without entries is final: a repeated request, for instance, or a dry run.
Rule 3  The log stores an entry only under the next number (LogA1). If another writer has taken that number meanwhile,
        the history is read and the decision made again, at most ATTEMPTS times in all. Then LogUnavailable is raised:
        the client repeats its request.
Rule 4  LogUnavailable from the log itself is raised at once. The entry may be stored or not (LogA3); a client that
        repeats its request finds out, because decisions look for their own entry in the history first.

Example: the history of an alert is [revision 1], and nodes A and B are asked for different revisions 2 at once.

1. Both read [revision 1], and both decide to append revision 2.
2. Node A appends first. The log refuses node B's entry, because number 2 is taken.
3. Node B reads [revision 1, revision 2] and decides again: 409 `revision-conflict`. Without the second decision B would
   have answered 201 for an entry that is not in the log.

If node B had been asked for the same revision as node A, its second decision would have found the entry in the history,
and the answer would be 200 with node A's entry. If node A dies after its append and before its answer, the client
repeats the request at node B, which finds the entry in the same way. So no request is ever stored twice.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from .. import failpoints
from ..errors import LogUnavailable
from ..model.alert import Entry
from ..model.call import CallEntry
from . import AlertLog

ATTEMPTS = 20  # decisions on one request

_Read = TypeVar("_Read")
_Answer = TypeVar("_Answer")
_E = TypeVar("_E", bound=Entry | CallEntry)


class Plan(NamedTuple, Generic[_Answer, _E]):
    """A decision: the entries to append, in order, and the answer to give once all of them are stored."""

    answer: _Answer
    entries: Sequence[_E] = ()


class OptimisticWriter(Generic[_E]):
    """A writer that decides by the history, appends, and decides again if another writer was faster."""

    def __init__(self, alert_log: AlertLog, appended: Callable[[_E], None], overtaken: str) -> None:
        """Write to `alert_log`, and call `appended` with each entry that was stored.

        `overtaken`: the text of the error after the last attempt.
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
        """Return the answer of the first plan that could be carried out (Rules 1 to 4).

        `append`: used instead of this object's `append`, by callers that do something before or after it. Raises what
        `decide` raises, and LogUnavailable.
        """
        for _ in range(ATTEMPTS):
            plan = decide(await read())
            if not plan.entries or await (append or self.append)(plan.entries):
                return plan.answer
        raise LogUnavailable(self._overtaken)

    async def append(self, entries: Sequence[_E]) -> bool:
        """Append entries in order. Return False at the first whose number is taken; those before it stay stored."""
        for entry in entries:
            if not await self._log.append(entry):
                return False
            failpoints.hit("after-append")
            self._appended(entry)
        return True
