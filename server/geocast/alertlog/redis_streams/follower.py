"""The followers of the log: readers of the stream that notice when entries have been lost.

Each call of `follow` has a connection of its own, on which it waits for entries. Appends and heartbeats (items that
this process writes to the stream once a second) use other connections. After a failover the two may lead to different
servers. So a follower has to check that the stream it reads is the stream to which this process writes.
`history.ReadPosition` makes these decisions; this module does the I/O.

    begin ──> read the stream from the start, or from where the previous follower stopped (`_left`)
      │
      v
    read ──> entries ──> yield them; if there are more ──> read
      │ the end of the stream
      v
    check ── the latest heartbeats have arrived ──> yield an empty batch, wait up to a second ──> read
      │   └─ the log is in a later epoch ──> Rewound ──> begin, in the new epoch
      v
    Deaf: LogUnavailable; the caller calls `follow` again, which uses a new connection

If the server that is read is a replica (`reading`), the follower moves to another server instead of raising
LogUnavailable, and continues after the last entry that it has yielded.

Example: Redis fails over while a follower waits. The follower's connection to the old primary stays open, but no entry
ever comes from it again. Two heartbeats later, the follower is at the end of its stream and has not received the last
heartbeat but one. So it raises Deaf. The caller's next follower connects to the new primary. If the last entry that was
read is there, it continues after that entry; if not, it makes the log begin a new epoch.
"""

import dataclasses
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from ...model.alert import Untrusted
from ...model.call import KINDS
from ...model.errors import LogUnavailable
from ...model.times import MAX_MS
from ...storage.redis.primary import ANSWER_S
from .. import BATCH, BATCH_BYTES, HEARTBEAT_S, Positioned, is_followed
from ..decoding import in_turns
from .history import Differs, History, ReadPosition, Rewound
from .reading import ReadServer, ServerChoice
from .repair import StoredEntries
from .stored import ZERO, Fields, Id, StoredDecoder, identity, parse_id, text_of
from .writer import Writer

# The largest number of entries that one XREAD asks for. Even if all have the largest size, they take at most
# BATCH_BYTES, which a connection of 20 Mbit/s transfers within ANSWER_S. (XREAD itself can't limit bytes.)
READ_AT_ONCE = BATCH_BYTES >> 16


class Deaf(LogUnavailable):
    """Raised if a follower (a reader of the stream) does not receive what this process writes to the log."""


@dataclass(frozen=True, slots=True)
class FollowedStream:
    """The key of the log's stream, and the objects shared by all followers (readers of the stream) in this process."""

    stream: str  # the key of the stream
    writer: Writer
    history: History
    aside: StoredDecoder
    known: StoredEntries  # the copies of entries that were read, are accepted and have not ended
    compares: bool  # whether what is read is compared with the primary, because it may come from a replica


