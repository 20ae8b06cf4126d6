"""Tests of compose.yaml: docker-compose accepts it, and its services bring a first alert to the map.

There is no Docker daemon here. Each service is a process with the command and environment of the file, in a folder that
has only the service's volumes. Service names become 127.0.0.1, and ports become free ones.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.keys import bearer
from end_to_end.kit.node import clean_environment
from end_to_end.kit.push import cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate, make_certificate
from end_to_end.kit.wire import PATIENCE
from pages.conftest import Shown
from support.command import ended
from support.ports import free_ports
from support.push_service import PushService
from support.redis_server import needs_redis

from geocast.cli import cli

ROOT = Path(__file__).resolve().parents[2]
MADE = ("private/private.jwk", "node/keys.jwks", "node/log.url", "push/push.jwks", "push/vapid.jwks")
HEADLINE = "Building on fire. Keep windows closed and stay away."

Json = dict[str, Any]


def composition(**settings: str) -> Json:
    """Return the services as docker-compose reads them: validated and merged."""
    command = shutil.which("docker-compose")
    if command is None:
        pytest.skip("docker-compose is not installed (requirements/system.sh)")
    config = ("--file", ROOT / "compose.yaml", "config", "--format", "json")
    done = ended(command, *config, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "no warnings"
    return json.loads(done.stdout)["services"]


@pytest.fixture(scope="module")
def services() -> Json:
    """Return all services, including those of a profile."""
    return composition(COMPOSE_PROFILES="push,relay")


class Composed:
    """The services as processes in the folder `home`."""

    def __init__(self, home: Path, services: Json) -> None:
        self.home, self.services = home, services
        self.stream, self.api, self.redis, self.map, self.desk, self.push, self.push_health = free_ports(7)
        self.running: dict[str, subprocess.Popen[str]] = {}

    def changed(self, name: str, text: str) -> str:
        """Adapt a text of the file to this machine's paths, hosts and ports."""
        here = {
            "$$": "$",
            "/demo/": f"{self.home / name}/",
            "@redis:6379": f"@127.0.0.1:{self.redis}",
            "//node:8766": f"//127.0.0.1:{self.api}",
            ":8780": f":{self.map}",
            ":8768": f":{self.push_health}",
        }
        for old, new in here.items():
            text = text.replace(old, new)
        return text

    def environment(self, name: str) -> dict[str, str]:
        """Return a service's environment from the file, from its image, and for this machine."""
        given = {key: self.changed(name, value) for key, value in self.services[name].get("environment", {}).items()}
        image = {
            "GEOCAST_STREAM": f"0.0.0.0:{self.stream}",
            "GEOCAST_API": f"0.0.0.0:{self.api}",
            "GEOCAST_LISTEN": f"127.0.0.1:{self.push}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'server'}",
            "PYTHONUNBUFFERED": "1",
        }
        ports = {"GEOCAST_STREAM_URL": f"ws://127.0.0.1:{self.stream}/v1/stream", "GEOCAST_MAP_PORT": str(self.map)}
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return clean_environment(**given, **image, **ports, **path)

    def folder(self, name: str) -> Path:
        """Make a service's working folder with its volumes."""
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        for volume in self.services[name].get("volumes", ()):
            target = self.home / "volumes" / volume["source"]
            target.mkdir(parents=True, exist_ok=True)
            link = folder / Path(volume["target"]).name
            if not link.is_symlink():
                link.symlink_to(target)
        return folder

    def start(self, name: str, *more: str, **settings: str) -> subprocess.Popen[str]:
        """Start a service; `more` is appended to its command, and `settings` are added variables."""
        service = self.services[name]
        *words, last = (self.changed(name, word) for word in [*(service.get("entrypoint") or ()), *service["command"]])
        command = [*words, " ".join([last.rstrip(), *more])] if service.get("entrypoint") else [*words, last, *more]
        output = self.home / f"{name}.output"
        with output.open("w") as file:
            self.running[name] = subprocess.Popen(
                command,
                cwd=self.folder(name),
                env=self.environment(name) | settings,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self.running[name]

    def run(self, name: str) -> None:
        """Run a service that has to end by itself with status 0."""
        assert self.start(name).wait(PATIENCE) == 0, self.output(name)

    def output(self, name: str) -> str:
        """Return the output of a service."""
        return (self.home / f"{name}.output").read_text()

    def healthy(self, name: str) -> bool:
        """Return whether the health check of a service succeeds."""
        kind, *command = (self.changed(name, word) for word in self.services[name]["healthcheck"]["test"])
        assert kind == "CMD"
        assert self.running[name].poll() is None, self.output(name)
        return not subprocess.run(command, env=self.environment(name), capture_output=True, check=False).returncode

    def url(self, name: str, pattern: str) -> str:
        """Return an address that a service has printed."""
        return wait_until(lambda: re.search(pattern, self.output(name)), f"{name} says its address")[1]

    def up(self) -> None:
        """Start all services in the order of their dependencies."""
        self.up_to_the_node()
        self.start("map")
        self.start("desk", "--port", str(self.desk))
        self.run("first-alert")

    def up_to_the_node(self) -> None:
        """Start the node and the services that the node needs."""
        self.run("secrets")
        self.start(
            "redis", "--port", str(self.redis), "--dir", str(self.folder("redis") / "data"), "--bind", "127.0.0.1"
        )
        self.start("node")
        wait_until(lambda: self.healthy("node"), "the node is ready")

    def down(self) -> dict[str, int]:
        """Send SIGTERM to the running services, the last one first, and return their exit statuses."""
        running = [name for name, process in self.running.items() if process.poll() is None]
        ended = {}
        for name in reversed(running):
            self.running[name].terminate()
            ended[name] = self.running[name].wait(PATIENCE)
        return ended


@pytest.fixture
def composed(tmp_path: Path, services: Json) -> Iterator[Composed]:
    """Return the services of `docker compose up`; they are ended with the test."""
    composed = Composed(tmp_path, services)
    yield composed
    composed.down()


@pytest.fixture
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Return a certificate for localhost."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_services_of_docker_compose_listen_on_loopback_only_and_are_unprivileged(services: Json):
    """Ports are on loopback only, and equal inside and outside, so that printed links work."""
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert {(port["host_ip"], port["published"]) for port in ports} == {
        ("127.0.0.1", str(port)) for port in (8765, 8766, 8767, 8770, 8780)
    }
    assert all(port["published"] == str(port["target"]) for port in ports)
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    holders = {name for name, each in services.items() if "private" in {v["source"] for v in each["volumes"]}}
    assert holders == {"secrets"}
    without = composition(COMPOSE_PROFILES="")
    assert without.keys() == services.keys() - {"push", "relay"}, "they talk to others, so one has to ask for them"
    buttons = [each["map"]["environment"]["GEOCAST_PUSH_URL"] for each in (services, without)]
    assert buttons == ["http://127.0.0.1:8767", ""]


@needs_redis
def test_docker_compose_starts_a_map_with_the_first_alert_and_a_desk_with_incidents(
    composed: Composed, show: Callable[..., Shown]
) -> None:
    """The services are those of `docker compose up`, looked at in a browser."""
    composed.up()
    shown = show(composed.url("map", r"map: (http://\S+)"))
    shown.has("#affecting", HEADLINE)
    shown.picture("compose-map")
    desk = show(composed.url("desk", r"desk-1: (http://\S+)"))
    desk.has("#desk", "Structure fire")
    for page in (shown, desk):
        page.context.close()
    assert composed.down() == {"map": 130, "desk": 130, "node": 0, "redis": 0}


@needs_redis
def test_push_profile_of_docker_compose_delivers_pushes_to_phones(composed: Composed, certificate: Certificate) -> None:
    """With `COMPOSE_PROFILES=push` a page of the map registers and gets a published alert."""
    composed.up_to_the_node()
    with PushService(certificate) as service:
        services = {"GEOCAST_PUSH_SERVICES": f"localhost:{service.port}", "GEOCAST_PUSH_PRIVATE": "localhost"}
        composed.start("push", **services, SSL_CERT_FILE=str(certificate.crt))
        wait_until(lambda: composed.healthy("push"), "it is ready")
        spot, phone = ground(), service.phone()
        token = (composed.home / "volumes" / "clients" / "page.token").read_text().strip()
        answer = httpx.put(
            f"http://127.0.0.1:{composed.push}/v1/devices/0123456789abcdef",
            json={"subscription": phone.subscription(), "places": [{"cell": cell(spot)}]},
            headers=bearer(token) | {"Origin": f"http://127.0.0.1:{composed.map}"},
            trust_env=False,
            timeout=PATIENCE,
        )
        assert answer.status_code == 201, answer.text
        desk = (composed.home / "volumes" / "clients" / "desk.token").read_text().strip()
        told = alert(spot)
        url = f"http://127.0.0.1:{composed.api}/v1/alerts"
        assert httpx.post(url, json=told, headers=bearer(desk), trust_env=False, timeout=PATIENCE).status_code == 201
        service.until(lambda: phone.alerts() == [(told["id"], 1)])
        assert service.wrong == []
        assert composed.down() == {"push": 0, "node": 0, "redis": 0}


def test_fetch_profile_of_docker_compose_has_valid_settings() -> None:
    """Its token belongs to the source of the node, and its state is on a volume (rule FE1)."""
    services = composition(COMPOSE_PROFILES="fetch", GEOCAST_POLICY="builtin:public-warning")
    fetch = services["fetch"]
    known = {option.envvar: option for option in cli.commands[fetch["command"][0]].params}
    given = [f"{known[name].opts[0]}={value}" for name, value in fetch["environment"].items()]
    options = cli.commands["fetch"].make_context("fetch", given).params
    folders = {Path(volume["target"]) for volume in fetch["volumes"]}
    assert {options[name].parent for name in ("feeds", "token_file", "state")} == folders
    assert "[sources.feeds]" in services["secrets"]["command"][0]
    assert services["node"]["environment"]["GEOCAST_POLICY"] == "builtin:public-warning"
    assert str(options["metrics"]) in fetch["healthcheck"]["test"]


def test_second_start_of_docker_compose_keeps_keys_and_passwords(composed: Composed):
    """Existing tokens stay valid, and files that an interrupted first start did not make are made."""
    composed.run("secrets")
    volumes = composed.home / "volumes"
    made = {name: (volumes / name).read_text() for name in MADE}
    assert (volumes / "private" / "private.jwk").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o007 == 0 for path in volumes.rglob("*.*") if path.name != "keys.jwks")
    composed.run("secrets")
    assert made == {name: (volumes / name).read_text() for name in made}
    (volumes / "node" / "log.url").write_text("")
    (volumes / "node" / "keys.jwks").unlink()
    composed.run("secrets")
    assert (volumes / "node" / "log.url").read_text() not in ("", made["node/log.url"])
    assert (volumes / "private" / "private.jwk").read_text() != made["private/private.jwk"]
