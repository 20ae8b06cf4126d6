"""The followers of the log: readers of the stream that detect when entries are missing from what they read.

Each call of `follow` has a connection of its own, on which it waits for entries. Appends and heartbeats use other
connections. So the two may reach different servers after a failover, and a follower has to check that the stream that
it reads is the stream that is written. `history.ReadPosition` makes these decisions; this module does the I/O.

    begin ──> read the stream from the start, or from where the last follower stopped (`_left`)
      │
      v
    read ──> entries ──> yield them; more are there ──> read
      │ the end of the stream
      v
    check ── the latest heartbeats have come ──> yield an empty batch, wait up to a second ──> read
      │   └─ the log is in a later epoch ──> Rewound ──> begin, in a new epoch
      v
    Deaf: LogUnavailable; the caller tries again, with a new connection

Example: Redis fails over while a follower waits. Its old connection stays open, and the old primary never answers with
an entry again. Two heartbeats later the follower is at the end of its stream, and the last heartbeat but one has not
come. It raises Deaf. The caller's next follower connects to the new primary, goes on after the last entry if that entry
is there, or has a new epoch begun if it is not.
"""

import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...clock import MAX_MS
from ...errors import LogUnavailable
from ...model.alert import Untrusted
from ...model.call import KINDS
from .. import BATCH, BATCH_BYTES, HEARTBEAT_S, Positioned, is_followed
from .connection import ANSWER_S, Primary, Reader
from .heartbeat import SECTIONS, admit
from .history import History, ReadPosition, Rewound
from .stored import ZERO, Fields, Id, Quarantine, Stored, parse_id, text_of
from .writer import Writer

# The most entries that one XREAD asks for. With entries of the largest size they are BATCH_BYTES, which a connection of
# 20 Mbit/s transfers in ANSWER_S. XREAD itself has no limit in bytes.
READ_AT_ONCE = BATCH_BYTES >> 16


class Deaf(LogUnavailable):
    """The error of a follower whose stream does not contain what was written to the log."""


@dataclass(frozen=True, slots=True)
class FollowedStream:
    """The stream that all followers of a process read, and the parts of the log that they use."""

    stream: str  # the key of the stream
    writer: Writer
    history: History
    aside: Quarantine
    keep: Callable[[Stored], None]  # called with each accepted entry that is read and has not ended
    volatile: bool  # whether a Redis without an append-only file is accepted


