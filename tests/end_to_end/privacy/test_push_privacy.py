"""privacy.md and threats.md, what they say of phones that sleep: what is where, and who can do what with it.

A real `geocast push` beside a real node pushes to a service that notes all that it is shown. Who steals something is
played with the files that he would have.
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
    """A push service that knows for which key its subscriptions are, as browsers' do. It notes what it is shown."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(certificate)
        self.key = ""  # of all subscriptions here
        self.shown: list[
            tuple[set[str], str, str]
        ] = []  # names of headers, what identifies the sender, the name pushed to

    async def _answer(self, request: Any) -> Any:
        key = request.headers["Authorization"].partition("k=")[2]
        self.shown.append((set(request.headers), key, request.match_info["name"]))
        return self._said(403) if self.key and key != self.key else await super()._answer(request)


@pytest.fixture
def service(certificate: Certificate) -> Iterator[Watching]:
    """A push service."""
    with Watching(certificate) as service:
        yield service


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that nobody but these tests has."""
    with Node(tmp_path_factory.mktemp("node"), keys) as node:
        yield node


@pytest.fixture
def push(node: Node, service: Watching) -> Iterator[Push]:
    """The process that pushes, with a store of its own."""
    with Push(node, service, options=("--log-level", "debug"), devices=f"{secrets.token_hex(8)}.db") as push:
        service.key = push.api.get("/v1/push").json()["vapid"]
        yield push
        push.assert_no_surprise()


def rows(push: Push, query: str) -> list[Any]:
    """What a copy of the store says."""
    with contextlib.closing(sqlite3.connect(f"file:{push.devices_file}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def everything(push: Push, node: Node) -> dict[str, bytes]:
    """All that both processes have written, and what one is told who asks for metrics."""
    logs = sorted(node.home.glob(f"{node.log_file.name}*"))
    return {
        "store": b"".join(path.read_bytes() for path in push.files()),
        "log": b"".join(path.read_bytes() for path in logs),
        "output": push.output().encode() + node.output().encode(),
        "metrics": push.metrics_api.get("/metrics").content,
    }


# ---- what is known ---------------------------------------------------------------------------------------------------


def test_what_a_phone_said_is_in_no_file_line_or_metric_and_nothing_is_left_of_it(
    node: Node, push: Push, service: Watching
) -> None:
    """DP23, DP24, DP25, DP26: its owner alone is answered with the cells; at DELETE all of it goes."""
    spot, phone = ground(), service.phone()
    headers = bearer(push.token(sub=SUB)) | {"User-Agent": AGENT, "X-Forwarded-For": FORWARDED, "Cookie": "a=canary"}
    body = {"subscription": phone.subscription(), "places": [{"cell": cell(spot)}], "languages": ["gsw"]}
    answer = push.api.put(f"/v1/devices/{DEVICE}", json=body, headers=headers)
    assert answer.status_code == 201
    told = node.publish(alert(spot))
    service.until(lambda: phone.alerts() == [(told["id"], 1)])
    wait_until(lambda: rows(push, "SELECT 1 FROM told WHERE state = 1 OR state = 2"), "it is noted that it was told")
    mine = push.api.get(f"/v1/devices/{DEVICE}", headers=headers)
    assert mine.json()["places"] == [{"cell": cell(spot)}]
    assert push.api.get(f"/v1/devices/{DEVICE}", headers=bearer(push.token(sub="another"))).status_code == 404

    keys = phone.subscription()["keys"]
    secrets = [phone.name, *keys.values(), cell(spot), SUB, DEVICE, answer.json()["secret"], AGENT, FORWARDED, "canary"]
    needles = [secret.encode() for secret in secrets] + [phone.auth, int(cell(spot), 16).to_bytes(8, "big")]
    seen = everything(push, node)
    assert {f"{needle!r} in {where}" for needle in needles for where, data in seen.items() if needle in data} == set()
    assert told["id"].encode() in seen["log"], "the search is known to bite"

    assert push.api.delete(f"/v1/devices/{DEVICE}", headers=headers).status_code == 204
    assert rows(push, "SELECT 1 FROM device") == rows(push, "SELECT 1 FROM told") == []


def test_a_push_service_is_shown_times_and_sizes_and_no_word(node: Node, push: Push, service: Watching) -> None:
    """WPP1, TH16: two phones near each other are told in one moment, and nothing but that moment says so."""
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


def test_a_push_service_can_swallow_and_repeat_a_message_and_not_change_it(
    node: Node, push: Push, service: Watching
) -> None:
    """TH16: what it says that it has taken counts as sent; who reads finds a changed one out by its tag (RFC 8188)."""
    spot, phone = ground(), service.phone()
    push.register(phone, cell(spot))
    phone.asleep = True
    body = node.publish(alert(spot))
    service.until(lambda: len(phone.requests) == 1)
    wait_until(lambda: push.metric('push_total{outcome="sent"}') == 1, "it counts as sent")
    [kept] = phone.kept.values()
    phone.kept.clear()  # swallowed
    for _ in range(2):
        assert phone.read(kept.body)["alert"]["id"] == body["id"]
    with pytest.raises((http_ece.ECEException, InvalidTag)):
        phone.read(flipped(kept.body))
    node.settle()
    assert len(phone.requests) == 1


# ---- who steals the store, and keys ----------------------------------------------------------------------------------


def test_the_store_says_how_many_and_until_when_and_who_was_told_the_same(
    node: Node, push: Push, service: Watching
) -> None:
    """WPP2, TH13: by digests, which say nothing of the alert and of the phone."""
    spot, near, far = ground(), [service.phone(), service.phone()], service.phone()
    for phone in near:
        push.register(phone, cell(spot))
    push.register(far, cell(ground()))
    node.publish(alert(spot))
    service.until(lambda: all(phone.told for phone in near))
    wait_until(lambda: len(rows(push, "SELECT 1 FROM told")) == 2, "it is noted who was told")
    assert len(rows(push, "SELECT 1 FROM device WHERE until_ms > 0")) == 3
    assert len({digest for (digest,) in rows(push, "SELECT alert FROM told")}) == 1
    sizes = {len(sealed) for (sealed,) in rows(push, "SELECT sealed FROM device")}
    assert len(sizes) == 1, "no length tells one from another"


def test_the_store_and_its_key_are_the_cells(node: Node, push: Push, service: Watching) -> None:
    """WPP3, TH14: and the endpoints; of a place nothing finer, and nothing of where the phone was before."""
    before, now, phone = ground(), ground(), service.phone()
    device = push.register(phone, cell(before))["id"]
    push.register(phone, cell(now), device_id=device)
    ring = parse_push_keys((node.home / "push.jwks").read_bytes(), node.home / "push.jwks")
    [(digest, until_ms, sealed)] = rows(push, "SELECT device, until_ms, sealed FROM device")
    record, _ = ring.open(sealed, digest, until_ms)
    assert (record.cells, record.endpoint, record.sub) == ((cell(now),), phone.endpoint, phone.name)


@pytest.fixture(scope="module")
def thief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of somebody else, with a log of his own."""
    with Node(tmp_path_factory.mktemp("thief"), Keys()) as node:
        yield node


