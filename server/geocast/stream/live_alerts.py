"""The live alerts of this process: what is current, who was told, and when it ends.

For each live alert and session that was told of it there is one byte (stream/delivery_flags.py). Its bits, the lowest
first:

    RECIPIENT  some revision was sent on this connection, or the client says that it holds one
    CURRENT    it has the current revision, so there is nothing more to send
    SENT       the current revision was sent on this connection
    ACKED      … and the client has acknowledged it
    (then SENT and ACKED of the revision before, and those of the one before that)

A new revision shifts SENT and ACKED up by two bits and takes CURRENT away: one operation on all rows. When a session
has gone, its bytes count no more before the row is used again (`forget`).

Nothing here that a session, an entry or a sweep asks for looks at all live alerts, but for what happens when a wall
clock is set right (`correct`). An alert that concerns nobody here takes less than 1 KiB.

Rule 1  An alert has ended when either clock says so: the wall clock has reached `expires_at`, or the monotonic
        deadline that was made of it when this node learnt of it has passed. Nothing of it is sent while one says so.
Rule 2  A cancelled alert is kept until the `expires_at` of its last revision, so that clients which come back holding
        it can be told.
Rule 3  The monotonic clock is never set, so what it has ended is let go and stays out, though the log may give it
        again (a new epoch does) when the wall clock lets it live (`_Gone`). The wall clock may be set, and set right
        again. So what it alone has ended is *suspended*: it is kept, `flags` included, and when the wall
        clock lets it live after all, it is sent to those who are owed it, and to nobody twice.
Rule 4  What had ended by the wall clock when this node learnt of it is suspended too, since that clock may be ahead.
        No deadline can be made of such a clock. So the deadline is the latest that can be right: an alert was
        accepted before a node learns of it, hence has at most the time from `issued_at` to `expires_at` to live.
        There are at most MAX_DOUBTED of these; `missed_until` says up to which end others were not taken.
Rule 5  Of those that end together, AT_ONCE are let go at a time. The others have ended all the same (Rule 1).
Rule 6  A cancel may stand in the log before what it cancels: a process that knows no more of an alert than its cancel,
        which it has appended, puts that back before others put back the rest. So a cancel of an unknown alert is kept,
        and the alert is a cancelled one from its first moment here. There are at most MAX_EARLY of these.
Rule 7  What is believed no longer (LogJ1) is *withdrawn*: as if the wall clock had ended it, until it is believed again
        or a later entry comes. A cancel that was believed stays, for its recipients have been told.
Rule 8  How many approvals an entry needs is decided by the chain in front of it (HD1). So the chain of each live alert
        is kept with it, as the kinds of its revisions; whoever reads the log makes up what this process lacks
        (`lacks_chain`, `learn`).
Rule 9  A revision that was never believed here may have been sent by a process that believed it. So its alert is kept,
        withdrawn, and in no index: nobody is sent it, and whoever holds it is sent its cancel (HD7). There are at most
        MAX_UNBELIEVED of these.
Rule 10 Nothing follows a cancel that is believed, whatever its number (HD9).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from sys import intern

import numpy as np
from numpy.typing import NDArray

from ..alertlog import RETENTION_MS, Counts, EntryVerifier, TrustAll
from ..alertlog.chain import NO_KINDS, UNKNOWN, Chain, Kinds
from ..clock import Now
from ..geometry.sphere import Vector
from ..matching.alert_index import NONE, AlertIndex, Filed
from ..model.alert import SEVERITY_RANK, Cancel, Entry, OtherKind, Revision, Untrusted
from .compact_revision import pack, unpack
from .delivery_flags import DeliveryFlags, Departures, Rows

RECIPIENT, CURRENT, SENT, ACKED = 1, 2, 4, 8
_GENERATIONS = 3  # revisions whose SENT and ACKED are kept: the current one and two before
_SENT_AND_ACKED = 0b1111_1100  # of all generations: two bits each, the current one lowest

MAX_DOUBTED = 256  # Rule 4; nearly all of them have truly ended
AT_ONCE = 150  # alerts let go at one sweep (Rule 5): 1 to 2 ms
GONE_S = 86_400.0  # how long it is remembered at least that an alert was let go: the log has it for a day (LogR1)
MAX_GONE = 100_000  # … unless more than so many were; about 100 bytes each
GONE_PARTS = 32
MAX_EARLY = 10_000
MAX_UNBELIEVED = 10_000
HOLDING_S = 30.0  # how long a claim to hold an unknown alert is remembered
MAX_HOLDINGS = 100_000


class _Shared:
    """What all alerts of a process have in common."""

    __slots__ = ("acks", "counted", "departures", "doubted", "suspended", "unbelieved")

    def __init__(self, capacity: int) -> None:
        self.departures = Departures(capacity)
        self.suspended: set[LiveAlert] = set()  # those that somebody was not sent because of the wall clock (Rule 3)
        self.doubted: set[LiveAlert] = set()  # Rule 4
        self.unbelieved: set[LiveAlert] = set()  # Rule 9
        self.counted: set[LiveAlert] = set()  # those with a `sent` or an `acked`
        self.acks = 0  # acknowledgements counted since the start


class LiveAlert:
    """One alert that has not ended: its current revision or its cancel, and who was told what of it.

    `rank` is the severity as a number. `restricted` alerts exist only for sessions that may see tests (R6). `encoded`
    is for whoever sends it: what is current, in each language that somebody has needed so far (by the number of its
    text), as one frame for each wire format, or as two payloads of a push. `languages` are the tags of what is current
    if it is not the same for everybody.
    """

    __slots__ = (
        "_flags",
        "_revision",
        "_shared",
        "acked",
        "area",
        "behind",
        "cancel",
        "category",
        "chain",
        "deadline",
        "encoded",
        "expires_at",
        "id",
        "languages",
        "latest",
        "order",
        "rank",
        "restricted",
        "revision_number",
        "sent",
        "withdrawn",
    )

    def __init__(self, revision: Revision, now: Now, order: int, shared: _Shared) -> None:
        self.id = revision.id
        self.order = order  # of arrival, among the alerts of this process
        self.area: Filed = NONE  # by which the index of areas knows it
        self._shared = shared
        self._flags: DeliveryFlags | None = None  # until somebody is told
        self.cancel: Cancel | None = None
        self.chain = Chain()  # Rule 8: all entries that this process knows of, those that are set aside too
        self.behind: Kinds = NO_KINDS  # … and the kinds of what is in front of the current revision
        self.sent = self.acked = 0  # since `take_counts` last took them
        self.restricted = revision.alert.status != "actual"
        self._become(revision, now)
        if now.wall_ms >= revision.ends_at:
            shared.doubted.add(self)  # its deadline is not made of the wall clock (Rule 4)
        self.deadline = self.latest if self.doubted else now.deadline(revision.ends_at)

    def _become(self, revision: Revision, now: Now) -> None:
        self._revision: Revision | bytes = revision
        self.revision_number = revision.revision
        self.expires_at = revision.ends_at
        self.withdrawn = 0  # else its end while it is (Rule 7)
        self.latest = now.monotonic + (revision.ends_at - revision.issued_at) / 1000
        self.category = intern(revision.alert.category)
        self.rank = SEVERITY_RANK[revision.alert.severity]
        texts = revision.alert.texts
        self.languages = tuple(intern(text.language) for text in texts) if len(texts) > 1 else ()
        self.encoded: dict[int, tuple[bytes, ...]] = {}

    @property
    def revision(self) -> Revision:
        """The last revision. Of an alert that was packed it is another object at every call."""
        return unpack(self.id, self._revision) if isinstance(self._revision, bytes) else self._revision

    def pack(self) -> None:
        """Keep the revision in few bytes: it has been sent to all whom it concerned, and may not be needed again."""
        if isinstance(self._revision, Revision):
            self._revision = pack(self._revision)

    @property
    def current(self) -> Entry:
        """The last entry: the current revision, or the cancel."""
        return self.revision if self.cancel is None else self.cancel

    @property
    def number(self) -> int:
        """The number of the last entry."""
        return self.revision_number if self.cancel is None else self.cancel.revision

    @property
    def doubted(self) -> bool:
        """Whether it had ended by the wall clock when this node learnt of it, and has not lived since (Rule 4)."""
        return self in self._shared.doubted

    @property
    def ends_at(self) -> int:
        """When its last revision says that it ends, in ms since 1970, also while it is withdrawn."""
        return self.withdrawn or self.expires_at

    @property
    def unbelieved(self) -> bool:
        """Whether none of its revisions was ever believed here (Rule 9)."""
        return self in self._shared.unbelieved

    @property
    def gone(self) -> bool:
        """Whether it has been let go, which is for good (Rule 3)."""
        return self.deadline == float("-inf")

    def ended(self, now: Now) -> bool:
        """Whether nothing of it may be sent now (Rule 1)."""
        if now.monotonic >= self.deadline:
            return True
        if now.wall_ms < self.expires_at:
            return False
        self._shared.suspended.add(self)  # whoever asked has not been sent it
        return True

    def withdraw(self) -> None:
        """Nothing of it may be sent until it is restored (Rule 7)."""
        if not self.withdrawn:
            self.withdrawn, self.expires_at = self.expires_at, 0
            self._shared.suspended.add(self)

    def restore(self) -> None:
        """It is believed, perhaps again: the next sweep sends it to those who are owed it."""
        self._shared.unbelieved.discard(self)
        if self.withdrawn:
            self.expires_at, self.withdrawn = self.withdrawn, 0

    def trust(self, now: Now) -> bool:
        """The wall clock lets it live: from now on it has a deadline that is made of that clock (Rule 4).

        Returns whether that is another deadline.
        """
        before = self.deadline
        if self.doubted:
            self._shared.doubted.discard(self)
            self.deadline = min(self.deadline, now.deadline(self.expires_at))
        return self.deadline != before

    def correct(self, now: Now) -> None:
        """Put off a deadline that was too early, for it was made of a wall clock that was ahead."""
        self.deadline = max(self.deadline, min(self.latest, now.deadline(self.ends_at)))

    def revise(self, revision: Revision, now: Now) -> None:
        """Take the next revision. Nobody has it yet, but for sessions that said so when this process was behind."""
        newer = max(0, revision.revision - self.revision_number)  # 0 where the last one was never believed (Rule 9)
        steps = min(2 * newer, 8)  # bits; numbers may be missing after a restart
        self.restore()
        # What is added to its end is added to its deadline: the wall clock may have been set in between.
        self.deadline += (revision.ends_at - self.expires_at) / 1000
        self._become(revision, now)
        if self.doubted:
            self.deadline = self.latest
        if self._flags is not None:
            self._flags.shift(RECIPIENT, _SENT_AND_ACKED, steps)
            for row, held in list(self._flags.ahead.items()):
                self._mark_held(self._flags, row, held)

    def end_by(self, cancel: Cancel) -> None:
        """Take the cancel. When the alert ends is still what its last revision says (Rule 2)."""
        self.restore()
        self.cancel = cancel
        self.languages = ()
        self.encoded = {}

    # ---- who was told what ---------------------------------------------------------------------------------------

    def flags(self, row: int) -> int:
        """The bits of one row."""
        return 0 if self._flags is None else self._flags.of(row)

    def flags_of(self, rows: Rows) -> NDArray[np.uint8]:
        """The bits of each of these rows."""
        return np.zeros(len(rows), np.uint8) if self._flags is None else self._flags.of_all(rows)

    def lacks(self, row: int) -> bool:
        """Whether the session at `row` is a recipient that does not have what is current."""
        wanted = RECIPIENT if self.cancel is not None else RECIPIENT | CURRENT
        return self.flags(row) & wanted == RECIPIENT

    def recipients(self) -> Rows:
        """The rows of recipients that don't have what is current; of a cancel, the rows of all recipients."""
        wanted = RECIPIENT if self.cancel is not None else RECIPIENT | CURRENT
        return np.empty(0, np.int32) if self._flags is None else self._flags.having(RECIPIENT, wanted)

    def expect(self, rows: Rows) -> None:
        """What is current is about to be sent to these rows, in slices."""
        self._writable_flags().expect(rows)

    def _writable_flags(self) -> DeliveryFlags:
        if self._flags is None:
            self._flags = DeliveryFlags(self._shared.departures)
        return self._flags

    def trust_holding(self, row: int, held: int) -> None:
        """The session at `row` says that it holds revision `held`: from now on it is a recipient (R5)."""
        flags = self._writable_flags()
        flags.put(row, flags.of(row) | RECIPIENT)
        self._mark_held(flags, row, held)

    def _mark_held(self, flags: DeliveryFlags, row: int, held: int) -> None:
        if held >= self.revision_number:
            flags.put(row, flags.of(row) | CURRENT)
        if held > self.revision_number:
            flags.ahead[row] = held
        else:
            flags.ahead.pop(row, None)

    def mark_sent(self, rows: Rows) -> None:
        """Note that what is current (revision or cancel) was handed to the transports of `rows`.

        Who was sent a cancel is no recipient any more, and cancels are not counted (H7).
        """
        flags = self._writable_flags()
        if self.cancel is not None:
            flags.take_from_all(rows, RECIPIENT)
        else:
            flags.add_to_all(rows, RECIPIENT | CURRENT | SENT)
            self._shared.counted.add(self)
            self.sent += len(rows)

    def mark_sent_to(self, row: int) -> None:
        """`mark_sent` for one row, without numpy's cost for an array of one."""
        flags = self._writable_flags()
        if self.cancel is not None:
            flags.put(row, flags.of(row) & (0xFF ^ RECIPIENT))
        else:
            flags.put(row, flags.of(row) | RECIPIENT | CURRENT | SENT)
            self._shared.counted.add(self)
            self.sent += 1

    def retract(self, row: int, number: int, *, recipient: bool) -> None:
        """Take back what `mark_sent` has noted of an entry with this number: it was not sent, or only maybe.

        `recipient`: whether the session at `row` is one all the same.
        """
        flags = self._writable_flags()
        bits = flags.of(row)
        if number == self.revision_number:
            bits &= 0xFF ^ (CURRENT | SENT)
        flags.put(row, bits | RECIPIENT if recipient else bits & (0xFF ^ RECIPIENT))

    def acknowledge(self, row: int, revision: int) -> None:
        """Count the acknowledgement of `revision` once, if it was sent on this connection."""
        back = self.revision_number - revision
        if not 0 <= back < _GENERATIONS:
            return
        sent, acked = SENT << 2 * back, ACKED << 2 * back
        bits = self.flags(row)
        if bits & (sent | acked) == sent:
            self._writable_flags().put(row, bits | acked)
            self._shared.counted.add(self)
            self._shared.acks += 1
            self.acked += 1


