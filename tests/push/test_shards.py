"""A process takes shards and lets go of them, and takes registrations of devices that another one has (WPN1, WPN2)."""

import asyncio

import pytest
from push.test_device_manager import Process, turns
from support.fakes import a_cancel, a_revision

from geocast.auth.tokens import Subject
from geocast.errors import StoreUnavailable
from geocast.push.devicestore import SHARDS, State, shard_of
from geocast.push.service_limits import PushOutcome
from geocast.push.shards import StaticShards

EVERY = range(SHARDS)


def lines(process):
    """What the store says that its one device was told."""
    [told] = process.store._memory.lines.values()
    return [(line.number, line.state) for line in told.values()]


async def letting_go_of_what_is_under_way(process):
    """A push that is not answered yet, and the task that lets go of all shards meanwhile."""
    process.client.outcome = None
    await process.reads(a_revision())
    letting_go = asyncio.ensure_future(process.waking.let_go(EVERY))
    await turns()
    return letting_go


def test_every_worker_has_its_shards_and_all_of_them_have_all():
    """WPN1: shard mod N; nobody has one of another's."""
    for workers in (1, 2, 3, 64):
        held = [set(StaticShards(worker, workers).terms) for worker in range(workers)]
        assert set().union(*held) == set(EVERY)
        assert sum(map(len, held)) == SHARDS
        assert max(map(len, held)) - min(map(len, held)) <= 1


async def test_nothing_more_is_sent_of_a_shard_that_is_let_go():
    """WPN1: its devices are not here any more, and are in the store as they were."""
    process = Process()
    await process.register()
    await process.waking.let_go(EVERY)
    assert len(process.waking.devices) == len(process.waking.fanout) == 0
    await process.reads(a_revision())
    assert process.client.pushes == []
    await process.waking.take(StaticShards().terms)
    await turns()
    assert len(process.client.pushes) == 1


async def test_what_is_answered_while_a_shard_is_let_go_is_noted():
    """WPN1: so whoever has it next sends it to nobody twice."""
    process = Process()
    await process.register()
    letting_go = await letting_go_of_what_is_under_way(process)
    assert not letting_go.done()
    process.client.outcome = PushOutcome.SENT
    [answer] = process.client.waits
    answer.set_result(None)
    await letting_go
    assert lines(process) == [(1, State.SENT)]


async def test_what_was_not_answered_is_maybe_sent_for_who_has_the_shard_next(monkeypatch):
    """WPN1, WPS3: that is what was noted before it was sent."""
    monkeypatch.setattr("geocast.push.device_manager.LET_GO_S", 0.0)
    process = Process()
    await process.register()
    process.client.outcome = None
    await process.reads(a_revision())
    await process.waking.let_go(EVERY)
    assert lines(process) == [(1, State.MAYBE)]
    process.client.outcome = PushOutcome.SENT
    await process.waking.take(StaticShards().terms)
    await process.reads(a_cancel())
    assert [message["type"] for message in process.client.received()] == ["alert", "cancel"]


async def test_whoever_takes_a_registration_knows_how_many_pushes_follow():
    """WPN2, R8: by what is stored that the device was told, and what it says that it holds."""
    process = Process()
    await process.register()
    for entry in (a_revision("told"), a_revision("held"), a_revision("new")):
        await process.reads(entry)
    await process.passes(1)
    records = process.waking.records
    digest = records.digest_of(Subject("", "device"), "device")
    told = process.store._memory.lines[digest]
    for alert_id in ("held", "new"):
        del told[records._keyring.digest("alert", alert_id)]
    assert await process.waking.count_owed(digest, {}) == 2
    assert await process.waking.count_owed(digest, {"held": 1}) == 1
    assert await process.waking.count_owed(records.digest_of(Subject("", "nobody"), "device"), {}) == 0
    assert len(process.waking.fanout) == 1


async def test_a_device_that_is_forgotten_elsewhere_is_gone_here_when_that_is_told():
    """WPN2: and one that was put is here; of other shards' nothing is read."""
    process = Process()
    other = process.store.other()
    await process.store.start()
    following = asyncio.ensure_future(process.waking.follow())
    await process.register()
    [device] = process.waking.devices
    stored, _ = await other.find(device.digest)
    await other.forget([stored.known])
    await turns()
    assert len(process.waking.devices) == 0
    await other.put(stored, None)
    await turns()
    assert [each.digest for each in process.waking.devices] == [device.digest]
    await process.waking.let_go([shard_of(device.digest)])
    del process.waking._shards._terms[shard_of(device.digest)]
    await other.put(stored._replace(until_ms=stored.until_ms + 1), stored)
    await turns()
    assert len(process.waking.devices) == 0
    following.cancel()


async def test_who_registers_while_a_shard_is_let_go_of_is_not_left_behind():
    """WPN1: a shard is held until it is let go of; a device that stayed would be told by what it was."""
    process = Process()
    await process.register()
    letting_go = await letting_go_of_what_is_under_way(process)
    await process.register()
    assert len(process.waking.devices) == 1
    process.client.outcome = PushOutcome.SENT
    for answer in process.client.waits:
        answer.set_result(None)
    await letting_go
    assert len(process.waking.devices) == 0


async def test_what_the_store_has_done_without_saying_so_is_in_force_all_the_same():
    """WPR10: a DELETE that was answered by 503 and is done; nobody is pushed to who has asked for that."""
    process = Process()
    await process.register()
    [device] = process.waking.devices
    forget = process.store.forget

    async def done_but_not_confirmed(devices):
        await forget(devices)
        raise StoreUnavailable("it is not known to be on a disk")

    process.store.forget = done_but_not_confirmed
    with pytest.raises(StoreUnavailable):
        await process.waking.forget_asked([device.known])
    process.store.forget = forget
    await process.passes(1)
    await process.reads(a_revision())
    assert process.client.pushes == []


async def test_what_time_does_while_a_registration_is_stored_takes_nothing_of_its_answer():
    """R8: the answer says how many pushes follow, and nothing has been read and sent before by the way."""
    process = Process()
    await process.reads(a_revision())
    put = process.store.put

    async def stored_in_a_while(*what, **more):
        result = await put(*what, **more)
        await process.passes(1)
        return result

    process.store.put = stored_in_a_while
    assert await process.register() == 1
    assert len(process.client.pushes) == 1
