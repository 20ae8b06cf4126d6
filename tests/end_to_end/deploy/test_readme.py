"""The first steps of README.md and docs/guide/first-alert.md, typed into a shell."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.shell import PORTS, ROOT, Shell, Terminal, blocks, is_ready, with_wscat
from end_to_end.kit.times import wait_until
from support.redis_server import missing


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
    assert "command not found" not in shell.said()


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


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_wscat_command_of_the_guide_shows_the_alert(shell: Shell, tmp_path: Path):
    """The listener's command says hello at once and waits for alerts."""
    begin, wscat, publish = blocks("A first alert", "sh")
    with_wscat(tmp_path)
    shell.type(f'{begin.partition(chr(10))[2]}\necho "$PHONE" > {tmp_path}/phone.txt')
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    terminal = Terminal(f"PHONE=$(cat phone.txt); {wscat}", tmp_path)
    try:
        wait_until(lambda: '"type":"welcome"' in terminal.shown(), lambda: f"the welcome: {terminal.shown()}")
        shell.type(publish)
        wait_until(lambda: '"type":"alert"' in terminal.shown(), "the alert is shown")
    finally:
        terminal.end()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_page_of_the_guide_is_served_and_an_alert_is_published_with_the_new_token(shell: Shell):
    """The token of the node that was stopped is refused by the new node, whose keys are others."""
    begin, _, publish = blocks("A first alert", "sh")
    [page] = blocks("An alert in your page in ten lines", "sh")
    publish = publish.replace("curl -sS", r"curl -sS -o /dev/null -w '\nstatus %{http_code}\n'")
    shell.type(begin.partition("\n")[2])
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    shell.type(f"ln -s {ROOT}/client_demo .; echo /client_demo >> .git/info/exclude")
    shell.type(f"{page}\n{publish}")
    wait_until(lambda: "status 401" in shell.said(), lambda: f"the refusal: {shell.said()}")
    shell.type(f"DESK=$GEOCAST_TOKEN\n{publish.replace('first-alert', 'second-alert')}")
    wait_until(lambda: "status 201" in shell.said(), lambda: f"the alert is accepted: {shell.said()}")
    shell.type(f"curl -sS --retry 9 --retry-connrefused http://127.0.0.1:{PORTS[8080]}/example.html")
    wait_until(lambda: "new Geocast(" in shell.said(), lambda: f"the page: {shell.said()}")


def test_readme_alert_is_published_revised_and_cancelled(shell: Shell):
    """The listener shows each step."""
    begin, publish = blocks("A first alert", "sh", "README.md")
    shell.type(f"export PYTHONPATH={ROOT} GEOCAST_API_URL=http://127.0.0.1:{PORTS[8766]}")
    shell.type(begin.partition("\n")[2])  # the environment of the tests is active already
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    url = f"ws://127.0.0.1:{PORTS[8765]}/v1/stream"
    shell.type(f"geocast listen --url {url} --lat 32.78 --lng -96.80 &")
    steps = re.split(r"\n(?=geocast)", publish.strip())
    for step, shown in zip(steps, ("Keep windows closed", "Streets are open", "(The fire is out.)"), strict=True):
        shell.type(step)
        wait_until(lambda shown=shown: shown in shell.said(), lambda shown=shown: f"{shown} in {shell.said()}")  # type: ignore[misc]
