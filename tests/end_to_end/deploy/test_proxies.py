"""The proxies' files of docs/deploy: each proxy accepts its file and behaves as the documentation says.

Only addresses, ports and certificates are changed. Tests of programs that are not installed are skipped.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import socket
import ssl
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.alerts import Json, alert, cancel_body, ground
from end_to_end.kit.deploy_files import block, changed, program, replaced
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
from support.redis_server import RedisServer, needs_redis

# ---- the configuration files of the proxies ----------------------------------------------------------------------


CADDYFILE = ("--adapter", "caddyfile", "--config")


class Proxy(ABC):
    """HAProxy or nginx in the foreground, with its file of docs/deploy, before these nodes."""

    def __init__(
        self,
        home: Path,
        certificate: Certificate,
        nodes: list[Node],
        push: Push | None = None,
        feed_port: int | None = None,
    ) -> None:
        self.program = program(self.name)
        self.push_ports = [free_ports(2) for _ in range(3)]  # the second pair may be that of the push process
        if push:
            self.push_ports[1] = [push.port, push.metrics_port]
        self.stream_port, self.api_port, absent_port = free_ports(3)
        self.feed_port = feed_port or absent_port
        self.file = home / self.name
        absent = free_ports(2)  # the ports of a third node that does not run
        ports = [(node.stream_port, node.api_port) for node in nodes] + [(absent[0], absent[1])]
        self.file.write_text(self.config(home, certificate, ports), "utf-8")
        self.output = home / f"{self.name}.output"

    name: str
    check: tuple[str, ...]
    run: tuple[str, ...]

    @abstractmethod
    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        """Return the file, changed for these ports."""

    def checked(self) -> subprocess.CompletedProcess[str]:
        """Let the program check the file, and return the result."""
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
        """The URL for subscribers."""
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
        changes += [(rf"10\.0\.0\.1{number}:8764", f"127.0.0.1:{self.feed_port}") for number in (1, 2, 3)]
        return changed("haproxy.cfg", *changes)


def temporary(home: Path) -> str:
    """Return directives with the folders where nginx may write."""
    return "".join(f"    {of}_temp_path {home / of};\n" for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


class Nginx(Proxy):
    name, check, run = "nginx", ("-e", "stderr", "-t", "-c"), ("-e", "stderr", "-g", "daemon off;", "-c")

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        changes = [
            (r"^user .*\n", "user root;\n" if os.geteuid() == 0 else ""),  # who may write into the test's folder
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
            ("/var/lib/nginx/feed", str(home / "documents")),
        ]
        changes += [(rf"10\.0\.0\.1{number}:8764", f"127.0.0.1:{self.feed_port}") for number in (1, 2, 3)]
        for number, (listen, _) in enumerate(self.push_ports, start=1):
            changes.append((rf"10\.0\.0\.1{number}:8768", f"127.0.0.1:{listen}"))
        for number, (stream, api) in enumerate(ports, start=1):
            changes += [
                (rf"10\.0\.0\.1{number}:8765", f"127.0.0.1:{stream}"),
                (rf"10\.0\.0\.1{number}:8766", f"127.0.0.1:{api}"),
            ]
        return changed("nginx.conf", *changes)


class OneNginx(Nginx):
    """The nginx server that docs/operations.md describes for one node."""

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


class NginxForApps(Nginx):
    """The lines for nginx of the page on weather apps, in a server that logs as much as it can."""

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        lines = replaced(block("nginx", page="guide/weather-apps"), ("127.0.0.1:8764", f"127.0.0.1:{self.feed_port}"))
        others = f"location / {{ proxy_pass http://127.0.0.1:{self.feed_port}; }}"
        return (
            f"pid {home / 'nginx.pid'};\nevents {{}}\nhttp {{\n{temporary(home)}"
            f"access_log {home / 'access.log'};\nerror_log {home / 'error.log'} info;\n"
            f"server {{ listen 127.0.0.1:{self.api_port};\n{lines}{others} }} }}\n"
        )


class OneCaddy(Proxy):
    """The Caddy server that docs/operations.md describes for one node."""

    name, check, run = "caddy", ("validate", *CADDYFILE), ("run", *CADDYFILE)

    def config(self, home: Path, certificate: Certificate, ports: list[tuple[int, int]]) -> str:
        site = replaced(
            block("caddy"),
            (r"^alerts\.example {", f"localhost:{self.stream_port} {{\n\ttls {certificate.crt} {certificate.key}"),
            ("127.0.0.1:8765", f"127.0.0.1:{ports[0][0]}"),
            ("127.0.0.1:8767", f"127.0.0.1:{self.push_ports[1][0]}"),
        )
        return f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {home}\n}}\n{site}"


BOX = "min_lat=47.51&max_lat=47.52&min_lon=9.71&max_lon=9.72"


def fails(url: str) -> None:
    """Ask a proxy for something behind a server that is down, as soon as the proxy answers."""

    def is_answered() -> bool:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(url, trust_env=False, verify=False, timeout=PATIENCE)
            return answer.status_code in (502, 503)
        return False

    wait_until(is_answered, "the proxy answers that the server is down")


def test_nginx_logs_no_box_of_an_app_while_the_feed_is_down(certificate: Certificate, tmp_path: Path) -> None:
    """Neither in its access log nor in its error log; what fails elsewhere is in both (FA6)."""
    program(NginxForApps.name)
    with NginxForApps(tmp_path, certificate, [Node(tmp_path)]) as proxy:
        url = f"http://127.0.0.1:{proxy.api_port}"
        for path in ("/alert/area", "/alert/0", "/config/server_status", "/elsewhere"):
            fails(f"{url}{path}?{BOX}")
    logs = {file: file.read_text("utf-8") for file in (tmp_path / "access.log", tmp_path / "error.log", proxy.output)}
    lines = [line for text in logs.values() for line in text.splitlines() if "min_lat" in line]
    assert len(lines) == 2
    assert all("/elsewhere" in line for line in lines)


def test_haproxy_logs_no_query_while_servers_are_down(certificate: Certificate, tmp_path: Path) -> None:
    """It logs that servers are down, at the level of its file, and nothing of a request."""
    program(HAProxy.name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(PATIENCE)
        proxy = HAProxy(tmp_path, certificate, [Node(tmp_path) for _ in range(2)])
        level = re.search(r"log /dev/log (local0 \w+)", changed("haproxy.cfg"))
        assert level is not None
        text = proxy.file.read_text("utf-8").replace("global\n", f"global\n    log {tmp_path / 'log'} {level[1]}\n", 1)
        proxy.file.write_text(text, "utf-8")
        with proxy:
            fails(f"https://localhost:{proxy.stream_port}/v1/cap?{BOX}")
            found = b""
            while b"is DOWN" not in found:
                found += log.recv(65_536)
        log.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                found += log.recv(65_536)
    assert b"min_lat" not in found


@pytest.fixture(params=[HAProxy, Nginx], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Proxy]:
    """The class of each proxy in turn."""
    program(request.param.name)
    return request.param


def test_proxy_accepts_our_configuration_file_without_a_warning(
    kind: type[Proxy], certificate: Certificate, tmp_path: Path
) -> None:
    """The checks are `haproxy -c` and `nginx -t`."""
    nodes = [Node(tmp_path) for _ in range(2)]
    done = kind(tmp_path, certificate, nodes).checked()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search(r"\[(warn|WARNING|alert|ALERT)", said), said


# ---- a subscriber that reconnects by itself ----------------------------------------------------------------------


def post(proxy: Proxy, node: Node, path: str, body: Json) -> None:
    """Post through the proxy's private side, again until a node accepts the request."""

    def is_accepted() -> bool:
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{proxy.api_port}{path}"
            answer = httpx.post(url, json=body, headers=bearer(node.desk), trust_env=False, timeout=20)
            assert answer.status_code in {200, 201, 502, 503, 504}, answer.text
            return answer.status_code < 500
        return False

    wait_until(is_accepted, f"a node accepts {path}")


