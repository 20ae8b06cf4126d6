"""Where the data of sleeping phones may be, and what an attacker can do with it, as privacy.md and threats.md say.

A real `geocast push` beside a real node sends to a push service that records its requests. The attacker gets the files
that he would have stolen.
"""

import contextlib
import json
import secrets
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import http_ece
import pytest
from cryptography.exceptions import InvalidTag
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.keys import Keys, bearer
from end_to_end.kit.node import BIN, Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.wire import PATIENCE
from support.flipping import flipped
from support.push_service import PushService

from geocast.push.encryption import parse_push_keys

SUB = "phone-canary-5521"
DEVICE = "device-canary-7734"
AGENT = "agent-canary/7.7"
FORWARDED = "203.0.113.77"
FIELDS = {"Host", "Authorization", "Content-Encoding", "Content-Length", "Content-Type", "TTL", "Topic", "Urgency"}


class Watching(PushService):
    """A push service that checks the VAPID key of each request, as real services do, and records the request."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(certificate)
        self.key = ""  # the VAPID key of all subscriptions
        self.shown: list[tuple[set[str], str, str]] = []
        """For each request: names of its headers, the sender's VAPID key, the name of the phone."""

    async def _answer(self, request: Any) -> Any:
        key = request.headers["Authorization"].partition("k=")[2]
        self.shown.append((set(request.headers), key, request.match_info["name"]))
        return self._said(403) if self.key and key != self.key else await super()._answer(request)


@pytest.fixture
def service(certificate: Certificate) -> Iterator[Watching]:
    """Start a push service that records its requests."""
    with Watching(certificate) as service:
        yield service


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node that only these tests use."""
    with Node(tmp_path_factory.mktemp("node"), keys) as node:
        yield node


@pytest.fixture
def push(node: Node, service: Watching) -> Iterator[Push]:
    """Start a push process with a store of its own."""
    with Push(node, service, options=("--log-level", "debug"), devices=f"{secrets.token_hex(8)}.db") as push:
        service.key = push.api.get("/v1/push").json()["vapid"]
        yield push
        push.assert_no_surprise()


def rows(push: Push, query: str) -> list[Any]:
    """Return the rows of a query on the device store."""
    with contextlib.closing(sqlite3.connect(f"file:{push.devices_file}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def everything(push: Push, node: Node) -> dict[str, bytes]:
    """Return what both processes have written, and the metrics."""
    logs = sorted(node.home.glob(f"{node.log_file.name}*"))
    return {
        "store": b"".join(path.read_bytes() for path in push.files()),
        "log": b"".join(path.read_bytes() for path in logs),
        "output": push.output().encode() + node.output().encode(),
        "metrics": push.metrics_api.get("/metrics").content,
    }


# ---- what the push process, its store and the push service know ------------------------------------------------------


def test_data_of_a_phone_is_in_no_file_log_line_or_metric_and_is_deleted(
    node: Node, push: Push, service: Watching
) -> None:
    """Only the owner's GET shows the cells, and DELETE removes everything (rules DP23, DP24, DP25, DP26)."""
    spot, phone = ground(), service.phone()
    headers = bearer(push.token(sub=SUB)) | {"User-Agent": AGENT, "X-Forwarded-For": FORWARDED, "Cookie": "a=canary"}
    body = {"subscription": phone.subscription(), "places": [{"cell": cell(spot)}], "languages": ["gsw"]}
    answer = push.api.put(f"/v1/devices/{DEVICE}", json=body, headers=headers)
    assert answer.status_code == 201
    told = node.publish(alert(spot))
    service.until(lambda: phone.alerts() == [(told["id"], 1)])
    wait_until(lambda: rows(push, "SELECT 1 FROM told WHERE state = 1 OR state = 2"), "the delivery is stored")
    mine = push.api.get(f"/v1/devices/{DEVICE}", headers=headers)
    assert mine.json()["places"] == [{"cell": cell(spot)}]
    assert push.api.get(f"/v1/devices/{DEVICE}", headers=bearer(push.token(sub="another"))).status_code == 404

    keys = phone.subscription()["keys"]
    secrets = [phone.name, *keys.values(), cell(spot), SUB, DEVICE, answer.json()["secret"], AGENT, FORWARDED, "canary"]
    needles = [secret.encode() for secret in secrets] + [phone.auth, int(cell(spot), 16).to_bytes(8, "big")]
    seen = everything(push, node)
    assert {f"{needle!r} in {where}" for needle in needles for where, data in seen.items() if needle in data} == set()
    assert told["id"].encode() in seen["log"], "the search does not find what is there"

    assert push.api.delete(f"/v1/devices/{DEVICE}", headers=headers).status_code == 204
    assert rows(push, "SELECT 1 FROM device") == rows(push, "SELECT 1 FROM told") == []


