"""Which process has which devices: 64 shards, by a device's digest, each held by at most one process at a time.

Rule 1  A process holds a shard for a *term*, which has a number. A later term of the shard has a higher number. What is
        noted of a device names the term, and the store refuses a line if a later term has begun (DevS7).
Rule 2  Nothing of a shard is sent if its term may have ended: `may_send` returns False in good time before another
        process can have the shard.
Rule 3  `take` loads shards that were taken. `let_go` removes shards that were lost or are to be freed, and other
        processes may have them when it returns. Requests under way by then are noted as maybe sent (rule WPS3).
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from ..errors import StoreUnavailable
from .devicestore import SHARDS

logger = logging.getLogger(__name__)

AGAIN_S = 1.0  # pause after the store was unreachable


class ShardOwner(Protocol):
    """The owner of the devices in this process's shards, which loads and removes them."""

    async def take(self, terms: Mapping[int, int]) -> None:
        """Load these shards and push what their devices lack. Raise StoreUnavailable, and keep none of them then."""
        ...

    async def let_go(self, shards: Collection[int]) -> None:
        """Remove the devices of these shards, and note the outcomes of requests that end in time."""
        ...


class Shards(Protocol):
    """The port that says which shards this process holds. `attach` and `stop` are called once each."""

    error: str | None  # why the shards can't be kept at the moment, so that sending stops soon; None if they can

    @property
    def terms(self) -> Mapping[int, int]:
        """The shards that are held, each with the number of its term (Rule 1)."""
        ...

    def may_send(self, shard: int) -> bool:
        """Return whether pushes of a shard may start now (Rule 2)."""
        ...

    def refused(self, shards: Collection[int]) -> None:
        """Drop these shards: the store has refused lines of them, so they are lost.

        `may_send` returns False from now on, and the owner's `let_go` is called soon.
        """
        ...

    async def attach(self, owner: ShardOwner) -> None:
        """Take shards, keep them and let go of them, forever (Rule 3)."""
        ...

    async def stop(self) -> None:
        """Free all shards. The caller has stopped the owner and flushed its journal."""
        ...


class StaticShards:
    """Every `workers`th shard, starting with the worker's number, for as long as the process lives."""

    error: str | None = None

    def __init__(self, worker: int = 0, workers: int = 1) -> None:
        self._terms = dict.fromkeys(range(worker, SHARDS, workers), 0)

    @property
    def terms(self) -> Mapping[int, int]:
        return self._terms

    def may_send(self, shard: int) -> bool:
        return shard in self._terms

    def refused(self, shards: Collection[int]) -> None:
        """Do nothing: no other process takes these shards."""

    async def attach(self, owner: ShardOwner) -> None:
        while True:
            try:
                await owner.take(self._terms)
                break
            except StoreUnavailable as error:
                logger.error("the devices can't be loaded: %s; trying again", error)
                await asyncio.sleep(AGAIN_S)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Do nothing: the shards are this worker's again at its next start."""
