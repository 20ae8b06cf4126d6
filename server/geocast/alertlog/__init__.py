"""The alert log: the only place where accepted alerts are stored, and from which every node reads them.

This module specifies the interface that every log backend implements (memory, SQLite, Redis). The docstring of each
backend says how the backend keeps the rules below, and where it does not. One test suite (`tests/alertlog/contract.py`)
runs against all backends.

The log is a sequence of entries. An entry is a `Revision` (one version of an alert) or a `Cancel`. An entry is
identified by the id of its alert and its number, the revision number. Each entry also has a *position* in the log: an
integer above 0 that rises from entry to entry, possibly with gaps. The entries of one id, ordered by number, are the
*chain* of this id. An alert is *live* until its current revision ends or a cancel follows.

Append
    LogA1   In one chain the numbers are 1, 2, 3 … without a gap, and nothing follows a cancel. `append` returns False
            for an entry that would break this rule, and does not store it. The log checks nothing else: the callers
            decide who may publish what, and which entry may be the first of an alert.
    LogA2   If several processes append entries with the same id and number at the same time, exactly one entry is
            stored.
            Example: nodes A and B append different revisions 2. One of the nodes gets True, the other one gets False.
    LogA3   When `append` has returned True, the entry is on stable storage. When `append` raises LogUnavailable, or the
            process dies, the entry may or may not be stored; if it is stored, followers get it like any other entry.
            Example: node A dies between the append and its answer. The publisher repeats the request at node B, which
            finds the stored entry by `history` and returns it in its answer.
    LogA4   `history`, `live` and `follow` return an entry only after it has reached stable storage.
    LogA5   An entry has at most `codec.MAX_ENTRY_BYTES` bytes when encoded. Callers of `append` have to check this
            first (`codec.fits`).

Follow
    LogF1   `follow(after)` yields every entry with a position above `after` once, in the order of positions, without
            end. After an entry was yielded, no entry ever appears at a lower position.
            Example: writer X gets position 7 and writer Y gets position 8, and Y finishes first. The entry at 8 must
            not be yielded before the one at 7: a reader that has seen 8 continues after 8 and would never get 7.
    LogF2   `follow` yields an empty batch when it has reached the end of the log, and then another empty batch at least
            once a second. So its caller knows that it is up to date, and can tell a quiet log from a broken connection.
    LogF3   When the log is unavailable, `follow` raises LogUnavailable; callers may then call it again. It never
            returns without an error.
    LogF4   If a log has lost entries and nodes restore them from memory, the restored entries get new, higher
            positions. All restored entries of one alert come in one batch, next to each other. So a reader that applies
            a whole batch at once never shows an alert that was cancelled. Entries that no node has in memory any more,
            because they ended, leave gaps in the numbers of their chains.

List
    LogL1   `live` returns the live alerts in pages. The alerts are ordered by the latest `ends_at` of their entries;
            alerts with equal times are ordered by id. This order is the same in every process, even after the log has
            lost entries. A new revision changes its alert's place in this order only if it ends later than the earlier
            ones; the alert then moves forwards. So somebody who reads one page after another gets every alert that is
            live during all this time, and gets an alert twice only if the alert was extended meanwhile.
    LogL2   The cost of a page depends on the number of alerts that are examined for it, not on the number of alerts in
            the log. At most LOOKS * `limit` alerts are examined, including alerts that were cancelled before their end.
            So a page may have fewer alerts than `limit`. Only `Page.after` says whether there are more.

Retention
    LogR1   All entries of an alert are kept for at least RETENTION_MS after the end of the alert, and are then deleted
            together. The clock of one process alone never decides a deletion, because this clock may be ahead.
    LogR2   An entry that cannot be read stays in the log, is skipped and is counted (`quarantined`). All other entries
            are returned as usual.

Nodes of several releases share the log during an upgrade (rule G4 of the protocol)
    LogG1   An entry that a later release wrote may be neither a `Revision` nor a `Cancel`: it is of another *kind*.
            `follow` and `live` skip such an entry without logging it or counting it as unreadable. But it has a
            position and a number, and the time when it ends counts for LogR1.
    LogG2   The first, the last, or any other entry of an alert may be of another kind. The entries that this release
            knows decide whether the alert is over: a cancel ends the alert, whatever entries of other kinds follow.
    LogG3   Any part of an entry may have fields that this release does not know. These fields are ignored. But a
            *shape* (a part of an alert's area) of an unknown type is sent to clients unchanged, together with the other
            shapes.
    LogG4   `history` also returns entries of other kinds, as `OtherKind`, because their numbers are taken. An id that
            has only entries of other kinds is taken, but is not an alert. A revision or a cancel gets the next number
            after theirs.
    LogG5   Entries are restored (LogF4) byte for byte, including entries of other kinds and unknown fields.
    LogG6   A later release puts new facts about an entry into the entry's bytes, a map with a `kind`. Everything else
            goes into new tables, keys, and columns with defaults, so that older releases can continue to write.

Reviewers' approvals are checked when entries are read, because somebody else may write to the log (approvals.md, NC1 to
NC7)
    LogJ1   Each entry is passed to the log's `verifier` when it is read. If the verifier does not accept an entry, an
            `Untrusted` is returned in its place: it has a position and a number like an entry of another kind, and
            `live` skips it. A revision or a cancel with too few approvals for its alert becomes `Untrusted` too (HD1),
            and so does every entry after an accepted cancel (HD9). `follow` leaves these last two checks to its caller.
            So that the caller can make them, `follow` also yields `Untrusted` entries that contain a revision: such a
            revision may raise the number of approvals that later entries need.
    LogJ2   `append` treats all stored entries as accepted. So an entry that is not accepted keeps its number, and a
            cancel that is not accepted can't be followed either.
    LogJ3   Entries that are not accepted are not restored (LogF4).

Calls for help (calls.md) are stored in the same log; an id belongs to an alert or to a call
    LogC1   A call is a chain of `CallEntry`s under an id of its own: `call` opens it, `claim` gives somebody a seat (a
            place among the responders who go), `end` closes it. The rules above treat a `CallEntry` as an entry of
            another kind, with two exceptions. First, LogA1 to LogA5 apply to it, and nothing follows an `end`. Second,
            `follow` yields it, even after it has ended, because the state of a call depends on its whole chain. The
            first entry of a known kind decides whether a chain is a call or an alert; entries of the other sort are
            refused.
    LogC2   The log does not check whether an entry of a call is valid. The entry is encrypted; its readers check it.
    LogC3   `open_calls` returns the calls that have no `end` and have not expired. A call expires at the latest
            `ends_at` of its entries.
    LogC4   PLACE_MS after the `end` of a call, `purge` deletes the `call` entries, which contain the place of the
            incident. Two clocks decide the time: the one by which the `end` was written, and the one of the process
            that purges. The log's trusted time (`trusted_time.py`) is not used, because it may be hours late. If both
            clocks are ahead, the entries are deleted too early; a repeated request is then answered that the call is
            over, which is true. The numbers of deleted entries stay taken, and the rest of the call is kept as long as
            LogR1 says.
    LogC5   If a log has lost entries of a call (LogF4), the `end` is restored like a cancel: before the entries that
            continue the call, and under the next number if its own number was taken meanwhile. A `claim` whose number
            was taken is restored under the next number too, unless its seat was given back or the call is over. It is
            restored only once, even if several nodes try. An entry with a new number also stores the number for which
            it was encrypted. A node that has read the `end` deletes its copies of `call` entries, and restores none of
            them.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

from prometheus_client.core import Metric

from ..model.alert import Cancel, Entry, OtherKind, Revision, Untrusted
from ..model.call import CallEntry, Ending, body_of
from .chain import Chain, Kinds

RETENTION_MS = 24 * 3_600_000
PLACE_MS = 600_000  # how long the place of a call is kept after the call's end (LogC4)
HEARTBEAT_S = 1.0  # the longest time between two batches of `follow` (LogF2)
BATCH = 1_000  # the largest number of entries in one batch of `follow`
BATCH_BYTES = 4 << 20  # a batch is full when its encoded entries have this size; one entry has at most 64 KiB
DECODE_AT_ONCE = 16  # entries that a reader decodes and verifies in one turn of the event loop, at most …
DECODE_S = 0.002  # … and for how many seconds: an entry with two signatures takes 0.2 ms
PAGE = 1_000  # the largest number of alerts in one page of `live`
LOOKS = 10  # for a page of n alerts, at most LOOKS * n alerts are examined (LogL2)
LOOK = 50  # alerts read in one step (0.7 ms in Redis); between two steps the event loop can do other work


class Positioned(NamedTuple):
    """An entry with its position in the log."""

    position: int
    entry: Entry | CallEntry | Untrusted


class Cursor(NamedTuple):
    """A place in the list of live alerts, which is ordered by end time and then by id (LogL1).

    `ends_at` is the latest end of all entries of an alert, in ms since 1970, and `id` is the alert's id.
    """

    ends_at: int
    id: str


class Page(NamedTuple):
    """One page of the list of live alerts: the current revisions of some alerts, ordered by position in the log.

    To get the next page, pass `after` to `AlertLog.live`. On the last page it is None.
    """

    revisions: Sequence[Revision]
    after: Cursor | None  # the next page begins after this place; None on the last page


class Seen(NamedTuple):
    """An alert that was examined while a page of live alerts was put together.

    If the alert turns out not to be live, `revision` is None or has already ended.
    """

    cursor: Cursor
    position: Any  # the position of the current revision, or another value that sorts in the order of the log
    revision: Revision | None  # the current revision; None if there is none, or if it can't be read


class Counts(NamedTuple):
    """How often the revisions of one alert or call were delivered, summed over all nodes.

    `sent`: the number of deliveries over connections (each revision counts once for each connection). `acked`: how many
    of these deliveries were acknowledged. `declined`: how often somebody declined a call. `pushed`: the number of
    deliveries that a push service has accepted (each revision counts once for each device); they are not included in
    `sent`.
    """

    sent: int = 0
    acked: int = 0
    declined: int = 0
    pushed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return these counts and `other` added together, field by field.

        (The operator `+` would concatenate the tuples.)
        """
        return Counts(*map(sum, zip(self, other, strict=True)))


