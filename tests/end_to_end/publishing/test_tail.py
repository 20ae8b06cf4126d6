"""`geocast tail` as a command, and the recipes of its page, beside a real node."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.node import BIN, Node, clean_environment
from end_to_end.kit.process import run
from end_to_end.kit.shell import blocks
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.ports import free_ports


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
