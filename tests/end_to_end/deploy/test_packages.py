"""The published packages: complete, with readable index pages, and usable without the source tree.

The clients' packages are used in test_python_readme.py and in client_demo/web/test_package.py.
"""

import datetime as dt
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

import click
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
COMMIT_FILE = "server/geocast/commit.txt"


def run(*command, cwd=ROOT, **settings):
    """Run a command that must succeed, and return its output."""
    done = ended(*command, cwd=cwd, env=os.environ | settings, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The sdist, and the wheel that is built from the sdist alone."""
    home = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", home)
    [sdist] = home.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(home, filter="data")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home, cwd=home / sdist.name[: -len(".tar.gz")])
    run(sys.executable, "-m", "hatchling", "build", "-d", home, cwd=ROOT / "client_demo" / "python")
    return home


def wheel(dist):
    """Return the server's wheel."""
    [found] = dist.glob("geocast-*.whl")
    return found


def test_sdist_contains_exactly_the_source_tree(dist):
    """Users of the sdist can do everything that CONTRIBUTING.md describes."""
    unpacked = dist / f"geocast-{geocast.__version__}"
    has = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    has -= {"PKG-INFO", COMMIT_FILE}
    linked = {name for name in has if name.startswith("server/geocast_client/")}  # a link in the source tree
    assert {name.replace("server/geocast_client/", "client_demo/python/") for name in linked} <= has
    has -= linked
    assert {"Makefile", "requirements/test.txt", "client_demo/web/package-lock.json", "docs/protocol.md"} <= has
    if not (ROOT / ".git").exists():
        return
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    assert has == {name for name in listed if (ROOT / name).is_file()}


def test_packages_contain_the_commit_that_they_were_built_from(dist, tmp_path):
    """The wheel is built from the sdist, which has no git, and says the same commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    head = run("git", "rev-parse", "--short=12", "HEAD").strip()
    assert (dist / f"geocast-{geocast.__version__}" / COMMIT_FILE).read_text().strip() == head
    with zipfile.ZipFile(wheel(dist)) as archive:
        archive.extractall(tmp_path)
    program = "import geocast; print(geocast.commit())"
    assert run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path)).strip() == head
    assert not (ROOT / COMMIT_FILE).exists()


def test_newest_release_in_the_changelog_is_that_of_the_package():
    """A release is tagged by this heading: `## [0.2.0] - 2026-11-29` becomes v0.2.0."""
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    released, dates = zip(*headings[1:], strict=True)
    assert released[0] == geocast.__version__
    assert list(dates) == sorted(dates, reverse=True)
    for date in dates:
        dt.date.fromisoformat(date)
    if (ROOT / ".git").exists():
        tags = run("git", "tag", "--list", "v*").split()
        assert set(tags) <= {f"v{version}" for version in released}


def test_wheel_contains_all_files_and_runs_without_the_source_tree(dist, tmp_path):
    """The wheel has every file of the package, its types and the licence."""
    here = {str(p.relative_to(ROOT / "server")) for p in (ROOT / "server").rglob("*") if p.is_file()}
    with zipfile.ZipFile(wheel(dist)) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path)
    assert {name for name in here if "__pycache__" not in name} <= names
    client = {f"geocast_client/{path.name}" for path in (ROOT / "client_demo" / "python").glob("*.py")}
    assert {name for name in names if name.startswith("geocast_client/")} == client | {"geocast_client/py.typed"}
    assert "geocast/py.typed" in names
    assert f"geocast-{geocast.__version__}.dist-info/licenses/LICENSE" in names
    program = "import geocast, geocast.cli; print(geocast.__file__)"
    assert run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path)).startswith(str(tmp_path))


def test_geocast_installed_from_the_wheel_into_an_empty_environment_names_version_and_commit(dist, tmp_path):
    """The command runs outside the source tree. Only the required packages come from the environment of the tests."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path)
    run(sys.executable, "-m", "pip", "--python", tmp_path, "install", "--quiet", "--no-index", "--no-deps", wheel(dist))
    [packages] = tmp_path.glob("lib/python*/site-packages")
    (packages / "required.pth").write_text(f"{Path(click.__file__).parents[1]}\n")
    built_in = dist / f"geocast-{geocast.__version__}" / COMMIT_FILE
    head = built_in.read_text("ascii").strip() if (ROOT / ".git").exists() else ""
    shown = f"geocast, version {geocast.__version__}" + (f" (commit {head})" if head else "")
    assert run(tmp_path / "bin" / "geocast", "--version", cwd=tmp_path).strip() == shown
    program = "import geocast, geocast_client; print(geocast.__file__, geocast_client.__file__)"
    used = run(tmp_path / "bin" / "python", "-c", program, cwd=tmp_path).split()
    assert used == [str(packages / name / "__init__.py") for name in ("geocast", "geocast_client")]
    listen = (tmp_path / "bin" / "geocast", "listen", "--lat", "1", "--lng", "2", "--url", "nonsense")
    assert "nonsense isn't a valid URI" in ended(*listen, cwd=tmp_path).stderr
    (tmp_path / "link").symlink_to(tmp_path)  # as in docs/operations/upgrades.md
    assert run(tmp_path / "link" / "bin" / "geocast", "--version", cwd=tmp_path).strip() == shown


def test_package_pages_pass_twine_check_and_link_to_existing_files(dist):
    """The links and pictures on the pages have absolute addresses."""
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


VERSIONS = {
    "CHANGELOG.md": r"^## \[(\d.*?)\] - ",
    "client_demo/home_assistant/custom_components/geocast/manifest.json": r'^  "version": "(.*)"$',
    "client_demo/python/__init__.py": r'^__version__ = "(.*)"$',
    "client_demo/web/geocast/package.json": r'^  "version": "(.*)",$',
    "client_demo/web/package.json": r'^  "version": "(.*)",$',
    "client_demo/web/package-lock.json": r'^  "version": "(.*)",$',
    "docs/asyncapi.json": r'^    "version": "(.*)",$',
    "docs/deploy/kubernetes/kustomization.yaml": r"^ +newTag: (.*)$",
    "docs/deploy/kubernetes/push/kustomization.yaml": r"^ +newTag: (.*)$",
    "docs/operations/upgrades.md": r"^## Upgrading to (.*)$",
}
"""Patterns whose first match in a file is the version of the release."""


@pytest.mark.parametrize("name", VERSIONS)
def test_file_names_the_version_of_the_release(name):
    """The page about geocast names only the first two numbers."""
    text = (ROOT / name).read_text("utf-8")
    assert re.search(VERSIONS[name], text, re.MULTILINE)[1] == geocast.__version__
    about = (ROOT / "docs" / "about.md").read_text("utf-8")
    assert f"This is version {geocast.__version__.rpartition('.')[0]}," in about


def test_address_of_the_project_is_the_same_everywhere():
    """If the project moves, one text has to be replaced by another everywhere."""
    written = set()
    for name in ("pyproject.toml", "SECURITY.md", "client_demo/python/pyproject.toml"):
        text = (ROOT / name).read_text("utf-8")
        written |= set(re.findall(r"https://(?:raw\.githubusercontent|github)\.com/([\w-]+/[\w-]+)", text))
    written |= set(re.findall(r"github\.com/([\w-]+/[\w-]+)", json.dumps(NPM)))
    assert written == {SOURCE.removeprefix("https://github.com/")}
    assert PROJECT["project"]["license"] == CLIENT["project"]["license"] == NPM["license"]
    assert CLIENT["project"]["name"] == NPM["name"] == "geocast-client"


def wanted(name):
    """Return the requirements in requirements/NAME.in, without comments and constraints."""
    lines = (ROOT / "requirements" / f"{name}.in").read_text("utf-8").splitlines()
    plain = [line.partition("#")[0].strip() for line in lines if not line.startswith("-c")]
    return sorted(line.partition(",")[0] for line in plain if line)


DECLARED = {
    "runtime": PROJECT["project"]["dependencies"],
    **PROJECT["dependency-groups"],
}


@pytest.mark.parametrize("name", DECLARED)
def test_locked_requirements_are_those_declared_in_pyproject(name):
    """The wheel has no extras."""
    assert wanted(name) == sorted(DECLARED[name])
    assert "optional-dependencies" not in PROJECT["project"]


def test_requirements_of_the_demo_include_those_of_the_client_package():
    """The tests of the demo therefore use the client's locked packages."""
    assert set(CLIENT["project"]["dependencies"]) <= set(PROJECT["dependency-groups"]["demo"])


def test_bill_of_materials_lists_every_locked_package(tmp_path):
    """`make sbom` writes the same valid CycloneDX document, with versions and hashes, each time."""
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


@pytest.mark.parametrize(
    ("module", "command", "target", "packages"),
    [("client_demo", "demo", "make demo", "demo"), ("bench", "load", "make bench", "bench")],
)
def test_program_started_without_its_packages_names_them_in_one_line(tmp_path, module, command, target, packages):
    """After `make install` alone there is no traceback. None in `sys.modules` simulates the missing package."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['rich'] = None\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    line = [sys.executable, "-m", module, command]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = rf"error: .* rich.*{target}.*requirements/{packages}\.txt\n"
    assert re.fullmatch(said, done.stderr), done.stderr
