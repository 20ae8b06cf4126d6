"""A lower bound of the current time, computed from the times in the log, because wall clocks may be ahead.

A process whose wall clock is a day ahead must not delete alerts that are live, or that other nodes still need (LogR1).
So a process deletes only what has ended according to both its wall clock and the trusted time of this module. (With a
log in Redis, the clock of the Redis server has to agree too.)

Rule 1  Each entry has two times, from the clocks of two parties: when the node accepted it, and when the review desk
        approved it. (An entry of a call has the time of the incident, as the dispatcher entered it, instead of an
        approval.) The earlier of the two has already passed, unless both clocks were ahead.
        Example: node A's clock is a day ahead. Its entry has tomorrow's date as the time of acceptance and today's date
        as the time of approval. Only today's date counts.
Rule 2  The trusted time is such a time, plus the time that has passed since the entry was read. The latter is measured
        with the monotonic clock of this process, which nobody can set. If nothing was published for some hours, and the
        process was restarted meanwhile, the trusted time is late by these hours. Alerts are then deleted later than
        necessary, which does no harm.
Rule 3  The entries that are in the log when the process begins count at once. A newer entry counts only after PROVE_S,
        and only if the wall clock then agrees: it must have reached the time that the entry implies.
        Example: this machine's clock is a day ahead for ten minutes, and it publishes an alert with tomorrow's date.
        An hour later the clock has been set right. Tomorrow is still to come, so the entry does not count.
"""

from collections.abc import Iterable

from ..clock import Now
from ..model.alert import Entry, OtherKind, Revision
from ..model.call import CallEntry, Ending, Opening, body_of

NEWEST = 16  # how many of the last entries are read; some may be unreadable, or from a later release
PROVE_S = 3600.0  # the time in which a wrong clock should have been set right


class TrustedTime:
    """Keeps a lower bound of the current time, which grows with the entries of the log."""

    def __init__(self) -> None:
        self._known: tuple[int, float] | None = None  # a time in ms since 1970, and the monotonic time of reading it
        self._candidate: tuple[int, float] | None = None  # these two times of an entry that does not count yet (Rule 3)

    def at_least(self, newest: Iterable[Entry | OtherKind | None], now: Now) -> int:
        """Return a lower bound of the current time, in ms since 1970; 0 if none is known.

        The bound is never later than the wall clock. `newest` has the entries that were appended last, with None in
        place of each entry that can't be read.
        """
        latest = max((_time_in(entry) for entry in newest), default=0)
        if self._known is None:
            if not latest:
                return 0
            self._known = latest, now.monotonic
        if self._candidate is None:
            if latest > _advanced(self._known, now):
                self._candidate = latest, now.monotonic
        elif now.monotonic - self._candidate[1] >= PROVE_S:
            if _advanced(self._candidate, now) <= now.wall_ms:
                self._known = self._candidate
            self._candidate = None
        return min(now.wall_ms, _advanced(self._known, now))


def _time_in(entry: Entry | OtherKind | None) -> int:
    if isinstance(entry, CallEntry):
        return _time_in_call(entry)
    if entry is None or isinstance(entry, OtherKind):
        return 0
    if isinstance(entry, Revision):
        return min(entry.issued_at, entry.alert.approval.approved_at)
    return min(entry.cancelled_at, entry.approval.approved_at)


def _time_in_call(entry: CallEntry) -> int:
    try:
        body = body_of(entry)
    except ValueError:
        return 0
    match body:
        case Opening():
            return min(body.issued_at, body.occurred_at)
        case Ending():
            return min(body.at, body.call.occurred_at)
    return 0  # entries of other kinds have the time of one party only


def _advanced(known: tuple[int, float], now: Now) -> int:
    return known[0] + int((now.monotonic - known[1]) * 1000)
