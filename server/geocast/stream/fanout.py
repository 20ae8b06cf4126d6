"""The fan-out: decides to which recipients each alert is sent, and in which order.

A *row* is the number of one recipient: a WebSocket session (`stream/hub`) or a push device (`push/scheduler`). Those
modules encode and send alerts; this module tells them which alerts to send to whom.

All data about recipients is kept in columns, which are indexed by row. An *entry* of the log is a revision of an alert,
or its cancel. An alert that is being sent is a *flight*: a list of rows and a bit (one of 64). A row is *owed* an alert
if it still has to be sent the alert's current entry. The design rests on three ideas:

1. `Flights.owed[row]` (stream/flights.py) is a 64-bit word with one bit for each flight whose alert still has to be
   sent to this row. Only these words decide what is sent; a flight's list of rows only says which words to examine. So
   a row can be taken out of a flight by clearing a bit, without a search in its list.
2. A call of `turn` handles a *slice*, the next SLICE rows of the most urgent flight. Each of these rows is sent *all*
   alerts that it is owed, in one write. So no alert waits in order to share a write with another alert, and yet a row
   that is owed three alerts gets one write. At the next slice, an extreme alert overtakes the rest of a minor one. Of
   equally severe flights, one that has just begun gets every other slice. Only the write is done once for each row;
   everything else is done once for each slice.
3. The alerts that a row is owed can always be computed again (`take_owed_by`), from its delivery flags
   (stream/live_alerts.py), its places and its filter. So no row has a queue: a slow client is treated like a client
   that has just connected. `take_owed_by` examines only the alerts that contain one of the row's places, the alerts in
   flight, and the alerts that the row is known to lack although no flight will send them (`_miss`).

Rule 1  A flight sends one entry of an alert: a revision or the cancel. The flight ends at once when a newer entry
        arrives or the alert ends. Its bit is taken out of use, and a bit that is not in use sends nothing.
        Example: a flight has sent revision 1 to 5,000 of 20,000 rows when the cancel arrives. The other 15,000 rows are
        sent nothing, and a new flight sends the cancel to the 5,000.
Rule 2  A row's flags are set to "sent" in the slice in which the row accepted the alert, not when areas and places are
        matched. So between two slices the flags say exactly which alerts were accepted, and a session may move at any
        time.
        Example: a phone leaves the area after the flight has started and before its slice. The hub calls `move` and
        `take_owed_by`, which clears the phone's bit and finds that the phone is owed nothing: it is not sent the alert.
        Another phone enters the area in the same moment. The flight does not have its row, but `take_owed_by` finds the
        alert by the new place. The hub sends the alert and sets the flags, so the phone is sent the alert once.
Rule 3  A paused row is sent nothing. When its slice is handled, its bits are cleared. If it has an earlier entry of an
        alert that it is owed, that is recorded (`_miss`). When the row is resumed, `take_owed_by` computes which alerts
        it is owed at that time.
        Example: revision 1 of an alert is in flight to rows 1 and 2, and row 2 is paused. The slice sends the revision
        to row 1 and clears the bit of row 2. Revision 2 arrives and ends the flight. When row 2 is resumed,
        `take_owed_by` finds the alert by the row's place and returns revision 2. Row 2 never gets revision 1.
Rule 4  A row may decline an alert. Then the alert is recorded, and sent later, as for a paused row (Rule 3).
        Example: a push device accepts one alert at a time. It declines B while A is on its way to the push service, and
        the push scheduler asks `take_owed_by` for B when the service has answered for A.
Rule 5  When a recipient leaves, its row is reused only after all flags of the row have become invalid (`sweep`).
        Example: session X leaves row 7, and Y enters a moment later. With X's flags in row 7, Y would appear to have
        X's alerts, and would not be sent them. So row 7 is free only after `sweep` has invalidated its flags.

This module has no clock, no socket and no asyncio. The time is passed in. All calls come from one thread, and no call
interrupts another. Rules 2 to 4 depend on nothing else.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .. import failpoints
from ..clock import Now
from ..geometry.sphere import lat_lng
from ..matching.filters import Filter, Filters
from ..matching.place_index import Place, PlaceIndex, nearest_first
from ..model.alert import Entry, Untrusted
from ..model.errors import trace
from ..model.languages import choice
from .delivery_flags import Rows
from .flights import Flight, Flights
from .live_alerts import CURRENT, RECIPIENT, LiveAlert, LiveAlerts

logger = logging.getLogger(__name__)

SLICE = 256  # number of rows per turn: about 1.1 ms of writes (`bench fanout`: 4.3 µs each)
NEAREST = 256  # number of rows that go first, in order of distance; sorting all of a million rows would take 77 ms
AGAIN_S, MOST_AGAIN_S = 1.0, 30.0  # pause before an alert is sent again whose sending failed; it doubles


class Recipients(Protocol):
    """The receiving side of the fan-out, which sends alerts to recipients: the hub of sessions, or the push scheduler.

    A *row* is the number of one recipient, a session or a push device.
    """

    def take(self, rows: Rows, alerts: Sequence[LiveAlert], texts: Sequence[int]) -> Sequence[Rows]:
        """Send the current entries of these alerts to the recipients in these rows.

        `texts` has one item for each alert: the index of the text (the language) to send. Return one array for each
        alert: the rows that accepted it. If this raises, nothing was sent to any of them.
        """
        ...

    def drop(self, rows: Rows) -> None:
        """End the connections of these recipients, since it could not be recorded what they were sent.

        They come back and say what they have.
        """
        ...

    def by_age(self, rows: Rows) -> NDArray[np.int64]:
        """Return the indices that sort `rows` (numbers of recipients) by connection time, at least roughly.

        The order is about that of the sockets in the kernel's memory, in which sending is cheaper (ADR 6).
        """
        ...


class FanOut:
    """Decides which alerts are sent to which recipients of this process, and in which order.

    A *row* is the number of one recipient: a WebSocket session or a push device. A *flight* is one alert on its way to
    its recipients. A row is *owed* an alert if it still has to be sent the alert's current entry, which is the newest
    revision or the cancel.
    """

    def __init__(
        self, capacity: int, recipients: Recipients, finished: Callable[[Flight], None] = lambda _flight: None
    ) -> None:
        """Create a fan-out for up to `capacity` recipients. `recipients` is the object that sends alerts to them.

        `finished` is called with each flight (an alert on its way to its recipients) as soon as its last recipient was
        handled. It is not called for a flight that is stopped early (Rule 1).
        """
        self.live = LiveAlerts(capacity)
        self.sends = 0  # how many times a row took an alert or a cancel
        self._recipients = recipients
        self._finished = finished
        self._index = PlaceIndex()
        self._filters = Filters()

        # These lists and columns are indexed by row. Data that is read or written for many rows at once is in columns;
        # objects are in lists.
        self._slots: list[tuple[int, ...]] = [()] * capacity  # where the row's places are in the index
        self.ready = np.zeros(capacity, np.bool_)  # whether a recipient has the row
        self.paused = np.zeros(capacity, np.bool_)  # rows to which nothing is sent at the moment (Rule 3)
        self._may_test = np.zeros(capacity, np.bool_)
        self._filter = np.zeros(capacity, np.int32)
        self._epoch = np.zeros(capacity, np.int64)  # how many recipients have had the row and left
        self._skipped = np.zeros(capacity, np.bool_)  # a flight skipped the row since `take_owed_by` last ran

        # For each row, the alerts whose current entry the row lacks although it is a recipient, and that no flight will
        # send it. The reason may be that its client said it has the alert, that the row was paused, that it declined
        # the alert, or that it may not see the alert now. Every other alert that a recipient lacks is in flight. So
        # `take_owed_by` need not search all live alerts (there may be 100,000).
        self._missed: dict[int, set[LiveAlert]] = {}

        self._free = list(range(capacity - 1, -1, -1))
        self._given_back: list[int] = []  # rows that become free at the next `sweep` (Rule 5)
        self.top = 0  # one more than the highest row ever used: upkeep reads the columns up to here

        self.flights = Flights(capacity)
        self._launched = itertools.count()  # numbers the flights in the order in which they were launched
        self.failures = 0  # number of times that sending to some rows failed unexpectedly
        self._again: dict[LiveAlert, tuple[float, float]] = {}  # alerts whose sending failed: next attempt, its pause

    def __len__(self) -> int:
        return int(np.count_nonzero(self.ready[: self.top]))

    @property
    def places(self) -> int:
        """The total number of places of all recipients."""
        return len(self._index)

    # ---- adding, changing and removing recipients ----------------------------------------------------------------

    def enter(self, places: Sequence[Place], wanted: Filter, *, may_test: bool) -> int:
        """Register a new recipient, and return its row, the number that identifies it in the other methods.

        `may_test` says whether the recipient is sent tests and exercises (R6).
        """
        if not self._free:
            self._clear_rows()
        row = self._free.pop()
        self.top = max(self.top, row + 1)
        self._slots[row] = tuple([self._index.add(row, *place) for place in places])
        self._filter[row] = self._filters.take(wanted)
        self.flights.owed[row] = 0
        self.paused[row] = self._skipped[row] = False
        self._may_test[row] = may_test
        self.ready[row] = True
        return row

    def leave(self, row: int) -> None:
        """Remove the recipient in this row, and delete its places at once.

        The row can be reused after the next `sweep` (Rule 5). After an unexpected error this can be called again.
        """
        if not self.ready[row]:
            return
        self.flights.owed[row] = 0
        self._epoch[row] += 1
        self._missed.pop(row, None)
        while slots := self._slots[row]:
            self._index.remove(slots[-1])
            self._slots[row] = slots[:-1]
        self._filters.give_back(int(self._filter[row]))
        self.ready[row] = False
        self._given_back.append(row)

    def move(self, row: int, places: Sequence[Place]) -> None:
        """Replace the places of the recipient in this row.

        The caller must call `take_owed_by` next (example for Rule 2).
        """
        old = self._slots[row]
        for slot, place in zip(old, places, strict=False):
            self._index.move(slot, *place)
        for slot in old[len(places) :]:
            self._index.remove(slot)
        added = (self._index.add(row, *place) for place in places[len(old) :])
        self._slots[row] = (*old[: len(places)], *added)

    def first_place(self, row: int) -> Place | None:
        """Return the first place of the recipient in this row, or None if it has no place.

        A place is a latitude and a longitude in degrees, and a reach in metres.
        """
        slots = self._slots[row]
        if not slots:
            return None
        point, reach_m = self._index.place(slots[0])
        return (*lat_lng(point), reach_m)

    def set_filter(self, row: int, wanted: Filter) -> None:
        """Replace the filter of the recipient in this row."""
        self._filters.give_back(int(self._filter[row]))
        self._filter[row] = self._filters.take(wanted)

    def filter_of(self, row: int) -> Filter:
        """Return the filter of the recipient in this row."""
        return self._filters[int(self._filter[row])]

    def set_rights(self, row: int, *, may_test: bool) -> None:
        """Set whether the recipient in this row is sent tests and exercises from now on (R6)."""
        self._may_test[row] = may_test

    def trust_holding(self, row: int, holding: Mapping[str, int], now: Now) -> None:
        """Record which revisions the recipient in this row has, according to its client (R5).

        `holding` maps alert ids to revisions.

        From now on the row counts as a recipient of each of these alerts. So it is sent newer revisions and the cancel,
        wherever its places are. Example: a phone was sent revision 1 by node A and reconnects to node B, where revision
        2 is current. B sends it revision 2 even if the phone has left the area meanwhile. If B has not read the alert
        from the log yet, B remembers the client's statement, and `launch` applies it later.
        """
        unread = {}
        for alert_id, held in holding.items():
            alert = self.live.find(alert_id, now)
            if alert is None or held > alert.number:  # it may end here before the entry that extends it is read
                unread[alert_id] = held
            if alert is not None and self.may_see(row, alert):
                alert.trust_holding(row, held)
                self._miss(row, alert)
        if unread:
            self.live.holdings.remember(row, int(self._epoch[row]), unread, now)

    def may_see(self, row: int, alert: LiveAlert) -> bool:
        """Return whether the recipient in this row may be sent the alert.

        Tests and exercises are restricted to some recipients (R6).
        """
        return not alert.restricted or bool(self._may_test[row])

    # ---- the messages to send to one row (a session) -------------------------------------------------------------

    def pause(self, row: int) -> None:
        """Stop sending alerts to the recipient in this row until `resume` is called (Rule 3)."""
        self.paused[row] = True

    def resume(self, row: int) -> bool:
        """Resume sending alerts to the recipient in this row.

        Return True if an alert was withheld from the recipient meanwhile. Then the caller must call `take_owed_by`.
        """
        self.paused[row] = False
        return bool(self._skipped[row])

    def take_owed_by(self, row: int, now: Now) -> list[LiveAlert]:
        """Return the alerts that the caller must now send to the recipient in this row, in the right order.

        Cancels come first, then revisions from the most to the least severe. No fan-out in progress will send the
        recipient any of these alerts. Therefore the caller must immediately report which of them the recipient took
        (`note_taken`) or declined (`note_declined`).
        """
        flights = self.flights
        candidates = {*self._missed.get(row, ()), *[flight.alert for flight in (*flights.flying, *flights.waiting)]}
        found = {alert for alert in candidates if alert.lacks(row)}
        unseen = [alert for alert in found if not self.may_see(row, alert)]
        for slot in self._slots[row]:
            found.update(self.live.areas.containing(*self._index.place(slot)))
        owed: list[LiveAlert] = []
        if found:
            wanted = self.filter_of(row)
            owed = [
                alert
                for alert in found
                if not alert.ended(now) and self.may_see(row, alert) and _is_owed(alert, row, wanted)
            ]
            owed.sort(key=lambda alert: (alert.cancel is None, -alert.rank, alert.order))
        # Only now, so that an error before loses nothing. If the recipient may not see an alert now, the alert is
        # recorded as missed again: the client's next token may allow it.
        flights.owed[row] = 0
        self._skipped[row] = False
        self._missed.pop(row, None)
        if unseen:
            self._missed[row] = set(unseen)
        return owed

    def note_taken(self, row: int, alerts: Sequence[LiveAlert]) -> None:
        """Record that the recipient in this row accepted the current entries of these alerts."""
        for alert in alerts:
            alert.mark_sent_to(row)
        self.sends += len(alerts)

    def note_declined(self, row: int, alert: LiveAlert) -> None:
        """Record that the recipient in this row does not take the current entry of an alert now (Rule 4)."""
        self._skipped[row] = True
        if alert.flags(row) & RECIPIENT:  # a recipient has to be sent it wherever its places are
            self._miss(row, alert)

    def retract(self, row: int, alert: LiveAlert, number: int, *, recipient: bool) -> None:
        """Undo the record that the recipient in this row was sent an entry, because the sending has or may have failed.

        `number` is the entry's revision number. `recipient` says whether the row remains a recipient of the alert,
        because it has an older revision, or because the entry may have arrived. Example: a push service answers 503,
        and the device still shows revision 1.
        """
        self._skipped[row] = True
        alert.retract(row, number, recipient=recipient)
        if recipient:
            self._miss(row, alert)

    def _miss(self, row: int, alert: LiveAlert) -> None:
        """Record that the recipient in this row has an earlier entry of an alert, and lacks the current one.

        No fan-out in progress will send it the entry, but the next call of `take_owed_by` returns the alert.
        """
        missed = self._missed.setdefault(row, set())
        if len(missed) % 64 == 63:  # now and then forget alerts that are gone, so that the set doesn't only grow
            missed.difference_update([each for each in missed if each.gone])
        missed.add(alert)

    # ---- sending alerts, some rows in each turn of the event loop ------------------------------------------------

    def deliver(self, entry: Entry | Untrusted, now: Now) -> None:
        """Apply an entry of the log to the live alerts, and queue it for sending by `turn`.

        Recipients that enter later are sent the alert when they enter.
        """
        try:
            alert = self.live.apply(entry, now)
            self.flights.drop_stale(now)
            if alert is not None:
                self.launch(alert, now)
        except Exception:  # perhaps the alert has changed, and is not on its way
            if (applied := self.live.find(entry.id, now)) is not None:
                self._send_again(applied, now)
            raise

    def launch(self, alert: LiveAlert, now: Now) -> bool:
        """Queue an alert's current entry for sending to all recipients that should have it and don't.

        Return False if nothing was queued, because there is no recipient.
        """
        flight = Flight(alert, next(self._launched), now)
        if len(self._free) + len(self._given_back) == len(self._slots):  # no row is in use yet or any more
            self._finished(flight)
            alert.pack()
            return False
        for row, epoch, held in self.live.holdings.take(alert.id, alert.number):
            if epoch == self._epoch[row] and self.may_see(row, alert):
                alert.trust_holding(row, held)
        self.flights.wait(flight)
        return True

    def turn(self, now: Now, rows: int | None = None) -> bool:
        """Send an alert to the next `rows` of its recipients (by default SLICE): usually the most urgent alert.

        Before that, start the most urgent of the alerts that wait to be started. Return whether anything remains to be
        sent by further calls.
        """
        size = SLICE if rows is None else rows
        self.flights.drop_stale(now)
        self._start(now)
        if self.flights.flying:
            flight = self.flights.next()
            if flight.next < NEAREST:
                size = min(size, NEAREST - flight.next)
            elif not flight.has_order:
                flight.has_order = True  # first, so that an error here happens once
                self._order_rest(flight)
            if len(flight.rows):
                these = flight.rows[flight.next : flight.next + size]
                try:
                    for group, alerts in self._take_owed(these):
                        self._send(group, alerts)
                except Exception as error:
                    self._send_apart(these, error, now)
            flight.next += size
            if flight.next >= len(flight.rows):
                self.flights.end(flight)
                if self._again.get(flight.alert, (0.0, 0.0))[0] == float("inf"):
                    del self._again[flight.alert]  # this time it went well
                self._finished(flight)
                flight.alert.pack()
            else:
                failpoints.hit("in-fan-out")
        return self.flights.busy

    def _order_rest(self, flight: Flight) -> None:
        """Put the recipients that have not been sent the alert yet in the order in which sending is cheapest.

        This happens only when the nearest ones have been sent it, so that these wait 0.2 ms less (`bench urgent`).
        """
        rest = flight.rows[flight.next :]
        flight.rows[flight.next :] = rest[self._recipients.by_age(rest)]

    def _send(self, rows: Rows, alerts: list[LiveAlert]) -> None:
        """Send all of these alerts to each of these rows (recipients), and record which it accepted.

        Alerts that a recipient did not accept are recorded as declined (Rules 2 and 4).

        If this raises, each row that was sent an alert has its flags, or was dropped. So no row is sent it twice.
        """
        for part, texts in self._by_language(rows, alerts):
            accepted = self._recipients.take(part, alerts, texts)
            try:
                for alert, took in zip(alerts, accepted, strict=True):
                    if len(took) < len(part):
                        for row in np.setdiff1d(part, took, assume_unique=True).tolist():
                            self.note_declined(row, alert)
                    if len(took):
                        alert.mark_sent(took)
                        self.sends += len(took)
            except Exception:
                self._recipients.drop(part)
                raise

    def _send_apart(self, rows: Rows, error: Exception, now: Now) -> None:
        """Send these rows (recipients) each alert by itself, because sending several to all of them has failed.

        An alert that fails again rests, and is sent later to all rows that lack it then, so that no row is missed.
        """
        self._count_failure(error)
        for flight in list(self.flights.flying):
            try:
                alert = flight.alert
                these = rows[np.isin(rows, flight.rows) & self.ready[rows] & self._visible(rows, alert)].tolist()
                owed = np.array([row for row in these if _is_owed(alert, row, self.filter_of(row))], np.int32)
                paused = self.paused[owed]
                self.flights.owed[owed] &= ~flight.bit
                for row in owed[paused].tolist():
                    self.note_declined(row, alert)
                if not paused.all():
                    self._send(owed[~paused], [alert])
            except Exception as again:
                self._send_again(flight.alert, now)
                self._count_failure(again)
                self.flights.owed[flight.rows] &= ~flight.bit
                flight.rows, flight.next = flight.rows[:0], 0

    def _count_failure(self, error: Exception) -> None:
        self.failures += 1
        logger.error("sending alerts failed; trying again: %s", trace(error))

    def _send_again(self, alert: LiveAlert, now: Now) -> None:
        """Have `sweep` send an alert again after a pause, to all rows that lack it then."""
        due, before_s = self._again.get(alert, (0.0, AGAIN_S / 2))
        if not now.monotonic < due < float("inf"):  # otherwise it was noted for another slice
            pause_s = min(2 * before_s, MOST_AGAIN_S)
            self._again[alert] = now.monotonic + pause_s, pause_s

    def failing(self) -> int:
        """Return how many alerts could not be sent to all of their recipients, and are to be sent again."""
        return len(self._again)

    def _by_language(self, rows: Rows, alerts: list[LiveAlert]) -> Iterator[tuple[Rows, tuple[int, ...]]]:
        """Group these rows (recipients) by the languages in which they are sent the alerts.

        Yield each group with a tuple of indices, one for each alert: the index of the text to send to the group.
        """
        if not any(alert.languages for alert in alerts):
            yield rows, (0,) * len(alerts)
            return
        numbers, which = np.unique(self._filter[rows], return_inverse=True)
        wanted = [self._filters[number].languages for number in numbers.tolist()]
        texts = [tuple(choice(tags, alert.languages) for alert in alerts) for tags in wanted]
        for these in dict.fromkeys(texts):
            yield rows[np.array([each == these for each in texts])[which]], these

    def _take_owed(self, rows: Rows) -> Iterator[tuple[Rows, list[LiveAlert]]]:
        """Group these rows (recipients): all rows that still have to be sent the same alerts are in one group.

        Yield each group with its alerts, whose bits are cleared for all of the rows. Paused rows are in no group (Rule
        3).
        """
        words = self.flights.take_owed(rows)
        paused = self.paused[rows]
        if paused.any():
            self._skip_paused(rows[paused], words[paused])
        go = (words != 0) & ~paused
        rows, words = rows[go], words[go]
        # Nearly always all rows have to be sent the same alerts. This case is tested first, because `np.unique` and the
        # comparisons take a third of the time of everything else that is done for a slice (except the writes).
        same = len(words) == 0 or bool((words == words[0]).all())
        for word in words[:1] if same else np.unique(words):
            alerts = [flight.alert for flight in self.flights.flying if flight.bit & word]
            yield rows if same else rows[words == word], alerts

    def _skip_paused(self, rows: Rows, words: NDArray[np.uint64]) -> None:
        """Record that these paused rows (recipients) were skipped, and which newer entries they lack (Rule 3).

        `words` has one value for each row; its bits say which alerts the row still had to be sent. An alert is recorded
        only if the row has an earlier entry of it. Other alerts need no record, because `take_owed_by` finds them by
        the row's places.
        """
        self._skipped[rows[words != 0]] = True
        for flight in self.flights.flying:
            late = rows[words & flight.bit != 0]
            for row in late[flight.alert.flags_of(late) & RECIPIENT != 0].tolist():
                self._miss(row, flight.alert)

    # ---- finding the recipients ----------------------------------------------------------------------------------

    def _start(self, now: Now) -> None:
        """Start to send the most urgent of the waiting alerts, unless no bit is free for it."""
        flight = self.flights.take_waiting(now)
        if flight is None:
            return
        try:
            flight.rows = self._rows_of(flight.alert)
            if len(flight.rows):
                flight.alert.expect(flight.rows)
            self.flights.start(flight)
        except Exception:
            self._send_again(flight.alert, now)
            raise

    def _rows_of(self, alert: LiveAlert) -> Rows:
        """Return the rows (recipients) to which an alert's current entry must be sent, as a new array.

        First come the rows with a place inside the area that lack the revision, and whose filter and rights let the
        alert through. The nearest NEAREST of them are at the front, sorted by distance. Then come the other recipients
        of earlier revisions: they are sent newer revisions and the cancel wherever they are, whatever their filter
        says.
        """
        recipients = alert.recipients()
        if len(recipients):  # a new alert has no recipients: nearly all alerts concern no row of this process
            recipients = self._ready_recipients(recipients, alert)
        if alert.cancel is not None:
            return recipients
        rows, distance_m = self._index.match(alert.revision.alert.shapes)
        if len(rows) == 0:
            return recipients
        passing = self._filters.passing(alert.category, alert.rank)
        applies = passing[self._filter[rows]] & self._visible(rows, alert) & (alert.flags_of(rows) & CURRENT == 0)
        rows, distance_m = rows[applies], distance_m[applies]
        rows = nearest_first(rows, distance_m, NEAREST)
        if len(recipients) == 0:
            return rows
        return np.concatenate([rows, np.setdiff1d(recipients, rows, assume_unique=True)])

    def _ready_recipients(self, rows: Rows, alert: LiveAlert) -> Rows:
        """Return those of the given rows (recipients) that are in use and may see the alert.

        If a row is in use but may not see the alert now, record that the row lacks it.
        """
        rows = rows[self.ready[rows]]
        visible = self._visible(rows, alert)
        for row in rows[~visible].tolist():
            self._miss(row, alert)
        return rows[visible]

    def _visible(self, rows: Rows, alert: LiveAlert) -> NDArray[np.bool_]:
        return self._may_test[rows] if alert.restricted else np.ones(len(rows), np.bool_)

    # ---- periodic work -------------------------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Forget alerts that have ended, and let new recipients use the rows of recipients that have left.

        Call this method twenty times a second. A wrong wall clock may have made alerts look as if they had ended. If
        they are live after all, this method starts to send them.
        """
        self.live.expire(now, lambda alert: self.launch(alert, now))
        if self._again:
            self._launch_again(now)
        self.live.holdings.expire(now)
        self._clear_rows()

    def _launch_again(self, now: Now) -> None:
        """Start to send the alerts again whose sending failed and is due. What has ended is forgotten."""
        for alert, (due, pause_s) in list(self._again.items()):
            if alert.gone:
                del self._again[alert]
            elif now.monotonic >= due:
                self._send_again(alert, now)  # if the next line fails
                if self.launch(alert, now):
                    self._again[alert] = float("inf"), pause_s  # until the flight has ended, or fails
                else:
                    del self._again[alert]

    def _clear_rows(self) -> None:
        if self._given_back:
            self.live.forget(np.array(self._given_back, np.int32))
            self._free.extend(self._given_back)
            self._given_back.clear()


def _is_owed(alert: LiveAlert, row: int, wanted: Filter) -> bool:
    """Return whether the recipient in this row still has to be sent the alert's current entry.

    The caller guarantees that the row has an earlier entry, or a place in the alert's area. `wanted` is the filter of
    the recipient.
    """
    flags = alert.flags(row)
    if alert.cancel is not None:
        return bool(flags & RECIPIENT)
    if flags & CURRENT:
        return False
    return bool(flags & RECIPIENT) or wanted.passes(alert.category, alert.rank)
