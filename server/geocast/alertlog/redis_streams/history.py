"""What is known of the log's history: whose it is, in which epoch, how far it goes, and whether what is read is it.

State and decisions, without I/O: others ask Redis, and tell here what it has answered. (The rules are the package's.)

Redis may lose what it has accepted, so its history may be *rewound*. What shows that, and what is done then:

      what is seen                                            new epoch            put back    a follower
    1 a heartbeat tells our epoch, and no less than we know   –                    –           goes on
    2 it tells a later epoch, begun by another process        is taken over        all         begins anew, by 8
    3 it tells an earlier epoch, or less than we know         begun, above ours    all         begins anew, by 8
    4 it comes from another server                            as in 1, 2 or 3      all         is deaf where it still
                                                                                               reads another, by 7
    5 a follower finds a gap in numbers, or another epoch     begun, if the log    all, by 2   begins anew
                                                              is in its own yet
    6 a follower comes back to a log that is shorter, or to   begun, as in 5       all, by 2   begins anew
      another server that lacks the last entry that it read
    7 a follower is at the end, and not where the stream      –                    –           is deaf: reconnects, and
      ended a heartbeat ago; or it reads another server                                        begins by 1, 5 or 6
    8 a follower is at the end, in an epoch below ours        begun, if the log    –           begins anew
                                                              is below ours too
    9 the first heartbeat of a process                        is taken over        nothing     begins

To *begin anew* is to read the stream from its start, in the new epoch: what is given then has new, higher positions.
"""

from dataclasses import dataclass

from .stored import ZERO, Id, Server, position_of


def floor_after(mark: tuple[int, int], epoch: int, seq: int) -> int | None:
    """Above which number a new epoch has to be, if a heartbeat tells less than was known before it (3)."""
    return mark[0] if (epoch, seq) < mark else None


class Rewound(Exception):  # noqa: N818
    """What comes next in the stream does not follow what was read (5, 8)."""


class History:
    """What this process knows of the log as a whole. All that changes it is told by Redis."""

    def __init__(self) -> None:
        self.server: Server | None = None  # the one that accepted the last heartbeat
        self.epoch = 0
        self.seq = 0  # the number of the last entry that is known to be there, and durable
        self.rewinds = 0  # how often a new epoch was seen; the first one does not count
        self.top = ZERO  # the id of the last entry of the stream, heartbeats included, at the last heartbeat
        self.top_before = ZERO  # the same at the one before; ZERO if ids went back between the two
        self._whole: tuple[Server, int] | None = None  # the server and epoch whose log has what is known here

    def told(self, epoch: int, seq: int) -> bool:
        """Redis says that so many entries are there, and durable. Whether history was rewound since it last said so.

        Answers come in any order, so a smaller number in this epoch is an older answer.
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
        """Redis says that the stream ends here."""
        if top != self.top:
            self.top_before, self.top = (self.top if self.top < top else ZERO), top

    @property
    def mark(self) -> tuple[int, int]:
        """Epoch and number, to be compared with what is told later."""
        return self.epoch, self.seq

    def accepted_by(self, server: Server, epoch: int) -> bool:
        """This server has accepted a heartbeat, in this epoch. Whether what is known has to be put back (2, 3, 4)."""
        self.server = server
        before, self._whole = self._whole, (server, epoch)
        return before is not None and before != self._whole


@dataclass(slots=True)
class ReadPosition:
    """How far one follower has read. A copy of it is what the next one goes on from."""

    position: int  # the position of the last entry that was given
    ended_before_ms: int  # as far as `top`, what had ended before this time was passed over
    server: Server | None = None  # the one that is read
    others: Server | None = None  # the one that heartbeats were written to when this reading began
    epoch: int = 0
    seq: int = 0  # the number of the last entry that was read
    place: Id = ZERO  # the id of the last that was read, heartbeats included
    last: Id = ZERO  # the id of the last entry that was read
    top: Id = ZERO  # the reading catches up to this id, over gaps that purging leaves; behind it there must be none

    def may_be_continued(self, after: int, ended_before_ms: int) -> bool:
        """Whether who wants the entries behind `after` may go on here, and has passed over nothing that it wants."""
        return self.position == after and self.ended_before_ms <= ended_before_ms

    def fits(self, epoch: int, seq: int) -> bool:
        """Whether a log that is so long may have all that was read (not 5, 6)."""
        return epoch == self.epoch and seq >= self.seq

    def go_on_from(self, before: "ReadPosition") -> None:
        """The log has all that `before` has read. Ids are the same on another server, but for those of heartbeats."""
        self.epoch, self.seq, self.last = before.epoch, before.seq, before.last
        self.place = self.top = before.place if self.server == before.server else before.last

    def begin(self, epoch: int, seq: int, top: Id) -> None:
        """Read the stream from its start; it ends at `top` now, in this epoch and with that number."""
        self.epoch, self.seq, self.top = epoch, seq, top

    def floor(self, epoch: int, known: int) -> int | None:
        """Above which number a new epoch has to be, if one has to be begun in a log that is in `epoch` (5, 6, 8).

        `known`: the latest epoch that this process knows of.
        """
        newest = max(self.epoch, known)
        return newest if epoch <= self.epoch or epoch < known else None

    def pass_over(self, place: Id) -> None:
        """What stands here is no entry of geocast."""
        self.place = place

    def take(self, place: Id, epoch: int, seq: int, *, is_beat: bool) -> int:
        """This comes next. The position of an entry, 0 for a heartbeat. Raises Rewound."""
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
        """Whether the entry that was taken last, which has this position, is to be given."""
        passed_over = self.place <= self.top and ends_at < self.ended_before_ms
        return position > self.position and not passed_over

    def is_deaf(self, history: History) -> bool:
        """At the end of what comes: whether what Redis has accepted did not come (7)."""
        elsewhere = history.server not in (self.server, self.others)
        return elsewhere or self.place < max(self.top, history.top_before)

    def is_superseded(self, history: History) -> bool:
        """At the end of what comes: whether the log is in another epoch by now, of which nothing comes (8)."""
        return self.epoch < history.epoch
