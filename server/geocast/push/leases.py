"""Which shards of the devices this process holds, where several processes share a store (WPN1).

    free ──> taken ──> held: read in, and told what it lacks ──> let go of, where others have too few ──> free
                         └──> lost: another process has it

Rule 1  A lease lasts LEASE_S and is renewed every RENEW_S. Whether it has ended the store's clock decides, so those of
        the processes don't matter. By its own monotonic clock a process sends nothing from MARGIN_S before the end of a
        lease that it could not renew, counted from before it asked: so it is the first to know that.
Rule 2  A lease has a number, and the next one of the shard a greater one. Who names a lower one is refused: its write,
        or its renewal. So it learns that it has lost the shard.
Rule 3  A lease that has ended is still its holder's if nobody has taken it: when a store was away, all go on with what
        they have in memory.
Rule 4  A process takes what is free, up to its share: ⌈64 / processes alive⌉. If it has more it lets go, of one shard
        after the other: it sends no more of it, waits for what is under way, and only then is the shard free.
Rule 5  When the store was away or has lost something, nothing is taken for LEASE_S: whoever holds a shard knows what
        has to be put back, so it comes first.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..clock import Clock
from ..errors import StoreUnavailable, trace
from .shards import ShardOwner

logger = logging.getLogger(__name__)

LEASE_S = 10.0
RENEW_S = 3.0
MARGIN_S = 2.0
RETRY_S = 0.5  # after a renewal that failed
HUNGRY_S = 0.25  # while another process has more than its share, and this one has less
LATE_S = 0.05  # behind the end of a lease, for whoever would take it


class Leased(NamedTuple):
    """What a store says of the leases."""

    numbers: Mapping[int, int]  # all shards that this process has now, and the numbers of their leases
    share: int  # that it may have
    crowded: bool  # another process has more than that
    free_in_s: float | None  # the first lease of another one ends then
    lost: bool  # the store lacks something that it had, or it may


class LeaseStore(Protocol):
    """What is asked of a store. Both raise StoreUnavailable."""

    async def lease(self, process: str, held: Mapping[int, int], *, may_take: bool) -> Leased:
        """Renew the leases of shards, by their numbers, and take others."""
        ...

    async def release(self, process: str, held: Mapping[int, int], *, leaving: bool) -> None:
        """Let go of shards; `leaving`: the process ends."""
        ...


@dataclass(frozen=True, slots=True)
class _Lease:
    number: int
    until: float  # by the monotonic clock


class LeasedShards:
    """The shards of this process (`Shards`). The module tells which they are."""

    def __init__(self, store: LeaseStore, clock: Clock) -> None:
        """Holds none yet."""
        self.error: str | None = None  # why the leases could not be renewed last time
        self._process = secrets.token_hex(8)
        self._store = store
        self._clock = clock
        self._share = 0
        self._leases: dict[int, _Lease] = {}  # that are this process's, as far as it knows
        self._has_taken = False  # or was told that there is nothing to be had
        self._terms: dict[int, int] = {}  # of what the holder has, until it has let go of it
        self._going: set[int] = set()  # of these, what the holder is to let go of, or lets go of
        self._calm_from = float("-inf")  # nothing is taken before (Rule 5)
        self._turn = asyncio.Lock()  # one question to the store after the other
        self._news = asyncio.Event()  # there may be something to take or to let go of

    @property
    def terms(self) -> Mapping[int, int]:
        """The shards that are held, each with the number of its lease; also those that are being let go of."""
        return self._terms

    def may_send(self, shard: int) -> bool:
        """Whether anything of a shard may be sent now (Rule 1)."""
        lease = self._leases.get(shard)
        is_held = lease is not None and lease.number == self._terms.get(shard) and shard not in self._going
        return is_held and lease is not None and self._clock.now().monotonic < lease.until - MARGIN_S

    def refused(self, shards: Collection[int]) -> None:
        """A write of these was refused: they are somebody else's."""
        self._lose([shard for shard in shards if shard in self._leases])

    async def attach(self, owner: ShardOwner) -> None:
        """Take shards, keep them, and let go of them, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_for_ever())
            tasks.create_task(self._serve_for_ever(owner))

    async def stop(self) -> None:
        """Let others have what is held. The holder has ended, and all that it noted is stored."""
        async with self._turn:
            numbers = {shard: lease.number for shard, lease in self._leases.items()}
            self._leases.clear()
            self._terms.clear()
            try:
                await self._store.release(self._process, numbers, leaving=True)
            except StoreUnavailable:
                return  # they end by themselves

    # ---- the store -----------------------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            try:
                pause_s = await self.renew()
            except StoreUnavailable:
                pause_s = RETRY_S
            except Exception as error:
                logger.error("the leases of shards could not be renewed: %s", trace(error))
                pause_s = RETRY_S
            await asyncio.sleep(pause_s)

    async def renew(self) -> float:
        """Ask the store once; how many seconds to wait before it is asked again. Raises StoreUnavailable."""
        async with self._turn:
            now = self._clock.now().monotonic
            before = self._leases.copy()
            numbers = {shard: lease.number for shard, lease in before.items()}
            try:
                leased = await self._store.lease(self._process, numbers, may_take=now >= self._calm_from)
            except StoreUnavailable as error:
                if self.error is None:
                    logger.error("the leases of shards can't be renewed: %s", error)
                self.error = str(error)
                self._calm_from = self._clock.now().monotonic + LEASE_S
                raise
            self._settle(leased, before, now)
        return self._pause_s(leased)

    def _settle(self, leased: Leased, before: Mapping[int, _Lease], now: float) -> None:
        """Take over what the store has said, which was asked at `now` for what was held `before`."""
        if self.error is not None:
            logger.warning("the leases of shards can be renewed again")
            self.error = None
        if leased.lost:
            logger.error("the store of devices may have lost something; it is given what is known here")
            self._calm_from = now + LEASE_S
        self._share = leased.share
        self._lose([shard for shard in self._leases if shard not in leased.numbers])
        for shard, number in leased.numbers.items():
            if shard in self._leases or shard not in before:  # else it was refused meanwhile
                self._leases[shard] = _Lease(number, now + LEASE_S)
        self._news.set()

    def _pause_s(self, leased: Leased) -> float:
        if len(self._leases) >= leased.share:
            return RENEW_S
        if leased.crowded:
            return HUNGRY_S
        return RENEW_S if leased.free_in_s is None else min(RENEW_S, leased.free_in_s + LATE_S)

    def _lose(self, shards: Collection[int]) -> None:
        if shards:
            logger.warning("shards of devices that another process has taken: %d", len(shards))
        for shard in shards:
            del self._leases[shard]
        self._news.set()

    # ---- the holder ----------------------------------------------------------------------------------------------

    async def _serve_for_ever(self, owner: ShardOwner) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self.serve(owner):
                    pass
            except StoreUnavailable:
                continue  # the next renewal has it tried again
            except Exception as error:
                logger.error("shards of devices could not be taken or let go of: %s", trace(error))

    async def serve(self, owner: ShardOwner) -> bool:
        """Have the holder let go of what it must not have, or take what it has not; False if there is neither.

        Raises StoreUnavailable.
        """
        lost = [shard for shard, number in self._terms.items() if self._number(shard) != number]
        if lost:
            await self._let_go(owner, lost)
            return True
        fresh = {shard: lease.number for shard, lease in self._leases.items() if shard not in self._terms}
        if fresh or not self._has_taken:
            await self._take(owner, fresh)
            self._has_taken = True
            return True
        if len(self._terms) <= self._share:
            return False
        shard = max(self._terms)
        await self._let_go(owner, [shard])
        await self._release(shard)
        return True

    def _number(self, shard: int) -> int | None:
        lease = self._leases.get(shard)
        return None if lease is None else lease.number

    async def _take(self, owner: ShardOwner, fresh: Mapping[int, int]) -> None:
        self._terms.update(fresh)
        try:
            await owner.take(fresh)
        except BaseException:  # then it has none of them
            for shard in fresh:
                self._terms.pop(shard, None)
            raise

    async def _let_go(self, owner: ShardOwner, shards: Collection[int]) -> None:
        self._going.update(shards)
        try:
            await owner.let_go(shards)
        finally:
            self._going.difference_update(shards)
        for shard in shards:
            self._terms.pop(shard, None)

    async def _release(self, shard: int) -> None:
        async with self._turn:
            lease = self._leases.pop(shard, None)
            if lease is not None:
                await self._store.release(self._process, {shard: lease.number}, leaving=False)
