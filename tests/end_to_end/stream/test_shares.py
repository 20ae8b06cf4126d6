"""One token that takes all it can get: the node answers 429 to its requests, and still serves others.

An attacker has a good token and opens as many connections as possible; strangers have no token (rules HD3, HD6, HD14).
"""

from __future__ import annotations

import contextlib
import json
import math
import select
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, ground
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, call, calling_node
from end_to_end.kit.earth import Point
from end_to_end.kit.issuer import SOURCES, Issuer, options, post
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE, Keys, bearer
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.push_service import PushService

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
POLYGONS = """
name = "rivers"
[categories]
flood = { title = "Flood", polygons = true, max_radius_m = 300_000, simplify_m = 1_000 }
burglary = { title = "Burglary" }
"""


@pytest.fixture(scope="module")
def node(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Start a node that accepts polygons."""
    home = tmp_path_factory.mktemp("node")
    (home / "policy.toml").write_text(POLYGONS)
    with Node(home, keys, "--policy", "policy.toml") as node:
        yield node
        node.assert_no_surprise()


class AttackerConnections:
    """The connections of one attacker, closed at the end of the block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._opened = contextlib.ExitStack()
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> AttackerConnections:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def say(self, count: int, data: bytes, receive_buffer: int = 0) -> list[socket.socket]:
        """Open `count` more connections, and send the same bytes on each."""
        more = []
        for _ in range(count):
            sock = self._opened.enter_context(socket.socket())
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", self._port))
            sock.sendall(data)
            more.append(sock)
        self.sockets += more
        return more

    def answered(self) -> list[socket.socket]:
        """Return the connections that have received an answer."""
        poll = select.poll()
        for sock in self.sockets:
            poll.register(sock, select.POLLIN)
        ready = {number for number, _ in poll.poll(0)}
        return [sock for sock in self.sockets if sock.fileno() in ready]


def head(method: str, path: str, token: str, **fields: str) -> bytes:
    """Return the head of a request whose body will not come."""
    lines = {"Host": "x", "Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    lines |= {name.replace("_", "-"): value for name, value in fields.items()}
    return "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in lines.items()), "", ""]).encode()


def answer_of(sock: socket.socket) -> tuple[int, dict[str, str], Json]:
    """Return the status, the header fields and the problem of an answer."""
    data = b""
    while b"\r\n\r\n" not in (data := data.removeprefix(CONTINUE)):
        data += sock.recv(65536) or pytest.fail("closed without an answer")
    start, _, body = data.partition(b"\r\n\r\n")
    status, *lines = start.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(fields["content-length"]):
        body += sock.recv(65536)
    return int(status.split()[1]), fields, json.loads(body)


def assert_share_is_used(status: int, fields: Any, problem: Json) -> None:
    """Assert that the answer says that the share is used up, and when to try again."""
    assert (status, problem["type"]) == (429, "/problems/too-many-requests")
    assert int(fields["retry-after"]) > 0
    assert "share" in problem["detail"]


def polygon(spot: Point, corners: int = 400) -> Json:
    """Return a star with so many corners that the server needs some milliseconds of a thread for it."""
    turns = [2 * math.pi * n / corners for n in range(corners)]
    radii = [0.3 + 0.015 * (n % 2) for n in range(corners)]
    ring = [[spot[1] + r * math.cos(t), spot[0] + r * math.sin(t)] for r, t in zip(radii, turns, strict=True)]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def at_once(count: int, ask: Any) -> list[httpx.Response]:
    """Return the answers to `count` requests that are all sent before the first answer."""
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: ask(), range(count)))


# -- unfinished request bodies


