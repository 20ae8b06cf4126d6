"""Unit tests of the web client under Node's test runner with a simulated clock and server, and a check of its types."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WEB = HERE.parents[2] / "client_demo" / "web"


def run(*command):
    """Run a command; on failure show its output."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name)
def test_unit_file_passes(js, file):
    run(js, "--test", file)


def test_code_matches_the_declared_types(js, packages):
    """`geocast.d.ts` is written by hand, so the code is checked against it."""
    run(js, packages / "typescript" / "bin" / "tsc", "-p", WEB)
