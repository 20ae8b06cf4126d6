"""The shards that this process holds, where several processes share a store of devices (rule WPN1).

    free ──> leased ──> held: devices are loaded, and sent what they lack ──> let go, if others have too few ──> free
                          └──> lost: another process has it

Rule 1  A lease lasts LEASE_S and is renewed every RENEW_S. The store's clock decides when a lease has ended, so clocks
        of processes don't matter. A process measures from the moment before it asked for the renewal, by its monotonic
        clock, and sends nothing in the last MARGIN_S of a lease. So a process stops before another one may start.
Rule 2  Each lease has a number, which is greater than that of the shard's lease before. The store refuses a write or a
        renewal that names a lower number. So a process learns that it has lost the shard.
Rule 3  A lease that has ended still belongs to its holder until another process takes it. So after the store was
        unreachable, all processes go on with the devices that they have in memory.
Rule 4  A process takes free shards up to its share, which is ⌈64 / processes alive⌉. If it has more, it lets go of one
        shard after the other: it stops sending, waits for requests under way, and only then frees the shard.
Rule 5  When the store was unreachable or has lost data, no shard is taken for LEASE_S. The holders of shards know what
        has to be put back, so they come first.

Example for Rule 1: process A asks at second 0 and gets an answer at second 1. The store counts the lease from some
moment between, so until second 10 at the earliest. A counts from second 0, and stops sending at second 8.

Example for Rule 2: A is suspended for 30 s (a laptop lid, a frozen VM). B takes the shard with a greater number. A
wakes up and writes "sent" for a request that was under way: the store refuses the line, and A drops the shard.

Example for Rule 3: Redis is down for a minute. All leases end, but nobody can take one. When Redis is back, each
process renews with its old numbers, and no device has to be loaded again.

Example for Rule 4: A has all 64 shards, and B starts. Both now have a share of 32. A frees shard 63, then 62 and so on
down to 32; B takes each as it becomes free, asking every HUNGRY_S.

Example for Rule 5: Redis fails over to a replica that lacks the last second, in which a device of A's shard registered.
If B took the shard at once, it would load the shard without that device. So everybody waits, and A puts the device
back.
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
RETRY_S = 0.5  # pause after a renewal that failed
HUNGRY_S = 0.25  # pause while another process has more than its share, and this one has less
LATE_S = 0.05  # how long after the end of another's lease to ask for it


class Leased(NamedTuple):
    """The store's answer to a renewal.

    `numbers` maps all shards that this process has now to the numbers of their leases.
    """

    numbers: Mapping[int, int]
    share: int  # how many shards this process may have
    crowded: bool  # another process has more shards than that
    free_in_s: float | None  # seconds until the first lease of another process ends
    lost: bool  # the store lacks data that it had, or may lack some


class LeaseStore(Protocol):
    """The operations that leases need of a store. Both raise StoreUnavailable."""

    async def lease(self, process: str, held: Mapping[int, int], *, may_take: bool) -> Leased:
        """Renew the leases of `held` (shard -> number), and take free shards up to the share if `may_take`."""
        ...

    async def release(self, process: str, held: Mapping[int, int], *, leaving: bool) -> None:
        """Free the shards of `held` (shard -> number). `leaving`: the process ends and needs no share."""
        ...


@dataclass(frozen=True, slots=True)
class _Lease:
    number: int
    until: float  # the end, by this process's monotonic clock (Rule 1)


class LeasedShards:
    """The shards of this process, by leases: a `Shards`. The module's docstring has the rules."""

    def __init__(self, store: LeaseStore, clock: Clock) -> None:
        """Start without any shard."""
        self.error: str | None = None  # why the last renewal failed; None if it worked
        self._process = secrets.token_hex(8)
        self._store = store
        self._clock = clock
        self._share = 0
        self._leases: dict[int, _Lease] = {}  # by shard: this process's leases, as far as it knows
        self._has_taken = False  # the owner was called once, be it without a shard
        self._terms: dict[int, int] = {}  # shard -> lease number: the shards that the owner has loaded
        self._going: set[int] = set()  # those that the owner is letting go of
        self._calm_from = float("-inf")  # no shard is taken before this time (Rule 5)
        self._turn = asyncio.Lock()  # one request to the store at a time
        self._news = asyncio.Event()  # set when there may be a shard to load or to let go of

    @property
    def terms(self) -> Mapping[int, int]:
        """The shards that are held, each with the number of its lease. Shards that are being let go are included."""
        return self._terms

    def may_send(self, shard: int) -> bool:
        """Return whether pushes of a shard may start now (Rule 1)."""
        lease = self._leases.get(shard)
        is_held = lease is not None and lease.number == self._terms.get(shard) and shard not in self._going
        return is_held and lease is not None and self._clock.now().monotonic < lease.until - MARGIN_S

    def refused(self, shards: Collection[int]) -> None:
        """Drop the leases of these shards: the store refused a write, so other processes have them (Rule 2)."""
        self._lose([shard for shard in shards if shard in self._leases])

    async def attach(self, owner: ShardOwner) -> None:
        """Take shards, keep them and let go of them, forever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_for_ever())
            tasks.create_task(self._serve_for_ever(owner))

    async def stop(self) -> None:
        """Free all shards. The caller has stopped the owner and flushed its journal."""
        async with self._turn:
            numbers = {shard: lease.number for shard, lease in self._leases.items()}
            self._leases.clear()
            self._terms.clear()
            try:
                await self._store.release(self._process, numbers, leaving=True)
            except StoreUnavailable:
                return  # the leases end by themselves

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
        """Ask the store once; return the seconds until it should be asked again. Raise StoreUnavailable."""
        async with self._turn:
            now = self._clock.now().monotonic
            before = self._leases.copy()
            numbers = {shard: lease.number for shard, lease in before.items()}
            try:
                leased = await self._store.lease(self._process, numbers, may_take=now >= self._calm_from)
            except StoreUnavailable as error:
                if self.error is None:
                    logger.error("the leases of shards can't be renewed: %s; trying again", error)
                self.error = str(error)
                self._calm_from = self._clock.now().monotonic + LEASE_S
                raise
            self._settle(leased, before, now)
        return self._pause_s(leased)

    def _settle(self, leased: Leased, before: Mapping[int, _Lease], now: float) -> None:
        """Apply the store's answer to a renewal.

        The request was made at `now` (monotonic) for the leases in `before`. A shard that was in `before` and is no
        lease any more was refused while the request was under way, so it stays lost.
        """
        if self.error is not None:
            logger.warning("the leases of shards can be renewed again")
            self.error = None
        if leased.lost:
            logger.error("the store of devices may have lost data; storing the devices of this process again")
            self._calm_from = now + LEASE_S
        self._share = leased.share
        self._lose([shard for shard in self._leases if shard not in leased.numbers])
        for shard, number in leased.numbers.items():
            if shard in self._leases or shard not in before:
                self._leases[shard] = _Lease(number, now + LEASE_S)
        self._news.set()

    def _pause_s(self, leased: Leased) -> float:
        """Return the seconds until the next renewal: few if this process may soon get a shard that it lacks."""
        if len(self._leases) >= leased.share:
            return RENEW_S
        if leased.crowded:
            return HUNGRY_S
        return RENEW_S if leased.free_in_s is None else min(RENEW_S, leased.free_in_s + LATE_S)

    def _lose(self, shards: Collection[int]) -> None:
        if shards:
            logger.warning("another process has taken %d shards of devices from this one", len(shards))
        for shard in shards:
            del self._leases[shard]
        self._news.set()

    # ---- the owner -----------------------------------------------------------------------------------------------

    async def _serve_for_ever(self, owner: ShardOwner) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self.serve(owner):
                    pass
            except StoreUnavailable:
                continue  # the next renewal sets `_news`
            except Exception as error:
                logger.error("shards of devices could not be taken or let go of: %s", trace(error))

    async def serve(self, owner: ShardOwner) -> bool:
        """Have the owner let go of one group of shards or load one; return False if there is neither.

        Lost shards come first, then new ones, then one shard beyond the share. Raise StoreUnavailable.
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
        """Have the owner load these shards, which count as held meanwhile."""
        self._terms.update(fresh)
        try:
            await owner.take(fresh)
        except BaseException:  # the owner has none of them then
            for shard in fresh:
                self._terms.pop(shard, None)
            raise

    async def _let_go(self, owner: ShardOwner, shards: Collection[int]) -> None:
        """Have the owner let go of these shards. Meanwhile nothing of them is sent."""
        self._going.update(shards)
        try:
            await owner.let_go(shards)
        finally:
            self._going.difference_update(shards)
        for shard in shards:
            self._terms.pop(shard, None)

    async def _release(self, shard: int) -> None:
        """Free a shard in the store, after the owner has let go of it (Rule 4)."""
        async with self._turn:
            lease = self._leases.pop(shard, None)
            if lease is not None:
                await self._store.release(self._process, {shard: lease.number}, leaving=False)
