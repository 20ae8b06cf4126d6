"""The choice of the Redis server from which this process follows the log (`--log-follow`).

A *follower* is a reader of the stream, and a *heartbeat* an item that processes write to the stream once a second.

    RG1     Followers read the primary, the nearest fit replica that the Sentinels know, or a named replica. Everything
            else goes to the primary: appends, heartbeats, counts, and reads whose results are in answers. So the
            primary does not pay for each follower.
    RG2     What a follower promises (LogF1 to LogF4) does not depend on the server that it reads. Only an entry may
            come a replication delay later.
    RG3     A position belongs to the log and not to a server, so a follower continues at its position on another
            server. It begins with a heartbeat on the primary, and waits until this heartbeat is in the replica. The
            replica then has everything that the primary had, and what is missing there is missing in the log. A
            replica that has not caught up within LAG_S is not read.
    RG4     What the primary has reported to the heartbeats of this process must come through the replica within LAG_S.
            `PrimaryEnds` remembers what was reported, and when. A replica is left if it is behind, does not answer,
            reads its data, is resynced, or has lost its link to the primary. One warning says so when the primary is
            read instead. A replica that has been fit for FIT_S is read again. After any other
            error a replica is left as well; only the primary can say that the log has lost entries.
            What a replica gives is compared with what the primary reports to the heartbeats: a running digest of all
            new items, and the number of entries (`ReadPosition.compare`). If they differ, the replica is left for an
            hour, and everything after the last item on which both agree is read again.
            Example: a replica leaves out an entry and renumbers the next ones. It can't change the digest that the
            primary reports, so within 3 s the follower reads the entry from another server.
    RG5     Each answer of a replica is followed by the question for its history. `master_replid` is a random number
            that the primary and all its replicas have in common, also replicas of replicas, until another server is
            promoted. Nothing that came from another history is used.
            Example: after a failover, a replica that has not heard of it still sends entries of the old primary. The
            next heartbeat reaches the new primary, which has another number, so the follower leaves the replica.
    RG6     A replica is only read, so its user needs no other right; it may be a replica of a replica.

    a replica ── not fit (RG3 to RG5) ──> the next replica ──> the primary
        ^                                                         │
        └────────── a nearer replica has been fit for FIT_S ──────┘
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from ...model.errors import ConfigError, LogUnavailable, trace
from ...model.server_address import Address
from ...storage.redis import target
from ...storage.redis.admission import SECTIONS, Server, admit
from ...storage.redis.primary import ANSWER_S, Primary, Reader
from ...storage.redis.target import Target
from .history import Differs, History, ReadPosition
from .stored import ZERO, Id, parse_id, text_of

logger = logging.getLogger(__name__)

LAG_S = 2.0  # how far a replica that is read may be behind, and how long it may take to answer (RG4)
FIT_S = 60.0  # how long a replica must have been fit before a follower comes back to it (RG4)
WRONG = 60  # … and how many times as long if it has withheld or altered entries
MEASURE_S = 5.0  # the time between two measurements of the replicas that are not read
LIST_S = 30.0  # the time between two questions to the Sentinels which replicas there are
NEARER = 2.0  # a follower moves to a replica whose round trip is shorter by this factor

PRIMARY, REPLICA = "primary", "replica"  # the values of `--log-follow` that are no URLs


class PrimaryEnds:
    """The ids of the stream's last items as the primary has reported them to heartbeats, and when it did."""

    def __init__(self) -> None:
        self._reported: deque[tuple[Id, float]] = deque(maxlen=120)  # two minutes of heartbeats
        self._last: float | None = None  # when the primary reported last

    def report(self, end: Id) -> None:
        """Record that `end` is the id of the last item in the stream now.

        If the ids have gone back, the clock of a new primary is behind that of the old one. What the old one has
        reported is then forgotten, since items of the new one may never have such high ids. If the primary has not
        reported for longer than LAG_S, the item may be as old as its last report.
        Example: an ocean was cut for a minute. A replica that is still cut off is left as soon as the primary answers.
        """
        now = time.monotonic()
        before, self._last = self._last, now
        at = before if before is not None and now - before > LAG_S else now
        if self._reported and end < self._reported[-1][0]:
            self._reported.clear()
        if not self._reported or end > self._reported[-1][0]:
            self._reported.append((end, at))

    def lag_s(self, place: Id) -> float:
        """Return for how many seconds the primary has had items beyond `place`; 0 if it has reported none."""
        if not self._reported or self._reported[-1][0] <= place:
            return 0.0
        return time.monotonic() - next(at for end, at in self._reported if end > place)


