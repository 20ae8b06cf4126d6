"""Starting a node: options that work from the command line alone, and those refused in one line."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import Json, alert, circle, ground, place
from end_to_end.kit.keys import EVERY_SCOPE, PHONE_SCOPE, Keys
from end_to_end.kit.node import BIN, ORIGIN, Node, clean_environment
from end_to_end.kit.shell import is_ready
from end_to_end.kit.subscriber import Session
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import Wire
from support.command import ended
from support.ports import free_ports

Join = Callable[..., Session]
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
POLICY = """
name = "our own"
[categories.robbery]
title = "A title of our own"
"""


def geocast(home: Path, *arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `geocast` until it ends, and return the result."""
    environment = clean_environment(**settings)
    return ended(BIN / "geocast", *arguments, env=environment, cwd=home, stdin=subprocess.DEVNULL)


def test_second_node_on_the_same_ports_is_refused(node: Node, keys: Keys):
    """The first node goes on serving (section 7). `tests/cli/test_serve.py` has more refusals."""
    ended = geocast(node.home, "serve", *node.options)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    node.assert_serving()


def test_options_are_read_from_the_environment(tmp_path: Path, keys: Keys, join: Join):
    """The variables are `GEOCAST_STREAM` and so on (section 7)."""
    node = Node(tmp_path, keys)
    pairs = zip(node.options[::2], node.options[1::2], strict=True)
    node.settings = {f"GEOCAST_{name[2:].upper()}": value for name, value in pairs}
    node.options = []
    with node:
        spot = ground()
        session = join(node, place(spot))
        session.listen(node.publish(alert(spot))["id"], 1)


def test_health_command_distinguishes_a_live_node_from_a_ready_one(tmp_path: Path, node: Node):
    """A node that waits for its Redis must not be restarted, and gets no new clients (section 7)."""
    well = geocast(tmp_path, "health", "--ready", "--api", f"127.0.0.1:{node.api_port}")
    assert (well.returncode, well.stdout, well.stderr) == (0, f"geocast: 127.0.0.1:{node.api_port}: ready\n", "")
    waiting = Node(tmp_path, node.keys, log=f"redis://127.0.0.1:{free_ports(1)[0]}")
    waiting.launch()
    try:
        where = {"GEOCAST_API": f"127.0.0.1:{waiting.api_port}"}
        wait_until(lambda: geocast(tmp_path, "health", **where).returncode == 0, "it is alive")
        unready = geocast(tmp_path, "health", "--ready", **where)
        assert (unready.returncode, unready.stdout) == (1, "")
        assert unready.stderr.startswith(f"geocast: 127.0.0.1:{waiting.api_port}: not ready: ")
    finally:
        waiting.kill()


def test_dev_mode_beyond_loopback_logs_a_warning(tmp_path: Path):
    """The node starts only with the option `--allow-exposed-dev` (rule T7)."""
    exposed = Node(tmp_path, None, "--allow-exposed-dev", GEOCAST_DEV="1")
    exposed.options[1] = f"0.0.0.0:{exposed.stream_port}"
    with exposed:
        warning = f"WARNING geocast.cli.serve: --dev beyond loopback (--stream 0.0.0.0:{exposed.stream_port})"
        assert warning in exposed.output()


def test_heartbeat_option_is_validated_and_announced_in_the_welcome(tmp_path: Path, keys: Keys, join: Join):
    """The heartbeat is 25 to 55 s (rule W8)."""
    for refused in ("24", "56", "nan"):
        ended = geocast(tmp_path, "serve", "--dev", "--heartbeat-s", refused)
        assert ended.returncode == 2
        assert "--heartbeat-s" in ended.stderr
    with Node(tmp_path, keys, "--heartbeat-s", "40") as node:
        assert join(node, place(ground())).welcome["heartbeat_s"] == 40


def test_memory_log_serves_and_is_empty_after_a_restart(tmp_path: Path, keys: Keys, join: Join):
    """The option is `--log memory:` (section 7)."""
    with Node(tmp_path, keys, log="memory:") as node:
        spot = ground()
        body = alert(spot)
        node.publish(body)
        join(node, place(spot)).listen(body["id"], 1)
        node.restart()
        assert node.get(f"/v1/alerts/{body['id']}").status_code == 404


