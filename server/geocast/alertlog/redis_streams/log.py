"""The class `RedisStreamsLog`, which is assembled from the other modules of this package."""

import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

from prometheus_client.core import Metric

from ...clock import Now
from ...metrics import append_times, counter, gauge
from ...model.alert import Cancel, Entry, OtherKind
from ...model.call import CallEntry
from ...model.errors import ConfigError, LogUnavailable
from ...storage.redis import target
from ...storage.redis.primary import Primary, Unfit
from .. import (
    PAGE,
    PLACE_MS,
    RETENTION_MS,
    Counts,
    Cursor,
    EntryVerifier,
    Page,
    Positioned,
    Seen,
    TrustAll,
    current,
    drop_unverified_cancels,
    is_doubtful,
    page,
)
from ..trusted_time import NEWEST, TrustedTime
from . import scripts
from .appender import Appender
from .delivery_counts import KEPT_MS, DeliveryCounts
from .follower import FollowedStream, Following
from .heartbeat import Heartbeat
from .history import History
from .reading import PRIMARY, ServerChoice
from .repair import Repairer, StoredEntries
from .stored import ZERO, Fields, Id, Stored, StoredDecoder, parse_id, position_of
from .writer import Writer

PURGE_BATCH = 500  # the largest number of alerts that one script deletes

_Chain = list[tuple[Id, Entry | OtherKind | None]]  # each entry's id in the stream, and the entry (None if unreadable)
_Raw = list[tuple[bytes, list[bytes]]]  # the ids and fields of entries, as Redis returns them


