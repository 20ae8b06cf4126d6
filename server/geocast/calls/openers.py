"""Which dispatcher has opened which open call, and a limit on the open calls of each dispatcher (rule HD6).

The open calls are read from the log, so the limit holds for all nodes together, and after a restart. Each node reads
the entries of an open call once, and keeps its opener in memory for as long as the call is open. Two requests at the
same time to different nodes may not count each other's calls. Two requests to the same node do, because the node also
counts the calls that are being stored.
"""

import asyncio
from collections.abc import Hashable

from ..alertlog import AlertLog
from ..auth.tokens import Subject
from ..model.call import CallEntry, Opening, body_of
from ..policy.shares import Shares

MAX_OPEN_CALLS = 1_000
RETRY_AFTER_S = 5  # a refused client may try again then: an open call may have ended
READS_AT_ONCE = 16


class Openers:
    """Counts the open calls of each dispatcher, after finding out in the log which dispatcher opened each call."""

    def __init__(self, alert_log: AlertLog, share: float) -> None:
        """Create the object without reading the log.

        `share` is the fraction of MAX_OPEN_CALLS that a single dispatcher may use.
        """
        self.shares = Shares("open calls", MAX_OPEN_CALLS, share, RETRY_AFTER_S)
        self._log = alert_log
        self._known: dict[str, Hashable] = {}

    async def count(self, opener: Hashable, now_ms: int) -> tuple[int, int]:
        """Return how many calls of `opener` are open at `now_ms` (ms since 1970), and how many calls are open in all.

        Raise LogUnavailable if the log can't be read.
        """
        ids = await self._log.open_calls(now_ms)
        known = {call_id: self._known[call_id] for call_id in ids if call_id in self._known}
        new = [call_id for call_id in ids if call_id not in known]
        for start in range(0, len(new), READS_AT_ONCE):
            some = new[start : start + READS_AT_ONCE]
            known |= zip(some, await asyncio.gather(*map(self._opener, some)), strict=True)
        self._known = known
        return list(known.values()).count(opener), len(ids)

    async def _opener(self, call_id: str) -> Hashable:
        """Return the dispatcher who opened a call.

        Return None if the call's first entry can't be read. Such a call counts for no dispatcher.
        """
        for entry in await self._log.history(call_id):
            if isinstance(entry, CallEntry):
                try:
                    body = body_of(entry)
                except ValueError:
                    continue
                if isinstance(body, Opening):
                    return Subject(body.issuer, body.source)
        return None