class Following:
    """The followers of a process, one after another, and their common state."""

    def __init__(self, primary: Primary, source: FollowedStream) -> None:
        self.deaf: str | None = None  # why the last follower failed, until one is at the end of the stream again
        self.heard: float | None = None  # the monotonic time at which an entry or heartbeat was read last
        self._primary = primary
        self._source = source
        self._left: ReadPosition | None = None  # how far the last follower had given entries when it ended

    async def follow(self, after: int, ended_before_ms: int) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield the entries after position `after`, without end (LogF1 to LogF4). Raises LogUnavailable.

        A follower goes on where the last one stopped if the caller wants just these entries. Otherwise it reads the
        stream from its start, and gives only the entries after `after`.
        """
        reader = await self._primary.reader()
        try:
            left = self._left
            follower = _Follower(self._source, reader, after, ended_before_ms)
            await follower.begin(left if left is not None and left.may_be_continued(after, ended_before_ms) else None)
            while True:
                try:
                    batch, at_end = await follower.read()
                except Rewound:
                    # A new follower reads the stream from its start. It gives all entries again, since their positions
                    # in the new epoch are above the last one that was given; readers drop those that they have.
                    before = follower.reading
                    follower = _Follower(self._source, reader, before.position, ended_before_ms)
                    await follower.begin(before, rewound=True)
                    continue
                self.heard = follower.heard if follower.heard is not None else self.heard
                if batch:
                    follower.reading.position = batch[-1].position
                # A copy is kept, because the follower changes its own `reading` when it reads on. Example: it reads
                # entries 11 to 20 and then fails before they are given. The next follower has to begin after 10.
                self._left = dataclasses.replace(follower.reading)
                if batch:
                    yield batch
                if at_end:
                    self.deaf = None
                    yield ()
        except Deaf as error:
            self.deaf = str(error)
            raise
        finally:
            await reader.close()


class _Follower:
    """One reader of the stream. It sends the commands to Redis, and `ReadPosition` decides what the answers mean."""

    def __init__(self, source: FollowedStream, reader: Reader, position: int, ended_before_ms: int) -> None:
        self.reading = ReadPosition(position, ended_before_ms, others=source.history.server)
        self.heard: float | None = None
        self._source = source
        self._reader = reader
        self._block_ms = 0  # how long the next read may wait for an entry, in ms
        self._more = False  # whether the next entry belongs to the same chain, so that it has to be in the same batch

    async def begin(self, before: ReadPosition | None, *, rewound: bool = False) -> None:
        """Go on where `before` stopped, or begin at the start of the stream. Raises LogUnavailable.

        It goes on if the log is still in the same epoch and has all that `before` has read. If it is not, the log's
        history was rewound. The log then has to begin a new epoch, unless another process has begun one already: only
        one of two followers that detect the same loss begins an epoch, because `new_epoch` names the epoch to be ended.
        """
        source, reading = self._source, self.reading
        reading.server = admit(await self._reader.ask("INFO", *SECTIONS), volatile=source.volatile)
        epoch, seq, top = await source.writer.beat()
        if before is not None:
            if not rewound and before.fits(epoch, seq) and (reading.server == before.server or await self._has(before)):
                reading.go_on_from(before)
                return
            if (floor := before.floor(epoch, source.history.epoch)) is not None:
                epoch, seq, top = await source.writer.new_epoch(epoch, floor)
        reading.begin(epoch, seq, top)

    async def _has(self, before: ReadPosition) -> bool:
        """Return whether this server's log has the last entry that `before` has read."""
        if before.last == ZERO:
            return True
        place = text_of(before.last)
        # Another entry may have this id by now, so the numbers are compared too.
        found = await self._reader.ask("XRANGE", self._source.stream, place, place)
        return bool(found) and int(found[0][1].get(b"n", 0)) == before.seq

    async def read(self) -> tuple[list[Positioned], bool]:
        """Return the next entries, and whether the end of the stream was reached. Raises Rewound or LogUnavailable.

        After the end of the stream, the next call waits for entries for up to HEARTBEAT_S. Entries of one chain that
        were put back together are returned together, also beyond the size of a batch (LogF4).
        """
        found: list[Positioned] = []
        size = 0
        while True:
            count = max(1, min(READ_AT_ONCE, BATCH - len(found)))
            raw = await self._read_some(count)
            for place, fields in raw:
                size += len(fields.get(b"p", b""))
                if (positioned := self._take(parse_id(place), fields)) is not None:
                    found.append(positioned)
            at_end = len(raw) < count
            if at_end or ((len(found) >= BATCH or size >= BATCH_BYTES) and not self._more):
                break
        if at_end:
            self._check_hearing()
        self._block_ms = int(HEARTBEAT_S * 1000) if at_end else 0
        return found, at_end

    async def _read_some(self, count: int) -> Any:
        """Return up to `count` items of the stream after the current place, heartbeats included."""
        block_ms, self._block_ms = self._block_ms, 0
        block = ("BLOCK", block_ms) if block_ms else ()
        command = ("XREAD", "COUNT", count, *block, "STREAMS", self._source.stream, text_of(self.reading.place))
        answer = await self._reader.ask(*command, within_s=block_ms / 1000 + ANSWER_S)
        if not answer:
            return ()
        self.heard = time.monotonic()
        return answer[0][1]

    def _take(self, place: Id, fields: Fields) -> Positioned | None:
        """Process the next item of the stream. Return its entry and position if it has to be given, else None.

        Heartbeats and foreign items only move the place. Entries that can't be read, that are of another kind, or that
        the caller does not want, are not given. Raises Rewound if the number is not the next one.
        """
        is_beat = b"h" in fields
        try:
            epoch, seq, ends_at = int(fields[b"e"]), int(fields[b"n"]), 0 if is_beat else int(fields[b"x"])
        except (KeyError, ValueError):
            self.reading.pass_over(place)
            self._source.aside.add(place, ValueError("no entry of geocast"))
            return None
        # Raises Rewound if the number does not follow the last one. A heartbeat has the number of the entry before it.
        position = self.reading.take(place, epoch, seq, is_beat=is_beat)
        if is_beat:
            return None
        self._more = fields.get(b"m") == b"1"
        if fields.get(b"k", b"").decode("ascii", "replace") in KINDS:
            ends_at = MAX_MS  # entries of calls are given even if they have ended (LogC1)
        readable = self._source.aside.readable(place, fields) if self.reading.wants(position, ends_at) else None
        if readable is None:
            return None
        stored, entry = readable
        if not isinstance(entry, Untrusted):
            self._source.keep(stored)
        return Positioned(position, entry) if is_followed(entry) else None

    def _check_hearing(self) -> None:
        """Check at the end of the stream that it is the stream which is written.

        Raises Deaf if heartbeats that Redis has accepted did not come, and Rewound if the log is in a later epoch.
        """
        if self.reading.is_deaf(self._source.history):
            raise Deaf("the stream that is read is not the one that is written")
        if self.reading.is_superseded(self._source.history):
            raise Rewound
