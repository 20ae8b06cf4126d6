"""A part of the project's own tests, run once more with a program of somebody else in the place of the usual one."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_again(
    record_property: Callable[[str, object], None], report: Path, *arguments: str, least: int, **environment: str
):
    """Run pytest with these arguments and settings. None may fail, and at least `least` tests must have run.

    So a program that is not started, or a condition that skips everything, can't pass.
    """
    given = {**os.environ, **environment}
    given.pop("GEOCAST_CHECKED", None)
    command = [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:schemathesis", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--junitxml={report}", "--tb=short", *arguments],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout[-20_000:] + done.stderr[-2_000:]
    assert report.exists(), said
    suite = ET.parse(report).getroot()[0]
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    record_property("cases", passed)
    print(said)  # names what was skipped, with the reasons
    assert done.returncode == 0, f"{count}\n{said}"
    assert passed >= least, f"only {passed} tests ran\n{said}"