def _is_news(revision: Revision, alert: LiveAlert) -> bool:
    """Return whether a revision is newer than what is known, or the first one to be believed (Rule 9)."""
    return alert.unbelieved or revision.revision > alert.number


class _Ends:
    """When alerts end: a heap of deadlines. One that has been put off is found out when its old time comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, LiveAlert]] = []

    def put(self, alert: LiveAlert) -> None:
        """The alert has this deadline now. This has to be said of every new one that is not later than the last."""
        heappush(self._heap, (alert.deadline, alert.order, alert))

    def take(self, now: Now, at_most: int) -> list[LiveAlert]:
        """Take out alerts whose deadlines have passed."""
        ended: dict[LiveAlert, None] = {}
        while self._heap and self._heap[0][0] <= now.monotonic and len(ended) < at_most:
            alert = heappop(self._heap)[2]
            if alert.deadline > now.monotonic:
                self.put(alert)
            elif not alert.gone:
                ended[alert] = None
        return list(ended)

    def until(self, deadline: float) -> set[LiveAlert]:
        """The alerts that end by then, and maybe others; those that end later are not looked at."""
        found, todo = set(), [0]
        while todo:
            at = todo.pop()
            if at < len(self._heap) and self._heap[at][0] <= deadline:
                found.add(self._heap[at][2])
                todo += (2 * at + 1, 2 * at + 2)
        return found


class _Gone:
    """What the monotonic clock has ended (Rule 3): the last number of each alert, by the hash of its id.

    It is in GONE_PARTS parts, so that no dict is large: one of 90,000 holds the loop for 4 ms when it grows, and for as
    long when it is dropped. Each part has two generations, and the older one is dropped as a whole.
    """

    def __init__(self) -> None:
        self._newer: list[dict[int, int]] = [{} for _ in range(GONE_PARTS)]
        self._older: list[dict[int, int]] = [{} for _ in range(GONE_PARTS)]
        self._since = [float("-inf")] * GONE_PARTS  # the monotonic time at which the newer generation began

    def add(self, alert_id: str, number: int, now: Now) -> None:
        """The alert was let go, and this was its last entry's number."""
        key = hash(alert_id)
        part = key % GONE_PARTS
        if now.monotonic - self._since[part] >= GONE_S or len(self._newer[part]) * GONE_PARTS >= MAX_GONE:
            self._older[part], self._newer[part], self._since[part] = self._newer[part], {}, now.monotonic
        self._newer[part][key] = number

    def last(self, alert_id: str) -> int:
        """The number of the alert's last entry that was known here; 0 if it was not let go."""
        key = hash(alert_id)
        part = key % GONE_PARTS
        return self._newer[part].get(key) or self._older[part].get(key, 0)


