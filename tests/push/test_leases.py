"""Leases of shards (groups of devices): their numbers and their division, on a real Redis (rule WPN1).

The tests set the clock of this Redis.
"""

import asyncio
import functools
import inspect
import uuid

import pytest
from support.fakes import FakeClock
from support.redis_server import RedisServer, needs_redis
from support.wall_clock import WallClock, needs_wall_clock

from geocast.clock import SystemClock
from geocast.model.errors import StoreUnavailable
from geocast.push.devicestore import SHARDS
from geocast.push.devicestore.redis import RedisDevices
from geocast.push.leases import HUNGRY_S, LEASE_S, MARGIN_S, RENEW_S, LeasedShards

pytestmark = [needs_redis, needs_wall_clock]


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """Run a Redis with a wall clock of its own."""
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder / "redis")
    server.clock = WallClock(folder / "clock")
    with server:
        yield server


class LeaseCluster:
    """Processes that share a store, and their clocks, which the test sets. The clock of Redis runs by itself."""

    def __init__(self, redis):
        self.prefix = uuid.uuid4().hex
        self.redis = redis
        self.processes = []

    def process(self):
        """Add a process."""
        self.processes.append(Process(RedisDevices(f"{self.redis.url}?prefix={self.prefix}")))
        return self.processes[-1]

    def pass_by(self, seconds):
        """Let time pass for Redis and all processes."""
        self.redis.clock.set(self.redis.clock.lately(0)[-1] + seconds)
        for each in self.processes:
            each.clock.advance(seconds)

    async def close(self):
        """Close all connections."""
        for each in self.processes:
            await each.store.stop()


class Process:
    """A process that shares the store.

    Its leases are real. As the owner of shards (groups of devices) it only records which shards were loaded.
    """

    def __init__(self, store):
        self.store = store
        self.clock = FakeClock()
        self.shards = LeasedShards(self.store, self.clock)
        self.has = {}  # the loaded shards and their terms
        self.let_gone = []
        self.away = False

    @property
    def held(self):
        """The shards whose lease the process has."""
        return set(self.shards.terms)

    @property
    def sends(self):
        """The shards whose devices may be sent something."""
        return {shard for shard in range(SHARDS) if self.shards.may_send(shard)}

    async def turn(self):
        """Renew once and serve all changes; return how long a real process would wait before the next renewal."""
        pause_s = await self.shards.renew()
        while await self.shards.serve(self):
            pass
        return pause_s

    async def take(self, terms):
        if self.away:
            raise StoreUnavailable("away")
        assert not self.has.keys() & terms.keys()
        assert terms.keys() <= self.sends  # because loading a shard starts pushes
        self.has |= terms

    async def let_go(self, shards):
        self.let_gone += shards
        assert not self.sends & set(shards)
        for shard in shards:
            assert self.shards.terms[shard] == self.has.pop(shard)


async def settled(*processes):
    """Have all processes renew their leases until each shard has a process and no process has too many."""
    while True:
        pauses = [await each.turn() for each in processes]
        if HUNGRY_S not in pauses and sum(len(each.held) for each in processes) == SHARDS:
            return


def with_cluster(test):
    """Make a test of a coroutine that takes a cluster."""

    @functools.wraps(test)
    def run(redis, **kwargs):
        async def main():
            cluster = LeaseCluster(redis)
            try:
                await test(cluster, **kwargs)
            finally:
                await cluster.close()

        asyncio.run(main())

    wanted = [each for name, each in inspect.signature(test).parameters.items() if name != "cluster"]
    redis = inspect.Parameter("redis", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*wanted, redis])
    return run


@with_cluster
async def test_single_process_takes_all_shards(cluster):
    """The process takes all shards (groups of devices) at once, and renews the leases 3 s later (rule WPN1)."""
    one = cluster.process()
    assert await one.turn() == RENEW_S
    assert len(one.sends) == len(one.has) == SHARDS
    assert one.shards.terms == one.has


