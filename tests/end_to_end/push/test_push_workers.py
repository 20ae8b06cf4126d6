"""Phones that are woken by several processes with one supervisor (`geocast push --workers`, push-rules.md)."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.keys import bearer
from end_to_end.kit.node import BIN, Node, clean_environment, free_ports
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import stamp, wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.push_service import HANG, PushPhone, PushService

WORKERS = 2
PHONES = 24  # enough for each worker to have some, except once in 8,000,000 runs


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node with default options."""
    with Node(tmp_path_factory.mktemp("node")) as node:
        yield node


@pytest.fixture
def push(node: Node, service: PushService) -> Iterator[Push]:
    """Start the processes with a store of their own."""
    for path in node.home.glob("devices.db*"):
        path.unlink()
    (node.home / "revoked.toml").write_text("[sub]\n")
    options = ("--revoked", "revoked.toml", "--workers", str(WORKERS), "--drain-s", "1")
    with Push(node, service, options=options) as push:
        yield push
        assert push.terminate() == 0  # a kill would let the workers run for a moment
        push.assert_no_surprise()


def ask(push: Push, method: str, path: str, token: str, **more: object) -> httpx.Response:
    """Send a request on a connection of its own, so that any of the processes may get it."""
    url = f"http://127.0.0.1:{push.port}/v1/devices/{path}"
    return httpx.request(method, url, headers=bearer(token), timeout=PATIENCE, trust_env=False, verify=False, **more)  # type: ignore[arg-type]


def register(push: Push, phone: PushPhone, spot: tuple[float, float], **more: object) -> httpx.Response:
    """Register a phone with any of the processes; its owner and its id are derived from its name."""
    body = {"subscription": phone.subscription(), "places": [{"cell": cell(spot)}], **more}
    return ask(push, "PUT", device_id(phone), push.token(sub=phone.name), json=body)


def device_id(phone: PushPhone) -> str:
    """Return the device id that a phone has chosen."""
    return f"device-of-{phone.name}".ljust(16, "-")


def worker(push: Push, name: str) -> int:
    """Return the pid of the worker process with this name."""
    assert push.process
    children = Path(f"/proc/{push.process.pid}/task/{push.process.pid}/children").read_text().split()
    [found] = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == name]
    return found


def shows(push: Push, *lines: str) -> bool:
    """Return whether /metrics has these lines."""
    text = push.metrics_api.get("/metrics").text
    return set(lines) <= set(text.splitlines())


def told(phones: list[PushPhone], alert_id: str, number: int) -> bool:
    """Return whether all phones have received this revision."""
    return all((alert_id, number) in phone.alerts() for phone in phones)


def test_every_phone_gets_each_message_once_whichever_process_registered_it(
    node: Node, push: Push, service: PushService
):
    """The process that has the device sends alert, revision and cancel (rules WPN2, R1, R4)."""
    spot = ground()
    phones = [service.phone() for _ in range(PHONES)]
    assert {register(push, phone, spot).status_code for phone in phones} == {201}
    wait_until(lambda: shows(push, f"geocast_push_devices {PHONES}.0"), "all devices are loaded by their workers")
    body = alert(spot)
    node.publish(body)
    service.until(lambda: told(phones, body["id"], 1))
    node.revise(revision_of(body, 2))
    service.until(lambda: told(phones, body["id"], 2))
    node.cancel(body["id"], 3)
    service.until(lambda: all(phone.cancels() == [body["id"]] for phone in phones))
    assert {len(phone.requests) for phone in phones} == {3}