def unfit(info: Mapping[str, Any], history: Server | None) -> str | None:
    """Return the reason why a server must not be read, or None if it may be.

    `info` is the server's answer to INFO. `history` identifies the primary to which this process writes.
    """
    if info.get("loading") or info.get("async_loading"):
        return "it is reading its data"
    if info.get("role") != "master":
        if info.get("master_sync_in_progress"):
            return "it is being resynced"
        if info.get("master_link_status") != "up":
            return "its link to the primary is broken"
    if history is None or info.get("master_replid") != history[1]:
        return "it has another history than the primary"
    return None


def _behind(lag_s: float) -> str:
    return f"it is more than {lag_s:.1f} s behind the primary"


class ReadServer:
    """A connection of one follower to the server that it reads; here the primary, in `_ReadReplica` a replica."""

    name = PRIMARY
    is_primary = True

    def __init__(self, reader: Reader, history: History, *, volatile: bool) -> None:
        """Prepare to read the primary. `volatile` has the same meaning as in `RedisStreamsLog`."""
        self._reader = reader
        self._history = history
        self._volatile = volatile

    async def admit(self) -> Server:
        """Return the primary whose history is read. Raise LogUnavailable if this server must not be read."""
        return admit(await self._reader.ask("INFO", *SECTIONS), volatile=self._volatile)

    async def reach(self, end: Id) -> None:
        """Wait until the server has all items of the stream up to `end`. The primary has them at once."""

    async def ask(self, *command: Any, within_s: float = ANSWER_S) -> Any:
        """Send a command that reads the stream, and return the answer. Raise LogUnavailable if it can't be used."""
        return await self._reader.ask(*command, within_s=within_s)

    def is_deaf(self, reading: ReadPosition) -> bool:
        """Return whether items that the primary has accepted have not come. Call it only at the end of the stream."""
        return reading.is_deaf(self._history)

    async def close(self) -> None:
        """Close the connection to the server."""
        await self._reader.close()


class _ReadReplica(ReadServer):
    """A connection of one follower to a replica (see the module's docstring)."""

    is_primary = False

    def __init__(self, replica: "_Replica", history: History, ends: PrimaryEnds, stream: str) -> None:
        super().__init__(replica.connect(), history, volatile=True)
        self.name = replica.name
        self.replica = replica
        self._ends = ends
        self._stream = stream

    async def admit(self) -> Server:
        await self._check()
        server = self._history.server
        assert server is not None  # `_check` has compared it
        return server

    async def reach(self, end: Id) -> None:
        if end == ZERO:
            return
        # The id before `end`: XREAD returns the first item after it, as soon as there is one.
        before = (end[0], end[1] - 1) if end[1] else (end[0] - 1, 2**64 - 1)
        command = ("XREAD", "COUNT", 1, "BLOCK", int(LAG_S * 1000), "STREAMS", self._stream, text_of(before))
        if not await self._reader.ask(*command, within_s=LAG_S + ANSWER_S):
            raise LogUnavailable(_behind(LAG_S))
        await self._check()

    async def ask(self, *command: Any, within_s: float = ANSWER_S) -> Any:
        answer = await self._reader.ask(*command, within_s=min(within_s, LAG_S))
        await self._check()
        return answer

    def is_deaf(self, reading: ReadPosition) -> bool:
        return reading.server != self._history.server or self._ends.lag_s(reading.place) > LAG_S

    async def _check(self) -> None:
        """Raise LogUnavailable if the replica must not be read, or if its last answer came from another history."""
        info = await self._reader.ask("INFO", "replication", "persistence", within_s=LAG_S)
        if reason := unfit(info, self._history.server):
            raise LogUnavailable(reason)


