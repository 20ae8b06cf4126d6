"""Fan-out: which rows an entry of the log is sent to, in which order, and what each row is still owed.

A *row* is one recipient: a WebSocket session (`stream/hub`) or a push device (`push/device_hub`). How an alert is
encoded and sent is theirs; this module hands them alerts.

Theory of operation. A row is an index into columns. An alert that is being sent is a *flight*: a list of rows and one
of 64 bits. Three ideas carry everything:

1.  `owed[row]` is a word with one bit for each flight that the row is still owed. This word is the truth; a flight's
    list of rows is only a hint where to look.
2.  A turn takes the next SLICE rows of the most severe flight and hands each of them *all* that it is owed at once. So
    no alert is held back in order to be sent together with another, and yet a row that is owed three alerts gets one
    write; and an extreme alert overtakes the rest of a minor one at the next slice. One write is done for each row.
    Everything else is done for each slice.
3.  What a row is owed can always be computed again from the flags (stream/live_alerts.py), its places and its filter
    (`take_owed_by`). There is no queue for each row: a slow client is a late joiner. `take_owed_by` looks only at the
    alerts that contain one of the row's places, at those in flight, and at those that were noted for the row when a
    flight passed it over (`_miss`).

Rule 1  A flight is for the current revision (or the cancel) of an alert. A newer entry ends it at once, and so does the
        alert's end: its bit leaves `alive`, and what is owed but not alive is not sent.
Rule 2  A row's flags say that it was sent an alert from the slice in which it took the alert, not from the match. So
        between two slices the flags are exactly what was taken, whatever a session does then.
Rule 3  A paused row is sent nothing. What a flight owes it is cleared when the flight passes it over, and noted.
        `take_owed_by` computes it again when the row is resumed.
Rule 4  A row may decline an alert (a push device takes one at a time). What it declines is noted as in Rule 3.
Rule 5  A row that was given back is used again only when no flags count for it any more (`sweep`).

Example for Rules 2 and 3: alert A is in flight to rows 1 and 2. Row 2 is paused. The slice sends A to row 1 and sets
its flags; row 2's bit is cleared and A is noted for it. Revision 2 of A comes and ends the flight. Row 2 is resumed:
`take_owed_by` finds A, sees that row 2 lacks the current revision, and returns revision 2. Row 2 never gets revision
1.

This module has no clock, no socket and no asyncio. The time is passed in. All calls come from one thread and none is
interrupted by another: that is why Rules 2 to 4 are simple.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .. import failpoints
from ..clock import Now
from ..matching.filters import Filter, Filters
from ..matching.place_index import PlaceIndex, nearest_first
from ..model.alert import EXTREME, Entry, Untrusted
from ..model.languages import choice
from .delivery_flags import Rows
from .live_alerts import CURRENT, RECIPIENT, LiveAlert, LiveAlerts
from .session import Place

SLICE = 256  # rows of a turn: about 1.1 ms of writes (`bench fanout`: 4.3 µs each)
NEAREST = 256  # rows that go first, in order of distance; to sort all of a million would take 77 ms
FLIGHTS = 64  # one for each bit of a word
FLIGHTS_BELOW_EXTREME = 56  # bits that alerts below `extreme` may take; the rest is kept for extreme ones

Urgency = tuple[int, bool, int]  # the least goes first: minus the severity's rank, not a cancel, order of arrival


class Recipients(Protocol):
    """What takes alerts for rows: sockets, or push devices."""

    def take(self, rows: Rows, alerts: Sequence[LiveAlert], texts: Sequence[int]) -> Sequence[Rows]:
        """Send these rows what is current of these alerts; return for each alert the rows that took it.

        `texts`: for each alert the number of the language to send it in.
        """
        ...

    def by_age(self, rows: Rows) -> NDArray[np.int64]:
        """Return the order (indices into `rows`) in which the rows came, roughly: a wave of writes is cheaper so."""
        ...


class Flight:
    """One entry on its way to the rows that it concerns: first it waits for a bit, then it flies, then it has finished.

    `number` is the entry's own, since the alert may get a newer entry meanwhile. `rows` is empty and `bit` is 0 until
    the flight starts; `next` is the index of the first row that no turn has looked at.
    """

    __slots__ = ("alert", "bit", "delivered", "next", "number", "rows", "urgency")

    def __init__(self, alert: LiveAlert, order: int, now: Now) -> None:
        self.alert = alert
        self.number = alert.number
        # The place in the heap is fixed here: the alert's own severity may change while the flight waits in it.
        self.urgency: Urgency = (-alert.rank, alert.cancel is None, order)
        self.delivered = now
        self.rows: Rows = np.empty(0, np.int32)
        self.next = 0
        self.bit = np.uint64(0)

    def __lt__(self, other: "Flight") -> bool:
        """The more severe goes first; of two that are as severe, a cancel; of two cancels or revisions, the earlier."""
        return self.urgency < other.urgency

    def current(self, now: Now) -> bool:
        """Return whether its entry may still be sent: it is the newest of its alert, which has not ended (Rule 1)."""
        return self.number == self.alert.number and not self.alert.ended(now)


class FanOut:
    """The rows of this process and the alerts that are being sent to them."""

    def __init__(
        self, capacity: int, recipients: Recipients, finished: Callable[[Flight], None] = lambda _flight: None
    ) -> None:
        """`capacity`: how many rows there may be at once.

        `finished` is called with each flight that has been through all its rows, at its last slice.
        """
        self.live = LiveAlerts(capacity)
        self.sends = 0  # alerts and cancels that rows took
        self._recipients = recipients
        self._finished = finished
        self._index = PlaceIndex()
        self._filters = Filters()

        # By row. What is read or written for many rows at once is in columns; objects are in lists.
        self._slots: list[tuple[int, ...]] = [()] * capacity  # of its places in the index
        self.ready = np.zeros(capacity, np.bool_)
        self.paused = np.zeros(capacity, np.bool_)
        self._may_test = np.zeros(capacity, np.bool_)
        self._filter = np.zeros(capacity, np.int32)
        self._epoch = np.zeros(capacity, np.int64)  # how many recipients have had the row
        self._owed = np.zeros(capacity, np.uint64)
        self._passed_over = np.zeros(capacity, np.bool_)  # it may lack what no flight has for it any more

        # By row: alerts of which the row lacks what is current, though it is a recipient and no flight has it for the
        # row. It said that it holds them, was paused, declined them or may not see them. All others that it lacks are
        # in flight.
        self._missed: dict[int, set[LiveAlert]] = {}

        self._free = list(range(capacity - 1, -1, -1))
        self._given_back: list[int] = []  # rows that are not free before the next `sweep` (Rule 5)
        self.top = 0  # all rows that were ever in use are below it; columns are looked at up to here

        self._waiting: list[Flight] = []  # for a bit; a heap, the most urgent first
        self._waits: dict[LiveAlert, Flight] = {}  # the newest of those, by alert
        self._flying: list[Flight] = []  # in order of urgency
        self._bits = [np.uint64(1 << n) for n in range(FLIGHTS)]  # those that no flight has
        self._alive = np.uint64(0)  # those that a flight has (Rule 1)
        self._orders = 0  # flights so far

    def __len__(self) -> int:
        return int(np.count_nonzero(self.ready[: self.top]))

    @property
    def busy(self) -> bool:
        """Whether there is anything for `turn` to do."""
        return bool(self._flying or self._waiting)

    @property
    def places(self) -> int:
        """How many places all rows have together."""
        return len(self._index)

    # ---- rows ----------------------------------------------------------------------------------------------------

    def enter(self, places: Sequence[Place], wanted: Filter, *, may_test: bool) -> int:
        """Return the row of a new recipient. `may_test`: whether tests and exercises exist for it (R6)."""
        if not self._free:
            self._clear_rows()
        row = self._free.pop()
        self.top = max(self.top, row + 1)
        self._slots[row] = tuple(self._index.add(row, *place) for place in places)
        self._filter[row] = self._filters.take(wanted)
        self._owed[row] = 0
        self.paused[row] = self._passed_over[row] = False
        self._may_test[row] = may_test
        self.ready[row] = True
        return row

    def leave(self, row: int) -> None:
        """Forget the row's places at once. The row is free after the next `sweep` (Rule 5)."""
        self.ready[row] = False
        self._owed[row] = 0
        self._epoch[row] += 1
        self._missed.pop(row, None)
        self._filters.give_back(int(self._filter[row]))
        for slot in self._slots[row]:
            self._index.remove(slot)
        self._slots[row] = ()
        self._given_back.append(row)

    def move(self, row: int, places: Sequence[Place]) -> None:
        """Replace the places of the row by these."""
        old = self._slots[row]
        for slot, place in zip(old, places, strict=False):
            self._index.move(slot, *place)
        for slot in old[len(places) :]:
            self._index.remove(slot)
        added = (self._index.add(row, *place) for place in places[len(old) :])
        self._slots[row] = (*old[: len(places)], *added)

    def set_filter(self, row: int, wanted: Filter) -> None:
        """Replace the filter of the row by this one."""
        self._filters.give_back(int(self._filter[row]))
        self._filter[row] = self._filters.take(wanted)

    def filter_of(self, row: int) -> Filter:
        """Return the filter that the row has."""
        return self._filters[int(self._filter[row])]

    def set_rights(self, row: int, *, may_test: bool) -> None:
        """Set whether tests and exercises exist for the row from now on (R6)."""
        self._may_test[row] = may_test

    def trust_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Take a recipient's word that it holds these revisions, by the ids of their alerts (R5)."""
        for alert_id, held in holding.items():
            alert = self.live.find(alert_id, now)
            if alert is None:
                self.live.remember_holding(alert_id, row, int(self._epoch[row]), held, now)
            elif self.may_see(row, alert):
                alert.trust_holding(row, held)
                self._miss(row, alert)

    def may_see(self, row: int, alert: LiveAlert) -> bool:
        """Return whether the alert exists for the row (R6)."""
        return not alert.restricted or bool(self._may_test[row])

    # ---- what one row is owed ------------------------------------------------------------------------------------

    def pause(self, row: int) -> None:
        """Hand the row nothing until it is resumed (Rule 3)."""
        self.paused[row] = True

    def resume(self, row: int) -> bool:
        """Hand the row alerts again. Return whether it may lack some, so that `take_owed_by` has to be called."""
        self.paused[row] = False
        return bool(self._passed_over[row])

    def take_owed_by(self, row: int, now: Now) -> list[LiveAlert]:
        """Return what has to be sent to the row now: cancels first, then the most severe first.

        No flight owes it to the row any more. So the caller says next what the row took (`note_taken`) and what it
        declined (`note_declined`).
        """
        self._owed[row] = 0
        self._passed_over[row] = False
        doubtful = self._missed.pop(row, set())
        doubtful.update(flight.alert for flight in (*self._flying, *self._waiting))
        behind = {alert for alert in doubtful if alert.lacks(row)}
        for alert in behind:
            if not self.may_see(row, alert):
                self._miss(row, alert)
        near = {alert for slot in self._slots[row] for alert in self.live.containing(*self._index.place(slot))}
        wanted = self.filter_of(row)
        owed = [
            alert
            for alert in behind | near
            if not alert.ended(now) and self.may_see(row, alert) and _is_owed(alert, row, wanted)
        ]
        return sorted(owed, key=lambda alert: (alert.cancel is None, -alert.rank, alert.order))

    def note_taken(self, row: int, alerts: Sequence[LiveAlert]) -> None:
        """Note that the row took what is current of these alerts."""
        for alert in alerts:
            alert.mark_sent_to(row)
        self.sends += len(alerts)

    def note_declined(self, row: int, alert: LiveAlert) -> None:
        """Note that the row declined what is current of an alert, and may still be owed it (Rule 4)."""
        self._passed_over[row] = True
        if alert.flags(row) & RECIPIENT:  # it is owed the alert wherever its places are
            self._miss(row, alert)

    def retract(self, row: int, alert: LiveAlert, number: int, *, recipient: bool) -> None:
        """Take back that the row took the entry with this number: it was not sent after all, or perhaps was not.

        `recipient`: whether the row is a recipient of the alert all the same, by an older revision, or because it may
        have been sent this one.
        """
        self._passed_over[row] = True
        alert.retract(row, number, recipient=recipient)
        if recipient:
            self._miss(row, alert)

    def _miss(self, row: int, alert: LiveAlert) -> None:
        """Note that the row lacks what is current, and that no flight has it for the row."""
        missed = self._missed.setdefault(row, set())
        if len(missed) % 64 == 63:
            missed.difference_update([each for each in missed if each.gone])
        missed.add(alert)

    # ---- turns ---------------------------------------------------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted, now: Now) -> None:
        """Apply an entry of the log. From now on late joiners get it; `turn` sends it to the rows that are here."""
        alert = self.live.apply(entry, now)
        self.drop_stale(now)
        if alert is not None:
            self.launch(alert, now)

    def launch(self, alert: LiveAlert, now: Now) -> None:
        """Send what is current of an alert to all rows that are owed it and lack it."""
        self._orders += 1
        flight = Flight(alert, self._orders, now)
        if len(self._free) + len(self._given_back) == len(self._slots):  # nobody is here, as while a process starts
            self._finished(flight)
            alert.pack()
            return
        for row, epoch, held in self.live.take_holdings(alert.id):
            if epoch == self._epoch[row] and self.may_see(row, alert):
                alert.trust_holding(row, held)
        if alert in self._waits and self._waits[alert].number == alert.number:
            return  # its rows are looked for when it starts
        self._stop([flight for flight in self._flying if flight.alert is alert])  # that one left some of them out
        self._waits[alert] = flight
        heappush(self._waiting, flight)

    def most_urgent(self) -> Urgency | None:
        """Return the urgency of the flight that the next turn sends; None if there is nothing to send."""
        return min((flight.urgency for flight in (*self._flying[:1], *self._waiting[:1])), default=None)

    def turn(self, now: Now, rows: int | None = None) -> bool:
        """Start the most severe flight that waits, then send the next slice. Return whether there is more to do.

        `rows`: how many of a flight's rows to look at; SLICE if it is left out.
        """
        size = SLICE if rows is None else rows
        self.drop_stale(now)
        self._start(now)
        if self._flying:
            flight = self._flying[0]
            if len(flight.rows):
                self._send_slice(flight.rows[flight.next : flight.next + size])
            flight.next += size
            if flight.next >= len(flight.rows):
                self._end(flight)
                self._finished(flight)
                flight.alert.pack()
            else:
                failpoints.hit("in-fan-out")
        return self.busy

    def _send_slice(self, rows: Rows) -> None:
        """Hand each row all that it is owed, at once."""
        for group, alerts in self._take_owed(rows):
            for part, texts in self._by_language(group, alerts):
                for alert, took in zip(alerts, self._recipients.take(part, alerts, texts), strict=True):
                    if len(took) < len(part):
                        for row in np.setdiff1d(part, took, assume_unique=True).tolist():
                            self.note_declined(row, alert)
                    if len(took):
                        alert.mark_sent(took)
                        self.sends += len(took)

    def _by_language(self, rows: Rows, alerts: list[LiveAlert]) -> Iterator[tuple[Rows, tuple[int, ...]]]:
        """Yield the rows in groups that are sent the same texts of these alerts, and which those are, one for each."""
        if not any(alert.languages for alert in alerts):
            yield rows, (0,) * len(alerts)
            return
        numbers, which = np.unique(self._filter[rows], return_inverse=True)
        wanted = [self._filters[number].languages for number in numbers.tolist()]
        texts = [tuple(choice(tags, alert.languages) for alert in alerts) for tags in wanted]
        for these in dict.fromkeys(texts):
            yield rows[np.array([each == these for each in texts])[which]], these

    def _take_owed(self, rows: Rows) -> Iterator[tuple[Rows, list[LiveAlert]]]:
        """Yield the rows in groups that are owed the same, and what that is.

        They are owed it no more. Paused rows lose it (Rule 3).
        """
        words = self._owed[rows] & self._alive
        self._owed[rows] = 0
        paused = self.paused[rows]
        if paused.any():
            self._pass_over(rows[paused], words[paused])
        go = (words != 0) & ~paused
        rows, words = rows[go], words[go]
        # Nearly always all rows are owed the same. That is looked at first, for to tell groups apart takes a third as
        # long as everything else that is done for a slice (but the writes).
        same = len(words) == 0 or bool((words == words[0]).all())
        for word in words[:1] if same else np.unique(words):
            alerts = [flight.alert for flight in self._flying if flight.bit & word]
            yield rows if same else rows[words == word], alerts

    def _pass_over(self, rows: Rows, words: NDArray[np.uint64]) -> None:
        """Note what paused rows are owed as recipients. What they are owed for their places is found by these."""
        self._passed_over[rows[words != 0]] = True
        for flight in self._flying:
            late = rows[words & flight.bit != 0]
            for row in late[flight.alert.flags_of(late) & RECIPIENT != 0].tolist():
                self._miss(row, flight.alert)

    # ---- flights -------------------------------------------------------------------------------------------------

    def oldest_flight(self, now: Now) -> float:
        """Return the seconds since `deliver` took the oldest entry that is still being sent; 0 if none is."""
        flights = [*self._flying, *self._waiting]
        return max((now.monotonic - flight.delivered.monotonic for flight in flights), default=0.0)

    def in_flight(self, rows: slice) -> NDArray[np.bool_]:
        """Return for each of these rows whether a flight owes it something."""
        in_flight: NDArray[np.bool_] = self._owed[rows] & self._alive != 0
        return in_flight

    def _start(self, now: Now) -> None:
        """Give the most severe waiting flight a bit and its rows, if there is a bit for it."""
        while self._waiting and not self._waiting[0].current(now):
            self._stop_waiting()
        if not self._waiting or not self._has_bit_for(self._waiting[0]):
            return
        flight = self._stop_waiting()
        flight.rows = self._rows_of(flight.alert)
        if len(flight.rows):
            flight.alert.expect(flight.rows)
        flight.bit = self._bits.pop()
        self._alive |= flight.bit
        self._owed[flight.rows] |= flight.bit
        self._flying.append(flight)
        self._flying.sort()

    def _stop_waiting(self) -> Flight:
        """Take out the most severe of the waiting flights."""
        flight = heappop(self._waiting)
        if self._waits.get(flight.alert) is flight:
            del self._waits[flight.alert]
        return flight

    def _has_bit_for(self, flight: Flight) -> bool:
        kept = 0 if flight.alert.rank == EXTREME else FLIGHTS - FLIGHTS_BELOW_EXTREME
        return len(self._bits) > kept

    def _rows_of(self, alert: LiveAlert) -> Rows:
        """Return the rows to send what is current to: those it applies to, nearest first, then other recipients."""
        recipients = alert.recipients()
        if len(recipients):  # a new alert has none, and nearly all alerts concern nobody here
            recipients = self._ready_recipients(recipients, alert)
        if alert.cancel is not None:
            return recipients
        rows, distance_m = self._index.match(alert.revision.alert.shapes)
        if len(rows) == 0:
            return recipients
        passing = self._filters.passing(alert.category, alert.rank)
        applies = passing[self._filter[rows]] & self._visible(rows, alert) & (alert.flags_of(rows) & CURRENT == 0)
        rows, distance_m = rows[applies], distance_m[applies]
        by_age = self._recipients.by_age(rows)
        rows = nearest_first(rows[by_age], distance_m[by_age], NEAREST)
        if len(recipients) == 0:
            return rows
        return np.concatenate([rows, np.setdiff1d(recipients, rows, assume_unique=True)])

    def _ready_recipients(self, rows: Rows, alert: LiveAlert) -> Rows:
        """Return the rows that are here and may see the alert; note for the others that they lack it."""
        rows = rows[self.ready[rows]]
        visible = self._visible(rows, alert)
        for row in rows[~visible].tolist():
            self._miss(row, alert)
        return rows[visible]

    def _visible(self, rows: Rows, alert: LiveAlert) -> NDArray[np.bool_]:
        return self._may_test[rows] if alert.restricted else np.ones(len(rows), np.bool_)

    def drop_stale(self, now: Now) -> None:
        """End the flights whose entry is superseded, cancelled or expired (Rule 1)."""
        self._stop([flight for flight in self._flying if not flight.current(now)])

    def _stop(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            self._owed[flight.rows[flight.next :]] &= ~flight.bit
            self._end(flight)

    def _end(self, flight: Flight) -> None:
        self._flying.remove(flight)
        self._alive &= ~flight.bit
        self._bits.append(flight.bit)

    # ---- upkeep --------------------------------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Let alerts end and rows become free. Call it twenty times a second.

        It may launch alerts that a wrong wall clock had ended.
        """
        for alert in self.live.expire(now):
            self.launch(alert, now)
        self.live.drop_holdings(now)
        self._clear_rows()

    def _clear_rows(self) -> None:
        if self._given_back:
            self.live.forget(np.array(self._given_back, np.int32))
            self._free.extend(self._given_back)
            self._given_back.clear()


def _is_owed(alert: LiveAlert, row: int, wanted: Filter) -> bool:
    """Return whether a row that is a recipient, or has a place inside, has to be sent what is current."""
    flags = alert.flags(row)
    if alert.cancel is not None:
        return bool(flags & RECIPIENT)
    if flags & CURRENT:
        return False
    return bool(flags & RECIPIENT) or wanted.passes(alert.category, alert.rank)
