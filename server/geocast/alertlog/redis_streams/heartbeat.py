"""Heartbeats: a check once a second whether this Redis can keep the log.

A heartbeat is written to the stream and synced like an entry. So an append would meet the same problems, and followers
notice when the heartbeats do not reach them.
Example: the disk of Redis is full. The next heartbeat fails with "Redis can't write to its disk", and from then on
appends are refused at once, instead of each after its time limit.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import LogUnavailable, trace
from .. import HEARTBEAT_S
from . import target
from .connection import Primary, Unfit
from .history import History, floor_after
from .stored import Server
from .writer import Writer

logger = logging.getLogger(__name__)

INFO_S = 1.0  # the time in which Redis has to answer INFO
RETRY_S = 0.25  # the time between two heartbeats while the log can't be used
SECTIONS = ("server", "memory", "persistence", "replication", "cluster")


def admit(info: Mapping[str, Any], *, volatile: bool, keeps: str = "alerts") -> Server:
    """Return the identity of a server with this INFO. Raises LogUnavailable if it can't be used.

    `keeps` is as in `target.unfit`. Raises Unfit if the server is not configured as a log needs it.
    """
    if reason := target.unfit(info, volatile=volatile, keeps=keeps):
        raise Unfit(reason)
    if info.get("role") != "master":
        raise LogUnavailable("it is a replica, which can't be written")
    return str(info["run_id"]), str(info["master_replid"])


async def ask_sync_mode(primary: Primary) -> str:
    """Return the `appendfsync` of Redis, which says when writes are synced, or "unknown". Raises LogUnavailable."""
    try:
        answer = await primary.call("CONFIG", "GET", "appendfsync")
        return str(answer[1].decode())
    except Unfit:
        return "unknown"  # this user may not read the configuration, which is a wise restriction


def refuse_never_syncing(mode: str, *, volatile: bool = False) -> None:
    """Raise Unfit if a Redis with this `appendfsync` never syncs, unless it may be `volatile`."""
    if mode == "no" and not volatile:
        raise Unfit("it never syncs its append-only file: set appendfsync always (or everysec)")


class Heartbeat:
    """The task that writes a heartbeat each second, and remembers why the log can't be used if one fails."""

    def __init__(
        self,
        primary: Primary,
        writer: Writer,
        history: History,
        beaten: Callable[[bool], None],
        *,
        replicas: int,
        volatile: bool,
    ) -> None:
        """Write heartbeats by `writer`.

        `beaten` is called after each good heartbeat. Its argument says whether the log may lack entries that this
        process has, because it is another server or another epoch. `replicas` and `volatile` have the same meaning as
        in `RedisStreamsLog`.
        """
        self.problem: str | None = None  # why the last heartbeat failed; None if it succeeded
        self.info: Mapping[str, Any] = {}  # the primary's last answer to INFO
        self.at_once = False  # whether entries are durable as soon as they are visible
        self._primary = primary
        self._writer = writer
        self._history = history
        self._beaten = beaten
        self._replicas = replicas
        self._volatile = volatile
        self._sync_mode: str | None = None  # the `appendfsync` of Redis; "unknown" if this user may not read it
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Write a heartbeat now and one each second. Raises Unfit if this Redis can't keep a log."""
        try:
            await self.beat()
        except Unfit:
            raise
        except LogUnavailable as error:
            logger.warning("log %s can't be used (%s); trying again", self._primary.name, error)
            self.problem = str(error)
        self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    async def stop(self) -> None:
        """Stop writing heartbeats, and wait until the task has ended."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def examine(self, keys: str) -> str:
        """Return a description of the Redis, and write nothing. Raises LogUnavailable, or Unfit if it can't be used.

        `keys` is the prefix of all keys of the log, which must not be used for anything else.
        """
        _, info = await self._read_info()
        mode = await ask_sync_mode(self._primary)
        refuse_never_syncing(mode, volatile=self._volatile)
        for name, wanted in (("stream", b"stream"), ("meta", b"hash")):
            kind = await self._primary.call("TYPE", f"{keys}{name}")
            if kind not in (wanted, b"none"):
                raise Unfit(f"its key {keys}{name} belongs to another program: it is not a {wanted.decode()}")
        replicas = int(info.get("connected_slaves", 0))
        if replicas < self._replicas:
            raise LogUnavailable(f"it has {replicas} replicas, and --log-replicas asks for {self._replicas}")
        kept = "forgets when it ends" if info.get("aof_enabled") != 1 else f"appendfsync {mode}"
        return f"release {info['redis_version']}, {kept}, {replicas} replicas"

    async def beat(self) -> None:
        """Check that Redis is fit, writable and durable, and begin a new epoch if the log was rewound.

        Raises LogUnavailable.
        """
        await self._primary.look()
        server, self.info = await self._read_info()
        await self._check_sync_mode(is_new_server=server != self._history.server)
        mark = self._history.mark
        epoch, seq = await self._writer.prove()
        if (floor := floor_after(mark, epoch, seq)) is not None:
            epoch, _, _ = await self._writer.new_epoch(epoch, floor)
        self._beaten(self._history.accepted_by(server, epoch))

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S if self.problem is not None else HEARTBEAT_S)
            try:
                await self.beat()
                self.problem = None
            except LogUnavailable as error:
                self.problem = str(error)
                await self._primary.leave()  # the next heartbeat asks for the primary's address again
            except Exception as error:
                self.problem = type(error).__name__
                logger.error("a heartbeat of the log failed because of an unexpected error: %s", trace(error))

    async def _read_info(self) -> tuple[Server, Mapping[str, Any]]:
        """Return the identity of the primary, and its answer to INFO. Raises LogUnavailable, or Unfit."""
        info: Mapping[str, Any] = await self._primary.call("INFO", *SECTIONS, within_s=INFO_S)
        return admit(info, volatile=self._volatile), info

    async def _check_sync_mode(self, *, is_new_server: bool) -> None:
        """Read the server's `appendfsync`, which may change at any time. Raises Unfit if the server never syncs.

        `is_new_server`: this is another server than before. A server that does not tell is not asked again.
        """
        before = None if is_new_server else self._sync_mode
        mode = before if before == "unknown" else await ask_sync_mode(self._primary)
        self._sync_mode = mode
        refuse_never_syncing(mode, volatile=self._volatile)
        if mode == before:
            return
        self.at_once = self._replicas == 0 and (self._volatile or mode == "always")
        if self._volatile:
            logger.warning("log %s is volatile: alerts are lost when Redis crashes", self._primary.name)
        elif mode != "always":
            logger.warning(
                "log %s: appendfsync is %s, so a 201 may take a second; set it to always", self._primary.name, mode
            )
