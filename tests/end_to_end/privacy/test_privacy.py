"""Where each kind of data may be, and where not, as docs/operations/privacy.md says.

A node that logs all it can, with metrics and the public feed, gets requests of every kind. Then everything that it
wrote, stored, sent and answered is searched. Data that is allowed in a place must be found there, which proves that the
search works.
"""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import alert, approval, circle, place, revision_of
from end_to_end.kit.keys import DESK_SCOPE, PHONE_SCOPE, Keys, bearer
from end_to_end.kit.node import Node, repeated
from end_to_end.kit.times import wait_until
from end_to_end.kit.traces import assert_found_nowhere, digests, spellings
from end_to_end.kit.wire import PATIENCE, Wire, decode, encode, upgrade_headers
from support.ports import free_ports
from support.redis_server import RedisServer, needs_redis

CENTRE = (41.8739154237, -87.6391748261)
PHONE = (41.8751638297, -87.6402917463)
SOURCE = "127.0.0.77"  # the subscriber and the desk connect from this address
FORWARDED = "203.0.113.77"
AGENT = "canary-agent/7.7"
COOKIE = "canary-cookie"
SUB = "phone-canary-5521"
DESK = "desk-canary-8837"
REVIEWER = "reviewer-canary-3314"
HEADLINE = "Canary headline, be careful."
REFUSED = "Canary headline of what was refused"
REASON = "Canary reason: it is over."
STRANGER = {"X-Forwarded-For": FORWARDED, "X-Real-IP": FORWARDED, "Forwarded": f"for={FORWARDED}", "Cookie": COOKIE}


@dataclass
class Scene:
    """A node at work, and the bytes that the test saw, by the place where it saw them."""

    node: Node
    metrics: str
    feed: str
    seen: dict[str, bytes] = field(default_factory=dict)
    headers: list[httpx.Headers] = field(default_factory=list)
    secrets: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The kind of data -> its text, and the places where it may be."""
    peers: set[tuple[int, int]] = field(default_factory=set)

    def note(self, where: str, data: bytes) -> None:
        """Record bytes that were seen at `where`."""
        self.seen[where] = self.seen.get(where, b"") + b"\n" + data


class AtAddress(Wire):
    """A subscriber's connection from an address of its own, with headers as browsers and proxies send them."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(SOURCE, 0))
        self._buffer = b""
        self.answer_pings = True
        answer = self.request(
            "GET", "/v1/stream", upgrade_headers("geocast.v1.json") | STRANGER | {"User-Agent": AGENT}
        )
        assert answer.status == 101
        self.headers = answer.headers


def outward(node: Node, own: set[int]) -> set[int]:
    """Return the remote ports of connections that the node's processes have opened (Linux, /proc/net/tcp)."""
    assert node.process
    inodes = set()
    for pid in (node.process.pid, *node.children()):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
    found = set()
    for line in [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]:
        cells = line.split()
        if len(cells) > 9 and cells[9] in inodes and cells[3] == "01":
            here, there = (int(address.split(":")[1], 16) for address in cells[1:3])
            if here not in own:
                found.add(there)
    return found


@contextlib.contextmanager
def on(backend: str, home: Path) -> Iterator[tuple[str, RedisServer | None]]:
    """Yield the URL of a new log, and its Redis server if it has one."""
    if backend == "sqlite":
        yield f"sqlite:{home / 'geocast.db'}", None
    else:
        with RedisServer(home / "redis") as server:
            yield server.url, server


def everything_in(redis: RedisServer | None, home: Path) -> bytes:
    """Return all bytes of the log, in files and in Redis."""
    files = [path for path in home.rglob("*") if path.is_file() and path.name not in ("output.txt", "keys.json")]
    found = b"".join(path.read_bytes() for path in files if path.parent == home or "appendonlydir" in path.parts)
    if redis:
        with redis.client() as client:
            found += b"".join(key + b"\n" + client.dump(key) for key in client.scan_iter(count=1000))
    return found


