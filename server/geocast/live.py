"""The live alerts of this process: what is current, who was told, and when it ends.

For each live alert and session there is one byte, `told`. Its bits, the lowest first:

    RECIPIENT  some revision was sent on this connection, or the client says that it holds one
    CURRENT    it has the current revision, so there is nothing more to send
    SENT       the current revision was sent on this connection
    ACKED      … and the client has acknowledged it
    (then SENT and ACKED of the revision before, and those of the one before that)

A new revision shifts SENT and ACKED up by two bits and takes CURRENT away: one operation on all rows. When a session
has gone, the bytes of its row are cleared before the row is used again (`forget`).

Rule 1  An alert has ended when either clock says so: the wall clock has reached `expires_at`, or the monotonic
        deadline that was made of it when this node learnt of it has passed. Nothing of it is sent while one says so.
Rule 2  A cancelled alert is kept until the `expires_at` of its last revision, so that clients which come back holding
        it can be told.
Rule 3  The monotonic clock is never set, so what it has ended is let go and stays out. The wall clock may be set, and
        set right again. So what it alone has ended is *withheld*: it is kept, `told` included, and when the wall
        clock lets it live after all, it is sent to those who are owed it, and to nobody twice.
Rule 4  What had ended by the wall clock when this node learnt of it is withheld too, since that clock may be ahead.
        No deadline can be made of such a clock. So the deadline is the latest that can be right: an alert was
        accepted before a node learns of it, hence has at most the time from `issued_at` to `expires_at` to live.
        There are at most MAX_DOUBTED of these; `missed_until` says up to which end others were not taken.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .alert import SEVERITY_RANK, Cancel, Circle, Entry, Revision
from .alertlog import Counts
from .cells import Vector, chord2, limit_chord2, unit_vector
from .clock import Now

RECIPIENT, CURRENT, SENT, ACKED = 1, 2, 4, 8
_GENERATIONS = 3  # revisions whose SENT and ACKED are kept: the current one and two before
_SENT_AND_ACKED = np.uint8(0b1111_1100)  # of all generations: two bits each, the current one lowest

MAX_DOUBTED = 256  # Rule 4; each takes a byte for each session that there may be, and nearly all have truly ended
CLAIM_S = 30.0  # how long a claim to hold an unknown alert is remembered
MAX_CLAIMS = 100_000

Rows = NDArray[np.int32]


class LiveAlert:
    """One alert that has not ended: its current revision or its cancel, and who was told what of it.

    `rank` is the severity as a number. `restricted` alerts exist only for sessions that may see tests (R6). `frames` is
    for the hub: what is current as one frame for each wire format, or None as long as nobody has needed it.
    """

    __slots__ = (
        "acked",
        "ahead",
        "cancel",
        "deadline",
        "doubted",
        "expires_at",
        "frames",
        "latest",
        "order",
        "rank",
        "restricted",
        "revision",
        "sent",
        "told",
        "withheld",
    )

    def __init__(self, revision: Revision, now: Now, order: int, capacity: int, withheld: "set[LiveAlert]") -> None:
        """`withheld`: where it adds itself when it is found to have ended by the wall clock alone (Rule 3)."""
        self.order = order  # of arrival, among the alerts of this process
        self.withheld = withheld
        self.told: NDArray[np.uint8] = np.zeros(capacity, np.uint8)
        self.ahead: dict[int, int] = {}  # row -> the revision that it holds, while this process has read less (R5c)
        self.cancel: Cancel | None = None
        self.sent = self.acked = 0  # since `take_counts` last took them
        self.restricted = revision.alert.status != "actual"
        self._become(revision, now)
        self.doubted = now.wall_ms >= revision.ends_at  # its deadline is not made of the wall clock (Rule 4)
        self.deadline = self.latest if self.doubted else now.deadline(revision.ends_at)

    def _become(self, revision: Revision, now: Now) -> None:
        self.revision = revision
        self.expires_at = revision.ends_at
        self.latest = now.monotonic + (revision.ends_at - revision.issued_at) / 1000
        self.rank = SEVERITY_RANK[revision.alert.severity]
        self.frames: tuple[bytes, ...] | None = None

    @property
    def id(self) -> str:
        """The alert's id, which all its revisions share."""
        return self.revision.id

    @property
    def current(self) -> Entry:
        """The last entry: the current revision, or the cancel."""
        return self.revision if self.cancel is None else self.cancel

    @property
    def number(self) -> int:
        """The number of the last entry."""
        return self.current.revision

    def ended(self, now: Now) -> bool:
        """Whether nothing of it may be sent now (Rule 1)."""
        if now.monotonic >= self.deadline:
            return True
        if now.wall_ms < self.expires_at:
            return False
        self.withheld.add(self)  # whoever asked has not been sent it
        return True

    def trust(self, now: Now) -> None:
        """The wall clock lets it live: from now on it has a deadline that is made of that clock (Rule 4)."""
        if self.doubted:
            self.doubted = False
            self.deadline = min(self.deadline, now.deadline(self.expires_at))

    def correct(self, now: Now) -> None:
        """The wall clock was ahead and has been set right: a deadline that was made of it was too early."""
        self.deadline = max(self.deadline, min(self.latest, now.deadline(self.expires_at)))

    def revise(self, revision: Revision, now: Now) -> None:
        """Take the next revision. Nobody has it yet, but for sessions that said so when this process was behind."""
        steps = min(2 * (revision.revision - self.revision.revision), 8)  # bits; numbers may be missing after a restart
        history = ((self.told & _SENT_AND_ACKED).astype(np.uint16) << steps).astype(np.uint8)
        self.told = (self.told & np.uint8(RECIPIENT)) | history
        # What is added to its end is added to its deadline: the wall clock may have been set in between.
        self.deadline += (revision.ends_at - self.expires_at) / 1000
        self._become(revision, now)
        if self.doubted:
            self.deadline = self.latest
        for row, held in list(self.ahead.items()):
            self._hold(row, held)

    def end_by(self, cancel: Cancel) -> None:
        """Take the cancel. When the alert ends is still what its last revision says (Rule 2)."""
        self.cancel = cancel
        self.frames = None

    def claim(self, row: int, held: int) -> None:
        """The session at `row` says that it holds revision `held`: from now on it is a recipient (R5)."""
        self.told[row] |= RECIPIENT
        self._hold(row, held)

    def _hold(self, row: int, held: int) -> None:
        if held >= self.revision.revision:
            self.told[row] |= CURRENT
        if held > self.revision.revision:
            self.ahead[row] = held
        else:
            self.ahead.pop(row, None)

    def mark_sent(self, rows: Rows) -> None:
        """Note that what is current (revision or cancel) was handed to the transports of `rows`.

        Who was sent a cancel is no recipient any more, and cancels are not counted (H7).
        """
        if self.cancel is not None:
            self.told[rows] &= 0xFF ^ RECIPIENT
        else:
            self.told[rows] |= RECIPIENT | CURRENT | SENT
            self.sent += len(rows)

    def mark_sent_to(self, row: int) -> None:
        """`mark_sent` for one row, without numpy's cost for an array of one."""
        if self.cancel is not None:
            self.told[row] &= 0xFF ^ RECIPIENT
        else:
            self.told[row] |= RECIPIENT | CURRENT | SENT
            self.sent += 1

    def acknowledge(self, row: int, revision: int) -> None:
        """Count the acknowledgement of `revision` once, if it was sent on this connection."""
        back = self.revision.revision - revision
        if not 0 <= back < _GENERATIONS:
            return
        sent, acked = SENT << 2 * back, ACKED << 2 * back
        if self.told[row] & (sent | acked) == sent:
            self.told[row] |= acked
            self.acked += 1

    def recipients(self) -> Rows:
        """The rows of recipients that don't have what is current; of a cancel, the rows of all recipients."""
        wanted = RECIPIENT if self.cancel is not None else RECIPIENT | CURRENT
        return np.flatnonzero(self.told & wanted == RECIPIENT).astype(np.int32)


