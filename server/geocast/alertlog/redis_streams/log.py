"""A log in a Redis stream: any number of machines.

How the rules of the port are kept (what the scripts `*.lua` do, and with which keys, is told in `prelude.lua`):

LogA1,
LogA2   One script judges an entry and stores it: Redis runs one at a time. An append has a token, so that when a reply
        is lost it may ask again, and learns whether what is stored is its own.
LogA3   Behind the script, on the same connection, WAITAOF (WAIT without an append-only file) waits until the entry is
        synced here and on as many replicas as was asked, and the numbers are looked at. All appends that wait for a
        connection share one script and one WAITAOF. What was acknowledged can be lost all the same when a primary
        fails and a replica takes over that had not got it (never, with enough replicas asked for); see "Failover".
LogA4   Does not hold strictly: a stream can't be kept back. With `appendfsync always` and no replicas asked for nobody
        sees an entry that is not synced. Else followers see it up to a second before, and it may be that it was seen
        and then lost, if Redis fails in that second. `history` and `live`, by which requests are answered, wait until
        all that they tell is durable.
LogF1   Positions are epoch << 40 | seq. They rise for ever; in a new epoch everything is given again, at positions of
        that epoch.
LogF2   XREAD BLOCK for a second, on a connection of its own with a deadline of its own. There is an empty batch only
        while the stream that is read is the one that is written: heartbeats which Redis accepted must come out of it.
LogF3   Every wait on Redis has an end.
LogR2   As in `sqlite.py`: a CRC-32 for each entry, and what can't be read is skipped, named and counted.

Failover. Redis replicates asynchronously, and a restart without `appendfsync always` takes up to a second back. So:

Rule 1  Each entry has a sequence number and an epoch. A follower that finds a gap or another epoch, or whose last entry
        is gone when it reconnects to another server, knows that history was rewound: it has the log begin a new epoch,
        and reads it from the start. Those who follow drop what they have by (id, revision). A stream that begins anew
        may have lower ids than before (the clock of its host was set), and then nothing of it comes to who waits
        behind a higher one: so at the end of what comes the epoch is compared with the log's.
Rule 2  Each process keeps, in memory, the bytes of the entries of alerts that have not ended, those of other kinds too
        (LogG5). In a new epoch, and when another server answers, it puts back what the log lacks: alerts that are
        cancelled first, the others a second later, so that no cancelled alert comes back to life. Entries of one alert
        come in one piece (`m`). Their numbers may leave gaps: nobody may know those that ended long ago.
Rule 3  If the log has another entry under that number by now (a split brain), the log's stands, and that is counted.
        But a cancel that was accepted is appended again, under the next number.
"""

import asyncio
import contextlib
import copy
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.core import Metric

from ...alert import Cancel, Entry, OtherKind, Revision
from ...errors import ConfigError, LogUnavailable, trace
from ...metrics import counter, gauge
from .. import BATCH, HEARTBEAT_S, RETENTION_MS, Counts, Positioned, codec, current
from . import target
from .connection import ANSWER_S, Primary, Reader, Unfit

log = logging.getLogger(__name__)

INFO_S = 1.0  # for Redis to say how it is, which costs it nothing
APPEND_S = 2.5  # for an entry to be stored and durable, attempts and all
AGAIN_S = 0.1  # between attempts of an append
RETRY_S = 0.25  # between attempts to find Redis well again
SYNC_S = 1.5  # for the disk and the replicas to have it: `everysec` takes a second
ASK_REPLICAS_MS = (2, 5, 10, 20, 50, 100)  # how long to wait before they are asked again
APPENDERS = 4  # scripts with appends under way at once; while one waits to be synced, others are sent
MAX_WAITING = 10_000  # appends in the queue; beyond, the log is unavailable
MAX_SCRIPT = 500  # entries that one script stores, or tells
BEAT_MS = 900  # a younger heartbeat is not followed by another
PUT_BACK_PAUSE_S = 1.0  # Rule 2
PURGE_BATCH = 500  # alerts forgotten by one script
FOREIGN_KEPT_MS = 9 * 86_400_000  # the longest life of an alert is a week, and a day of retention
MAX_COUNTED = 10_000  # alerts whose counts are kept in memory
FORGET_S = 30.0  # between looks for alerts that have ended
EPOCH_SHIFT = 40  # bits of a position below the epoch

