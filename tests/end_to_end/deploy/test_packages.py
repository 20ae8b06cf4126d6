"""What is published: complete, readable on an index, and good for an install far from the source tree.

(The clients' packages are used in test_python_readme.py and in client_demo/web/test_package.py.)
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from support.command import ended

import geocast

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CLIENT = tomllib.loads((ROOT / "client_demo" / "python" / "pyproject.toml").read_text("utf-8"))
NPM = json.loads((ROOT / "client_demo" / "web" / "geocast" / "package.json").read_text("utf-8"))
SOURCE = PROJECT["project"]["urls"]["Source"]


def run(*command, cwd=ROOT, **settings):
    """What it said; it has to work."""
    done = ended(*command, cwd=cwd, env=os.environ | settings, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The sdist, and the wheel that is built from nothing but that."""
    home = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", home)
    [sdist] = home.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(home, filter="data")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home, cwd=home / sdist.name[: -len(".tar.gz")])
    run(sys.executable, "-m", "hatchling", "build", "-d", home, cwd=ROOT / "client_demo" / "python")
    return home


def wheel(dist):
    """The server's."""
    [found] = dist.glob("geocast-*.whl")
    return found


def test_the_sdist_has_all_that_is_in_the_source_tree(dist):
    """Whoever has it can do what CONTRIBUTING.md says; and nothing else slipped in."""
    unpacked = dist / f"geocast-{geocast.__version__}"
    has = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()} - {"PKG-INFO"}
    assert {"Makefile", "requirements/test.txt", "client_demo/web/package-lock.json", "docs/protocol.md"} <= has
    if not (ROOT / ".git").exists():
        return
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    assert has == {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_works_where_nothing_else_is(dist, tmp_path):
    """Every file of the package, types and licence; `python -m geocast` runs from it."""
    here = {str(p.relative_to(ROOT / "server")) for p in (ROOT / "server").rglob("*") if p.is_file()}
    with zipfile.ZipFile(wheel(dist)) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path)
    assert {name for name in here if "__pycache__" not in name} <= names
    assert "geocast/py.typed" in names
    assert f"geocast-{geocast.__version__}.dist-info/licenses/LICENSE" in names
    program = "import geocast, geocast.cli; print(geocast.__file__)"
    assert run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path)).startswith(str(tmp_path))


def test_an_index_can_show_them(dist):
    """`twine check --strict`, and what their pages link to and show is at an address of its own."""
    run(sys.executable, "-m", "twine", "check", "--strict", *dist.glob("*.whl"), *dist.glob("*.tar.gz"))
    for path in dist.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            [metadata] = [archive.read(name) for name in archive.namelist() if name.endswith("METADATA")]
        page = message_from_bytes(metadata).get_payload()
        targets = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", page)
        assert len(targets) > 2
        for target in map("".join, targets):
            assert target.startswith(("#", "https://")), target
            if at := re.match(rf"{SOURCE}/(?:blob|tree)/main/([^#]+)", target):
                assert (ROOT / at[1]).exists(), target


def test_the_project_has_one_address_and_one_version():
    """Wherever it is written; so that moving is to change one text for another."""
    written = set()
    for name in ("pyproject.toml", "SECURITY.md", "client_demo/python/pyproject.toml"):
        text = (ROOT / name).read_text("utf-8")
        written |= set(re.findall(r"https://(?:raw\.githubusercontent|github)\.com/([\w-]+/[\w-]+)", text))
    written |= set(re.findall(r"github\.com/([\w-]+/[\w-]+)", json.dumps(NPM)))
    assert written == {SOURCE.removeprefix("https://github.com/")}
    versions = (ROOT / "client_demo" / "python" / "__init__.py").read_text("utf-8")
    assert re.findall(r'^__version__ = "(.*)"$', versions, re.MULTILINE) == [geocast.__version__] == [NPM["version"]]
    assert PROJECT["project"]["license"] == CLIENT["project"]["license"] == NPM["license"]
    assert CLIENT["project"]["name"] == NPM["name"] == "geocast-client"


def wanted(name):
    """What requirements/NAME.in asks for, without its comments and the bounds that keep it with other locks."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text("utf-8").splitlines()
    plain = [line.partition("#")[0].strip() for line in lines if not line.startswith("-c")]
    return sorted(line.partition(",")[0] for line in plain if line)


DECLARED = {
    "runtime": PROJECT["project"]["dependencies"],
    **PROJECT["dependency-groups"],
}


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_locked_is_what_is_declared(name):
    """requirements/*.in and pyproject.toml; the wheel has no extras."""
    assert wanted(name) == sorted(DECLARED[name])
    assert "optional-dependencies" not in PROJECT["project"]


def test_the_client_asks_for_no_more_than_the_demo_has():
    """So what the demo is tested with is what the client is tested with."""
    assert set(CLIENT["project"]["dependencies"]) <= set(PROJECT["dependency-groups"]["demo"])


def test_a_bill_of_materials_names_every_package_of_the_lock(tmp_path):
    """`make sbom`: by CycloneDX's own schema, with versions and hashes, and the same each time."""
    files = [tmp_path / name for name in ("one.json", "two.json")]
    for file in files:
        run("sh", "requirements/sbom.sh", file, BIN=str(Path(sys.executable).parent))
    text = files[0].read_text("utf-8")
    assert text == files[1].read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("geocast", geocast.__version__)
    lock = (ROOT / "requirements" / "runtime.txt").read_text("utf-8")
    locked = set(re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", lock, re.MULTILINE))
    assert {(part["name"].lower(), part["version"]) for part in bill["components"]} == locked
    assert all(part["externalReferences"][0]["hashes"] for part in bill["components"])


def test_the_demo_without_its_packages_says_in_one_line_what_it_needs(tmp_path):
    """After `make install` alone: no traceback. (A package that is not there is played by a None for it.)"""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['rich'] = None\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "client_demo", "listen"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .* rich.*make demo.*requirements/demo\.txt\n", done.stderr), done.stderr
