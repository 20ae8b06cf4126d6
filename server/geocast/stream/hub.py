"""The hub: manages the WebSocket sessions of this process, writes alerts to them, and ends them.

`fanout` decides which session is sent which alert. The hub encodes an alert when the first session needs it, and writes
the frame to the sockets. A session (stream/session.py) calls the hub for each message of its client: `enter` for
`hello`, `move` for new places, `acknowledge` for `ack`, and so on. From `enter` to `leave`, a session is known by its
*row*, its index in all lists and columns.

Rule 1  A session is slow while its transport has unsent bytes, and a slow session is sent no alerts. When the transport
        has sent all bytes, `on_drained` sends the session the alerts that it lacks at that time.
        Example: a phone in a tunnel is sent revision 1, and its transport keeps a part of the frame. While the phone is
        in the tunnel, the alert gets revisions 2 and 3, and another alert ends. Outside again, the phone gets the rest
        of revision 1, then revision 3. It gets neither revision 2 nor the alert that has ended.
Rule 2  `reply_with_owed` sends a reply and, after it in the same write, all alerts that the session lacks now. So a
        client knows: alerts before `ok` were chosen for its old places, filter and token, alerts after `ok` for the new
        ones.
        Example: a phone sends `move` from Vienna to Graz while an alert for Vienna is in flight. It gets either the
        alert and then `ok`, or `ok` alone. It never gets `ok` and then an alert for the place that it has left.
Rule 3  Frames of calls for help (calls/port.py) are written before frames of alerts: in `turn`, `on_drained` and
        `reply_with_owed`.
        Example: a responder who is 200 m from a cardiac arrest is called before the fan-out of a storm warning to
        20,000 sessions continues. Calls concern few sessions, so alerts wait only a few milliseconds.

The hub has no clock, no socket and no asyncio. The time is passed in; a transport is known by its `write` method and
the number of its socket. All calls come from one thread and no call interrupts another.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..auth.scopes import TEST
from ..auth.tokens import Grant, Subject
from ..calls.port import Calls
from ..clock import Now
from ..matching.filters import Filter
from ..matching.place_index import Place
from ..model import close_codes
from ..model.alert import Revision
from ..model.close_codes import Close
from ..model.errors import trace
from ..model.languages import choice
from ..wire.frames import PING, WIRES, Wire, encode
from .delivery_flags import Rows
from .fanout import FanOut
from .flights import Flight
from .live_alerts import LiveAlert

logger = logging.getLogger(__name__)

HEARTBEAT_S = 25  # the default of --heartbeat-s
CALLS_SLICE = 64  # number of sessions to which one turn writes frames of calls, one by one: about 1 ms
# A client is pinged when no byte has come from it for `heartbeat_s` plus QUIET_S, and its connection is dropped after
# `heartbeat_s` plus SILENCE_S. With a heartbeat of 25 s, a silent client is pinged after 40 s at the latest, and has 20
# s to answer.
QUIET_S = 15.0
SILENCE_S = 35.0
SLOW_S = 30.0  # a transport may have unsent bytes for this long before its session is closed with 4420
# The time between checks of the deadlines of all sessions. A session ends within a second after its token expires (T6).
# With five checks a second instead of two, a node at rest with 1,000 sessions would take 0.43 % of a core, not 0.27 %
# (`bench growth`).
LOOK_S = 0.5
FEW = 1_000  # up to this number of sessions, sorting takes less time than a column for all descriptors
# The number of pings written at one check. If more are due, they follow at the next sweep. Writing 128 pings and
# reading their pongs takes 1.5 ms. 1,000 pings at once took 20 ms (`bench growth`).
PINGS = 128


SendToMany = Callable[[NDArray[np.int32], bytes], NDArray[np.int32]]  # (descriptors, data) -> bytes sent to each


class Peer(Protocol):
    """The interface through which the hub uses a session's connection."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """A function that passes complete frames to the transport, which sends or buffers them.

        It never blocks. It may raise RuntimeError if the transport is dead and `connection_lost` has not been called
        yet.
        """
        ...

    @property
    def descriptor(self) -> int:
        """The descriptor of the connection's socket, for sending to many sockets at once; -1 if there is none."""
        ...

    def close(self, close: Close) -> None:
        """End the session with this close frame. Before this method returns, the connection calls `Hub.leave`."""
        ...

    def abort(self) -> None:
        """Drop the connection without a close frame.

        Before this method returns, the connection calls `Hub.leave`.
        """
        ...


