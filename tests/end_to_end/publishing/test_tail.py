"""`geocast tail` as a command, and the recipes of its page, beside a real node."""

import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, beacon_ground, ground
from end_to_end.kit.cluster import on_sentinels
from end_to_end.kit.keys import Keys
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.process import run
from end_to_end.kit.redis_nodes import post_somehow
from end_to_end.kit.shell import blocks
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.ports import free_ports
from support.redis_server import needs_redis, sentinel_url

ENTRIES = int(os.environ.get("TAIL_ENTRIES", "200"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Start a node."""
    with Node(tmp_path) as node:
        yield node


def test_it_ends_quietly_when_nobody_reads_and_at_sigterm(node: Node):
    """Neither prints anything else, and the status is 0."""
    node.publish(alert(ground()))
    log = f"sqlite:{node.log_file}"
    done = run(BIN / "geocast", "tail", "--log", log, "--until-now", environment=clean_environment())
    assert (done.returncode, done.stderr) == (0, "")
    [line] = map(json.loads, done.stdout.splitlines())
    assert line["alert"]["headline"] == "Burglary nearby"
    command = [str(BIN / "geocast"), "tail", "--log", log]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": clean_environment()}
    with subprocess.Popen(command, **pipe) as unread:  # type: ignore[call-overload]
        assert unread.stdout.readline()
        unread.stdout.close()
        node.publish(alert(ground()))
        assert (unread.wait(PATIENCE), unread.stderr.read()) == (0, b"")
    with subprocess.Popen(command, **pipe) as stopped:  # type: ignore[call-overload]
        assert stopped.stdout.readline()
        stopped.send_signal(signal.SIGTERM)
        assert (stopped.wait(PATIENCE), stopped.stderr.read()) == (0, b"")


class Script:
    """A recipe of the page, which is killed as a whole."""

    def __init__(self, text: str, node: Node, folder: Path, **settings: str) -> None:
        path = f"{BIN}:/usr/bin:/bin"
        text = text.replace("sqlite:geocast.db", f"sqlite:{node.log_file}")
        self.process = subprocess.Popen(
            ["sh", "-c", text], cwd=folder, env=clean_environment(PATH=path, **settings), start_new_session=True
        )

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["pkill", "-KILL", "-s", str(self.process.pid)], check=False)
        self.process.wait()


def test_recipe_for_a_file_writes_each_line_and_goes_on_after_a_kill(node: Node, tmp_path: Path):
    """The lines of both runs are those of the log."""
    folder = tmp_path / "files"
    folder.mkdir()

    def lines() -> list[str]:
        return [line for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]

    first = alert(ground())
    node.publish(first)
    [recipe] = blocks("To a file for each day", "sh", "docs/guide/ways-out.md")
    with Script(recipe, node, folder):
        wait_until(lambda: len(lines()) == 1, "the first line is there")
    node.publish(alert(ground()))
    with Script(recipe, node, folder):
        wait_until(lambda: len(lines()) == 2, "the second line is there")
        node.cancel(first["id"], 2)
        wait_until(lambda: len(lines()) == 3, "the cancel is there")
    assert [json.loads(line)["type"] for line in lines()] == ["alert", "alert", "cancel"]


@pytest.mark.skipif(not shutil.which("mosquitto"), reason="mosquitto is not installed")
def test_recipe_for_mqtt_publishes_each_line(node: Node, tmp_path: Path):
    """A subscriber of the broker gets them, and the position is kept."""
    [port] = free_ports(1)
    place = ("-h", "127.0.0.1", "-p", str(port))
    with subprocess.Popen([str(shutil.which("mosquitto")), "-p", str(port)], stderr=subprocess.DEVNULL) as broker:
        wait_until(
            lambda: ended("mosquitto_pub", *place, "-t", "x", "-n").returncode == 0,
            "the broker listens",
        )
        listen = ("mosquitto_sub", *place, "-c", "-i", "sign", "-t", "geocast/#", "-q", "1")
        assert ended(*listen, "-E").returncode == 0  # from now on the broker keeps messages for it
        node.publish(alert(ground()))
        node.publish(alert(ground()))
        kept = tmp_path / "position"
        [recipe] = blocks("To MQTT", "sh", "docs/guide/ways-out.md")
        with Script(recipe, node, tmp_path, PORT=str(port)):
            got = [json.loads(line) for line in ended(*listen, "-C", "2", "-W", "30").stdout.splitlines()]
            assert [each["type"] for each in got] == ["alert", "alert"]
            wait_until(lambda: kept.exists() and kept.read_text().strip() == got[-1]["position"], "it is kept")
        broker.terminate()


@needs_redis
def test_nothing_is_missing_if_it_is_killed_again_and_again_during_a_failover(keys: Keys, tmp_path: Path):
    """Each start goes on after the last line that was seen. `TAIL_ENTRIES` is the number of alerts."""
    with ExitStack() as stack:
        cluster = stack.enter_context(on_sentinels(tmp_path, keys, ("--log-replicas", "1")))
        [node] = cluster.nodes
        bodies = [alert(beacon_ground()) for _ in range(ENTRIES)]

        def publish(number: int) -> None:
            if number == ENTRIES // 2:
                cluster.redis.kill()
            post_somehow(node, "/v1/alerts", bodies[number])

        seen, position, starts, rng = Counter[str](), "", 0, random.Random(1)
        command = [str(BIN / "geocast"), "tail", "--log", sentinel_url(list(cluster.sentinels))]
        publishers = stack.enter_context(ThreadPoolExecutor(4))
        published = publishers.map(publish, range(ENTRIES))
        while len(seen) < ENTRIES:
            starts += 1
            with subprocess.Popen(
                [*command, "--after", position], stdout=subprocess.PIPE, env=clean_environment()
            ) as process:
                assert process.stdout is not None
                for _, line in zip(range(rng.randrange(1, ENTRIES // 5)), process.stdout, strict=False):
                    found = json.loads(line)
                    seen[found["alert"]["id"]] += 1
                    position = found["position"]
                    if len(seen) == ENTRIES:
                        break
                process.kill()
        assert len(list(published)) == ENTRIES
        assert seen.keys() == {body["id"] for body in bodies}
        print(f"\n{ENTRIES} alerts, {starts} starts; {sum(count > 1 for count in seen.values())} were printed again")