def sessions(node: Node) -> int:
    """Return the number of sessions of a node."""
    found = re.search(r"^geocast_sessions ([0-9.]+)$", node.api.get("/metrics").text, re.MULTILINE)
    return int(float(found[1])) if found else 0


@pytest.fixture
def pair(tmp_path: Path, keys: Keys) -> Iterator[tuple[RedisServer, list[Node]]]:
    """A Redis and two nodes that use it."""
    with RedisServer(tmp_path / "redis") as server, contextlib.ExitStack() as stack:
        nodes = []
        for number in (1, 2):
            home = tmp_path / f"node{number}"
            home.mkdir()
            nodes.append(stack.enter_context(Node(home, keys, "--drain-s", "2", log=server.url)))
        yield server, nodes


def test_haproxy_still_uses_nodes_that_cannot_decrypt_a_call(
    certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """The health checks still succeed, and alerts are published as usual (rule HD8)."""
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
    """Return the results of HAProxy's health checks of its first two nodes."""
    with socket.socket(socket.AF_UNIX) as asked, contextlib.suppress(OSError):
        asked.connect(str(home / "admin.sock"))
        asked.sendall(b"show stat\n")
        table = b"".join(iter(lambda: asked.recv(65536), b"")).decode().lstrip("# ").splitlines()
        rows = [row for row in csv.DictReader(table) if row["pxname"] == backend]
        return [row["check_status"] for row in rows if row["svname"] in ("node1", "node2")]
    return []


@needs_redis
def test_client_behind_the_proxy_survives_the_loss_of_nodes_and_redis(
    kind: type[Proxy],
    pair: tuple[RedisServer, list[Node]],
    certificate: Certificate,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client has the right alerts after its node was killed, after another was stopped, and without Redis."""
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
    """Return the statuses of other public paths than the stream, as soon as the proxy answers."""

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return anybody.get(public).status_code > 0
        return False

    wait_until(answers, "the proxy answers")
    return {anybody.get(public + path).status_code for path in ("/", "/docs", "/metrics", "/v1/alerts")}


def test_proxy_of_two_nodes_exposes_only_the_stream(
    kind: type[Proxy], certificate: Certificate, tmp_path: Path, own_node: Node
) -> None:
    """The API is not reachable from outside, and the operators' pages not even from the proxy's private side."""
    with (
        kind(tmp_path, certificate, [own_node, own_node]) as proxy,
        httpx.Client(verify=False, trust_env=False, timeout=PATIENCE) as anybody,
    ):
        public = f"https://localhost:{proxy.stream_port}"

        assert public_statuses(anybody, public) == {404}
        assert anybody.get(f"http://127.0.0.1:{proxy.api_port}/metrics").status_code == 404


def test_proxy_forwards_cap_messages_of_up_to_2_mib(
    kind: type[Proxy], certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """Only this path of the API is public, by TLS, and it requires a source's secret (docs/reference/cap-rules.md)."""
    home = tmp_path / "node"
    home.mkdir()
    body = Issuer().message("m")
    with Node(home, keys, *options(home)) as node, kind(tmp_path, certificate, [node, node]) as proxy:
        public = f"https://localhost:{proxy.stream_port}"
        # A proxy may close a connection on which it refused a body, so each request uses a new one.
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
    """Return the status of an issuer's request to another path."""
    with httpx.Client(verify=False, trust_env=False, timeout=PATIENCE, headers=BY_SECRET) as issuer:
        return issuer.post(f"https://localhost:{proxy.stream_port}{path}", content=b"<alert/>").status_code


@pytest.mark.parametrize("one", [OneNginx, OneCaddy], ids=lambda one: one.name)
def test_proxy_of_one_node_exposes_only_the_stream(
    one: type[Proxy],
    certificate: Certificate,
    own_node: Node,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A subscriber by wss:// receives an alert (docs/operations.md, "In front of one node")."""
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
def test_phone_registers_through_the_proxy_and_gets_a_push(
    one: type[Proxy], certificate: Certificate, own_node: Node, tmp_path: Path
) -> None:
    """The proxy publishes only the two paths of push-rules.md, for requests of a page and of a service worker."""
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


# ---- clients that poll the public feed ---------------------------------------------------------------------------


def test_proxy_answers_clients_of_the_feed_so_that_the_node_sees_few_requests(
    kind: type[Proxy], certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """A thousand conditional requests cost the node one each 5 s, and a cancel is not hidden for longer (rule PF2)."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    feed = ("--feed", f"127.0.0.1:{port}", "--feed-url", url, "--feed-sender", "alerts@city.example")

    def answers(node: Node) -> int:
        found = re.findall(r"^geocast_feed_answers_total\{.*\} ([0-9.]+)$", node.api.get("/metrics").text, re.MULTILINE)
        return int(sum(map(float, found)))

    with Node(tmp_path, keys, *feed) as node, kind(tmp_path, certificate, [node, node], feed_port=port) as proxy:
        tls = ssl.create_default_context(cafile=str(certificate.crt))
        with httpx.Client(base_url=f"https://localhost:{proxy.stream_port}", verify=tls, trust_env=False) as client:
            body = node.publish(alert(ground()))

            def listed() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    answer = client.get("/v1/alerts.geojson")
                    return answer.status_code == 200 and body["id"] in answer.text
                return False

            wait_until(listed, "the alert is in the proxy's document")
            whole = client.get("/v1/alerts.geojson")
            before, start = answers(node), time.monotonic()
            for _ in range(1000):
                again = client.get("/v1/alerts.geojson", headers={"If-None-Match": whole.headers["ETag"]})
                assert again.status_code == 304
                assert {"date", "etag", "cache-control"} <= set(again.headers)
            assert answers(node) - before <= 1 + (time.monotonic() - start) / 5
            node.cancel(body["id"], 2)
            wait_until(lambda: '"cancelled":[{' in client.get("/v1/alerts.geojson").text, "the tombstone")