class Following:
    """Runs the followers of this process, and keeps the state that they share.

    A follower is a reader of the stream. Every call of `follow` starts one; only one runs at a time.
    """

    def __init__(self, servers: ServerChoice, source: FollowedStream) -> None:
        self.deaf: str | None = None  # why the last follower failed; None once a follower has reached the end again
        self.heard: float | None = None  # the monotonic time when an entry or heartbeat was last read
        self._servers = servers
        self._source = source
        self._left: ReadPosition | None = None  # up to where the last follower has yielded entries
        self._place = ZERO  # the id of the last item that was read
        self._late_s = 0.0  # how late the last item came

    def lag_s(self) -> float:
        """Return for how many seconds the primary has had items that this process has not read."""
        return max(self._late_s, self._servers.ends.lag_s(self._place))

    async def follow(self, after: int, ended_before_ms: int) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end (LogF1 to LogF4).

        If the previous call of `follow` stopped at `after`, continue to read the stream there. Otherwise read the
        stream from its start, and skip the entries up to `after`. Raise LogUnavailable if the stream can't be read.
        """
        server = await self._servers.choose()
        try:
            left = self._left
            left = left if left is not None and left.may_be_continued(after, ended_before_ms) else None
            before, follower = left, None
            while True:
                try:
                    if follower is None:
                        position = after if before is None else before.position
                        follower = _Follower(self._source, server, position, ended_before_ms)
                        await follower.begin(before, rewound=before is not left)
                    batch, at_end = await follower.read()
                except Rewound:
                    # A new follower reads the stream from its start. It yields all entries again, because their
                    # positions in the new epoch are above all earlier positions; callers ignore entries that they
                    # already have.
                    assert follower is not None
                    before, follower = follower.reading, None
                    continue
                except Exception as error:
                    differs = follower is not None and isinstance(error, Differs)
                    if server.is_primary and not differs:
                        raise
                    if differs:  # read again what a replica has withheld or altered, and everything if unsure
                        left = None if server.is_primary or follower is None else follower.reading.confirmed
                        after = after if left is not None else 0
                    if follower is not None and (differs or left is None):  # the same entries are read again
                        self._source.known.forget(follower.reading.copies)
                    if not server.is_primary:
                        server = await self._servers.leave(server, error)
                    before, follower = left, None
                    continue
                self._heard(follower)
                if batch:
                    follower.reading.position = batch[-1].position
                # Keep a copy, because the follower changes its own `reading` when it reads more. Example: it reads
                # entries 11 to 20 and fails before they are yielded. The next follower has to begin after entry 10.
                self._left = left = before = dataclasses.replace(follower.reading)
                if batch:
                    yield batch
                if at_end:
                    self.deaf = None
                    yield ()
                    if self._servers.has_nearer(server):
                        await server.close()
                        server, follower = await self._servers.choose(), None
        except Deaf as error:
            self.deaf = str(error)
            raise
        finally:
            await server.close()

    def _heard(self, follower: "_Follower") -> None:
        self.heard = follower.heard if follower.heard is not None else self.heard
        if follower.reading.place != self._place:
            self._late_s, self._place = self._servers.ends.lag_s(self._place), follower.reading.place


class _Follower:
    """One reader of the stream. It sends commands to Redis; `ReadPosition` decides what the answers mean.

    A *heartbeat* is an item that a process writes to the stream every second. An *epoch* is a number that rises when
    the log has lost entries.
    """

    def __init__(self, source: FollowedStream, server: ReadServer, position: int, ended_before_ms: int) -> None:
        self.reading = ReadPosition(position, ended_before_ms, others=source.history.server)
        self.heard: float | None = None
        self._source = source
        self._server = server
        self._block_ms = 0  # how long Redis may wait for an entry in the next read, in ms
        self._more = False  # whether the next entry belongs to the same alert and has to be in the same batch (LogF4)

    async def begin(self, before: ReadPosition | None, *, rewound: bool = False) -> None:
        """Begin to read the stream: at its start, or where an earlier follower stopped.

        `before` is the point at which the earlier follower stopped, or None to begin at the start. Continue after
        `before` only if the log is still in the same epoch and has everything that the earlier follower has read. If
        that follower had not reached the end that the stream had when it began, read from the start: gaps up to there
        may be deleted entries. Otherwise the log was rewound, that is, it has lost entries. Then make the log begin a
        new epoch, unless another process has already done so, and read from the start: `new_epoch` names the epoch that
        is to end, so if two followers notice the same loss, only one begins an epoch. `rewound` is True if the earlier
        follower has already noticed a loss. Raise LogUnavailable if Redis fails.
        """
        source, reading = self._source, self.reading
        reading.server = await self._server.admit()
        epoch, seq, top = await source.writer.beat()
        await self._server.reach(top)
        if before is not None:
            if not rewound and before.fits(epoch, seq) and (reading.server == before.server or await self._has(before)):
                if before.has_reached_top():
                    reading.go_on_from(before)
                    return
            elif (floor := before.floor(epoch, source.history.epoch)) is not None:
                if not self._server.is_primary:
                    raise LogUnavailable("it lacks entries")  # only the primary can tell whether the log has lost them
                epoch, seq, top = await source.writer.new_epoch(epoch, floor)
                await self._server.reach(top)
        reading.begin(epoch, seq, top, source.history.digests[-1])

    async def _has(self, before: ReadPosition) -> bool:
        """Return whether the log on this server still has the last entry that an earlier follower has read.

        `before` is the point at which the earlier follower stopped.
        """
        if before.last == ZERO:
            return True
        place = text_of(before.last)
        # Another entry may have got the same id and number meanwhile.
        # Example: a clock of Redis was ahead, so each id is the one before it plus 1. The old primary stored an entry
        # that it never replicated. The new primary gave the next entry the same id, number and epoch.
        found = await self._server.ask("XRANGE", self._source.stream, place, place)
        return bool(found) and identity(found[0][1]) == before.last_identity

    async def read(self) -> tuple[list[Positioned], bool]:
        """Return the next entries, and whether the end of the stream was reached.

        If the end was reached, the next call waits up to HEARTBEAT_S seconds for entries. If several entries of one
        alert were put back together (after the log had lost them), all of them are returned together, even if the batch
        gets too large (LogF4). Raise Rewound if entries have been lost, and LogUnavailable if Redis fails.
        """
        found: list[Positioned] = []
        size = 0
        while True:
            count = max(1, min(READ_AT_ONCE, BATCH - len(found)))
            raw = await self._read_some(count)
            async for place, fields in in_turns(raw):
                size += len(fields.get(b"p", b""))
                if (positioned := self._take(parse_id(place), fields)) is not None:
                    found.append(positioned)
            at_end = len(raw) < count
            if at_end or ((len(found) >= BATCH or size >= BATCH_BYTES) and not self._more):
                break
        if self._source.compares:
            self.reading.compare(self._source.history)
        if at_end:
            self._check_hearing()
        self._block_ms = int(HEARTBEAT_S * 1000) if at_end else 0
        return found, at_end

    async def _read_some(self, count: int) -> Any:
        """Return the next items of the stream, at most `count`, in the form in which Redis returns them.

        Heartbeats (items that this and other processes write every second) are included.
        """
        block_ms, self._block_ms = self._block_ms, 0
        block = ("BLOCK", block_ms) if block_ms else ()
        command = ("XREAD", "COUNT", count, *block, "STREAMS", self._source.stream, text_of(self.reading.place))
        answer = await self._server.ask(*command, within_s=block_ms / 1000 + ANSWER_S)
        if not answer:
            return ()
        self.heard = time.monotonic()
        return answer[0][1]

    def _take(self, place: Id, fields: Fields) -> Positioned | None:
        """Process the next item of the stream.

        Return its entry and position, or None if the caller does not get this item. The caller gets no heartbeats, no
        items of other programs, no entries that can't be read or are of an unknown kind, and no entries that it did not
        ask for. Raise Rewound if the item's number is not the next one, which shows that entries have been lost.
        """
        is_beat = b"h" in fields
        adds = self._source.compares and not is_beat
        if place <= self.reading.place:
            raise LogUnavailable("its items are not in order")
        try:
            epoch, seq, ends_at = int(fields[b"e"]), int(fields[b"n"]), 0 if is_beat else int(fields[b"x"])
        except (KeyError, ValueError):
            self.reading.pass_over(place)
            if adds:
                self.reading.add(fields)
            self._source.aside.add_item(place, ValueError("no entry of geocast"))
            return None
        if place <= self.reading.top and seq > self.reading.seq and not self._server.is_primary:
            raise LogUnavailable("it has entries that the primary has not")
        # `take` raises Rewound if the number does not follow the last one. A heartbeat has the number of the entry
        # before it.
        position = self.reading.take(place, epoch, seq, identity(fields), is_beat=is_beat)
        if is_beat:
            return None
        if adds:
            self.reading.add(fields, position)
        self._more = fields.get(b"m") == b"1"
        if fields.get(b"k", b"").decode("ascii", "replace") in KINDS:
            ends_at = MAX_MS  # entries of calls are yielded even if they have ended (LogC1)
        wanted = self.reading.wants(position, fields.get(b"i", b""), ends_at)
        readable = self._source.aside.readable(place, fields) if wanted else None
        if readable is None:
            return None
        stored, entry = readable
        if not isinstance(entry, Untrusted):
            self._source.known.keep(stored)
            if self._source.compares:
                self.reading.copies.append((place, stored))
        return Positioned(position, entry) if is_followed(entry) else None

    def _check_hearing(self) -> None:
        """Check, at the end of the stream, that this is the stream to which this process writes.

        Raise Deaf if heartbeats (items that this process writes every second) did not arrive although Redis has
        accepted them. Raise Rewound if the log is in a later epoch, which means that it has lost entries.
        """
        if self._server.is_deaf(self.reading):
            raise Deaf("the stream that is read is not the one that is written")
        if self.reading.is_superseded(self._source.history):
            raise Rewound