class _Replica:
    """A replica that may be read: since when it has been fit, and the least round trip to it."""

    def __init__(self, where: Target, address: Address) -> None:
        self.name = str(address)
        self.problem: str | None = "it was not measured yet"
        self.round_trip_s = float("inf")
        self._where = where
        self._address = address
        self._fit_since: float | None = None
        self._was_wrong = False  # whether it has ever withheld or altered entries
        self._reader: Reader | None = None  # the connection for measurements

    def connect(self) -> Reader:
        """Return a new connection to this replica, which the caller has to close."""
        return Reader(self._where, self._address)

    async def measure(self, stream: str, history: Server | None, ends: PrimaryEnds, *, first: bool) -> None:
        """Find out whether this replica is fit to be read. At the `first` measurement, it may be read at once."""
        reader = self._reader = self._reader or self.connect()
        try:
            info = await reader.ask("INFO", "replication", "persistence", within_s=LAG_S)
            started = time.monotonic()
            last = await reader.ask("XREVRANGE", stream, "+", "-", "COUNT", 1, within_s=LAG_S)
            took_s = time.monotonic() - started
            lag_s = ends.lag_s(parse_id(last[0][0]) if last else ZERO)
            if problem := _behind(lag_s) if lag_s > LAG_S else unfit(info, history):
                raise LogUnavailable(problem)
        except Exception as error:  # also an answer that is none
            await self.close()
            self.fail(error)
            return
        if self._fit_since is None:
            self._fit_since = float("-inf") if first else time.monotonic()
        self.problem = None
        self.round_trip_s = min(self.round_trip_s, took_s)

    def fail(self, error: Exception) -> None:
        """Record why this replica must not be read now."""
        self.problem = str(error) if isinstance(error, LogUnavailable) else f"{type(error).__name__} in its answer"
        self._fit_since, self.round_trip_s = None, float("inf")
        self._was_wrong = self._was_wrong or isinstance(error, Differs)

    def may_be_chosen(self) -> bool:
        """Return whether this replica has been fit for long enough."""
        wait_s = FIT_S * (WRONG if self._was_wrong else 1)
        return self._fit_since is not None and time.monotonic() - self._fit_since >= wait_s

    async def close(self) -> None:
        """Close the connection for measurements."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()


class ServerChoice:
    """Chooses the server that followers read: the nearest replica that is fit, or the primary."""

    def __init__(
        self, name: str, primary: Primary, where: Target, follow: str, stream: str, history: History, *, volatile: bool
    ) -> None:
        """Prepare to choose. `follow` is the value of `--log-follow`, `where` the parts of the URL of `--log`.

        `name` is the log's name for log messages, and `stream` the key of its stream. Raise ConfigError if `follow` is
        not valid for this log.
        """
        self.ends = PrimaryEnds()
        self.reads = PRIMARY  # the name of the server that is read
        self._name = name
        self._primary = primary
        self._where = where
        self._stream = stream
        self._history = history
        self._volatile = volatile
        self._by_sentinels = follow == REPLICA
        self._replicas: dict[Address, _Replica] = {}
        self._starting = asyncio.Lock()
        self._measuring: asyncio.Task[None] | None = None
        self._listed = float("-inf")  # the monotonic time at which the Sentinels were last asked for the replicas
        if self._by_sentinels and not where.service:
            raise ConfigError("--log-follow replica needs a --log with Sentinels; without them give a replica's URL")
        if follow not in (PRIMARY, REPLICA):
            named = target.parse(follow, "--log-follow")
            if named.service or (named.db, named.prefix) != (where.db, where.prefix):
                raise ConfigError("--log-follow: expected a URL of one replica, with the database and prefix of --log")
            self._replicas[named.hosts[0]] = _Replica(named, named.hosts[0])
        self.is_primary_only = follow == PRIMARY
        self._was_measured = False
        self._complained = False  # whether a warning was logged since a replica was read last

    async def choose(self) -> ReadServer:
        """Return a connection to the server that a follower should read now, which the caller has to close.

        Raise LogUnavailable if no replica is fit and the primary can't be reached.
        """
        if not self.is_primary_only:
            async with self._starting:
                if self._measuring is None:
                    await self._measure(self._history)
                    self._measuring = asyncio.get_running_loop().create_task(self._measure_for_ever())
        best = self._best()
        if best is None:
            server = ReadServer(await self._primary.reader(), self._history, volatile=self._volatile)
            self._note(PRIMARY)
            return server
        self._note(best.name)
        return _ReadReplica(best, self._history, self.ends, self._stream)

    async def leave(self, server: ReadServer, error: Exception) -> ReadServer:
        """Record that a replica can't be read any more, close the connection, and return one to another server."""
        assert isinstance(server, _ReadReplica)
        server.replica.fail(error)
        await server.close()
        return await self.choose()

    def has_nearer(self, server: ReadServer) -> bool:
        """Return whether a follower that reads `server` should move to a replica that is nearer now."""
        best = self._best()
        if best is None or best.name == server.name:
            return False
        return not isinstance(server, _ReadReplica) or best.round_trip_s * NEARER < server.replica.round_trip_s

    async def examine(self) -> str:
        """Return a text that says which server a node would read, and how far behind it is. Write nothing to Redis.

        Raise LogUnavailable if the primary does not answer.
        """
        if self.is_primary_only:
            return "reads the primary"
        history = History()
        history.accepted_by(admit(await self._primary.call("INFO", *SECTIONS), volatile=self._volatile), 0)
        await self._measure(history)
        found = await self._primary.call("XREVRANGE", self._stream, "+", "-", "COUNT", 1)
        try:
            if (best := self._best()) is not None:
                server = _ReadReplica(best, history, self.ends, self._stream)
                started = time.monotonic()
                try:
                    await server.reach(parse_id(found[0][0]) if found else ZERO)
                    return f"reads {best.name}, {time.monotonic() - started:.2f} s behind the primary"
                except LogUnavailable as error:
                    best.fail(error)
                finally:
                    await server.close()
            return f"reads the primary: {self._problems()}"
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop to measure the replicas."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.close()

    async def _measure_for_ever(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_S)
            try:
                await self._measure(self._history)
            except Exception as error:
                logger.error("measuring the replicas of the log failed: %s", trace(error))

    async def _measure(self, history: History) -> None:
        """Measure all replicas, except the one that is read: its followers notice by themselves whether it is fit.

        Do nothing before the primary has answered. A replica that is fit at the first measurement may be read at once.
        """
        if history.server is None:
            return
        if (
            self._by_sentinels
            and time.monotonic() - self._listed >= LIST_S
            and (found := await self._primary.replicas())
        ):
            self._listed = time.monotonic()
            for address in self._replicas.keys() - found:
                await self._replicas.pop(address).close()
            for address in found - self._replicas.keys():
                self._replicas[address] = _Replica(self._where, address)
        measured = [each for each in self._replicas.values() if each.name != self.reads]
        first, self._was_measured = not self._was_measured, self._was_measured or bool(measured)
        await asyncio.gather(*(each.measure(self._stream, history.server, self.ends, first=first) for each in measured))

    def _best(self) -> _Replica | None:
        usable = [replica for replica in self._replicas.values() if replica.may_be_chosen()]
        return min(usable, key=lambda replica: replica.round_trip_s, default=None)

    def _note(self, name: str) -> None:
        """Record the name of the server that is read, and log a change."""
        before, self.reads = self.reads, name
        if name != before and name != PRIMARY:
            logger.info("log %s: reads the replica %s", self._name, name)
        if name == PRIMARY and not self.is_primary_only and not self._complained:
            logger.warning("log %s: reads the primary, because no replica is fit: %s", self._name, self._problems())
        self._complained = name == PRIMARY

    def _problems(self) -> str:
        return "; ".join(f"{each.name}: {each.problem}" for each in self._replicas.values()) or "there is none"