_SECTIONS = ("server", "memory", "persistence", "replication", "cluster")
_FOLDER = Path(__file__).parent / "lua"
_PRELUDE = (_FOLDER / "prelude.lua").read_text("utf-8")


def _script(name: str, flags: str = "") -> str:
    return f"#!lua{flags}\n{_PRELUDE}\n{(_FOLDER / name).read_text('utf-8')}"


# They are sent whole: a few KB a call, and no second path for a server that has forgotten its scripts.
_APPEND = _script("append.lua")
_BEAT = _script("beat.lua")
_HISTORY = _script("history.lua", " flags=no-writes")
_PURGE = _script("purge.lua", " flags=allow-oom")

_Id = tuple[int, int]  # of an entry of a stream
_Fields = Mapping[bytes, bytes]
_ZERO: _Id = (0, 0)


class _Rewound(Exception):  # noqa: N818
    """What comes next in the stream does not follow what was read."""


class _Stored(NamedTuple):
    """An entry as it is stored."""

    id: str
    revision: int
    kind: str
    ends_at: int
    payload: bytes

    @classmethod
    def of(cls, entry: Entry) -> "_Stored":
        return cls(entry.id, entry.revision, codec.kind_of(entry), entry.ends_at, codec.encode(entry))

    @classmethod
    def read(cls, fields: _Fields) -> "_Stored":
        """From the fields of the stream. Raises ValueError if it is not what was written."""
        try:
            alert_id, revision, payload = fields[b"i"].decode(), int(fields[b"r"]), fields[b"p"]
            if codec.checksum(alert_id, revision, payload) != int(fields[b"c"]):
                raise ValueError("checksum differs")
            return cls(alert_id, revision, fields[b"k"].decode(), int(fields[b"x"]), payload)
        except KeyError:
            raise ValueError("a field is missing") from None

    def entry(self) -> Entry | OtherKind:
        """What it says. Raises ValueError if that can't be read."""
        if self.kind not in codec.KINDS:
            return OtherKind(self.id, self.revision, self.ends_at)
        return codec.decode(self.payload, self.id, self.revision, self.ends_at)

    def renumbered(self, revision: int) -> "_Stored":
        """The same under another number."""
        return self._replace(revision=revision, payload=codec.renumbered(self.payload, revision))

    def arguments(self, token: str, more: bool) -> tuple[Any, ...]:
        """What `append.lua` takes."""
        checksum = codec.checksum(self.id, self.revision, self.payload)
        return *self, checksum, token, int(more)


@dataclass(slots=True)
class _Waiting:
    """An append that waits to be sent."""

    stored: _Stored
    token: str
    future: "asyncio.Future[bool]"
    deadline: float