def test_keys_and_tokens_from_the_command_line_are_accepted(tmp_path: Path, join: Join):
    """A trial needs only `geocast keygen` and `geocast token` (section 7)."""
    made = geocast(tmp_path, "keygen", "--private", "desk.jwk", "--public", "desk.jwks")
    assert made.returncode == 0, made.stderr
    jwks = json.loads((tmp_path / "desk.jwks").read_text())
    assert all("d" not in key and key["alg"] == "EdDSA" and key["kid"] for key in jwks["keys"])
    assert (tmp_path / "desk.jwk").stat().st_mode & 0o077 == 0, "a private key is private"
    desk = command_line_token(tmp_path, "desk-one", "alerts:publish")
    phone = command_line_token(tmp_path, "phone", "alerts:receive")
    node = Node(tmp_path)
    node.options[node.options.index("--keys") + 1] = str(tmp_path / "desk.jwks")
    node.desk = desk
    with node:
        spot = ground()
        session = join(node, place(spot), token=phone)
        session.listen(node.publish(alert(spot))["id"], 1)
        assert node.post("/v1/alerts", alert(spot), phone).status_code == 403


def command_line_token(home: Path, sub: str, scope: str) -> str:
    """Return a token signed by `geocast token`."""
    made = geocast(home, "token", "--key", "desk.jwk", "--sub", sub, "--scope", scope)
    assert made.returncode == 0, made.stderr
    assert JWT.fullmatch(made.stdout.strip())
    return made.stdout.strip()


@pytest.fixture
def dev_node(tmp_path: Path) -> Iterator[Node]:
    """A node in dev mode without keys; its desk uses the printed token."""
    node = Node(tmp_path, None, "--dev")
    at = node.options.index("--keys")
    del node.options[at : at + 2]
    with node:
        node.desk = JWT.search(node.output())[0]
        yield node


def test_anyone_may_receive_in_dev_mode_and_the_printed_token_may_publish(dev_node: Node, join: Join):
    """The printed token has all scopes; without a token no test alerts are sent (section 6)."""
    spot = ground()
    anyone = join(dev_node, place(spot), token=None)
    tester = join(dev_node, place(spot), token=dev_node.desk)
    test, actual = alert(spot, status="test"), alert(spot)
    dev_node.publish(test)
    dev_node.publish(actual)
    tester.listen(test["id"], 1)
    anyone.listen(actual["id"], 1)
    anyone.move(place(spot))
    assert anyone.everything() == [(actual["id"], 1)]
    assert "token_expires_at" not in anyone.welcome


def test_dev_mode_refuses_invalid_tokens(dev_node: Node, keys: Keys):
    """Subscribers need no token, but a given one is checked; publishers need one (section 6)."""
    with Session(dev_node) as session:
        session.say({"type": "hello", "places": [], "token": keys.token(scope=EVERY_SCOPE)})
        assert session.wire.close_code() == 4401
    assert dev_node.post("/v1/alerts", alert(ground()), keys.token()).status_code == 401
    assert dev_node.api.post("/v1/alerts", json=alert(ground())).status_code == 401


ORIGINS = [
    ("http://localhost:3000", 101),
    ("http://127.0.0.1", 101),
    ("http://[::1]:8080", 101),
    (ORIGIN, 403),
    ("null", 403),
    ("http://localhost.evil.example", 403),
    ("http://127.0.0.1.evil.example", 403),
]


def test_dev_mode_allows_loopback_origins_only(dev_node: Node):
    """The option is `--origins` (section 7)."""
    for origin, status in ORIGINS:
        with Wire(dev_node.stream_port) as wire:
            assert wire.upgrade("geocast.v1.json", Origin=origin).status == status, origin


LINE = {"time", "level", "logger", "pid", "message"}


def lines_of(node: Node) -> list[Json]:
    """Return the lines that a node has written on standard error, each parsed as JSON."""
    lines = [json.loads(line) for line in node.output().splitlines()]
    assert all(line.keys() >= LINE for line in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    return lines


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_log_line_is_json_if_log_format_is_json(tmp_path: Path, keys: Keys, workers: str):
    """The lines of a start, of a dying process, of a shutdown and of libraries are checked at every level."""
    options = ("--log-format", "json", "--log-level", "debug", "--workers", workers)
    with Node(tmp_path, keys, *options) as node:
        with node.join(place(ground())), socket.create_connection(("127.0.0.1", node.api_port)) as stranger:
            stranger.sendall(b"this is no HTTP\r\n\r\n")
            node.get("/v1/alerts")
        for pid in node.children()[-1:]:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: "starting another" in node.output(), "it is replaced")
        wait_until(node._ready, "/readyz is 200")
        assert node.terminate() == 0
        lines = lines_of(node)
    assert any("ready" in line["message"] for line in lines)
    assert len({line["pid"] for line in lines}) >= int(workers)
    assert all(line["level"] in ("DEBUG", "INFO", "WARNING", "ERROR") for line in lines)