@pytest.fixture(scope="module", params=["sqlite", pytest.param("redis", marks=needs_redis)])
def scene(request: pytest.FixtureRequest, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Run the life of an alert, with good and bad requests, on each kind of log.

    The node has ended when the scene is yielded.
    """
    home = tmp_path_factory.mktemp(f"privacy-{request.param}")
    metrics, feed = free_ports(2)
    options = ("--metrics", f"127.0.0.1:{metrics}", "--feed", f"127.0.0.1:{feed}")
    options += ("--feed-url", "https://alerts.example", "--feed-sender", "alerts@city.example", "--log-level", "debug")
    with on(request.param, home) as (url, redis), Node(home, keys, *options, log=url) as node:
        scene = Scene(node, f"http://127.0.0.1:{metrics}/metrics", f"http://127.0.0.1:{feed}")
        live_through(scene, {node.stream_port, node.api_port, metrics, feed}, redis)
        yield scene


def live_through(scene: Scene, ports: set[int], redis: RedisServer | None) -> None:
    """Do everything that a subscriber and a desk can do, and record what can be seen of it afterwards."""
    node = scene.node
    token = node.keys.token(sub=SUB, scope=PHONE_SCOPE)
    desk = node.keys.token(sub=DESK, scope=DESK_SCOPE)
    body = alert(CENTRE, id="canary-alert", headline=HEADLINE, area=circle(CENTRE, 1237.8461), occurred_at=None)
    body |= {"occurred_at": alert(CENTRE)["occurred_at"], "approval": approval(reviewer=REVIEWER)}
    with AtAddress(node.stream_port) as wire, publisher(scene, desk) as api:
        welcome = subscribe(scene, wire, token)
        publish(scene, api, body)
        hear(scene, wire, body)
        node.wait_for_counts(body["id"], sent=2, acked=1)
        read_all(scene, api, body)
        scene.peers = {(port, int(redis.port if redis else 0)) for port in outward(node, ports)}
        scene.note("frames", wire.recv_data().payload)  # the cancel
        scene.secrets = {
            "a subscriber's token": (token, ""),
            "a subscriber's sub": (SUB, ""),
            "the id of a session": (welcome["session"], "frames"),
            "a subscriber's address": (SOURCE, ""),
            "an address from a proxy's header": (FORWARDED, ""),
            "a User-Agent": (AGENT, ""),
            "a cookie": (COOKIE, ""),
            "a publisher's token": (desk, ""),
            "a publisher's sub": (DESK, "log frames answers feed"),
            "a reviewer's name": (REVIEWER, "log"),
            "a headline": (HEADLINE, "log frames answers feed"),
            "the headline of refused requests": (REFUSED, ""),
            "the reason of a cancel": (REASON, "log frames feed"),
            "an alert's id": (body["id"], "log frames answers feed"),
        }
        scene.note("log", everything_in(redis, node.home))
    wait_until(
        lambda: b"geocast_places 0.0" in httpx.get(scene.metrics, trust_env=False, timeout=PATIENCE).content,
        "the subscriber's session has ended",
    )
    scene.note("metrics", httpx.get(scene.metrics, trust_env=False, timeout=PATIENCE).content)
    assert node.terminate() == 0
    scene.note("log", everything_in(redis, node.home))
    scene.note("output", node.output().encode())


@contextlib.contextmanager
def publisher(scene: Scene, token: str) -> Iterator[httpx.Client]:
    """Yield the desk's HTTP client, at an address of its own, which records each answer."""

    def keep(response: httpx.Response) -> None:
        scene.note("answers", response.read())
        scene.headers.append(response.headers)

    with httpx.Client(
        base_url=f"http://127.0.0.1:{scene.node.api_port}",
        headers=bearer(token) | STRANGER | {"User-Agent": AGENT},
        transport=httpx.HTTPTransport(local_address=SOURCE),
        event_hooks={"response": [keep]},
        timeout=PATIENCE,
    ) as api:
        yield api


def subscribe(scene: Scene, wire: AtAddress, token: str) -> dict[str, object]:
    """Say hello from an exact place, move, filter, renew the token, and make a mistake. Return the welcome."""
    hello = {"type": "hello", "token": token, "places": [place(PHONE, accuracy_m=7)], "holding": {"canary-held": 3}}
    wire.send(0x1, encode("json", hello))
    payload = wire.recv_data().payload
    scene.note("frames", payload)
    for message in (
        {"type": "move", "places": [place(PHONE), place(CENTRE)]},
        {"type": "filter", "categories": ["burglary"]},
        {"type": "token", "token": token},
        {"type": "move", "places": [place((PHONE[0], 1000 + PHONE[1]))]},
    ):
        wire.send(0x1, encode("json", message))
        scene.note("frames", wire.recv_data().payload)
    return decode("json", payload)


def publish(scene: Scene, api: httpx.Client, body: dict[str, object]) -> None:
    """Send good and bad requests to publish."""
    bad = body | {"id": "canary-refused", "headline": REFUSED}
    posts = [
        ("/v1/alerts?dry_run=true", body, 200),
        ("/v1/alerts", body, 201),
        ("/v1/alerts", body | {"headline": REFUSED}, 409),
        ("/v1/alerts", bad | {"area": circle(CENTRE, 1)}, 422),
        ("/v1/alerts", bad | {"category": REFUSED, "street": REFUSED}, 422),
        ("/v1/alerts/canary-alert/revisions", revision_of(body, 2, headline=HEADLINE), 201),
    ]
    for path, content, status in posts:
        answer = repeated(lambda path=path, content=content: api.post(path, json=content))  # type: ignore[misc]
        assert answer.status_code == status, (path, status)
    assert api.post("/v1/alerts", content=json.dumps(bad)[:-1]).status_code == 415
    assert api.get("/v1/alerts", headers=bearer("canary.bad.token")).status_code == 401


def hear(scene: Scene, wire: AtAddress, body: dict[str, object]) -> None:
    """Wait for both revisions, and acknowledge the second."""
    revision = 0
    while revision < 2:
        payload = wire.recv_data().payload
        scene.note("frames", payload)
        revision = json.loads(payload)["alert"]["revision"]
    wire.send(0x1, encode("json", {"type": "ack", "id": body["id"], "revision": 2}))


def read_all(scene: Scene, api: httpx.Client, body: dict[str, object]) -> None:
    """Read the alert as its desk and from the public feed, cancel it, and read the feed again."""
    paths = ["/v1/alerts.geojson", "/v1/feed.atom", f"/v1/cap/{body['id']}.xml"]
    with httpx.Client(base_url=scene.feed, headers=STRANGER, timeout=PATIENCE, trust_env=False) as feed:
        wait_until(lambda: HEADLINE in feed.get(paths[0]).text, "the feed has the alert")
        answers = [api.get("/v1/alerts"), api.get(f"/v1/alerts/{body['id']}"), *map(feed.get, paths)]
        cancel = {"revision": 3, "reason": REASON, "approval": approval(reviewer=REVIEWER)}
        assert repeated(lambda: api.post(f"/v1/alerts/{body['id']}/cancel", json=cancel)).status_code == 201
        wait_until(lambda: REASON in feed.get(paths[2]).text, "the feed has the cancel")
        answers += map(feed.get, paths)
    assert all(answer.status_code == 200 for answer in answers)
    scene.headers += [answer.headers for answer in answers]
    scene.note("feed", b"\n".join(answer.content for answer in answers[2:]))


WHERE = ("log", "frames", "answers", "feed", "metrics", "output")
WHAT = [
    "a subscriber's token",
    "a subscriber's sub",
    "the id of a session",
    "a subscriber's address",
    "an address from a proxy's header",
    "a User-Agent",
    "a cookie",
    "a publisher's token",
    "a publisher's sub",
    "a reviewer's name",
    "a headline",
    "the headline of refused requests",
    "the reason of a cancel",
    "an alert's id",
]


@pytest.mark.parametrize("what", WHAT)
def test_each_kind_of_data_is_found_only_where_the_privacy_page_allows_it(scene: Scene, what: str) -> None:
    """Each text is found in all places that the page allows.

    It is found in no other place (rules DP1, DP3, DP6, DP8, DP9, DP10, DP11, DP12, TH8).
    """
    text, allowed = scene.secrets[what]
    found = {where for where in WHERE if text.encode() in scene.seen[where]}
    assert found == set(allowed.split())


def test_exact_places_of_subscriber_and_incident_are_found_nowhere(scene: Scene) -> None:
    """The search knows many spellings of both places (rules DP2, DP7)."""
    needles = {
        spelling: f"{name} {axis}"
        for name, point in {"incident": CENTRE, "phone": PHONE}.items()
        for axis, number in zip(("lat", "lng"), point, strict=True)
        for spelling in spellings(number)
    }
    assert_found_nowhere(needles | digests(SUB.encode()), scene.seen)


def test_no_data_of_a_session_remains_after_its_end(scene: Scene) -> None:
    """No session and no place remains; deliveries are only counted (rules DP2, DP4, DP5)."""
    metrics = scene.seen["metrics"].decode()
    assert re.search(r"^geocast_sessions 0\.0$", metrics, re.MULTILINE)
    assert re.search(r"^geocast_places 0\.0$", metrics, re.MULTILINE)
    assert b"canary-held" not in scene.seen["log"] + scene.seen["output"]


def test_labels_of_metrics_are_fixed_names_and_contain_no_user_data(scene: Scene) -> None:
    """No label has an id, category, name or address (rule DP13)."""
    labels = set(re.findall(r'(\w+)="', scene.seen["metrics"].decode()))
    known = {
        "kind",
        "type",
        "code",
        "status",
        "le",
        "version",
        "commit",
        "python",
        "file",
        "result",
        "generation",
        "reason",
        "task",
        "server",  # the Redis that is read: "primary", or an address in the operator's settings
    }
    known |= {"implementation", "major", "minor", "patchlevel"}
    assert labels <= known


def test_api_and_feed_never_set_a_cookie(scene: Scene) -> None:
    """Cookies are never used (rule DP14)."""
    assert len(scene.headers) > 10
    assert not any("set-cookie" in headers for headers in scene.headers)


def test_node_opens_connections_only_to_redis(scene: Scene) -> None:
    """With a SQLite log, it opens none (rule DP15)."""
    assert all(there == redis for there, redis in scene.peers)
    assert bool(scene.peers) == any(redis for _, redis in scene.peers)