class Rights:
    """The rights of a session by its token: what it may receive, and until when.

    `deadline` is the time at which the token expires, in seconds on the monotonic clock; infinity if there is no token.
    `may_test` says whether the session is sent tests and exercises (R6). `quals` are the responder's qualifications (to
    go to calls for help) that this node accepts (RQ1 to RQ3). `subject` is the token's subject, or None.
    """

    __slots__ = ("deadline", "may_test", "quals", "subject")

    def __init__(self, grant: Grant | None, now: Now) -> None:
        self.subject = None if grant is None else grant.subject
        self.quals = frozenset[str]() if grant is None else grant.quals
        self.may_test = grant is not None and TEST in grant.scopes
        self.deadline = float("inf") if grant is None else now.deadline(grant.expires_at)


class OwnTestMaker(Protocol):
    """Makes own tests: alerts that one session has asked for. Counts them by subject (rule TR5).

    It is an interface because its implementation (`own_tests`) imports the policy, and with it the requests of
    publishers, which have the exact places of incidents.
    """

    def wait_s(self, subject: Subject | None, now: Now) -> int:
        """Count one own test for a subject and return 0, unless the subject has had its share.

        Otherwise count nothing, and return the number of seconds to wait. A session without a token (in the mode
        `--dev`) has no subject and no share of its own: pass None.
        """
        ...

    def alert(self, key: str, place: Place, now: Now) -> Revision:
        """Return an own test around a place: latitude and longitude in degrees, and reach in metres (rule TR2).

        `key` is the id with which the client has asked.
        """
        ...