def test_refused_start_is_reported_as_json_if_log_format_is_json(tmp_path: Path, keys: Keys):
    """The exit status is 2."""
    ended = geocast(tmp_path, "serve", "--log-format", "json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert json.loads(ended.stderr)["message"].startswith("no keys: ")
    (tmp_path / "keys.json").write_text(json.dumps(keys.jwks()))
    log = f"sqlite:{tmp_path / 'nowhere' / 'geocast.db'}"
    ended = geocast(tmp_path, "serve", "--keys", "keys.json", "--log", log, GEOCAST_LOG_FORMAT="json")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "No such file or directory" in json.loads(ended.stderr)["message"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_stopped_before_it_is_ready_prints_no_ready_line(tmp_path: Path, keys: Keys, workers: str):
    """SIGTERM ends the node at once while the node waits for an unreachable log (section 7)."""
    node = Node(tmp_path, keys, "--workers", workers, log=f"redis://127.0.0.1:{free_ports(1)[0]}")
    node.launch()
    try:
        wait_until(lambda: node.output().count("can't be reached); trying again") >= int(workers), "it waits")
        assert node.terminate() == 0
    finally:
        node.kill()
    assert "ready" not in node.output()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_node_logs_its_addresses_once_when_readyz_says_ready(tmp_path: Path, keys: Keys, workers: str):
    """A script may wait for the line instead of `/readyz`, also with several processes."""
    node = Node(tmp_path, keys, "--workers", workers)
    node.launch()
    line = f"ready: the stream listens on 127.0.0.1:{node.stream_port}, the api on 127.0.0.1:{node.api_port}\n"
    try:
        wait_until(lambda: line in node.output(), "the line is there")
        assert is_ready(node.api_port)
        assert node.terminate() == 0
    finally:
        node.kill()
    assert node.output().count(line) == 1


def test_node_without_allowed_origins_refuses_all_browsers(own_node: Node):
    """An `Origin` that is not on the list gets 403; a request without one is allowed (section 5)."""
    for origin, status in (("http://localhost", 403), (ORIGIN, 403), (None, 101)):
        with Wire(own_node.stream_port) as wire:
            assert wire.upgrade("geocast.v1.json", Origin=origin).status == status


def test_policy_file_replaces_the_built_in_policy(tmp_path: Path, keys: Keys, join: Join):
    """Categories that the given policy does not list are refused (section 3)."""
    bounds = "min_radius_m = 10\nmax_radius_m = 500000\nmax_age_s = 60\nlocation_resolution = 7\n"
    (tmp_path / "policy.toml").write_text(POLICY + bounds)
    with Node(tmp_path, keys, "--policy", str(tmp_path / "policy.toml")) as node:
        spot = ground()
        session = join(node, place(spot), scope=PHONE_SCOPE)
        assert node.post("/v1/alerts", alert(spot)).json()["type"] == "/problems/category-not-alertable"
        body: Json = alert(spot, category="robbery", area=circle(spot, 10))
        body["occurred_at"] = body["approval"]["approved_at"]
        node.publish(body)
        session.listen(body["id"], 1)
        assert session.received[0]["alert"]["title"] == "A title of our own"


def test_live_alerts_survive_a_restart_with_a_changed_policy(tmp_path: Path, keys: Keys, join: Join):
    """A later policy refuses new requests only (section 3)."""
    (tmp_path / "policy.toml").write_text(POLICY)
    with Node(tmp_path, keys) as node:
        spot = ground()
        body = alert(spot)
        node.publish(body)
        node.kill()
        node.options += ["--policy", str(tmp_path / "policy.toml")]
        node.start()
        late = join(node, place(spot))
        late.listen(body["id"], 1)
        assert node.post("/v1/alerts", alert(spot)).status_code == 422
        assert node.post("/v1/alerts", body).status_code == 200
        node.cancel(body["id"], 2)
        late.listen(body["id"], "cancel")