class LiveAlerts:
    """All live alerts of a process, and those that were cancelled and have not expired (Rule 2)."""

    def __init__(self, capacity: int, *, places: bool = True) -> None:
        """`capacity`: how many rows there are; `places`: whether `containing` will be asked."""
        self._shared = _Shared(capacity)
        self._places = places
        self._alerts: dict[str, LiveAlert] = {}
        self._areas: AlertIndex[LiveAlert] = AlertIndex()
        self._ends = _Ends()
        self._gone = _Gone()
        self.verifier: EntryVerifier = TrustAll()
        self._early: dict[str, Cancel] = {}  # Rule 6, by id
        self._learnt: dict[str, Chain] = {}  # Rule 8, by id: for the next entry that is applied
        self.behind = False  # the last `expire` may have left some that had ended
        self._arrivals = 0
        self._slack_s = float("-inf")  # no deadline that is made of a wall clock is later than its end and so much
        self.missed_until = 0  # the latest end, in ms since 1970, of what was not taken (Rule 4)
        self._holdings: dict[str, dict[int, tuple[int, int]]] = {}  # unknown id -> row -> (epoch of the row, held)
        self._holding_times: deque[tuple[float, str, int, int]] = deque()
        self._counts: dict[str, Counts] = {}  # of alerts that have ended since `take_counts` was last called

    def __len__(self) -> int:
        return len(self._alerts) - len(self._shared.unbelieved)

    def __iter__(self) -> Iterator[LiveAlert]:
        return iter(self._alerts.values())

    def find(self, alert_id: str, now: Now) -> LiveAlert | None:
        """The alert, if it is known and has not ended, or is suspended."""
        alert = self._alerts.get(alert_id)
        return None if alert is None or now.monotonic >= alert.deadline else alert

    def knows(self, entry: Entry) -> bool:
        """Whether the alert is live, or was not let go yet, and this entry or a later one of it was taken."""
        alert = self._alerts.get(entry.id)
        return alert is not None and entry.revision <= alert.number

    def lacks_chain(self, entry: Entry | Untrusted) -> bool:
        """Return whether entries in front of this one are unknown here, so that `learn` has to be called (Rule 8)."""
        alert = self._alerts.get(entry.id)
        chain = Chain() if alert is None else alert.chain
        return self.verifier.needs_chain and (entry.revision > chain.last + 1 or chain.kinds >= UNKNOWN)

    def learn(self, entry: Entry | Untrusted, history: Iterable[Entry | OtherKind]) -> None:
        """Take from the history of its alert what is in front of an entry that is about to be applied (Rule 8)."""
        self._learnt = {entry.id: Chain.of(each for each in history if each.revision < entry.revision)}

    def apply(self, entry: Entry | Untrusted, now: Now) -> LiveAlert | None:
        """Take an entry of the log. Returns the alert if that changed what is current, else None.

        Nothing changes if the entry is not newer than what is known, or if the alert has ended. After a restart the
        first entry that is read of an alert may be a later revision than 1. What was let go comes back with a revision
        that is newer than all that was known of it, and with nothing else (Rule 3). A cancel of an unknown alert
        changes nothing yet (Rule 6), and a tombstone never does.
        """
        alert = self._alerts.get(entry.id)
        chain = self._learnt.pop(entry.id, Chain() if alert is None else alert.chain)
        behind = chain.before(entry.revision)
        if alert is not None:
            alert.chain = max(alert.chain, chain.then(entry), key=lambda each: each.last)
        if isinstance(entry, Untrusted):
            self._keep_unbelieved(alert, entry, chain, now)
            return None
        if isinstance(entry, Cancel):
            return self._cancel(alert, entry, behind, now)
        if alert is not None and (alert.cancel is not None or not _is_news(entry, alert)):
            return None
        if self.verifier.needs_chain and not self.verifier.verify_revision(entry, behind):
            self._keep_unbelieved(alert, Untrusted(entry.id, entry.revision, entry.ends_at, entry), chain, now)
            return None
        alert = self._revise(alert, entry, now)
        if alert is not None:
            alert.chain = max(alert.chain, chain.then(entry), key=lambda each: each.last)
            alert.behind = behind
            self._end_early(alert, now)
        return None if alert is None or alert.ended(now) else alert

    def _end_early(self, alert: LiveAlert, now: Now) -> None:
        """Call off an alert whose cancel came before it (Rules 6 and 10)."""
        early = self._early.get(alert.id)
        if early is None:
            return
        is_older = now.wall_ms - early.ends_at > RETENTION_MS  # then it is another alert's, whose id is used again
        if is_older or self._is_over(early, alert, alert.chain.before(early.revision)):
            del self._early[alert.id]
            if not is_older:
                self._call_off(alert, early)

    def _cancel(self, alert: LiveAlert | None, cancel: Cancel, behind: Kinds, now: Now) -> LiveAlert | None:
        if alert is None:
            if not cancel.is_tombstone:
                self._keep_early(cancel)
            return None
        if cancel.revision <= alert.number or not self._is_over(cancel, alert, behind):
            return None
        self._call_off(alert, cancel)
        return None if alert.ended(now) else alert

    def _keep_unbelieved(self, alert: LiveAlert | None, entry: Untrusted, chain: Chain, now: Now) -> None:
        """Keep an alert of which no revision is believed, for whoever holds it (Rule 9)."""
        said, unbelieved = entry.said, self._shared.unbelieved
        if not isinstance(said, Revision) or now.wall_ms >= said.ends_at:
            return
        if alert is None and len(unbelieved) < MAX_UNBELIEVED and said.revision > self._gone.last(said.id):
            self._arrivals += 1
            alert = LiveAlert(said, now, self._arrivals, self._shared)
            alert.chain = chain.then(entry)
            self._alerts[alert.id] = alert
        elif alert is not None and alert.unbelieved and said.revision > alert.number:
            alert.revise(said, now)
        else:
            return
        alert.behind = chain.before(entry.revision)
        self._ends.put(alert)
        alert.withdraw()
        unbelieved.add(alert)

    def _is_over(self, cancel: Cancel, alert: LiveAlert, behind: Kinds) -> bool:
        """Whether a cancel is believed to end this alert (LogJ1)."""
        return not self.verifier.needs_chain or self.verifier.verify_cancel(cancel, alert.revision, behind)

    def verify_again(self, alert: LiveAlert) -> None:
        """Withdraw an alert that is believed no longer, restore one that is (Rule 7)."""
        if alert.cancel is None and not alert.unbelieved:
            (alert.restore if self.verifier.still_valid(alert.revision, alert.behind) else alert.withdraw)()

    def _call_off(self, alert: LiveAlert, cancel: Cancel) -> None:
        self._leave(alert)
        alert.end_by(cancel)

    def _keep_early(self, cancel: Cancel) -> None:
        """Keep a cancel whose alert is unknown; if there are too many, the one that has been kept the longest goes."""
        self._early[cancel.id] = cancel
        if len(self._early) > MAX_EARLY:
            del self._early[next(iter(self._early))]

    def _revise(self, alert: LiveAlert | None, revision: Revision, now: Now) -> LiveAlert | None:
        if alert is None:
            if revision.revision <= self._gone.last(revision.id):
                return None
            if now.wall_ms >= revision.ends_at and not self._may_doubt(revision):
                return None
            self._arrivals += 1
            alert = LiveAlert(revision, now, self._arrivals, self._shared)
            self._alerts[alert.id] = alert
            self._ends.put(alert)
        elif alert.unbelieved and revision == alert.revision:
            alert.restore()  # whoever holds it has what is current
        else:
            self._leave(alert)
            before = alert.deadline
            alert.revise(revision, now)
            if alert.deadline < before:
                self._ends.put(alert)
        if self._places:
            alert.area = self._areas.add(alert, revision.alert.shapes)
        if not alert.ended(now):
            self._trust(alert, now)
        return alert

    def _leave(self, alert: LiveAlert) -> None:
        """No place is inside of it any more."""
        self._areas.discard(alert.area)
        alert.area = NONE

    def _trust(self, alert: LiveAlert, now: Now) -> None:
        self._slack_s = max(self._slack_s, now.monotonic - now.wall_ms / 1000)
        if alert.trust(now):
            self._ends.put(alert)

    def _may_doubt(self, revision: Revision) -> bool:
        """Whether to take an alert that has ended by the wall clock (Rule 4)."""
        if len(self._shared.doubted) < MAX_DOUBTED:
            return True
        self.missed_until = max(self.missed_until, revision.ends_at)
        return False

    def expire(self, now: Now) -> list[LiveAlert]:
        """Let go of what the monotonic clock has ended. The alerts that were suspended and live after all (Rule 3).

        At most AT_ONCE are let go: the rest at the next calls (Rule 5).
        """
        ended = self._ends.take(now, AT_ONCE)
        self.behind = len(ended) == AT_ONCE
        self._let_go(ended, now)
        suspended = self._shared.suspended
        back = [alert for alert in suspended if now.wall_ms < alert.expires_at and now.monotonic < alert.deadline]
        for alert in back:
            self._trust(alert, now)
        suspended.difference_update(back)
        return sorted(back, key=lambda alert: alert.order)

    def _let_go(self, ended: Iterable[LiveAlert], now: Now) -> None:
        for alert in ended:
            del self._alerts[alert.id]
            self._gone.add(alert.id, alert.number, now)
            self._leave(alert)
            self._shared.suspended.discard(alert)
            self._shared.doubted.discard(alert)
            self._shared.unbelieved.discard(alert)
            if alert in self._shared.counted:
                self._take_counts_of(alert, self._counts)
                self._shared.counted.discard(alert)
            alert.deadline = float("-inf")  # it stays out, for flights that still carry it, too

    def correct(self, now: Now) -> None:
        """The wall clock has turned out to have been ahead, and is right now: so deadlines were too early."""
        self.missed_until = 0
        self._slack_s = max(self._slack_s, now.monotonic - now.wall_ms / 1000)
        for alert in self:
            alert.correct(now)

    def suspended(self, now: Now) -> int:
        """How many there are that only the wall clock has ended."""
        # By Rule 4 deadlines of doubted ones may be any. Those of others are their ends by a clock that was right
        # enough, so nearly all of these alerts have ended by both, or by none.
        until = now.wall_ms / 1000 + self._slack_s + 0.001
        maybe = (self._ends.until(until) | self._shared.doubted) - self._shared.unbelieved
        return sum(now.wall_ms >= alert.expires_at and now.monotonic < alert.deadline for alert in maybe)

    def containing(self, place: Vector, reach_m: float) -> list[LiveAlert]:
        """The alerts, not cancelled, that have the place inside their area. Some of them may have ended."""
        return self._areas.containing(place, reach_m)

    def forget(self, rows: Rows) -> None:
        """From now on nothing was told to `rows`, so that these rows can be other sessions'."""
        self._shared.departures.note(rows)

    # ---- claims to hold what this node doesn't know (yet) ----------------------------------------------------------

    def remember_holding(self, alert_id: str, row: int, epoch: int, held: int, now: Now) -> None:
        """Keep for CLAIM_S that the session at `row` says it holds an alert that is unknown here (R5e).

        `epoch` tells this session from others that have the row later. Beyond MAX_CLAIMS nothing is kept.
        """
        if len(self._holding_times) < MAX_HOLDINGS:
            self._holdings.setdefault(alert_id, {})[row] = (epoch, held)
            self._holding_times.append((now.monotonic + HOLDING_S, alert_id, row, epoch))

    def take_holdings(self, alert_id: str) -> Iterable[tuple[int, int, int]]:
        """Take out and return the claims (row, epoch, held) to an alert that has become known."""
        return [(row, epoch, held) for row, (epoch, held) in self._holdings.pop(alert_id, {}).items()]

    def drop_holdings(self, now: Now) -> None:
        """Forget claims that are older than CLAIM_S."""
        while self._holding_times and self._holding_times[0][0] <= now.monotonic:
            _, alert_id, row, epoch = self._holding_times.popleft()
            if claims := self._holdings.get(alert_id):
                if row in claims and claims[row][0] == epoch:
                    del claims[row]
                if not claims:
                    del self._holdings[alert_id]

    # ---- counts --------------------------------------------------------------------------------------------------

    @property
    def acks(self) -> int:
        """How many acknowledgements were counted since the start."""
        return self._shared.acks

    def take_counts(self) -> dict[str, Counts]:
        """What was sent and acknowledged, by alert, since this was last called."""
        counts, self._counts = self._counts, {}
        for alert in self._shared.counted:
            self._take_counts_of(alert, counts)
        self._shared.counted.clear()
        return counts

    def put_back_counts(self, counts: dict[str, Counts]) -> None:
        """Add counts that were taken and could not be stored, so that they are taken again."""
        for alert_id, more in counts.items():
            self._counts[alert_id] = self._counts.get(alert_id, Counts()).plus(more)

    @staticmethod
    def _take_counts_of(alert: LiveAlert, counts: dict[str, Counts]) -> None:
        counts[alert.id] = counts.get(alert.id, Counts()).plus(Counts(alert.sent, alert.acked))
        alert.sent = alert.acked = 0
