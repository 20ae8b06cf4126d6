"""The chapter "A first call" of calls.md: its commands, typed into a shell as they are, do what the page says."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from end_to_end.deploy.test_readme import PORTS, ROOT, Shell, blocks, is_ready
from end_to_end.kit.times import wait_until

LISTEN = """
import json, os, sys
from websockets.sync.client import connect

with connect("ws://127.0.0.1:PORT/v1/stream", subprotocols=["geocast.v1.json"], compression=None) as socket:
    socket.send(sys.argv[1])
    for message in socket:
        print(message, flush=True)
        if json.loads(message)["type"] == "call":
            socket.send(sys.argv[2])
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Start a shell in an empty folder."""
    (tmp_path / "town").mkdir()
    shell = Shell(tmp_path / "town", tmp_path / "said.txt")
    yield shell
    shell.end()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_commands_of_the_page_run_a_call_from_keys_to_its_end(shell: Shell, tmp_path: Path) -> None:
    """The commands make keys, start a node and open a call.

    A responder accepts, and the dispatcher sees the seat (rules M18, M21, M22, M23, RQ3).
    """
    begin, listen, open_call, end = blocks("A first call", "sh", "docs/guide/calls.md")
    [hello] = re.findall(r"-x '(.*)'$", listen.strip(), re.DOTALL)
    [accept] = re.findall(r'`(\{"type":"accept".*?\})`', (ROOT / "docs" / "guide" / "calls.md").read_text("utf-8"))
    (tmp_path / "listen.py").write_text(LISTEN.replace("PORT", str(PORTS[8765])))
    shell.type(begin)
    wait_until(lambda: is_ready(PORTS[8766]), "the node is ready")
    shell.type(f"python -u {tmp_path / 'listen.py'} '{hello}' '{accept}' &")
    wait_until(lambda: '"welcome"' in shell.said(), "the responder is welcomed")
    shell.type(open_call)
    wait_until(lambda: '"type":"task"' in shell.said(), "the responder gets the task")
    assert '"radius_m":210.0' in shell.said()
    assert "Door code 4711" in shell.said()
    shell.type(end)
    wait_until(lambda: '"reason":"over"' in shell.said(), "the responder is stood down")
    assert '"responder":"r-51c0"' in shell.said().replace(" ", "")
    wait_until(lambda: '"ended_at"' in shell.said(), "the call has ended")