@pytest.mark.parametrize("number", [2, 3, 5])
@with_cluster
async def test_shards_are_divided_evenly_among_the_processes(cluster, number):
    """Each process has at most ⌈64 / processes⌉ shards, whenever it started. No shard has two processes (rule WPN1)."""
    processes = []
    for _ in range(number):
        processes.append(cluster.process())
        await settled(*processes)
    assert all(len(each.held) <= -(-SHARDS // number) for each in processes)
    assert sorted(shard for each in processes for shard in each.held) == list(range(SHARDS))
    assert all(each.has.keys() == each.held == each.sends for each in processes)


@with_cluster
async def test_surplus_shards_are_freed_one_at_a_time_after_their_requests_have_ended(cluster):
    """Until the requests have ended, no other process takes the shard, and nothing new is sent (rule WPN1)."""
    one, other = cluster.process(), cluster.process()
    await settled(one)
    await other.turn()
    await one.shards.renew()
    ended, let_go = asyncio.Event(), one.let_go

    async def slow(shards):
        await ended.wait()
        await let_go(shards)

    one.let_go = slow
    serving = asyncio.create_task(one.shards.serve(one))
    await asyncio.sleep(0)
    for _ in range(2):
        await one.shards.renew()
        assert await other.turn() == HUNGRY_S
        assert len(one.held) == SHARDS
        assert len(one.sends) == SHARDS - 1
        assert other.held == set()
    ended.set()
    await serving
    assert len(one.held) == SHARDS - 1
    await settled(one, other)
    assert len(one.held) == len(other.held) == SHARDS // 2


@with_cluster
async def test_shards_of_a_dead_process_are_taken_over_when_their_leases_end(cluster):
    """The remaining processes renew their leases just at that time (rules WPN1, WPN2)."""
    one, other, dead = cluster.process(), cluster.process(), cluster.process()
    await settled(one, other, dead)
    cluster.pass_by(LEASE_S - RENEW_S)
    pauses = [await each.turn() for each in (one, other)]
    assert 0 < min(pauses) <= RENEW_S
    assert len(one.held) + len(other.held) + len(dead.held) == SHARDS
    cluster.pass_by(RENEW_S + 0.1)
    await settled(one, other)
    assert len(one.held) == len(other.held) == SHARDS // 2


@with_cluster
async def test_process_that_stops_releases_its_shards_at_once(cluster):
    """Other processes need not wait until the leases end (rule WPN1)."""
    one, other = cluster.process(), cluster.process()
    await settled(one, other)
    await other.shards.stop()
    assert other.sends == set()
    await settled(one)
    assert len(one.held) == SHARDS


@with_cluster
async def test_pushes_of_a_shard_stop_two_seconds_before_its_lease_ends(cluster):
    """The process's monotonic clock decides. If nobody has taken the shard, the process keeps it (rule WPN1)."""
    one = cluster.process()
    await settled(one)
    terms = dict(one.shards.terms)
    one.clock.advance(LEASE_S - MARGIN_S - 0.01)
    assert len(one.sends) == SHARDS
    one.clock.advance(0.01)
    assert one.sends == set()
    cluster.pass_by(60)
    await one.turn()
    assert len(one.sends) == SHARDS
    assert one.shards.terms == terms
    assert one.let_gone == []


@with_cluster
async def test_process_suspended_beyond_its_lease_loses_its_shards(cluster):
    """When the process wakes up, it sends nothing.

    Its next renewal reports the loss, and it gets other shards (rule WPN1).
    """
    paused, other = cluster.process(), cluster.process()
    await settled(paused, other)
    before = paused.held
    paused.let_gone.clear()
    cluster.pass_by(LEASE_S + 0.1)
    await settled(other)
    assert len(other.held) == SHARDS
    assert paused.held == before
    assert paused.sends == set()
    await paused.turn()
    assert paused.held == paused.has.keys() == set()
    assert set(paused.let_gone) == before
    await settled(paused, other)
    assert len(paused.held) == SHARDS // 2


@with_cluster
async def test_each_new_lease_of_a_shard_has_a_greater_number(cluster):
    """The numbers rise even if the store has lost the previous lease, as after a failover (rule WPN1)."""
    one, other, third = cluster.process(), cluster.process(), cluster.process()
    await settled(one)
    cluster.pass_by(LEASE_S + 0.1)
    await settled(other)
    wiped(cluster)
    await settled(third)
    terms = [each.shards.terms for each in (one, other, third)]
    assert all(terms[0][shard] < terms[1][shard] < terms[2][shard] for shard in range(SHARDS))


@with_cluster
async def test_loading_a_shard_is_tried_again_after_the_store_was_unavailable(cluster):
    """The next renewal loads the shard. The process keeps the lease meanwhile (rule DevS8)."""
    one = cluster.process()
    one.away = True
    with pytest.raises(StoreUnavailable):
        await one.turn()
    assert one.held == one.sends == set()
    one.away = False
    await one.turn()
    assert len(one.has) == SHARDS


@with_cluster
async def test_process_gives_up_a_shard_whose_write_was_refused(cluster):
    """The shard is given up once, as after a renewal that reports the loss of the lease (rule WPN1)."""
    one = cluster.process()
    await settled(one)
    one.shards.refused([3, 4])
    one.shards.refused([4, 5])
    assert one.sends == set(range(SHARDS)) - {3, 4, 5}
    while await one.shards.serve(one):
        pass
    assert sorted(one.let_gone) == [3, 4, 5]
    assert one.held == set(range(SHARDS)) - {3, 4, 5}


def wiped(cluster):
    """Delete all keys of the store from Redis."""
    with cluster.redis.client() as client:
        for key in client.scan_iter(match=f"{{{cluster.prefix}}}*", count=1000):
            client.delete(key)


@with_cluster
async def test_processes_keep_their_shards_when_the_store_has_lost_its_data(cluster):
    """Each process knows that it has to restore its devices, and takes no shard of the other process (rule WPN2)."""
    one, other = cluster.process(), cluster.process()
    await settled(one, other)
    terms = dict(one.shards.terms), dict(other.shards.terms)
    one.let_gone.clear()
    assert not one.store.lost
    wiped(cluster)
    for each in (one, other, one):
        await each.turn()
    assert (one.shards.terms, other.shards.terms) == terms
    assert one.let_gone == other.let_gone == []
    assert one.store.lost
    assert other.store.lost
    one.store.lost = False
    await one.turn()
    assert not one.store.lost


@with_cluster
async def test_no_shard_changes_its_process_soon_after_the_store_was_unreachable(cluster):
    """If shards could change at once, the first process to reach Redis again would take all of them (Rule 5)."""
    one, other = cluster.process(), cluster.process()
    await settled(one, other)
    terms = dict(one.shards.terms), dict(other.shards.terms)
    cluster.redis.kill()
    for each in (one, other):
        with pytest.raises(StoreUnavailable):
            await each.turn()
        assert each.shards.error == "Redis can't be reached"
    cluster.redis.start()
    cluster.redis.clock.set(cluster.redis.clock.lately(0)[-1] + 2 * LEASE_S)
    for each in (one, other, one):
        await each.turn()
    assert (one.shards.terms, other.shards.terms) == terms
    assert one.shards.error is None
    await other.shards.stop()
    await one.turn()
    assert one.held == terms[0].keys()
    cluster.pass_by(LEASE_S + 0.1)
    await settled(one)
    assert len(one.held) == SHARDS


@pytest.mark.slow
@with_cluster
async def test_running_processes_divide_the_shards_by_themselves(cluster):
    """The processes use the machine's clock, as in production."""
    processes = [cluster.process() for _ in range(2)]
    for each in processes:
        each.shards = LeasedShards(each.store, SystemClock())
    running = [asyncio.create_task(each.shards.attach(each)) for each in processes]
    try:
        async with asyncio.timeout(60):
            while [len(each.has) for each in processes] != [SHARDS // 2] * 2:  # noqa: ASYNC110 (it is in Redis)
                await asyncio.sleep(0.05)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
