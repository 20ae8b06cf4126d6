"""docs/deploy: the files that operators copy. Each program takes its own, and together they do what the page says.

Only addresses, ports, passwords' places and certificates are changed for the test. A program that is not on this
machine has its tests skipped.
"""

from __future__ import annotations

import contextlib
import csv
import re
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from end_to_end.kit.alerts import Json, alert, cancel_body, ground, place
from end_to_end.kit.dispatcher import DISPATCH_SCOPE, call, calling_node, make_call_key
from end_to_end.kit.issuer import BY_SECRET, Issuer, options
from end_to_end.kit.keys import PHONE_SCOPE, Keys, bearer
from end_to_end.kit.node import ORIGIN, Node
from end_to_end.kit.phone import Phone
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports
from support.push_service import PushService
from support.redis_server import RedisServer, Sentinel, needs_redis

from geocast.cli import cli
from geocast.push.settings import PushSettings

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "docs" / "deploy"
SBIN = "/usr/sbin:/usr/local/sbin:/sbin"


def program(name: str) -> str:
    """Where a program is; the test is skipped if it is nowhere."""
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def changed(name: str, *changes: tuple[str, str]) -> str:
    """A file of docs/deploy with things put for others, each of which has to be there (regular expressions)."""
    return replaced((DEPLOY / name).read_text("utf-8"), *changes)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """A text with things put for others, each of which has to be there (regular expressions)."""
    for old, new in changes:
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count, f"{old} is not there"
    return text


def block(language: str) -> str:
    """The one block of docs/operations.md in a language."""
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found


# ---- the proxies

CADDYFILE = ("--adapter", "caddyfile", "--config")


