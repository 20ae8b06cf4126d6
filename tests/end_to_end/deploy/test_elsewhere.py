"""Somebody else's package in an environment of its own: a way out and an alert log, by entry points."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from end_to_end.kit.alerts import alert, ground
from end_to_end.kit.node import Node, clean_environment
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.command import ended
from support.ports import free_ports

HERE = Path(__file__).parent / "elsewhere"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with the wheels of geocast and of the package; what both require is that of the tests."""
    home = tmp_path_factory.mktemp("elsewhere")
    for source in (ROOT, HERE):
        done = ended(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home / "dist", cwd=source)
        assert done.returncode == 0, done.stderr
    ended(sys.executable, "-m", "venv", "--without-pip", home)
    pip = (sys.executable, "-m", "pip", "--python", home, "install", "--quiet", "--no-index", "--no-deps")
    done = ended(*pip, *(home / "dist").glob("*.whl"))
    assert done.returncode == 0, done.stderr
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "required.pth").write_text(f"{Path(click.__file__).parents[1]}\n")
    return home


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Start a node."""
    with Node(tmp_path) as node:
        yield node


def test_way_out_of_another_package_is_told_of_each_alert_and_cancel(environment: Path, node: Node, tmp_path: Path):
    """It has options, a metric and a reason in /readyz, and takes new options at SIGHUP."""
    options, lines, [port] = tmp_path / "options.toml", tmp_path / "lines", free_ports(1)
    first, second = (alert(ground(), headline=headline) for headline in ("Before the start", "After it"))
    options.write_text(f'[lines]\npath = "{lines}"\n')
    node.publish(first)
    command = (environment / "bin" / "geocast", "part", "lines", "--options", options)
    log = f"sqlite:{node.log_file}"

    def get(path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=PATIENCE)

    with subprocess.Popen(
        [*map(str, command), "--log", log, "--metrics", f"127.0.0.1:{port}"], env=clean_environment(), cwd=tmp_path
    ) as part:
        try:
            wait_until(lambda: lines.exists() and lines.read_text(), "the live alert is written")
            node.publish(second)
            node.cancel(first["id"], 2)
            wait_until(lambda: lines.read_text().count("\n") == 3, "both are written")
            written = [line.split(" ", 2) for line in lines.read_text().splitlines()]
            assert sorted(written) == sorted(
                [
                    [first["id"], "1", "Before the start"],
                    [first["id"], "2", "-"],
                    [second["id"], "1", "After it"],
                ]
            )
            assert "geocast_lines_written_total 3.0" in get("/metrics").text
            options.write_text("[lines]\npath = 1\n")
            part.send_signal(signal.SIGHUP)
            wait_until(lambda: 'geocast_reloads_total{result="ok"} 1.0' in get("/metrics").text, "it is reloaded")
            node.publish(alert(ground()))
            wait_until(lambda: lines.read_text().count("\n") == 4, "it is written with the old options")
            options.write_text(f'[lines]\npath = "{tmp_path}"\n')
            part.send_signal(signal.SIGHUP)
            wait_until(lambda: 'geocast_reloads_total{result="ok"} 2.0' in get("/metrics").text, "it is reloaded")
            node.publish(alert(ground()))
            wait_until(lambda: get("/readyz").status_code == 503, "it is not ready")
            assert get("/readyz").json()["reasons"] == ["the lines can't be written: Is a directory"]
        finally:
            part.terminate()
            assert part.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("other", "", "no package adds the part other; there are: lines"),
        ("lines", "[lines]\npaths = 1", "options: expected a table [lines]"),
        ("lines", "[", "--options options.toml: not TOML"),
    ],
)
def test_unknown_part_and_wrong_options_are_refused_in_one_line(
    environment: Path, tmp_path: Path, name: str, options: str, said: str
):
    """The status is 2."""
    (tmp_path / "options.toml").write_text(options)
    found = ended(environment / "bin" / "geocast", "part", name, "--options", "options.toml", cwd=tmp_path)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1), found.stderr
    assert said in found.stderr


def test_log_of_another_package_follows_the_contract_and_serves_a_node(environment: Path, tmp_path: Path):
    """The contract's tests are imported from the source tree; `serve` finds the log by its scheme."""
    run = (environment / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "judged.py")
    paths = os.pathsep.join(map(str, (ROOT / "tests", HERE)))
    settings = ("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "alertlog.conftest", "-o", "addopts=")
    done = ended(*run, *settings, env=clean_environment(PYTHONPATH=paths), cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    checked = ended(environment / "bin" / "geocast", "check", "--dev", "--log", "counting:", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    refused = ended(environment / "bin" / "geocast", "check", "--dev", "--log", "county:", cwd=tmp_path)
    assert refused.returncode == 2
