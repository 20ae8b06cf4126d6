"""The files of docs/deploy for Redis, Sentinel, systemd and alerting rules, as operators copy them.

Only addresses, ports, places of passwords and certificates are changed. Tests of programs that are not installed are
skipped.
"""

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from end_to_end.kit.alerts import alert, ground, place
from end_to_end.kit.deploy_files import DEPLOY, ROOT, changed, program
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import Node
from end_to_end.kit.push import Push, cell
from end_to_end.kit.times import wait_until
from end_to_end.kit.tls import Certificate
from support.push_service import PushService
from support.redis_server import RedisServer, Sentinel, needs_redis

from geocast.cli import cli
from geocast.push.settings import PushSettings

# ---- Redis and Sentinel ------------------------------------------------------------------------------------------


class DeployedRedis(RedisServer):
    """A Redis server with docs/deploy/redis.conf on loopback."""

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
        """Connect as a Sentinel, whose rights allow status commands."""
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
    """A Sentinel with docs/deploy/sentinel.conf on loopback."""

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
    """Return a file of docs/deploy, changed for this machine."""
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
    """Return the settings in a file of docs/deploy."""
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
def test_node_with_deployed_settings_survives_the_death_of_the_primary(
    deployed_redis: tuple[list[RedisServer], list[Sentinel]],
    certificate: Certificate,
    keys: Keys,
    tmp_path: Path,
    join: Callable[..., Any],
) -> None:
    """The test uses redis.conf, sentinel.conf and geocast.env together: TLS, passwords, rights and replicas."""
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
        require_metrics_of_the_rules(node)

        servers[0].kill()
        after = alert(spot)
        wait_until(lambda: node.post("/v1/alerts", after).status_code in {200, 201}, "publishing goes on")
        phone.listen(after["id"], 1)
        assert node.state(body["id"])["state"] == "live"
        assert " failed: " not in node.output()


def on_this_machine(url: str, sentinels: list[Sentinel], certificate: Certificate) -> str:
    """Return a URL of docs/deploy with the addresses of these Sentinels."""
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    changed = url.replace("10.0.0.11,10.0.0.12,10.0.0.13", hosts).replace("/etc/geocast/ca.crt", str(certificate.crt))
    assert changed.count("127.0.0.1") == 3
    assert str(certificate.crt) in changed
    return changed


@needs_redis
def test_phones_get_pushes_with_deployed_settings_before_and_after_a_failover(
    deployed_redis: tuple[list[RedisServer], list[Sentinel]], certificate: Certificate, keys: Keys, tmp_path: Path
) -> None:
    """The rights of the log's user suffice for devices, and registrations are not lost (redis.conf and push.env)."""
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


def require_metrics_of_the_rules(node: Node) -> None:
    """Require that a node with stream processes and a Redis log has all metrics that the alerting rules name."""
    wanted = set(re.findall(r"\bgeocast_\w+", (DEPLOY / "geocast.rules.yml").read_text("utf-8")))
    # These counters appear with the first refusal or close.
    wanted -= {"geocast_closes_total", "geocast_handshakes_refused_total"}
    # These are metrics of other processes, whose tests check them.
    wanted = {name for name in wanted if not name.startswith(("geocast_push_", "geocast_relay_", "geocast_fetch_"))}
    # These exist only with keys at a URL.
    wanted -= {"geocast_key_fetches_total", "geocast_keys_fetched_timestamp_seconds"}
    # These exist only with keys for calls; test_calls.py checks them.
    wanted -= {"geocast_calls_unanswered", "geocast_calls_degraded", "geocast_call_unsealed_failed_total"}
    wait_until(
        lambda: wanted <= set(re.findall(r"^geocast_\w+", node.api.get("/metrics").text, re.MULTILINE)),
        f"all of {sorted(wanted)}",
    )


# ---- systemd units -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"geocast{name}.service" for name in ("", "-fetch", "-ledger", "-push", "-relay")])
def test_systemd_accepts_the_unit_files(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` checks the unit with another program in place of `geocast`."""
    analyze = program("systemd-analyze")
    unit = tmp_path / name
    unit.write_text(changed(name, (r"/opt/geocast/bin/geocast", "/bin/true")))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{name}:" not in done.stderr, done.stderr


def test_geocast_env_names_only_documented_settings() -> None:
    """The settings are documented in settings.md."""
    documented = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert all(f"`{name}`" in documented for name in environment())


def test_geocast_relay_accepts_the_two_environment_files_of_its_unit() -> None:
    """docs/deploy/relay.env is read after geocast.env, and the unit's command line has the remaining options."""
    unit = (DEPLOY / "geocast-relay.service").read_text("utf-8")
    files = re.findall(r"^EnvironmentFile=/etc/geocast/(.*)$", unit, re.MULTILINE)
    assert files == ["geocast.env", "relay.env"]
    variables = environment(files[0]) | environment(files[1])
    known = {option.envvar: option for option in cli.commands["relay"].params if option.envvar}
    assert environment("relay.env").keys() <= known.keys()
    [command] = re.findall(r"^ExecStart=\S+ relay (.*)$", unit, re.MULTILINE)
    options = [f"{known[name].opts[0]}={value}" for name, value in variables.items() if name in known]
    given = cli.commands["relay"].make_context("relay", [*options, *command.split()]).params
    assert given["log"] == environment()["GEOCAST_LOG"]
    [folder] = re.findall(r"^StateDirectory=geocast (\S+)$", unit, re.MULTILINE)
    assert [str(given[name]) for name in ("targets", "state")] == [
        f"%S/{folder}/{name}" for name in ("targets.toml", "relay.db")
    ]
    stop_s = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0])
    assert stop_s >= given["drain_s"] + 10.0


def test_geocast_push_accepts_the_two_environment_files_of_its_unit(tmp_path: Path) -> None:
    """docs/deploy/push.env is read after geocast.env.

    Its values replace those of geocast.env, and the unit's command line has the remaining options.
    """
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
