"""Shards (groups of devices) that a process loads and gives up, and devices of another process (rules WPN1, WPN2)."""

import asyncio

import pytest
from push.test_device_manager import Process, turns
from support.fakes import a_cancel, a_revision

from geocast.auth.tokens import Subject
from geocast.egress.outcomes import PostOutcome
from geocast.model.errors import StoreUnavailable
from geocast.push.devicestore import SHARDS, State, shard_of
from geocast.push.shards import StaticShards

EVERY = range(SHARDS)


def lines(process):
    """Return revision and state of the stored delivery records of the only device."""
    [told] = process.store._memory.lines.values()
    return [(line.number, line.state) for line in told.values()]


async def letting_go_of_what_is_under_way(process):
    """Let go of all shards while a push has no answer yet; return the task that does so."""
    process.client.outcome = None
    await process.reads(a_revision())
    letting_go = asyncio.ensure_future(process.waking.loader.let_go(EVERY))
    await turns()
    return letting_go


def test_each_shard_belongs_to_exactly_one_worker():
    """Shard n (a group of devices) belongs to the worker with the number n modulo the number of workers (rule WPN1)."""
    for workers in (1, 2, 3, 64):
        held = [set(StaticShards(worker, workers).terms) for worker in range(workers)]
        assert set().union(*held) == set(EVERY)
        assert sum(map(len, held)) == SHARDS
        assert max(map(len, held)) - min(map(len, held)) <= 1


async def test_process_sends_nothing_after_it_has_given_up_the_shard():
    """The devices of the shard are no longer in the process, and unchanged in the store (rule WPN1)."""
    process = Process()
    await process.register()
    await process.waking.loader.let_go(EVERY)
    assert len(process.waking.devices) == len(process.waking.fanout) == 0
    await process.reads(a_revision())
    assert process.client.pushes == []
    await process.waking.loader.take(StaticShards().terms)
    await turns()
    assert len(process.client.pushes) == 1


async def test_answer_that_arrives_while_the_shard_is_given_up_is_recorded():
    """Otherwise the next process with the shard would send the alert again (rule WPN1)."""
    process = Process()
    await process.register()
    letting_go = await letting_go_of_what_is_under_way(process)
    assert not letting_go.done()
    process.client.outcome = PostOutcome.SENT
    [answer] = process.client.waits
    answer.set_result(None)
    await letting_go
    assert lines(process) == [(1, State.SENT)]


async def test_unanswered_push_counts_as_maybe_sent_for_the_next_process_of_the_shard(monkeypatch):
    """The delivery record was written before the request (rules WPN1, WPS3)."""
    monkeypatch.setattr("geocast.push.shard_loader.LET_GO_S", 0.0)
    process = Process()
    await process.register()
    process.client.outcome = None
    await process.reads(a_revision())
    await process.waking.loader.let_go(EVERY)
    assert lines(process) == [(1, State.MAYBE)]
    process.client.outcome = PostOutcome.SENT
    await process.waking.loader.take(StaticShards().terms)
    await process.reads(a_cancel())
    assert [message["type"] for message in process.client.received()] == ["alert", "cancel"]


async def test_process_without_the_shard_reports_how_many_pushes_will_follow():
    """It considers the stored delivery records, and the alerts that the device says it has (rules WPN2, R8)."""
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
    assert await process.waking.reader.count_owed(digest, {}) == 2
    assert await process.waking.reader.count_owed(digest, {"held": 1}) == 1
    assert await process.waking.reader.count_owed(records.digest_of(Subject("", "nobody"), "device"), {}) == 0
    assert len(process.waking.fanout) == 1


async def test_changes_by_other_processes_to_devices_are_applied():
    """Devices of other shards are not read (rule WPN2)."""
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
    await process.waking.loader.let_go([shard_of(device.digest)])
    del process.waking._shards._terms[shard_of(device.digest)]
    await other.put(stored._replace(until_ms=stored.until_ms + 1), stored)
    await turns()
    assert len(process.waking.devices) == 0
    following.cancel()


async def test_device_that_registers_while_its_shard_is_given_up_leaves_with_it():
    """If the device stayed in the process, it would be sent alerts for an outdated registration (rule WPN1)."""
    process = Process()
    await process.register()
    letting_go = await letting_go_of_what_is_under_way(process)
    await process.register()
    assert len(process.waking.devices) == 1
    process.client.outcome = PostOutcome.SENT
    for answer in process.client.waits:
        answer.set_result(None)
    await letting_go
    assert len(process.waking.devices) == 0


async def test_write_that_succeeded_without_confirmation_is_applied_in_memory():
    """A DELETE was answered with 503, but the store has deleted the device.

    So the device gets no more pushes (rule WPR10).
    """
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


async def test_periodic_check_during_registration_does_not_change_the_announced_pushes():
    """The device is not read and pushed to before the answer counts what follows (rule R8)."""
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