class LiveAlerts:
    """All live alerts of a process, and those that were cancelled and have not expired (Rule 2)."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: how many rows there are."""
        self._capacity = capacity
        self._alerts: dict[str, LiveAlert] = {}
        self._circles = _Circles()
        self._arrivals = 0
        self._next_deadline = float("inf")  # the earliest of all
        self._withheld: set[LiveAlert] = set()  # those that somebody was not sent because of the wall clock (Rule 3)
        self.missed_until = 0  # the latest end, in ms since 1970, of what was not taken (Rule 4)
        self._claims: dict[str, dict[int, tuple[int, int]]] = {}  # unknown id -> row -> (epoch of the row, held)
        self._claim_times: deque[tuple[float, str, int, int]] = deque()
        self._acks = 0  # acknowledgements that are no longer in an alert's own `acked`
        self._counts: dict[str, Counts] = {}  # of alerts that have ended since `take_counts` was last called

    def __len__(self) -> int:
        return len(self._alerts)

    def __iter__(self) -> Iterator[LiveAlert]:
        return iter(self._alerts.values())

    def find(self, alert_id: str, now: Now) -> LiveAlert | None:
        """The alert, if it is known and has not ended, or is withheld."""
        alert = self._alerts.get(alert_id)
        return None if alert is None or now.monotonic >= alert.deadline else alert

    def get(self, alert_id: str, now: Now) -> LiveAlert | None:
        """The alert, if it is known and has not ended."""
        alert = self._alerts.get(alert_id)
        return None if alert is None or alert.ended(now) else alert

    def apply(self, entry: Entry, now: Now) -> LiveAlert | None:
        """Take an entry of the log. Returns the alert if that changed what is current, else None.

        Nothing changes if the entry is not newer than what is known, or if the alert has ended. After a restart the
        first entry that is read of an alert may be a later revision than 1. A cancel of an unknown alert changes
        nothing, for nobody can have been told of that alert.
        """
        alert = self._alerts.get(entry.id)
        if alert is not None and entry.revision <= alert.number:
            return None
        if alert is not None and alert.cancel is not None and isinstance(entry, Revision):
            return None  # the log refuses this; where an entry of another kind stands between, it can't be sure
        if isinstance(entry, Cancel):
            if alert is None:
                return None
            self._circles.discard([alert])
            alert.end_by(entry)
        else:
            alert = self._revise(alert, entry, now)
        return None if alert is None or alert.ended(now) else alert

    def _revise(self, alert: LiveAlert | None, revision: Revision, now: Now) -> LiveAlert | None:
        if alert is None:
            if now.wall_ms >= revision.ends_at and not self._may_doubt(revision):
                return None
            self._arrivals += 1
            alert = LiveAlert(revision, now, self._arrivals, self._capacity, self._withheld)
            self._alerts[revision.id] = alert
        else:
            self._circles.discard([alert])
            alert.revise(revision, now)
        self._circles.add(alert, revision.alert.circles)
        if not alert.ended(now):
            alert.trust(now)
        self._next_deadline = min(self._next_deadline, alert.deadline)
        return alert

    def _may_doubt(self, revision: Revision) -> bool:
        """Whether to take an alert that has ended by the wall clock (Rule 4)."""
        if sum(alert.doubted for alert in self._withheld) < MAX_DOUBTED:
            return True
        self.missed_until = max(self.missed_until, revision.ends_at)
        return False

    def expire(self, now: Now) -> list[LiveAlert]:
        """Let go of what the monotonic clock has ended. The alerts that were withheld and live after all (Rule 3)."""
        if now.monotonic >= self._next_deadline:
            self._let_go([alert for alert in self if now.monotonic >= alert.deadline])
        back = [alert for alert in self._withheld if now.wall_ms < alert.expires_at]
        for alert in back:
            alert.trust(now)
            self._next_deadline = min(self._next_deadline, alert.deadline)
        self._withheld.difference_update(back)
        return sorted(back, key=lambda alert: alert.order)

    def _let_go(self, ended: Sequence[LiveAlert]) -> None:
        self._circles.discard(ended)
        self._withheld.difference_update(ended)
        for alert in ended:
            del self._alerts[alert.id]
            alert.deadline = float("-inf")  # it stays out, for flights that still carry it, too
            self._add_counts(self._counts, alert)
        self._next_deadline = min((a.deadline for a in self), default=float("inf"))

    def correct(self, now: Now) -> None:
        """The wall clock has turned out to have been ahead, and is right now: so deadlines were too early."""
        self.missed_until = 0
        for alert in self:
            alert.correct(now)
        self._next_deadline = min((a.deadline for a in self), default=float("inf"))

    def withheld(self, now: Now) -> int:
        """How many there are that only the wall clock has ended."""
        return sum(now.wall_ms >= alert.expires_at and now.monotonic < alert.deadline for alert in self)

    def holding(self, place: Vector, reach_m: float) -> list[LiveAlert]:
        """The alerts, not cancelled, that have the place inside their area. Some of them may have ended."""
        return self._circles.holding(place, reach_m)

    def forget(self, rows: Rows) -> None:
        """Clear what was told to `rows`, so that these rows can be other sessions'."""
        gone = set(rows.tolist())
        for alert in self:
            alert.told[rows] = 0
            for row in alert.ahead.keys() & gone:
                del alert.ahead[row]

    # ---- claims to hold what this node doesn't know (yet) ----------------------------------------------------------

    def remember_claim(self, alert_id: str, row: int, epoch: int, held: int, now: Now) -> None:
        """Keep for CLAIM_S that the session at `row` says it holds an alert that is unknown here (R5e).

        `epoch` tells this session from others that have the row later. Beyond MAX_CLAIMS nothing is kept.
        """
        if len(self._claim_times) < MAX_CLAIMS:
            self._claims.setdefault(alert_id, {})[row] = (epoch, held)
            self._claim_times.append((now.monotonic + CLAIM_S, alert_id, row, epoch))

    def take_claims(self, alert_id: str) -> Iterable[tuple[int, int, int]]:
        """Take out and return the claims (row, epoch, held) to an alert that has become known."""
        return [(row, epoch, held) for row, (epoch, held) in self._claims.pop(alert_id, {}).items()]

    def drop_claims(self, now: Now) -> None:
        """Forget claims that are older than CLAIM_S."""
        while self._claim_times and self._claim_times[0][0] <= now.monotonic:
            _, alert_id, row, epoch = self._claim_times.popleft()
            if claims := self._claims.get(alert_id):
                if row in claims and claims[row][0] == epoch:
                    del claims[row]
                if not claims:
                    del self._claims[alert_id]

    @property
    def acks(self) -> int:
        """How many acknowledgements were counted since the start."""
        return self._acks + sum(alert.acked for alert in self)

    # ---- counts ------------------------------------------------------------------------------------------------

    def take_counts(self) -> dict[str, Counts]:
        """What was sent and acknowledged, by alert, since this was last called."""
        counts, self._counts = self._counts, {}
        for alert in self:
            self._add_counts(counts, alert)
        return counts

    def put_back_counts(self, counts: dict[str, Counts]) -> None:
        """Add counts that were taken and could not be stored, so that they are taken again."""
        for alert_id, more in counts.items():
            self._counts[alert_id] = self._counts.get(alert_id, Counts()).plus(more)

    def _add_counts(self, counts: dict[str, Counts], alert: LiveAlert) -> None:
        if alert.sent or alert.acked:
            self._acks += alert.acked
            counts[alert.id] = counts.get(alert.id, Counts()).plus(Counts(alert.sent, alert.acked))
            alert.sent = alert.acked = 0


