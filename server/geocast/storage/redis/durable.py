"""Writes that are waited for until they are on the disks."""

from typing import Any

from ...model.errors import LogUnavailable
from .primary import Primary

WRITE_S = 2.5  # the time within which a write has to be durable, including all attempts
SYNC_S = 1.5  # the time within which a write has to be on the disks; with `appendfsync everysec` it takes a second
ASK_REPLICAS_MS = (2, 5, 10, 20, 50, 100)  # how long the waits last; each one asks the replicas again


class Unsynced(LogUnavailable):
    """Raised if a write has not been synced to enough disks in time."""


async def run_durably(
    primary: Primary, call: tuple[Any, ...], *, replicas: int, volatile: bool, within_s: float = WRITE_S
) -> Any:
    """Run a script that writes.

    Return its answer once its writes are on the server's disk and on `replicas` replicas. If `volatile` is true, the
    server has no append-only file, so only the replicas count. Raise Unsynced if the writes were not synced in time,
    and LogUnavailable if Redis fails.
    """
    # A replica reports how much it has synced only once a second, and whenever Redis begins a wait. So send several
    # waits of growing length: each makes the replicas report again. Once enough have synced, the others end at once.
    waits_ms = [*(ASK_REPLICAS_MS if replicas else ()), max(1, int(min(SYNC_S, within_s / 2) * 1000))]
    command = ("WAIT",) if volatile else ("WAITAOF", 1)
    waits = [(*command, replicas, wait_ms) for wait_ms in waits_ms]
    answer, *_, synced = await primary.pipe([call, *waits], within_s=within_s, confirmed=True)
    local, on_replicas = (1, synced) if volatile else synced
    if local < 1 or on_replicas < replicas:
        here = "here" if local else "not here"
        raise Unsynced(f"synced {here}, and on {on_replicas} of {replicas} replicas")
    return answer
