"""The openers of open calls, and the number of open calls that one dispatcher may have (rule HD6).

The log is asked, so the number holds for all nodes and after a restart. The chain of each open call is read once by
each node, and its opener is kept in memory for as long as the call is open. Requests to different nodes at the same
time may miss each other's calls; requests to one node don't, since a call that is being stored has a place there.
"""

import asyncio
from collections.abc import Hashable

from ..alertlog import AlertLog
from ..auth.tokens import Subject
from ..config import SHARE
from ..model.call import CallEntry, Opening, body_of
from ..policy.shares import Shares

MAX_OPEN_CALLS = 1_000
RETRY_AFTER_S = 5  # one of so many open calls may be over by then
READS_AT_ONCE = 16


class Openers:
    """The openers of the open calls of a log."""

    def __init__(self, alert_log: AlertLog, share: float = SHARE) -> None:
        """Read nothing yet. `share`: the part of MAX_OPEN_CALLS that one dispatcher may have open."""
        self.shares = Shares("open calls", MAX_OPEN_CALLS, share, RETRY_AFTER_S)
        self._log = alert_log
        self._known: dict[str, Hashable] = {}

    async def count(self, opener: Hashable, now_ms: int) -> tuple[int, int]:
        """Return how many calls of `opener` are open at `now_ms`, and how many of all. Raise LogUnavailable."""
        ids = await self._log.open_calls(now_ms)
        known = {call_id: self._known[call_id] for call_id in ids if call_id in self._known}
        new = [call_id for call_id in ids if call_id not in known]
        for start in range(0, len(new), READS_AT_ONCE):
            some = new[start : start + READS_AT_ONCE]
            known |= zip(some, await asyncio.gather(*map(self._opener, some)), strict=True)
        self._known = known
        return list(known.values()).count(opener), len(ids)

    async def _opener(self, call_id: str) -> Hashable:
        """Return who opened a call; None if its first entry can't be read, which no dispatcher is."""
        for entry in await self._log.history(call_id):
            if isinstance(entry, CallEntry):
                try:
                    body = body_of(entry)
                except ValueError:
                    continue
                if isinstance(body, Opening):
                    return Subject(body.issuer, body.source)
        return None
