"""Divides the devices among processes: into 64 shards by their digests, each held by at most one process at a time.

Rule 1  A process holds a shard for a *term*, which has a number. Each later term of the shard has a higher number. A
        record of what a device was sent names the term, and the store refuses the record if a later term has begun
        (DevS7).
Rule 2  Devices of a shard are sent nothing if its term may have ended: `may_send` returns False well before another
        process can get the shard.
Rule 3  `ShardOwner.take` loads the devices of shards that this process has taken. `ShardOwner.let_go` removes the
        devices of shards that are lost or about to be freed; when it returns, other processes may have the shards.
        Requests that are still under way then are recorded as maybe sent (rule WPS3).
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from ..model.errors import StoreUnavailable
from .devicestore import SHARDS

logger = logging.getLogger(__name__)

AGAIN_S = 1.0  # pause after the store was unreachable


class ShardOwner(Protocol):
    """Loads and removes the devices of this process's shards (subsets of the devices)."""

    async def take(self, terms: Mapping[int, int]) -> None:
        """Load the devices of new shards (subsets of the devices), and push the alerts that they lack.

        `terms` maps each shard to the number of its term. Raise StoreUnavailable if the store can't be used; then none
        of these devices stays loaded.
        """

    async def let_go(self, shards: Collection[int]) -> None:
        """Remove the devices of these shards (subsets of the devices), because this process gives them up.

        Wait a limited time for requests under way to end, and record their outcomes.
        """


class Shards(Protocol):
    """The interface that says which shards (subsets of the devices) this process holds.

    A shard is held for a *term*, which has a number. `attach` and `stop` are called once each.
    """

    error: str | None  # why the shards can't be kept at the moment, so that pushes pause soon; None if they can

    @property
    def terms(self) -> Mapping[int, int]:
        """The shards (subsets of the devices) that this process holds: shard -> number of the term (Rule 1)."""

    def may_send(self, shard: int) -> bool:
        """Return whether pushes to the devices of a shard may start now (Rule 2)."""

    def refused(self, shards: Collection[int]) -> None:
        """Stop serving these shards (subsets of the devices), because the store has refused records of their devices.

        The refusal means that other processes have taken the shards. `may_send` returns False from now on, and
        `ShardOwner.let_go` is called soon.
        """

    async def attach(self, owner: ShardOwner) -> None:
        """Take and free shards (subsets of the devices), forever; `owner` loads and removes their devices (Rule 3)."""

    async def stop(self) -> None:
        """Free all shards (subsets of the devices), so that other processes can take them.

        Before this, the caller must stop the object that has the devices, and write their delivery records.
        """


class StaticShards:
    """A set of shards (subsets of the devices) that never changes.

    With N workers, each worker has every N-th shard, starting with the worker's number.
    """

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
                logger.error("device store: the devices can't be loaded (%s); trying again", error)
                await asyncio.sleep(AGAIN_S)
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Do nothing: when this worker starts again, it has the same shards."""
