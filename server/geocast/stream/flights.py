"""The flights: the alerts that are on their way to recipients, and the order in which they are sent.

A *row* is the number of one recipient. A *flight* is one entry of an alert on its way to its rows. `fanout` finds the
rows and sends to them. This module decides which flight is sent next, and when a flight ends.

Rule 1  A flight is known by one of 64 bits. A word for each row has the bits of the flights that still have to be sent
        to the row (`owed`). The bit of a flight that has ended leaves `_alive`, and a bit that is not in `_alive` sends
        nothing.
Rule 2  A flight without a bit waits. The most urgent one starts as soon as a bit is free.
Rule 3  The most urgent flight is sent first. Of equally severe ones, one that has just begun gets every other turn.
"""

import itertools
from collections.abc import Iterable
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from ..clock import Now
from ..model.alert import EXTREME
from .delivery_flags import Rows
from .live_alerts import LiveAlert

# An alert that has been sent to fewer rows than this gets every other turn, even if an earlier one of its severity is
# not finished. So an alert for a neighbourhood does not wait for one for a city, which takes 0.1 s (`bench storm`).
HEAD_START = 1024
FLIGHTS = 64  # how many alerts (flights) can be sent at a time: each occupies one bit of a 64-bit word
# How many of these bits may be occupied by alerts below `extreme`. The other 8 are kept for extreme alerts, so that the
# sending of an extreme alert starts at once even while 56 minor alerts are being sent.
FLIGHTS_BELOW_EXTREME = 56

# The sort key of a flight: minus the severity's rank, whether the entry is a revision rather than a cancel, and the
# order of arrival. The smallest key is sent first.
Urgency = tuple[int, bool, int]


class Flight:
    """One entry (a revision or cancel of an alert) on its way to its recipients.

    Only 64 flights can be sent at a time, because each of them needs one of 64 bits. A flight waits for a free bit, is
    then sent in slices of recipients, and is finished after the last slice. `number` is the entry's revision number; it
    is stored because the alert may get a newer entry meanwhile. `rows` are the numbers of the recipients. Until sending
    starts, `rows` is empty and `bit` is 0. `next` is the index in `rows` of the next recipient. `has_order` says
    whether the rows after the nearest ones are in the order of sending. `delivered` is the time at which
    `FanOut.deliver` received the entry.
    """

    __slots__ = ("alert", "bit", "delivered", "has_order", "next", "number", "rows", "urgency")

    def __init__(self, alert: LiveAlert, order: int, now: Now) -> None:
        self.alert = alert
        self.number = alert.number
        # The urgency is never computed again, because the order in a heap must stay valid. (The alert's severity may
        # change meanwhile.)
        self.urgency: Urgency = (-alert.rank, alert.cancel is None, order)
        self.delivered = now
        self.rows: Rows = np.empty(0, np.int32)
        self.next = 0
        self.has_order = False
        self.bit = np.uint64(0)

    def __lt__(self, other: "Flight") -> bool:
        """Order flights by severity (the most severe first), then cancels before revisions, then by arrival."""
        return self.urgency < other.urgency

    def current(self, now: Now) -> bool:
        """Return whether the entry may still be sent.

        It may if it is the newest entry of its alert and the alert has not ended.
        """
        return self.number == self.alert.number and not self.alert.ended(now)


