"""The shards (subsets of the devices) that this process holds, if several processes share a device store (rule WPN1).

Devices are divided into 64 shards. A process holds a shard by a *lease*: for a limited time it alone sends pushes to
the devices of the shard, and it renews the lease while it runs.

    free ──> leased ──> held: devices are loaded, and sent what they lack ──> let go, if others have too few ──> free
                          └──> lost: another process has the shard

Rule 1  A lease lasts LEASE_S and is renewed every RENEW_S. The store's clock decides when a lease has ended, so it
        doesn't matter if the processes' clocks differ. A process counts a lease from the moment just before it asked
        for the renewal, and sends nothing in the last MARGIN_S of the lease. So it stops before another process may
        start. Its clock goes on while the machine sleeps, as that of the store does (`LeaseClock`).
Rule 2  Each lease of a shard has a greater number than the lease before it. The store refuses a write or a renewal with
        a lower number. So a process learns that it has lost the shard.
Rule 3  A lease that has ended still belongs to its holder until another process takes the shard. So when the store is
        back after an outage, all processes continue with the devices that they have in memory.
Rule 4  A process takes free shards until it has ⌈64 / number of running processes⌉. If it has more than that, it lets
        go of one shard after the other: it stops sending, waits for requests under way, and only then frees the shard.
Rule 5  After the store was unreachable or has lost data, no shard is taken for LEASE_S. Only the holders of the shards
        can restore the lost data, so they come first.

Example for Rule 1 (LEASE_S = 10, MARGIN_S = 2): process A asks at second 0 and gets an answer at second 1. The store
counts the lease from some moment in between, so it ends at second 10 at the earliest. A counts from second 0, and stops
sending at second 8. If Redis stops answering between two renewals, A goes on sending for 5 to 8 s.

Example for Rule 2: A is suspended for 30 s (a laptop lid, a frozen VM). B takes the shard with a greater number. A
wakes up and writes "sent" for a request that was under way: the store refuses the record, and A drops the shard.

Example for Rule 3: Redis is down for a minute. All leases end, but nobody can take a shard. When Redis is back, each
process renews its leases with their old numbers, and no device has to be loaded again.

Example for Rule 4: A has all 64 shards, and B starts. Each of them may now have 32. A frees shard 63, then 62 and so on
down to 32; B takes each shard as it becomes free, asking every HUNGRY_S.

Example for Rule 5: Redis fails over to a replica that lacks the last second, in which a device of A's shard registered.
If B took the shard at once, it would load the shard without that device. So every process waits, and A stores the
device again.
"""

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from ..clock import Clock
from ..metrics import report_caught
from ..model.errors import StoreUnavailable
from .shards import ShardOwner

logger = logging.getLogger(__name__)

LEASE_S = 10.0
RENEW_S = 3.0
MARGIN_S = 2.0
RETRY_S = 0.5  # pause after a renewal that failed
HUNGRY_S = 0.25  # pause while another process has too many shards, and this one too few
LATE_S = 0.05  # how long after the end of another process's lease to ask for the shard


class Leased(NamedTuple):
    """The store's answer to a request to renew leases.

    A lease gives a process a shard (a subset of the devices) for a limited time. `numbers` maps each shard that this
    process has now to the number of its lease.
    """

    numbers: Mapping[int, int]
    share: int  # how many shards this process may have
    crowded: bool  # whether another process has more shards than that
    free_in_s: float | None  # seconds until the first lease of another process ends
    lost: bool  # whether the store lacks data that it had, or may lack some


class LeaseStore(Protocol):
    """The methods that a store must have so that processes can lease shards (subsets of the devices) in it.

    Both methods raise StoreUnavailable if the store can't be used.
    """

    async def lease(self, process: str, held: Mapping[int, int], *, may_take: bool) -> Leased:
        """Renew a process's leases of shards (subsets of the devices), and return the leases that it has now.

        `held` maps each shard that the process holds to the number of its lease. If `may_take`, also take free shards,
        until the process has its share of all shards (Rule 4).
        """

    async def release(self, process: str, held: Mapping[int, int], *, leaving: bool) -> None:
        """Free shards (subsets of the devices), so that other processes can take them.

        `held` maps each of them to the number of its lease. If `leaving`, the process is about to exit and no longer
        counts as running.
        """


