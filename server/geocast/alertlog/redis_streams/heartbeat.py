"""Heartbeats: a check, once a second, whether this Redis can keep the log.

A heartbeat is an item that is written to the stream and synced like an entry. So it meets the same problems as an
append. Followers (the readers of the stream) use heartbeats too: they notice when heartbeats do not reach them.
Example: the disk of Redis is full. The next heartbeat fails with "Redis can't write to its disk". From then on appends
are refused at once; otherwise each of them would wait for its time limit.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ...model.errors import LogUnavailable, trace
from ...storage.redis.admission import SECTIONS, UNKNOWN, Server, admit, ask_sync_mode, refuse_never_syncing
from ...storage.redis.primary import Primary, Unfit
from .. import HEARTBEAT_S
from .history import History, floor_after
from .writer import Writer

logger = logging.getLogger(__name__)

INFO_S = 1.0  # the time within which Redis has to answer INFO
RETRY_S = 0.25  # the time between two heartbeats while the log can't be used


class Heartbeat:
    """Writes a heartbeat every second: an item in the stream, which shows that Redis can store entries.

    After a failure, the attribute `problem` says why the log can't be used. An *epoch* is a number that rises when the
    log has lost entries.
    """

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
        """Prepare to write heartbeats (items in the stream) through `writer`, one every second.

        `beaten` is called after each successful heartbeat. Its argument is true if the server or the epoch has changed
        since the previous heartbeat: the log may then lack entries that this process has. `replicas` and `volatile`
        have the same meaning as in `RedisStreamsLog`.
        """
        self.problem: str | None = None  # why the last heartbeat failed; None if it succeeded
        self.info: Mapping[str, Any] = {}  # the primary's last answer to INFO
        self.at_once = False  # whether entries are already durable when readers first see them
        self._primary = primary
        self._writer = writer
        self._history = history
        self._beaten = beaten
        self._replicas = replicas
        self._volatile = volatile
        self._sync_mode: str | None = None  # the setting `appendfsync` of Redis
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Write the first heartbeat (an item in the stream), and start a task that writes another one every second.

        If Redis is unavailable now, the task tries again. Raise Unfit if this Redis server can't keep a log.
        """
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
        """Return a description of the Redis server for the operator. Write nothing to the server.

        `keys` is the prefix of all keys of the log; no other program may use such keys. Raise Unfit if the server or
        its keys can't be used for a log, and LogUnavailable if Redis fails or has too few replicas.
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
        """Write a heartbeat (an item in the stream), to check that Redis can keep a log and stores writes durably.

        If the log has lost entries, make it begin a new epoch (a higher number). Raise LogUnavailable if a check fails.
        """
        await self._primary.look()
        server, self.info, mode = await self._read_server()
        self._note_sync_mode(mode)
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
                await self._primary.leave()  # so that the next heartbeat asks for the primary's address again
            except Exception as error:
                self.problem = type(error).__name__
                logger.error(
                    "the periodic check of the log's Redis server met an unexpected error: %s; trying again",
                    trace(error),
                )

    async def _read_server(self) -> tuple[Server, Mapping[str, Any], str]:
        """Return an identification of the primary Redis server, its answer to INFO, and its setting `appendfsync`.

        The setting may change at any time, so both are asked together, in one round trip. If our user may not read the
        setting, it is `UNKNOWN`, and this server is not asked for it again. Raise Unfit if the server is not suitable,
        and LogUnavailable if it does not answer.
        """
        if self._sync_mode != UNKNOWN:
            with contextlib.suppress(Unfit):
                commands = [("INFO", *SECTIONS), ("CONFIG", "GET", "appendfsync")]
                info, setting = await self._primary.pipe(commands, within_s=INFO_S)
                return admit(info, volatile=self._volatile), info, str(setting[1].decode())
        server, info = await self._read_info()
        is_new = self._sync_mode != UNKNOWN or server != self._history.server
        return server, info, await ask_sync_mode(self._primary) if is_new else UNKNOWN

    async def _read_info(self) -> tuple[Server, Mapping[str, Any]]:
        info: Mapping[str, Any] = await self._primary.call("INFO", *SECTIONS, within_s=INFO_S)
        return admit(info, volatile=self._volatile), info

    def _note_sync_mode(self, mode: str) -> None:
        """Take note of the server's setting `appendfsync`. Raise Unfit if the server never syncs."""
        before, self._sync_mode = self._sync_mode, mode
        refuse_never_syncing(mode, volatile=self._volatile)
        if mode == before:
            return
        self.at_once = self._replicas == 0 and (self._volatile or mode == "always")
        if self._volatile:
            logger.warning("log %s is volatile: alerts are lost when Redis crashes", self._primary.name)
        elif mode != "always":
            logger.warning(
                "log %s: appendfsync is %s, so publishing may take up to a second; set appendfsync to always",
                self._primary.name,
                mode,
            )
