"""Who follows the log reads the stream, on a connection of its own, and finds out when that is not all there is."""

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

# Entries that one XREAD asks for, at most: of the largest there are they come to BATCH_BYTES, which a line of 20 Mbit/s
# carries in ANSWER_S. XREAD itself knows no bound in bytes.
READ_AT_ONCE = BATCH_BYTES >> 16


class Deaf(LogUnavailable):
    """What was written did not come."""


@dataclass(frozen=True, slots=True)
class FollowedStream:
    """What all followers read, and whom they tell."""

    stream: str  # the key of the stream
    writer: Writer
    history: History
    aside: Quarantine
    keep: Callable[[Stored], None]  # this is told of each entry that is read and has not ended
    volatile: bool


class Following:
    """All who follow: what is known of how that goes, and where the one before has stopped."""

    def __init__(self, primary: Primary, source: FollowedStream) -> None:
        self.deaf: str | None = None  # why what is read is not what is written
        self.heard: float | None = None  # the monotonic time when something was read last, heartbeats included
        self._primary = primary
        self._source = source
        self._left: ReadPosition | None = None  # how far who followed last has read

    async def follow(self, after: int, ended_before_ms: int) -> AsyncGenerator[Sequence[Positioned], None]:
        """The entries behind position `after`, and those to come (LogF1 to LogF4). Raises LogUnavailable."""
        reader = await self._primary.reader()
        try:
            left = self._left
            follower = _Follower(self._source, reader, after, ended_before_ms)
            await follower.begin(left if left is not None and left.may_be_continued(after, ended_before_ms) else None)
            while True:
                try:
                    batch, at_end = await follower.read()
                except Rewound:
                    before = follower.reading
                    follower = _Follower(self._source, reader, before.position, ended_before_ms)
                    await follower.begin(before, rewound=True)
                    continue
                self.heard = follower.heard if follower.heard is not None else self.heard
                if batch:
                    follower.reading.position = batch[-1].position
                # A copy is kept, for the follower itself goes on: if it reads more and then fails, before that was
                # given, the next follower has to read it again.
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
    """One reader of the stream: what it asks of Redis, and whether it missed anything (`ReadPosition` decides)."""

    def __init__(self, source: FollowedStream, reader: Reader, position: int, ended_before_ms: int) -> None:
        self.reading = ReadPosition(position, ended_before_ms, others=source.history.server)
        self.heard: float | None = None
        self._source = source
        self._reader = reader
        self._block_ms = 0  # how long the next read may wait for something to come
        self._more = False  # the next entry belongs to the same chain

    async def begin(self, before: ReadPosition | None, *, rewound: bool = False) -> None:
        """Go on where `before` stopped, or from the start if there was none or history was rewound since."""
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
        """Whether the last entry that was read is in the log of this server."""
        if before.last == ZERO:
            return True
        place = text_of(before.last)
        found = await self._reader.ask("XRANGE", self._source.stream, place, place)
        return bool(found) and int(found[0][1].get(b"n", 0)) == before.seq

    async def read(self) -> tuple[list[Positioned], bool]:
        """The next entries, and whether that is all there is. Raises Rewound, LogUnavailable."""
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
        block_ms, self._block_ms = self._block_ms, 0
        block = ("BLOCK", block_ms) if block_ms else ()
        command = ("XREAD", "COUNT", count, *block, "STREAMS", self._source.stream, text_of(self.reading.place))
        answer = await self._reader.ask(*command, within_s=block_ms / 1000 + ANSWER_S)
        if not answer:
            return ()
        self.heard = time.monotonic()
        return answer[0][1]

    def _take(self, place: Id, fields: Fields) -> Positioned | None:
        """Look at what comes next. The entry, if it is one to be given."""
        is_beat = b"h" in fields
        try:
            epoch, seq, ends_at = int(fields[b"e"]), int(fields[b"n"]), 0 if is_beat else int(fields[b"x"])
        except (KeyError, ValueError):
            self.reading.pass_over(place)
            self._source.aside.add(place, ValueError("no entry of geocast"))
            return None
        position = self.reading.take(place, epoch, seq, is_beat=is_beat)
        if is_beat:
            return None
        self._more = fields.get(b"m") == b"1"
        if fields.get(b"k", b"").decode("ascii", "replace") in KINDS:
            ends_at = MAX_MS  # none of a call is passed over
        readable = self._source.aside.readable(place, fields) if self.reading.wants(position, ends_at) else None
        if readable is None:
            return None
        stored, entry = readable
        if not isinstance(entry, Untrusted):
            self._source.keep(stored)
        return Positioned(position, entry) if is_followed(entry) else None

    def _check_hearing(self) -> None:
        """Raise Deaf if what Redis has accepted did not come, Rewound if it comes in another stream."""
        if self.reading.is_deaf(self._source.history):
            raise Deaf("the stream that is read is not the one that is written")
        if self.reading.is_superseded(self._source.history):
            raise Rewound
