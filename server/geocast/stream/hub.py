"""The WebSocket sessions of this process: who is here, how alerts are written to them, and when a session ends.

`fanout` decides which session is sent which alert; the hub encodes an alert when the first session needs it, and writes
it to sockets. Sessions (stream/session.py) tell the hub what their clients say.

Rule 1  A slow session (its transport has unsent bytes) is paused in the fan-out. When the transport has sent all,
        `on_drained` sends it what it is owed by then.
Rule 2  `reply_with_owed` sends a reply and behind it, in the same write, all that the session is owed now: what comes
        before `ok` was decided by the old places, filter and token; what comes after, by the new.
Rule 3  What the session is owed of calls (calls/port.py) is written before alerts, in a turn and in `on_drained` and
        `reply_with_owed`.

The hub knows no clock, no socket and no asyncio. The time is passed in; a transport is its `write` and the number of
its socket. All calls come from one thread and none is interrupted by another.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..alertlog import Counts
from ..calls.port import Calls, NoCalls
from ..clock import Now
from ..matching.filters import Filter
from ..model import close_codes
from ..model.alert import Entry, Untrusted
from ..model.call import SeatState
from ..model.close_codes import Close
from ..model.languages import choice
from ..wire.frames import PING, WIRES, Wire, encode
from .delivery_flags import Rows
from .fanout import FanOut, Flight
from .live_alerts import LiveAlert, LiveAlerts
from .session import HEARTBEAT_S, Peer, Place, Rights

CALLS_SLICE = 64  # rows of a turn that are written to for calls, one by one: about 1 ms
QUIET_S = 15.0  # a connection from which no byte came for so long beyond the heartbeat is pinged,
SILENCE_S = 35.0  # and for so long beyond it, dropped: it has had the rest to answer
SLOW_S = 30.0  # a session whose transport has had unsent bytes for so long is closed with 4420
LOOK_S = 0.2  # between looks at the times of all sessions; a look takes 200 µs for 20,000 of them
PINGS = 512  # pings written at one look: about 2 ms of writes


SendToMany = Callable[[NDArray[np.int32], bytes], NDArray[np.int32]]  # (descriptors, data) -> bytes sent to each


class Hub:
    """The sessions of this process. The module tells how it works."""

    def __init__(
        self,
        capacity: int,
        finished: Callable[[Flight], None] = lambda _flight: None,
        send: SendToMany | None = None,
        heartbeat_s: int = HEARTBEAT_S,
        calls: Calls | None = None,
    ) -> None:
        """`capacity`: how many sessions there may be at once; `calls`: the calls of this process, if it has any.

        `finished` is called with each flight that has been through all its rows, at its last slice. `send` sends one
        frame to many sockets at once. What it doesn't send whole is left to the transports; without it, everything is.
        A session is pinged when nothing was written to it for `heartbeat_s`, and told so.
        """
        self.heartbeat_s = heartbeat_s
        self._send = send
        self._calls: Calls = NoCalls() if calls is None else calls
        self._fanout = FanOut(capacity, self, finished)

        # By row.
        self._writes: list[Callable[[bytes], None]] = [_nowhere] * capacity
        self._peers: list[Peer | None] = [None] * capacity
        self._descriptors = np.full(capacity, -1, np.int32)
        self._wire = np.zeros(capacity, np.uint8)
        self._last_write = np.zeros(capacity)
        self._last_read = np.zeros(capacity)
        self._last_ping = np.zeros(capacity)
        self._slow_since = np.zeros(capacity)
        self._token_deadline = np.full(capacity, np.inf)

        self._speaking = [0] * len(WIRES)  # how many sessions speak each
        self._now = Now(0, 0.0)  # of the turn
        self._look_at = 0.0  # the monotonic time of the next look at the times of all sessions

    def __len__(self) -> int:
        return len(self._fanout)

    @property
    def live(self) -> LiveAlerts:
        """The live alerts of this process."""
        return self._fanout.live

    @property
    def sends(self) -> int:
        """How many frames of alerts and cancels were handed to transports."""
        return self._fanout.sends

    @property
    def busy(self) -> bool:
        """Whether there is anything for `turn` to do."""
        return self._fanout.busy or self._calls.busy

    @property
    def places(self) -> int:
        """How many places all sessions have together."""
        return self._fanout.places

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
        """Take in a session. Its first `reply_with_owed` has to follow, at the same `now`. Return its row.

        `here`: at which of its places the subscriber is now, for calls; None: at none.
        """
        row = self._fanout.enter(places, wanted, may_test=rights.may_test)
        self._peers[row], self._writes[row], self._descriptors[row] = peer, peer.write, peer.descriptor
        self._wire[row] = wire.number
        self._speaking[wire.number] += 1
        self._last_read[row] = self._last_write[row] = self._last_ping[row] = now.monotonic
        self.set_rights(row, rights)
        self._calls.move(row, None if here is None else places[here])
        self._calls.take_holding(row, holding, now)
        self._fanout.trust_holding(row, holding, now)
        return row

    def leave(self, row: int) -> None:
        """The session is over: forget it, and its places at once."""
        self._speaking[self._wire[row]] -= 1
        self._token_deadline[row] = np.inf
        self._peers[row], self._writes[row], self._descriptors[row] = None, _nowhere, -1
        self._calls.leave(row)
        self._fanout.leave(row)

    def move(self, row: int, places: Sequence[Place], here: int | None = None) -> None:
        """Replace the session's places; `here` as for `enter`."""
        self._fanout.move(row, places)
        self._calls.move(row, None if here is None else places[here])

    def set_filter(self, row: int, wanted: Filter) -> None:
        """Replace the session's filter."""
        self._fanout.set_filter(row, wanted)

    def filter_of(self, row: int) -> Filter:
        """Return the session's filter."""
        return self._fanout.filter_of(row)

    def set_rights(self, row: int, rights: Rights) -> None:
        """Let the session see what these rights say, until they end."""
        self._fanout.set_rights(row, may_test=rights.may_test)
        self._token_deadline[row] = rights.deadline
        self._calls.set_rights(row, rights)

    def note_read(self, row: int, now: Now) -> None:
        """Note that bytes came from the session."""
        self._last_read[row] = now.monotonic

    def slowed(self, row: int, now: Now) -> None:
        """Pause a session whose transport has unsent bytes (Rule 1)."""
        self._fanout.pause(row)
        self._slow_since[row] = now.monotonic

    def on_drained(self, row: int, now: Now) -> None:
        """Resume a session whose transport has sent all: send it what it is owed now (Rule 1)."""
        self._fanout.resume(row)
        self._last_read[row] = now.monotonic  # it was not read while it was slow, so its silence proves nothing
        calls = self._calls.frames(row, int(self._wire[row]), now)
        self._send_owed(row, b"".join(calls), self._fanout.take_owed_by(row, now), now)

    def acknowledge(self, row: int, alert_id: str, revision: int, now: Now) -> None:
        """Count that the session has shown this revision. What it can't have been sent is passed over (M5)."""
        alert = self.live.find(alert_id, now)
        if alert is None:
            self._calls.acknowledge(row, alert_id, revision)
        elif self._fanout.may_see(row, alert):
            alert.acknowledge(row, revision)

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """Take the session's word that it is going to where a call is from (M18)."""
        self._calls.accept(row, call_id, eta_s, now)
        self._send_frames(row, self._calls.frames(row, int(self._wire[row]), now), now)

    def decline(self, row: int, call_id: str, now: Now) -> None:  # noqa: ARG002 (as for the others)
        """Take the session's word that it is not going (M19)."""
        self._calls.decline(row, call_id)

    def report(self, row: int, call_id: str, state: SeatState, now: Now) -> None:
        """Take the session's word how far it is (M20)."""
        self._calls.report(row, call_id, state, now)

    def reply(self, row: int, message: Mapping[str, Any], now: Now) -> None:
        """Send one message to a session."""
        self._last_write[row] = now.monotonic
        self._writes[row](WIRES[self._wire[row]].frame(message))

    def reply_with_owed(self, row: int, reply: dict[str, Any], now: Now) -> None:
        """Send `reply`, with `live` in it, and in the same write all that the session is owed now (Rule 2)."""
        calls = self._calls.frames(row, int(self._wire[row]), now)
        owed = self._fanout.take_owed_by(row, now)
        reply["live"] = len(calls) + len(owed)
        self._send_owed(row, b"".join([WIRES[self._wire[row]].frame(reply), *calls]), owed, now)

    def _send_owed(self, row: int, head: bytes, owed: Sequence[LiveAlert], now: Now) -> None:
        wire = self._wire[row]
        wanted = self._fanout.filter_of(row).languages
        data = b"".join([head, *(_frames(alert, choice(wanted, alert.languages))[wire] for alert in owed)])
        if data:
            self._last_write[row] = now.monotonic
            self._writes[row](data)
        self._fanout.note_taken(row, owed)

    def _send_frames(self, row: int, frames: Sequence[bytes], now: Now) -> None:
        if frames:
            self._last_write[row] = now.monotonic
            with contextlib.suppress(RuntimeError):  # the transport has died and will say so at the loop's next turn
                self._writes[row](b"".join(frames))

    # ---- fan-out -------------------------------------------------------------------------------------------------

    def deliver(self, entry: Entry | Untrusted, now: Now) -> None:
        """Apply an entry of the log. From now on late joiners get it; `turn` sends it to the sessions that are here."""
        self._fanout.deliver(entry, now)

    def turn(self, now: Now, rows: int | None = None) -> bool:
        """Send the next rows what they are owed of calls, then the next slice of alerts. Return whether more is to do.

        `rows`: how many of a flight's rows to look at; a SLICE if it is left out.
        """
        if self._calls.busy:
            self._send_calls(min(rows or CALLS_SLICE, CALLS_SLICE), now)
            if self._calls.busy:
                return True
        self._now = now
        return self._fanout.turn(now, rows)

    def _send_calls(self, count: int, now: Now) -> None:
        """Send the next rows what they are owed of calls (Rule 3); slow ones nothing (Rule 1)."""
        ready, paused = self._fanout.ready, self._fanout.paused
        for row, calls in self._calls.take_noted(count):
            if ready[row] and not paused[row]:
                self._send_frames(row, self._calls.frames(row, int(self._wire[row]), now, calls), now)

    def take(self, rows: Rows, alerts: Sequence[LiveAlert], texts: Sequence[int]) -> Sequence[Rows]:
        """Write to each of these sessions all of these alerts, in one write."""
        self._last_write[rows] = self._now.monotonic
        wires = self._wire[rows]
        for number in [each for each, sessions in enumerate(self._speaking) if sessions]:
            frames = [_frames(alert, text)[number] for alert, text in zip(alerts, texts, strict=True)]
            self._write(rows[wires == number], b"".join(frames))
        return [rows] * len(alerts)

    def by_age(self, rows: Rows) -> NDArray[np.int64]:
        """Return the order of these sessions by the numbers of their sockets."""
        return np.argsort(self._descriptors[rows])

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

    def oldest_flight(self, now: Now) -> float:
        """Return the seconds since `deliver` took the oldest entry that is still being sent; 0 if none is."""
        return self._fanout.oldest_flight(now)

    # ---- upkeep --------------------------------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Do all that depends on time alone, for all sessions at once. Call it twenty times a second.

        Alerts end at every call; the times of sessions are looked at only every LOOK_S. It may begin a fan-out: of
        alerts that a wrong wall clock had ended.
        """
        self._fanout.sweep(now)
        self._calls.sweep(now)
        if now.monotonic >= self._look_at:
            self._look_at = now.monotonic + LOOK_S
            self._look(now)

    def _look(self, now: Now) -> None:
        """End the sessions whose time is up, and ping those that are quiet."""
        n, mono = self._fanout.top, now.monotonic
        ready, slow = self._fanout.ready[:n], self._fanout.paused[:n]
        self._close(ready & (self._token_deadline[:n] <= mono), close_codes.BAD_TOKEN)
        self._close(ready & slow & (mono - self._slow_since[:n] >= SLOW_S), close_codes.SLOW)
        silent = ready & ~slow & (mono - self._last_read[:n] >= self.heartbeat_s + SILENCE_S)
        for peer in self._peers_of(np.flatnonzero(silent)):
            peer.abort()
        idle = mono - self._last_write[:n] >= self.heartbeat_s
        # Who is owed something by a flight is about to be written to, which does what a ping would. So a fan-out to
        # very many is not slowed down by the pings of those who wait for it.
        idle &= ~self._fanout.in_flight(slice(n))
        # A session that is sent an alert every few seconds is never idle, and if it only listens no byte comes from it.
        # It is pinged all the same, so that it can answer before it would be taken for dead.
        quiet = mono - self._last_read[:n] >= self.heartbeat_s + QUIET_S
        quiet &= mono - self._last_ping[:n] >= SILENCE_S - QUIET_S
        pinged = np.flatnonzero(ready & ~slow & (idle | quiet))[:PINGS]
        self._last_write[pinged] = self._last_ping[pinged] = mono
        self._write(pinged, PING)  # in either wire format

    def take_counts(self) -> dict[str, Counts]:
        """Return what was sent and acknowledged, by alert, since this was last called."""
        return self.live.take_counts()

    def peers(self) -> list[Peer]:
        """Return the connections of all sessions."""
        return list(self._peers_of(np.flatnonzero(self._fanout.ready[: self._fanout.top])))

    def slow(self) -> int:
        """Return how many sessions are slow: their transports have unsent bytes."""
        top = self._fanout.top
        return int(np.count_nonzero(self._fanout.ready[:top] & self._fanout.paused[:top]))

    def _close(self, which: NDArray[np.bool_], close: Close) -> None:
        for peer in self._peers_of(np.flatnonzero(which)):
            peer.close(close)

    def _peers_of(self, rows: Iterable[Any]) -> Iterable[Peer]:
        return [peer for row in rows if (peer := self._peers[int(row)]) is not None]


def _frames(alert: LiveAlert, text: int) -> tuple[bytes, ...]:
    """Return what is current of an alert, in one of its languages, as one frame for each wire format.

    It is encoded when it is needed for the first time.
    """
    frames = alert.encoded.get(text)
    if frames is None:
        frames = alert.encoded[text] = encode(alert.current, text)
    return frames


def _nowhere(_data: bytes) -> None:
    """Drop the data: the `write` of a free row."""
