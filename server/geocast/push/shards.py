"""Which process has which devices: 64 shards, by the device's digest, each held by at most one process at a time.

Rule 1  Who holds a shard holds it for a *term*, which has a number. A later term of the shard has a higher one. What is
        noted of its devices names the term, and the store refuses what a later term has begun for (DevS7).
Rule 2  Nothing is sent of a shard that may have ended: `may_send` says no in good time before another may have it.
Rule 3  What is taken is loaded by `take`; what is lost, or is to be let go, ends by `let_go`, and is free for others
        when that returns. What was under way is noted as maybe sent (WPS3).
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from ..errors import StoreUnavailable
from .devicestore import SHARDS

logger = logging.getLogger(__name__)

AGAIN_S = 1.0  # after the store was out of reach


class ShardOwner(Protocol):
    """Who has the devices of the shards that this process holds."""

    async def take(self, terms: Mapping[int, int]) -> None:
        """Load these shards, and send what their devices lack. Raises StoreUnavailable: then it has none of them."""
        ...

    async def let_go(self, shards: Collection[int]) -> None:
        """Have the devices of these shards no more; what came of requests under way is noted, if it came in time."""
        ...


class Shards(Protocol):
    """The port: which shards this process holds. `hold` and `stop` are called once each."""

    error: str | None  # why they can't be kept at the moment, if they can't: nothing is sent soon

    @property
    def terms(self) -> Mapping[int, int]:
        """The shards that are held, each with the number of its term (Rule 1)."""
        ...

    def may_send(self, shard: int) -> bool:
        """Whether something may be sent of a shard now (Rule 2)."""
        ...

    def refused(self, shards: Collection[int]) -> None:
        """The store has refused lines of these: they are lost. `may_send` says no from now on, `let_go` follows."""
        ...

    async def attach(self, owner: ShardOwner) -> None:
        """Take shards, keep them, and let go of them, for ever (Rule 3)."""
        ...

    async def stop(self) -> None:
        """Let others have what is held. The holder has ended, and all that it noted is stored."""
        ...


class StaticShards:
    """Every `workers`th shard, beginning with that of the worker's number, for as long as the process lives."""

    error: str | None = None

    def __init__(self, worker: int = 0, workers: int = 1) -> None:
        self._terms = dict.fromkeys(range(worker, SHARDS, workers), 0)

    @property
    def terms(self) -> Mapping[int, int]:
        return self._terms

    def may_send(self, shard: int) -> bool:
        return shard in self._terms

    def refused(self, shards: Collection[int]) -> None:
        """Nothing: no other process takes them."""

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
        """Nothing: they are its own at the next start."""
