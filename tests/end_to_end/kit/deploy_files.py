"""The files of docs/deploy, changed for a test, and the programs that take them."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "docs" / "deploy"
SBIN = "/usr/sbin:/usr/local/sbin:/sbin"


def program(name: str) -> str:
    """Where a program is; the test is skipped if it is nowhere."""
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def changed(name: str, *changes: tuple[str, str]) -> str:
    """A file of docs/deploy with things put for others, each of which has to be there (regular expressions)."""
    return replaced((DEPLOY / name).read_text("utf-8"), *changes)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """A text with things put for others, each of which has to be there (regular expressions)."""
    for old, new in changes:
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count, f"{old} is not there"
    return text


def block(language: str) -> str:
    """The one block of one-node.md in a language."""
    text = (ROOT / "docs" / "operations" / "one-node.md").read_text("utf-8")
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found
