"""The web client's parts under Node's own test runner, with a clock and a server that the tests play; its types."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WEB = HERE.parents[2] / "client_demo" / "web"


def run(*command):
    """Run it; a failure shows what it printed."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("file", sorted(HERE.glob("*.test.mjs")), ids=lambda file: file.name)
def test_units(js, file):
    """All tests of the file."""
    run(js, "--test", file)


def test_the_code_has_the_types_that_are_declared(js, packages):
    """`geocast.d.ts` is written by hand: the code is checked against it, strictly."""
    run(js, packages / "typescript" / "bin" / "tsc", "-p", WEB)
