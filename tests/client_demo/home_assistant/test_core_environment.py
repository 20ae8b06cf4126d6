"""Runs the tests in `core` and the type checks in the environment that has Home Assistant's core, if it is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
VENV = ROOT / os.environ.get("HA_VENV", ".venv-home-assistant")
PYTHON = VENV / "bin" / "python"

pytestmark = pytest.mark.skipif(
    not (VENV / ".core").exists(), reason="`make test-home-assistant` was not run: it needs Python 3.13 and 1 GB"
)


def run(*command, **options):
    """Run a command that must succeed. Its output goes to the output of this test."""
    done = subprocess.run(list(map(str, command)), check=False, **options)
    assert done.returncode == 0


@pytest.mark.slow
def test_integration_works_in_the_core_of_home_assistant():
    """The tests start their node in this process's environment."""
    only = ("--confcutdir", HERE / "core", "-c", HERE / "core" / "pytest.ini", HERE / "core")
    command = {"GEOCAST_COMMAND": str(Path(sys.executable).parent / "geocast")}
    run(PYTHON, "-m", "pytest", "-q", "-p", "no:sugar", "-p", "no:cacheprovider", *only, env=os.environ | command)


def test_types_of_the_integration_fit_the_core_of_home_assistant(tmp_path):
    """Mypy runs in this process's environment, and reads the packages of the other one."""
    run(sys.executable, ROOT / "client_demo" / "home_assistant" / "build.py", tmp_path / "built")
    options = ("--strict", "--python-version", "3.13", "--disable-error-code", "import-not-found")
    package = ("--python-executable", PYTHON, "--config-file", os.devnull, "-p", "custom_components.geocast")
    run(sys.executable, "-m", "mypy", *options, *package, cwd=tmp_path / "built")
