"""The alert log: the only place where accepted alerts are stored, and from which every node reads them.

This module is the port, written as a specification. Each backend says in its docstring how it keeps the rules, and
where it falls short. One suite of tests (`tests/alertlog/contract.py`) runs on all backends.

The log is a sequence of entries. An entry is a `Revision` or a `Cancel`. It is identified by its id and its revision
number, and has a *position*: an integer above 0 that rises along the sequence, possibly with gaps. The entries of one
id, in the order of their numbers, are its *chain*.

Append
    LogA1   In one chain the numbers are 1, 2, 3 … without a gap, and nothing follows a cancel. `append` returns False
            for an entry that would break this rule, and does not store it. The log checks nothing else: the callers
            decide who may publish what, and with what an alert may begin.
    LogA2   If several processes append entries with the same id and number at the same time, exactly one is stored.
            Example: nodes A and B append different revisions 2. One of them gets True, the other one False.
    LogA3   When `append` has returned True, the entry is on stable storage. When `append` raises LogUnavailable, or the
            process dies, the entry may be stored or not; if it is stored, followers get it like any other entry.
            Example: node A dies between the append and its answer. The publisher repeats the request at node B, which
            finds the entry in `history` and answers with it.
    LogA4   `history`, `live` and `follow` give an entry only once it is on stable storage.
    LogA5   An entry has at most `codec.MAX_ENTRY_BYTES` bytes when encoded. Callers of `append` have to check this
            first (`codec.fits`).

Follow
    LogF1   `follow(after)` gives every entry with a position above `after` once, in rising order, without end. No entry
            appears later at a position below one that was already given.
            Example: writers X and Y get the positions 7 and 8, and Y is done first. Entry 8 must not be given before
            entry 7: a reader that has seen 8 continues there and would never get 7.
    LogF2   `follow` gives an empty batch when it has reached the end, and then another one at least once a second. So
            its caller knows that it is up to date, and can tell a quiet log from a broken connection.
    LogF3   When the log is unavailable, `follow` raises LogUnavailable, and may be called again. It never just ends.
    LogF4   If a log has lost entries and nodes put them back, these entries get new, higher positions. The entries of
            one alert are put back side by side in one batch, so a reader that applies a whole batch at once never shows
            an alert that was cancelled. Entries that no node has any more, because they ended, leave gaps in the
            numbers of their chains.

List
    LogL1   `live` gives the live alerts in pages. Alerts are ordered by the latest end of their entries, and by id
            where the ends are equal. This order is the same in every process and every epoch. A revision moves its
            alert only if it ends later, and then forwards. So a reader of page after page gets every alert that is live
            all the time, and gets an alert twice only if it was extended meanwhile.
    LogL2   The cost of a page depends on the number of alerts that it looks at, not on the number in the log. It looks
            at most at LOOKS times its limit, including alerts that were cancelled and have not ended. So a page may
            have fewer alerts than its limit. Only `Page.after` says whether there are more.

Retention
    LogR1   An alert is kept for at least RETENTION_MS after its end, and is then deleted as a whole. The clock of one
            process is never enough to decide this, because it may be ahead.
    LogR2   An entry that cannot be read is set aside and counted (`quarantined`); the others are served. Nothing is
            deleted.

Nodes of several releases share the log during an upgrade (rule G4 of the protocol)
    LogG1   An entry may be of another *kind* than `Revision` and `Cancel`. `follow` and `live` skip it silently: it is
            neither counted as set aside nor logged. But it has a position and a number, and its end counts for LogR1.
    LogG2   The first, the last, or any other entry of an alert may be of another kind. Whether the alert is over is
            decided by the entries that this release knows: a cancel ends it, whatever entries come after the cancel.
    LogG3   Any part of an entry may have members that this release does not know. They are ignored, except for a
            *shape* of another type, which is passed on unchanged beside the other shapes.
    LogG4   `history` also gives entries of other kinds, as `OtherKind`, so that their numbers are known to be taken. An
            id with entries of other kinds alone is taken and is not an alert. A revision or a cancel takes the next
            number after them.
    LogG5   Entries that are put back (LogF4) are put back byte for byte, including entries of other kinds and unknown
            members.
    LogG6   A later release puts new facts about an entry into the entry's bytes, a map with a `kind`. Everything else
            goes into new tables, keys, and columns with defaults, so that older releases can continue to write.

Not everybody who can write to a log is trusted (approvals.md, NC1 to NC7)
    LogJ1   Each entry is passed to the log's `verifier` when it is read. An entry that it does not accept becomes
            `Untrusted`: it has a position and a number like an entry of another kind, and `live` skips it. A revision
            or a cancel with too few approvals for its alert becomes `Untrusted` too (HD1), and so does every entry
            after an accepted cancel (HD9). `follow` does not make these last two checks: its caller applies the entries
            and makes them. It therefore also gives the `Untrusted` entries that contain a revision, because they count
            for the number of approvals.
    LogJ2   `append` treats all stored entries as accepted: after an entry that is not accepted the next entry takes the
            next number, and nothing follows a cancel.
    LogJ3   Entries that are not accepted are not put back.

Calls (calls.md) are stored in the same log, and share the ids with alerts
    LogC1   A call is a chain of `CallEntry`s under an id of its own. For all rules above they are entries of another
            kind, with two exceptions. LogA1 to LogA5 apply to them, and nothing follows an `end` as nothing follows a
            cancel. And `follow` gives them, even if they have ended, because the state of a call depends on its whole
            chain. A chain has either entries of a call or entries of an alert, as decided by its first entry of a known
            kind.
    LogC2   The log does not check whether an entry of a call is valid: it is encrypted, and its readers check it.
    LogC3   `open_calls` gives the calls without an `end` that have not expired by the latest end of their entries.
    LogC4   PLACE_MS after the `end` of a call, `purge` deletes its `call` entries, which contain the place. Two clocks
            have to agree: the clock that ended the call, and the clock of the process that purges. The trusted time of
            the log is not used, because it may be hours late. (If both clocks are ahead, a late repeat of a request is
            answered that the call is over, which is true.) The numbers of deleted entries stay taken, and the rest of
            the call is kept as long as LogR1 says.
    LogC5   If a log has lost entries of a call (LogF4), its `end` is put back like a cancel: before the entries that
            continue the call, and under the next number if its own was taken meanwhile. A `claim` whose number was
            taken is put back under the next number too, only once even if several nodes put it back, and not at all if
            its seat was given back or the call is over. Such an entry stores the number for which it was encrypted.
            A node that has read the `end` deletes its copies of `call` entries, and puts none back.
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
BATCH = 1_000  # the most entries in one batch of `follow`
BATCH_BYTES = 4 << 20  # a batch is full when its stored entries have this size; one entry has at most 64 KiB
PAGE = 1_000  # the most alerts in one page of `live`
LOOKS = 10  # LogL2
LOOK = 50  # alerts read in one step, 0.7 ms of Redis; between two steps the event loop can do other work


class Positioned(NamedTuple):
    """An entry with its position in the log."""

    position: int
    entry: Entry | CallEntry | Untrusted


class Cursor(NamedTuple):
    """The place of an alert in the order of `live` (LogL1): its latest end, in ms since 1970, and its id."""

    ends_at: int
    id: str


class Page(NamedTuple):
    """A part of the live alerts: their current revisions in the order of the log, and the place of the last one."""

    revisions: Sequence[Revision]
    after: Cursor | None  # where the next page begins; None on the last page


class Seen(NamedTuple):
    """An alert that `live` has looked at, whether it is live or not."""

    cursor: Cursor
    position: Any  # the position of the current revision, or another value that sorts in the order of the log
    revision: Revision | None  # the current revision; None if there is none, or if it can't be read


class Counts(NamedTuple):
    """The deliveries of one alert or call, counted over all nodes.

    `sent` counts pairs of a connection and a revision, and `acked` the pairs that were acknowledged. `declined` counts
    how often somebody declined a call. `pushed` counts the pairs of a device and a revision of an alert that a push
    service has taken; these are not counted in `sent`.
    """

    sent: int = 0
    acked: int = 0
    declined: int = 0
    pushed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sums of both. (The operator `+` would concatenate the tuples.)"""
        return Counts(*map(sum, zip(self, other, strict=True)))


