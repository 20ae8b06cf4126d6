"""Own tests of push devices: which pushes follow, and when they are retried (rules TR1, TR3, TR5, TR6 and TR8)."""

from push.test_device_manager import Away, Process, turns
from push.test_registering import BODY, ID, Listener, slug, with_listener, wrong
from support.fakes import a_revision

from geocast.auth.tokens import Subject
from geocast.egress.outcomes import PostOutcome
from geocast.push.devicestore import shard_of
from geocast.push.shards import StaticShards
from geocast.stream.own_tests import LIFE_MS, with_request
from geocast.tasks import running


async def ask(process, name="device", key="k1", **fields):
    """Register a device, with a request for an own test; return how many pushes follow."""
    return await process.register(name, holding=with_request({}, key), **fields)


async def test_device_that_asks_for_a_test_is_pushed_one_alone():
    """TR3: no other device is, it needs no scope, and the push is urgent."""
    process = Process()
    await process.register("other")
    assert await ask(process, min_severity="extreme") == 1
    [message], [push] = process.client.received(), process.client.pushes
    assert (message["alert"]["id"], message["alert"]["status"]) == ("try:k1", "test")
    assert push.endpoint.url.endswith("/device")
    assert (push.urgency, push.ttl_s) == ("high", LIFE_MS // 1000)
    await process.passes(60)
    assert len(process.client.pushes) == 1


async def test_own_test_of_a_device_is_neither_counted_nor_recorded():
    """TR4: nothing is left of it in the store, and a restart repeats nothing."""
    process = Process()
    await ask(process)
    assert not process.waking.sending.pushed
    [(_, lines)] = [found async for batch in process.store.load(dict.fromkeys(range(64), 1)) for found in batch]
    assert not lines
    process.waking = process.again()
    await process.waking.loader.take(dict.fromkeys(range(64), 1))
    await process.passes(1)
    assert len(process.client.pushes) == 1


async def test_own_test_waits_for_the_alert_that_is_being_pushed():
    """TR8: a device has one request under way, and alerts come first."""
    process = Process()
    process.client.outcome = None
    await process.reads(a_revision("a-1"))
    assert await ask(process) == 2
    assert len(process.client.pushes) == 1
    process.client.answer_all(PostOutcome.SENT)
    await turns()
    await process.passes(0.1)
    assert [each["alert"]["id"] for each in process.client.received()] == ["a-1", "try:k1"]


async def test_own_test_that_failed_is_pushed_again_until_it_ends():
    """TR8: after the pause of the device; nothing is sent after its end (E1)."""
    process = Process()
    process.client.outcome = PostOutcome.BUSY
    await ask(process)
    await process.passes(10)
    await process.passes(0.1)
    assert len(process.client.pushes) == 2
    process.client.outcome = PostOutcome.SENT
    await process.passes(LIFE_MS / 1000)
    await process.passes(LIFE_MS / 1000)
    assert len(process.client.pushes) == 2


async def test_request_that_another_process_received_reaches_the_owner_of_the_device():
    """TR8: the process that owns the shard sends the test, and the answer counts it nevertheless."""
    first = Away()
    halves = [Process(store=Away(first._memory), shards=StaticShards(worker, 2)) for worker in range(2)]
    digest = halves[0].waking.records.digest_of(Subject("", "device"), "device")
    owner, receiver = sorted(halves, key=lambda each: shard_of(digest) not in each.shards.terms)
    assert await ask(receiver) == 1
    assert receiver.client.pushes == owner.client.pushes == []
    async with running(devices=owner.waking.follow):
        await turns()
    assert [each["alert"]["id"] for each in owner.client.received()] == ["try:k1"]


@with_listener()
async def test_second_test_of_an_owner_within_an_hour_is_answered_with_429(listener):
    """TR5: nothing is stored then; the share is the owner's, not the device's."""
    answer = await listener.put(BODY | {"try": "k1"})
    assert (answer.status_code, answer.json()["live"]) == (201, 1)
    listener.clock.advance(600)
    refused = await listener.put(BODY | {"try": "k2"}, device_id=ID + "x")
    assert (refused.status_code, slug(refused), refused.headers["Retry-After"]) == (429, "rate-limited", "3000")
    assert (await listener.ask("GET", f"/v1/devices/{ID}x")).status_code == 404
    assert (await listener.put(BODY)).status_code == 200
    listener.clock.advance(3000)
    assert (await listener.put(BODY | {"try": "k2"})).json()["live"] == 1


@with_listener()
async def test_request_for_a_test_that_is_malformed_or_without_a_place_is_refused(listener):
    """TR1 and TR6: and costs no test."""
    assert wrong(await listener.put(BODY | {"try": "a b"})) == [("invalid-value", "/try")]
    assert wrong(await listener.put(BODY | {"try": "k", "places": []})) == [("invalid-value", "/try")]
    assert (await listener.put(BODY | {"try": "k"})).json()["live"] == 1


async def test_registration_that_was_not_stored_costs_no_test():
    """TR5: nine devices are one too many; the ninth asks for a test in vain."""
    listener = Listener()
    for number in range(8):
        body = BODY | {"subscription": BODY["subscription"] | {"endpoint": f"https://push.example/{number}"}}
        assert (await listener.put(body, device_id=f"{ID}-{number}")).status_code == 201
    assert slug(await listener.put(BODY | {"try": "k"}, device_id=ID)) == "too-many-devices"
    assert (await listener.put(body | {"try": "k"}, device_id=f"{ID}-7")).json()["live"] == 1
