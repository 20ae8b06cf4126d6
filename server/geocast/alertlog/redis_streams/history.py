"""The log's history as far as this process knows it: its server, its epoch, its length, and how far it was read.

This module has state and makes decisions, without I/O: the other modules ask Redis and report its answers here. (The
numbered rules are in the package's docstring.)

Redis may lose entries that it has accepted, so its history may be *rewound*. This table lists the observations that
show it, and their consequences:

      observation                                             new epoch            put back    a follower
    1 a heartbeat reports our epoch, and at least our number  –                    –           goes on
    2 it reports a later epoch, begun by another process      is adopted           all         starts over, by 8
    3 it reports an earlier epoch, or a lower number          begun, above ours    all         starts over, by 8
    4 it comes from another server                            as in 1, 2 or 3      all         is deaf if it still reads
                                                                                               the other one, by 7
    5 a follower finds a gap in numbers, or another epoch     begun, if the log    all, by 2   starts over
                                                              is still in its own
    6 a follower comes back to a log that is shorter, or to   begun, as in 5       all, by 2   starts over
      another server that lacks the last entry that it read
    7 a follower is at the end, and not where the stream      –                    –           is deaf: reconnects, and
      ended a heartbeat ago; or it reads another server                                        begins by 1, 5 or 6
    8 a follower is at the end, in an epoch below ours        begun, if the log    –           starts over
                                                              is below ours too
    9 the first heartbeat of a process                        is adopted           nothing     begins

To *start over* is to read the stream from its start, in the new epoch. All entries then have new, higher positions.

Example of 3: this process knows of 120 entries in epoch 7. Redis restarts and has lost the last 20, so the next
heartbeat reports (7, 100). The log begins epoch 8, all processes put back the entries that they have, and all followers
read the stream from its start.
Example of 7: a follower still reads the old primary after a failover. The heartbeats of this process go to the new
primary, so the follower's server is not the server of the last heartbeat.
"""

from dataclasses import dataclass

from .stored import ZERO, Id, Server, position_of


def floor_after(mark: tuple[int, int], epoch: int, seq: int) -> int | None:
    """Return the number above which a new epoch has to be, if a heartbeat reports less than was known (3); else None.

    `mark` is the epoch and the number that were known before the heartbeat.
    """
    return mark[0] if (epoch, seq) < mark else None


class Rewound(Exception):  # noqa: N818
    """The error for an entry that does not follow the entries that were read (5 and 8)."""


class History:
    """The log as a whole, as far as this process knows it. Only answers of Redis change it."""

    def __init__(self) -> None:
        self.server: Server | None = None  # the server that accepted the last heartbeat
        self.epoch = 0
        self.seq = 0  # the number of the last entry that is known to be durable
        self.rewinds = 0  # how often a new epoch was seen, not counting the first one
        self.top = ZERO  # the id of the last item of the stream, heartbeats included, at the last heartbeat
        self.top_before = ZERO  # the same at the heartbeat before that; ZERO if ids went back between the two
        self._whole: tuple[Server, int] | None = None  # the server and epoch to which all entries were put back

    def told(self, epoch: int, seq: int) -> bool:
        """Note that Redis has reported this epoch, and entries up to this number as durable.

        Return whether the history was rewound since the last report. Answers may come in any order, so a lower number
        in the same epoch is an older answer.
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
        """Note that Redis has reported this id as the last one of the stream."""
        if top != self.top:
            self.top_before, self.top = (self.top if self.top < top else ZERO), top

    @property
    def mark(self) -> tuple[int, int]:
        """The epoch and the number, to be compared with later reports."""
        return self.epoch, self.seq

    def accepted_by(self, server: Server, epoch: int) -> bool:
        """Note that this server has accepted a heartbeat in this epoch.

        Return whether the entries of this process have to be put back, because the server or the epoch is another one
        than at the last heartbeat (2, 3 and 4).
        """
        self.server = server
        before, self._whole = self._whole, (server, epoch)
        return before is not None and before != self._whole


@dataclass(slots=True)
class ReadPosition:
    """How far one follower has read. The next follower goes on from a copy of it."""

    position: int  # the position of the last entry that was given
    ended_before_ms: int  # entries up to `top` that ended before this time are left out
    server: Server | None = None  # the server that is read
    others: Server | None = None  # the server to which heartbeats were written when this reading began
    epoch: int = 0
    seq: int = 0  # the number of the last entry that was read
    place: Id = ZERO  # the id of the last item that was read, heartbeats included
    last: Id = ZERO  # the id of the last entry that was read
    top: Id = ZERO  # the end of the stream when reading began; purged entries leave gaps before it, never after it

    def may_be_continued(self, after: int, ended_before_ms: int) -> bool:
        """Return whether a reader of the entries after `after` can go on here, and nothing it wants was left out."""
        return self.position == after and self.ended_before_ms <= ended_before_ms

    def fits(self, epoch: int, seq: int) -> bool:
        """Return whether a log in this epoch, up to this number, can have all entries that were read (not 5 or 6)."""
        return epoch == self.epoch and seq >= self.seq

    def go_on_from(self, before: "ReadPosition") -> None:
        """Go on after the last item that `before` has read, because the log has all entries up to there.

        On another server the reading goes on after the last entry: entries have the same ids there, and heartbeats may
        not.
        """
        self.epoch, self.seq, self.last = before.epoch, before.seq, before.last
        self.place = self.top = before.place if self.server == before.server else before.last

    def begin(self, epoch: int, seq: int, top: Id) -> None:
        """Begin at the start of the stream, which now ends at `top`, in this epoch and with this number."""
        self.epoch, self.seq, self.top = epoch, seq, top

    def floor(self, epoch: int, known: int) -> int | None:
        """Return the number above which a new epoch has to be, if the log has to begin one (5, 6 and 8); else None.

        `epoch` is the log's epoch, and `known` the latest epoch that this process knows. A log in an epoch above the
        follower's, and not below `known`, was repaired already.
        """
        newest = max(self.epoch, known)
        return newest if epoch <= self.epoch or epoch < known else None

    def pass_over(self, place: Id) -> None:
        """Skip an item of the stream that is not an entry of geocast."""
        self.place = place

    def take(self, place: Id, epoch: int, seq: int, *, is_beat: bool) -> int:
        """Move on to the next item. Return the position of an entry, or 0 for a heartbeat.

        Raises Rewound if the item is after `top` and its number does not follow the last one, or its epoch is another.
        """
        self.place = place
        if place > self.top:
            if epoch != self.epoch or seq != self.seq + (not is_beat):
                raise Rewound
            self.seq = seq
        if is_beat:
            return 0
        self.last = place
        return position_of(self.epoch, seq)

    def wants(self, position: int, ends_at: int) -> bool:
        """Return whether the entry that was taken last has to be given. `position` is its position."""
        passed_over = self.place <= self.top and ends_at < self.ended_before_ms
        return position > self.position and not passed_over

    def is_deaf(self, history: History) -> bool:
        """Return, at the end of the stream, whether items that Redis has accepted did not come (7)."""
        elsewhere = history.server not in (self.server, self.others)
        return elsewhere or self.place < max(self.top, history.top_before)

    def is_superseded(self, history: History) -> bool:
        """Return, at the end of the stream, whether the log is in a later epoch than the stream that was read (8)."""
        return self.epoch < history.epoch
