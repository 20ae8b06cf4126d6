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
    LogA5   An entry has at most `codec.MAX_ENTRY_BYTES` bytes, as the codec writes it. Who appends has seen to that
            (`codec.fits`).

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

Not everybody who can write to a log is believed (docs/approvals.md, NC1 to NC7)
    LogJ1   Each entry that is read is given on as the log's `verifier` has it. One that it does not believe is
            `Untrusted`: like an entry of another kind it has a position and a number, and `live` passes it over. A
            revision or a cancel that has too few approvals for the alert behind which it stands is one, too (HD1). So
            is what stands behind a cancel that is believed (HD9). In `follow` whoever applies the entries judges both,
            and is given those `Untrusted` that say what they are, for they count.
    LogJ2   `append` believes all that is there: behind an entry that is not believed the next one takes the next
            number, and nothing follows a cancel.
    LogJ3   What is not believed is not put back.

Calls (docs/calls.md) are kept in the same log, and share the alerts' ids
    LogC1   A call is a chain of `CallEntry`s under an id of its own. To all that is said above, each is an entry of
            another kind, but that LogA1 to LogA5 hold for it, with nothing behind an `end` as nothing is behind a
            cancel; and `follow` gives it, whether it has ended or not, for what a call comes to is told by all of its
            chain. No chain takes both: what stands in it already, of a call or of an alert,
            decides which, and entries of kinds that nobody here knows decide nothing.
    LogC2   Whether an entry of a call is good is not the log's to judge: it is sealed, and who opens it finds out.
    LogC3   `open_calls` gives the calls that have no `end`, and of which the latest end of the entries is to come.
    LogC4   PLACE_MS after the `end` of a call, `purge` deletes its `call` entries, which hold the place. Two clocks
            have to say so: by one the call was ended, by the other the log is purged. (What the log bears witness to is
            not asked: it may lag by hours. If both are ahead, a request that is repeated late is told that the call is
            over, which it is.) The numbers stay taken, and what is left of the call stays for as long as LogR1 has it.
    LogC5   Where a log has lost entries of a call (LogF4), its `end` is put back as a cancel is: before what goes on,
            and under the next number if its own was taken meanwhile. A `claim` whose number was taken is put back under
            the next one too, once, however many put it back; but not if its seat was given back, or the call is over.
            Such an entry keeps the number for which it was sealed. Who has read the `end` keeps no `call` entry, and
            puts none back.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

from prometheus_client.core import Metric

from ..model.alert import Cancel, Entry, OtherKind, Revision, Untrusted
from ..model.call import CallEntry, Ending, body_of
from .chain import Chain, Kinds

RETENTION_MS = 24 * 3_600_000
PLACE_MS = 600_000  # LogC4
HEARTBEAT_S = 1.0  # LogF2
BATCH = 1_000  # entries in one batch of `follow`, at most
BATCH_BYTES = 4 << 20  # of entries as they are stored, from which on a batch is full; one entry has 64 KiB at most
PAGE = 1_000  # alerts in one page of `live`, at most
LOOKS = 10  # LogL2
LOOK = 50  # alerts that are looked at in one go: 0.7 ms of Redis; between two the loop may turn to others


class Positioned(NamedTuple):
    """An entry and where it stands in the log."""

    position: int
    entry: Entry | CallEntry | Untrusted


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
    """Deliveries of one alert or call over all nodes: (connection, revision) pairs sent, and those acknowledged.

    `declined`: of a call, how often somebody has declined it. `pushed`: of an alert, the (device, revision) pairs that
    push services took; none of them is in `sent`.
    """

    sent: int = 0
    acked: int = 0
    declined: int = 0
    pushed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Both together. (`+` would put the tuples end to end.)"""
        return Counts(*map(sum, zip(self, other, strict=True)))


def under_revision(call_id: str, revision: int) -> str:
    """Return the name under which deliveries of one revision of a call are counted, beside those of the whole call.

    No id has a slash (A1). Under the first revision the counts of the call are its counts.
    """
    return call_id if revision == 1 else f"{call_id}/{revision}"


class EntryVerifier(Protocol):
    """Decides which entries are believed (LogJ1 to LogJ3). What it is asked again it may answer otherwise."""

    version: int  # another one when it may

    @property
    def needs_chain(self) -> bool:
        """Whether any entry may not be believed because of the alert that it stands behind."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called each time that `version` is another one."""
        ...

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """The entry as it is to be read, or that it is not believed.

        `stands_under`: the id and the number under which the log has it; `place` says for people where that is.
        """
        ...

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision that passed `verify` is believed behind revisions of these kinds (HD1)."""
        ...

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:
        """Return whether a cancel that passed `verify` is believed behind revisions of these kinds (HD1).

        `alert`: the last revision that is believed; None if there is none.
        """
        ...

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a live revision that was believed still is. `verify` and `verify_revision` believe it too."""
        ...