class LeasedShards:
    """Holds shards (subsets of the devices) by leases: an implementation of `Shards`.

    The module's docstring has the rules.
    """

    def __init__(self, store: LeaseStore, clock: Clock) -> None:
        """Create the object without any shards (subsets of the devices). Shards are taken once `attach` runs."""
        self.error: str | None = None  # why the last renewal failed; None if it succeeded
        self._process = secrets.token_hex(8)
        self._store = store
        self._clock = clock
        self._share = 0
        self._leases: dict[int, int] = {}  # shard -> lease number: this process's leases, as far as it knows
        self._until = float("-inf")  # the end of all these leases, by this process's monotonic clock (Rule 1)
        self._has_taken = False  # whether `owner.take` has been called, even with no shard
        self._terms: dict[int, int] = {}  # shard -> lease number: the shards whose devices are loaded
        self._going: set[int] = set()  # shards whose devices are being removed
        self._take_from = float("-inf")  # no shard is taken before this time (Rule 5)
        self._turn = asyncio.Lock()  # held during a request, so that there is one at a time
        self._news = asyncio.Event()  # set when there may be a shard to load or to let go of

    @property
    def terms(self) -> Mapping[int, int]:
        """The shards (subsets of the devices) that this process holds, with the numbers of their leases.

        Shards that are about to be freed are included.
        """
        return self._terms

    def may_send(self, shard: int) -> bool:
        """Return whether pushes to devices of a shard may start now (Rule 1)."""
        number = self._leases.get(shard)
        is_held = number is not None and number == self._terms.get(shard) and shard not in self._going
        return is_held and self._clock.now().monotonic < self._until - MARGIN_S

    def refused(self, shards: Collection[int]) -> None:
        """Stop serving these shards (subsets of the devices), because the store has refused a write for them (Rule 2).

        The refusal means that other processes have taken the shards.
        """
        self._lose([shard for shard in shards if shard in self._leases])

    async def attach(self, owner: ShardOwner) -> None:
        """Take, renew and free shards (subsets of the devices), forever. `owner` loads and removes their devices."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._renew_for_ever())
            tasks.create_task(self._serve_for_ever(owner))

    async def stop(self) -> None:
        """Free all shards (subsets of the devices), so that other processes can take them.

        Before this, the caller must stop the object that has the devices, and write their delivery records.
        """
        async with self._turn:
            numbers = self._leases.copy()
            self._leases.clear()
            self._terms.clear()
            try:
                await self._store.release(self._process, numbers, leaving=True)
            except StoreUnavailable:
                return  # the leases end by themselves

    # ---- renewing leases in the store ----------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            try:
                pause_s = await self.renew()
            except Exception as error:
                if not isinstance(error, StoreUnavailable):
                    report_caught("device shards: leases could not be renewed", error)
                pause_s = RETRY_S
            await asyncio.sleep(pause_s)

    async def renew(self) -> float:
        """Renew the leases of all shards (subsets of the devices) once. Return the seconds until the next renewal.

        Raise StoreUnavailable if the store can't be used.
        """
        async with self._turn:
            now = self._clock.now().monotonic
            before = self._leases.copy()
            try:
                leased = await self._store.lease(self._process, before, may_take=now >= self._take_from)
            except StoreUnavailable as error:
                if self.error is None:
                    logger.error(
                        "device shards: leases can't be renewed (%s); trying again; pushes pause when they expire",
                        error,
                    )
                self.error = str(error)
                self._take_from = self._clock.now().monotonic + LEASE_S
                raise
            self._settle(leased, before, now)
        return self._pause_s(leased)

    def _settle(self, leased: Leased, before: Mapping[int, int], now: float) -> None:
        """Apply the store's answer to a request to renew leases.

        `before` has the leases for which the request was made, and `now` is the time at which it was made (monotonic
        clock). If a shard of `before` is no longer in `_leases`, it was lost during the request, and stays lost.
        """
        if self.error is not None:
            logger.warning("device shards: leases are being renewed again")
            self.error = None
        if leased.lost:
            logger.error("device store: data may be lost; storing the devices of this process again")
            self._take_from = now + LEASE_S
        self._share, self._until = leased.share, now + LEASE_S
        self._lose([shard for shard in self._leases if shard not in leased.numbers])
        for shard, number in leased.numbers.items():
            if shard in self._leases or shard not in before:
                self._leases[shard] = number
        self._news.set()

    def _pause_s(self, leased: Leased) -> float:
        """Return the number of seconds until the next renewal.

        It is small if this process has too few shards and may soon get another one.
        """
        if len(self._leases) >= leased.share:
            return RENEW_S
        if leased.crowded:
            return HUNGRY_S
        return RENEW_S if leased.free_in_s is None else min(RENEW_S, leased.free_in_s + LATE_S)

    def _lose(self, shards: Collection[int]) -> None:
        if shards:
            logger.warning("device shards: another process has taken %d of this process's shards", len(shards))
        for shard in shards:
            del self._leases[shard]
        self._news.set()

    # ---- loading and removing the devices of shards --------------------------------------------------------------

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
                report_caught("device shards: devices could not be loaded or removed", error)

    async def serve(self, owner: ShardOwner) -> bool:
        """Take the next step in loading or removing devices. Return False if there is nothing to do.

        `owner` is the object that has this process's devices. The step is the first of these that is needed: have
        `owner` remove the devices of lost shards (subsets of the devices), have it load the devices of new shards, or
        free one shard that this process has beyond its share. Raise StoreUnavailable if the store can't be used.
        """
        lost = [shard for shard, number in self._terms.items() if self._leases.get(shard) != number]
        if lost:
            await self._let_go(owner, lost)
            return True
        fresh = {shard: number for shard, number in self._leases.items() if shard not in self._terms}
        if fresh or not self._has_taken:
            self._terms.update(fresh)  # they count as held from now on
            try:
                await owner.take(fresh)
            except BaseException:  # then the owner has kept no devices of them
                for each in fresh:
                    self._terms.pop(each, None)
                raise
            self._has_taken = True
            return True
        if len(self._terms) <= self._share:
            return False
        shard = max(self._terms)
        await self._let_go(owner, [shard])
        async with self._turn:  # only now, so that another process can take the shard (Rule 4)
            if (number := self._leases.pop(shard, None)) is not None:
                await self._store.release(self._process, {shard: number}, leaving=False)
        return True

    async def _let_go(self, owner: ShardOwner, shards: Collection[int]) -> None:
        """Have `owner` remove the devices of these shards. No new pushes to these devices start from now on."""
        self._going.update(shards)
        try:
            await owner.let_go(shards)
        finally:  # after an error, shards that this process still has are taken again
            self._going.difference_update(shards)
            for shard in shards:
                self._terms.pop(shard, None)