def stolen(push: Push, thief: Node, *files: str) -> None:
    """Copies in the thief's hands; keys that he has not got he makes."""
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
    ids=["the store", "and the VAPID key", "and its key", "and both"],
)
def test_who_steals_the_store_lies_to_its_phones_only_with_both_keys(
    push: Push, service: Watching, thief: Node, files: tuple[str, ...], lies: int
) -> None:
    """TH13, TH14, TH15: without one of the two nobody is pushed to; with both he tells what he likes."""
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


def test_a_push_with_another_vapid_key_is_refused_by_the_service(node: Node, push: Push, service: Watching) -> None:
    """TH15: who has endpoints, and not the key, gets nothing to anybody."""
    spot, phone = ground(), service.phone()
    service.key = "of somebody else"
    push.register(phone, cell(spot))
    node.publish(alert(spot))
    service.until(lambda: service.statuses[403] == 1)
    assert phone.told == []


# ---- endpoints, and a phone's secret ---------------------------------------------------------------------------------


@contextlib.contextmanager
def listener() -> Iterator[tuple[int, list[object]]]:
    """A server on loopback that nobody is to connect to: its port, and who did."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        came: list[object] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    came.append(server.accept()[1])

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


def test_an_endpoint_is_no_lever_to_reach_the_inside(node: Node, service: Watching) -> None:
    """TH17, WPR3, WPO4: whatever is registered, and where a name that may be pushed to leads inside."""
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
        wait_until(lambda: push.metric('push_total{outcome="away"}') >= 1, "it leads inside, and nowhere")
        assert (came, service.connections, phone.told) == ([], 0, [])


def test_who_has_a_phones_secret_is_told_what_it_would_be_until_its_app_forgets_it(
    node: Node, push: Push, service: Watching
) -> None:
    """TH18: and the id; a PUT of the app does not shut him out, for it keeps the secret. Another id does."""
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
