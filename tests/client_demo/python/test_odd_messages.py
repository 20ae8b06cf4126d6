"""Tests that no odd message silences a program of the Python client, also after its restart with what it has stored."""

import sys
from pathlib import Path

import pytest
from support.odd_node import OddNode, Program

BIN = Path(sys.executable).parent
PLACE = ("--lat", "32.78", "--lng", "-96.8")
PROGRAMS = {
    "the library's": (sys.executable, "-m", "client_demo", "listen", *PLACE),
    "geocast listen": (str(BIN / "geocast"), "listen", *PLACE),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_good_alerts_are_heard_after_each_odd_message_and_after_a_restart(name, tmp_path):
    """The second connection follows a text that is no UTF-8; the third one is that of another process."""
    command = [*PROGRAMS[name]]
    if name == "the library's":
        command += ["--held", str(tmp_path / "held.json")]
    with OddNode() as node:
        program = Program(*command, "--url", node.url)
        try:
            program.says(*(f"Fire: {good} " for good in node.good), "Fire: after-1 ")
            node.has_heard.set()
            assert node.heard(2) == node.good | {"after-1"}
            program.says("Fire: after-2 ")
        finally:
            program.end()
        assert "Traceback" not in program.said
        restarted = Program(*command, "--url", node.url)
        try:
            restarted.says("Fire: after-3 ")
        finally:
            restarted.end()
        kept = node.good | {"after-1", "after-2"} if "--held" in command else set()
        assert node.heard(3) == kept