class Proxy(ABC):
    """HAProxy or nginx in the foreground, with the file of docs/deploy in front of these nodes."""

    def __init__(self, home: Path, certificate: Certificate, nodes: list[Node], push: Push | None = None) -> None:
        self.program = program(self.name)
        self.push_ports = [free_ports(2) for _ in range(3)]  # nobody's, but for the second if there is one
        if push:
            self.push_ports[1] = [push.port, push.metrics_port]
        self.stream_port, self.api_port = free_ports(2)
        self.file = home / self.name
        absent = free_ports(2)  # of the third node, which is down
        ports = [(node.stream_port, node.api_port) for node in nodes] + [(absent[0], absent[1])]
        self.file.write_text(self.config(home, certificate, ports), "utf-8")
        self.output = home / f"{self.name}.output"

    name: str
    check: tuple[str, ...]
    run: tuple[str, ...]

    @abstractmethod
    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        """The file, changed for these ports."""

    def checked(self) -> subprocess.CompletedProcess[str]:
        """What the program says of the file."""
        command = [self.program, *self.check, str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def __enter__(self) -> Proxy:
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [self.program, *self.run, str(self.file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    @property
    def url(self) -> str:
        """Where subscribers connect."""
        return f"wss://localhost:{self.stream_port}/v1/stream"


class HAProxy(Proxy):
    name, check, run = "haproxy", ("-c", "-f"), ("-db", "-f")

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        changes = [
            (r"^    (user|group|chroot|log /dev/log) .*\n", ""),
            ("/run/haproxy/admin.sock", str(home / "admin.sock")),
            ("maxconn 150000", "maxconn 200"),
            (r"bind :443 ssl crt \S+", f"bind 127.0.0.1:{self.stream_port} ssl crt {certificate.pem}"),
            (r"bind 10\.0\.0\.10:8766", f"bind 127.0.0.1:{self.api_port}"),
        ]
        for number, (listen, metrics) in enumerate(self.push_ports, start=1):
            changes.append((rf"10\.0\.0\.1{number}:8768 port 8769$", f"127.0.0.1:{listen} port {metrics}"))
        for number, (stream, api) in enumerate(ports, start=1):
            changes += [
                (rf"10\.0\.0\.1{number}:8765 port 8766$", f"127.0.0.1:{stream} port {api}"),
                (rf"10\.0\.0\.1{number}:8765$", f"127.0.0.1:{stream}"),
                (rf"10\.0\.0\.1{number}:8766$", f"127.0.0.1:{api}"),
            ]
        return changed("haproxy.cfg", *changes)


def temporary(home: Path) -> str:
    """Where nginx may write."""
    return "".join(f"    {of}_temp_path {home / of};\n" for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


class Nginx(Proxy):
    name, check, run = "nginx", ("-e", "stderr", "-t", "-c"), ("-e", "stderr", "-g", "daemon off;", "-c")

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        changes = [
            (r"^user .*\n", ""),
            ("/run/nginx.pid", str(home / "nginx.pid")),
            ("worker_processes auto", "worker_processes 1"),
            (r"^worker_rlimit_nofile .*\n", ""),
            ("worker_connections 100000", "worker_connections 200"),
            ("/var/log/nginx/error.log", str(home / "error.log")),
            ("    access_log off;", f"{temporary(home)}    access_log off;"),
            ("listen 443", f"listen 127.0.0.1:{self.stream_port}"),
            (r"listen 10\.0\.0\.10:8766", f"listen 127.0.0.1:{self.api_port}"),
            (r"/etc/nginx/certs/alerts\.pem", str(certificate.crt)),
            (r"/etc/nginx/certs/alerts\.key", str(certificate.key)),
        ]
        for number, (listen, _) in enumerate(self.push_ports, start=1):
            changes.append((rf"10\.0\.0\.1{number}:8768", f"127.0.0.1:{listen}"))
        for number, (stream, api) in enumerate(ports, start=1):
            changes += [
                (rf"10\.0\.0\.1{number}:8765", f"127.0.0.1:{stream}"),
                (rf"10\.0\.0\.1{number}:8766", f"127.0.0.1:{api}"),
            ]
        return changed("nginx.conf", *changes)


class OneNginx(Nginx):
    """nginx as docs/operations.md has it for one node."""

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        server = replaced(
            block("nginx"),
            ("listen 443", f"listen 127.0.0.1:{self.stream_port}"),
            (r"/etc/ssl/alerts\.example\.pem", str(certificate.crt)),
            (r"/etc/ssl/alerts\.example\.key", str(certificate.key)),
            ("127.0.0.1:8765", f"127.0.0.1:{ports[0][0]}"),
            ("127.0.0.1:8767", f"127.0.0.1:{self.push_ports[1][0]}"),
        )
        return f"pid {home / 'nginx.pid'};\nevents {{}}\nhttp {{\n{temporary(home)}    access_log off;\n{server}}}\n"


class OneCaddy(Proxy):
    """Caddy as docs/operations.md has it for one node."""

    name, check, run = "caddy", ("validate", *CADDYFILE), ("run", *CADDYFILE)

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        site = replaced(
            block("caddy"),
            (r"^alerts\.example {", f"localhost:{self.stream_port} {{\n\ttls {certificate.crt} {certificate.key}"),
            ("127.0.0.1:8765", f"127.0.0.1:{ports[0][0]}"),
            ("127.0.0.1:8767", f"127.0.0.1:{self.push_ports[1][0]}"),
        )
        return f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {home}\n}}\n{site}"


@pytest.fixture(params=[HAProxy, Nginx], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Proxy]:
    """One after the other."""
    program(request.param.name)
    return request.param


def test_the_proxy_takes_its_file(kind: type[Proxy], certificate: Certificate, tmp_path: Path) -> None:
    """`haproxy -c`, `nginx -t`, without a warning."""
    nodes = [Node(tmp_path) for _ in range(2)]
    done = kind(tmp_path, certificate, nodes).checked()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search(r"\[(warn|WARNING|alert|ALERT)", said), said


# ---- a subscriber that comes back by itself


def post(proxy: Proxy, node: Node, path: str, body: Json) -> None:
    """Publish through the proxy's private side, again until a node accepts the request."""

    def is_accepted() -> bool:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{proxy.api_port}{path}"
            answer = httpx.post(url, json=body, headers=bearer(node.desk), trust_env=False, timeout=20)
            assert answer.status_code in {200, 201, 502, 503, 504}, answer.text
            return answer.status_code < 500
        return False

    wait_until(is_accepted, f"a node accepts {path}")


def sessions(node: Node) -> int:
    """How many a node has."""
    found = re.search(r"^geocast_sessions ([0-9.]+)$", node.api.get("/metrics").text, re.MULTILINE)
    return int(float(found[1])) if found else 0


@pytest.fixture
def pair(tmp_path: Path, keys: Keys) -> Iterator[tuple[RedisServer, list[Node]]]:
    """A Redis and two nodes on it."""
    with RedisServer(tmp_path / "redis") as server, contextlib.ExitStack() as stack:
        nodes = []
        for number in (1, 2):
            home = tmp_path / f"node{number}"
            home.mkdir()
            nodes.append(stack.enter_context(Node(home, keys, "--drain-s", "2", log=server.url)))
        yield server, nodes


def test_a_call_that_no_key_opens_takes_no_node_from_haproxy(
    certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """HD8: all its health checks find the node well, so alerts are published as ever."""
    program(HAProxy.name)
    with calling_node(tmp_path, keys) as node:
        assert node.post("/v1/calls", call(), keys.token(sub="cad-3", scope=DISPATCH_SCOPE)).status_code == 201
        (tmp_path / "call-keys.jwks").unlink()
        make_call_key(tmp_path)
        node.restart()
        wait_until(lambda: "degraded" in node.api.get("/readyz").json(), "the entry is set aside")
        with HAProxy(tmp_path, certificate, [node, node]) as proxy:
            for backend in ("api", "stream_ready"):
                wait_until(lambda backend=backend: checks(tmp_path, backend) == ["L7OK"] * 2, f"{backend} is well")  # type: ignore[misc]
            post(proxy, node, "/v1/alerts", alert(ground()))


def checks(home: Path, backend: str) -> list[str]:
    """What HAProxy's health checks of its first two nodes have found."""
    with socket.socket(socket.AF_UNIX) as asked, contextlib.suppress(OSError):
        asked.connect(str(home / "admin.sock"))
        asked.sendall(b"show stat\n")
        table = b"".join(iter(lambda: asked.recv(65536), b"")).decode().lstrip("# ").splitlines()
        rows = [row for row in csv.DictReader(table) if row["pxname"] == backend]
        return [row["check_status"] for row in rows if row["svname"] in ("node1", "node2")]
    return []


@needs_redis
def test_nodes_die_drain_and_come_back_behind_the_proxy(
    kind: type[Proxy],
    pair: tuple[RedisServer, list[Node]],
    certificate: Certificate,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client by wss:// is right after its node was killed, after another drained, and while Redis is away."""
    server, nodes = pair
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))
    spot, token = ground(), keys.token(scope=PHONE_SCOPE)
    first, second, third = (alert(spot) for _ in range(3))

    with kind(tmp_path, certificate, nodes) as proxy, Phone(proxy.url, spot, token) as phone:
        post(proxy, nodes[0], "/v1/alerts", first)
        phone.wait_for_held(first["id"])

        [its] = [node for node in nodes if sessions(node)]
        [other] = [node for node in nodes if node is not its]
        its.kill()
        post(proxy, other, "/v1/alerts", second)
        post(proxy, other, f"/v1/alerts/{first['id']}/cancel", cancel_body(2))
        phone.wait_for_held(second["id"])
        wait_until(lambda: sessions(other) == 1, "it is at the other node")

        its.start()
        assert other.terminate() == 0
        post(proxy, its, "/v1/alerts", third)
        phone.wait_for_held(second["id"], third["id"])
        wait_until(lambda: sessions(its) == 1, "it is at this node")
        wait_until(lambda: "geocast_ready 1.0" in its.api.get("/metrics").text, "the node is ready")
        server.stop()
        wait_until(lambda: its.api.get("/readyz").status_code == 503, "the node is not ready")
        with Phone(proxy.url, spot, token) as late:
            late.wait_for_held(second["id"], third["id"])
            assert sessions(its) == 2, "who was there stays"
        assert "geocast_ready 0.0" in its.api.get("/metrics").text
    assert not any(" failed: " in node.output() for node in nodes)


def public_statuses(anybody: httpx.Client, public: str) -> set[int]:
    """What a stranger is answered who asks for more than the stream, as soon as the proxy answers."""

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return anybody.get(public).status_code > 0
        return False

    wait_until(answers, "the proxy answers")
    return {anybody.get(public + path).status_code for path in ("/", "/docs", "/metrics", "/v1/alerts")}


def test_the_proxy_shows_the_public_nothing_but_the_stream(
    kind: type[Proxy], certificate: Certificate, tmp_path: Path, own_node: Node
) -> None:
    """The api is not to be had from outside, nor what is for operators from its private side."""
    with (
        kind(tmp_path, certificate, [own_node, own_node]) as proxy,
        httpx.Client(verify=False, trust_env=False, timeout=PATIENCE) as anybody,
    ):
        public = f"https://localhost:{proxy.stream_port}"

        assert public_statuses(anybody, public) == {404}
        assert anybody.get(f"http://127.0.0.1:{proxy.api_port}/metrics").status_code == 404


def test_the_proxy_lets_messages_of_cap_through(
    kind: type[Proxy], certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """docs/cap.md: that path alone, by TLS, with 2 MiB; and nothing of it without a source's secret."""
    home = tmp_path / "node"
    home.mkdir()
    body = Issuer().message("m")
    with Node(home, keys, *options(home)) as node, kind(tmp_path, certificate, [node, node]) as proxy:
        public = f"https://localhost:{proxy.stream_port}"
        # A proxy may close a connection on which it has refused a body, so each request has its own.
        each_its_own = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(verify=False, trust_env=False, headers=BY_SECRET, timeout=30, limits=each_its_own) as issuer:
            assert public_statuses(issuer, public) == {404}
            big = body.replace(b"</info>", b"<resource>" + b"A" * (2_097_000 - len(body)) + b"</resource></info>")
            statuses = [
                issuer.post(f"{public}/v1/cap", content=content, headers=headers).status_code
                for content, headers in (
                    (body, {}),
                    (big, {}),
                    (big + b" " * 1_000, {}),
                    (body, {"CAP-Webhook-Auth": "no"}),
                )
            ]
        assert statuses == [201, 200, 413, 401]
        assert issuer_status(proxy, "/v1/cap/") == 404
        node.assert_no_surprise()


def issuer_status(proxy: Proxy, path: str) -> int:
    """What an issuer is answered at another path."""
    with httpx.Client(verify=False, trust_env=False, timeout=PATIENCE, headers=BY_SECRET) as issuer:
        return issuer.post(f"https://localhost:{proxy.stream_port}{path}", content=b"<alert/>").status_code


@pytest.mark.parametrize("one", [OneNginx, OneCaddy], ids=lambda one: one.name)
def test_one_node_behind_a_proxy(
    one: type[Proxy],
    certificate: Certificate,
    own_node: Node,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """docs/operations.md, "In front of one node": a subscriber by wss:// is told, and the public sees no more."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.crt))
    spot, token = ground(), keys.token(scope=PHONE_SCOPE)

    with (
        one(tmp_path, certificate, [own_node]) as proxy,
        httpx.Client(verify=False, trust_env=False, timeout=PATIENCE) as anybody,
    ):
        assert proxy.checked().returncode == 0
        assert public_statuses(anybody, f"https://localhost:{proxy.stream_port}") == {404}
        with Phone(proxy.url, spot, token) as phone:
            phone.wait_for_held(own_node.publish(alert(spot))["id"])


@pytest.mark.parametrize("one", [HAProxy, Nginx, OneNginx, OneCaddy])
def test_a_phone_registers_through_the_proxy_and_is_woken(
    one: type[Proxy], certificate: Certificate, own_node: Node, tmp_path: Path
) -> None:
    """docs/push.md: its two paths, by TLS, with what a page and a service worker say; and no path beside them."""
    program(one.name)
    pages = ("--origins", ORIGIN)
    with (
        PushService(certificate) as service,
        Push(own_node, service, options=pages) as push,
        one(tmp_path, certificate, [own_node, own_node], push) as proxy,
        httpx.Client(
            base_url=f"https://localhost:{proxy.stream_port}",
            verify=False,
            trust_env=False,
            timeout=PATIENCE,
            headers={"Origin": ORIGIN},
        ) as page,
    ):
        assert public_statuses(page, str(page.base_url)) == {404}
        assert page.get("/v1/devices-of-all").status_code == page.get("/v1/push/").status_code == 404
        wait_until(lambda: page.get("/v1/push").status_code == 200, "the proxy knows that it is ready")
        spot, phone = ground(), service.phone()
        path, allowed = "/v1/devices/0123456789abcdef", bearer(push.token(sub="of-the-page"))
        asked = page.options(path, headers={"Access-Control-Request-Method": "PUT"})
        assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
        body = {"subscription": phone.subscription(), "places": [{"cell": cell(spot)}]}
        answer = page.put(path, json=body, headers=allowed)
        assert answer.status_code == 201
        secret = bearer(answer.json()["secret"])
        assert page.put(f"{path}/subscription", json={"subscription": phone.subscription()}, headers=secret).is_success
        told = own_node.publish(alert(spot))
        service.until(lambda: phone.alerts() == [(told["id"], 1)])
        assert page.put(path, content=b" " * 20_000, headers=allowed).status_code == 413
        assert page.get(path, headers=allowed).status_code == 200
        assert page.delete("/v1/devices", headers=allowed).status_code == 204
        assert push.metric("push_devices") == 0
        push.assert_no_surprise()


# ---- Redis and Sentinel


class DeployedRedis(RedisServer):
    """With docs/deploy/redis.conf, on loopback."""

    def __init__(self, folder: Path, certificate: Certificate, primary: RedisServer | None = None) -> None:
        super().__init__(folder)
        self.certificate, self.primary = certificate, primary

    def arguments(self) -> list[str]:
        config = self.folder / "redis.conf"
        if not config.exists():
            config.write_text(deployed("redis.conf", self.certificate, self.folder, 6379, self.port))
            if self.primary is not None:
                with config.open("a") as file:
                    file.write(f"replicaof 127.0.0.1 {self.primary.port}\n")
        return [str(config)]

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """As a Sentinel, which may ask how it is."""
        with redis.Redis(
            port=self.port,
            username="sentinel",
            password="SENTINEL-PASSWORD",
            ssl=True,
            ssl_ca_certs=str(self.certificate.crt),
            socket_timeout=20,
            retry=None,
        ) as client:
            yield client

    def stop(self) -> None:
        self._end(15)


class DeployedSentinel(Sentinel):
    """With docs/deploy/sentinel.conf, on loopback."""

    def __init__(self, folder: Path, certificate: Certificate, primary: RedisServer) -> None:
        super().__init__(folder, primary)
        self.certificate = certificate

    def arguments(self) -> list[str]:
        config = self.folder / "sentinel.conf"
        if not config.exists():
            text = deployed("sentinel.conf", self.certificate, self.folder, 26379, self.port)
            config.write_text(text.replace("127.0.0.1 6379 2", f"127.0.0.1 {self._primary.port} 2"))
        return [str(config), "--sentinel"]

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        with redis.Redis(
            port=self.port,
            password="SENTINELS-OWN-PASSWORD",
            ssl=True,
            ssl_ca_certs=str(self.certificate.crt),
            socket_timeout=20,
            retry=None,
        ) as client:
            yield client


def deployed(name: str, certificate: Certificate, folder: Path, port: int, own_port: int) -> str:
    """A file of docs/deploy for this machine."""
    return changed(
        name,
        (r"10\.0\.0\.11 127\.0\.0\.1$", "127.0.0.1"),
        *([("10.0.0.11", "127.0.0.1")] if name == "sentinel.conf" else []),
        (rf"^tls-port {port}$", f"tls-port {own_port}"),
        (r"/etc/redis/tls/redis\.crt", str(certificate.crt)),
        (r"/etc/redis/tls/redis\.key", str(certificate.key)),
        (r"/etc/redis/tls/ca\.crt", str(certificate.crt)),
        ("/var/lib/redis", str(folder)),
    )


def environment(name: str = "geocast.env") -> dict[str, str]:
    """The settings of a file of docs/deploy."""
    lines = (DEPLOY / name).read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def deployed_redis(tmp_path: Path, certificate: Certificate) -> Iterator[tuple[list[RedisServer], list[Sentinel]]]:
    """Three servers and three Sentinels with the files of docs/deploy."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(DeployedRedis(tmp_path / "r0", certificate))
        servers = [
            primary,
            *(stack.enter_context(DeployedRedis(tmp_path / f"r{n}", certificate, primary)) for n in (1, 2)),
        ]
        for replica in servers[1:]:
            wait_until(lambda replica=replica: replica.synced, "the replica is in step")  # type: ignore[misc]
        sentinels = [stack.enter_context(DeployedSentinel(tmp_path / f"s{n}", certificate, primary)) for n in range(3)]
        for each in sentinels:
            wait_until(lambda each=each: each.knows(2, 2), "the Sentinels know all")  # type: ignore[misc]
        yield servers, sentinels


@needs_redis
def test_a_node_with_the_deployed_settings_survives_the_primary(
    deployed_redis: tuple[list[RedisServer], list[Sentinel]],
    certificate: Certificate,
    keys: Keys,
    tmp_path: Path,
    join: Callable[..., Any],
) -> None:
    """redis.conf, sentinel.conf and geocast.env together: TLS, passwords, rights, replicas; the primary is killed."""
    servers, sentinels = deployed_redis
    settings = environment()
    log = on_this_machine(settings["GEOCAST_LOG"], sentinels, certificate)
    home = tmp_path / "node"
    home.mkdir()
    mine = {"GEOCAST_STREAM", "GEOCAST_API", "GEOCAST_METRICS", "GEOCAST_LOG", "GEOCAST_KEYS"}
    others = {name: value for name, value in settings.items() if name not in mine}
    with Node(home, keys, log=log, **others) as node:
        spot = ground()
        phone = join(node, place(spot))
        body = alert(spot)
        node.publish(body)
        phone.listen(body["id"], 1)
        check_rules_ask_for_what_is_there(node)

        servers[0].kill()
        after = alert(spot)
        wait_until(lambda: node.post("/v1/alerts", after).status_code in {200, 201}, "publishing goes on")
        phone.listen(after["id"], 1)
        assert node.state(body["id"])["state"] == "live"
        assert " failed: " not in node.output()


def on_this_machine(url: str, sentinels: list[Sentinel], certificate: Certificate) -> str:
    """A URL of docs/deploy, with these Sentinels."""
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    changed = url.replace("10.0.0.11,10.0.0.12,10.0.0.13", hosts).replace("/etc/geocast/ca.crt", str(certificate.crt))
    assert changed.count("127.0.0.1") == 3
    assert str(certificate.crt) in changed
    return changed


@needs_redis
def test_phones_are_woken_with_the_deployed_settings_before_and_after_the_primary_dies(
    deployed_redis: tuple[list[RedisServer], list[Sentinel]], certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """redis.conf and push.env together: the rights of the log's user do for devices, and a registration is not lost."""
    servers, sentinels = deployed_redis
    settings = environment("push.env")
    url = on_this_machine(settings["GEOCAST_DEVICES"], sentinels, certificate)
    options = ("--devices", url, "--devices-replicas", settings["GEOCAST_DEVICES_REPLICAS"])
    home = tmp_path / "node"
    home.mkdir()
    with (
        PushService(certificate) as service,
        Node(home, keys, log=on_this_machine(environment()["GEOCAST_LOG"], sentinels, certificate)) as node,
        Push(node, service, options=options, log=url) as push,
    ):
        spot, phone = ground(), service.phone()
        push.register(phone, cell(spot))
        first, second = alert(spot), alert(spot)
        node.publish(first)
        service.until(lambda: phone.alerts() == [(first["id"], 1)])
        servers[0].kill()
        wait_until(lambda: node.post("/v1/alerts", second).status_code in {200, 201}, "publishing goes on")
        service.until(lambda: (second["id"], 1) in phone.alerts(), seconds=120)
        push.assert_no_surprise()
        assert service.wrong == []


def check_rules_ask_for_what_is_there(node: Node) -> None:
    """Every metric of geocast that the rules name is shown by a node with stream processes and a log in Redis."""
    wanted = set(re.findall(r"\bgeocast_\w+", (DEPLOY / "geocast.rules.yml").read_text("utf-8")))
    # What nobody has been refused or closed for is not counted yet.
    wanted -= {"geocast_closes_total", "geocast_handshakes_refused_total"}
    # Of another process: test_push.py looks for them there.
    wanted = {name for name in wanted if not name.startswith("geocast_push_")}
    # There with keys at a URL only.
    wanted -= {"geocast_key_fetches_total", "geocast_keys_fetched_timestamp_seconds"}
    # There with keys of calls only (test_calls.py has them).
    wanted -= {"geocast_calls_unanswered", "geocast_calls_degraded", "geocast_call_unsealed_failed_total"}
    wait_until(
        lambda: wanted <= set(re.findall(r"^geocast_\w+", node.api.get("/metrics").text, re.MULTILINE)),
        f"all of {sorted(wanted)}",
    )


# ---- systemd


@pytest.mark.parametrize("name", ["geocast.service", "geocast-ledger.service", "geocast-push.service"])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify`, with a program where the unit wants one."""
    analyze = program("systemd-analyze")
    unit = tmp_path / name
    unit.write_text(changed(name, (r"/opt/geocast/bin/geocast", "/bin/true")))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{name}:" not in done.stderr, done.stderr


def test_the_environment_names_settings_that_are_there() -> None:
    """docs/deploy/geocast.env: each is in docs/settings.md, and the keys are not made up."""
    documented = (ROOT / "docs" / "settings.md").read_text("utf-8")
    assert all(f"`{name}`" in documented for name in environment())


def test_geocast_push_takes_the_two_files_of_its_unit_as_one_environment(tmp_path: Path) -> None:
    """docs/deploy/push.env after geocast.env: what the two disagree on is right for it, and what is missing is in the
    unit."""
    unit = (DEPLOY / "geocast-push.service").read_text("utf-8")
    files = re.findall(r"^EnvironmentFile=/etc/geocast/(.*)$", unit, re.MULTILINE)
    assert files == ["geocast.env", "push.env"]
    variables = environment(files[0]) | environment(files[1])
    known = {option.envvar: option for option in cli.commands["push"].params}
    assert environment("push.env").keys() <= known.keys()
    [command] = re.findall(r"^ExecStart=\S+ push (.*)$", unit, re.MULTILINE)
    options = [f"{known[name].opts[0]}={value}" for name, value in variables.items() if name in known]
    given = cli.commands["push"].make_context("push", [*options, *command.split()]).params
    assert given["log"] == environment()["GEOCAST_LOG"]
    assert given["metrics"] != given["listen"] != environment()["GEOCAST_API"]
    left = ("log_level", "log_format", "push_services", "push_private")
    settings = PushSettings(**{name: value for name, value in given.items() if name not in left})
    assert list(settings.problems()) == []
    assert settings.devices == settings.log, "it is the same Redis"
    stop_s = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0])
    assert stop_s >= given["drain_s"] + 20.0
    [folder] = re.findall(r"^StateDirectory=geocast (\S+)$", unit, re.MULTILINE)
    assert f"sqlite:/var/lib/{folder}/devices.db" in (DEPLOY / "push.env").read_text("utf-8")
