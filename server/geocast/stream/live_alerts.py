"""The live alerts of this process: the current entry of each, which sessions were sent it, and when the alert ends.

The log has *entries*: revisions of alerts, and cancels. The *current entry* of an alert is its newest revision, or its
cancel. An entry is *believed* if the verifier of the log accepts its approvals (docs/reference/approval-rules.md).

Each live alert has one byte of flags for each session that was sent the alert (stream/delivery_flags.py). A *row* is
the number of a session, or of a push device in a push process. These are the bits of the byte, the lowest first:

    RECIPIENT  some revision was sent on this connection, or the client says that it has one
    CURRENT    the client has the current revision, so there is nothing more to send
    SENT       the current revision was sent on this connection
    ACKED      the client has acknowledged the current revision

The next two bits are SENT and ACKED for the previous revision, and the last two are those for the one before it.

A new revision shifts SENT and ACKED up by two bits and clears CURRENT, in one operation on all rows. When a session has
left, its flags are invalidated before its row is reused (`forget`).

A process may have 100,000 live alerts. So no request of a session, no new entry and no periodic check causes a loop
over all of them; only `correct` loops over them, when a wrong wall clock is set right. An alert that concerns no
session of this process takes less than 1 KiB.

Rule 1  An alert has ended when either clock says so: the wall clock has reached `expires_at`, or the monotonic clock
        has passed the deadline that was computed from `expires_at` when this node learnt of the alert. While one of the
        clocks says so, neither the alert nor its cancel is sent.
        Example: an alert expires at 12:00. At 11:59 the wall clock is set back by an hour. Even so, the monotonic
        deadline passes a minute later, and nothing is sent after it.
Rule 2  A cancelled alert is kept until the `expires_at` of its last revision, so that the cancel can be sent to a
        client that reconnects and still has the alert.
        Example: a phone is sent an alert at 10:00 and loses its network. The alert is cancelled at 10:05. The phone
        reconnects at 10:20 with the alert in `holding` and is sent the cancel.
Rule 3  Nobody can set the monotonic clock. So if this clock says that an alert has ended, the alert is *let go*: it is
        forgotten for good, and stays ended even if the log delivers it again while the wall clock says that it is live
        (`_Gone`). But the wall clock may be wrong. So if only the wall clock says that an alert has ended, the alert is
        *suspended*: it is kept with its flags. If the wall clock later says that it is live, it is sent to every
        session that should have it, and to no session twice.
        Example: an alert expires at 10:30. At 10:00 the wall clock jumps to 11:00. A phone that connects is not sent
        the alert. At 10:05 the clock is set right: `expire` returns the alert, and the phone gets it. Phones that got
        it before the jump have CURRENT and get nothing.
Rule 4  If the wall clock says that an alert has ended already when this node learns of it, the alert is suspended as
        well, because that clock may be ahead. The alert is *doubted*: no deadline can be computed from such a clock. So
        the deadline is the latest possible one: a node learns of an alert after it was accepted, so the alert ends at
        most `expires_at` - `issued_at` from now. At most MAX_DOUBTED alerts are kept in this way; `missed_until` is the
        latest end of those that are not kept.
        Example: a node starts at 10:10 with a clock that says 12:10, and reads an alert that was issued at 10:00 and
        expires at 11:00. It suspends the alert, with a deadline in one hour. When the clock is set right, the deadline
        becomes the true one, in 50 minutes, and the alert is sent.
Rule 5  One call of `expire` lets go at most AT_ONCE alerts (Rule 3). Other alerts whose time is over have ended as
        well, and are not sent (Rule 1).
        Example: 50,000 alerts expire at noon. None is sent after noon. They are let go by 333 calls of 2 ms each; if
        one call did it all, the event loop could not serve its sockets for more than half a second.
Rule 6  A cancel may arrive before the alert that it cancels. The cancel is kept, and when the alert arrives, it is
        cancelled from the first moment. At most MAX_EARLY such cancels are kept.
        Example: Redis loses the last entries. Node A has appended the cancel and has no other entry of the alert. It
        restores the cancel before node B restores the revision. No node may send the revision in between.
Rule 7  If an alert is no longer believed (LogJ1), it is *withdrawn*: it is treated as if it had ended according
        to the wall clock, until it is believed again or a later entry arrives. A believed cancel stays, because
        recipients have been sent it.
        Example: a reviewer's key is removed by mistake, and the alerts that need it are withdrawn at once. The key is
        added again a minute later. The next call of `expire` returns the alerts, and they are sent to the sessions that
        connected in that minute.
Rule 8  How many approvals an entry needs depends on the earlier entries of its alert (HD1). So each live alert keeps
        its *chain*: the kinds of its revisions so far. If a process lacks a part of a chain, the reader of the log
        reads it from the log (`lacks_chain`, `learn`).
        Example: revision 1 needed two reviewers, as its category does. Revision 2 has a category that needs one
        reviewer. It still needs two, and a process that has read only revision 2 could not know that.
Rule 9  A revision that was never believed in this process may have been sent by another process that believed it. So
        its alert is kept, but withdrawn and in no index: no session is sent it, and a session that has it is sent its
        cancel (HD7). At most MAX_UNBELIEVED of such alerts are kept.
        Example: node A already has a new reviewer's key, node B does not have it yet. A sends the alert to a phone,
        which reconnects to B with the alert in `holding`. When the alert is cancelled, B sends the cancel to that
        phone.
Rule 10  After a believed cancel, all other entries of the alert are ignored, whatever their numbers (HD9).
         Example: two nodes append while the log is being repaired, and a revision 4 comes after the cancel with number
         3. The alert stays cancelled.
         The cancel counts too, whatever its number; here it gets the next one if its own is taken.
         Example: Redis loses the revisions 2 and 3, and a publisher cancels revision 1, so the cancel has the number 2.
         A node that has sent revision 3 sends the cancel with the number 4.
Rule 11  A deadline that was computed while the wall clock was ahead is too early. When that clock is set back, each
         deadline moves to what the clock says now, but never beyond the latest possible one (Rule 4).
         Nothing moves if the clock now shows a time before that at which some entry was accepted: it is wrong now.
         Example: the wall clock is an hour ahead when an alert of two hours arrives. Ten minutes later the clock is set
         right. Without this rule, the alert would be let go an hour before its end, and its cancel be sent to nobody.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import heappop, heappush
from sys import intern

import numpy as np
from numpy.typing import NDArray

from ..alertlog import RETENTION_MS, Counts, EntryVerifier, TrustAll
from ..alertlog.chain import NO_CHAIN, NO_KINDS, UNKNOWN, Chain, Kinds
from ..clock import STEP_S, Now
from ..matching.alert_index import AlertIndex, Filed
from ..matching.circle_index import NONE
from ..model.alert import SEVERITY_RANK, Cancel, Entry, OtherKind, Revision, Untrusted
from .compact_revision import pack, unpack
from .delivery_flags import DeliveryFlags, Departures, Rows

RECIPIENT, CURRENT, SENT, ACKED = 1, 2, 4, 8
_GENERATIONS = 3  # number of revisions whose SENT and ACKED are kept: the current one and two before
_SENT_AND_ACKED = 0b1111_1100  # SENT and ACKED of these revisions: two bits each, the current one lowest

MAX_DOUBTED = 256  # limit on doubted alerts (Rule 4); nearly all of them have really ended
AT_ONCE = 150  # limit on the alerts that one call of `expire` lets go (Rule 5): 1 to 2 ms
GONE_S = 86_400.0  # `_Gone` remembers an alert for at least this long: the log keeps it for a day (LogR1)
MAX_GONE = 100_000  # … unless more alerts than this have ended; about 100 bytes each
GONE_PARTS = 32
MAX_EARLY = 10_000  # limit on cancels that are kept because they came before their alerts (Rule 6)
MAX_UNBELIEVED = 10_000  # limit on alerts without a believed revision (Rule 9)
HOLDING_S = 30.0  # how long a client's statement that it has an unknown alert is remembered
MAX_HOLDINGS = 100_000  # limit on the alerts in such statements that are remembered at a time


class _Shared:
    """The state that all live alerts of a process share, and what only some of them have, such as the suspended ones.

    What few alerts have is here, because each attribute of an alert takes 8 bytes (`bench growth`).
    """

    def __init__(self, capacity: int) -> None:
        self.departures = Departures(capacity)
        self.suspended: set[LiveAlert] = set()  # alerts that may be sent again later (Rules 3, 7)
        self.doubted: set[LiveAlert] = set()  # alerts whose deadlines were not computed from the wall clock (Rule 4)
        self.held_back: set[LiveAlert] = set()  # alerts of which an entry could not be applied
        self.unbelieved: set[LiveAlert] = set()  # alerts without a believed revision (Rule 9)
        self.restricted: set[LiveAlert] = set()  # alerts that only some sessions may see (R6)
        self.withdrawn: dict[LiveAlert, int] = {}  # withdrawn alert -> its end; its `expires_at` is 0 (Rule 7)
        self.sent: Counter[LiveAlert] = Counter()  # how often each was sent since the last `take_counts`
        self.acked: Counter[LiveAlert] = Counter()  # how often each was acknowledged since then
        self.acks = 0  # acknowledgements counted since the start

    def forget(self, alert: "LiveAlert") -> None:
        """Remove all that is stored about an alert here, except its counts."""
        for some in (self.suspended, self.doubted, self.unbelieved, self.held_back, self.restricted):
            some.discard(alert)
        self.withdrawn.pop(alert, None)


class LiveAlert:
    """One alert that the process keeps: its newest revision, its cancel if it has one, and its delivery flags.

    The *current entry* is the newest revision or the cancel. A revision is *believed* if the log's verifier accepts its
    approvals. A *row* is the number of a session or push device. `rank` is the severity as a number. `languages` are
    the language tags of the texts, or empty if there are fewer than two texts.
    """

    __slots__ = (
        "_encoded",
        "_flags",
        "_revision",
        "_shared",
        "area",
        "behind",
        "cancel",
        "category",
        "chain",
        "deadline",
        "expires_at",
        "id",
        "languages",
        "latest",
        "order",
        "rank",
        "revision_number",
    )

    def __init__(self, revision: Revision, now: Now, order: int, shared: _Shared) -> None:
        self.id = revision.id
        self.order = order  # number of the alert in the order of arrival in this process
        self.area: Filed = NONE  # its entry in the index of areas
        self._shared = shared
        self._flags: DeliveryFlags | None = None  # None until the alert is sent to a session
        self.cancel: Cancel | None = None
        self.chain = NO_CHAIN  # of all entries that this process knows, including unbelieved ones (Rule 8)
        self.behind: Kinds = NO_KINDS  # the kinds of the entries before the newest revision (Rule 8)
        if revision.alert.status != "actual":
            shared.restricted.add(self)
        self._set_revision(revision, now)
        if now.wall_ms >= revision.ends_at:
            shared.doubted.add(self)  # its deadline can't be computed from the wall clock (Rule 4)
        self.deadline = self.latest if self.doubted else now.deadline(revision.ends_at)

    def _set_revision(self, revision: Revision, now: Now) -> None:
        self._revision: Revision | bytes = revision
        self.revision_number = revision.revision
        self.expires_at = revision.ends_at
        self.latest = now.monotonic + (revision.ends_at - revision.issued_at) / 1000  # the latest deadline (Rule 4)
        self.category = intern(revision.alert.category)
        self.rank = SEVERITY_RANK[revision.alert.severity]
        texts = revision.alert.texts
        self.languages = tuple(intern(text.language) for text in texts) if len(texts) > 1 else ()
        self._encoded: dict[int, tuple[bytes, ...]] | None = None  # None until the alert is sent to a session

    @property
    def revision(self) -> Revision:
        """The newest revision. If it is stored in compact form, every access decodes it into a new object."""
        return unpack(self.id, self._revision) if isinstance(self._revision, bytes) else self._revision

    def pack(self) -> None:
        """Store the revision in a compact form in bytes, because it has been sent to all recipients.

        As Python objects, a revision takes 1.3 KiB (stream/compact_revision.py).
        """
        if isinstance(self._revision, Revision):
            self._revision = pack(self._revision)

    @property
    def current(self) -> Entry:
        """The current entry: the cancel if there is one, otherwise the newest revision."""
        return self.revision if self.cancel is None else self.cancel

    def encoded(self, text: int, encode: Callable[[Entry, int], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        """Return the current entry with one of its texts, as `encode` encodes it. `text` is the index of the text.

        The result is stored, so `encode` is called once, however many sessions the entry is sent to. It must be the
        same function each time.
        """
        if self._encoded is None:
            self._encoded = {}
        found = self._encoded.get(text)
        if found is None:
            found = self._encoded[text] = encode(self.current, text)
        return found

    @property
    def number(self) -> int:
        """The revision number of the current entry (the newest revision or the cancel)."""
        return self.revision_number if self.cancel is None else self.cancel.revision

    @property
    def doubted(self) -> bool:
        """Whether the alert had ended already when this node learnt of it, according to the wall clock (Rule 4).

        It becomes False once that clock shows a time before the alert's end.
        """
        return self in self._shared.doubted

    @property
    def ends_at(self) -> int:
        """The `expires_at` of the newest revision, in ms since 1970.

        While the alert is withdrawn, the attribute `expires_at` is 0, but this property does not change (Rule 7).
        """
        return self._shared.withdrawn.get(self, self.expires_at)

    @property
    def counts(self) -> Counts:
        """How often the alert was sent and acknowledged since the last call of `LiveAlerts.take_counts`."""
        return Counts(self._shared.sent[self], self._shared.acked[self])

    @property
    def restricted(self) -> bool:
        """Whether the alert is sent only to sessions that may see tests (R6)."""
        return self in self._shared.restricted

    @property
    def unbelieved(self) -> bool:
        """Whether the log's verifier has not accepted any revision of the alert yet in this process (Rule 9)."""
        return self in self._shared.unbelieved

    @property
    def gone(self) -> bool:
        """Whether the alert has been forgotten for good.

        That happens when it has ended according to the monotonic clock (Rule 3).
        """
        return self.deadline == float("-inf")

    def ended(self, now: Now) -> bool:
        """Return whether the alert has ended according to the wall clock or the monotonic clock (Rule 1).

        If it has ended, nothing more may be sent about it, not even its cancel.
        """
        if now.monotonic >= self.deadline:
            return True
        if now.wall_ms < self.expires_at:
            return False
        self._shared.suspended.add(self)  # the caller does not send it now, so `expire` may have to return it later
        return True

    def withdraw(self) -> None:
        """Stop the alert from being sent until `restore` is called (Rule 7)."""
        if self not in self._shared.withdrawn:
            self._shared.withdrawn[self], self.expires_at = self.expires_at, 0
            self._shared.suspended.add(self)

    def restore(self) -> None:
        """Allow a withdrawn alert to be sent again, because its approvals are accepted now (Rule 7).

        The next call of `LiveAlerts.expire` returns the alert.
        """
        self._shared.unbelieved.discard(self)
        self._shared.held_back.discard(self)
        self.expires_at = self._shared.withdrawn.pop(self, self.expires_at)

    def trust(self, now: Now) -> bool:
        """Compute the deadline from the wall clock, and return whether this has changed the deadline.

        Call this while the wall clock shows a time before the alert's end. As long as the clock showed a later time,
        the deadline could not be computed from it (Rule 4). Later calls change nothing and return False.
        """
        before = self.deadline
        if self.doubted:
            self._shared.doubted.discard(self)
            self.deadline = min(self.deadline, now.deadline(self.expires_at))
        return self.deadline != before

    def correct(self, now: Now) -> None:
        """Move the deadline to a later time if it was computed while the wall clock was ahead, and so is too early."""
        if self.deadline <= now.monotonic:
            self._shared.suspended.add(self)  # it was not sent, so `expire` may have to return it
        self.deadline = max(self.deadline, min(self.latest, now.deadline(self.ends_at)))

    def revise(self, revision: Revision, now: Now) -> None:
        """Replace the newest revision, and clear the flag CURRENT of all clients that lack the new one.

        A client may have it already, if another node has sent it while this process was behind. The rows of such
        clients are in `ahead` (R5c).
        """
        newer = max(0, revision.revision - self.revision_number)  # 0 if the same revision is believed only now (Rule 9)
        steps = min(2 * newer, 8)  # in bits; numbers may be missing after a restart
        self.restore()
        if self._flags is not None:
            self._flags.shift(RECIPIENT, _SENT_AND_ACKED, steps)
        # The deadline moves by as much as the end does. It is not computed from the wall clock again: the result would
        # be wrong if somebody has set that clock since the first revision.
        self.deadline += (revision.ends_at - self.expires_at) / 1000
        self._set_revision(revision, now)
        if self.doubted:
            self.deadline = self.latest
        if self._flags is not None:
            for row, held in list(self._flags.ahead.items()):
                self._mark_held(self._flags, row, held)

    def end_by(self, cancel: Cancel) -> None:
        """Apply this cancel to the alert. The alert keeps the `expires_at` of its newest revision (Rule 2)."""
        self.restore()
        self.cancel = cancel
        self.languages = ()
        self._encoded = None

    # ---- flags of recipients -------------------------------------------------------------------------------------

    def flags(self, row: int) -> int:
        """Return the delivery flags of one row (a session or push device)."""
        return 0 if self._flags is None else self._flags.of(row)

    def flags_of(self, rows: Rows) -> NDArray[np.uint8]:
        """Return the delivery flags of these rows (sessions or push devices), as an array in the same order."""
        return np.zeros(len(rows), np.uint8) if self._flags is None else self._flags.of_all(rows)

    def lacks(self, row: int) -> bool:
        """Return whether the row (session or push device) is a recipient of the alert and lacks its current entry.

        A row that was sent a cancel is no longer a recipient, so all recipients of a cancelled alert lack the cancel.
        """
        wanted = RECIPIENT if self.cancel is not None else RECIPIENT | CURRENT
        return self.flags(row) & wanted == RECIPIENT

    def recipients(self) -> Rows:
        """Return the recipients that lack the current entry, as an ascending array of rows.

        A row is the number of a session or push device.
        """
        wanted = RECIPIENT if self.cancel is not None else RECIPIENT | CURRENT
        return np.empty(0, np.int32) if self._flags is None else self._flags.having(RECIPIENT, wanted)

    def expect(self, rows: Rows) -> None:
        """Allocate memory for the flags of these rows (sessions or push devices), before the alert is sent to them."""
        self._writable_flags().expect(rows)

    def _writable_flags(self) -> DeliveryFlags:
        if self._flags is None:
            self._flags = DeliveryFlags(self._shared.departures)
        return self._flags

    def trust_holding(self, row: int, held: int) -> None:
        """Record that the client in this row (a session or push device) says that it has revision `held` (R5).

        From now on the row counts as a recipient of the alert.
        """
        flags = self._writable_flags()
        flags.put(row, flags.of(row) | RECIPIENT)
        self._mark_held(flags, row, held)

    def _mark_held(self, flags: DeliveryFlags, row: int, held: int) -> None:
        if held >= self.revision_number:
            flags.put(row, flags.of(row) | CURRENT)
        if held > self.revision_number or self.unbelieved:  # the first that is believed may be an older one (Rule 9)
            flags.ahead[row] = held
        else:
            flags.ahead.pop(row, None)

    def mark_sent(self, rows: Rows) -> None:
        """Record that these rows (sessions or push devices) accepted the current entry.

        A row that accepted a cancel is no longer a recipient, so nothing more of this alert is sent on that connection.
        Cancels are not counted as sent (H7).
        """
        flags = self._writable_flags()
        if self.cancel is not None:
            flags.take_from_all(rows, RECIPIENT)
        else:
            flags.add_to_all(rows, RECIPIENT | CURRENT | SENT)
            self._shared.sent[self] += len(rows)

    def mark_sent_to(self, row: int) -> None:
        """Record that one row (session or push device) accepted the current entry.

        This does the same as `mark_sent`, without the overhead of a numpy array.
        """
        flags = self._writable_flags()
        if self.cancel is not None:
            flags.put(row, flags.of(row) & (0xFF ^ RECIPIENT))
        else:
            flags.put(row, flags.of(row) | RECIPIENT | CURRENT | SENT)
            self._shared.sent[self] += 1

    def retract(self, row: int, number: int, *, recipient: bool) -> None:
        """Undo `mark_sent` for one row (session or push device), because the sending has failed or may have failed.

        `number` is the number of the entry that was sent. If a newer revision has arrived meanwhile, the flags of that
        revision are not changed. `recipient` says whether the row still counts as a recipient.
        """
        flags = self._writable_flags()
        bits = flags.of(row)
        if number == self.revision_number:
            bits &= 0xFF ^ (CURRENT | SENT)
        flags.put(row, bits | RECIPIENT if recipient else bits & (0xFF ^ RECIPIENT))

    def acknowledge(self, row: int, revision: int) -> None:
        """Count an acknowledgement of `revision` by the session in this row.

        Each revision is counted once, and only if it was sent on this connection. Only the newest three revisions are
        counted (M5): for example, an `ack` of revision 1 may arrive while revision 3 is current.
        """
        back = self.revision_number - revision
        if not 0 <= back < _GENERATIONS:
            return
        sent, acked = SENT << 2 * back, ACKED << 2 * back
        bits = self.flags(row)
        if bits & (sent | acked) == sent:
            self._writable_flags().put(row, bits | acked)
            self._shared.acks += 1
            self._shared.acked[self] += 1