class RedisStreamsLog:
    """See the module."""

    def __init__(self, url: str, *, replicas: int = 0, volatile: bool = False) -> None:
        """`replicas`: on how many an entry has to be; `volatile`: a server without append-only file will do.

        Raises ConfigError.
        """
        self.quarantined = 0
        self._target = target.parse(url)
        self._name = str(self._target)
        self._keys = f"{{{self._target.prefix}}}:"
        self.stream = f"{self._keys}stream"
        self._replicas = replicas
        self._volatile = volatile
        self._primary = Primary(self._target)
        self._problem: str | None = None  # why it can't be used, as far as the last heartbeat could tell
        self._unproven = False  # something was not synced in time: the next heartbeat has to be written, and be synced
        self.deaf: str | None = None  # why what is read is not what is written
        self._beating: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._queue: list[_Waiting] = []
        self._appending: set[asyncio.Task[None]] = set()
        self._bad: set[_Id] = set()

        self.identity: tuple[str, str] | None = None  # of the server: one life of one process, one history
        self._sync_mode: str | None = None  # its `appendfsync`; "unknown" where it does not say so
        self._at_once = False  # whether what Redis shows is durable
        self._whole: tuple[tuple[str, str], int] | None = None  # the server and epoch whose log has what is known here
        self.epoch = 0
        self._seq = 0  # the last that is known to be there, and durable
        self.tops: tuple[_Id, _Id] = (_ZERO, _ZERO)  # of the stream, at the last heartbeat but one and at the last
        self._cursor: _Follower | None = None  # of who followed last
        self._known: dict[str, dict[int, _Stored]] = {}  # Rule 2
        self._process = uuid.uuid4().hex[:12]
        self._counted: dict[str, Counts] = {}  # what this process has added
        self._counting = asyncio.Lock()  # sums are written one after the other
        self._info: Mapping[str, Any] = {}  # what the primary last said of itself
        self.heard: float | None = None  # when a follower last read something, heartbeats included
        self._rewinds = self._put_back = self._conflicts = 0
        self._forgot = float("-inf")  # the monotonic time at which entries of ended alerts were last let go

    # ---- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and look what kind of Redis it is. Raises ConfigError if it can't keep a log.

        A Redis that can't be reached is waited for, by every method.
        """
        try:
            await self._beat()
        except Unfit as error:
            await self._primary.close()
            raise ConfigError(f"log {self._name}: {error}") from None
        except LogUnavailable as error:
            log.warning("log %s: %s; going on trying", self._name, error)
            self._problem = str(error)
        self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    async def stop(self) -> None:
        """Store what is waiting, then close."""
        if self._appending:
            await asyncio.wait(self._appending)
        for task in (self._beating, self._mending):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._primary.close()

    def metrics(self) -> Iterable[Metric]:
        """What it counts, for Prometheus."""
        yield gauge("log_epoch", "Epoch of the log: a greater one when its history was rewound", self.epoch)
        yield gauge("log_sequence", "Sequence number of the last entry known to be in the log", self._seq)
        if self.heard is not None:
            silence_s = time.monotonic() - self.heard
            yield gauge("log_silence_seconds", "Since the follower last read anything, heartbeats included", silence_s)
        if info := self._info:
            yield gauge("redis_memory_bytes", "Memory that the primary of the log uses", info["used_memory"])
            yield gauge("redis_max_memory_bytes", "Memory that it may use; 0 for no limit", info["maxmemory"])
            yield gauge("redis_replicas", "Replicas that are connected to it", info["connected_slaves"])
        yield counter("log_rewinds", "Times that the log began a new epoch", self._rewinds)
        yield counter("log_put_back", "Entries that the log had lost and that were put back", self._put_back)
        yield counter("log_conflicts", "Entries that could not be put back: the log has others there", self._conflicts)

    # ---- append ------------------------------------------------------------------------------------------------

    async def append(self, entry: Entry) -> bool:
        """Store `entry` if its number is the next one; durable when this returns."""
        return await self._append(_Stored.of(entry))

    async def _append(self, stored: _Stored) -> bool:
        if self._problem is not None:
            raise LogUnavailable(self._problem)
        if len(self._queue) >= MAX_WAITING:
            raise LogUnavailable("too many appends are waiting")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        deadline = time.monotonic() + APPEND_S
        self._queue.append(_Waiting(stored, uuid.uuid4().hex, future, deadline))
        if len(self._appending) < APPENDERS:
            task = loop.create_task(self._append_all())
            self._appending.add(task)
            task.add_done_callback(self._appending.discard)
        try:
            async with asyncio.timeout(APPEND_S):
                # Whoever posted may go away; what is in the queue is stored all the same.
                return await asyncio.shield(future)
        except TimeoutError:
            raise LogUnavailable(f"not stored within {APPEND_S:g} s") from None

    async def _append_all(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:MAX_SCRIPT], self._queue[MAX_SCRIPT:]
            try:
                stored = await self._append_batch(batch)
            except Exception as error:
                failure = error if isinstance(error, LogUnavailable) else LogUnavailable(type(error).__name__)
                for waiting in batch:
                    waiting.future.set_exception(failure)
                    waiting.future.exception()  # it may be that nobody waits any more
            else:
                for waiting, was_stored in zip(batch, stored, strict=True):
                    waiting.future.set_result(was_stored)

    async def _append_batch(self, batch: Sequence[_Waiting]) -> list[bool]:
        """Send appends until Redis answers."""
        deadline = batch[0].deadline
        while True:
            try:
                answers = await self._store(
                    [waiting.stored.arguments(waiting.token, more=False) for waiting in batch],
                    max(0.0, deadline - time.monotonic()),
                )
            except LogUnavailable:
                if self._problem is not None or time.monotonic() + AGAIN_S >= deadline:
                    raise
                await asyncio.sleep(AGAIN_S)
                continue
            stored = [answer[0] in (b"stored", b"ours") for answer in answers]
            for waiting, was_stored in zip(batch, stored, strict=True):
                if was_stored:
                    self.keep(waiting.stored)
            return stored

    async def _store(
        self, entries: Sequence[tuple[Any, ...]], within_s: float = APPEND_S, *, mending: bool = False
    ) -> Any:
        """Run `append.lua`, and wait until what it stored is durable. Its answers, one for each entry."""
        arguments = [argument for entry in entries for argument in entry]
        epoch, seq, *answers = await self._durably(_APPEND, int(mending), *arguments, within_s=within_s)
        self._note(epoch, seq)
        return answers

    async def _durably(self, script: str, *arguments: Any, within_s: float = APPEND_S) -> Any:
        """What a writing script answers, once what it wrote is as durable as was asked."""
        # A replica tells how far it has synced when it is asked, which is when a wait begins, and else once a second.
        # So it is asked again and again; once there are enough the waits that are left answer at once.
        waits_ms = [*(ASK_REPLICAS_MS if self._replicas else ()), max(1, int(min(SYNC_S, within_s / 2) * 1000))]
        command = ("WAIT",) if self._volatile else ("WAITAOF", 1)
        waits = [(*command, self._replicas, wait_ms) for wait_ms in waits_ms]
        script_call = ("EVAL", script, 1, self._keys, self.epoch, self._seq, *arguments)
        answer, *_, synced = await self._primary.pipe([script_call, *waits], within_s=within_s)
        local, replicas = (1, synced) if self._volatile else synced
        if local < 1 or replicas < self._replicas:
            self._unproven = True
            here = "here" if local else "not here"
            raise LogUnavailable(f"synced {here}, and on {replicas} of {self._replicas} replicas")
        return answer

    async def add_counts(self, counts: Mapping[str, Counts]) -> None:
        """Add to the deliveries of each alert; raises if the log can't be used, too.

        Each process writes its own sums, so that a command whose reply was lost may be repeated.
        """
        if counts:
            async with self._counting:
                await self._write_counts({i: self._counted.get(i, Counts()).plus(more) for i, more in counts.items()})
        if problem := self._problem or self.deaf:
            raise LogUnavailable(problem)

    async def _write_counts(self, sums: Mapping[str, Counts]) -> None:
        commands: list[tuple[Any, ...]] = []
        for alert_id, (sent, acked) in sums.items():
            key = f"{self._keys}counts:{alert_id}"
            commands += [("HSET", key, self._process, f"{sent} {acked}"), ("PEXPIRE", key, FOREIGN_KEPT_MS)]
        await self._primary.pipe(commands)
        self._counted.update(sums)
        if len(self._counted) > MAX_COUNTED:  # go on under another name
            self._counted = {}
            self._process = uuid.uuid4().hex[:12]

    async def purge(self, now_ms: int) -> int:
        """Forget alerts of which every entry ended RETENTION_MS ago, PURGE_BATCH alerts at a time."""
        total = 0
        while True:
            arguments = (now_ms, RETENTION_MS, PURGE_BATCH, FOREIGN_KEPT_MS)
            gone = int(await self._primary.call("EVAL", _PURGE, 1, self._keys, *arguments))
            total += gone
            if not gone:
                return total

    # ---- read --------------------------------------------------------------------------------------------------

    async def history(self, alert_id: str) -> Sequence[Entry | OtherKind]:
        """All entries of one alert."""
        [found] = await self._histories([alert_id])
        return [entry for _, entry in found if entry is not None]

    async def live(self, now_ms: int) -> Sequence[Revision]:
        """The current revision of each live alert."""
        ids = await self._primary.call("ZRANGE", f"{self._keys}ends", f"({now_ms}", "+inf", "BYSCORE")
        live: list[tuple[_Id, Revision]] = []
        for start in range(0, len(ids), MAX_SCRIPT):
            for chain in await self._histories(ids[start : start + MAX_SCRIPT]):
                # What the last one said nobody knows, if it can't be read: the alert may be over.
                readable = not chain or chain[-1][1] is not None
                revision = current(entry for _, entry in chain if entry is not None) if readable else None
                if revision is not None and revision.ends_at > now_ms:
                    live.append((max(place for place, entry in chain if entry is revision), revision))
        return [revision for _, revision in sorted(live, key=lambda found: found[0])]

    async def _histories(self, ids: Sequence[str | bytes]) -> list[list[tuple[_Id, Entry | OtherKind | None]]]:
        """The entries of some alerts, None if unreadable, and where in the stream they are; all of it durable."""
        epoch, durable, *groups = await self._primary.call("EVAL", _HISTORY, 1, self._keys, *ids)
        known = self._seq if int(epoch or 0) == self.epoch else 0
        newest = 0
        histories = []
        for group in groups:
            found: list[tuple[_Id, Entry | OtherKind | None]] = []
            for place, flat in group:
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                newest = max(newest, int(fields.get(b"n", 0)))
                readable = self.readable(_id(place), fields)
                found.append((_id(place), readable and readable[1]))
            histories.append(found)
        if not self._at_once and newest > max(known, int(durable or 0)):
            await self.write_beat(0)
        return histories

    async def tail(self) -> int:
        """The last position."""
        epoch, seq = await self._primary.call("HMGET", f"{self._keys}meta", "epoch", "seq")
        return _position(int(epoch), int(seq)) if int(seq or 0) else 0

    async def counts(self, alert_id: str) -> Counts:
        """The deliveries of one alert."""
        total = Counts()
        for value in await self._primary.call("HVALS", f"{self._keys}counts:{alert_id}"):
            sent, acked = value.split()[:2]  # a later release may count more (LogG6)
            total = total.plus(Counts(int(sent), int(acked)))
        return total

    async def follow(self, after: int, ended_before_ms: int = 0) -> AsyncGenerator[Sequence[Positioned], None]:
        """The entries behind `after`, and those to come."""
        reader = await self._primary.reader()
        try:
            before = self._cursor
            if before is not None and (before.position != after or before.ended_before_ms > ended_before_ms):
                before = None  # it has passed over what is wanted now
            follower = _Follower(self, reader, after, ended_before_ms)
            await follower.begin(before)
            while True:
                try:
                    batch, at_end = await follower.read()
                except _Rewound:
                    before, follower = follower, _Follower(self, reader, follower.position, ended_before_ms)
                    await follower.begin(before, rewound=True)
                    continue
                if batch:
                    follower.position = batch[-1].position
                # As it is now: one that reads on and then fails is ahead of what it has given.
                self._cursor = copy.copy(follower)
                if batch:
                    yield batch
                if at_end:
                    self.deaf = None
                    yield ()
        finally:
            await reader.close()

    def nudge(self) -> None:
        """Redis tells at once."""

    def readable(self, place: _Id, fields: _Fields) -> tuple[_Stored, Entry | OtherKind] | None:
        """What is in an entry of the stream; None if it can't be read, which is counted."""
        try:
            stored = _Stored.read(fields)
            return stored, stored.entry()
        except ValueError as error:
            self.set_aside(place, error)
            return None

    def set_aside(self, place: _Id, error: ValueError) -> None:
        """Count what can't be read, once."""
        if place not in self._bad:
            self._bad.add(place)
            self.quarantined += 1
            log.error("log %s: entry %d-%d of the stream set aside: %s", self._name, *place, error)

    # ---- heartbeats --------------------------------------------------------------------------------------------

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S if self._problem is not None else HEARTBEAT_S)
            try:
                await self._beat()
                self._problem = None
            except LogUnavailable as error:
                self._problem = str(error)
                await self._primary.leave()  # it may be the primary no more
            except Exception as error:
                self._problem = type(error).__name__
                log.error("a heartbeat failed: %s", trace(error))

    async def _beat(self) -> None:
        """See that Redis is fit, writable and durable. If it is another one, or history was rewound, mend the log."""
        await self._primary.look()
        info = await self._primary.call("INFO", *_SECTIONS, within_s=INFO_S)
        identity = self.admit(info)
        self._info = info
        await self._see_when_it_syncs(anew=identity != self.identity)
        known = self.epoch, self._seq
        # A heartbeat that is young already was not written now, and being synced proves nothing of what comes next.
        epoch, seq, _ = await self.write_beat(0 if self._unproven else BEAT_MS)
        self._unproven = False
        if (epoch, seq) < known:
            epoch, _, _ = await self.new_epoch(epoch, known[0])
        self.identity = identity
        if self._whole != (identity, epoch):
            if self._whole is not None:
                self._mend()
            self._whole = (identity, epoch)
        self._forget_ended()

    async def write_beat(self, young_ms: int, ended: int | str = "", least: int = 0) -> tuple[int, int, _Id]:
        """(epoch, seq, id of the last entry of the stream), all durable; there is a heartbeat that young."""
        epoch, seq, place = await self._durably(_BEAT, young_ms, ended, least)
        top = _id(place)
        self._note(epoch, seq)
        if top != self.tops[1]:
            self.tops = (self.tops[1] if self.tops[1] < top else _ZERO, top)
        return epoch, seq, top

    async def new_epoch(self, ended: int, least: int) -> tuple[int, int, _Id]:
        """History was rewound: have the log begin an epoch above `least`, if it is still in the epoch `ended`."""
        return await self.write_beat(BEAT_MS, ended, least)

    def _note(self, epoch: int, seq: int) -> None:
        """Redis has said that so many entries are there, and durable."""
        if epoch > self.epoch:
            if self.epoch:
                self._rewinds += 1
                log.error("log %s: its history was rewound, cut or flushed: epoch %d begins", self._name, epoch)
            self.epoch, self._seq = epoch, seq
        elif epoch == self.epoch:  # answers come in any order
            self._seq = max(self._seq, seq)

    def admit(self, info: Mapping[str, Any]) -> tuple[str, str]:
        """The identity of the server that says this of itself. Raises LogUnavailable if it won't do."""
        if reason := target.unfit(info, volatile=self._volatile):
            raise Unfit(reason)
        if info.get("role") != "master":
            raise LogUnavailable("it is a replica, which can't be written")
        return str(info["run_id"]), str(info["master_replid"])

    async def _see_when_it_syncs(self, *, anew: bool) -> None:
        """Find out when this server syncs what it has accepted; `anew`: it is another server. Raises Unfit if never.

        It is asked again and again, for that may be changed while it runs; unless it does not answer that.
        """
        before = None if anew else self._sync_mode
        mode = before if before == "unknown" else await self._ask_sync_mode()
        self._sync_mode = mode
        if mode == "no" and not self._volatile:
            raise Unfit("it never syncs its append-only file: set appendfsync always (or everysec)")
        if mode == before:
            return
        self._at_once = self._replicas == 0 and (self._volatile or mode == "always")
        if self._volatile:
            log.warning("log %s: nothing makes sure that alerts survive a crash of Redis", self._name)
        elif mode != "always":
            log.warning("log %s: appendfsync is %s: a 201 may take a second; set it to always", self._name, mode)

    async def _ask_sync_mode(self) -> str:
        try:
            answer = await self._primary.call("CONFIG", "GET", "appendfsync")
            return str(answer[1].decode())
        except Unfit:
            return "unknown"  # CONFIG is forbidden, which is wise

    # ---- what the log has lost -----------------------------------------------------------------------------------

    def keep(self, stored: _Stored) -> None:
        """Rule 2: know an entry until its alert has ended."""
        self._known.setdefault(stored.id, {}).setdefault(stored.revision, stored)

    def _forget_ended(self) -> None:
        if time.monotonic() - self._forgot >= FORGET_S:
            self._forgot = time.monotonic()
            # Our own clock may be ahead, and Redis' own, by which it makes ids, may be too.
            now_ms = min(time.time_ns() // 1_000_000, self.tops[1][0])
            self._known = {i: e for i, e in self._known.items() if max(s.ends_at for s in e.values()) > now_ms}

    def _mend(self) -> None:
        if self._mending is not None:
            self._mending.cancel()
        self._mending = asyncio.get_running_loop().create_task(self._put_back_for_sure())

    async def _put_back_for_sure(self) -> None:
        while True:
            try:
                return await self._put_back_known()
            except LogUnavailable:
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                log.error("putting back failed: %s", trace(error))
                return None

    async def _put_back_known(self) -> None:
        """Rule 2."""
        self._forgot = float("-inf")
        self._forget_ended()
        chains = [[entries[n] for n in sorted(entries)] for entries in self._known.values()]
        before = self._put_back
        for cancelled in (True, False):
            wanted = [chain for chain in chains if any(stored.kind == "cancel" for stored in chain) is cancelled]
            for start in range(0, len(wanted), MAX_SCRIPT):
                await self._put_back_some(wanted[start : start + MAX_SCRIPT])
            if cancelled:
                await asyncio.sleep(PUT_BACK_PAUSE_S)
        async with self._counting:
            await self._write_counts(dict(self._counted))
        if self._put_back > before:
            log.warning("log %s: %d entries that it had lost were put back", self._name, self._put_back - before)

    async def _put_back_some(self, chains: Sequence[Sequence[_Stored]]) -> None:
        entries = [(stored, stored is not chain[-1]) for chain in chains for stored in chain]
        token = uuid.uuid4().hex
        answers = await self._store([stored.arguments(token, more) for stored, more in entries], mending=True)
        for (stored, _), (what, last, last_kind, *theirs) in zip(entries, answers, strict=True):
            if what == b"stored":
                self._put_back += 1
            lost_cancel = what in (b"other", b"refused") and stored.kind == "cancel" and last_kind != b"cancel"
            if lost_cancel:  # Rule 3
                await self._append(stored.renumbered(last + 1))
            if what == b"other":
                self._conflicts += 1
                log.error("log %s: an entry can't be put back: the log has another one there", self._name)
                kind, ends_at, payload = theirs
                with contextlib.suppress(ValueError):
                    there = stored._replace(kind=kind.decode(), ends_at=int(ends_at), payload=payload)
                    self._known.setdefault(stored.id, {})[stored.revision] = there


class _Follower:
    """One reader of the stream, on a connection of its own: where it is, and how it knows that it missed nothing."""

    def __init__(self, alert_log: RedisStreamsLog, reader: Reader, position: int, ended_before_ms: int) -> None:
        self.position = position  # of the last entry that was given
        self.epoch = 0
        self.seq = 0  # of the last entry that was read
        self.place = _ZERO  # of the last that was read, heartbeats included
        self.last = _ZERO  # of the last entry that was read
        self.identity: tuple[str, str] | None = None  # of the server
        self._log = alert_log
        self._others = alert_log.identity  # whom the log took for its server when this began
        self._reader = reader
        self.ended_before_ms = ended_before_ms
        self._top = _ZERO  # up to here it catches up, over the gaps that purging leaves; behind it there must be none
        self._block_ms = 0  # how long the next read may wait
        self._more = False  # the next entry belongs to the same chain

    async def begin(self, before: "_Follower | None", *, rewound: bool = False) -> None:
        """Go on where `before` stopped, or from the start if there was none or history was rewound since."""
        self.identity = self._log.admit(await self._reader.ask("INFO", *_SECTIONS))
        epoch, seq, top = await self._log.write_beat(BEAT_MS)
        newest = self._log.epoch
        if before is not None:
            same_server = self.identity == before.identity
            goes_on = not rewound and epoch == before.epoch and seq >= before.seq
            if goes_on and (same_server or await self._is_there(before)):
                self.epoch, self.seq, self.last = before.epoch, before.seq, before.last
                self.place = self._top = before.place if same_server else before.last
                return
            if epoch <= before.epoch or epoch < newest:
                epoch, seq, top = await self._log.new_epoch(epoch, max(before.epoch, newest))
        self.epoch, self.seq, self._top = epoch, seq, top

    async def _is_there(self, before: "_Follower") -> bool:
        """Whether the last entry that was read is in the log of this server."""
        if before.last == _ZERO:
            return True
        found = await self._reader.ask("XRANGE", self._log.stream, _text(before.last), _text(before.last))
        return bool(found) and int(found[0][1].get(b"n", 0)) == before.seq

    async def read(self) -> tuple[list[Positioned], bool]:
        """The next entries, and whether that is all there is. Raises _Rewound, LogUnavailable."""
        found: list[Positioned] = []
        while True:
            count = max(1, BATCH - len(found))
            raw = await self._read_some(count)
            for place, fields in raw:
                if (positioned := self._take(_id(place), fields)) is not None:
                    found.append(positioned)
            at_end = len(raw) < count
            if at_end or (len(found) >= BATCH and not self._more):
                break
        if at_end:
            self._check_hearing()
        self._block_ms = int(HEARTBEAT_S * 1000) if at_end else 0
        return found, at_end

    async def _read_some(self, count: int) -> Any:
        block_ms, self._block_ms = self._block_ms, 0
        block = ("BLOCK", block_ms) if block_ms else ()
        answer = await self._reader.ask(
            "XREAD",
            "COUNT",
            count,
            *block,
            "STREAMS",
            self._log.stream,
            _text(self.place),
            within_s=block_ms / 1000 + ANSWER_S,
        )
        self._log.heard = time.monotonic() if answer else self._log.heard
        return answer[0][1] if answer else ()

    def _take(self, place: _Id, fields: _Fields) -> Positioned | None:
        """Look at what comes next. The entry, if it is one to be given."""
        self.place = place
        is_beat = b"h" in fields
        try:
            epoch, seq, ends_at = int(fields[b"e"]), int(fields[b"n"]), 0 if is_beat else int(fields[b"x"])
        except (KeyError, ValueError):
            self._log.set_aside(place, ValueError("no entry of geocast"))
            return None
        if place > self._top:
            if epoch != self.epoch or seq != self.seq + (not is_beat):
                raise _Rewound
            self.seq = seq
        if is_beat:
            return None
        self.last = place
        self._more = fields.get(b"m") == b"1"
        position = _position(self.epoch, seq)
        if position <= self.position or (place <= self._top and ends_at < self.ended_before_ms):
            return None
        readable = self._log.readable(place, fields)
        if readable is None:
            return None
        stored, entry = readable
        self._log.keep(stored)
        return Positioned(position, entry) if isinstance(entry, Revision | Cancel) else None

    def _check_hearing(self) -> None:
        """Raise LogUnavailable if what Redis has accepted did not come: this stream is not the one that is written.

        Raises _Rewound if it is, and began anew below what was read of it (Rule 1).
        """
        elsewhere = self._log.identity not in (self.identity, self._others)
        if elsewhere or self.place < max(self._top, self._log.tops[0]):
            self._log.deaf = "the stream that is read is not the one that is written"
            raise LogUnavailable(self._log.deaf)
        if self.epoch < self._log.epoch:
            raise _Rewound


def _id(text: bytes) -> _Id:
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)


def _text(place: _Id) -> str:
    return f"{place[0]}-{place[1]}"


def _position(epoch: int, seq: int) -> int:
    return epoch << EPOCH_SHIFT | seq
