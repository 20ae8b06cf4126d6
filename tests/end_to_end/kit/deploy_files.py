"""Copies of the files of docs/deploy with changes for a test, and the programs that read these files."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "docs" / "deploy"
SBIN = "/usr/sbin:/usr/local/sbin:/sbin"


def program(name: str) -> str:
    """Return the path of a program; skip the test if the program is not installed."""
    found = shutil.which(name) or shutil.which(name, path=SBIN)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def changed(name: str, *changes: tuple[str, str]) -> str:
    """Return the text of a file of docs/deploy with replacements by regular expression, each of which must match."""
    return replaced((DEPLOY / name).read_text("utf-8"), *changes)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """Return a text with replacements by regular expression, each of which must match."""
    for old, new in changes:
        text, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count, f"{old} is not there"
    return text


def block(language: str, heading: str = "", page: str = "operations/one-node") -> str:
    """Return the only code block of a page in a language, in the section with this heading if one is given."""
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] if heading else text
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found
