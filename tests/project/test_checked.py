"""Tests that docs/checked.md, tests/checked and the locks of its tools agree."""

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ROOT / "tests" / "checked"
FILES = sorted(CHECKED.glob("test_*.py"))


def tool_of(path):
    """Return the arguments of a file's `TOOL`, without importing it; data (paths) are left out."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TOOL":
            given = {each.arg: ast.literal_eval(each.value) for each in node.value.keywords if each.arg != "data"}
            return given | {"name": node.value.args[0].value}
    raise AssertionError(f"{path.name} has no TOOL")


def test_each_tool_has_one_row_in_the_document():
    """And each row has a tool."""
    text = (ROOT / "docs" / "checked.md").read_text("utf-8").partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)[1:]
    assert sorted(rows) == sorted(tool_of(path)["name"] for path in FILES)


def test_packages_of_each_tool_are_locked():
    """`make checked` installs only what the locks have, and programs in the tables of Debian packages."""
    locks = "".join(
        (ROOT / "requirements" / f"{name}.txt").read_text("utf-8") for name in ("test", "checked", "wapiti")
    )
    npm = json.loads((CHECKED / "package.json").read_text("utf-8"))["devDependencies"]
    debian = "".join(path.read_text("utf-8") for path in (CHECKED / "system.txt", ROOT / "requirements" / "system.sh"))
    for tool in map(tool_of, FILES):
        for name in tool.get("pypi", ()):
            assert f"\n{name}==" in locks, f"{name} is not in requirements/"
        assert set(tool.get("npm", ())) <= set(npm)
        for name in tool.get("commands", ()):
            assert re.search(rf"^{name} ", debian, re.MULTILINE), f"{name} has no row in tests/checked/system.txt"


def test_locked_npm_packages_name_no_registry():
    """The lock works with any registry."""
    lock = json.loads((CHECKED / "package-lock.json").read_text("utf-8"))
    assert len(lock["packages"]) > 3
    assert not any("resolved" in package for package in lock["packages"].values())
    assert all(package.get("integrity") for name, package in lock["packages"].items() if name)
