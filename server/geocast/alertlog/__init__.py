"""The alert log: the one place where an accepted alert is kept, and where every node learns of it.

This module is the port, written as a spec; each backend says in its docstring how it keeps it and where it falls
short. One contract suite (`tests/alertlog/contract.py`) runs on all of them.

The log is a sequence of entries. An entry is a `Revision` or a `Cancel`; it is known by (id, revision) and has a
*position*, an integer above 0 that rises along the sequence (gaps are allowed).

Append
    LogA1   For one id the numbers run 1, 2, 3 … without a gap, and nothing follows a cancel. An entry that would break
            this is not stored, and `append` says False. Nothing else is judged: who may publish what, and what may
            begin an alert, is decided above.
    LogA2   Of any number of concurrent appends of one (id, revision), by whatever process, exactly one is stored.
    LogA3   When `append` has said True the entry is on stable storage. When it raises LogUnavailable, or the process
            dies, the entry may be stored or not; if it is, it is followed like any other.
    LogA4   An entry is seen by `history`, `live` and `follow` only once it is durable.

Follow
    LogF1   `follow(after)` gives every entry with a position above `after`, each once, in rising order, for ever. No
            entry turns up later below a position that was already given.
    LogF2   It gives an empty batch whenever it has come to the end, and again at least once a second, so that its
            caller can tell that it is up to date, and silence from deafness.
    LogF3   It does not end because the log is out of reach: it raises LogUnavailable, and may be called again.
    LogF4   Where a log has lost entries and has them put back, they come again at higher positions; those of one alert
            side by side in one batch, so that who applies them in one go shows no alert that was cancelled. Those that
            nobody knows any more, because they have ended, leave gaps in its numbers.

List
    LogL1   `live` gives what is live in pages. An alert stands in their order where the latest end of its entries, and
            among equals its id, put it. That place is the same in every process and every epoch, and no revision moves
            it but one that ends later: that one moves it further on. So who walks from page to page is given each alert
            that is live all the while, and is given one twice only if it was made to end later meanwhile.
    LogL2   What a page costs depends on the alerts that it looks at, and not on how many there are. It looks at LOOKS
            times its limit at most, those included that were cancelled and have not ended. So a page may hold fewer
            alerts than its limit. Whether more come behind it is told by `Page.after` alone.

Retention
    LogR1   An alert stays known for RETENTION_MS after its end, then may be forgotten as a whole. The clock of one
            process alone never decides that: it may be ahead.
    LogR2   An entry that can't be read is set aside and counted (`quarantined`); the rest is served. Nothing is
            deleted.

Other releases share the log while nodes are upgraded (protocol, G4)
    LogG1   An entry may be of another *kind* than `Revision` and `Cancel`. `follow` and `live` pass over it without a
            word: it is not counted as set aside, and it is in no log line. Where it stands it is in force all the same:
            it has a position and a number, and LogR1 reckons with its end.
    LogG2   An alert may begin with, hold and end with entries of other kinds. Whether an alert is over is told by what
            this release knows of it: a cancel ends it, whatever stands behind that.
    LogG3   An entry may hold members that this release does not know, anywhere. They are passed over, but for a *shape*
            of another type: it is given on as it came, with the shapes beside it.
    LogG4   `history` gives entries of other kinds too, as `OtherKind`. So their numbers are known to be taken: an id
            that has nothing else is taken, and no alert; and a revision or a cancel takes the number behind them.
    LogG5   What a log puts back (LogF4) it puts back byte for byte, entries of other kinds and unknown members
            included.
    LogG6   Whatever a later release wants to tell with an entry it puts into the entry's bytes, a map with a `kind`;
            all else into tables, keys and columns with defaults, so that those who know nothing of them go on to write.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from prometheus_client.core import Metric

from ..alert import Cancel, Entry, OtherKind, Revision

RETENTION_MS = 24 * 3_600_000
HEARTBEAT_S = 1.0  # LogF2
BATCH = 1_000  # entries in one batch of `follow`, at most
PAGE = 1_000  # alerts in one page of `live`, at most
LOOKS = 10  # LogL2
LOOK = 50  # alerts that are looked at in one go: 0.7 ms of Redis; between two the loop may turn to others


class Positioned(NamedTuple):
    """An entry and where it stands in the log."""

    position: int
    entry: Entry


class Cursor(NamedTuple):
    """Where an alert stands in the order of `live` (LogL1): its latest end in ms, and its id."""

    ends_at: int
    id: str


class Page(NamedTuple):
    """What is live, in part: the current revisions in the order they were appended, and where the next page begins."""

    revisions: Sequence[Revision]
    after: Cursor | None  # None behind the last page


class Seen(NamedTuple):
    """An alert that `live` has looked at."""

    cursor: Cursor
    position: Any  # of the current revision: what sorts in the order of the log
    revision: Revision | None  # the current one; None if there is none, or it can't be read


class Counts(NamedTuple):
    """Deliveries of one alert over all nodes: (connection, revision) pairs sent, and those acknowledged."""

    sent: int = 0
    acked: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together. (`+` would put the tuples end to end.)"""
        return Counts(self.sent + other.sent, self.acked + other.acked)