def under_revision(call_id: str, revision: int) -> str:
    """Return the name under which the deliveries of one revision of a call are counted.

    The first revision is counted under the id of the call, the others under the id with a slash and the number, which
    no other id can be (rule A1).
    """
    return call_id if revision == 1 else f"{call_id}/{revision}"


class EntryVerifier(Protocol):
    """The port for checking the approvals of entries when they are read (LogJ1 to LogJ3).

    The same entry may be accepted now and refused later, or the other way round, when reviewers' keys change.
    """

    version: int  # changes whenever the answers may have changed

    @property
    def needs_chain(self) -> bool:
        """Whether the answer for an entry may depend on the earlier entries of its alert."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` from now on each time that `version` changes."""
        ...

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """Return the entry if it is accepted by itself, else an `Untrusted` in its place.

        `stands_under` is the id and the number under which the log has it. `place` describes its place in log lines.
        """
        ...

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision that passed `verify` has enough approvals to follow these kinds (HD1)."""
        ...

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:
        """Return whether a cancel that passed `verify` has enough approvals to follow these kinds (HD1).

        `alert` is the last accepted revision; None if there is none.
        """
        ...

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a live revision that was accepted before is still accepted, by the keys of now."""
        ...


class TrustAll:
    """A verifier that accepts every entry in its right place, for logs that only trusted processes can write."""

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
    """The port of the log, whose rules are in the module's docstring. Every method may raise LogUnavailable."""

    verifier: EntryVerifier  # checks the entries that are read (LogJ1)

    @property
    def quarantined(self) -> int:
        """The number of entries that could not be read since the start (LogR2)."""
        ...

    async def examine(self) -> str:
        """Return a description of the log for the operator, without `start`, and without changing anything.

        Raises ConfigError if the log can't be used as configured, and LogUnavailable if it can't be used now.
        """
        ...

    async def start(self) -> None:
        """Open the log. Raises ConfigError if it can't be used as configured."""
        ...

    async def stop(self) -> None:
        """Store the accepted entries and close the log."""
        ...

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` and return True, or return False if its number is not the next one (LogA1 to LogA4)."""
        ...

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """Return all entries of one alert or call in order; none if the id is unknown (LogG4 and LogC1)."""
        ...

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """Return at most `limit` of the alerts that are live at `now_ms`, from `after` on (LogL1 and LogL2).

        `limit` is 1 to PAGE.
        """
        ...

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """Return the ids of the calls that are open at `now_ms` (LogC3), in the order of their first entries."""
        ...

    async def tail(self) -> int:
        """Return the position of the last entry; 0 if the log is empty."""
        ...

    def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield the entries after position `after`, in batches, without end (LogF1 to LogF4).

        Entries of alerts that are in the log already and ended before `ended_before_ms` are left out. A caller that
        finds out that its clock was ahead can call `follow` again with an earlier time.

        Entries of other kinds are skipped (LogG1), except those of calls, which are never left out (LogC1). An entry
        that is not accepted is given only if it contains a revision (LogJ1).
        """
        ...

    def nudge(self) -> None:
        """Make `follow` look for new entries at once, because another process may have appended some."""
        ...

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add to the counted deliveries of each id or `under_revision`.

        If `counts` is empty and the last write has failed, try to write.
        """
        ...

    async def counts(self, alert_id: str) -> Counts:
        """Return the deliveries of one id or `under_revision` that have been added so far."""
        ...

    async def purge(self, now_ms: int) -> int:
        """Delete what LogR1 and LogC4 allow, and return the number of deleted entries.

        `now_ms` is the time by the clock of this process.
        """
        ...

    def metrics(self) -> Iterable[Metric]:
        """Return the log's own metrics, for Prometheus."""
        ...


def may_follow(entry: Entry | CallEntry, newest_first: Iterable[Entry | OtherKind]) -> bool:
    """Return whether `entry` may follow the entries of its chain, which are given from the last one backwards.

    It has to have the next number after the last entry (LogA1). And the last entry of a known kind has to belong to an
    alert or a call as `entry` does (LogC1), and must not be a cancel or an `end` (LogG2). No earlier entries are read.
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
    """Return whether `follow` gives entries like this one."""
    if isinstance(entry, Untrusted):
        return isinstance(entry.said, Revision)
    return isinstance(entry, Revision | Cancel | CallEntry)


def is_last(entry: Entry | OtherKind) -> bool:
    """Return whether the entry is the last one of its chain: a cancel or an `end`."""
    return isinstance(entry, Cancel) or (isinstance(entry, CallEntry) and entry.kind == "end")


def ended_at(end: CallEntry) -> int:
    """Return when a call was ended, in ms since 1970, by its `end` (LogC4).

    If the `end` can't be read, return when the call would have expired.
    """
    try:
        body = body_of(end)
    except ValueError:
        return end.ends_at
    return body.at if isinstance(body, Ending) else end.ends_at


def drop_unverified_cancels(
    chain: Sequence[Entry | OtherKind | None], verifier: EntryVerifier
) -> list[Entry | OtherKind | None]:
    """Return the entries of one alert, with those replaced that are not accepted after the others (LogJ1).

    Each entry of `chain` has passed `verify` by itself already. None is an entry that can't be read. A revision or a
    cancel becomes `Untrusted` if it has too few approvals for its alert, or if it follows an accepted cancel.
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
    """Return whether earlier entries of the alert have to be read to decide whether the alert is live."""
    return isinstance(entry, Untrusted) or (
        verifier.needs_chain and isinstance(entry, Revision | Cancel) and entry.revision > 1
    )


def current(newest_first: Iterable[Entry | OtherKind | None]) -> Revision | None:
    """Return the current revision of one alert, whose entries are given from the last one backwards.

    Return None if the alert has no revision or was cancelled (LogG2), or if an entry that can't be read (None) comes
    first: it may have been a cancel. No more entries are read than necessary.
    """
    for entry in newest_first:
        if not isinstance(entry, OtherKind):
            return entry if isinstance(entry, Revision) else None
    return None


async def page(
    look: Callable[[Cursor, int], Awaitable[Sequence[Seen]]], now_ms: int, after: Cursor | None, limit: int
) -> Page:
    """Return a page of `live`.

    `look(cursor, count)` reads the next `count` alerts after a cursor. It returns fewer only at the end of the log.
    """
    cursor: Cursor | None = max(after or Cursor(0, ""), Cursor(now_ms + 1, ""))
    live: list[Seen] = []
    looked = 0
    # One live alert more than `limit` is searched, to know whether there is a further page.
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