def under_revision(call_id: str, revision: int) -> str:
    """Return the key under which the deliveries of one revision of a call are counted.

    Revision 1 is counted under the id of the call. Revision n is counted under the id, a slash and n; no id of an alert
    or call contains a slash (rule A1).
    """
    return call_id if revision == 1 else f"{call_id}/{revision}"


class EntryVerifier(Protocol):
    """The interface of an object that checks reviewers' approvals of entries read from the log (LogJ1 to LogJ3).

    When reviewers' keys change, an entry that was accepted may be refused from then on, or the other way round. In the
    methods below, `behind` is the set of the kinds (categories) of the alert's earlier revisions; it decides how many
    approvals the next entry needs (see `chain.py`).
    """

    version: int  # changes whenever the methods below may return other answers than before

    @property
    def needs_chain(self) -> bool:
        """Whether the check of an entry may depend on the earlier entries of its alert."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Register `changed`, a function to call whenever the results of this verifier may have changed."""
        ...

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:
        """Return the entry if its approvals are valid, or otherwise an `Untrusted`, which takes the entry's place.

        (An `Untrusted` has the number of the entry, but its content is ignored.) `stands_under` is the id and the
        number under which the log stores the entry. `place` says in words where the entry is, for log messages.
        """
        ...

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision has enough approvals, given the earlier revisions of its alert (HD1).

        `verify` has already accepted the revision, without knowing the earlier ones. `behind` is the set of the kinds
        (categories) of the alert's earlier revisions.
        """
        ...

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:
        """Return whether a cancel has enough approvals, given the earlier revisions of its alert (HD1).

        `verify` has already accepted the cancel, without knowing these revisions. `alert` is the alert's last accepted
        revision, or None if no revision was accepted. `behind` is the set of the kinds (categories) of the alert's
        earlier revisions.
        """
        ...

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:
        """Return whether a revision that was accepted earlier is accepted under the current reviewers' keys too.

        `behind` is the set of the kinds (categories) of the alert's earlier revisions.
        """
        ...


class TrustAll:
    """Accepts every entry whose id and number are those under which the log stores it, whatever its approvals.

    It is for logs that only trusted processes can write.
    """

    version: int = 0
    needs_chain: bool = False

    def watch(self, changed: Callable[[], None]) -> None:
        """Do nothing: the results of this verifier never change."""

    def verify(self, entry: Entry, stands_under: tuple[str, int], place: str) -> Entry | Untrusted:  # noqa: ARG002
        return entry if (entry.id, entry.revision) == stands_under else Untrusted(*stands_under, entry.ends_at)

    def verify_revision(self, revision: Revision, behind: Kinds) -> bool:  # noqa: ARG002
        return True

    def verify_cancel(self, cancel: Cancel, alert: Revision | None, behind: Kinds) -> bool:  # noqa: ARG002
        return True

    def still_valid(self, revision: Revision, behind: Kinds) -> bool:  # noqa: ARG002
        return True


class AlertLog(Protocol):
    """The interface of an alert log. The rules that every log keeps are in the docstring of the module.

    Every method may raise LogUnavailable.
    """

    name: str  # the absolute path of its file, or its Redis, without secrets
    verifier: EntryVerifier  # checks the entries that are read (LogJ1)

    @property
    def quarantined(self) -> int:
        """The number of unreadable entries found since this process started (LogR2)."""
        ...

    async def examine(self) -> str:
        """Return a description of the log for the operator, without opening or changing the log.

        Raise ConfigError if the log can't be used as configured, and LogUnavailable if it can't be used now.
        """
        ...

    async def is_there(self) -> bool:
        """Return whether a node has made the log, without opening or changing it."""
        ...

    async def start(self) -> None:
        """Open the log, and make it if it is not there. Raise ConfigError if it can't be used as configured."""
        ...

    async def stop(self) -> None:
        """Wait until all entries passed to `append` are stored or have failed, then close the log."""
        ...

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` and return True, or return False if it can't be the next entry of its alert or call.

        The number of `entry` has to be one above the last stored number, and nothing may follow a cancel or the `end`
        of a call (LogA1 to LogA4).
        """
        ...

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """Return all entries of one alert or call, ordered by number.

        The result is empty if the log has no entries with this id (LogG4, LogC1).
        """
        ...

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """Return a page of up to `limit` alerts that are live at `now_ms`, in ms since 1970 (LogL1, LogL2).

        `after` is the attribute `after` of the previous page, or None for the first page. `limit` is 1 to PAGE.
        """
        ...

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """Return the ids of the calls for help that are open at `now_ms`, in ms since 1970 (LogC3).

        The ids are in the order in which the calls were opened.
        """
        ...

    async def tail(self) -> int:
        """Return the position of the last entry in the log; 0 if the log is empty."""
        ...

    def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end (LogF1 to LogF4).

        An entry that ended before `ended_before_ms` (ms since 1970) is omitted if it is already in the log when
        `follow` begins, unless an earlier entry of its alert did not end before that time. A caller that finds out that
        its clock was ahead can call `follow` again with an earlier time.
        Example: revision 1 ends at 13:00, and revision 2, which shortens the alert, at 12:10. A caller that asks for
        what had not ended at 12:30 gets both, or it would take revision 1 for the current one.

        Entries of kinds that this release does not know are also omitted (LogG1), but entries of calls never are
        (LogC1). An entry whose approvals are not accepted is yielded only if it contains a revision (LogJ1).
        """
        ...

    def nudge(self) -> None:
        """Make `follow` look for new entries at once, because another process may have appended some."""
        ...

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add `counts` to the stored delivery counts of alerts and calls.

        Each key of `counts` is the id of an alert or call, or comes from `under_revision`. If `counts` is empty and the
        last write to the log failed, test whether the log accepts writes again.
        """
        ...

    async def counts(self, alert_id: str) -> Counts:
        """Return the delivery counts that are stored for an alert, a call, or a revision of a call.

        `alert_id` is the id of the alert or call, or a key from `under_revision`.
        """
        ...

    async def purge(self, now_ms: int) -> int:
        """Delete alerts, and the places of calls for help, that are no longer needed (LogR1, LogC4).

        Return the number of deleted entries. `now_ms` is the current time by this process's clock, in ms since 1970.
        """
        ...

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics that this log keeps about itself, for Prometheus."""
        ...


def may_follow(entry: Entry | CallEntry, newest_first: Iterable[Entry | OtherKind]) -> bool:
    """Return whether `entry` may be appended to the stored entries of its alert or call.

    `newest_first` yields the stored entries, the last one first. `entry` must have the next number (LogA1). The last
    stored entry of a kind that this release knows must belong to an alert if `entry` does, and to a call if `entry`
    does (LogC1). That entry must not be a cancel or an `end` (LogG2). The entries before it are not read.
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
    """Return True if `AlertLog.follow` yields this entry, and False if it omits the entry.

    `entry` is None if the entry can't be read; such an entry is omitted.
    """
    if isinstance(entry, Untrusted):
        return isinstance(entry.said, Revision)
    return isinstance(entry, Revision | Cancel | CallEntry)


def is_last(entry: Entry | OtherKind) -> bool:
    """Return whether nothing may follow this entry, because it is the cancel of an alert or the `end` of a call."""
    return isinstance(entry, Cancel) or (isinstance(entry, CallEntry) and entry.kind == "end")


def ended_at(end: CallEntry) -> int:
    """Return the time when a call was ended, in ms since 1970, read from its `end` entry (LogC4).

    If the `end` can't be decoded, return the time when the call would have expired.
    """
    try:
        body = body_of(end)
    except ValueError:
        return end.ends_at
    return body.at if isinstance(body, Ending) else end.ends_at


def drop_unverified_cancels(
    chain: Sequence[Entry | OtherKind | None], verifier: EntryVerifier
) -> list[Entry | OtherKind | None]:
    """Return an alert's entries, with an `Untrusted` in place of each revision or cancel that is not accepted.

    (An `Untrusted` has the number of the entry, but its content is ignored.) A revision or cancel is not accepted if it
    has too few approvals for its alert, or if it follows a cancel that is accepted (LogJ1). `chain` has the alert's
    entries, ordered by number, with None in place of each entry that can't be read. `verify` has already checked each
    entry without regard to the others.
    """
    found: list[Entry | OtherKind | None] = []
    before, alert, over = Chain(), None, False
    for entry in chain:
        if isinstance(entry, Revision | Cancel):
            behind = before.before(entry.revision)
            if over or (verifier.needs_chain and not _is_accepted(entry, alert, behind, verifier)):
                found.append(Untrusted(entry.id, entry.revision, entry.ends_at, entry))
            else:
                found.append(entry)
                alert = entry if isinstance(entry, Revision) else alert
                over = isinstance(entry, Cancel)
        else:
            found.append(entry)
        before = before.then(entry)
    return found


def _is_accepted(entry: Entry, alert: Revision | None, behind: Kinds, verifier: EntryVerifier) -> bool:
    if isinstance(entry, Cancel):
        return verifier.verify_cancel(entry, alert, behind)
    return verifier.verify_revision(entry, behind)


def is_doubtful(entry: Entry | OtherKind | None, verifier: EntryVerifier) -> bool:
    """Return whether the last entry of an alert is not enough to decide whether the alert is live.

    If so, the alert's earlier entries must be read as well. `entry` is the last entry, or None if it can't be read.
    """
    return isinstance(entry, Untrusted) or (
        verifier.needs_chain and isinstance(entry, Revision | Cancel) and entry.revision > 1
    )


def current(newest_first: Iterable[Entry | OtherKind | None]) -> Revision | None:
    """Return the current revision of an alert, or None if it has no revision or was cancelled (LogG2).

    `newest_first` yields the alert's entries, the last one first, with None in place of each entry that can't be read.
    If there is a None after the last revision, return None, because the unreadable entry may be a cancel. No more
    entries are read than necessary.
    """
    for entry in newest_first:
        if not isinstance(entry, OtherKind):
            return entry if isinstance(entry, Revision) else None
    return None


async def page(
    look: Callable[[Cursor, int], Awaitable[Sequence[Seen]]], now_ms: int, after: Cursor | None, limit: int
) -> Page:
    """Return a page of the live alerts.

    The method `live` of every log backend calls this function. `look(cursor, count)` has to return the `count` alerts
    that come after `cursor` in the list, whether or not they are live. It may return fewer only if the list ends there.
    """
    cursor: Cursor | None = max(after or Cursor(0, ""), Cursor(now_ms + 1, ""))
    live: list[Seen] = []
    looked = 0
    # Look for limit + 1 live alerts, to find out whether there is another page.
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