class Hub:
    """Manages the WebSocket sessions of this process: writes alerts to them, pings them, and ends them.

    A session is identified by its *row*, its index in all columns. A session is *slow* while its transport has unsent
    bytes. `fanout` has the sessions' places and filters, and the alerts; `calls` has the calls for help. The module's
    docstring explains how the hub works.
    """

    def __init__(
        self,
        capacity: int,
        finished: Callable[[Flight], None] = lambda _flight: None,
        send: SendToMany | None = None,
        heartbeat_s: int = HEARTBEAT_S,
        calls: Calls | None = None,
        own_tests: OwnTestMaker | None = None,
    ) -> None:
        """Create a hub for at most `capacity` sessions. `calls` handles calls for help; None if this process has none.

        `own_tests` makes the test alerts that sessions ask for; if it is None, sessions can't ask for any.

        `finished` is called with each flight (an alert on its way to its recipients) as soon as its last frame was
        written. `send` writes one frame to many sockets at once; the transports write whatever it could not, or
        everything if `send` is None. A session to which nothing was written for `heartbeat_s` seconds is pinged;
        `welcome` tells clients this value.
        """
        self.heartbeat_s = heartbeat_s
        self.own_tests = own_tests
        self._send = send
        self.calls: Calls = Calls() if calls is None else calls
        self.fanout = FanOut(capacity, self, finished)

        # These lists and columns are indexed by row (the number of a session). Times are in seconds of the monotonic
        # clock. `_writes` caches the `write` method of each transport, so that a fan-out need not look it up for each
        # session.
        self._writes: list[Callable[[bytes], None]] = [_nowhere] * capacity
        self._peers: list[Peer | None] = [None] * capacity
        self._descriptors = np.full(capacity, -1, np.int32)  # numbers of the sockets, for `send`
        self._wire = np.zeros(capacity, np.uint8)  # index in WIRES of the session's wire format
        self._last_write = np.zeros(capacity)
        self._last_read = np.zeros(capacity)
        self._last_ping = np.zeros(capacity)
        self._slow_since = np.zeros(capacity)
        self._token_deadline = np.full(capacity, np.inf)

        self._ended: set[int] = set()  # rows of sessions that have ended and are still to be removed
        self._now = Now(0, 0.0)  # the time of the current turn
        self._next_check = 0.0  # when the deadlines of all sessions are checked next
        self._has_more_pings = False  # whether more pings were due at the last check than were written

    def __len__(self) -> int:
        return len(self.fanout)

    @property
    def busy(self) -> bool:
        """Whether there are alerts or calls for help left for the next call of `turn` to send."""
        return self.fanout.flights.busy or self.calls.busy

    @property
    def behind(self) -> bool:
        """Whether the last `sweep` has left work that was due, so that the next one should come soon."""
        return self.fanout.live.behind or self._has_more_pings

    # ---- one session ---------------------------------------------------------------------------------------------

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
        """Register a session and return its row, the number that identifies it in the other methods.

        The caller must call `reply_with_owed` next, with the same `now`. `holding` maps ids of alerts to the revisions
        that the client says it has. `here` is the index in `places` of the subscriber's present location, which is
        needed for calls for help; None if the client has not named one.
        """
        self._forget_ended()
        row = self.fanout.enter(places, wanted, may_test=rights.may_test)
        self._peers[row], self._writes[row], self._descriptors[row] = peer, peer.write, peer.descriptor
        self._wire[row] = wire.number
        self._last_read[row] = self._last_write[row] = self._last_ping[row] = now.monotonic
        try:
            self.set_rights(row, rights)
            self.calls.move(row, None if here is None else places[here])
            self.calls.take_holding(row, holding, now)
            self.fanout.trust_holding(row, holding, now)
        except Exception:  # the session does not know its row, so nobody else would remove it
            self.leave(row)
            raise
        return row

    def leave(self, row: int) -> None:
        """Remove a session that has ended. Its places are deleted at once.

        If an unexpected error interrupts this, it is done again before another session can get the row.
        """
        self.silence(row)
        self._forget(row)
        self._ended.discard(row)

    def silence(self, row: int) -> None:
        """Write nothing more to a session that has ended, and remove it at the next `sweep`.

        Its descriptor may soon be that of another connection.
        """
        self._descriptors[row], self._writes[row], self._peers[row] = -1, _nowhere, None
        self._token_deadline[row] = np.inf
        self._ended.add(row)

    def _forget(self, row: int) -> None:
        try:
            self.calls.leave(row)
        finally:
            self.fanout.leave(row)

    def _forget_ended(self) -> None:
        while self._ended:
            self._forget(self._ended.pop())

    def move(self, row: int, places: Sequence[Place], here: int | None = None) -> None:
        """Replace the session's places.

        `here` is the index of the subscriber's present location in `places`, or None.
        """
        self.fanout.move(row, places)
        self.calls.move(row, None if here is None else places[here])

    def set_rights(self, row: int, rights: Rights) -> None:
        """Replace the rights of the session, for example after a new token. The session is closed when they expire."""
        self.fanout.set_rights(row, may_test=rights.may_test)
        self._token_deadline[row] = rights.deadline
        self.calls.set_rights(row, rights)

    def note_read(self, row: int, now: Now) -> None:
        """Record that bytes from the session's client have arrived at the time `now`."""
        self._last_read[row] = now.monotonic

    def slowed(self, row: int, now: Now) -> None:
        """Pause a session because its transport has unsent bytes (Rule 1)."""
        self.fanout.pause(row)
        self._slow_since[row] = now.monotonic

    def on_drained(self, row: int, now: Now) -> None:
        """Resume a session whose transport has sent all bytes.

        Send it the alerts and calls that it lacks now (Rule 1).
        """
        self.fanout.resume(row)
        self._last_read[row] = now.monotonic  # a slow connection is not read, so its silence proves nothing
        calls = self.calls.frames(row, int(self._wire[row]), now)
        self._send_owed(row, b"".join(calls), self.fanout.take_owed_by(row, now), now)

    def acknowledge(self, row: int, alert_id: str, revision: int, now: Now) -> None:
        """Record that the client has shown this revision. Ignore a revision that was not sent to this session (M5)."""
        alert = self.fanout.live.find(alert_id, now)
        if alert is None:
            self.calls.acknowledge(row, alert_id, revision)
        elif self.fanout.may_see(row, alert):
            alert.acknowledge(row, revision)

    def accept(self, row: int, call_id: str, eta_s: int | None, now: Now) -> None:
        """Record that the responder accepts a call for help, and send the resulting messages (M18).

        `eta_s` is the time until the responder arrives, in seconds, or None if it is unknown.
        """
        self.calls.accept(row, call_id, eta_s, now)
        self._send_frames(row, self.calls.frames(row, int(self._wire[row]), now), now)

    def reply(self, row: int, message: Mapping[str, Any], now: Now) -> None:
        """Send one message to a session."""
        self._last_write[row] = now.monotonic
        self._writes[row](WIRES[self._wire[row]].frame(message))

    def reply_with_own_test(self, row: int, reply: Mapping[str, Any], test: Revision, now: Now) -> None:
        """Send `reply`, followed in the same write by a test alert that the session has asked for (TR3).

        The test is not one of the live alerts, so it is in no count, and no revision or cancel of it follows (TR4).
        """
        wire = int(self._wire[row])
        self._send_frames(row, [WIRES[wire].frame({**reply, "live": 1}), encode(test)[wire]], now)

    def reply_with_owed(self, row: int, reply: dict[str, Any], now: Now) -> None:
        """Send `reply`, followed in the same write by all alerts and calls that the session lacks now (Rule 2).

        Before that, set `reply['live']` to the number of these alerts and calls.
        """
        wire = int(self._wire[row])
        calls = self.calls.frames(row, wire, now)
        owed = self.fanout.take_owed_by(row, now)
        reply["live"] = len(calls) + len(owed)
        self._send_owed(row, b"".join([WIRES[wire].frame(reply), *calls]), owed, now)

    def _send_owed(self, row: int, data: bytes, owed: Sequence[LiveAlert], now: Now) -> None:
        if owed:
            wire, wanted = int(self._wire[row]), self.fanout.filter_of(row).languages
            data += b"".join([alert.encoded(choice(wanted, alert.languages), encode)[wire] for alert in owed])
        if data:
            self._last_write[row] = now.monotonic
            self._writes[row](data)
        self.fanout.note_taken(row, owed)

    def _send_frames(self, row: int, frames: Sequence[bytes], now: Now) -> None:
        if frames:
            self._last_write[row] = now.monotonic
            with contextlib.suppress(RuntimeError):  # the transport is dead: `connection_lost` follows
                self._writes[row](b"".join(frames))

    # ---- sending to many sessions --------------------------------------------------------------------------------

    def turn(self, now: Now, rows: int | None = None) -> bool:
        """Write the next frames of calls for help (Rule 3).

        If there are none, send an alert to the next `rows` of its recipients (by default the fan-out's SLICE). Return
        whether more remains to be sent.
        """
        if self.calls.busy:
            self._send_calls(min(rows or CALLS_SLICE, CALLS_SLICE), now)
            if self.calls.busy:
                return True
        self._now = now
        return self.fanout.turn(now, rows)

    def _send_calls(self, count: int, now: Now) -> None:
        """Write frames of calls for help to the next `count` sessions that wait for such frames.

        Slow sessions are left out (Rules 1 and 3).
        """
        ready, paused = self.fanout.ready, self.fanout.paused
        for row, calls in self.calls.take_noted(count):
            if ready[row] and not paused[row]:
                try:
                    self._send_frames(row, self.calls.frames(row, int(self._wire[row]), now, calls), now)
                except Exception as error:
                    self._drop_after(error, [row])

    def take(self, rows: Rows, alerts: Sequence[LiveAlert], texts: Sequence[int]) -> Sequence[Rows]:
        """Write all of these alerts to each of these sessions, with one write for each session.

        Return, for each alert, all of the rows (sessions), because no session declines an alert.

        The frames are joined once for each wire format in use, not once for each session, and all of them before the
        first write. A failed write needs no record: the connection is lost, and when its client reconnects, `holding`
        lists the revisions that it has.
        """
        wires = self._wire[rows]
        encoded = [alert.encoded(text, encode) for alert, text in zip(alerts, texts, strict=True)]
        frames = [
            (which, b"".join([each[number] for each in encoded]))
            for number in range(len(WIRES))
            if (which := wires == number).any()
        ]
        self._last_write[rows] = self._now.monotonic
        for which, frame in frames:
            try:
                self._write(rows[which], frame)
            except Exception as error:  # perhaps some of them got the frame
                self._drop_after(error, rows[which])
        return [rows] * len(alerts)

    def drop(self, rows: Iterable[int]) -> None:
        """End these sessions without a close frame. Their clients come back and are sent what they lack."""
        for peer in self._peers_of(rows):
            peer.abort()

    def by_age(self, rows: Rows) -> NDArray[np.int64]:
        """Return the indices that sort these sessions by their sockets' descriptors.

        This is roughly the order in which the sessions connected. No two sessions have the same descriptor, so each
        index is stored at its descriptor. For 15,000 sessions this takes 57 µs, and sorting 487 (`bench urgent`).
        """
        descriptors = self._descriptors[rows]
        if len(rows) < FEW or descriptors.min() < 0:  # a session without a descriptor has -1
            return np.argsort(descriptors)
        at = np.full(int(descriptors.max()) + 1, -1, np.int64)
        at[descriptors] = np.arange(len(rows))
        return at[at >= 0]

    def _write(self, rows: NDArray[Any], frame: bytes) -> None:
        """Write `frame` to each of these sessions. None of them may have unsent bytes.

        First `send` writes to all sockets at once, which saves a system call for each session; without it a delivery
        costs 1.4 times the CPU. If a socket did not accept the whole frame, the session's transport writes the rest.
        """
        if len(rows) == 0:
            return
        sent = np.zeros(len(rows), np.int32) if self._send is None else self._send(self._descriptors[rows], frame)
        # If a session got a part of the frame, its transport keeps the rest, and the session becomes slow. If the
        # result is an error (a negative number), the transport gets the whole frame, then waits or finds the connection
        # broken.
        left, writes = np.flatnonzero(sent != len(frame)), self._writes
        for row, count in zip(rows[left].tolist(), np.maximum(sent[left], 0).tolist(), strict=True):
            try:
                writes[row](frame[count:])
            except RuntimeError:  # the transport is dead: `connection_lost` follows
                pass
            except Exception as error:
                self._drop_after(error, [row])

    def _drop_after(self, error: Exception, rows: Iterable[int]) -> None:
        """Count an unexpected error of a write, and end the sessions that it concerns."""
        self.fanout.failures += 1
        logger.error("writing to a session failed; its connection is ended: %s", trace(error))
        self.drop(rows)

    # ---- periodic work for all sessions --------------------------------------------------------------------------

    def sweep(self, now: Now) -> None:
        """Do the work that is due at certain times, for all alerts, calls and sessions.

        Call this twenty times a second. Every call forgets the alerts that have ended. Deadlines of sessions are
        checked only every LOOK_S seconds, unless pings are left over. A wrong wall clock may have made alerts look as
        if they had ended. If they are live after all, they are sent now.
        """
        self._forget_ended()
        self.fanout.sweep(now)
        self.calls.sweep(now)
        if now.monotonic >= self._next_check:
            self._check_deadlines(now)
            self._next_check = now.monotonic + (0.0 if self._has_more_pings else LOOK_S)

    def _check_deadlines(self, now: Now) -> None:
        """End the sessions whose deadlines have passed, and ping the idle ones.

        The checks are made in this order. Sessions with an expired token are closed (4401). Sessions that have been
        slow for SLOW_S are closed (4420). Connections whose clients have been silent for too long are dropped without a
        close frame. Each check compares whole columns, so no session needs a timer.
        """
        n, mono = self.fanout.top, now.monotonic
        ready, slow = self.fanout.ready[:n], self.fanout.paused[:n]
        self._close(ready & (self._token_deadline[:n] <= mono), close_codes.BAD_TOKEN)
        self._close(ready & slow & (mono - self._slow_since[:n] >= SLOW_S), close_codes.SLOW)
        silent = ready & ~slow & (mono - self._last_read[:n] >= self.heartbeat_s + SILENCE_S)
        self.drop(np.flatnonzero(silent))
        idle = mono - self._last_write[:n] >= self.heartbeat_s
        # A session to which a fan-out is about to send an alert needs no ping: the alert does the work of a ping. Pings
        # to such sessions would only slow down a fan-out to very many sessions.
        idle &= ~self.fanout.flights.in_flight(slice(n))
        # A session that is sent an alert every few seconds is never idle, and if its client only listens, no byte comes
        # from the client. Ping it as well, so that the client can answer before it counts as dead.
        quiet = mono - self._last_read[:n] >= self.heartbeat_s + QUIET_S
        quiet &= mono - self._last_ping[:n] >= SILENCE_S - QUIET_S
        due = np.flatnonzero(ready & ~slow & (idle | quiet))
        pinged, self._has_more_pings = due[:PINGS], len(due) > PINGS
        self._last_write[pinged] = self._last_ping[pinged] = mono
        self._write(pinged, PING)  # the same bytes in each wire format

    def peers(self) -> list[Peer]:
        """Return a list with the connections of all sessions."""
        return list(self._peers_of(np.flatnonzero(self.fanout.ready[: self.fanout.top])))

    def slow(self) -> int:
        """Return the number of sessions whose transports have unsent bytes (Rule 1)."""
        top = self.fanout.top
        return int(np.count_nonzero(self.fanout.ready[:top] & self.fanout.paused[:top]))

    def _close(self, which: NDArray[np.bool_], close: Close) -> None:
        for peer in self._peers_of(np.flatnonzero(which)):
            peer.close(close)

    def _peers_of(self, rows: Iterable[Any]) -> Iterable[Peer]:
        return [peer for row in rows if (peer := self._peers[int(row)]) is not None]


def _nowhere(_data: bytes) -> None:
    """Discard the data. This function takes the place of a transport's `write` for a row without a session."""
