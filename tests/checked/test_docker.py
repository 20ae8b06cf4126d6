"""A real Docker daemon, with `docker run` and `docker compose up` as docs/operations/container.md shows them.

The daemon and everything that talks to it run in a network namespace of their own. Docker's registries can't be
reached in all places, so buildah makes the images, and Debian's redis-server stands in for Redis' own image.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from checked.tool import Tool
from end_to_end.conftest import keys  # noqa: F401 (a fixture)
from end_to_end.deploy.test_image import BASE, Buildah, in_memory
from end_to_end.kit.alerts import alert
from end_to_end.kit.keys import DESK_SCOPE, Keys, bearer
from end_to_end.kit.times import wait_until
from pages.conftest import browser, show  # noqa: F401 (fixtures)
from playwright.sync_api import Error
from support.command import ended
from support.network import own_network
from support.pages import blocks_of, inline_code_of

ROOT = Path(__file__).resolve().parents[2]
TOOL = Tool(
    "Docker",
    "`docker run` and `docker compose up` as documented",
    debian=("docker.io", "docker-compose"),
    commands=("dockerd", "docker", "docker-compose", "ip", "iptables", "buildah", "mmdebstrap"),
)
pytestmark = [pytest.mark.checked, pytest.mark.timeout(1_200)]
CHANGED = "ERR_NETWORK_CHANGED"
POOL = "base=198.18.128.0/17,size=24"  # addresses of RFC 2544, which no real network has
MAP, API = "http://127.0.0.1:8780", "http://127.0.0.1:8766"


class Docker:
    """A Docker daemon with all its files in `home`, and the program docker."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{home}/docker.sock"}
        self.folder = ROOT

    def start(self) -> subprocess.Popen[bytes]:
        """Start the daemon and wait until it answers; skip the tests where it can't run."""
        places = [f"--{name}={self.home}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        command = ["dockerd", *places, f"--host=unix://{self.home}/docker.sock", "--bip=198.18.100.1/24"]
        with (self.home / "dockerd.txt").open("wb") as output:
            daemon = subprocess.Popen([*command, f"--default-address-pool={POOL}"], stdout=output, stderr=output)
        wait_until(lambda: daemon.poll() is not None or self("info", check=False).returncode == 0, "dockerd answers")
        if daemon.poll() is not None:
            pytest.skip(f"dockerd can't run here: {(self.home / 'dockerd.txt').read_text().splitlines()[-1:]}")
        return daemon

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of docker in the checkout."""
        done = ended("docker", *arguments, cwd=self.folder, env=self.environment, timeout=180)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def health(self, container: str) -> str:
        """Return a container's health as Docker's own health check finds it."""
        return self("inspect", "--format", "{{.State.Health.Status}}", container).stdout.strip()


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Start Docker with the images of a node and of the demo, and one of Redis."""
    if os.getuid() != 0:
        pytest.skip("Docker needs root")
    home = tmp_path_factory.mktemp("docker")
    buildah_home = tmp_path_factory.mktemp("buildah")
    images = {
        "geocast:latest": "localhost/geocast",
        "geocast-demo:latest": "localhost/geocast-demo",
        "redis:8": "localhost/redis",
    }
    with in_memory(buildah_home):
        buildah = Buildah(buildah_home)
        try:
            # Debian's redis-tools have the server too, without a service.
            redis = 'install -d -o 999 "$1/data"; ln -s redis-check-rdb "$1/usr/bin/redis-server"'
            buildah.base(BASE, "python3-venv,ca-certificates,redis-tools", redis)
            for target, image in (("node", "geocast:latest"), ("demo", "geocast-demo:latest")):
                buildah.image(images[image], target)
            container = buildah("from", BASE).stdout.strip()
            buildah("config", "--workingdir", "/data", container)
            buildah("commit", "--quiet", container, images["redis:8"])
            for number, (name, image) in enumerate(images.items()):
                buildah("push", "--quiet", image, f"docker-archive:{home}/{number}.tar:{name}")
        finally:
            buildah("rm", "--all", check=False)
    with own_network():
        docker = Docker(home)
        daemon = docker.start()
        try:
            for archive in home.glob("*.tar"):
                docker("load", "--quiet", "--input", str(archive))
            yield docker
        finally:
            daemon.terminate()
            daemon.wait(60)
            shutil.rmtree(home, ignore_errors=True)


def documented(heading: str, word: str) -> str:
    """Return the block of code below a heading that contains a word."""
    found = [each.text for each in blocks_of("docs/operations/container.md") if each.heading == heading]
    [text] = [each for each in found if word in each]
    return text


def test_documented_docker_run_starts_a_healthy_node_that_keeps_its_alerts(
    docker: Docker,
    keys: Keys,  # noqa: F811
    tmp_path: Path,
):
    """The alert is there after a restart, and `docker stop` drains."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "keys.jwks").write_text(json.dumps(keys.jwks()))
    command = documented("In a container", "docker run")
    if (most := resource.getrlimit(resource.RLIMIT_NOFILE)[1]) < 65_536:  # a machine that may not raise its own limit
        command = command.replace("65536:65536", f"{most}:{most}")
    done = ended("sh", "-euc", command, cwd=tmp_path, env=docker.environment, timeout=120)
    assert done.returncode == 0, done.stderr
    try:
        wait_until(lambda: docker.health("geocast") == "healthy", lambda: docker("logs", "geocast").stderr)
        desk = bearer(keys.token(scope=DESK_SCOPE))
        body = alert((32.7767, -96.797))
        assert post(body, desk).status_code == 201
        docker("restart", "geocast")
        wait_until(lambda: docker.health("geocast") == "healthy", lambda: docker("logs", "geocast").stderr)
        assert httpx.get(f"{API}/v1/alerts/{body['id']}", headers=desk).json()["alert"]["id"] == body["id"]
        docker("stop", "geocast")
        status = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", "geocast").stdout
        assert status.split() == ["0", "false"]
    finally:
        docker("rm", "--force", "geocast")
        docker("volume", "rm", "geocast")


def test_documented_dev_node_takes_alerts_with_the_token_that_it_prints(docker: Docker):
    """The command of "To try it", in the background; nothing is taken without the token."""
    [command] = [line for line in dev_commands() if "--dev" in line]
    started = docker(*command.replace("--rm", "--rm -d").split()[1:])
    container = started.stdout.strip()
    try:
        wait_until(lambda: docker.health(container) == "healthy", lambda: docker("logs", container).stderr)
        [token] = re.findall(r"GEOCAST_TOKEN=(\S+)", docker("logs", container).stdout)
        answers = [post(alert((32.7767, -96.797)), headers) for headers in ({}, bearer(token.strip("'")))]
        assert [answer.status_code for answer in answers] == [401, 201]
    finally:
        docker("kill", container)


def post(body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    """Publish an alert."""
    return httpx.post(f"{API}/v1/alerts", json=body, headers=headers)


def dev_commands() -> list[str]:
    """Return the commands within the prose of the page about containers."""
    return [code for code in inline_code_of("docs/operations/container.md") if code.startswith("docker run")]


def test_compose_shows_an_alert_on_the_map_and_a_desk_that_publishes(docker: Docker, show: Any):  # noqa: F811
    """Everything is there again after a restart, and `down -v` leaves nothing."""
    docker("compose", "up", "--detach", "--pull", "never", "--no-build")
    try:
        shown = on_the_map(docker, show, "Building on fire")
        desk = link(docker)
        reviewer = show(desk)
        reviewer.page.locator(".item", has_text="Structure fire").first.click()
        reviewer.until("!document.querySelector('#approve').disabled", "it can be approved")
        reviewer.page.click("#approve")
        reviewer.has("#when", "Live")
        shown.has("#summary", "2 live alerts")
        for each in (shown, reviewer):
            each.context.close()
            each.troubles.clear()
        docker("compose", "restart")
        shown = on_the_map(docker, show, "Building on fire")
        shown.has("#summary", "2 live alerts")
        shown.context.close()
    finally:
        docker("compose", "down", "--volumes")
    assert docker("volume", "ls", "--quiet").stdout.split() == []
    assert docker("ps", "--all", "--quiet").stdout == ""


def on_the_map(docker: Docker, show: Any, text: str) -> Any:  # noqa: F811
    """Open the map, once its container serves it and the node is ready, and wait for an alert.

    Chromium drops its requests when a network interface comes or goes, as with each container; then open it again.
    """
    wait_until(
        lambda: answers(MAP) and answers(f"{API}/readyz"),
        lambda: docker("compose", "logs", check=False).stdout[-5_000:],
    )
    for _ in range(5):
        try:
            shown = show(MAP)
        except Error as error:
            if CHANGED not in str(error):
                raise
            continue
        wait_until(lambda page=shown: text in page.text("#affecting") or dropped(page), f"{text} or {CHANGED}")
        if not dropped(shown):
            return shown
        shown.context.close()
        shown.troubles.clear()
    raise AssertionError(f"{CHANGED} each time")


def dropped(shown: Any) -> bool:
    """Return whether Chromium has dropped a request of the page."""
    return any(CHANGED in each for each in shown.troubles)


def answers(url: str) -> bool:
    """Return whether a page is served."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).is_success
    return False


def link(docker: Docker) -> str:
    """Return the first of the links that the desk prints."""
    logs = wait_until(lambda: "key=" in (said := docker("compose", "logs", "desk").stdout) and said, "the desk's links")
    return next(word for word in logs.split() if "key=" in word)