class _Circles:
    """The circles of live alerts as columns: one place against all of them is one array expression."""

    def __init__(self) -> None:
        self._alerts: list[LiveAlert] = []
        self._columns = np.zeros((4, 64))  # x, y, z, radius_m

    def add(self, alert: LiveAlert, area: Sequence[Circle]) -> None:
        for circle in area:
            n = len(self._alerts)
            if n == self._columns.shape[1]:
                self._columns = np.hstack([self._columns, np.zeros_like(self._columns)])
            self._columns[:, n] = (*unit_vector(circle.lat, circle.lng), circle.radius_m)
            self._alerts.append(alert)

    def discard(self, alerts: Sequence[LiveAlert]) -> None:
        gone = set(alerts)  # all in one pass: with a pass for each, 10,000 that expire together took seconds
        keep = [n for n, alert in enumerate(self._alerts) if alert not in gone]
        self._columns[:, : len(keep)] = self._columns[:, keep]
        self._alerts = [self._alerts[n] for n in keep]

    def holding(self, place: Vector, reach_m: float) -> list[LiveAlert]:
        n = len(self._alerts)
        if n == 0:
            return []
        x, y, z, radius_m = self._columns[:, :n]
        inside = chord2(x, y, z, place) <= limit_chord2(radius_m + reach_m)
        return list(dict.fromkeys(self._alerts[i] for i in np.flatnonzero(inside)))