def test_push_service_learns_only_times_and_sizes_of_pushes(node: Node, push: Push, service: Watching) -> None:
    """Two phones near each other get a push at the same moment.

    Nothing else connects the two phones (rules WPP1, TH16).
    """
    spot, phones = ground(), [service.phone(), service.phone()]
    for phone in phones:
        push.register(phone, cell(spot))
    told = alert(spot)
    node.publish(told)
    service.until(lambda: all(phone.alerts() == [(told["id"], 1)] for phone in phones))
    first, second = (phone.requests[0] for phone in phones)
    assert (first.urgency, abs(first.ttl_s - second.ttl_s) <= 1, len(first.body)) == (second.urgency, True, 3_000)
    assert first.topic != second.topic
    for names, key, _ in service.shown:
        assert names <= FIELDS
        assert key == service.key
    words = [told["id"], told["headline"], cell(spot)]
    assert not [word for word in words for each in (first, second) if word.encode() in each.body]


def test_push_service_can_drop_and_repeat_a_message_but_not_change_it(
    node: Node, push: Push, service: Watching
) -> None:
    """A message that the service accepted and dropped counts as sent.

    The phone detects a changed message by its tag (rule TH16; RFC 8188).
    """
    spot, phone = ground(), service.phone()
    push.register(phone, cell(spot))
    phone.asleep = True
    body = node.publish(alert(spot))
    service.until(lambda: len(phone.requests) == 1)
    wait_until(lambda: push.metric('push_total{outcome="sent"}') == 1, "the push counts as sent")
    [kept] = phone.kept.values()
    phone.kept.clear()  # the service drops the message
    for _ in range(2):
        assert phone.read(kept.body)["alert"]["id"] == body["id"]
    with pytest.raises((http_ece.ECEException, InvalidTag)):
        phone.read(flipped(kept.body))
    node.settle()
    assert len(phone.requests) == 1


# ---- a stolen store, and stolen keys ---------------------------------------------------------------------------------


def test_stolen_device_store_reveals_only_counts_and_expiry_times_and_which_devices_got_the_same_alert(
    node: Node, push: Push, service: Watching
) -> None:
    """Digests show which devices got the same alert, but not which alert and which devices (rules WPP2, TH13)."""
    spot, near, far = ground(), [service.phone(), service.phone()], service.phone()
    for phone in near:
        push.register(phone, cell(spot))
    push.register(far, cell(ground()))
    node.publish(alert(spot))
    service.until(lambda: all(phone.told for phone in near))
    wait_until(lambda: len(rows(push, "SELECT 1 FROM told")) == 2, "both deliveries are stored")
    assert len(rows(push, "SELECT 1 FROM device WHERE until_ms > 0")) == 3
    assert len({digest for (digest,) in rows(push, "SELECT alert FROM told")}) == 1
    sizes = {len(sealed) for (sealed,) in rows(push, "SELECT sealed FROM device")}
    assert len(sizes) == 1, "the lengths of the rows differ"


def test_stolen_device_store_with_its_key_reveals_cells_and_endpoints(
    node: Node, push: Push, service: Watching
) -> None:
    """The store reveals no place finer than a cell, and no earlier place (rules WPP3, TH14)."""
    before, now, phone = ground(), ground(), service.phone()
    device = push.register(phone, cell(before))["id"]
    push.register(phone, cell(now), device_id=device)
    ring = parse_push_keys((node.home / "push.jwks").read_bytes(), node.home / "push.jwks")
    [(digest, until_ms, sealed)] = rows(push, "SELECT device, until_ms, sealed FROM device")
    record, _ = ring.open(sealed, digest, until_ms)
    assert (record.cells, record.endpoint, record.sub) == ((cell(now),), phone.endpoint, phone.name)


@pytest.fixture(scope="module")
def thief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node of an attacker, with a log and keys of its own."""
    with Node(tmp_path_factory.mktemp("thief"), Keys()) as node:
        yield node


def stolen(push: Push, thief: Node, *files: str) -> None:
    """Copy the store and these key files to the attacker's folder, and make the missing keys there."""
    assert push.terminate() == 0
    for path in push.files():
        shutil.copy(path, thief.home)
    for option in ("push", "vapid"):
        name = f"{option}.jwks"
        (thief.home / name).unlink(missing_ok=True)
        if name in files:
            shutil.copy(push.node.home / name, thief.home)
        else:
            subprocess.run(
                [BIN / "geocast", "keygen", f"--{option}", name], cwd=thief.home, check=True, timeout=PATIENCE
            )