class TrustAll:
    """Believes everything that is in its place: for logs that nobody else writes."""

    version: int = 0
    needs_chain: bool = False

    def watch(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:  # noqa: ARG002
        return entry if (entry.id, entry.revision) == stands_under else Untrusted(*stands_under, entry.ends_at)

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:  # noqa: ARG002
        return True

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:  # noqa: ARG002
        return True

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:  # noqa: ARG002
        return True


class AlertLog(Protocol):
    """The port; the rules are in the module's docstring. Every method may raise LogUnavailable."""

    verifier: EntryVerifier  # by which it reads (LogJ1)

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

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` (LogA1 to LogA4). False if its number is not the next one of its alert or call."""
        ...

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """All entries of one alert or call, in order; empty if the id is unknown (LogG4, LogC1)."""
        ...

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """The alerts that are live at `now_ms`, behind `after`; at most `limit` of them, 1 to PAGE (LogL1, LogL2)."""
        ...

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """The ids of the calls that are open at `now_ms` (LogC3), in the order of their first entries."""
        ...

    async def tail(self) -> int:
        """The position of the last entry; 0 in an empty log."""
        ...

    def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """The entries behind position `after` (LogF1 to LogF4).

        Of those that are there when this begins, the ones that ended before `ended_before_ms` are left out. Whoever
        finds that the clock by which it asked was ahead may call it again with an earlier time.

        Entries of other kinds are passed over (LogG1), but of those of calls none is left out (LogC1). An entry that is
        not believed is given if it says what it is (LogJ1).
        """
        ...

    def nudge(self) -> None:
        """Have `follow` look at once: another process may have appended."""
        ...

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add to the deliveries of each id, or `under_revision` of a call.

        With nothing to add, a log that failed to write is tried again.
        """
        ...

    async def counts(self, alert_id: str) -> Counts:
        """The deliveries of one id, or `under_revision` of a call, as far as they have been added."""
        ...

    async def purge(self, now_ms: int) -> int:
        """Forget what LogR1 and LogC4 allow to forget; how many entries that were. `now_ms`: what our clock says."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """What it counts of itself, for Prometheus."""
        ...


def may_follow(entry: Entry | CallEntry, newest_first: Iterable[Entry | OtherKind]) -> bool:
    """Whether `entry` may come behind the entries of its chain (LogA1), which are given from the last one backwards.

    The number of the last one counts, and what the last that this release knows is: a cancel or an `end` (LogG2), and
    of an alert or of a call (LogC1). No more than these are looked at.
    """
    chain = iter(newest_first)
    last = next(chain, None)
    if entry.revision != (0 if last is None else last.revision) + 1:
        return False
    while isinstance(last, OtherKind) and not isinstance(last, CallEntry):
        last = next(chain, None)
    if last is None:
        return True
    return isinstance(last, CallEntry) == isinstance(entry, CallEntry) and not is_last(last)


def is_followed(entry: Entry | OtherKind | None) -> TypeGuard[Entry | CallEntry | Untrusted]:
    """Return whether `follow` gives this entry."""
    if isinstance(entry, Untrusted):
        return isinstance(entry.said, Revision)
    return isinstance(entry, Revision | Cancel | CallEntry)


def is_last(entry: Entry | OtherKind) -> bool:
    """Whether nothing follows this entry."""
    return isinstance(entry, Cancel) or (isinstance(entry, CallEntry) and entry.kind == "end")


def ended_at(end: CallEntry) -> int:
    """When a call was ended, in ms, as its `end` says (LogC4). If that can't be read: when it would have expired."""
    try:
        body = body_of(end)
    except ValueError:
        return end.ends_at
    return body.at if isinstance(body, Ending) else end.ends_at


def drop_unverified_cancels(
    chain: Sequence[Entry | OtherKind | None], verifier: EntryVerifier
) -> list[Entry | OtherKind | None]:
    """Return the entries of one alert in order, with those that are not believed behind the others set aside (LogJ1).

    Each entry of `chain` was judged by itself. None stands for one that can't be read.
    """
    found: list[Entry | OtherKind | None] = []
    before, alert, over = Chain(), None, False
    for entry in chain:
        if isinstance(entry, Revision | Cancel):
            behind = before.before(entry.revision)
            if over or (verifier.needs_chain and not _is_believed(entry, alert, behind, verifier)):
                found.append(Untrusted(entry.id, entry.revision, entry.ends_at, entry))
            else:
                found.append(entry)
                alert = entry if isinstance(entry, Revision) else alert
                over = isinstance(entry, Cancel)
        else:
            found.append(entry)
        before = before.then(entry)
    return found


def _is_believed(entry: Entry, alert: Revision | None, behind: Kinds, verifier: EntryVerifier) -> bool:
    if isinstance(entry, Cancel):
        return verifier.verify_cancel(entry, alert, behind)
    return verifier.verify_revision(entry, behind)


def is_doubtful(entry: Entry | OtherKind | None, verifier: EntryVerifier) -> bool:
    """Return whether more of its alert has to be read to tell whether the alert is live."""
    return isinstance(entry, Untrusted) or (
        verifier.needs_chain and isinstance(entry, Revision | Cancel) and entry.revision > 1
    )


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
