"""The first steps of README.md and docs/guide/first-alert.md, typed into a shell."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from end_to_end.kit.node import BIN, clean_environment
from end_to_end.kit.times import wait_until
from end_to_end.kit.wire import PATIENCE
from support.ports import free_ports
from support.redis_server import missing

ROOT = Path(__file__).parents[3]
PORTS = dict(zip((8765, 8766, 8775, 8776, 6379), free_ports(5), strict=True))


def blocks(heading: str, language: str, document: str = "docs/guide/first-alert.md") -> list[str]:
    """Return the code blocks under a heading of a document, changed for free ports."""
    text = re.search(rf"^## {heading}\n(.*?)^## ", (ROOT / document).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert text
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text[1], re.MULTILINE | re.DOTALL)
    return [moved(block) for block in found]


def moved(block: str) -> str:
    """Return the block changed for free ports; default ports are written out first."""
    block = block.replace("redis-server ", "redis-server --port 6379 ")
    block = block.replace("redis://127.0.0.1", "redis://127.0.0.1:6379")
    block = block.replace("geocast serve ", "geocast serve --stream 127.0.0.1:8765 --api 127.0.0.1:8766 ")
    for documented, free in PORTS.items():
        block = block.replace(str(documented), str(free))
    return block


class Shell:
    """A bash that gets its lines on standard input."""

    def __init__(self, folder: Path, output: Path) -> None:
        self._output = output
        environment = clean_environment(PATH=f"{BIN}:{os.environ['PATH']}")
        with output.open("wb") as file:
            self._bash = subprocess.Popen(
                ["bash"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def type(self, text: str) -> None:
        """Type some lines."""
        assert self._bash.stdin
        self._bash.stdin.write(f"{text}\n".encode())
        self._bash.stdin.flush()

    def said(self) -> str:
        """Return the output of the shell and its programs."""
        return self._output.read_text(errors="replace")

    def end(self) -> None:
        """End the shell and all its programs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a repository with the project's .gitignore."""
    folder = tmp_path / "geocast"
    folder.mkdir()
    shutil.copy(ROOT / ".gitignore", folder)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    shell = Shell(folder, tmp_path / "said.txt")
    yield shell
    shell.end()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def is_ready(port: int) -> bool:
    """Return whether a node answers at a port and is ready."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=PATIENCE).status_code == 200
    return False


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.skipif(bool(missing()), reason=missing() or "")
def test_first_steps_of_the_guide_work_and_leave_a_clean_tree(shell: Shell):
    """A subscriber receives the alert once, its repeat is answered with 200, and two nodes run on one Redis."""
    begin, _, publish = blocks("A first alert", "sh")
    [listen] = blocks("A first alert", "python")
    publish = publish.replace("curl -sS", r"curl -sS -o /dev/null -w '\nstatus %{http_code}\n'")
    shell.type(begin.partition("\n")[2])  # the line before is `make install`
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    shell.type(f"python -u - <<'END' &\n{listen}END")
    wait_until(lambda: '"welcome"' in shell.said(), "the subscriber is welcomed")
    shell.type(publish)
    wait_until(lambda: "status 201" in shell.said(), "the alert is accepted")
    shell.type(publish)
    wait_until(lambda: "status 200" in shell.said(), "the same again is no new alert")
    wait_until(lambda: '"type":"alert"' in shell.said(), "the subscriber is told")
    shell.type(blocks("Two nodes on this machine", "sh", "docs/operations/one-node.md")[0])
    for port in (8766, 8776):
        wait_until(lambda port=port: is_ready(PORTS[port]), "both nodes are ready")  # type: ignore[misc]
    shell.type(publish.replace(str(PORTS[8766]), str(PORTS[8776])))
    wait_until(lambda: shell.said().count("status 201") == 2, "the second node accepts")
    assert shell.said().count('"type":"alert"') == 1
    assert "geocast: error" not in shell.said()


def test_readme_alert_is_published_revised_and_cancelled(shell: Shell):
    """The listener shows each step."""
    begin, publish = blocks("A first alert", "sh", "README.md")
    shell.type(f"export PYTHONPATH={ROOT} GEOCAST_API_URL=http://127.0.0.1:{PORTS[8766]}")
    shell.type(begin.partition("\n")[2])  # the environment of the tests is active already
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    url = f"ws://127.0.0.1:{PORTS[8765]}/v1/stream"
    shell.type(f"python -u -m client_demo listen --url {url} --lat 32.78 --lng -96.80 &")
    steps = re.split(r"\n(?=python)", publish.strip())
    for step, shown in zip(steps, ("Keep windows closed", "Streets are open", "(The fire is out.)"), strict=True):
        shell.type(step)
        wait_until(lambda shown=shown: shown in shell.said(), lambda shown=shown: f"{shown} in {shell.said()}")  # type: ignore[misc]
