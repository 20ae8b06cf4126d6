"""From a URL to what it names: the alert log, a reader of the log that writes nothing, the store of devices.

A package of somebody else's adds a log by an entry point in the group `geocast.logs`. Its name is the scheme of the
URL, and it is a function of the URL and the verifier that returns an `AlertLog`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alertlog import AlertLog, EntryVerifier
from ..alertlog.memory import MemoryLog
from ..alertlog.sqlite.log import SqliteLog
from ..alertlog.sqlite.tail import SqliteTail
from ..alertlog.tail import LogTail, RawEntry, refuse_missing
from ..config import REDIS_SCHEMES, FollowerSettings
from ..model.errors import ConfigError, LogUnavailable

if TYPE_CHECKING:
    from ..push.devicestore import DeviceStore
    from ..push.settings import PushSettings
    from ..push.shards import Shards

logger = logging.getLogger(__name__)

AGAIN_S = 1.0  # from a failure to read the log to the next attempt
LOGS = "geocast.logs"  # the group of entry points

MakeLog = Callable[[str, EntryVerifier | None], AlertLog]


def added(group: str, name: str) -> Any:
    """Return what another package adds to a group of entry points under this name; None if nothing is added."""
    return next((found.load() for found in entry_points(group=group, name=name)), None)


def open_log(settings: FollowerSettings, verifier: EntryVerifier | None = None) -> AlertLog:
    """Create the alert log that the value of `--log` describes, without starting it.

    Raise ConfigError if the value of `--log` is not valid. Readers of the log get only the entries that `verifier`
    accepts, or all entries if it is None.
    """
    scheme, colon, rest = settings.log.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..alertlog.redis_streams import RedisStreamsLog  # importing the library takes 0.1 s and 10 MB

        return RedisStreamsLog(
            settings.log,
            replicas=settings.log_replicas,
            volatile=settings.allow_volatile_log,
            follow=settings.log_follow,
            verifier=verifier,
        )
    if scheme == "memory" and colon and not rest:
        return MemoryLog(verifier)
    if scheme == "sqlite" and str(Path(rest)) == ":memory:":
        raise ConfigError("--log: SQLite's own :memory: can't be shared by threads; give a file, or memory: for tests")
    if scheme == "sqlite" and rest:
        return SqliteLog(Path(rest), verifier=verifier)
    make: MakeLog | None = added(LOGS, scheme)
    if make is not None:
        return make(settings.log, verifier)
    raise ConfigError("--log: expected memory:, sqlite:PATH, or a URL of Redis (redis://HOST:PORT)")


@contextlib.asynccontextmanager
async def opened_log(
    settings: FollowerSettings, verifier: EntryVerifier | None = None, *, makes: bool = True
) -> AsyncIterator[AlertLog]:
    """Open the alert log named by `--log` while the block runs. Raise ConfigError if the log can't be used.

    If `makes` is false, the log must be there already.
    """
    alert_log = open_log(settings, verifier)
    try:
        if not makes:
            await refuse_missing(alert_log)
        await alert_log.start()
        yield alert_log
    finally:
        await alert_log.stop()


def _tail_of(log: str) -> LogTail:
    scheme, _, rest = log.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..alertlog.redis_streams.tail import RedisTail

        return RedisTail(log)
    if scheme == "sqlite" and rest:
        return SqliteTail(Path(rest))
    raise ConfigError("--log: expected sqlite:PATH, or a URL of Redis (redis://HOST:PORT)")


@contextlib.asynccontextmanager
async def opened_tail(log: str) -> AsyncIterator[LogTail]:
    """Open a reader of the alert log named by `--log`, which writes nothing, while the block runs.

    Raise ConfigError if the value of `--log` is not valid or there is no log.
    """
    tail = _tail_of(log)
    try:
        await tail.start()
        await refuse_missing(tail)
        yield tail
    finally:
        await tail.stop()


async def entries_of(tail: LogTail) -> AsyncGenerator[Sequence[RawEntry], None]:
    """Yield the entries of the log in batches, without end. If it can't be read, try again after AGAIN_S seconds."""
    trouble = ""
    while True:
        try:
            async with contextlib.aclosing(tail.follow()) as batches:
                async for batch in batches:
                    if trouble:
                        logger.warning("reading the log works again")
                        trouble = ""
                    yield batch
        except LogUnavailable as error:
            if str(error) != trouble:
                logger.warning("the log can't be read: %s; trying again", error)
            trouble = str(error)
        await asyncio.sleep(AGAIN_S)


def open_devices(settings: "PushSettings") -> "tuple[DeviceStore, Shards]":
    """Return the device store that `--devices` names, without opening it, and the shards that this process serves.

    A shard is a subset of the devices. With Redis, processes lease shards; otherwise this process serves all of them.
    Raise ConfigError if the value of `--devices` is not valid.
    """
    from ..push.devicestore.sqlite import SqliteDevices  # a node needs nothing of this
    from ..push.shards import StaticShards

    scheme, _, rest = settings.devices.partition(":")
    if scheme in REDIS_SCHEMES:
        from ..clock import LeaseClock
        from ..push.devicestore.redis import RedisDevices
        from ..push.leases import LeasedShards

        store = RedisDevices(settings.devices, replicas=settings.devices_replicas)
        return store, LeasedShards(store, LeaseClock())
    return SqliteDevices(Path(":memory:" if scheme == "memory" else rest)), StaticShards()