def test_any_process_answers_requests_for_every_device(node: Node, push: Push, service: PushService):
    """A process also answers for a device that belongs to another process (rules WPN2, R8).

    The requests are GET, a second PUT, a new subscription with the device's secret, and DELETE.
    """
    spot = ground()
    body = alert(spot)
    witnesses = [service.phone() for _ in range(PHONES)]
    for phone in witnesses:
        register(push, phone, spot)
    wait_until(lambda: shows(push, f"geocast_push_devices {PHONES}.0"), "all devices are loaded by their workers")
    node.publish(body)
    service.until(lambda: told(witnesses, body["id"], 1))  # every process has read the log up to this alert
    phones = [service.phone() for _ in range(8)]
    for phone in phones:
        token, path = push.token(sub=phone.name), device_id(phone)
        first = register(push, phone, spot)
        assert (first.status_code, first.json()["live"]) == (201, 1)
        service.until(lambda phone=phone: phone.alerts() == [(body["id"], 1)])
        answers = [ask(push, "GET", path, token) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {200}
        again = register(push, phone, spot, holding={body["id"]: 1})
        assert (again.status_code, again.json()["live"]) == (200, 0)
        moved = {"subscription": phone.subscription()}
        done = ask(push, "PUT", f"{path}/subscription", first.json()["secret"], json=moved)
        assert (done.status_code, done.json()["until"]) == (200, again.json()["until"])
        assert ask(push, "PUT", f"{path}/subscription", "wrong", json=moved).status_code == 401
    for phone in phones[:4]:
        assert ask(push, "DELETE", device_id(phone), push.token(sub=phone.name)).status_code == 204
        assert {ask(push, "GET", device_id(phone), push.token(sub=phone.name)).status_code for _ in range(4)} == {404}
    wait_until(
        lambda: shows(push, f"geocast_push_devices {PHONES + 4}.0"), "the workers have forgotten the deleted devices"
    )
    node.cancel(body["id"], 2)
    service.until(lambda: all(phone.cancels() == [body["id"]] for phone in phones[4:]))
    assert {len(phone.requests) for phone in phones[:4]} == {1}


def test_limits_on_registrations_apply_to_all_processes_together(push: Push, service: PushService):
    """The limits are eight devices of one owner and one registration of an endpoint (rules WPR6, WPR8)."""
    spot, token = ground(), push.token(sub="collector")
    phones = [service.phone() for _ in range(9)]
    bodies = [{"subscription": phone.subscription(), "places": [{"cell": cell(spot)}]} for phone in phones]
    answers = [ask(push, "PUT", f"device-number-{n:04}", token, json=body) for n, body in enumerate(bodies)]
    assert [answer.status_code for answer in answers] == [201] * 8 + [409]
    taken_over = ask(push, "PUT", "device-elsewhere", push.token(sub="new-owner"), json=bodies[0])
    assert taken_over.status_code == 201
    assert ask(push, "GET", "device-number-0000", token).status_code == 404
    wait_until(lambda: shows(push, "geocast_push_devices 8.0"), "the old registration is forgotten")


def test_replacement_of_a_killed_worker_sends_the_pushes_that_were_in_progress(
    node: Node, push: Push, service: PushService
):
    """The worker is killed during its requests. No phone misses the alert or its cancel (rules WPN1, WPS3)."""
    spot = ground()
    phones = [service.phone() for _ in range(PHONES)]
    for phone in phones:
        register(push, phone, spot)
    wait_until(lambda: shows(push, f"geocast_push_devices {PHONES}.0"), "all devices are loaded by their workers")
    for phone in phones:
        phone.answers = [HANG]
    body = alert(spot)
    node.publish(body)
    service.until(lambda: service.under_way >= PHONES)
    killed = worker(push, "push-1")
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: shows(push, "geocast_push_restarts_total 1.0", "geocast_push_ready 1.0"),
        "the killed worker is replaced",
    )
    assert worker(push, "push-1") != killed
    service.until(lambda: told(phones, body["id"], 1), seconds=PATIENCE)
    node.cancel(body["id"], 2)
    service.until(lambda: all(phone.cancels() == [body["id"]] for phone in phones))


def test_second_supervisor_is_refused_while_a_worker_runs(push: Push):
    """The workers share the lock of the file, so the lock is free only after the last worker has ended (rule K1)."""
    port, metrics_port = free_ports(2)
    others = [*push.options, "--listen", f"127.0.0.1:{port}", "--metrics", f"127.0.0.1:{metrics_port}"]
    for options in (others, [*others, "--workers", "1"]):
        done = ended(BIN / "geocast", "push", *options, env=clean_environment(), cwd=push.node.home)
        assert done.returncode != 0
        assert "another process has it" in done.stderr
        assert "Traceback" not in done.stderr


def test_reload_reaches_all_workers_and_sigterm_ends_them_with_status_0(node: Node, push: Push, service: PushService):
    """Each process forgets its revoked devices (rules BA2, WPR9)."""
    spot = ground()
    phones = [service.phone() for _ in range(PHONES)]
    for phone in phones:
        register(push, phone, spot)
    wait_until(lambda: shows(push, f"geocast_push_devices {PHONES}.0"), "all devices are loaded by their workers")
    revoked = [f'"{phone.name}" = {stamp(seconds=5)}\n' for phone in phones[1:]]
    (node.home / "revoked.toml").write_text("[sub]\n" + "".join(revoked))
    push.reload()
    wait_until(lambda: shows(push, "geocast_push_devices 1.0"), "all workers apply the revocations")
    assert shows(push, f'geocast_push_forgotten_total{{why="revoked"}} {PHONES - 1}.0')
    assert push.terminate() == 0
    push.start()


def test_number_of_workers_can_change_without_losing_deliveries(node: Node, push: Push, service: PushService):
    """The file has all devices and deliveries, whatever `--workers` is."""
    spot, phone = ground(), service.phone()
    register(push, phone, spot)
    body = alert(spot)
    node.publish(body)
    service.until(lambda: phone.alerts() == [(body["id"], 1)])
    for workers in ("1", "3"):
        assert push.terminate() == 0
        push.options += ["--workers", workers]
        push.start()
    node.cancel(body["id"], 2)
    service.until(lambda: phone.cancels() == [body["id"]])
    assert len(phone.requests) == 2
