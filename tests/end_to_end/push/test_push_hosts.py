"""Push services that fail under one entry of `--push-services`; phones of other hosts must miss nothing (rule HD2)."""

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.earth import Point
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate, make_certificate
from support.push_service import HANG, RESET, PushPhone, PushService

GOOD_PHONES, ATTACKERS = 60, 25
GOOD, FAILING = "good.push.test", "failing.push.test"
ADDRESSES = {GOOD: "127.0.0.1", FAILING: "127.0.0.2"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with default options."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate for both hosts."""
    return make_certificate(tmp_path_factory.mktemp("tls"), GOOD, FAILING)


@pytest.fixture
def good(certificate: Certificate) -> Iterator[PushService]:
    """Start a push service that accepts all pushes."""
    with PushService(certificate, name=GOOD) as service:
        yield service
        assert service.wrong == []


@pytest.fixture
def push(node: Node, good: PushService) -> Iterator[Push]:
    """Start a push process that allows every host under `push.test`, at one port, with a store of its own."""
    for path in node.home.glob("devices.db*"):
        path.unlink()
    names = " ".join(f"{name}={address}" for name, address in ADDRESSES.items())
    options = ("--push-services", f"*.push.test:{good.port}", "--push-private", ",".join(ADDRESSES))
    folder = str(Path(__file__).parents[1] / "kit" / "names")
    with Push(node, good, options=options, PYTHONPATH=folder, TEST_NAMES=names) as push:
        yield push
        push.assert_no_surprise()


def register_strangers(push: Push, good: PushService, here: str, host: Callable[[], str], devices: int) -> None:
    """Register the attackers' devices at hosts that `host` names, each with a subscription of its own."""
    for attacker in range(ATTACKERS):
        for _ in range(devices):
            subscription = PushPhone(good).subscription()
            subscription["endpoint"] = f"https://{host()}:{good.port}/push/{secrets.token_hex(8)}"
            body = {"subscription": subscription, "places": [{"cell": here}]}
            answer = push.put(secrets.token_urlsafe(12), body, push.token(sub=f"attacker-{attacker}"))
            assert answer.status_code == 201, answer.text


def register_phones(push: Push, service: PushService, here: str, count: int = GOOD_PHONES) -> list[PushPhone]:
    """Register `count` phones of a service, each of another owner."""
    phones = [service.phone() for _ in range(count)]
    for phone in phones:
        push.register(phone, here)
    return phones


def assert_all_are_woken(node: Node, good: PushService, phones: list[PushPhone], spot: Point) -> None:
    """Publish an alert, and wait until each of these phones has got it."""
    body = alert(spot)
    node.publish(body)
    good.until(lambda: all((body["id"], 1) in phone.alerts() for phone in phones), 20)


def test_phones_of_a_good_host_get_every_alert_despite_unknown_host_names(node: Node, push: Push, good: PushService):
    """25 attackers register 200 devices.

    In an earlier release, three attempts for each device closed the whole entry in the list of services, with the good
    host (rule HD2).
    """
    spot = ground()
    register_strangers(push, good, cell(spot), lambda: f"{secrets.token_hex(8)}.push.test", devices=8)
    phones = register_phones(push, good, cell(spot))
    assert_all_are_woken(node, good, phones, spot)
    wait_until(lambda: push.metric('push_total{outcome="away"}') >= 560, "the strangers' endpoints were tried")
    for _ in range(2):
        assert_all_are_woken(node, good, phones, spot)
    assert push.metric(f'push_lane_open{{service="*.push.test:{good.port}"}}') == 1


def test_phones_of_a_good_host_get_every_alert_despite_dns_lookups_that_never_end(
    node: Node, push: Push, good: PushService
):
    """After a restart they do, too, because the store knows that the good host has accepted a push (rule HD2)."""
    spot = ground()
    phones = register_phones(push, good, cell(spot))
    assert_all_are_woken(node, good, phones, spot)
    register_strangers(push, good, cell(spot), lambda: f"stuck-{secrets.token_hex(8)}.push.test", devices=4)
    for _ in range(2):
        push.restart()
        assert_all_are_woken(node, good, phones, spot)


@pytest.mark.parametrize("status", [404, 429, 503, 507])
def test_endpoints_that_never_worked_do_not_stop_pushes_to_others_on_their_host(
    node: Node, push: Push, good: PushService, status: int
):
    """For example, ntfy answers 507 for a topic without listeners; no such answer closes the host (rule HD2)."""
    spot = ground()
    dead = register_phones(push, good, cell(spot), 30)
    for phone in dead:
        phone.answers = [(status, {"Retry-After": "1"})] * 100
    phones = register_phones(push, good, cell(spot), 10)
    for _ in range(3):
        assert_all_are_woken(node, good, phones, spot)
    assert good.statuses[status] >= len(dead)
    assert push.metric(f'push_lane_open{{service="*.push.test:{good.port}"}}') == 1


@pytest.mark.parametrize("answer", [HANG, RESET])
def test_phones_of_a_good_host_get_every_alert_when_another_host_starts_to_fail(
    node: Node, push: Push, good: PushService, certificate: Certificate, answer: str
):
    """The host has more phones than requests at a time, and begins to hang or to reset connections (rule HD2)."""
    spot = ground()
    with PushService(certificate, host=ADDRESSES[FAILING], port=good.port, name=FAILING) as other:
        failing = register_phones(push, other, cell(spot), 80)
        phones = register_phones(push, good, cell(spot))
        assert_all_are_woken(node, other, failing, spot)
        other.always = answer
        for _ in range(3):
            assert_all_are_woken(node, good, phones, spot)
        assert other.most_under_way <= 80


@pytest.mark.parametrize("says", [None, b"no TLS at all"])
def test_phones_of_a_good_host_get_every_alert_despite_a_host_without_tls(
    node: Node, push: Push, good: PushService, says: bytes | None
):
    """The bad host accepts connections and then sends nothing, or something other than TLS.

    It never becomes a known host (rule HD2).
    """
    spot = ground()
    with socket.create_server((ADDRESSES[FAILING], good.port), backlog=128) as listener:
        if says is not None:
            threading.Thread(target=answer_all, args=(listener, says), daemon=True).start()
        register_strangers(push, good, cell(spot), lambda: FAILING, devices=4)
        phones = register_phones(push, good, cell(spot))
        for _ in range(3):
            assert_all_are_woken(node, good, phones, spot)


def answer_all(listener: socket.socket, says: bytes) -> None:
    """Send these bytes to every client that connects, and disconnect, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError):
                line.sendall(says)