class AlertLog(Protocol):
    """The port; the rules are in the module's docstring. Every method may raise LogUnavailable."""

    @property
    def quarantined(self) -> int:
        """Entries that could not be read since the start (LogR2)."""
        ...

    async def examine(self) -> str:
        """What it is, in words for the operator, if it could be used; without `start`, and nothing is made or changed.

        Raises ConfigError if it can't be used as configured, and LogUnavailable if it can't be used now.
        """
        ...

    async def start(self) -> None:
        """Open it. Raises ConfigError if it can't be used as configured."""
        ...

    async def stop(self) -> None:
        """Close it; what was accepted is stored."""
        ...

    async def append(self, entry: Entry) -> bool:
        """Store `entry` (LogA1 to LogA4). False if its number is not the next one of its alert."""
        ...

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """All entries of one alert, in order; empty if the id is unknown (LogG4)."""
        ...

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """The alerts that are live at `now_ms`, behind `after`; at most `limit` of them, 1 to PAGE (LogL1, LogL2)."""
        ...

    async def tail(self) -> int:
        """The position of the last entry; 0 in an empty log."""
        ...

    def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """The entries behind position `after` (LogF1 to LogF4).

        Of those that are there when this begins, the ones that ended before `ended_before_ms` are left out. Whoever
        finds that the clock by which it asked was ahead may call it again with an earlier time.

        Entries of other kinds are passed over (LogG1).
        """
        ...

    def nudge(self) -> None:
        """Have `follow` look at once: another process may have appended."""
        ...

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add to the deliveries of each alert. With nothing to add, a log that failed to write is tried again."""
        ...

    async def counts(self, alert_id: str) -> Counts:
        """The deliveries of one alert, as far as they have been added."""
        ...

    async def purge(self, now_ms: int) -> int:
        """Forget the alerts that LogR1 allows to forget; how many entries that were. `now_ms`: what our clock says."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """What it counts of itself, for Prometheus."""
        ...


def follows(entry: Entry, newest_first: Iterable[Entry | OtherKind]) -> bool:
    """Whether `entry` may come behind the entries of its alert (LogA1), which are given from the last one backwards.

    The number of the last one counts, and whether the last that this release knows is a cancel (LogG2). No more than
    these are looked at.
    """
    chain = iter(newest_first)
    last = next(chain, None)
    if entry.revision != (0 if last is None else last.revision) + 1:
        return False
    while isinstance(last, OtherKind):
        last = next(chain, None)
    return not isinstance(last, Cancel)


def current(newest_first: Iterable[Entry | OtherKind | None]) -> Revision | None:
    """The current revision in the entries of one alert, which are given from the last one backwards.

    None if it has none, or was cancelled (LogG2), or if an entry can't be read, which is given as None: nobody knows
    what that one said, so the alert may be over. No more are looked at than it takes.
    """
    for entry in newest_first:
        if not isinstance(entry, OtherKind):
            return entry if isinstance(entry, Revision) else None
    return None


async def page(
    look: Callable[[Cursor, int], Awaitable[Sequence[Seen]]], now_ms: int, after: Cursor | None, limit: int
) -> Page:
    """A page of `live`. `look(cursor, count)` gives the next `count` alerts behind a cursor, fewer only at the end."""
    cursor: Cursor | None = max(after or Cursor(0, ""), Cursor(now_ms + 1, ""))
    live: list[Seen] = []
    looked = 0
    # It looks for one more than it gives: only then is there a further page.
    while cursor is not None and len(live) <= limit and looked < LOOKS * limit:
        count = min(LOOK, limit + 1 - len(live))
        seen = await look(cursor, count)
        looked += count
        live += [each for each in seen if each.revision is not None and each.revision.ends_at > now_ms]
        cursor = seen[-1].cursor if len(seen) == count else None
    if len(live) > limit:
        del live[limit:]
        cursor = live[-1].cursor
    live.sort(key=lambda each: each.position)
    return Page([each.revision for each in live if each.revision is not None], cursor)