class RedisStreamsLog:
    """A log of alerts in a Redis stream.

    The package's docstring says how it keeps the rules of the `alertlog` package.
    """

    def __init__(
        self,
        url: str,
        *,
        replicas: int = 0,
        volatile: bool = False,
        follow: str = PRIMARY,
        verifier: EntryVerifier | None = None,
    ) -> None:
        """Prepare to use the log at `url`, without connecting. Raise ConfigError if the URL is not valid.

        An append waits until its entry is on `replicas` replicas. If `volatile` is true, a server without an
        append-only file may be used, although it loses alerts when it crashes. `follow` says which server followers
        read: "primary", "replica" (the nearest one that the Sentinels know), or the URL of a replica. `verifier` checks
        the entries that are read; without a verifier, all entries are accepted.
        """
        where = target.parse(url)
        self.name = str(where)
        self._keys = f"{{{where.prefix}}}:"
        self._stream = f"{self._keys}stream"
        self._append_times = append_times()
        self._primary = Primary(where)
        self.verifier = verifier or TrustAll()
        self._aside = StoredDecoder(self.name, self.verifier)
        self._history = History()
        self._known = StoredEntries(self._history)
        self._trusted_time = TrustedTime()
        self._writer = Writer(self._primary, self._keys, self._history, replicas=replicas, volatile=volatile)
        self._appender = Appender(self._writer, lambda: self._heart.problem, self._known.keep)
        self._counting = DeliveryCounts(self._primary, self._keys)
        self._mender = Repairer(self.name, self._writer, self._known, self._counting, self._stored, self._aside)
        self._heart = Heartbeat(
            self._primary, self._writer, self._history, self._beaten, replicas=replicas, volatile=volatile
        )
        self._servers = ServerChoice(
            self.name, self._primary, where, follow, self._stream, self._history, volatile=volatile
        )
        parts = self._stream, self._writer, self._history, self._aside, self._known
        source = FollowedStream(*parts, compares=follow != PRIMARY)
        self._following = Following(self._servers, source)

    @property
    def quarantined(self) -> int:
        """The number of unreadable entries found since this process started (LogR2)."""
        return len(self._aside)

    # ---- starting and stopping -------------------------------------------------------------------------------------

    async def examine(self) -> str:
        """Return a description of the Redis server for the operator.

        Raise ConfigError if the server can't be used for a log as configured, or if another program uses the log's
        keys. Raise LogUnavailable if the server can't be used now.
        """
        try:
            return f"{self.name}: {await self._heart.examine(self._keys)}, {await self._servers.examine()}"
        except Unfit as error:
            raise ConfigError(f"log {self.name}: {error}") from None
        except LogUnavailable as error:
            raise LogUnavailable(f"{self.name}: {error}") from None
        finally:
            await self._primary.close()

    async def is_there(self) -> bool:
        """Return whether Redis has the keys of the log."""
        return bool(await self._primary.call("EXISTS", f"{self._keys}meta"))

    async def start(self) -> None:
        """Connect to Redis, and begin to write heartbeats (items in the stream that show that Redis works).

        Raise ConfigError if this Redis server can't keep a log. If Redis can't be reached, no error is raised here; all
        other methods raise LogUnavailable until it can be reached.
        """
        try:
            await self._heart.start()
        except Unfit as error:
            await self._primary.close()
            raise ConfigError(f"log {self.name}: {error}") from None

    async def stop(self) -> None:
        """Wait until all appends are stored or have failed, then close all connections."""
        await self._appender.finish()
        await self._heart.stop()
        await self._mender.stop()
        await self._servers.stop()
        await self._primary.close()

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the log and of its Redis server, for Prometheus."""
        yield from self._append_times.collect()
        history, mender = self._history, self._mender
        yield gauge("log_epoch", "Epoch of the log: a greater one when its history was rewound", history.epoch)
        yield gauge("log_sequence", "Sequence number of the last entry known to be in the log", history.seq)
        if self._following.heard is not None:
            silence_s = time.monotonic() - self._following.heard
            yield gauge("log_silence_seconds", "Since the follower last read anything, heartbeats included", silence_s)
            text = "How far the server that is read is behind the primary"
            yield gauge("log_read_lag_seconds", text, self._following.lag_s(), {"server": self._servers.reads})
        if info := self._heart.info:
            yield gauge("redis_memory_bytes", "Memory that the primary of the log uses", info["used_memory"])
            yield gauge("redis_max_memory_bytes", "Memory that it may use; 0 for no limit", info["maxmemory"])
            yield gauge("redis_replicas", "Replicas that are connected to it", info["connected_slaves"])
        yield counter("log_rewinds", "Times that the log began a new epoch", history.rewinds)
        yield counter("log_put_back", "Entries that the log had lost and that were put back", mender.put_back)
        yield counter("log_conflicts", "Entries that could not be put back: the log has others there", mender.conflicts)

    def _beaten(self, may_lack_something: bool) -> None:
        self._servers.ends.report(self._history.top)
        if may_lack_something:
            self._mender.begin()
        self._known.forget_ended_now_and_then()

    # ---- writing to the log ----------------------------------------------------------------------------------------

    async def append(self, entry: Entry | CallEntry) -> bool:
        """Store `entry` and return True once it is durable, or return False if its number is not the next one."""
        with self._append_times.time():
            return await self._appender.append(Stored.of(entry))

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add `counts` to the stored delivery counts of the alerts and calls.

        Raise LogUnavailable if the log can't be used.
        """
        if counts:
            await self._counting.add(counts)
        if problem := self._heart.problem or self._following.deaf:
            raise LogUnavailable(problem)

    async def purge(self, now_ms: int) -> int:
        """Delete alerts that ended at least RETENTION_MS ago, and places of calls that ended at least PLACE_MS ago.

        (The place of a call for help is the place of its incident.) Return the number of deleted entries. Each script
        deletes at most PURGE_BATCH alerts. An alert counts as ended only if three clocks agree: this machine's, Redis',
        and the trusted time (LogR1). For the places of calls the trusted time is not needed (LogC4).
        """
        arguments: tuple[int, ...] = (now_ms, PLACE_MS, PURGE_BATCH)
        total = await self._purge(scripts.PURGE_PLACES, arguments)
        trusted_ms = self._trusted_time.at_least(await self._newest(), Now(now_ms, time.monotonic()))
        arguments = (trusted_ms, RETENTION_MS, PURGE_BATCH, KEPT_MS)
        return total + await self._purge(scripts.PURGE, arguments)

    async def _purge(self, script: str, arguments: Sequence[int]) -> int:
        total = 0
        while gone := int(await self._primary.call("EVAL", script, 1, self._keys, *arguments)):
            total += gone
        return total

    async def _newest(self) -> list[Entry | OtherKind | None]:
        found = await self._primary.call("XREVRANGE", self._stream, "+", "-", "COUNT", NEWEST)
        entries = [(place, fields) for place, fields in found if b"i" in fields]  # no heartbeats or foreign items
        readable = [self._aside.readable(parse_id(place), fields) for place, fields in entries]
        return [there and there[1] for there in readable]

    # ---- reading the log -------------------------------------------------------------------------------------------

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """Return all readable entries of one alert or call, ordered by number, once all of them are durable (LogA4)."""
        epoch, durable, raw = await self._primary.call("EVAL", scripts.HISTORY, 1, self._keys, alert_id)
        chain, newest = self._chain(raw)
        await self._wait_until_durable(newest, epoch, durable)
        return [
            entry
            for entry in drop_unverified_cancels([entry for _, entry in chain], self.verifier)
            if entry is not None
        ]

    async def _stored(self, alert_id: str) -> list[Stored]:
        """Return all readable entries of one alert or call in their stored form.

        Entries that are not durable yet are included.
        """
        *_, raw = await self._primary.call("EVAL", scripts.HISTORY, 1, self._keys, alert_id)
        entries = [(parse_id(place), _fields(flat)) for place, flat in raw]
        return [there[0] for place, fields in entries if (there := self._aside.readable(place, fields)) is not None]

    async def live(self, now_ms: int, after: Cursor | None = None, limit: int = PAGE) -> Page:
        """Return a page of up to `limit` live alerts, once all entries in it are durable (LogA4).

        `after` is the attribute `after` of the previous page, or None for the first page.
        """
        epoch = durable = b""
        newest = 0

        async def look(cursor: Cursor, count: int) -> Sequence[Seen]:
            nonlocal epoch, durable, newest
            arguments = (*cursor, count)
            epoch, durable, alerts = await self._primary.call("EVAL", scripts.LIVE, 1, self._keys, *arguments)
            found = []
            for ends_at, alert_id, *raw in alerts:
                chain, last = self._chain(raw)
                newest = max(newest, last)
                if any(is_doubtful(entry, self.verifier) for _, entry in chain):
                    chain = await self._verified_chain(alert_id)
                found.append(_seen(Cursor(int(ends_at), alert_id.decode()), chain))
            return found

        found = await page(look, now_ms, after, limit)
        await self._wait_until_durable(newest, epoch, durable)
        return found

    async def _verified_chain(self, alert_id: bytes) -> _Chain:
        """Return a pair (stream id, entry) for each entry of an alert, the last one first.

        The pair of an entry that can't be read has None in place of the entry. The pair of an entry that is not
        accepted has an `Untrusted`, whose content is ignored (LogJ1).
        """
        _, _, raw = await self._primary.call("EVAL", scripts.HISTORY, 1, self._keys, alert_id)
        chain, _ = self._chain(raw)
        entries = drop_unverified_cancels([entry for _, entry in chain], self.verifier)
        return [(place, entry) for (place, _), entry in zip(chain, entries, strict=True)][::-1]

    async def open_calls(self, now_ms: int) -> Sequence[str]:
        """Return the ids of the calls for help open at `now_ms`, once all entries now in the log are durable."""
        epoch, durable, seq, ids = await self._primary.call("EVAL", scripts.OPEN_CALLS, 1, self._keys, now_ms)
        await self._wait_until_durable(int(seq), epoch, durable)
        return [call_id.decode() for call_id in ids]

    async def tail(self) -> int:
        """Return the position of the last entry in the log; 0 if the log is empty."""
        epoch, seq = await self._primary.call("HMGET", f"{self._keys}meta", "epoch", "seq")
        return position_of(int(epoch), int(seq)) if int(seq or 0) else 0

    async def counts(self, alert_id: str) -> Counts:
        """Return the delivery counts of an alert, call or revision, added up over all processes.

        `alert_id` is the id of an alert or call, or a key from `under_revision`.
        """
        return await self._counting.total(alert_id)

    def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """Yield batches of the entries with positions above `after`, without end."""
        return self._following.follow(after, ended_before_ms)

    def nudge(self) -> None:
        """Do nothing: Redis sends new entries to waiting followers at once."""

    def _chain(self, raw: _Raw) -> tuple[_Chain, int]:
        """Decode the entries of one alert in `raw`, which is part of an answer from Redis.

        Return a list with a pair (stream id, entry) for each of them, and the highest of their sequence numbers in the
        log. The pair of an entry that can't be read has None in place of the entry.
        """
        newest = 0
        chain: _Chain = []
        for place, flat in raw:
            fields = _fields(flat)
            newest = max(newest, int(fields.get(b"n", 0)))
            readable = self._aside.readable(parse_id(place), fields)
            chain.append((parse_id(place), readable and readable[1]))
        return chain, newest

    async def _wait_until_durable(self, seq: int, epoch: bytes, durable: bytes) -> None:
        """Wait until the entries up to sequence number `seq` are durable, that is, on enough disks (LogA4).

        `epoch` and `durable` come from the log: entries up to number `durable` of that epoch are known to be durable.
        If this is not enough, write a heartbeat (an item in the stream); when it is synced, all entries before it are
        synced too.
        """
        known = self._history.seq if int(epoch or 0) == self._history.epoch else 0
        if not self._heart.at_once and seq > max(known, int(durable or 0)):
            await self._writer.beat(0)


def _fields(flat: Sequence[bytes]) -> Fields:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _seen(cursor: Cursor, newest_first: _Chain) -> Seen:
    cancelled = any(isinstance(entry, Cancel) for _, entry in newest_first)
    revision = None if cancelled else current(entry for _, entry in newest_first)
    return Seen(cursor, next((place for place, entry in newest_first if entry is revision), ZERO), revision)