def test_unfinished_bodies_of_one_subject_block_only_that_subject(keys: Keys, tmp_path: Path):
    """A token beyond its share of requests gets 429, while every alert of another token is published (rule HD6)."""
    token = keys.token(sub="attacker", scope=DESK_SCOPE)
    with Node(tmp_path, keys, "--share", "0.02") as node:
        with AttackerConnections(node.api_port) as crowd:
            crowd.say(100, head("POST", "/v1/alerts", token, Content_Length="100"))
            own = []
            wait_until(lambda: own.append(node.get("/v1/alerts", token)) or own[-1].status_code == 429, "it is refused")
            assert_share_is_used(own[-1].status_code, own[-1].headers, own[-1].json())
            wait_until(lambda: len(crowd.answered()) >= 60, "all requests beyond the share are refused")
            assert_share_is_used(*answer_of(crowd.answered()[0]))
            statuses = Counter(node.post("/v1/alerts", alert(ground())).status_code for _ in range(30))
            assert statuses == {201: 30}
        wait_until(lambda: node.get("/v1/alerts", token).status_code == 200, "the closed connections no longer count")
        node.assert_no_surprise()


def test_clients_without_a_token_that_do_not_read_answers_block_nobody(keys: Keys, tmp_path: Path):
    """A connection without a token whose answers are not read is closed for a new one (rules HD6, BA1d).

    The node has 400 file descriptors and accepts an eighth as many connections.
    """
    narrow = Node(tmp_path, keys)
    narrow.launcher = ["sh", "-c", 'ulimit -n 400; exec "$0" "$@"']
    url, ask = f"http://127.0.0.1:{narrow.api_port}", b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 60
    with narrow, AttackerConnections(narrow.api_port) as crowd:
        crowd.say(400 // 8, ask, receive_buffer=2_048)
        for _ in range(60):  # meanwhile the unread answers fill the kernel's buffers
            answer = httpx.post(
                f"{url}/v1/alerts", json=alert(ground()), headers=bearer(narrow.desk), timeout=PATIENCE, trust_env=False
            )
            assert answer.status_code == 201, answer.text


# -- dry runs and reads


def test_many_polygon_dry_runs_of_one_subject_do_not_block_others(node: Node):
    """Of 60 dry runs at once some get 429, while those of another subject succeed (rule HD6)."""
    token = node.keys.token(sub="attacker", scope=DESK_SCOPE)
    body = alert(ground(), category="flood", area=polygon(ground()))
    with ThreadPoolExecutor(1) as attack:
        flood = attack.submit(at_once, 60, lambda: node.post("/v1/alerts", body, token, dry_run="true"))
        while not flood.done():
            answer = node.post("/v1/alerts", body | {"id": "other"}, dry_run="true")
            assert answer.status_code == 200, answer.text
    statuses = Counter(answer.status_code for answer in flood.result())
    assert statuses.keys() == {200, 429}
    for answer in flood.result():
        if answer.status_code == 429:
            assert_share_is_used(answer.status_code, answer.headers, answer.json())


def test_many_reads_by_one_subject_do_not_block_others(node: Node):
    """Of 100 lists at once some get 429, while those of another subject succeed (rule HD6)."""
    token = node.keys.token(sub="attacker", scope=DESK_SCOPE)
    for answer in node.at_once("/v1/alerts", [alert(ground()) for _ in range(300)]):
        assert answer.status_code == 201
    with ThreadPoolExecutor(1) as attack:
        flood = attack.submit(at_once, 100, lambda: node.get("/v1/alerts", token))
        while not flood.done():
            assert node.get("/v1/alerts").status_code == 200
    statuses = Counter(answer.status_code for answer in flood.result())
    assert statuses.keys() == {200, 429}


# -- open calls


def test_dispatcher_with_too_many_open_calls_is_refused_even_after_a_restart(keys: Keys, tmp_path: Path):
    """The open calls in the log are counted, so a restart forgets none.

    `--share` sets how many may be open (rule HD6).
    """
    attacker, other = (keys.token(sub=sub, scope=DISPATCH_SCOPE) for sub in ("attacker", "cad-3"))
    with calling_node(tmp_path, keys, "--share", "0.02") as node:
        bodies = [call() for _ in range(20)]
        for body in bodies:
            assert node.post("/v1/calls", body, attacker).status_code == 201
        for _ in range(2):
            refused = node.post("/v1/calls", call(), attacker)
            assert_share_is_used(refused.status_code, refused.headers, refused.json())
            assert node.post("/v1/calls", bodies[0], attacker).status_code == 200
            assert node.post("/v1/calls", call(), other).status_code == 201
            node.restart()
        ended = node.post(f"/v1/calls/{bodies[0]['id']}/end", {"reason": "Over."}, attacker)
        assert ended.status_code == 201
        assert node.post("/v1/calls", call(), attacker).status_code == 201
        node.assert_no_surprise()


# -- CAP messages


def test_unfinished_cap_messages_of_one_source_do_not_block_another_source(keys: Keys, tmp_path: Path):
    """The received bytes of unfinished messages count against their own source only (rule HD3)."""
    with Node(tmp_path, keys, *options(tmp_path), "--share", "0.05") as node:
        (tmp_path / "sources.toml").write_text(SOURCES + '[sources.hub]\napprover = "the hub"\nsenders = ["*"]\n')
        node.restart()
        token, issuer = keys.token(sub="hub", scope=DESK_SCOPE), Issuer()
        slow = head("POST", "/v1/cap", token, Content_Type="application/xml", Content_Length=str(2**21))
        with AttackerConnections(node.api_port) as crowd:
            crowd.say(60, slow)  # without any byte of the body
            crowd.say(6, slow + b" " * 100_000)  # with enough bytes to count against the share
            wait_until(lambda: len(crowd.answered()) >= 3, "the requests beyond the share are refused")
            assert_share_is_used(*answer_of(crowd.answered()[0]))
            for number in range(20):
                assert post(node, issuer.message(f"m-{number}"))[0] == 201
        node.assert_no_surprise()


# -- registrations of devices


def test_unfinished_registrations_of_one_subject_block_nobody_else(keys: Keys, tmp_path: Path, service: PushService):
    """A token that has used up its share of requests gets 429, while another phone is registered (rule HD6).

    At shutdown, the unfinished requests are answered with 503 (rule HD14).
    """
    with Node(tmp_path, keys) as node, Push(node, service, options=("--share", "0.02")) as push:
        token = push.token(sub="attacker", scope=PHONE_SCOPE)
        with AttackerConnections(push.port) as crowd:
            crowd.say(30, head("PUT", f"/v1/devices/{'d' * 16}", token, Content_Length="100"))
            wait_until(lambda: len(crowd.answered()) >= 20, "the requests beyond the share are refused")
            push.register(service.phone(), cell(ground()))
            assert push.terminate() == 0
            statuses = Counter(answer_of(sock)[0] for sock in crowd.sockets)
            assert statuses == {429: 20, 503: 10}
        push.assert_no_surprise()


# -- the shutdown of a node


@pytest.mark.parametrize("workers", ["1", "2"])
def test_requests_with_unfinished_bodies_are_answered_with_503_at_shutdown(keys: Keys, tmp_path: Path, workers: str):
    """The answers come at once and nothing prints a traceback, however little time the shutdown has (rule HD14)."""
    with Node(tmp_path, keys, "--drain-s", "1", "--workers", workers) as node:
        with AttackerConnections(node.api_port) as crowd:
            for body in ({"Content_Length": "100"}, {"Transfer_Encoding": "chunked"}):
                crowd.say(40, head("POST", "/v1/alerts", node.desk, Expect="100-continue", **body))
            wait_until(lambda: len(crowd.answered()) == 80, "the node waits for all bodies")
            for sock in crowd.sockets[40:]:
                sock.sendall(b"5\r\n{")
            assert node.process
            node.process.send_signal(signal.SIGTERM)
            answers = [answer_of(sock) for sock in crowd.sockets]
            assert {(status, problem["type"]) for status, _, problem in answers} == {(503, "/problems/draining")}
            assert all(int(fields["retry-after"]) > 0 for _, fields, _ in answers)
            assert node.process.wait(PATIENCE) == 0
        assert "Cancel" not in node.output()
        node.assert_no_surprise()
