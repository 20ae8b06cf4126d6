"""What a process stores in hangs: the device store of `geocast push`, the state of `relay` and of `fetch`. Alerts go on
all the same, and nothing is lost or repeated later (WPS4, WH6, FE4).

`STORE_HANGS_S` makes each outage as long; by default it ends when all have been told.
"""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from end_to_end.faults.test_push_faults import register_all
from end_to_end.kit.alerts import Json, alert, ground
from end_to_end.kit.fault_schedule import TIMEOUT
from end_to_end.kit.feed_server import FeedServer, atom, inline
from end_to_end.kit.fetch import Fetch, taken
from end_to_end.kit.issuer import Issuer
from end_to_end.kit.issuer import options as issuer_options
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.webhooks import SECRET, RelayProcess
from end_to_end.kit.wire import PATIENCE
from support.preloaded import COMPILER, stuck_disk
from support.push_service import PushPhone, PushService
from support.redis_server import RedisServer, missing

from client_demo.webhook_receiver import WebhookReceiver

pytestmark = TIMEOUT
PHONES = int(os.environ.get("STORE_PHONES", "300"))
LEASE_S = 10.0  # with Redis, pushes end with the leases (WPN1)
HANGS_S = float(os.environ.get("STORE_HANGS_S", "0"))


@pytest.mark.parametrize("fault", ["disk hangs", "file locked", "redis stopped"])
def test_phones_are_told_while_the_device_store_hangs_and_its_records_are_complete_afterwards(
    tmp_path: Path, certificate: Certificate, fault: str
):
    """`/readyz` says 503 meanwhile. A restart after the outage repeats nothing, and every phone gets the cancel."""
    with ExitStack() as stack:
        node = stack.enter_context(Node(tmp_path))
        service = stack.enter_context(PushService(certificate))
        options, settings, outage = store_with(fault, tmp_path, stack)
        options = ("--max-devices", str(PHONES), *options)
        push = stack.enter_context(Push(node, service, options=options, **settings))
        phones, spot = [service.phone() for _ in range(PHONES)], ground()
        register_all(push, phones, cell(spot))
        body = alert(spot)
        with outage:
            began = time.monotonic()
            node.publish(body)
            wait_until(lambda: push.readiness() == 503, "/readyz is 503")
            unready_s = time.monotonic() - began
            lasts_s = LEASE_S if fault == "redis stopped" else float("inf")
            wait_until(lambda: is_told(phones, 1) or time.monotonic() - began > lasts_s, "all phones are told")
            count, told_s = sum(len(phone.told) for phone in phones), time.monotonic() - began
            assert count == PHONES if fault != "redis stopped" else count > 0
            unrecorded = push.metric("push_unrecorded_total")
            if HANGS_S:
                time.sleep(max(0, HANGS_S - told_s))
            assert push.readiness() == 503
        began = time.monotonic()
        push.wait_until_ready()
        ready_s = time.monotonic() - began
        print(f"\n{fault}: 503 after {unready_s:.1f} s, {count} told after {told_s:.1f} s, {unrecorded:g} not recorded")
        print(f"ready {ready_s:.1f} s after the end of the outage")
        wait_until(lambda: is_told(phones, 1), "the others are told when the leases are renewed")
        push.restart()
        node.cancel(body["id"], 2)
        wait_until(lambda: is_told(phones, 2), "all phones are told the cancel")
        assert all(phone.alerts() == [(body["id"], 1)] for phone in phones)
        assert all(phone.cancels() == [body["id"]] for phone in phones)
        assert (unrecorded > 0, service.wrong) == (True, [])


@pytest.mark.parametrize("fault", ["disk hangs", "file locked", "redis stopped"])
def test_idle_process_says_that_the_device_store_hangs_and_ends_on_sigterm(
    tmp_path: Path, certificate: Certificate, fault: str
):
    """The journal notices it without an alert or a phone, and before the leases do (WPS4)."""
    with ExitStack() as stack:
        node, service = stack.enter_context(Node(tmp_path)), stack.enter_context(PushService(certificate))
        options, settings, outage = store_with(fault, tmp_path, stack)
        push = stack.enter_context(Push(node, service, options=("--drain-s", "1", *options), **settings))
        with outage:
            wait_until(lambda: push.readiness() == 503, "/readyz is 503")
            [reason] = push.client(push.metrics_port).get("/readyz").json()["reasons"]
            assert reason.startswith("store of devices unreachable: "), reason
            assert push.process is not None
            push.process.terminate()
            push.process.wait(PATIENCE)
        push.restart()


@pytest.mark.parametrize("fault", ["disk hangs", "file locked"])
def test_targets_are_told_while_the_state_of_the_relay_hangs(tmp_path: Path, fault: str):
    """`/readyz` says 503 meanwhile, and SIGTERM ends the process. A restart after the outage repeats nothing."""
    with Node(tmp_path) as node, WebhookReceiver(SECRET) as receiver:
        settings, outage = file_with(fault, tmp_path, tmp_path / "relay" / "relay.db")
        spot, relay = ground(), RelayProcess(node, tmp_path / "relay", **settings)
        relay.targets(spot, siren=receiver)
        with relay:
            took, until, bodies = [], time.monotonic() + HANGS_S, list[Json]()
            with outage:
                while len(bodies) < 3 or time.monotonic() < until:
                    bodies.append(alert(spot))
                    began = time.monotonic()
                    node.publish(bodies[-1])
                    receiver.until(lambda: receiver.taken(bodies[-1]["id"]))
                    took.append(time.monotonic() - began)
                    time.sleep(1.0 if HANGS_S else 0.0)
                wait_until(lambda: relay.readiness() == 503, "/readyz is 503")
            print(said(fault, took))
            relay.wait_until_ready()
            wait_until(lambda: relay.metric("relay_unrecorded") == 0, "all is recorded")
            relay.restart()
            node.cancel(bodies[0]["id"], 2)
            receiver.until(lambda: len(receiver.taken(bodies[0]["id"])) == 2)
            assert [len(receiver.taken(body["id"])) for body in bodies[1:]] == [1] * len(bodies[1:])
            with outage:
                node.publish(alert(spot))
                wait_until(lambda: relay.readiness() == 503, "/readyz is 503")
                relay.process.terminate()
                relay.process.wait(PATIENCE)