class _Ends:
    """The live alerts in a heap that is ordered by their deadlines (the times at which they end).

    If a deadline moves later, nothing needs to be done: `take` finds the alert at its old deadline and puts it back
    with the new one. If a deadline moves earlier, `put` must be called again. The alert then has two items in the heap,
    and `take` skips the later one.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, LiveAlert]] = []

    def put(self, alert: LiveAlert) -> None:
        """Add the alert with its deadline.

        Call this method for every new alert, and whenever a deadline moves earlier.
        """
        heappush(self._heap, (alert.deadline, alert.order, alert))

    def take(self, now: Now, at_most: int) -> list[LiveAlert]:
        """Remove and return up to `at_most` alerts whose deadlines have passed."""
        ended: dict[LiveAlert, None] = {}
        while self._heap and self._heap[0][0] <= now.monotonic and len(ended) < at_most:
            alert = heappop(self._heap)[2]
            if alert.deadline > now.monotonic:
                self.put(alert)
            elif not alert.gone:
                ended[alert] = None
        return list(ended)

    def until(self, deadline: float) -> set[LiveAlert]:
        """Return the alerts that have an item in the heap with this deadline or an earlier one.

        The deadline of such an alert may have been moved to a later time. Heap items after `deadline` are not examined.
        """
        found, todo = set(), [0]
        while todo:
            at = todo.pop()
            if at < len(self._heap) and self._heap[at][0] <= deadline:
                found.add(self._heap[at][2])
                todo += (2 * at + 1, 2 * at + 2)
        return found


class _Gone:
    """Remembers the alerts that are over for good, and the number of the last entry of each of them (Rule 3).

    An alert is stored as a hash of its id. The hashes are spread over GONE_PARTS parts, so that no dict is large: a
    dict with 90,000 items blocks the event loop for 4 ms when it grows, and again when it is freed. Each part has a
    newer and an older dict. The older dict is dropped as a whole, so no item needs a time stamp.

    Example: an alert ended at 10:00. The log is restored from a backup and delivers all its entries again, while the
    wall clock is a quarter of an hour behind. Without this record the alert would be sent a second time.
    """

    def __init__(self) -> None:
        self._newer: list[dict[int, int]] = [{} for _ in range(GONE_PARTS)]
        self._older: list[dict[int, int]] = [{} for _ in range(GONE_PARTS)]
        self._since = [float("-inf")] * GONE_PARTS  # the monotonic time at which the newer dict was started

    def add(self, alert_id: str, number: int, now: Now) -> None:
        """Record that the alert has ended for good, and the number of its last entry."""
        key = hash(alert_id)
        part = key % GONE_PARTS
        if now.monotonic - self._since[part] >= GONE_S or len(self._newer[part]) * GONE_PARTS >= MAX_GONE:
            self._older[part], self._newer[part], self._since[part] = self._newer[part], {}, now.monotonic
        self._newer[part][key] = number

    def last(self, alert_id: str) -> int:
        """Return the number of the last entry of an alert that has ended for good, or 0 for any other alert."""
        key = hash(alert_id)
        part = key % GONE_PARTS
        return self._newer[part].get(key) or self._older[part].get(key, 0)


def _gap_s(now: Now) -> float:
    return now.monotonic - now.wall_ms / 1000


class Holdings:
    """What clients say they have of alerts that this process does not know yet, for HOLDING_S seconds (R5e).

    Example: node A sends a phone an alert and dies. The phone reconnects to node B, which reads the alert from the log
    100 ms later. B does not send the alert to the phone a second time, and if it is cancelled, B sends the phone the
    cancel.

    At most MAX_HOLDINGS alerts are remembered. If that is not enough, those rows lose some that have the most.
    Example: 400 sessions of one phone list 256 alerts each, all invented. Of these, 128 and later 64 are remembered;
    of five that another phone lists, all. Even 20,000 such sessions leave four to each row, so subjects have no shares.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[float, int, dict[str, int]]] = {}  # row -> (time, epoch, revisions); oldest first
        self._by_id: dict[str, dict[int, None]] = {}  # alert id -> the rows that have it
        self._size = 0
        self._most = MAX_HOLDINGS  # how many alerts of one row are remembered now

    def remember(self, row: int, epoch: int, holding: Mapping[str, int], now: Now) -> None:
        """Remember that the client in this row says it has these revisions of alerts, in a dict by id.

        `epoch` distinguishes the session from later sessions in the same row.
        """
        self.forget([row])
        if self._size + min(len(holding), self._most) > MAX_HOLDINGS:
            self._make_room()
        kept = dict(itertools.islice(holding.items(), min(self._most, MAX_HOLDINGS - self._size)))
        if kept:
            self._rows[row] = now.monotonic + HOLDING_S, epoch, kept
            self._size += len(kept)
            for alert_id in kept:
                self._by_id.setdefault(alert_id, {})[row] = None

    def _make_room(self) -> None:
        """Cut rows to half of what the longest row has, until a sixteenth is free: a few ms at most."""
        while self._most > 1 and self._size > MAX_HOLDINGS * 15 // 16:
            self._most = max(1, max(len(known) for _, _, known in self._rows.values()) // 2)
            for row, (_, _, known) in self._rows.items():
                for alert_id in list(itertools.islice(known, self._most, None)):
                    self._drop(row, alert_id, known)
                if self._size <= MAX_HOLDINGS * 15 // 16:
                    break

    def _drop(self, row: int, alert_id: str, known: dict[str, int]) -> None:
        self._size -= 1
        rows = self._by_id[alert_id]
        del rows[row]
        if not rows:
            del self._by_id[alert_id]
        del known[alert_id]

    def take(self, alert_id: str, number: int) -> list[tuple[int, int, int]]:
        """Return the sessions whose clients have said that they have this alert.

        Forget those that have at most the revision `number`, which this process has read. Each session is a tuple (row,
        epoch, revision). The epoch distinguishes sessions that used the same row one after the other.
        """
        found = []
        for row in list(self._by_id.get(alert_id, ())):
            _, epoch, known = self._rows[row]
            found.append((row, epoch, known[alert_id]))
            if known[alert_id] <= number:
                self._drop(row, alert_id, known)
        return found

    def forget(self, rows: Iterable[int]) -> None:
        """Forget what the clients in these rows have said."""
        for row in rows:
            if row in self._rows:
                _, _, known = self._rows.pop(row)
                for alert_id in list(known):
                    self._drop(row, alert_id, known)

    def expire(self, now: Now) -> None:
        """Forget what was said more than HOLDING_S seconds ago."""
        while self._rows and self._rows[row := next(iter(self._rows))][0] <= now.monotonic:
            self.forget([row])
        if self._size <= MAX_HOLDINGS // 4:
            self._most = MAX_HOLDINGS


class LiveAlerts:
    """All alerts that a process keeps: the live ones, and some others that may still be needed.

    The others are: cancelled alerts (Rule 2); suspended alerts, which have ended according to the wall clock but not
    according to the monotonic clock (Rules 3 and 4); and withdrawn alerts, whose approvals are not accepted (Rules 7
    and 9). The module's docstring has the rules.
    """

    def __init__(self, capacity: int, *, places: bool = True) -> None:
        """Create an empty collection for `capacity` rows (sessions or push devices).

        If `places` is false, `areas` is not kept, and must not be used.
        """
        self._shared = _Shared(capacity)
        self._places = places
        self._alerts: dict[str, LiveAlert] = {}
        # The areas of the alerts that are not cancelled. Some of these alerts may have ended.
        self.areas: AlertIndex[LiveAlert] = AlertIndex()
        self._ends = _Ends()
        self._gone = _Gone()
        self.on_let_go: Callable[[str], None] = lambda _id: None  # called with the id of each alert that is let go
        self.verifier: EntryVerifier = TrustAll()
        self._early_cancels: dict[str, Cancel] = {}  # Rule 6: alert id -> cancel
        self._chains_before: dict[str, Chain] = {}  # alert id -> chain before the next entry (Rule 8)
        self._unfinished: set[str] = set()  # ids of alerts that may have a part of the entry whose processing failed
        self.behind = False  # whether the last `expire` may have left alerts that had ended (Rule 5)
        self._arrivals = itertools.count(1)  # numbers the alerts in the order of arrival
        # The greatest value, in seconds, that (monotonic time - wall time) has had. A deadline that was computed from
        # the wall clock is at most the alert's end plus this value; `suspended` relies on that.
        self._clock_gap_s = float("-inf")
        self._least_gap_s = float("inf")  # the smallest such value with which a deadline was computed (Rule 11)
        self._most_gap_s = float("inf")  # the greatest that it can be: no entry is read before it was accepted
        self.missed_until = 0  # the latest end, in ms since 1970, of what was taken for ended and not kept (Rule 4)
        self.holdings = Holdings()
        self._counts: dict[str, Counts] = {}  # counts of alerts that have ended since the last `take_counts`

    def __len__(self) -> int:
        return len(self._alerts) - len(self._shared.unbelieved)

    def __iter__(self) -> Iterator[LiveAlert]:
        return iter(self._alerts.values())

    def find(self, alert_id: str, now: Now) -> LiveAlert | None:
        """Return the alert with this id, or None if it is unknown or has ended according to the monotonic clock.

        The alert that is returned may have ended according to the wall clock.
        """
        alert = self._alerts.get(alert_id)
        return None if alert is None or now.monotonic >= alert.deadline else alert

    def knows(self, entry: Entry) -> bool:
        """Return whether this entry, or a later one of the same alert, has been applied and the alert is still kept."""
        alert = self._alerts.get(entry.id)
        return alert is not None and entry.revision <= alert.number

    def lacks_chain(self, entry: Entry | Untrusted) -> bool:
        """Return whether this entry can't be verified because this process does not know earlier entries of its alert.

        If so, the caller must read the alert's history and call `learn` before `apply` (Rule 8).
        """
        alert = self._alerts.get(entry.id)
        chain = NO_CHAIN if alert is None else alert.chain
        return self.verifier.needs_chain and (entry.revision > chain.last + 1 or chain.kinds >= UNKNOWN)

    def hold_back(self, alert_id: str) -> None:
        """Stop an alert from being sent, because an entry of it could not be applied.

        It can be sent again when a later entry of it is applied.
        """
        alert = self._alerts.get(alert_id)
        if alert is not None:
            alert.withdraw()
            self._shared.held_back.add(alert)

    def learn(self, entry: Entry | Untrusted, history: Iterable[Entry | OtherKind]) -> None:
        """Remember the kinds of those entries of an alert that come before `entry` (Rule 8).

        The caller must apply `entry` next. `history` has the entries of the alert in the log.
        """
        self._chains_before = {entry.id: Chain.of(each for each in history if each.revision < entry.revision)}

    def apply(self, entry: Entry | Untrusted, now: Now) -> LiveAlert | None:
        """Apply an entry of the log. Return its alert if the current entry has changed and may be sent, otherwise None.

        An entry may not be sent if it is not newer than the current one, if it is not believed (Rules 7 and 9), or if
        its alert has ended. After a restart, the first entry that is read of an alert may be a later revision than 1.
        An alert that has ended for good comes back only with a revision newer than all known ones (Rule 3). A cancel of
        an unknown alert is stored until the alert arrives (Rule 6), except a tombstone, which is ignored.

        If this raises, the entry can be applied again.
        """
        self.correct_if_clock_was_ahead(now)
        if isinstance(entry, Revision):
            self._most_gap_s = min(self._most_gap_s, now.monotonic - entry.issued_at / 1000)
        try:
            alert = self._apply(entry, now)
        except Exception:
            self._unfinished.add(entry.id)
            raise
        self._unfinished.discard(entry.id)
        return alert

    def _apply(self, entry: Entry | Untrusted, now: Now) -> LiveAlert | None:
        alert = self._alerts.get(entry.id)
        chain = self._chains_before.pop(entry.id, NO_CHAIN if alert is None else alert.chain)
        behind = chain.before(entry.revision)
        # Every entry becomes part of the chain, even one whose approval is not accepted. What matters is the kind that
        # the entry states (HD1).
        if alert is not None:
            alert.chain = max(alert.chain, chain.then(entry), key=lambda each: each.last)
        if isinstance(entry, Untrusted):
            self._keep_unbelieved(alert, entry, chain, now)
            return None
        if isinstance(entry, Cancel):
            return self._cancel(alert, entry, behind, now)
        if alert is not None and (alert.cancel is not None or not self._is_newer(entry, alert)):
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

    def _is_newer(self, revision: Revision, alert: LiveAlert) -> bool:
        """Return whether a revision is newer than the alert's current entry, or is the one that was applied in part.

        Also return True if none of the alert's revisions was believed before: then this is the first one (Rule 9).
        """
        is_again = alert.id in self._unfinished and revision.revision == alert.number
        return alert.unbelieved or is_again or revision.revision > alert.number

    def _end_early(self, alert: LiveAlert, now: Now) -> None:
        """Cancel an alert as soon as it arrives, if its cancel has arrived before it (Rules 6 and 10)."""
        early = self._early_cancels.get(alert.id)
        if early is None:
            return
        is_older = now.wall_ms - early.ends_at > RETENTION_MS  # it cancels a forgotten alert whose id is reused
        if is_older or self._is_believed_cancel(early, alert, alert.chain.before(early.revision)):
            del self._early_cancels[alert.id]
            if not is_older:
                self._apply_cancel(alert, early)

    def _cancel(self, alert: LiveAlert | None, cancel: Cancel, behind: Kinds, now: Now) -> LiveAlert | None:
        if alert is None:
            if not cancel.is_tombstone:
                self._keep_early(cancel)
            return None
        is_known = alert.cancel is not None and cancel.revision <= alert.number
        if is_known or not self._is_believed_cancel(cancel, alert, behind):
            return None
        self._apply_cancel(alert, cancel)
        return None if alert.ended(now) else alert

    def _keep_unbelieved(self, alert: LiveAlert | None, entry: Untrusted, chain: Chain, now: Now) -> None:
        """Keep an alert although no revision of it is accepted by the verifier (Rule 9).

        It is sent to nobody, but sessions that have it already can be sent its cancel.
        """
        said, unbelieved = entry.said, self._shared.unbelieved
        if not isinstance(said, Revision):
            return
        if now.wall_ms >= said.ends_at:
            self.missed_until = max(self.missed_until, said.ends_at)
            return
        if alert is None and len(unbelieved) < MAX_UNBELIEVED and said.revision > self._gone.last(said.id):
            alert = LiveAlert(said, now, next(self._arrivals), self._shared)
            alert.chain = chain.then(entry)
        elif alert is not None and alert.unbelieved and said.revision > alert.number:
            alert.revise(said, now)
        else:
            return
        alert.behind = chain.before(entry.revision)
        alert.withdraw()
        unbelieved.add(alert)
        self._ends.put(alert)
        self._alerts[alert.id] = alert  # only now, so that it is never there as one that may be sent

    def _is_believed_cancel(self, cancel: Cancel, alert: LiveAlert, behind: Kinds) -> bool:
        """Return whether the log's verifier accepts this cancel of the alert, after the entries before it (LogJ1)."""
        return not self.verifier.needs_chain or self.verifier.verify_cancel(cancel, alert.revision, behind)

    def verify_again(self, alert: LiveAlert) -> None:
        """Check the alert's approvals again.

        Withdraw the alert if they are no longer accepted, otherwise restore it (Rule 7).
        """
        if alert.cancel is None and not alert.unbelieved and alert not in self._shared.held_back:
            (alert.restore if self.verifier.still_valid(alert.revision, alert.behind) else alert.withdraw)()

    def _apply_cancel(self, alert: LiveAlert, cancel: Cancel) -> None:
        self._remove_area(alert)
        alert.end_by(cancel if cancel.revision > alert.number else replace(cancel, revision=alert.number + 1))

    def _keep_early(self, cancel: Cancel) -> None:
        """Store a cancel whose alert has not arrived yet (Rule 6).

        If more than MAX_EARLY are stored, drop the oldest.
        """
        self._early_cancels[cancel.id] = cancel
        if len(self._early_cancels) > MAX_EARLY:
            del self._early_cancels[next(iter(self._early_cancels))]

    def _revise(self, alert: LiveAlert | None, revision: Revision, now: Now) -> LiveAlert | None:
        if alert is None:
            if revision.revision <= self._gone.last(revision.id):
                return None
            if now.wall_ms >= revision.ends_at and not self._may_doubt(revision):
                return None
            alert = LiveAlert(revision, now, next(self._arrivals), self._shared)
            self._ends.put(alert)
            self._alerts[alert.id] = alert
        elif alert.unbelieved and revision == alert.revision:
            alert.restore()  # don't call `revise`: rows that have this revision keep CURRENT
        else:
            self._remove_area(alert)
            before = alert.deadline
            alert.revise(revision, now)
            if alert.deadline < before:
                self._ends.put(alert)
        if self._places:
            alert.area = self.areas.add(alert, revision.alert.shapes)
        if not alert.ended(now):
            self._trust(alert, now)
        return alert

    def _remove_area(self, alert: LiveAlert) -> None:
        """Remove the alert's area from the index of areas."""
        self.areas.discard(alert.area)
        alert.area = NONE

    def _trust(self, alert: LiveAlert, now: Now) -> None:
        self._clock_gap_s = max(self._clock_gap_s, _gap_s(now))
        self._least_gap_s = min(self._least_gap_s, _gap_s(now))
        if alert.trust(now):
            self._ends.put(alert)

    def _may_doubt(self, revision: Revision) -> bool:
        """Return whether to keep a new alert that has already ended according to the wall clock (Rule 4).

        If it is not kept, `missed_until` is set to the alert's end, unless it is later already.
        """
        if len(self._shared.doubted) < MAX_DOUBTED:
            return True
        self.missed_until = max(self.missed_until, revision.ends_at)
        return False

    def expire(self, now: Now, resume: Callable[[LiveAlert], object] = lambda _alert: None) -> list[LiveAlert]:
        """Forget alerts that have ended according to the monotonic clock, and return alerts that are live again.

        `resume` is called with each of the latter, and has to start to send it. They had ended only according to the
        wall clock, which has been set back since (Rule 3). At most AT_ONCE alerts are forgotten in one call, and the
        others in the next calls (Rule 5). If this raises, the next call does what is left.
        """
        self.correct_if_clock_was_ahead(now)
        ended = self._ends.take(now, AT_ONCE)
        self.behind = len(ended) == AT_ONCE
        try:
            self._let_go(ended, now)
        except Exception:
            for alert in ended:
                if not alert.gone:
                    self._ends.put(alert)
            raise
        suspended = self._shared.suspended
        back = [alert for alert in suspended if now.wall_ms < alert.expires_at and now.monotonic < alert.deadline]
        back.sort(key=lambda alert: alert.order)
        for alert in back:
            self._trust(alert, now)
            resume(alert)
            suspended.discard(alert)
        return back

    def _let_go(self, ended: Iterable[LiveAlert], now: Now) -> None:
        for alert in ended:
            self._alerts.pop(alert.id, None)
            self._unfinished.discard(alert.id)
            self.on_let_go(alert.id)
            self._gone.add(alert.id, alert.number, now)
            self._remove_area(alert)
            self._shared.forget(alert)
            if alert in self._shared.sent or alert in self._shared.acked:
                self._take_counts_of(alert, self._counts)
            alert.deadline = float("-inf")  # `ended` and `gone` stay true, even for flights that still have the alert

    def correct_if_clock_was_ahead(self, now: Now) -> None:
        """Correct the deadlines if the wall clock has been set back since one was computed from it (Rule 11)."""
        if _gap_s(now) - self._least_gap_s >= STEP_S and _gap_s(now) <= self._most_gap_s + STEP_S:
            self.correct(now)

    def correct(self, now: Now) -> None:
        """Move the deadlines that are too early to later times, for all alerts.

        Deadlines that were computed while the wall clock was ahead are too early. Call this method when the wall clock
        has been set right.
        """
        self._clock_gap_s = max(self._clock_gap_s, _gap_s(now))
        self._least_gap_s = _gap_s(now)
        for alert in self:
            alert.correct(now)

    def suspended(self, now: Now) -> int:
        """Return how many alerts are withheld, and may become live again (Rules 3, 4 and 7).

        They have ended according to the wall clock, but not according to the monotonic clock, or are withdrawn.
        """
        # To avoid a loop over all alerts, only those with a deadline before `until` are taken from the heap. Deadlines
        # are computed from the wall clock, so these include all alerts that have ended according to that clock, except
        # for doubted alerts (Rule 4). The deadlines of doubted alerts are computed in another way, so all are added.
        until = now.wall_ms / 1000 + self._clock_gap_s + 0.001
        withdrawn = self._shared.withdrawn
        maybe = (self._ends.until(until) | self._shared.doubted) - withdrawn.keys()
        ended = sum(now.wall_ms >= alert.expires_at and now.monotonic < alert.deadline for alert in maybe)
        return ended + len(withdrawn) - len(self._shared.unbelieved)  # every unbelieved alert is withdrawn

    def forget(self, rows: Rows) -> None:
        """Invalidate the flags of these rows in all alerts at once, so that other sessions can use the rows."""
        self._shared.departures.note(rows)
        self.holdings.forget(rows.tolist())

    # ---- delivery counts -----------------------------------------------------------------------------------------

    @property
    def acks(self) -> int:
        """The number of acknowledgements counted since the process started."""
        return self._shared.acks

    def take_counts(self) -> dict[str, Counts]:
        """Return how often each alert was sent and acknowledged since the last call.

        The result is a dict by alert id.
        """
        counts, self._counts = self._counts, {}
        for alert in {*self._shared.sent, *self._shared.acked}:
            self._take_counts_of(alert, counts)
        return counts

    def put_back_counts(self, counts: dict[str, Counts]) -> None:
        """Put back counts that could not be stored. The next call of `take_counts` will include them."""
        for alert_id, more in counts.items():
            self._counts[alert_id] = self._counts.get(alert_id, Counts()).plus(more)

    def _take_counts_of(self, alert: LiveAlert, counts: dict[str, Counts]) -> None:
        counts[alert.id] = counts.get(alert.id, Counts()).plus(alert.counts)
        del self._shared.sent[alert], self._shared.acked[alert]
