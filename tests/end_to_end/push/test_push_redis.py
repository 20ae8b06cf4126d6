"""Sleeping phones, woken by several processes that share their devices in a Redis (push-rules.md)."""

import signal
from collections.abc import Iterator

import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from support.push_service import PushPhone, PushService
from support.redis_server import RedisServer, needs_redis

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Start a Redis server."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def service(certificate: Certificate) -> Iterator[PushService]:
    """Start a push service, and assert at the end that every request was right."""
    with PushService(certificate) as service:
        yield service
    assert service.wrong == []


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with default options."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def processes(node: Node, service: PushService, redis: RedisServer) -> Iterator[tuple[Push, Push]]:
    """Start two push processes on one Redis."""
    options = ("--devices", redis.url)
    with Push(node, service, options=options) as one, Push(node, service, options=options) as other:
        yield one, other
        one.assert_no_surprise()


@pytest.fixture
def pair(processes: tuple[Push, Push]) -> tuple[Push, Push]:
    """Return two running processes, each with half of the shards."""
    for push in processes:
        if push.process is None or push.process.poll() is not None:
            push.start()
    share_evenly(processes)
    return processes


def share_evenly(pair: tuple[Push, Push]) -> None:
    """Wait until each process has half of the shards."""
    wait_until(lambda: [each.metric("push_shards") for each in pair] == [32, 32], "each process has half of the shards")


def registered(service: PushService, pair: tuple[Push, Push], place: str, number: int) -> list[PushPhone]:
    """Register `number` phones, by the two processes in turn, and return them."""
    phones = [service.phone() for _ in range(number)]
    for at, phone in enumerate(phones):
        pair[at % 2].register(phone, place, device_id=phone.name)
    return phones


def test_device_registered_with_any_process_gets_each_message_once(
    node: Node, pair: tuple[Push, Push], service: PushService
):
    """A device that moves by registering with the other process stays a recipient (rules WPN1, WPN2)."""
    spot, other_spot = ground(), ground()
    phones = registered(service, pair, cell(spot), 40)
    body = alert(spot)
    node.publish(body)
    service.until(lambda: all(phone.told for phone in phones))
    for at, phone in enumerate(phones):
        pair[1 - at % 2].register(phone, cell(other_spot), device_id=phone.name)
    node.revise(revision_of(body, 2))
    node.cancel(body["id"], 3)
    service.until(lambda: all(phone.cancels() for phone in phones))
    assert all(phone.alerts().count((body["id"], 1)) == 1 for phone in phones)
    assert all(phone.cancels() == [body["id"]] for phone in phones)


def test_devices_of_a_killed_process_get_their_messages_from_the_other(
    node: Node, pair: tuple[Push, Push], service: PushService
):
    """The devices get the alerts that they have missed, and the cancel (rule WPN2)."""
    spot = ground()
    phones = registered(service, pair, cell(spot), 40)
    first, second = alert(spot), alert(spot)
    node.publish(first)
    service.until(lambda: all(phone.told for phone in phones))
    pair[1].kill()
    node.publish(second)
    node.cancel(first["id"], 2)
    service.until(lambda: all((second["id"], 1) in phone.alerts() and phone.cancels() for phone in phones))
    wait_until(lambda: pair[0].metric("push_shards") == 64, "the other process has all shards")


def test_push_process_suspended_for_longer_than_its_lease_sends_nothing_more(
    node: Node, pair: tuple[Push, Push], service: PushService
):
    """The other process sends to its devices.

    When the suspended process continues, it no longer has its shards (groups of devices), and no phone gets a message
    twice (rule WPN1).
    """
    spot = ground()
    phones = registered(service, pair, cell(spot), 40)
    paused = pair[1].process
    assert paused
    paused.send_signal(signal.SIGSTOP)
    body = alert(spot)
    node.publish(body)
    service.until(lambda: all(phone.told for phone in phones))
    paused.send_signal(signal.SIGCONT)
    share_evenly(pair)
    node.cancel(body["id"], 2)
    service.until(lambda: all(phone.cancels() for phone in phones))
    assert all(phone.alerts() == [(body["id"], 1)] for phone in phones)


def test_push_processes_restore_devices_that_redis_lost(
    node: Node, pair: tuple[Push, Push], service: PushService, redis: RedisServer
):
    """The processes write their devices and delivery records back.

    Both then survive a kill of the processes (rule WPN2).
    """

    def keys(name: str) -> set[bytes]:
        """Return the keys of the hashes with this name."""
        with redis.client() as client:
            return set(client.scan_iter(match=f"*:push:{name}:*"))

    def stored() -> tuple[int, int]:
        """Return the number of devices, and of deliveries of this test's alert."""
        with redis.client() as client:
            of_both = keys("devices"), keys("told") - others
            return sum(map(client.hlen, of_both[0])), sum(map(client.hlen, of_both[1]))

    others = keys("told")
    before, _ = stored()
    spot = ground()
    phones = registered(service, pair, cell(spot), 40)
    body = alert(spot)
    node.publish(body)
    service.until(lambda: all(phone.told for phone in phones))
    wait_until(lambda: stored() == (before + 40, 40), "devices and deliveries are in Redis")
    redis.command("FLUSHALL")
    wait_until(lambda: stored() == (before + 40, 40), "devices and deliveries are in Redis again")
    for push in pair:
        push.kill()
    node.cancel(body["id"], 2)
    pair[0].start()
    service.until(lambda: all(phone.cancels() for phone in phones))
    assert all(phone.alerts() == [(body["id"], 1)] for phone in phones)


def test_push_process_without_redis_is_not_ready_and_refuses_devices(
    node: Node, pair: tuple[Push, Push], service: PushService, redis: RedisServer
):
    """The process continues by itself when Redis is back (rules WPS4, WPN1)."""
    spot, phone = ground(), service.phone()
    redis.kill()
    body = {"subscription": phone.subscription(), "places": [{"cell": cell(spot)}]}
    answer = pair[0].put("a-device-of-somebody", body)
    assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (503, "store-unavailable")
    wait_until(lambda: pair[0].readiness() == 503, "/readyz is 503")
    redis.start()
    wait_until(lambda: pair[0].readiness() == 200, "/readyz is 200")
    pair[0].register(phone, cell(spot))
    node.publish(alert(spot))
    service.until(lambda: bool(phone.told))
