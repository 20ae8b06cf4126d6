"""The device store of `geocast push` hangs: pushes go out all the same, and nothing is lost or repeated later (WPS4).

`STORE_HANGS_S` makes each outage as long; by default it ends when all phones have been told.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from end_to_end.faults.test_push_faults import register_all
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.fault_schedule import TIMEOUT
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.wire import PATIENCE
from support.preloaded import COMPILER, stuck_disk
from support.push_service import PushPhone, PushService
from support.redis_server import RedisServer, missing

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


def store_with(
    fault: str, home: Path, stack: ExitStack
) -> tuple[tuple[str, ...], dict[str, str], AbstractContextManager[None]]:
    """Return the options and settings of a process whose device store can fail so, and the failure."""
    if fault == "redis stopped":
        if reason := missing():
            pytest.skip(reason)
        redis = stack.enter_context(RedisServer(home / "redis"))
        return ("--devices", redis.url), {}, paused(redis)
    if fault == "file locked":
        return (), {}, locked(home / "devices.db")
    if COMPILER is None:
        pytest.skip("there is no C compiler (gcc)")
    return (), stuck_disk(home / "gate"), stuck(home / "gate")


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