@pytest.mark.parametrize("fault", ["disk hangs", "file locked"])
def test_messages_are_posted_while_the_state_of_fetch_hangs(tmp_path: Path, fault: str):
    """`/readyz` says 503 meanwhile, and SIGTERM ends the process. A restart after the outage posts nothing again."""
    issuer = Issuer()
    with Node(tmp_path, None, *issuer_options(tmp_path)) as node, FeedServer() as server:
        settings, outage = file_with(fault, tmp_path, tmp_path / "fetch.db")
        messages, took, until = [inline("0", issuer.message("hangs-0"))], [], time.monotonic() + HANGS_S
        server.pages["/feed"] = atom(*messages)
        with Fetch(tmp_path, node, server, **settings) as fetch:
            fetch.write_feeds("/feed")
            fetch.start()
            wait_until(lambda: taken(node) == {"published": 1}, "the first message is published")
            with outage:
                while len(messages) < 4 or time.monotonic() < until:
                    messages.append(inline(str(len(messages)), issuer.message(f"hangs-{len(messages)}")))
                    server.pages["/feed"] = atom(*messages)
                    began = time.monotonic()
                    fetch.process.send_signal(signal.SIGHUP)
                    wait_until(lambda: taken(node) == {"published": len(messages)}, "it is published")
                    took.append(time.monotonic() - began)
                wait_until(lambda: fetch.readiness() == 503, "/readyz is 503")
            print(said(fault, took))
            fetch.wait_until_ready()
            fetch.restart()
            messages.append(inline("last", issuer.message("hangs-last")))
            server.pages["/feed"] = atom(*messages)
            fetch.process.send_signal(signal.SIGHUP)
            wait_until(lambda: taken(node) == {"published": len(messages)}, "only the last one is posted")
            with outage:
                messages.append(inline("end", issuer.message("hangs-end")))
                server.pages["/feed"] = atom(*messages)
                fetch.process.send_signal(signal.SIGHUP)
                wait_until(lambda: fetch.readiness() == 503, "/readyz is 503")
                fetch.process.terminate()
                fetch.process.wait(PATIENCE)


def said(fault: str, took: list[float]) -> str:
    """Return a line about how long alerts took."""
    return f"\n{fault}: {len(took)} alerts; the first after {took[0]:.2f} s, the slowest other {max(took[1:]):.2f} s"


def file_with(fault: str, home: Path, path: Path) -> tuple[dict[str, str], AbstractContextManager[None]]:
    """Return the settings of a process whose file can fail so, and the failure, which can be entered repeatedly."""
    if fault == "file locked":
        return {}, Repeated(lambda: locked(path))
    if COMPILER is None:
        pytest.skip("there is no C compiler (gcc)")
    return stuck_disk(home / "gate"), Repeated(lambda: stuck(home / "gate"))


class Repeated(AbstractContextManager[None]):
    """A context manager that makes a new one each time that it is entered."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make

    def __enter__(self) -> None:
        self._now = self._make()
        self._now.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._now.__exit__(*raised)


def store_with(
    fault: str, home: Path, stack: ExitStack
) -> tuple[tuple[str, ...], dict[str, str], AbstractContextManager[None]]:
    """Return the options and settings of a process whose device store can fail so, and the failure."""
    if fault == "redis stopped":
        if reason := missing():
            pytest.skip(reason)
        redis = stack.enter_context(RedisServer(home / "redis"))
        return ("--devices", redis.url), {}, paused(redis)
    settings, outage = file_with(fault, home, home / "devices.db")
    return (), settings, outage


def is_told(phones: list[PushPhone], messages: int) -> bool:
    """Return whether each phone has received as many messages."""
    return all(len(phone.told) >= messages for phone in phones)


@contextmanager
def paused(redis: RedisServer) -> Iterator[None]:
    """Stop a Redis by SIGSTOP."""
    redis.pause()
    try:
        yield
    finally:
        redis.resume()


@contextmanager
def stuck(gate: Path) -> Iterator[None]:
    """Let the disk of the process hang."""
    gate.touch()
    try:
        yield
    finally:
        gate.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep others from writing to a database."""
    with sqlite3.connect(path, isolation_level=None) as db:
        db.execute("BEGIN EXCLUSIVE")
        yield
    db.close()


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler (gcc)")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_ends_on_sigterm_although_the_disk_of_its_log_hangs(tmp_path: Path, workers: str):
    """A publisher gets no answer; the next start works (LogA3)."""
    gate, body = tmp_path / "gate", alert(ground())
    with Node(tmp_path, None, "--workers", workers, "--drain-s", "0", **stuck_disk(gate)) as node:
        with ThreadPoolExecutor(1) as publisher, stuck(gate):
            publisher.submit(node.post_once, "/v1/alerts", body)
            wait_until(lambda: node.get("/readyz").status_code == 503, "/readyz is 503")
            assert node.get("/readyz").json()["reasons"] == ["log unreachable: no answer for more than 3 s"]
            assert node.process is not None
            node.process.terminate()
            node.process.wait(PATIENCE)
        node.restart()
        assert node.post_once("/v1/alerts", body).status_code in (200, 201)
