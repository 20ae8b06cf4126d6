"""The chapter "A first call" of calls.md: its commands, typed into a shell and wscat, do what the page says."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.kit.shell import PORTS, ROOT, Shell, Terminal, blocks, is_ready, with_wscat
from end_to_end.kit.times import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in which `npx wscat` works."""
    town = tmp_path / "town"
    town.mkdir()
    with_wscat(town)
    return town


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    """Start a shell in the folder."""
    shell = Shell(folder, folder.parent / "said.txt")
    yield shell
    shell.end()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_commands_of_the_calls_guide_open_accept_and_end_a_call(shell: Shell, folder: Path) -> None:
    """The commands make keys, start a node and open a call.

    A responder accepts in wscat, and the dispatcher sees the seat (rules M18, M21, M22, M23, RQ3).
    """
    begin, listen, open_call, end = blocks("A first call", "sh", "docs/guide/calls.md")
    echo, wscat = listen.strip().splitlines()
    [accept] = re.findall(r'`(\{"type":"accept".*?\})`', (ROOT / "docs" / "guide" / "calls.md").read_text("utf-8"))
    shell.type(begin)
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    shell.type(f"{echo} > hello.txt; mv hello.txt pasted.txt")
    wait_until((folder / "pasted.txt").exists, "the hello is printed")
    terminal = Terminal(wscat, folder)
    try:
        wait_until(lambda: "Connected" in terminal.shown(), lambda: f"wscat is connected: {terminal.shown()}")
        terminal.type((folder / "pasted.txt").read_text().strip())
        wait_until(lambda: '"type":"welcome"' in terminal.shown(), "the responder is welcomed")
        shell.type(open_call)
        wait_until(lambda: '"type":"call"' in terminal.shown(), "the responder gets the call")
        assert '"radius_m":210.0' in terminal.shown()
        terminal.type(accept)
        wait_until(lambda: '"type":"task"' in terminal.shown(), "the responder gets the task")
        assert "Door code 4711" in terminal.shown()
        shell.type(end)
        wait_until(lambda: '"reason":"over"' in terminal.shown(), "the responder is stood down")
    finally:
        terminal.end()
    wait_until(lambda: '"ended_at"' in shell.said(), "the call has ended")
    assert '"responder":"r-51c0"' in shell.said().replace(" ", "")
