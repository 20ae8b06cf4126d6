"""This process's sessions, and the fan-out: `deliver` takes an entry in, `turn` matches, encodes and writes it.

Theory of operation. A session is a row of columns. An alert that is being sent is a *flight*: a list of rows and one
of 64 bits. Three ideas carry everything:

1.  `owed[row]` is a word with one bit for each flight that the row is still owed. This word is the truth; a flight's
    list of rows is only a hint where to look.
2.  A turn takes the next SLICE rows of the most severe flight and sends each of them *all* that it is owed, in one
    write. So no alert is held back in order to be sent together with another, and yet a row that is owed three alerts
    gets one write; and an extreme alert overtakes the rest of a minor one at the next slice. One write is done for each
    session. Everything else is done for each slice.
3.  What a session is owed can always be computed again from `flags` (stream/live_alerts.py), its places and its filter:
    `reply_with_owed` does so after hello, move, filter and token, `on_drained` when a slow client has taken all. There
    is no queue per session: a slow client is a late joiner. Neither looks at more than the alerts that hold one of its
    places, those in flight, and those that were noted for its row when a flight passed it over (`_miss`).

Rule 1  A flight is for the current revision (or the cancel) of an alert. A newer entry grounds it at once, and so
        does the alert's end: its bit leaves `alive`, and what is owed but not alive is not sent.
Rule 2  A row is marked as told in the same slice in which its frame is handed to its transport, not when it matches.
        So between two slices `flags` are exactly what was sent, whatever a session does then.
Rule 3  A slow row (its transport has unsent bytes) is sent nothing. What it is owed is cleared; when the transport has
        sent all, `on_drained` computes it anew.
Rule 4  `reply_with_owed` clears what the row was owed and sends what it is owed now, behind its reply and in the same
        write: what comes before `ok` was judged by the old places, filter and token; what comes after, by the new.
Rule 5  A row that is given back is used again only when `flags` count no more for it (`sweep`).
Rule 6  Where there are calls, the call hub (calls/hub.py) says who is owed something of them. It is written before the
        flights, and in `reply_with_owed` and `on_drained` before the alerts. Without calls nothing of this is done.

The hub knows no clock, no socket and no asyncio. The time is passed in; a transport is its `write` and the number of
its socket. All calls come from one thread and none is interrupted by another: that is why Rules 2 and 4 are simple.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import failpoints
from ..alertlog import Counts
from ..calls.hub import CallHub
from ..calls.messages import standdown_message
from ..clock import Now
from ..matching.filters import Filter, Filters
from ..matching.place_index import PlaceIndex, nearest_first
from ..model import close_codes
from ..model.alert import EXTREME, Entry, Untrusted
from ..model.call import SeatState
from ..model.close_codes import Close
from ..model.languages import choice
from ..wire.frames import PING, WIRES, Wire, encode
from .delivery_flags import Rows
from .live_alerts import CURRENT, RECIPIENT, LiveAlert, LiveAlerts
from .session import HEARTBEAT_S, Peer, Place, Rights

SLICE = 256  # rows of a turn: about 1.1 ms of writes (`bench fanout`: 4.3 µs each)
CALLS_SLICE = 64  # … that are written to for calls, one by one: also about 1 ms
NEAREST = 256  # rows that go first, in order of distance; to sort all of a million would take 77 ms
FLIGHTS = 64  # one for each bit of a word
FLIGHTS_BELOW_EXTREME = 56  # bits that alerts below `extreme` may take; the rest is kept for extreme ones
QUIET_S = 15.0  # a connection from which no byte came for so long beyond the heartbeat is pinged,
SILENCE_S = 35.0  # and for so long beyond it, dropped: it has had the rest to answer
SLOW_S = 30.0  # a session whose transport has had unsent bytes for so long is closed with 4420
LOOK_S = 0.2  # between looks at the times of all sessions; a look takes 200 µs for 20,000 of them
PINGS = 512  # pings written at one look: about 2 ms of writes


SendToMany = Callable[[NDArray[np.int32], bytes], NDArray[np.int32]]  # (descriptors, data) -> bytes sent to each


class Flight:
    """One entry on its way to the rows that it concerns: first it waits for a bit, then it flies, then it lands.

    `number` is the entry's own, since the alert may get a newer entry meanwhile. `rows` is empty and `bit` is 0 until
    the flight starts; `next` is the index of the first row that no turn has looked at.
    """

    __slots__ = ("alert", "bit", "delivered", "next", "number", "rows", "urgency")

    def __init__(self, alert: LiveAlert, order: int, now: Now) -> None:
        self.alert = alert
        self.number = alert.number
        # The place in the heap is fixed here: the alert's own severity may change while the flight waits in it.
        self.urgency = -alert.rank, alert.cancel is None, order
        self.delivered = now
        self.rows: Rows = np.empty(0, np.int32)
        self.next = 0
        self.bit = np.uint64(0)

    def __lt__(self, other: "Flight") -> bool:
        """The more severe goes first; of two that are as severe, a cancel; of two cancels or revisions, the earlier."""
        return self.urgency < other.urgency

    def current(self, now: Now) -> bool:
        """Whether its entry may still be sent: it is the newest of its alert, which has not ended (Rule 1)."""
        return self.number == self.alert.number and not self.alert.ended(now)


class Hub:
    """The sessions of this process and the alerts that are being sent to them. The module tells how it works."""

    def __init__(
        self,
        capacity: int,
        finished: Callable[[Flight], None] = lambda _flight: None,
        send: SendToMany | None = None,
        heartbeat_s: int = HEARTBEAT_S,
        calls: CallHub | None = None,
    ) -> None:
        """`capacity`: how many sessions there may be at once; `calls`: who is sent what of calls, if there are any.

        `finished` is called with each flight that has been through all its rows, at its last slice. `send` sends one
        frame to many sockets at once. What it doesn't send whole is left to the transports; without it, everything is.
        A session is pinged when nothing was written to it for `heartbeat_s`, and told so.
        """
        self.live = LiveAlerts(capacity)
        self.heartbeat_s = heartbeat_s
        self.sends = 0  # frames of alerts and cancels handed to transports
        self._finished = finished
        self._send = send
        self._calls = calls
        self._index = PlaceIndex()
        self._filters = Filters()

        # By row. What is read or written for many rows at once is in columns; objects are in lists.
        self._writes: list[Callable[[bytes], None]] = [_nowhere] * capacity
        self._peers: list[Peer | None] = [None] * capacity
        self._slots: list[tuple[int, ...]] = [()] * capacity  # of its places in the index
        self._descriptors = np.full(capacity, -1, np.int32)
        self._ready = np.zeros(capacity, np.bool_)
        self._slow = np.zeros(capacity, np.bool_)
        self._may_test = np.zeros(capacity, np.bool_)
        self._wire = np.zeros(capacity, np.uint8)
        self._filter = np.zeros(capacity, np.int32)
        self._epoch = np.zeros(capacity, np.int64)  # how many sessions have had the row
        self._owed = np.zeros(capacity, np.uint64)
        self._last_write = np.zeros(capacity)
        self._last_read = np.zeros(capacity)
        self._last_ping = np.zeros(capacity)
        self._slow_since = np.zeros(capacity)
        self._token_deadline = np.full(capacity, np.inf)

        # By row: alerts of which the session lacks what is current, though it is a recipient and no flight has it for
        # the row. It claimed to hold them, was slow, or may not see them. All others that it lacks are in flight.
        self._missed: dict[int, set[LiveAlert]] = {}

        self._free = list(range(capacity - 1, -1, -1))
        self._given_back: list[int] = []  # rows that are not free before the next `sweep` (Rule 5)
        self._speaking = [0] * len(WIRES)  # how many sessions speak each
        self._top = 0  # all rows that were ever in use are below it; columns are looked at up to here

        self._waiting: list[Flight] = []  # for a bit; a heap, the most urgent first
        self._waits: dict[LiveAlert, Flight] = {}  # the newest of those, by alert
        self._flying: list[Flight] = []  # in order of urgency
        self._bits = [np.uint64(1 << n) for n in range(FLIGHTS)]  # those that no flight has
        self._alive = np.uint64(0)  # those that a flight has (Rule 1)
        self._orders = 0  # flights so far
        self._look_at = 0.0  # the monotonic time of the next look at the times of all sessions

    def __len__(self) -> int:
        return int(np.count_nonzero(self._ready[: self._top]))

    @property
    def busy(self) -> bool:
        """Whether there is anything for `turn` to do."""
        return bool(self._flying or self._waiting) or (self._calls is not None and self._calls.busy)

    @property
    def places(self) -> int:
        """How many places all sessions have together."""
        return len(self._index)

    # ---- sessions ------------------------------------------------------------------------------------------------

    def enter(
        self,
        peer: Peer,
        wire: Wire,
        places: Sequence[Place],
        wanted: Filter,
        rights: Rights,
        holding: Mapping[str, int],
        now: Now,
        here: int | None = None,
    ) -> int:
        """Take a session in. Its first `reply_with_owed` has to follow, at the same `now`. Returns its row.

        `here`: at which of its places the subscriber is now, for calls; None: at none.
        """
        if not self._free:
            self._clear_rows()
        row = self._free.pop()
        self._top = max(self._top, row + 1)
        self._peers[row], self._writes[row], self._descriptors[row] = peer, peer.write, peer.descriptor
        self._slots[row] = tuple(self._index.add(row, *place) for place in places)
        self._wire[row] = wire.number
        self._speaking[wire.number] += 1
        self._filter[row] = self._filters.take(wanted)
        self._owed[row] = 0
        self._slow[row] = False
        self._last_read[row] = self._last_write[row] = self._last_ping[row] = now.monotonic
        self.set_rights(row, rights)
        self._ready[row] = True
        if self._calls is not None:
            self._calls.move(row, None if here is None else places[here])
            self._calls.take_holding(row, holding, now)
        for alert_id, held in holding.items():
            self._trust_holding(row, alert_id, held, now)
        return row

    def leave(self, row: int) -> None:
        """The session is over. Its places are forgotten at once, its row is free after the next `sweep` (Rule 5)."""
        self._ready[row] = False
        self._speaking[self._wire[row]] -= 1
        self._owed[row] = 0
        self._token_deadline[row] = np.inf
        self._epoch[row] += 1
        self._peers[row], self._writes[row], self._descriptors[row] = None, _nowhere, -1
        self._missed.pop(row, None)
        if self._calls is not None:
            self._calls.leave(row)
        self._filters.give_back(int(self._filter[row]))
        for slot in self._slots[row]:
            self._index.remove(slot)
        self._slots[row] = ()
        self._given_back.append(row)

    def move(self, row: int, places: Sequence[Place], here: int | None = None) -> None:
        """The session's places are these now; `here` as for `enter`."""
        old = self._slots[row]
        for slot, place in zip(old, places, strict=False):
            self._index.move(slot, *place)
        for slot in old[len(places) :]:
            self._index.remove(slot)
        added = (self._index.add(row, *place) for place in places[len(old) :])
        self._slots[row] = (*old[: len(places)], *added)
        if self._calls is not None:
            self._calls.move(row, None if here is None else places[here])

    def set_filter(self, row: int, wanted: Filter) -> None:
        """The session's filter is this now."""
        self._filters.give_back(int(self._filter[row]))
        self._filter[row] = self._filters.take(wanted)

    def filter_of(self, row: int) -> Filter:
        """The filter that the session has now."""
        return self._filters[int(self._filter[row])]

    def set_rights(self, row: int, rights: Rights) -> None:
        """The session has a new token: from now on it may see what these rights say, until they end."""
        self._may_test[row] = rights.may_test
        self._token_deadline[row] = rights.deadline
        if self._calls is not None:
            self._calls.set_rights(row, rights)

    def note_read(self, row: int, now: Now) -> None:
        """Bytes came from the session."""
        self._last_read[row] = now.monotonic

    def slowed(self, row: int, now: Now) -> None:
        """The session's transport has unsent bytes (Rule 3)."""
        self._slow[row] = True
        self._slow_since[row] = now.monotonic

    def on_drained(self, row: int, now: Now) -> None:
        """The session's transport has sent all: send what the session is owed now (Rule 3)."""
        self._slow[row] = False
        self._last_read[row] = now.monotonic  # it was not read while it was slow, so its silence proves nothing
        self._send_owed(row, b"".join(self._calls_owed(row, now)), self._owed_now(row, now), now)

    def acknowledge(self, row: int, alert_id: str, revision: int, now: Now) -> None:
        """The session says that it has shown this revision. What it can't have been sent is passed over (M5)."""
        alert = self.live.find(alert_id, now)
        if alert is not None and self._may_see(row, alert):
            alert.acknowledge(row, revision)
        elif alert is None and self._calls is not None:
            self._calls.acknowledge(row, alert_id, revision)

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """The session says that it is going to where a call is from (M18)."""
        if self._calls is None:
            self.reply(row, standdown_message(call_id, "over"), now)
        else:
            self._calls.accept(row, call_id, eta_s, now)
            self._send_calls_to(row, self._calls_owed(row, now), now)

    def decline(self, row: int, call_id: str, now: Now) -> None:  # noqa: ARG002 (as for the others)
        """The session says that it is not going (M19)."""
        if self._calls is not None:
            self._calls.decline(row, call_id)

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """The session says how far it is (M20)."""
        if self._calls is not None:
            self._calls.report(row, call_id, state, now)

    def reply(self, row: int, message: Mapping[str, Any], now: Now) -> None:
        """Send one message to a session."""
        self._last_write[row] = now.monotonic
        self._writes[row](WIRES[self._wire[row]].frame(message))

    def reply_with_owed(self, row: int, reply: dict[str, Any], now: Now) -> None:
        """Send `reply`, with `live` in it, and in the same write all that the session is owed now (Rule 4)."""
        calls, owed = self._calls_owed(row, now), self._owed_now(row, now)
        reply["live"] = len(calls) + len(owed)
        self._send_owed(row, b"".join([WIRES[self._wire[row]].frame(reply), *calls]), owed, now)

    def _send_owed(self, row: int, head: bytes, owed: Sequence[LiveAlert], now: Now) -> None:
        self._owed[row] = 0
        wire = self._wire[row]
        wanted = self.filter_of(row).languages
        data = b"".join([head, *(_frames(alert, choice(wanted, alert.languages))[wire] for alert in owed)])
        if data:
            self._last_write[row] = now.monotonic
            self._writes[row](data)
        for alert in owed:
            alert.mark_sent_to(row)
        self.sends += len(owed)

    def _owed_now(self, row: int, now: Now) -> list[LiveAlert]:
        """What is current and has to be sent to the session: cancels first, then the most severe first."""
        doubtful = self._missed.pop(row, set())
        doubtful.update(flight.alert for flight in (*self._flying, *self._waiting))
        behind = {alert for alert in doubtful if alert.lacks(row)}
        for alert in behind:
            if not self._may_see(row, alert):
                self._miss(row, alert)
        near = {alert for slot in self._slots[row] for alert in self.live.containing(*self._index.place(slot))}
        wanted = self.filter_of(row)
        owed = [
            alert
            for alert in behind | near
            if not alert.ended(now) and self._may_see(row, alert) and _is_owed(alert, row, wanted)
        ]
        return sorted(owed, key=lambda alert: (alert.cancel is None, -alert.rank, alert.order))

    def _miss(self, row: int, alert: LiveAlert) -> None:
        """Note that the session lacks what is current, and that no flight has it for the row."""
        missed = self._missed.setdefault(row, set())
        if len(missed) % 64 == 63:
            missed.difference_update([each for each in missed if each.gone])
        missed.add(alert)

    def _may_see(self, row: int, alert: LiveAlert) -> bool:
        return not alert.restricted or bool(self._may_test[row])

    def _trust_holding(self, row: int, alert_id: str, held: int, now: Now) -> None:
        """Take a session's word that it holds a revision (R5)."""
        alert = self.live.find(alert_id, now)
        if alert is None:
            self.live.remember_holding(alert_id, row, int(self._epoch[row]), held, now)
        elif self._may_see(row, alert):
            alert.trust_holding(row, held)
            self._miss(row, alert)

    # ---- calls ---------------------------------------------------------------------------------------------------

    def _calls_owed(self, row: int, now: Now) -> list[bytes]:
        """All that the session is owed of calls now, as frames."""
        return [] if self._calls is None else self._calls.frames(row, int(self._wire[row]), now)

    def _send_calls(self, call_hub: CallHub, count: int, now: Now) -> None:
        """Send the next rows what they are owed of calls (Rule 6); slow ones nothing (Rule 3)."""
        for row, calls in call_hub.take_noted(count):
            if self._ready[row] and not self._slow[row]:
                self._send_calls_to(row, call_hub.frames(row, int(self._wire[row]), now, calls), now)

    def _send_calls_to(self, row: int, frames: Sequence[bytes], now: Now) -> None:
        if frames:
            self._last_write[row] = now.monotonic
            with contextlib.suppress(RuntimeError):  # the transport has died and will say so at the loop's next turn
                self._writes[row](b"".join(frames))

    # ---- fan-out -------------------------------------------------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted, now: Now) -> None:
        """Take an entry of the log. From now on late joiners get it; `turn` sends it to the sessions that are here."""
        alert = self.live.apply(entry, now)
        self._drop_stale(now)
        if alert is not None:
            self._launch(alert, now)

    def _launch(self, alert: LiveAlert, now: Now) -> None:
        """Send what is current of an alert to all who are owed it."""
        self._orders += 1
        flight = Flight(alert, self._orders, now)
        if len(self._free) + len(self._given_back) == len(self._peers):  # as while a process reads the log at its start
            self._finished(flight)
            alert.pack()
            return
        for row, epoch, held in self.live.take_holdings(alert.id):
            if epoch == self._epoch[row] and self._may_see(row, alert):
                alert.trust_holding(row, held)
        if alert in self._waits and self._waits[alert].number == alert.number:
            return  # its rows are looked for when it starts
        self._recall([flight for flight in self._flying if flight.alert is alert])  # that one left some of them out
        self._waits[alert] = flight
        heappush(self._waiting, flight)

    def turn(self, now: Now, rows: int | None = None) -> bool:
        """Start the most severe flight that waits, then send the next slice. Returns whether there is more to do.

        `rows`: how many of a flight's rows to look at, SLICE if it is left out.
        """
        size = SLICE if rows is None else rows
        if self._calls is not None and self._calls.busy:
            self._send_calls(self._calls, min(size, CALLS_SLICE), now)
            if self._calls.busy:
                return True
        self._drop_stale(now)
        self._start(now)
        if self._flying:
            flight = self._flying[0]
            if len(flight.rows):
                self._send_slice(flight.rows[flight.next : flight.next + size], now)
            flight.next += size
            if flight.next >= len(flight.rows):
                self._end(flight)
                self._finished(flight)
                flight.alert.pack()
            else:
                failpoints.hit("in-fan-out")
        return self.busy

    def _send_slice(self, rows: Rows, now: Now) -> None:
        """Send each row all that it is owed, in one write."""
        for group, alerts in self._take_owed(rows):
            self._last_write[group] = now.monotonic
            for part, texts in self._by_language(group, alerts):
                wires = self._wire[part]
                for number in [each for each, sessions in enumerate(self._speaking) if sessions]:
                    frames = [_frames(alert, text)[number] for alert, text in zip(alerts, texts, strict=True)]
                    self._write(part[wires == number], b"".join(frames))
            for alert in alerts:
                alert.mark_sent(group)
            self.sends += len(alerts) * len(group)

    def _by_language(self, rows: Rows, alerts: list[LiveAlert]) -> Iterator[tuple[Rows, tuple[int, ...]]]:
        """The rows in groups that are sent the same texts of these alerts, and which those are: one of each alert."""
        if not any(alert.languages for alert in alerts):
            yield rows, (0,) * len(alerts)
            return
        numbers, which = np.unique(self._filter[rows], return_inverse=True)
        wanted = [self._filters[number].languages for number in numbers.tolist()]
        texts = [tuple(choice(tags, alert.languages) for alert in alerts) for tags in wanted]
        for these in dict.fromkeys(texts):
            yield rows[np.array([each == these for each in texts])[which]], these

    def _take_owed(self, rows: Rows) -> Iterator[tuple[Rows, list[LiveAlert]]]:
        """The rows in groups that are owed the same, and what that is. They are owed it no more; slow ones lose it."""
        words = self._owed[rows] & self._alive
        self._owed[rows] = 0
        slow = self._slow[rows]
        if slow.any():
            self._miss_all(rows[slow], words[slow])
        go = (words != 0) & ~slow
        rows, words = rows[go], words[go]
        # Nearly always all rows are owed the same. That is looked at first, for to tell groups apart takes a third as
        # long as everything else that is done for a slice (but the writes).
        same = len(words) == 0 or bool((words == words[0]).all())
        for word in words[:1] if same else np.unique(words):
            alerts = [flight.alert for flight in self._flying if flight.bit & word]
            yield rows if same else rows[words == word], alerts

    def _miss_all(self, rows: Rows, words: NDArray[np.uint64]) -> None:
        """Note what slow rows are owed as recipients. (What they are owed for their places is found by these.)"""
        for flight in self._flying:
            late = rows[words & flight.bit != 0]
            for row in late[flight.alert.flags_of(late) & RECIPIENT != 0].tolist():
                self._miss(row, flight.alert)

    def _write(self, rows: NDArray[Any], frame: bytes) -> None:
        """Write `frame` to each row; none of them has unsent bytes.

        First all are sent to at once. What that left, of a row all or the rest, is written by the row's transport.
        """
        if len(rows) == 0:
            return
        sent = np.zeros(len(rows), np.int32) if self._send is None else self._send(self._descriptors[rows], frame)
        left, writes = np.flatnonzero(sent != len(frame)), self._writes
        todo = zip(rows[left].tolist(), np.maximum(sent[left], 0).tolist(), strict=True)
        while True:
            try:
                for row, count in todo:
                    writes[row](frame[count:])
            except RuntimeError:  # this transport has died and will say so at the loop's next turn; `todo` goes on
                continue
            return

    # ---- flights -------------------------------------------------------------------------------------------------

    def oldest_flight(self, now: Now) -> float:
        """Seconds since `deliver` took the oldest entry that is still being sent; 0 if none is."""
        flights = [*self._flying, *self._waiting]
        return max((now.monotonic - flight.delivered.monotonic for flight in flights), default=0.0)

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
        """Take the most severe of the waiting flights."""
        flight = heappop(self._waiting)
        if self._waits.get(flight.alert) is flight:
            del self._waits[flight.alert]
        return flight

    def _has_bit_for(self, flight: Flight) -> bool:
        kept = 0 if flight.alert.rank == EXTREME else FLIGHTS - FLIGHTS_BELOW_EXTREME
        return len(self._bits) > kept

    def _rows_of(self, alert: LiveAlert) -> Rows:
        """The rows to send what is current to: those it applies to, nearest first, then the other recipients."""
        recipients = alert.recipients()
        if len(recipients):  # an alert that is new has none, and nearly all concern nobody here
            recipients = self._ready_recipients(recipients, alert)
        if alert.cancel is not None:
            return recipients
        rows, distance_m = self._index.match(alert.revision.alert.shapes)
        if len(rows) == 0:
            return recipients
        passing = self._filters.passing(alert.category, alert.rank)
        applies = passing[self._filter[rows]] & self._visible(rows, alert) & (alert.flags_of(rows) & CURRENT == 0)
        rows, distance_m = rows[applies], distance_m[applies]
        by_age = np.argsort(self._descriptors[rows])
        rows = nearest_first(rows[by_age], distance_m[by_age], NEAREST)
        if len(recipients) == 0:
            return rows
        return np.concatenate([rows, np.setdiff1d(recipients, rows, assume_unique=True)])

    def _ready_recipients(self, rows: Rows, alert: LiveAlert) -> Rows:
        """Those that are there and may see the alert. Of those that may not it is noted that they lack it."""
        rows = rows[self._ready[rows]]
        see = self._visible(rows, alert)
        for row in rows[~see].tolist():
            self._miss(row, alert)
        return rows[see]

    def _visible(self, rows: Rows, alert: LiveAlert) -> NDArray[np.bool_]:
        return self._may_test[rows] if alert.restricted else np.ones(len(rows), np.bool_)

    def _drop_stale(self, now: Now) -> None:
        """End the flights that carry what is superseded, cancelled or expired (Rule 1)."""
        self._recall([flight for flight in self._flying if not flight.current(now)])

    def _recall(self, flights: Iterable[Flight]) -> None:
        for flight in flights:
            self._owed[flight.rows[flight.next :]] &= ~flight.bit
            self._end(flight)

    def _end(self, flight: Flight) -> None:
        self._flying.remove(flight)
        self._alive &= ~flight.bit
        self._bits.append(flight.bit)

    # ---- upkeep --------------------------------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Do all that depends on time alone, for all sessions at once. Call it twenty times a second.

        Alerts end at every call; the times of sessions are looked at only every LOOK_S. It may begin a fan-out: of
        alerts that a wrong wall clock had ended.
        """
        for alert in self.live.expire(now):
            self._launch(alert, now)
        self.live.drop_holdings(now)
        self._clear_rows()
        if self._calls is not None:
            self._calls.sweep(now)
        if now.monotonic >= self._look_at:
            self._look_at = now.monotonic + LOOK_S
            self._look(now)

    def _look(self, now: Now) -> None:
        """End the sessions whose time is up, and ping those that are quiet."""
        n, mono = self._top, now.monotonic
        ready, slow = self._ready[:n], self._slow[:n]
        self._close(ready & (self._token_deadline[:n] <= mono), close_codes.BAD_TOKEN)
        self._close(ready & slow & (mono - self._slow_since[:n] >= SLOW_S), close_codes.SLOW)
        silent = ready & ~slow & (mono - self._last_read[:n] >= self.heartbeat_s + SILENCE_S)
        for peer in self._peers_of(np.flatnonzero(silent)):
            peer.abort()
        idle = mono - self._last_write[:n] >= self.heartbeat_s
        # Who is owed something by a flight is about to be written to, which does what a ping would. So a fan-out to
        # very many is not slowed down by the pings of those who wait for it.
        idle &= self._owed[:n] & self._alive == 0
        # A session that is sent an alert every few seconds is never idle, and if it only listens no byte comes from it.
        # It is pinged all the same, so that it can answer before it would be taken for dead.
        quiet = mono - self._last_read[:n] >= self.heartbeat_s + QUIET_S
        quiet &= mono - self._last_ping[:n] >= SILENCE_S - QUIET_S
        pinged = np.flatnonzero(ready & ~slow & (idle | quiet))[:PINGS]
        self._last_write[pinged] = self._last_ping[pinged] = mono
        self._write(pinged, PING)  # in either wire format

    def take_counts(self) -> dict[str, Counts]:
        """What was sent and acknowledged, by alert, since this was last called."""
        return self.live.take_counts()

    def peers(self) -> list[Peer]:
        """The connections of all sessions."""
        return list(self._peers_of(np.flatnonzero(self._ready[: self._top])))

    def slow(self) -> int:
        """How many sessions are slow: their transports have unsent bytes."""
        return int(np.count_nonzero(self._ready[: self._top] & self._slow[: self._top]))

    def _close(self, which: NDArray[np.bool_], close: Close) -> None:
        for peer in self._peers_of(np.flatnonzero(which)):
            peer.close(close)

    def _peers_of(self, rows: Iterable[Any]) -> Iterable[Peer]:
        return [peer for row in rows if (peer := self._peers[int(row)]) is not None]

    def _clear_rows(self) -> None:
        if self._given_back:
            self.live.forget(np.array(self._given_back, np.int32))
            self._free.extend(self._given_back)
            self._given_back.clear()


def _frames(alert: LiveAlert, text: int) -> tuple[bytes, ...]:
    """What is current of an alert, in one of its languages, as one frame for each wire format.

    It is encoded when it is needed for the first time.
    """
    frames = alert.frames.get(text)
    if frames is None:
        frames = alert.frames[text] = encode(alert.current, text)
    return frames


def _is_owed(alert: LiveAlert, row: int, wanted: Filter) -> bool:
    """Whether the session at `row`, which is a recipient or has a place inside, has to be sent what is current."""
    flags = alert.flags(row)
    if alert.cancel is not None:
        return bool(flags & RECIPIENT)
    if flags & CURRENT:
        return False
    return bool(flags & RECIPIENT) or wanted.passes(alert.category, alert.rank)


def _nowhere(_data: bytes) -> None:
    """The `write` of a free row; drops its data."""
