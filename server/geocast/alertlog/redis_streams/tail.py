"""A reader of a log in a Redis stream, for a Redis user that may only read (`alertlog/tail.py`).

A *heartbeat* is an item that each node writes to the stream once a second. A node recognizes by its own heartbeats that
it reads the stream to which it writes. This reader can't write, so it relies on the nodes' heartbeats. If none arrives
for SILENCE_S, either no node is running, or this is no longer the stream to which the nodes write. The reader then
raises LogUnavailable, and its next call asks again for the primary's address.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ...model.errors import ConfigError, LogUnavailable
from ...storage.redis import target
from ...storage.redis.primary import ANSWER_S, Primary, Reader, Unfit
from .. import BATCH, HEARTBEAT_S
from ..tail import RawEntry
from .stored import ZERO, Fields, Id, Stored, parse_id, text_of

SILENCE_S = 10 * HEARTBEAT_S


class RedisTail:
    """Reads the entries of a log in a Redis stream, without writing to Redis."""

    def __init__(self, url: str) -> None:
        """Prepare to read the log at `url`, a URL as in the option `--log`. Raise ConfigError if it is not valid."""
        where = target.parse(url)
        self.name = str(where)
        self._stream = f"{{{where.prefix}}}:stream"
        self._primary = Primary(where)
        self._last: tuple[Id, Fields] | None = None  # the last entry that was yielded: its id and its fields

    async def is_there(self) -> bool:
        """Return whether there is anything in the stream: a node begins it with a heartbeat."""
        reader = await self._primary.reader()
        try:
            return bool(await reader.ask("XRANGE", self._stream, "-", "+", "COUNT", 1))
        finally:
            await reader.close()

    async def start(self) -> None:
        """Check that this user may read the stream. Raise ConfigError if not."""
        try:
            await self.is_there()
        except Unfit as error:
            raise ConfigError(f"log {self.name}: {error}") from None
        except LogUnavailable:
            return  # if the problem does not pass, `follow` raises it

    async def stop(self) -> None:
        """Close all connections that are open."""
        await self._primary.close()

    async def follow(self) -> AsyncGenerator[Sequence[RawEntry], None]:
        """Yield batches of entries without end, beginning after the last entry that was yielded.

        Begin with the first entry of the log if nothing was yielded yet, or if the log no longer has the last entry
        that was yielded. Raise LogUnavailable if the log can't be read, or no heartbeat (an item that nodes write every
        second) comes for SILENCE_S seconds.
        """
        reader = await self._primary.reader()
        try:
            place, heard = await self._begin(reader), time.monotonic()
            while True:
                raw = await self._read(reader, place)
                if raw:
                    place, heard = parse_id(raw[-1][0]), time.monotonic()
                elif time.monotonic() - heard > SILENCE_S:
                    raise LogUnavailable("no heartbeat of any node comes")
                entries = [(parse_id(at), fields) for at, fields in raw if b"h" not in fields]
                if entries:
                    self._last = entries[-1]
                yield [raw_entry for at, fields in entries if (raw_entry := _raw_entry(fields)) is not None]
        finally:
            await reader.close()

    async def _begin(self, reader: Reader) -> Id:
        """Return the id of the stream item after which to begin to read.

        This is the last entry that was yielded, if the log still has it unchanged: all new entries then have higher
        ids. Otherwise it is ZERO, which is before the first item.
        """
        if self._last is None:
            return ZERO
        place, fields = self._last
        found = await reader.ask("XRANGE", self._stream, text_of(place), text_of(place))
        return place if found and found[0][1] == fields else ZERO

    async def _read(self, reader: Reader, place: Id) -> Any:
        block_ms = int(HEARTBEAT_S * 1000)
        command = ("XREAD", "COUNT", BATCH, "BLOCK", block_ms, "STREAMS", self._stream, text_of(place))
        answer = await reader.ask(*command, within_s=HEARTBEAT_S + ANSWER_S)
        return answer[0][1] if answer else ()


def _raw_entry(fields: Fields) -> RawEntry | None:
    """Return the entry in the fields of a stream item, or None if the fields don't make up an entry."""
    try:
        epoch, seq = int(fields[b"e"]), int(fields[b"n"])
        alert_id, revision, payload = fields[b"i"].decode(), int(fields[b"r"]), fields[b"p"]
    except (KeyError, ValueError):
        return None
    entry = None
    with contextlib.suppress(ValueError):
        entry = Stored.read(fields).entry()
    return RawEntry(epoch, seq, alert_id, revision, payload, entry)
