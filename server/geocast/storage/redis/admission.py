"""Whether a Redis server is fit to keep alerts or devices."""

from collections.abc import Mapping
from typing import Any

from ...model.errors import LogUnavailable
from . import target
from .primary import Primary, Unfit

Server = tuple[str, str]  # a server: `run_id` (one process) and `master_replid` (one replication history) of INFO

UNKNOWN = "unknown"  # the setting `appendfsync` of a Redis server whose configuration our user may not read
SECTIONS = ("server", "memory", "persistence", "replication", "cluster")


def admit(info: Mapping[str, Any], *, volatile: bool, keeps: str = "alerts") -> Server:
    """Check that a Redis server is suitable for a log, and return an identification of the server.

    `info` is the server's answer to the command INFO. `keeps` names the stored data in error messages, such as
    "alerts". Raise Unfit if the server's configuration is not suitable, and LogUnavailable if the server is a replica.
    """
    if reason := target.unfit(info, volatile=volatile, keeps=keeps):
        raise Unfit(reason)
    if info.get("role") != "master":
        raise LogUnavailable("it is a replica, which can't be written")
    return str(info["run_id"]), str(info["master_replid"])


async def ask_sync_mode(primary: Primary) -> str:
    """Return the value of Redis' setting `appendfsync`, or `UNKNOWN` if our Redis user may not read the setting.

    The setting says when writes are synced to disk. Raise LogUnavailable if Redis does not answer.
    """
    try:
        answer = await primary.call("CONFIG", "GET", "appendfsync")
        return str(answer[1].decode())
    except Unfit:
        return UNKNOWN  # this user may not read the configuration, which is a sensible restriction


def refuse_never_syncing(mode: str, *, volatile: bool = False) -> None:
    """Raise Unfit if `mode`, the value of `appendfsync`, is "no" (never sync), unless `volatile` allows data loss."""
    if mode == "no" and not volatile:
        raise Unfit("it never syncs its append-only file: set appendfsync always (or everysec)")
