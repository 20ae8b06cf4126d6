"""Phones behind a real UnifiedPush server: ntfy, with TLS on loopback.

ntfy answers 507 for a topic that nobody has listened to since it was started.
"""

import base64
import contextlib
import json
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import http_ece
import httpx
import pytest
from checked.tool import Tool
from end_to_end import conftest
from end_to_end.kit.alerts import alert, ground, revision_of
from end_to_end.kit.node import Node
from end_to_end.kit.process import ServerProcess
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports

from client_demo.python.subscription import Subscription

TOOL = Tool("ntfy", "pushes to phones behind a real UnifiedPush server", debian=("ntfy",), commands=("ntfy",))
pytestmark = pytest.mark.checked
certificate, keys, own_node = conftest.certificate, conftest.keys, conftest.own_node  # fixtures
DEAD, LIVING = 40, 5


class Ntfy(ServerProcess):
    """A process of `ntfy serve` that keeps everything in memory. It takes the part of a PushService for `Push`."""

    def __init__(self, home: Path, certificate: Certificate) -> None:
        super().__init__(home / "ntfy.txt")
        self.certificate = certificate
        [self.port] = free_ports(1)
        self.url = f"https://localhost:{self.port}"
        self.tls = ssl.create_default_context(cafile=str(certificate.crt))
        self.config = home / "server.yml"
        options = {
            "base-url": self.url,
            "listen-http": "-",
            "listen-https": f"127.0.0.1:{self.port}",
            "cert-file": str(certificate.crt),
            "key-file": str(certificate.key),
            "visitor-subscriber-rate-limiting": True,
            "visitor-request-limit-exempt-hosts": "127.0.0.1",
            "visitor-subscription-limit": 1_000,
        }
        self.config.write_text(json.dumps(options))  # JSON is YAML too

    def __enter__(self) -> "Ntfy":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start ntfy and wait until it is healthy."""
        self.spawn("ntfy", "serve", "--config", self.config, environment={})
        wait_until(self._is_healthy, lambda: f"ntfy is healthy: {self.output()}")

    def _is_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v1/health", verify=self.tls, trust_env=False).is_success
        return False


class Phone:
    """A phone with a subscription at ntfy. While it listens, it decrypts each message with http-ece."""

    def __init__(self, ntfy: Ntfy) -> None:
        self.name = f"up{secrets.token_hex(6)}"  # 14 characters, as topics of UnifiedPush have
        self.told: list[Any] = []
        self._ntfy = ntfy
        self._keys = Subscription(f"{ntfy.url}/{self.name}?up=1")
        self._http = httpx.Client(verify=ntfy.tls, trust_env=False, timeout=PATIENCE)

    def subscription(self) -> dict[str, Any]:
        """Return the subscription in the format in which it is registered."""
        return self._keys.to_map()

    def listen(self) -> None:
        """Begin to listen to the topic; return when ntfy has confirmed it."""
        is_open = threading.Event()
        threading.Thread(target=self._listen, args=(is_open,), daemon=True).start()
        assert is_open.wait(PATIENCE)

    def _listen(self, is_open: threading.Event) -> None:
        with (
            contextlib.suppress(httpx.TransportError),
            self._http.stream("GET", f"{self._ntfy.url}/{self.name}/json") as answer,
        ):
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["event"] == "open":
                    is_open.set()
                elif event["event"] == "message":
                    self.told.append(self._read(event))

    def _read(self, event: dict[str, Any]) -> Any:
        assert event["encoding"] == "base64"
        body = base64.b64decode(event["message"])
        keys = {"private_key": self._keys.private, "auth_secret": self._keys.auth}
        return json.loads(http_ece.decrypt(body, **keys, version="aes128gcm"))

    def has(self, body: dict[str, Any], revision: int = 1) -> bool:
        """Return whether the phone has been told this revision of an alert."""
        told = [each["alert"] for each in self.told if each["type"] == "alert"]
        return (body["id"], revision) in [(each["id"], each["revision"]) for each in told]


@pytest.fixture
def ntfy(tmp_path: Path, certificate: Certificate) -> Iterator[Ntfy]:
    """Start ntfy."""
    with Ntfy(tmp_path, certificate) as ntfy:
        yield ntfy


@pytest.fixture
def push(own_node: Node, ntfy: Ntfy) -> Iterator[Push]:
    """Start `geocast push`, which may push to ntfy."""
    with Push(own_node, ntfy) as push:  # type: ignore[arg-type]
        yield push
        push.assert_no_surprise()


@pytest.fixture
def phones(push: Push, ntfy: Ntfy) -> Callable[[int, str], list[Phone]]:
    """Return `phones(count, cell)`, which registers phones of different owners."""

    def registered(count: int, here: str) -> list[Phone]:
        made = [Phone(ntfy) for _ in range(count)]
        for phone in made:
            push.register(phone, here)  # type: ignore[arg-type]
        return made

    return registered


def test_phone_behind_ntfy_gets_an_alert_its_revision_and_its_cancel(
    own_node: Node, phones: Callable[[int, str], list[Phone]]
):
    """A phone elsewhere gets nothing."""
    spot = ground()
    [near], [far] = phones(1, cell(spot)), phones(1, cell(ground()))
    for phone in (near, far):
        phone.listen()
    body = alert(spot)
    own_node.publish(body)
    wait_until(lambda: near.has(body), "the alert")
    own_node.revise(revision_of(body, 2))
    wait_until(lambda: near.has(body, 2), "the revision")
    own_node.cancel(body["id"], 3)
    wait_until(lambda: len(near.told) == 3, "the cancel")
    assert (near.told[2]["type"], near.told[2]["id"]) == ("cancel", body["id"])
    assert far.told == []


def test_phones_that_left_ntfy_do_not_delay_those_that_still_listen(
    own_node: Node, push: Push, ntfy: Ntfy, phones: Callable[[int, str], list[Phone]]
):
    """Phones that had got an alert are gone after a restart of ntfy: it answers 507 for each of them (rule HD2)."""
    spot = ground()
    leaving, staying = phones(DEAD, cell(spot)), phones(LIVING, cell(spot))
    for phone in (*leaving, *staying):
        phone.listen()
    first = own_node.publish(alert(spot))
    wait_until(lambda: all(phone.has(first) for phone in (*leaving, *staying)), "all are told")
    ntfy.restart()
    for phone in staying:
        phone.listen()
    lost = own_node.publish(alert(spot))

    def answers_507() -> float:
        assert push.metric(f'push_lane_open{{service="localhost:{ntfy.port}"}}') == 1
        return push.metric('push_total{outcome="failed"}')

    # If these answers counted against ntfy, its limit would be halved eight times, to 0, in this time.
    wait_until(lambda: answers_507() >= 4 * DEAD, "each phone that left has been tried four times")
    body = own_node.publish(alert(spot))
    wait_until(lambda: all(phone.has(lost) and phone.has(body) for phone in staying), "all that listen are told")
    assert push.metric('push_total{outcome="failed"}') >= 4 * DEAD
    assert not any(phone.has(body) for phone in leaving)
