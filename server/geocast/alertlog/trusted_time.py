"""How late it is at least, by what a log itself tells: clocks of machines may be ahead, several at once.

A process whose wall clock is a day ahead must not forget what is live, nor what others still have to know (LogR1). So
it forgets by the smaller of two: its wall clock, and what the log itself bears witness to. (With a log in Redis that
server's clock is asked, too.)

Each entry has two times that two parties have read from clocks of their own: the node that accepted it, and the desk
that approved it, or dispatched it: of a call, that is when it happened. It is later than the smaller of the two, unless
both clocks were ahead; and since then the monotonic clock of this process, which nobody sets, has gone on. Where
nothing was published for a while, and the process was started anew meanwhile, that is less than the time that has
passed: then alerts are forgotten as much later.

What the log held when the process began counts at once. A newer entry counts when PROVE_S have passed and the wall
clock has not gone back behind it: a machine whose clock is ahead for a while, and which publishes meanwhile, changes
nothing.
"""

from collections.abc import Iterable

from ..clock import Now
from ..model.alert import Entry, OtherKind, Revision
from ..model.call import CallEntry, Ending, Opening, body_of

NEWEST = 16  # entries that are asked: some may be of other kinds, or can't be read
PROVE_S = 3600.0  # for a wrong clock to be set right


class TrustedTime:
    """Knows how late it is at least, by what the log itself has told."""

    def __init__(self) -> None:
        self._known: tuple[int, float] | None = None  # a time in ms since 1970, and when by the monotonic clock
        self._heard: tuple[int, float] | None = None  # the same, of an entry that does not count yet

    def at_least(self, newest: Iterable[Entry | OtherKind | None], now: Now) -> int:
        """How late it is at least, in ms since 1970, and no later than the wall clock says.

        `newest`: the entries that were appended last; None for those that can't be read.
        """
        latest = max((_told(entry) for entry in newest), default=0)
        if self._known is None:
            if not latest:
                return 0
            self._known = latest, now.monotonic
        if self._heard is None:
            if latest > _went_on(self._known, now):
                self._heard = latest, now.monotonic
        elif now.monotonic - self._heard[1] >= PROVE_S:
            if _went_on(self._heard, now) <= now.wall_ms:
                self._known = max(self._known, self._heard, key=lambda known: _went_on(known, now))
            self._heard = None
        return min(now.wall_ms, _went_on(self._known, now))


def _told(entry: Entry | OtherKind | None) -> int:
    if isinstance(entry, CallEntry):
        return _told_of_call(entry)
    if entry is None or isinstance(entry, OtherKind):
        return 0
    if isinstance(entry, Revision):
        return min(entry.issued_at, entry.alert.approval.approved_at)
    return min(entry.cancelled_at, entry.approval.approved_at)


def _told_of_call(entry: CallEntry) -> int:
    try:
        body = body_of(entry)
    except ValueError:
        return 0
    match body:
        case Opening():
            return min(body.issued_at, body.occurred_at)
        case Ending():
            return min(body.at, body.call.occurred_at)
    return 0  # one party alone tells the time


def _went_on(known: tuple[int, float], now: Now) -> int:
    return known[0] + int((now.monotonic - known[1]) * 1000)
