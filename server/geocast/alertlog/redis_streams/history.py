"""The state of the log as far as this process knows it: the Redis server, the epoch, and the number of the last entry.

This module only keeps state and makes decisions, without I/O: the other modules ask Redis and report its answers here.
(The docstring of the package has Rules 1 to 4.)

Redis may lose entries that it has accepted; the log is then *rewound*. An *epoch* is a number that rises when this
happens, a *heartbeat* is an item that a process writes to the stream every second, and a *follower* is a reader of the
stream. "Ours" is what this process knew before. This table lists the observations by which a rewound log is recognized,
and their consequences for the epoch, for the entries that each process has in memory, and for followers:

      observation                                             new epoch            put back    a follower
    1 a heartbeat reports our epoch, and at least our number  –                    –           continues
    2 it reports a later epoch, begun by another process      is adopted           all         starts over (8)
    3 it reports an earlier epoch, or a lower number          begun, above ours    all         starts over (8)
    4 it comes from another server                            as in 1, 2 or 3      all         is deaf if it still reads
                                                                                               the old server (7)
    5 a follower finds a gap in numbers, or another epoch     begun, if the log    all (2)     starts over
                                                              is still in its own
    6 a follower finds the log shorter than before, or is     begun, as in 5       all (2)     starts over
      on another server that lacks its last entry
    7 a follower is at the end of its stream, but this is     –                    –           is deaf: reconnects, and
      not the end that a heartbeat has reported, or it reads                                   begins (1, 5 or 6)
      another server
    8 a follower is at the end, in an epoch below ours        begun, if the log    –           starts over
                                                              is below ours too
    9 the first heartbeat of a process                        is adopted           nothing     begins

A number in brackets is the row that says how this happens. To *start over* is to read the stream from its start, in
the new epoch. All entries then have new, higher positions. A follower is *deaf* if what this process writes does not
reach it.

Example of 3: this process knows of 120 entries in epoch 7. Redis restarts and has lost the last 20, so the next
heartbeat reports (7, 100). The log begins epoch 8, all processes put back the entries that they have, and all followers
read the stream from its start.
Example of 7: a follower still reads from the old primary after a failover. The heartbeats of this process go to the new
primary. So the server of the follower is not the server of the last heartbeat.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from ...model.errors import LogUnavailable
from ...storage.redis.admission import Server
from .stored import ZERO, Fields, Id, Identity, Stored, digest_after, position_of


def floor_after(mark: tuple[int, int], epoch: int, seq: int) -> int | None:
    """Return the number above which the log's next epoch must be, or None if no new epoch is needed.

    An epoch is a number that rises when the log has lost entries. `mark` is what was known before a heartbeat: the
    epoch and the number of the last entry. `epoch` and `seq` are the same two values as the heartbeat has reported
    them. If they are lower, entries were lost (row 3 of the module's table).
    """
    return mark[0] if (epoch, seq) < mark else None


class Rewound(Exception):  # noqa: N818
    """Raised if an item of the stream does not follow the items read before it, because entries were lost.

    (Rows 5 and 8 of the table in the module's docstring.)
    """


class Differs(LogUnavailable):
    """Raised if what was read is not what the primary has."""

    def __init__(self) -> None:
        super().__init__("it withholds or alters entries")


class History:
    """The state of the whole log as far as this process knows it. It changes only when an answer of Redis is reported.

    An *epoch* is a number that rises when the log has lost entries. A *heartbeat* is an item that a process writes to
    the stream every second. The rows in the methods are those of the table in the module's docstring.
    """

    def __init__(self) -> None:
        self.server: Server | None = None  # the server that accepted the last heartbeat
        self.epoch = 0
        self.seq = 0  # the number of the last entry that is known to be durable
        self.rewinds = 0  # how often a new epoch was seen, not counting the first one
        self.top = ZERO  # the id of the last item of the stream, heartbeats included, at the last heartbeat
        self.top_before = ZERO  # `top` at the heartbeat before the last; ZERO if the ids went back between the two
        self.size = 0  # the number of entries in the stream up to `top`
        self.digests: deque[tuple[Id, bytes]] = deque(maxlen=120)  # an item's id, and the running digest up to it
        self._whole: tuple[Server, int] | None = None  # the server and epoch at the last heartbeat

    def told(self, epoch: int, seq: int) -> bool:
        """Record a report from Redis: the log's epoch, and the number of the last entry that is known to be durable.

        An epoch is a number that rises when the log has lost entries. Return True if the epoch has risen since an
        earlier report. Reports may arrive in any order: a lower number in the same epoch comes from an older answer.
        """
        if epoch > self.epoch:
            rewound = self.epoch > 0
            self.epoch, self.seq = epoch, seq
            self.rewinds += rewound
            return rewound
        if epoch == self.epoch:
            self.seq = max(self.seq, seq)
        return False

    def told_top(self, top: Id) -> None:
        """Record that Redis has reported `top` as the id of the last item in the stream."""
        if top != self.top:
            self.top_before, self.top = (self.top if self.top < top else ZERO), top

    def told_content(self, size: int, summed: Id, digest: bytes) -> None:
        """Record the number of entries that Redis has reported, and the running digest up to the item `summed`."""
        self.size = size
        if self.digests and summed <= self.digests[-1][0] and (summed, digest) != self.digests[-1]:
            self.digests.clear()  # another history of the log
        if not self.digests or summed > self.digests[-1][0]:
            self.digests.append((summed, digest))

    @property
    def mark(self) -> tuple[int, int]:
        """The epoch, and the number of the last entry known to be durable.

        Later reports are compared with these two values.
        """
        return self.epoch, self.seq

    def accepted_by(self, server: Server, epoch: int) -> bool:
        """Record that this server has accepted a heartbeat (a periodic item in the stream) in this epoch.

        Return whether this process has to put its copies of entries back into the log, because the server or the epoch
        has changed since the last heartbeat (rows 2, 3 and 4 of the module's table).
        """
        self.server = server
        before, self._whole = self._whole, (server, epoch)
        return before is not None and before != self._whole


@dataclass(slots=True)
class ReadPosition:
    """How far one follower, a reader of the stream, has read. The next follower continues from a copy of this object.

    An *epoch* is a number that rises when the log has lost entries. The rows in the methods are those of the table in
    the module's docstring.
    """

    position: int  # the position of the last entry that was yielded
    ended_before_ms: int  # entries up to `top` that ended before this time are omitted
    server: Server | None = None  # the server from which this follower reads
    others: Server | None = None  # the server to which heartbeats were written when this follower began
    epoch: int = 0
    seq: int = 0  # the number of the last entry that was read
    place: Id = ZERO  # the id of the last item that was read, heartbeats included
    last: Id = ZERO  # the id of the last entry that was read
    last_identity: Identity = ()  # what tells that entry from all others, also from others with the same id and number
    top: Id = ZERO  # the end of the stream when reading began; deleted entries leave gaps only before this id
    uncounted: int | None = None  # the number of entries read, until it was compared with the primary's
    summed: Id = ZERO  # the last item in `digest`
    digest: bytes = b""  # the running digest of what was read, which goes on from the primary's
    compared: Id = ZERO  # the last item up to which the digest was compared
    unconfirmed: deque["ReadPosition"] = field(default_factory=deque)  # after each item, until it is compared
    confirmed: "ReadPosition | None" = None  # up to where the primary has confirmed what was read
    lasting: set[bytes] = field(default_factory=set)  # up to `top`, the alerts with an entry that is not omitted
    copies: deque[tuple[Id, Stored]] = field(default_factory=deque)  # entries kept in memory that it has not confirmed

    def may_be_continued(self, after: int, ended_before_ms: int) -> bool:
        """Return whether a new follower that begins here gets every entry that its caller wants.

        The caller wants the entries after the position `after`, except those that ended before `ended_before_ms` (ms
        since 1970).
        """
        return self.position == after and self.ended_before_ms <= ended_before_ms

    def has_reached_top(self) -> bool:
        """Return whether everything has been read that was in the stream when reading began."""
        return self.place >= self.top

    def fits(self, epoch: int, seq: int) -> bool:
        """Return whether a log whose last entry has this epoch and number can still have every entry read so far.

        (If it can't, rows 5 and 6 of the module's table say what follows.)
        """
        return epoch == self.epoch and seq >= self.seq

    def go_on_from(self, before: "ReadPosition") -> None:
        """Continue where an earlier follower (`before`) stopped. The caller has checked that no entry was lost.

        On the same server, continue after the last item that was read. On another server, continue after the last
        entry: entries have the same ids there, but heartbeats may not.
        """
        self.epoch, self.seq = before.epoch, before.seq
        self.last, self.last_identity = before.last, before.last_identity
        self.place = self.top = before.place if self.server == before.server else before.last
        self.summed, self.digest, self.confirmed = before.summed, before.digest, before.confirmed
        self.uncounted, self.compared = before.uncounted, before.compared
        self.unconfirmed = deque(each for each in before.unconfirmed if each.summed <= before.summed)
        self.copies = before.copies

    def begin(self, epoch: int, seq: int, top: Id, digest: tuple[Id, bytes] = (ZERO, b"")) -> None:
        """Begin to read at the start of the stream.

        `epoch` and `seq` are the epoch and the number of the log's last entry, and `top` is the id of the stream's last
        item. `digest` is the running digest that the primary has reported, after the id of the last item in it.
        """
        self.epoch, self.seq, self.top = epoch, seq, top
        self.uncounted, (self.summed, self.digest) = 0, digest
        self.compared = self.summed

    def floor(self, epoch: int, known: int) -> int | None:
        """Return the number above which the log's next epoch must be, or None if no new epoch is needed.

        An epoch is a number that rises when the log has lost entries. `epoch` is the log's current epoch, and `known`
        the latest epoch that this process knows. If `epoch` is above the follower's epoch, and not below `known`,
        another process has already repaired the log (rows 5, 6 and 8 of the module's table).
        """
        newest = max(self.epoch, known)
        return newest if epoch <= self.epoch or epoch < known else None

    def pass_over(self, place: Id) -> None:
        """Skip an item of the stream, because another program has written the item."""
        self.place = place

    def take(self, place: Id, epoch: int, seq: int, identity: Identity = (), *, is_beat: bool) -> int:
        """Move on to the next item of the stream, which is an entry or a heartbeat (a periodic item).

        `identity` is that of the item (`stored.identity`). Return the entry's position in the log, or 0 for a
        heartbeat. The items up to `top` (the last item of the stream when reading began) are not checked. Raise Rewound
        if a later item has an epoch other than the follower's, or a number other than the expected next one.
        """
        self.place = place
        if place > self.top:
            if epoch != self.epoch or seq != self.seq + (not is_beat):
                raise Rewound
            self.seq = seq
        if is_beat:
            return 0
        self.last, self.last_identity = place, identity
        return position_of(self.epoch, seq)

    def add(self, fields: Fields, position: int = 0) -> None:
        """Add the item that was read last to what is compared with the primary; `position` is the entry's position."""
        if self.uncounted is not None:
            self.uncounted += 1
        if self.place > self.summed:
            self.summed, self.digest = self.place, digest_after(self.digest, self.place, fields)
            position = max(position, self.position)
            self.unconfirmed.append(replace(self, position=position, unconfirmed=deque(), confirmed=None))

    def compare(self, history: History) -> None:
        """Compare what was read with what the primary has reported to heartbeats. Raise Differs if it is not the same.

        New items must have the running digest of the primary's. Of those that were there when reading began, only the
        number is compared: deleted entries are in no digest. It may be greater than the primary's, which deletes.
        """
        if self.uncounted is not None and self.place >= history.top:
            if self.uncounted < history.size:
                raise Differs
            self.uncounted = None
        for summed, digest in history.digests:
            if not self.compared < summed <= self.place:
                continue
            reading = None
            while self.unconfirmed and self.unconfirmed[0].summed <= summed:
                reading = self.unconfirmed.popleft()
            if reading is None or (reading.summed, reading.digest) != (summed, digest):
                raise Differs
            reading.compared = self.compared = summed
            self.confirmed = reading
        while self.uncounted is None and self.copies and self.copies[0][0] <= self.compared:
            self.copies.popleft()

    def wants(self, position: int, alert_id: bytes, ends_at: int) -> bool:
        """Return whether the caller wants the entry that was read last.

        `position` is the entry's position in the log, and `ends_at` is when the entry ends, in ms since 1970.
        """
        if self.place > self.top:
            self.lasting.clear()
        elif ends_at >= self.ended_before_ms:
            self.lasting.add(alert_id)
        elif alert_id not in self.lasting:
            return False
        return position > self.position

    def is_deaf(self, history: History) -> bool:
        """Return whether items that Redis has accepted have not reached this follower, a reader of the stream.

        (See row 7 of the module's table.) Call this method only at the end of the stream.
        """
        elsewhere = history.server not in (self.server, self.others)
        return elsewhere or self.place < max(self.top, history.top_before)

    def is_superseded(self, history: History) -> bool:
        """Return whether the log is already in a later epoch than the stream that this follower reads.

        An epoch is a number that rises when the log has lost entries (row 8 of the module's table). Call this method
        only at the end of the stream.
        """
        return self.epoch < history.epoch