class Flights:
    """All flights of a process: those that are being sent, and those that wait for one of 64 bits.

    The most urgent flight is first in both lists, `flying` (sorted) and `waiting` (a heap). `owed` has a word for each
    row: its bits are those of the flights that will send the row an alert.
    """

    def __init__(self, capacity: int) -> None:
        """Create the object without flights, for the rows (recipients) 0 to `capacity` - 1."""
        self.flying: list[Flight] = []
        self.waiting: list[Flight] = []
        self.owed = np.zeros(capacity, np.uint64)
        self._newest_waiting: dict[LiveAlert, Flight] = {}  # the newest waiting flight of each alert
        self._bits = [np.uint64(1 << n) for n in range(FLIGHTS)]  # bits that no flight has
        self._alive = np.uint64(0)  # all bits that a flight has (Rule 1)
        self._is_even = False  # whether the number of turns so far is even; see `next`

    @property
    def busy(self) -> bool:
        """Whether an alert is being sent, or waits for it."""
        return bool(self.flying or self.waiting)

    def most_urgent(self) -> Urgency | None:
        """Return the urgency of the most urgent alert that remains to be sent, or None if there is none."""
        return min((flight.urgency for flight in (*self.flying[:1], *self.waiting[:1])), default=None)

    def oldest_s(self, now: Now) -> float:
        """Return for how long the oldest alert that is still being sent has been waiting or under way, in seconds.

        Return 0 if no alert is being sent. The time counts from the call of `FanOut.deliver`.
        """
        flights = [*self.flying, *self.waiting]
        return max((now.monotonic - flight.delivered.monotonic for flight in flights), default=0.0)

    def in_flight(self, rows: slice) -> NDArray[np.bool_]:
        """Return whether an alert is being sent to each of these rows (recipients), as an array of bool.

        `rows` is a range of rows.
        """
        in_flight: NDArray[np.bool_] = self.owed[rows] & self._alive != 0
        return in_flight

    def wait(self, flight: Flight) -> None:
        """Let a new flight (an alert to be sent) wait for a bit, instead of earlier flights of the alert."""
        alert = flight.alert
        if alert in self._newest_waiting and self._newest_waiting[alert].number == alert.number:
            return  # the flight that already waits will find its rows when it starts
        # If the alert was suspended briefly, an earlier flight of the same entry may still be running. Rows that asked
        # for their alerts meanwhile were not sent this alert, and they were removed from that flight. So start again.
        self._stop([flight for flight in self.flying if flight.alert is alert])
        self._newest_waiting[alert] = flight
        heappush(self.waiting, flight)

    def take_waiting(self, now: Now) -> Flight | None:
        """Remove the most urgent of the waiting flights (alerts to be sent), and return it for `start`.

        Return None if none waits, or if no bit is free for it. Waiting flights with outdated entries are dropped.
        """
        while self.waiting and not self.waiting[0].current(now):
            self._stop_waiting()
        return self._stop_waiting() if self.waiting and self._has_bit_for(self.waiting[0]) else None

    def _stop_waiting(self) -> Flight:
        """Remove the most urgent flight (an alert to be sent) from the queue of waiting flights, and return it."""
        flight = heappop(self.waiting)
        if self._newest_waiting.get(flight.alert) is flight:
            del self._newest_waiting[flight.alert]
        return flight

    def _has_bit_for(self, flight: Flight) -> bool:
        kept = 0 if flight.alert.rank == EXTREME else FLIGHTS - FLIGHTS_BELOW_EXTREME
        return len(self._bits) > kept

    def start(self, flight: Flight) -> None:
        """Give a bit to a flight (an alert to be sent), and set the bit for all of its rows (recipients)."""
        flight.bit = self._bits.pop()
        self._alive |= flight.bit
        self.owed[flight.rows] |= flight.bit
        self.flying.append(flight)
        self.flying.sort()

    def next(self) -> Flight:
        """Return the flight (the alert to be sent) whose turn it is. There must be one with a bit.

        It is the most urgent one, except that in every other turn it is the first one of the same severity that was
        sent to fewer than HEAD_START rows.
        """
        first = self.flying[0]
        self._is_even = not self._is_even
        if self._is_even:
            return first
        equal = itertools.takewhile(lambda flight: flight.urgency[:2] == first.urgency[:2], self.flying)
        return next((flight for flight in equal if flight.next < HEAD_START), first)

    def take_owed(self, rows: Rows) -> NDArray[np.uint64]:
        """Return the words of these rows (recipients) without the bits of flights that have ended, and clear them."""
        words: NDArray[np.uint64] = self.owed[rows] & self._alive
        self.owed[rows] = 0
        return words

    def drop_stale(self, now: Now) -> None:
        """Stop sending entries that are superseded, cancelled or expired. Call this before every slice."""
        self._stop([flight for flight in self.flying if not flight.current(now)])

    def _stop(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            self.owed[flight.rows[flight.next :]] &= ~flight.bit
            self.end(flight)

    def end(self, flight: Flight) -> None:
        """End a flight, whose alert was sent to all of its rows (recipients) or is not sent to the others."""
        self.flying.remove(flight)
        self._alive &= ~flight.bit
        self._bits.append(flight.bit)
