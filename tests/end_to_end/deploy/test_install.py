"""The commands with which docs/operations/one-node.md installs a node on one machine, without root and systemd.

Folders become those of the test, the environment that `make install` has made stands for /opt/geocast, and what systemd
would start is started with the settings and the command of the unit.
"""

import re
import subprocess
from pathlib import Path

import httpx
from end_to_end.kit.deploy_files import DEPLOY, ROOT
from end_to_end.kit.node import BIN, clean_environment
from end_to_end.kit.shell import blocks
from support.ports import free_ports

BY_ROOT = re.compile(r"^(apt-get|python3 -m venv|/opt/geocast/bin/pip|systemctl) .*\n", re.MULTILINE)


def test_install_commands_start_a_node_that_accepts_a_token(tmp_path: Path) -> None:
    """The block runs as it stands there, but for root's steps: it checks, waits until the node is ready, and signs."""
    [text] = blocks("Install", "sh", "docs/operations/one-node.md")
    assert len(BY_ROOT.findall(text)) == 6
    assert all((ROOT / name).exists() for name in re.findall(r"requirements/\w+\.txt", text))
    etc, state, (stream, api) = tmp_path / "etc", tmp_path / "state", free_ports(2)
    (tmp_path / "units").mkdir()
    state.mkdir()
    text = BY_ROOT.sub("", text).replace("/etc/systemd/system/", f"{tmp_path}/units/")
    for old, new in (("/etc/geocast", etc), ("/opt/geocast/bin", BIN), ("desk.token", tmp_path / "desk.token")):
        text = text.replace(old, str(new))
    before, cp, after = text.partition("cp docs/deploy/geocast.service")
    unit = (DEPLOY / "geocast.service").read_text("utf-8")
    [command] = re.findall(r"^ExecStart=/opt/geocast/bin/(.+)$", unit, re.MULTILINE)
    ports = {"GEOCAST_STREAM": f"127.0.0.1:{stream}", "GEOCAST_API": f"127.0.0.1:{api}"}

    def run(script: str) -> None:
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=ROOT,
            env=clean_environment(**ports),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    run(before)
    assert (etc / "geocast.env").stat().st_mode & 0o777 == 0o600
    assert (etc / "private.jwk").stat().st_mode & 0o077 == 0
    assert (etc / "keys.jwks").stat().st_mode & 0o004, "the unit's user can read it"
    settings = dict(line.split("=", 1) for line in (etc / "geocast.env").read_text().splitlines())
    environment = clean_environment(**settings, **ports)
    with subprocess.Popen([BIN / "geocast", *command.split()[1:]], cwd=state, env=environment) as node:
        try:
            run(f"export PATH=$PATH:{BIN}\n{cp}{after}")
            assert (state / "geocast.db").exists()
            token = (tmp_path / "desk.token").read_text().strip()
            bearer = {"Authorization": f"Bearer {token}"}
            answer = httpx.get(f"http://127.0.0.1:{api}/v1/alerts", headers=bearer)
            assert answer.status_code == 200, answer.text
        finally:
            node.terminate()