@pytest.mark.parametrize(
    ("files", "lies"),
    [((), 0), (("vapid.jwks",), 0), (("push.jwks",), 0), (("push.jwks", "vapid.jwks"), 1)],
    ids=["the store alone", "the store and the VAPID key", "the store and its key", "the store and both keys"],
)
def test_attacker_with_the_device_store_needs_both_keys_to_push_to_its_phones(
    push: Push, service: Watching, thief: Node, files: tuple[str, ...], lies: int
) -> None:
    """Without one of the keys, no phone gets a push.

    With both, the attacker can send anything (rules TH13, TH14, TH15).
    """
    spot, phone = ground(), service.phone()
    push.register(phone, cell(spot))
    stolen(push, thief, *files)
    with Push(thief, service, devices=push.devices_file.name) as his:
        assert his.metric("push_devices") == lies
        thief.publish(alert(spot))
        if lies:
            service.until(lambda: len(phone.told) == 1)
        thief.settle()
    assert len(phone.told) == len(service.shown) == lies


def test_push_with_another_vapid_key_is_refused_by_the_service(node: Node, push: Push, service: Watching) -> None:
    """An attacker who has endpoints but no key reaches no phone (rule TH15)."""
    spot, phone = ground(), service.phone()
    service.key = "of somebody else"
    push.register(phone, cell(spot))
    node.publish(alert(spot))
    service.until(lambda: service.statuses[403] == 1)
    assert phone.told == []


# ---- endpoints, and a phone's secret ---------------------------------------------------------------------------------


@contextlib.contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """Yield the port of a server on loopback, and the list of clients that have connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        came: list[object] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    came.append(server.accept()[1])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


def test_push_endpoint_cannot_point_to_a_server_in_the_private_network(node: Node, service: Watching) -> None:
    """Such an endpoint is refused.

    An allowed name that leads to a private address is not connected to (rules TH17, WPR3, WPO4).
    """
    with listener() as (port, came), Push(node, service, options=("--push-private", "")) as push:
        spot, phone = ground(), service.phone()
        body = {"subscription": phone.subscription(), "places": [{"cell": cell(spot)}]}
        for host in (
            f"127.0.0.1:{port}",
            f"localhost:{port}",
            f"[::1]:{port}",
            f"2130706433:{port}",
            f"x@localhost:{port}",
        ):
            endpoint = f"https://{host}/push/{phone.name}"
            answer = push.put(DEVICE, body | {"subscription": body["subscription"] | {"endpoint": endpoint}})
            assert (answer.status_code, answer.json()["type"].rpartition("/")[2]) == (422, "endpoint-not-allowed")
            assert host not in answer.text
        push.register(phone, cell(spot))
        node.publish(alert(spot))
        wait_until(lambda: push.metric('push_total{outcome="away"}') >= 1, "the push has failed")
        assert (came, service.connections, phone.told) == ([], 0, [])


def test_attacker_with_a_phones_id_and_secret_gets_its_alerts_until_they_change(
    node: Node, push: Push, service: Watching
) -> None:
    """A PUT of the app keeps the secret, so it does not stop the attacker; another id does (rule TH18)."""
    spot, phone, his = ground(), service.phone(), service.phone()
    answer = push.register(phone, cell(spot))
    path, secret = f"/v1/devices/{answer['id']}/subscription", bearer(answer["secret"])

    def taken() -> int:
        return push.api.put(path, json={"subscription": his.subscription()}, headers=secret).status_code

    assert taken() == 200
    first = node.publish(alert(spot))
    service.until(lambda: his.alerts() == [(first["id"], 1)])
    assert phone.told == []
    push.register(phone, cell(spot), device_id=answer["id"])
    assert taken() == 200
    owner = bearer(push.token(sub=phone.name))
    assert push.api.delete(f"/v1/devices/{answer['id']}", headers=owner).status_code == 204
    assert taken() == 401
    push.register(phone, cell(spot))
    second = node.publish(alert(spot))
    service.until(lambda: (second["id"], 1) in phone.alerts())
    assert his.alerts() == [(first["id"], 1)]
    assert json.dumps(answer["secret"]) not in push.output()
