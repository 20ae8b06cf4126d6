"""A test that pyproject.toml declares every package that a folder imports."""

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUNTIME, GROUPS = PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]
DISTRIBUTIONS = packages_distributions()


def declared(requirements):
    """Return the normalized names in these requirements. An extra counts as a distribution, as in `redis[hiredis]`."""
    names = re.findall(r"^([\w.-]+)(?:\[([\w.-]+)\])?", "\n".join(requirements), re.MULTILINE)
    return {normalized(name) for pair in names for name in pair if name}


def normalized(name):
    """Return a name in the form in which PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder):
    """Return the packages that a folder's modules import, each with one of these modules."""
    found = {}
    for path in (path for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= dict.fromkeys((name.partition(".")[0] for name in names), path)
    return found


@pytest.mark.parametrize(
    ("folder", "requirements"),
    [
        ("server", RUNTIME),
        ("client_demo", [*GROUPS["demo"], *GROUPS["push"], "mpmath"]),  # only `make_vectors` needs mpmath
        ("bench", [*RUNTIME, *GROUPS["demo"], *GROUPS["bench"]]),
    ],
)
def test_every_imported_package_is_declared_as_a_dependency(folder, requirements):
    """Modules of this repository and packages that are not installed belong to no distribution and are ignored."""
    used = {name: path for name, path in imported(folder).items() if name in DISTRIBUTIONS}
    assert used
    known = declared(requirements)
    missing = {name: str(path) for name, path in used.items() if not known & set(map(normalized, DISTRIBUTIONS[name]))}
    assert missing == {}
