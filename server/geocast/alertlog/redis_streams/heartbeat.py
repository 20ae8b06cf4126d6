"""Heartbeats: whether this Redis can keep the log, now and by whom, once a second.

A heartbeat is written and synced like an entry, so that it shows what an append would come upon; followers hear it.
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

INFO_S = 1.0  # for Redis to say how it is, which costs it nothing
RETRY_S = 0.25  # between attempts to find Redis well again
SECTIONS = ("server", "memory", "persistence", "replication", "cluster")


def admit(info: Mapping[str, Any], *, volatile: bool, keeps: str = "alerts") -> Server:
    """Who the server is that says this of itself. Raises LogUnavailable if it won't do. `keeps`: see `unfit`."""
    if reason := target.unfit(info, volatile=volatile, keeps=keeps):
        raise Unfit(reason)
    if info.get("role") != "master":
        raise LogUnavailable("it is a replica, which can't be written")
    return str(info["run_id"]), str(info["master_replid"])


async def ask_sync_mode(primary: Primary) -> str:
    """When Redis syncs what it has accepted: its `appendfsync`. Raises LogUnavailable."""
    try:
        answer = await primary.call("CONFIG", "GET", "appendfsync")
        return str(answer[1].decode())
    except Unfit:
        return "unknown"  # the user may not read the configuration, which is a wise setting


def refuse_never_syncing(mode: str, *, volatile: bool = False) -> None:
    """Raise Unfit if a Redis with this `appendfsync` would never have anything on its disk for sure."""
    if mode == "no" and not volatile:
        raise Unfit("it never syncs its append-only file: set appendfsync always (or everysec)")


class Heartbeat:
    """Writes a heartbeat a second, and knows why the log can't be used, if it can't."""

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
        """`beaten` is told of each good heartbeat whether the log may lack what is known here."""
        self.problem: str | None = None  # why the log can't be used, as far as the last heartbeat could tell
        self.info: Mapping[str, Any] = {}  # what the primary last said of itself
        self.at_once = False  # whether what Redis shows is durable
        self._primary = primary
        self._writer = writer
        self._history = history
        self._beaten = beaten
        self._replicas = replicas
        self._volatile = volatile
        self._sync_mode: str | None = None  # its `appendfsync`; "unknown" where it does not say so
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """The first heartbeat, and one each second from now on. Raises Unfit if this Redis can't keep a log."""
        try:
            await self.beat()
        except Unfit:
            raise
        except LogUnavailable as error:
            logger.warning("log %s: %s; going on trying", self._primary.name, error)
            self.problem = str(error)
        self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    async def stop(self) -> None:
        """End the heartbeats, and wait until they have ended."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def examine(self, keys: str) -> str:
        """What Redis this is, in words. Writes nothing. Raises LogUnavailable, and Unfit if it can't keep a log."""
        _, info = await self._ask_how_it_is()
        mode = await ask_sync_mode(self._primary)
        refuse_never_syncing(mode, volatile=self._volatile)
        for name, wanted in (("stream", b"stream"), ("meta", b"hash")):
            kind = await self._primary.call("TYPE", f"{keys}{name}")
            if kind not in (wanted, b"none"):
                raise Unfit(f"its key {keys}{name} is somebody else's: no {wanted.decode()}")
        replicas = int(info.get("connected_slaves", 0))
        if replicas < self._replicas:
            raise LogUnavailable(f"it has {replicas} replicas, and --log-replicas asks for {self._replicas}")
        kept = "forgets when it ends" if info.get("aof_enabled") != 1 else f"appendfsync {mode}"
        return f"release {info['redis_version']}, {kept}, {replicas} replicas"

    async def beat(self) -> None:
        """See that Redis is fit, writable and durable, and whether history was rewound. Raises LogUnavailable."""
        await self._primary.look()
        server, self.info = await self._ask_how_it_is()
        await self._see_when_it_syncs(anew=server != self._history.server)
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
                await self._primary.leave()  # it may not be the primary any more, so the next call looks for that
            except Exception as error:
                self.problem = type(error).__name__
                logger.error("a heartbeat failed: %s", trace(error))

    async def _ask_how_it_is(self) -> tuple[Server, Mapping[str, Any]]:
        """Who the primary is, and what it says of itself. Raises LogUnavailable, and Unfit if it can't keep a log."""
        info: Mapping[str, Any] = await self._primary.call("INFO", *SECTIONS, within_s=INFO_S)
        return admit(info, volatile=self._volatile), info

    async def _see_when_it_syncs(self, *, anew: bool) -> None:
        """Find out when this server syncs what it has accepted; `anew`: it is another server. Raises Unfit if never.

        It is asked again and again, for that may be changed while it runs; unless it does not answer that.
        """
        before = None if anew else self._sync_mode
        mode = before if before == "unknown" else await ask_sync_mode(self._primary)
        self._sync_mode = mode
        refuse_never_syncing(mode, volatile=self._volatile)
        if mode == before:
            return
        self.at_once = self._replicas == 0 and (self._volatile or mode == "always")
        if self._volatile:
            logger.warning("log %s: nothing makes sure that alerts survive a crash of Redis", self._primary.name)
        elif mode != "always":
            logger.warning(
                "log %s: appendfsync is %s: a 201 may take a second; set it to always", self._primary.name, mode
            )
